//! How much the store holds, kept in memory so that `totals` reads no disk; counted anew when the store opens.
//! Holds: it changes only together with a commit (`writer` works on a copy and keeps it when the commit succeeded).

use super::types::{Origin, Totals};
use crate::envelope::SinkName;
use crate::telemetry::metrics::dead_letters as metrics;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ledger {
    /// Letters by sink; a sink stays with zero, so that its gauge falls to zero.
    by_sink: BTreeMap<SinkName, u64>,
    quarantined: u64,
    bytes: u64,
    errands: BTreeMap<SinkName, u64>,
    /// Greater than the number of every open errand.
    pub errand_next: u64,
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
        Totals {
            by_sink: without_zeros(&self.by_sink),
            quarantined: self.quarantined,
            bytes: self.bytes,
            bytes_max,
        }
    }
    pub(super) fn show(&self, bytes_max: u64) {
        for (sink, letters) in &self.by_sink {
            metrics::letters_kept(sink, *letters);
        }
        for (sink, errands) in &self.errands {
            metrics::errands_open(sink, *errands);
        }
        metrics::quarantines_kept(self.quarantined);
        metrics::bytes_kept(self.bytes, bytes_max);
    }
}

fn without_zeros(counts: &BTreeMap<SinkName, u64>) -> BTreeMap<SinkName, u64> {
    counts.iter().filter(|(_, count)| **count > 0).map(|(sink, count)| (sink.clone(), *count)).collect()
}

fn decrease(count: &mut u64) {
    *count = count.saturating_sub(1);
}
