//! The sinks: how one event is handed to something outside, and what exactly came back.
//! Holds: an `Outcome` says what the other side said; "delivered" is only what it has confirmed.
//! Absent on purpose: retries, breakers and order (`dispatch`), what is on disk (`journal`).

mod addresses;
#[cfg(feature = "amqp")]
mod amqp;
mod cloudevents;
mod configured;
mod connection;
mod file;
#[cfg(test)]
mod fuzz_tests;
mod gather;
mod http;
#[cfg(feature = "nats")]
mod jetstream;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
mod outcome;
mod signature;
mod stdout;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod template;
#[cfg(test)]
mod testing;
mod tls;

pub use cloudevents::structured;
pub use configured::{CommonConfig, ConfiguredSink, IN_FLIGHT_MAX, OnBacklogFull, Order, RetryConfig};
pub use outcome::{Failure, Outcome, Reason};

use crate::config::{ByteSize, ConfigError, ConfigErrors, Period, Section};
use crate::envelope::{Envelope, SinkName};
use crate::shutdown::Shutdown;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a sink learnt about the other side on connecting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Limits {
    /// The most bytes of one message it takes, where it says so.
    pub message_bytes_max: Option<u64>,
}

/// One place events are delivered to. A new kind is a file under `sink/` and a row in [`SINK_TYPES`].
/// `deliver` is called concurrently, up to the lane's window; a sink that batches gathers the calls itself.
pub trait Sink: Send + Sync {
    /// Hands over one event and resolves when the other side has confirmed or refused it, at the latest after the
    /// sink's `timeout`. Cancelling the call leaves the outcome unknown: the event may have arrived. Never panics
    /// on an event's content.
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome>;
    /// Connects without delivering anything, for `check --connect`.
    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>>;
    /// Ends what was begun and releases what is held; no `deliver` is in flight.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// Reads secrets and certificates again before the next delivery. A kind that reads them for every connection has
    /// nothing to do: what they opened goes on.
    ///
    /// # Errors
    /// What cannot be read; the ones from before stay.
    fn renew(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// The form in which an event leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The whole event as one JSON document.
    #[default]
    Structured,
    /// The sender's bytes as the body, attributes as headers.
    Binary,
}

impl Format {
    /// As it is written in the configuration.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Format::Structured => "structured",
            Format::Binary => "binary",
        }
    }
}

/// What a sink is built with besides its own keys.
#[derive(Clone, Debug)]
pub struct Context {
    /// Its name.
    pub name: SinkName,
    /// The form of the events.
    pub format: Format,
    /// How long one delivery may take.
    pub timeout: Period,
    /// Where relative paths of files begin.
    pub data_dir: PathBuf,
}

/// A sink's own keys, read and checked; connects to nothing yet.
pub trait SinkConfig: Send + Sync + std::fmt::Debug {
    /// Makes the sink; it connects on first use. Called inside the tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] where a file it needs (a certificate, say) cannot be read.
    fn build(&self, context: Context, shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError>;

    /// The file that the sink alone may write, where it writes one.
    fn file(&self, _data_dir: &Path) -> Option<PathBuf> {
        None
    }
}

/// A sink could not be made from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sink {sink}: {problem}")]
pub struct BuildError {
    /// Which.
    pub sink: SinkName,
    /// What is wrong and what to do, without secrets.
    pub problem: String,
}

/// What a kind of sink reads from its section: keys with defaults, and what their types cannot say.
trait OwnKeys: SinkConfig + DeserializeOwned + Serialize + Default + 'static {
    /// Adds an error for every value that cannot be used.
    fn check(&self, section: &Section, errors: &mut Vec<ConfigError>);
}

/// A row of the table of sinks.
pub struct SinkType {
    /// The key of its section: `[sinks.N.NAME]`.
    pub name: &'static str,
    /// The forms it can write.
    pub formats: &'static [Format],
    /// How many deliveries are in flight at the most where `in_flight_max` is not set: many where a confirmation
    /// takes long and covers many, fewer where each is a request of its own.
    pub in_flight_default: usize,
    /// Reads and checks its section.
    pub parse: fn(&Section) -> Result<Box<dyn SinkConfig>, ConfigErrors>,
    /// Its own keys with their defaults, for documents and tests.
    pub defaults: fn() -> serde_json::Value,
}

impl SinkType {
    const fn of<C: OwnKeys>(name: &'static str, formats: &'static [Format]) -> Self {
        let in_flight_default = configured::IN_FLIGHT_DEFAULT;
        SinkType { name, formats, in_flight_default, parse: parse::<C>, defaults: defaults::<C> }
    }

    /// The same for a broker's client, which pipelines.
    #[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
    const fn pipelined(self) -> Self {
        SinkType { in_flight_default: configured::IN_FLIGHT_PIPELINED, ..self }
    }
}

fn parse<C: OwnKeys>(section: &Section) -> Result<Box<dyn SinkConfig>, ConfigErrors> {
    let config = section.extract::<C>()?;
    let mut errors = Vec::new();
    config.check(section, &mut errors);
    if errors.is_empty() { Ok(Box::new(config)) } else { Err(ConfigErrors(errors)) }
}

fn defaults<C: OwnKeys>() -> serde_json::Value {
    serde_json::to_value(C::default()).expect("a configuration has text keys only")
}

/// Every kind of sink, alphabetical.
pub static SINK_TYPES: &[SinkType] = &[
    #[cfg(feature = "amqp")]
    amqp::TYPE,
    file::TYPE,
    http::TYPE,
    #[cfg(feature = "nats")]
    jetstream::TYPE,
    #[cfg(feature = "kafka")]
    kafka::TYPE,
    #[cfg(feature = "nats")]
    nats::TYPE,
    stdout::TYPE,
];

/// The most bytes of an answer that a sink reads before it looks away.
pub const ANSWER_BYTES_MAX: ByteSize = ByteSize::kib(64);
