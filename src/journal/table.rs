//! Which segments there are, what each holds, and which may go.
//! Holds: R3 (a segment is named as deletable only when every cursor's saved progress is past it); the segment that
//! is written to is never deletable. Pure bookkeeping: whoever changes the disk tells this table.

use crate::time::UnixMs;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is known of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub number: u64,
    pub generation: u64,
    /// The sequence number of its first record.
    pub first: u64,
    /// One past its last durable record.
    pub end: u64,
    /// Bytes of the file that may be read.
    pub readable: u64,
    /// Bytes of the file.
    pub bytes: u64,
    pub first_ms: UnixMs,
    pub newest_ms: UnixMs,
    /// When the last identity in it may be forgotten.
    pub remember_until: UnixMs,
    /// When this process stopped writing to it, on a clock that does not jump.
    pub sealed_at: Option<Instant>,
}

impl Segment {
    /// Its retention has run out by both clocks (a wall clock that jumps ahead ends no retention of this process), and
    /// a restart needs none of its identities any more.
    fn is_past(&self, retention: Duration, now: UnixMs) -> bool {
        now.since(self.newest_ms) >= retention
            && now >= self.remember_until
            && self.sealed_at.is_none_or(|sealed_at| sealed_at.elapsed() >= retention)
    }
}

/// The segments, oldest first; the last one is written to where `has_active`.
#[derive(Default)]
pub(super) struct Table {
    segments: VecDeque<Segment>,
    has_active: bool,
    /// Bytes of a prepared file that holds nothing yet.
    pub spare_bytes: u64,
    /// Bytes of a freed file that is to become the next one.
    pub recycled_bytes: u64,
}

impl Table {
    /// What recovery found.
    pub(super) fn new(segments: VecDeque<Segment>, has_active: bool) -> Table {
        Table { segments, has_active, spare_bytes: 0, recycled_bytes: 0 }
    }
    /// The segment that is written to.
    pub(super) fn active_mut(&mut self) -> Option<&mut Segment> {
        if self.has_active { self.segments.back_mut() } else { None }
    }
    /// A new segment is written to from now on; the one before is sealed.
    pub(super) fn activate(&mut self, segment: Segment) {
        if let Some(sealed) = self.active_mut() {
            sealed.sealed_at = Some(Instant::now());
        }
        self.spare_bytes = 0;
        self.segments.push_back(segment);
        self.has_active = true;
    }
    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
            + self.spare_bytes
            + self.recycled_bytes
    }
    /// Segment files.
    pub(super) fn count(&self) -> u64 {
        self.segments.len() as u64 + u64::from(self.spare_bytes > 0)
    }
    /// Durable records on disk.
    pub(super) fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end - segment.first).sum()
    }
    /// The oldest segment with a record in it.
    pub(super) fn oldest(&self) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.end > segment.first)
    }
    /// The segment that holds `sequence` or, where none does, the next one with a later record.
    pub(super) fn holding(&self, sequence: u64) -> Option<&Segment> {
        let behind = self.segments.partition_point(|segment| segment.end <= sequence);
        // One that damage has left empty may stand before it.
        self.segments.range(behind..).find(|segment| segment.end > segment.first)
    }
    /// Whether segment `number` is still there.
    pub(super) fn has(&self, number: u64) -> bool {
        self.segments.binary_search_by_key(&number, |segment| segment.number).is_ok()
    }
    /// The oldest segment, if every cursor has saved that it is past it (`passed`: the lowest saved progress; `None`
    /// without cursors) and its retention has run out.
    pub(super) fn expired(&self, passed: Option<u64>, retention: Duration, now: UnixMs) -> Option<&Segment> {
        self.settled(passed).filter(|segment| segment.is_past(retention, now))
    }
    /// The oldest segment, if every cursor is past it and only its retention keeps it.
    pub(super) fn settled(&self, passed: Option<u64>) -> Option<&Segment> {
        let oldest = self.sealed_oldest()?;
        (passed.is_none_or(|passed| passed + 1 >= oldest.end)).then_some(oldest)
    }
    /// The oldest segment that is no longer written to.
    pub(super) fn sealed_oldest(&self) -> Option<&Segment> {
        let sealed = self.segments.len() - usize::from(self.has_active);
        self.segments.front().filter(|_| sealed > 0)
    }
    /// The oldest segment's file is gone.
    pub(super) fn forget_oldest(&mut self) {
        self.segments.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u64, first: u64, end: u64, newest_ms: i64) -> Segment {
        Segment {
            number,
            generation: number,
            first,
            end,
            readable: 10,
            bytes: 10,
            first_ms: UnixMs(0),
            newest_ms: UnixMs(newest_ms),
            remember_until: UnixMs(1050),
            sealed_at: None,
        }
    }

    #[test]
    fn a_segment_goes_when_every_cursor_is_past_it_and_its_retention_is_over() {
        let table = Table::new([segment(1, 1, 5, 100), segment(2, 5, 9, 200)].into(), true);
        let second = Duration::from_secs(1);
        for (sentence, passed, retention, now, goes) in [
            ("settled and old", Some(4), second, 1100, true),
            ("an identity in it is still remembered", Some(4), Duration::ZERO, 1049, false),
            ("one record is unsettled", Some(3), second, 9999, false),
            ("settled but young", Some(4), second, 1099, false),
            ("a clock that jumped back ends no retention", Some(4), second, -5000, false),
            ("without cursors the retention decides alone", None, second, 1100, true),
        ] {
            assert_eq!(table.expired(passed, retention, UnixMs(now)).is_some(), goes, "{sentence}");
        }
    }

    #[test]
    fn the_segment_that_is_written_to_never_goes() {
        let table = Table::new([segment(2, 5, 9, 0)].into(), true);
        assert_eq!(table.expired(Some(100), Duration::ZERO, UnixMs(i64::MAX)), None);
        assert_eq!(table.settled(None), None);
    }

    #[test]
    fn a_reader_in_a_gap_goes_on_with_the_next_segment_that_has_a_record() {
        let emptied = segment(2, 8, 8, 0);
        let table =
            Table::new([segment(1, 3, 5, 0), emptied, segment(3, 8, 9, 0), segment(4, 9, 9, 0)].into(), true);
        for (sequence, found) in [(1, Some(1)), (4, Some(1)), (5, Some(3)), (8, Some(3)), (9, None)] {
            assert_eq!(table.holding(sequence).map(|segment| segment.number), found, "{sequence}");
        }
    }
}
