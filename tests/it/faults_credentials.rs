//! Credentials that are refused: tried again at a pace that locks nobody out, read anew each time, and taken when right.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// No shorter than this between two attempts with credentials that were refused: brokers lock users out who try too often.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// When it was asked, and whether the credentials were right.
type Asked = Arc<Mutex<Vec<(Instant, bool)>>>;

async fn server(right: &'static str) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let take = move |headers: HeaderMap| async move {
        let is_right = headers.get("authorization").is_some_and(|value| value == right);
        seen.lock().unwrap().push((Instant::now(), is_right));
        if is_right { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(take))).await });
    (port, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_are_tried_at_a_pace_that_locks_nobody_out() {
    let (port, asked) = server("Bearer new").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorization");
    std::fs::write(&file, "Bearer old\n").unwrap();
    let config = format!(
        "[sources.inbox.generic]\n[sinks.orders]\norder = \"strict\"\n[sinks.orders.http]\n\
         url = \"http://127.0.0.1:{port}/\"\nheaders = {{ authorization = {{ file = {file:?} }} }}\n"
    );
    let daemon = Daemon::start(folder.path(), &config).await;
    for number in 0..5 {
        assert_eq!(daemon.post("/hooks/inbox", format!("[{number}]")).await.unwrap().status, 200);
    }
    eventually("it was refused twice", || async { (asked.lock().unwrap().len() >= 2).then_some(()) }).await;
    let lane = daemon.lane("orders").await;
    assert_eq!(lane["failure"]["reason"], "not_authorized", "{lane}");
    // A file that is gone for a moment, as while somebody replaces it, is waited out as well.
    std::fs::remove_file(&file).unwrap();
    eventually("the lane says that the file is missing", || async {
        let lane = daemon.lane("orders").await;
        lane["failure"]["detail"].as_str()?.contains("does not exist").then_some(())
    })
    .await;
    std::fs::write(&file, "Bearer new\n").unwrap();
    eventually("everything is delivered", || async {
        (daemon.lane("orders").await["lag"]["events"] == 0).then_some(())
    })
    .await;
    let asked = asked.lock().unwrap().clone();
    let refused: Vec<Instant> = asked.iter().filter(|(_, is_right)| !is_right).map(|(at, _)| *at).collect();
    for pair in refused.windows(2) {
        assert!(pair[1] - pair[0] >= PAUSE_MIN, "{:?} after the one before", pair[1] - pair[0]);
    }
    assert_eq!(asked.len() - refused.len(), 5, "each event once");
    assert!(daemon.stop().await.success());
}
