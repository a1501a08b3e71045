//! Dead letters: events a sink can never take, and bodies the ingress could not read, kept until somebody decides.
//! Holds: `put` resolves only when the letter is durable, so that a cursor may pass it (R2); a replayed letter stays
//! until its delivery is confirmed (R4).
//! Absent on purpose: when an event is given up (`dispatch`), how a body is read (`source`).

mod changes;
mod file;
#[cfg(test)]
mod fuzz_tests;
mod inspect;
mod ledger;
mod letter;
mod reads;
mod rows;
mod types;
mod watched;
mod writer;

#[cfg(test)]
mod tests;

pub use inspect::{Inspection, inspect};
pub use reads::{DEAD_LETTER_ATTEMPTS, DEAD_LETTER_REASON, DEAD_LETTER_SINK, DEAD_LETTER_TIME};
pub use types::{
    Config, Errand, ErrandEnd, ErrandKind, Filter, LetterAccount, LetterId, Origin, Payload, Quarantined,
    StoreError, Summary, Totals, Undelivered,
};
pub use writer::KeptLetter;

use crate::clock;
use crate::envelope::SinkName;
use crate::journal::Deferral;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::Reason;
use crate::telemetry::metrics::dead_letters as metrics;
use changes::{Action, Answer, Change, End, SWEEP_ENTRIES_MAX};
use file::{Place, StoreFile};
use letter::Draft;
use reads::ReadError;
use redb::{Database, ReadTransaction};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use writer::{Applied, CHANGES_WAITING_MAX, Command, Shared};

/// The most letters in one answer of [`DeadLetters::list`], whatever is asked for.
pub const LIST_LETTERS_MAX: usize = 1000;
/// The most reads at once; each holds a blocking thread and a snapshot.
const READS_MAX: usize = 8;
/// How often a store that found no room looks whether there is some now.
const ROOM_TRIED_EVERY: Duration = Duration::from_secs(2);

/// A cheap handle on the store.
#[derive(Clone)]
pub struct DeadLetters {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    reads: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl DeadLetters {
    /// Opens or makes the store in `directory`, which must exist. Called inside the tokio runtime. It stays open until
    /// [`DeadLetters::close`], or until [`Phase::Storage`] begins to stop.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where the file cannot be opened.
    pub fn open(config: &Config, directory: &Path, shutdown: &Shutdown) -> Result<Self, StoreError> {
        Self::start(StoreFile::open(directory)?, config, shutdown)
    }

    fn start(place: impl Place, config: &Config, shutdown: &Shutdown) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::open(Box::new(place), config.disk_max.get())?);
        let (commands, waiting) = mpsc::channel(CHANGES_WAITING_MAX);
        let writer = Arc::clone(&shared);
        shutdown.spawn_blocking(Phase::Storage, move || writer::run(writer, waiting));
        // Weak, so that a store whose handles are all gone ends, too.
        let (weak, stop) = (commands.downgrade(), shutdown.token(Phase::Storage).clone());
        shutdown.spawn(Phase::Storage, attend(Arc::clone(&shared), weak, stop));
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Ok(DeadLetters { shared, commands, reads, shutdown: shutdown.clone() })
    }

    /// Tells the store which sinks there are: their series start at zero, and errands of sinks that are no longer
    /// configured are named in the log, because no lane will ever fetch them.
    pub fn announce<'a>(&self, sinks: impl IntoIterator<Item = &'a SinkName>) {
        let mut orphaned = self.errands_open();
        for sink in sinks {
            metrics::sink_started(sink, Reason::ALL.iter().map(|reason| reason.label()));
            orphaned.remove(sink);
        }
        for (sink, errands) in orphaned {
            tracing::warn!(
                %sink,
                errands,
                "replays or copies of dead letters wait for a sink that is not configured; configure it or discard the letters"
            );
        }
    }

    /// Keeps an event that a lane gives up; durable when it resolves. A letter that is there already is updated: the
    /// newest failure counts, the first stays, attempts add up. Cancelling the call does not undo it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(&self, letter: Undelivered<'_>) -> Result<LetterId, StoreError> {
        self.keep(Draft::of_event(&letter, clock::now())).await.map(LetterId::from)
    }

    /// Keeps a body that could not be read; durable when it resolves.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantine(&self, letter: Quarantined<'_>) -> Result<KeptLetter, StoreError> {
        self.keep(Draft::of_body(&letter, clock::now())).await
    }

    async fn keep(&self, draft: Draft) -> Result<KeptLetter, StoreError> {
        let id = draft.summary.id.clone();
        let (_, committed) = self.change(Change::Keep(Box::new(draft))).await?;
        Ok(KeptLetter::of(id, committed))
    }

    /// Letters in the order they were given up, after the letter `after`, at most `limit` and [`LIST_LETTERS_MAX`].
    /// Where `after` is gone meanwhile, from the beginning: nothing that is still there is left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        filter: Filter,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<Vec<Summary>, StoreError> {
        let limit = limit.min(LIST_LETTERS_MAX);
        self.read(move |snapshot, unreadable| {
            reads::list(snapshot, &filter, after.as_ref(), limit, unreadable)
        })
        .await
    }

    /// One letter with its content.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Failed`] also where this letter alone cannot be read back.
    pub async fn get(&self, id: LetterId) -> Result<Option<(Summary, Payload)>, StoreError> {
        self.read(move |snapshot, unreadable| reads::get(snapshot, &id, unreadable)).await
    }

    /// Asks the lanes to deliver matching letters again; returns how many were not being replayed yet. Quarantines do
    /// not match: they are read again with `get` and removed with `discard`.
    ///
    /// # Errors
    /// [`StoreError`]; what was reached before it stays asked for.
    pub async fn request_replay(&self, filter: Filter) -> Result<u64, StoreError> {
        self.sweep(Action::Replay, filter).await
    }

    /// Deletes matching letters for good, with their open copies; returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was reached before it stays deleted.
    pub async fn discard(&self, filter: Filter) -> Result<u64, StoreError> {
        self.sweep(Action::Discard, filter).await
    }

    /// Deletes a quarantine that was read at last: counted as replayed, not as discarded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn readmitted(&self, id: LetterId) -> Result<(), StoreError> {
        let filter = Filter { ids: vec![id], ..Filter::default() };
        self.sweep(Action::Readmitted, filter).await.map(|_gone| ())
    }

    /// In bounded steps, so that lanes get their letters in between.
    async fn sweep(&self, action: Action, filter: Filter) -> Result<u64, StoreError> {
        let mut swept = 0;
        let mut steps: Vec<Filter> = filter
            .ids
            .chunks(SWEEP_ENTRIES_MAX)
            .map(|ids| Filter { ids: ids.to_vec(), ..filter.clone() })
            .collect();
        if steps.is_empty() {
            steps.push(filter);
        }
        for filter in steps {
            let mut after = None;
            loop {
                let answer = self.change(Change::Sweep { action, filter: filter.clone(), after }).await?;
                let (Answer::Swept { letters, next }, _) = answer else { break };
                swept += letters;
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(swept)
    }

    /// Open errands of a lane that are not among `in_hand`, oldest first, at most `limit`, stopping after `bytes_max`
    /// bytes of data. A copy carries the extension
    /// attributes [`DEAD_LETTER_SINK`], [`DEAD_LETTER_REASON`], [`DEAD_LETTER_TIME`] and [`DEAD_LETTER_ATTEMPTS`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn errands(
        &self,
        sink: SinkName,
        in_hand: Vec<(LetterId, ErrandKind)>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Errand>, StoreError> {
        let bounds = reads::ErrandBounds { count_max: limit, bytes_max };
        self.read(move |snapshot, unreadable| {
            reads::errands(snapshot, &sink, &in_hand.into_iter().collect(), bounds, unreadable)
        })
        .await
    }

    /// Notes of an open errand when it is to be tried again; [`Errand::deferral`] gives the newest that was kept back
    /// after a restart. It waits for nothing and keeps nobody waiting: soon durable, or left out where the store has
    /// much to do, and forgotten when the errand ends.
    pub fn note_errand(&self, sink: SinkName, letter: LetterId, kind: ErrandKind, deferral: Deferral) {
        if self.commands.capacity() > CHANGES_WAITING_MAX / 2 {
            let (done, _nobody_waits) = oneshot::channel();
            let change = Change::NoteErrand { sink, letter, kind, deferral };
            // Refused where others were quicker, or the store is closed.
            let _ = self.commands.try_send(Command::Change { change, done });
        }
    }

    /// Ends an errand; durable when it resolves. An errand that is not there (any more) is left at that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_errand(
        &self,
        sink: SinkName,
        letter: LetterId,
        kind: ErrandKind,
        end: ErrandEnd<'_>,
    ) -> Result<(), StoreError> {
        let end = match end {
            ErrandEnd::Delivered => End::Delivered,
            ErrandEnd::Failed { attempts, last } => End::Failed {
                attempts,
                reason: last.reason.label(),
                error: last.detail.clone(),
                died: clock::now(),
            },
        };
        self.change(Change::EndErrand { sink, letter, kind, end }).await.map(|_ended| ())
    }

    /// Changes whenever a lane may have new errands. What was open before the store was opened changes nothing: a lane
    /// asks once when it starts.
    #[must_use]
    pub fn errands_changed(&self) -> watch::Receiver<u64> {
        self.shared.errands_changed.subscribe()
    }

    /// Open errands by sink, also of sinks that are no longer configured.
    #[must_use]
    pub fn errands_open(&self) -> std::collections::BTreeMap<SinkName, u64> {
        self.shared.ledger().errands()
    }

    /// Letters kept, per origin, and their bytes; for `status` and the gauges. Reads no disk.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.ledger().totals(self.shared.bytes_max)
    }

    /// Sets the gauges and the counters that survive restarts, all from one moment. Called for each scrape.
    pub fn show(&self) {
        self.shared.ledger().show(self.shared.bytes_max);
    }

    /// Finishes what waits and closes the file.
    pub async fn close(&self) {
        // Refused only where the writer has ended already.
        let _ = self.commands.send(Command::Close).await;
        self.shared.ended.cancelled().await;
    }

    async fn change(&self, change: Change) -> Applied {
        let (done, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Change { change, done }).await;
        sent.map_err(|_refused| self.shared.gone())?;
        answer.await.map_err(|_dropped| self.shared.gone())?
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction, &mut u64) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_closed| StoreError::Closed)?;
        let shared = Arc::clone(&self.shared);
        let reading = self.shutdown.spawn_blocking(Phase::Storage, move || {
            let _permit = permit;
            let database = shared.database()?;
            let mut unreadable = 0;
            let result = begin_read(&database).and_then(|snapshot| work(&snapshot, &mut unreadable));
            shared.met_unreadable(unreadable);
            result.map_err(|error| match error {
                ReadError::Store(error) => StoreError::Failed(error.to_string()),
                ReadError::Answer(error) => error,
            })
        });
        reading.await.map_err(|_panicked| StoreError::Failed("reading it panicked".to_owned()))?
    }
}

/// Tells the writer when to look for room again, and when to close.
async fn attend(shared: Arc<Shared>, commands: mpsc::WeakSender<Command>, stop: CancellationToken) {
    let mut tries = tokio::time::interval(ROOM_TRIED_EVERY);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.ended.cancelled() => return,
            () = stop.cancelled() => {
                if let Some(commands) = commands.upgrade() {
                    // Refused only where the writer has ended already.
                    let _ = commands.send(Command::Close).await;
                }
                return;
            }
            _ = tries.tick() => if shared.waits_for_room() && let Some(commands) = commands.upgrade() {
                // Refused where others wait: the next tick comes.
                let _ = commands.try_send(Command::LookForRoom);
            },
        }
    }
}

fn begin_read(database: &Database) -> Result<ReadTransaction, ReadError> {
    use redb::ReadableDatabase;
    Ok(database.begin_read()?)
}
