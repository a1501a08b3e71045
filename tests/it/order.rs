//! `order = "key"` and `order = "strict"` hold whatever fails: receivers that answer 500 at random, connections that are
//! reset, a broker that is killed, and a daemon that is killed again and again.
//!
//! What is asserted, exactly. In the life of one daemon the deliveries of a chain (of a key, or of the whole sink under
//! `strict`) are a run: each is of the same event as the one before, which nobody confirmed or whose confirmation was
//! lost, or of the next one, and then the one before was confirmed. What may repeat after a kill is a tail: the next
//! daemon's run begins at an event that was tried already or at the first that was not, and goes on from there without
//! a gap.

use crate::support::brokers::nats::{Nats, NatsOptions};
use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use async_nats::jetstream::stream::Config as StreamConfig;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const EVENTS_A_KEY: u64 = 60;
const KILLS: u64 = 5;

/// An event: its key and its number within it.
type Event = (String, u64);

/// One delivery as the receiver saw it.
#[derive(Clone, Debug)]
struct Seen {
    /// Which daemon sent it.
    life: u64,
    event: Event,
    confirmed: bool,
}

type Log = Arc<Mutex<BTreeMap<String, Vec<Seen>>>>;

fn event_of(event: &Value) -> Event {
    (event["data"]["k"].as_str().unwrap().to_owned(), event["data"]["n"].as_u64().unwrap())
}

/// Answers every fifth delivery or so 500.
async fn take(
    Path(sink): Path<String>,
    State(log): State<Log>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let event = event_of(&serde_json::from_slice(&body).unwrap());
    let life = headers["x-life"].to_str().unwrap().parse().unwrap();
    let confirmed = fastrand::u8(..5) > 0;
    log.lock().unwrap().entry(sink).or_default().push(Seen { life, event, confirmed });
    if confirmed { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR }
}

async fn receiver(log: Log) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/{sink}", post(take)).with_state(log);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn config(life: u64, proxy: SocketAddr, nats: &Nats) -> String {
    let retry = |sink: &str| {
        format!("[sinks.{sink}.retry]\nfirst = \"5ms\"\nmax = \"40ms\"\nattempts_max = 100000\n")
    };
    let http = |sink: &str, order: &str| {
        format!(
            "[sinks.{sink}]\norder = \"{order}\"\n{}[sinks.{sink}.http]\nurl = \"http://{proxy}/{sink}\"\n\
             headers = {{ x-life = \"{life}\" }}\n",
            retry(sink)
        )
    };
    format!(
        "[sources.inbox.generic]\nid = \"/id\"\nkey = \"/k\"\n{}{}[sinks.stream]\norder = \"key\"\n{}\
         [sinks.stream.jetstream]\nurl = \"nats://{}\"\nstream = \"EVENTS\"\nsubject = \"hooks.a\"\n",
        http("by_key", "key"),
        http("one_by_one", "strict"),
        retry("stream"),
        nats.address()
    )
}

/// Posts a key's events one after the other, each until some daemon has promised it; the same id is stored once.
async fn send(key: &'static str, ingress: watch::Receiver<SocketAddr>, promised: watch::Sender<u64>) {
    let http = crate::support::client();
    for number in 0..EVENTS_A_KEY {
        let body = format!("{{\"id\":\"{key}-{number}\",\"k\":\"{key}\",\"n\":{number}}}");
        eventually("some daemon promises the event", || async {
            let url = format!("http://{}/hooks/inbox", *ingress.borrow());
            let request = http.post(url).header("content-type", "application/json").body(body.clone());
            let answer = request.send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        promised.send_modify(|promised| *promised += 1);
    }
}

/// Judges the deliveries to one sink, where `chain_of` tells what is ordered among itself.
fn judge(sink: &str, seen: &[Seen], chain_of: fn(&Event) -> &str) {
    let chains: BTreeSet<&str> = seen.iter().map(|seen| chain_of(&seen.event)).collect();
    for chain in chains {
        let mut order: Vec<&Event> = Vec::new();
        let mut confirmed: BTreeSet<&Event> = BTreeSet::new();
        let mut previous: Option<(&Seen, usize)> = None;
        for one in seen.iter().filter(|one| chain_of(&one.event) == chain) {
            let what = format!("{sink}, {one:?} after {previous:?}");
            let place = order.iter().position(|event| **event == one.event).unwrap_or_else(|| {
                assert!(order.iter().all(|event| confirmed.contains(event)), "overtaken: {what}");
                order.push(&one.event);
                order.len() - 1
            });
            if let Some((before, before_place)) = previous.filter(|(before, _)| before.life == one.life) {
                assert!(place == before_place || place == before_place + 1, "no run: {what}");
                assert!(place == before_place || before.confirmed, "went on unconfirmed: {what}");
            } else if let Some((before, _)) = previous {
                assert!(before.life < one.life, "a daemon that was killed delivers: {what}");
            }
            if one.confirmed {
                confirmed.insert(&one.event);
            }
            previous = Some((one, place));
        }
        let of_key = |key: &str| -> Vec<u64> {
            order.iter().filter(|event| event.0 == key).map(|event| event.1).collect()
        };
        for key in KEYS.into_iter().filter(|key| order.iter().any(|event| event.0 == *key)) {
            assert_eq!(of_key(key), (0..EVENTS_A_KEY).collect::<Vec<_>>(), "{sink}: as they were accepted");
        }
        assert_eq!(confirmed.len(), order.len(), "{sink}: every event was confirmed");
    }
}

/// The stream tells nothing of lives; there an event may stand again, and none before the one that it follows.
fn judge_stream(kept: &[Event]) {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, number) in kept {
        let next = next.entry(key).or_default();
        assert!(number <= next, "{key}-{number} stands before {key}-{next}");
        *next = (*next).max(number + 1);
    }
    assert_eq!(next, KEYS.map(|key| (key, EVENTS_A_KEY)).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_under_failures_resets_broker_kills_and_kills_of_the_daemon() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    fastrand::seed(seed);
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let proxy = Proxy::start(receiver(Arc::clone(&log)).await).await;
    let nats = Nats::start_with(NatsOptions::default()).await;
    let subjects = vec!["hooks.>".to_owned()];
    nats.create_stream_with(StreamConfig { name: "EVENTS".to_owned(), subjects, ..StreamConfig::default() })
        .await;
    let mut daemon = Daemon::start(folder.path(), &config(0, proxy.address, &nats)).await;
    let (tell, ingress) = watch::channel(daemon.ingress);
    let promised = watch::Sender::new(0);
    let senders = KEYS.map(|key| tokio::spawn(send(key, ingress.clone(), promised.clone())));
    let all = KEYS.len() as u64 * EVENTS_A_KEY;
    for life in 1..=KILLS {
        let enough = all * life / (KILLS + 1);
        eventually("enough is promised", || async { (*promised.borrow() >= enough).then_some(()) }).await;
        proxy.reset_all();
        if life % 2 == 0 {
            nats.kill();
            nats.start_again().await;
        }
        daemon.kill_now();
        daemon.ended().await;
        // What the killed one had sent is taken before the next one is there.
        proxy.reset_all();
        daemon = Daemon::start(folder.path(), &config(life, proxy.address, &nats)).await;
        tell.send_replace(daemon.ingress);
    }
    for sender in senders {
        sender.await.unwrap();
    }
    for sink in ["by_key", "one_by_one", "stream"] {
        eventually("the journal is drained", || async {
            (daemon.lane(sink).await["lag"]["events"] == 0).then_some(())
        })
        .await;
        assert_eq!(daemon.lane(sink).await["dead_lettered"], 0);
    }
    assert!(daemon.stop().await.success());
    let seen = log.lock().unwrap().clone();
    judge("by_key", &seen["by_key"], |event| &event.0);
    judge("one_by_one", &seen["one_by_one"], |_| "all");
    let kept = nats.read_stream("EVENTS");
    judge_stream(
        &kept
            .iter()
            .map(|kept| event_of(&serde_json::from_slice(&kept.payload).unwrap()))
            .collect::<Vec<_>>(),
    );
    let failed = seen.values().flatten().filter(|seen| !seen.confirmed).count();
    assert!(failed > 50, "the receiver failed {failed} times");
}
