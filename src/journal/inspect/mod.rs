//! A look at a journal from outside: what lies in its directory, and whether it adds up. For people who debug, through
//! the layers that the journal itself reads by (`segment`, `scan`, `cursor_file`).
//! Holds: nothing is written; memory is one record and what is shown. `inspect` and `list` may run beside the process
//! that owns the journal: what it frees or writes meanwhile is left out or seen as it was. `verify` (R4) may not.
//! Absent on purpose: what is in a payload.

mod verify;
mod walk;

#[cfg(test)]
mod tests;

pub use verify::{CursorRecount, Verification, hold, verify};

use super::cursor_file::{self, Slot};
use super::damage;
use super::disk::Disk;
use super::recovery::at;
use super::segment;
use super::shared::Paths;
use super::types::{OpenError, Tally};
use crate::time::UnixMs;
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use walk::{OnDisk, Walk, walk};

/// How often a slot or a header is read that cannot be believed: its owner may be writing it.
const READS_MAX: u32 = 3;
/// The most names of set-aside files that are shown.
const NAMES_MAX: usize = 20;

/// What lies in a journal's directory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Oldest first.
    pub segments: Vec<SegmentFound>,
    /// By name, also those of sinks that are not configured.
    pub cursors: Vec<CursorFound>,
    /// What was set aside.
    pub damaged: SetAside,
    /// The number of the last record, or the highest that a cursor has settled.
    pub last: u64,
    /// Identities in the last segment, for de-duplication.
    pub identities: u64,
    /// When the last of them may be forgotten.
    pub remembered_until: Option<UnixMs>,
}

/// What a segment's header says, and of the last segment what it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentFound {
    /// Of its name.
    pub number: u64,
    /// `sound`, `blank` (made ahead of need), or `damaged` (its header cannot be believed).
    pub state: &'static str,
    /// The random number that each of its frames repeats, in hexadecimal.
    pub generation: Option<String>,
    /// The first record's number.
    pub first: Option<u64>,
    /// The last record's; of all but the last segment: one less than the next one's first.
    pub last: Option<u64>,
    /// Numbers from first to last. Whether each of them is sound only `verify` knows.
    pub records: u64,
    /// Of the file.
    pub bytes: u64,
    /// When its first record arrived.
    pub first_ms: Option<UnixMs>,
    /// When its newest did.
    pub newest_ms: Option<UnixMs>,
}

/// One cursor's files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CursorFound {
    /// Its sink's name.
    pub name: String,
    /// Both slots.
    pub slots: [SlotFound; 2],
    /// The slot that counts: the newest good one.
    pub slot: Option<usize>,
    /// Everything up to here is settled.
    pub through: u64,
    /// Settled ranges above, and how many numbers they hold.
    pub ranges: u64,
    /// See `ranges`.
    pub settled_above: u64,
    /// How the records were settled.
    pub tally: Option<Tally>,
    /// Records that are to be tried again.
    pub deferrals: u64,
    /// When the first of them is due.
    pub next_due: Option<UnixMs>,
}

/// One of a cursor's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlotFound {
    /// `absent`, `good`, or `bad` (it cannot be believed).
    pub state: &'static str,
    /// Its format; 0 unless it is good.
    pub format: u16,
    /// How often the cursor had been saved; the higher one counts.
    pub saving: u64,
}

/// What lies in `damaged/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first few names.
    pub names: Vec<String>,
}

/// A record as a listing shows it.
#[derive(Clone, Debug)]
pub struct RecordFound {
    /// Its number.
    pub sequence: u64,
    /// The segment that it lies in.
    pub segment: u64,
    /// When it arrived.
    pub arrival: UnixMs,
    /// What was appended.
    pub payload: Bytes,
}

fn paths_of(directory: &Path) -> Paths {
    Paths {
        directory: directory.to_owned(),
        cursors: directory.join("cursors"),
        damaged: directory.join("damaged"),
    }
}

/// Looks at the journal in `directory`. Reads every header, every cursor and the last segment.
///
/// # Errors
/// [`OpenError`], where there is no journal, or it cannot be read, or a file has a newer format.
pub fn inspect(directory: &Path, disk: &dyn Disk) -> Result<Inspection, OpenError> {
    let paths = paths_of(directory);
    let found = walk::find(disk, &paths)?;
    let cursors = cursors(disk, &paths)?;
    let mut segments: Vec<SegmentFound> = found.iter().map(describe).collect();
    let (mut identities, mut remembered_until) = (0, None);
    let mut next: Option<segment::Header> = None;
    for (shown, one) in segments.iter_mut().zip(&found).rev() {
        let Some(header) = one.header else { continue };
        let (last, newest_ms) = match next {
            Some(next) => (
                next.first.checked_sub(1),
                (next.number == one.number + 1).then_some(next.previous_newest_ms),
            ),
            None => {
                let walked = walk(one, &header, &mut |_| ControlFlow::Continue(())).map_err(at(&one.path))?;
                (identities, remembered_until) = (walked.identities, walked.remember_until);
                (walked.last, walked.newest_ms)
            }
        };
        (shown.last, shown.newest_ms) = (last.filter(|last| *last >= header.first), newest_ms);
        shown.records = shown.last.map_or(0, |last| last - header.first + 1);
        next = Some(header);
    }
    let settled = cursors.iter().map(|cursor| cursor.highest).max().unwrap_or(0);
    let last = segments.iter().filter_map(|segment| segment.last).max().unwrap_or(0).max(settled);
    Ok(Inspection {
        segments,
        cursors: cursors.into_iter().map(|cursor| cursor.found).collect(),
        damaged: set_aside(disk, &paths)?,
        last,
        identities,
        remembered_until,
    })
}

/// Shows every record from number `from` on, in order, until `show` breaks off. Damage is passed over.
///
/// # Errors
/// [`OpenError`].
pub fn list(
    directory: &Path,
    disk: &dyn Disk,
    from: u64,
    show: &mut dyn FnMut(RecordFound) -> ControlFlow<()>,
) -> Result<(), OpenError> {
    let found = walk::find(disk, &paths_of(directory))?;
    let mut ended = false;
    for (index, one) in found.iter().enumerate() {
        let Some(header) = one.header else { continue };
        let next = found[index + 1..].iter().find_map(|later| later.header);
        if ended || next.is_some_and(|next| next.first <= from) {
            continue;
        }
        let Walk { broke_off, .. } = walk(one, &header, &mut |record| {
            if record.sequence < from {
                return ControlFlow::Continue(());
            }
            show(RecordFound {
                sequence: record.sequence,
                segment: one.number,
                arrival: record.arrival,
                payload: record.payload.clone(),
            })
        })
        .map_err(at(&one.path))?;
        ended = broke_off;
    }
    Ok(())
}

fn describe(one: &OnDisk) -> SegmentFound {
    let header = one.header.as_ref();
    SegmentFound {
        number: one.number,
        state: one.state,
        generation: header.map(|header| format!("{:016x}", header.generation)),
        first: header.map(|header| header.first),
        last: None,
        records: 0,
        bytes: one.bytes,
        first_ms: header.map(|header| header.first_ms),
        newest_ms: None,
    }
}

/// A cursor's files, and what the slot that counts says.
struct Looked {
    found: CursorFound,
    standing: Option<super::cursor::Standing>,
    /// Of the other slot, where it is good, too.
    older: Option<super::cursor::Standing>,
    highest: u64,
}

fn cursors(disk: &dyn Disk, paths: &Paths) -> Result<Vec<Looked>, OpenError> {
    let listed = match disk.list(&paths.cursors) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(at(&paths.cursors))?,
    };
    let names: BTreeSet<&str> =
        listed.iter().filter_map(|name| name.strip_suffix(".0").or(name.strip_suffix(".1"))).collect();
    names.into_iter().map(|name| look(disk, paths, name)).collect()
}

fn look(disk: &dyn Disk, paths: &Paths, name: &str) -> Result<Looked, OpenError> {
    let mut slots = [SlotFound { state: "absent", format: 0, saving: 0 }; 2];
    let mut standings = [None, None];
    for (index, shown) in slots.iter_mut().enumerate() {
        let path = cursor_file::slot_path(&paths.cursors, name, index);
        let mut reads = 1;
        let slot = loop {
            let slot = cursor_file::look(disk, &path).map_err(at(&path))?;
            if !matches!(slot, Some((_, Slot::Bad))) || reads == READS_MAX {
                break slot;
            }
            reads += 1;
        };
        match slot {
            None => {}
            Some((format, Slot::Good { saving, standing })) => {
                *shown = SlotFound { state: "good", format, saving };
                standings[index] = Some(standing);
            }
            Some((_, Slot::Bad)) => shown.state = "bad",
            Some((_, Slot::Newer(found))) => {
                return Err(OpenError::NewerFormat {
                    path: path.display().to_string(),
                    found,
                    known: cursor_file::FORMAT,
                });
            }
        }
    }
    let slot = (0..2).filter(|slot| standings[*slot].is_some()).max_by_key(|slot| slots[*slot].saving);
    let standing = slot.and_then(|slot| standings[slot].take());
    let older = standings.into_iter().flatten().next();
    let progress = standing.as_ref().map(super::cursor::Standing::progress);
    let found = CursorFound {
        name: name.to_owned(),
        slots,
        slot,
        through: progress.map_or(0, |progress| progress.through()),
        ranges: progress.map_or(0, |progress| progress.above().len() as u64),
        settled_above: progress.map_or(0, |progress| progress.settled() - progress.through()),
        tally: standing.as_ref().map(super::cursor::Standing::tally),
        deferrals: standing.as_ref().map_or(0, |standing| standing.deferrals().len() as u64),
        next_due: standing.iter().flat_map(|standing| standing.deferrals()).map(|(_, one)| one.due).min(),
    };
    let highest = progress.map_or(0, super::cursor::Progress::highest);
    Ok(Looked { found, standing, older, highest })
}

fn set_aside(disk: &dyn Disk, paths: &Paths) -> Result<SetAside, OpenError> {
    let mut names = match disk.list(&paths.damaged) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SetAside::default()),
        listed => listed.map_err(at(&paths.damaged))?,
    };
    let kept = damage::measure(disk, paths).map_err(at(&paths.damaged))?;
    names.sort_unstable();
    names.truncate(NAMES_MAX);
    Ok(SetAside { files: kept.files, bytes: kept.bytes, names })
}
