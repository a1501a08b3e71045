//! The five endings of a delivery and the reasons for them.
//! Holds: matched without `_` everywhere, so that a sixth ending is a compile error wherever it matters.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How one delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has confirmed it.
    Delivered,
    /// This event failed and may pass later; counts as an attempt.
    Retry(Failure),
    /// The sink asks for less; the lane waits, no attempt is counted. `wait`: what the sink asked for, if it said.
    Busy {
        /// Why.
        failure: Failure,
        /// How long it asked us to wait.
        wait: Option<Duration>,
    },
    /// The sink cannot take anything now; no attempt is counted, the backlog stays.
    Away(Failure),
    /// This event can never pass here.
    Reject(Failure),
}

/// Why a delivery did not succeed: a closed code, and a sentence for the operator without payload or secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code.
    pub reason: Reason,
    /// What happened and, where known, what to do. Lower case, no full stop, at most 300 characters.
    pub detail: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Failure { reason, detail: detail.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.label(), self.detail)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal),* $(,)?) => {
        /// The closed set of reasons: metric labels, filters of dead letters and the run of equal rejections.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $($(#[$doc])* $variant),* }
        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),*];
            /// As a metric label and filter.
            #[must_use]
            pub fn label(self) -> &'static str { match self { $(Reason::$variant => $label),* } }
        }
    };
}

reasons! {
    /// No answer within the time-out.
    Timeout = "timeout",
    /// The connection broke or was reset during the delivery.
    ConnectionLost = "connection_lost",
    /// Nothing listens there.
    ConnectionRefused = "connection_refused",
    /// The host's name does not resolve.
    NameNotResolved = "name_not_resolved",
    /// TLS could not be agreed, or the certificate is not trusted.
    Tls = "tls",
    /// Credentials are missing, wrong or insufficient.
    NotAuthorized = "not_authorized",
    /// The stream, topic, exchange, queue or URL does not exist.
    DestinationMissing = "destination_missing",
    /// The destination has moved (a redirect).
    DestinationMoved = "destination_moved",
    /// The destination is gone for good (410).
    DestinationGone = "destination_gone",
    /// The address is one that the configuration forbids.
    AddressForbidden = "address_forbidden",
    /// The sink asks for less.
    Throttled = "throttled",
    /// The sink failed by itself (5xx, a negative acknowledgement).
    SinkError = "sink_error",
    /// The sink refuses this event's content.
    ContentRefused = "content_refused",
    /// The event is larger than the sink takes.
    TooLarge = "too_large",
    /// The event cannot be expressed in the sink's protocol.
    NotEncodable = "not_encodable",
    /// The sink's own storage (disk, file) failed.
    Storage = "storage",
    /// Our own dead-letter store does not take the event.
    DeadLetterStore = "dead_letter_store",
    /// What was stored cannot be read back as an event.
    Unreadable = "unreadable",
}
