//! A disk in memory that knows what was synced, counts syncs and can be told to fail them.

use super::file::{self, Place};
use super::watched::{DiskFaults, Watched};
use super::{Database, StoreError};
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    synced: Vec<u8>,
    syncs: u64,
    /// With what syncs fail.
    syncs_fail: Option<io::ErrorKind>,
    is_full: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<Content>>);

impl MemoryDisk {
    pub(super) fn fail_syncs(&self, with: io::ErrorKind) {
        self.0.lock().unwrap().syncs_fail = Some(with);
    }
    pub(super) fn is_full(&self, is_full: bool) {
        self.0.lock().unwrap().is_full = is_full;
    }
    /// Nobody gets to the disk while the guard lives.
    pub(super) fn hold(&self) -> impl Sized {
        self.0.lock().unwrap()
    }
    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }
    pub(super) fn reopened(&self) -> MemoryDisk {
        MemoryDisk::of(self.0.lock().unwrap().live.clone())
    }
    pub(super) fn after_a_power_cut(&self) -> MemoryDisk {
        MemoryDisk::of(self.0.lock().unwrap().synced.clone())
    }
    fn of(bytes: Vec<u8>) -> MemoryDisk {
        let content = Content { synced: bytes.clone(), live: bytes, ..Content::default() };
        MemoryDisk(Arc::new(Mutex::new(content)))
    }
}

impl Place for MemoryDisk {
    fn database(&self, faults: &Arc<DiskFaults>) -> Result<Database, StoreError> {
        let watched = Watched { storage: self.clone(), faults: Arc::clone(faults) };
        let opened = file::builder().create_with_backend(watched);
        opened.map_err(|error| StoreError::Failed(error.to_string()))
    }
    /// It lies, as a quota does.
    fn has_room(&self) -> bool {
        true
    }
}

impl StorageBackend for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let begin = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().live[begin..begin + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().live.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        if let Some(kind) = content.syncs_fail {
            return Err(kind.into());
        }
        content.synced = content.live.clone();
        content.syncs += 1;
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let begin = usize::try_from(offset).unwrap();
        let mut content = self.0.lock().unwrap();
        // As a file system does: what there is room for is written.
        let taken = if content.is_full { data.len() / 2 } else { data.len() };
        content.live[begin..begin + taken].copy_from_slice(&data[..taken]);
        if taken < data.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
