//! The journal: what was accepted, in order, on disk, until every cursor has passed it.
//! Holds: R1 (`append` resolves only after the sync that covers the record), R2, R3, R6.
//! Absent on purpose: envelopes, routes and sinks; it stores bytes under named cursors, and nothing outside this
//! module may assume that a `Position` is an offset of a local file.
//!
//! Three threads do the work: the writer (`writer`), housekeeping (`housekeeping`) and the reader for lanes that are
//! behind (`reader`). The handle and the feeds talk to them through `shared`. One layer a file, lowest first:
//! disk, salvage, record, segment, scan, recovery; cursor and `cursor_file`; table, recent, dedupe. Beside them
//! `inspect` looks at a journal that nobody has open.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

mod cursor;
mod cursor_file;
mod damage;
mod dedupe;
mod disk;
mod durable;
mod feed;
#[cfg(test)]
mod fuzz_tests;
mod housekeeping;
pub mod inspect;
mod reader;
mod recent;
mod record;
mod recovery;
mod salvage;
mod scan;
mod segment;
mod shared;
mod table;
#[cfg(test)]
mod tests;
mod types;
mod writer;

pub use disk::{Disk, DiskFile, Held, LockAttempt, ReadOnlyDisk, RealDisk};
pub use durable::Durable;
pub use feed::Feed;
pub use segment::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use types::{
    Account, AppendError, Appended, Config, CursorSpec, Dedupe, Deferral, Ending, Engine, Entry, Health, Lag,
    NOTE_BYTES_MAX, OpenError, Position, ReadError, Record, Status, Tally,
};

use crate::telemetry::metrics::journal as metrics;
use housekeeping::Housekeeping;
use recent::Recent;
use recovery::at;
use shared::{Limits, Paths, Published, Shared, Spare, lock};
use writer::{Call, Command, Writer};

/// How often cursors are saved: what a crash may repeat.
const TICK: Duration = Duration::from_millis(200);
/// Bytes of records that wait for the writer or for their sync. Beyond, callers wait for their turn: a disk that hangs costs
/// this much memory, whoever asks, and whoever of them has given up asking.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// A budget holds at least so many segments, or nothing could ever be freed.
pub const SEGMENTS_IN_BUDGET: u64 = 4;

/// A cheap handle on the journal. When the last one is dropped the journal closes by itself.
#[derive(Clone)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
}

impl Journal {
    /// Locks the directory, recovers what is there and starts the writer.
    ///
    /// A cursor that was never seen starts at the end of what is there (in a new journal, at its beginning). The
    /// cursor of a name that is no longer given is kept on disk and holds nothing back.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        config: &Config,
        directory: &Path,
        disk: Arc<dyn Disk>,
        cursors: &[CursorSpec],
    ) -> Result<Journal, OpenError> {
        Self::open_with_tick(config, directory, disk, cursors, TICK)
    }

    fn open_with_tick(
        config: &Config,
        directory: &Path,
        disk: Arc<dyn Disk>,
        cursors: &[CursorSpec],
        tick: Duration,
    ) -> Result<Journal, OpenError> {
        metrics::journal_started();
        let paths = Paths {
            directory: directory.to_owned(),
            cursors: directory.join("cursors"),
            damaged: directory.join("damaged"),
        };
        for path in [&paths.directory, &paths.cursors, &paths.damaged] {
            disk.create_dir(path).map_err(at(path))?;
        }
        let held = recovery::lock_directory(&*disk, directory)?;
        // Also the names that a process left which was killed before its own sync.
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        for path in parent.into_iter().chain([directory, &paths.cursors, &paths.damaged]) {
            disk.sync_dir(path).map_err(at(path))?;
        }
        let recovered = recovery::recover(&*disk, &paths, cursors, config.dedupe_max)?;
        let segment_bytes = (config.segment.get().min(config.disk_max.get() / SEGMENTS_IN_BUDGET))
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let limits = Limits {
            disk_max: config.disk_max.get(),
            segment_bytes,
            retention: config.retention.get(),
            tick,
        };
        let spare = if recovered.active.is_some() { Spare::NotWanted } else { Spare::Wanted };
        let (reads, read_requests) = mpsc::channel(cursors.len().max(1));
        let shared = Arc::new(Shared {
            disk,
            paths,
            limits,
            table: Mutex::new(recovered.table),
            spare: Mutex::new(spare),
            spare_changed: std::sync::Condvar::new(),
            stopping: AtomicBool::new(false),
            at_step_since: Mutex::new(None),
            recent: Mutex::new(Recent::new(config.recent_max.as_len())),
            cursors: recovered.cursors,
            published: watch::Sender::new(Published { through: recovered.next_sequence - 1, closed: false }),
            health: watch::Sender::new(Health::Ready),
            damaged_ranges: AtomicU64::new(recovered.damaged.files),
            damaged_bytes: AtomicU64::new(recovered.damaged.bytes),
            reads: Mutex::new(Some(reads)),
        });
        shared.report_disk();
        let writer = Writer::new(
            Arc::clone(&shared),
            recovered.active,
            recovered.remembered,
            recovered.remember_until,
            recovered.next_sequence,
        );
        let housekeeping = Housekeeping::new(Arc::clone(&shared), recovered.next_number, held);
        let (commands, inbox) = mpsc::channel((config.waiting_max as usize).max(1));
        let ended =
            start_threads(&shared, writer, housekeeping, inbox, read_requests).map_err(at(directory))?;
        let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        Ok(Journal { commands, room, shared, ended })
    }

    /// Resolves when every record is on disk, or known to be there already (R1). All are stored together or none is:
    /// in one segment, by one write, under one sync. Dropping the future does not undo the append.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(&self, records: Vec<Record>) -> Result<Durable, AppendError> {
        if records.is_empty() {
            // There is no sync that could vouch for nothing.
            return Err(AppendError::Nothing);
        }
        let bytes: usize = records.iter().map(record::frame_bytes).sum();
        let share = u32::try_from(bytes.min(WAITING_BYTES_MAX)).expect("the bound fits");
        let room = Arc::clone(&self.room).acquire_many_owned(share).await.map_err(|_| AppendError::Closed)?;
        let (done, durable) = oneshot::channel();
        let call = Call { records, bytes, room, done };
        self.commands.send(Command::Append(call)).await.map_err(|_| AppendError::Closed)?;
        durable.await.map_err(|_| AppendError::Closed)?.result
    }

    /// The way of the cursor `name`, once; `None` where it was not opened with the journal or was taken already.
    #[must_use]
    pub fn feed(&self, name: &str) -> Option<Feed> {
        let cursor = self.shared.cursors.get(name)?;
        let is_first = !cursor.taken.swap(true, Ordering::AcqRel);
        is_first.then(|| Feed::new(Arc::clone(&self.shared), Arc::clone(cursor)))
    }

    /// What `status` shows.
    #[must_use]
    pub fn status(&self) -> Status {
        let bytes = self.shared.disk_bytes();
        let table = lock(&self.shared.table);
        Status {
            health: *self.shared.health.borrow(),
            bytes,
            bytes_max: self.shared.limits.disk_max,
            segments: table.count(),
            records: table.records(),
            oldest: table.oldest().map(|segment| segment.first_ms),
            damaged_ranges: self.shared.damaged_ranges.load(Ordering::Relaxed),
        }
    }

    /// Changes of [`Health`].
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// How long the disk has been holding up what is appended now: the write and sync in progress, or the wait for the
    /// next segment's file. Zero where nothing waits, so a disk that hangs shows with the first record that needs it.
    #[must_use]
    pub fn stalled_for(&self) -> Duration {
        self.shared.stalled_for()
    }

    /// How far the cursor `name` is behind; `None` where there is no such cursor.
    #[must_use]
    pub fn lag(&self, name: &str) -> Option<Lag> {
        self.tally(name).map(|(_, lag)| lag)
    }

    /// What became of the records before the cursor `name`, and how far it is behind: of one moment, so that they add
    /// up. `None` where there is no such cursor.
    #[must_use]
    pub fn tally(&self, name: &str) -> Option<(Tally, Lag)> {
        self.standing(name).map(|(_, tally, lag)| (tally, lag))
    }

    /// The same, added up.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<(Account, Lag)> {
        self.standing(name).map(|(last, tally, lag)| (Account::of(last, &tally, lag.events), lag))
    }

    /// The last durable number, and how the cursor stands to it.
    fn standing(&self, name: &str) -> Option<(u64, Tally, Lag)> {
        let cursor = self.shared.cursors.get(name)?;
        let (durable, tally, events, unread, outstanding) = {
            let state = lock(&cursor.state);
            // Under the lock: what is settled later is durable later.
            let durable = self.shared.durable();
            let outstanding = state.outstanding.first_key_value().map(|(_, arrival)| *arrival);
            let (tally, progress) = (state.standing.tally(), state.standing.progress());
            (durable, tally, progress.unsettled(durable), progress.through() + 1, outstanding)
        };
        if events == 0 {
            return Some((durable, tally, Lag::default()));
        }
        let recent = || lock(&self.shared.recent).get(unread).map(|(arrival, _)| arrival);
        let segment = || lock(&self.shared.table).holding(unread).map(|segment| segment.first_ms);
        Some((durable, tally, Lag { events, oldest: outstanding.or_else(recent).or_else(segment) }))
    }

    /// Writes what waits, saves the cursors, releases the lock. Later calls of `append` fail with `Closed`.
    pub async fn close(&self) {
        // Where the writer has ended already there is nothing left to ask.
        let _ = self.commands.send(Command::Close).await;
        // The sender lives in the thread that closes last; when it is gone the journal is closed, too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// Starts the three threads. They end in the order writer, reader, housekeeping, which lets the directory go.
fn start_threads(
    shared: &Arc<Shared>,
    writer: Writer,
    housekeeping: Housekeeping,
    inbox: mpsc::Receiver<Command>,
    read_requests: mpsc::Receiver<reader::ReadRequest>,
) -> std::io::Result<watch::Receiver<bool>> {
    let closing = Closing(Arc::clone(shared));
    let (has_ended, ended) = watch::channel(false);
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let reading = Arc::clone(shared);
    named("journal-reader").spawn(move || reader::run(&reading, read_requests))?;
    let keeping = Keeping(Arc::clone(shared));
    named("journal-keeper").spawn(move || {
        housekeeping.run();
        drop(keeping);
        has_ended.send_replace(true);
    })?;
    named("journal-writer").spawn(move || {
        writer.run(inbox);
        drop(closing);
    })?;
    Ok(ended)
}

/// Fails the journal should housekeeping end before the writer, by a defect of its own: the writer would wait for the
/// next segment for ever, and nothing would show it.
struct Keeping(Arc<Shared>);

impl Drop for Keeping {
    fn drop(&mut self) {
        // Final where the journal is closed.
        self.0.set_health(Health::Failed);
        *lock(&self.0.spare) = Spare::Failed;
        self.0.spare_changed.notify_all();
    }
}

/// Ends the other threads when the writer has ended, and also when one of them could not be started. A writer that ends by
/// a defect of its own fails the journal: nobody has closed it, and only a new process takes events again.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.set_health(if std::thread::panicking() { Health::Failed } else { Health::Closed });
        self.0.published.send_modify(|published| published.closed = true);
        lock(&self.0.reads).take();
        let spare = lock(&self.0.spare);
        self.0.stopping.store(true, Ordering::Release);
        drop(spare);
        self.0.spare_changed.notify_all();
    }
}
