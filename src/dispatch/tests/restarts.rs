//! What a restart leaves of an event's attempts, its age and its turn, and that a wall clock which was set is no reason
//! to give up, to wait for ever or to come back all at once.

use super::rig::*;
use crate::clock;
use crate::config::Period;
use crate::dispatch::deferral::{OVERDUE_SPREAD, Tried};
use crate::journal::{self, CursorSpec, Deferral, Journal, RealDisk};
use crate::sink::{CommonConfig, Failure, Outcome, Reason, RetryConfig};
use crate::time::UnixMs;
use futures_util::future::FutureExt;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

fn retrying(retry: RetryConfig) -> CommonConfig {
    CommonConfig { retry, ..quick() }
}

fn fails(_: u32) -> Outcome {
    Outcome::Retry(failure(Reason::SinkError))
}

/// Has the journal hold events `0..count` for `orders`, each noted as `noted` says.
async fn with_notes(folder: &Path, count: u32, noted: impl Fn(u32) -> (UnixMs, Tried)) {
    let sink = Scripted::answering(delivered);
    let rig = Rig::start(folder, &[("orders", &quick(), &sink)]);
    rig.dispatcher.pause("orders").unwrap();
    rig.is("orders", crate::dispatch::LaneState::Paused).await;
    rig.accept(0..count).await;
    rig.stop().await;
    let cursor = CursorSpec { name: "orders".to_owned(), sheddable: false };
    let journal = Journal::open(
        &journal::Config::default(),
        &folder.join("journal"),
        Arc::new(RealDisk),
        std::slice::from_ref(&cursor),
    )
    .unwrap();
    let mut feed = journal.feed("orders").unwrap();
    let mut next = 0;
    while next < count {
        let entries = while_time_flies("the events are read", feed.next(100, usize::MAX)).await.unwrap();
        for entry in entries {
            let (due, tried) = noted(next);
            feed.defer(entry.position, Deferral { due, note: tried.to_note() });
            next += 1;
        }
    }
    while_time_flies("the journal closes", journal.close()).await;
}

fn tried(attempts: u32, age: Duration) -> Tried {
    Tried { attempts, age, first: Failure::new(Reason::Timeout, "before the restart") }
}

/// A sink that notes when it was called first for each event.
fn noting(calls: &Arc<Mutex<Vec<Instant>>>, answer: fn(u32) -> Outcome) -> Arc<Scripted> {
    let calls = Arc::clone(calls);
    Scripted::new(move |number| {
        calls.lock().unwrap().push(Instant::now());
        std::future::ready(answer(number)).boxed()
    })
}

#[test]
fn attempts_go_on_counting_and_a_letter_shows_them_all_and_the_first_failure() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let retry = RetryConfig { attempts_max: 6, ..quick().retry };
        let sink = Scripted::answering(|_| Outcome::Retry(Failure::new(Reason::Timeout, "the first one")));
        let lanes = [("orders", &retrying(retry), &sink)];
        for restart in 1..=2 {
            let rig = Rig::start(folder.path(), &lanes);
            if restart == 1 {
                rig.accept(0..1).await;
            }
            until("it was tried twice more", || sink.seen().len() >= 2 * restart).await;
            rig.stop().await;
            sink.now_answers(fails);
        }
        let heard = sink.seen().len();
        assert!(heard < 6, "it is not given up yet");
        let rig = Rig::start(folder.path(), &lanes);
        rig.settles_all("orders").await;
        let letter = &rig.letters_of("orders").await[0];
        assert_eq!((letter.attempts, sink.seen().len()), (6, 6), "attempts_max in all, not in each process");
        assert_eq!(letter.first_error, "the first one");
        assert_eq!((&*letter.last_error, &*letter.reason), ("as the test says", "sink_error"));
        rig.stop().await;
    });
}

#[test]
fn a_delay_goes_on_after_a_restart_and_does_not_end_with_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let hour = Period::hours(1);
        let retry = RetryConfig { first: hour, max: hour, ..quick().retry };
        let sink = Scripted::answering(fails);
        let lanes = [("orders", &retrying(retry), &sink)];
        let rig = Rig::start(folder.path(), &lanes);
        rig.accept(0..40).await;
        until("each has failed once", || sink.seen().len() >= 40).await;
        rig.stop().await;
        sink.now_answers(delivered);

        let calls = Arc::new(Mutex::new(Vec::new()));
        let sink = noting(&calls, delivered);
        let rig = Rig::start(folder.path(), &[("orders", &retrying(retry), &sink)]);
        let began = Instant::now();
        rig.settles_all("orders").await;
        let calls = calls.lock().unwrap().clone();
        let soon = calls.iter().filter(|call| **call - began < hour.get() / 10).count();
        assert!(soon < 20, "{soon} of 40 random delays of up to an hour ended with the restart");
        assert_eq!(calls.len(), 40);
        rig.stop().await;
    });
}

/// Asks for the replay of every letter.
async fn replay_all(rig: &Rig) -> u64 {
    let all = crate::dead_letter::Filter::default();
    while_time_flies("replays are asked for", rig.letters.request_replay(all)).await.unwrap()
}

#[test]
fn a_replays_attempts_go_on_counting_after_a_restart() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink = Scripted::answering(rejected);
        let retry = RetryConfig { attempts_max: 6, ..quick().retry };
        let lanes = [("orders", &retrying(retry), &sink)];
        let rig = Rig::start(folder.path(), &lanes);
        rig.accept(0..1).await;
        rig.settles_all("orders").await;
        sink.now_answers(fails);
        assert_eq!(replay_all(&rig).await, 1);
        until("it was tried twice more", || sink.seen().len() >= 3).await;
        rig.stop().await;
        assert!(sink.seen().len() < 7, "it is not given up yet");
        let rig = Rig::start(folder.path(), &lanes);
        until("it is given up", || rig.letters.errands_open().is_empty()).await;
        let letter = &rig.letters_of("orders").await[0];
        assert_eq!(
            (letter.attempts, sink.seen().len()),
            (1 + 6, 1 + 6),
            "attempts_max in all, not in each process"
        );
        rig.stop().await;
    });
}

#[test]
fn a_replays_delay_goes_on_after_a_restart_and_does_not_end_with_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let hour = Period::hours(1);
        let retry = RetryConfig { first: hour, max: hour, ..quick().retry };
        // Fewer in a row than would be taken for a sick sink.
        let sink =
            Scripted::answering(|number| if number % 2 == 0 { rejected(number) } else { delivered(number) });
        let rig = Rig::start(folder.path(), &[("orders", &retrying(retry), &sink)]);
        rig.accept(0..80).await;
        rig.settles_all("orders").await;
        sink.now_answers(fails);
        assert_eq!(replay_all(&rig).await, 40);
        until("each has failed once", || sink.seen().len() >= 80 + 40).await;
        rig.stop().await;

        let calls = Arc::new(Mutex::new(Vec::new()));
        let sink = noting(&calls, delivered);
        let rig = Rig::start(folder.path(), &[("orders", &retrying(retry), &sink)]);
        let began = Instant::now();
        until("each was delivered", || rig.letters.errands_open().is_empty()).await;
        let calls = calls.lock().unwrap().clone();
        let soon = calls.iter().filter(|call| **call - began < hour.get() / 10).count();
        assert!(soon < 20, "{soon} of 40 random delays of up to an hour ended with the restart");
        assert_eq!(calls.len(), 40);
        rig.stop().await;
    });
}

#[test]
fn what_became_due_meanwhile_comes_back_spread_whatever_the_clock_says() {
    run(async {
        let year = Duration::from_secs(365 * 86_400);
        let max = Period::secs(60);
        for (sentence, due, spread) in [
            ("due long ago, or the clock was set ahead", clock::now().0 - 86_400_000, OVERDUE_SPREAD),
            ("due next year: the clock was set back", clock::now().plus(year).0, max.get()),
        ] {
            let folder = tempfile::tempdir().unwrap();
            with_notes(folder.path(), 200, |_| (UnixMs(due), tried(9, Duration::ZERO))).await;
            let calls = Arc::new(Mutex::new(Vec::new()));
            let sink = noting(&calls, delivered);
            let retry = RetryConfig { first: Period::secs(1), max, attempts_max: 20, ..quick().retry };
            let rig = Rig::start(folder.path(), &[("orders", &retrying(retry), &sink)]);
            let began = Instant::now();
            rig.settles_all("orders").await;
            let calls = calls.lock().unwrap().clone();
            let at_once = calls.iter().filter(|call| **call - began < spread / 20).count();
            assert!(at_once < 100, "{sentence}: {at_once} of 200 came at once");
            assert_eq!(calls.len(), 200, "{sentence}");
            rig.stop().await;
        }
    });
}

#[test]
fn a_clock_that_was_set_ahead_makes_no_event_too_old_and_its_age_goes_on() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let due = UnixMs(clock::now().0 - 365 * 86_400_000);
        let age = |number: u32| if number == 0 { hour } else { Duration::ZERO };
        with_notes(folder.path(), 2, |number| (due, tried(1, age(number)))).await;
        let retry = RetryConfig { attempts_max: 4, age_max: Period::hours(1), ..quick().retry };
        let sink = Scripted::answering(fails);
        let rig = Rig::start(folder.path(), &[("orders", &retrying(retry), &sink)]);
        rig.settles_all("orders").await;
        let letters = rig.letters_of("orders").await;
        let attempts: BTreeSet<_> =
            letters.iter().map(|letter| (letter.event_id.as_deref().unwrap(), letter.attempts)).collect();
        assert_eq!(attempts, [("0", 2), ("1", 4)].into(), "the old one is given up, the other is not");
        rig.stop().await;
    });
}

#[test]
fn an_outage_between_two_attempts_makes_no_event_too_old() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let retry = RetryConfig { age_max: Period::secs(30), attempts_max: 1000, ..quick().retry };
        let retry = RetryConfig { first: Period::secs(1), max: Period::secs(1), ..retry };
        let sink = Scripted::answering(fails);
        let rig = Rig::start(folder.path(), &[("orders", &retrying(retry), &sink)]);
        rig.accept(0..1).await;
        until("it has failed once", || !sink.seen().is_empty()).await;
        sink.now_answers(away);
        rig.is("orders", crate::dispatch::LaneState::Away).await;
        let long_after = Instant::now() + Duration::from_secs(600);
        until("the outage has lasted", || Instant::now() > long_after).await;
        let failures = || sink.seen().iter().filter(|(_, ending)| *ending == "retry").count();
        let before = failures();
        sink.now_answers(fails);
        until("it was tried again, or given up", || {
            failures() > before + 2 || rig.lane("orders").lag.events == 0
        })
        .await;
        assert_eq!(rig.lane("orders").lag.events, 1, "the outage used up none of its life");
        rig.settles_all("orders").await;
        rig.stop().await;
    });
}

#[test]
fn what_is_under_way_at_the_end_of_the_grace_is_no_attempt() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let retry = RetryConfig { attempts_max: 2, ..quick().retry };
        let sink = Scripted::new(|_| std::future::pending().boxed());
        let lanes = [("orders", &retrying(retry), &sink)];
        for _ in 0..3 {
            let rig = Rig::start(folder.path(), &lanes);
            if rig.journal.status().records == 0 {
                rig.accept(0..1).await;
            }
            until("it is under way", || rig.lane("orders").in_flight == 1).await;
            rig.stop().await;
        }
        sink.now_answers(fails);
        let rig = Rig::start(folder.path(), &lanes);
        rig.settles_all("orders").await;
        assert_eq!(rig.letters_of("orders").await[0].attempts, 2, "only what was heard counts");
        rig.stop().await;
    });
}

#[test]
fn every_event_is_counted_by_how_it_was_settled_also_one_that_is_none() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sink =
            Scripted::answering(|number| if number < 3 { rejected(number) } else { delivered(number) });
        let rig = Rig::start(folder.path(), &[("orders", &quick(), &sink)]);
        rig.accept(0..10).await;
        let no_event = journal::Record {
            head: b"no event".to_vec(),
            body: bytes::Bytes::new(),
            arrival: clock::now(),
            dedupe: None,
        };
        while_time_flies("it is kept", rig.journal.append(vec![no_event])).await.unwrap();
        rig.settles_all("orders").await;
        let (tally, lag) = rig.journal.tally("orders").unwrap();
        assert_eq!(
            (tally.delivered, tally.dead_lettered),
            (7, 3 + 1),
            "a record that is no event is set aside"
        );
        assert_eq!(tally.settled() + lag.events, 11);
        rig.stop().await;
    });
}
