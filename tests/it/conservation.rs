//! R4 while it runs and afterwards: what was accepted is, for every sink and at any moment, delivered, dead-lettered,
//! shed, not routed, missing or still in the journal. Every scrape and every status of a daemon that is killed, whose
//! sinks refuse, shed, vanish and are left out, and whose disk is damaged, adds up; at the end the recount from disk is
//! what the senders and the receivers counted themselves.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::oracle::events_in;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SINKS: [&str; 5] = ["audit", "far", "loose", "narrow", "picky"];
const ENDINGS: [&str; 5] = ["delivered", "dead_lettered", "shed", "not_routed", "missing"];
/// How often the daemon is killed under load.
const KILLS: u64 = 3;
const POSTED_PER_LIFE: u64 = 40;
/// So many answers of each life are looked at before it ends.
const ANSWERS_MIN: u64 = 5;
const SENDERS: u64 = 8;
/// What `loose` gives up before the kill: more than a segment, and the first segment's is on disk before the second's.
const SHED_MIN: u64 = 20;
const OTHERS: u64 = 5;

fn config(picky: &HttpSink, loose: &HttpSink, far: &HttpSink) -> String {
    let sinks = [picky.table("picky"), loose.table("loose"), far.table("far")].join("\n");
    format!(
        r#"
[ingress]
body_max = "4KiB"
[journal]
segment = "16KiB"
disk_max = "96KiB"
[sources.inbox]
on_unreadable = "quarantine"
[sources.inbox.generic]
id = "/n"
[sources.other.generic]
[sinks.audit.file]
path = "audit.ndjson"
[sinks.narrow.file]
path = "narrow.ndjson"
[sinks.loose]
on_backlog_full = "shed_oldest"
{sinks}
[[routes]]
to = ["audit", "picky", "loose", "far"]
[[routes]]
from = ["other"]
to = ["narrow"]
"#
    )
}

/// Not so many in a row that they are taken for a sink that is away.
fn is_refused(number: u64) -> bool {
    number % 7 == 3
}

// === At any moment

/// One answer of `/api/v1/status` adds up; what was accepted, by sink.
fn check_status(status: &Value) -> BTreeMap<String, u64> {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no count: {status}"));
    let mut accepted = BTreeMap::new();
    for lane in status["lanes"].as_array().unwrap() {
        let account = &lane["account"];
        let ended: u64 = ENDINGS.iter().map(|ending| number(&account[ending])).sum();
        assert_eq!(number(&account["accepted"]), ended + number(&account["in_journal"]), "{lane}");
        assert_eq!(account["in_journal"], lane["lag"]["events"], "{lane}");
        assert_eq!(account["unaccounted"], 0, "{lane}");
        accepted.insert(lane["sink"].as_str().unwrap().to_owned(), number(&account["accepted"]));
    }
    let letters = &status["dead_letters"];
    let accounts = letters["accounts"].as_object().unwrap().values();
    for account in accounts.chain([&letters["quarantines"]]) {
        let gone = number(&account["replayed"]) + number(&account["discarded"]);
        assert_eq!(number(&account["created"]), gone + number(&account["kept"]), "{letters}");
    }
    assert_eq!(letters["unaccounted"], 0, "{letters}");
    accepted
}

/// One scrape adds up.
fn check_scrape(text: &str) {
    let samples: BTreeMap<&str, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, value)| (series, value.parse().unwrap()))
        .collect();
    let sample = |series: String| *samples.get(&*series).unwrap_or_else(|| panic!("no {series} in:\n{text}"));
    for sink in SINKS {
        let of_lane = |name: &str| sample(format!("hookbus_lane_{name}{{sink=\"{sink}\"}}"));
        let ended: f64 = ENDINGS
            .iter()
            .map(|ending| {
                sample(format!("hookbus_lane_accounted_events{{sink=\"{sink}\",ending=\"{ending}\"}}"))
            })
            .sum();
        assert_eq!(of_lane("accepted_events"), ended + of_lane("lag_events"), "{sink}:\n{text}");
        assert_eq!(of_lane("unaccounted_events"), 0.0, "{sink}:\n{text}");
        let gone: f64 = ["replayed", "discarded"]
            .iter()
            .map(|how| sample(format!("hookbus_dead_letters_gone_total{{sink=\"{sink}\",how=\"{how}\"}}")))
            .sum();
        let created = sample(format!("hookbus_dead_letters_created_total{{sink=\"{sink}\"}}"));
        assert_eq!(
            created,
            gone + sample(format!("hookbus_dead_letters{{sink=\"{sink}\"}}")),
            "{sink}:\n{text}"
        );
    }
    let gone: f64 = ["replayed", "discarded"]
        .iter()
        .map(|how| sample(format!("hookbus_quarantines_gone_total{{how=\"{how}\"}}")))
        .sum();
    let created = sample("hookbus_quarantines_created_total".to_owned());
    assert_eq!(created, gone + sample("hookbus_dead_letters_quarantined".to_owned()), "{text}");
    assert_eq!(sample("hookbus_dead_letters_unaccounted".to_owned()), 0.0, "{text}");
}

/// Asks again and again until nobody answers any more; what was accepted at last.
async fn watch(
    http: reqwest::Client,
    admin: SocketAddr,
    mut accepted: BTreeMap<String, u64>,
    answers: Arc<AtomicU64>,
) -> BTreeMap<String, u64> {
    let ask =
        async |path: &str| http.get(format!("http://{admin}{path}")).send().await.ok()?.text().await.ok();
    let mut beat = tokio::time::interval(Duration::from_millis(15));
    loop {
        beat.tick().await;
        let (Some(status), Some(scrape)) = (ask("/api/v1/status").await, ask("/metrics").await) else {
            return accepted;
        };
        let now = check_status(&serde_json::from_str(&status).unwrap());
        for (sink, before) in &accepted {
            assert!(now[sink] >= *before, "what was accepted for {sink} shrinks, even by a kill");
        }
        accepted = now;
        check_scrape(&scrape);
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

// === The play

/// A daemon that is watched as long as it lives.
struct Life {
    daemon: Daemon,
    /// Two, so that each scrape has another one beside it.
    watches: [tokio::task::JoinHandle<BTreeMap<String, u64>>; 2],
    /// How often both were asked and added up.
    answers: Arc<AtomicU64>,
}

impl Life {
    async fn begin(folder: &Path, config: &str, accepted: BTreeMap<String, u64>) -> Life {
        let daemon = Daemon::start(folder, config).await;
        let answers = Arc::new(AtomicU64::new(0));
        let watches = [(); 2].map(|()| {
            let (http, answers) = (daemon.http.clone(), Arc::clone(&answers));
            tokio::spawn(watch(http, daemon.admin, accepted.clone(), answers))
        });
        Life { daemon, watches, answers }
    }

    async fn killed(mut self) -> BTreeMap<String, u64> {
        self.daemon.kill_now();
        self.daemon.ended().await;
        let [one, other] = self.watches;
        other.await.unwrap();
        one.await.unwrap()
    }

    async fn stopped(self) {
        assert!(self.daemon.stop().await.success());
        join_all(self.watches).await.into_iter().for_each(|watched| drop(watched.unwrap()));
    }

    async fn lane(&self, sink: &str) -> Value {
        self.daemon.lane(sink).await["account"].clone()
    }

    /// Posts one event; whether it was promised.
    async fn post(&self, path: &str, number: u64, text: &str) -> bool {
        let body = json!({"n": number, "text": text}).to_string();
        self.daemon.post(path, body).await.is_ok_and(|answer| answer.status == 200)
    }

    async fn until_settled(&self, sink: &str) {
        eventually(&format!("{sink} has nothing left"), || async {
            // A sink that was away is probed at once.
            let url = format!("http://{}/api/v1/sinks/{sink}/resume", self.daemon.admin);
            self.daemon.http.post(url).send().await.unwrap();
            (self.lane(sink).await["in_journal"] == 0).then_some(())
        })
        .await;
    }

    async fn dead_letters(&self, arguments: &[&str]) -> Value {
        let words: Vec<&str> =
            ["dead-letters"].into_iter().chain(arguments.iter().copied()).chain(["--json"]).collect();
        let output = self.daemon.command(&words).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// `hookbus journal …`: the exit code and the document.
async fn journal(folder: &Path, arguments: &[&str]) -> (i32, Value) {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["--config", "hookbus.toml", "journal"]).args(arguments).arg("--json");
    let output = command.current_dir(folder).output().await.unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code().unwrap(), document)
}

/// Every cursor but `far` has saved that it is through, which only the disk can show.
async fn until_saved(folder: &Path) {
    eventually("the cursors are saved", || async {
        let (code, found) = journal(folder, &["inspect"]).await;
        assert_eq!(code, 0);
        let cursors = found["cursors"].as_array().unwrap();
        let saved = cursors.iter().filter(|cursor| cursor["name"] != "far");
        saved.clone().all(|cursor| cursor["through"] == found["last"]).then_some(())
    })
    .await;
}

/// Under load, killed three times.
async fn live_and_die(folder: &Path, config: &str, numbers: &AtomicU64) -> BTreeMap<String, u64> {
    let mut accepted = BTreeMap::new();
    for _ in 0..KILLS {
        let life = Life::begin(folder, config, accepted).await;
        let promised = AtomicU64::new(0);
        let sender = || async {
            loop {
                let body = json!({"n": numbers.fetch_add(1, Ordering::Relaxed)}).to_string();
                match life.daemon.post("/hooks/inbox", body).await {
                    Ok(answer) if answer.status == 200 => promised.fetch_add(1, Ordering::Relaxed),
                    Ok(_full) => 0,
                    Err(_killed) => return,
                };
            }
        };
        let killer = async {
            eventually("enough was promised and looked at", || async {
                let enough = promised.load(Ordering::Relaxed) >= POSTED_PER_LIFE;
                (enough && life.answers.load(Ordering::Relaxed) >= ANSWERS_MIN).then_some(())
            })
            .await;
            life.daemon.kill_now();
        };
        tokio::join!(join_all((0..SENDERS).map(|_| sender())), killer);
        accepted = life.killed().await;
    }
    accepted
}

/// Whether a payload with this text lies in a segment; then one of its bytes is another one.
fn damage(folder: &Path, text: &str) -> bool {
    let segments = std::fs::read_dir(folder.join("hookbus-data/journal")).unwrap();
    let segments = segments.map(|entry| entry.unwrap().path());
    for path in segments.filter(|path| path.extension().is_some_and(|extension| extension == "seg")) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_adds_up_at_any_moment_and_is_recounted_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (picky, mut loose, mut far) =
        (HttpSink::start().await, HttpSink::start().await, HttpSink::start().await);
    let config = config(&picky, &loose, &far);
    let refused: BTreeSet<u64> = (0..10_000).filter(|number| is_refused(*number)).collect();
    picky.is(Mood::Refuses(422, refused));
    let numbers = AtomicU64::new(0);
    let accepted = live_and_die(folder.path(), &config, &numbers).await;
    let (code, verdict) = journal(folder.path(), &["verify"]).await;
    assert_eq!((code, &verdict["journal"]["findings"]), (0, &json!([])), "killed is not damaged");

    // One sink sheds, and dies meanwhile.
    let life = Life::begin(folder.path(), &config, accepted).await;
    for sink in SINKS {
        life.until_settled(sink).await;
    }
    loose.goes_down().await;
    let filler = "x".repeat(1000);
    while life.lane("loose").await["shed"].as_u64().unwrap() < SHED_MIN {
        life.post("/hooks/inbox", numbers.fetch_add(1, Ordering::Relaxed), &filler).await;
    }
    let accepted = life.killed().await;

    // It comes back; another one goes, and of its backlog one record is damaged while nothing runs.
    let life = Life::begin(folder.path(), &config, accepted).await;
    loose.comes_back().await;
    for sink in SINKS {
        life.until_settled(sink).await;
    }
    far.goes_down().await;
    for _ in 0..10 {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        assert!(life.post("/hooks/inbox", number, &format!("mark {number}.")).await);
    }
    let damaged = numbers.load(Ordering::Relaxed) - 5;
    for number in 0..OTHERS {
        assert!(life.post("/hooks/other", number, "").await);
    }
    until_saved(folder.path()).await;
    let accepted = life.killed().await;
    assert!(damage(folder.path(), &format!("mark {damaged}.")));
    let (code, verdict) = journal(folder.path(), &["verify"]).await;
    assert_eq!(code, 3);
    let findings = verdict["journal"]["findings"].to_string();
    assert!(findings.contains("far: 1 events are neither settled nor on the disk"), "{findings}");

    // Dead letters are replayed and discarded, a body is quarantined; `far` comes and goes.
    let life = Life::begin(folder.path(), &config, accepted).await;
    far.comes_back().await;
    for sink in SINKS {
        life.until_settled(sink).await;
    }
    picky.is(Mood::Confirms);
    let letters = life.dead_letters(&["list", "--limit", "1000"]).await;
    let ids: Vec<&str> =
        letters.as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    let before = picky.confirmed().len();
    life.dead_letters(&["replay", ids[0]]).await;
    eventually("the replay is delivered", || async { (picky.confirmed().len() > before).then_some(()) })
        .await;
    life.dead_letters(&["discard", ids[1], "--yes"]).await;
    assert_eq!(life.daemon.post("/hooks/inbox", "no json").await.unwrap().status, 200);
    far.goes_down().await;
    for _ in 0..4 {
        // A multiple of seven is not refused, were it asked again.
        let number = numbers.fetch_add(7, Ordering::Relaxed) / 7 * 7 + 7;
        assert!(life.post("/hooks/inbox", number, "").await);
    }
    for sink in ["audit", "loose", "narrow", "picky"] {
        life.until_settled(sink).await;
    }
    life.stopped().await;

    judge(folder.path(), &picky, &loose, &far, ids.len() as u64, damaged).await;
}

/// The recount is what was posted and what the receivers got.
async fn judge(
    folder: &Path,
    picky: &HttpSink,
    loose: &HttpSink,
    far: &HttpSink,
    letters: u64,
    damaged: u64,
) {
    let (code, verdict) = journal(folder, &["verify"]).await;
    let (everything, narrow) = (
        events_in(&folder.join("hookbus-data/audit.ndjson")),
        events_in(&folder.join("hookbus-data/narrow.ndjson")).len() as u64,
    );
    let all = everything.len() as u64;
    let (loose, far_has) = (loose.confirmed().len() as u64, far.confirmed());
    let account = |name: &str| {
        let cursors = verdict["journal"]["cursors"].as_array().unwrap();
        cursors.iter().find(|cursor| cursor["name"] == name).unwrap()["account"].clone()
    };
    let expected = |delivered: u64, dead: u64, shed: u64, not_routed: u64, missing: u64, in_journal: u64| {
        json!({
            "accepted": all, "delivered": delivered, "dead_lettered": dead, "shed": shed,
            "not_routed": not_routed, "missing": missing, "in_journal": in_journal, "unaccounted": 0,
        })
    };
    assert_eq!(account("audit"), expected(all, 0, 0, 0, 0, 0));
    assert_eq!(account("picky"), expected(all - letters, letters, 0, 0, 0, 0));
    assert_eq!(picky.confirmed().len() as u64, all - letters + 1, "and one that was replayed");
    assert_eq!(account("loose"), expected(loose, 0, all - loose, 0, 0, 0));
    assert!(all > loose, "what it freed room by is lost to it, whatever the kill made it forget");
    assert_eq!(account("far"), expected(all - 5, 0, 0, 0, 1, 4));
    assert_eq!(far_has.len() as u64, all - 5);
    let damaged = damaged.to_string();
    assert!(everything.contains_key(&damaged) && !far_has.contains_key(&damaged), "{damaged}");
    assert_eq!((narrow, account("narrow")), (OTHERS, expected(OTHERS, 0, 0, all - OTHERS, 0, 0)));
    let counted = &verdict["dead_letters"]["totals"];
    assert_eq!(
        counted["accounts"]["picky"],
        json!({"created": letters, "replayed": 1, "discarded": 1, "kept": letters - 2})
    );
    assert_eq!(counted["quarantines"], json!({"created": 1, "replayed": 0, "discarded": 0, "kept": 1}));
    assert_eq!(verdict["dead_letters"]["findings"], json!([]));

    // The damage stays a finding until somebody has dealt with it; nothing else is one.
    assert_eq!(code, 3);
    for finding in verdict["journal"]["findings"].as_array().unwrap() {
        let finding = finding.as_str().unwrap();
        let kinds = ["are no sound record", "is not on the disk", "damaged/ holds 1 files"];
        assert!(kinds.iter().any(|kind| finding.contains(kind)), "{finding}");
    }
}
