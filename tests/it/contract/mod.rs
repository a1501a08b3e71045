//! The contract of the sinks: one table of cases, run for every row of `SINK_TYPES` through the whole daemon.
//! Holds: every kind has a rig; what a rig cannot do, it says in a sentence, so that no case is left out silently.
//!
//! To add a kind: `contract/KIND.rs` with a type that implements [`Rig`], its `mod` line here and its line in `suite.rs`.
//! The rig is the other side, not the sink: it starts the broker, says what stands in the configuration, and reads back
//! what arrived, by other means than our own client where there are some.

pub mod amqp;
pub mod bench;
mod cases;
pub mod file;
pub mod http;
pub mod jetstream;
pub mod kafka;
mod nats;
mod stdout;
mod suite;

use crate::support::proxy::Proxy;
use hookbus::sink::SINK_TYPES;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, LazyLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The name of the sink under test in every configuration.
pub const SINK: &str = "orders";

/// What a case needs the other side to be when it begins. Names are new for every start, so that a broker that nobody
/// takes down can serve several cases at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setup {
    /// Takes events in the order they come (one partition, say).
    Plain,
    /// The same, and the case will take it down: `goes_down`, `comes_back`. It is up at first.
    Alone,
    /// The same as plain, reached only through `proxy`, which passes at first.
    Proxied,
    /// Both `Alone` and `Proxied`: the campaign does everything to it.
    Disturbed,
    /// Connecting works, but the stream, topic, exchange or URL is not there before `create_destination`.
    Missing,
    /// The sink's secret, in a file, is wrong before `correct_credentials`.
    WrongCredentials,
    /// Lets the sink in, but its user may not write before `grant_permission`; one destination for all events.
    Forbidden,
    /// Takes events, but none that carries what `poison` says.
    Choosy,
    /// Takes messages of at most 256 KiB.
    Limited,
    /// Speaks TLS with a certificate of a private authority; the sink trusts that one, or another.
    Tls { trusted: bool },
    /// Lets in only who authenticates by this method of `AUTHENTICATIONS`; the sink does, with the right credentials.
    Authenticated(&'static str),
}

/// What not every kind of sink can be asked for. A rig says in `CANNOT` why it is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// [`Setup::Alone`]: is away at the start and then comes; nothing was taken before that could be kept.
    AwayAtStart,
    /// [`Setup::Alone`]: is killed and comes back with all that it had confirmed.
    Restart,
    /// [`Setup::Proxied`]
    Silence,
    /// [`Setup::Missing`]
    Missing,
    /// [`Setup::WrongCredentials`]
    Credentials,
    /// [`Setup::Forbidden`]
    Permission,
    /// [`Setup::Choosy`]
    Poison,
    /// [`Setup::Limited`]
    Limit,
    /// [`Setup::Tls`]
    Tls,
    /// [`Setup::Authenticated`]
    Authentication,
}

/// Where a protocol puts what is not the body, as names of [`Arrived::headers`].
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Before the name of an attribute in binary mode.
    pub prefix: &'static str,
    /// Are attributes percent-encoded (HTTP, NATS), or plain UTF-8?
    pub percent_encoded: bool,
    /// Where structured mode says `application/cloudevents+json`.
    pub structured_type: &'static str,
    /// Where binary mode says `datacontenttype`.
    pub binary_type: &'static str,
    /// Where the event's id stands for the broker in both modes, where it does.
    pub identity: Option<&'static str>,
}

/// One event as the other side has it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Arrived {
    pub body: Vec<u8>,
    /// Headers, and properties under the name of the protocol (`content_type`, `message_id`).
    pub headers: BTreeMap<String, String>,
    /// The message key or partition key, where the protocol has one.
    pub key: Option<String>,
}

/// The other side of one kind of sink. Dropping it ends what it started.
pub trait Rig: Sized {
    /// The name in `SINK_TYPES`.
    const KIND: &'static str;
    /// Absent where there is nothing but a body.
    const BINDING: Option<Binding>;
    /// What it cannot be asked for, and why that is no gap.
    const CANNOT: &'static [(Need, &'static str)] = &[];
    /// The reason of a lane whose other side is down.
    const REASON_DOWN: &'static str = "connection_refused";
    /// The reason of a lane whose destination is missing.
    const REASON_MISSING: &'static str = "destination_missing";
    /// The reason of a poison event's dead letter.
    const REASON_POISON: &'static str = "content_refused";
    /// Whether it says on connect how large a message may be, and [`Setup::Limited`] says so.
    const TELLS_LIMIT: bool = false;
    /// Every method by which a sink of this kind can authenticate and that the broker on this machine can check.
    const AUTHENTICATIONS: &'static [&'static str] = &[];

    /// Starts, or takes a part of what is running already, and waits until it is ready. A setup that a need in `CANNOT`
    /// stands for is never asked for.
    async fn start(setup: Setup) -> Self;

    /// `[sinks.orders.KIND]` with its keys, and nothing else: the common keys are the case's.
    fn table(&self) -> String;

    /// Everything that the other side has now, in its order (per partition where it has some). What was confirmed must
    /// be there: nobody waits for it.
    async fn arrived(&self) -> Vec<Arrived>;

    /// Where the daemon's standard output goes.
    fn stdout(&self) -> Stdio {
        Stdio::null()
    }

    /// Dies as by SIGKILL, and is gone when this resolves.
    async fn goes_down(&mut self) {
        missing::<Self>("goes_down")
    }

    /// Is ready again at the same address with what it had.
    async fn comes_back(&mut self) {
        missing::<Self>("comes_back")
    }

    /// Its process stands still as by SIGSTOP, until it goes on.
    fn stands_still(&self) {
        missing::<Self>("stands_still")
    }

    /// See `stands_still`.
    fn goes_on(&self) {
        missing::<Self>("goes_on")
    }

    /// The proxy of [`Setup::Proxied`].
    fn proxy(&self) -> &Proxy {
        missing::<Self>("proxy")
    }

    /// Makes the destination of [`Setup::Missing`].
    async fn create_destination(&mut self) {
        missing::<Self>("create_destination")
    }

    /// Writes the right secret into the sink's file.
    async fn correct_credentials(&mut self) {
        missing::<Self>("correct_credentials")
    }

    /// Lets the user of [`Setup::Forbidden`] write.
    async fn grant_permission(&mut self) {
        missing::<Self>("grant_permission")
    }

    /// Members that make a webhook's body one that [`Setup::Choosy`] refuses for good. The source reads the attributes
    /// `type`, `subject` and `partitionkey` from the members `type`, `subject` and `key`.
    fn poison(&self) -> Value {
        missing::<Self>("poison")
    }
}

fn missing<R: Rig>(what: &str) -> ! {
    panic!("the rig of {} neither has `{what}` nor says in CANNOT why not", R::KIND)
}

/// Whether the rig can; where not, the reason is said.
pub fn can<R: Rig>(need: Need) -> bool {
    let why = R::CANNOT.iter().find(|(cannot, _)| *cannot == need).map(|(_, why)| *why);
    if let Some(why) = why {
        println!("{}: {why}", R::KIND);
    }
    why.is_none()
}

/// How many brokers of their own run at once: machines with two cores do not run many.
const OWN_BROKERS_MAX: usize = 2;
static OWN_BROKERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(OWN_BROKERS_MAX)));

tokio::task_local! {
    /// Leaves for who has all of them.
    static ALL_BROKERS: Arc<Semaphore>;
}

/// The leave to start a broker that no other case shares, to be kept as long as the broker.
pub async fn own_broker() -> OwnedSemaphorePermit {
    let places = ALL_BROKERS.try_with(Arc::clone).unwrap_or_else(|_| Arc::clone(&OWN_BROKERS));
    places.acquire_owned().await.expect("it is never closed")
}

/// Runs something that needs a broker of every kind at once, while nobody else has one of their own.
pub async fn with_all_brokers<T>(run: impl Future<Output = T>) -> T {
    let all = u32::try_from(OWN_BROKERS_MAX).expect("it is small");
    let _alone = Arc::clone(&OWN_BROKERS).acquire_many_owned(all).await.expect("it is never closed");
    ALL_BROKERS.scope(Arc::new(Semaphore::new(SINK_TYPES.len())), run).await
}

/// A name that no other case has, for topics, streams, exchanges and queues: `contract-3`.
pub fn unique_name() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    format!("contract-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}
