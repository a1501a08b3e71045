//! Names that do not resolve, begin to, and lead somewhere else after a failover: every sink that has a host waits, says
//! why, and asks anew before each connection. The daemon runs with a hosts file of its own, in a mount namespace that ends with it.

use crate::contract::bench::{RECOVERY_MAX, event};
use crate::contract::{Rig, Setup, amqp::AmqpRig, http::HttpRig, jetstream::JetStreamRig, kafka::KafkaRig};
use crate::support::daemon::Daemon;
use crate::support::proxy::Proxy;
use crate::support::{eventually, eventually_within};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

const NAME: &str = "broker.hookbus.test";
/// Where the name leads before the failover, and after.
const FIRST: [u8; 4] = [127, 0, 0, 2];
const SECOND: [u8; 4] = [127, 0, 0, 1];
const KINDS: [&str; 4] = ["http", "jetstream", "amqp", "kafka"];

/// Replaces the hosts file and asks nobody else, then becomes the program.
const OWN_NAMES: &str =
    r#"mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@""#;

/// Written in place: what is mounted is this very file.
fn resolves_to(hosts: &Path, address: Option<[u8; 4]>) {
    let line = address.map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d} {NAME}\n"));
    std::fs::write(hosts, format!("127.0.0.1 localhost\n{}", line.unwrap_or_default())).unwrap();
}

async fn start(folder: &Path, config: &str) -> Daemon {
    let (hosts, switch) = (folder.join("hosts"), folder.join("nsswitch.conf"));
    std::fs::write(&switch, "hosts: files\npasswd: files\n").unwrap();
    let (hosts, switch) = (hosts.to_str().unwrap(), switch.to_str().unwrap());
    let wrapper =
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", OWN_NAMES, "sh", hosts, switch];
    Daemon::start_through(folder, &wrapper, config).await
}

fn renamed(table: &str, kind: &str) -> String {
    let table = table.replace("[sinks.orders.", &format!("[sinks.{kind}."));
    table.replace("localhost:", &format!("{NAME}:")).replace("127.0.0.1:", &format!("{NAME}:"))
}

fn port_in(table: &str) -> u16 {
    let port = table.split(&format!("{NAME}:")).nth(1).unwrap();
    port.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

async fn post(daemon: &Daemon, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(daemon.post("/hooks/inbox", event(number).to_string()).await.unwrap().status, 200);
    }
}

async fn settled(daemon: &Daemon, what: &str) {
    eventually_within(RECOVERY_MAX, what, || async {
        let status = daemon.status().await;
        status["lanes"].as_array().unwrap().iter().all(|lane| lane["lag"]["events"] == 0).then_some(())
    })
    .await;
}

async fn each_is_away_because(daemon: &Daemon, reason: &str) {
    for kind in KINDS {
        eventually(&format!("{kind} is away, {reason}"), || async {
            let lane = daemon.lane(kind).await;
            (lane["state"] == "away" && lane["failure"]["reason"] == reason).then_some(())
        })
        .await;
    }
}

fn numbers(arrived: Vec<crate::contract::Arrived>) -> BTreeSet<u64> {
    let number = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["data"]["n"].as_u64().unwrap();
    arrived.iter().map(|event| number(&event.body)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_asked_for_anew_until_it_resolves_and_after_it_has_moved() {
    let (http, jetstream) = (HttpRig::start(Setup::Plain).await, JetStreamRig::start(Setup::Plain).await);
    let (amqp, kafka) = (AmqpRig::start(Setup::Plain).await, KafkaRig::start(Setup::Plain).await);
    let tables = [
        renamed(&http.table(), "http"),
        renamed(&jetstream.table(), "jetstream"),
        renamed(&amqp.table(), "amqp"),
        renamed(&kafka.table(), "kafka"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    resolves_to(&hosts, None);
    let config = format!("[sources.inbox.generic]\nid = \"/id\"\n{}", tables.join("\n"));
    let daemon = start(folder.path(), &config).await;
    post(&daemon, 0..5).await;
    each_is_away_because(&daemon, "name_not_resolved").await;
    assert_eq!(daemon.ask("/readyz").await.0, 200, "what is accepted is kept: the ingress stays ready");

    // The address before the failover. Kafka's broker says itself where it is reached, so for it this is where to ask.
    let mut before = Vec::new();
    for table in &tables {
        let port = port_in(table);
        before.push(Proxy::start_on(SocketAddr::from((FIRST, port)), SocketAddr::from((SECOND, port))).await);
    }
    resolves_to(&hosts, Some(FIRST));
    settled(&daemon, "every sink goes on when the name resolves").await;
    assert!(before.iter().all(|proxy| proxy.accepted() > 0), "by the address that the name has");

    // The old address is gone, and only then the name says so.
    drop(before);
    post(&daemon, 5..10).await;
    resolves_to(&hosts, Some(SECOND));
    post(&daemon, 10..15).await;
    settled(&daemon, "every sink goes on at the new address").await;
    let wanted: BTreeSet<u64> = (0..15).collect();
    assert_eq!(numbers(http.arrived().await), wanted);
    assert_eq!(numbers(jetstream.arrived().await), wanted);
    assert_eq!(numbers(amqp.arrived().await), wanted);
    assert_eq!(numbers(kafka.arrived().await), wanted);
    let (_, letters) = daemon.ask("/api/v1/dead-letters").await;
    assert_eq!(serde_json::from_str::<Value>(&letters).unwrap()["letters"], serde_json::json!([]));
    assert!(daemon.stop().await.success());
}
