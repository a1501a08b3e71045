//! R4 and the order of keys, whatever a sink answers.

use super::rig::*;
use crate::dead_letter::Summary;
use crate::sink::{CommonConfig, Order, Outcome, Reason};
use futures_util::future::FutureExt;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

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
        // One that was kept just before the stop, and not yet settled, is given up once more and counted on top.
        let heard = retries + rejections + attempts_max as usize;
        prop_assert!(letter.attempts as usize <= heard, "only these count: {:?}", letter);
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
