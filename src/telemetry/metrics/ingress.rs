//! What the ingress counts: requests by source and answer, latency, bytes, events, duplicates, quarantines, connections.
//! Holds: R8 (a label is a configured name or a member of a closed set; a path nobody configured is `unknown`),
//! every series starts at zero. The handles are made once a source, so a request formats and looks up nothing.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use std::sync::Arc;
use std::time::Instant;

const REQUESTS: &str = "hookbus_ingress_requests_total";
const LATENCY: &str = "hookbus_ingress_request_seconds";
const BODY_BYTES: &str = "hookbus_ingress_body_bytes_total";
const EVENTS: &str = "hookbus_ingress_events_total";
const DUPLICATES: &str = "hookbus_ingress_duplicates_total";
const QUARANTINED: &str = "hookbus_ingress_quarantined_total";
const UNAUTHORIZED: &str = "hookbus_ingress_unauthorized_total";
const UNROUTED: &str = "hookbus_ingress_unrouted_events_total";
const CONNECTIONS: &str = "hookbus_ingress_connections";
const IN_WORK: &str = "hookbus_ingress_requests_in_work";

/// The label of every path that names no configured source.
const UNKNOWN_SOURCE: &str = "unknown";

/// What the ingress counts and what it means.
pub fn describe() {
    describe_counter!(REQUESTS, Unit::Count, "requests by source and how each was answered");
    describe_histogram!(LATENCY, Unit::Seconds, "from a request's head to its 2xx, by source");
    describe_counter!(
        BODY_BYTES,
        Unit::Bytes,
        "body bytes of requests as sent, before a content coding is undone"
    );
    describe_counter!(EVENTS, Unit::Count, "events stored");
    describe_counter!(DUPLICATES, Unit::Count, "events that were in the journal already");
    describe_counter!(
        QUARANTINED,
        Unit::Count,
        "authenticated bodies that could not be read, kept as dead letters"
    );
    describe_counter!(UNAUTHORIZED, Unit::Count, "requests that did not prove who sent them, by reason");
    describe_counter!(UNROUTED, Unit::Count, "events stored that no route leads to any sink");
    describe_gauge!(CONNECTIONS, Unit::Count, "open connections of the ingress");
    describe_gauge!(IN_WORK, Unit::Count, "requests being answered now");
}

macro_rules! answers {
    ($($(#[$doc:meta])* $variant:ident = $label:literal),* $(,)?) => {
        /// The closed set of ways in which a request ends, as the label `answer`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Answer { $($(#[$doc])* $variant),* }
        impl Answer {
            /// Every answer, in the order of the variants.
            pub const ALL: &'static [Answer] = &[$(Answer::$variant),*];
            /// As a metric label.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Answer::$variant => $label),* } }
        }
    };
}

answers! {
    /// 2xx: everything in it is on disk.
    Accepted = "accepted",
    /// 200 to a question that carried no event.
    Handshake = "handshake",
    /// 400: the body is broken, incomplete, or not what the source reads.
    BadRequest = "bad_request",
    /// 401
    Unauthorized = "unauthorized",
    /// 404
    NotFound = "not_found",
    /// 405
    MethodNotAllowed = "method_not_allowed",
    /// 408
    BodyTimeout = "body_timeout",
    /// 413
    TooLarge = "too_large",
    /// 415
    UnsupportedMedia = "unsupported_media",
    /// 429
    RateLimited = "rate_limited",
    /// 431
    HeadTooLarge = "head_too_large",
    /// 503: more requests than may be in work at once.
    Busy = "busy",
    /// 503: the journal or the dead-letter store cannot take it.
    StorageUnavailable = "storage_unavailable",
    /// The connection ended before there was an answer.
    Abandoned = "abandoned",
}

/// The handles of one source.
pub struct SourceMeter {
    requests: Vec<Counter>,
    latency_seconds: Histogram,
    body_bytes: Counter,
    events: Counter,
    duplicates: Counter,
    unauthorized: Vec<(&'static str, Counter)>,
    unrouted: Counter,
    quarantined: Vec<(&'static str, Counter)>,
    in_work: Gauge,
}

impl SourceMeter {
    /// Starts the series of a configured source at zero; `unreadable` and `refused` are all labels
    /// that [`Self::quarantined`] and [`Self::unauthorized`] may get.
    #[must_use]
    pub fn started(source: Arc<str>, unreadable: &[&'static str], refused: &[&'static str]) -> Self {
        let named = |name: &'static str| zero(counter!(name, "source" => Arc::clone(&source)));
        let by_reason = |name: &'static str, reason: &'static str| {
            (reason, zero(counter!(name, "source" => Arc::clone(&source), "reason" => reason)))
        };
        SourceMeter {
            requests: request_counters(&source),
            latency_seconds: histogram!(LATENCY, "source" => Arc::clone(&source)),
            body_bytes: named(BODY_BYTES),
            events: named(EVENTS),
            duplicates: named(DUPLICATES),
            unauthorized: refused.iter().map(|reason| by_reason(UNAUTHORIZED, reason)).collect(),
            unrouted: named(UNROUTED),
            quarantined: unreadable.iter().map(|reason| by_reason(QUARANTINED, reason)).collect(),
            in_work: in_work(),
        }
    }
    /// A request for this source began; it counts as abandoned until it has [ended](Visit::ended).
    #[must_use]
    pub fn request_began(&self) -> Visit<'_> {
        self.in_work.increment(1);
        Visit { meter: self, began: Instant::now(), answer: Answer::Abandoned }
    }
    /// A body was read.
    pub fn body_read(&self, raw_bytes: usize) {
        self.body_bytes.increment(raw_bytes as u64);
    }
    /// Events of one request are on disk: this many new ones, of which so many go nowhere, and this many known ones.
    pub fn events_kept(&self, stored: u64, unrouted: u64, duplicates: u64) {
        self.events.increment(stored);
        self.unrouted.increment(unrouted);
        self.duplicates.increment(duplicates);
    }
    /// A body was kept as a dead letter.
    pub fn quarantined(&self, reason: &str) {
        count(&self.quarantined, reason);
    }
    /// A request did not prove who sent it.
    pub fn unauthorized(&self, reason: &str) {
        count(&self.unauthorized, reason);
    }
}

fn count(counters: &[(&'static str, Counter)], reason: &str) {
    if let Some((_, counter)) = counters.iter().find(|(label, _)| *label == reason) {
        counter.increment(1);
    }
}

/// One request in work; dropped without an answer (the connection is gone) it counts as abandoned.
pub struct Visit<'a> {
    meter: &'a SourceMeter,
    began: Instant,
    answer: Answer,
}

impl Visit<'_> {
    /// The request is answered.
    pub fn ended(mut self, answer: Answer) {
        if answer == Answer::Accepted {
            self.meter.latency_seconds.record(self.began.elapsed().as_secs_f64());
        }
        self.answer = answer;
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.meter.in_work.decrement(1);
        self.meter.requests[self.answer as usize].increment(1);
    }
}

/// The handles of what belongs to no source.
pub struct ListenerMeter {
    not_found: Counter,
    head_too_large: Counter,
    connections: Gauge,
}

impl ListenerMeter {
    /// Starts the series at zero.
    #[must_use]
    pub fn started() -> Self {
        let connections = gauge!(CONNECTIONS);
        connections.set(0);
        in_work().set(0);
        let named =
            |answer: Answer| zero(counter!(REQUESTS, "source" => UNKNOWN_SOURCE, "answer" => answer.label()));
        ListenerMeter {
            not_found: named(Answer::NotFound),
            head_too_large: named(Answer::HeadTooLarge),
            connections,
        }
    }
    /// A request named no source.
    pub fn not_found(&self) {
        self.not_found.increment(1);
    }
    /// A request had more header fields than may be, before its source was looked for.
    pub fn head_too_large(&self) {
        self.head_too_large.increment(1);
    }
    /// A connection was accepted; it counts as open until the guard is dropped.
    #[must_use]
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections.increment(1);
        OpenConnection(self.connections.clone())
    }
}

/// See [`ListenerMeter::connection_opened`].
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

fn request_counters(source: &Arc<str>) -> Vec<Counter> {
    let counter = |answer: &Answer| {
        zero(counter!(REQUESTS, "source" => Arc::clone(source), "answer" => answer.label()))
    };
    Answer::ALL.iter().map(counter).collect()
}

fn in_work() -> Gauge {
    gauge!(IN_WORK)
}

fn zero(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}
