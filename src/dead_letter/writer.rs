//! The one owner of every write: gathers the changes that wait, applies them in one transaction, answers all of them
//! after its sync.
//! Holds: an answer follows a durable commit (R2); after a failed commit nothing is taken any more, like R6.

use super::changes::{Action, Answer, Change, Changes, End};
use super::ledger::Ledger;
use super::types::{ErrandKind, Origin, StoreError};
use crate::telemetry::metrics::dead_letters as metrics;
use redb::Database;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The most changes that wait; each holds one payload in memory. Also the most in one transaction.
pub(super) const CHANGES_WAITING_MAX: usize = 128;

pub(super) enum Command {
    Change { change: Change, done: oneshot::Sender<Result<Answer, StoreError>> },
    Close,
}

type Waiting = (Change, oneshot::Sender<Result<Answer, StoreError>>);

/// What the handle and the writer share.
pub(super) struct Shared {
    /// `None` once closed.
    database: Mutex<Option<Arc<Database>>>,
    ledger: Mutex<Ledger>,
    /// Why nothing is taken any more.
    failed: OnceLock<String>,
    unreadable_logged: AtomicBool,
    pub errands_changed: watch::Sender<u64>,
    pub bytes_max: u64,
    /// Cancelled when the writer has ended and released the file.
    pub ended: CancellationToken,
}

impl Shared {
    /// Makes missing tables and counts what is there.
    pub(super) fn open(database: Database, bytes_max: u64) -> Result<Shared, redb::Error> {
        let mut ledger = Ledger::default();
        let transaction = database.begin_write()?;
        let mut changes = Changes::begin(&transaction, &mut ledger, bytes_max)?;
        changes.recount()?;
        changes.begin_counting()?;
        let unreadable = changes.unreadable;
        drop(changes);
        transaction.commit()?;
        metrics::store_started();
        ledger.show(bytes_max);
        let unaccounted = ledger.totals(bytes_max).unaccounted;
        if unaccounted != 0 {
            tracing::error!(
                unaccounted,
                "the dead-letter store does not hold the letters that it should; `hookbus journal verify` says more"
            );
        }
        let shared = Shared {
            database: Mutex::new(Some(Arc::new(database))),
            ledger: Mutex::new(ledger),
            failed: OnceLock::new(),
            unreadable_logged: AtomicBool::new(false),
            errands_changed: watch::Sender::new(0),
            bytes_max,
            ended: CancellationToken::new(),
        };
        shared.met_unreadable(unreadable);
        Ok(shared)
    }

    pub(super) fn database(&self) -> Result<Arc<Database>, StoreError> {
        if let Some(problem) = self.failed.get() {
            return Err(StoreError::Failed(problem.clone()));
        }
        locked(&self.database).clone().ok_or(StoreError::Closed)
    }

    pub(super) fn ledger(&self) -> Ledger {
        locked(&self.ledger).clone()
    }

    /// What to answer when the writer is no longer there.
    pub(super) fn gone(&self) -> StoreError {
        self.failed.get().map_or(StoreError::Closed, |problem| StoreError::Failed(problem.clone()))
    }

    /// Counts entries that could not be read, and says so once per opening.
    pub(super) fn met_unreadable(&self, entries: u64) {
        if entries == 0 {
            return;
        }
        metrics::unreadable_met(entries);
        if !self.unreadable_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                entries,
                "dead-letter store has entries that cannot be read; they are passed over"
            );
        }
    }

    fn fail(&self, problem: String) -> StoreError {
        let problem = self.failed.get_or_init(|| {
            metrics::store_failed();
            tracing::error!(%problem, "dead-letter store failed and takes nothing until it is opened again");
            problem
        });
        StoreError::Failed(problem.clone())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Releases the file however the writer ends, so that nobody waits for an end that does not come.
struct Release(Arc<Shared>);
impl Drop for Release {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its writer panicked".to_owned());
        }
        locked(&self.0.database).take();
        self.0.ended.cancel();
    }
}

/// Runs until it is told to close or nobody is left who could ask; what was taken is finished first.
pub(super) fn run(shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let release = Release(Arc::clone(&shared));
    let mut gathered = Vec::with_capacity(CHANGES_WAITING_MAX);
    while commands.blocking_recv_many(&mut gathered, CHANGES_WAITING_MAX) > 0 {
        let mut group: Vec<Waiting> = Vec::with_capacity(gathered.len());
        for command in gathered.drain(..) {
            match command {
                Command::Change { change, done } => group.push((change, done)),
                Command::Close => commands.close(),
            }
        }
        if !group.is_empty() {
            finish(&shared, group);
        }
    }
    drop(release);
}

/// Makes one group durable and answers it. Who has stopped waiting for an answer does not mind not getting one.
fn finish(shared: &Shared, group: Vec<Waiting>) {
    let outcome = shared.database().and_then(|database| {
        commit(shared, &database, &group).map_err(|error| shared.fail(error.to_string()))
    });
    match outcome {
        Ok(answers) => {
            let results = || group.iter().map(|(change, _)| change).zip(&answers);
            results().for_each(|(change, answer)| count(change, answer));
            if results().any(|(change, answer)| adds_errands(change, answer)) {
                shared.errands_changed.send_modify(|changes| *changes += 1);
            }
            for ((_, done), answer) in group.into_iter().zip(answers) {
                let _ = done.send(answer);
            }
        }
        Err(error) => {
            for (_, done) in group {
                let _ = done.send(Err(error.clone()));
            }
        }
    }
}

fn commit(
    shared: &Shared,
    database: &Database,
    group: &[Waiting],
) -> Result<Vec<Result<Answer, StoreError>>, redb::Error> {
    let began = Instant::now();
    let mut ledger = shared.ledger();
    let transaction = database.begin_write()?;
    let mut changes = Changes::begin(&transaction, &mut ledger, shared.bytes_max)?;
    let answers = group.iter().map(|(change, _)| changes.apply(change)).collect::<Result<Vec<_>, _>>()?;
    let unreadable = changes.unreadable;
    drop(changes);
    transaction.commit()?;
    metrics::committed(began.elapsed());
    shared.met_unreadable(unreadable);
    *locked(&shared.ledger) = ledger;
    Ok(answers)
}

fn adds_errands(change: &Change, answer: &Result<Answer, StoreError>) -> bool {
    answer.is_ok()
        && match change {
            Change::Keep(draft) => draft.copy_to.is_some(),
            Change::Sweep { action, .. } => *action == Action::Replay,
            Change::EndErrand { .. } => false,
        }
}

fn count(change: &Change, answer: &Result<Answer, StoreError>) {
    match (change, answer) {
        (Change::Keep(draft), Ok(_)) => {
            if let Origin::Sink(sink) = &draft.summary.origin {
                metrics::written(sink, draft.reason);
            }
        }
        (Change::EndErrand { sink, kind, end, .. }, Ok(Answer::ErrandEnded { known: true })) => {
            let (kind_label, ending) = (metrics_kind(*kind), metrics_ending(end));
            metrics::errand_ended(sink, kind_label, ending);
            if let (ErrandKind::Replay, End::Failed { reason, .. }) = (kind, end) {
                metrics::written(sink, reason);
            }
        }
        (Change::Keep(_) | Change::Sweep { .. } | Change::EndErrand { .. }, _) => {}
    }
}

fn metrics_kind(kind: ErrandKind) -> metrics::Errand {
    match kind {
        ErrandKind::Replay => metrics::Errand::Replay,
        ErrandKind::Copy => metrics::Errand::Copy,
    }
}

fn metrics_ending(end: &End) -> metrics::ErrandEnding {
    match end {
        End::Delivered => metrics::ErrandEnding::Delivered,
        End::Failed { .. } => metrics::ErrandEnding::Failed,
    }
}
