//! TLS at the ingress: whose certificate it shows, which clients' it takes, and the handshake.
//! Holds: a connection is served with what the files held when it was accepted; a change of the files touches no open
//! one; R8 (an error names the key and the file, never what is in it).
//! Absent on purpose: HTTP (`listener`), what a client's names are good for (`source`).

mod material;
mod names;
mod watch;

pub use material::{TlsProblem, server_certificate};
pub use watch::{Findings, inspect};

use super::stream::{Socket, Wire};
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::metrics::tls::{HandshakeFailure, TlsMeter};
use material::Material;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::debug;
use watch::Watch;

/// `[ingress.tls]`; without `cert` there is no TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The certificate chain in PEM form, the server's own first.
    pub cert: Option<PathBuf>,
    /// Its private key in PEM form.
    pub key: Option<PathBuf>,
    /// The authorities whose client certificates are taken, in PEM form; absent: no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client may come without one.
    pub client_certificates: ClientCertificates,
    /// The oldest version of the protocol that is spoken.
    pub min_version: MinVersion,
}

/// `ingress.tls.client_certificates`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// A client may have one; one that is not valid is refused.
    #[default]
    Optional,
    /// Without a valid one there is no connection.
    Required,
}

/// `ingress.tls.min_version`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinVersion {
    /// RFC 5246
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446
    #[serde(rename = "1.3")]
    Tls13,
}

impl Config {
    /// Is there to be TLS at all?
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.cert.is_some()
    }
}

/// What whoever speaks plain HTTP to a TLS port is told, as other servers do.
const PLAIN_HTTP_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 42\r\n\
    connection: close\r\n\r\nthis address speaks TLS; use https:// here";

/// The server's side of TLS, as the files are now.
pub(super) struct Tls {
    current: tokio::sync::watch::Receiver<Arc<ServerConfig>>,
    meter: Arc<TlsMeter>,
}

impl Tls {
    /// Reads the files and watches them until the phase stops; `None` where the configuration names none.
    ///
    /// # Errors
    /// [`TlsProblem`] where the files cannot be used.
    pub(super) fn start(config: &Config, shutdown: &Shutdown) -> Result<Option<Tls>, TlsProblem> {
        if !config.is_on() {
            return Ok(None);
        }
        let meter = Arc::new(TlsMeter::started());
        let material = Material::read(config)?;
        let (watch, current) = Watch::new(config.clone(), material, Arc::clone(&meter));
        drop(shutdown.spawn(Phase::Ingress, watch.run(shutdown.clone())));
        Ok(Some(Tls { current, meter }))
    }

    /// Shakes hands. The caller bounds the time, and counts where it runs out.
    ///
    /// # Errors
    /// What was wrong with the client, for [`Tls::dismiss`].
    pub(super) async fn accept(&self, wire: Wire) -> Result<Box<TlsStream<Socket>>, Failed> {
        let mut first = [0];
        // An error shows again below.
        if let Either::Left(tcp) = &wire
            && let Ok(1) = tcp.peek(&mut first).await
            && begins_plain_http(first[0])
        {
            let error = io::Error::new(io::ErrorKind::InvalidData, "plain HTTP where TLS is spoken");
            return Err(Failed { reason: HandshakeFailure::PlainHttp, error, socket: Socket::new(wire) });
        }
        let config = Arc::clone(&self.current.borrow());
        let accepting = TlsAcceptor::from(config).accept(Socket::new(wire)).into_fallible();
        match accepting.await {
            Ok(stream) => Ok(Box::new(stream)),
            Err((error, socket)) => Err(Failed { reason: reason(&error), error, socket }),
        }
    }

    /// Counts a client that is not served and tells it why, within the bounds of [`Socket`].
    pub(super) async fn dismiss(&self, failed: Failed) {
        let Failed { reason, error, mut socket } = failed;
        self.meter.handshake_failed(reason);
        // A scanner must not fill the log.
        debug!(%error, "a connection ended before TLS was agreed on");
        if reason == HandshakeFailure::PlainHttp {
            let _ = socket.write_all(PLAIN_HTTP_ANSWER).await;
        }
        // The alert that says why reaches the client only if the connection is not reset.
        let _ = socket.shutdown().await;
    }

    /// The time for a handshake ran out.
    pub(super) fn timed_out(&self) {
        self.meter.handshake_failed(HandshakeFailure::TimedOut);
    }
}

/// A client with whom there was no agreement.
pub(super) struct Failed {
    reason: HandshakeFailure,
    error: io::Error,
    socket: Socket,
}

/// The names in the certificate that the client has shown; none where it has shown none.
pub(super) fn client_names(stream: &TlsStream<Socket>) -> Vec<String> {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.and_then(|chain| chain.first()).map(|leaf| names::of(leaf)).unwrap_or_default()
}

/// Does a connection that begins with this byte speak HTTP without TLS? Its methods are upper-case letters, and a
/// handshake begins with 22 (RFC 8446, section 5.1).
fn begins_plain_http(first: u8) -> bool {
    first.is_ascii_uppercase()
}

fn reason(error: &io::Error) -> HandshakeFailure {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            HandshakeFailure::ClientCertificate
        }
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Disconnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }

    #[test]
    fn only_letters_begin_plain_http() {
        for (first, plain) in [(b'G', true), (b'P', true), (22, false), (0x80, false), (b'\r', false)] {
            assert_eq!(begins_plain_http(first), plain, "{first}");
        }
    }
}
