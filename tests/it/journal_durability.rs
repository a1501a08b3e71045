//! R1 through the public seam: a disk whose syncs can be held shows that nobody is answered before one has covered him.

use crate::support::disk::SteppedDisk;
use crate::support::eventually;
use bytes::Bytes;
use futures_util::FutureExt;
use hookbus::config::{ByteSize, Period};
use hookbus::journal::{AppendError, Appended, Config, CursorSpec, Dedupe, Durable, Journal, Record};
use hookbus::time::UnixMs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Syncs of segments, held while the gate is shut.
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
    /// Syncs that have begun.
    begun: watch::Sender<u32>,
}

impl Gate {
    fn new() -> Arc<Gate> {
        Arc::new(Gate { is_shut: Mutex::new(false), opened: Condvar::new(), begun: watch::Sender::new(0) })
    }
    fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
        self.begun.send_replace(0);
    }
    fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.opened.notify_all();
    }
    fn pass(&self) {
        self.begun.send_modify(|begun| *begun += 1);
        drop(self.opened.wait_while(self.is_shut.lock().unwrap(), |is_shut| *is_shut).unwrap());
    }
    async fn sync_begun(&self) {
        self.begun.subscribe().wait_for(|begun| *begun > 0).await.unwrap();
    }
}

fn open(gate: &Arc<Gate>, directory: &Path) -> Journal {
    let config = Config {
        segment: ByteSize::kib(256),
        disk_max: ByteSize::mib(4),
        retention: Period::hours(1),
        ..Config::default()
    };
    let orders = CursorSpec { name: "orders".to_owned(), sheddable: false };
    let gate = Arc::clone(gate);
    let disk = SteppedDisk::new(move || {
        gate.pass();
        Ok(())
    });
    Journal::open(&config, directory, disk, &[orders]).unwrap()
}

fn record(identity: u8) -> Record {
    Record {
        head: b"head ".to_vec(),
        body: Bytes::from_static(b"body"),
        arrival: UnixMs(1_700_000_000_000),
        dedupe: Some(Dedupe { key: [identity; 16], window: Duration::from_secs(600) }),
    }
}

fn append(calls: &mut JoinSet<Result<Durable, AppendError>>, journal: &Journal, identity: u8) {
    let journal = journal.clone();
    calls.spawn(async move { journal.append(vec![record(identity)]).await });
}

#[tokio::test]
async fn nobody_is_answered_and_nothing_is_delivered_before_the_sync_returns_duplicates_included() {
    let (directory, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let journal = open(&gate, directory.path());
    let mut feed = journal.feed("orders").unwrap();
    journal.append(vec![record(0)]).await.unwrap();
    feed.next(1, 1).await.unwrap();
    gate.shut();
    let mut calls = JoinSet::new();
    append(&mut calls, &journal, 1);
    gate.sync_begun().await;
    append(&mut calls, &journal, 1);
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(calls.try_join_next().is_none(), "R1: the sync has not returned");
        assert!(feed.next(1, 1).now_or_never().is_none(), "R2: what is not durable is not given");
    }
    gate.open();
    let answers: Vec<_> = calls.join_all().await.into_iter().flat_map(Result::unwrap).collect();
    assert!(answers.contains(&Appended::Stored) && answers.contains(&Appended::Duplicate), "{answers:?}");
    assert_eq!(feed.next(1, 1).await.unwrap()[0].payload, "head body");
    journal.close().await;
}

#[tokio::test]
async fn how_long_a_sync_holds_up_what_comes_is_told_while_it_lasts() {
    let (directory, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let journal = open(&gate, directory.path());
    journal.append(vec![record(0)]).await.unwrap();
    let rests = || async { journal.stalled_for().is_zero().then_some(()) };
    eventually("the writer rests", rests).await;
    gate.shut();
    let mut calls = JoinSet::new();
    append(&mut calls, &journal, 1);
    gate.sync_begun().await;
    append(&mut calls, &journal, 2);
    eventually("it grows", || async { (journal.stalled_for() > Duration::from_millis(50)).then_some(()) })
        .await;
    gate.open();
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    eventually("the writer rests again", rests).await;
    journal.close().await;
}

#[tokio::test]
async fn all_who_come_while_a_sync_runs_share_the_next_one() {
    let (directory, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let journal = open(&gate, directory.path());
    journal.append(vec![record(0)]).await.unwrap();
    gate.shut();
    let mut calls = JoinSet::new();
    append(&mut calls, &journal, 1);
    gate.sync_begun().await;
    for identity in 2..=200 {
        append(&mut calls, &journal, identity);
    }
    // On this one thread every call is in the writer's queue once each has been polled.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert!(
        calls.join_all().await.into_iter().all(|answer| answer.map(Vec::from) == Ok(vec![Appended::Stored]))
    );
    assert_eq!(*gate.begun.borrow(), 2, "one for the first, one for the other 199");
    journal.close().await;
}

/// A body that is counted as long as somebody holds it.
struct Counted {
    _held: Arc<()>,
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[tokio::test]
async fn what_waits_for_a_stuck_sync_is_bounded_in_bytes_also_when_nobody_waits_any_more() {
    const BODY_BYTES: usize = 1 << 20;
    const FIT: usize = (64 << 20) / BODY_BYTES;
    let (directory, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let journal = open(&gate, directory.path());
    journal.append(vec![record(0)]).await.unwrap();
    gate.shut();
    let mut calls = JoinSet::new();
    append(&mut calls, &journal, 1);
    gate.sync_begun().await;
    let held = Arc::new(());
    for _ in 0..3 * FIT {
        let (journal, body) =
            (journal.clone(), Counted { _held: Arc::clone(&held), bytes: vec![b'x'; BODY_BYTES] });
        // Known already, so that their turn, when it comes, costs no disk.
        let known = Record { body: Bytes::from_owner(body), ..record(0) };
        calls.spawn(async move { journal.append(vec![known]).await });
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    let waiting = Arc::strong_count(&held) - 1;
    assert!((FIT / 2..=FIT).contains(&waiting), "{waiting} bodies of callers that are gone");
    gate.open();
    assert_eq!(journal.append(vec![record(2)]).await.map(Vec::from), Ok(vec![Appended::Stored]));
    crate::support::eventually("they are let go", || async { (Arc::strong_count(&held) == 1).then_some(()) })
        .await;
    journal.close().await;
}
