//! A newer program on an older data directory, an older one on a newer directory, and a directory restored from a copy: by
//! the real program, as an operator does it.
//! `data_v1` is what a version with format 1 of cursors and a dead-letter store without counts left behind when it was
//! killed: seven events, of which `orders` had got none and `picky` all but the last, two of its letters, one asked to be
//! replayed, and a body that could not be read.

use crate::support::brokers::free_port;
use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::http_sink::HttpSink;
use crate::support::oracle::{events_in, file_has_all};
use crate::support::{PATIENCE, eventually};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// What `data_v1` was configured with, but for the addresses.
fn config(orders: &str, picky: &str) -> String {
    format!(
        "data_dir = \"data\"\n[ingress]\nbody_max = \"8KiB\"\n[journal]\nsegment = \"32KiB\"\ndisk_max = \"1MiB\"\n\
         recent_max = \"64KiB\"\n[sources.inbox]\ndedupe = \"3650d\"\n[sources.inbox.generic]\nid = \"/id\"\ntype = \"/type\"\n\
         key = \"/key\"\n[sources.whatsapp.zapi]\ntoken = \"the-token\"\n[sinks.archive.file]\npath = \"archive.ndjson\"\n\
         {orders}{picky}"
    )
}

/// A folder with a copy of a kept data directory as `data`.
fn copy_of(kept: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(kept), &folder.path().join("data"));
    folder
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Every file below, with its bytes; the lock says nothing that lasts.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(contents(&entry.path()));
        } else if entry.file_name() != "lock" {
            found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// The command in this folder, whose configuration is `hookbus.toml`.
fn hookbus(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["--config", "hookbus.toml"]).args(arguments).current_dir(folder);
    for listener in ["INGRESS", "ADMIN"] {
        command.env(format!("HOOKBUS__{listener}__LISTEN"), "127.0.0.1:0");
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn ids(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    numbers.into_iter().map(|number| format!("event-{number}")).collect()
}

async fn has_confirmed(sink: &HttpSink, wanted: &BTreeSet<String>) {
    eventually(&format!("{wanted:?} are delivered"), || async {
        (sink.confirmed().keys().cloned().collect::<BTreeSet<_>>() == *wanted).then_some(())
    })
    .await;
}

async fn letters(daemon: &Daemon) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&daemon.ask("/api/v1/dead-letters").await.1).unwrap();
    listed["letters"].as_array().unwrap().clone()
}

#[tokio::test]
async fn what_an_older_version_left_goes_out_is_listed_is_replayed_and_is_recognised() {
    let folder = copy_of("data_v1");
    let (orders, picky) = (HttpSink::start().await, HttpSink::start().await);
    let config = config(&orders.table("orders"), &picky.table("picky"));
    std::fs::write(folder.path().join("hookbus.toml"), &config).unwrap();
    // As the upgrading guide has it: first looked at by the new program, which changes nothing.
    let before = contents(&folder.path().join("data"));
    let verified = hookbus(folder.path(), &["journal", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert_eq!(contents(&folder.path().join("data")), before);

    let daemon = Daemon::start(folder.path(), &config).await;
    has_confirmed(&orders, &ids(1..=7)).await;
    // The one that waited, and the letter that the older version was asked to replay.
    has_confirmed(&picky, &ids([5, 7])).await;
    let exact = orders.data_in_order().into_iter().find(|data| data["n"] == 1).unwrap();
    assert_eq!(exact["exact"].as_f64(), Some(12_345_678_901_234_567.10));
    let kept = eventually("the replayed letter is gone", || async {
        Some(letters(&daemon).await).filter(|letters| letters.len() == 2)
    })
    .await;
    assert_eq!(
        (kept[0]["event_id"].as_str(), kept[0]["reason"].as_str()),
        (Some("event-2"), Some("content_refused"))
    );
    assert_eq!(kept[1]["reason"], "not_json");

    let again =
        daemon.post("/hooks/inbox", "{\"id\":\"event-3\",\"type\":\"com.example.ok\"}").await.unwrap();
    assert_eq!(again.body, "{\"id\":\"event-3\",\"duplicate\":true}");
    let replayed = daemon.command(&["dead-letters", "replay", "--sink", "picky"]).await;
    assert!(replayed.status.success(), "{}", said(&replayed));
    has_confirmed(&picky, &ids([2, 5, 7])).await;
    assert_eq!(
        daemon.post("/hooks/inbox", "{\"id\":\"event-8\",\"type\":\"com.example.ok\"}").await.unwrap().status,
        200
    );
    has_confirmed(&orders, &ids(1..=8)).await;
    // What stood in the file stands there once, and the next line follows.
    let archive = folder.path().join("data/archive.ndjson");
    file_has_all(&archive, &ids(1..=8)).await;
    assert!(events_in(&archive).values().all(|times| *times == 1));
    let status = daemon.command(&["status"]).await;
    assert!(status.status.success(), "{}", said(&status));
    assert!(daemon.stop().await.success());
    let verified = hookbus(folder.path(), &["journal", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
}

/// The 16 bytes that every format begins with, and the checksum over what follows, so that it is not taken for damage.
fn of_format_9(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8..10].copy_from_slice(&9_u16.to_le_bytes());
    let crc = if path.extension().is_some_and(|extension| extension == "seg") {
        crc32fast::hash(&[&bytes[..12], &bytes[16..64]].concat())
    } else {
        crc32fast::hash(&[&bytes[..12], &bytes[16..]].concat())
    };
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_newer_format_is_refused_with_a_sentence_and_nothing_is_changed() {
    for newer in ["journal/00000001.seg", "journal/cursors/orders.0"] {
        let folder = copy_of("data_v1");
        let nobody =
            |name: &str| format!("[sinks.{name}.http]\nurl = \"http://127.0.0.1:{}/\"\n", free_port());
        std::fs::write(folder.path().join("hookbus.toml"), config(&nobody("orders"), &nobody("picky")))
            .unwrap();
        let data = folder.path().join("data");
        of_format_9(&data.join(newer));
        let before = contents(&data);
        for command in [&["run"][..], &["journal", "verify"]] {
            let ended = hookbus(folder.path(), command);
            assert_eq!(ended.status.code(), Some(1), "{command:?} {newer}: {}", said(&ended));
            assert!(said(&ended).contains("was written by a newer version (format 9"), "{}", said(&ended));
            assert!(said(&ended).contains(newer), "the file is named: {}", said(&ended));
            assert_eq!(contents(&data), before, "{command:?} {newer}");
        }
    }
}

// === Backup and restore

/// Posts these numbers; every answer is a promise.
async fn post(daemon: &Daemon, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        let body =
            format!("{{\"id\":\"event-{number}\",\"type\":\"com.example.ok\",\"key\":\"{}\"}}", number % 3);
        assert_eq!(daemon.post("/hooks/inbox", body).await.unwrap().status, 200);
    }
}

/// A copy that is one moment of the directory, as a snapshot of a file system is: nothing can be written meanwhile.
fn snapshot(daemon: &Daemon, to: &Path) {
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &daemon.pid().to_string()]).status().unwrap().success())
    };
    signal("-STOP");
    let deadline = std::time::Instant::now() + PATIENCE;
    let stopped = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        tasks.map(Result::unwrap).all(|task| {
            std::fs::read_to_string(task.path().join("stat")).map_or(true, |stat| stat.contains(") T "))
        })
    };
    while !stopped() {
        assert!(std::time::Instant::now() < deadline, "it does not stop");
        std::thread::yield_now();
    }
    copy(&daemon.folder.join("data"), to);
    signal("-CONT");
}

#[tokio::test]
async fn a_snapshot_of_a_running_directory_is_a_backup_that_loses_nothing_that_was_promised_before_it() {
    const SNAPSHOTS: u32 = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut orders = HttpSink::start().await;
    let picky = HttpSink::start().await;
    let config = config(&orders.table("orders"), &picky.table("picky"));
    let daemon = Daemon::start(folder.path(), &config).await;
    post(&daemon, 1..=20).await;
    has_confirmed(&orders, &ids(1..=20)).await;
    orders.goes_down().await;
    // Taken while events come in, so that writes are cut in the middle.
    let mut copies = Vec::new();
    let mut promised = 20;
    for number in 0..SNAPSHOTS {
        let busy = futures_util::future::join_all((0..8_u32).map(|sender| {
            let first = 1000 * (number + 1) + 100 * sender;
            post(&daemon, first..=first + 9)
        }));
        let restored = folder.path().join(format!("restored-{number}"));
        std::fs::create_dir(&restored).unwrap();
        post(&daemon, promised + 1..=promised + 5).await;
        promised += 5;
        let (_, ()) = tokio::join!(busy, async {
            tokio::task::yield_now().await;
            snapshot(&daemon, &restored.join("data"));
        });
        copies.push((restored, promised));
    }
    daemon.kill_now();

    orders.comes_back().await;
    for (restored, promised) in copies {
        std::fs::write(restored.join("hookbus.toml"), &config).unwrap();
        let verified = hookbus(&restored, &["journal", "verify"]);
        let text = said(&verified);
        assert!(verified.status.success(), "a restored copy adds up: {text}");
        let before = orders.confirmed();
        let daemon = Daemon::start(&restored, &config).await;
        // Those that `orders` had not got when the snapshot was made come now; from the copies before this one, again.
        eventually("what had not gone out goes out", || async {
            let now = orders.confirmed();
            let more = |id: &String| now.get(id) > before.get(id);
            ids(21..=promised).iter().all(more).then_some(())
        })
        .await;
        // Nothing is missing for the sink that had everything, and what was promised is recognised.
        file_has_all(&restored.join("data/archive.ndjson"), &ids(1..=promised)).await;
        let status = daemon.status().await;
        let mut why = String::new();
        for lane in status["lanes"].as_array().unwrap() {
            write!(why, "{lane} ").unwrap();
        }
        assert!(daemon.command(&["status"]).await.status.success(), "{why}");
        assert!(daemon.stop().await.success());
    }
}
