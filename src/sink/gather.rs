//! Gathers the deliveries that wait at the same time into batches for one writer, which may block.
//! Holds: one batch at a time, in the order of the calls; each call is answered only after the writer has confirmed
//! its batch; what waits is bounded in number, what is written at once also in bytes.
//! Absent on purpose: a thread that lives as long as the sink. A burst borrows one and gives it back, so there is
//! nothing to stop, and what goes wrong in a batch never outlives it.

use super::Failure;
use crate::envelope::Envelope;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The most events that wait for the writer; more wait for a place.
const WAITING_MAX: u32 = 4096;
/// How many bytes of data make a batch full; the last event may exceed it.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// How often a writer about to rest is looked at.
const REST_POLL: Duration = Duration::from_millis(1);

/// Writes batches; called from a thread that may block, never twice at once.
pub(super) trait BatchWriter: Send + 'static {
    /// Writes all of `events` and returns once they are confirmed; an error goes for each of them.
    fn write(&mut self, events: &[Arc<Envelope>]) -> Result<(), Failure>;
}

/// Starts work on a thread that may block.
pub(super) type Spawn = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// Why an event is not confirmed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unconfirmed {
    /// The writer said so.
    Failed(Failure),
    /// The writer has not answered in time; it may still write the event.
    Late,
}

struct Waiting {
    event: Arc<Envelope>,
    done: oneshot::Sender<Result<(), Failure>>,
    _place: OwnedSemaphorePermit,
}

struct State<W> {
    waiting: VecDeque<Waiting>,
    /// `None` while it is writing.
    idle_writer: Option<W>,
}

/// The one owner of a writer.
pub(super) struct Gatherer<W> {
    state: Arc<Mutex<State<W>>>,
    places: Arc<Semaphore>,
    timeout: Duration,
    spawn: Spawn,
}

impl<W: BatchWriter> Gatherer<W> {
    /// For `writer`, waiting at the most `timeout` for it to confirm an event.
    pub(super) fn new(writer: W, timeout: Duration, spawn: Spawn) -> Self {
        let state = State { waiting: VecDeque::new(), idle_writer: Some(writer) };
        let places = Arc::new(Semaphore::new(WAITING_MAX as usize));
        Gatherer { state: Arc::new(Mutex::new(state)), places, timeout, spawn }
    }

    /// Resolves when the batch with this event is confirmed or has failed. A cancelled call may still be written.
    pub(super) async fn deliver(&self, event: &Arc<Envelope>) -> Result<(), Unconfirmed> {
        match tokio::time::timeout(self.timeout, self.confirmation(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(Unconfirmed::Failed(failure)),
            Err(_elapsed) => Err(Unconfirmed::Late),
        }
    }

    /// Resolves when nothing waits and the writer is at rest, at the latest after the time-out.
    pub(super) async fn drained(&self) {
        let drained = async {
            let _none_waits = self.places.acquire_many(WAITING_MAX).await;
            // The last batch was answered a moment before its writer came back.
            while lock(&self.state).idle_writer.is_none() {
                tokio::time::sleep(REST_POLL).await;
            }
        };
        let _ = tokio::time::timeout(self.timeout, drained).await;
    }

    async fn confirmation(&self, event: &Arc<Envelope>) -> Result<(), Failure> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let _place = place.expect("the semaphore is never closed");
        let (done, confirmed) = oneshot::channel();
        let writer = {
            let mut state = lock(&self.state);
            state.waiting.push_back(Waiting { event: Arc::clone(event), done, _place });
            state.idle_writer.take()
        };
        if let Some(writer) = writer {
            let lent = Lent { state: Arc::clone(&self.state), writer: Some(writer) };
            (self.spawn)(Box::new(move || write_all_that_waits(lent)));
        }
        match confirmed.await {
            Ok(result) => result,
            // The batch was dropped unanswered: nothing is known of it, so it ends as late.
            Err(_) => std::future::pending().await,
        }
    }
}

/// A writer on its way through a burst; wherever that ends, the writer comes back.
struct Lent<W> {
    state: Arc<Mutex<State<W>>>,
    writer: Option<W>,
}

impl<W> Drop for Lent<W> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            lock(&self.state).idle_writer = Some(writer);
        }
    }
}

fn write_all_that_waits<W: BatchWriter>(mut lent: Lent<W>) {
    loop {
        let batch = {
            let mut state = lock(&lent.state);
            let batch = next_batch(&mut state.waiting);
            if batch.is_empty() {
                // Under the same lock: whoever comes next finds the writer.
                state.idle_writer = lent.writer.take();
                return;
            }
            batch
        };
        let Some(writer) = &mut lent.writer else { return };
        let events: Vec<Arc<Envelope>> = batch.iter().map(|waiting| Arc::clone(&waiting.event)).collect();
        let result = writer.write(&events);
        for waiting in batch {
            // Whoever waited may have given up; then the event is delivered a second time later.
            let _ = waiting.done.send(result.clone());
        }
    }
}

fn next_batch(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES_MAX {
        let Some(next) = waiting.pop_front() else { break };
        if !next.done.is_closed() {
            bytes += next.event.data.bytes().len();
            batch.push(next);
        }
    }
    batch
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A batch and the writer's place are replaced whole, so what a panicking thread left behind is consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
