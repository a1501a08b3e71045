//! The metrics of the lanes: what became of every event, how long it took, how far behind each sink is.

use crate::envelope::SinkName;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use std::time::Duration;

const OUTCOMES: &str = "hookbus_delivery_outcomes_total";
const DELIVERY_SECONDS: &str = "hookbus_delivery_seconds";
const SETTLED: &str = "hookbus_lane_settled_total";
const ACCEPTED: &str = "hookbus_lane_accepted_events";
const ACCOUNTED: &str = "hookbus_lane_accounted_events";
const UNACCOUNTED: &str = "hookbus_lane_unaccounted_events";
const LAG_EVENTS: &str = "hookbus_lane_lag_events";
const LAG_SECONDS: &str = "hookbus_lane_lag_seconds";
const IN_FLIGHT: &str = "hookbus_lane_in_flight";
const HELD: &str = "hookbus_lane_held";
const STATE: &str = "hookbus_lane_state";
const FAILURE: &str = "hookbus_lane_failure";

/// How a delivery ended, as a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutcomeLabel {
    /// Confirmed.
    Delivered,
    /// Failed, to be tried again.
    Retry,
    /// The sink asked for less.
    Busy,
    /// The sink takes nothing.
    Away,
    /// Refused for good.
    Reject,
}

/// How a lane was done with an event, as a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Confirmed by the sink.
    Delivered,
    /// Kept as a dead letter.
    DeadLettered,
    /// Given up under a full disk, as configured.
    Shed,
    /// No route leads from it to this sink.
    NotRouted,
}

const OUTCOME_LABELS: [&str; 5] = ["delivered", "retry", "busy", "away", "reject"];
const SETTLED_LABELS: [&str; 4] = ["delivered", "dead_lettered", "shed", "not_routed"];
const ACCOUNTED_LABELS: [&str; 5] = ["delivered", "dead_lettered", "shed", "not_routed", "missing"];
const STATE_LABELS: [&str; 5] = ["running", "paused", "busy", "away", "stuck"];

/// Describes every series of this file.
pub fn describe() {
    describe_counter!(OUTCOMES, "Deliveries tried, by how they ended.");
    describe_histogram!(DELIVERY_SECONDS, "Time from handing an event to the sink until it answered.");
    describe_counter!(SETTLED, "Events a lane is done with, by how.");
    describe_gauge!(ACCEPTED, "Events accepted since the sink's counting began; survives restarts.");
    describe_gauge!(
        ACCOUNTED,
        "Events accepted since then that the lane is done with, by how. A crash may set it back by what it repeats."
    );
    describe_gauge!(UNACCOUNTED, "Accepted less accounted less lag: always 0, or there is a defect.");
    describe_gauge!(LAG_EVENTS, "Events in the journal that the lane has not settled.");
    describe_gauge!(LAG_SECONDS, "Age of the oldest event that the lane has not settled.");
    describe_gauge!(IN_FLIGHT, "Deliveries in flight.");
    describe_gauge!(HELD, "Events in hand that wait for their time or for the one before them.");
    describe_gauge!(STATE, "1 for the state the lane is in, 0 for the others.");
    describe_gauge!(FAILURE, "1 for the reason why the lane is not running, 0 for the others.");
}

/// A lane ended before it was told to: it is stuck until the next start, whatever it showed last.
pub fn lane_ended_early(sink: &SinkName) {
    for state in STATE_LABELS {
        gauge!(STATE, "sink" => sink.label(), "state" => state).set(if state == "stuck" { 1.0 } else { 0.0 });
    }
    gauge!(IN_FLIGHT, "sink" => sink.label()).set(0.0);
}

/// Conservation for one lane at one moment (R4).
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneAccount {
    /// Events accepted since the counting began.
    pub accepted: u64,
    /// Delivered, dead-lettered, shed, not routed, missing.
    pub accounted: [u64; ACCOUNTED_LABELS.len()],
    /// Not settled.
    pub lag_events: u64,
    /// What is left over.
    pub unaccounted: i64,
    /// Age of the oldest event that is not settled.
    pub oldest_age: Duration,
}

impl LaneAccount {
    /// Sets the lane's series. Called for each scrape, so that what one scrape shows is of one moment and adds up.
    pub fn show(&self, sink: &SinkName) {
        let of_sink = |name: &'static str| gauge!(name, "sink" => sink.label());
        of_sink(ACCEPTED).set(precise(self.accepted));
        for (ending, events) in ACCOUNTED_LABELS.into_iter().zip(self.accounted) {
            gauge!(ACCOUNTED, "sink" => sink.label(), "ending" => ending).set(precise(events));
        }
        of_sink(LAG_EVENTS).set(precise(self.lag_events));
        of_sink(UNACCOUNTED).set(self.unaccounted as f64);
        of_sink(LAG_SECONDS).set(self.oldest_age.as_secs_f64());
    }
}

/// One lane's series, looked up once.
pub struct LaneMetrics {
    outcomes: [Counter; OUTCOME_LABELS.len()],
    settled: [Counter; SETTLED_LABELS.len()],
    states: [Gauge; STATE_LABELS.len()],
    failures: Vec<Gauge>,
    shown: Option<(usize, Option<usize>)>,
    delivery_seconds: Histogram,
    in_flight: Gauge,
    held: Gauge,
}

impl LaneMetrics {
    /// Starts every series of the lane at zero. `reasons` are the labels of every reason why a lane may not be running.
    #[must_use]
    pub fn lane_started(sink: &SinkName, reasons: impl Iterator<Item = &'static str>) -> Self {
        let outcomes =
            OUTCOME_LABELS.map(|outcome| counter!(OUTCOMES, "sink" => sink.label(), "outcome" => outcome));
        let settled =
            SETTLED_LABELS.map(|ending| counter!(SETTLED, "sink" => sink.label(), "ending" => ending));
        let states = STATE_LABELS.map(|state| gauge!(STATE, "sink" => sink.label(), "state" => state));
        let failure = |reason| gauge!(FAILURE, "sink" => sink.label(), "reason" => reason);
        let failures: Vec<Gauge> = reasons.map(failure).collect();
        outcomes.iter().chain(&settled).for_each(|series| series.increment(0));
        states.iter().chain(&failures).for_each(|series| series.set(0.0));
        let of_sink = |name: &'static str| {
            let series = gauge!(name, "sink" => sink.label());
            series.set(0.0);
            series
        };
        LaneMetrics {
            outcomes,
            settled,
            states,
            failures,
            shown: None,
            delivery_seconds: histogram!(DELIVERY_SECONDS, "sink" => sink.label()),
            in_flight: of_sink(IN_FLIGHT),
            held: of_sink(HELD),
        }
    }

    /// The sink answered, or the time-out did.
    pub fn delivery_ended(&self, outcome: OutcomeLabel, took: Duration) {
        self.outcomes[outcome as usize].increment(1);
        self.delivery_seconds.record(took);
    }

    /// The lane is done with an event.
    pub fn settled(&self, how: Settled) {
        self.settled[how as usize].increment(1);
    }

    /// What the lane looks like now; `state` is its place among running, paused, busy, away, stuck, `reason` the place of
    /// why among the reasons it was started with.
    pub fn looks(&mut self, state: usize, reason: Option<usize>, in_flight: usize, held: usize) {
        // Asked after every event, and mostly nothing of it has changed.
        if self.shown.replace((state, reason)) != Some((state, reason)) {
            let flags = [(&self.states[..], Some(state)), (&self.failures[..], reason)];
            for (series, raised) in flags {
                for (place, series) in series.iter().enumerate() {
                    series.set(if Some(place) == raised { 1.0 } else { 0.0 });
                }
            }
        }
        self.in_flight.set(precise(in_flight as u64));
        self.held.set(precise(held as u64));
    }
}

/// Gauges are floating point; counts stay exact up to 2^53.
fn precise(count: u64) -> f64 {
    count as f64
}
