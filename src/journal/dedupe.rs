//! The identities that are remembered: which records came before, and until when that matters.
//! Holds: at most `remembered_max` identities, the oldest forgotten first; a million take 34 MiB at most, where a map and
//! a list of them would take three times that. A window lasts as long as it says by a clock that does not jump: a wall
//! clock that is set ahead ends none, and one that is set back makes none longer, which would take what is new for a
//! repetition.
//! Pure: the caller brings the time.

use super::types::Dedupe;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The smallest index has so many places.
const PLACES_MIN: usize = 16;
/// A place that is taken has this bit, and so is never zero.
const TAKEN: u32 = 1 << 31;

/// Milliseconds since the process began to remember, by a clock that does not jump.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SteadyMs(pub u64);

impl SteadyMs {
    fn after(self, duration: Duration) -> SteadyMs {
        SteadyMs(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What was seen.
pub(super) struct Remembered {
    order: Order,
    index: Index,
    remembered_max: usize,
    /// Identities forgotten before their window was over, since the last time somebody asked.
    forgotten_early: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    key: [u8; 16],
    /// When its window is over.
    until: SteadyMs,
}

impl Seen {
    fn covers(&self, now: SteadyMs) -> bool {
        now < self.until
    }
}

impl Remembered {
    /// Nothing yet.
    pub(super) fn new(remembered_max: u32) -> Remembered {
        let remembered_max = remembered_max.min(TAKEN - 1);
        // One more than the most are there for a moment.
        let number_mask = u32::MAX.checked_shr(remembered_max.leading_zeros()).unwrap_or(0);
        Remembered {
            // At once: a list that grows by doubling has itself and its half for a while. Room that nobody used yet is
            // no memory.
            order: Order {
                seen: VecDeque::with_capacity(remembered_max as usize + 1),
                first: 0,
                number_mask,
            },
            index: Index { places: vec![0; PLACES_MIN], taken: 0, number_mask, hashes: RandomState::new() },
            remembered_max: remembered_max as usize,
            forgotten_early: 0,
        }
    }

    /// Whether an arrival with this identity is a duplicate.
    pub(super) fn knows(&self, key: &[u8; 16], now: SteadyMs) -> bool {
        let found = self.index.find(key, &self.order);
        found.is_ok_and(|at| self.order.of_place(self.index.places[at]).covers(now))
    }

    /// Notes an identity, unless an arrival with it is a duplicate; tells whether it was noted.
    pub(super) fn remember(&mut self, dedupe: &Dedupe, now: SteadyMs) -> bool {
        let found = self.index.find(&dedupe.key, &self.order);
        if found.is_ok_and(|at| self.order.of_place(self.index.places[at]).covers(now)) {
            return false;
        }
        if self.remembered_max == 0 || dedupe.window.is_zero() {
            return true;
        }
        let number = self.order.push(Seen { key: dedupe.key, until: now.after(dedupe.window) });
        self.index.put(found, &dedupe.key, number);
        if self.index.is_crowded() {
            self.index.grow(&self.order);
        }
        self.forget(now);
        true
    }

    /// Notes an identity that came `age` before the beginning and before all the others, unless it came again since;
    /// false where there is no room. For the way back through the journal at a start; the age is by the wall clock, the
    /// only one that an earlier process left.
    pub(super) fn remember_older(&mut self, dedupe: &Dedupe, age: Duration) -> bool {
        if self.order.seen.len() >= self.remembered_max {
            return false;
        }
        let found = self.index.find(&dedupe.key, &self.order);
        let left = dedupe.window.saturating_sub(age);
        if found.is_err() && !left.is_zero() {
            let number = self.order.push_first(Seen { key: dedupe.key, until: SteadyMs(0).after(left) });
            self.index.put(found, &dedupe.key, number);
            if self.index.is_crowded() {
                self.index.grow(&self.order);
            }
        }
        true
    }

    /// Drops what is over at the front, and what is too much.
    fn forget(&mut self, now: SteadyMs) {
        while let Some(seen) = self.order.seen.front() {
            let is_over = !seen.covers(now);
            if !is_over && self.order.seen.len() <= self.remembered_max {
                return;
            }
            // An identity that came again since then is found under a newer number, and stays.
            if let Ok(at) = self.index.find(&seen.key, &self.order)
                && self.index.number(at) == self.order.first & self.order.number_mask
            {
                self.index.vacate(at, &self.order);
                self.forgotten_early += u64::from(!is_over);
            }
            self.order.pop();
        }
    }

    /// How many were forgotten too early since the last call.
    pub(super) fn take_forgotten_early(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten_early)
    }
}

// === Order

/// Identities as they came. Each has a number, one more than the one before.
struct Order {
    seen: VecDeque<Seen>,
    /// The number of the front.
    first: u32,
    number_mask: u32,
}

impl Order {
    fn push(&mut self, seen: Seen) -> u32 {
        let behind = u32::try_from(self.seen.len()).expect("fewer than 2^31 are kept");
        self.seen.push_back(seen);
        self.first.wrapping_add(behind)
    }
    fn push_first(&mut self, seen: Seen) -> u32 {
        self.seen.push_front(seen);
        self.first = self.first.wrapping_sub(1);
        self.first
    }
    fn pop(&mut self) {
        self.seen.pop_front();
        self.first = self.first.wrapping_add(1);
    }
    /// What a place of the index names.
    fn of_place(&self, place: u32) -> &Seen {
        &self.seen[(place.wrapping_sub(self.first) & self.number_mask) as usize]
    }
}

// === Index

/// Where in the order an identity is, found by its hash: open addressing, one place after the other is tried.
/// A place holds the number, and in the bits that are left some of the hash, so that others are rarely looked at.
struct Index {
    places: Vec<u32>,
    taken: usize,
    /// The bits of a place that are the number.
    number_mask: u32,
    /// Random, so that nobody can choose identities that all want one place.
    hashes: RandomState,
}

impl Index {
    /// The place of an identity, or the empty one where it would be.
    fn find(&self, key: &[u8; 16], order: &Order) -> Result<usize, usize> {
        let (mut at, wanted) = self.home(key);
        loop {
            let place = self.places[at];
            if place == 0 {
                return Err(at);
            }
            if place & !self.number_mask == wanted && order.of_place(place).key == *key {
                return Ok(at);
            }
            at = self.after(at);
        }
    }

    /// The first place that is tried for an identity, and the bits of its hash that are kept.
    fn home(&self, key: &[u8; 16]) -> (usize, u32) {
        let hash = self.hashes.hash_one(key);
        let at = usize::try_from(hash & (self.places.len() as u64 - 1)).expect("below a length");
        (at, (((hash >> 32) as u32) | TAKEN) & !self.number_mask)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    fn number(&self, at: usize) -> u32 {
        self.places[at] & self.number_mask
    }

    /// Notes the number of an identity where it was found, or in the empty place.
    fn put(&mut self, found: Result<usize, usize>, key: &[u8; 16], number: u32) {
        self.taken += usize::from(found.is_err());
        let (Ok(at) | Err(at)) = found;
        self.places[at] = self.home(key).1 | (number & self.number_mask);
    }

    /// Frees a place, and closes the gap: those behind it may have been put there because it was taken.
    fn vacate(&mut self, at: usize, order: &Order) {
        let (mut gap, mut next) = (at, self.after(at));
        while self.places[next] != 0 {
            let (home, _) = self.home(&order.of_place(self.places[next]).key);
            let mask = self.places.len() - 1;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(gap) & mask {
                self.places[gap] = self.places[next];
                gap = next;
            }
            next = self.after(next);
        }
        self.places[gap] = 0;
        self.taken -= 1;
    }

    /// More than three of four places are taken.
    fn is_crowded(&self) -> bool {
        self.taken * 4 > self.places.len() * 3
    }

    fn grow(&mut self, order: &Order) {
        let larger = vec![0; self.places.len() * 2];
        for place in std::mem::replace(&mut self.places, larger).into_iter().filter(|place| *place != 0) {
            let (mut at, _) = self.home(&order.of_place(place).key);
            while self.places[at] != 0 {
                at = self.after(at);
            }
            self.places[at] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const fn key(byte: u8, window_ms: u64) -> Dedupe {
        Dedupe { key: [byte; 16], window: Duration::from_millis(window_ms) }
    }

    #[test]
    fn an_identity_is_known_while_its_window_lasts() {
        let mut remembered = Remembered::new(10);
        remembered.remember(&key(1, 100), SteadyMs(1000));
        remembered.remember_older(&key(2, 100), Duration::from_millis(40));
        remembered.remember_older(&key(3, 100), Duration::ZERO);
        remembered.remember_older(&key(4, 100), Duration::from_millis(100));
        for (sentence, identity, now, known) in [
            ("at once", 1, 1000, true),
            ("just before its end", 1, 1099, true),
            ("not at its end", 1, 1100, false),
            ("of what an earlier process saw the rest of the window is left", 2, 59, true),
            ("and not more", 2, 60, false),
            ("also where the wall clock has it in the future", 3, 99, true),
            ("and not for ever", 3, 100, false),
            ("what was over then is new", 4, 0, false),
            ("another identity is new", 5, 1000, false),
        ] {
            assert_eq!(remembered.knows(&[identity; 16], SteadyMs(now)), known, "{sentence}");
        }
    }

    #[test]
    fn beyond_the_limit_the_oldest_is_forgotten_and_counted() {
        let mut remembered = Remembered::new(2);
        for identity in 1..=3 {
            remembered.remember(&key(identity, 100), SteadyMs(1));
        }
        let known = [1, 2, 3].map(|identity| remembered.knows(&[identity; 16], SteadyMs(2)));
        assert_eq!((known, remembered.take_forgotten_early()), ([false, true, true], 1));
    }

    #[test]
    fn an_identity_that_comes_again_after_its_window_starts_a_new_one() {
        let mut remembered = Remembered::new(10);
        remembered.remember(&key(1, 100), SteadyMs(0));
        remembered.remember(&key(1, 100), SteadyMs(200));
        remembered.remember(&key(2, 100), SteadyMs(250));
        assert!(remembered.knows(&[1; 16], SteadyMs(299)));
        assert_eq!(remembered.order.seen.len(), 2);
    }

    #[test]
    fn a_million_identities_take_34_mib_and_no_more_when_as_many_more_come() {
        let mut remembered = Remembered::new(1_000_000);
        for number in 0..2_000_000_u128 {
            let identity = Dedupe { key: number.to_be_bytes(), window: Duration::from_secs(600) };
            assert!(remembered.remember(&identity, SteadyMs(1)));
        }
        let order_bytes = remembered.order.seen.capacity() * size_of::<Seen>();
        let index_bytes = remembered.index.places.capacity() * size_of::<u32>();
        assert!(order_bytes + index_bytes <= 34 << 20, "{order_bytes} and {index_bytes}");
        assert_eq!(remembered.take_forgotten_early(), 1_000_000);
        let known = |number: u128| remembered.knows(&number.to_be_bytes(), SteadyMs(2));
        assert!(!known(999_999) && known(1_000_000) && known(1_999_999) && !known(2_000_000));
    }

    #[test]
    fn on_the_way_back_what_came_again_is_known_by_its_newest_arrival_and_the_newest_have_room() {
        let mut remembered = Remembered::new(3);
        let newest_first = [(1, 10, true), (2, 20, true), (1, 50, true), (3, 55, true), (4, 59, false)];
        for (identity, age_ms, has_room) in newest_first {
            let age = Duration::from_millis(age_ms);
            assert_eq!(remembered.remember_older(&key(identity, 100), age), has_room, "{identity}");
        }
        let known = |now| [1, 2, 3, 4].map(|identity| remembered.knows(&[identity; 16], SteadyMs(now)));
        assert_eq!((known(44), known(79)), ([true, true, true, false], [true, true, false, false]));
        remembered.remember(&key(5, 100), SteadyMs(1));
        assert!(!remembered.knows(&[3; 16], SteadyMs(1)), "the oldest is the first to be forgotten");
    }

    proptest! {
        #[test]
        fn it_answers_as_a_map_would(
            remembered_max in 0_u32..40,
            arrivals in proptest::collection::vec((0_u8..60, 0_u64..50, 0_u64..200), 0..400),
        ) {
            let mut remembered = Remembered::new(remembered_max);
            remembered.order.first = u32::MAX - 20;
            let (mut model, mut order, mut now) = (HashMap::new(), VecDeque::new(), 0);
            for (identity, later, window_ms) in arrivals {
                now += later;
                let covered = |until: &u64| now < *until;
                let is_new = !model.get(&identity).is_some_and(covered);
                prop_assert_eq!(remembered.knows(&[identity; 16], SteadyMs(now)), !is_new);
                prop_assert_eq!(remembered.remember(&key(identity, window_ms), SteadyMs(now)), is_new);
                if is_new && window_ms > 0 && remembered_max > 0 {
                    let until = now + window_ms;
                    model.insert(identity, until);
                    order.push_back((identity, until));
                    while let Some((oldest, until)) = order.front().copied()
                        && (!covered(&until) || order.len() > remembered_max as usize)
                    {
                        if model.get(&oldest) == Some(&until) {
                            model.remove(&oldest);
                        }
                        order.pop_front();
                    }
                }
            }
        }
    }
}
