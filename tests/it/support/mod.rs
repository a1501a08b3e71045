//! What the end-to-end tests stand on: the real program as a child process, sinks that misbehave on demand, the oracle.
//! Holds: tests wait on conditions with a limit, never for a time; a process that was started is ended with its owner.

pub mod authority;
pub mod brokers;
pub mod daemon;
pub mod disk;
pub mod ending;
pub mod gateway;
pub mod http_sink;
pub mod instruments;
pub mod oracle;
pub mod proxy;
pub mod small_disk;
pub mod strace;
pub mod tls_front;

use std::future::Future;
use std::time::Duration;

/// How long a condition may take to become true before the test fails. Generous, because a machine may be ten times as busy
/// as it can be: it only costs time when it fails.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Waits until `condition` gives a value; fails the test with `what` when it does not within [`PATIENCE`].
pub async fn eventually<T, F, Fut>(what: &str, condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, condition).await
}

/// The same where the promise itself has a limit.
pub async fn eventually_within<T, F, Fut>(patience: Duration, what: &str, mut condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    let found = tokio::time::timeout(patience, async {
        loop {
            poll.tick().await;
            if let Some(value) = condition().await {
                return value;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("not within {patience:?}: {what}"))
}

/// How long something that a test does lasts, a fault or the pause between two posts. Never a way to wait for the program.
pub async fn lasts(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// A client for loopback.
pub fn client() -> reqwest::Client {
    client_builder().build().unwrap()
}

/// The same before it is built, with the process-wide crypto provider that reqwest wants to exist.
fn client_builder() -> reqwest::ClientBuilder {
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy()
}
