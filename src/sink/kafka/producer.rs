//! One librdkafka producer with a thread of its own, which polls it, purges it when it proves dead, and destroys it.
//! Holds: an answer is given only by librdkafka's delivery report; a producer whose brokers are all gone is not waited
//! for: what it holds comes back as never sent or perhaps sent; no thread of the runtime ever waits for librdkafka.
//! Absent on purpose: when a producer is replaced (`client.rs`), what an answer means (`answer.rs`).

use super::answer::{self, Trouble};
use super::oauth::Tokens;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long all brokers may be gone before the producer is given up: long enough for one reconnection, by which
/// librdkafka repeats what was on its way without writing it twice.
const DOWN_MAX: Duration = Duration::from_secs(1);
/// How often the thread looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(100);

/// One record on its way.
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    /// Without one, records spread over the partitions.
    pub(super) key: Option<String>,
    pub(super) headers: OwnedHeaders,
    /// Never null, also when empty: a null value deletes the key of a compacted topic.
    pub(super) value: bytes::Bytes,
}

/// What the delivery report says of one record.
pub(super) type Report = Result<(), RDKafkaErrorCode>;

/// What a producer's callbacks tell.
pub(super) struct Health {
    state: watch::Sender<State>,
    trouble: Mutex<Option<Trouble>>,
    confirmed: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum State {
    Well,
    /// Every broker is gone, since then.
    Down(Instant),
    /// librdkafka will not produce again with this client, or nobody wants it to.
    Doomed,
    /// Given up: everything it held has been handed back.
    Purged,
}

impl Health {
    fn new() -> Self {
        Health {
            state: watch::Sender::new(State::Well),
            trouble: Mutex::default(),
            confirmed: AtomicU64::new(0),
        }
    }

    /// How many records were ever confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// The last thing that went wrong with the connections.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.last_trouble().clone()
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    fn last_trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        // It is replaced whole, so what a panicking thread left behind is consistent.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_wrong(&self, code: RDKafkaErrorCode, text: &str) {
        match code {
            RDKafkaErrorCode::AllBrokersDown => {
                self.state.send_if_modified(|state| {
                    let was_well = *state == State::Well;
                    if was_well {
                        *state = State::Down(Instant::now());
                    }
                    was_well
                });
            }
            RDKafkaErrorCode::Fatal => self.is_doomed(),
            code => *self.last_trouble() = Some(Trouble::new(code, text)),
        }
    }

    /// Everything it holds is to be handed back, for this reason.
    pub(super) fn abandon(&self, why: &str) {
        *self.last_trouble() = Some(Trouble::new(RDKafkaErrorCode::OperationTimedOut, why));
        self.is_doomed();
    }

    fn is_doomed(&self) {
        self.state.send_if_modified(|state| {
            let is_news = matches!(state, State::Well | State::Down(_));
            if is_news {
                *state = State::Doomed;
            }
            is_news
        });
    }

    /// The error that was fatal, in place of the news that one was.
    fn notes_fatal_error(&self, producer: &BaseProducer<Context>) {
        if let Some((code, text)) = producer.client().fatal_error() {
            *self.last_trouble() = Some(Trouble::new(code, &text));
        }
    }

    /// A broker answered.
    pub(super) fn is_well_again(&self) {
        if matches!(*self.state.borrow(), State::Down(_)) {
            self.state.send_if_modified(|state| {
                let was_down = matches!(state, State::Down(_));
                if was_down {
                    *state = State::Well;
                }
                was_down
            });
        }
    }

    fn must_purge(&self) -> bool {
        match *self.state.borrow() {
            State::Doomed => true,
            State::Down(since) => since.elapsed() >= DOWN_MAX,
            State::Well | State::Purged => false,
        }
    }
}

/// What librdkafka calls, always on the producer's own thread.
pub(super) struct Context {
    health: Arc<Health>,
    tokens: Option<Arc<Tokens>>,
    /// The context goes last, so this one says that librdkafka's own threads have ended, whoever destroyed the producer.
    _running: TaskTrackerToken,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it reaches the lane as the reason of an outcome.
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, text: &str) {
        self.health.goes_wrong(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), text);
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        match &self.tokens {
            Some(tokens) => tokens.next().map_err(|failure| failure.detail.into()),
            None => Err("OAUTHBEARER is not configured".into()),
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, report: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let report = match report {
            Ok(_) => {
                self.health.confirmed.fetch_add(1, Ordering::Relaxed);
                self.health.is_well_again();
                Ok(())
            }
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        // Whoever waited may have given up; then the event is delivered a second time later.
        let _ = waiting.send(report);
    }
}

/// A handle to the producer. Its thread alone keeps the producer alive, so that destroying it, which may take long, is
/// that thread's work.
pub(super) struct Producer {
    inner: Weak<BaseProducer<Context>>,
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
}

impl Producer {
    /// Makes it and begins to connect; `running` is held until it is destroyed. May block for a moment: certificates are
    /// read here.
    pub(super) fn start(
        config: &ClientConfig,
        tokens: Option<Arc<Tokens>>,
        running: TaskTrackerToken,
    ) -> Result<Self, Trouble> {
        let health = Arc::new(Health::new());
        let context = Context { health: Arc::clone(&health), tokens, _running: running };
        let made: Result<BaseProducer<Context>, _> = config.create_with_context(context);
        let producer = Arc::new(made.map_err(|error| answer::not_created(&error))?);
        let (inner, stop) = (Arc::downgrade(&producer), Arc::new(AtomicBool::new(false)));
        let (polled, asked_to_stop) = (Arc::clone(&health), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || poll(&producer, &polled, &asked_to_stop))
            .map_err(|error| Trouble::new(RDKafkaErrorCode::CriticalSystemResource, &error.to_string()))?;
        Ok(Producer { inner, health, stop })
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// It takes no more records.
    pub(super) fn is_over(&self) -> bool {
        *self.health.state.borrow() == State::Purged
    }

    /// Hands the record to librdkafka's queue, where the report will come from. Never blocks.
    ///
    /// # Errors
    /// What librdkafka has against this record, or why it takes none.
    pub(super) fn enqueue(&self, record: Record<'_>) -> Result<oneshot::Receiver<Report>, RDKafkaErrorCode> {
        let inner = self.inner.upgrade().filter(|_| !self.is_over()).ok_or(RDKafkaErrorCode::PurgeQueue)?;
        let (waiting, report) = oneshot::channel();
        let mut message: BaseRecord<'_, str, [u8], _> =
            BaseRecord::with_opaque_to(record.topic, Box::new(waiting)).headers(record.headers);
        (message.key, message.payload) = (record.key.as_deref(), Some(&record.value[..]));
        match inner.send(message) {
            Ok(()) => Ok(report),
            Err((error, _)) => {
                self.health.notes_fatal_error(&inner);
                Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument))
            }
        }
    }

    /// Records wait for their report.
    pub(super) fn holds_any(&self) -> bool {
        self.inner.upgrade().is_some_and(|producer| producer.in_flight_count() > 0)
    }

    /// The producer itself, for work that may block and so must not be on a thread of the runtime.
    pub(super) fn inner(&self) -> Weak<BaseProducer<Context>> {
        Weak::clone(&self.inner)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn poll(producer: &BaseProducer<Context>, health: &Health, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        producer.poll(POLL);
        if health.must_purge() {
            health.notes_fatal_error(producer);
            // First, so that nothing is added that nobody would hand back.
            health.state.send_replace(State::Purged);
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    }
}
