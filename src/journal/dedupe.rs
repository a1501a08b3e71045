//! The identities that are remembered: which records came before, and until when that matters.
//! Holds: at most `remembered_max` identities, the oldest forgotten first. A window lasts as long as it says by a clock
//! that does not jump: a wall clock that is set ahead ends none, and one that is set back makes none longer, which would
//! take what is new for a repetition. Only what an earlier process saw counts by the wall clock, too.
//! Pure: the caller brings the time.

use super::types::Dedupe;
use crate::time::UnixMs;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A moment by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    /// By the wall clock: when the record arrived.
    pub arrival: UnixMs,
    /// By the one that does not jump.
    pub steady: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    at: Moment,
    window: Duration,
    /// By an earlier process: `steady` is when this one began.
    is_recalled: bool,
}

impl Seen {
    fn covers(self, now: Moment) -> bool {
        let lasts = now.steady.saturating_duration_since(self.at.steady) < self.window;
        lasts && !(self.is_recalled && now.arrival.since(self.at.arrival) >= self.window)
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
    pub(super) fn knows(&self, key: &[u8; 16], now: Moment) -> bool {
        self.seen.get(key).is_some_and(|seen| seen.covers(now))
    }

    /// Notes an identity, unless an arrival with it is a duplicate; tells whether it was noted.
    pub(super) fn remember(&mut self, dedupe: &Dedupe, now: Moment) -> bool {
        self.note(dedupe.key, Seen { at: now, window: dedupe.window, is_recalled: false })
    }

    /// Notes an identity that an earlier process saw; `at.steady` is now.
    pub(super) fn recall(&mut self, dedupe: &Dedupe, at: Moment) {
        self.note(dedupe.key, Seen { at, window: dedupe.window, is_recalled: true });
    }

    /// One look into the map: with many identities it is far from every cache.
    fn note(&mut self, key: [u8; 16], seen: Seen) -> bool {
        match self.seen.entry(key) {
            Entry::Occupied(known) if known.get().covers(seen.at) => return false,
            _ if self.remembered_max == 0 || seen.window.is_zero() => return true,
            Entry::Occupied(mut over) => drop(over.insert(seen)),
            Entry::Vacant(new) => drop(new.insert(seen)),
        }
        self.order.push_back((key, seen));
        self.forget(seen.at);
        true
    }

    /// Drops what is over at the front, and what is too much.
    fn forget(&mut self, now: Moment) {
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

    const fn key(byte: u8, window_ms: u64) -> Dedupe {
        Dedupe { key: [byte; 16], window: Duration::from_millis(window_ms) }
    }

    /// Moments since some beginning: so many true milliseconds, and what the wall clock says.
    fn moments() -> impl Fn(u64, i64) -> Moment {
        let began = Instant::now();
        move |steady_ms, arrival| Moment {
            arrival: UnixMs(arrival),
            steady: began + Duration::from_millis(steady_ms),
        }
    }

    #[test]
    fn an_identity_is_known_while_its_window_lasts_whatever_the_wall_clock_says() {
        let at = moments();
        let mut remembered = Remembered::new(10);
        remembered.remember(&key(1, 100), at(0, 1000));
        // An earlier process saw it 40 ms ago, and another one tomorrow.
        remembered.recall(&key(2, 100), at(0, 960));
        remembered.recall(&key(3, 100), at(0, 99_999_999));
        for (sentence, identity, steady, arrival, known) in [
            ("at once", 1, 0, 1000, true),
            ("just before its end", 1, 99, 1099, true),
            ("not at its end", 1, 100, 1100, false),
            ("a clock set back makes it no longer", 1, 100, 10, false),
            ("nor shorter", 1, 99, 10, true),
            ("a clock set ahead makes it no shorter", 1, 99, 99_999_999, true),
            ("what an earlier process saw ends by the wall clock", 2, 59, 1059, true),
            ("and not later", 2, 60, 1060, false),
            ("where that was set back meanwhile it lasts a window from the start", 3, 99, 1099, true),
            ("and not for ever", 3, 100, 1100, false),
            ("another identity is new", 4, 0, 1000, false),
        ] {
            assert_eq!(remembered.knows(&[identity; 16], at(steady, arrival)), known, "{sentence}");
        }
    }

    #[test]
    fn beyond_the_limit_the_oldest_is_forgotten_and_counted() {
        let at = moments();
        let mut remembered = Remembered::new(2);
        for identity in 1..=3 {
            remembered.remember(&key(identity, 100), at(1, 1));
        }
        let known = [1, 2, 3].map(|identity| remembered.knows(&[identity; 16], at(2, 2)));
        assert_eq!((known, remembered.take_forgotten_early()), ([false, true, true], 1));
    }

    #[test]
    fn an_identity_that_comes_again_after_its_window_starts_a_new_one() {
        let at = moments();
        let mut remembered = Remembered::new(10);
        remembered.remember(&key(1, 100), at(0, 0));
        remembered.remember(&key(1, 100), at(200, 200));
        remembered.remember(&key(2, 100), at(250, 250));
        assert!(remembered.knows(&[1; 16], at(299, 299)));
        assert_eq!(remembered.order.len(), 2);
    }
}
