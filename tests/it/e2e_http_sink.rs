//! An HTTP sink in every bad mood: each event ends as the design says, and the sink beside it does not notice (R5).

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::oracle::file_has_all;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// A fast retry policy, an HTTP sink `orders` and a file sink `audit` beside it.
fn config(sink: &HttpSink, more: &str) -> String {
    format!(
        "[sources.inbox.generic]\n[sinks.audit.file]\npath = \"audit.ndjson\"\n\
         [sinks.orders]\ntimeout = \"2s\"\n{more}\n[sinks.orders.retry]\nfirst = \"10ms\"\nmax = \"50ms\"\nattempts_max = 5\n{}",
        sink.table("orders")
    )
}

async fn post(daemon: &Daemon, numbers: std::ops::Range<u64>) -> BTreeSet<String> {
    let mut promised = BTreeSet::new();
    for number in numbers {
        let answer = daemon.post("/hooks/inbox", format!("{{\"n\":{number}}}")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        promised
            .insert(serde_json::from_str::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned());
    }
    promised
}

async fn audit_has(folder: &Path, promised: &BTreeSet<String>) {
    file_has_all(&folder.join("hookbus-data/audit.ndjson"), promised).await;
}

async fn confirmed_all(sink: &HttpSink, promised: &BTreeSet<String>) {
    eventually("the sink has confirmed every event", || async {
        let confirmed = sink.confirmed();
        promised.iter().all(|id| confirmed.contains_key(id)).then_some(())
    })
    .await;
}

async fn lane_is(daemon: &Daemon, state: &str) -> Value {
    eventually(&format!("the lane is {state}"), || async {
        let lane = daemon.lane("orders").await;
        (lane["state"] == state).then_some(lane)
    })
    .await
}

async fn dead_letters(daemon: &Daemon) -> Vec<Value> {
    let (status, body) = daemon.ask("/api/v1/dead-letters?sink=orders&limit=1000").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["letters"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_sink_that_is_down_keeps_its_backlog_and_gets_it_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.goes_down().await;
    let promised = post(&daemon, 0..60).await;
    audit_has(folder.path(), &promised).await;
    let lane = lane_is(&daemon, "away").await;
    assert_eq!(lane["failure"]["reason"], "connection_refused");
    assert_eq!(lane["lag"]["events"], 60);
    sink.comes_back().await;
    confirmed_all(&sink, &promised).await;
    lane_is(&daemon, "running").await;
    assert!(dead_letters(&daemon).await.is_empty(), "an outage makes no dead letters");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn errors_of_the_server_use_up_attempts_and_end_as_dead_letters_that_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.is(Mood::Answers(500, &[]));
    let promised = post(&daemon, 0..8).await;
    audit_has(folder.path(), &promised).await;
    eventually("all are dead letters", || async { (dead_letters(&daemon).await.len() == 8).then_some(()) })
        .await;
    assert_eq!(sink.requests(), 8 * 5, "each was tried attempts_max times");
    let letter = &dead_letters(&daemon).await[0];
    assert_eq!((letter["reason"].as_str(), letter["attempts"].as_u64()), (Some("sink_error"), Some(5)));
    assert!(letter.get("data").is_none() && letter.get("payload").is_none(), "a listing shows no payload");

    sink.is(Mood::Confirms);
    let output = daemon.command(&["dead-letters", "replay", "--sink", "orders"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    confirmed_all(&sink, &promised).await;
    eventually("replayed letters are gone", || async {
        dead_letters(&daemon).await.is_empty().then_some(())
    })
    .await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn one_refused_event_becomes_a_dead_letter_at_once_and_its_neighbours_are_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.is(Mood::Refuses(422, BTreeSet::from([3])));
    let promised = post(&daemon, 0..10).await;
    audit_has(folder.path(), &promised).await;
    eventually("nine are confirmed", || async { (sink.confirmed().len() == 9).then_some(()) }).await;
    let letters = eventually("one is a dead letter", || async {
        let letters = dead_letters(&daemon).await;
        (letters.len() == 1).then_some(letters)
    })
    .await;
    assert_eq!(
        (letters[0]["reason"].as_str(), letters[0]["attempts"].as_u64()),
        (Some("content_refused"), Some(1))
    );
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn twenty_refusals_in_a_row_for_one_reason_are_a_sick_sink_and_not_twenty_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "order = \"none\"\nin_flight_max = 1")).await;
    sink.is(Mood::Answers(422, &[]));
    let promised = post(&daemon, 0..50).await;
    audit_has(folder.path(), &promised).await;
    let lane = lane_is(&daemon, "away").await;
    assert_eq!(lane["failure"]["reason"], "content_refused");
    // Letters are on their way to the disk when the lane already says so.
    eventually("those before it are dead letters", || async {
        (dead_letters(&daemon).await.len() == 19).then_some(())
    })
    .await;
    sink.is(Mood::Confirms);
    eventually("the others are delivered", || async { (sink.confirmed().len() == 31).then_some(()) }).await;
    assert_eq!(dead_letters(&daemon).await.len(), 19);
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_sink_that_asks_for_less_is_given_its_pause_and_no_attempt_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.is(Mood::Answers(429, &[("retry-after", "1")]));
    let promised = post(&daemon, 0..5).await;
    audit_has(folder.path(), &promised).await;
    let lane = lane_is(&daemon, "busy").await;
    assert_eq!(lane["failure"]["reason"], "throttled");
    eventually("it was asked more often than attempts_max", || async {
        (sink.requests() >= 12).then_some(())
    })
    .await;
    assert!(dead_letters(&daemon).await.is_empty());
    sink.is(Mood::Confirms);
    confirmed_all(&sink, &promised).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_sink_that_is_gone_for_good_keeps_its_backlog_and_raises_the_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.is(Mood::Answers(410, &[]));
    let promised = post(&daemon, 0..5).await;
    audit_has(folder.path(), &promised).await;
    let lane = lane_is(&daemon, "away").await;
    assert_eq!(lane["failure"]["reason"], "destination_gone");
    assert_eq!(lane["lag"]["events"], 5);
    let output = daemon.command(&["status"]).await;
    assert_eq!(output.status.code(), Some(3), "status says that something is wrong");
    assert!(daemon.log().contains("the sink takes no events"));
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_sink_that_hangs_costs_its_own_lane_a_time_out_and_nobody_else_anything() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.is(Mood::Hangs);
    let promised = post(&daemon, 0..5).await;
    audit_has(folder.path(), &promised).await;
    eventually("a time-out was counted", || async {
        let retries =
            daemon.metric("hookbus_delivery_outcomes_total{sink=\"orders\",outcome=\"retry\"}").await;
        retries.filter(|count| *count >= 1.0)
    })
    .await;
    sink.is(Mood::Confirms);
    confirmed_all(&sink, &promised).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_sink_that_resets_connections_gets_every_event_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    sink.is(Mood::Hangs);
    let promised = post(&daemon, 0..20).await;
    eventually("requests are under way", || async { (sink.requests() > 0).then_some(()) }).await;
    sink.goes_down().await;
    sink.is(Mood::Confirms);
    sink.comes_back().await;
    confirmed_all(&sink, &promised).await;
    audit_has(folder.path(), &promised).await;
    assert!(dead_letters(&daemon).await.is_empty());
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn strict_order_holds_through_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "order = \"strict\"")).await;
    post(&daemon, 0..10).await;
    sink.goes_down().await;
    let promised = post(&daemon, 10..40).await;
    sink.comes_back().await;
    confirmed_all(&sink, &promised).await;
    let mut numbers: Vec<u64> = sink.data_in_order().iter().map(|data| data["n"].as_u64().unwrap()).collect();
    numbers.dedup();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_dead_letter_is_also_published_to_the_sink_that_the_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let more = "dead_letter = \"refused\"\n[sinks.refused.file]\npath = \"refused.ndjson\"\n[[routes]]\nto = [\"orders\", \"audit\"]";
    // Routes stand at the top level, so they come first in the file.
    let (routes, more) =
        (more.split("[[routes]]").nth(1).unwrap(), more.split("[sinks.refused").next().unwrap());
    let config = format!(
        "[[routes]]{routes}\n{}[sinks.refused.file]\npath = \"refused.ndjson\"\n",
        config(&sink, more)
    );
    let daemon = Daemon::start(folder.path(), &config).await;
    sink.is(Mood::Refuses(422, BTreeSet::from([1])));
    post(&daemon, 0..3).await;
    let copy = eventually("the copy arrives", || async {
        crate::support::oracle::lines_of(&folder.path().join("hookbus-data/refused.ndjson")).pop()
    })
    .await;
    assert_eq!((&copy["data"]["n"], &copy["deadlettersink"]), (&Value::from(1), &Value::from("orders")));
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_replay_for_a_sink_that_is_gone_from_the_configuration_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let daemon = Daemon::start(folder.path(), &config(&sink, "")).await;
    assert_eq!(daemon.metric("hookbus_dead_letters{sink=\"orders\"}").await, Some(0.0), "from the start");
    sink.is(Mood::Refuses(422, BTreeSet::from([0])));
    post(&daemon, 0..1).await;
    eventually("it is a dead letter", || async { (dead_letters(&daemon).await.len() == 1).then_some(()) })
        .await;
    sink.goes_down().await;
    let output = daemon.command(&["dead-letters", "replay", "--sink", "orders"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(daemon.stop().await.success());

    let without = "[sources.inbox.generic]\n[sinks.audit.file]\npath = \"audit.ndjson\"\n";
    let daemon = Daemon::start(folder.path(), without).await;
    let log = daemon.log();
    assert!(log.contains("wait for a sink that is not configured") && log.contains("orders"), "{log}");
    assert!(daemon.stop().await.success());
}
