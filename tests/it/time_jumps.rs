//! The wall clock of the running daemon is set back and forth by hours and days (libfaketime; the monotonic clock stays
//! true): nothing is lost, given up, held up or taken for a repetition because of it.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::oracle::lines_of;
use hookbus::time::UnixMs;
use serde_json::Value;
use std::path::{Path, PathBuf};

const HOUR: i64 = 3600;

/// Where Debian keeps the library, whatever the machine's architecture.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let found = found.expect("libfaketimeMT.so.1 is needed: `tests/run instruments` installs it");
    found.to_str().unwrap().to_owned()
}

/// A wall clock that a running daemon obeys.
struct WallClock(PathBuf);

impl WallClock {
    fn new(folder: &Path) -> WallClock {
        let clock = WallClock(folder.join("clock"));
        clock.is_off_by(0);
        clock
    }

    /// From now on it is off by so many seconds.
    fn is_off_by(&self, seconds: i64) {
        // Renamed into place: the daemon reads it at any moment.
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}s\n")).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }

    async fn start(&self, folder: &Path, config: &str) -> Daemon {
        let (preload, file) =
            (format!("LD_PRELOAD={}", library()), format!("FAKETIME_TIMESTAMP_FILE={}", self.0.display()));
        let monotonic = "FAKETIME_DONT_FAKE_MONOTONIC=1";
        let wrapper = ["env", &preload, &file, monotonic, "FAKETIME_NO_CACHE=1"];
        Daemon::start_through(folder, &wrapper, config).await
    }
}

async fn post(daemon: &Daemon, number: u64) -> Value {
    let answer = daemon.post("/hooks/inbox", format!("{{\"n\":{number}}}")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// When an event was received by the daemon's clock.
fn received_at(folder: &Path, number: u64) -> Option<UnixMs> {
    let kept = lines_of(&folder.join("hookbus-data/kept.ndjson"));
    let event = kept.into_iter().find(|event| event["data"]["n"] == number)?;
    Some(UnixMs::parse_rfc3339(event["receivedtime"].as_str().unwrap()).unwrap())
}

fn now_ms() -> i64 {
    hookbus::clock::now().0
}

#[tokio::test]
async fn a_wall_clock_that_jumps_at_run_time_changes_no_order_no_window_and_no_life() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, sink) = (WallClock::new(folder.path()), HttpSink::start().await);
    sink.is(Mood::Refuses(500, [0].into()));
    let config = format!(
        "[sources.inbox]\ndedupe = \"1s\"\n[sources.inbox.generic]\n[sinks.orders]\norder = \"none\"\n\
         in_flight_max = 1\n[sinks.orders.retry]\nfirst = \"20ms\"\nmax = \"100ms\"\nattempts_max = 100000\n\
         age_max = \"1h\"\n[sinks.kept.file]\npath = \"kept.ndjson\"\n{}",
        sink.table("orders")
    );
    let mut daemon = clock.start(folder.path(), &config).await;
    post(&daemon, 0).await;
    let mut number = 0;
    for offset in [-5 * HOUR, 100 * HOUR, -30 * HOUR, 0] {
        let what = format!("with the clock off by {offset} s");
        clock.is_off_by(offset);
        // A window that is open stays open, and one that is over is over.
        number += 1;
        assert_eq!(post(&daemon, number).await["duplicate"], false, "{what}");
        let received = eventually("the event is kept", || async { received_at(folder.path(), number) }).await;
        let by_true_clock = received.0 - offset * 1000;
        assert!((by_true_clock - now_ms()).abs() < 60_000, "the daemon's clock obeys: {received:?}, {what}");
        let repeated = number;
        clock.is_off_by(offset - 3 * HOUR);
        assert_eq!(post(&daemon, repeated).await["duplicate"], true, "set back, {what}");
        eventually("the window ends although the clock was set back", || async {
            (post(&daemon, repeated).await["duplicate"] == false).then_some(())
        })
        .await;
        number += 1;
        post(&daemon, number).await;
        clock.is_off_by(offset + 3 * HOUR);
        assert_eq!(post(&daemon, number).await["duplicate"], true, "set ahead, {what}");

        let requests = sink.requests();
        eventually("the failing event is tried on, and the others are delivered", || async {
            let lane = daemon.lane("orders").await;
            (lane["lag"]["events"] == 1 && sink.requests() > requests + 3).then_some(())
        })
        .await;
        assert_eq!(daemon.lane("orders").await["dead_lettered"], 0, "{what}");
        let lag = daemon.metric("hookbus_lane_lag_seconds{sink=\"orders\"}").await.unwrap();
        assert!(lag >= 0.0, "{lag} s behind, {what}");
        if offset.abs() > 10 * HOUR {
            daemon.kill_now();
            daemon.ended().await;
            daemon = clock.start(folder.path(), &config).await;
            let requests = sink.requests();
            eventually("it is tried on after a restart", || async {
                (sink.requests() > requests + 3).then_some(())
            })
            .await;
            assert_eq!(daemon.lane("orders").await["dead_lettered"], 0, "restarted {what}");
        }
    }
    sink.is(Mood::Confirms);
    eventually("the first event is delivered", || async {
        (daemon.lane("orders").await["lag"]["events"] == 0).then_some(())
    })
    .await;
    assert_eq!(sink.confirmed().len() as u64, number + 1, "every event by its own id");
    let mut first_seen = Vec::new();
    for data in sink.data_in_order() {
        let number = data["n"].as_u64().unwrap();
        if number != 0 && !first_seen.contains(&number) {
            first_seen.push(number);
        }
    }
    assert!(first_seen.is_sorted(), "in the order in which they came: {first_seen:?}");
    assert!(daemon.stop().await.success());
}
