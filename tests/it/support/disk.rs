//! The real disk with a step in front of every sync of a journal segment: the step may wait, or fail.

use hookbus::journal::{Disk, DiskFile, LockAttempt, RealDisk};
use std::io;
use std::path::Path;
use std::sync::Arc;

type Step = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// See above.
pub struct SteppedDisk(Step);

struct SteppedFile(Box<dyn DiskFile>, Step);

impl SteppedDisk {
    /// `before_sync` is taken before each sync of a segment; its error is the sync's.
    pub fn new(before_sync: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(SteppedDisk(Arc::new(before_sync)))
    }

    fn stepped(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        // A segment is made under the name `.new` and keeps its open file when it is renamed.
        let is_segment = path.extension().is_some_and(|extension| extension == "seg" || extension == "new");
        if is_segment { Box::new(SteppedFile(file, Arc::clone(&self.0))) } else { file }
    }
}

impl Disk for SteppedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.stepped(path, RealDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.stepped(path, RealDisk.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_dir(directory)
    }
    fn lock(&self, path: &Path, note: &str) -> io::Result<LockAttempt> {
        RealDisk.lock(path, note)
    }
}

impl DiskFile for SteppedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        (self.1)()?;
        self.0.sync_data()
    }
}
