//! What waits for an answer on one connection, and what becomes of it with each thing that the client tells.
//! Holds: nobody waits for an answer on a dead connection; a refused publish never passes for a taken one (see `link`).
//! Absent on purpose: the client, IO and time.

use super::super::{Failure, Outcome, Reason};
use super::refused::Refused;
use super::server::{quoted, server_reason};
use async_nats::{Event, ServerError};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

/// Refusals between two fences after which the connection is given up: less than half of the 128 events that may wait
/// in the client (see `link`).
const DENIALS_MAX: u32 = 60;
/// The messages that may be in flight after an event led to a refused subject, so that their refusals stay below
/// [`DENIALS_MAX`] however many there are.
pub(super) const CAREFUL_IN_FLIGHT_MAX: usize = 50;

/// What a server says before it ends a connection over one message.
const TOO_LARGE: &str = "Maximum Payload Violation";

/// The connection had ended, for this reason, before the message was handed over: nothing was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct NotSent(pub(in super::super) Failure);

/// See the module.
#[derive(Default)]
pub(super) struct Tracker {
    state: Mutex<State>,
    is_lost: watch::Sender<bool>,
    /// The server's name, once it is known.
    host: OnceLock<String>,
    refused: Arc<Refused>,
    has_fences: bool,
}

#[derive(Default)]
struct State {
    entries: HashMap<u64, Entry>,
    next: u64,
    /// Handed over since the last fence, each with its place among those in flight.
    handed_over: Vec<(u64, Option<Place>)>,
    /// What the fence covers that is out.
    fenced: Option<Vec<(u64, Option<Place>)>>,
    denials: u32,
    /// The subjects they named; at most as many as were in flight when the first refusal came, since a connection with
    /// refusals is given up.
    refused: HashSet<String>,
    /// The largest of those that nobody waits for any more, though the server may not have seen them yet.
    open_bytes_max: usize,
    /// What the server last complained of: why it closes the connection, where it does so next.
    complaint: Option<String>,
    lost: Option<Failure>,
}

/// One of the places in flight, where they are few; free again when all refusals before it have been told.
pub(super) type Place = OwnedSemaphorePermit;

/// A message that waits.
struct Entry {
    subject: String,
    is_led_by_event: bool,
    bytes: usize,
    /// It was refused, which is told in its turn, with the fence: others that were taken may be told before.
    denied: Option<Failure>,
    done: oneshot::Sender<Outcome>,
}

impl Entry {
    /// Whoever waited may have given up.
    fn end(self, outcome: Outcome) {
        let _ = self.done.send(self.denied.map_or(outcome, Outcome::Reject));
    }
}

/// A place among those that wait; given back when nobody waits any more.
pub(super) struct Ticket {
    of: Arc<Tracker>,
    pub(super) number: u64,
    done: oneshot::Receiver<Outcome>,
}

impl Ticket {
    /// Resolves when the outcome is known from what the client told.
    pub(super) async fn outcome(&mut self) -> Outcome {
        (&mut self.done).await.unwrap_or_else(|_| Outcome::Retry(self.of.lost()))
    }

    /// An answer came by a message.
    pub(super) fn answered(self) {
        self.of.state().entries.remove(&self.number);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.of.state().leave_open(self.number);
    }
}

impl Tracker {
    pub(super) fn new(refused: Arc<Refused>, has_fences: bool) -> Self {
        Tracker { refused, has_fences, ..Tracker::default() }
    }

    pub(super) fn name(&self, host: &str) {
        self.host.get_or_init(|| host.to_owned());
    }

    /// Before a message is handed over.
    pub(super) fn wait_for(
        self: &Arc<Self>,
        subject: &str,
        is_led_by_event: bool,
        bytes: usize,
    ) -> Result<Ticket, NotSent> {
        let mut state = self.state();
        if let Some(failure) = &state.lost {
            return Err(NotSent(failure.clone()));
        }
        let number = state.next;
        state.next += 1;
        let (done, waits) = oneshot::channel();
        let entry = Entry { subject: subject.to_owned(), is_led_by_event, bytes, denied: None, done };
        state.entries.insert(number, entry);
        Ok(Ticket { of: Arc::clone(self), number, done: waits })
    }

    /// After it was: it is in the client's queue. Returns whether a fence is to be sent now.
    pub(super) fn handed_over(&self, number: u64, place: Option<Place>) -> bool {
        let mut state = self.state();
        if state.lost.is_none() {
            state.handed_over.push((number, place));
        }
        state.fence_due()
    }

    /// The most bytes of a message that it takes, as far as its refusals tell.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.refused.bytes_max()
    }

    /// What the client tells, in its order. Returns whether a fence is to be sent now.
    pub(super) fn told(&self, event: &Event) -> bool {
        match event {
            Event::SlowConsumer(_) => return self.state().fence_came_back(),
            Event::ServerError(ServerError::Other(text)) if text.starts_with("Permissions Violation") => {
                self.denied(text);
            }
            Event::ServerError(error) => self.state().complaint = Some(quoted(&error.to_string())),
            Event::Disconnected | Event::Closed => self.lose(),
            Event::Connected | Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {}
        }
        false
    }

    /// Becomes true when the connection is gone.
    pub(super) fn is_lost(&self) -> watch::Receiver<bool> {
        self.is_lost.subscribe()
    }

    /// Why the connection ended.
    pub(super) fn lost(&self) -> Failure {
        let known = self.state().lost.clone();
        known.unwrap_or_else(|| self.broken())
    }

    pub(super) fn broken(&self) -> Failure {
        Failure::new(Reason::ConnectionLost, format!("{}: the connection broke", self.host()))
    }

    fn denied(&self, text: &str) {
        let mut state = self.state();
        state.denials += 1;
        let named = text.strip_prefix("Permissions Violation for Publish to \"");
        let named = named.and_then(|rest| rest.split('"').next());
        let failure = Failure::new(
            Reason::NotAuthorized,
            format!("{}: {}; grant the user this permission", self.host(), quoted(text)),
        );
        let is_named = |entry: &Entry| named == Some(entry.subject.as_str());
        let mut refused: Vec<u64> = state.named(is_named).collect();
        // A subject that nobody waits for may be a mapped one, or an answer's: then it is not known who is refused.
        if refused.is_empty() && !named.is_some_and(|named| state.refused.contains(named)) {
            return self.end_all(state, &failure, &failure);
        }
        if refused.iter().any(|number| state.entries[number].is_led_by_event) {
            self.refused.note_subject();
            let led = format!("{}; an attribute of this event leads there", failure.detail);
            let led = Failure::new(Reason::NotAuthorized, led);
            if self.has_fences {
                for number in &refused {
                    state.entries.entry(*number).and_modify(|entry| entry.denied = Some(led.clone()));
                }
            } else if let Some(entry) = refused.iter().min().and_then(|number| state.leave_open(*number)) {
                // Each has a refusal of its own.
                entry.end(Outcome::Reject(led));
            }
            refused.clear();
        }
        for number in refused {
            if let Some(entry) = state.leave_open(number) {
                state.refused.insert(entry.subject.clone());
                entry.end(Outcome::Away(failure.clone()));
            }
        }
        if self.has_fences && state.denials >= DENIALS_MAX {
            let unclear = format!("{}: more refusals than can be told apart", self.host());
            self.end_all(state, &failure, &Failure::new(Reason::ConnectionLost, unclear));
        }
    }

    /// Nothing can be known any more of what is in flight. `failure` is what refuses the events of a sink with one
    /// subject; of an event that leads to its own, `unclear` is the reason, and where that is another it is tried again.
    fn end_all(&self, mut state: MutexGuard<'_, State>, failure: &Failure, unclear: &Failure) {
        let is_led = state.entries.values().any(|entry| entry.is_led_by_event);
        state.lost.get_or_insert_with(|| if is_led { unclear } else { failure }.clone());
        for (_, entry) in state.entries.drain() {
            let outcome = if entry.is_led_by_event && unclear != failure {
                Outcome::Retry(unclear.clone())
            } else {
                Outcome::Away(failure.clone())
            };
            entry.end(outcome);
        }
        state.free_places();
        drop(state);
        self.is_lost.send_replace(true);
    }

    fn lose(&self) {
        let mut state = self.state();
        let complaint = state.complaint.take();
        let is_over_size = complaint.as_ref().is_some_and(|said| said.contains(TOO_LARGE));
        let too_large_bytes = if is_over_size { state.surely_too_large_bytes() } else { None };
        // Before anybody is told, who may then send the next.
        if let Some(bytes) = too_large_bytes {
            self.refused.note(bytes);
        }
        let failure = match complaint {
            Some(said) => {
                let reason = server_reason(&said).unwrap_or(Reason::ConnectionLost);
                Failure::new(reason, format!("{}: the server ended the connection: {said}", self.host()))
            }
            None => self.broken(),
        };
        let failure = state.lost.get_or_insert(failure).clone();
        for (_, entry) in state.entries.drain() {
            let outcome = if too_large_bytes.is_some_and(|too_large| entry.bytes >= too_large) {
                let (host, bytes) = (self.host(), entry.bytes);
                let problem =
                    format!("it has {bytes} bytes with its headers; {host} takes less of this account");
                Outcome::Reject(Failure::new(Reason::TooLarge, problem))
            } else {
                Outcome::Retry(failure.clone())
            };
            entry.end(outcome);
        }
        state.free_places();
        drop(state);
        self.is_lost.send_replace(true);
    }

    fn host(&self) -> &str {
        self.host.get().map_or("the server", String::as_str)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fence_due(&mut self) -> bool {
        let is_due = self.fenced.is_none() && !self.handed_over.is_empty();
        if is_due {
            self.fenced = Some(std::mem::take(&mut self.handed_over));
        }
        is_due
    }

    fn fence_came_back(&mut self) -> bool {
        self.denials = 0;
        for (number, _place) in self.fenced.take().unwrap_or_default() {
            if let Some(entry) = self.entries.remove(&number) {
                entry.end(Outcome::Delivered);
            }
        }
        self.fence_due()
    }

    /// From which size on a message is too large for a server that ended the connection over one: that one is among
    /// those that nothing is known of, so the largest of these is at least as large. `None` where nobody waits for the
    /// largest any more.
    fn surely_too_large_bytes(&self) -> Option<usize> {
        let largest = self.entries.values().map(|entry| entry.bytes).max();
        largest.filter(|bytes| *bytes >= self.open_bytes_max)
    }

    fn named(&self, is_named: impl Fn(&Entry) -> bool) -> impl Iterator<Item = u64> {
        self.entries.iter().filter(move |(_, entry)| is_named(entry)).map(|(number, _)| *number)
    }

    fn free_places(&mut self) {
        self.handed_over.clear();
        self.fenced = None;
    }

    fn leave_open(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.open_bytes_max = self.open_bytes_max.max(entry.bytes);
        Some(entry)
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
