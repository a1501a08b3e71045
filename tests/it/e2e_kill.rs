//! SIGKILL under load, round after round: not one id that was answered 2xx may be missing afterwards (R1, R4).

use crate::support::daemon::Daemon;
use crate::support::oracle::file_has_all;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const ROUNDS: u64 = 12;
const SENDERS: u64 = 16;

const CONFIG: &str = r#"
[ingress]
body_max = "64KiB"
[journal]
segment = "1MiB"
[sources.inbox.generic]
[sinks.first.file]
path = "first.ndjson"
[sinks.second]
order = "strict"
[sinks.second.file]
path = "second.ndjson"
rotate_at = "100GiB"
"#;

/// Posts until the process is gone and notes every id that was promised.
async fn send_until_killed(daemon: &Daemon, numbers: &AtomicU64, promised: &Mutex<BTreeSet<String>>) {
    loop {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let Ok(answer) =
            daemon.post("/hooks/inbox", format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(500))).await
        else {
            return;
        };
        if answer.status == 200 {
            let id = serde_json::from_str::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned();
            promised.lock().unwrap().insert(id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_again_and_again_it_loses_nothing_it_promised() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = Arc::new(AtomicU64::new(0));
    let promised = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..ROUNDS {
        let daemon = Arc::new(Daemon::start(folder.path(), CONFIG).await);
        let enough = promised.lock().unwrap().len() + 40 + usize::try_from(round * 37 % 200).unwrap();
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (daemon, numbers, promised) =
                    (Arc::clone(&daemon), Arc::clone(&numbers), Arc::clone(&promised));
                tokio::spawn(async move { send_until_killed(&daemon, &numbers, &promised).await })
            })
            .collect();
        crate::support::eventually("enough was promised in this round", || async {
            (promised.lock().unwrap().len() >= enough).then_some(())
        })
        .await;
        daemon.kill_now();
        for sender in senders {
            sender.await.unwrap();
        }
        Arc::into_inner(daemon).expect("the senders are done with it").ended().await;
    }

    let daemon = Daemon::start(folder.path(), CONFIG).await;
    let promised = promised.lock().unwrap().clone();
    for file in ["first.ndjson", "second.ndjson"] {
        file_has_all(&folder.path().join("hookbus-data").join(file), &promised).await;
    }
    assert!(daemon.stop().await.success());
}
