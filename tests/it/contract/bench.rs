//! A daemon with the sink under test, and what the cases do with it: post, wait, look at what the operator sees.

use super::{Rig, SINK, Setup};
use crate::support::daemon::Daemon;
use crate::support::{eventually, eventually_within};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tempfile::TempDir;

/// How soon a lane goes on after what it waited for is there: twice what is promised (design, section 7), for a busy
/// machine, and far less than the longest pause between attempts.
pub const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// Webhooks that are posted at once where their order does not matter.
const SENDERS: usize = 48;

/// The generic source takes the identity and whatever a destination may depend on from the body; the other is for
/// CloudEvents as their senders mean them.
const SOURCE: &str = r#"
[ingress]
body_max = "4MiB"
[sources.inbox.generic]
id = "/id"
type = "/type"
subject = "/subject"
key = "/key"
[sources.events.cloudevents]
[sources.raw.generic]
"#;

/// See the module.
pub struct Bench<R: Rig> {
    pub rig: R,
    pub daemon: Daemon,
    folder: TempDir,
    config: String,
}

impl<R: Rig> Bench<R> {
    /// The rig in this setup, and a daemon whose sink has these common keys.
    pub async fn start(setup: Setup, keys: &str) -> Self {
        Self::with(R::start(setup).await, keys).await
    }

    /// The same with a rig that something was done to before.
    pub async fn with(rig: R, keys: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("{SOURCE}[sinks.{SINK}]\n{keys}\n{}", rig.table());
        let daemon = Daemon::start_printing(folder.path(), &config, rig.stdout()).await;
        Bench { rig, daemon, folder, config }
    }

    /// The same daemon again, after it was stopped.
    pub async fn start_again(self, stopped: impl AsyncFnOnce(Daemon)) -> Self {
        let Bench { rig, daemon, folder, config } = self;
        stopped(daemon).await;
        let daemon = Daemon::start_printing(folder.path(), &config, rig.stdout()).await;
        Bench { rig, daemon, folder, config }
    }

    /// Posts one after the other. Each is promised.
    pub async fn post_in_turn(&self, bodies: impl IntoIterator<Item = Value>) {
        for body in bodies {
            post(&self.daemon, body).await;
        }
    }

    /// Posts many at once. Each is promised.
    pub async fn post_at_once(&self, bodies: impl IntoIterator<Item = Value>) {
        post_at_once(&self.daemon, bodies).await;
    }

    /// What `status` says of the lane.
    pub async fn lane(&self) -> Value {
        self.daemon.lane(SINK).await
    }

    /// Waits until the lane is in this state.
    pub async fn lane_is(&self, state: &str) -> Value {
        lane_is(&self.daemon, state).await
    }

    /// Waits until every event is settled.
    pub async fn settled(&self) {
        let what = format!("everything for {} is settled", R::KIND);
        eventually(&what, || self.is_settled()).await;
    }

    /// The same, no later than a lane may take to notice that what it waited for is there.
    pub async fn recovered(&self) {
        let what = format!("{} goes on by itself", R::KIND);
        eventually_within(RECOVERY_MAX, &what, || self.is_settled()).await;
    }

    async fn is_settled(&self) -> Option<()> {
        (self.lane().await["lag"]["events"] == 0).then_some(())
    }

    /// How often deliveries ended like this: `retry`, `away`.
    pub async fn outcomes(&self, outcome: &str) -> f64 {
        let series = format!("hookbus_delivery_outcomes_total{{sink=\"{SINK}\",outcome=\"{outcome}\"}}");
        self.daemon.metric(&series).await.unwrap()
    }

    /// Waits until the lane waits for its sink, and checks that it says why: in `status`, in the log and in the metrics.
    pub async fn is_away_because(&self, reason: &str) {
        let lane = self.lane_is("away").await;
        assert_eq!(lane["failure"]["reason"], reason, "{lane}");
        let line = eventually("the log says so", || async {
            let log = self.daemon.log();
            log.lines().find(|line| line.contains("the sink takes no events")).map(str::to_owned)
        })
        .await;
        assert!(line.contains(reason), "{line}");
        let series = format!("hookbus_lane_failure{{sink=\"{SINK}\",reason=\"{reason}\"}}");
        assert_eq!(self.daemon.metric(&series).await, Some(1.0), "{series}");
    }

    /// What `hookbus check --connect` prints of the same configuration.
    pub async fn check(&self) -> String {
        let mut command = tokio::process::Command::new(crate::support::daemon::PROGRAM);
        command.args(["--config", "hookbus.toml", "check", "--connect"]).current_dir(self.folder.path());
        let output = command.stdin(std::process::Stdio::null()).output().await.unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    }

    /// Tells the lane to `pause` or to `resume`.
    pub async fn order(&self, order: &str) {
        let url = format!("http://{}/api/v1/sinks/{SINK}/{order}", self.daemon.admin);
        assert_eq!(self.daemon.http.post(url).send().await.unwrap().status(), 204);
    }

    /// Every dead letter of the sink.
    pub async fn dead_letters(&self) -> Vec<Value> {
        let (status, body) = self.daemon.ask(&format!("/api/v1/dead-letters?sink={SINK}&limit=1000")).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["letters"].as_array().unwrap().clone()
    }

    /// The other side has exactly these numbers, each at least once, and there is no dead letter.
    pub async fn has_all(&self, numbers: std::ops::Range<u64>) {
        let letters = self.dead_letters().await;
        assert!(letters.is_empty(), "{}: {letters:?}", R::KIND);
        self.has(&numbers.collect()).await;
    }

    /// The other side has exactly these numbers, each at least once.
    pub async fn has(&self, numbers: &BTreeSet<u64>) {
        let arrived: BTreeSet<u64> = self.numbers().await.into_iter().collect();
        let missing: Vec<_> = numbers.difference(&arrived).take(10).collect();
        let more: Vec<_> = arrived.difference(numbers).take(10).collect();
        let (got, wanted) = (arrived.len(), numbers.len());
        assert!(
            missing.is_empty() && more.is_empty(),
            "{}: {got} of {wanted} arrived, without {missing:?}, beside {more:?}",
            R::KIND
        );
    }

    /// The numbers of what arrived, in its order, with repetitions.
    pub async fn numbers(&self) -> Vec<u64> {
        self.arrived_data().await.iter().map(|data| data["n"].as_u64().unwrap()).collect()
    }

    /// The numbers of what arrived by key, in its order; a number that came twice in a row counts once.
    pub async fn numbers_by_key(&self) -> BTreeMap<String, Vec<u64>> {
        let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for data in self.arrived_data().await {
            let numbers = by_key.entry(data["key"].as_str().unwrap().to_owned()).or_default();
            numbers.push(data["n"].as_u64().unwrap());
            numbers.dedup();
        }
        by_key
    }

    /// `data` of the structured events that arrived.
    async fn arrived_data(&self) -> Vec<Value> {
        let arrived = self.rig.arrived().await;
        let data = |body: &[u8]| {
            let mut event: Value = serde_json::from_slice(body)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
            event["data"].take()
        };
        arrived.iter().map(|event| data(&event.body)).collect()
    }

    /// Stops, and that is no trouble.
    pub async fn stop(self) {
        let (folder, ended) = (self.daemon.folder.clone(), self.daemon.stop().await);
        assert!(ended.success(), "{ended} in {folder:?}");
    }
}

/// Posts many at once. Each is promised.
pub async fn post_at_once(daemon: &Daemon, bodies: impl IntoIterator<Item = Value>) {
    let posts = bodies.into_iter().map(|body| post(daemon, body));
    stream::iter(posts).buffer_unordered(SENDERS).for_each(|()| async {}).await;
}

/// Waits until the lane is in this state.
pub async fn lane_is(daemon: &Daemon, state: &str) -> Value {
    eventually(&format!("the lane is {state}"), || async {
        let lane = daemon.lane(SINK).await;
        (lane["state"] == state).then_some(lane)
    })
    .await
}

/// Waits until this many events were confirmed since the daemon started.
pub async fn delivered(daemon: &Daemon, at_least: u64) {
    eventually(&format!("{at_least} are confirmed"), || async {
        let delivered = daemon.lane(SINK).await["delivered"].as_u64().unwrap();
        (delivered >= at_least).then_some(())
    })
    .await;
}

/// A webhook's body; its number is what the cases know it by.
pub fn event(number: u64) -> Value {
    json!({"id": format!("event-{number}"), "n": number, "key": format!("key-{}", number % 7)})
}

/// The same with the members of `more`.
pub fn event_with(number: u64, more: &Value) -> Value {
    let mut event = event(number);
    for (name, value) in more.as_object().expect("the members of a body") {
        event[name] = value.clone();
    }
    event
}

async fn post(daemon: &Daemon, body: Value) {
    let answered = daemon.post("/hooks/inbox", body.to_string()).await.unwrap();
    assert_eq!(answered.status, 200, "{}", answered.body);
    assert!(answered.body.contains("\"duplicate\":false"), "{}", answered.body);
}
