//! A cursor's progress: everything up to a low watermark is settled, and some ranges above it.
//! Holds: R2 (the watermark never passes an unsettled record). Pure: saving is `cursor_file`, reading is `feed`.

use std::collections::BTreeMap;

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

    /// From what was saved; ranges in any order.
    pub(super) fn from_parts(through: u64, ranges: impl IntoIterator<Item = (u64, u64)>) -> Progress {
        let mut progress = Progress::through_only(through);
        for (first, last) in ranges {
            progress.settle(first, last);
        }
        progress
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

    /// Settles `first..=last`; tells whether that changed anything.
    pub(super) fn settle(&mut self, first: u64, last: u64) -> bool {
        let (mut first, mut last) = (first.max(self.through + 1), last);
        if first > last {
            return false;
        }
        if let Some((before, before_last)) = self.above.range(..=first).next_back() {
            if *before_last >= last {
                return false;
            }
            if before_last.saturating_add(1) >= first {
                first = *before;
            }
        }
        while let Some((after, after_last)) = self.above.range(first..).next().map(|(a, b)| (*a, *b)) {
            if after > last.saturating_add(1) {
                break;
            }
            self.above.remove(&after);
            last = last.max(after_last);
        }
        if first == self.through + 1 {
            self.through = last;
        } else {
            self.above.insert(first, last);
        }
        true
    }

    /// How many of the numbers up to `durable` are not settled.
    pub(super) fn unsettled(&self, durable: u64) -> u64 {
        let settled_above: u64 = self.above().map(|(first, last)| last - first + 1).sum();
        durable.saturating_sub(self.through).saturating_sub(settled_above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
                let changed = progress.settle(first, first + more);
                let before = model.len();
                model.extend(first..=first + more);
                prop_assert_eq!(changed, model.len() > before);
            }
            for sequence in 1..60 {
                prop_assert_eq!(progress.is_settled(sequence), model.contains(&sequence), "{}", sequence);
            }
            prop_assert!(!model.contains(&(progress.through() + 1)));
            prop_assert_eq!(progress.highest(), model.last().copied().unwrap_or(0));
            prop_assert_eq!(progress.unsettled(60), 60 - model.len() as u64);
            let saved = Progress::from_parts(progress.through(), progress.above());
            prop_assert_eq!(saved, progress);
        }
    }
}
