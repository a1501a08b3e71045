//! A look at a broker's certificate after TLS failed: librdkafka says only that it "could not be verified".
//! Holds: at most one look at a time and one a second, however many records failed together.

use super::super::tls::{TlsFiles, certificate_problem};
use super::super::{Failure, Reason};
use crate::envelope::SinkName;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long what was seen is taken for granted.
const BELIEVED: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Look {
    pub(super) sink: SinkName,
    /// What librdkafka reads by itself.
    pub(super) files: TlsFiles,
    pub(super) last: Mutex<Option<(Instant, Option<String>)>>,
}

impl Look {
    /// A client is about to be made, which reads the files anew.
    pub(super) fn show_ends(&self) {
        self.files.show_ends(&self.sink);
    }

    /// The same failure, in the words of whoever has looked at the certificates.
    pub(super) async fn explained(&self, failure: Failure) -> Failure {
        if failure.reason != Reason::Tls {
            return failure;
        }
        let Some((host, port)) = broker_in(&failure.detail) else {
            return self.files.explained(failure, crate::clock::now());
        };
        match self.problem(host, port).await {
            Some(problem) => Failure::new(Reason::Tls, format!("{host}:{port}: TLS failed: {problem}")),
            None => self.files.explained(failure, crate::clock::now()),
        }
    }

    async fn problem(&self, host: &str, port: u16) -> Option<String> {
        let mut last = self.last.lock().await;
        if let Some((at, seen)) = &*last
            && at.elapsed() < BELIEVED
        {
            return seen.clone();
        }
        let look = certificate_problem(host, port, self.files.ca.clone());
        let seen = tokio::time::timeout(LOOK_MAX, look).await.ok().flatten();
        *last = Some((Instant::now(), seen.clone()));
        seen
    }
}

/// The broker that librdkafka speaks of: `ssl://localhost:9093/1: …`.
fn broker_in(detail: &str) -> Option<(&str, u16)> {
    let (address, _) = detail.split_once("ssl://")?.1.split_once('/')?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::broker_in;

    #[test]
    fn the_broker_is_the_one_that_failed() {
        for (detail, broker) in [
            ("TLS failed: ssl://localhost:9093/bootstrap: SSL handshake failed", Some(("localhost", 9093))),
            ("TLS failed: sasl_ssl://10.0.0.1:9093/1: SSL handshake", Some(("10.0.0.1", 9093))),
            ("TLS failed: ssl://[::1]:9093/1: SSL handshake", Some(("::1", 9093))),
            ("TLS failed: ssl.key.location failed", None),
            ("TLS failed: ssl://nobody/", None),
        ] {
            assert_eq!(broker_in(detail), broker, "{detail}");
        }
    }
}
