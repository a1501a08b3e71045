//! The operators' listener: health, metrics, and the operations that the command line calls too.
//! Holds: R8 (no secret in any answer; no payload in any answer but the export of dead letters, which exists for that,
//! and captures where the operator asks for bodies),
//! and a bound on everything a client can make it do: connections, head, body, time and exports at once.
//! Absent on purpose: state; every answer is read from the parts at the moment of the question.
//!
//! Endpoints: `/livez`, `/readyz` (open to all); `/metrics`, `/api/v1/status`, `/api/v1/sources[/{source}/capture]`,
//! `/api/v1/sinks[/{sink}/pause|resume]`, `/api/v1/dead-letters[/{id}|/replay|/discard|/export]`, `/api/v1/log-level`.

mod capture;
mod export;
mod guard;
mod letters;
mod listener;
mod operations;
mod problem;
mod status;

#[cfg(test)]
mod tests;

use crate::clock;
use crate::config::{Live, Secret};
use crate::dead_letter::DeadLetters;
use crate::dispatch::{Dispatcher, LaneStatus, NoSuchSink};
use crate::envelope::{Envelope, SourceName};
use crate::journal::Journal;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::logging::LogLevel;
use crate::telemetry::metrics;
use crate::telemetry::prometheus::Exposition;
use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};

/// The most bytes of a request's body; a filter that names a thousand letters fits.
pub const REQUEST_BODY_BYTES_MAX: usize = 128 * 1024;
/// The longest an operation may take before its answer begins.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The most exports at once; each holds a connection for as long as its reader takes.
pub const EXPORTS_MAX: usize = 4;
/// The most captures at once; each holds a connection for as long as somebody watches.
pub const CAPTURES_MAX: usize = 4;

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port.
    pub listen: SocketAddr,
    /// The bearer token; required when `listen` is not on loopback.
    pub token: Option<Secret>,
}
impl Default for Config {
    fn default() -> Self {
        Config { listen: SocketAddr::from(([127, 0, 0, 1], 8081)), token: None }
    }
}

/// Gives a quarantined body to its source once more.
pub trait Readmit: Send + Sync {
    /// Reads the body with today's configuration and appends what it becomes; the error is a sentence without payload.
    fn readmit(
        &self,
        source: SourceName,
        body: Bytes,
        content_type: Option<String>,
    ) -> BoxFuture<'_, Result<(), String>>;
}

/// What the listener asks of the lanes.
pub trait Lanes: Send + Sync {
    /// Every lane, by name.
    fn status(&self) -> Vec<LaneStatus>;
    /// Stops a lane's deliveries after those in flight.
    ///
    /// # Errors
    /// [`NoSuchSink`].
    fn pause(&self, sink: &str) -> Result<(), NoSuchSink>;
    /// Lets a paused lane go on, and an away one probe at once.
    ///
    /// # Errors
    /// [`NoSuchSink`].
    fn resume(&self, sink: &str) -> Result<(), NoSuchSink>;
}

impl Lanes for Dispatcher {
    fn status(&self) -> Vec<LaneStatus> {
        Dispatcher::status(self)
    }
    fn pause(&self, sink: &str) -> Result<(), NoSuchSink> {
        Dispatcher::pause(self, sink)
    }
    fn resume(&self, sink: &str) -> Result<(), NoSuchSink> {
        Dispatcher::resume(self, sink)
    }
}

/// Shows the next requests of a source.
pub trait Watch: Send + Sync {
    /// `count` lines of JSON without secrets, one a request, with the bodies' values only where asked for; in between
    /// lines that say nothing or what was missed. `None` where there is no such source.
    fn watch(&self, source: &str, with_bodies: bool, count: u64) -> Option<BoxStream<'static, Bytes>>;
}

/// A configured source as `status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct SourceSummary {
    /// Its name.
    pub name: SourceName,
    /// Its dialect.
    pub kind: &'static str,
    /// Its path at the ingress, the secret masked: `/hooks/whatsapp/***`.
    pub path: String,
    /// Something proves who sends.
    pub authenticated: bool,
}

/// What the listener works with.
#[derive(Clone)]
pub struct Parts {
    /// For status and health.
    pub journal: Journal,
    /// For status, pause and resume.
    pub lanes: Arc<dyn Lanes>,
    /// For the dead-letter operations.
    pub dead_letters: DeadLetters,
    /// The configured sources.
    pub sources: Vec<SourceSummary>,
    /// For the replay of quarantined bodies.
    pub readmit: Arc<dyn Readmit>,
    /// For captures.
    pub watch: Arc<dyn Watch>,
    /// Where the disk holds up a webhook for longer, it is refused: no more should come.
    pub stall_max: Duration,
    /// False before the ingress listens and from the first moment of a shutdown.
    pub accepting: Arc<AtomicBool>,
    /// For `/metrics`.
    pub metrics: Exposition,
    /// For reading and changing it.
    pub log_level: LogLevel,
    /// An event as one structured CloudEvent, for the export.
    pub encode: fn(&Envelope) -> Vec<u8>,
}

/// A bound and running listener; it stops with [`Phase::Admin`].
pub struct Admin {
    /// The address it really listens on (the port may have been 0).
    pub address: SocketAddr,
    desk: Arc<Desk>,
}

/// The listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (admin.listen): {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// What every handler sees.
struct Desk {
    parts: Parts,
    token: Live<Option<Arc<Secret>>>,
    started: Instant,
    scrapes: Mutex<()>,
    exports: Arc<Semaphore>,
    captures: Arc<Semaphore>,
}

impl Admin {
    /// Binds the address and starts serving.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn start(config: Config, parts: Parts, shutdown: &Shutdown) -> Result<Admin, BindError> {
        let bind_error = |source| BindError { address: config.listen, source };
        let listener = tokio::net::TcpListener::bind(config.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        metrics::process::started_at(clock::now());
        let desk = Arc::new(Desk {
            parts,
            token: Live::new(config.token.map(Arc::new)),
            started: Instant::now(),
            scrapes: Mutex::default(),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            captures: Arc::new(Semaphore::new(CAPTURES_MAX)),
        });
        let serving = listener::serve(listener, routes(Arc::clone(&desk)), shutdown.clone());
        shutdown.spawn(Phase::Admin, serving);
        Ok(Admin { address, desk })
    }

    /// Requests from now on need this token; whether one is needed stays as it was at the start.
    pub fn renew_token(&self, token: Option<&Secret>) {
        if let Some(token) = token.filter(|_| self.desk.token.get().is_some()) {
            self.desk.token.set(Some(Arc::new(token.clone())));
        }
    }
}

fn routes(desk: Arc<Desk>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(status::metrics))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/sources", get(operations::sources))
        .route("/api/v1/sources/{source}/capture", get(capture::capture))
        .route("/api/v1/sinks", get(operations::sinks))
        .route("/api/v1/sinks/{sink}/pause", post(operations::pause))
        .route("/api/v1/sinks/{sink}/resume", post(operations::resume))
        .route("/api/v1/dead-letters", get(letters::list))
        .route("/api/v1/dead-letters/replay", post(letters::replay))
        .route("/api/v1/dead-letters/discard", post(letters::discard))
        .route("/api/v1/dead-letters/export", get(export::export))
        .route("/api/v1/dead-letters/{id}", get(letters::show))
        .route("/api/v1/log-level", get(operations::log_level).put(operations::set_log_level))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&desk), guard::admit));
    Router::new()
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .merge(guarded)
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(axum::extract::DefaultBodyLimit::max(REQUEST_BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(guard::bound))
        .with_state(desk)
}
