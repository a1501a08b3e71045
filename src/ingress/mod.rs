//! The public listener: bounds every request, has its source authenticate and read it, and answers only after the journal.
//! Holds: R1 (a 2xx that promises takes the proof of `Journal::append` or `DeadLetters::quarantine`), R5 (full journal: 503), R8.
//! Absent on purpose: what the bytes mean (`source`), what becomes of them (`dispatch`).

pub use address::{Address, Endpoint, InvalidAddress};
pub use capture::Captures;
pub use kept::keep_own;
pub use passed::PassedSockets;
pub use readmit::{ReadmitError, readmit};
pub use sockets::{InvalidMode, SocketMode};

use crate::config::{ByteSize, HttpUrl, Network, OneOrMany, Period};
use crate::dead_letter::DeadLetters;
use crate::journal::Journal;
use crate::router::Router;
use crate::shutdown::{Phase, Shutdown};
use crate::source::Sources;
use crate::telemetry::metrics::ingress::ListenerMeter;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use tracing::info;

mod address;
mod alarm;
mod body;
mod capture;
#[cfg(test)]
mod fuzz_tests;
mod handler;
mod inflate;
mod kept;
mod limits;
mod listener;
mod passed;
mod peer;
mod rate;
mod readmit;
mod reply;
mod sockets;
mod stream;
pub mod tls;

use handler::Handler;
use listener::Listener;
use sockets::Sockets;
use tls::{Tls, TlsProblem};

/// `[ingress]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where; with `tls` every address speaks TLS except a Unix socket.
    pub listen: OneOrMany<Address>,
    /// Where senders reach the listener from outside, before `/hooks/NAME`; absent: nobody was told.
    pub public_url: Option<HttpUrl>,
    /// Where plain HTTP is spoken beside TLS.
    pub plain_listen: Vec<Address>,
    /// Who may connect to a Unix socket.
    pub socket_mode: SocketMode,
    /// Certificate and clients' certificates; without them plain HTTP is spoken.
    pub tls: tls::Config,
    /// Whose word counts on whom they forward for.
    pub trusted_proxies: Vec<Network>,
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
    /// The longest a request waits for the disk; beyond: 503 with Retry-After, and the event may yet be kept. The daemon
    /// is not ready while a sync lasts longer.
    pub store_timeout: Period,
    /// The most requests in work at once; beyond: 503 with Retry-After.
    pub requests_max: u32,
    /// The most bytes of bodies in memory at once; beyond: 503 with Retry-After. Room for four of the largest bodies
    /// there is in any case.
    pub bodies_max: ByteSize,
    /// The most connections at once; beyond, new ones wait unaccepted.
    pub connections_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: OneOrMany::one(Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))),
            public_url: None,
            plain_listen: Vec::new(),
            socket_mode: SocketMode::default(),
            tls: tls::Config::default(),
            trusted_proxies: Vec::new(),
            body_max: ByteSize::mib(1),
            inflate_ratio_max: 100,
            headers_max: 100,
            header_timeout: Period::secs(10),
            body_timeout: Period::secs(30),
            store_timeout: Period::secs(8),
            requests_max: 1024,
            bodies_max: ByteSize::mib(64),
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
    /// Where operators watch requests.
    pub captures: Captures,
    /// What `systemd:NAME` names.
    pub sockets: PassedSockets,
}

/// The ingress could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is not to be had.
    #[error("cannot listen on {address} ({key}): {source}")]
    Bind {
        /// The key that names the address.
        key: &'static str,
        /// The address asked for.
        address: Address,
        /// What the system said.
        source: std::io::Error,
    },
    /// The files of `[ingress.tls]` cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
}

impl Config {
    /// Every place to listen at and what is spoken there, in the order of the configuration.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let has_tls = self.tls.is_on();
        let listen = self.listen.iter().map(|address| Endpoint {
            address: address.clone(),
            speaks_tls: has_tls && !matches!(address, Address::Unix(_)),
        });
        let plain = self.plain_listen.iter().cloned();
        listen.chain(plain.map(|address| Endpoint { address, speaks_tls: false })).collect()
    }
}

/// A bound and running listener; it stops with [`crate::shutdown::Phase::Ingress`].
pub struct Ingress {
    /// Where it really listens (a port may have been 0), as [`Config::endpoints`]; never empty.
    pub endpoints: Vec<Endpoint>,
    listener: Arc<Listener>,
}

impl Ingress {
    /// Binds the addresses and starts serving.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, parts: Parts, shutdown: &Shutdown) -> Result<Ingress, StartError> {
        let bound = Sockets::bind(&config.endpoints(), config.socket_mode, &parts.sockets).await;
        let (sockets, endpoints) = bound.map_err(|(address, source)| {
            let is_plain = config.plain_listen.contains(&address);
            let key = if is_plain { "ingress.plain_listen" } else { "ingress.listen" };
            StartError::Bind { key, address, source }
        })?;
        let tls = Tls::start(&config.tls, shutdown)?;
        let meter = Arc::new(ListenerMeter::started());
        let handler = Handler::new(&config, parts, Arc::clone(&meter), shutdown);
        let listener = Arc::new(Listener::new(&config, handler, tls, meter, shutdown));
        drop(shutdown.spawn(Phase::Ingress, Arc::clone(&listener).run(sockets)));
        for endpoint in &endpoints {
            info!(url = %endpoint, "the ingress listens");
        }
        Ok(Ingress { endpoints, listener })
    }

    /// Requests from now on must prove themselves by the secrets of these sources, as far as they are the same sources;
    /// limits stay as they were at the start.
    pub fn renew_sources(&self, sources: Sources) {
        self.listener.renew_sources(sources);
    }

    /// The first address with a port; none where it listens at Unix sockets only.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoints.iter().find_map(|endpoint| endpoint.address.tcp())
    }
}
