//! The public listener: bounds every request, has its source authenticate and read it, and answers only after the journal.
//! Holds: R1 (every 2xx follows `Journal::append` or `DeadLetters::quarantine`), R5 (full journal: 503), R8.
//! Absent on purpose: what the bytes mean (`source`), what becomes of them (`dispatch`).

pub use readmit::{ReadmitError, readmit};

use crate::config::{ByteSize, Period};
use crate::dead_letter::DeadLetters;
use crate::journal::Journal;
use crate::router::Router;
use crate::shutdown::{Phase, Shutdown};
use crate::source::Sources;
use crate::telemetry::metrics::ingress::ListenerMeter;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tracing::info;

mod alarm;
mod body;
mod handler;
mod inflate;
mod kept;
mod listener;
mod rate;
mod readmit;
mod reply;
mod stream;

use handler::Handler;
use listener::Listener;

/// `[ingress]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port.
    pub listen: SocketAddr,
    /// The most bytes of a body, as sent and inflated.
    pub body_max: ByteSize,
    /// The most times larger a compressed body may become.
    pub inflate_ratio_max: u32,
    /// The most header fields of a request.
    pub headers_max: u32,
    /// The longest a request's head may take, and the longest a connection may be idle.
    pub header_timeout: Period,
    /// The longest a request's body may take.
    pub body_timeout: Period,
    /// The most requests in work at once; beyond: 503 with Retry-After.
    pub requests_max: u32,
    /// The most connections at once; beyond, new ones wait unaccepted.
    pub connections_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            body_max: ByteSize::mib(1),
            inflate_ratio_max: 100,
            headers_max: 100,
            header_timeout: Period::secs(10),
            body_timeout: Period::secs(30),
            requests_max: 1024,
            connections_max: 4096,
        }
    }
}

/// What the listener works with.
#[derive(Clone)]
pub struct Parts {
    /// By name.
    pub sources: Sources,
    /// Where events go.
    pub journal: Journal,
    /// Where unreadable bodies go.
    pub dead_letters: DeadLetters,
    /// Only to count events that no route takes.
    pub router: Router,
}

/// The listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (ingress.listen): {source}")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// A bound and running listener; it stops with [`crate::shutdown::Phase::Ingress`].
pub struct Ingress {
    /// The address it really listens on (the port may have been 0).
    pub address: SocketAddr,
}

impl Ingress {
    /// Binds the address and starts serving.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn start(config: Config, parts: Parts, shutdown: &Shutdown) -> Result<Ingress, BindError> {
        let bind_error = |source| BindError { address: config.listen, source };
        let socket = TcpListener::bind(config.listen).await.map_err(bind_error)?;
        let address = socket.local_addr().map_err(bind_error)?;
        let meter = Arc::new(ListenerMeter::started());
        let handler = Handler::new(&config, parts, Arc::clone(&meter), shutdown);
        let listener = Arc::new(Listener::new(&config, handler, meter, shutdown));
        drop(shutdown.spawn(Phase::Ingress, listener.run(socket)));
        info!(%address, "the ingress listens");
        Ok(Ingress { address })
    }
}
