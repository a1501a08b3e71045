//! The identities that are remembered: which records came before, and until when that matters.
//! Holds: at most `remembered_max` identities, the oldest forgotten first; ages are differences of arrival times and
//! never negative, so a clock that jumps back forgets nothing.

use super::types::Dedupe;
use crate::time::UnixMs;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    arrival: UnixMs,
    window_ms: u64,
}

impl Seen {
    fn covers(self, now: UnixMs) -> bool {
        now.since(self.arrival).as_millis() < u128::from(self.window_ms)
    }
}

/// What was seen.
pub(super) struct Remembered {
    seen: HashMap<[u8; 16], Seen>,
    order: VecDeque<([u8; 16], Seen)>,
    remembered_max: usize,
    /// Identities forgotten before their window was over, since the last time somebody asked.
    forgotten_early: u64,
}

impl Remembered {
    /// Nothing yet.
    pub(super) fn new(remembered_max: u32) -> Remembered {
        let remembered_max = remembered_max as usize;
        Remembered { seen: HashMap::new(), order: VecDeque::new(), remembered_max, forgotten_early: 0 }
    }

    /// Whether an arrival with this identity is a duplicate.
    pub(super) fn knows(&self, key: &[u8; 16], arrival: UnixMs) -> bool {
        self.seen.get(key).is_some_and(|seen| seen.covers(arrival))
    }

    /// Notes an identity, unless an arrival with it is a duplicate; tells whether it was noted. One look into the map:
    /// with many identities it is far from every cache.
    pub(super) fn remember(&mut self, dedupe: &Dedupe, arrival: UnixMs) -> bool {
        let window_ms = u64::try_from(dedupe.window.as_millis()).unwrap_or(u64::MAX);
        let seen = Seen { arrival, window_ms };
        match self.seen.entry(dedupe.key) {
            Entry::Occupied(known) if known.get().covers(arrival) => return false,
            _ if self.remembered_max == 0 || window_ms == 0 => return true,
            Entry::Occupied(mut over) => drop(over.insert(seen)),
            Entry::Vacant(new) => drop(new.insert(seen)),
        }
        self.order.push_back((dedupe.key, seen));
        self.forget(arrival);
        true
    }

    /// Drops what is over at the front, and what is too much.
    fn forget(&mut self, now: UnixMs) {
        while let Some((key, seen)) = self.order.front() {
            let is_over = !seen.covers(now);
            if !is_over && self.order.len() <= self.remembered_max {
                return;
            }
            // An identity that came again since then has a newer entry, and stays.
            if let Entry::Occupied(entry) = self.seen.entry(*key)
                && entry.get() == seen
            {
                entry.remove();
                self.forgotten_early += u64::from(!is_over);
            }
            self.order.pop_front();
        }
    }

    /// How many were forgotten too early since the last call.
    pub(super) fn take_forgotten_early(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten_early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const fn key(byte: u8, window_ms: u64) -> Dedupe {
        Dedupe { key: [byte; 16], window: Duration::from_millis(window_ms) }
    }

    #[test]
    fn an_identity_is_known_while_its_window_lasts() {
        let mut remembered = Remembered::new(10);
        remembered.remember(&key(1, 100), UnixMs(1000));
        for (sentence, identity, arrival, known) in [
            ("at once", 1, 1000, true),
            ("just before its end", 1, 1099, true),
            ("not at its end", 1, 1100, false),
            ("a clock that jumped back forgets nothing", 1, 10, true),
            ("another identity is new", 2, 1000, false),
        ] {
            assert_eq!(remembered.knows(&[identity; 16], UnixMs(arrival)), known, "{sentence}");
        }
    }

    #[test]
    fn beyond_the_limit_the_oldest_is_forgotten_and_counted() {
        let mut remembered = Remembered::new(2);
        for identity in 1..=3 {
            remembered.remember(&key(identity, 100), UnixMs(1));
        }
        let known = [1, 2, 3].map(|identity| remembered.knows(&[identity; 16], UnixMs(2)));
        assert_eq!((known, remembered.take_forgotten_early()), ([false, true, true], 1));
    }

    #[test]
    fn an_identity_that_comes_again_after_its_window_starts_a_new_one() {
        let mut remembered = Remembered::new(10);
        remembered.remember(&key(1, 100), UnixMs(0));
        remembered.remember(&key(1, 100), UnixMs(200));
        remembered.remember(&key(2, 100), UnixMs(250));
        assert!(remembered.knows(&[1; 16], UnixMs(299)));
        assert_eq!(remembered.order.len(), 2);
    }
}
