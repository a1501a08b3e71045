//! The housekeeping thread: saves cursors, deletes segments, makes the next one ahead of need, keeps to the budget.
//! Holds: R3 (cursors are on disk before a segment that they passed is unlinked, and the directory is synced after);
//! a full disk refuses new records and heals by itself when room comes back.

use super::damage;
use super::disk::{DiskFile, Held, is_no_room, is_shortage};
use super::segment;
use super::shared::{Cursor, Shared, Spare, lock};
use super::table::Segment;
use super::types::{Health, Position};
use crate::clock;
use crate::telemetry::metrics::journal as metrics;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// The owner of the directory's names and of the lock on it.
pub(super) struct Housekeeping {
    shared: Arc<Shared>,
    next_number: u64,
    cursor_saves_fail: bool,
    removals_fail: bool,
    is_short: bool,
    /// A freed segment's file, blank, to become the next one.
    recycled: Option<Arc<dyn DiskFile>>,
    _lock: Box<dyn Held>,
}

impl Housekeeping {
    /// `next_number` is the number of the next segment to make.
    pub(super) fn new(shared: Arc<Shared>, next_number: u64, lock: Box<dyn Held>) -> Housekeeping {
        Housekeeping {
            shared,
            next_number,
            cursor_saves_fail: false,
            removals_fail: false,
            is_short: false,
            recycled: None,
            _lock: lock,
        }
    }

    /// Runs until asked to stop, saves the cursors a last time and lets the directory go.
    pub(super) fn run(mut self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            self.tick();
            self.wait();
        }
        self.save_cursors(Saving::Now);
    }

    fn tick(&mut self) {
        // First, because the writer may be waiting for it.
        self.make_spare();
        self.save_cursors(Saving::Lazily);
        self.delete_expired();
        self.measure_damage();
        self.publish_shedding();
    }

    fn wait(&self) {
        let spare = lock(&self.shared.spare);
        if !matches!(*spare, Spare::Wanted) && !self.shared.stopping.load(Ordering::Acquire) {
            let waited = self.shared.spare_changed.wait_timeout(spare, self.shared.limits.tick);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Writes every cursor that moved to its older slot.
    fn save_cursors(&mut self, how: Saving) {
        let mut fails = false;
        for cursor in self.shared.cursors.values() {
            let Err(error) = save(&self.shared, cursor, how) else { continue };
            metrics::cursor_save_failed();
            if !self.cursor_saves_fail {
                let cursor = &cursor.spec.name;
                tracing::error!(cursor, %error, "a cursor could not be saved; a restart would repeat deliveries");
            }
            fails = true;
        }
        self.cursor_saves_fail = fails;
    }

    fn delete_expired(&mut self) {
        let (passed, retention) = (self.shared.passed(), self.shared.limits.retention);
        loop {
            let expired = lock(&self.shared.table).expired(passed, retention, clock::now()).cloned();
            let Some(segment) = expired else { return };
            if !self.delete(&segment) {
                return;
            }
        }
    }

    /// Takes the oldest segment, which nobody needs, away; its file becomes the next one where that is wanted.
    fn delete(&mut self, segment: &Segment) -> bool {
        let shared = Arc::clone(&self.shared);
        let (disk, directory) = (&*shared.disk, &shared.paths.directory);
        let path = directory.join(segment::file_name(segment.number));
        let recycled = directory.join(segment::RECYCLED_NAME);
        let recycles = self.recycled.is_none() && segment.bytes == shared.limits.segment_bytes;
        let taken = if recycles { disk.rename(&path, &recycled) } else { disk.remove(&path) };
        let removed = match &taken {
            Err(error) if error.kind() != io::ErrorKind::NotFound => taken,
            _ => disk.sync_dir(directory),
        };
        if let Err(error) = &removed {
            // It is tried again at every tick.
            if !std::mem::replace(&mut self.removals_fail, true) {
                tracing::warn!(path = %path.display(), %error, "a settled segment could not be removed");
            }
            return false;
        }
        self.removals_fail = false;
        lock(&shared.table).forget_oldest();
        if recycles {
            // After it was forgotten, so that nobody takes the zeros for damage.
            self.recycle(&recycled, segment.bytes);
        }
        shared.report_disk();
        true
    }

    fn recycle(&mut self, path: &std::path::Path, bytes: u64) {
        match segment::make_blank(&*self.shared.disk, path, bytes) {
            Ok(file) => {
                lock(&self.shared.table).recycled_bytes = bytes;
                self.recycled = Some(file);
            }
            Err(error) => {
                tracing::warn!(%error, "a freed segment could not be made blank, and is removed");
                // Should this fail, too, the next start removes it.
                let _ = self.shared.disk.remove(path);
            }
        }
    }

    /// Notices what was set aside and what an operator has cleared away.
    fn measure_damage(&self) {
        let known = self.shared.damaged_ranges.load(Ordering::Relaxed);
        if known == 0 {
            return;
        }
        // What cannot be listed now keeps counting as it did.
        let Ok(kept) = damage::measure(&*self.shared.disk, &self.shared.paths) else { return };
        self.shared.damaged_ranges.store(kept.files, Ordering::Relaxed);
        if self.shared.damaged_bytes.swap(kept.bytes, Ordering::Relaxed) != kept.bytes {
            self.shared.report_disk();
        }
    }

    /// Makes the next segment's file where it is wanted and the budget allows it.
    fn make_spare(&mut self) {
        if !matches!(*lock(&self.shared.spare), Spare::Wanted | Spare::NoRoom) {
            return;
        }
        let made = if self.fits_budget() { self.prepare() } else { Ok(false) };
        match made {
            Ok(true) => {
                if self.is_short {
                    tracing::info!("the journal has room again");
                }
                self.is_short = false;
                self.shared.set_health(Health::Ready);
            }
            Ok(false) => {
                if !self.is_short {
                    tracing::warn!(
                        "no room for the journal's next segment; once this one is full, new records are refused"
                    );
                }
                self.is_short = true;
                *lock(&self.shared.spare) = Spare::NoRoom;
            }
            Err(error) => {
                tracing::error!(%error, "the journal's next segment could not be made; the journal has failed");
                *lock(&self.shared.spare) = Spare::Failed;
                self.shared.set_health(Health::Failed);
            }
        }
        self.shared.spare_changed.notify_all();
    }

    /// `Ok(false)` where there is no room now. Any other failure is one of the disk: it is as little to be trusted as
    /// after a failed sync of records (R6).
    fn prepare(&mut self) -> io::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let (directory, bytes) = (&shared.paths.directory, shared.limits.segment_bytes);
        let file = loop {
            let made = match self.recycled.take() {
                Some(file) => {
                    lock(&shared.table).recycled_bytes = 0;
                    segment::adopt(&*shared.disk, directory, self.next_number).map(|()| file)
                }
                None => segment::prepare(&*shared.disk, directory, self.next_number, bytes),
            };
            match made {
                Ok(file) => break file,
                Err(error) if is_no_room(&error) => {
                    if !self.free_early() {
                        return Ok(false);
                    }
                }
                Err(error) if is_shortage(&error) => {
                    if !self.is_short {
                        tracing::warn!(%error, "the journal's next segment cannot be made now");
                    }
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        };
        let number = self.next_number;
        self.next_number += 1;
        let mut spare = lock(&shared.spare);
        lock(&shared.table).spare_bytes = bytes;
        *spare = Spare::Ready { number, file };
        drop(spare);
        shared.report_disk();
        Ok(true)
    }

    /// Whether one more segment keeps to the budget, after freeing what only its retention keeps.
    fn fits_budget(&mut self) -> bool {
        let limits = self.shared.limits.clone();
        while self.recycled.is_none() && self.shared.disk_bytes() + limits.segment_bytes > limits.disk_max {
            if !self.free_early() {
                return false;
            }
        }
        true
    }

    /// Frees the oldest settled segment before its retention is over: to refuse new records would be worse.
    fn free_early(&mut self) -> bool {
        let watermarks = self.shared.cursors.values().map(|cursor| watermark(cursor));
        let would_pass = watermarks.min();
        if lock(&self.shared.table).settled(would_pass).is_none() {
            return false;
        }
        self.save_cursors(Saving::Now);
        let settled = lock(&self.shared.table).settled(self.shared.passed()).cloned();
        let Some(segment) = settled else { return false };
        let deleted = self.delete(&segment);
        if deleted {
            metrics::segment_freed_early();
            tracing::warn!(
                segment = segment.number,
                records = segment.end - segment.first,
                "freed settled records before their retention was over, for room"
            );
        }
        deleted
    }

    /// While there is no room: tells a sheddable cursor to give up the oldest segment, where only such cursors hold it.
    fn publish_shedding(&self) {
        let oldest_end = if self.is_short {
            lock(&self.shared.table).sealed_oldest().map(|segment| segment.end)
        } else {
            None
        };
        let cursors = || self.shared.cursors.values();
        let give_up = oldest_end
            .filter(|end| cursors().all(|cursor| cursor.spec.sheddable || watermark(cursor) + 1 >= *end));
        for cursor in cursors().filter(|cursor| cursor.spec.sheddable) {
            let before = give_up.filter(|end| watermark(cursor) + 1 < *end).map(Position);
            cursor.shed_before.send_if_modified(|current| std::mem::replace(current, before) != before);
        }
    }
}

/// When a cursor that moved is saved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saving {
    /// When it has rested from the last time.
    Lazily,
    /// At once: something waits for it.
    Now,
}

/// What is settled without a gap, saved or not.
fn watermark(cursor: &Cursor) -> u64 {
    lock(&cursor.state).standing.progress().through()
}

/// Saves a cursor that moved.
///
/// # Errors
/// What the operating system said; the cursor stays to be saved.
fn save(shared: &Shared, cursor: &Cursor, how: Saving) -> io::Result<()> {
    let mut slots = lock(&cursor.slots);
    if how == Saving::Lazily && slots.rests() {
        return Ok(());
    }
    let standing = {
        let mut state = lock(&cursor.state);
        if !std::mem::take(&mut state.dirty) {
            return Ok(());
        }
        state.standing.clone()
    };
    let saved = slots.save(&*shared.disk, &shared.paths.cursors, &standing);
    match &saved {
        Ok(()) => cursor.saved_through.store(standing.progress().through(), Ordering::Release),
        Err(_) => lock(&cursor.state).dirty = true,
    }
    saved
}
