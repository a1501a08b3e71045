//! The crash campaign: the real daemon under a supervisor, real brokers, an HTTP server and a file, senders that repeat what
//! is not answered 2xx, and faults of every kind at random from a printed seed, overlapping. Ends in the oracle (R4), and
//! begins with showing that no lane holds up another (R5).
//!
//! A short one runs in the suite; `tests/campaign` runs one by hand for as long as one likes. It goes in chapters: each ends
//! in the oracle, and has a seed of its own with which it alone can be repeated. The seed fixes which faults strike whom,
//! after how many events and for how long; threads and disks remain what they are.
//!
//! The oracle is fair: SIGKILL ends a process and not the machine, so what a broker has written to a file stays there.
//! Kafka writes before it acknowledges, RabbitMQ before it confirms a persistent message in a durable queue; NATS may
//! answer before it writes, so the server of the rig is told `sync_interval: always`.
//! Absent on purpose: `stdout`, which cannot come back, and core `nats`, which promises nothing across a restart of its
//! server: it has nobody to ask what it got before. Both are in the contract.

mod load;
mod place;
mod plan;
mod report;
mod strikes;
mod supervised;

use crate::contract::with_all_brokers;
use crate::support::eventually_within;
use crate::support::oracle::Verdict;
use crate::support::small_disk::SmallDisk;
use load::Load;
use place::places;
use plan::{Kind, Plan};
use report::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strikes::Field;
use supervised::Supervised;

/// How long faults strike in the suite.
const SECONDS: u64 = 12;
/// The longest chapter, so that a failure is near its cause and the sinks' content stays readable.
const CHAPTER_SECONDS_MAX: u64 = 600;
/// Until every lane has settled everything after the last fault.
const DRAIN_MAX: Duration = Duration::from_secs(240);
/// Journal, dead letters, and room to be filled.
const DISK_BYTES: u64 = 48 << 20;

/// Small files, so that many are made and freed; a budget that one flood uses up.
const DAEMON: &str = r#"
[ingress]
listen = "127.0.0.1:0"
body_max = "32KiB"
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[journal]
segment = "64KiB"
disk_max = "4MiB"
retention = "3s"
recent_max = "256KiB"
[dead_letters]
disk_max = "8MiB"
[shutdown]
grace = "3s"
[sources.inbox.generic]
id = "/id"
key = "/key"
"#;
/// Nothing is ever given up: every dead letter is a finding.
const SINK: &str = r#"
order = "key"
timeout = "3s"
[retry]
first = "100ms"
max = "1s"
attempts_max = 1000000
"#;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaign_of_every_fault_every_sink_has_every_promised_event_in_order_and_no_lane_held_up_another() {
    let seed = from_environment("HOOKBUS_CAMPAIGN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut seconds = from_environment("HOOKBUS_CAMPAIGN_SECONDS").unwrap_or(SECONDS);
    let mut whole = Report::default();
    with_all_brokers(async {
        for chapter in 0.. {
            let (seed, length) = (seed.wrapping_add(chapter), seconds.min(CHAPTER_SECONDS_MAX));
            println!(
                "chapter {}: HOOKBUS_CAMPAIGN_SEED={seed} HOOKBUS_CAMPAIGN_SECONDS={length}",
                chapter + 1
            );
            let report = campaign(seed, Duration::from_secs(length)).await;
            println!("{report}");
            whole.add(report);
            seconds -= length;
            if seconds == 0 {
                break;
            }
        }
    })
    .await;
    if whole.chapters > 1 {
        println!("the whole campaign from seed {seed}:\n{whole}");
    }
}

/// One chapter. What it leaves behind for whoever looks for a cause stays only where it fails.
async fn campaign(seed: u64, duration: Duration) -> Report {
    let folder = tempfile::Builder::new().prefix("hookbus-campaign-").tempdir().unwrap().keep();
    println!("logs, the timeline of faults and the disk: {}", folder.display());
    let disk = SmallDisk::start(&folder, DISK_BYTES).await;
    let places = places().await;
    let mut config = format!("data_dir = {:?}\n{DAEMON}", disk.place().join("data"));
    for place in places.values() {
        config.push_str(&place.lock().await.table(SINK));
    }
    let daemon = Arc::new(Supervised::start(&folder, &disk, &config));
    daemon.up_after(0).await;
    let (load, mut senders) = Load::start(&daemon, seed);
    let begun = Instant::now();
    let timeline = std::fs::File::create(folder.join("timeline.log")).unwrap();
    let field = Field::new(&daemon, &load, &disk, &places, timeline);
    tokio::select! {
        () = async {
            field.each_is_away_once().await;
            field.strikes(Plan::of(seed), duration).await;
        } => {}
        ended = senders.join_next() => panic!("a sender ended before its time: {ended:?}"),
    }
    load.end(&mut senders).await;
    drained(&field).await;

    let mut report = Report::of_chapter(begun.elapsed());
    let mut dead = BTreeMap::new();
    for kind in places.keys() {
        dead.insert(*kind, dead_letters(&daemon, kind).await);
        let lane = daemon.lane(kind).await.expect("the daemon is well");
        report.compare(kind, &lane["account"]);
    }
    let ending = daemon.stop().await;
    assert!(ending.success(), "the last stop is a clean one: {ending}");
    report.verify(&daemon.verify_journal().await);
    let ledger = load.take_ledger();
    for (kind, place) in &places {
        let deliveries = place.lock().await.deliveries().await;
        report.judge(kind, Verdict::of(&ledger, &deliveries, &dead[kind]), dead[kind].len());
    }
    report.count(&ledger, field.score.take(), &daemon.lives());
    report.answers = load.answers();
    let findings = report.findings(&ledger, &daemon.lives());
    if !findings.is_empty() {
        let story = folder.join("findings.txt");
        std::fs::write(&story, findings.join("\n")).unwrap();
        let shown = &findings[..findings.len().min(20)];
        panic!(
            "seed {seed}: {} findings, all in {}:\n{}\n{report}",
            findings.len(),
            story.display(),
            shown.join("\n")
        );
    }
    assert_eq!(report.score.faults.len(), Kind::ALL.len(), "every kind of fault struck");
    drop(disk);
    std::fs::remove_dir_all(&folder).unwrap();
    report
}

/// Waits until every lane has settled everything.
async fn drained(field: &Field<'_>) {
    for kind in field.places.keys() {
        let what = format!("{kind} settles everything after the last fault; see hookbus's last log");
        eventually_within(DRAIN_MAX, &what, || async { (field.lag(kind).await? == 0).then_some(()) }).await;
    }
}

/// The ids of a sink's dead letters, of which there should be none.
async fn dead_letters(daemon: &Supervised, kind: &str) -> BTreeSet<String> {
    let path = format!("/api/v1/dead-letters?sink={kind}&limit=1000");
    let listed = daemon.ask(&path).await.expect("the daemon is well");
    let letters = listed["letters"].as_array().expect("a list").iter();
    let letters: Vec<_> = letters.collect();
    for letter in &letters {
        println!("a dead letter: {letter}");
    }
    letters.iter().filter_map(|letter| letter["event_id"].as_str().map(str::to_owned)).collect()
}
