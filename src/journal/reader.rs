//! The reader thread: fetches for lanes that are behind, a bounded chunk at a time and each in its turn.
//! Holds: it reads only what is durable; a damaged range is skipped exactly, set aside and counted; no lane waits for
//! more than one chunk of each other lane (R5).

use super::damage;
use super::recent::unpinned;
use super::scan::{CHUNK_BYTES, Scanner, Step};
use super::segment;
use super::shared::{Shared, lock};
use super::types::{Entry, Position};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};

/// Bytes of a segment walked in one turn, where a lane's place must first be found.
const TURN_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A lane's request for the records from `from` on.
pub(super) struct ReadRequest {
    pub from: u64,
    /// Where the lane's last read ended.
    pub place: Option<ReadPlace>,
    /// What the disk has refused so often that it counts as damage now.
    pub salvage: bool,
    pub done: oneshot::Sender<io::Result<Fetched>>,
}

/// An open place in a segment.
pub(super) struct ReadPlace {
    number: u64,
    sequence: u64,
    scanner: Scanner,
}

/// What a read gave.
pub(super) struct Fetched {
    /// In order.
    pub entries: Vec<Entry>,
    /// Every number up to here was looked at: what is not among the entries is lost or was freed.
    pub through: u64,
    pub place: Option<ReadPlace>,
}

/// Answers requests until the journal is closed.
pub(super) fn run(shared: &Arc<Shared>, mut requests: mpsc::Receiver<ReadRequest>) {
    while let Some(request) = requests.blocking_recv() {
        let reading = AssertUnwindSafe(|| fetch(shared, request.from, request.place, request.salvage));
        // A defect that one lane's records meet is no reason to leave the others without a reader (R5).
        let fetched =
            catch_unwind(reading).unwrap_or_else(|_panic| Err(io::Error::other("reading it panicked")));
        // A feed that was dropped meanwhile needs no answer.
        let _ = request.done.send(fetched);
    }
}

fn fetch(shared: &Shared, from: u64, place: Option<ReadPlace>, salvage: bool) -> io::Result<Fetched> {
    let durable = shared.durable();
    let Some(segment) = lock(&shared.table).holding(from).cloned() else {
        return Ok(Fetched { entries: Vec::new(), through: durable, place: None });
    };
    let (place_sequence, mut scanner) = match place {
        Some(place) if place.number == segment.number && place.sequence <= from => {
            (place.sequence, place.scanner)
        }
        _ => {
            let path = shared.paths.directory.join(segment::file_name(segment.number));
            let file: Arc<dyn super::disk::DiskFile> = shared.disk.open(&path)?.into();
            (segment.first, Scanner::new(file, segment.generation, segment.first, segment.readable))
        }
    };
    scanner.extend(segment.readable);
    if salvage {
        // Until the end of the segment: where one sector is bad, its neighbours may be, too.
        scanner.salvage();
    }
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut through = from.max(segment.first) - 1;
    let mut scanned = place_sequence - 1;
    let turn_end = scanner.offset().saturating_add(TURN_BYTES_MAX);
    while bytes < CHUNK_BYTES && scanner.offset() < turn_end && through + 1 < segment.end {
        let before = scanner.offset();
        match scanner.step()? {
            // What could not be read when the next segment began is there again: its numbers were given out anew.
            Step::Record(record) if record.sequence >= segment.end => {
                (scanned, through) = (segment.end - 1, segment.end - 1);
            }
            Step::Record(record) => {
                scanned = record.sequence;
                through = through.max(scanned);
                if record.sequence >= from {
                    bytes += record.payload.len();
                    entries.push(Entry {
                        position: Position(record.sequence),
                        arrival: record.arrival,
                        payload: unpinned(&record.payload, record.chunk_bytes),
                        deferral: None,
                    });
                }
            }
            Step::Damage(range) => note_damage(shared, segment.number, &scanner, &range)?,
            Step::End => {
                let end = scanner.zeros_from()?;
                // The next segment says which numbers belong here: they are missing, and be it that zeros or nothing
                // at all are in their place.
                let is_known = lock(&shared.table).has(segment.number + 1);
                if end > before || is_known {
                    note_damage(shared, segment.number, &scanner, &(before..end))?;
                }
                (scanned, through) = (segment.end - 1, segment.end - 1);
            }
        }
    }
    let place = ReadPlace { number: segment.number, sequence: scanned + 1, scanner };
    Ok(Fetched { entries, through, place: Some(place) })
}

fn note_damage(
    shared: &Shared,
    number: u64,
    scanner: &Scanner,
    range: &std::ops::Range<u64>,
) -> io::Result<()> {
    // A segment that everybody has passed may be blanked for its next use while it is read.
    let is_there = lock(&shared.table).has(number);
    if is_there && damage::set_aside(&*shared.disk, &shared.paths, number, scanner, range)? {
        shared.damaged_ranges.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
