//! How much the store holds and what became of the rest, kept in memory so that `totals` reads no disk. What it holds
//! is counted anew when the store opens; what became of letters is kept in the store, in the same commit as the letters.
//! Holds: it changes only together with a commit (`writer` works on a copy and keeps it when the commit succeeded);
//! R4 (every letter ever made is kept, replayed or discarded, and what does not add up shows).

use super::types::{LetterAccount, Origin, Totals};
use crate::envelope::SinkName;
use crate::telemetry::metrics::dead_letters as metrics;
use std::collections::BTreeMap;

/// What is counted for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    /// A letter that was not there before.
    Created,
    /// Gone, because its event was delivered after all, or its body could be read.
    Replayed,
    /// Gone, because somebody said so.
    Discarded,
    /// Gone, and nobody could read whose it was.
    ErasedUnreadable,
}

impl Counted {
    const ALL: [Counted; 4] =
        [Counted::Created, Counted::Replayed, Counted::Discarded, Counted::ErasedUnreadable];
    pub(super) fn to_row(self) -> u8 {
        match self {
            Counted::Created => 1,
            Counted::Replayed => 2,
            Counted::Discarded => 3,
            Counted::ErasedUnreadable => 4,
        }
    }
}

/// The name under which an origin's counts are kept.
pub(super) fn origin_to_row(origin: &Origin) -> &str {
    match origin {
        Origin::Sink(sink) => sink.as_str(),
        Origin::Ingress => "",
    }
}

fn origin_from_row(row: &str) -> Option<Origin> {
    if row.is_empty() { Some(Origin::Ingress) } else { SinkName::new(row).ok().map(Origin::Sink) }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ledger {
    /// Letters by sink; a sink stays with zero, so that its gauge falls to zero.
    by_sink: BTreeMap<SinkName, u64>,
    quarantined: u64,
    bytes: u64,
    errands: BTreeMap<SinkName, u64>,
    /// Greater than the number of every open errand.
    pub errand_next: u64,
    /// What became of every letter; `kept` is filled in only in `totals`.
    accounts: BTreeMap<SinkName, LetterAccount>,
    quarantines: LetterAccount,
    /// Letters that are there and cannot be read, so that nobody knows whose they are; and those that were, and are gone.
    unreadable: u64,
    unreadable_erased: u64,
    has_counts: bool,
}

impl Ledger {
    pub(super) fn letter_added(&mut self, origin: &Origin, bytes: u64) {
        match origin {
            Origin::Sink(sink) => *self.by_sink.entry(sink.clone()).or_default() += 1,
            Origin::Ingress => self.quarantined += 1,
        }
        self.bytes += bytes;
    }
    pub(super) fn letter_removed(&mut self, origin: &Origin, bytes: u64) {
        match origin {
            Origin::Sink(sink) => decrease(self.by_sink.entry(sink.clone()).or_default()),
            Origin::Ingress => decrease(&mut self.quarantined),
        }
        self.bytes_removed(bytes);
    }
    pub(super) fn unreadable_met(&mut self) {
        self.unreadable += 1;
    }
    /// Counts, and tells how often now.
    pub(super) fn counted(&mut self, origin: &Origin, what: Counted, times: u64) -> u64 {
        if what == Counted::ErasedUnreadable {
            decrease(&mut self.unreadable);
        }
        let count = self.count_of(origin, what);
        *count += times;
        *count
    }
    /// What the store says that was counted before it was opened.
    pub(super) fn counted_before(&mut self, origin: &str, what: u8, count: u64) {
        self.has_counts = true;
        // Other rows are a later version's.
        let known = Counted::ALL.into_iter().find(|counted| counted.to_row() == what);
        if let (Some(origin), Some(what)) = (origin_from_row(origin), known) {
            *self.count_of(&origin, what) = count;
        }
    }
    fn count_of(&mut self, origin: &Origin, what: Counted) -> &mut u64 {
        let account = match origin {
            Origin::Sink(sink) => self.accounts.entry(sink.clone()).or_default(),
            Origin::Ingress => &mut self.quarantines,
        };
        match what {
            Counted::Created => &mut account.created,
            Counted::Replayed => &mut account.replayed,
            Counted::Discarded => &mut account.discarded,
            Counted::ErasedUnreadable => &mut self.unreadable_erased,
        }
    }
    /// The letters of a store that has never counted any. Whose the unreadable ones are, nobody knows.
    pub(super) fn uncounted(&self) -> Vec<(Origin, u64)> {
        let by_sink = self.by_sink.iter().map(|(sink, kept)| (Origin::Sink(sink.clone()), *kept));
        let all = by_sink.chain([(Origin::Ingress, self.quarantined + self.unreadable)]);
        if self.has_counts { Vec::new() } else { all.filter(|(_, kept)| *kept > 0).collect() }
    }
    pub(super) fn bytes_added(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
    pub(super) fn bytes_removed(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
    pub(super) fn errand_added(&mut self, sink: &SinkName) {
        *self.errands.entry(sink.clone()).or_default() += 1;
    }
    pub(super) fn errand_removed(&mut self, sink: &SinkName) {
        decrease(self.errands.entry(sink.clone()).or_default());
    }
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Open errands by sink, those without any left out.
    pub(super) fn errands(&self) -> BTreeMap<SinkName, u64> {
        without_zeros(&self.errands)
    }
    pub(super) fn totals(&self, bytes_max: u64) -> Totals {
        let mut accounts = self.accounts.clone();
        for (sink, kept) in &self.by_sink {
            accounts.entry(sink.clone()).or_default().kept = *kept;
        }
        let quarantines = LetterAccount { kept: self.quarantined, ..self.quarantines };
        let letters = accounts.values().chain([&quarantines]).map(LetterAccount::unaccounted).sum::<i64>();
        let unreadable = self.unreadable.saturating_add(self.unreadable_erased);
        let unaccounted = letters.saturating_sub_unsigned(unreadable);
        Totals {
            by_sink: without_zeros(&self.by_sink),
            quarantined: self.quarantined,
            bytes: self.bytes,
            bytes_max,
            accounts,
            quarantines,
            unreadable,
            unaccounted,
        }
    }
    pub(super) fn show(&self, bytes_max: u64) {
        let totals = self.totals(bytes_max);
        for (sink, account) in &totals.accounts {
            let LetterAccount { created, replayed, discarded, kept } = *account;
            metrics::letters_kept(sink, kept);
            metrics::letters_ended(sink, created, replayed, discarded);
        }
        for (sink, errands) in &self.errands {
            metrics::errands_open(sink, *errands);
        }
        let LetterAccount { created, replayed, discarded, kept } = totals.quarantines;
        metrics::quarantines_kept(kept);
        metrics::quarantines_ended(created, replayed, discarded);
        metrics::bytes_kept(self.bytes, bytes_max);
        metrics::unaccounted(totals.unaccounted);
    }
}

fn without_zeros(counts: &BTreeMap<SinkName, u64>) -> BTreeMap<SinkName, u64> {
    counts.iter().filter(|(_, count)| **count > 0).map(|(sink, count)| (sink.clone(), *count)).collect()
}

fn decrease(count: &mut u64) {
    *count = count.saturating_sub(1);
}
