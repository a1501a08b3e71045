//! What the tests of a lane stand on: real parts in a temporary folder, a sink that answers from a script, a clock of
//! its own.

use crate::config::{ByteSize, Period};
use crate::dead_letter::{self, DeadLetters, Filter, Summary};
use crate::dispatch::{Dispatcher, LaneParts, LaneState, LaneStatus, Parts};
use crate::envelope::{Data, Envelope, Extensions, HOOKBUS_SOURCE, PARTITION_KEY, SinkName};
use crate::journal::{self, AppendError, CursorSpec, Journal, RealDisk, Record};
use crate::router::Router;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{CommonConfig, Failure, Limits, OnBacklogFull, Outcome, Reason, RetryConfig, Sink};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How far the test's time goes in one step.
pub(super) const STEP: Duration = Duration::from_millis(50);
/// After so long, of the real time, a test gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Lets the test's time fly until `work` is done.
pub(super) async fn while_time_flies<T>(what: &str, work: impl Future<Output = T>) -> T {
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

pub(super) async fn until(what: &str, condition: impl FnMut() -> bool) {
    let mut condition = condition;
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    while_time_flies(what, met).await;
}

/// What was delivered to whom, in order: the number of the event and the ending.
pub(super) type Seen = Vec<(u32, &'static str)>;
pub(super) type Behaviour = Box<dyn Fn(u32) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// A sink in memory.
pub(super) struct Scripted {
    pub(super) behaviour: Mutex<Arc<Behaviour>>,
    pub(super) seen: Mutex<Seen>,
}

impl Scripted {
    pub(super) fn new(
        behaviour: impl Fn(u32) -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
    ) -> Arc<Scripted> {
        let sink = Scripted { behaviour: Mutex::new(Arc::new(Box::new(behaviour))), seen: Mutex::default() };
        Arc::new(sink)
    }
    pub(super) fn answering(answer: impl Fn(u32) -> Outcome + Send + Sync + 'static) -> Arc<Scripted> {
        Scripted::new(move |number| std::future::ready(answer(number)).boxed())
    }
    pub(super) fn now_answers(&self, answer: impl Fn(u32) -> Outcome + Send + Sync + 'static) {
        let behaviour: Behaviour = Box::new(move |number| std::future::ready(answer(number)).boxed());
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
    pub(super) fn confirmed(&self) -> BTreeSet<u32> {
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

pub(super) fn failure(reason: Reason) -> Failure {
    Failure::new(reason, "as the test says")
}
pub(super) fn away(_: u32) -> Outcome {
    Outcome::Away(failure(Reason::ConnectionRefused))
}
pub(super) fn delivered(_: u32) -> Outcome {
    Outcome::Delivered
}
pub(super) fn rejected(_: u32) -> Outcome {
    Outcome::Reject(failure(Reason::ContentRefused))
}

pub(super) fn sink_name(name: &str) -> SinkName {
    SinkName::new(name).unwrap()
}

pub(super) fn quick() -> CommonConfig {
    let retry = RetryConfig {
        first: Period::millis(10),
        max: Period::millis(50),
        attempts_max: 3,
        ..RetryConfig::default()
    };
    CommonConfig { in_flight_max: 8, retry, ..CommonConfig::default() }
}

pub(super) fn event(number: u32, key: Option<&str>, data: &str) -> Envelope {
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
pub(super) struct Rig {
    pub(super) journal: Journal,
    pub(super) letters: DeadLetters,
    pub(super) dispatcher: Dispatcher,
    pub(super) shutdown: Shutdown,
}

impl Rig {
    pub(super) fn start(folder: &Path, lanes: &[(&str, &CommonConfig, &Arc<Scripted>)]) -> Rig {
        Rig::start_with(folder, ByteSize::mib(64), ByteSize::mib(64), lanes)
    }

    pub(super) fn start_with(
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

    pub(super) async fn append(&self, event: &Envelope) -> Result<(), AppendError> {
        self.append_all(std::slice::from_ref(event)).await
    }

    pub(super) async fn append_all(&self, events: &[Envelope]) -> Result<(), AppendError> {
        let record = |event: &Envelope| Record {
            head: event.encode_head(),
            body: event.data.bytes().clone(),
            arrival: crate::clock::now(),
            dedupe: None,
        };
        let durable = self.journal.append(events.iter().map(record).collect());
        while_time_flies("the events are durable", durable).await.map(|_| ())
    }

    pub(super) async fn accept(&self, numbers: std::ops::Range<u32>) {
        let events: Vec<Envelope> = numbers.map(|number| event(number, None, "x")).collect();
        for some in events.chunks(40) {
            self.append_all(some).await.unwrap();
        }
    }

    pub(super) fn lane(&self, name: &str) -> LaneStatus {
        self.dispatcher.status().into_iter().find(|lane| lane.sink.as_str() == name).unwrap()
    }

    pub(super) async fn is(&self, name: &str, state: LaneState) {
        until(&format!("{name} is {state:?}"), || self.lane(name).state == state).await;
    }

    pub(super) async fn settles_all(&self, name: &str) {
        until(&format!("{name} has settled everything"), || self.lane(name).lag.events == 0).await;
    }

    pub(super) async fn letters_of(&self, name: &str) -> Vec<Summary> {
        let filter = Filter { sink: Some(sink_name(name)), ..Filter::default() };
        while_time_flies("letters are listed", self.letters.list(filter, None, 1000)).await.unwrap()
    }

    pub(super) async fn stop(self) {
        while_time_flies("everything stops", async {
            self.shutdown.stop_by(Phase::Lanes, Instant::now() + Duration::from_secs(1)).await;
            self.letters.close().await;
            self.journal.close().await;
            self.shutdown.stop(Phase::Storage).await;
        })
        .await;
    }
}

pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(test)
}
