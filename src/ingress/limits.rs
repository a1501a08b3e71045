//! What the requests in work may take together: places, and bytes of their bodies.
//! Holds: at most `requests_max` requests are in work, and at most `bodies_max` bytes of bodies in memory, for as long as
//! anybody holds them, the journal's queue included; of both, whoever has proven nothing yet has at most one part in
//! [`UNPROVEN_PART`], so that strangers with slow bodies leave room for those who prove who they are.
//! Absent on purpose: what one body may be (`body`), and who has proven what (`handler`).

use super::Config;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Those who have proven nothing yet may have one part of places and bytes in so many.
const UNPROVEN_PART: usize = 2;
/// Room for so many of the largest bodies there is in any case: two for whoever has proven nothing, because a body that
/// is unpacked counts twice for a moment.
const LARGEST_BODIES_MIN: usize = 2 * UNPROVEN_PART;
/// What each further event of one request takes besides its data: attributes and the head of its record.
const EVENT_BYTES: usize = 2048;

/// There is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UsedUp;

/// All that may be taken; shared by all requests.
pub(super) struct Limits {
    places: Pool,
    unproven_places: Pool,
    bytes: Pool,
    unproven_bytes: Pool,
    batch_bytes_max: usize,
}

struct Pool(AtomicUsize);

impl Pool {
    fn take(&self, count: usize) -> Result<(), UsedUp> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count));
        taken.map(drop).map_err(|_| UsedUp)
    }
    fn give(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl Limits {
    /// `body_bytes_max`: the largest that any source takes.
    pub(super) fn new(config: &Config, body_bytes_max: usize) -> Arc<Limits> {
        let places = config.requests_max as usize;
        let bytes = config.bodies_max.as_len().max(body_bytes_max.saturating_mul(LARGEST_BODIES_MIN));
        let pool = |count| Pool(AtomicUsize::new(count));
        Arc::new(Limits {
            places: pool(places),
            unproven_places: pool(places.div_ceil(UNPROVEN_PART)),
            bytes: pool(bytes),
            unproven_bytes: pool(bytes / UNPROVEN_PART),
            batch_bytes_max: bytes / LARGEST_BODIES_MIN,
        })
    }

    /// A place among the requests in work.
    ///
    /// # Errors
    /// [`UsedUp`]
    pub(super) fn enter(self: &Arc<Self>, is_proven: bool) -> Result<Hold, UsedUp> {
        if !is_proven {
            self.unproven_places.take(1)?;
        }
        if self.places.take(1).is_err() {
            self.unproven_places.give(usize::from(!is_proven));
            return Err(UsedUp);
        }
        Ok(Hold { weight: Weight::none(self), unproven: (!is_proven).then_some(0) })
    }

    /// What the events of one body take beside it.
    ///
    /// # Errors
    /// [`UsedUp`]
    pub(super) fn beside_body(self: &Arc<Self>, events: usize) -> Result<Weight, UsedUp> {
        let bytes = events.saturating_sub(1).saturating_mul(EVENT_BYTES).min(self.batch_bytes_max);
        let mut weight = Weight::none(self);
        weight.grow(bytes)?;
        Ok(weight)
    }
}

// === Hold

/// A request's place, and the bytes of its body while it is read.
pub(super) struct Hold {
    weight: Weight,
    /// The bytes that count towards the part of those who have proven nothing, while this sender has not.
    unproven: Option<usize>,
}

impl Hold {
    /// Counts bytes that came.
    ///
    /// # Errors
    /// [`UsedUp`]; nothing more was counted.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), UsedUp> {
        let limits = Arc::clone(&self.weight.limits);
        if self.unproven.is_some() {
            limits.unproven_bytes.take(bytes)?;
        }
        let grown = self.weight.grow(bytes);
        match (&mut self.unproven, grown) {
            (Some(counted), Ok(())) => *counted += bytes,
            (Some(_), Err(UsedUp)) => limits.unproven_bytes.give(bytes),
            (None, _) => {}
        }
        grown
    }

    /// So many bytes are gone.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.weight.bytes -= bytes;
        self.weight.limits.bytes.give(bytes);
        if let Some(counted) = &mut self.unproven {
            *counted -= bytes;
            self.weight.limits.unproven_bytes.give(bytes);
        }
    }

    /// The sender has proven who it is, or has nothing to prove.
    pub(super) fn proven(&mut self) {
        if let Some(bytes) = self.unproven.take() {
            self.weight.limits.unproven_bytes.give(bytes);
            self.weight.limits.unproven_places.give(1);
        }
    }

    /// The body, which counts from now on until nobody holds any of it.
    pub(super) fn carried_by(&mut self, body: Bytes) -> Bytes {
        let nothing = Weight::none(&self.weight.limits);
        let weight = std::mem::replace(&mut self.weight, nothing);
        let carried = Carried { body, _weight: weight };
        if carried.body.is_empty() { Bytes::new() } else { Bytes::from_owner(carried) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.proven();
        self.weight.limits.places.give(1);
    }
}

/// Bytes that are counted until this is dropped.
pub(super) struct Weight {
    limits: Arc<Limits>,
    bytes: usize,
}

impl Weight {
    fn none(limits: &Arc<Limits>) -> Weight {
        Weight { limits: Arc::clone(limits), bytes: 0 }
    }
    fn grow(&mut self, bytes: usize) -> Result<(), UsedUp> {
        self.limits.bytes.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.limits.bytes.give(self.bytes);
    }
}

struct Carried {
    body: Bytes,
    _weight: Weight,
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
impl Limits {
    /// With room for anything.
    pub(super) fn plenty() -> Arc<Limits> {
        Limits::new(&Config::default(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    fn limits(requests_max: u32, bodies_max: u64) -> Arc<Limits> {
        let bodies_max = ByteSize::bytes(bodies_max);
        Limits::new(&Config { requests_max, bodies_max, ..Config::default() }, 0)
    }

    fn left(limits: &Limits) -> [usize; 4] {
        [&limits.places, &limits.unproven_places, &limits.bytes, &limits.unproven_bytes]
            .map(|pool| pool.0.load(Ordering::Relaxed))
    }

    #[test]
    fn whoever_has_proven_nothing_has_half_of_places_and_bytes() {
        let limits = limits(4, 100);
        let mut strangers: Vec<Hold> = (0..2).map(|_| limits.enter(false).unwrap()).collect();
        assert!(limits.enter(false).is_err());
        assert_eq!(strangers[0].grow(50), Ok(()));
        assert_eq!(strangers[1].grow(1), Err(UsedUp));
        let mut known: Vec<Hold> = (0..2).map(|_| limits.enter(true).unwrap()).collect();
        assert!(limits.enter(true).is_err());
        assert_eq!((known[0].grow(51), known[0].grow(50)), (Err(UsedUp), Ok(())));
    }

    #[test]
    fn a_proof_gives_back_what_strangers_share_and_no_more() {
        let limits = limits(4, 100);
        let mut hold = limits.enter(false).unwrap();
        hold.grow(30).unwrap();
        hold.proven();
        assert_eq!(left(&limits), [3, 2, 70, 50]);
        drop(hold);
        assert_eq!(left(&limits), [4, 2, 100, 50]);
    }

    #[test]
    fn a_body_counts_until_nobody_holds_any_of_it() {
        let limits = limits(4, 100);
        let mut hold = limits.enter(true).unwrap();
        hold.grow(40).unwrap();
        hold.shrink(10);
        let body = hold.carried_by(Bytes::from_static(&[7; 30]));
        let piece = body.slice(3..4);
        drop((hold, body));
        assert_eq!(left(&limits), [4, 2, 70, 50], "the place is free, the bytes are not");
        drop(piece);
        assert_eq!(left(&limits), [4, 2, 100, 50]);
    }

    #[test]
    fn the_largest_batch_passes_where_little_else_is_in_work() {
        let limits = limits(4, 100);
        let weight = limits.beside_body(usize::MAX).ok();
        assert_eq!((weight.is_some(), left(&limits)[2]), (true, 75));
        drop(weight);
        assert_eq!(left(&limits)[2], 100);
    }

    #[test]
    fn there_is_room_for_the_largest_body_whatever_is_configured() {
        let limits = Limits::new(&Config { bodies_max: ByteSize::bytes(1), ..Config::default() }, 100);
        let mut hold = limits.enter(false).unwrap();
        assert_eq!((hold.grow(100), hold.grow(100)), (Ok(()), Ok(())), "as sent, and unpacked");
    }
}
