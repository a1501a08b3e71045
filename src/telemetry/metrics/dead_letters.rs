//! The metrics of the dead-letter store: what it holds, what went in and how its errands ended.
//! Absent on purpose: the count of quarantines by source (`ingress`, which sees every one of them).

use crate::envelope::SinkName;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

const LETTERS: &str = "hookbus_dead_letters";
const WRITTEN: &str = "hookbus_dead_letters_written_total";
const UNREADABLE: &str = "hookbus_dead_letters_unreadable_total";
const BYTES: &str = "hookbus_dead_letters_bytes";
const BYTES_MAX: &str = "hookbus_dead_letters_max_bytes";
const COMMIT: &str = "hookbus_dead_letters_commit_seconds";
const STORE_FAILED: &str = "hookbus_dead_letters_store_failed";
const ERRANDS_OPEN: &str = "hookbus_dead_letters_errands_open";
const ERRANDS_ENDED: &str = "hookbus_dead_letters_errands_ended_total";
const QUARANTINES: &str = "hookbus_dead_letters_quarantined";
const CREATED: &str = "hookbus_dead_letters_created_total";
const GONE: &str = "hookbus_dead_letters_gone_total";
const QUARANTINES_CREATED: &str = "hookbus_quarantines_created_total";
const QUARANTINES_GONE: &str = "hookbus_quarantines_gone_total";
const UNACCOUNTED: &str = "hookbus_dead_letters_unaccounted";
const REPLAYED: &str = "replayed";
const DISCARDED: &str = "discarded";

/// What an errand was: a letter delivered again, or a copy for another sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errand {
    /// A letter delivered again.
    Replay,
    /// A copy for another sink.
    Copy,
}
impl Errand {
    fn label(self) -> &'static str {
        match self {
            Errand::Replay => "replay",
            Errand::Copy => "copy",
        }
    }
}

/// How an errand ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrandEnding {
    /// The sink confirmed it.
    Delivered,
    /// It was given up.
    Failed,
}
impl ErrandEnding {
    fn label(self) -> &'static str {
        match self {
            ErrandEnding::Delivered => "delivered",
            ErrandEnding::Failed => "failed",
        }
    }
}

/// Says what each metric means; once, when the recorder is installed.
pub fn describe() {
    describe_gauge!(LETTERS, "Dead letters kept, by the sink that could not take them");
    describe_counter!(
        WRITTEN,
        "Dead letters written, by sink and reason; a letter that dies again counts again"
    );
    describe_counter!(UNREADABLE, "Entries of the dead-letter store that were met and could not be read");
    describe_gauge!(BYTES, Unit::Bytes, "Bytes that dead letters and quarantines take");
    describe_gauge!(BYTES_MAX, Unit::Bytes, "Bytes that they may take (dead_letters.disk_max)");
    describe_histogram!(COMMIT, Unit::Seconds, "Time of one durable commit of the dead-letter store");
    describe_gauge!(
        STORE_FAILED,
        "1 when the dead-letter store has failed and takes nothing until a restart"
    );
    describe_gauge!(ERRANDS_OPEN, "Replays and copies waiting for a sink's lane");
    describe_counter!(ERRANDS_ENDED, "Replays and copies that ended, by sink, kind and ending");
    describe_gauge!(QUARANTINES, "Bodies kept that could not be read");
    describe_counter!(
        CREATED,
        "Dead letters made since the store began to count, by sink; survives restarts"
    );
    describe_counter!(GONE, "Dead letters replayed and discarded, by sink; survives restarts");
    describe_counter!(
        QUARANTINES_CREATED,
        "Quarantines made since the store began to count; survives restarts"
    );
    describe_counter!(
        QUARANTINES_GONE,
        "Quarantines read at last (replayed) and discarded; survives restarts"
    );
    describe_gauge!(
        UNACCOUNTED,
        "Letters that were made and are nowhere; always 0, or the store has a defect"
    );
}

/// The store is open.
pub fn store_started() {
    counter!(UNREADABLE).increment(0);
    gauge!(STORE_FAILED).set(0.0);
    gauge!(QUARANTINES).set(0.0);
    gauge!(UNACCOUNTED).set(0.0);
    quarantines_ended(0, 0, 0);
}

/// A sink is configured whose letters end up here, each for one of `reasons`.
pub fn sink_started(sink: &SinkName, reasons: impl Iterator<Item = &'static str>) {
    gauge!(LETTERS, "sink" => sink.label()).increment(0.0);
    gauge!(ERRANDS_OPEN, "sink" => sink.label()).increment(0.0);
    letters_ended(sink, 0, 0, 0);
    for reason in reasons {
        counter!(WRITTEN, "sink" => sink.label(), "reason" => reason).increment(0);
    }
    for kind in [Errand::Replay, Errand::Copy] {
        for ending in [ErrandEnding::Delivered, ErrandEnding::Failed] {
            errands_ended(sink, kind, ending).increment(0);
        }
    }
}

/// A lane gave an event up.
pub fn written(sink: &SinkName, reason: &'static str) {
    counter!(WRITTEN, "sink" => sink.label(), "reason" => reason).increment(1);
}

/// An errand ended.
pub fn errand_ended(sink: &SinkName, kind: Errand, ending: ErrandEnding) {
    errands_ended(sink, kind, ending).increment(1);
}

fn errands_ended(sink: &SinkName, kind: Errand, ending: ErrandEnding) -> metrics::Counter {
    counter!(ERRANDS_ENDED, "sink" => sink.label(), "kind" => kind.label(), "ending" => ending.label())
}

/// An entry could not be read and was passed over.
pub fn unreadable_met(entries: u64) {
    counter!(UNREADABLE).increment(entries);
}

/// A commit became durable.
pub fn committed(took: Duration) {
    histogram!(COMMIT).record(took);
}

/// A commit failed; nothing is taken any more.
pub fn store_failed() {
    gauge!(STORE_FAILED).set(1.0);
}

/// There is room again, and letters are taken.
pub fn store_healed() {
    gauge!(STORE_FAILED).set(0.0);
}

/// So many letters are kept for a sink.
pub fn letters_kept(sink: &SinkName, letters: u64) {
    gauge!(LETTERS, "sink" => sink.label()).set(letters as f64);
}

/// What became of a sink's letters. The numbers only grow.
pub fn letters_ended(sink: &SinkName, created: u64, replayed: u64, discarded: u64) {
    counter!(CREATED, "sink" => sink.label()).absolute(created);
    counter!(GONE, "sink" => sink.label(), "how" => REPLAYED).absolute(replayed);
    counter!(GONE, "sink" => sink.label(), "how" => DISCARDED).absolute(discarded);
}

/// What became of the quarantines. The numbers only grow.
pub fn quarantines_ended(created: u64, replayed: u64, discarded: u64) {
    counter!(QUARANTINES_CREATED).absolute(created);
    counter!(QUARANTINES_GONE, "how" => REPLAYED).absolute(replayed);
    counter!(QUARANTINES_GONE, "how" => DISCARDED).absolute(discarded);
}

/// So many letters are in no account.
pub fn unaccounted(letters: i64) {
    gauge!(UNACCOUNTED).set(letters as f64);
}

/// So many errands wait for a sink's lane.
pub fn errands_open(sink: &SinkName, errands: u64) {
    gauge!(ERRANDS_OPEN, "sink" => sink.label()).set(errands as f64);
}

/// So many quarantined bodies are kept.
pub fn quarantines_kept(bodies: u64) {
    gauge!(QUARANTINES).set(bodies as f64);
}

/// So many bytes are kept, of so many allowed.
pub fn bytes_kept(bytes: u64, bytes_max: u64) {
    gauge!(BYTES).set(bytes as f64);
    gauge!(BYTES_MAX).set(bytes_max as f64);
}
