//! What a cursor knows: which records are settled (everything up to a low watermark, and some ranges above it), how
//! many were settled in which way, and what is noted of those that are to be tried again.
//! Holds: R2 (the watermark never passes an unsettled record), R4 (every settled record is counted once, with the
//! range that it joins). Pure: saving is `cursor_file`, reading is `feed`.

use super::types::{Deferral, Ending, Tally};
use std::collections::BTreeMap;

/// A cursor remembers so many deferrals and no more: twice what a lane usually has in hand. Beyond it a record is
/// delivered all the same; only that it was tried before is forgotten in a restart.
pub(super) const DEFERRALS_MAX: usize = 8192;

/// What is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything up to and including this sequence number is settled.
    through: u64,
    /// Settled ranges above, first → last, apart from one another and from `through`.
    above: BTreeMap<u64, u64>,
}

impl Progress {
    /// Everything up to `through` is settled, nothing above.
    pub(super) fn through_only(through: u64) -> Progress {
        Progress { through, above: BTreeMap::new() }
    }

    /// From what was saved; `None` where the ranges are not as [`Progress::above`] gives them.
    pub(super) fn from_parts(through: u64, ranges: impl IntoIterator<Item = (u64, u64)>) -> Option<Progress> {
        if through == u64::MAX {
            return None;
        }
        let mut progress = Progress::through_only(through);
        let mut last_before = through;
        for (first, last) in ranges {
            if first < last_before.checked_add(2)? || last < first || last == u64::MAX {
                return None;
            }
            progress.above.insert(first, last);
            last_before = last;
        }
        Some(progress)
    }

    /// The low watermark.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// The settled ranges above it.
    pub(super) fn above(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.above.iter().map(|(first, last)| (*first, *last))
    }

    /// The highest settled number.
    pub(super) fn highest(&self) -> u64 {
        self.above.last_key_value().map_or(self.through, |(_, last)| *last)
    }

    /// Whether `sequence` is settled.
    pub(super) fn is_settled(&self, sequence: u64) -> bool {
        sequence <= self.through
            || self.above.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    /// Settles `first..=last`; tells how many of them were not settled before.
    pub(super) fn settle(&mut self, first: u64, last: u64) -> u64 {
        let (mut first, mut last) = (first.max(self.through + 1), last);
        if first > last {
            return 0;
        }
        if let Some((before, before_last)) = self.above.range(..=first).next_back() {
            if *before_last >= last {
                return 0;
            }
            if before_last.saturating_add(1) >= first {
                first = *before;
            }
        }
        let mut known = 0;
        while let Some((after, after_last)) = self.above.range(first..).next().map(|(a, b)| (*a, *b)) {
            if after > last.saturating_add(1) {
                break;
            }
            self.above.remove(&after);
            known += after_last - after + 1;
            last = last.max(after_last);
        }
        if first == self.through + 1 {
            self.through = last;
        } else {
            self.above.insert(first, last);
        }
        last - first + 1 - known
    }

    /// How many are settled.
    pub(super) fn settled(&self) -> u64 {
        self.through + self.above().map(|(first, last)| last - first + 1).sum::<u64>()
    }

    /// How many of the numbers up to `durable` are not settled.
    pub(super) fn unsettled(&self, durable: u64) -> u64 {
        durable.saturating_sub(self.settled())
    }
}

/// Everything that is saved of a cursor. One value, so that what is saved is of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    progress: Progress,
    tally: Tally,
    /// Of records that are not settled.
    deferrals: BTreeMap<u64, Deferral>,
}

impl Standing {
    /// Counts from here on.
    pub(super) fn beginning_at(progress: Progress) -> Standing {
        let tally = Tally { began_after: progress.settled(), ..Tally::default() };
        Standing { progress, tally, deferrals: BTreeMap::new() }
    }

    /// From what was saved; `None` where the parts do not belong together.
    pub(super) fn from_parts(
        progress: Progress,
        tally: Tally,
        deferrals: BTreeMap<u64, Deferral>,
    ) -> Option<Standing> {
        let counts = [tally.delivered, tally.dead_lettered, tally.shed, tally.not_routed, tally.missing];
        let settled = counts.iter().try_fold(tally.began_after, |sum, count| sum.checked_add(*count))?;
        let noted_and_settled = deferrals.keys().any(|sequence| progress.is_settled(*sequence));
        (settled == progress.settled() && !noted_and_settled).then_some(Standing {
            progress,
            tally,
            deferrals,
        })
    }

    /// What is settled.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Settles a record; tells whether that changed anything.
    pub(super) fn settle(&mut self, sequence: u64, ending: Ending) -> bool {
        let settled = self.progress.settle(sequence, sequence);
        self.deferrals.remove(&sequence);
        *match ending {
            Ending::Delivered => &mut self.tally.delivered,
            Ending::DeadLettered => &mut self.tally.dead_lettered,
            Ending::Shed => &mut self.tally.shed,
            Ending::NotRouted => &mut self.tally.not_routed,
        } += settled;
        settled > 0
    }

    /// Settles `first..=last`, which are not there any more; tells whether that changed anything.
    pub(super) fn miss(&mut self, first: u64, last: u64) -> bool {
        let settled = self.progress.settle(first, last);
        if first <= last {
            let gone: Vec<u64> = self.deferrals.range(first..=last).map(|(sequence, _)| *sequence).collect();
            gone.iter().for_each(|sequence| drop(self.deferrals.remove(sequence)));
        }
        self.tally.missing += settled;
        settled > 0
    }

    /// Notes when an unsettled record is to be tried again; tells whether that changed anything.
    pub(super) fn defer(&mut self, sequence: u64, deferral: Deferral) -> bool {
        let has_room = self.deferrals.len() < DEFERRALS_MAX || self.deferrals.contains_key(&sequence);
        let is_noted = has_room && !self.progress.is_settled(sequence);
        if is_noted {
            self.deferrals.insert(sequence, deferral);
        }
        is_noted
    }

    /// What is noted of a record.
    pub(super) fn deferral(&self, sequence: u64) -> Option<&Deferral> {
        self.deferrals.get(&sequence)
    }

    /// All that is noted, in order.
    pub(super) fn deferrals(&self) -> impl ExactSizeIterator<Item = (u64, &Deferral)> {
        self.deferrals.iter().map(|(sequence, deferral)| (*sequence, deferral))
    }

    /// The same without what is noted.
    pub(super) fn without_deferrals(&self) -> Standing {
        Standing { deferrals: BTreeMap::new(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMs;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_ranges_equal_a_set_of_numbers(
            through in 0u64..10,
            settled in proptest::collection::vec((1u64..40, 0u64..4), 0..40),
        ) {
            let mut progress = Progress::through_only(through);
            let mut model: BTreeSet<u64> = (1..=through).collect();
            for (first, more) in settled {
                let newly_settled = progress.settle(first, first + more);
                let before = model.len();
                model.extend(first..=first + more);
                prop_assert_eq!(newly_settled, (model.len() - before) as u64);
            }
            for sequence in 1..60 {
                prop_assert_eq!(progress.is_settled(sequence), model.contains(&sequence), "{}", sequence);
            }
            prop_assert!(!model.contains(&(progress.through() + 1)));
            prop_assert_eq!(progress.highest(), model.last().copied().unwrap_or(0));
            prop_assert_eq!(progress.unsettled(60), 60 - model.len() as u64);
            let saved = Progress::from_parts(progress.through(), progress.above());
            prop_assert_eq!(saved, Some(progress));
        }

        #[test]
        fn every_record_is_counted_once_and_noted_only_while_it_is_unsettled(
            began in 0u64..10,
            steps in proptest::collection::vec((0u8..7, 1u64..40, 0u64..4), 0..60),
        ) {
            let mut standing = Standing::beginning_at(Progress::through_only(began));
            let mut endings: BTreeMap<u64, u8> = BTreeMap::new();
            let mut noted: BTreeMap<u64, Deferral> = BTreeMap::new();
            for (step, at, more) in steps {
                match step {
                    0..4 => {
                        let ways = [Ending::Delivered, Ending::DeadLettered, Ending::Shed, Ending::NotRouted];
                        standing.settle(at, ways[usize::from(step)]);
                        endings.entry(at).or_insert(step);
                    }
                    4 => {
                        standing.miss(at, at + more);
                        (at..=at + more).for_each(|at| { endings.entry(at).or_insert(step); });
                    }
                    _ => {
                        let deferral = Deferral { due: UnixMs(i64::from(step)), note: vec![step; 3].into() };
                        if standing.defer(at, deferral.clone()) {
                            noted.insert(at, deferral);
                        }
                    }
                }
            }
            let of = |ending: u8| endings.iter().filter(|(at, way)| **at > began && **way == ending).count() as u64;
            let tally = Tally {
                began_after: began, delivered: of(0), dead_lettered: of(1), shed: of(2), not_routed: of(3), missing: of(4),
            };
            prop_assert_eq!(standing.tally(), tally);
            prop_assert_eq!(tally.settled() + standing.progress().unsettled(60), 60);
            noted.retain(|at, _| *at > began && !endings.contains_key(at));
            prop_assert!(standing.deferrals().eq(noted.iter().map(|(at, deferral)| (*at, deferral))));
        }
    }

    #[test]
    fn no_more_is_noted_than_the_limit_and_what_is_noted_may_change() {
        let mut standing = Standing::beginning_at(Progress::through_only(0));
        let deferral = |due| Deferral { due: UnixMs(due), note: Bytes::new() };
        let limit = DEFERRALS_MAX as u64;
        assert!((1..=limit).all(|sequence| standing.defer(sequence, deferral(1))));
        assert!(!standing.defer(limit + 1, deferral(1)), "one more than the limit");
        assert!(standing.defer(limit, deferral(2)), "one that is noted already");
        standing.settle(1, Ending::Delivered);
        assert!(standing.defer(limit + 1, deferral(1)), "one was settled, so there is room");
    }
}
