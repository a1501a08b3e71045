//! The plain values of the dead-letter store: what is put in, what is asked for, what comes back.
//! Holds: R8 (`Summary` has no field that could carry a payload).

use crate::config::ByteSize;
use crate::envelope::{Envelope, SinkName, SourceName};
use crate::journal::Deferral;
use crate::sink::Failure;
use crate::time::UnixMs;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// `[dead_letters]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The most bytes that summaries and payloads may take; beyond, lanes wait rather than lose (and quarantines
    /// answer 503). The file itself takes two to three and a half times as much, and keeps what it took for reuse.
    pub disk_max: ByteSize,
}
impl Default for Config {
    fn default() -> Self {
        Config { disk_max: ByteSize::gib(1) }
    }
}

/// Identifies a dead letter: the same event for the same sink (or the same body for the same source) is the same letter.
/// The same event has the same bytes; an id that a sender uses for two of them makes two letters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LetterId(pub String);

/// Where the letter comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A lane gave the event up.
    Sink(SinkName),
    /// The ingress could not read an authenticated body (a quarantine).
    Ingress,
}

/// What a listing shows: everything but the payload (R8).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Its identity.
    pub id: LetterId,
    /// Which lane or the ingress.
    pub origin: Origin,
    /// The source that took it in.
    pub source: SourceName,
    /// CloudEvents `id`; `None` for a quarantine.
    pub event_id: Option<String>,
    /// CloudEvents `type`; `None` for a quarantine.
    pub event_type: Option<String>,
    /// The reason's label: of [`crate::sink::Reason`] or [`crate::source::Unreadable`].
    pub reason: String,
    /// Deliveries tried, summed over replays.
    pub attempts: u32,
    /// The first failure's sentence.
    pub first_error: String,
    /// The last failure's sentence.
    pub last_error: String,
    /// When the event arrived.
    pub arrived: UnixMs,
    /// When it was given up, the last time.
    pub died: UnixMs,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// A replay has been asked for and is not finished.
    pub replaying: bool,
}

/// A letter's content.
#[derive(Clone, PartialEq, Debug)]
pub enum Payload {
    /// An event.
    Event(Envelope),
    /// A quarantined body as it was received (inflated), and its media type.
    Body {
        /// The bytes.
        body: Bytes,
        /// `Content-Type`, where the sender gave one.
        content_type: Option<String>,
    },
}

/// A lane gives an event up.
#[derive(Clone, Debug)]
pub struct Undelivered<'a> {
    /// Whose lane.
    pub sink: &'a SinkName,
    /// The event.
    pub event: &'a Envelope,
    /// When it arrived.
    pub arrived: UnixMs,
    /// Deliveries tried.
    pub attempts: u32,
    /// The first failure.
    pub first: &'a Failure,
    /// The failure that ended it; its reason becomes the letter's.
    pub last: &'a Failure,
    /// Another sink that is to get a copy (`dead_letter` in `[sinks.N]`).
    pub copy_to: Option<&'a SinkName>,
}

/// The ingress could not read a body.
#[derive(Clone, Debug)]
pub struct Quarantined<'a> {
    /// Whose.
    pub source: &'a SourceName,
    /// The bytes.
    pub body: &'a Bytes,
    /// `Content-Type`, where the sender gave one.
    pub content_type: Option<&'a str>,
    /// A label of [`crate::source::Unreadable`].
    pub reason: &'static str,
    /// A sentence without payload.
    pub detail: String,
    /// When it arrived.
    pub arrived: UnixMs,
}

/// Which letters; an absent field matches all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// These very letters; empty: any.
    pub ids: Vec<LetterId>,
    /// Of this sink's lane.
    pub sink: Option<SinkName>,
    /// Of this source.
    pub source: Option<SourceName>,
    /// A glob over the event's type.
    pub event_type: Option<String>,
    /// This reason's label.
    pub reason: Option<String>,
    /// Given up at or after.
    pub since: Option<UnixMs>,
    /// Given up before.
    pub until: Option<UnixMs>,
    /// Only (true) or no (false) quarantines.
    pub quarantined: Option<bool>,
}

/// Work the store has for a lane: a letter of its own to deliver again, or a copy of another lane's letter.
#[derive(Clone, Debug)]
pub struct Errand {
    /// The letter.
    pub letter: LetterId,
    /// Own letter again, or a copy.
    pub kind: ErrandKind,
    /// The event to deliver.
    pub event: Envelope,
    /// When it arrived.
    pub arrived: UnixMs,
    /// What an earlier process noted of it with [`super::DeadLetters::note_errand`], if that was kept.
    pub deferral: Option<Deferral>,
}

/// See [`Errand`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrandKind {
    /// The lane's own letter, on somebody's request.
    Replay,
    /// A copy of another lane's letter.
    Copy,
}

/// How an errand ended.
#[derive(Clone, Debug)]
pub enum ErrandEnd<'a> {
    /// Confirmed: a replayed letter is deleted, a copy is ticked off.
    Delivered,
    /// Given up again: a replayed letter goes back to rest with the new failure; a copy is ticked off (the letter itself stays).
    Failed {
        /// Deliveries tried this time.
        attempts: u32,
        /// The failure that ended it.
        last: &'a Failure,
    },
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// `disk_max` is used up.
    #[error("the dead-letter store is full; replay or discard letters, or raise dead_letters.disk_max")]
    Full,
    /// The disk failed.
    #[error("the dead-letter store failed: {0}")]
    Failed(String),
    /// It is closed.
    #[error("the dead-letter store is closed")]
    Closed,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Letters by sink.
    pub by_sink: std::collections::BTreeMap<SinkName, u64>,
    /// Quarantined bodies.
    pub quarantined: u64,
    /// Bytes that summaries and payloads take.
    pub bytes: u64,
    /// Bytes they may take (`dead_letters.disk_max`).
    pub bytes_max: u64,
    /// What became of every letter, by sink.
    pub accounts: std::collections::BTreeMap<SinkName, LetterAccount>,
    /// What became of every quarantined body.
    pub quarantines: LetterAccount,
    /// Letters that cannot be read, or could not and were erased: nobody knows whose they are, so no account has them.
    pub unreadable: u64,
    /// What the accounts do not explain; 0, or the store has a defect or was damaged.
    pub unaccounted: i64,
}

/// What became of letters since the store began to count them, which survives restarts. `created` is the sum of the
/// others. A letter that dies again is the same letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LetterAccount {
    /// Made.
    pub created: u64,
    /// Gone, because a replay was confirmed; of a quarantine: because its body could be read at last.
    pub replayed: u64,
    /// Deleted by somebody.
    pub discarded: u64,
    /// Still there.
    pub kept: u64,
}

impl LetterAccount {
    /// Letters that were made and are nowhere; negative where more are there than were made.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let known = self.replayed.saturating_add(self.discarded).saturating_add(self.kept);
        0i64.saturating_add_unsigned(self.created).saturating_sub_unsigned(known)
    }
}
