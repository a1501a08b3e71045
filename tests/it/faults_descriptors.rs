//! No file descriptors left: the listeners wait instead of spinning, the journal and the sinks go on where they can and
//! recover where they cannot, and nothing that was promised is lost (R4).

use crate::contract::bench::{RECOVERY_MAX, event};
use crate::contract::{Rig, Setup, amqp::AmqpRig, jetstream::JetStreamRig, kafka::KafkaRig};
use crate::support::daemon::Daemon;
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::oracle::events_in;
use crate::support::{client, eventually, eventually_within};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::sync::Mutex;

/// Enough for the daemon with its sinks and a few connections.
const DESCRIPTORS_MAX: u64 = 64;
/// More than there are descriptors for.
const IDLE_CONNECTIONS: usize = 80;
/// With pauses from 10 ms up to 1 s, a minute has fewer failed calls than this; a loop without one has them in a moment.
const FAILED_ACCEPTS_MAX: usize = 200;

/// A connection that stays, for when no other can be made. A pool of connections is no substitute: while the one it has
/// is about to come back to it, it makes another, which nobody accepts.
struct Kept(TcpStream);

impl Kept {
    async fn to(address: SocketAddr) -> Kept {
        Kept(TcpStream::connect(address).await.unwrap())
    }

    /// Posts and returns the status and the event's id.
    async fn post(&mut self, body: &str) -> (u16, Option<String>) {
        let head = format!("POST /hooks/inbox HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        let (status, answer) = self.ask(head + body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        (status, answer["id"].as_str().map(str::to_owned))
    }

    /// What stands there.
    async fn get(&mut self, path: &str) -> String {
        let host = self.0.peer_addr().unwrap();
        let (status, answer) = self.ask(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn ask(&mut self, request: String) -> (u16, String) {
        self.0.write_all(request.as_bytes()).await.unwrap();
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
            return (status, body.to_owned());
        }
    }
}

/// The ids in the file sink's files, those that are full and the last.
fn written_in(data_dir: &Path) -> BTreeSet<String> {
    let paths = std::fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("events.ndjson"));
    files.flat_map(|file| events_in(&file).into_keys()).collect()
}

fn failed_accepts(trace: &Path) -> usize {
    std::fs::read_to_string(trace).unwrap().matches("EMFILE").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_nothing_spins_nothing_is_lost_and_all_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = HttpSink::start().await;
    let trace = folder.path().join("trace");
    // An HTTP sink keeps a connection for each event that was in flight at once, for a while: no more than fit.
    // Small segments and files: both have to be opened anew while nothing can be.
    let config = format!(
        "[ingress]\nbody_max = \"16KiB\"\nheader_timeout = \"10m\"\n[journal]\nsegment = \"64KiB\"\n[sources.inbox.generic]\n\
         [sinks.files.file]\npath = \"events.ndjson\"\nrotate_at = \"32KiB\"\n\
         [sinks.orders]\nin_flight_max = 8\n[sinks.orders.retry]\nfirst = \"50ms\"\nmax = \"200ms\"\n{}",
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
    let written = written_in(&folder.path().join("hookbus-data"));
    assert!(promised.is_subset(&written), "R4: {} of {}", written.len(), promised.len());

    let failed = failed_accepts(&trace);
    assert!(failed <= FAILED_ACCEPTS_MAX, "{failed} calls failed: that is a loop without a pause");
    let warned = daemon.log().matches("cannot accept connections").count();
    assert!((1..=5).contains(&warned), "the log says it once, not {warned} times:\n{}", daemon.log());
    assert!(daemon.stop().await.success());
}

/// The daemon may open descriptors with smaller numbers than `limit` only; those that are open stay.
fn limit_descriptors(daemon: &Daemon, limit: &str) {
    let (pid, limit) = (daemon.pid().to_string(), format!("--nofile={limit}"));
    assert!(std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

/// The brokers' clients open sockets, pipes and epolls of their own, and start threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_brokers_that_break_in_a_shortage_are_made_anew_after_it() {
    /// Numbers that the daemon has given out for as long as it runs, so that no connection that ends frees one.
    const NUMBERS_TAKEN: usize = 6;
    const KINDS: [&str; 3] = ["jetstream", "amqp", "kafka"];
    let jetstream = JetStreamRig::start(Setup::Proxied).await;
    let amqp = AmqpRig::start(Setup::Proxied).await;
    let kafka = KafkaRig::start(Setup::Proxied).await;
    let named = |table: String, kind: &str| table.replace("[sinks.orders.", &format!("[sinks.{kind}."));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[ingress]\nheader_timeout = \"10m\"\n[sources.inbox.generic]\nid = \"/id\"\n{}\n{}\n{}",
        named(jetstream.table(), "jetstream"),
        named(amqp.table(), "amqp"),
        named(kafka.table(), "kafka")
    );
    let mut daemon = Daemon::start(folder.path(), &config).await;
    let operator = Mutex::new(Kept::to(daemon.admin).await);
    let lanes = async || {
        let status = operator.lock().await.get("/api/v1/status").await;
        serde_json::from_str::<Value>(&status).unwrap()["lanes"].as_array().unwrap().clone()
    };
    let settled = async |what: &str| {
        let is_settled = |lane: &Value| lane["lag"]["events"] == 0;
        eventually_within(RECOVERY_MAX, what, || async {
            lanes().await.iter().all(is_settled).then_some(())
        })
        .await;
    };
    let aways = async || {
        let metrics = operator.lock().await.get("/metrics").await;
        KINDS.map(|kind| {
            let series = format!("hookbus_delivery_outcomes_total{{sink=\"{kind}\",outcome=\"away\"}} ");
            let away = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
            away.parse::<f64>().unwrap()
        })
    };
    let tried_since = async |before: [f64; KINDS.len()], what: &str| {
        eventually(what, || async {
            let now = aways().await;
            now.iter().zip(before).all(|(now, before)| *now > before).then_some(())
        })
        .await;
    };
    let mut kept = Kept::to(daemon.ingress).await;
    for number in 0..10 {
        assert_eq!(kept.post(&event(number).to_string()).await.0, 200);
    }
    settled("every broker has the first events").await;

    let fds = format!("/proc/{}/fd", daemon.pid());
    let is_taken = |number: usize| std::fs::symlink_metadata(format!("{fds}/{number}")).is_ok();
    assert!((0..NUMBERS_TAKEN).all(is_taken), "they are the first that the daemon opens");
    limit_descriptors(&daemon, &format!("{NUMBERS_TAKEN}:"));
    let proxies = [jetstream.proxy(), amqp.proxy(), kafka.proxy()];
    proxies.iter().for_each(|proxy| proxy.refuse());
    let before = aways().await;
    for number in 10..40 {
        assert_eq!(kept.post(&event(number).to_string()).await.0, 200);
    }
    tried_since(before, "each lane has noticed that its connection broke").await;
    proxies.iter().for_each(|proxy| proxy.pass());
    tried_since(aways().await, "each sink has tried in vain to connect").await;
    for lane in lanes().await {
        let detail = lane["failure"]["detail"].as_str().unwrap();
        assert!(detail.contains("no file descriptors are left here"), "the operator is told why: {lane}");
    }
    limit_descriptors(&daemon, "4096:");
    settled("every broker has everything").await;
    let numbers = |arrived: Vec<crate::contract::Arrived>| -> BTreeSet<u64> {
        let data = arrived.iter().map(|event| serde_json::from_slice::<Value>(&event.body).unwrap());
        data.map(|event| event["data"]["n"].as_u64().unwrap()).collect()
    };
    let wanted: BTreeSet<u64> = (0..40).collect();
    assert_eq!(numbers(jetstream.arrived().await), wanted);
    assert_eq!(numbers(amqp.arrived().await), wanted);
    assert_eq!(numbers(kafka.arrived().await), wanted);
    daemon.ask_to_stop();
    assert!(daemon.ended().await.success());
}

#[tokio::test]
async fn the_daemon_takes_as_many_descriptors_as_it_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let few_of_many = ["prlimit", "--nofile=64:512"];
    let daemon = Daemon::start_through(folder.path(), &few_of_many, "[sources.inbox.generic]\n").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).collect::<Vec<_>>(), ["512", "512", "files"]);
}

/// Answers the first request at once, so that the lane knows it, and none after that before so many are there; how many
/// connections are open.
async fn server_that_waits_for(requests: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(requests)));
    let count = Arc::clone(&open);
    tokio::spawn(async move {
        let mut was_asked = false;
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (count, all) = (Arc::clone(&count), Arc::clone(&all));
            let is_first = !std::mem::replace(&mut was_asked, true);
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = Vec::new();
                // The last bytes of an event's document.
                while !request.ends_with(b"}}") {
                    tcp.read_buf(&mut request).await.unwrap();
                }
                if is_first {
                    let last = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                    tcp.write_all(last).await.unwrap();
                    count.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
                all.wait().await;
                tcp.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                let _ = tcp.read_u8().await;
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, open)
}

#[tokio::test]
async fn after_a_burst_an_http_sink_keeps_no_more_connections_than_it_may() {
    const BURST: usize = 300;
    const KEPT_MAX: usize = 256;
    let folder = tempfile::tempdir().unwrap();
    let (address, open) = server_that_waits_for(BURST).await;
    let config = format!(
        "[sources.inbox.generic]\n[sinks.orders]\norder = \"none\"\nin_flight_max = {BURST}\n[sinks.orders.http]\nurl = \"http://{address}/\"\n"
    );
    let daemon = Daemon::start(folder.path(), &config).await;
    let all_are_delivered = || {
        eventually("all are delivered", || async {
            (daemon.lane("orders").await["lag"]["events"] == 0).then_some(())
        })
    };
    for numbers in [0..1, 1..BURST + 1] {
        for number in numbers {
            assert_eq!(daemon.post("/hooks/inbox", format!("{{\"n\":{number}}}")).await.unwrap().status, 200);
        }
        all_are_delivered().await;
    }
    // The server sees the ends of the others a moment later.
    eventually("the others are closed", || async { (open.load(Ordering::SeqCst) <= KEPT_MAX).then_some(()) })
        .await;
    assert!(open.load(Ordering::SeqCst) > 0, "some are kept for the next events");
    assert!(daemon.stop().await.success());
}
