//! Events that the other side refuses: one is a bad event, many in a row are a sick sink.

use super::super::bench::{Bench, event, event_with};
use super::super::{Need, Rig, Setup, can};
use crate::support::eventually;
use serde_json::{Value, json};
use std::collections::BTreeSet;

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
    // Whoever reads the other side's limit before it is in the way is warned.
    if R::TELLS_LIMIT {
        let checked = bench.check().await;
        assert!(checked.contains("warning: sink orders takes messages up to"), "{}: {checked}", R::KIND);
    }
    bench.has(&(0..40).filter(|n| *n != 20).collect()).await;
    bench.stop().await;
}

/// What a sender may put into an identity or attribute, and nobody wants in a header: each arrives or becomes a dead letter
/// with its reason, and its neighbours are delivered.
pub async fn strange_attributes_and_bodies_harm_no_neighbour<R: Rig>() {
    let strange = |n: u64| {
        let mut event = event(n);
        let (id, member, value) = match n {
            3 => ("i".repeat(300), "subject", "an id of 300 bytes".to_owned()),
            7 => ("crlf".to_owned(), "subject", "a\r\nX-Evil: 1\r\n\r\nb".to_owned()),
            11 => ("nul".to_owned(), "subject", "a\0b".to_owned()),
            15 => ("line\r\nfeed\0".to_owned(), "subject", "in the id".to_owned()),
            19 => ("key".to_owned(), "key", "k\r\n\0\u{7f}\u{85}\u{fffe}".to_owned()),
            23 => ("type".to_owned(), "type", "t\r\n.>*\0".to_owned()),
            27 => ("long".to_owned(), "subject", "\u{1f600}".repeat(4000)),
            _ => return event,
        };
        event["id"] = id.into();
        event[member] = value.into();
        event
    };
    for format in ["structured", "binary"] {
        if format == "binary" && R::BINDING.is_none() {
            continue;
        }
        let bench =
            Bench::<R>::start(Setup::Plain, &format!("order = \"none\"\nformat = \"{format}\"")).await;
        bench.post_at_once((0..30).map(strange)).await;
        // No JSON, no UTF-8: its body is all there is of it.
        let bytes = b"\xff\xfe\x00 not UTF-8 \xc3\x28".to_vec();
        let raw = bench.daemon.http.post(format!("http://{}/hooks/raw", bench.daemon.ingress));
        let raw = raw.header("content-type", "application/octet-stream").body(bytes);
        assert_eq!(raw.send().await.unwrap().status(), 200);
        bench.settled().await;
        let letters = bench.dead_letters().await;
        let arrived = bench.rig.arrived().await;
        let kind = R::KIND;
        assert!(letters.iter().all(|letter| letter["reason"].is_string()), "{kind}: {letters:?}");
        let numbers: BTreeSet<u64> = arrived.iter().filter_map(|event| number_in(&event.body)).collect();
        let ordinary = |n: &u64| strange(*n) == event(*n);
        let missing: Vec<u64> = (0..30).filter(|n| !numbers.contains(n)).collect();
        assert!(
            !missing.iter().any(ordinary),
            "{kind}: neighbours of strange events are missing: {missing:?}"
        );
        // R4: each of the 31 is one or the other, and none is both.
        let count =
            numbers.len() + arrived.len() - arrived.iter().filter_map(|event| number_in(&event.body)).count();
        assert_eq!(count + letters.len(), 31, "{kind} {format}: {count} arrived, {letters:?}");
        for event in &arrived {
            let is_torn = event.headers.keys().any(|name| name.eq_ignore_ascii_case("x-evil"));
            assert!(!is_torn, "{kind}: an attribute became a header: {:?}", event.headers);
        }
        println!("{kind} {format}: {missing:?} became dead letters");
        bench.stop().await;
    }
}

/// The number of an event, structured or bare; `None` where its body is no JSON.
fn number_in(body: &[u8]) -> Option<u64> {
    let body = serde_json::from_slice::<Value>(body).ok()?;
    body["n"].as_u64().or_else(|| body["data"]["n"].as_u64())
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
