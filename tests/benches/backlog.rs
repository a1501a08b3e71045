//! What a long backlog costs the real program: memory, the speed of the ingress, and the time to start again.
//!
//! Two daemons take the same webhooks, slice after slice in turn: one with sinks that nobody serves, so that everything
//! waits in its journal, and one without sinks, where nothing ever waits. Only the ratio of the two means anything, and
//! whether it falls as the backlog grows. Then the first one is killed and started again, as often as asked.
//!
//! `cargo bench --bench backlog [-- EVENTS SINKS STARTS LETTERS BODY_BYTES]`

#![allow(clippy::unwrap_used)]

#[path = "../it/support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::daemon::Daemon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SENDERS: usize = 64;
/// Slices into which the events are cut; each is posted to both daemons.
const SLICES: u64 = 40;
const MIB: u64 = 1024 * 1024;

/// A figure of `/proc/PID/status`, in bytes.
fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Sources that nothing limits, and `sinks` that nobody serves; port 9 of loopback refuses.
fn config(sinks: u64) -> String {
    let mut text =
        "[journal]\ndisk_max = '40GiB'\n[sources.inbox.generic]\n[sources.broken.zapi]\n".to_owned();
    for number in 0..sinks {
        text += &format!("[sinks.dead_{number}.http]\nurl = 'http://127.0.0.1:9/'\n");
    }
    if sinks == 0 {
        // What goes nowhere is settled at once.
        text += "[sinks.nowhere.file]\n[[routes]]\ntypes = ['nothing.has.this.type']\nto = ['nowhere']\n";
    }
    text
}

/// One connection that posts webhooks until `left` is used up.
async fn sender(
    daemon: Arc<Daemon>,
    path: &'static str,
    left: Arc<AtomicU64>,
    numbers: Arc<AtomicU64>,
    bytes: usize,
) {
    let mut stream = TcpStream::connect(daemon.ingress).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = vec![0; 4096];
    let padding = "x".repeat(bytes);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let body = match path {
            "/hooks/broken" => format!("no JSON {number}"),
            _ => format!("{{\"number\":{number},\"text\":\"{padding}\"}}"),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut length = 0;
        while !answer[..length].ends_with(b"}") {
            let read = stream.read(&mut answer[length..]).await.unwrap();
            assert!(read > 0, "the server hung up");
            length += read;
        }
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Posts `events` webhooks; gives how many a second were taken.
async fn post(
    daemon: &Arc<Daemon>,
    path: &'static str,
    events: u64,
    numbers: &Arc<AtomicU64>,
    bytes: usize,
) -> f64 {
    let left = Arc::new(AtomicU64::new(events));
    let began = Instant::now();
    let senders = (0..SENDERS).map(|_| {
        tokio::spawn(sender(Arc::clone(daemon), path, Arc::clone(&left), Arc::clone(numbers), bytes))
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    events as f64 / began.elapsed().as_secs_f64()
}

async fn settled(daemon: &Daemon) {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    while daemon.status().await["lanes"].as_array().unwrap().iter().any(|lane| lane["lag"]["events"] != 0) {
        poll.tick().await;
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2} to {most:.2})", median(values))
}

fn folder_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    files.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

async fn start(folder: &Path, sinks: u64) -> (Arc<Daemon>, f64) {
    let began = Instant::now();
    let daemon = Daemon::start(folder, &config(sinks)).await;
    let mut poll = tokio::time::interval(Duration::from_millis(1));
    while daemon.ask("/readyz").await.0 != 200 {
        poll.tick().await;
    }
    (Arc::new(daemon), began.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() {
    // `cargo bench` hands over `--bench`; what is left are our numbers.
    let settings: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let setting = |place: usize, default| settings.get(place).copied().unwrap_or(default);
    let (events, sinks, starts, letters) =
        (setting(0, 1_000_000), setting(1, 1), setting(2, 5), setting(3, 0));
    let bytes = usize::try_from(setting(4, 700)).unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (behind, first_start) = start(folders[0].path(), sinks).await;
    let (empty, _) = start(folders[1].path(), 0).await;
    println!(
        "{events} events of {bytes} bytes and more, {sinks} dead sinks, {letters} dead letters; first start {first_start:.2} s"
    );

    let numbers = Arc::new(AtomicU64::new(0));
    for daemon in [&behind, &empty] {
        post(daemon, "/hooks/inbox", 2000, &numbers, bytes).await;
    }
    let idle = memory(&behind, "VmRSS");
    let slice = events / SLICES;
    let (mut ratios, mut rates, mut most) = (Vec::new(), Vec::new(), idle);
    for _ in 0..SLICES {
        let rate = post(&behind, "/hooks/inbox", slice, &numbers, bytes).await;
        most = most.max(memory(&behind, "VmRSS"));
        let beside = post(&empty, "/hooks/inbox", slice, &numbers, bytes).await;
        settled(&empty).await;
        rates.push(rate);
        ratios.push(rate / beside);
    }
    let third = ratios.len() / 3;
    println!(
        "requests, behind : empty, first third {}, last third {}",
        range(&ratios[..third]),
        range(&ratios[ratios.len() - third..])
    );
    println!(
        "requests a second, behind, first third {:.0}, last third {:.0}",
        median(&rates[..third]),
        median(&rates[rates.len() - third..])
    );
    let peak = memory(&behind, "VmHWM");
    println!(
        "memory: idle {} MiB, most between slices +{} MiB, peak +{} MiB; without a backlog {} MiB, peak {} MiB",
        idle / MIB,
        (most - idle) / MIB,
        (peak - idle) / MIB,
        memory(&empty, "VmRSS") / MIB,
        memory(&empty, "VmHWM") / MIB
    );
    if letters > 0 {
        let rate = post(&behind, "/hooks/broken", letters, &numbers, bytes).await;
        println!(
            "quarantined {letters} bodies, {rate:.0} a second; memory then {} MiB",
            memory(&behind, "VmRSS") / MIB
        );
    }
    let journal = folders[0].path().join("hookbus-data/journal");
    println!("the journal has {} MiB", folder_bytes(&journal) / MIB);
    drop(empty);

    let (mut daemon, mut seconds) = (behind, Vec::new());
    for _ in 0..starts {
        daemon.kill_now();
        Arc::into_inner(daemon).expect("nobody else has it").ended().await;
        let (started, took) = start(folders[0].path(), sinks).await;
        seconds.push(took);
        daemon = started;
    }
    println!(
        "from kill to ready: {} s; memory then {} MiB, peak {} MiB",
        range(&seconds),
        memory(&daemon, "VmRSS") / MIB,
        memory(&daemon, "VmHWM") / MIB
    );
    let lag = daemon.status().await["lanes"][0]["lag"]["events"].clone();
    println!("waiting for the first sink: {lag}");
}
