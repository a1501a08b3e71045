//! `hookbus journal` as an operator meets it: the real program, beside a running daemon and after it.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use crate::support::oracle::events_in;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const CONFIG: &str = r#"
[sources.inbox.generic]
id = "/n"
[sinks.audit.file]
path = "audit.ndjson"
"#;
const EVENTS: u64 = 5;

struct Run {
    code: i32,
    out: String,
    err: String,
}

async fn hookbus(folder: &Path, line: &str) -> Run {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["--config", "hookbus.toml", "journal"]).args(line.split_whitespace()).current_dir(folder);
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A daemon that has taken and delivered five events with a secret in them.
async fn daemon(folder: &Path) -> Daemon {
    let daemon = Daemon::start(folder, CONFIG).await;
    for number in 0..EVENTS {
        let body = format!("{{\"n\":\"event-{number}\",\"secret\":\"hunter2\"}}");
        assert_eq!(daemon.post("/hooks/inbox", body).await.unwrap().status, 200);
    }
    eventually("all are delivered", || async {
        (events_in(&folder.join("hookbus-data/audit.ndjson")).len() as u64 == EVENTS).then_some(())
    })
    .await;
    daemon
}

/// Every file below with its bytes and when it was last written.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            let modified = std::fs::metadata(&entry).unwrap().modified().unwrap();
            let bytes = std::fs::read(&entry).unwrap();
            found.insert(entry, (bytes, modified));
        }
    }
    found
}

#[tokio::test]
async fn beside_a_running_daemon_it_shows_the_journal_and_no_payload() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path()).await;
    let run = hookbus(folder.path(), "inspect").await;
    assert_eq!(run.code, 0, "{}", run.err);
    for wanted in ["GENERATION", "audit", "the last number is 5", "nothing was set aside", "format 2"] {
        assert!(run.out.contains(wanted), "{wanted:?} is not in:\n{}", run.out);
    }
    let run = hookbus(folder.path(), "inspect --records --from 2 --limit 3").await;
    let ids: Vec<&str> = run.out.split_whitespace().filter(|word| word.starts_with("event-")).collect();
    assert_eq!(ids, ["event-1", "event-2", "event-3"], "{}", run.out);
    let json = hookbus(folder.path(), "inspect --records --json").await;
    let listed: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&listed[4]["sequence"], &listed[4]["event"]["type"]),
        (&5.into(), &"webhook.received".into())
    );
    assert!(!run.out.contains("hunter2") && !json.out.contains("hunter2"), "R8");

    let run = hookbus(folder.path(), "verify").await;
    assert_eq!(run.code, 75);
    assert!(run.err.contains(&format!("in use by process {}", daemon.pid())), "{}", run.err);
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn after_the_daemon_it_recounts_and_writes_nothing_even_where_it_may_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon(folder.path()).await;
    eventually("the cursor is saved", || async {
        let shown = hookbus(folder.path(), "inspect --json").await.out;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        (shown["cursors"][0]["through"] == EVENTS).then_some(())
    })
    .await;
    daemon.kill_now();
    daemon.ended().await;
    let data = folder.path().join("hookbus-data");
    for entry in std::fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path()) {
        let mode = if entry.is_dir() { 0o500 } else { 0o400 };
        std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let before = files(&data);
    let run = hookbus(folder.path(), "verify").await;
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let row: Vec<&str> =
        run.out.lines().find(|line| line.trim().starts_with("audit")).unwrap().split_whitespace().collect();
    assert_eq!(row, ["audit", "5", "5", "0", "0", "0", "0", "0"], "{}", run.out);
    assert!(run.out.contains("all adds up"), "{}", run.out);
    assert_eq!(hookbus(folder.path(), "inspect").await.code, 0);
    assert_eq!(files(&data), before);
    for entry in std::fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[tokio::test]
async fn what_does_not_add_up_is_said_with_exit_code_3_and_what_cannot_be_read_with_1() {
    let folder = tempfile::tempdir().unwrap();
    assert!(daemon(folder.path()).await.stop().await.success());
    let slot = folder.path().join("hookbus-data/journal/cursors/audit.0");
    let mut bytes = std::fs::read(&slot).unwrap();
    bytes[48] ^= 1;
    std::fs::write(&slot, bytes).unwrap();
    let run = hookbus(folder.path(), "verify").await;
    assert_eq!(run.code, 3);
    assert!(run.out.contains("WRONG: slot 0 of the cursor audit cannot be believed"), "{}", run.out);

    let store = folder.path().join("hookbus-data/dead-letters.redb");
    std::fs::write(&store, vec![7; 8192]).unwrap();
    let run = hookbus(folder.path(), "verify").await;
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(run.err.contains("dead-letters.redb"), "{}", run.err);
    std::fs::remove_dir_all(folder.path().join("hookbus-data/journal")).unwrap();
    for command in ["inspect", "verify"] {
        let run = hookbus(folder.path(), command).await;
        assert_eq!(run.code, 1);
        assert!(run.err.contains("hookbus-data/journal"), "{}", run.err);
    }
}
