//! A disk in memory that forgets what was not synced: any subset of the unsynced writes and names survives a crash, and
//! any write may be torn, at any byte or sector by sector. It can crash at any step, fail any one operation, be full,
//! and be damaged.

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
    /// In the order they were made; each is whole or not at all, as a rename is.
    unsynced_names: Vec<Vec<(PathBuf, Option<usize>)>>,
    life: u64,
    is_locked: bool,
    steps: u64,
    crash_at: Option<u64>,
    crashed: bool,
    fail_writes: bool,
    fail_syncs: bool,
    /// With which error of the system making a file fails.
    fail_creates: Option<i32>,
    /// After how many steps one operation fails, and how.
    fault: Option<(u64, Fault)>,
    /// An operation, as `read j/00000001.seg`, that brings down whoever does it the next time.
    panics: Option<String>,
    /// One operation on one file, by name, that fails the next time.
    targets: Vec<(String, Fault)>,
    /// Every operation that was tried on a file or a directory, in order.
    operations: Vec<String>,
    /// The faults that happened.
    faults: Vec<Fault>,
    /// Where a file cannot be read.
    bad: Vec<(usize, std::ops::Range<usize>)>,
    /// What was synced and renamed, in order.
    log: Vec<String>,
    /// Bytes that all files together may take.
    room: Option<usize>,
}

/// How one operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The disk: a write is short, what a sync was to cover is forgotten though it can still be read.
    Broken,
    /// No room is left.
    NoRoom,
    /// The process has no file descriptor left to open or make a file with.
    Shortage,
}

impl Fault {
    fn error(self) -> io::Error {
        let errno = match self {
            Fault::Broken => rustix::io::Errno::IO,
            Fault::NoRoom => rustix::io::Errno::NOSPC,
            Fault::Shortage => rustix::io::Errno::MFILE,
        };
        errno.into()
    }
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

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// What of an unsynced write is there after the power failed: nothing, all, a part up to any byte, or any sectors.
fn survive(dice: &mut Dice, durable: &mut Vec<u8>, at: usize, write: &[u8]) {
    match dice.below(5) {
        0 | 1 => {}
        2 => apply(durable, at, write),
        3 => apply(durable, at, &write[..dice.below(write.len() + 1)]),
        _ => {
            let mut from = 0;
            while from < write.len() {
                let to = ((at + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - at).min(write.len());
                if dice.below(2) == 0 {
                    apply(durable, at + from, &write[from..to]);
                }
                from = to;
            }
        }
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
    /// Whether another life of the process has begun.
    pub(super) fn is_past(&self) -> bool {
        self.state.lock().unwrap().life != self.life
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
    /// After so many more steps, the first operation that can fails like this, once.
    pub(super) fn fail_after(&self, steps: u64, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fault = Some((state.steps + steps, fault));
    }
    /// Fails the next operation like `write j/00000001.seg`, `sync j/`, or `rename j/00000002.new`.
    pub(super) fn fail_once(&self, operation: &str, fault: Fault) {
        self.state.lock().unwrap().targets.push((operation.to_owned(), fault));
    }
    /// Brings down the thread that does `create j/00000002.new`, or `sync` or `read` of a file, the next time.
    pub(super) fn panic_once(&self, operation: &str) {
        self.state.lock().unwrap().panics = Some(operation.to_owned());
    }
    fn may_panic(&self, what: &str, name: impl FnOnce(&State) -> String) {
        let mut state = self.state.lock().unwrap();
        if state.panics.is_none() {
            return;
        }
        let operation = format!("{what} {}", name(&state));
        let hit = state.panics.take_if(|wanted| *wanted == operation);
        drop(state);
        assert!(hit.is_none(), "a defect");
    }
    /// The operations that were tried, in order and also those that failed: `write PATH`, `sync PATH`, `rename PATH`, …
    pub(super) fn operations(&self) -> Vec<String> {
        self.state.lock().unwrap().operations.clone()
    }
    /// The faults that happened so far.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.state.lock().unwrap().faults.clone()
    }
    /// Nothing that was planned happens any more.
    pub(super) fn calm(&self) {
        let mut state = self.state.lock().unwrap();
        (state.fault, state.crash_at) = (None, None);
    }
    /// Reads of these bytes of a file fail from now on, until they are written over.
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
        for changes in std::mem::take(&mut state.unsynced_names) {
            if dice.below(2) == 0 {
                changes.into_iter().for_each(|(path, inode)| name(&mut state.durable_names, path, inode));
            }
        }
        let named: std::collections::BTreeSet<usize> = state.durable_names.values().copied().collect();
        for (number, inode) in state.inodes.iter_mut().enumerate() {
            if !named.contains(&number) {
                *inode = Inode::default();
                continue;
            }
            for (at, write) in std::mem::take(&mut inode.unsynced) {
                survive(&mut dice, &mut inode.durable, at, &write);
            }
            inode.current = inode.durable.clone();
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
    fn name(&self, operation: String, changes: Vec<(PathBuf, Option<usize>)>) -> io::Result<()> {
        let mut state = self.step()?;
        if let Some(fault) = state.fault_of(operation, &[Fault::Broken, Fault::NoRoom]) {
            return Err(fault.error());
        }
        for (path, inode) in &changes {
            name(&mut state.names, path.clone(), *inode);
        }
        state.unsynced_names.push(changes);
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

impl State {
    fn name_of(&self, inode: usize) -> String {
        let named = self.names.iter().find(|(_, of)| **of == inode);
        named.map_or_else(String::new, |(path, _)| path.display().to_string())
    }
    /// The fault that happens to an operation now, if it is one of those that can happen to it.
    fn fault_of(&mut self, operation: String, possible: &[Fault]) -> Option<Fault> {
        let target = self.targets.iter().position(|(target, _)| *target == operation);
        self.operations.push(operation);
        match target {
            Some(target) => {
                let (_, fault) = self.targets.remove(target);
                self.faults.push(fault);
                Some(fault)
            }
            None => self.fault_among(possible),
        }
    }
    fn fault_among(&mut self, possible: &[Fault]) -> Option<Fault> {
        let (_, fault) = self.fault.filter(|(at, fault)| self.steps > *at && possible.contains(fault))?;
        self.fault = None;
        self.faults.push(fault);
        Some(fault)
    }
    /// A page of which a part is written is read first.
    fn is_in_the_way(&self, inode: usize, written: &std::ops::Range<usize>) -> bool {
        let there = self.inodes[inode].current.len();
        let pages = [written.start, written.end - 1].map(|at| at / PAGE_BYTES * PAGE_BYTES);
        pages.into_iter().any(|page| {
            let is_whole = written.start <= page && page + PAGE_BYTES <= written.end;
            let is_bad = |(of, bad): &(usize, std::ops::Range<usize>)| {
                *of == inode && bad.start < page + PAGE_BYTES && page < bad.end
            };
            !is_whole && page < there && self.bad.iter().any(is_bad)
        })
    }
    /// A page that is written is good again: the disk puts other sectors in its place.
    fn write_over(&mut self, inode: usize, written: std::ops::Range<usize>) {
        let written = written.start / PAGE_BYTES * PAGE_BYTES..written.end.next_multiple_of(PAGE_BYTES);
        for (_, bad) in self.bad.iter_mut().filter(|(of, _)| *of == inode) {
            if written.start <= bad.start && bad.start < written.end {
                bad.start = written.end.min(bad.end);
            } else if written.contains(&(bad.end - 1)) {
                bad.end = written.start;
            }
        }
        self.bad.retain(|(_, bad)| !bad.is_empty());
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
        self.may_panic("create", |_| path.display().to_string());
        let inode = {
            let mut state = self.state.lock().unwrap();
            if let Some(errno) = state.fail_creates {
                return Err(io::Error::from_raw_os_error(errno));
            }
            if let Some(fault) = state.fault_among(&[Fault::Shortage]) {
                return Err(fault.error());
            }
            state.inodes.push(Inode::default());
            state.inodes.len() - 1
        };
        self.name(format!("create {}", path.display()), vec![(path.to_owned(), Some(inode))])?;
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if let Some(fault) = self.state.lock().unwrap().fault_among(&[Fault::Shortage]) {
            return Err(fault.error());
        }
        Ok(Box::new(MemoryFile { disk: self.clone(), inode: self.find(path)? }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let operation = format!("rename {}", from.display());
        self.name(operation.clone(), vec![(to.to_owned(), Some(inode)), (from.to_owned(), None)])?;
        self.note(operation);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        let operation = format!("remove {}", path.display());
        self.name(operation.clone(), vec![(path.to_owned(), None)])?;
        self.note(operation);
        Ok(())
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let operation = format!("sync {}/", directory.display());
        if let Some(fault) = state.fault_of(operation, &[Fault::Broken, Fault::NoRoom, Fault::Shortage]) {
            // The names stay to be synced: a file system that loses them has ended its life.
            return Err(fault.error());
        }
        state.log.push(format!("sync {}/", directory.display()));
        let is_inside = |changes: &Vec<(PathBuf, Option<usize>)>| changes[0].0.parent() == Some(directory);
        let (synced, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.unsynced_names).into_iter().partition(is_inside);
        state.unsynced_names = others;
        for (path, inode) in synced.into_iter().flatten() {
            name(&mut state.durable_names, path, inode);
        }
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
        if !bytes.is_empty() && state.is_in_the_way(self.inode, &(at..at + bytes.len())) {
            return Err(rustix::io::Errno::IO.into());
        }
        let operation = format!("write {}", state.name_of(self.inode));
        let fault = state.fault_of(operation, &[Fault::Broken, Fault::NoRoom]);
        let bytes = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        if !bytes.is_empty() {
            state.write_over(self.inode, at..at + bytes.len());
            let inode = &mut state.inodes[self.inode];
            apply(&mut inode.current, at, bytes);
            inode.unsynced.push((at, bytes.to_vec()));
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.may_panic("read", |state| state.name_of(self.inode));
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
        self.disk.may_panic("sync", |state| state.name_of(self.inode));
        let mut state = self.disk.step()?;
        let operation = format!("sync {}", state.name_of(self.inode));
        let fault = state.fault_of(operation, &[Fault::Broken, Fault::NoRoom]);
        let fails = state.fail_syncs || fault.is_some();
        let inode = &mut state.inodes[self.inode];
        let unsynced = std::mem::take(&mut inode.unsynced);
        if fails {
            // As kernels do: the pages are clean now, and their contents are lost with the power.
            return Err(fault.unwrap_or(Fault::Broken).error());
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
