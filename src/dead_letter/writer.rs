//! The one owner of every write: gathers the changes that wait, applies them in one transaction, answers all of them
//! after its sync.
//! Holds: an answer follows a durable commit (R2), by type: it comes with a [`Committed`], which only a commit that
//! succeeded makes; after a failed commit nothing is taken any more, like R6, unless only room was missing: then the
//! database is opened anew as soon as there is some, and what it holds is what was committed.

use super::changes::{Action, Answer, Change, Changes, End};
use super::file::Place;
use super::ledger::Ledger;
use super::types::{ErrandKind, LetterId, Origin, StoreError};
use super::watched::DiskFaults;
use crate::telemetry::metrics::dead_letters as metrics;
use redb::Database;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The most changes that wait; each holds one payload in memory. Also the most in one transaction.
pub(super) const CHANGES_WAITING_MAX: usize = 128;

/// Proof that a transaction and its sync have succeeded.
#[derive(Clone, Copy)]
pub(super) struct Committed(());

/// A letter that is on stable storage: only a write of the store that has become durable makes one (R1). It cannot be
/// copied, so that it vouches for one letter only:
/// ```
/// fn name(proof: &hookbus::dead_letter::KeptLetter) -> &str {
///     &proof.id().0
/// }
/// ```
/// ```compile_fail
/// fn forged(id: hookbus::dead_letter::LetterId) -> hookbus::dead_letter::KeptLetter {
///     hookbus::dead_letter::KeptLetter(id)
/// }
/// ```
/// ```compile_fail
/// fn again(proof: &hookbus::dead_letter::KeptLetter) -> hookbus::dead_letter::KeptLetter {
///     proof.clone()
/// }
/// ```
pub struct KeptLetter(LetterId);

impl KeptLetter {
    pub(super) fn of(id: LetterId, _committed: Committed) -> KeptLetter {
        KeptLetter(id)
    }
    /// Which it is.
    #[must_use]
    pub fn id(&self) -> &LetterId {
        &self.0
    }
}

/// The proof is spent.
impl From<KeptLetter> for LetterId {
    fn from(kept: KeptLetter) -> LetterId {
        kept.0
    }
}

/// What a change came to, once it is durable.
pub(super) type Applied = Result<(Answer, Committed), StoreError>;

pub(super) enum Command {
    Change {
        change: Change,
        done: oneshot::Sender<Applied>,
    },
    /// Open it again where it only ran out of room.
    LookForRoom,
    Close,
}

type Waiting = (Change, oneshot::Sender<Applied>);

/// What there is to work with.
enum Standing {
    Open {
        database: Arc<Database>,
        faults: Arc<DiskFaults>,
    },
    /// Why nothing is taken; `room_awaited` where it goes on once there is room and nobody has the old database.
    Failed {
        problem: String,
        room_awaited: Option<Weak<Database>>,
    },
    Closed,
}

/// What the handle and the writer share.
pub(super) struct Shared {
    place: Box<dyn Place>,
    standing: Mutex<Standing>,
    ledger: Mutex<Ledger>,
    unreadable_logged: AtomicBool,
    pub errands_changed: watch::Sender<u64>,
    pub bytes_max: u64,
    /// Cancelled when the writer has ended and released the file.
    pub ended: CancellationToken,
}

impl Shared {
    /// Makes missing tables and counts what is there.
    pub(super) fn open(place: Box<dyn Place>, bytes_max: u64) -> Result<Shared, StoreError> {
        let faults = Arc::default();
        let (database, ledger, unreadable) = counted(&*place, &faults, bytes_max)?;
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
            place,
            standing: Mutex::new(Standing::Open { database: Arc::new(database), faults }),
            ledger: Mutex::new(ledger),
            unreadable_logged: AtomicBool::new(false),
            errands_changed: watch::Sender::new(0),
            bytes_max,
            ended: CancellationToken::new(),
        };
        shared.met_unreadable(unreadable);
        Ok(shared)
    }

    pub(super) fn database(&self) -> Result<Arc<Database>, StoreError> {
        match &*locked(&self.standing) {
            Standing::Open { database, .. } => Ok(Arc::clone(database)),
            Standing::Failed { problem, .. } => Err(StoreError::Failed(problem.clone())),
            Standing::Closed => Err(StoreError::Closed),
        }
    }

    pub(super) fn ledger(&self) -> Ledger {
        locked(&self.ledger).clone()
    }

    /// What to answer when the writer is no longer there.
    pub(super) fn gone(&self) -> StoreError {
        self.database().err().unwrap_or(StoreError::Closed)
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

    /// Whether it would go on if there were room.
    pub(super) fn waits_for_room(&self) -> bool {
        matches!(&*locked(&self.standing), Standing::Failed { room_awaited: Some(_), .. })
    }

    fn fail(&self, problem: String, in_disk: bool) -> StoreError {
        let mut standing = locked(&self.standing);
        let before = std::mem::replace(&mut *standing, Standing::Closed);
        let room_awaited = match &before {
            Standing::Open { database, faults } if in_disk && faults.only_room_is_missing() => {
                Some(Arc::downgrade(database))
            }
            Standing::Open { .. } | Standing::Failed { .. } | Standing::Closed => None,
        };
        metrics::store_failed();
        if room_awaited.is_some() {
            tracing::error!(%problem, "dead-letter store found no room and takes nothing until there is some");
        } else {
            tracing::error!(%problem, "dead-letter store failed and takes nothing until it is opened again");
        }
        *standing = Standing::Failed { problem: problem.clone(), room_awaited };
        StoreError::Failed(problem)
    }

    /// Opens the database again, where it only ran out of room and there is some.
    fn look_for_room(&self) {
        let old = match &*locked(&self.standing) {
            Standing::Failed { room_awaited: Some(old), .. } => Weak::clone(old),
            Standing::Open { .. } | Standing::Failed { .. } | Standing::Closed => return,
        };
        // Reads that began before hold it; they are short.
        if old.strong_count() > 0 || !self.place.has_room() {
            return;
        }
        let faults = Arc::default();
        match counted(&*self.place, &faults, self.bytes_max) {
            Ok((database, ledger, unreadable)) => {
                *locked(&self.ledger) = ledger;
                *locked(&self.standing) = Standing::Open { database: Arc::new(database), faults };
                self.met_unreadable(unreadable);
                metrics::store_healed();
                tracing::info!("the dead-letter store has room again and goes on");
                self.errands_changed.send_modify(|changes| *changes += 1);
            }
            Err(error) if faults.disk_failed() => {
                self.fail(error.to_string(), true);
            }
            Err(error) => tracing::debug!(%error, "the dead-letter store still has no room"),
        }
    }
}

/// Opens the database, makes missing tables and counts what is there, and what of it could not be read.
fn counted(
    place: &dyn Place,
    faults: &Arc<DiskFaults>,
    bytes_max: u64,
) -> Result<(Database, Ledger, u64), StoreError> {
    let database = place.database(faults)?;
    let mut ledger = Ledger::default();
    let unreadable = count_into(&mut ledger, &database, bytes_max)
        .map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok((database, ledger, unreadable))
}

fn count_into(ledger: &mut Ledger, database: &Database, bytes_max: u64) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let mut changes = Changes::begin(&transaction, ledger, bytes_max)?;
    changes.recount()?;
    changes.begin_counting()?;
    let unreadable = changes.unreadable;
    drop(changes);
    transaction.commit()?;
    Ok(unreadable)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Releases the file however the writer ends, so that nobody waits for an end that does not come.
struct Release(Arc<Shared>);
impl Drop for Release {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its writer panicked".to_owned(), false);
        }
        let mut standing = locked(&self.0.standing);
        if let Standing::Open { .. } = &*standing {
            *standing = Standing::Closed;
        }
        drop(standing);
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
                Command::LookForRoom => shared.look_for_room(),
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
        commit(shared, &database, &group).map_err(|error| {
            let in_disk = matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo);
            shared.fail(error.to_string(), in_disk)
        })
    });
    match outcome {
        Ok((answers, committed)) => {
            let results = || group.iter().map(|(change, _)| change).zip(&answers);
            results().for_each(|(change, answer)| count(change, answer));
            if results().any(|(change, answer)| adds_errands(change, answer)) {
                shared.errands_changed.send_modify(|changes| *changes += 1);
            }
            for ((_, done), answer) in group.into_iter().zip(answers) {
                let _ = done.send(answer.map(|answer| (answer, committed)));
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
) -> Result<(Vec<Result<Answer, StoreError>>, Committed), redb::Error> {
    let began = Instant::now();
    let mut ledger = shared.ledger();
    let transaction = database.begin_write()?;
    let mut changes = Changes::begin(&transaction, &mut ledger, shared.bytes_max)?;
    let answers = group.iter().map(|(change, _)| changes.apply(change)).collect::<Result<Vec<_>, _>>()?;
    let unreadable = changes.unreadable;
    drop(changes);
    transaction.commit()?;
    let committed = Committed(());
    metrics::committed(began.elapsed());
    shared.met_unreadable(unreadable);
    *locked(&shared.ledger) = ledger;
    Ok((answers, committed))
}

fn adds_errands(change: &Change, answer: &Result<Answer, StoreError>) -> bool {
    answer.is_ok()
        && match change {
            Change::Keep(draft) => draft.copy_to.is_some(),
            Change::Sweep { action, .. } => *action == Action::Replay,
            Change::NoteErrand { .. } | Change::EndErrand { .. } => false,
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
        (
            Change::Keep(_) | Change::Sweep { .. } | Change::NoteErrand { .. } | Change::EndErrand { .. },
            _,
        ) => {}
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
