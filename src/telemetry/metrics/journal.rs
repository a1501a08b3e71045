//! The metrics of the journal: what it took, how long the disk needed, what it lost to damage, what room is left.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

const APPENDED: &str = "hookbus_journal_records_total";
const DUPLICATES: &str = "hookbus_journal_duplicates_total";
const FORGOTTEN_EARLY: &str = "hookbus_journal_identities_forgotten_early_total";
const SYNC_SECONDS: &str = "hookbus_journal_sync_seconds";
const BATCH_RECORDS: &str = "hookbus_journal_batch_records";
const BATCH_BYTES: &str = "hookbus_journal_batch_bytes";
const DISK_BYTES: &str = "hookbus_journal_disk_bytes";
const BUDGET_LEFT_BYTES: &str = "hookbus_journal_budget_left_bytes";
const DAMAGED: &str = "hookbus_journal_damaged_ranges_total";
const TORN_BYTES: &str = "hookbus_journal_torn_bytes_total";
const FREED_EARLY: &str = "hookbus_journal_segments_freed_early_total";
const CURSOR_SAVE_FAILURES: &str = "hookbus_journal_cursor_save_failures_total";
const STALLED_SECONDS: &str = "hookbus_journal_stalled_seconds";
const STATE: &str = "hookbus_journal_state";

/// The states of the journal, each a series of which one is 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Takes records.
    Ready,
    /// Refuses new records until space is freed.
    Full,
    /// A write or sync failed.
    Failed,
    /// Closed.
    Closed,
}

impl State {
    const ALL: [State; 4] = [State::Ready, State::Full, State::Failed, State::Closed];
    fn label(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Full => "full",
            State::Failed => "failed",
            State::Closed => "closed",
        }
    }
}

/// Says what each series means.
pub fn describe() {
    describe_counter!(APPENDED, Unit::Count, "records written and synced");
    describe_counter!(
        DUPLICATES,
        Unit::Count,
        "records that were in the journal already and not stored again"
    );
    describe_counter!(
        FORGOTTEN_EARLY,
        Unit::Count,
        "identities forgotten before their window was over, for dedupe_max"
    );
    describe_histogram!(SYNC_SECONDS, Unit::Seconds, "time of one sync");
    describe_histogram!(BATCH_RECORDS, Unit::Count, "records covered by one sync");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "bytes covered by one sync");
    describe_gauge!(
        DISK_BYTES,
        Unit::Bytes,
        "bytes of segment files, preallocated ones included, and of what was set aside"
    );
    describe_gauge!(BUDGET_LEFT_BYTES, Unit::Bytes, "bytes of disk_max that are not taken");
    describe_counter!(DAMAGED, Unit::Count, "damaged ranges found and set aside");
    describe_counter!(TORN_BYTES, Unit::Bytes, "bytes of unfinished writes cut at a start");
    describe_counter!(
        FREED_EARLY,
        Unit::Count,
        "settled segments freed before their retention was over, for disk_max"
    );
    describe_counter!(CURSOR_SAVE_FAILURES, Unit::Count, "cursor slots that could not be saved");
    describe_gauge!(
        STALLED_SECONDS,
        Unit::Seconds,
        "how long the write and sync in progress have lasted, or the wait for the next segment"
    );
    describe_gauge!(STATE, Unit::Count, "1 for the state the journal is in");
}

/// Starts every series at zero.
pub fn journal_started() {
    for name in
        [APPENDED, DUPLICATES, FORGOTTEN_EARLY, DAMAGED, TORN_BYTES, FREED_EARLY, CURSOR_SAVE_FAILURES]
    {
        counter!(name).increment(0);
    }
    stalled_for(Duration::ZERO);
    state_changed(State::Ready);
}

/// How long the disk holds up the writer at the moment of a scrape.
pub fn stalled_for(duration: Duration) {
    gauge!(STALLED_SECONDS).set(duration.as_secs_f64());
}

/// A batch is durable.
pub fn committed(records: u64, bytes: u64, sync: Duration) {
    counter!(APPENDED).increment(records);
    histogram!(SYNC_SECONDS).record(sync);
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52")]
    {
        histogram!(BATCH_RECORDS).record(records as f64);
        histogram!(BATCH_BYTES).record(bytes as f64);
    }
}

/// Records were recognised as duplicates.
pub fn duplicates_seen(count: u64) {
    counter!(DUPLICATES).increment(count);
}

/// Identities were forgotten before their time.
pub fn identities_forgotten_early(count: u64) {
    counter!(FORGOTTEN_EARLY).increment(count);
}

/// Segment files were made or removed.
pub fn disk_used(bytes: u64, bytes_max: u64) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float, and 2^52 bytes is beyond any disk here"
    )]
    {
        gauge!(DISK_BYTES).set(bytes as f64);
        gauge!(BUDGET_LEFT_BYTES).set(bytes_max.saturating_sub(bytes) as f64);
    }
}

/// A damaged range was found.
pub fn damage_found() {
    counter!(DAMAGED).increment(1);
}

/// An unfinished write was cut.
pub fn torn_tail_cut(bytes: u64) {
    counter!(TORN_BYTES).increment(bytes);
}

/// A settled segment was freed before its retention was over.
pub fn segment_freed_early() {
    counter!(FREED_EARLY).increment(1);
}

/// A cursor could not be saved.
pub fn cursor_save_failed() {
    counter!(CURSOR_SAVE_FAILURES).increment(1);
}

/// The journal's state is another one.
pub fn state_changed(state: State) {
    for one in State::ALL {
        gauge!(STATE, "state" => one.label()).set(if one == state { 1.0 } else { 0.0 });
    }
}
