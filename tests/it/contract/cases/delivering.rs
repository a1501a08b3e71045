//! What arrives, in which order, and that all of it does.

use super::super::bench::{Bench, delivered, event};
use super::super::{Arrived, Rig, Setup};
use crate::senders_cloudevents::{self as cloudevents, Form, Understood};
use hookbus::sink::{Format, SINK_TYPES};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A body that changes when somebody reads it as JSON and writes it again (R7).
const BODY: &str = "{\"id\":\"odd\",\"subject\":\"Euro \u{20ac} \u{1f600}\",\"key\":\"a/b\", \"n\": 12345678901234567.10, \"n\": 1,\n \"caf\\u00e9\": 1e400 }";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn the_odd_one<R: Rig>(format: &str) -> Arrived {
    let bench = Bench::<R>::start(Setup::Plain, &format!("format = \"{format}\"")).await;
    let url = format!("http://{}/hooks/inbox", bench.daemon.ingress);
    let request = bench.daemon.http.post(url).header("content-type", "application/json");
    let response = request.header("traceparent", TRACE).body(BODY).send().await.unwrap();
    assert_eq!(response.status(), 200);
    bench.settled().await;
    let mut arrived = bench.rig.arrived().await;
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    bench.stop().await;
    arrived.remove(0)
}

pub async fn structured_events_arrive_with_the_sender_s_bytes_and_the_headers_of_their_kind<R: Rig>() {
    let arrived = the_odd_one::<R>("structured").await;
    let body = String::from_utf8(arrived.body).unwrap();
    // A line of a file holds no line feed; white space between tokens is not what the sender said.
    let data = if R::BINDING.is_some() { BODY.to_owned() } else { BODY.replace('\n', " ") };
    let attributes =
        body.strip_suffix(&format!(",\"data\":{data}}}")).unwrap_or_else(|| panic!("R7: {body}"));
    let attributes: Value = serde_json::from_str(&format!("{attributes}}}")).unwrap();
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "odd"),
        ("source", "//hookbus/sources/inbox"),
        ("type", "webhook.received"),
        ("subject", "Euro \u{20ac} \u{1f600}"),
        ("datacontenttype", "application/json"),
        ("hookbussource", "inbox"),
        ("partitionkey", "a/b"),
        ("traceparent", TRACE),
    ] {
        assert_eq!(attributes[name], value, "{name}");
    }
    let Some(binding) = R::BINDING else { return assert!(arrived.headers.is_empty()) };
    let header = header_of(&arrived.headers);
    assert!(header(binding.structured_type).starts_with("application/cloudevents+json"));
    assert_eq!(header("traceparent"), TRACE);
    if let Some(identity) = binding.identity {
        assert_eq!(header(identity), "odd");
    }
}

pub async fn binary_events_are_the_sender_s_bytes_with_attributes_as_headers<R: Rig>() {
    let kind = SINK_TYPES.iter().find(|kind| kind.name == R::KIND).unwrap();
    assert_eq!(R::BINDING.is_some(), kind.formats.contains(&Format::Binary), "{}", kind.name);
    let Some(binding) = R::BINDING else { return };
    let arrived = the_odd_one::<R>("binary").await;
    assert_eq!(String::from_utf8(arrived.body).unwrap(), BODY, "R7");
    let header = header_of(&arrived.headers);
    let euro =
        if binding.percent_encoded { "Euro%20%E2%82%AC%20%F0%9F%98%80" } else { "Euro \u{20ac} \u{1f600}" };
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "odd"),
        ("source", "//hookbus/sources/inbox"),
        ("type", "webhook.received"),
        ("subject", euro),
        ("hookbussource", "inbox"),
        ("partitionkey", "a/b"),
    ] {
        assert_eq!(header(&format!("{}{name}", binding.prefix)), value);
    }
    assert_eq!(header(binding.binary_type), "application/json");
    assert_eq!(header("traceparent"), TRACE);
    if let Some(identity) = binding.identity {
        assert_eq!(header(identity), "odd");
    }
}

pub async fn cloudevents_leave_in_either_form_as_they_came_in<R: Rig>() {
    let sent = cloudevents::cases();
    let in_a_line = R::BINDING.is_none();
    for (format, form) in [("structured", Form::Structured { in_a_line }), ("binary", Form::Binary)] {
        if format == "binary" && in_a_line {
            continue;
        }
        let bench = Bench::<R>::start(Setup::Plain, &format!("format = \"{format}\"")).await;
        cloudevents::send_all(&bench.daemon, &sent).await;
        bench.settled().await;
        let arrived = bench.rig.arrived().await;
        let arrived: Vec<_> = arrived.iter().map(|event| Understood::of(event, R::BINDING, form)).collect();
        cloudevents::check_all(&sent, &arrived, form);
        bench.stop().await;
    }
}

fn header_of(headers: &BTreeMap<String, String>) -> impl Fn(&str) -> String {
    move |name| headers.get(name).unwrap_or_else(|| panic!("no header {name} among {headers:?}")).clone()
}

pub async fn events_of_one_key_arrive_in_order_beside_those_of_others<R: Rig>() {
    const KEYS: u64 = 8;
    const EACH: u64 = 60;
    let bench = Bench::<R>::start(Setup::Plain, "order = \"key\"").await;
    // Without a backlog every event would find the one before it delivered.
    bench.order("pause").await;
    // Each key has a sender of its own, which waits for the promise before it posts the next.
    let senders = (0..KEYS).map(|key| {
        let body = move |n| json!({"id": format!("{key}-{n}"), "n": n, "key": format!("key-{key}")});
        bench.post_in_turn((0..EACH).map(body))
    });
    futures_util::future::join_all(senders).await;
    bench.order("resume").await;
    bench.settled().await;
    let in_order: Vec<u64> = (0..EACH).collect();
    let by_key = bench.numbers_by_key().await;
    assert_eq!(by_key.len() as u64, KEYS);
    for (key, numbers) in by_key {
        assert_eq!(numbers, in_order, "{}: {key}", R::KIND);
    }
    bench.stop().await;
}

pub async fn strict_order_is_the_order_of_the_journal<R: Rig>() {
    const EVENTS: u64 = 150;
    let bench = Bench::<R>::start(Setup::Plain, "order = \"strict\"").await;
    bench.order("pause").await;
    bench.post_in_turn((0..EVENTS).map(event)).await;
    bench.order("resume").await;
    bench.settled().await;
    assert_eq!(bench.numbers().await, (0..EVENTS).collect::<Vec<_>>(), "{}", R::KIND);
    bench.stop().await;
}

pub async fn ten_thousand_events_under_way_at_once_arrive_without_one_missing<R: Rig>() {
    let bench = Bench::<R>::start(Setup::Plain, "order = \"none\"").await;
    // They wait in the journal first, so that the lane has all it can take.
    bench.order("pause").await;
    bench.post_at_once((0..10_000).map(event)).await;
    bench.order("resume").await;
    bench.settled().await;
    bench.has_all(0..10_000).await;
    assert_eq!(bench.numbers().await.len(), 10_000, "{}: without a fault nothing comes twice", R::KIND);
    bench.stop().await;
}

pub async fn what_is_under_way_at_a_stop_is_not_lost<R: Rig>() {
    const EVENTS: u64 = 5000;
    let bench = Bench::<R>::start(Setup::Plain, "order = \"none\"").await;
    bench.order("pause").await;
    bench.post_at_once((0..EVENTS).map(event)).await;
    bench.order("resume").await;
    delivered(&bench.daemon, 1).await;
    let bench = bench.start_again(async |daemon| assert!(daemon.stop().await.success())).await;
    bench.settled().await;
    bench.has_all(0..EVENTS).await;
    bench.stop().await;
}
