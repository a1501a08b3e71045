//! What a lane does in the situations that its sink, its store and its operators bring about, one each.

use super::rig::*;
use crate::config::{ByteSize, Period};
use crate::dead_letter::{Filter, LetterId};
use crate::dispatch::LaneState;
use crate::envelope::Envelope;
use crate::journal;
use crate::sink::{CommonConfig, Failure, OnBacklogFull, Outcome, Reason, RetryConfig};
use futures_util::future::FutureExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

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
fn a_lane_takes_only_a_few_in_hand_until_its_sink_has_answered_and_then_as_many_as_it_may() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        // No time-out is an answer here, however fast the time flies.
        let patient = CommonConfig { timeout: Period::hours(10_000), ..quick() };
        let (silent, well) =
            (Scripted::new(|_| std::future::pending().boxed()), Scripted::answering(delivered));
        let rig = Rig::start(folder.path(), &[("orders", &patient, &silent), ("audit", &quick(), &well)]);
        rig.accept(0..400).await;
        until("some are under way", || rig.lane("orders").in_flight == 8).await;
        // In that time a lane has had the time to read them all.
        rig.settles_all("audit").await;
        let in_hand = || rig.lane("orders").in_flight + rig.lane("orders").held;
        assert!(in_hand() <= 16, "{} in hand, and nobody has answered", in_hand());
        rig.stop().await;

        let sink = Scripted::new(|number| {
            if number == 0 {
                std::future::ready(Outcome::Delivered).boxed()
            } else {
                std::future::pending().boxed()
            }
        });
        let rig = Rig::start(folder.path(), &[("orders", &patient, &sink)]);
        until("all the others are in hand", || rig.lane("orders").in_flight + rig.lane("orders").held == 399)
            .await;
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
