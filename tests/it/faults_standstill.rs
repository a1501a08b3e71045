//! A process that stands still for longer than everybody's patience, as a suspended machine or a paused container does:
//! the daemon, and a broker. Connections are found dead and made anew, nothing is lost, and the order of keys holds.
//! The campaign holds every kind of broker; here it is one, for long enough.

use crate::contract::bench::{event, lane_is, post_at_once};
use crate::contract::{
    Arrived, Rig, SINK, Setup, amqp::AmqpRig, http::HttpRig, jetstream::JetStreamRig, kafka::KafkaRig,
};
use crate::support::daemon::Daemon;
use crate::support::eventually;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const KINDS: [&str; 4] = ["http", "jetstream", "amqp", "kafka"];
/// Longer than the time-outs of the sinks and of the brokers' heartbeats below.
const STANDSTILL: Duration = Duration::from_secs(6);
const EVENTS: u64 = 500;

fn table(rig_table: &str, kind: &str) -> String {
    let common = format!(
        "[sinks.{kind}]\norder = \"key\"\ntimeout = \"2s\"\n\
         [sinks.{kind}.retry]\nfirst = \"50ms\"\nmax = \"500ms\"\nattempts_max = 1000\n"
    );
    common + &rig_table.replace("[sinks.orders.", &format!("[sinks.{kind}."))
}

fn signal(pid: u32, signal: &str) {
    assert!(std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// The numbers of each key in the order of arrival; what came again right away counts once.
fn by_key(arrived: &[Arrived]) -> BTreeMap<String, Vec<u64>> {
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in arrived {
        let data = serde_json::from_slice::<Value>(&event.body).unwrap()["data"].take();
        let numbers = by_key.entry(data["key"].as_str().unwrap().to_owned()).or_default();
        numbers.push(data["n"].as_u64().unwrap());
        numbers.dedup();
    }
    by_key
}

fn assert_all_in_order(kind: &str, arrived: &[Arrived]) {
    let by_key = by_key(arrived);
    assert_eq!(by_key.len(), 7, "{kind}");
    for (key, numbers) in by_key {
        let residue = key.strip_prefix("key-").unwrap().parse::<u64>().unwrap();
        let wanted: Vec<u64> = (0..EVENTS).filter(|n| n % 7 == residue).collect();
        assert_eq!(numbers, wanted, "{kind}: {key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_stood_still_for_longer_than_every_time_out_goes_on_in_order() {
    let (http, jetstream) = (HttpRig::start(Setup::Plain).await, JetStreamRig::start(Setup::Plain).await);
    let (amqp, kafka) = (AmqpRig::start(Setup::Plain).await, KafkaRig::start(Setup::Plain).await);
    let tables = [
        table(&http.table(), "http"),
        table(&jetstream.table(), "jetstream"),
        table(&amqp.table(), "amqp") + "heartbeat = \"1s\"\n",
        table(&kafka.table(), "kafka"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let source = "[sources.inbox.generic]\nid = \"/id\"\nkey = \"/key\"\n";
    let daemon = Daemon::start(folder.path(), &format!("{source}{}", tables.join("\n"))).await;
    // In turn, so that the journal has each key in the order of its numbers.
    for number in 0..EVENTS {
        let posted = daemon.post("/hooks/inbox", event(number).to_string()).await.unwrap();
        assert_eq!(posted.status, 200);
        if number == EVENTS / 2 {
            signal(daemon.pid(), "-STOP");
            let began = Instant::now();
            eventually("it has stood still for long enough", || async {
                (began.elapsed() >= STANDSTILL).then_some(())
            })
            .await;
            signal(daemon.pid(), "-CONT");
        }
    }
    for kind in KINDS {
        eventually(&format!("{kind} has everything"), || async {
            (daemon.lane(kind).await["lag"]["events"] == 0).then_some(())
        })
        .await;
    }
    assert_all_in_order("http", &http.arrived().await);
    assert_all_in_order("jetstream", &jetstream.arrived().await);
    assert_all_in_order("amqp", &amqp.arrived().await);
    assert_all_in_order("kafka", &kafka.arrived().await);
    let (_, letters) = daemon.ask("/api/v1/dead-letters").await;
    assert_eq!(serde_json::from_str::<Value>(&letters).unwrap()["letters"], serde_json::json!([]));
    assert!(daemon.stop().await.success());
}

/// The rig's own broker stands still under load until deliveries have ended without an answer, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_that_stood_still_gets_everything() {
    let rig = JetStreamRig::start(Setup::Alone).await;
    let folder = tempfile::tempdir().unwrap();
    let common = "[sinks.orders]\norder = \"key\"\ntimeout = \"2s\"\n\
                  [sinks.orders.retry]\nfirst = \"50ms\"\nmax = \"500ms\"\nattempts_max = 1000\n";
    let source = "[sources.inbox.generic]\nid = \"/id\"\nkey = \"/key\"\n";
    let daemon = Daemon::start(folder.path(), &format!("{source}{common}{}", rig.table())).await;
    let settled = async || {
        eventually("everything is settled", || async {
            (daemon.lane(SINK).await["lag"]["events"] == 0).then_some(())
        })
        .await;
    };
    post_at_once(&daemon, (0..50).map(event)).await;
    settled().await;
    rig.signal("-STOP");
    post_at_once(&daemon, (50..500).map(event)).await;
    eventually("deliveries have ended without an answer", || async {
        let series =
            |outcome| format!("hookbus_delivery_outcomes_total{{sink=\"{SINK}\",outcome=\"{outcome}\"}}");
        let retried = daemon.metric(&series("retry")).await.unwrap();
        let away = daemon.metric(&series("away")).await.unwrap();
        (retried >= 1.0 && retried + away >= 3.0).then_some(())
    })
    .await;
    assert_eq!(daemon.ask("/readyz").await.0, 200);
    rig.signal("-CONT");
    settled().await;
    lane_is(&daemon, "running").await;
    let arrived = rig.arrived().await;
    let numbers: std::collections::BTreeSet<u64> = by_key(&arrived).into_values().flatten().collect();
    assert_eq!(numbers, (0..500).collect());
    assert!(daemon.stop().await.success());
}
