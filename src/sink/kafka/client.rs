//! The connected client: made in steps that each have their reason when they fail, and left for a new one when it is of
//! no use any more.
//! Holds: a client is only called connected after a broker has answered, and with a constant topic, after that topic was
//! there; one that is abandoned hands back what it held; nothing that librdkafka blocks on holds up a stop.
//! Absent on purpose: the properties (`properties.rs`), and what becomes of an event (`mod.rs`).

use super::answer::{Meaning, Trouble, meaning};
use super::oauth::Tokens;
use super::producer::{Producer, Record, Report, State};
use super::properties::{MESSAGE_BYTES_DEFAULT, Properties};
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{Failure, Limits, Reason};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long a broker may take to answer for the first time, connection, TLS and credentials included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long asking for the topic's size limit may take; without an answer the client's default holds.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the limit is taken for granted once it is in the way.
const LIMIT_BELIEVED: Duration = Duration::from_secs(5);
/// How long what was handed over may still take to be confirmed when the sink closes.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether that is so.
const FLUSH_POLL: Duration = Duration::from_millis(10);
/// How long the threads of clients that were let go may take to end when the sink closes.
const ENDED_MAX: Duration = Duration::from_secs(2);

/// Everything a client is made of.
pub(super) struct Plan {
    pub(super) properties: Properties,
    /// The topic, where it is one for all events.
    pub(super) topic: Option<String>,
    /// How long the first answer may take.
    pub(super) connect_timeout: Duration,
    pub(super) shutdown: Shutdown,
    /// Whatever still has threads of librdkafka's.
    pub(super) running: TaskTracker,
}

impl Plan {
    /// Waits until no client of the sink has a thread any more, but not for long: one may be blocked on a name that does
    /// not resolve, and the process may end beside it (see `properties.rs`).
    pub(super) async fn ended(&self) {
        self.running.close();
        let _ = tokio::time::timeout(ENDED_MAX, self.running.wait()).await;
    }
}

/// A connected client.
pub(super) struct Client {
    /// Sends in batches.
    batching: Producer,
    /// Sends every record in a request of its own; made when one has to be judged alone.
    single: OnceCell<Producer>,
    config: ClientConfig,
    tokens: Option<Arc<Tokens>>,
    message_bytes_max: Option<u64>,
    /// Absent where the user set the limit, or nobody can be asked.
    limit_asked_at: Option<Instant>,
    is_retired: AtomicBool,
    shutdown: Shutdown,
    running: TaskTracker,
}

/// Why a record was not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) code: RDKafkaErrorCode,
    /// It may be the fault of another record of the batch.
    pub(super) is_of_a_batch: bool,
}

async fn report(reported: oneshot::Receiver<Report>) -> Report {
    // A producer that is destroyed hands back what it held; this is for what it did not.
    reported.await.unwrap_or(Err(RDKafkaErrorCode::PurgeInflight))
}

impl Client {
    /// Connects, with credentials as they are now.
    ///
    /// # Errors
    /// Why nothing can be sent.
    pub(super) async fn connect(plan: &Plan) -> Result<Self, Failure> {
        let tokens = match plan.properties.authority() {
            Some(authority) => Some(Arc::new(Tokens::begin(authority.clone()).await?)),
            None => None,
        };
        let mut config = plan.properties.client_config(None)?;
        let mut batching = started(&plan.shutdown, &plan.running, &config, &tokens).await?;
        batching.answered(plan).await?;
        let (asked, limit) = match &plan.topic {
            // Only a client of its own can ask, and that cannot fetch tokens.
            Some(topic) if tokens.is_none() => (true, size_limit(plan, &config, topic).await),
            Some(_) | None => (false, None),
        };
        let follows_the_topic = asked && plan.properties.leaves_the_limit_to_the_topic();
        if follows_the_topic && limit.is_some_and(|limit| limit != MESSAGE_BYTES_DEFAULT) {
            config = plan.properties.client_config(limit)?;
            batching = started(&plan.shutdown, &plan.running, &config, &tokens).await?;
        }
        Ok(Client {
            batching,
            single: OnceCell::new(),
            config,
            tokens,
            message_bytes_max: limit,
            limit_asked_at: follows_the_topic.then(Instant::now),
            is_retired: AtomicBool::new(false),
            shutdown: plan.shutdown.clone(),
            running: plan.running.clone(),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { message_bytes_max: self.message_bytes_max }
    }

    /// The next delivery needs another client.
    pub(super) fn is_over(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed) || self.batching.is_over()
    }

    /// Lets whoever sends through it finish, and nobody else begin. Never waits, unlike whoever makes the next one.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// Nothing comes back from the brokers: what it holds is handed back, so that none of it is written later.
    pub(super) fn abandon(&self) {
        self.retire();
        for producer in [Some(&self.batching), self.single.get()].into_iter().flatten() {
            producer.health().abandon("nothing was confirmed within the sink's timeout");
        }
    }

    /// Why it is over, or what went wrong last.
    pub(super) fn failure(&self) -> Failure {
        let trouble = self.batching.health().trouble();
        let trouble = trouble.unwrap_or_else(|| {
            Trouble::new(RDKafkaErrorCode::AllBrokersDown, "every broker closed its connection")
        });
        trouble.failure()
    }

    /// How many records were ever confirmed: where none was while one waited in vain, the client is stuck.
    pub(super) fn confirmed(&self) -> u64 {
        self.batching.health().confirmed()
    }

    /// It asked for the topic's limit long enough ago for somebody to have changed it.
    pub(super) fn may_not_know_the_limit(&self) -> bool {
        self.limit_asked_at.is_some_and(|at| at.elapsed() >= LIMIT_BELIEVED)
    }

    /// Sends it in a batch with others.
    pub(super) async fn send(&self, record: Record<'_>) -> Result<(), Verdict> {
        let verdict = |is_of_a_batch| move |code| Verdict { code, is_of_a_batch };
        let reported = self.batching.enqueue(record).map_err(verdict(false))?;
        report(reported).await.map_err(verdict(true))
    }

    /// Sends it in a batch of its own, so that what comes back is about it alone.
    pub(super) async fn send_alone(&self, record: Record<'_>) -> Report {
        let single = self.single.get_or_try_init(|| async {
            let mut config = self.config.clone();
            Properties::send_singly(&mut config);
            started(&self.shutdown, &self.running, &config, &self.tokens).await
        });
        let single = single.await.map_err(|_| RDKafkaErrorCode::PurgeQueue)?;
        report(single.enqueue(record)?).await
    }

    /// Waits until everything that was handed over is confirmed, but not for long: the rest is delivered again after the
    /// next start.
    pub(super) async fn flush(&self) {
        let flushed = async {
            for producer in [Some(&self.batching), self.single.get()].into_iter().flatten() {
                while producer.holds_any() {
                    tokio::time::sleep(FLUSH_POLL).await;
                }
            }
        };
        let _ = tokio::time::timeout(FLUSH_MAX, flushed).await;
    }
}

/// Work that librdkafka may block on for seconds, on a thread that nobody who stops waits for.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    // Where no thread can be had, the receiver hears that nothing comes.
    let _ = std::thread::Builder::new().name("kafka-ask".to_owned()).spawn(move || done.send(work()));
    result
}

async fn started(
    shutdown: &Shutdown,
    running: &TaskTracker,
    config: &ClientConfig,
    tokens: &Option<Arc<Tokens>>,
) -> Result<Producer, Failure> {
    let (config, tokens, token) = (config.clone(), tokens.clone(), running.token());
    let started = shutdown.spawn_blocking(Phase::Lanes, move || Producer::start(&config, tokens, token));
    match started.await {
        Ok(started) => started.map_err(|trouble| trouble.failure()),
        Err(_) => Err(Failure::new(Reason::SinkError, "the client could not be started")),
    }
}

impl Producer {
    /// Waits for the first answer; ends early when every broker failed.
    async fn answered(&self, plan: &Plan) -> Result<(), Failure> {
        let asked = aside(self.question(plan.topic.clone(), plan.connect_timeout));
        let mut state = self.health().state();
        let is_bad = state.wait_for(|state| match state {
            State::Well => false,
            // A name may stand for several addresses; librdkafka tries one at a time, the next one soon.
            State::Down(_) => self.health().trouble().is_some_and(|trouble| !trouble.may_pass_at_once()),
            State::Doomed | State::Purged => true,
        });
        let answer = tokio::select! {
            answer = asked => answer.unwrap_or(Err(RDKafkaErrorCode::Fail)),
            _ = is_bad => Err(RDKafkaErrorCode::AllBrokersDown),
        };
        if answer.is_ok() {
            self.health().is_well_again();
        }
        answer.map_err(|code| match (meaning(code), &plan.topic) {
            (Meaning::Missing, Some(topic)) => missing(topic),
            (Meaning::Forbidden, Some(topic)) => forbidden(topic),
            (Meaning::Barred, _) => barred(code),
            // The last event says why; the question itself only waited in vain.
            _ => match self.health().trouble() {
                Some(trouble) => trouble.failure(),
                None => Trouble::new(code, "the brokers do not answer").failure(),
            },
        })
    }

    fn question(
        &self,
        topic: Option<String>,
        timeout: Duration,
    ) -> impl FnOnce() -> Result<(), RDKafkaErrorCode> + Send + 'static {
        let producer = self.inner();
        move || {
            let producer = producer.upgrade().ok_or(RDKafkaErrorCode::PurgeQueue)?;
            let client = producer.client();
            let Some(topic) = topic else {
                // Known as soon as a broker has answered anything; metadata of every topic would be too much to ask.
                let answered = client.fetch_cluster_id(timeout).is_some();
                return if answered { Ok(()) } else { Err(RDKafkaErrorCode::OperationTimedOut) };
            };
            let metadata = client.fetch_metadata(Some(&topic), timeout);
            let metadata =
                metadata.map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))?;
            match metadata.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from) {
                Some(code)
                    if matches!(meaning(code), Meaning::Missing | Meaning::Forbidden | Meaning::Barred) =>
                {
                    Err(code)
                }
                // A leader that is just being elected is no reason not to begin.
                Some(_) | None => Ok(()),
            }
        }
    }
}

/// The topic is not there.
pub(super) fn missing(topic: &str) -> Failure {
    Failure::new(Reason::DestinationMissing, format!("topic {topic:.100} does not exist; create it"))
}

/// The topic may not be written to, or not even be seen.
pub(super) fn forbidden(topic: &str) -> Failure {
    let detail = format!("the user may not write to topic {topic:.100}; allow it");
    Failure::new(Reason::NotAuthorized, detail)
}

/// The user may not write at all, or not as this client does.
pub(super) fn barred(code: RDKafkaErrorCode) -> Failure {
    let detail =
        format!("the user may not write with confirmation by all replicas, idempotently; allow it: {code}");
    Failure::new(Reason::NotAuthorized, detail)
}

/// The most bytes of a batch that the topic takes. Where the user may not ask, or nobody answers, it is not known.
async fn size_limit(plan: &Plan, config: &ClientConfig, topic: &str) -> Option<u64> {
    let (mut config, topic, runtime) = (config.clone(), topic.to_owned(), Handle::current());
    // What is left of a short timeout is for the record.
    let timeout = LIMIT_TIMEOUT.min(plan.connect_timeout / 2);
    // It writes nothing, so it needs no identity as a producer.
    config.set("enable.idempotence", "false");
    let running = plan.running.token();
    let asked = aside(move || {
        // Until the admin client is destroyed, too.
        let _running = running;
        let admin: AdminClient<DefaultClientContext> = AdminClient::from_config(&config).ok()?;
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let resource = ResourceSpecifier::Topic(&topic);
        let described = admin.describe_configs([&resource], &options);
        runtime
            .block_on(described)
            .ok()?
            .into_iter()
            .next()?
            .ok()?
            .get("max.message.bytes")?
            .value
            .as_deref()?
            .parse()
            .ok()
    });
    tokio::time::timeout(timeout, asked).await.ok()?.ok().flatten()
}
