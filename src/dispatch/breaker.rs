//! Whether a lane may send, and how much at once: closed, open with probes, waiting as the sink asked.
//! Holds: while open only one event is out as a probe; no event's attempts are used up by a sink that is away;
//! twenty distinct events in a row rejected for one reason are a sick sink, not twenty bad events (design, section 7).
//! Pure: the caller brings the time and the jitter.

use super::retry::full_jitter;
use crate::sink::{Failure, Reason};
use std::time::Duration;
use tokio::time::Instant;

/// Rejections of distinct events in a row, for one reason, that make the sink suspect instead of the events.
pub const REJECTIONS_IN_A_ROW: u32 = 20;
/// The first wait before a probe or after the sink asked for less without saying for how long.
pub const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest wait between probes: a cause that is removed is noticed within twice this.
pub const PROBE_WAIT_MAX: Duration = Duration::from_secs(15);
/// The longest wait after the sink asked for less without saying for how long.
pub const BUSY_WAIT_MAX: Duration = Duration::from_secs(60);

/// What the lane may do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permit {
    /// Keep up to this many deliveries in flight.
    Send(usize),
    /// Send one event, as a probe, if none is in flight.
    Probe,
    /// Send nothing before this time.
    WaitUntil(Instant),
    /// Send nothing until the probe that is out has come back.
    AwaitProbe,
}

/// What the lane does with an event that was rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// Dead letter.
    Bury,
    /// The sink is suspect: keep the event, try another as the next probe.
    Keep,
}

#[derive(Clone, PartialEq, Debug)]
enum State {
    Closed,
    Busy { until: Instant },
    Open { probe_at: Instant, probing: bool, suspect: bool },
}

/// One lane's breaker.
#[derive(Clone, PartialEq, Debug)]
pub struct Breaker {
    state: State,
    failure: Option<Failure>,
    waits: u32,
    rejections: Option<(Reason, u32)>,
    window: usize,
    window_max: usize,
    delivered_since_growth: usize,
}

impl Breaker {
    /// Closed, with the whole window of `window_max` deliveries.
    #[must_use]
    pub fn new(window_max: usize) -> Self {
        let window_max = window_max.max(1);
        Breaker {
            state: State::Closed,
            failure: None,
            waits: 0,
            rejections: None,
            window: window_max,
            window_max,
            delivered_since_growth: 0,
        }
    }

    /// What may be sent at `now`.
    #[must_use]
    pub fn permit(&self, now: Instant) -> Permit {
        match self.state {
            State::Closed => Permit::Send(self.window),
            State::Busy { until } if now < until => Permit::WaitUntil(until),
            State::Busy { .. } => Permit::Send(self.window),
            State::Open { probing: true, .. } => Permit::AwaitProbe,
            State::Open { probe_at, .. } if now < probe_at => Permit::WaitUntil(probe_at),
            State::Open { .. } => Permit::Probe,
        }
    }

    /// The sink takes nothing: only probes go out.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// The sink is open because of what it rejected: an event not tried yet may be the one that it takes.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        matches!(self.state, State::Open { suspect: true, .. })
    }

    /// The sink asked for less, and the wait it asked for has not ended at `now`.
    #[must_use]
    pub fn is_busy(&self, now: Instant) -> bool {
        matches!(self.state, State::Busy { until } if now < until)
    }

    /// Why the breaker is not closed.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The probe that [`Permit::Probe`] allowed has been sent.
    pub fn probe_sent(&mut self) {
        if let State::Open { probing, .. } = &mut self.state {
            *probing = true;
        }
    }

    /// The next probe may go out at once: somebody says that the cause is removed.
    pub fn nudge(&mut self, now: Instant) {
        match &mut self.state {
            State::Closed => {}
            State::Busy { until } => *until = now,
            State::Open { probe_at, .. } => *probe_at = now,
        }
    }

    /// A delivery was confirmed. Returns true where this closed the breaker. A pause that the sink asked for lasts
    /// all the same: the delivery was under way before.
    pub fn delivered(&mut self, now: Instant) -> bool {
        let was_open = self.is_open();
        if !self.is_busy(now) {
            self.close();
        }
        self.rejections = None;
        self.delivered_since_growth += 1;
        if self.delivered_since_growth >= self.window {
            self.delivered_since_growth = 0;
            self.window = (self.window + 1).min(self.window_max);
        }
        was_open
    }

    /// An event failed by itself. As a probe it shows that the sink answers, so it is there; a suspect one stays suspect.
    pub fn retried(&mut self, now: Instant, jitter: f64) {
        match self.state {
            State::Open { suspect: true, probing: true, .. } => self.wait_for_probe(now, jitter, true),
            State::Open { probing: true, .. } => self.close(),
            State::Open { .. } | State::Closed | State::Busy { .. } => {}
        }
    }

    /// The sink asked for less. An open breaker stays open: the sink took nothing.
    pub fn busy(&mut self, now: Instant, asked: Option<Duration>, failure: Failure, jitter: f64) {
        // Several answers of one burst are one request for less, and lengthen the wait once.
        if !self.is_busy(now) && (!self.is_open() || self.is_probing()) {
            self.waits = self.waits.saturating_add(1);
        }
        let wait = asked.unwrap_or_else(|| half_jitter(BUSY_WAIT_MAX, self.waits, jitter));
        match &mut self.state {
            State::Open { probe_at, probing, .. } => {
                *probe_at = (*probe_at).max(now + wait);
                *probing = false;
            }
            State::Busy { until } if *until > now => *until = (*until).max(now + wait),
            State::Closed | State::Busy { .. } => {
                self.window = (self.window / 2).max(1);
                self.state = State::Busy { until: now + wait };
            }
        }
        self.failure = Some(failure);
    }

    /// The sink cannot take anything. Returns true where this opened the breaker.
    pub fn away(&mut self, now: Instant, failure: Failure, jitter: f64) -> bool {
        let (opened, suspect) = (!self.is_open(), self.is_suspect());
        self.failure = Some(failure);
        if opened {
            self.waits = 0;
        }
        if opened || self.is_probing() {
            self.wait_for_probe(now, jitter, suspect);
        }
        opened
    }

    /// An event was rejected.
    pub fn rejected(&mut self, now: Instant, failure: &Failure, jitter: f64) -> Rejected {
        if self.is_suspect() {
            self.failure = Some(failure.clone());
            if self.is_probing() {
                self.wait_for_probe(now, jitter, true);
            }
            return Rejected::Keep;
        }
        let run = match self.rejections {
            Some((reason, run)) if reason == failure.reason => run + 1,
            _ => 1,
        };
        self.rejections = Some((failure.reason, run));
        if run < REJECTIONS_IN_A_ROW {
            if self.is_probing() {
                // A sink that judges an event is there.
                self.close();
            }
            return Rejected::Bury;
        }
        self.failure = Some(Failure::new(
            failure.reason,
            format!(
                "{run} events in a row were rejected for this reason, so the sink is suspect: {}",
                failure.detail
            ),
        ));
        self.waits = 0;
        self.wait_for_probe(now, jitter, true);
        Rejected::Keep
    }

    /// What comes back now is the probe's answer: a probe goes out alone. Before, while the breaker is open, it is what was
    /// under way when it opened, and says nothing about the time after.
    fn is_probing(&self) -> bool {
        matches!(self.state, State::Open { probing: true, .. })
    }

    fn wait_for_probe(&mut self, now: Instant, jitter: f64, suspect: bool) {
        self.waits = self.waits.saturating_add(1);
        let probe_at = now + half_jitter(PROBE_WAIT_MAX, self.waits, jitter);
        self.state = State::Open { probe_at, probing: false, suspect };
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.failure = None;
        self.waits = 0;
    }
}

/// Between half and all of an exponential step from [`WAIT_FIRST`] to `max`: a probe never fires at once.
fn half_jitter(max: Duration, waits: u32, jitter: f64) -> Duration {
    full_jitter(WAIT_FIRST, max, waits, 0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
