//! No file descriptors left: the listeners wait instead of spinning, the journal and the sinks go on where they can and
//! recover where they cannot, and nothing that was promised is lost (R4).

use crate::support::daemon::Daemon;
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::oracle::file_has_all;
use crate::support::{client, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Enough for the daemon with its sinks and a few connections.
const DESCRIPTORS_MAX: u64 = 64;
/// More than there are descriptors for.
const IDLE_CONNECTIONS: usize = 80;
/// With pauses from 10 ms up to 1 s, a minute has fewer failed calls than this; a loop without one has them in a moment.
const FAILED_ACCEPTS_MAX: usize = 200;

/// A connection that stays, on which webhooks can be posted when no other can be made.
struct Kept(TcpStream);

impl Kept {
    async fn to(address: SocketAddr) -> Kept {
        Kept(TcpStream::connect(address).await.unwrap())
    }

    /// Posts and returns the status and the event's id.
    async fn post(&mut self, body: &str) -> (u16, Option<String>) {
        let head = format!("POST /hooks/inbox HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.write_all((head + body).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            assert_ne!(self.0.read_buf(&mut answer).await.unwrap(), 0, "the connection stays");
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() < length.parse::<usize>().unwrap() {
                continue;
            }
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let answer: Value = serde_json::from_str(body).unwrap();
            return (status, answer["id"].as_str().map(str::to_owned));
        }
    }
}

fn failed_accepts(trace: &std::path::Path) -> usize {
    std::fs::read_to_string(trace).unwrap().matches("EMFILE").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_nothing_spins_nothing_is_lost_and_all_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let trace = folder.path().join("trace");
    // Small segments and files: both have to be opened anew while nothing can be.
    let config = format!(
        "[ingress]\nbody_max = \"16KiB\"\nheader_timeout = \"10m\"\n[journal]\nsegment = \"64KiB\"\n[sources.inbox.generic]\n\
         [sinks.files.file]\npath = \"events.ndjson\"\nrotate_at = \"32KiB\"\n\
         [sinks.orders.retry]\nfirst = \"50ms\"\nmax = \"200ms\"\n{}",
        sink.table("orders")
    );
    let limit = format!("--nofile={DESCRIPTORS_MAX}:{DESCRIPTORS_MAX}");
    let output = trace.to_str().unwrap();
    let traced = ["prlimit", &limit, "strace", "-D", "-f", "-qq", "-e", "trace=accept4,accept", "-o", output];
    let daemon = Daemon::start_through(folder.path(), &traced, &config).await;
    let mut kept = Kept::to(daemon.ingress).await;
    let mut promised = BTreeSet::new();
    assert_eq!(kept.post("{\"n\":0}").await.0, 200);
    // One event is refused for good, so that the dead-letter store writes as well.
    sink.is(Mood::Refuses(422, BTreeSet::from([7])));

    let mut idle = Vec::new();
    for _ in 0..IDLE_CONNECTIONS {
        idle.push(TcpStream::connect(daemon.ingress).await.unwrap());
    }
    eventually("no connection can be accepted any more", || async {
        (failed_accepts(&trace) > 0).then_some(())
    })
    .await;
    // Its connection is cut, and no new one can be made.
    sink.goes_down().await;
    sink.comes_back().await;
    let (mut taken, mut refused) = (0, 0);
    for number in 1..400 {
        let body = format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(1000));
        match kept.post(&body).await {
            (200, id) => {
                promised.insert(id.unwrap());
                taken += 1;
            }
            (503, _) => refused += 1,
            (status, _) => panic!("{status} is no answer to this"),
        }
    }
    println!(
        "without descriptors {taken} were taken and {refused} refused; {} accepts failed",
        failed_accepts(&trace)
    );

    drop(idle);
    eventually("connections are accepted again, and the ingress is ready", || async {
        let ready = client().get(format!("http://{}/readyz", daemon.admin)).send().await.ok()?;
        (ready.status() == 200).then_some(())
    })
    .await;
    for number in 400..420 {
        let answer = daemon.post("/hooks/inbox", format!("{{\"n\":{number}}}")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        promised.insert(answer["id"].as_str().unwrap().to_owned());
    }
    eventually("everything is settled", || async {
        let status = daemon.status().await;
        status["lanes"].as_array().unwrap().iter().all(|lane| lane["lag"]["events"] == 0).then_some(())
    })
    .await;
    let letters = daemon.ask("/api/v1/dead-letters?sink=orders&limit=1000").await.1;
    let letters = serde_json::from_str::<Value>(&letters).unwrap()["letters"].as_array().unwrap().clone();
    let buried = letters.iter().map(|letter| letter["event_id"].as_str().unwrap().to_owned());
    let reached: BTreeSet<String> = sink.confirmed().into_keys().chain(buried).collect();
    assert!(promised.is_subset(&reached), "R4: {} of {}", reached.len(), promised.len());
    assert!(letters.len() <= 1, "a shortage of our own is no event's fault: {letters:?}");
    for event in std::fs::read_dir(folder.path().join("hookbus-data")).unwrap() {
        let path = event.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("events.ndjson.") {
            let lines = std::fs::read_to_string(&path).unwrap();
            let whole = std::fs::OpenOptions::new().append(true).open(folder.path().join("all.ndjson"));
            let mut whole =
                whole.or_else(|_| std::fs::File::create(folder.path().join("all.ndjson"))).unwrap();
            std::io::Write::write_all(&mut whole, lines.as_bytes()).unwrap();
        }
    }
    let all = folder.path().join("all.ndjson");
    let last = std::fs::read(folder.path().join("hookbus-data/events.ndjson")).unwrap();
    let mut rotated = std::fs::OpenOptions::new().create(true).append(true).open(&all).unwrap();
    std::io::Write::write_all(&mut rotated, &last).unwrap();
    file_has_all(&all, &promised).await;

    let failed = failed_accepts(&trace);
    assert!(failed <= FAILED_ACCEPTS_MAX, "{failed} calls failed: that is a loop without a pause");
    let warned = daemon.log().matches("cannot accept connections").count();
    assert!((1..=5).contains(&warned), "the log says it once, not {warned} times:\n{}", daemon.log());
    assert!(daemon.stop().await.success());
}
