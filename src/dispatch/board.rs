//! What a lane shows of itself, and the two things an operator can tell it.
//! Holds: reading a board never waits for the lane.

use crate::envelope::SinkName;
use crate::journal::{Account, Lag};
use crate::sink::{Failure, Reason};
use crate::telemetry::metrics::delivery::lane_ended_early;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// What a lane is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// Delivering, or waiting for events.
    #[default]
    Running,
    /// An operator paused it.
    Paused,
    /// The sink asked for less; waiting.
    Busy,
    /// The sink cannot take anything; probing.
    Away,
    /// It cannot go on by itself: the journal or the dead-letter store does not do its part.
    Stuck,
}

/// What `status` shows of a lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneStatus {
    /// Its sink.
    pub sink: SinkName,
    /// The sink's kind, a name of [`crate::sink::SINK_TYPES`].
    pub kind: &'static str,
    /// What it is doing.
    pub state: LaneState,
    /// Why, where it is not running.
    pub failure: Option<Failure>,
    /// How far behind.
    pub lag: Lag,
    /// Deliveries in flight.
    pub in_flight: usize,
    /// Events held back for a later attempt or behind one.
    pub held: usize,
    /// Confirmed since start.
    pub delivered: u64,
    /// Dead-lettered since start.
    pub dead_lettered: u64,
    /// Given up under a full disk since start (`on_backlog_full = "shed_oldest"`).
    pub shed: u64,
    /// What became of every event since the sink's counting began, which survives restarts (R4).
    pub account: Account,
}

/// The part of the status that the lane itself knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub state: LaneState,
    pub failure: Option<Failure>,
    pub in_flight: usize,
    pub held: usize,
    pub delivered: u64,
    pub dead_lettered: u64,
    pub shed: u64,
}

/// What an operator wants of the lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Orders {
    pub paused: bool,
    /// Counts how often `resume` was called: each lets an away lane probe at once.
    pub nudges: u64,
}

/// Shared by the lane's task and the dispatcher's handle.
pub(super) struct Board {
    sink: SinkName,
    kind: &'static str,
    look: Mutex<Look>,
    orders: watch::Sender<Orders>,
    miscount_logged: AtomicBool,
}

impl Board {
    pub fn new(sink: SinkName, kind: &'static str) -> Self {
        Board {
            sink,
            kind,
            look: Mutex::default(),
            orders: watch::Sender::default(),
            miscount_logged: AtomicBool::new(false),
        }
    }

    pub fn show(&self, look: Look) {
        *self.look.lock().unwrap_or_else(PoisonError::into_inner) = look;
    }

    /// The lane's own code panicked: nobody moves its cursor any more, and that must not look like a lane at rest.
    pub fn ended_early(&self) {
        let detail = "the lane's own code failed; its events wait in the journal for the next start";
        tracing::error!(sink = %self.sink, detail);
        lane_ended_early(&self.sink);
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        look.state = LaneState::Stuck;
        look.failure = Some(Failure::new(Reason::SinkError, detail));
        look.in_flight = 0;
    }

    pub fn orders(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    pub fn pause(&self) {
        self.orders.send_modify(|orders| orders.paused = true);
    }

    pub fn resume(&self) {
        self.orders.send_modify(|orders| {
            orders.paused = false;
            orders.nudges += 1;
        });
    }

    pub fn status(&self, (account, lag): (Account, Lag)) -> LaneStatus {
        if account.unaccounted != 0 && !self.miscount_logged.swap(true, Ordering::Relaxed) {
            tracing::error!(
                sink = %self.sink,
                ?account,
                "the lane's events do not add up; stop the daemon and run `hookbus journal verify`"
            );
        }
        let look = self.look.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LaneStatus {
            sink: self.sink.clone(),
            kind: self.kind,
            state: look.state,
            failure: look.failure,
            lag,
            in_flight: look.in_flight,
            held: look.held,
            delivered: look.delivered,
            dead_lettered: look.dead_lettered,
            shed: look.shed,
            account,
        }
    }
}
