//! The plain values of the journal's public face: what is configured, stored, given back and shown.
//! Absent on purpose: anything that does something.

use crate::config::{ByteSize, Period};
use crate::time::UnixMs;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[journal]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which engine keeps the events.
    pub engine: Engine,
    /// The most bytes the journal may take; beyond, new work is refused (503).
    pub disk_max: ByteSize,
    /// Bytes of one segment file, preallocated; at least 16 KiB, and at most a quarter of `disk_max` is used.
    pub segment: ByteSize,
    /// How long settled records stay on disk before their files are freed.
    pub retention: Period,
    /// The most identities remembered for de-duplication.
    pub dedupe_max: u32,
    /// Bytes of recent records kept in memory for lanes that keep up.
    pub recent_max: ByteSize,
    /// The most calls of `append` waiting for the writer; beyond, callers wait for their turn.
    pub waiting_max: u32,
}

/// The engines that can keep a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Segment files in the data directory.
    #[default]
    Embedded,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            engine: Engine::Embedded,
            disk_max: ByteSize::gib(10),
            segment: ByteSize::mib(64),
            retention: Period::hours(24),
            dedupe_max: 1_000_000,
            recent_max: ByteSize::mib(32),
            waiting_max: 4096,
        }
    }
}

/// The place of a record in the journal; later records have greater positions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Position(pub(crate) u64);

/// What is stored: `head` and `body`, one after the other.
#[derive(Clone, Debug)]
pub struct Record {
    /// The first part of the payload.
    pub head: Vec<u8>,
    /// The second part of the payload.
    pub body: Bytes,
    /// When it arrived.
    pub arrival: UnixMs,
    /// By what it is recognised when it comes again, and for how long.
    pub dedupe: Option<Dedupe>,
}

/// An identity and how long it is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dedupe {
    /// A digest of what makes the event the same event.
    pub key: [u8; 16],
    /// How long.
    pub window: Duration,
}

/// What became of an appended record. Either way the event is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Appended {
    /// It was written and synced.
    Stored,
    /// The same identity is in the journal already, and that record is synced.
    Duplicate,
}

/// Why records were not taken. Nothing of the call is durable or ever will be, unless `Failed`: then it is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk budget is used up, or the disk itself is full.
    #[error("the journal is full")]
    Full,
    /// The records of one call are larger than a segment can hold.
    #[error("the record is larger than a journal segment can hold")]
    TooLarge,
    /// A write or a sync failed: the journal takes nothing more until it is reopened (R6).
    #[error("the journal has failed and takes nothing until it is reopened")]
    Failed,
    /// The journal is closing.
    #[error("the journal is closed")]
    Closed,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the directory.
    #[error("the data directory {path} is in use by process {pid}")]
    Locked {
        /// The directory.
        path: String,
        /// The holder, as it wrote itself into the lock file; 0 where unknown.
        pid: u32,
    },
    /// A file of a newer format.
    #[error("{path} was written by a newer version (format {found}, this program reads up to {known})")]
    NewerFormat {
        /// The file.
        path: String,
        /// Its version.
        found: u16,
        /// The newest we read.
        known: u16,
    },
    /// The operating system refused.
    #[error("cannot open the journal at {path}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// What it said.
        source: std::io::Error,
    },
}

/// A cursor to open: whose progress the journal remembers.
#[derive(Clone, Debug)]
pub struct CursorSpec {
    /// A name that is safe as a file name (a sink's).
    pub name: String,
    /// Under a full disk this cursor gives up its oldest records rather than hold up new ones.
    pub sheddable: bool,
}

/// What `next` gave: a record that is durable and not yet settled by this cursor.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What to settle.
    pub position: Position,
    /// When it arrived.
    pub arrival: UnixMs,
    /// Head and body, contiguous.
    pub payload: Bytes,
    /// What an earlier opening of the journal noted of it, if that was saved.
    pub deferral: Option<Deferral>,
}

/// How a lane settled a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The sink confirmed it.
    Delivered,
    /// It is kept durably where a person can look at it.
    DeadLettered,
    /// It was given up for room, as configured.
    Shed,
    /// It is not this cursor's.
    NotRouted,
}

/// What became of every record since a cursor's counting began. As durable as the ranges it belongs to: both are saved
/// as they were at one moment, so that after a crash a record that is settled again is not counted twice.
///
/// Always, for records that are durable: `settled() + Lag::events` is the number of the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many records were settled or gone before the counting began.
    pub began_after: u64,
    /// Confirmed.
    pub delivered: u64,
    /// Dead-lettered, or set aside because they are no events.
    pub dead_lettered: u64,
    /// Shed.
    pub shed: u64,
    /// Not this cursor's.
    pub not_routed: u64,
    /// Damaged or freed before this cursor came to them.
    pub missing: u64,
}

impl Tally {
    /// How many records are settled, those from before the counting began included.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.began_after + self.delivered + self.dead_lettered + self.shed + self.not_routed + self.missing
    }
}

/// Conservation for one cursor at one moment (R4): `accepted` is the sum of the six after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// Records accepted since the cursor's counting began.
    pub accepted: u64,
    /// Confirmed.
    pub delivered: u64,
    /// Kept as dead letters.
    pub dead_lettered: u64,
    /// Given up for room, as configured.
    pub shed: u64,
    /// Not this cursor's.
    pub not_routed: u64,
    /// Damaged or freed before this cursor came to them.
    pub missing: u64,
    /// Still to be settled.
    pub in_journal: u64,
    /// What is left over: always 0, or there is a defect; negative where more became of records than were accepted.
    pub unaccounted: i64,
}

impl Account {
    /// From the number of the last record, what was counted, and how many records are unsettled.
    #[must_use]
    pub fn of(last: u64, tally: &Tally, in_journal: u64) -> Account {
        let Tally { began_after, delivered, dead_lettered, shed, not_routed, missing } = *tally;
        let known = tally.settled().saturating_add(in_journal);
        Account {
            accepted: last.saturating_sub(began_after),
            delivered,
            dead_lettered,
            shed,
            not_routed,
            missing,
            in_journal,
            unaccounted: 0i64.saturating_add_unsigned(last).saturating_sub_unsigned(known),
        }
    }
}

/// The most bytes of a [`Deferral`]'s note; the rest is cut off.
pub const NOTE_BYTES_MAX: usize = 256;

/// What a lane noted of a record that is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deferral {
    /// When, by the wall clock.
    pub due: UnixMs,
    /// What the lane wants back, at most [`NOTE_BYTES_MAX`].
    pub note: Bytes,
}

/// How far a cursor is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Lag {
    /// Durable records this cursor has not settled.
    pub events: u64,
    /// When the oldest of them arrived; where it has not been read yet, when the oldest of its segment did.
    pub oldest: Option<UnixMs>,
}

/// Whether the journal can take work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Takes records.
    Ready,
    /// Refuses new records until space is freed.
    Full,
    /// A write or sync failed; only reopening helps (R6).
    Failed,
    /// Closed.
    Closed,
}

/// What `status` shows of the journal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Whether it can take work.
    pub health: Health,
    /// Bytes on disk, preallocated ones and what was set aside in `damaged/` included.
    pub bytes: u64,
    /// The budget.
    pub bytes_max: u64,
    /// Segment files.
    pub segments: u64,
    /// Records that are durable and still on disk.
    pub records: u64,
    /// When the oldest record on disk arrived.
    pub oldest: Option<UnixMs>,
    /// Damaged ranges set aside in `damaged/`; an operator who has dealt with one deletes its file.
    pub damaged_ranges: u64,
}

/// Why reading stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
    /// The disk did not give the record back.
    #[error("the journal could not be read: {0}")]
    Io(String),
}
