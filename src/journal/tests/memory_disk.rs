//! A disk in memory that forgets what was not synced: any subset of the unsynced writes survives a crash, and any of
//! them may be torn. It can crash at any step, fail the next write or sync, and be full.

use super::super::disk::{Disk, DiskFile, Held, LockAttempt};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Inode {
    durable: Vec<u8>,
    /// What a reader sees: the page cache.
    current: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// In the order they were made; a crash keeps the first few.
    unsynced_names: Vec<(PathBuf, Option<usize>)>,
    life: u64,
    is_locked: bool,
    steps: u64,
    crash_at: Option<u64>,
    crashed: bool,
    fail_writes: bool,
    fail_syncs: bool,
    /// With which error of the system making a file fails.
    fail_creates: Option<i32>,
    /// Where a file cannot be read.
    bad: Vec<(usize, std::ops::Range<usize>)>,
    /// What was synced and renamed, in order.
    log: Vec<String>,
    /// Bytes that all files together may take.
    room: Option<usize>,
}

/// One process's view of the disk.
#[derive(Clone)]
pub(super) struct MemoryDisk {
    state: Arc<Mutex<State>>,
    life: u64,
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
}

struct MemoryLock(MemoryDisk);
impl Held for MemoryLock {}
impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        if state.life == self.0.life {
            state.is_locked = false;
        }
    }
}

/// A few random bits a time, from a seed.
struct Dice(u64);
impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn apply(bytes: &mut Vec<u8>, at: usize, write: &[u8]) {
    if bytes.len() < at + write.len() {
        bytes.resize(at + write.len(), 0);
    }
    bytes[at..at + write.len()].copy_from_slice(write);
}

impl MemoryDisk {
    pub(super) fn new() -> MemoryDisk {
        MemoryDisk { state: Arc::default(), life: 0 }
    }
    /// Lets the disk crash after so many more steps.
    pub(super) fn crash_after(&self, steps: u64) {
        let mut state = self.state.lock().unwrap();
        state.crash_at = Some(state.steps + steps);
    }
    pub(super) fn has_crashed(&self) -> bool {
        self.state.lock().unwrap().crashed
    }
    pub(super) fn fail_writes(&self, fail: bool) {
        self.state.lock().unwrap().fail_writes = fail;
    }
    pub(super) fn fail_syncs(&self, fail: bool) {
        self.state.lock().unwrap().fail_syncs = fail;
    }
    pub(super) fn fail_creates(&self, errno: Option<i32>) {
        self.state.lock().unwrap().fail_creates = errno;
    }
    /// Reads of these bytes of a file fail from now on.
    pub(super) fn make_unreadable(&self, path: &Path, bytes: std::ops::Range<usize>) {
        let mut state = self.state.lock().unwrap();
        let inode = state.names[path];
        state.bad.push((inode, bytes));
    }
    pub(super) fn make_readable(&self) {
        self.state.lock().unwrap().bad.clear();
    }
    pub(super) fn limit_room(&self, bytes: Option<usize>) {
        self.state.lock().unwrap().room = bytes;
    }
    /// The bytes of a file, as a reader sees them.
    pub(super) fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        state.inodes[state.names[path]].current.clone()
    }
    /// The names of the files in a directory.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let mut names = self.list(Path::new(directory)).unwrap();
        names.sort();
        names
    }
    /// What happened, in order: `sync PATH`, `remove PATH`, `rename PATH`, `sync DIRECTORY/`.
    pub(super) fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }
    /// Removes a file behind everybody's back.
    pub(super) fn unlink(&self, path: &Path) {
        let mut state = self.state.lock().unwrap();
        state.names.remove(path).unwrap();
        state.durable_names.remove(path);
    }
    /// Changes a file behind everybody's back.
    pub(super) fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock().unwrap();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        change(&mut inode.current);
        inode.durable = inode.current.clone();
        inode.unsynced.clear();
    }
    /// An independent disk with the same contents.
    pub(super) fn copy(&self) -> MemoryDisk {
        let old = self.state.lock().unwrap();
        let mut state =
            State { names: old.names.clone(), durable_names: old.names.clone(), ..State::default() };
        for inode in &old.inodes {
            let current = inode.current.clone();
            state.inodes.push(Inode { durable: current.clone(), current, unsynced: Vec::new() });
        }
        MemoryDisk { state: Arc::new(Mutex::new(state)), life: 0 }
    }
    /// The process dies, the system lives: everything written can be read.
    pub(super) fn after_kill(&self) -> MemoryDisk {
        let mut state = self.state.lock().unwrap();
        state.life += 1;
        (state.is_locked, state.crashed, state.crash_at) = (false, false, None);
        (state.fail_writes, state.fail_syncs, state.fail_creates) = (false, false, None);
        MemoryDisk { state: Arc::clone(&self.state), life: state.life }
    }
    /// The power fails: of what was not synced, `seed` decides what survives.
    pub(super) fn after_crash(&self, seed: u64) -> MemoryDisk {
        let next = self.after_kill();
        let mut dice = Dice(seed);
        let mut state = self.state.lock().unwrap();
        for inode in &mut state.inodes {
            for (at, mut write) in std::mem::take(&mut inode.unsynced) {
                if dice.below(3) == 0 {
                    write.truncate(dice.below(write.len() + 1));
                }
                if dice.below(2) == 0 {
                    apply(&mut inode.durable, at, &write);
                }
            }
            inode.current = inode.durable.clone();
        }
        let mut unsynced = std::mem::take(&mut state.unsynced_names);
        unsynced.truncate(dice.below(unsynced.len() + 1));
        for (path, inode) in unsynced {
            name(&mut state.durable_names, path, inode);
        }
        state.names = state.durable_names.clone();
        drop(state);
        next
    }

    /// Counts a step that changes the disk and tells whether it may happen.
    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap();
        if state.life != self.life {
            return Err(io::Error::other("of an earlier life"));
        }
        state.steps += 1;
        if state.crash_at.is_some_and(|at| state.steps > at) {
            state.crashed = true;
        }
        if state.crashed { Err(io::Error::other("crashed")) } else { Ok(state) }
    }
    fn name(&self, changes: Vec<(PathBuf, Option<usize>)>) -> io::Result<()> {
        let mut state = self.step()?;
        for (path, inode) in changes {
            name(&mut state.names, path.clone(), inode);
            state.unsynced_names.push((path, inode));
        }
        Ok(())
    }
    fn note(&self, event: String) {
        self.state.lock().unwrap().log.push(event);
    }
    fn find(&self, path: &Path) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        state.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn name(names: &mut BTreeMap<PathBuf, usize>, path: PathBuf, inode: Option<usize>) {
    match inode {
        Some(inode) => names.insert(path, inode),
        None => names.remove(&path),
    };
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock().unwrap();
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = {
            let mut state = self.state.lock().unwrap();
            if let Some(errno) = state.fail_creates {
                return Err(io::Error::from_raw_os_error(errno));
            }
            state.inodes.push(Inode::default());
            state.inodes.len() - 1
        };
        self.name(vec![(path.to_owned(), Some(inode))])?;
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(MemoryFile { disk: self.clone(), inode: self.find(path)? }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        self.name(vec![(to.to_owned(), Some(inode)), (from.to_owned(), None)])?;
        self.note(format!("rename {}", from.display()));
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.name(vec![(path.to_owned(), None)])?;
        self.note(format!("remove {}", path.display()));
        Ok(())
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.log.push(format!("sync {}/", directory.display()));
        state.unsynced_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
    fn lock(&self, _path: &Path, note: &str) -> io::Result<LockAttempt> {
        let mut state = self.state.lock().unwrap();
        if std::mem::replace(&mut state.is_locked, true) {
            return Ok(LockAttempt::HeldByOther(note.to_owned()));
        }
        Ok(LockAttempt::Taken(Box::new(MemoryLock(self.clone()))))
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().unwrap().inodes[self.inode].current.len() as u64)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.step()?;
        if state.fail_writes {
            return Err(io::Error::other("a write that was made to fail"));
        }
        let at = usize::try_from(offset).unwrap();
        let used: usize = state.names.values().map(|inode| state.inodes[*inode].current.len()).sum();
        let grows = (at + bytes.len()).saturating_sub(state.inodes[self.inode].current.len());
        if state.room.is_some_and(|room| grows > 0 && used + grows > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut state.inodes[self.inode];
        apply(&mut inode.current, at, bytes);
        inode.unsynced.push((at, bytes.to_vec()));
        Ok(())
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state.lock().unwrap();
        let current = &state.inodes[self.inode].current;
        let rest = current.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(into.len());
        let start = usize::try_from(offset).unwrap();
        let hits = |bad: &std::ops::Range<usize>| bad.start < start + count && start < bad.end;
        if state.bad.iter().any(|(inode, bad)| *inode == self.inode && hits(bad)) {
            return Err(rustix::io::Errno::IO.into());
        }
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.step()?;
        let fails = state.fail_syncs;
        let inode = &mut state.inodes[self.inode];
        let unsynced = std::mem::take(&mut inode.unsynced);
        if fails {
            // As kernels do: the pages are clean now, and their contents are lost with the power.
            return Err(io::Error::other("a sync that was made to fail"));
        }
        for (at, write) in unsynced {
            apply(&mut inode.durable, at, &write);
        }
        let path = state.names.iter().find(|(_, inode)| **inode == self.inode).map(|(path, _)| path.clone());
        if let Some(path) = path {
            state.log.push(format!("sync {}", path.display()));
        }
        Ok(())
    }
}
