//! How fast the ingress takes webhooks, beside a bare axum handler that appends the same bodies to a file with one
//! sync for all that wait, and beside one that writes over the same blocks again and again. All run in this process,
//! on the same disk, under the same load, slice after slice in turn, because machines are noisy: only ratios mean
//! anything.
//!
//! `cargo bench --bench ingress [-- SECONDS_A_SLICE SLICES CONNECTIONS]`

#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hookbus::app::App;
use hookbus::app::config::Config;
use hookbus::telemetry::logging;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// The same as the program's, for both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MIB: usize = 1024 * 1024;
const RING_MIB: usize = 64;

/// A Z-API text message as documented: with a message id of its own, so that none is a duplicate, from one of a
/// thousand chats, so that per-chat order is not the limit.
fn webhook(number: u64) -> String {
    let chat = number % 1000;
    format!(
        "{{\"isStatusReply\":false,\"chatLid\":\"81896604192873@lid\",\"connectedPhone\":\"554499999999\",\
         \"waitingMessage\":false,\"isEdit\":false,\"isGroup\":false,\"isNewsletter\":false,\
         \"instanceId\":\"A20DA9C0183A2D35A260F53F5D2B9244\",\"messageId\":\"A20DA9C0183A{number:016X}\",\
         \"phone\":\"554499999{chat:04}\",\"fromMe\":false,\"momment\":1632228638000,\"status\":\"RECEIVED\",\
         \"chatName\":\"name\",\"senderPhoto\":\"https://photo.test/p.jpg\",\"senderName\":\"name\",\
         \"participantPhone\":null,\"participantLid\":null,\"photo\":\"https://photo.test/q.jpg\",\
         \"broadcast\":false,\"type\":\"ReceivedCallback\",\"text\":{{\"message\":\"a short text as people send it\"}}}}"
    )
}

type Waiting = (Bytes, oneshot::Sender<()>);

/// Where the bare handler's bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BareLog {
    /// To the end of a file that grows: keeps everything, as a log must.
    Grows,
    /// Over the same 64 MiB of written blocks again and again: keeps next to nothing, and is the fastest a disk can be.
    Ring,
}

/// The least that makes an answer wait for the disk: gather what waits, write once, sync once, answer all.
fn bare_writer(path: &Path, log: BareLog, mut waiting: mpsc::Receiver<Waiting>) {
    let mut file = File::create(path).unwrap();
    if log == BareLog::Ring {
        let zeros = vec![0; MIB];
        for _ in 0..RING_MIB {
            file.write_all(&zeros).unwrap();
        }
        file.sync_all().unwrap();
    }
    let (mut at, mut gathered, mut batch) = (0, Vec::new(), Vec::new());
    while waiting.blocking_recv_many(&mut gathered, 4096) > 0 {
        batch.clear();
        for (body, _) in &gathered {
            batch.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            batch.extend_from_slice(body);
        }
        if log == BareLog::Ring && at + batch.len() > RING_MIB * MIB {
            at = 0;
        }
        file.write_all_at(&batch, at as u64).unwrap();
        file.sync_data().unwrap();
        at += batch.len();
        for (_, done) in gathered.drain(..) {
            let _ = done.send(());
        }
    }
}

async fn bare_handler(
    State(writer): State<mpsc::Sender<Waiting>>,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let (done, durable) = oneshot::channel();
    writer.send((body, done)).await.unwrap();
    durable.await.unwrap();
    (StatusCode::OK, "{\"value\":true}")
}

/// One of the servers that are compared.
struct Contender {
    name: &'static str,
    ingress: SocketAddr,
    admin: Option<SocketAddr>,
}

async fn start_bare(name: &'static str, folder: &Path, log: BareLog) -> Contender {
    let (writer, waiting) = mpsc::channel(4096);
    let file = folder.join(name);
    std::thread::spawn(move || bare_writer(&file, log, waiting));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ingress = listener.local_addr().unwrap();
    let app = Router::new().route("/hooks/zapi", post(bare_handler)).with_state(writer);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Contender { name, ingress, admin: None }
}

async fn start_hookbus(name: &'static str, folder: &Path, sinks: &str) -> Contender {
    std::fs::create_dir_all(folder).unwrap();
    let file = folder.join("hookbus.toml");
    let text = format!(
        "data_dir = {:?}\n[ingress]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[sources.zapi.zapi]\n{sinks}",
        folder.join("data")
    );
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), &[]).unwrap().config;
    let log_level = logging::install(&logging::Config::default()).unwrap();
    let app = App::start(config, log_level).await.unwrap();
    let contender = Contender {
        name,
        ingress: app.ingress().address().expect("it listens on a port"),
        admin: Some(app.admin_address()),
    };
    tokio::spawn(app.run(std::future::pending()));
    contender
}

/// Waits until every lane has delivered what a slice left behind, so that no contender works in another one's time.
async fn drained(contender: &Contender, http: &reqwest::Client) {
    let Some(admin) = contender.admin else { return };
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    loop {
        poll.tick().await;
        let answer = http.get(format!("http://{admin}/api/v1/status")).send().await.unwrap();
        let status: serde_json::Value = answer.json().await.unwrap();
        if status["lanes"].as_array().unwrap().iter().all(|lane| lane["lag"]["events"] == 0) {
            return;
        }
    }
}

/// One connection that posts one webhook after the other until told to stop; counts the 200s.
async fn sender(address: SocketAddr, numbers: Arc<AtomicU64>, until: Instant) -> u64 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut answered, mut answer) = (0, vec![0; 4096]);
    while Instant::now() < until {
        let body = webhook(numbers.fetch_add(1, Ordering::Relaxed));
        let head = format!(
            "POST /hooks/zapi HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut length = 0;
        while !answer[..length].ends_with(b"{\"value\":true}") {
            let read = stream.read(&mut answer[length..]).await.unwrap();
            assert!(read > 0, "the server hung up: {}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
        answered += 1;
    }
    answered
}

/// Processor time of this process until now, server and senders together. `/proc/self/stat`, fields 14 and 15, in
/// ticks of 10 ms (proc(5); every Linux that Rust runs on has 100 a second).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields = after_name.split(' ').skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// What one slice showed.
#[derive(Clone, Copy)]
struct Shown {
    requests_per_second: f64,
    cpu_micros_per_request: f64,
}

async fn slice(address: SocketAddr, numbers: &Arc<AtomicU64>, connections: usize, length: Duration) -> Shown {
    let (began, cpu_began) = (Instant::now(), cpu_seconds());
    let until = began + length;
    let senders: Vec<_> =
        (0..connections).map(|_| tokio::spawn(sender(address, Arc::clone(numbers), until))).collect();
    let mut answered = 0;
    for sender in senders {
        answered += sender.await.unwrap();
    }
    let answered = answered as f64;
    Shown {
        requests_per_second: answered / began.elapsed().as_secs_f64(),
        cpu_micros_per_request: (cpu_seconds() - cpu_began) * 1e6 / answered,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    // `cargo bench` hands over `--bench`; what is left are our numbers.
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let setting = |place: usize, default| numbers.get(place).copied().unwrap_or(default);
    let (length, slices) = (Duration::from_secs(setting(0, 3)), setting(1, 5));
    let connections = usize::try_from(setting(2, 64)).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let folder = tempfile::tempdir().unwrap();
    let contenders = [
        start_bare("bare axum", folder.path(), BareLog::Grows).await,
        start_bare("bare axum, ring", folder.path(), BareLog::Ring).await,
        start_hookbus("hookbus, no sink", &folder.path().join("alone"), "").await,
        start_hookbus("hookbus, file sink", &folder.path().join("default"), "[sinks.events.file]\n").await,
    ];
    let http = reqwest::Client::builder().no_proxy().build().unwrap();

    let counter = Arc::new(AtomicU64::new(0));
    let mut shown: Vec<Vec<Shown>> = vec![Vec::new(); contenders.len()];
    for round in 0..=slices {
        for (place, contender) in contenders.iter().enumerate() {
            let of_slice = slice(contender.ingress, &counter, connections, length).await;
            drained(contender, &http).await;
            // The first round warms up.
            if round > 0 {
                shown[place].push(of_slice);
            }
        }
    }
    println!("{connections} connections, {slices} slices of {} s each, in turn", length.as_secs());
    for (contender, slices) in contenders.iter().zip(&shown) {
        let ratio = |pick: fn(&Shown) -> f64| {
            median(slices.iter().zip(&shown[0]).map(|(ours, bare)| pick(ours) / pick(bare)).collect())
        };
        println!(
            "{:20} {:7.0} requests/s ({:.2} of bare), {:5.1} µs of processor time a request ({:.2} of bare)",
            contender.name,
            median(slices.iter().map(|slice| slice.requests_per_second).collect()),
            ratio(|slice| slice.requests_per_second),
            median(slices.iter().map(|slice| slice.cpu_micros_per_request).collect()),
            ratio(|slice| slice.cpu_micros_per_request),
        );
    }
}
