//! Opening what an earlier process left, however it ended: the lock, the segments, the cursors, the identities.
//! Holds: R1 (what is found is synced again before anything is vouched for), R2 (a cursor is never newer than what was
//! saved, and no sequence number that a cursor has settled is given out again); a damaged file never stops a start.
//!
//! A bad record with no sound one behind it is the torn end of an unanswered write, and is cut. With one, it is
//! damage: that range is set aside and everything else stays.

use super::cursor::{Progress, Standing};
use super::cursor_file::{self, Loaded, Slots};
use super::damage;
use super::dedupe::Remembered;
use super::disk::{Disk, DiskFile, Held, LockAttempt};
use super::record::ALIGNMENT;
use super::salvage;
use super::scan::{Scanner, Step};
use super::segment::{self, Active, HEADER_BYTES, Header, HeaderFound, SyncedThrough};
use super::shared::{Cursor, CursorState, Paths};
use super::table::{Segment, Table};
use super::types::{CursorSpec, Dedupe, OpenError};
use crate::clock;
use crate::telemetry::metrics::journal as metrics;
use crate::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// What there was.
pub(super) struct Recovered {
    pub table: Table,
    pub active: Option<(Active, SyncedThrough)>,
    pub remembered: Remembered,
    /// When the last identity in the active segment may be forgotten.
    pub remember_until: UnixMs,
    pub next_sequence: u64,
    pub next_number: u64,
    pub cursors: HashMap<String, Arc<Cursor>>,
    pub damaged: damage::Kept,
}

/// A segment that can be believed.
struct Found {
    header: Header,
    bytes: u64,
    /// Both copies of the header were lost, and what it says of the segment before with them.
    is_rebuilt: bool,
    /// When its last identity may be forgotten, where that was read from the segment itself.
    remember_until: UnixMs,
}

impl Found {
    /// Whether its header speaks of `before`.
    fn tells_of(&self, before: &Found) -> bool {
        !self.is_rebuilt && self.header.number == before.header.number + 1
    }
}

/// What a scan of the last segment gave.
struct Tail {
    /// The last sound record, or the one before the segment's first.
    last: u64,
    newest_ms: UnixMs,
    remember_until: UnixMs,
    identities: Vec<(Dedupe, UnixMs)>,
    /// Where the sound records end, and where zeros begin.
    ends: (u64, u64),
    /// Its end is there and cannot be read: nothing goes behind it.
    is_closed: bool,
    scanner: Scanner,
}

/// Names the file that an error is about.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.display().to_string();
    move |source| OpenError::Io { path, source }
}

/// Takes the directory for this process.
///
/// # Errors
/// [`OpenError::Locked`], or [`OpenError::Io`].
pub(super) fn lock_directory(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn Held>, OpenError> {
    let path = directory.join("lock");
    match disk.lock(&path, &std::process::id().to_string()).map_err(at(&path))? {
        LockAttempt::Taken(held) => Ok(held),
        LockAttempt::HeldByOther(note) => Err(OpenError::Locked {
            path: directory.display().to_string(),
            pid: note.trim().parse().unwrap_or(0),
        }),
    }
}

/// Reads what is there; the directory is locked.
///
/// # Errors
/// [`OpenError`].
pub(super) fn recover(
    disk: &dyn Disk,
    paths: &Paths,
    specs: &[CursorSpec],
    dedupe_max: u32,
) -> Result<Recovered, OpenError> {
    let (mut found, next_number) = find_segments(disk, paths)?;
    let mut tail = found.last().map(|last| scan_last(disk, paths, last)).transpose()?;
    let remembered = remember(disk, paths, &mut found, tail.as_mut(), dedupe_max)?;
    let mut next_sequence = tail.as_ref().map_or(1, |tail| tail.last + 1);
    let mut loaded = load_cursors(disk, paths, specs)?;
    next_sequence = next_sequence.max(loaded.highest + 1);
    if let (Some(last), Some(tail)) = (found.last(), &tail)
        && loaded.highest > tail.last
    {
        // A cursor settles only what is durable: the end of the segment was there once.
        let end = tail.ends.0..tail.ends.0;
        let path = segment_path(paths, last.header.number);
        damage::set_aside(disk, paths, last.header.number, &tail.scanner, &end).map_err(at(&path))?;
    }
    let cursors = open_cursors(disk, paths, specs, &mut loaded, &found, next_sequence)?;

    let segments = found.iter().enumerate().map(|(index, one)| {
        let next = found.get(index + 1);
        describe(one, next, tail.as_ref())
    });
    let table = Table::new(segments.collect(), !found.is_empty());
    let active = match (found.pop(), &tail) {
        (Some(last), Some(tail)) => {
            let path = segment_path(paths, last.header.number);
            let file = disk.open(&path).map_err(at(&path))?.into();
            let (mut active, synced) =
                Active::resume(file, path.clone(), last.header, tail.ends, next_sequence - 1)
                    .map_err(at(&path))?;
            if tail.is_closed {
                active.take_no_more();
            }
            Some((active, synced))
        }
        _ => None,
    };
    Ok(Recovered {
        table,
        active,
        remembered,
        remember_until: tail.map_or(UnixMs(i64::MIN), |tail| tail.remember_until),
        next_sequence,
        next_number,
        cursors,
        damaged: damage::measure(disk, paths).map_err(at(&paths.damaged))?,
    })
}

/// The segments in order; what was never finished is removed, what cannot be believed is set aside.
fn find_segments(disk: &dyn Disk, paths: &Paths) -> Result<(Vec<Found>, u64), OpenError> {
    let mut numbers = Vec::new();
    for name in disk.list(&paths.directory).map_err(at(&paths.directory))? {
        let path = paths.directory.join(&name);
        if name.ends_with(".new") {
            disk.remove(&path).map_err(at(&path))?;
        } else {
            numbers.extend(segment::number_of(&name));
        }
    }
    numbers.sort_unstable();
    let mut found: Vec<Found> = Vec::new();
    let mut last_set_aside = damage::last_number(disk, paths).map_err(at(&paths.damaged))?;
    for number in numbers.into_iter().rev() {
        let name = segment::file_name(number);
        let path = paths.directory.join(&name);
        let file: Arc<dyn DiskFile> = disk.open(&path).map_err(at(&path))?.into();
        let bytes = file.size().map_err(at(&path))?;
        let mut region = vec![0; HEADER_BYTES];
        let salvaged = salvage::read(&*file, &mut region, 0).map_err(at(&path))?;
        let header = Header::decode(&region[..salvaged.read]);
        // A file that ends before its first frame was cut short after it was made: nobody makes it so.
        let is_whole = bytes > HEADER_BYTES as u64;
        match header {
            HeaderFound::Good(header) if header.number == number && is_whole => {
                found.push(Found { header, bytes, is_rebuilt: false, remember_until: UnixMs(i64::MIN) });
            }
            HeaderFound::Newer(version) => {
                return Err(OpenError::NewerFormat {
                    path: path.display().to_string(),
                    found: version,
                    known: segment::FORMAT,
                });
            }
            _ => {
                let mut scanner = Scanner::new(file, 0, 0, bytes);
                scanner.salvage();
                if let Some(header) = rebuild_header(&mut scanner, number).map_err(at(&path))? {
                    damage::set_aside(disk, paths, number, &scanner, &(0..HEADER_BYTES as u64))
                        .map_err(at(&path))?;
                    found.push(Found { header, bytes, is_rebuilt: true, remember_until: UnixMs(i64::MIN) });
                    continue;
                }
                // The first sync of a segment covers its header and a record: without one, nothing in it was answered.
                let content_end = scanner.zeros_from().map_err(at(&path))?;
                let was_never_synced = is_whole && content_end <= HEADER_BYTES as u64;
                if found.is_empty() && was_never_synced {
                    disk.remove(&path).map_err(at(&path))?;
                } else {
                    damage::set_aside_segment(disk, paths, &name).map_err(at(&path))?;
                    last_set_aside = last_set_aside.max(number);
                }
            }
        }
    }
    found.reverse();
    // The number of a blank file is used again: a gap would make the next header look as if it spoke of another segment.
    let last_found = found.last().map_or(0, |last| last.header.number);
    Ok((found, last_found.max(last_set_aside) + 1))
}

fn segment_path(paths: &Paths, number: u64) -> PathBuf {
    paths.directory.join(segment::file_name(number))
}

/// A header that is lost is learned from the first frame, which lies on another page: its place is known, and no sender
/// wrote it.
fn rebuild_header(scanner: &mut Scanner, number: u64) -> io::Result<Option<Header>> {
    Ok(scanner.first_frame()?.map(|(generation, first)| Header {
        number,
        generation,
        first: first.sequence,
        first_ms: first.arrival,
        // What it said of the segment before is lost: that one is read for its identities, and its retention starts anew.
        previous_newest_ms: clock::now(),
        previous_remember_until: UnixMs(i64::MAX),
    }))
}

fn note_torn(path: &Path, bytes: u64) {
    if bytes > 0 {
        tracing::warn!(segment = %path.display(), bytes, "cut the end of an unfinished write");
        metrics::torn_tail_cut(bytes);
    }
}

fn scan_last(disk: &dyn Disk, paths: &Paths, last: &Found) -> Result<Tail, OpenError> {
    let header = &last.header;
    let path = segment_path(paths, header.number);
    let scanner = scanner_of(disk, &path, last).map_err(at(&path))?;
    let mut tail = Tail {
        last: header.first - 1,
        newest_ms: UnixMs(i64::MIN),
        remember_until: UnixMs(i64::MIN),
        identities: Vec::new(),
        ends: (0, 0),
        is_closed: false,
        scanner,
    };
    let scanner = &mut tail.scanner;
    loop {
        match scanner.step().map_err(at(&path))? {
            Step::Record(record) => {
                tail.last = record.sequence;
                tail.newest_ms = tail.newest_ms.max(record.arrival);
                if let Some(dedupe) = record.dedupe {
                    tail.remember_until = tail.remember_until.max(end_of(&dedupe, record.arrival));
                    tail.identities.push((dedupe, record.arrival));
                }
            }
            Step::Damage(range) => {
                damage::set_aside(disk, paths, header.number, scanner, &range).map_err(at(&path))?;
            }
            Step::End => break,
        }
    }
    tail.ends = (scanner.offset(), scanner.zeros_from().map_err(at(&path))?);
    if scanner.has_unreadable_from(tail.ends.0) {
        // Nobody can tell whether it was answered, so it is no torn end and stays. Should the disk give it one day, then
        // its numbers are not those of what is written from now on: that goes to the next segment.
        let end = tail.ends.1.next_multiple_of(ALIGNMENT as u64);
        damage::set_aside(disk, paths, header.number, scanner, &(tail.ends.0..end)).map_err(at(&path))?;
        tail.ends = (end, end);
        tail.is_closed = true;
    }
    note_torn(&path, tail.ends.1 - tail.ends.0);
    Ok(tail)
}

fn describe(one: &Found, next: Option<&Found>, tail: Option<&Tail>) -> Segment {
    let header = &one.header;
    let (end, readable, newest_ms, remember_until) = match (next, tail) {
        (Some(next), _) if next.tells_of(one) => {
            let Header { first, previous_newest_ms, previous_remember_until, .. } = next.header;
            (first, one.bytes, previous_newest_ms, previous_remember_until)
        }
        // The header that knew its newest record is gone: its retention starts anew.
        (Some(next), _) => (next.header.first, one.bytes, clock::now(), one.remember_until),
        (None, Some(tail)) => (tail.last + 1, tail.ends.0, tail.newest_ms, tail.remember_until),
        (None, None) => (header.first, 0, header.first_ms, UnixMs(i64::MIN)),
    };
    Segment {
        number: header.number,
        generation: header.generation,
        first: header.first,
        end: end.max(header.first),
        readable,
        bytes: one.bytes,
        first_ms: header.first_ms,
        newest_ms,
        remember_until,
        sealed_at: None,
    }
}

/// The identities whose window has not run out, the newest first, as many as may be; older segments are read only where
/// one of them says so.
fn remember(
    disk: &dyn Disk,
    paths: &Paths,
    found: &mut [Found],
    tail: Option<&mut Tail>,
    dedupe_max: u32,
) -> Result<Remembered, OpenError> {
    let now = clock::now();
    let mut remembered = Remembered::new(dedupe_max);
    // Those of one segment at a time, so that a start takes no more memory than what is remembered.
    let mut has_room = |identities: Vec<(Dedupe, UnixMs)>| {
        let mut newest_first = identities.iter().rev();
        newest_first.all(|(dedupe, arrival)| remembered.remember_older(dedupe, now.since(*arrival)))
    };
    let mut goes_on = tail.is_none_or(|tail| has_room(std::mem::take(&mut tail.identities)));
    for index in (1..found.len()).rev() {
        let [one, next] = &mut found[index - 1..=index] else { continue };
        // Where nobody tells how long its identities matter, it is read also when there is no room for them: its file
        // would go too early, or never.
        if next.tells_of(one) && (!goes_on || next.header.previous_remember_until <= now) {
            continue;
        }
        let identities = identities_of(disk, paths, one, next.header.first)?;
        let ends = identities.iter().map(|(dedupe, arrival)| end_of(dedupe, *arrival));
        one.remember_until = ends.max().unwrap_or(UnixMs(i64::MIN));
        if next.is_rebuilt {
            next.header.previous_remember_until = one.remember_until;
        }
        goes_on = goes_on && has_room(identities);
    }
    Ok(remembered)
}

/// When an identity that arrived then may be forgotten.
fn end_of(dedupe: &Dedupe, arrival: UnixMs) -> UnixMs {
    let window_ms = i64::try_from(dedupe.window.as_millis()).unwrap_or(i64::MAX);
    UnixMs(arrival.0.saturating_add(window_ms))
}

/// Through all of a segment, whatever of it the disk can give.
fn scanner_of(disk: &dyn Disk, path: &Path, one: &Found) -> io::Result<Scanner> {
    let file = disk.open(path)?.into();
    let mut scanner = Scanner::new(file, one.header.generation, one.header.first, one.bytes);
    scanner.salvage();
    Ok(scanner)
}

fn identities_of(
    disk: &dyn Disk,
    paths: &Paths,
    one: &Found,
    end: u64,
) -> Result<Vec<(Dedupe, UnixMs)>, OpenError> {
    let path = segment_path(paths, one.header.number);
    let mut scanner = scanner_of(disk, &path, one).map_err(at(&path))?;
    let mut identities = Vec::new();
    let mut last = 0;
    while last + 1 < end {
        match scanner.step().map_err(at(&path))? {
            // See the reader: it is there again, and no lane will get it.
            Step::Record(record) if record.sequence >= end => break,
            Step::Record(record) => {
                last = record.sequence;
                identities.extend(record.dedupe.map(|dedupe| (dedupe, record.arrival)));
            }
            Step::Damage(_) => {}
            Step::End => break,
        }
    }
    Ok(identities)
}

/// What the cursor files say.
struct LoadedCursors {
    by_name: HashMap<String, (Slots, Loaded)>,
    /// The highest number that any cursor has settled.
    highest: u64,
}

fn load_cursors(disk: &dyn Disk, paths: &Paths, specs: &[CursorSpec]) -> Result<LoadedCursors, OpenError> {
    let listed = disk.list(&paths.cursors).map_err(at(&paths.cursors))?;
    let on_disk = listed.iter().filter_map(|name| name.strip_suffix(".0").or(name.strip_suffix(".1")));
    let names: BTreeSet<&str> = on_disk.chain(specs.iter().map(|spec| &*spec.name)).collect();
    let mut loaded = LoadedCursors { by_name: HashMap::new(), highest: 0 };
    for name in names {
        let (slots, state) =
            Slots::load(disk, &paths.cursors, name).map_err(at(&paths.cursors.join(name)))?;
        match &state {
            Loaded::Saved(standing) => loaded.highest = loaded.highest.max(standing.progress().highest()),
            Loaded::Newer(path, found) => {
                return Err(OpenError::NewerFormat {
                    path: path.display().to_string(),
                    found: *found,
                    known: cursor_file::FORMAT,
                });
            }
            Loaded::New | Loaded::Unreadable => {}
        }
        if specs.iter().any(|spec| spec.name == name) {
            loaded.by_name.insert(name.to_owned(), (slots, state));
        } else {
            tracing::warn!(
                cursor = name,
                "the cursor of a sink that is not configured is kept, but holds nothing back"
            );
        }
    }
    Ok(loaded)
}

fn open_cursors(
    disk: &dyn Disk,
    paths: &Paths,
    specs: &[CursorSpec],
    loaded: &mut LoadedCursors,
    found: &[Found],
    next_sequence: u64,
) -> Result<HashMap<String, Arc<Cursor>>, OpenError> {
    let mut cursors = HashMap::new();
    for spec in specs {
        let Some((mut slots, state)) = loaded.by_name.remove(&spec.name) else { continue };
        let begin_after = |through| Standing::beginning_at(Progress::through_only(through));
        let (standing, is_saved) = match state {
            Loaded::Saved(standing) => (standing, true),
            // A new sink gets what comes from now on; its place is on disk before anything can come.
            Loaded::New => (begin_after(next_sequence - 1), false),
            Loaded::Unreadable | Loaded::Newer(..) => {
                tracing::error!(
                    cursor = spec.name,
                    "both slots of a cursor are damaged; it starts at the oldest record"
                );
                let oldest = found.first().map_or(next_sequence, |one| one.header.first);
                (begin_after(oldest - 1), false)
            }
        };
        if !is_saved {
            let path = paths.cursors.join(&spec.name);
            // Both slots, so that saving it later needs no room on a disk that is full by then.
            for _ in 0..2 {
                slots.save(disk, &paths.cursors, &standing).map_err(at(&path))?;
            }
        }
        // What was read may lie in the page cache only, left by a process that died before its sync: nothing is
        // deleted by it before it has been saved again.
        let (saved_through, dirty) =
            if is_saved { (0, true) } else { (standing.progress().through(), false) };
        let cursor = Cursor {
            spec: spec.clone(),
            saved_through: AtomicU64::new(saved_through),
            state: Mutex::new(CursorState { standing, outstanding: BTreeMap::new(), dirty }),
            slots: Mutex::new(slots),
            taken: AtomicBool::new(false),
            shed_before: watch::Sender::new(None),
        };
        cursors.insert(spec.name.clone(), Arc::new(cursor));
    }
    Ok(cursors)
}
