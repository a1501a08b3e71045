//! The events a lane has in hand: which may go now, which are out, which wait for their time or for the one before them.
//! Holds: events of one chain (equal keys, or all under `strict`) are out one at a time and in the order they came;
//! of those that may go, the one that came first goes first, however often it came back; the window is bounded by count
//! and bytes. Pure: the caller brings the time.

use crate::sink::Order;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// Names an event in the window; later arrivals have greater tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

/// What keeps events in order among each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Chain {
    Strict,
    Key(Arc<str>),
}

#[derive(Debug)]
struct Slot<T> {
    item: T,
    bytes: usize,
    chain: Option<Chain>,
    /// Its place among those that may go: where it came in, or where it was last sent to the end.
    place: u64,
    /// It came in with a time before which it may not go, whenever its turn is.
    due: Option<Instant>,
}

/// The window over items of type `T`.
#[derive(Debug)]
pub struct Window<T> {
    order: Order,
    count_max: usize,
    bytes_max: usize,
    bytes: usize,
    next_ticket: u64,
    next_place: u64,
    slots: HashMap<Ticket, Slot<T>>,
    /// By place.
    ready: BTreeMap<u64, Ticket>,
    waiting: BinaryHeap<Reverse<(Instant, Ticket)>>,
    behind: HashMap<Chain, VecDeque<Ticket>>,
    in_flight: usize,
}

impl<T> Window<T> {
    /// An empty window that takes in up to `count_max` events or `bytes_max` bytes.
    #[must_use]
    pub fn new(order: Order, count_max: usize, bytes_max: usize) -> Self {
        Window {
            order,
            count_max: count_max.max(1),
            bytes_max,
            bytes: 0,
            next_ticket: 0,
            next_place: 0,
            slots: HashMap::new(),
            ready: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            behind: HashMap::new(),
            in_flight: 0,
        }
    }

    /// How many more events it should be given; zero when count or bytes are used up.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.bytes >= self.bytes_max { 0 } else { self.count_max.saturating_sub(self.slots.len()) }
    }

    /// How many more bytes it should be given.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// Events in hand that are not out.
    #[must_use]
    pub fn held(&self) -> usize {
        self.slots.len() - self.in_flight
    }

    /// Takes in an event that may go at once or when it is `due`; `key` orders it under `order = key`.
    pub fn add(&mut self, item: T, key: Option<&str>, bytes: usize, due: Option<Instant>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let chain = match self.order {
            Order::None => None,
            Order::Key => key.map(|key| Chain::Key(key.into())),
            Order::Strict => Some(Chain::Strict),
        };
        let first_of_chain = match &chain {
            None => true,
            Some(chain) => match self.behind.get_mut(chain) {
                Some(queue) => {
                    queue.push_back(ticket);
                    false
                }
                None => {
                    self.behind.insert(chain.clone(), VecDeque::new());
                    true
                }
            },
        };
        let place = self.take_place();
        self.bytes += bytes;
        self.slots.insert(ticket, Slot { item, bytes, chain, place, due });
        if first_of_chain {
            self.make_ready(ticket);
        }
        ticket
    }

    /// The next event to send, if one may go at `now`; it counts as out until `settled`, `again` or `wait` says otherwise.
    pub fn send_next(&mut self, now: Instant) -> Option<Ticket> {
        self.wake(now);
        let (_place, ticket) = self.ready.pop_first()?;
        self.in_flight += 1;
        Some(ticket)
    }

    /// When the next waiting event may go; `None` where none waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((due, _))| *due)
    }

    /// Whether an event waits for nothing but its turn.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The event came back unsent or unheard: it goes again in its old place.
    pub fn again(&mut self, ticket: Ticket) {
        self.in_flight -= 1;
        self.make_ready(ticket);
    }

    /// The event came back and shall let the others go first.
    pub fn again_last(&mut self, ticket: Ticket) {
        self.in_flight -= 1;
        let place = self.take_place();
        if let Some(slot) = self.slots.get_mut(&ticket) {
            slot.place = place;
        }
        self.make_ready(ticket);
    }

    /// The event came back and goes again at `due`; its chain waits with it.
    pub fn wait(&mut self, ticket: Ticket, due: Instant) {
        self.in_flight -= 1;
        self.waiting.push(Reverse((due, ticket)));
    }

    /// The event is done with: the next of its chain may go.
    pub fn settled(&mut self, ticket: Ticket) -> Option<T> {
        let slot = self.slots.remove(&ticket)?;
        self.in_flight -= 1;
        self.bytes -= slot.bytes;
        self.release(slot.chain);
        Some(slot.item)
    }

    /// Takes out every event that is not out and that `chosen` picks, wherever it stands.
    pub fn take_held(&mut self, chosen: impl Fn(&T) -> bool) -> Vec<T> {
        let held: Vec<Ticket> = self
            .ready
            .values()
            .copied()
            .chain(self.waiting.iter().map(|Reverse((_, ticket))| *ticket))
            .chain(self.behind.values().flatten().copied())
            .filter(|ticket| chosen(&self.slots[ticket].item))
            .collect();
        held.into_iter().filter_map(|ticket| self.remove_held(ticket)).collect()
    }

    /// The event behind a ticket.
    #[must_use]
    pub fn get(&self, ticket: Ticket) -> Option<&T> {
        self.slots.get(&ticket).map(|slot| &slot.item)
    }

    /// The event behind a ticket, to note an attempt.
    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.slots.get_mut(&ticket).map(|slot| &mut slot.item)
    }

    /// Every event in hand.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.slots.values().map(|slot| &slot.item)
    }

    fn take_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn make_ready(&mut self, ticket: Ticket) {
        let Some(slot) = self.slots.get_mut(&ticket) else { return };
        match slot.due.take() {
            Some(due) => self.waiting.push(Reverse((due, ticket))),
            None => drop(self.ready.insert(slot.place, ticket)),
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((due, ticket))) = self.waiting.peek().copied() {
            if due > now {
                return;
            }
            self.waiting.pop();
            self.make_ready(ticket);
        }
    }

    fn remove_held(&mut self, ticket: Ticket) -> Option<T> {
        let slot = self.slots.remove(&ticket)?;
        self.bytes -= slot.bytes;
        let queued = slot.chain.as_ref().and_then(|chain| self.behind.get_mut(chain));
        if let Some(queue) = queued
            && let Some(place) = queue.iter().position(|other| *other == ticket)
        {
            queue.remove(place);
            return Some(slot.item);
        }
        if self.ready.remove(&slot.place).is_none() {
            self.waiting.retain(|Reverse((_, other))| *other != ticket);
        }
        self.release(slot.chain);
        Some(slot.item)
    }

    fn release(&mut self, chain: Option<Chain>) {
        let Some(chain) = chain else { return };
        match self.behind.get_mut(&chain).and_then(VecDeque::pop_front) {
            Some(next) => self.make_ready(next),
            None => {
                self.behind.remove(&chain);
            }
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
