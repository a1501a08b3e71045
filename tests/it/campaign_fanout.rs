//! The campaign: one ingress fanned out to every kind of sink under steady load, while the other sides are killed and
//! come back one after another, at random from a printed seed. Ends in the oracle (R4), and shows in between that no lane
//! holds up another (R5).
//!
//! `HOOKBUS_CAMPAIGN_SECONDS` makes it longer, `HOOKBUS_CAMPAIGN_SEED` repeats one.
//! The oracle is fair: SIGKILL ends a process and not the machine, so what a broker has written to a file stays there.
//! Kafka writes before it acknowledges, RabbitMQ before it confirms a persistent message in a durable queue; NATS may
//! answer before it writes, so the server of the rig is told `sync_interval: always`.
//! Absent on purpose: `stdout`, which cannot come back, and core `nats`, which promises nothing across a restart of its
//! server: it has nobody to ask what it got before. Both are in the contract.

use crate::contract::bench::{RECOVERY_MAX, event};
use crate::contract::{Rig, Setup, with_all_brokers};
use crate::support::daemon::Daemon;
use crate::support::{eventually, eventually_within};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// What the suite runs.
const SECONDS: u64 = 20;
/// The load: this many at once, this often.
const POSTED_AT_ONCE: u64 = 4;
const POSTED_EVERY: Duration = Duration::from_millis(20);
/// How many events are promised while somebody is away, at random from this range.
const OUTAGE_EVENTS: std::ops::Range<u64> = 200..900;

/// A rig whose type is forgotten, so that all can be in one list.
trait Place {
    fn kind(&self) -> &'static str;
    /// Its sink's table, by the name of its kind.
    fn table(&self) -> String;
    fn goes_down(&mut self) -> LocalBoxFuture<'_, ()>;
    fn comes_back(&mut self) -> LocalBoxFuture<'_, ()>;
    /// The ids of everything it has, with how often.
    fn ids(&self) -> LocalBoxFuture<'_, BTreeMap<String, u32>>;
}

struct PlaceOf<R>(R);

impl<R: Rig> Place for PlaceOf<R> {
    fn kind(&self) -> &'static str {
        R::KIND
    }
    fn table(&self) -> String {
        let named = |key: &str| format!("[sinks.{}{key}", R::KIND);
        format!("{}\n{}", named("]"), self.0.table().replace("[sinks.orders.", &named(".")))
    }
    fn goes_down(&mut self) -> LocalBoxFuture<'_, ()> {
        self.0.goes_down().boxed_local()
    }
    fn comes_back(&mut self) -> LocalBoxFuture<'_, ()> {
        self.0.comes_back().boxed_local()
    }
    fn ids(&self) -> LocalBoxFuture<'_, BTreeMap<String, u32>> {
        async {
            let mut ids = BTreeMap::new();
            for arrived in self.0.arrived().await {
                let event: Value = serde_json::from_slice(&arrived.body).unwrap();
                *ids.entry(event["id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            ids
        }
        .boxed_local()
    }
}

async fn place<R: Rig + 'static>() -> Box<dyn Place> {
    Box::new(PlaceOf(R::start(Setup::Alone).await))
}

/// Every kind that keeps what it confirmed.
async fn places() -> Vec<Box<dyn Place>> {
    use crate::contract::{
        amqp::AmqpRig, file::FileRig, http::HttpRig, jetstream::JetStreamRig, kafka::KafkaRig,
    };
    let started = [
        place::<AmqpRig>().boxed_local(),
        place::<FileRig>().boxed_local(),
        place::<HttpRig>().boxed_local(),
        place::<JetStreamRig>().boxed_local(),
        place::<KafkaRig>().boxed_local(),
    ];
    join_all(started).await
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// What is promised so far, and until when more is.
struct Load<'a> {
    daemon: &'a Daemon,
    promised: RefCell<BTreeSet<String>>,
    is_over: Cell<bool>,
}

impl Load<'_> {
    fn promised(&self) -> u64 {
        self.promised.borrow().len() as u64
    }

    async fn until_promised(&self, enough: u64) {
        eventually(&format!("{enough} events are promised"), || async {
            (self.promised() >= enough).then_some(())
        })
        .await;
    }

    /// Posts until it is over; every answer must be a promise, whoever is away.
    async fn run(&self) {
        let mut beat = interval(POSTED_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut numbers = 0_u64..;
        while !self.is_over.get() {
            beat.tick().await;
            let posts = numbers.by_ref().take(POSTED_AT_ONCE as usize).map(|number| async move {
                let answered = self.daemon.post("/hooks/inbox", event(number).to_string()).await.unwrap();
                assert_eq!(answered.status, 200, "{}", answered.body);
                answered
            });
            for answered in join_all(posts).await {
                let answer: Value = serde_json::from_str(&answered.body).unwrap();
                self.promised.borrow_mut().insert(answer["id"].as_str().unwrap().to_owned());
            }
        }
    }
}

/// Events that a lane has not settled.
async fn lag(daemon: &Daemon, kind: &str) -> u64 {
    daemon.lane(kind).await["lag"]["events"].as_u64().unwrap()
}

/// What happened, for whoever reads the output.
#[derive(Default)]
struct Tally {
    kills: BTreeMap<&'static str, u32>,
    /// How often a lane was seen to go on while another's sink was away.
    went_on: u32,
}

/// Kills one place after the other until the time is over, each at least once. While one is away, every other that was
/// well settles what is promised meanwhile: only then the one comes back, so a lane that waited for its lane would never
/// let this end. Who is still on its way back from the turn before is not waited for.
async fn kill_and_restart(
    places: &mut [Box<dyn Place>],
    load: &Load<'_>,
    random: &mut fastrand::Rng,
    duration: Duration,
) -> Tally {
    let mut tally = Tally::default();
    let begun = Instant::now();
    let mut turn = Vec::new();
    load.until_promised(100).await;
    while begun.elapsed() < duration || tally.kills.len() < places.len() {
        if turn.is_empty() {
            turn = (0..places.len()).collect();
            random.shuffle(&mut turn);
        }
        let Some(victim) = turn.pop() else { continue };
        let others = places.iter().enumerate().filter(|(index, _)| *index != victim);
        let mut well = Vec::new();
        for kind in others.map(|(_, place)| place.kind()) {
            if load.daemon.lane(kind).await["state"] == "running" {
                well.push(kind);
            }
        }
        let victim = &mut places[victim];
        victim.goes_down().await;
        let enough = load.promised() + random.u64(OUTAGE_EVENTS);
        load.until_promised(enough).await;
        for other in well {
            let what = format!("{other} goes on while {} is away", victim.kind());
            eventually_within(RECOVERY_MAX, &what, || async {
                let promised = load.promised();
                let settled = promised.saturating_sub(lag(load.daemon, other).await);
                (settled >= enough).then_some(())
            })
            .await;
            tally.went_on += 1;
        }
        victim.comes_back().await;
        *tally.kills.entry(victim.kind()).or_default() += 1;
    }
    tally
}

async fn campaign(seed: u64, duration: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let mut places = places().await;
    let tables: Vec<String> = places.iter().map(|place| place.table()).collect();
    let config = format!("[sources.inbox.generic]\nid = \"/id\"\nkey = \"/key\"\n{}", tables.concat());
    let daemon = Daemon::start(folder.path(), &config).await;
    let load = Load { daemon: &daemon, promised: RefCell::default(), is_over: Cell::new(false) };

    let mut random = fastrand::Rng::with_seed(seed);
    let ((), tally) = tokio::join!(load.run(), async {
        let tally = kill_and_restart(&mut places, &load, &mut random, duration).await;
        load.is_over.set(true);
        tally
    });
    assert!(tally.went_on > 0, "R5 was seen at least once");

    let promised = load.promised.into_inner();
    for place in &places {
        let kind = place.kind();
        eventually(&format!("{kind} settles everything"), || async {
            (lag(&daemon, kind).await == 0).then_some(())
        })
        .await;
        let lane = daemon.lane(kind).await;
        assert_eq!((&lane["dead_lettered"], &lane["shed"]), (&0.into(), &0.into()), "{lane}");
        let ids = place.ids().await;
        let missing: Vec<_> = promised.iter().filter(|id| !ids.contains_key(*id)).take(10).collect();
        assert!(missing.is_empty(), "R4: {kind} has not {missing:?}");
        let (killed, twice) = (tally.kills[kind], ids.values().filter(|times| **times > 1).count());
        println!(
            "{kind}: killed {killed} times, has all {} events, {twice} of them more than once",
            promised.len()
        );
    }
    println!("{} times a lane went on while another's sink was away", tally.went_on);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaign_of_kills_every_sink_has_every_promised_event_and_no_lane_held_up_another() {
    let seed = from_environment("HOOKBUS_CAMPAIGN_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = from_environment("HOOKBUS_CAMPAIGN_SECONDS").unwrap_or(SECONDS);
    println!("HOOKBUS_CAMPAIGN_SEED={seed} HOOKBUS_CAMPAIGN_SECONDS={seconds}");
    with_all_brokers(campaign(seed, Duration::from_secs(seconds))).await;
}
