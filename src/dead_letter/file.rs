//! The store's file: made for its owner alone, its name durable before anything in it is.
//! Holds: R2's "durably written" (a file whose directory entry is lost with the power is not durable).
//! Through rustix, because redb opens files with everybody's permissions and leaves the directory unsynced.
//! [`inspect`] opens it without ever writing: what redb repairs after a crash is repaired in memory.

use super::types::StoreError;
use super::watched::{DiskFaults, Watched};
use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Its name in the data directory.
pub(super) const FILE_NAME: &str = "dead-letters.redb";
/// Pages kept in memory. redb's own default is 1 GiB, which is more than a daemon should take for a rare thing.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// With less than this it is not tried whether a disk has room again: each try reads the whole store.
const ROOM_BYTES_MIN: u64 = 1 << 20;

/// The most that an inspection changes in memory: the bookkeeping of a repair is far smaller.
const CHANGED_BYTES_MAX: usize = 256 << 20;
/// The piece in which an inspection remembers changes.
const PIECE_BYTES: usize = 4096;

/// Where the store is kept, for as long as it is open.
pub(super) trait Place: Send + Sync + 'static {
    /// Opens the database and repairs what was left behind; its faults go into `faults`. Nobody may have it open.
    fn database(&self, faults: &Arc<DiskFaults>) -> Result<Database, StoreError>;
    /// Whether there is room enough to try again.
    fn has_room(&self) -> bool;
}

/// The file, kept open: opening its database again can neither miss it nor find another one in its stead.
pub(super) struct StoreFile {
    file: OwnedFd,
    path: PathBuf,
}

impl StoreFile {
    /// Opens or makes it in `directory`, which must exist.
    pub(super) fn open(directory: &Path) -> Result<StoreFile, StoreError> {
        let path = directory.join(FILE_NAME);
        let failed = |error: Errno| StoreError::Failed(format!("{}: {error}", path.display()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(directory, flags, Mode::empty()).map_err(failed)?;
        rustix::fs::fsync(&folder).map_err(failed)?;
        Ok(StoreFile { file, path })
    }
}

impl Place for StoreFile {
    fn database(&self, faults: &Arc<DiskFaults>) -> Result<Database, StoreError> {
        let failed = |problem: &dyn std::fmt::Display| {
            StoreError::Failed(format!("{}: {problem}", self.path.display()))
        };
        let file = self.file.try_clone().map_err(|error| failed(&error))?;
        let storage = FileBackend::new(file.into()).map_err(|error| failed(&error))?;
        let watched = Watched { storage, faults: Arc::clone(faults) };
        builder().create_with_backend(watched).map_err(|error| failed(&error))
    }

    fn has_room(&self) -> bool {
        rustix::fs::fstatvfs(&self.file)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM_BYTES_MIN)
    }
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES_MAX);
    builder
}

/// Opens the file in `directory` to look at it; `None` where there is none. Nobody may have it open for writing.
pub(super) fn inspect(directory: &Path) -> Result<Option<Database>, StoreError> {
    let path = directory.join(FILE_NAME);
    let failed =
        |problem: &dyn std::fmt::Display| StoreError::Failed(format!("{}: {problem}", path.display()));
    let file = match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let bytes = rustix::fs::fstat(&file).map_err(|error| failed(&error))?.st_size.cast_unsigned();
    if bytes == 0 {
        return Ok(None);
    }
    let untouched = Untouched { file, bytes, over: Mutex::new(Over { len: bytes, pieces: BTreeMap::new() }) };
    builder().create_with_backend(untouched).map(Some).map_err(|error| failed(&error))
}

/// A file that is only read; what is written stays in memory, over it.
#[derive(Debug)]
struct Untouched {
    file: OwnedFd,
    bytes: u64,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    len: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Untouched {
    /// What the file says; zeros beyond its end.
    fn read_file(&self, mut offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut rest = &mut *into;
        while !rest.is_empty() && offset < self.bytes {
            match rustix::io::pread(&self.file, &mut *rest, offset)? {
                0 => break,
                read => {
                    offset += read as u64;
                    rest = &mut rest[read..];
                }
            }
        }
        rest.fill(0);
        Ok(())
    }
}

/// The piece that `offset` lies in, where it lies there, and how many of `count` bytes do.
fn place(offset: u64, count: usize) -> (u64, usize, usize) {
    let within = usize::try_from(offset % PIECE_BYTES as u64).expect("below a piece");
    (offset - within as u64, within, count.min(PIECE_BYTES - within))
}

impl StorageBackend for Untouched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over.lock().unwrap_or_else(PoisonError::into_inner).len)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if offset.saturating_add(out.len() as u64) > over.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(offset, out)?;
        let mut done = 0;
        while done < out.len() {
            let (piece, within, count) = place(offset + done as u64, out.len() - done);
            if let Some(changed) = over.pieces.get(&piece) {
                out[done..done + count].copy_from_slice(&changed[within..within + count]);
            }
            done += count;
        }
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).len = len;
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < data.len() {
            let (piece, within, count) = place(offset + done as u64, data.len() - done);
            if !over.pieces.contains_key(&piece) {
                if over.pieces.len() * PIECE_BYTES >= CHANGED_BYTES_MAX {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                let mut bytes = vec![0; PIECE_BYTES];
                self.read_file(piece, &mut bytes)?;
                over.pieces.insert(piece, bytes);
            }
            if let Some(bytes) = over.pieces.get_mut(&piece) {
                bytes[within..within + count].copy_from_slice(&data[done..done + count]);
            }
            done += count;
        }
        Ok(())
    }
}
