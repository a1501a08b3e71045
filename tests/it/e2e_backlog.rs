//! The journal's budget is used up because one sink takes nothing: what that costs the senders, and what the other sink.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::http_sink::HttpSink;
use crate::support::oracle::file_has_all;
use serde_json::Value;
use std::collections::BTreeSet;

/// Four segments of 16 KiB, a dead sink `orders` and a good one beside it.
fn config(sink: &HttpSink, more: &str) -> String {
    format!(
        "[ingress]\nbody_max = \"4KiB\"\n[journal]\nsegment = \"16KiB\"\ndisk_max = \"64KiB\"\n[sources.inbox.generic]\n\
         [sinks.audit.file]\npath = \"audit.ndjson\"\n[sinks.orders]\n{more}\n{}",
        sink.table("orders")
    )
}

fn body(number: u64) -> String {
    format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(1000))
}

fn id_of(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["id"].as_str().unwrap().to_owned()
}

/// Posts until it is taken; refusals while a segment is being freed are no more than that.
async fn post_until_taken(daemon: &Daemon, number: u64) -> String {
    eventually("the event is taken", || async {
        let answer = daemon.post("/hooks/inbox", body(number)).await.unwrap();
        assert!(matches!(answer.status, 200 | 503), "{}", answer.body);
        (answer.status == 200).then(|| id_of(&answer.body))
    })
    .await
}

#[tokio::test]
async fn a_dead_sink_that_sheds_stops_nobody_and_what_it_lost_is_counted() {
    const POSTED: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let daemon =
        Daemon::start(folder.path(), &config(&sink, "on_backlog_full = \"shed_oldest\"\norder = \"strict\""))
            .await;
    sink.goes_down().await;
    let mut promised = BTreeSet::new();
    for number in 0..POSTED {
        promised.insert(post_until_taken(&daemon, number).await);
    }
    file_has_all(&folder.path().join("hookbus-data/audit.ndjson"), &promised).await;
    eventually("it is ready", || async { (daemon.ask("/readyz").await.0 == 200).then_some(()) }).await;

    sink.comes_back().await;
    let lane = eventually("the dead sink gets what is left", || async {
        let lane = daemon.lane("orders").await;
        (lane["lag"]["events"] == 0).then_some(lane)
    })
    .await;
    let shed = lane["shed"].as_u64().unwrap();
    assert!(shed > POSTED / 2, "most of it did not fit: {lane}");
    assert_eq!(shed + sink.confirmed().len() as u64, POSTED, "R4: shed or delivered");
    let counted = daemon.metric("hookbus_lane_settled_total{sink=\"orders\",ending=\"shed\"}").await;
    assert_eq!(counted, Some(shed as f64));
    assert_eq!(daemon.lane("audit").await["shed"], 0);
    assert!(daemon.log().contains("event shed"));
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_dead_sink_that_does_not_shed_closes_the_door_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.goes_down().await;
    let mut promised = BTreeSet::new();
    let refused = loop {
        let url = format!("http://{}/hooks/inbox", daemon.ingress);
        let answer = daemon.http.post(url).body(body(promised.len() as u64)).send().await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
        promised.insert(id_of(&answer.text().await.unwrap()));
        assert!(promised.len() < 200, "the budget is never used up");
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let (ready, reason) = daemon.ask("/readyz").await;
    assert!(ready == 503 && reason.contains("full"), "{reason}");
    file_has_all(&folder.path().join("hookbus-data/audit.ndjson"), &promised).await;

    sink.comes_back().await;
    eventually("the sink has everything", || async {
        promised.iter().all(|id| sink.confirmed().contains_key(id)).then_some(())
    })
    .await;
    post_until_taken(&daemon, 1000).await;
    eventually("it is ready again", || async { (daemon.ask("/readyz").await.0 == 200).then_some(()) }).await;
    assert_eq!(daemon.lane("orders").await["shed"], 0);
    assert!(daemon.stop().await.success());
}
