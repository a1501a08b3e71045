//! How the process ends beside threads of librdkafka's that speak TLS: by itself, whichever way it was asked to.

use crate::support::authority::Authority;
use crate::support::daemon::Daemon;
use crate::support::eventually;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Each has a thread of its own in librdkafka.
const BROKERS: usize = 24;
/// As often as it takes to meet threads that are just inside OpenSSL: without the cure one end in six is a crash.
const ENDINGS: usize = 24;

/// Brokers that agree on TLS and then hang up, so that librdkafka does nothing but shake hands. Their addresses, and how
/// often they did.
async fn brokers(authority: &Authority) -> (String, Arc<AtomicUsize>) {
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(false)));
    let handshakes = Arc::new(AtomicUsize::new(0));
    let mut addresses = Vec::new();
    for _ in 0..BROKERS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap().to_string());
        let (acceptor, handshakes) = (acceptor.clone(), Arc::clone(&handshakes));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, handshakes) = (acceptor.clone(), Arc::clone(&handshakes));
                tokio::spawn(async move {
                    if acceptor.accept(client).await.is_ok() {
                        handshakes.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
    }
    (addresses.join(","), handshakes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_process_and_no_thread_of_a_client_crashes_it() {
    let authority = Authority::new();
    let (addresses, handshakes) = brokers(&authority).await;
    for ending in 0..ENDINGS {
        let folder = tempfile::tempdir().unwrap();
        let ca = authority.file(folder.path(), "ca.pem");
        let config = format!(
            "[sources.inbox.generic]\n[sinks.orders.kafka]\nbrokers = \"{addresses}\"\ntopic = \"orders\"\n\
             tls = true\nca = {ca:?}\n\
             properties = {{ \"reconnect.backoff.ms\" = 1, \"reconnect.backoff.max.ms\" = 1 }}\n"
        );
        let mut daemon = Daemon::start(folder.path(), &config).await;
        assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
        let before = handshakes.load(Ordering::Relaxed);
        eventually("its threads speak TLS", || async {
            (handshakes.load(Ordering::Relaxed) >= before + BROKERS).then_some(())
        })
        .await;
        daemon.ask_to_stop();
        eventually("the first signal has come", || async { daemon.log().contains("stopping").then_some(()) })
            .await;
        daemon.ask_to_stop();
        let ended = daemon.ended().await;
        assert_eq!(ended.code(), Some(1), "{ended}, the end number {ending}");
    }
}
