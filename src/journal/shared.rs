//! What the handle, the feeds and the three threads share: paths, limits, and state behind locks.
//! Holds: the durable sequence number moves only with a [`SyncedThrough`] (R1); `Failed` and `Closed` are final (R6).
//! Lock order: `spare` before `table`, a cursor's `slots` before its `state`, that before `recent`; every other lock is
//! taken alone.

use super::cursor::Standing;
use super::cursor_file::Slots;
use super::disk::{Disk, DiskFile};
use super::reader::ReadRequest;
use super::recent::{Batch, Recent};
use super::segment::SyncedThrough;
use super::table::Table;
use super::types::{CursorSpec, Deferral, Ending, Health, NOTE_BYTES_MAX, Position};
use crate::telemetry::metrics::journal as metrics;
use crate::time::UnixMs;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// The configuration as the threads use it.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub disk_max: u64,
    pub segment_bytes: u64,
    pub retention: Duration,
    /// How often cursors are saved and old segments looked for.
    pub tick: Duration,
}

/// Where things lie.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// Segments and the lock file.
    pub directory: PathBuf,
    /// Cursor slots.
    pub cursors: PathBuf,
    /// What could not be read.
    pub damaged: PathBuf,
}

/// The next segment's file, made ahead of need by housekeeping and taken by the writer.
pub(super) enum Spare {
    /// The segment that is written to has room.
    NotWanted,
    /// To be made now.
    Wanted,
    /// Here it is.
    Ready { number: u64, file: Arc<dyn DiskFile> },
    /// Could not be made for want of room; tried again at every tick.
    NoRoom,
    /// Could not be made, and more room will not help.
    Failed,
}

/// How far readers may read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Published {
    /// The last durable sequence number.
    pub through: u64,
    /// No more will come, and none may be read.
    pub closed: bool,
}

/// A cursor's state in memory.
pub(super) struct CursorState {
    pub standing: Standing,
    /// Given by the feed and not settled; bounded by what the lane holds.
    pub outstanding: BTreeMap<u64, UnixMs>,
    /// Differs from what was saved last.
    pub dirty: bool,
}

/// One cursor.
pub(super) struct Cursor {
    pub spec: CursorSpec,
    pub state: Mutex<CursorState>,
    pub slots: Mutex<Slots>,
    /// The low watermark that is on disk: what segments are deleted by.
    pub saved_through: AtomicU64,
    /// The feed was given out.
    pub taken: AtomicBool,
    pub shed_before: watch::Sender<Option<Position>>,
}

impl Cursor {
    /// Settles a record, which must be durable.
    pub(super) fn settle(&self, sequence: u64, ending: Ending) {
        let mut state = lock(&self.state);
        state.outstanding.remove(&sequence);
        state.dirty |= state.standing.settle(sequence, ending);
    }

    /// Settles `first..=last`, of which nothing is left: damaged or freed, and never given.
    pub(super) fn miss(&self, first: u64, last: u64) {
        let mut state = lock(&self.state);
        state.dirty |= state.standing.miss(first, last);
    }

    /// Notes when a record is to be tried again.
    pub(super) fn defer(&self, sequence: u64, mut deferral: Deferral) {
        deferral.note.truncate(NOTE_BYTES_MAX);
        let mut state = lock(&self.state);
        state.dirty |= state.standing.defer(sequence, deferral);
    }
}

/// The shared state.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub paths: Paths,
    pub limits: Limits,
    pub table: Mutex<Table>,
    pub spare: Mutex<Spare>,
    /// Wakes housekeeping and whoever waits for a spare.
    pub spare_changed: Condvar,
    pub stopping: AtomicBool,
    /// Since when the writer has been at one and the same step that the disk may hold up; `None` while it rests.
    pub at_step_since: Mutex<Option<Instant>>,
    pub recent: Mutex<Recent>,
    pub cursors: HashMap<String, Arc<Cursor>>,
    pub published: watch::Sender<Published>,
    pub health: watch::Sender<Health>,
    /// Files in `damaged/`, and their bytes.
    pub damaged_ranges: AtomicU64,
    pub damaged_bytes: AtomicU64,
    /// To the reader thread; `None` once closed.
    pub reads: Mutex<Option<mpsc::Sender<ReadRequest>>>,
}

/// A lock whose holder cannot have left it half changed: no holder panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Records became durable: readers may have them.
    pub(super) fn publish(&self, proof: SyncedThrough, batch: Batch, readable: u64, newest_ms: UnixMs) {
        if let Some(active) = lock(&self.table).active_mut() {
            if active.end == active.first {
                active.first_ms = batch.slices.first().map_or(newest_ms, |slice| slice.arrival);
            }
            active.end = proof.sequence() + 1;
            active.readable = readable;
            active.newest_ms = active.newest_ms.max(newest_ms);
        }
        lock(&self.recent).push(batch);
        self.published.send_modify(|published| published.through = proof.sequence());
    }

    /// The last durable sequence number.
    pub(super) fn durable(&self) -> u64 {
        self.published.borrow().through
    }

    /// Changes the health, unless it is final.
    pub(super) fn set_health(&self, health: Health) {
        let changed = self.health.send_if_modified(|current| {
            let is_final =
                *current == Health::Closed || (*current == Health::Failed && health != Health::Closed);
            let changes = !is_final && *current != health;
            if changes {
                *current = health;
            }
            changes
        });
        if changed {
            metrics::state_changed(match health {
                Health::Ready => metrics::State::Ready,
                Health::Full => metrics::State::Full,
                Health::Failed => metrics::State::Failed,
                Health::Closed => metrics::State::Closed,
            });
        }
    }

    /// How long the writer has been at one step: a write and its sync, or the wait for the next segment's file.
    pub(super) fn stalled_for(&self) -> Duration {
        lock(&self.at_step_since).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The lowest saved watermark; `None` without cursors.
    pub(super) fn passed(&self) -> Option<u64> {
        self.cursors.values().map(|cursor| cursor.saved_through.load(Ordering::Acquire)).min()
    }

    /// What the budget counts: segments, and what was set aside.
    pub(super) fn disk_bytes(&self) -> u64 {
        lock(&self.table).bytes() + self.damaged_bytes.load(Ordering::Relaxed)
    }

    /// Sets the gauges of the disk.
    pub(super) fn report_disk(&self) {
        metrics::disk_used(self.disk_bytes(), self.limits.disk_max);
    }
}
