//! One sink's lane: picks the next thing that happened, then applies it without waiting.
//! Holds: R2 (the cursor is told only by `settle.rs`), R5 (waits for nobody but its own sink).
//! Absent on purpose: when to give up (`retry`), whether to send (`breaker`), in which order (`window`).

use super::board::{Board, LaneState, Look, Orders};
use super::breaker::{Breaker, Permit};
use super::errands::{ERRANDS_MAX, Errands};
use super::lifetime::Lifetime;
use super::settle::{Chore, ChoreDone, Item, Origin};
use super::window::{Ticket, Window};
use super::{LaneParts, Parts};
use crate::envelope::Envelope;
use crate::journal::{Entry, Feed, Position, ReadError};
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{Failure, Outcome, Reason};
use crate::telemetry::metrics::delivery::LaneMetrics;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The most events from the journal a lane has in hand, whatever their state.
const HELD_MAX: usize = 4096;
/// The most bytes of payload a lane has in hand; the event that crosses it is still taken.
const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most events a lane takes from the journal at once.
const READ_MAX: usize = 256;
/// The most events a lane takes at once before its sink has answered for the first time. A refusal takes a moment, in which
/// a lane with a backlog would fill its window; and after a start all of them have their first moment together.
const READ_FIRST: usize = 16;
/// Payloads up to this size are copied when they are taken in. Otherwise a small event that waits long could keep a
/// buffer of the journal in memory that is a hundred times larger than itself.
const OWN_COPY_BYTES_MAX: usize = 8 * 1024;
/// How much longer than the sink's own time-out the lane waits for an answer: the sink knows better what happened, and
/// only one that does not keep its own time is cut off here.
const ANSWER_EXTRA: Duration = Duration::from_secs(5);
/// How long a sink may take to close where nothing is left of the grace.
const CLOSE_MAX: Duration = Duration::from_millis(500);
/// How often a lane looks again after the journal could not be read.
const TICK: Duration = Duration::from_secs(1);

/// A delivery that came back.
pub(super) struct Finished {
    pub ticket: Ticket,
    pub outcome: Outcome,
    pub took: Duration,
}

/// The lane's state, owned by its one task.
pub(super) struct Lane {
    pub parts: LaneParts,
    pub shared: Parts,
    pub feed: Feed,
    pub window: Window<Item>,
    pub breaker: Breaker,
    pub lifetime: Lifetime,
    pub metrics: LaneMetrics,
    /// Counters and the failures that the breaker does not know.
    pub look: Look,
    /// The dead-letter store does not do its part.
    pub stuck: Option<Failure>,
    /// Nor does the journal; it is read again at the next tick.
    unreadable: Option<Failure>,
    reading_waits: bool,
    /// The sink has answered, whatever it said.
    pub heard_of: bool,
    /// Records being set aside because they are no events; reading waits for them.
    pub setting_aside: usize,
    pub chores: FuturesUnordered<BoxFuture<'static, ChoreDone>>,
    deliveries: FuturesUnordered<BoxFuture<'static, Finished>>,
    board: Arc<Board>,
    pub orders: Orders,
    read_through: Option<Position>,
    shed_before: Option<Position>,
    pub errands: Errands,
    shutdown: Shutdown,
    pub stop: CancellationToken,
}

enum Event {
    Stop,
    Finished(Finished),
    Chore(ChoreDone),
    Orders(Orders),
    ErrandsChanged,
    Shed(Option<Position>),
    Due,
    Tick,
    Read(Result<Vec<Entry>, ReadError>),
}

struct Signals {
    orders: watch::Receiver<Orders>,
    errands: watch::Receiver<u64>,
    shed: watch::Receiver<Option<Position>>,
    tick: tokio::time::Interval,
}

/// Walks the journal for one sink until [`Phase::Lanes`] stops; what is in flight then may end until its deadline.
pub(super) async fn run(parts: LaneParts, shared: Parts, feed: Feed, board: Arc<Board>, shutdown: Shutdown) {
    let mut signals = Signals {
        orders: board.orders(),
        errands: shared.dead_letters.errands_changed(),
        shed: feed.shed_before(),
        tick: tokio::time::interval(TICK),
    };
    let in_flight_max = parts.config.in_flight_max;
    let mut lane = Lane {
        window: Window::new(parts.config.order, HELD_MAX.max(in_flight_max) + ERRANDS_MAX, HELD_BYTES_MAX),
        breaker: Breaker::new(in_flight_max),
        lifetime: Lifetime::default(),
        metrics: LaneMetrics::lane_started(&parts.name, Reason::ALL.iter().map(|reason| reason.label())),
        look: Look::default(),
        stuck: None,
        unreadable: None,
        reading_waits: false,
        heard_of: false,
        setting_aside: 0,
        chores: FuturesUnordered::new(),
        deliveries: FuturesUnordered::new(),
        orders: *signals.orders.borrow_and_update(),
        read_through: None,
        shed_before: *signals.shed.borrow_and_update(),
        errands: Errands::at_start(),
        board,
        stop: shutdown.token(Phase::Lanes).clone(),
        shutdown,
        parts,
        shared,
        feed,
    };
    loop {
        lane.fetch_errands();
        lane.launch(Instant::now());
        lane.show();
        match lane.next_event(&mut signals).await {
            Event::Stop => break,
            event => lane.apply(event),
        }
    }
    lane.wind_down().await;
}

impl Lane {
    async fn next_event(&mut self, signals: &mut Signals) -> Event {
        let due = self.next_due(Instant::now());
        let (count, bytes) = self.may_read();
        tokio::select! { biased;
            () = self.stop.cancelled() => Event::Stop,
            Some(finished) = self.deliveries.next(), if !self.deliveries.is_empty() => Event::Finished(finished),
            Some(done) = self.chores.next(), if !self.chores.is_empty() => Event::Chore(done),
            Ok(()) = signals.orders.changed() => Event::Orders(*signals.orders.borrow_and_update()),
            Ok(()) = signals.errands.changed() => Event::ErrandsChanged,
            Ok(()) = signals.shed.changed() => Event::Shed(*signals.shed.borrow_and_update()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::Due,
            _ = signals.tick.tick() => Event::Tick,
            read = self.feed.next(count, bytes), if count > 0 => Event::Read(read),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Stop | Event::Due => {}
            Event::Finished(finished) => self.finished(finished),
            Event::Chore(done) => self.chore_done(done),
            Event::Orders(orders) => self.ordered(orders),
            Event::ErrandsChanged => self.errands.wanted = true,
            Event::Shed(before) => {
                self.shed_before = before;
                self.shed_held();
            }
            Event::Tick => self.tick(),
            Event::Read(Ok(entries)) => {
                self.unreadable = None;
                self.take_in(entries);
            }
            Event::Read(Err(error)) => self.cannot_read(&error),
        }
    }

    fn ordered(&mut self, orders: Orders) {
        if orders.nudges != self.orders.nudges {
            self.breaker.nudge(Instant::now());
        }
        self.orders = orders;
    }

    /// How many events and bytes the lane wants from the journal now.
    fn may_read(&self) -> (usize, usize) {
        let must_shed =
            self.shed_before.is_some_and(|before| self.read_through.is_none_or(|read| read < before));
        if must_shed && !self.reading_waits {
            return (READ_MAX, HELD_BYTES_MAX);
        }
        let waits = self.orders.paused || self.setting_aside > 0 || self.reading_waits;
        // A sink that is away needs one event to be probed with, and no more; one that was not heard of yet may be.
        let away = self.breaker.is_open() && !self.breaker.is_suspect();
        let most = match (away, self.heard_of) {
            (true, _) => 1,
            (false, true) => READ_MAX,
            (false, false) => READ_FIRST,
        };
        if waits || (most < READ_MAX && self.has_probe()) {
            return (0, 0);
        }
        let room = self.window.room().saturating_sub(self.errands.room());
        (room.min(most), self.window.room_bytes())
    }

    /// An event is out, or could be, to find out whether the sink is back.
    pub fn has_probe(&self) -> bool {
        !self.deliveries.is_empty() || self.window.has_ready()
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.orders.paused {
            return None;
        }
        match self.breaker.permit(now) {
            Permit::WaitUntil(until) => Some(until),
            Permit::AwaitProbe => None,
            Permit::Send(_) | Permit::Probe => self.window.next_due().filter(|due| *due > now),
        }
    }

    fn launch(&mut self, now: Instant) {
        let may_send = matches!(self.breaker.permit(now), Permit::Send(_)) && !self.orders.paused;
        self.lifetime.count(may_send, now);
        while !self.orders.paused {
            match self.breaker.permit(now) {
                Permit::Send(most) if self.deliveries.len() < most => {
                    if !self.launch_one(now) {
                        return;
                    }
                }
                Permit::Probe if self.deliveries.is_empty() => {
                    if !self.launch_one(now) {
                        return;
                    }
                    self.breaker.probe_sent();
                }
                Permit::Send(_) | Permit::Probe | Permit::WaitUntil(_) | Permit::AwaitProbe => return,
            }
        }
    }

    fn launch_one(&mut self, now: Instant) -> bool {
        let Some(ticket) = self.window.send_next(now) else { return false };
        let Some(item) = self.window.get(ticket) else { return false };
        let (event, sink) = (Arc::clone(&item.event), Arc::clone(&self.parts.sink));
        let timeout = self.parts.config.timeout.get().saturating_add(ANSWER_EXTRA);
        self.deliveries.push(Box::pin(async move {
            let delivery = AssertUnwindSafe(async { sink.deliver(&event).await }).catch_unwind();
            let outcome = match tokio::time::timeout(timeout, delivery).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_panic)) => {
                    Outcome::Retry(Failure::new(Reason::SinkError, "the sink's code panicked on this event"))
                }
                Err(_elapsed) => {
                    Outcome::Retry(Failure::new(Reason::Timeout, "no confirmation within the sink's timeout"))
                }
            };
            Finished { ticket, outcome, took: now.elapsed() }
        }));
        true
    }

    fn take_in(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.read_through = Some(entry.position);
            let bytes = entry.payload.len();
            let event = match Envelope::decode(&unshared(&entry.payload)) {
                Ok(event) => event,
                Err(error) => {
                    self.set_aside(entry, &error.to_string());
                    continue;
                }
            };
            if !self.shared.router.leads_to(&event, &self.parts.name) {
                self.not_routed(entry.position);
            } else if self.shed_before.is_some_and(|before| entry.position < before) {
                self.shed(entry.position, &event);
            } else {
                let mut item = Item::new(event, entry.arrival, Origin::Journal(entry.position));
                let due = entry.deferral.map(|deferral| self.take_up(&mut item, &deferral));
                self.add(item, bytes, due);
            }
        }
    }

    pub fn add(&mut self, item: Item, bytes: usize, due: Option<Instant>) {
        let key = item.event.partition_key().map(str::to_owned);
        self.window.add(item, key.as_deref(), bytes, due);
    }

    fn cannot_read(&mut self, error: &ReadError) {
        if self.unreadable.is_none() {
            tracing::error!(sink = %self.parts.name, %error, "the lane cannot read the journal");
        }
        self.unreadable = Some(Failure::new(Reason::Storage, error.to_string()));
        self.reading_waits = true;
    }

    fn tick(&mut self) {
        self.reading_waits = false;
        self.errands.wanted |= std::mem::take(&mut self.errands.failed);
    }

    fn show(&mut self) {
        let now = Instant::now();
        let (state, failure) = if self.orders.paused {
            (LaneState::Paused, None)
        } else if let Some(stuck) = self.stuck.as_ref().or(self.unreadable.as_ref()) {
            (LaneState::Stuck, Some(stuck))
        } else if self.breaker.is_open() {
            (LaneState::Away, self.breaker.failure())
        } else if self.breaker.is_busy(now) {
            (LaneState::Busy, self.breaker.failure())
        } else {
            (LaneState::Running, None)
        };
        self.look.state = state;
        self.look.failure = failure.cloned();
        self.look.in_flight = self.deliveries.len();
        self.look.held = self.window.held();
        let reason = self.look.failure.as_ref().map(|failure| failure.reason as usize);
        self.metrics.looks(state as usize, reason, self.look.in_flight, self.look.held);
        self.board.show(self.look.clone());
    }

    pub fn start(&mut self, chore: impl Chore) {
        self.chores.push(Box::pin(chore));
    }

    /// Lets what is in flight end before the deadline; the rest stays in the journal for the next start.
    async fn wind_down(mut self) {
        let deadline = self.shutdown.deadline(Phase::Lanes).unwrap_or_else(Instant::now);
        while !(self.deliveries.is_empty() && self.chores.is_empty()) {
            let event = tokio::select! {
                Some(finished) = self.deliveries.next(), if !self.deliveries.is_empty() => Event::Finished(finished),
                Some(done) = self.chores.next(), if !self.chores.is_empty() => Event::Chore(done),
                () = sleep_until(deadline) => break,
            };
            self.apply(event);
        }
        let unconfirmed = self.deliveries.len();
        self.deliveries.clear();
        if unconfirmed > 0 {
            tracing::warn!(sink = %self.parts.name, unconfirmed, "deliveries did not end within the grace; they are sent again at the next start");
        }
        let closed_by = deadline.max(Instant::now() + CLOSE_MAX);
        if tokio::time::timeout_at(closed_by, self.parts.sink.close()).await.is_err() {
            tracing::warn!(sink = %self.parts.name, "the sink did not close within the grace");
        }
        self.show();
    }

    pub fn shed_before(&self) -> Option<Position> {
        self.shed_before
    }
}

/// The payload, in a buffer of its own where it is small.
fn unshared(payload: &Bytes) -> Bytes {
    if payload.len() <= OWN_COPY_BYTES_MAX { Bytes::copy_from_slice(payload) } else { payload.clone() }
}
