//! A lane over a real journal and a real dead-letter store, with a sink that does what the test says. Time is the test's
//! own and flies, so that a wait of minutes costs nothing; only the disk takes its time.

use super::{Dispatcher, LaneParts, LaneState, LaneStatus, Parts};
use crate::config::{ByteSize, Period};
use crate::dead_letter::{self, DeadLetters, Filter, LetterId, Summary};
use crate::envelope::{Data, Envelope, Extensions, HOOKBUS_SOURCE, PARTITION_KEY, SinkName};
use crate::journal::{self, AppendError, CursorSpec, Journal, RealDisk, Record};
use crate::router::Router;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{CommonConfig, Failure, Limits, OnBacklogFull, Order, Outcome, Reason, RetryConfig, Sink};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How far the test's time goes in one step.
const STEP: Duration = Duration::from_millis(50);
/// After so long, of the real time, a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets the test's time fly until `work` is done.
async fn while_time_flies<T>(what: &str, work: impl Future<Output = T>) -> T {
    let began = std::time::Instant::now();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! { biased;
            done = &mut work => return done,
            () = tokio::time::advance(STEP) => std::thread::yield_now(),
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
    }
}

async fn until(what: &str, condition: impl FnMut() -> bool) {
    let mut condition = condition;
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    while_time_flies(what, met).await;
}

/// What was delivered to whom, in order: the number of the event and the ending.
type Seen = Vec<(u32, &'static str)>;
type Behaviour = Box<dyn Fn(u32) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// A sink in memory.
struct Scripted {
    behaviour: Mutex<Arc<Behaviour>>,
    seen: Mutex<Seen>,
}

impl Scripted {
    fn new(behaviour: impl Fn(u32) -> BoxFuture<'static, Outcome> + Send + Sync + 'static) -> Arc<Scripted> {
        let sink = Scripted { behaviour: Mutex::new(Arc::new(Box::new(behaviour))), seen: Mutex::default() };
        Arc::new(sink)
    }
    fn answering(answer: impl Fn(u32) -> Outcome + Send + Sync + 'static) -> Arc<Scripted> {
        Scripted::new(move |number| std::future::ready(answer(number)).boxed())
    }
    fn now_answers(&self, answer: impl Fn(u32) -> Outcome + Send + Sync + 'static) {
        let behaviour: Behaviour = Box::new(move |number| std::future::ready(answer(number)).boxed());
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }
    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
    fn confirmed(&self) -> BTreeSet<u32> {
        self.seen()
            .into_iter()
            .filter(|(_, ending)| *ending == "delivered")
            .map(|(number, _)| number)
            .collect()
    }
}

impl Sink for Scripted {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        let number = event.id.parse().unwrap();
        let behaviour = Arc::clone(&self.behaviour.lock().unwrap());
        let answer = behaviour(number);
        async move {
            let outcome = answer.await;
            let ending = match &outcome {
                Outcome::Delivered => "delivered",
                Outcome::Retry(_) => "retry",
                Outcome::Busy { .. } => "busy",
                Outcome::Away(_) => "away",
                Outcome::Reject(_) => "reject",
            };
            self.seen.lock().unwrap().push((number, ending));
            outcome
        }
        .boxed()
    }
    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        std::future::ready(Ok(Limits::default())).boxed()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

fn failure(reason: Reason) -> Failure {
    Failure::new(reason, "as the test says")
}
fn away(_: u32) -> Outcome {
    Outcome::Away(failure(Reason::ConnectionRefused))
}
fn delivered(_: u32) -> Outcome {
    Outcome::Delivered
}
fn rejected(_: u32) -> Outcome {
    Outcome::Reject(failure(Reason::ContentRefused))
}

fn sink_name(name: &str) -> SinkName {
    SinkName::new(name).unwrap()
}

fn quick() -> CommonConfig {
    let retry = RetryConfig {
        first: Period::millis(10),
        max: Period::millis(50),
        attempts_max: 3,
        ..RetryConfig::default()
    };
    CommonConfig { in_flight_max: 8, retry, ..CommonConfig::default() }
}

fn event(number: u32, key: Option<&str>, data: &str) -> Envelope {
    let mut extensions: Extensions = [(HOOKBUS_SOURCE.into(), "inbox".into())].into();
    if let Some(key) = key {
        extensions.insert(PARTITION_KEY.into(), key.into());
    }
    Envelope {
        id: number.to_string(),
        source: "//hookbus/sources/inbox".to_owned(),
        event_type: "test".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("text/plain".to_owned()),
        dataschema: None,
        extensions,
        data: Data::Text(Bytes::copy_from_slice(data.as_bytes())),
    }
}

/// Lanes with everything they need.
struct Rig {
    journal: Journal,
    letters: DeadLetters,
    dispatcher: Dispatcher,
    shutdown: Shutdown,
}

impl Rig {
    fn start(folder: &Path, lanes: &[(&str, &CommonConfig, &Arc<Scripted>)]) -> Rig {
        Rig::start_with(folder, ByteSize::mib(64), ByteSize::mib(64), lanes)
    }

    fn start_with(
        folder: &Path,
        journal_max: ByteSize,
        letters_max: ByteSize,
        lanes: &[(&str, &CommonConfig, &Arc<Scripted>)],
    ) -> Rig {
        let shutdown = Shutdown::new();
        let config = journal::Config {
            disk_max: journal_max,
            segment: ByteSize::kib(16),
            recent_max: ByteSize::kib(8),
            ..journal::Config::default()
        };
        let cursors: Vec<CursorSpec> = lanes
            .iter()
            .map(|(name, config, _)| CursorSpec {
                name: (*name).to_owned(),
                sheddable: config.on_backlog_full == OnBacklogFull::ShedOldest,
            })
            .collect();
        let journal = Journal::open(&config, &folder.join("journal"), Arc::new(RealDisk), &cursors).unwrap();
        let letters = dead_letter::Config { disk_max: letters_max };
        let letters = DeadLetters::open(&letters, folder, &shutdown).unwrap();
        let parts = Parts {
            journal: journal.clone(),
            dead_letters: letters.clone(),
            router: Arc::new(Router::default()),
        };
        let lanes = lanes
            .iter()
            .map(|(name, config, sink)| LaneParts {
                name: sink_name(name),
                kind: "scripted",
                config: (*config).clone(),
                sink: Arc::clone(*sink) as Arc<dyn Sink>,
            })
            .collect();
        let dispatcher = Dispatcher::start(lanes, &parts, &shutdown);
        Rig { journal, letters, dispatcher, shutdown }
    }

    async fn append(&self, event: &Envelope) -> Result<(), AppendError> {
        self.append_all(std::slice::from_ref(event)).await
    }

    async fn append_all(&self, events: &[Envelope]) -> Result<(), AppendError> {
        let record = |event: &Envelope| Record {
            head: event.encode_head(),
            body: event.data.bytes().clone(),
            arrival: crate::clock::now(),
            dedupe: None,
        };
        let durable = self.journal.append(events.iter().map(record).collect());
        while_time_flies("the events are durable", durable).await.map(|_| ())
    }

    async fn accept(&self, numbers: std::ops::Range<u32>) {
        let events: Vec<Envelope> = numbers.map(|number| event(number, None, "x")).collect();
        for some in events.chunks(40) {
            self.append_all(some).await.unwrap();
        }
    }

    fn lane(&self, name: &str) -> LaneStatus {
        self.dispatcher.status().into_iter().find(|lane| lane.sink.as_str() == name).unwrap()
    }

    async fn is(&self, name: &str, state: LaneState) {
        until(&format!("{name} is {state:?}"), || self.lane(name).state == state).await;
    }

    async fn settles_all(&self, name: &str) {
        until(&format!("{name} has settled everything"), || self.lane(name).lag.events == 0).await;
    }

    async fn letters_of(&self, name: &str) -> Vec<Summary> {
        let filter = Filter { sink: Some(sink_name(name)), ..Filter::default() };
        while_time_flies("letters are listed", self.letters.list(filter, None, 1000)).await.unwrap()
    }

    async fn stop(self) {
        while_time_flies("everything stops", async {
            self.shutdown.stop_by(Phase::Lanes, Instant::now() + Duration::from_secs(1)).await;
            self.letters.close().await;
            self.journal.close().await;
            self.shutdown.stop(Phase::Storage).await;
        })
        .await;
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test)
}

#[test]
fn after_an_outage_events_without_a_key_come_in_the_order_in_which_they_were_accepted() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::new(|number| {
            async move {
                tokio::time::sleep(Duration::from_millis(50 * u64::from(number % 3))).await;
                away(number)
            }
            .boxed()
        });
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.accept(0..20).await;
        rig.is("orders", LaneState::Away).await;
        sink.now_answers(delivered);
        rig.settles_all("orders").await;
        let delivered = sink.seen().into_iter().filter(|(_, ending)| *ending == "delivered");
        assert_eq!(delivered.map(|(number, _)| number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        rig.stop().await;
    });
}

#[test]
fn a_sink_that_panics_costs_the_event_its_attempts_and_the_lane_goes_on() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::new(|number| match number {
            0 => panic!("before there is a future"),
            1 => async { panic!("in the future") }.boxed(),
            _ => std::future::ready(Outcome::Delivered).boxed(),
        });
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.accept(0..3).await;
        rig.settles_all("orders").await;
        let letters = rig.letters_of("orders").await;
        let dead: BTreeSet<_> =
            letters.iter().map(|letter| (letter.event_id.as_deref(), letter.attempts)).collect();
        assert_eq!(dead, [(Some("0"), 3), (Some("1"), 3)].into());
        assert_eq!(sink.confirmed(), [2].into());
        rig.stop().await;
    });
}

#[test]
fn a_lane_that_ends_early_is_seen_and_its_events_wait_for_the_next_start() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("where no lane can catch it");
        }
    }
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let bad = Scripted::new(|_| {
            async {
                let _held = PanicsWhenDropped;
                std::future::pending().await
            }
            .boxed()
        });
        let good = Scripted::answering(delivered);
        let rig = Rig::start(folder.path(), &[("bad", &quick(), &bad), ("good", &quick(), &good)]);
        rig.accept(0..1).await;
        rig.is("bad", LaneState::Stuck).await;
        assert_eq!(rig.lane("bad").lag.events, 1, "R2");
        rig.settles_all("good").await;
        rig.stop().await;
        let rig = Rig::start(folder.path(), &[("bad", &quick(), &good)]);
        rig.settles_all("bad").await;
        rig.stop().await;
    });
}

#[test]
fn the_sink_s_own_word_on_a_time_out_counts_and_one_that_says_nothing_is_cut_off() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let config = CommonConfig { timeout: Period::secs(30), ..quick() };
        let own_word = Scripted::new(|_| {
            async {
                tokio::time::sleep(Duration::from_secs(32)).await;
                Outcome::Reject(Failure::new(Reason::Storage, "the sink's own word"))
            }
            .boxed()
        });
        let silent = Scripted::new(|_| std::future::pending().boxed());
        let rig =
            Rig::start(folder.path(), &[("own_word", &config, &own_word), ("silent", &config, &silent)]);
        rig.accept(0..1).await;
        rig.settles_all("own_word").await;
        rig.settles_all("silent").await;
        assert_eq!(rig.letters_of("own_word").await[0].last_error, "the sink's own word");
        assert_eq!(rig.letters_of("silent").await[0].reason, "timeout");
        rig.stop().await;
    });
}

#[test]
fn the_time_that_a_sink_was_away_makes_no_event_too_old() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let retry = RetryConfig { age_max: Period::millis(400), attempts_max: 1000, ..quick().retry };
        let sink = Scripted::answering(away);
        let rig = Rig::start(folder.path(), &[("orders", &CommonConfig { retry, ..quick() }, &sink)]);
        rig.accept(0..1).await;
        rig.is("orders", LaneState::Away).await;
        let long_after = Instant::now() + Duration::from_secs(60);
        until("the outage has lasted", || Instant::now() > long_after).await;
        sink.now_answers(|_| Outcome::Retry(failure(Reason::SinkError)));
        rig.settles_all("orders").await;
        let retries = sink.seen().iter().filter(|(_, ending)| *ending == "retry").count();
        assert!(retries > 1, "it was tried for its whole age, not given up at the first failure");
        assert_eq!(rig.letters_of("orders").await.len(), 1, "but not for longer");
        rig.stop().await;
    });
}

#[test]
fn a_replay_does_not_wait_for_the_backlog_of_its_lane() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::answering(|number| match number {
            0..3 => rejected(number),
            _ => Outcome::Retry(failure(Reason::SinkError)),
        });
        let (first, max) = (Period::hours(1000), Period::hours(1000));
        let retry = RetryConfig { first, max, age_max: max, ..quick().retry };
        let rig = Rig::start(folder.path(), &[("orders", &CommonConfig { retry, ..quick() }, &sink)]);
        rig.accept(0..5000).await;
        until("the lane has all in hand that it may", || rig.lane("orders").held > 4080).await;
        sink.now_answers(|number| match number {
            0..3 => delivered(number),
            _ => Outcome::Retry(failure(Reason::SinkError)),
        });
        let replays = rig.letters.request_replay(Filter::default());
        assert_eq!(while_time_flies("a replay is asked for", replays).await.unwrap(), 3);
        until("the replays are delivered", || sink.confirmed() == [0, 1, 2].into()).await;
        rig.stop().await;
    });
}

#[test]
fn an_idle_lane_whose_sink_is_away_probes_with_a_replay() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::answering(rejected);
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.accept(0..1).await;
        rig.settles_all("orders").await;
        let replay =
            || while_time_flies("a replay is asked for", rig.letters.request_replay(Filter::default()));
        sink.now_answers(away);
        replay().await.unwrap();
        rig.is("orders", LaneState::Away).await;
        rig.dispatcher.pause("orders").unwrap();
        rig.is("orders", LaneState::Paused).await;
        sink.now_answers(delivered);
        rig.dispatcher.resume("orders").unwrap();
        until("the replay is delivered", || sink.confirmed() == [0].into()).await;
        until("its letter is gone", || rig.letters.totals().by_sink.is_empty()).await;
        rig.stop().await;
    });
}

#[test]
fn a_lane_whose_sink_is_away_takes_no_more_in_hand_than_it_probes_with() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::new(|number| {
            async move {
                tokio::time::sleep(Duration::from_secs(2)).await;
                away(number)
            }
            .boxed()
        });
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.append(&event(0, Some("a"), "x")).await.unwrap();
        rig.is("orders", LaneState::Away).await;
        let behind: Vec<Envelope> = (1..40).map(|number| event(number, Some("a"), "x")).collect();
        rig.append_all(&behind).await.unwrap();
        let (asked, mut held_most) = (sink.seen().len(), 0);
        until("it was probed some more", || {
            held_most = held_most.max(rig.lane("orders").held);
            sink.seen().len() > asked + 3
        })
        .await;
        assert!(held_most <= 1, "{held_most} in hand; the others wait in the journal");
        rig.stop().await;
    });
}

#[test]
fn a_letter_that_is_discarded_while_its_replay_is_under_way_disturbs_nobody() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::answering(rejected);
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.accept(0..2).await;
        rig.settles_all("orders").await;
        let (tell, told) = tokio::sync::watch::channel(false);
        let slow = move |number: u32| {
            let mut told = told.clone();
            async move {
                told.wait_for(|told| *told).await.unwrap();
                if number == 0 { delivered(number) } else { rejected(number) }
            }
            .boxed()
        };
        *sink.behaviour.lock().unwrap() = Arc::new(Box::new(slow));
        while_time_flies("replays", rig.letters.request_replay(Filter::default())).await.unwrap();
        until("both are under way", || rig.lane("orders").in_flight == 2).await;
        assert_eq!(while_time_flies("discard", rig.letters.discard(Filter::default())).await.unwrap(), 2);
        tell.send_replace(true);
        until("both have ended", || rig.lane("orders").in_flight == 0).await;
        sink.now_answers(delivered);
        rig.accept(2..3).await;
        rig.settles_all("orders").await;
        assert!(rig.letters_of("orders").await.is_empty(), "what was discarded stays discarded");
        rig.stop().await;
    });
}

#[test]
fn a_full_dead_letter_store_holds_the_event_and_the_lane_goes_on_when_there_is_room() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink =
            Scripted::answering(|number| if number < 2 { rejected(number) } else { delivered(number) });
        let lanes = [("orders", &quick(), &sink)];
        let rig = Rig::start_with(folder.path(), ByteSize::mib(64), ByteSize::bytes(1500), &lanes);
        rig.append(&event(0, None, &"x".repeat(700))).await.unwrap();
        rig.settles_all("orders").await;
        rig.append(&event(1, None, &"y".repeat(700))).await.unwrap();
        rig.accept(2..10).await;
        rig.is("orders", LaneState::Stuck).await;
        until("the others are delivered", || sink.confirmed() == (2..10).collect()).await;
        assert_eq!(rig.lane("orders").lag.events, 1, "R2: the cursor stays behind it");
        let first = LetterId(rig.letters_of("orders").await[0].id.0.clone());
        let filter = Filter { ids: vec![first], ..Filter::default() };
        assert_eq!(while_time_flies("discard", rig.letters.discard(filter)).await.unwrap(), 1);
        rig.settles_all("orders").await;
        rig.is("orders", LaneState::Running).await;
        assert_eq!(rig.letters_of("orders").await[0].event_id.as_deref(), Some("1"));
        rig.stop().await;
    });
}

#[test]
fn a_copy_for_a_sink_that_refuses_it_is_dropped_and_makes_no_letter_of_its_own() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (orders, alerts) = (Scripted::answering(rejected), Scripted::answering(rejected));
        let copied = |to: &str| CommonConfig { dead_letter: Some(sink_name(to)), ..quick() };
        let (of_orders, of_alerts) = (copied("alerts"), copied("orders"));
        let rig =
            Rig::start(folder.path(), &[("orders", &of_orders, &orders), ("alerts", &of_alerts, &alerts)]);
        rig.accept(0..1).await;
        let ended = |sink: &Arc<Scripted>| sink.seen().len() == 2;
        until("each got the event and the other's copy", || ended(&orders) && ended(&alerts)).await;
        until("no errand is open", || rig.letters.errands_open().is_empty()).await;
        assert_eq!((rig.letters_of("orders").await.len(), rig.letters_of("alerts").await.len()), (1, 1));
        rig.stop().await;
    });
}

#[test]
fn a_paused_lane_stops_and_goes_on_after_the_next_start() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::answering(delivered);
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.dispatcher.pause("orders").unwrap();
        rig.is("orders", LaneState::Paused).await;
        rig.accept(0..10).await;
        rig.stop().await;
        assert_eq!(sink.seen(), []);
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.settles_all("orders").await;
        assert_eq!(sink.confirmed().len(), 10);
        rig.stop().await;
    });
}

#[test]
fn what_is_under_way_when_room_is_needed_is_shed_when_it_comes_back() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sheds = CommonConfig { on_backlog_full: OnBacklogFull::ShedOldest, ..quick() };
        let (give_up, given_up) = tokio::sync::watch::channel(false);
        let dead = Scripted::new(move |number| {
            let mut given_up = given_up.clone();
            async move {
                // As long as the test likes, within the sink's time-out.
                if number == 0 {
                    given_up.wait_for(|given_up| *given_up).await.unwrap();
                }
                away(number)
            }
            .boxed()
        });
        let sheds = CommonConfig { timeout: Period::hours(24), ..sheds };
        let lanes = [("dead", &sheds, &dead)];
        let rig = Rig::start_with(folder.path(), ByteSize::kib(64), ByteSize::mib(1), &lanes);
        let mut next = 0;
        while rig.append(&event(next, None, &"x".repeat(2000))).await.is_ok() {
            next += 1;
            assert!(next < 1000, "the first event holds its segment, so the journal fills up");
        }
        until("what is not under way is shed", || rig.lane("dead").shed > 0).await;
        give_up.send_replace(true);
        until("the first event is shed, too", || rig.journal.health().borrow().eq(&journal::Health::Ready))
            .await;
        rig.append(&event(next, None, "x")).await.unwrap();
        let status = rig.lane("dead");
        assert_eq!(status.shed + status.lag.events, u64::from(next) + 1, "R4");
        rig.stop().await;
    });
}

/// The endings of the property test, as the script draws them.
fn drawn(choice: u8) -> Outcome {
    match choice {
        0..=3 => Outcome::Delivered,
        4..=6 => Outcome::Retry(failure(Reason::SinkError)),
        7 => Outcome::Busy { failure: failure(Reason::Throttled), wait: Some(Duration::from_secs(1)) },
        8 => away(0),
        _ => rejected(0),
    }
}

const KEYS: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("c")];

fn key_of(number: u32) -> Option<&'static str> {
    KEYS[number as usize % KEYS.len()]
}

/// R4 and the order, from what the sink saw and what was kept.
fn judge(order: Order, accepted: u32, seen: &Seen, letters: &[Summary]) -> Result<(), TestCaseError> {
    let of = |number: u32, ending: &str| seen.iter().filter(|one| **one == (number, ending)).count();
    let attempts_max = quick().retry.attempts_max;
    let dead: BTreeMap<u32, &Summary> =
        letters.iter().map(|letter| (letter.event_id.as_ref().unwrap().parse().unwrap(), letter)).collect();
    for number in 0..accepted {
        prop_assert!(of(number, "delivered") > 0 || dead.contains_key(&number), "R4: {} is lost", number);
    }
    for (number, letter) in dead {
        let (retries, rejections) = (of(number, "retry"), of(number, "reject"));
        prop_assert!(letter.attempts as usize <= retries + rejections, "only these count: {:?}", letter);
        prop_assert!(rejections > 0 || retries >= attempts_max as usize, "given up early: {:?}", letter);
    }
    let mut last: BTreeMap<Option<&str>, u32> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (number, _) in seen.iter().filter(|(_, ending)| *ending == "delivered") {
        let chain = match order {
            Order::None => continue,
            Order::Key => key_of(*number),
            Order::Strict => Some("all"),
        };
        if known.insert(*number) && chain.is_some() {
            let before = last.insert(chain, *number);
            prop_assert!(before.is_none_or(|before| before < *number), "{} after {:?}", number, before);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 40, ..ProptestConfig::default() })]
    #[test]
    fn whatever_a_sink_answers_nothing_is_lost_and_order_holds_and_its_neighbour_does_not_notice(
        script in prop::collection::vec(0_u8..11, 0..300),
        order in prop::sample::select(vec![Order::None, Order::Key, Order::Strict]),
        (first, second) in (1_u32..60, 0_u32..40),
        stop_after in 0_usize..80,
        pauses in prop::collection::vec(any::<bool>(), 0..10),
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let config = CommonConfig { order, ..quick() };
            let (bad, good) = (Scripted::answering(away), Scripted::answering(delivered));
            let lanes = [("bad", &config, &bad), ("good", &config, &good)];
            let rig = Rig::start(folder.path(), &lanes);
            for number in 0..first {
                rig.append(&event(number, key_of(number), "x")).await.unwrap();
            }
            rig.settles_all("good").await;
            prop_assert_eq!((good.confirmed().len(), bad.confirmed().len()), (first as usize, 0), "R5");

            let script = Mutex::new(VecDeque::from(script));
            let turn = std::sync::atomic::AtomicU64::new(0);
            let scripted = move |_: u32| {
                let outcome = script.lock().unwrap().pop_front().map_or(Outcome::Delivered, drawn);
                let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                async move {
                    tokio::time::sleep(Duration::from_millis(turn * 37 % 120)).await;
                    outcome
                }
                .boxed()
            };
            *bad.behaviour.lock().unwrap() = Arc::new(Box::new(scripted));
            let before = bad.seen().len();
            for pause in pauses {
                let told = if pause { rig.dispatcher.pause("bad") } else { rig.dispatcher.resume("bad") };
                told.unwrap();
                let later = Instant::now() + Duration::from_millis(200);
                until("some time passes", || Instant::now() > later).await;
            }
            rig.dispatcher.resume("bad").unwrap();
            until("it is time to stop", || {
                bad.seen().len() >= before + stop_after || rig.lane("bad").lag.events == 0
            })
            .await;
            rig.stop().await;

            let rig = Rig::start(folder.path(), &lanes);
            for number in first..first + second {
                rig.append(&event(number, key_of(number), "x")).await.unwrap();
            }
            rig.settles_all("good").await;
            rig.settles_all("bad").await;
            let letters = rig.letters_of("bad").await;
            judge(order, first + second, &bad.seen(), &letters)?;
            prop_assert_eq!(rig.letters_of("good").await, vec![]);
            rig.stop().await;
            Ok(())
        })?;
    }
}
