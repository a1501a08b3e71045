//! The real program on a disk that fills up, fails, hangs, or cannot be written: nobody is promised what is not kept,
//! what was promised goes out, and it either heals or ends and a new start goes on (R1, R4, R5, R6).

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::small_disk::SmallDisk;
use crate::support::strace::{strace, system_calls};
use crate::support::{PATIENCE, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

/// Room for a journal and a dead-letter store, both small.
const DISK_BYTES: u64 = 8 << 20;

const STORE_FAILED: &str = "hookbus_dead_letters_store_failed";

/// Small segments, one sink `orders`, and a source whose unreadable bodies are quarantined.
fn config(sink: &HttpSink, data_dir: &str) -> String {
    format!(
        "data_dir = \"{data_dir}\"\n[ingress]\nbody_max = \"16KiB\"\nstore_timeout = \"300ms\"\n\
         [journal]\nsegment = \"64KiB\"\n[sources.inbox.generic]\n\
         [sources.whatsapp.zapi]\ninstance = \"3C67AB641C8AA0F49E4BC2F5CBA37A21\"\n{}",
        sink.table("orders")
    )
}

fn body(number: u64) -> String {
    format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(2000))
}

/// Posts one event; its id where it was promised. Whoever is refused is told when to try again.
async fn post(daemon: &Daemon, number: u64) -> Option<String> {
    let url = format!("http://{}/hooks/inbox", daemon.ingress);
    let answer = daemon.http.post(url).body(body(number)).send().await.unwrap();
    if answer.status() == 503 {
        assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
        return None;
    }
    assert_eq!(answer.status(), 200);
    Some(
        serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned(),
    )
}

/// Posts from `number` on until one is refused.
async fn post_until_refused(daemon: &Daemon, number: u64) -> BTreeSet<String> {
    let mut promised = BTreeSet::new();
    while let Some(id) = post(daemon, number + promised.len() as u64).await {
        promised.insert(id);
        assert!(promised.len() < 500, "nothing is ever refused");
    }
    promised
}

async fn post_until_taken(daemon: &Daemon, number: u64) -> String {
    eventually("it is taken", || post(daemon, number)).await
}

async fn order(daemon: &Daemon, what: &str) {
    let url = format!("http://{}/api/v1/sinks/orders/{what}", daemon.admin);
    assert!(daemon.http.post(url).send().await.unwrap().status().is_success());
}

async fn all_confirmed(sink: &HttpSink, promised: &BTreeSet<String>) {
    eventually("the sink has all that was promised", || async {
        let confirmed = sink.confirmed();
        promised.iter().all(|id| confirmed.contains_key(id)).then_some(())
    })
    .await;
}

async fn is_ready(daemon: &Daemon, status: u16, because: &str) {
    eventually(&format!("readyz says {status}"), || async {
        let (said, reason) = daemon.ask("/readyz").await;
        (said == status && reason.contains(because)).then_some(())
    })
    .await;
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_and_delivers_and_heals_when_room_comes_back() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    let disk = SmallDisk::start(folder.path(), DISK_BYTES).await;
    let config = config(&sink, "disk/data");
    let daemon = Daemon::start_through(folder.path(), &words(disk.enter()), &config).await;
    let mut promised = BTreeSet::from([post_until_taken(&daemon, 0).await]);
    order(&daemon, "pause").await;

    disk.fill().await;
    promised.extend(post_until_refused(&daemon, 1).await);
    is_ready(&daemon, 503, "full").await;
    disk.free().await;
    promised.insert(post_until_taken(&daemon, 1000).await);
    is_ready(&daemon, 200, "").await;

    disk.fill().await;
    promised.extend(post_until_refused(&daemon, 1001).await);
    // A new start finds the disk as full; a pause does not outlast it. The sinks go on, and what they have passed makes
    // room.
    daemon.kill().await;
    let daemon = Daemon::start_through(folder.path(), &words(disk.enter()), &config).await;
    all_confirmed(&sink, &promised).await;
    promised.insert(post_until_taken(&daemon, 2000).await);
    all_confirmed(&sink, &promised).await;
    is_ready(&daemon, 200, "").await;
    let told: BTreeSet<String> = sink.confirmed().into_keys().collect();
    assert_eq!(told, promised, "of what was refused nothing is kept");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_full_disk_makes_lanes_wait_for_the_dead_letter_store_which_goes_on_when_there_is_room() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    let disk = SmallDisk::start(folder.path(), DISK_BYTES).await;
    let config = config(&sink, "disk/data");
    let daemon = Daemon::start_through(folder.path(), &words(disk.enter()), &config).await;
    sink.is(Mood::Answers(422, &[]));
    disk.fill().await;
    let mut promised = post_until_refused(&daemon, 0).await;
    assert!(lane_waits_for_the_store(&daemon).await > 0);
    assert_eq!(daemon.metric(STORE_FAILED).await, Some(1.0));
    disk.free().await;
    eventually("the store goes on without a new start", || async {
        (daemon.metric(STORE_FAILED).await? == 0.0).then_some(())
    })
    .await;
    promised.insert(post_until_taken(&daemon, 1000).await);
    eventually("the lane goes on, too", || async {
        let lane = daemon.lane("orders").await;
        (!lane.to_string().contains("dead-letter store")).then_some(())
    })
    .await;
    assert!(daemon.log().contains("has room again"), "the log says so");
    let letters = eventually("there are dead letters", || async {
        let letters = daemon.status().await["dead_letters"].take();
        (letters["by_sink"]["orders"].as_u64()? > 0).then_some(letters)
    })
    .await;
    assert_eq!(letters["unaccounted"], 0, "{letters}");
    // A new start finds in the file what the store said.
    daemon.kill().await;
    let daemon = Daemon::start_through(folder.path(), &words(disk.enter()), &config).await;
    ends_as_dead_letters_or_delivered(&daemon, &sink, &promised).await;
    assert!(sink.confirmed().keys().all(|id| promised.contains(id)), "of what was refused nothing is kept");
    assert!(daemon.stop().await.success());
    let mut verify = words(disk.enter());
    verify.extend([PROGRAM, "--config", "hookbus.toml", "journal", "verify"]);
    let verified = tokio::process::Command::new(verify[0]).args(&verify[1..]).output().await.unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// How many events the lane holds meanwhile.
async fn lane_waits_for_the_store(daemon: &Daemon) -> u64 {
    eventually("status says what the lane waits for", || async {
        let lane = daemon.lane("orders").await;
        lane.to_string().contains("dead-letter store").then(|| lane["lag"]["events"].as_u64().unwrap())
    })
    .await
}

/// First the sink still refuses, then it confirms: each promised event is in the one place or the other (R4).
async fn ends_as_dead_letters_or_delivered(daemon: &Daemon, sink: &HttpSink, promised: &BTreeSet<String>) {
    eventually("there are dead letters", || async {
        let letters = daemon.status().await["dead_letters"]["by_sink"]["orders"].as_u64()?;
        (letters > 0).then_some(())
    })
    .await;
    sink.is(Mood::Confirms);
    eventually("the journal is drained", || async {
        (daemon.lane("orders").await["lag"]["events"] == 0).then_some(())
    })
    .await;
    let replayed = daemon.command(&["dead-letters", "replay", "--sink", "orders"]).await;
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    all_confirmed(sink, promised).await;
}

#[tokio::test]
async fn a_failed_sync_of_the_dead_letter_store_makes_lanes_wait_and_loses_nothing() {
    /// Opening a new store takes four on its own thread; the writer's fifth fails.
    const FIFTH_SYNC_FAILS: &str = "inject=fdatasync:error=EIO:when=5";
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    let store = folder.path().join("data/dead-letters.redb").display().to_string();
    let options = ["-e", "trace=fdatasync", "-e", FIFTH_SYNC_FAILS, "-P", &store];
    let config = config(&sink, "data");
    let mut daemon = Daemon::start_through(folder.path(), &strace(&options), &config).await;
    for number in 0..4 {
        let quarantined = daemon.post("/hooks/whatsapp", format!("no json {number}")).await.unwrap();
        assert_eq!(quarantined.status, 200);
    }
    sink.is(Mood::Answers(422, &[]));
    let mut promised = BTreeSet::from([post_until_taken(&daemon, 0).await]);
    assert_eq!(lane_waits_for_the_store(&daemon).await, 1, "the event stays in the journal");
    assert_eq!(daemon.post("/hooks/whatsapp", "no json 4").await.unwrap().status, 503);
    promised.insert(post(&daemon, 1).await.expect("the journal is well"));
    daemon.kill_now();
    daemon.ended().await;
    let calls = system_calls(folder.path()).await;
    let failed = calls.iter().position(|call| call.result.contains("INJECTED")).expect("a sync has failed");
    assert_eq!(calls.len(), failed + 1, "no sync is tried again: {:?}", &calls[failed..]);

    let daemon = Daemon::start(folder.path(), &config).await;
    ends_as_dead_letters_or_delivered(&daemon, &sink, &promised).await;
    assert_eq!(daemon.status().await["dead_letters"]["quarantined"], 4);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_write_or_sync_nothing_is_promised_what_was_goes_out_and_the_program_ends() {
    for (sentence, fault) in [
        ("a sync fails", "inject=fdatasync:error=EIO:when=6"),
        ("a write fails", "inject=pwrite64:error=EIO:when=6"),
        ("the disk has become read-only", "inject=pwrite64:error=EROFS:when=6+"),
    ] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
        let segment = folder.path().join("data/journal/00000001.seg").display().to_string();
        let options = ["-e", "trace=pwrite64,fdatasync", "-e", fault, "-P", &segment];
        let config = config(&sink, "data");
        let mut daemon = Daemon::start_through(folder.path(), &strace(&options), &config).await;
        order(&daemon, "pause").await;
        let mut promised = BTreeSet::new();
        for number in 0..5 {
            promised.insert(post(&daemon, number).await.expect("the disk is well"));
        }
        let refused = futures_util::future::join_all((5..20).map(|number| post(&daemon, number))).await;
        assert!(refused.iter().all(Option::is_none), "{sentence}: nobody is told that it is kept");
        assert_eq!(daemon.ask("/readyz").await.0, 503, "{sentence}");
        assert_eq!(post(&daemon, 20).await, None, "{sentence}: nor later");
        order(&daemon, "resume").await;
        assert_eq!(daemon.ended().await.code(), Some(1), "{sentence}");
        let delivered: BTreeSet<String> = sink.confirmed().into_keys().collect();
        assert_eq!(delivered, promised, "{sentence}: what was durable goes out, and nothing else");
        let calls = system_calls(folder.path()).await;
        let failed = calls.iter().position(|call| call.result.contains("INJECTED")).expect("it has failed");
        assert_eq!(calls.len(), failed + 1, "{sentence}: nothing is tried again: {:?}", &calls[failed..]);

        let daemon = Daemon::start(folder.path(), &config).await;
        promised.insert(post(&daemon, 5).await.expect("a new start takes the sender's repeat"));
        all_confirmed(&sink, &promised).await;
        assert!(daemon.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_of_the_directory_it_ends_with_what_was_promised() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    let directory = folder.path().join("data/journal").display().to_string();
    // Of the thread that makes segments, whose first two syncs make and name the first one.
    let options = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=2", "-P", &directory];
    let config = config(&sink, "data");
    let mut daemon = Daemon::start_through(folder.path(), &strace(&options), &config).await;
    order(&daemon, "pause").await;
    let mut promised = post_until_refused(&daemon, 0).await;
    assert_eq!(daemon.ask("/readyz").await.0, 503);
    order(&daemon, "resume").await;
    assert_eq!(daemon.ended().await.code(), Some(1));
    all_confirmed(&sink, &promised).await;
    let daemon = Daemon::start(folder.path(), &config).await;
    promised.insert(post(&daemon, 1000).await.expect("a new start takes events again"));
    all_confirmed(&sink, &promised).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_hangs_costs_refusals_in_time_and_no_promise() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    let segment = folder.path().join("data/journal/00000001.seg").display().to_string();
    let options =
        ["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=5000000:when=2", "-P", &segment];
    let daemon = Daemon::start_through(folder.path(), &strace(&options), &config(&sink, "data")).await;
    let mut promised = BTreeSet::from([post(&daemon, 0).await.expect("the disk is well")]);
    let while_it_hangs = futures_util::future::join_all((1..40).map(|number| post(&daemon, number))).await;
    assert!(while_it_hangs.contains(&None), "ingress.store_timeout bounds the wait");
    assert!(daemon.log().contains("ingress.store_timeout"), "the log says what is wrong");
    promised.extend(while_it_hangs.into_iter().flatten());
    promised.insert(post_until_taken(&daemon, 100).await);
    all_confirmed(&sink, &promised).await;
    is_ready(&daemon, 200, "").await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_fails_readiness_with_its_reason_until_it_answers_again() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    let disk = SmallDisk::start(folder.path(), DISK_BYTES).await;
    let daemon =
        Daemon::start_through(folder.path(), &words(disk.enter()), &config(&sink, "disk/data")).await;
    let mut promised = BTreeSet::from([post_until_taken(&daemon, 0).await]);
    is_ready(&daemon, 200, "").await;
    let Some(frozen) = disk.freeze().await else {
        return eprintln!("not tested: no file system can be frozen here");
    };
    assert_eq!(post(&daemon, 1).await, None, "ingress.store_timeout bounds the wait");
    // As long as it hangs, whatever comes.
    for number in 2..5 {
        is_ready(&daemon, 503, "the disk hangs").await;
        assert_eq!(daemon.metric("hookbus_ready").await, Some(0.0));
        assert!(daemon.metric("hookbus_journal_stalled_seconds").await.unwrap() >= 0.3);
        let status = daemon.status().await;
        assert!(status["not_ready_because"].as_str().unwrap().contains("the disk hangs"), "{status}");
        assert_eq!(daemon.ask("/livez").await.0, 200, "it lives: a new process would hang on the disk, too");
        assert_eq!(post(&daemon, number).await, None);
    }
    drop(frozen);
    is_ready(&daemon, 200, "").await;
    promised.insert(post_until_taken(&daemon, 5).await);
    assert_eq!(daemon.metric("hookbus_ready").await, Some(1.0));
    assert_eq!(daemon.status().await["not_ready_because"], Value::Null);
    all_confirmed(&sink, &promised).await;
    assert!(daemon.stop().await.success());
}

/// Starts the program where it cannot start; its exit code and its log.
async fn refused_start(folder: &Path, wrapper: &[&str]) -> (Option<i32>, String) {
    let program = wrapper.iter().copied().chain([PROGRAM, "--config", "hookbus.toml", "run"]);
    let program: Vec<&str> = program.collect();
    let ended = tokio::process::Command::new(program[0])
        .args(&program[1..])
        .current_dir(folder)
        .env("HOOKBUS__INGRESS__LISTEN", "127.0.0.1:0")
        .env("HOOKBUS__ADMIN__LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends by itself").unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_refuses_the_start_and_says_so() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    let disk = SmallDisk::start(folder.path(), DISK_BYTES).await;
    let config = config(&sink, "disk/data");
    std::fs::write(folder.path().join("hookbus.toml"), &config).unwrap();
    for sentence in ["with nothing there yet", "with a journal there"] {
        disk.remount("remount,bind,ro");
        let (code, log) = refused_start(folder.path(), &words(disk.enter())).await;
        assert_eq!(code, Some(78), "{sentence}: {log}");
        assert!(
            log.contains("disk/data/journal") && log.contains("Read-only file system"),
            "{sentence}: {log}"
        );
        disk.remount("remount,bind,rw");
        let daemon = Daemon::start_through(folder.path(), &words(disk.enter()), &config).await;
        post_until_taken(&daemon, 0).await;
        assert!(daemon.stop().await.success());
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_synced_refuses_the_start_and_says_so() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), HttpSink::start().await);
    std::fs::write(folder.path().join("hookbus.toml"), config(&sink, "data")).unwrap();
    let directory = folder.path().join("data/journal").display().to_string();
    let options = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1", "-P", &directory];
    let (code, log) = refused_start(folder.path(), &strace(&options)).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("data/journal") && log.contains("Input/output error"), "{log}");
}
