//! The first run of a user: no configuration, the documented webhooks of both gateways, events in a file.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::oracle::{events_in, lines_of};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn index() -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(fixtures().join("index.json")).unwrap()).unwrap()
}

async fn post_all(daemon: &Daemon, rows: &[Value]) {
    for row in rows {
        let file = row["file"].as_str().unwrap();
        let body = std::fs::read(fixtures().join(file)).unwrap();
        let path = format!("/hooks/{}", row["provider"].as_str().unwrap());
        let answer = daemon.post(&path, body).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"value\":true}"), "{file}");
    }
}

#[tokio::test]
async fn the_default_run_takes_every_documented_webhook_once_and_delivers_it_in_its_expected_form() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_default(folder.path()).await;
    let events = folder.path().join("hookbus-data/events.ndjson");
    let rows = index();

    post_all(&daemon, &rows).await;
    eventually("every fixture is delivered", || async {
        (lines_of(&events).len() >= rows.len()).then_some(())
    })
    .await;
    let delivered = lines_of(&events);
    assert_eq!(delivered.len(), rows.len(), "each once");
    for row in &rows {
        let body: Value =
            serde_json::from_slice(&std::fs::read(fixtures().join(row["file"].as_str().unwrap())).unwrap())
                .unwrap();
        let event = match row["ce_id"].as_str() {
            Some(id) => delivered.iter().find(|event| event["id"] == id),
            None => delivered.iter().find(|event| event["data"] == body),
        };
        let event = event.unwrap_or_else(|| panic!("{} was not delivered", row["file"]));
        assert_eq!(event["data"], body, "{}", row["file"]);
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["hookbussource"], row["provider"]);
        let suffix = row["ce_type_suffix"].as_str().unwrap();
        assert!(event["type"].as_str().unwrap().ends_with(suffix), "{} is no {suffix}", event["type"]);
    }

    post_all(&daemon, &rows).await;
    let without_identity = rows.iter().filter(|row| row["ce_id"].is_null()).count();
    let expected = rows.len() + without_identity;
    eventually("the events without identity came again", || async {
        (lines_of(&events).len() >= expected).then_some(())
    })
    .await;
    daemon.stop().await;
    assert_eq!(lines_of(&events).len(), expected, "what has an identity is recognised");
    let twice = events_in(&events).values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "no id stands twice");
}

#[tokio::test]
async fn what_was_not_delivered_before_a_stop_is_delivered_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_default(folder.path()).await;
    let pause =
        daemon.http.post(format!("http://{}/api/v1/sinks/events/pause", daemon.admin)).send().await.unwrap();
    assert!(pause.status().is_success());
    for number in 0..20 {
        assert_eq!(daemon.post("/hooks/inbox", format!("{{\"n\":{number}}}")).await.unwrap().status, 200);
    }
    assert_eq!(daemon.lane("events").await["lag"]["events"], 20);
    assert!(daemon.stop().await.success());

    let daemon = Daemon::start_default(folder.path()).await;
    let events = folder.path().join("hookbus-data/events.ndjson");
    eventually("all are delivered", || async { (lines_of(&events).len() == 20).then_some(()) }).await;
    daemon.stop().await;
}
