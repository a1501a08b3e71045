//! Stopping: in phases on the first signal, with nothing refused that was accepted and nothing lost that was promised.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::{client, eventually};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_answers_every_request_it_took_and_resets_none() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Arc::new(Daemon::start_default(folder.path()).await);
    let answered = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let (daemon, answered) = (Arc::clone(&daemon), Arc::clone(&answered));
            tokio::spawn(async move {
                for number in 0_u64.. {
                    match daemon.post("/hooks/inbox", format!("[{sender},{number}]")).await {
                        Ok(answer) if answer.status == 200 => answered.fetch_add(1, Ordering::Relaxed),
                        Ok(answer) => return assert_eq!(answer.status, 503, "{}", answer.body),
                        Err(error) => {
                            return assert!(
                                error.is_connect(),
                                "a request that was taken was not answered: {error:?}"
                            );
                        }
                    };
                }
            })
        })
        .collect();
    eventually("load is on", || async { (answered.load(Ordering::Relaxed) > 200).then_some(()) }).await;
    daemon.ask_to_stop();
    for sender in senders {
        sender.await.unwrap();
    }
    let mut daemon = Arc::into_inner(daemon).unwrap();
    assert_eq!(daemon.ended().await.code(), Some(0));
    let promised = usize::try_from(answered.load(Ordering::Relaxed)).unwrap();

    let daemon = Daemon::start_default(folder.path()).await;
    let events = folder.path().join("hookbus-data/events.ndjson");
    eventually("everything promised is delivered", || async {
        (crate::support::oracle::events_in(&events).len() >= promised).then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_what_was_under_way_is_delivered_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let config = format!("[sources.inbox.generic]\n{}", sink.table("orders"));
    let mut daemon = Daemon::start(folder.path(), &config).await;
    sink.is(Mood::Hangs);
    assert_eq!(daemon.post("/hooks/inbox", "{\"n\":1}").await.unwrap().status, 200);
    eventually("the delivery is under way", || async { (sink.requests() == 1).then_some(()) }).await;
    daemon.ask_to_stop();
    eventually("it began to stop", || async { daemon.log().contains("stopping").then_some(()) }).await;
    daemon.ask_to_stop();
    assert_eq!(daemon.ended().await.code(), Some(1));

    sink.is(Mood::Confirms);
    let daemon = Daemon::start(folder.path(), &config).await;
    eventually("it is delivered now", || async { (sink.confirmed().len() == 1).then_some(()) }).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn readiness_goes_with_the_first_signal_and_a_second_process_cannot_have_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_default(folder.path()).await;
    assert_eq!(daemon.ask("/readyz").await.0, 200);
    let second = tokio::process::Command::new(PROGRAM)
        .arg("run")
        .current_dir(folder.path())
        .env("HOOKBUS__INGRESS__LISTEN", "127.0.0.1:0")
        .env("HOOKBUS__ADMIN__LISTEN", "127.0.0.1:0")
        .output()
        .await
        .unwrap();
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by process"));
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn while_it_stops_it_is_not_ready_and_operators_can_still_look() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let config = format!("[sources.inbox.generic]\n{}", sink.table("orders"));
    let mut daemon = Daemon::start(folder.path(), &config).await;
    sink.is(Mood::Hangs);
    daemon.post("/hooks/inbox", "{}").await.unwrap();
    eventually("the delivery is under way", || async { (sink.requests() == 1).then_some(()) }).await;
    daemon.ask_to_stop();
    let readiness = eventually("readiness is off", || async {
        let response = client().get(format!("http://{}/readyz", daemon.admin)).send().await.ok()?;
        (response.status() == 503).then_some(response)
    })
    .await;
    let reason: Value = readiness.json().await.unwrap();
    assert!(reason.is_object(), "the answer says why");
    daemon.ask_to_stop();
    daemon.ended().await;
}

#[tokio::test]
async fn neither_a_sink_that_hangs_nor_a_sender_that_never_finishes_holds_up_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let config = format!(
        "[shutdown]\ngrace = \"500ms\"\n[ingress]\nbody_timeout = \"10m\"\n[sources.inbox.generic]\n\
         [sinks.orders]\ntimeout = \"10m\"\n{}",
        sink.table("orders")
    );
    let mut daemon = Daemon::start(folder.path(), &config).await;
    sink.is(Mood::Hangs);
    assert_eq!(daemon.post("/hooks/inbox", "{\"n\":1}").await.unwrap().status, 200);
    eventually("the delivery is under way", || async { (sink.requests() == 1).then_some(()) }).await;
    let mut sender = tokio::net::TcpStream::connect(daemon.ingress).await.unwrap();
    sender.write_all(b"POST /hooks/inbox HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
    daemon.ask_to_stop();
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());

    sink.is(Mood::Confirms);
    let daemon = Daemon::start(folder.path(), &config).await;
    eventually("what was cut off is delivered now", || async { (sink.confirmed().len() == 1).then_some(()) })
        .await;
    assert!(daemon.stop().await.success());
}
