//! The store's file: made for its owner alone, its name durable before anything in it is.
//! Holds: R2's "durably written" (a file whose directory entry is lost with the power is not durable).
//! Through rustix, because redb opens files with everybody's permissions and leaves the directory unsynced.

use super::types::StoreError;
use redb::{Builder, Database};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// Its name in the data directory.
pub(super) const FILE_NAME: &str = "dead-letters.redb";
/// Pages kept in memory. redb's own default is 1 GiB, which is more than a daemon should take for a rare thing.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// Opens or makes the file in `directory`, which must exist; repairs what a crash left behind.
pub(super) fn open(directory: &Path) -> Result<Database, StoreError> {
    let path = directory.join(FILE_NAME);
    let failed =
        |problem: &dyn std::fmt::Display| StoreError::Failed(format!("{}: {problem}", path.display()));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed(&error))?;
    let folder =
        rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(&error))?;
    rustix::fs::fsync(&folder).map_err(|error| failed(&error))?;
    builder().create_file(file.into()).map_err(|error| failed(&error))
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES_MAX);
    builder
}
