//! Everything is bounded, measured on the real program by the system: memory with a long backlog, with a stuck sync and
//! with readers who do not read; the time from a start to readiness; and what strangers can hold.
//! Numbers at full size: `docs/internals/benchmarks.md`.

use crate::ingress_rig::{Client, Reply, post};
use crate::support::daemon::Daemon;
use crate::support::eventually;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const MIB: u64 = 1024 * 1024;
/// Nobody listens there, and nothing may.
const DEAD: &str = "http://127.0.0.1:9/";

/// A figure of `/proc/PID/status`, in bytes: `VmRSS` is what the process has in memory, `VmHWM` the most it ever had.
pub fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

async fn connect(daemon: &Daemon) -> Client {
    Client::over(TcpStream::connect(daemon.ingress).await.unwrap())
}

/// A body of so many bytes that no other has.
fn body(number: u64, bytes: usize) -> Vec<u8> {
    let start = format!("{{\"n\":{number},\"text\":\"");
    let rest = bytes.saturating_sub(start.len() + 2);
    [start.as_bytes(), &vec![b'x'; rest], b"\"}"].concat()
}

/// Posts `count` bodies over a few connections; every one must be taken.
async fn fill(daemon: &Daemon, count: u64, bytes: usize) {
    const SENDERS: u64 = 8;
    let mut senders = JoinSet::new();
    for first in 0..SENDERS {
        let mut sender = connect(daemon).await;
        senders.spawn(async move {
            for number in (first..count).step_by(SENDERS as usize) {
                sender.send(post("/hooks/inbox", &[], &body(number, bytes))).await;
                assert_eq!(sender.reply().await.unwrap().status, 200);
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_of_many_dead_sinks_takes_no_memory_and_delays_no_start() {
    const EVENTS: u64 = 3000;
    /// Of these a lane would have thousands in hand before the first refusal.
    const SMALL_EVENTS: u64 = 5000;
    const SINKS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let mut config = "[sources.inbox.generic]\n".to_owned();
    for number in 0..SINKS {
        config += &format!("[sinks.dead_{number}.http]\nurl = '{DEAD}'\n");
    }
    let daemon = Daemon::start(folder.path(), &config).await;
    fill(&daemon, 50, 600).await;
    let fresh = memory(&daemon, "VmRSS");
    // The first in the journal, so what the lanes read first after a start.
    fill(&daemon, SMALL_EVENTS, 700).await;
    fill(&daemon, 50, 64 * 1024).await;
    let idle = memory(&daemon, "VmRSS");
    fill(&daemon, EVENTS, 64 * 1024).await;
    let waiting = daemon.lane("dead_7").await["lag"]["events"].as_u64().unwrap();
    assert!(waiting >= EVENTS + SMALL_EVENTS, "{waiting}");
    let grown = memory(&daemon, "VmHWM").saturating_sub(idle);
    println!("grown by {} KiB while {} MiB wait", grown / 1024, EVENTS * 64 / 1024);
    assert!(grown < 64 * MIB, "grown by {grown} bytes");

    daemon.kill().await;
    // A start that reads what waits would take as much memory as that.
    let daemon = Daemon::start(folder.path(), &config).await;
    eventually("it is ready again", || async { (daemon.ask("/readyz").await.0 == 200).then_some(()) }).await;
    let waiting_now = daemon.lane("dead_7").await["lag"]["events"].as_u64().unwrap();
    assert_eq!(waiting_now, waiting);
    eventually("every lane has found out that its sink is away", || async {
        let lanes = daemon.status().await["lanes"].take();
        lanes.as_array().unwrap().iter().all(|lane| lane["state"] == "away").then_some(())
    })
    .await;
    let grown = memory(&daemon, "VmHWM").saturating_sub(fresh);
    println!("grown by {} KiB by the start", grown / 1024);
    assert!(grown < 40 * MIB, "grown by {grown} bytes");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_sync_holds_no_more_bodies_than_allowed_even_of_senders_that_left() {
    const BODIES_MIB: u64 = 16;
    const SENDERS: u64 = 150;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[ingress]\nbodies_max = '{BODIES_MIB}MiB'\n[sources.inbox.generic]\n[sources.other]\npath_secret = 'known'\n\
         [sources.other.generic]\n[sinks.events.file]\npath = 'events.ndjson'\n"
    );
    // From the tenth sync on, each takes a minute: the journal's first files and records are made before.
    let strace =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"];
    let stuck = "inject=fdatasync:delay_enter=60000000:when=10+";
    let daemon = Daemon::start_through(folder.path(), &[&strace[..], &[stuck]].concat(), &config).await;
    let mut number = 1_000_000;
    let mut stalled = connect(&daemon).await;
    loop {
        number += 1;
        stalled.send(post("/hooks/inbox", &[], &body(number, 100))).await;
        if tokio::time::timeout(Duration::from_secs(2), stalled.next_reply()).await.is_err() {
            break;
        }
    }
    let before = memory(&daemon, "VmRSS");

    // Round after round of senders who wait for nothing: what they sent still waits for the sync.
    let mut refused = 0;
    for round in 0..3 {
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let mut client = connect(&daemon).await;
            let request = post("/hooks/inbox", &[], &body(round * SENDERS + sender, MIB as usize));
            senders.spawn(async move {
                let _ = client.tcp.write_all(&request).await;
                let reply = tokio::time::timeout(Duration::from_secs(2), client.next_reply()).await;
                reply.ok().and_then(Result::ok).flatten()
            });
        }
        let replies: Vec<Option<Reply>> = senders.join_all().await;
        for reply in replies.into_iter().flatten() {
            assert_eq!((reply.status, reply.problem().as_str()), (503, "busy"), "{reply:?}");
            refused += 1;
        }
    }
    assert!(refused >= 3 * SENDERS - 2 * BODIES_MIB, "{refused} were refused");
    let grown = memory(&daemon, "VmHWM").saturating_sub(before);
    println!("grown by {} KiB", grown / 1024);
    // Besides what is counted: one batch of the journal's, buffers of all connections, and what the allocator keeps,
    // which differs from run to run. All that was sent is 450 MiB.
    assert!(grown < (BODIES_MIB + 192) * MIB, "grown by {grown} bytes");
    daemon.kill_now();
}

#[tokio::test]
async fn strangers_with_slow_bodies_and_wrong_signatures_leave_room_for_who_proves_itself_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[ingress]\nrequests_max = 8\n[sources.signed.github]\nsecret = 'right'\n[sources.open.generic]\n\
        [sources.known.generic.auth]\nbearer = 'right'\n[sources.secret]\npath_secret = 'right'\n[sources.secret.generic]\n\
        [sinks.events.file]\npath = 'events.ndjson'\n";
    let daemon = Daemon::start(folder.path(), config).await;
    let signature = format!("x-hub-signature-256: sha256={}", "0".repeat(64));
    let mut strangers = Vec::new();
    for path in ["/hooks/signed", "/hooks/open"].repeat(10) {
        let mut stranger = connect(&daemon).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n{signature}\r\n\r\na");
        stranger.send(head).await;
        strangers.push(stranger);
    }
    eventually("strangers have used up their part", || async {
        (daemon.post("/hooks/open", "{}").await.unwrap().status == 503).then_some(())
    })
    .await;
    for (sentence, path, header) in [
        ("a token at the head", "/hooks/known", "authorization: Bearer right"),
        ("a secret in the path", "/hooks/secret/right", "x-nothing: more"),
    ] {
        let mut sender = connect(&daemon).await;
        sender.send(post(path, &[header], b"{}")).await;
        assert_eq!(sender.reply().await.unwrap().status, 200, "{sentence}");
    }
    drop(strangers);
    eventually("and they give it back", || async {
        (daemon.post("/hooks/open", "{}").await.unwrap().status == 200).then_some(())
    })
    .await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_costs_no_memory_be_it_a_sender_or_an_operator() {
    const LETTERS: u64 = 200;
    const SILENT: usize = 30;
    let folder = tempfile::tempdir().unwrap();
    let config =
        "[sources.inbox.generic]\n[sources.broken.zapi]\n[sinks.events.file]\npath = 'events.ndjson'\n";
    let daemon = Daemon::start(folder.path(), config).await;
    let mut sender = connect(&daemon).await;
    for _ in 0..LETTERS {
        // What cannot be read is kept as a letter, to be exported.
        sender.send(post("/hooks/broken", &[], &[b'x'; 64 * 1024])).await;
        assert_eq!(sender.reply().await.unwrap().status, 200);
    }
    let before = memory(&daemon, "VmRSS");

    let mut silent = Vec::new();
    for path in ["/metrics", "/api/v1/status", "/api/v1/dead-letters/export", "/api/v1/sources/inbox/capture"]
    {
        for _ in 0..4 {
            let mut operator = TcpStream::connect(daemon.admin).await.unwrap();
            // As many questions as the system takes before it wants an answer read.
            let question = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").repeat(50);
            operator.write_all(question.as_bytes()).await.unwrap();
            silent.push(operator);
        }
    }
    let mut senders = Vec::new();
    for number in 0..SILENT as u64 {
        let sender = connect(&daemon).await.tcp;
        let request = post("/hooks/inbox", &[], &body(1000 + number, 256));
        senders.push(tokio::spawn(async move {
            let mut sender = sender;
            // Nothing is read: at last the sender cannot write any more, or is hung up on.
            let _ = tokio::time::timeout(Duration::from_secs(3), async {
                while sender.write_all(&request).await.is_ok() {}
            })
            .await;
            sender
        }));
    }
    for sender in senders {
        silent.push(sender.await.unwrap());
    }
    let grown = memory(&daemon, "VmHWM").saturating_sub(before);
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < 64 * MIB, "grown by {grown} bytes");
    assert_eq!(daemon.post("/hooks/inbox", body(0, 300)).await.unwrap().status, 200);
    drop(silent);
    assert!(daemon.stop().await.success());
}
