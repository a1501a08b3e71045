//! A lane's errands: its own dead letters delivered once more, and copies of other lanes' letters.
//! Holds: they have places of their own in the window, so that a backlog does not keep them waiting, nor they it; what is
//! fetched at once is bounded in number and bytes; R4 (the store forgets an errand only when it is told how it ended).

use super::lane::Lane;
use super::settle::{ChoreDone, Item, Origin};
use crate::dead_letter::{Errand, StoreError};

/// The most replays and copies a lane has in hand.
pub(super) const ERRANDS_MAX: usize = 256;

/// What a lane knows of its errands.
pub(super) struct Errands {
    /// How many are in the window.
    pub held: usize,
    /// There may be more in the store.
    pub wanted: bool,
    /// The store did not answer; asked again at the next tick.
    pub failed: bool,
    fetching: bool,
}

impl Errands {
    /// There may be some from before the start.
    pub fn at_start() -> Errands {
        Errands { held: 0, wanted: true, failed: false, fetching: false }
    }

    /// How many more may be taken.
    pub fn room(&self) -> usize {
        ERRANDS_MAX.saturating_sub(self.held)
    }
}

impl Lane {
    pub fn take_errands(&mut self, errands: Result<Vec<Errand>, StoreError>) {
        self.errands.fetching = false;
        match errands {
            Ok(errands) => {
                // Count or bytes may have cut the answer short: only an empty one says that there are no more.
                self.errands.wanted |= !errands.is_empty();
                self.errands.held += errands.len();
                for errand in errands {
                    let bytes = errand.event.data.bytes().len();
                    let origin = Origin::Errand(errand.letter, errand.kind);
                    let mut item = Item::new(errand.event, errand.arrived, origin);
                    let due = errand.deferral.map(|deferral| self.take_up(&mut item, &deferral));
                    self.add(item, bytes, due);
                }
            }
            Err(error) => {
                self.errands.failed = true;
                tracing::warn!(sink = %self.parts.name, %error, "cannot read the lane's replays");
            }
        }
    }

    pub fn fetch_errands(&mut self) {
        // A sink that is away is probed with what is in hand; only where that is nothing an errand may be the probe.
        let waits = self.orders.paused || (self.breaker.is_open() && self.has_probe());
        let room = self.errands.room();
        let has_room = room >= ERRANDS_MAX / 2 && self.window.room() > 0;
        if !self.errands.wanted || self.errands.fetching || waits || !has_room {
            return;
        }
        (self.errands.wanted, self.errands.fetching) = (false, true);
        let in_hand = self.window.items().filter_map(Item::errand).collect();
        let (store, sink) = (self.shared.dead_letters.clone(), self.parts.name.clone());
        let bytes = self.window.room_bytes();
        self.start(async move { ChoreDone::Errands(store.errands(sink, in_hand, room, bytes).await) });
    }
}
