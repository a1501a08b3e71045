//! The disk as the journal uses it: a handful of verbs, so that a test can fail, tear or lose each of them.
//! Holds: the only use of `std::fs` in the journal; nothing is durable before `sync_data` (contents) and
//! `sync_dir` (names) have returned; what is made here only its owner may read, because payloads lie in it (R8).
//! Absent on purpose: retries. A failed write or sync is reported once and never tried again on the same bytes (R6).

use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// The file system as the journal uses it.
pub trait Disk: Send + Sync {
    /// Makes a directory and those above it; fine where it is there already.
    ///
    /// # Errors
    /// What the operating system said.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// What the operating system said.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Makes a file, empty, in the place of any that is there.
    ///
    /// # Errors
    /// What the operating system said.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists, to read and write.
    ///
    /// # Errors
    /// What the operating system said.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name.
    ///
    /// # Errors
    /// What the operating system said.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the operating system said.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the operating system said.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
    /// Takes the lock file and writes `note` into it, unless somebody else holds it.
    ///
    /// # Errors
    /// What the operating system said.
    fn lock(&self, path: &Path, note: &str) -> io::Result<LockAttempt>;
}

/// A file that is open.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the operating system said.
    fn size(&self) -> io::Result<u64>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the operating system said; how much was written is then unknown.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads up to `into.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the operating system said.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Returns once everything written before is on stable storage.
    ///
    /// # Errors
    /// What the operating system said; nothing may then be believed of the bytes written since the last success.
    fn sync_data(&self) -> io::Result<()>;
}

/// Whether there was no room for what was to be written.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the process or the system ran short of something other than the disk, which says nothing against the disk.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether the bytes cannot be had from where they lie: a bad sector, or a checksum of the file system.
pub(super) fn is_medium_error(error: &io::Error) -> bool {
    [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// A lock that is held until this value is dropped or the process ends, however it ends.
pub trait Held: Send + Sync {}

/// What came of trying to lock.
pub enum LockAttempt {
    /// It is ours.
    Taken(Box<dyn Held>),
    /// Somebody else has it; what they wrote into it.
    HeldByOther(String),
}

/// The operating system's file system.
pub struct RealDisk;

/// The operating system's file system for those who only look: whatever would write is refused.
pub struct ReadOnlyDisk;

struct RealFile(File);
struct RealLock(#[expect(dead_code, reason = "closing the file releases the lock")] File);
impl Held for RealLock {}

/// There is no lock file, so no process has ever opened the journal there.
struct NothingToHold;
impl Held for NothingToHold {}

/// To make a file, if it is not there, that only its owner may open.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = private().truncate(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
    fn lock(&self, path: &Path, note: &str) -> io::Result<LockAttempt> {
        let mut file = private().truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all(note.as_bytes())?;
                Ok(LockAttempt::Taken(Box::new(RealLock(file))))
            }
            Err(TryLockError::WouldBlock) => Ok(LockAttempt::HeldByOther(read_note(file)?)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Disk for ReadOnlyDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }
    fn create(&self, _path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(path)?)))
    }
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Several may look at once; none while a process has the journal open, and no process opens it meanwhile.
    fn lock(&self, path: &Path, _note: &str) -> io::Result<LockAttempt> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LockAttempt::Taken(Box::new(NothingToHold)));
            }
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(LockAttempt::Taken(Box::new(RealLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(LockAttempt::HeldByOther(read_note(file)?)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Who holds a lock, as they wrote it down.
fn read_note(file: File) -> io::Result<String> {
    let mut note = String::new();
    file.take(64).read_to_string(&mut note)?;
    Ok(note)
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match self.0.read_at(&mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
