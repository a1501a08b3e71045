//! The recount: every record read with its checksum, every cursor from both slots, and for each cursor the equation of
//! R4, with what is on the disk in the place of what the journal believes.
//! Holds: what does not add up, and every damaged place, is a finding with a sentence of its own; what a crash may leave
//! and the next start mends is a note.

use super::super::disk::{Disk, Held, LockAttempt};
use super::super::recovery::at;
use super::super::types::{Account, OpenError};
use super::walk::{self, OnDisk, walk};
use super::{Looked, cursors, paths_of, set_aside};
use serde::Serialize;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

/// The most gaps that are named one by one.
const GAPS_MAX: usize = 100;

/// What a recount gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verification {
    /// Segment files read.
    pub segments: u64,
    /// Sound records in them.
    pub records: u64,
    /// The number of the last record that was ever accepted, as far as the disk shows.
    pub last: u64,
    /// By name.
    pub cursors: Vec<CursorRecount>,
    /// What is wrong, a sentence each; empty where all adds up.
    pub findings: Vec<String>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

/// One cursor, recounted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CursorRecount {
    /// Its sink.
    pub name: String,
    /// Whether that is configured; otherwise nothing is kept for it.
    pub is_configured: bool,
    /// `in_journal` is what lies on the disk and is not settled; `None` where neither slot can be believed.
    pub account: Option<Account>,
}

/// Numbers that no sound record has.
#[derive(Default)]
struct Gaps {
    named: Vec<(u64, u64)>,
    numbers: u64,
    /// The number that the next record should have.
    expected: Option<u64>,
}

impl Gaps {
    fn expect(&mut self, first: u64) {
        if let Some(expected) = self.expected.filter(|expected| *expected < first) {
            self.numbers += first - expected;
            if self.named.len() < GAPS_MAX {
                self.named.push((expected, first - 1));
            }
        }
        self.expected = Some(self.expected.unwrap_or(first).max(first));
    }
    fn met(&mut self, sequence: u64) {
        self.expect(sequence);
        self.expected = Some(sequence.saturating_add(1));
    }
}

/// Keeps every process from opening the journal in `directory` (and what belongs to it) until the value is dropped.
/// Others who only look may hold it, too.
///
/// # Errors
/// [`OpenError::Locked`] where a process has it, [`OpenError::Io`] where that cannot be found out.
pub fn hold(directory: &Path, disk: &dyn Disk) -> Result<Box<dyn Held>, OpenError> {
    let lock = directory.join("lock");
    match disk.lock(&lock, "").map_err(at(&lock))? {
        LockAttempt::Taken(held) => Ok(held),
        LockAttempt::HeldByOther(note) => {
            let pid = note.trim().parse().unwrap_or(0);
            Err(OpenError::Locked { path: directory.display().to_string(), pid })
        }
    }
}

/// Recounts the journal in `directory`, which no process may have open. `configured`: the cursors that hold records back.
///
/// # Errors
/// [`OpenError::Locked`] where a process has it, and the others where it cannot be read.
pub fn verify(
    directory: &Path,
    disk: &dyn Disk,
    configured: &BTreeSet<String>,
) -> Result<Verification, OpenError> {
    let _held = hold(directory, disk)?;
    let paths = paths_of(directory);
    let found = walk::find(disk, &paths)?;
    let looked = cursors(disk, &paths)?;
    let mut result = Verification { segments: found.len() as u64, ..Verification::default() };
    let (mut gaps, mut unsettled) = (Gaps::default(), vec![0_u64; looked.len()]);
    let last_sound = found.iter().rposition(|one| one.header.is_some());
    for (index, one) in found.iter().enumerate() {
        read_segment(one, last_sound == Some(index), &looked, &mut gaps, &mut unsettled, &mut result)?;
    }
    judge_end(&looked, &mut gaps, &mut result);
    for (cursor, in_journal) in looked.iter().zip(unsettled) {
        judge_cursor(cursor, configured, in_journal, &mut result);
    }
    let unseen = configured.iter().filter(|name| !looked.iter().any(|cursor| cursor.found.name == **name));
    result.notes.extend(
        unseen.map(|name| format!("{name} has no cursor yet: it begins at the end when the daemon starts")),
    );
    let damaged = set_aside(disk, &paths)?;
    if damaged.files > 0 {
        result.findings.push(format!(
            "damaged/ holds {} files ({}…); delete them when you have dealt with them",
            damaged.files,
            damaged.names.first().map_or("", String::as_str)
        ));
    }
    Ok(result)
}

fn read_segment(
    one: &OnDisk,
    is_last: bool,
    looked: &[Looked],
    gaps: &mut Gaps,
    unsettled: &mut [u64],
    result: &mut Verification,
) -> Result<(), OpenError> {
    let number = one.number;
    let Some(header) = one.header else {
        if one.state == "damaged" {
            result.findings.push(format!(
                "segment {number}: neither copy of its header can be believed, so none of its records can be read"
            ));
        }
        return Ok(());
    };
    gaps.expect(header.first);
    let walked = walk(one, &header, &mut |record| {
        gaps.met(record.sequence);
        for (cursor, count) in looked.iter().zip(&mut *unsettled) {
            let settled = cursor.standing.as_ref().map(|standing| standing.progress());
            *count += u64::from(settled.is_some_and(|progress| !progress.is_settled(record.sequence)));
        }
        ControlFlow::Continue(())
    })
    .map_err(at(&one.path))?;
    result.records += walked.records;
    for range in &walked.damage {
        let (start, end) = (range.start, range.end);
        result.findings.push(format!("segment {number}: the bytes {start} to {end} are no sound record"));
    }
    let unnamed = walked.damage_count - walked.damage.len() as u64;
    if unnamed > 0 {
        result.findings.push(format!("segment {number}: so are {unnamed} more places"));
    }
    let rest = walked.rest;
    if !rest.is_empty() {
        let (start, end) = (rest.start, rest.end);
        if is_last && !walked.rest_is_unreadable {
            result.notes.push(format!(
                "segment {number} ends with an unfinished write, bytes {start} to {end}; the next start cuts it"
            ));
        } else {
            result.findings.push(format!("segment {number}: the bytes {start} to {end} are no sound record"));
        }
    }
    Ok(())
}

/// The last number, and which ones before it no record has.
fn judge_end(looked: &[Looked], gaps: &mut Gaps, result: &mut Verification) {
    let highest = looked.iter().map(|cursor| cursor.highest).max().unwrap_or(0);
    if gaps.expected.is_some() {
        // What a cursor has settled was a record once.
        gaps.expect(highest.saturating_add(1));
    }
    result.last = gaps.expected.map_or(highest, |expected| expected - 1).max(highest);
    for (first, last) in &gaps.named {
        result.findings.push(if first == last {
            format!("the record {first} is not on the disk, although later ones are or it was settled")
        } else {
            format!("the records {first} to {last} are not on the disk, although later ones are or they were settled")
        });
    }
    let named: u64 = gaps.named.iter().map(|(first, last)| last - first + 1).sum();
    if gaps.numbers > named {
        result.findings.push(format!("nor are {} more records", gaps.numbers - named));
    }
}

fn judge_cursor(cursor: &Looked, configured: &BTreeSet<String>, in_journal: u64, result: &mut Verification) {
    let name = &cursor.found.name;
    let is_configured = configured.contains(name);
    for (slot, _) in cursor.found.slots.iter().enumerate().filter(|(_, slot)| slot.state == "bad") {
        result.findings.push(format!(
            "slot {slot} of the cursor {name} cannot be believed: its checksum is wrong, or its counts are not those \
             of its ranges"
        ));
    }
    let account = cursor.standing.as_ref().map(|standing| {
        let account = Account::of(result.last, &standing.tally(), in_journal);
        let events = account.unaccounted;
        if events != 0 && is_configured {
            result.findings.push(if events > 0 {
                format!("{name}: {events} events are neither settled nor on the disk")
            } else {
                format!("{name}: {} events more are settled or on the disk than were accepted", -events)
            });
        } else if events != 0 {
            result.notes.push(format!(
                "{name} is not configured, so nothing is kept for it: {events} of its events are not on the disk any more"
            ));
        } else if !is_configured {
            result.notes.push(format!("{name} is not configured, so nothing is kept for it"));
        }
        account
    });
    if account.is_none() {
        result.findings.push(format!(
            "neither slot of the cursor {name} can be believed: the next start begins at the oldest record"
        ));
    }
    if is_behind_its_past(cursor) {
        result
            .findings
            .push(format!("the newer slot of the cursor {name} does not follow from the older one"));
    }
    result.cursors.push(CursorRecount { name: name.clone(), is_configured, account });
}

/// Of cursors.
const FIRST_FORMAT_THAT_COUNTS: u16 = 2;

/// Everything that a cursor counts only grows from one saving to the next.
fn is_behind_its_past(cursor: &Looked) -> bool {
    // Format 1 counted nothing: the counting of each slot begins where that slot stood.
    let both_counted = cursor.found.slots.iter().all(|slot| slot.format >= FIRST_FORMAT_THAT_COUNTS);
    let (Some(newer), Some(older)) = (&cursor.standing, &cursor.older) else { return false };
    let counts = |standing: &super::super::cursor::Standing| {
        let tally = standing.tally();
        [tally.delivered, tally.dead_lettered, tally.shed, tally.not_routed, tally.missing]
    };
    let (now, then) = (newer.tally(), older.tally());
    newer.progress().through() < older.progress().through()
        || (both_counted
            && (now.began_after != then.began_after
                || counts(newer).iter().zip(counts(older)).any(|(now, then)| *now < then)))
}
