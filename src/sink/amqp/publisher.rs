//! Gathers the deliveries that wait at the same time into batches and publishes each on a channel of its own.
//! Holds: a batch is judged only after all its confirms have come. The protocol gives a returned message no number,
//! and lapin hands it to whichever confirm comes next, so a single confirm says nothing about its own message; that
//! every confirm of a channel has come says that every return has, and the id in each tells whose it is. Therefore no id
//! is twice in a batch, a channel has one batch at a time, and every message is mandatory. A channel's messages are
//! published by one task: lapin numbers a message before it queues it, so two tasks could swap each other's confirms.
//! What waits is bounded in number, what is published at once also in bytes.
//! Absent on purpose: a task that lives as long as the sink. A burst borrows one, so there is nothing to stop.

use super::super::connection::Connection;
use super::super::{Failure, Outcome, Reason};
use super::client::{Client, Connector};
use super::failure::{Broken, late, unroutable};
use super::message::{Encoder, Message};
use crate::envelope::Envelope;
use crate::shutdown::{Phase, Shutdown};
use futures_util::future::join_all;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most events that wait for a channel; more wait for a place.
const WAITING_MAX: usize = 4096;
/// How many batches are on their way at once: some fill while others wait for their last confirm. Together they hold
/// the whole window of a broker's sink (1000), so that the broker never has less to do than without batches.
const BURSTS_MAX: usize = 4;
/// The most events of a batch.
const BATCH_EVENTS_MAX: usize = 256;
/// How many bytes of data make a batch full; the last event may exceed it.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a batch that takes long looks whether the broker has blocked the connection.
const BLOCKED_POLL: Duration = Duration::from_millis(250);
/// How long a lane leaves a broker alone that has an alarm.
const BLOCKED_WAIT: Duration = Duration::from_secs(2);
/// How long a lane leaves a broker alone whose queue is full.
const FULL_WAIT: Duration = Duration::from_secs(5);

struct Waiting {
    event: Arc<Envelope>,
    done: oneshot::Sender<Outcome>,
    /// Set when it is handed to the client library: from then on it may arrive.
    is_sent: Arc<AtomicBool>,
    _place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// How many bursts are on their way.
    bursts: usize,
}

struct Shared {
    state: Mutex<State>,
    connector: Connector,
    connection: Connection<Client>,
    encoder: Encoder,
    timeout: Duration,
    /// As it was seen last.
    is_blocked: AtomicBool,
    /// How many bursts are connecting, or waiting for the other one that is.
    connecting: AtomicU32,
    /// No burst goes on after.
    closed: CancellationToken,
}

/// See the module.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl Publisher {
    pub(super) fn new(connector: Connector, encoder: Encoder, timeout: Duration, shutdown: Shutdown) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            connector,
            connection: Connection::new(),
            encoder,
            timeout,
            is_blocked: AtomicBool::new(false),
            connecting: AtomicU32::new(0),
            closed: CancellationToken::new(),
        };
        Publisher { shared: Arc::new(shared), places: Arc::new(Semaphore::new(WAITING_MAX)), shutdown }
    }

    /// Resolves when the broker has confirmed the event or something else is known of it. A cancelled call may still be
    /// published.
    pub(super) async fn deliver(&self, event: &Arc<Envelope>) -> Outcome {
        let is_sent = Arc::new(AtomicBool::new(false));
        let published = self.published(event, Arc::clone(&is_sent));
        match tokio::time::timeout(self.shared.timeout, published).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => self.shared.too_late(is_sent.load(Ordering::Relaxed)),
        }
    }

    /// Connects where there is no connection.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        self.shared.client().await.map(drop)
    }

    /// Ends the connection, and with it what nobody waits for any more.
    pub(super) async fn close(&self) {
        self.shared.closed.cancel();
        if let Some(client) = self.shared.connection.take() {
            client.close().await;
        }
    }

    async fn published(&self, event: &Arc<Envelope>, is_sent: Arc<AtomicBool>) -> Outcome {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let _place = place.expect("the semaphore is never closed");
        let (done, outcome) = oneshot::channel();
        let begins = {
            let mut state = self.shared.lock();
            state.waiting.push_back(Waiting { event: Arc::clone(event), done, is_sent, _place });
            let begins = state.bursts < BURSTS_MAX;
            state.bursts += usize::from(begins);
            begins
        };
        if begins {
            let burst = Burst { shared: Arc::clone(&self.shared), is_counted: true };
            drop(self.shutdown.spawn(Phase::Lanes, burst.run()));
        }
        match outcome.await {
            Ok(outcome) => outcome,
            // The burst was dropped: nothing is known of it, so it ends as late.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Works through what waits, batch after batch; wherever it ends, another may begin.
struct Burst {
    shared: Arc<Shared>,
    is_counted: bool,
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.shared.lock().bursts -= usize::from(self.is_counted);
    }
}

impl Burst {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let until_empty = async {
            while let Some(batch) = self.next() {
                shared.settle(batch).await;
            }
        };
        let _ = shared.closed.run_until_cancelled(until_empty).await;
    }

    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut state = self.shared.lock();
        let batch = next_batch(&mut state.waiting);
        if batch.is_empty() {
            // Under the same lock: whoever comes next begins another.
            state.bursts -= usize::from(std::mem::take(&mut self.is_counted));
            return None;
        }
        Some(batch)
    }
}

/// What is published next: no id twice, since the id tells which message came back.
fn next_batch(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut batch, mut bytes, mut ids, mut repeated) = (Vec::new(), 0, HashSet::new(), Vec::new());
    while bytes < BATCH_BYTES_MAX && batch.len() + repeated.len() < BATCH_EVENTS_MAX {
        let Some(next) = waiting.pop_front() else { break };
        if next.done.is_closed() {
            continue;
        }
        if ids.insert(next.event.id.clone()) {
            bytes += next.event.data.bytes().len();
            batch.push(next);
        } else {
            repeated.push(next);
        }
    }
    for again in repeated.into_iter().rev() {
        waiting.push_front(again);
    }
    batch
}

/// What became of one event: a reason why it can never be a message, or its confirm, or the error in its place.
type Published = Result<lapin::Result<Confirmation>, Failure>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What waits is taken out whole, so what a panicking task left behind is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self) -> Result<Arc<Client>, Failure> {
        self.connecting.fetch_add(1, Ordering::Relaxed);
        let _connecting = Connecting(&self.connecting);
        let client = self.connection.get(|| self.connector.connect()).await?;
        if client.is_connected() {
            return Ok(client);
        }
        // It broke while nothing was under way.
        self.give_up(&client);
        self.connection.get(|| self.connector.connect()).await
    }

    fn give_up(&self, client: &Arc<Client>) {
        self.connection.give_up(client);
        client.kill();
    }

    /// Publishes a batch and answers each of its events.
    async fn settle(&self, batch: Vec<Waiting>) {
        let client = match self.client().await {
            Ok(client) => client,
            Err(failure) => return answer_all(batch, &Outcome::Away(failure)),
        };
        if self.sees_blocked(&client) {
            return answer_all(batch, &blocked());
        }
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            part.retain(|waiting| !waiting.done.is_closed());
            if part.is_empty() {
                continue;
            }
            match self.publish(&client, &part).await {
                Ok(outcomes) => {
                    part.into_iter().zip(outcomes).for_each(|(waiting, outcome)| answer(waiting, outcome));
                }
                Err(broken) if part.len() > 1 && broken.may_be_one_of_many(&self.encoder) => {
                    let half = part.split_off(part.len() / 2);
                    parts.extend([half, part]);
                }
                Err(broken) => answer_all(part, &broken.outcome(&self.encoder, &client.label)),
            }
        }
    }

    /// The outcome of each of `part`, in their order, when all their confirms have come.
    async fn publish(&self, client: &Arc<Client>, part: &[Waiting]) -> Result<Vec<Outcome>, Broken> {
        let judged = self.published(client, part).await;
        if let Err(Broken::Connection { .. } | Broken::Late) = judged {
            self.give_up(client);
        }
        judged
    }

    async fn published(&self, client: &Client, part: &[Waiting]) -> Result<Vec<Outcome>, Broken> {
        let mut all = pin!(self.publish_all(client, part));
        let mut deadline = Instant::now() + self.timeout;
        loop {
            tokio::select! {
                outcomes = &mut all => {
                    self.sees_blocked(client);
                    return outcomes;
                }
                () = tokio::time::sleep_until(deadline.min(Instant::now() + BLOCKED_POLL)) => {}
            }
            if self.sees_blocked(client) {
                // Nothing is lost: the broker goes on reading when its alarm is over. Until then others need not wait.
                deadline = Instant::now() + self.timeout;
                let waiting = std::mem::take(&mut self.lock().waiting);
                answer_all(waiting, &blocked());
            } else if Instant::now() >= deadline {
                return Err(Broken::Late);
            }
        }
    }

    async fn publish_all(&self, client: &Client, part: &[Waiting]) -> Result<Vec<Outcome>, Broken> {
        let channel = client.channel().await.map_err(|error| Broken::of([&error], was_sent(part)))?;
        let headers_bytes_max = client.headers_bytes_max();
        let publish = async |waiting: &Waiting| {
            let message = self.encoder.message(&waiting.event, headers_bytes_max)?;
            waiting.is_sent.store(true, Ordering::Relaxed);
            let Message { exchange, routing_key, properties, body } = message;
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            match channel.basic_publish(exchange, routing_key, options, &body, properties).await {
                Ok(confirm) => Ok(confirm.await),
                Err(error) => Ok(Err(error)),
            }
        };
        let published = join_all(part.iter().map(publish)).await;
        let outcomes = self.judge(&client.label, part, &published)?;
        client.take_back(channel);
        Ok(outcomes)
    }

    fn judge(&self, label: &str, part: &[Waiting], published: &[Published]) -> Result<Vec<Outcome>, Broken> {
        let errors = || published.iter().flatten().filter_map(|result| result.as_ref().err());
        if errors().next().is_some() {
            return Err(Broken::of(errors(), true));
        }
        // A message that came back and is none of these leaves nothing certain.
        let foreign = || Broken::Connection { is_sent: true };
        let mut returned: HashSet<&[u8]> = HashSet::new();
        for confirmation in published.iter().flatten().flatten() {
            if let Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)) = confirmation {
                let id = self.encoder.id_of(&message.delivery.properties).ok_or_else(foreign)?;
                returned.insert(id);
            }
        }
        let outcomes = part.iter().zip(published).map(|(waiting, published)| match published {
            Err(never) => Outcome::Reject(never.clone()),
            Ok(_) if returned.remove(waiting.event.id.as_bytes()) => unroutable(&self.encoder, label),
            Ok(Ok(Confirmation::Ack(_))) => Outcome::Delivered,
            Ok(_) => self.refused(label),
        });
        let outcomes = outcomes.collect();
        if returned.is_empty() { Ok(outcomes) } else { Err(foreign()) }
    }

    /// The broker did not take it: a queue is full (`x-overflow: reject-publish`), or cannot take anything just now.
    fn refused(&self, label: &str) -> Outcome {
        let detail = format!("{label}: a queue refuses it; it is full or not available");
        let failure = Failure::new(Reason::Throttled, detail);
        if self.encoder.route_varies() {
            // Other events may go to other queues, so the lane need not wait.
            Outcome::Retry(failure)
        } else {
            Outcome::Busy { failure, wait: Some(FULL_WAIT) }
        }
    }

    fn sees_blocked(&self, client: &Client) -> bool {
        let is_blocked = client.is_connected() && client.is_blocked();
        self.is_blocked.store(is_blocked, Ordering::Relaxed);
        is_blocked
    }

    /// What it means that an event has waited for the whole time-out.
    fn too_late(&self, is_sent: bool) -> Outcome {
        if self.is_blocked.load(Ordering::Relaxed) {
            blocked()
        } else if is_sent {
            Outcome::Retry(late("the broker"))
        } else if self.connecting.load(Ordering::Relaxed) > 0 {
            Outcome::Away(Failure::new(Reason::Timeout, "no connection to the broker in time"))
        } else {
            let failure = Failure::new(Reason::Throttled, "the broker has not confirmed what went before");
            Outcome::Busy { failure, wait: None }
        }
    }
}

/// Counts while it lives.
struct Connecting<'a>(&'a AtomicU32);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn was_sent(part: &[Waiting]) -> bool {
    part.iter().any(|waiting| waiting.is_sent.load(Ordering::Relaxed))
}

fn blocked() -> Outcome {
    let detail = "the broker has a memory or disk alarm and asks publishers to wait";
    Outcome::Busy { failure: Failure::new(Reason::Throttled, detail), wait: Some(BLOCKED_WAIT) }
}

fn answer(waiting: Waiting, outcome: Outcome) {
    // Whoever waited may have given up; then the event is delivered a second time later.
    let _ = waiting.done.send(outcome);
}

fn answer_all(all: impl IntoIterator<Item = Waiting>, outcome: &Outcome) {
    all.into_iter().for_each(|waiting| answer(waiting, outcome.clone()));
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
