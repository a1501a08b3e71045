//! How many records a second the journal makes durable, beside the least that keeps the same promise: a thread that
//! appends to a file of zeros, with one write and one sync for all that wait. Both run in this process, on the same
//! disk, for the same producers, slice after slice in turn, because machines are noisy: only the ratio means anything.
//!
//! `cargo bench --bench journal [-- SECONDS_A_SLICE SLICES PRODUCERS…]`

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use hookbus::config::{ByteSize, Period};
use hookbus::journal::{Config, Dedupe, Journal, RealDisk, Record};
use hookbus::time::UnixMs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

const MIB: usize = 1024 * 1024;
/// A stored webhook: the envelope's attributes, and the sender's body.
const HEAD_BYTES: usize = 260;
const BODY_BYTES: usize = 400;

type Waiting = (Vec<u8>, Bytes, oneshot::Sender<()>);

/// Gathers what waits, writes once, syncs once, answers all.
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
        for (head, body, _) in &gathered {
            batch.extend_from_slice(&u32::try_from(head.len() + body.len()).unwrap().to_le_bytes());
            batch.extend_from_slice(head);
            batch.extend_from_slice(body);
        }
        if at + batch.len() > 64 * MIB {
            at = 0;
        }
        file.write_all_at(&batch, at as u64).unwrap();
        file.sync_data().unwrap();
        at += batch.len();
        for (_, _, done) in gathered.drain(..) {
            let _ = done.send(());
        }
    }
}

#[derive(Clone)]
enum Contender {
    Bare(mpsc::Sender<Waiting>),
    Hookbus(Journal),
}

impl Contender {
    /// Returns when record `number` is durable.
    async fn keep(&self, number: u64) {
        let head = vec![b'h'; HEAD_BYTES];
        let body = Bytes::from(vec![b'b'; BODY_BYTES]);
        match self {
            Contender::Bare(writer) => {
                let (done, durable) = oneshot::channel();
                writer.send((head, body, done)).await.unwrap();
                durable.await.unwrap();
            }
            Contender::Hookbus(journal) => {
                let key = (u128::from(number) << 64 | u128::from(number)).to_be_bytes();
                let dedupe = Some(Dedupe { key, window: Duration::from_secs(600) });
                let arrival = UnixMs(1_800_000_000_000);
                journal.append(vec![Record { head, body, arrival, dedupe }]).await.unwrap();
            }
        }
    }
}

fn start_bare(folder: &Path) -> Contender {
    let (writer, waiting) = mpsc::channel(4096);
    let file = folder.join("bare.log");
    std::thread::spawn(move || bare_writer(&file, waiting));
    Contender::Bare(writer)
}

/// As it is by default, but on less disk; nobody reads, so that what is old goes when its room is needed.
fn open_journal(folder: &Path) -> Journal {
    let config = Config { disk_max: ByteSize::mib(512), retention: Period::hours(1), ..Config::default() };
    Journal::open(&config, &folder.join("journal"), Arc::new(RealDisk), &[]).unwrap()
}

/// Records a second that these producers, each waiting for its answer, got durable.
async fn slice(contender: &Contender, numbers: &Arc<AtomicU64>, producers: usize, length: Duration) -> f64 {
    let began = Instant::now();
    let until = began + length;
    let producers: Vec<_> = (0..producers)
        .map(|_| {
            let (contender, numbers) = (contender.clone(), Arc::clone(numbers));
            tokio::spawn(async move {
                let mut kept = 0u64;
                while Instant::now() < until {
                    contender.keep(numbers.fetch_add(1, Ordering::Relaxed)).await;
                    kept += 1;
                }
                kept
            })
        })
        .collect();
    let mut kept = 0;
    for producer in producers {
        kept += producer.await.unwrap();
    }
    kept as f64 / began.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    // `cargo bench` hands over `--bench`; what is left are our numbers.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let length = Duration::from_secs(numbers.next().unwrap_or(1));
    let slices = numbers.next().unwrap_or(9);
    let mut counts: Vec<usize> = numbers.map(|count| usize::try_from(count).unwrap()).collect();
    if counts.is_empty() {
        counts = vec![1, 16, 64, 512];
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = open_journal(folder.path());
    let contenders = [start_bare(folder.path()), Contender::Hookbus(journal.clone())];
    let numbers = Arc::new(AtomicU64::new(0));
    println!(
        "{slices} slices of {} s each, in turn; {} bytes a record",
        length.as_secs(),
        HEAD_BYTES + BODY_BYTES
    );
    for producers in counts {
        let mut rates: [Vec<f64>; 2] = Default::default();
        // The first round warms up.
        for round in 0..=slices {
            for (contender, rates) in contenders.iter().zip(&mut rates) {
                let rate = slice(contender, &numbers, producers, length).await;
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        let ratios = rates[1].iter().zip(&rates[0]).map(|(journal, bare)| journal / bare).collect();
        println!(
            "{producers:4} producers: bare {:7.0} records/s, journal {:7.0} records/s (medians); {:.2} of bare, slice by slice",
            median(rates[0].clone()),
            median(rates[1].clone()),
            median(ratios)
        );
    }
    journal.close().await;
    let began = Instant::now();
    let journal = open_journal(folder.path());
    println!("opened again in {} ms, with {} records", began.elapsed().as_millis(), journal.status().records);
    journal.close().await;
}
