//! How fast the ingress takes webhooks, beside a bare axum handler that appends the same bodies to a file with one
//! sync for all that wait. Both run in this process, on the same disk, under the same load, slice after slice in turn,
//! because machines are noisy: only the ratio means anything.
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

const MIB: usize = 1024 * 1024;

/// A Z-API text message as documented, with a message id of its own, so that none is a duplicate.
fn webhook(number: u64) -> String {
    format!(
        "{{\"isStatusReply\":false,\"chatLid\":\"81896604192873@lid\",\"connectedPhone\":\"554499999999\",\
         \"waitingMessage\":false,\"isEdit\":false,\"isGroup\":false,\"isNewsletter\":false,\
         \"instanceId\":\"A20DA9C0183A2D35A260F53F5D2B9244\",\"messageId\":\"A20DA9C0183A{number:016X}\",\
         \"phone\":\"5544999999999\",\"fromMe\":false,\"momment\":1632228638000,\"status\":\"RECEIVED\",\
         \"chatName\":\"name\",\"senderPhoto\":\"https://photo.test/p.jpg\",\"senderName\":\"name\",\
         \"participantPhone\":null,\"participantLid\":null,\"photo\":\"https://photo.test/q.jpg\",\
         \"broadcast\":false,\"type\":\"ReceivedCallback\",\"text\":{{\"message\":\"a short text as people send it\"}}}}"
    )
}

type Waiting = (Bytes, oneshot::Sender<()>);

/// The least that keeps the same promise: gather what waits, write once, sync once, answer all.
fn bare_writer(path: &Path, mut waiting: mpsc::Receiver<Waiting>) {
    let mut file = File::create(path).unwrap();
    let zeros = vec![0; MIB];
    for _ in 0..64 {
        file.write_all(&zeros).unwrap();
    }
    file.sync_all().unwrap();
    let (mut at, mut gathered, mut batch) = (0, Vec::new(), Vec::new());
    while waiting.blocking_recv_many(&mut gathered, 4096) > 0 {
        batch.clear();
        for (body, _) in &gathered {
            batch.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            batch.extend_from_slice(body);
        }
        if at + batch.len() > 64 * MIB {
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

async fn start_bare(folder: &Path) -> SocketAddr {
    let (writer, waiting) = mpsc::channel(4096);
    let file = folder.join("bare.log");
    std::thread::spawn(move || bare_writer(&file, waiting));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/hooks/zapi", post(bare_handler)).with_state(writer);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn start_hookbus(folder: &Path, sinks: &str) -> SocketAddr {
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
    let address = app.ingress_address();
    tokio::spawn(app.run(std::future::pending()));
    address
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

async fn slice(address: SocketAddr, numbers: &Arc<AtomicU64>, connections: usize, length: Duration) -> f64 {
    let began = Instant::now();
    let until = began + length;
    let senders: Vec<_> =
        (0..connections).map(|_| tokio::spawn(sender(address, Arc::clone(numbers), until))).collect();
    let mut answered = 0;
    for sender in senders {
        answered += sender.await.unwrap();
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = answered as f64 / began.elapsed().as_secs_f64();
    rate
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
    let no_sink = start_hookbus(&folder.path().join("alone"), "").await;
    let file_sink = start_hookbus(&folder.path().join("default"), "[sinks.events.file]\n").await;
    let contenders = [
        ("bare axum", start_bare(folder.path()).await),
        ("hookbus, no sink", no_sink),
        ("hookbus, file sink", file_sink),
    ];

    let counter = Arc::new(AtomicU64::new(0));
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..=slices {
        for (place, (_, address)) in contenders.iter().enumerate() {
            let rate = slice(*address, &counter, connections, length).await;
            // The first round warms up.
            if round > 0 {
                rates[place].push(rate);
            }
        }
    }
    println!("{connections} connections, {slices} slices of {} s each, in turn", length.as_secs());
    let bare = median(rates[0].clone());
    for (place, (name, _)) in contenders.iter().enumerate() {
        let ratios = rates[place].iter().zip(&rates[0]).map(|(rate, bare)| rate / bare).collect();
        println!(
            "{name:20} {:8.0} requests/s (median)   {:.2} of bare, slice by slice {:.2}",
            median(rates[place].clone()),
            median(rates[place].clone()) / bare,
            median(ratios)
        );
    }
}
