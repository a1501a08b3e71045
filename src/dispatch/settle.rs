//! What a lane does with an answer: settle, try again, bury; and the chores that take a while.
//! Holds: R2: `Feed::settle` is called here only, for confirmed, durably dead-lettered, shed and foreign events.

use super::breaker::Rejected;
use super::deferral::{Tried, wait_after_restart};
use super::lane::{Finished, Lane};
use super::retry::{Policy, Step};
use super::window::Ticket;
use crate::clock;
use crate::dead_letter::{
    DeadLetters, Errand, ErrandEnd, ErrandKind, LetterId, Quarantined, StoreError, Undelivered,
};
use crate::envelope::{Envelope, SinkName, SourceName};
use crate::journal::{Deferral, Ending, Entry, Position};
use crate::sink::{Failure, Outcome, Reason};
use crate::telemetry::metrics::delivery::{OutcomeLabel, Settled};
use crate::time::UnixMs;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a lane waits before it asks a dead-letter store again that did not take a letter.
const STORE_RETRY_WAIT: Duration = Duration::from_secs(5);

/// Where an event in the window comes from, and so what is told when it is settled.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Origin {
    Journal(Position),
    Errand(LetterId, ErrandKind),
}

/// An event in a lane's window.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub event: Arc<Envelope>,
    pub arrived: UnixMs,
    pub origin: Origin,
    pub attempts: u32,
    /// Its age counts from here: the time that a sink was away makes no event too old.
    pub first: Option<FirstFailure>,
}

/// When and why an event failed first.
#[derive(Clone, Debug)]
pub(super) struct FirstFailure {
    pub failure: Failure,
    /// The lane's lifetime then or, for one that an earlier process saw, at the start;
    at: Duration,
    /// and how old the event was by then.
    age_before: Duration,
}

impl FirstFailure {
    fn age(&self, lifetime: Duration) -> Duration {
        self.age_before + lifetime.saturating_sub(self.at)
    }
}

impl Item {
    pub fn new(event: Envelope, arrived: UnixMs, origin: Origin) -> Self {
        Item { event: Arc::new(event), arrived, origin, attempts: 0, first: None }
    }

    /// Goes on counting where an earlier process stopped.
    fn take_up(&mut self, tried: Tried, lifetime: Duration) {
        self.attempts = tried.attempts;
        self.first = Some(FirstFailure { failure: tried.first, at: lifetime, age_before: tried.age });
    }

    /// From the journal, and older than `position`.
    pub fn is_before(&self, position: Position) -> bool {
        matches!(self.origin, Origin::Journal(own) if own < position)
    }

    pub fn errand(&self) -> Option<(LetterId, ErrandKind)> {
        match &self.origin {
            Origin::Errand(letter, kind) => Some((letter.clone(), *kind)),
            Origin::Journal(_) => None,
        }
    }
}

/// Something that takes a while and that the lane does not wait for.
pub(super) trait Chore: Future<Output = ChoreDone> + Send + 'static {}
impl<F: Future<Output = ChoreDone> + Send + 'static> Chore for F {}

/// How a chore ended.
pub(super) enum ChoreDone {
    /// An event is kept as a dead letter, or was not.
    Buried { ticket: Ticket, last: Failure, result: Result<(), StoreError> },
    /// The store knows that an errand's event was delivered, or does not.
    ErrandDelivered { ticket: Ticket, result: Result<(), StoreError> },
    /// A record that is no event is kept, or was not.
    SetAside { entry: Entry, detail: String, result: Result<(), StoreError> },
    /// Work from the dead-letter store.
    Errands(Result<Vec<Errand>, StoreError>),
}

impl Lane {
    pub fn finished(&mut self, Finished { ticket, outcome, took }: Finished) {
        let now = Instant::now();
        let jitter = fastrand::f64();
        self.heard_of = true;
        match outcome {
            Outcome::Delivered => {
                self.metrics.delivery_ended(OutcomeLabel::Delivered, took);
                if self.breaker.delivered(now) {
                    tracing::info!(sink = %self.parts.name, "the sink takes events again");
                }
                self.delivered(ticket);
            }
            Outcome::Retry(failure) => {
                self.metrics.delivery_ended(OutcomeLabel::Retry, took);
                self.breaker.retried(now, jitter);
                self.try_again(ticket, failure, now, jitter);
            }
            Outcome::Busy { failure, wait } => {
                self.metrics.delivery_ended(OutcomeLabel::Busy, took);
                tracing::debug!(sink = %self.parts.name, %failure, "the sink asks for less");
                self.breaker.busy(now, wait, failure, jitter);
                self.window.again(ticket);
            }
            Outcome::Away(failure) => {
                self.metrics.delivery_ended(OutcomeLabel::Away, took);
                if self.breaker.away(now, failure.clone(), jitter) {
                    tracing::error!(sink = %self.parts.name, %failure, "the sink takes no events; they wait in the journal");
                }
                self.window.again(ticket);
            }
            Outcome::Reject(failure) => {
                self.metrics.delivery_ended(OutcomeLabel::Reject, took);
                self.rejected(ticket, failure, now, jitter);
            }
        }
        // It may have been under way when the journal asked for room, and is not any more.
        self.shed_held();
    }

    fn rejected(&mut self, ticket: Ticket, failure: Failure, now: Instant, jitter: f64) {
        let was_open = self.breaker.is_open();
        match self.breaker.rejected(now, &failure, jitter) {
            Rejected::Bury => {
                if let Some(item) = self.window.get_mut(ticket) {
                    item.attempts = item.attempts.saturating_add(1);
                }
                self.bury(ticket, failure, Duration::ZERO);
            }
            Rejected::Keep => {
                if !was_open && let Some(failure) = self.breaker.failure() {
                    tracing::error!(sink = %self.parts.name, %failure, "the sink takes no events; they wait in the journal");
                }
                self.window.again_last(ticket);
            }
        }
    }

    fn try_again(&mut self, ticket: Ticket, failure: Failure, now: Instant, jitter: f64) {
        let (policy, lifetime) = (self.policy(), self.lifetime.reading(now));
        let Some(item) = self.window.get_mut(ticket) else { return };
        item.attempts = item.attempts.saturating_add(1);
        let first = item.first.get_or_insert_with(|| FirstFailure {
            failure: failure.clone(),
            at: lifetime,
            age_before: Duration::ZERO,
        });
        let age = first.age(lifetime);
        let life_left = self.parts.config.retry.age_max.get().saturating_sub(age);
        match policy.step(item.attempts, life_left, jitter) {
            Step::After(delay) => {
                tracing::debug!(sink = %self.parts.name, event = item.event.id, attempts = item.attempts, %failure, "delivery failed, to be tried again");
                let tried = Tried { attempts: item.attempts, age, first: first.failure.clone() };
                let deferral = Deferral { due: clock::now().plus(delay), note: tried.to_note() };
                match item.origin.clone() {
                    Origin::Journal(position) => self.feed.defer(position, deferral),
                    Origin::Errand(letter, kind) => {
                        let (store, sink) = (&self.shared.dead_letters, self.parts.name.clone());
                        store.note_errand(sink, letter, kind, deferral);
                    }
                }
                self.window.wait(ticket, now + delay);
            }
            Step::GiveUp => self.bury(ticket, failure, Duration::ZERO),
        }
    }

    /// Takes up what an earlier process noted of an event; gives when the event may go again.
    pub fn take_up(&self, item: &mut Item, deferral: &Deferral) -> Instant {
        let now = Instant::now();
        if let Some(tried) = Tried::from_note(&deferral.note) {
            item.take_up(tried, self.lifetime.reading(now));
        }
        let policy = self.policy();
        now + wait_after_restart(&policy, deferral.due, item.attempts, clock::now(), fastrand::f64())
    }

    fn policy(&self) -> Policy {
        let retry = self.parts.config.retry;
        Policy { first: retry.first.get(), max: retry.max.get(), attempts_max: retry.attempts_max }
    }

    fn delivered(&mut self, ticket: Ticket) {
        match self.window.get(ticket).map(|item| item.origin.clone()) {
            Some(Origin::Errand(letter, kind)) => self.tell_delivered(ticket, letter, kind, Duration::ZERO),
            Some(Origin::Journal(_)) => self.settle(ticket, Settled::Delivered),
            None => {}
        }
    }

    fn tell_delivered(&mut self, ticket: Ticket, letter: LetterId, kind: ErrandKind, wait: Duration) {
        let (store, sink) = (self.shared.dead_letters.clone(), self.parts.name.clone());
        self.start(async move {
            tokio::time::sleep(wait).await;
            let result = store.end_errand(sink, letter, kind, ErrandEnd::Delivered).await;
            ChoreDone::ErrandDelivered { ticket, result }
        });
    }

    /// Keeps an event as a dead letter (or a replayed letter as it was); its cursor passes it only after that.
    fn bury(&mut self, ticket: Ticket, last: Failure, wait: Duration) {
        let Some(item) = self.window.get(ticket).cloned() else { return };
        let (store, sink) = (self.shared.dead_letters.clone(), self.parts.name.clone());
        let copy_to = self.parts.config.dead_letter.clone();
        self.start(async move {
            tokio::time::sleep(wait).await;
            let result = put(&store, &sink, &item, &last, copy_to.as_ref()).await;
            ChoreDone::Buried { ticket, last, result }
        });
    }

    /// A record that cannot be read as an event goes where a person can look at it.
    pub fn set_aside(&mut self, entry: Entry, detail: &str) {
        tracing::error!(sink = %self.parts.name, detail, "a journal record is no event; it is set aside");
        self.setting_aside += 1;
        self.keep_aside(entry, detail.to_owned(), Duration::ZERO);
    }

    fn keep_aside(&mut self, entry: Entry, detail: String, wait: Duration) {
        let store = self.shared.dead_letters.clone();
        self.start(async move {
            tokio::time::sleep(wait).await;
            let source = SourceName::new("unreadable_records").expect("the name is well-formed");
            let letter = Quarantined {
                source: &source,
                body: &entry.payload,
                content_type: None,
                reason: Reason::Unreadable.label(),
                detail: detail.clone(),
                arrived: entry.arrival,
            };
            let result = store.quarantine(letter).await.map(|_| ());
            ChoreDone::SetAside { entry, detail, result }
        });
    }

    pub fn chore_done(&mut self, done: ChoreDone) {
        match done {
            ChoreDone::Errands(errands) => self.take_errands(errands),
            ChoreDone::Buried { ticket, last: _, result: Ok(()) } => {
                self.stuck = None;
                self.settle(ticket, Settled::DeadLettered);
            }
            ChoreDone::Buried { ticket, last, result: Err(error) } => {
                self.store_refused(&error);
                if self.is_to_be_shed(ticket) {
                    self.window.again(ticket);
                    self.shed_held();
                } else if !self.stop.is_cancelled() {
                    self.bury(ticket, last, STORE_RETRY_WAIT);
                }
            }
            ChoreDone::ErrandDelivered { ticket, result: Ok(()) } => {
                self.stuck = None;
                self.settle(ticket, Settled::Delivered);
            }
            ChoreDone::ErrandDelivered { ticket, result: Err(error) } => {
                self.store_refused(&error);
                if !self.stop.is_cancelled()
                    && let Some(Origin::Errand(letter, kind)) =
                        self.window.get(ticket).map(|item| item.origin.clone())
                {
                    self.tell_delivered(ticket, letter, kind, STORE_RETRY_WAIT);
                }
            }
            ChoreDone::SetAside { entry, result: Ok(()), .. } => {
                self.stuck = None;
                self.setting_aside -= 1;
                self.feed.settle(entry.position, Ending::DeadLettered);
                self.metrics.settled(Settled::DeadLettered);
            }
            ChoreDone::SetAside { entry, detail, result: Err(error) } => {
                self.store_refused(&error);
                if !self.stop.is_cancelled() {
                    self.keep_aside(entry, detail, STORE_RETRY_WAIT);
                }
            }
        }
    }

    fn store_refused(&mut self, error: &StoreError) {
        if self.stuck.is_none() {
            tracing::error!(sink = %self.parts.name, %error, "the dead-letter store does not take a letter; the event stays in the journal");
        }
        self.stuck = Some(Failure::new(Reason::DeadLetterStore, error.to_string()));
    }

    pub fn not_routed(&mut self, position: Position) {
        self.metrics.settled(Settled::NotRouted);
        self.feed.settle(position, Ending::NotRouted);
    }

    /// Gives an event up because the disk is full and the configuration says so.
    pub fn shed(&mut self, position: Position, event: &Envelope) {
        tracing::warn!(sink = %self.parts.name, event = event.id, "event shed: the disk budget is used up and on_backlog_full = \"shed_oldest\"");
        self.look.shed += 1;
        self.metrics.settled(Settled::Shed);
        self.feed.settle(position, Ending::Shed);
    }

    /// Sheds what is in hand, not out, and older than the journal can keep.
    pub fn shed_held(&mut self) {
        let Some(before) = self.shed_before() else { return };
        for item in self.window.take_held(|item| item.is_before(before)) {
            if let Origin::Journal(position) = item.origin {
                self.shed(position, &item.event);
            }
        }
    }

    fn is_to_be_shed(&self, ticket: Ticket) -> bool {
        let item = self.window.get(ticket);
        self.shed_before().is_some_and(|before| item.is_some_and(|item| item.is_before(before)))
    }

    fn settle(&mut self, ticket: Ticket, how: Settled) {
        let Some(item) = self.window.settled(ticket) else { return };
        match how {
            Settled::Delivered => self.look.delivered += 1,
            Settled::DeadLettered => self.look.dead_lettered += 1,
            Settled::Shed | Settled::NotRouted => {}
        }
        self.metrics.settled(how);
        match item.origin {
            Origin::Journal(position) => self.feed.settle(position, ending(how)),
            Origin::Errand(..) => self.errands.held -= 1,
        }
    }
}

/// As the journal counts it.
fn ending(how: Settled) -> Ending {
    match how {
        Settled::Delivered => Ending::Delivered,
        Settled::DeadLettered => Ending::DeadLettered,
        Settled::Shed => Ending::Shed,
        Settled::NotRouted => Ending::NotRouted,
    }
}

async fn put(
    store: &DeadLetters,
    sink: &SinkName,
    item: &Item,
    last: &Failure,
    copy_to: Option<&SinkName>,
) -> Result<(), StoreError> {
    let Item { event, arrived, attempts, .. } = item;
    match &item.origin {
        Origin::Journal(_) => {
            let first = item.first.as_ref().map_or(last, |first| &first.failure);
            let letter =
                Undelivered { sink, event, arrived: *arrived, attempts: *attempts, first, last, copy_to };
            let id = store.put(letter).await?;
            tracing::warn!(%sink, event = event.id, letter = id.0, attempts, failure = %last, "event became a dead letter");
            Ok(())
        }
        Origin::Errand(letter, kind) => {
            let end = ErrandEnd::Failed { attempts: *attempts, last };
            store.end_errand(sink.clone(), letter.clone(), *kind, end).await?;
            tracing::warn!(%sink, event = event.id, letter = letter.0, attempts, failure = %last, "a replayed dead letter failed again");
            Ok(())
        }
    }
}
