//! Certificates that run out between a sink and its server, the server's and our own: the lane waits and says which and
//! since when, and goes on when it was renewed, without a restart and without an event lost (R4).

use crate::contract::bench::{RECOVERY_MAX, event, lane_is};
use crate::contract::{Rig, Setup, amqp::AmqpRig, http::HttpRig, own_broker};
use crate::support::authority::{Authority, Pair};
use crate::support::brokers::kafka::{Kafka, shared};
use crate::support::brokers::nats::{Nats, NatsOptions};
use crate::support::daemon::Daemon;
use crate::support::tls_front::TlsFront;
use crate::support::{eventually, eventually_within};
use hookbus::time::UnixMs;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

const HOUR: Duration = Duration::from_secs(3600);

/// A server that speaks TLS with a certificate that the test chooses.
enum Server {
    Http(HttpRig, TlsFront),
    Amqp(AmqpRig, TlsFront),
    Kafka(&'static Kafka, String, TlsFront, #[allow(dead_code)] OwnedMutexGuard<()>),
    /// It agrees on TLS in its own protocol, so nothing can stand in front of it.
    JetStream(Box<Nats>, #[allow(dead_code)] OwnedSemaphorePermit),
}

const STREAM: &str = "EXPIRY";

/// Where the rig's own server listens, from its table.
fn port_in(table: &str) -> u16 {
    let port = table.split("localhost:").nth(1).unwrap();
    port.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// The server's certificate and the authority of both sides.
struct Shown<'a> {
    authority: &'a Authority,
    pair: &'a Pair,
    asks_for_certificate: bool,
}

impl Shown<'_> {
    fn config(&self) -> rustls::ServerConfig {
        self.authority.server_showing(self.pair, self.asks_for_certificate)
    }
}

impl Server {
    async fn http(shown: &Shown<'_>) -> Server {
        let rig = HttpRig::start(Setup::Plain).await;
        let front = front_of(&rig.table(), shown).await;
        Server::Http(rig, front)
    }

    async fn amqp(shown: &Shown<'_>) -> Server {
        let rig = AmqpRig::start(Setup::Plain).await;
        let front = front_of(&rig.table(), shown).await;
        Server::Amqp(rig, front)
    }

    async fn kafka(shown: &Shown<'_>) -> Server {
        let (kafka, topic) = (shared().await, crate::contract::unique_name());
        kafka.create_topic(&topic, 1, &[]).await;
        let (front, turn) = kafka.tls_front(shown.config()).await;
        Server::Kafka(kafka, topic, front, turn)
    }

    async fn jetstream(shown: &Shown<'_>) -> Server {
        let leave = own_broker().await;
        let nats = Nats::prepared(NatsOptions::default());
        let mut server = Server::JetStream(Box::new(nats), leave);
        server.shows(shown).await;
        if let Server::JetStream(nats, _) = &server {
            nats.create_stream(STREAM, &["expiry.>"]).await;
        }
        server
    }

    async fn shows(&mut self, shown: &Shown<'_>) {
        match self {
            Server::Http(_, front) | Server::Amqp(_, front) | Server::Kafka(_, _, front, _) => {
                front.shows(shown.config());
            }
            Server::JetStream(nats, _) => {
                let folder = nats.folder();
                shown.pair.write(folder);
                let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
                let ca = shown.authority.file(folder, "ca.pem");
                let verify = if shown.asks_for_certificate {
                    format!(", ca_file: {ca:?}, verify: true")
                } else {
                    String::new()
                };
                let lines = format!(
                    "\ntls {{ cert_file: {cert:?}, key_file: {key:?}{verify} }}\nallow_non_tls: true\n"
                );
                nats.change(NatsOptions { lines, ..NatsOptions::default() });
                if nats.is_running() {
                    nats.kill();
                }
                nats.start_again().await;
            }
        }
    }

    fn table(&self, ca: &Path, own: Option<&Own>) -> String {
        let files = |key_name: &str| {
            let own = own.map(|own| format!("cert = {:?}\n{key_name} = {:?}\n", own.cert, own.key));
            format!("ca = {ca:?}\n{}", own.unwrap_or_default())
        };
        match self {
            Server::Http(_, front) => {
                format!("[sinks.orders.http]\nurl = \"https://localhost:{}/\"\n{}", front.port, files("key"))
            }
            Server::Amqp(rig, front) => {
                let plain = format!("amqp://localhost:{}", port_in(&rig.table()));
                let tls = format!("amqps://localhost:{}", front.port);
                format!("{}{}", rig.table().replace(&plain, &tls), files("key"))
            }
            Server::Kafka(_, topic, front, _) => format!(
                "[sinks.orders.kafka]\nbrokers = [\"127.0.0.1:{}\"]\ntopic = \"{topic}\"\ntls = true\n{}",
                front.port,
                files("cert_key")
            ),
            Server::JetStream(nats, _) => {
                let port = nats.address().rsplit_once(':').unwrap().1.to_owned();
                format!(
                    "[sinks.orders.jetstream]\nurl = \"tls://localhost:{port}\"\nstream = \"{STREAM}\"\nsubject = \"expiry.events\"\n{}",
                    files("key")
                )
            }
        }
    }

    async fn numbers(&self) -> BTreeSet<u64> {
        let bodies: Vec<Vec<u8>> = match self {
            Server::Http(rig, _) => rig.arrived().await.into_iter().map(|event| event.body).collect(),
            Server::Amqp(rig, _) => rig.arrived().await.into_iter().map(|event| event.body).collect(),
            Server::Kafka(kafka, topic, ..) => {
                kafka.read_all(topic).await.into_iter().filter_map(|record| record.value).collect()
            }
            Server::JetStream(nats, _) => {
                nats.read_stream(STREAM).into_iter().map(|message| message.payload).collect()
            }
        };
        let number =
            |body: &Vec<u8>| serde_json::from_slice::<Value>(body).unwrap()["data"]["n"].as_u64().unwrap();
        bodies.iter().map(number).collect()
    }
}

async fn front_of(table: &str, shown: &Shown<'_>) -> TlsFront {
    TlsFront::start(0, ([127, 0, 0, 1], port_in(table)).into(), shown.config()).await
}

/// Files of the sink's own certificate.
struct Own {
    folder: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Own {
    fn written(folder: &Path, pair: &Pair) -> Own {
        pair.write(folder);
        Own { folder: folder.to_owned(), cert: folder.join("tls.crt"), key: folder.join("tls.key") }
    }
}

/// When an expired certificate ended, and its day as RFC 3339 writes it.
fn an_hour_ago() -> (SystemTime, String) {
    let end = SystemTime::now() - HOUR;
    let ms = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let text = UnixMs(i64::try_from(ms).unwrap()).to_rfc3339();
    // The certificate has whole seconds.
    (end, text[..19].to_owned())
}

struct Relay {
    daemon: Daemon,
    _folder: TempDir,
}

impl Relay {
    async fn start(table: &str) -> Relay {
        let folder = tempfile::tempdir().unwrap();
        let source = "[sources.inbox.generic]\nid = \"/id\"\n[sinks.orders]\ntimeout = \"5s\"\n";
        let retry = "[sinks.orders.retry]\nfirst = \"100ms\"\nmax = \"1s\"\n";
        let daemon = Daemon::start(folder.path(), &format!("{source}{retry}{table}")).await;
        Relay { daemon, _folder: folder }
    }

    async fn post(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            assert_eq!(
                self.daemon.post("/hooks/inbox", event(number).to_string()).await.unwrap().status,
                200
            );
        }
    }

    async fn settles(&self, what: &str) {
        eventually_within(RECOVERY_MAX, what, || async {
            (self.daemon.lane("orders").await["lag"]["events"] == 0).then_some(())
        })
        .await;
    }

    /// The lane waits, and the operator reads why, in `status` and in the log.
    async fn is_away_and_says(&self, words: &[&str]) {
        let lane = lane_is(&self.daemon, "away").await;
        assert_eq!(lane["failure"]["reason"], "tls", "{lane}");
        let detail = lane["failure"]["detail"].as_str().unwrap();
        for word in words {
            assert!(detail.contains(word), "{word:?} is not in {detail:?}");
            eventually(&format!("the log says {word}"), || async {
                let log = self.daemon.log();
                let mut lines = log.lines().filter(|line| line.contains("the sink takes no events"));
                lines.any(|line| line.contains(word)).then_some(())
            })
            .await;
        }
    }

    async fn ends_with_all(self, server: &Server, numbers: std::ops::Range<u64>) {
        assert_eq!(server.numbers().await, numbers.collect());
        let (_, letters) = self.daemon.ask("/api/v1/dead-letters?sink=orders").await;
        assert_eq!(serde_json::from_str::<Value>(&letters).unwrap()["letters"], serde_json::json!([]));
        assert!(self.daemon.stop().await.success());
    }
}

/// The certificate of the server runs out while it is in use, and is renewed.
async fn the_server_s_runs_out(start: impl AsyncFnOnce(&Shown<'_>) -> Server) {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = authority.file(folder.path(), "ca.pem");
    let good = authority.leaf_until("localhost", SystemTime::now() + HOUR);
    let (end, since) = an_hour_ago();
    let expired = authority.leaf_until("localhost", end);
    let shown = |pair| Shown { authority: &authority, pair, asks_for_certificate: false };
    let mut server = start(&shown(&good)).await;
    let relay = Relay::start(&server.table(&ca, None)).await;
    relay.post(0..5).await;
    relay.settles("the certificate is good").await;
    server.shows(&shown(&expired)).await;
    relay.post(5..10).await;
    relay.is_away_and_says(&["expired", &since]).await;
    server.shows(&shown(&good)).await;
    relay.settles("it goes on when the server's certificate is renewed").await;
    relay.ends_with_all(&server, 0..10).await;
}

/// The certificate that we show has run out, and is renewed in its file.
async fn our_own_runs_out(start: impl AsyncFnOnce(&Shown<'_>) -> Server) {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = authority.file(folder.path(), "ca.pem");
    let of_server = authority.leaf_until("localhost", SystemTime::now() + HOUR);
    let (end, since) = an_hour_ago();
    let own = Own::written(&folder.path().join("own"), &authority.leaf_until("hookbus", end));
    let shown = Shown { authority: &authority, pair: &of_server, asks_for_certificate: true };
    let server = start(&shown).await;
    let relay = Relay::start(&server.table(&ca, Some(&own))).await;
    relay.post(0..5).await;
    relay.is_away_and_says(&["cert", "expired", &since]).await;
    let shown_end = async || {
        let series = "hookbus_sink_tls_certificate_expiry_timestamp_seconds{sink=\"orders\",file=\"cert\"}";
        relay.daemon.metric(series).await.unwrap()
    };
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as f64;
    assert_eq!(shown_end().await, seconds(end), "the metric says it too");
    authority.leaf_until("hookbus", SystemTime::now() + HOUR).write(&own.folder);
    relay.settles("it goes on when our own certificate is renewed").await;
    assert!(shown_end().await > seconds(SystemTime::now()));
    relay.ends_with_all(&server, 0..5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_waits_out_a_server_s_certificate_that_has_expired() {
    the_server_s_runs_out(async |shown| Server::http(shown).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_waits_out_a_server_s_certificate_that_has_expired() {
    the_server_s_runs_out(async |shown| Server::amqp(shown).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_waits_out_a_server_s_certificate_that_has_expired() {
    the_server_s_runs_out(async |shown| Server::kafka(shown).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_waits_out_a_server_s_certificate_that_has_expired() {
    the_server_s_runs_out(async |shown| Server::jetstream(shown).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_shows_its_own_certificate_anew_when_it_was_renewed() {
    our_own_runs_out(async |shown| Server::http(shown).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_shows_its_own_certificate_anew_when_it_was_renewed() {
    our_own_runs_out(async |shown| Server::amqp(shown).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_shows_its_own_certificate_anew_when_it_was_renewed() {
    our_own_runs_out(async |shown| Server::kafka(shown).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_shows_its_own_certificate_anew_when_it_was_renewed() {
    our_own_runs_out(async |shown| Server::jetstream(shown).await).await;
}
