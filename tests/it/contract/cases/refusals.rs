//! Events that the other side refuses: one is a bad event, many in a row are a sick sink.

use super::super::bench::{Bench, event, event_with};
use super::super::{Need, Rig, Setup, can};
use crate::support::eventually;
use serde_json::json;

/// More than [`Setup::Limited`] takes, less than the ingress does.
const OVERSIZED_BYTES: usize = 600 * 1024;

pub async fn a_poison_event_becomes_one_dead_letter_and_its_neighbours_are_delivered<R: Rig>() {
    const EVENTS: u64 = 200;
    const POISON: u64 = 100;
    if !can::<R>(Need::Poison) {
        return;
    }
    let bench = Bench::<R>::start(Setup::Choosy, "order = \"none\"").await;
    let poison = bench.rig.poison();
    let body = |n| if n == POISON { event_with(n, &poison) } else { event(n) };
    bench.post_at_once((0..EVENTS).map(body)).await;
    bench.settled().await;
    one_letter(&bench, POISON, R::REASON_POISON).await;
    bench.has(&(0..EVENTS).filter(|n| *n != POISON).collect()).await;
    bench.stop().await;
}

pub async fn an_oversized_event_becomes_one_dead_letter_and_its_neighbours_are_delivered<R: Rig>() {
    if !can::<R>(Need::Limit) {
        return;
    }
    let bench = Bench::<R>::start(Setup::Limited, "order = \"none\"").await;
    let large = json!({"text": "x".repeat(OVERSIZED_BYTES)});
    let body = |n| if n == 20 { event_with(n, &large) } else { event(n) };
    bench.post_at_once((0..40).map(body)).await;
    bench.settled().await;
    one_letter(&bench, 20, "too_large").await;
    bench.has(&(0..40).filter(|n| *n != 20).collect()).await;
    bench.stop().await;
}

async fn one_letter<R: Rig>(bench: &Bench<R>, number: u64, reason: &str) {
    let letters = bench.dead_letters().await;
    assert_eq!(letters.len(), 1, "{}: {letters:?}", R::KIND);
    assert_eq!(letters[0]["event_id"], format!("event-{number}"), "{letters:?}");
    assert_eq!(letters[0]["reason"], reason, "{letters:?}");
}

pub async fn twenty_refusals_in_a_row_are_a_sick_sink<R: Rig>() {
    if !can::<R>(Need::Poison) {
        return;
    }
    let bench = Bench::<R>::start(Setup::Choosy, "order = \"none\"\nin_flight_max = 1").await;
    let poison = bench.rig.poison();
    bench.post_in_turn((0..40).map(|n| event_with(n, &poison))).await;
    bench.is_away_because(R::REASON_POISON).await;
    // The lane is away before the last of its letters are on disk.
    eventually("nineteen have become letters and left the lane", || async {
        let letters = bench.dead_letters().await.len();
        assert!(letters <= 19, "{}: the twentieth is kept", R::KIND);
        (letters == 19 && bench.lane().await["lag"]["events"] == 21).then_some(())
    })
    .await;
    bench.lane_is("away").await;
    assert_eq!(bench.dead_letters().await.len(), 19, "{}: the twentieth is kept", R::KIND);
    bench.stop().await;
}
