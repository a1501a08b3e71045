//! The writer thread: takes whatever waits, writes it at once, syncs once, and only then answers.
//! Holds: R1 (a waiter is answered with `Ok` only against a [`SyncedThrough`] that covers its records, duplicates
//! included), R6 (after a failed write or sync everything is refused; nothing is tried again). The check for duplicates
//! and the append are atomic, because both happen here.
//! No artificial delay: the sync in progress is what gathers the next batch.

use super::dedupe::{Remembered, SteadyMs};
use super::durable::Durable;
use super::recent::{Batch, Slice};
use super::record::{self, Place};
use super::segment::{self, Active, HEADER_BYTES, Header, SyncedThrough};
use super::shared::{Shared, Spare, lock};
use super::table::Segment;
use super::types::{AppendError, Appended, Health, Record};
use crate::telemetry::metrics::journal as metrics;
use crate::time::UnixMs;
use bytes::Bytes;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// A batch is written when it has this many bytes, even if more waits.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Calls taken from the queue at a time.
const CALLS_MAX: usize = 4096;

/// What the writer is asked.
pub(super) enum Command {
    /// Store these.
    Append(Call),
    /// Take no more; what waits is still written.
    Close,
}

/// One call of `append`.
pub(super) struct Call {
    pub records: Vec<Record>,
    /// Bytes of their frames.
    pub bytes: usize,
    /// Their share of what may wait; given back with them.
    pub room: OwnedSemaphorePermit,
    pub done: oneshot::Sender<Answer>,
}

/// What a call comes to. It gives the records back, so that the many callers free them and not the one writer.
pub(super) struct Answer {
    pub result: Result<Durable, AppendError>,
    _held: Held,
}

/// The records of a call, and their share of what may wait.
type Held = (Vec<Record>, OwnedSemaphorePermit);

struct Waiter {
    appended: Vec<Appended>,
    /// The greatest sequence number given out when its records had been gathered.
    last: u64,
    held: Held,
    done: oneshot::Sender<Answer>,
}

impl Waiter {
    /// The only `Ok` a caller ever gets.
    fn stored(self, proof: SyncedThrough) {
        let durable = Durable::covered(self.appended, self.last, proof);
        // A caller that has gone away does not undo its append.
        let _ = self.done.send(Answer { result: Ok(durable), _held: self.held });
    }
    fn refused(self, error: AppendError) {
        let _ = self.done.send(Answer { result: Err(error), _held: self.held });
    }
}

/// What was gathered and is not yet written.
#[derive(Default)]
struct Pending {
    buffer: Vec<u8>,
    slices: Vec<Slice>,
    waiters: Vec<Waiter>,
    duplicates: u64,
    newest_ms: Option<UnixMs>,
}

/// The owner of the write end.
pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    remembered: Remembered,
    /// When the remembering began.
    began: Instant,
    /// When the last identity in the active segment may be forgotten.
    remember_until: UnixMs,
    pending: Pending,
    next_sequence: u64,
    synced: Option<SyncedThrough>,
    failed: bool,
}

impl Writer {
    /// Goes on where recovery ended.
    pub(super) fn new(
        shared: Arc<Shared>,
        active: Option<(Active, SyncedThrough)>,
        remembered: Remembered,
        remember_until: UnixMs,
        next_sequence: u64,
    ) -> Writer {
        let (active, synced) = active.unzip();
        Writer {
            shared,
            active,
            remembered,
            began: Instant::now(),
            remember_until,
            pending: Pending::default(),
            next_sequence,
            synced,
            failed: false,
        }
    }

    /// Runs until every handle is gone or one asks to close.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut waiting = Vec::new();
        while inbox.blocking_recv_many(&mut waiting, CALLS_MAX) > 0 {
            self.begin_step();
            // Housekeeping may have found that the disk fails.
            self.failed |= *self.shared.health.borrow() == Health::Failed;
            let mut bytes_left: usize = waiting.iter().map(Command::bytes).sum();
            for command in waiting.drain(..) {
                match command {
                    Command::Append(call) => {
                        if self.pending.buffer.is_empty() {
                            let wanted = HEADER_BYTES + bytes_left.min(BATCH_BYTES_MAX + call.bytes);
                            self.pending.buffer.reserve_exact(wanted);
                        }
                        bytes_left -= call.bytes;
                        self.admit(call);
                    }
                    Command::Close => inbox.close(),
                }
            }
            self.commit();
            *lock(&self.shared.at_step_since) = None;
        }
    }

    /// From here on the disk may hold it up.
    fn begin_step(&self) {
        *lock(&self.shared.at_step_since) = Some(Instant::now());
    }

    /// Takes a call into the batch, or answers why not.
    fn admit(&mut self, call: Call) {
        let Call { records, bytes, room, done } = call;
        let waiter =
            Waiter { appended: Vec::with_capacity(records.len()), last: 0, held: (records, room), done };
        if self.failed {
            return waiter.refused(AppendError::Failed);
        }
        // One moment for all of it: what needs no room now is not new a millisecond later.
        let now = self.steady();
        let is_known = |record: &Record| self.is_known(record, now);
        // Duplicates need no room. Beside a record that is new they do: it may have them forgotten.
        if !self.has_room(bytes)
            && !waiter.held.0.iter().all(is_known)
            && let Err(error) = self.make_room(bytes)
        {
            return waiter.refused(error);
        }
        self.gather(waiter, now);
        if self.pending.buffer.len() >= BATCH_BYTES_MAX {
            self.commit();
        }
    }

    fn is_known(&self, record: &Record, now: SteadyMs) -> bool {
        record.dedupe.is_some_and(|dedupe| self.remembered.knows(&dedupe.key, now))
    }

    fn steady(&self) -> SteadyMs {
        SteadyMs(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Encodes what is new; there is room.
    fn gather(&mut self, mut waiter: Waiter, now: SteadyMs) {
        for record in &waiter.held.0 {
            if let Some(dedupe) = &record.dedupe {
                if !self.remembered.remember(dedupe, now) {
                    self.pending.duplicates += 1;
                    waiter.appended.push(Appended::Duplicate);
                    continue;
                }
                let window_ms = i64::try_from(dedupe.window.as_millis()).unwrap_or(i64::MAX);
                let until = UnixMs(record.arrival.0.saturating_add(window_ms));
                self.remember_until = self.remember_until.max(until);
            }
            if let Some(active) = &mut self.active {
                if active.is_blank() && self.pending.buffer.is_empty() {
                    active.header.first_ms = record.arrival;
                    self.pending.buffer.extend_from_slice(&active.header.encode());
                }
                let place = Place { sequence: self.next_sequence, generation: active.header.generation };
                let payload = record::encode(record, place, &mut self.pending.buffer);
                self.pending.slices.push(Slice { arrival: record.arrival, payload });
            }
            self.pending.newest_ms = self.pending.newest_ms.max(Some(record.arrival));
            self.next_sequence += 1;
            waiter.appended.push(Appended::Stored);
        }
        waiter.last = self.next_sequence - 1;
        self.pending.waiters.push(waiter);
    }

    /// Writes and syncs what was gathered, then answers everybody who waits for it.
    fn commit(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if pending.waiters.is_empty() {
            return;
        }
        let Ok(proof) = self.write_and_sync(pending.buffer, pending.slices, pending.newest_ms) else {
            self.fail();
            return pending.waiters.into_iter().for_each(|waiter| waiter.refused(AppendError::Failed));
        };
        self.begin_step();
        if pending.duplicates > 0 {
            metrics::duplicates_seen(pending.duplicates);
        }
        for waiter in pending.waiters {
            waiter.stored(proof);
        }
        let forgotten_early = self.remembered.take_forgotten_early();
        if forgotten_early > 0 {
            metrics::identities_forgotten_early(forgotten_early);
        }
        if self.active.as_ref().is_some_and(Active::is_half_full) {
            self.want_spare();
        }
    }

    fn write_and_sync(
        &mut self,
        buffer: Vec<u8>,
        slices: Vec<Slice>,
        newest_ms: Option<UnixMs>,
    ) -> Result<SyncedThrough, ()> {
        let first = self.next_sequence - slices.len() as u64;
        let (Some(active), Some(newest_ms)) = (&mut self.active, newest_ms) else {
            // Nothing but duplicates: what they repeat was synced before this batch began.
            return self.synced.ok_or(());
        };
        let written = active.write(&buffer, self.next_sequence - 1);
        let started = Instant::now();
        let proof = written.and_then(|()| active.sync()).map_err(|error| {
            tracing::error!(path = %active.path().display(), %error, "the journal could not be written and has failed");
        })?;
        metrics::committed(slices.len() as u64, buffer.len() as u64, started.elapsed());
        let batch = Batch { first, slices, buffer: Bytes::from(buffer) };
        self.synced = Some(proof);
        self.shared.publish(proof, batch, active.offset(), newest_ms);
        Ok(proof)
    }

    fn fail(&mut self) {
        self.failed = true;
        self.shared.set_health(Health::Failed);
    }

    /// Whether the segment that is written to can take frames of `bytes` bytes.
    fn has_room(&self, bytes: usize) -> bool {
        self.active.as_ref().is_some_and(|active| active.room(self.pending.buffer.len()) >= bytes as u64)
    }

    /// Has room for frames of `bytes` bytes in one segment, going on to the next where it must.
    fn make_room(&mut self, bytes: usize) -> Result<(), AppendError> {
        if bytes as u64 > self.shared.limits.segment_bytes - HEADER_BYTES as u64 {
            return Err(AppendError::TooLarge);
        }
        if self.has_room(bytes) {
            return Ok(());
        }
        // Whoever was gathered is answered before the wait for a file.
        self.commit();
        if self.failed {
            return Err(AppendError::Failed);
        }
        let (number, file) = self.take_spare()?;
        self.rotate(number, file);
        Ok(())
    }

    fn rotate(&mut self, number: u64, file: Arc<dyn super::disk::DiskFile>) {
        let mut table = lock(&self.shared.table);
        let previous_newest_ms = table.active_mut().map_or(UnixMs(i64::MIN), |active| {
            active.remember_until = self.remember_until;
            active.newest_ms
        });
        let header = Header {
            number,
            // Random, so that no sender can write bytes into a payload that would pass for a frame.
            generation: RandomState::new().build_hasher().finish(),
            first: self.next_sequence,
            first_ms: UnixMs::default(),
            previous_newest_ms,
            previous_remember_until: self.remember_until,
        };
        let capacity = self.shared.limits.segment_bytes;
        table.activate(Segment {
            number,
            generation: header.generation,
            first: header.first,
            end: header.first,
            readable: 0,
            bytes: capacity,
            first_ms: UnixMs::default(),
            newest_ms: UnixMs(i64::MIN),
            remember_until: UnixMs(i64::MIN),
            sealed_at: None,
        });
        drop(table);
        let path = self.shared.paths.directory.join(segment::file_name(number));
        self.active = Some(Active::begin(file, path, header, capacity));
        self.remember_until = UnixMs(i64::MIN);
    }

    fn want_spare(&self) {
        let mut spare = lock(&self.shared.spare);
        if matches!(*spare, Spare::NotWanted) {
            *spare = Spare::Wanted;
            self.shared.spare_changed.notify_all();
        }
    }

    /// The next segment's file; waits while it is being made.
    fn take_spare(&mut self) -> Result<(u64, Arc<dyn super::disk::DiskFile>), AppendError> {
        self.want_spare();
        let mut spare = lock(&self.shared.spare);
        loop {
            match std::mem::replace(&mut *spare, Spare::NotWanted) {
                Spare::Ready { number, file } => return Ok((number, file)),
                Spare::NoRoom => {
                    *spare = Spare::NoRoom;
                    self.shared.set_health(Health::Full);
                    return Err(AppendError::Full);
                }
                Spare::Failed => {
                    *spare = Spare::Failed;
                    drop(spare);
                    self.fail();
                    return Err(AppendError::Failed);
                }
                Spare::Wanted | Spare::NotWanted => *spare = Spare::Wanted,
            }
            spare = self.shared.spare_changed.wait(spare).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Command::Append(call) => call.bytes,
            Command::Close => 0,
        }
    }
}
