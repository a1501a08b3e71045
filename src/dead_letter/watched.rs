//! The storage under the database, watched: what failed decides whether the file may be opened again.
//! Holds: R6 (after a failed sync, or an error of the disk itself, nothing is tried again). A write that found no room is
//! another matter: nothing is amiss with what is there, the last commit stands, and opening the file again is what a new
//! start would do.

use redb::{BackendError, StorageBackend};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What has failed since the database was opened.
#[derive(Debug, Default)]
pub(super) struct DiskFaults {
    ran_out_of_room: AtomicBool,
    failed: AtomicBool,
}

impl DiskFaults {
    /// Whether room was missing, and nothing else was wrong.
    pub(super) fn only_room_is_missing(&self) -> bool {
        self.ran_out_of_room.load(Ordering::Relaxed) && !self.disk_failed()
    }
    /// Whether anything but room was missing.
    pub(super) fn disk_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// A storage whose faults are remembered.
#[derive(Debug)]
pub(super) struct Watched<B> {
    pub storage: B,
    pub faults: Arc<DiskFaults>,
}

impl<B> Watched<B> {
    /// Of what leaves the file as it was, or a piece of it in a state that no commit has named.
    fn written<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                self.faults.ran_out_of_room.store(true, Ordering::Relaxed)
            }
            _ => self.faults.failed.store(true, Ordering::Relaxed),
        })
    }
    /// Of what must not fail: of a sync that found no room nobody knows what it has left unwritten.
    fn trusted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|_any| self.faults.failed.store(true, Ordering::Relaxed))
    }
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> io::Result<u64> {
        self.trusted(self.storage.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.trusted(self.storage.read(offset, out))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written(self.storage.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.trusted(self.storage.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written(self.storage.write(offset, data))
    }
    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.query_lock_range(start, end)
    }
}
