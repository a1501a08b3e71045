//! R1, R2 in the system calls of the real program: no 2xx is written to a socket before the sync that covers what it
//! promises has returned, and no cursor moves before the file sink's sync has.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::strace::{SystemCall, strace, system_calls};
use std::collections::{BTreeMap, BTreeSet};

const CONFIG: &str = r#"
[ingress]
body_max = "64KiB"
[journal]
segment = "256KiB"
disk_max = "4MiB"
[sources.inbox.generic]
[sources.batch.cloudevents]
[sources.whatsapp.zapi]
instance = "3C67AB641C8AA0F49E4BC2F5CBA37A21"
[sinks.audit.file]
path = "audit.ndjson"
"#;
const WATCHED: &str = "trace=recvfrom,read,readv,pwrite64,write,writev,sendto,sendmsg,sendfile,splice,fsync,fdatasync,sync_file_range";
const SENDERS: u64 = 12;
const POSTS: u64 = 12;
/// Stands at the beginning of every mark, which stands in a body and nowhere else.
const MARK: &str = "mark-";

/// One webhook with its marks: an event, a batch, a repetition, or what cannot be read.
async fn post(daemon: &Daemon, number: u64) {
    let (path, media_type, body) = match number % 4 {
        0 => ("inbox", "application/json", format!("{{\"n\":\"{MARK}{number:04}\"}}")),
        1 => {
            let event = |part| {
                format!(
                    "{{\"specversion\":\"1.0\",\"id\":\"{number}-{part}\",\"source\":\"s\",\"type\":\"t\",\"data\":\"{MARK}{number:04}-{part}\"}}"
                )
            };
            ("batch", "application/cloudevents-batch+json", format!("[{},{}]", event("a"), event("b")))
        }
        2 => ("inbox", "application/json", format!("{{\"n\":\"{MARK}{:04}\"}}", number - 2)),
        _ => ("whatsapp", "application/json", format!("{{no json {MARK}{number:04}")),
    };
    let url = format!("http://{}/hooks/{path}", daemon.ingress);
    let answer = daemon.http.post(url).header("content-type", media_type).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

fn marks_in(text: &str) -> BTreeSet<&str> {
    let is_mark = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let ends = |rest: &str| rest.find(|c| !is_mark(c)).unwrap_or(rest.len());
    text.match_indices(MARK).map(|(at, _)| &text[at..at + ends(&text[at..])]).collect()
}

/// For each mark: when the first sync returned that began after the mark had been written to a file like this.
fn durable_at(calls: &[SystemCall], is_file: impl Fn(&str) -> bool) -> BTreeMap<&str, usize> {
    let of_file = |call: &&SystemCall| is_file(&call.file) && call.succeeded();
    let mut durable = BTreeMap::new();
    for write in calls.iter().filter(of_file).filter(|call| call.name.contains("write")) {
        let covers = |call: &&SystemCall| {
            matches!(call.name.as_str(), "fdatasync" | "fsync")
                && call.file == write.file
                && call.entered > write.returned
        };
        let Some(synced) = calls.iter().filter(of_file).filter(covers).map(|call| call.returned).min() else {
            continue;
        };
        for mark in marks_in(&write.arguments) {
            let at = durable.entry(mark).or_insert(synced);
            *at = synced.min(*at);
        }
    }
    durable
}

/// Every 200 with the marks that the request it answers carried, and when writing it began.
fn promises(calls: &[SystemCall]) -> Vec<(BTreeSet<&str>, usize)> {
    let mut carried: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut promises = Vec::new();
    // What was read counts from the moment it was there.
    let mut calls: Vec<&SystemCall> = calls.iter().filter(|call| call.file.starts_with("socket:")).collect();
    let is_read = |call: &SystemCall| call.name.starts_with("re");
    calls.sort_by_key(|call| if is_read(call) { call.returned } else { call.entered });
    for call in calls {
        if is_read(call) {
            carried.entry(&call.file).or_default().extend(marks_in(&call.arguments));
        } else if call.arguments.contains("HTTP/1.1 200") {
            let marks = carried.remove(call.file.as_str()).unwrap_or_default();
            if !marks.is_empty() {
                promises.push((marks, call.entered));
            }
        }
    }
    promises
}

#[tokio::test(flavor = "multi_thread")]
async fn no_2xx_is_written_to_a_socket_before_the_sync_of_all_it_promises_has_returned() {
    // Long enough that whoever does not wait is seen.
    const SLOW_SYNCS: &str = "inject=fdatasync:delay_enter=20000";
    let folder = tempfile::tempdir().unwrap();
    let daemon =
        Daemon::start_through(folder.path(), &strace(&["-e", WATCHED, "-e", SLOW_SYNCS]), CONFIG).await;
    let senders = (0..SENDERS).map(async |sender| {
        for post_number in 0..POSTS {
            post(&daemon, sender * POSTS + post_number).await;
        }
    });
    futures_util::future::join_all(senders).await;
    assert!(daemon.stop().await.success());

    let calls = system_calls(folder.path()).await;
    let in_journal = durable_at(&calls, |file| file.ends_with(".seg"));
    let in_quarantine = durable_at(&calls, |file| file.ends_with("dead-letters.redb"));
    let promises = promises(&calls);
    assert_eq!(promises.len() as u64, SENDERS * POSTS, "every 200 is seen");
    for (marks, answered) in promises {
        for mark in marks {
            let durable = in_journal.get(mark).or_else(|| in_quarantine.get(mark));
            assert!(
                durable.is_some_and(|durable| *durable < answered),
                "R1: {mark} was answered at {answered} and durable at {durable:?}"
            );
        }
    }
    assert_eq!(in_quarantine.len() as u64, SENDERS * POSTS / 4, "bodies that cannot be read are set aside");
}

#[tokio::test]
async fn no_cursor_passes_an_event_before_the_files_sync_has_returned() {
    const SLOW_SYNCS: &str = "inject=fdatasync:delay_enter=400000";
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hookbus-data");
    let watched =
        ["audit.ndjson", "journal/cursors/audit.0", "journal/cursors/audit.1", "journal/00000001.seg"]
            .map(|name| data.join(name).display().to_string());
    let mut options = vec!["-e", "trace=pwrite64,write,fdatasync", "-e", SLOW_SYNCS];
    options.extend(watched.iter().flat_map(|path| ["-P", path]));
    let daemon = Daemon::start_through(folder.path(), &strace(&options), CONFIG).await;
    post(&daemon, 0).await;
    eventually("it is delivered", || async {
        (daemon.lane("audit").await["lag"]["events"] == 0).then_some(())
    })
    .await;
    assert!(daemon.stop().await.success());

    let calls = system_calls(folder.path()).await;
    let mark = format!("{MARK}0000");
    let accepted = durable_at(&calls, |file| file.ends_with(".seg"))[mark.as_str()];
    let delivered = durable_at(&calls, |file| file.ends_with("audit.ndjson"))[mark.as_str()];
    let is_cursor = |call: &&SystemCall| call.name == "pwrite64" && call.file.contains("/cursors/audit.");
    let moved = calls.iter().filter(is_cursor).map(|call| call.entered).find(|entered| *entered > accepted);
    assert!(moved.is_some_and(|moved| delivered < moved), "R2: {delivered} before {moved:?}");
}
