//! A disk in memory that knows what was synced, counts syncs and can be told to fail them.

use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    synced: Vec<u8>,
    syncs: u64,
    syncs_fail: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<Content>>);

impl MemoryDisk {
    pub(super) fn fail_syncs(&self) {
        self.0.lock().unwrap().syncs_fail = true;
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
        if content.syncs_fail {
            return Err(io::Error::other("injected"));
        }
        content.synced = content.live.clone();
        content.syncs += 1;
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let begin = usize::try_from(offset).unwrap();
        self.0.lock().unwrap().live[begin..begin + data.len()].copy_from_slice(data);
        Ok(())
    }
}
