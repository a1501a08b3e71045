//! The metrics of the polls: whether the instance behind a source is connected, so that a silent source can be told from a
//! quiet one. Only sources that are polled have these series.

use crate::time::UnixMs;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use std::sync::Arc;

const CONNECTED: &str = "hookbus_source_connected";
const POLLS: &str = "hookbus_source_polls_total";
const POLLED_AT: &str = "hookbus_source_polled_timestamp_seconds";

/// How a poll ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polled {
    /// The instance is connected.
    Connected,
    /// It is, but its phone is not.
    PhoneOffline,
    /// It is not.
    Disconnected,
    /// There was no usable answer.
    Failed,
}

impl Polled {
    const ALL: [Polled; 4] = [Polled::Connected, Polled::PhoneOffline, Polled::Disconnected, Polled::Failed];

    fn label(self) -> &'static str {
        match self {
            Polled::Connected => "connected",
            Polled::PhoneOffline => "phone_offline",
            Polled::Disconnected => "disconnected",
            Polled::Failed => "failed",
        }
    }
}

/// Says what each metric means.
pub fn describe() {
    describe_gauge!(
        CONNECTED,
        "1 while the instance behind a polled source is connected, its phone too; 0 from the start until the first answer"
    );
    describe_counter!(POLLS, "Polls of an instance's state, by source and outcome");
    describe_gauge!(POLLED_AT, Unit::Seconds, "When an instance's state was last answered; 0: never");
}

/// The series of one polled source.
pub struct SourcePolls {
    source: Arc<str>,
    connected: Gauge,
    polled_at: Gauge,
}

impl SourcePolls {
    /// A source is configured to be polled.
    #[must_use]
    pub fn started(source: Arc<str>) -> Self {
        let connected = gauge!(CONNECTED, "source" => Arc::clone(&source));
        let polled_at = gauge!(POLLED_AT, "source" => Arc::clone(&source));
        connected.set(0.0);
        polled_at.set(0.0);
        let polls = SourcePolls { source, connected, polled_at };
        for outcome in Polled::ALL {
            polls.polls(outcome).increment(0);
        }
        polls
    }

    /// A poll was answered.
    pub fn polled(&self, outcome: Polled, at: UnixMs) {
        self.polls(outcome).increment(1);
        self.connected.set(if outcome == Polled::Connected { 1.0 } else { 0.0 });
        self.polled_at.set(at.0 as f64 / 1000.0);
    }

    /// A poll failed; after enough of them the instance counts as unreachable.
    pub fn failed(&self, is_unreachable: bool) {
        self.polls(Polled::Failed).increment(1);
        if is_unreachable {
            self.connected.set(0.0);
        }
    }

    fn polls(&self, outcome: Polled) -> Counter {
        counter!(POLLS, "source" => Arc::clone(&self.source), "outcome" => outcome.label())
    }
}
