//! The amqp sink against a real RabbitMQ: what arrives there, and what becomes of each way in which it does not.

use crate::sink_http::sink;
use crate::support::brokers::free_port;
use crate::support::brokers::rabbitmq::{MESSAGE_BYTES_MAX, Message, RabbitMq};
use crate::support::ending::ending as ending_of;
use crate::support::proxy::Proxy;
use crate::support::{eventually, eventually_within};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use hookbus::envelope::{Attribute, Data, Envelope, Extensions};
use hookbus::sink::{Failure, Outcome, Reason, Sink};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BODY: &[u8] = b"{ \"n\": 12345678901234567.10, \"n\": 1,\n \"caf\\u00e9\": 1e400 }";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// How long a broker may take for a backlog, on a machine whose disk is busy with other things.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(180);

/// A name that no other test has.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn keys(rabbit: &RabbitMq, more: &str) -> String {
    format!("[sinks.orders.amqp]\nurl = \"amqp://127.0.0.1:{}\"\n{more}", rabbit.port())
}

/// A sink to a queue that is there, through the default exchange.
async fn sink_and_queue(rabbit: &RabbitMq) -> (Arc<dyn Sink>, String) {
    let queue = unique("queue");
    rabbit.queue(&queue, json!({})).await;
    (sink(&keys(rabbit, &format!("routing_key = \"{queue}\""))), queue)
}

fn event_of(id: &str, event_type: &str) -> Envelope {
    Envelope {
        id: id.to_owned(),
        source: "//hookbus/sources/inbox".to_owned(),
        event_type: event_type.to_owned(),
        subject: None,
        time: Some("2026-01-31T12:00:00.500Z".to_owned()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: Extensions::from([("hookbussource".into(), "inbox".into())]),
        data: Data::Json(Bytes::from_static(BODY)),
    }
}

fn event(id: &str) -> Arc<Envelope> {
    Arc::new(event_of(id, "io.z-api.message.received"))
}

fn name(outcome: &Outcome) -> (&'static str, Option<Reason>) {
    ending_of(outcome, &["SECRET", "guest", "caf"])
}

async fn ending(sink: &Arc<dyn Sink>, event: &Arc<Envelope>) -> (&'static str, Option<Reason>) {
    name(&sink.deliver(event).await)
}

const DELIVERED: (&str, Option<Reason>) = ("delivered", None);

/// Delivers with at most so many under way, as a lane does; the outcomes stand in the order of the events.
async fn deliver_all(sink: &Arc<dyn Sink>, events: Vec<Arc<Envelope>>, in_flight: usize) -> Vec<Outcome> {
    deliver_counted(sink, events, in_flight, &AtomicU32::new(0)).await
}

/// The same, counting those that have ended.
async fn deliver_counted(
    sink: &Arc<dyn Sink>,
    events: Vec<Arc<Envelope>>,
    in_flight: usize,
    ended: &AtomicU32,
) -> Vec<Outcome> {
    let deliveries = events.into_iter().map(|event| async move {
        let outcome = sink.deliver(&event).await;
        ended.fetch_add(1, Ordering::Relaxed);
        outcome
    });
    futures_util::stream::iter(deliveries).buffered(in_flight).collect().await
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.properties["message_id"].as_str()).collect()
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Delivered => panic!("it was delivered"),
        Outcome::Retry(failure) | Outcome::Away(failure) | Outcome::Reject(failure) => failure,
        Outcome::Busy { failure, .. } => failure,
    }
}

// === What arrives

#[tokio::test]
async fn a_structured_event_is_one_document_with_identity_and_trace_beside_it() {
    let rabbit = RabbitMq::shared().await;
    let (sink, queue) = sink_and_queue(rabbit).await;
    let mut event = event_of("msg-1 \u{20ac}", "io.z-api.message.received");
    event.extensions.insert("traceparent".into(), TRACE.into());
    assert_eq!(ending(&sink, &Arc::new(event)).await, DELIVERED);
    let messages = rabbit.read_all(&queue).await;
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    for (name, value) in [
        ("content_type", "application/cloudevents+json; charset=UTF-8"),
        ("delivery_mode", "2"),
        ("message_id", "msg-1 \u{20ac}"),
        ("timestamp", "1769860800"),
        ("type", "io.z-api.message.received"),
        ("app_id", "hookbus"),
    ] {
        assert_eq!(message.properties[name], value, "{name}");
    }
    assert_eq!(message.properties.len(), 6, "{:?}", message.properties);
    for (name, value) in [
        ("cloudEvents_id", "msg-1 \u{20ac}"),
        ("cloudEvents_source", "//hookbus/sources/inbox"),
        ("traceparent", TRACE),
    ] {
        assert_eq!(message.headers[name], value, "{name}");
    }
    assert_eq!(message.headers.len(), 3, "{:?}", message.headers);
    let body = String::from_utf8(message.body.clone()).unwrap();
    assert!(body.starts_with("{\"specversion\":\"1.0\",\"id\":\"msg-1 \u{20ac}\""), "{body}");
    assert!(body.ends_with(&format!(",\"data\":{}}}", std::str::from_utf8(BODY).unwrap())), "R7: {body}");
}

#[tokio::test]
async fn a_binary_event_is_the_sender_s_body_with_attributes_as_headers() {
    let rabbit = RabbitMq::shared().await;
    for prefix in ["cloudEvents_", "ce-", "cloudEvents:"] {
        let queue = unique("queue");
        rabbit.queue(&queue, json!({})).await;
        let own = format!("routing_key = \"{queue}\"\nheader_prefix = \"{prefix}\"");
        let sink = sink(&format!("[sinks.orders]\nformat = \"binary\"\n{}", keys(rabbit, &own)));
        let mut event = event_of("msg-1", "a.b");
        event.subject = Some("a\nb \u{20ac}".to_owned());
        event.extensions.insert("replayed".into(), Attribute::Bool(true));
        event.extensions.insert("traceparent".into(), TRACE.into());
        assert_eq!(ending(&sink, &Arc::new(event)).await, DELIVERED);
        let messages = rabbit.read_all(&queue).await;
        assert_eq!(messages[0].body, BODY, "R7");
        assert_eq!(messages[0].properties["content_type"], "application/json");
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", "msg-1"),
            ("source", "//hookbus/sources/inbox"),
            ("type", "a.b"),
            ("subject", "a\nb \u{20ac}"),
            ("time", "2026-01-31T12:00:00.500Z"),
            ("hookbussource", "inbox"),
            ("replayed", "true"),
        ] {
            assert_eq!(messages[0].headers[&format!("{prefix}{name}")], value, "{name}");
        }
        assert_eq!(messages[0].headers["traceparent"], TRACE);
        assert!(!messages[0].headers.contains_key(&format!("{prefix}datacontenttype")));
    }
}

#[tokio::test]
async fn ten_thousand_events_under_way_at_once_arrive_without_one_missing() {
    let rabbit = RabbitMq::shared().await;
    let (sink, queue) = sink_and_queue(rabbit).await;
    let names: Vec<String> = (0..10_000).map(|n| format!("event-{n}")).collect();
    let outcomes = deliver_all(&sink, names.iter().map(|id| event(id)).collect(), 1000).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    let messages = rabbit.read_all(&queue).await;
    let arrived: BTreeSet<&str> = ids(&messages).into_iter().collect();
    assert_eq!(arrived, names.iter().map(String::as_str).collect());
    assert_eq!(messages.len(), names.len(), "without a fault nothing comes twice");
    sink.close().await;
}

#[tokio::test]
async fn long_and_odd_attributes_arrive_or_are_refused_and_harm_nobody() {
    let rabbit = RabbitMq::shared().await;
    let (exchange, queue) = (unique("exchange"), unique("queue"));
    rabbit.exchange(&exchange, "fanout").await;
    rabbit.queue(&queue, json!({})).await;
    rabbit.bind(&exchange, &queue, "").await;
    let own = format!("exchange = \"{exchange}\"\nrouting_key = \"hooks.{{subject}}\"");
    let sink = sink(&format!("[sinks.orders]\nformat = \"binary\"\n{}", keys(rabbit, &own)));
    let long = |bytes: usize| "x".repeat(bytes);
    let odd = "\0\r\n\t\"\u{20ac}\u{1f600}";
    type Row = (&'static str, Box<dyn Fn(&mut Envelope)>, (&'static str, Option<Reason>));
    let rows: Vec<Row> = vec![
        ("an id of 300 bytes", Box::new(move |event| event.id = long(300)), DELIVERED),
        ("a type of 300 bytes", Box::new(move |event| event.event_type = long(300)), DELIVERED),
        ("an id of anything", Box::new(move |event| event.id = odd.to_owned()), DELIVERED),
        (
            "a media type of 300 bytes",
            Box::new(move |event| event.datacontenttype = Some(long(300))),
            DELIVERED,
        ),
        ("a subject of anything", Box::new(move |event| event.subject = Some(odd.to_owned())), DELIVERED),
        (
            "a routing key of 300 bytes",
            Box::new(move |event| event.subject = Some(long(300))),
            ("reject", Some(Reason::NotEncodable)),
        ),
        (
            "the name of a header of 300 bytes",
            Box::new(move |event| _ = event.extensions.insert(long(300).into(), "x".into())),
            ("reject", Some(Reason::NotEncodable)),
        ),
        (
            "headers that fit into no frame",
            Box::new(move |event| {
                _ = event.extensions.insert("large".into(), Attribute::Text(long(140_000)))
            }),
            ("reject", Some(Reason::TooLarge)),
        ),
    ];
    let events: Vec<Arc<Envelope>> = rows
        .iter()
        .map(|(_, change, _)| {
            let mut event = event_of(&unique("odd"), "a.b");
            change(&mut event);
            Arc::new(event)
        })
        .collect();
    let outcomes = join_all(events.iter().map(|event| sink.deliver(event))).await;
    for ((sentence, _, expected), outcome) in rows.iter().zip(&outcomes) {
        assert_eq!(name(outcome), *expected, "{sentence}: {outcome:?}");
    }
    let arrived = rabbit.read_all(&queue).await;
    let arrived: BTreeSet<&str> =
        arrived.iter().map(|message| message.headers["cloudEvents_id"].as_str()).collect();
    let delivered = outcomes.iter().zip(&events).filter(|(outcome, _)| **outcome == Outcome::Delivered);
    assert_eq!(arrived, delivered.map(|(_, event)| event.id.as_str()).collect());
}

// === Returned messages

/// Every third goes where no queue is.
fn mixed(count: usize) -> Vec<Arc<Envelope>> {
    let types = (0..count).map(|n| if n % 3 == 0 { "lost" } else { "found" });
    types.enumerate().map(|(n, event_type)| Arc::new(event_of(&format!("event-{n}"), event_type))).collect()
}

async fn exchange_with_one_queue(rabbit: &RabbitMq) -> (String, String) {
    let (exchange, queue) = (unique("exchange"), unique("queue"));
    rabbit.exchange(&exchange, "topic").await;
    rabbit.queue(&queue, json!({})).await;
    rabbit.bind(&exchange, &queue, "hooks.found").await;
    (exchange, queue)
}

#[tokio::test]
async fn events_that_no_queue_takes_are_told_from_their_neighbours() {
    let rabbit = RabbitMq::shared().await;
    let (exchange, queue) = exchange_with_one_queue(rabbit).await;
    let own = format!("exchange = \"{exchange}\"\nrouting_key = \"hooks.{{type}}\"");
    let sink = sink(&keys(rabbit, &own));
    let events = mixed(12_000);
    let outcomes = deliver_all(&sink, events.clone(), 1000).await;
    for (event, outcome) in events.iter().zip(&outcomes) {
        let expected = match event.event_type.as_str() {
            "found" => DELIVERED,
            _ => ("reject", Some(Reason::DestinationMissing)),
        };
        assert_eq!(name(outcome), expected, "{}", event.id);
    }
    let messages = rabbit.read_all(&queue).await;
    let found: BTreeSet<&str> =
        events.iter().filter(|event| event.event_type == "found").map(|event| event.id.as_str()).collect();
    assert_eq!(ids(&messages).into_iter().collect::<BTreeSet<_>>(), found);
}

/// The trap that the barrier is the cure for: were it not there any more, the cure could go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_confirm_does_not_say_whether_its_own_message_came_back() {
    let rabbit = RabbitMq::shared().await;
    let (exchange, _queue) = exchange_with_one_queue(rabbit).await;
    let url = format!("amqp://127.0.0.1:{}", rabbit.port());
    let connection = lapin::Connection::connect(&url, Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    let options = lapin::options::BasicPublishOptions { mandatory: true, immediate: false };
    let misjudged = async |event: &Arc<Envelope>| {
        let key = format!("hooks.{}", event.event_type);
        let properties = lapin::BasicProperties::default().with_delivery_mode(2);
        let publish = channel.basic_publish(exchange.as_str().into(), key.into(), options, BODY, properties);
        let came_back = publish.await.unwrap().await.unwrap().take_message().is_some();
        came_back == (event.event_type == "found")
    };
    eventually("a message is taken for its neighbour", || async {
        let events = mixed(6000);
        let wrong = join_all(events.iter().map(misjudged)).await.into_iter().filter(|wrong| *wrong).count();
        (wrong > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_events_with_one_id_are_not_taken_for_each_other() {
    let rabbit = RabbitMq::shared().await;
    let (exchange, queue) = exchange_with_one_queue(rabbit).await;
    let own = format!("exchange = \"{exchange}\"\nrouting_key = \"hooks.{{type}}\"");
    let sink = sink(&keys(rabbit, &own));
    let events: Vec<Arc<Envelope>> = (0..400)
        .flat_map(|n| {
            ["found", "lost"].map(|event_type| Arc::new(event_of(&format!("same-{n}"), event_type)))
        })
        .collect();
    let outcomes = deliver_all(&sink, events.clone(), 1000).await;
    for (event, outcome) in events.iter().zip(&outcomes) {
        assert_eq!(*outcome == Outcome::Delivered, event.event_type == "found", "{outcome:?}");
    }
    assert_eq!(rabbit.read_all(&queue).await.len(), 400);
}

// === What is missing, forbidden or full

#[tokio::test]
async fn a_missing_exchange_is_waited_for_and_noticed_when_it_goes() {
    let rabbit = RabbitMq::shared().await;
    let (exchange, queue) = (unique("exchange"), unique("queue"));
    let own = format!("exchange = \"{exchange}\"\nrouting_key = \"orders\"\n");
    let sink = sink(&keys(rabbit, &own));
    const MISSING: (&str, Option<Reason>) = ("away", Some(Reason::DestinationMissing));
    let missing = failure(sink.deliver(&event("1")).await);
    assert!(missing.detail.contains(&exchange), "{missing}");
    assert_eq!(sink.connect().await.unwrap_err().reason, Reason::DestinationMissing);

    rabbit.exchange(&exchange, "direct").await;
    let until_says = async |part: &str| {
        eventually("another outcome", || async {
            let outcome = sink.deliver(&event("2")).await;
            let delivered = outcome == Outcome::Delivered && part == "delivered";
            let missing = name(&outcome) == MISSING && outcome != Outcome::Delivered;
            (delivered || (missing && failure(outcome).detail.contains(part))).then_some(())
        })
        .await;
    };
    until_says("no queue takes").await;
    rabbit.queue(&queue, json!({})).await;
    rabbit.bind(&exchange, &queue, "orders").await;
    until_says("delivered").await;

    rabbit.delete_exchange(&exchange).await;
    until_says("does not exist").await;
    rabbit.exchange(&exchange, "direct").await;
    rabbit.bind(&exchange, &queue, "orders").await;
    until_says("delivered").await;
}

#[tokio::test]
async fn a_missing_queue_of_the_default_exchange_is_waited_for() {
    let rabbit = RabbitMq::shared().await;
    let queue = unique("queue");
    let sink = sink(&keys(rabbit, &format!("routing_key = \"{queue}\"")));
    let missing = sink.deliver(&event("1")).await;
    assert_eq!(name(&missing), ("away", Some(Reason::DestinationMissing)));
    assert!(failure(missing).detail.contains(&queue));
    rabbit.queue(&queue, json!({"x-queue-type": "quorum"})).await;
    eventually("it is delivered", || async { (ending(&sink, &event("1")).await == DELIVERED).then_some(()) })
        .await;
    assert!(sink.connect().await.is_ok());
}

#[tokio::test]
async fn an_event_whose_own_exchange_is_missing_takes_no_neighbour_along() {
    let rabbit = RabbitMq::shared().await;
    let (exchange, queue) = (unique("hooks.found"), unique("queue"));
    rabbit.exchange(&exchange, "fanout").await;
    rabbit.queue(&queue, json!({})).await;
    rabbit.bind(&exchange, &queue, "").await;
    let sink = sink(&keys(rabbit, "exchange = \"hooks.{type}\"\nrouting_key = \"x\""));
    let found = exchange.strip_prefix("hooks.").unwrap();
    // Large ones are still on their way when the broker closes the channel.
    for (size, count, bytes) in [("small", 600, 10), ("large", 120, 200_000)] {
        let events: Vec<Arc<Envelope>> = (0..count)
            .map(|n| {
                let event_type = if n % 40 == 7 { "nowhere" } else { found };
                let data = Data::Text(Bytes::from("x".repeat(bytes)));
                Arc::new(Envelope { data, ..event_of(&format!("{size}-{n}"), event_type) })
            })
            .collect();
        let outcomes = deliver_all(&sink, events.clone(), 1000).await;
        for (event, outcome) in events.iter().zip(&outcomes) {
            let expected = match event.event_type.as_str() {
                "nowhere" => ("reject", Some(Reason::DestinationMissing)),
                _ => DELIVERED,
            };
            assert_eq!(name(outcome), expected, "{}: {outcome:?}", event.id);
        }
        let messages = rabbit.read_all(&queue).await;
        let arrived: BTreeSet<&str> = ids(&messages).into_iter().filter(|id| id.starts_with(size)).collect();
        assert_eq!(arrived.len(), count - count / 40, "{size}");
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_takes_no_neighbour_along() {
    let rabbit = RabbitMq::shared().await;
    let (sink_that_knows_nothing, queue) = sink_and_queue(rabbit).await;
    let own = format!("routing_key = \"{queue}\"\nmessage_max = \"{MESSAGE_BYTES_MAX}\"");
    let sink_that_knows = sink(&keys(rabbit, &own));
    assert_eq!(sink_that_knows.connect().await.unwrap().message_bytes_max, Some(MESSAGE_BYTES_MAX as u64));
    for (sentence, sink) in [("told by the broker", sink_that_knows_nothing), ("seen here", sink_that_knows)]
    {
        let events: Vec<Arc<Envelope>> = (0..300)
            .map(|n| {
                let mut event = event_of(&format!("event-{n}"), "a.b");
                if n == 150 {
                    event.data = Data::Text(Bytes::from("x".repeat(MESSAGE_BYTES_MAX)));
                }
                Arc::new(event)
            })
            .collect();
        let outcomes = deliver_all(&sink, events, 1000).await;
        for (n, outcome) in outcomes.iter().enumerate() {
            let expected = if n == 150 { ("reject", Some(Reason::TooLarge)) } else { DELIVERED };
            assert_eq!(name(outcome), expected, "{sentence}: {n}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_full_queue_is_waited_for() {
    let rabbit = RabbitMq::shared().await;
    let queue = unique("queue");
    rabbit.queue(&queue, json!({"x-max-length": 1, "x-overflow": "reject-publish"})).await;
    let sink = sink(&keys(rabbit, &format!("routing_key = \"{queue}\"")));
    eventually("the queue is full", || async {
        (ending(&sink, &event("1")).await == ("busy", Some(Reason::Throttled))).then_some(())
    })
    .await;
    rabbit.purge(&queue).await;
    eventually("there is room", || async { (ending(&sink, &event("2")).await == DELIVERED).then_some(()) })
        .await;
}

// === Who may, and where it is

#[tokio::test]
async fn wrong_credentials_are_read_anew_and_permissions_noticed() {
    let rabbit = RabbitMq::shared().await;
    let (user, queue) = (unique("user"), unique("queue"));
    rabbit.queue(&queue, json!({})).await;
    let (exchange, folder) = (unique("exchange"), tempfile::tempdir().unwrap());
    rabbit.exchange(&exchange, "fanout").await;
    rabbit.bind(&exchange, &queue, "").await;
    let password = folder.path().join("password");
    std::fs::write(&password, "SECRET-wrong").unwrap();
    rabbit.user(&user, "SECRET-right", "^$").await;
    let own = format!(
        "exchange = \"{exchange}\"\nrouting_key = \"x\"\nuser = \"{user}\"\npassword = {{ file = \"{}\" }}",
        password.display()
    );
    let sink = sink(&keys(rabbit, &own));
    let wrong = sink.deliver(&event("1")).await;
    assert_eq!(name(&wrong), ("away", Some(Reason::NotAuthorized)));
    assert!(failure(wrong).detail.contains("password"));

    std::fs::write(&password, "SECRET-right\n").unwrap();
    eventually("it gets in, but may not write", || async {
        failure(sink.deliver(&event("2")).await).detail.contains("may not write").then_some(())
    })
    .await;
    assert_eq!(ending(&sink, &event("2")).await, ("away", Some(Reason::NotAuthorized)));
    rabbit.user(&user, "SECRET-right", &exchange).await;
    eventually("it may", || async { (ending(&sink, &event("3")).await == DELIVERED).then_some(()) }).await;

    std::fs::remove_file(&password).unwrap();
    assert_eq!(ending(&sink, &event("4")).await, DELIVERED, "a connection that is good needs no password");
}

/// The exchange is the same for all events, the routing key is not: who may not write to the one is no event's fault, who
/// may not use a routing key is that event's.
#[tokio::test]
async fn a_permission_for_the_exchange_is_waited_for_and_one_for_a_routing_key_is_that_event_s() {
    let rabbit = RabbitMq::shared().await;
    let (user, queue, exchange) = (unique("user"), unique("queue"), unique("exchange"));
    rabbit.queue(&queue, json!({})).await;
    rabbit.exchange(&exchange, "topic").await;
    rabbit.bind(&exchange, &queue, "#").await;
    rabbit.user(&user, "right", "^$").await;
    let own = format!(
        "exchange = \"{exchange}\"\nrouting_key = \"hooks.{{type}}\"\nuser = \"{user}\"\npassword = \"right\""
    );
    let sink = sink(&keys(rabbit, &own));
    let typed = |event_type| Arc::new(event_of(&unique("event"), event_type));
    let several: Vec<_> = ["good", "size", "bad"].map(typed).into();
    for outcome in deliver_all(&sink, several, 3).await {
        assert_eq!(name(&outcome), ("away", Some(Reason::NotAuthorized)), "{outcome:?}");
    }
    rabbit.user(&user, "right", &exchange).await;
    rabbit.routing_keys(&user, &exchange, "^hooks\\.good$").await;
    eventually("it may write", || async { (ending(&sink, &typed("good")).await == DELIVERED).then_some(()) })
        .await;
    let mixed = ["good", "bad", "good", "size", "good"];
    for (kind, outcome) in mixed.iter().zip(deliver_all(&sink, mixed.map(typed).into(), 5).await) {
        let expected = if *kind == "good" { DELIVERED } else { ("reject", Some(Reason::NotAuthorized)) };
        assert_eq!(name(&outcome), expected, "{kind}: {outcome:?}");
    }
}

#[tokio::test]
async fn who_cannot_be_reached_is_away_with_the_reason() {
    let rabbit = RabbitMq::shared().await;
    let (up, down) = (rabbit.port(), free_port());
    for (sentence, url, reason) in [
        ("nothing listens", format!("amqp://u:SECRET@127.0.0.1:{down}"), Reason::ConnectionRefused),
        ("no such name", "amqp://u:SECRET@nobody.invalid".to_owned(), Reason::NameNotResolved),
        ("no such user", format!("amqp://u:SECRET@127.0.0.1:{up}"), Reason::NotAuthorized),
        ("no such virtual host", format!("amqp://127.0.0.1:{up}/nowhere"), Reason::DestinationMissing),
        ("no TLS there", format!("amqps://127.0.0.1:{up}"), Reason::Tls),
    ] {
        let sink = sink(&format!("[sinks.orders.amqp]\nurl = \"{url}\"\nrouting_key = \"x\""));
        let outcome = sink.deliver(&event("1")).await;
        assert_eq!(name(&outcome), ("away", Some(reason)), "{sentence}: {outcome:?}");
        assert_eq!(sink.connect().await.unwrap_err().reason, reason, "{sentence}");
    }
}

#[tokio::test]
async fn one_broker_of_a_list_is_enough() {
    let rabbit = RabbitMq::shared().await;
    let queue = unique("queue");
    rabbit.queue(&queue, json!({})).await;
    let (up, down) = (rabbit.port(), free_port());
    let sink = sink(&format!(
        "[sinks.orders.amqp]\nurl = [\"amqp://127.0.0.1:{down}\", \"amqp://localhost:{up}\"]\nrouting_key = \"{queue}\""
    ));
    assert_eq!(ending(&sink, &event("1")).await, DELIVERED);
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_named_and_a_certificate_logs_in() {
    let rabbit = RabbitMq::shared().await;
    let (queue, folder) = (unique("queue"), tempfile::tempdir().unwrap());
    rabbit.queue(&queue, json!({})).await;
    let user = unique("certified");
    rabbit.user(&user, "SECRET-unused", "amq.default").await;
    let leaf = rabbit.authority.leaf_files(folder.path(), &user);
    let ca = format!("ca = \"{}\"\n", rabbit.ca().display());
    let certificate = format!("cert = \"{}\"\nkey = \"{}\"\n", leaf.cert.display(), leaf.key.display());
    let another = crate::support::authority::Authority::new().file(folder.path(), "another.pem");
    for (sentence, more, expected) in [
        ("trusted", ca.clone(), DELIVERED),
        ("logged in by certificate", format!("{ca}{certificate}auth = \"external\""), DELIVERED),
        ("the system's authorities", String::new(), ("away", Some(Reason::Tls))),
        ("another authority", format!("ca = \"{}\"", another.display()), ("away", Some(Reason::Tls))),
    ] {
        let (port, queue) = (rabbit.tls_port(), &queue);
        let keys = format!("url = \"amqps://localhost:{port}\"\nrouting_key = \"{queue}\"\n{more}");
        let sink = sink(&format!("[sinks.orders.amqp]\n{keys}"));
        let outcome = sink.deliver(&event("1")).await;
        assert_eq!(name(&outcome), expected, "{sentence}: {outcome:?}");
    }
}

// === A broker that is silent, dies or has an alarm

#[tokio::test]
async fn a_broker_that_never_confirms_gets_a_new_connection() {
    let rabbit = RabbitMq::shared().await;
    let queue = unique("queue");
    rabbit.queue(&queue, json!({})).await;
    let proxy = Proxy::start(([127, 0, 0, 1], rabbit.port()).into()).await;
    let own = format!("url = \"amqp://{}\"\nrouting_key = \"{queue}\"", proxy.address);
    let sink = sink(&format!("[sinks.orders]\ntimeout = \"1s\"\n[sinks.orders.amqp]\n{own}"));
    assert_eq!(ending(&sink, &event("1")).await, DELIVERED);
    proxy.swallow_answers();
    let outcomes = join_all((0..50).map(async |n| sink.deliver(&event(&format!("late-{n}"))).await)).await;
    for outcome in &outcomes {
        assert_eq!(name(outcome), ("retry", Some(Reason::Timeout)), "{outcome:?}");
    }
    // A new connection gets no answer either: that is nobody's attempt.
    eventually("the old connection is given up", || async {
        (ending(&sink, &event("2")).await == ("away", Some(Reason::Timeout))).then_some(())
    })
    .await;
    proxy.pass();
    eventually("it is delivered", || async { (ending(&sink, &event("2")).await == DELIVERED).then_some(()) })
        .await;
    assert!(proxy.accepted() < 20, "it does not knock without a pause");
}

#[tokio::test]
async fn who_accepts_and_never_speaks_is_away_and_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sink = sink(&format!("[sinks.orders.amqp]\nurl = \"amqp://{address}\"\nrouting_key = \"x\""));
    let (first, second) = (event("1"), event("2"));
    let (one, other, accepted) = tokio::join!(sink.deliver(&first), sink.deliver(&second), listener.accept());
    assert_eq!(name(&one), ("away", Some(Reason::Timeout)));
    assert_eq!(name(&other), ("away", Some(Reason::Timeout)));
    let mut heard = Vec::new();
    let (mut stream, _) = accepted.unwrap();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"AMQP\0\0\x09\x01", "nothing more, and the connection is closed");
}

/// A frame of a method on channel 0.
fn frame(method: &[u8]) -> Vec<u8> {
    let length = u32::try_from(method.len()).unwrap().to_be_bytes();
    [b"\x01\0\0", length.as_slice(), method, b"\xce"].concat()
}

async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.unwrap();
    let mut method = vec![0; u32::from_be_bytes(head[3..].try_into().unwrap()) as usize + 1];
    stream.read_exact(&mut method).await.unwrap();
    method
}

#[tokio::test]
async fn a_broker_that_takes_frames_of_any_size_is_told_a_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sink = sink(&format!("[sinks.orders.amqp]\nurl = \"amqp://{address}\"\nrouting_key = \"x\""));
    let event = event("1");
    let broker = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        let start = b"\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US";
        stream.write_all(&frame(start)).await.unwrap();
        let _start_ok = read_frame(&mut stream).await;
        let tune_without_limits = b"\0\x0a\0\x1e\0\0\0\0\0\0\0\0";
        stream.write_all(&frame(tune_without_limits)).await.unwrap();
        let tune_ok = read_frame(&mut stream).await;
        u32::from_be_bytes(tune_ok[6..10].try_into().unwrap())
    };
    let (outcome, frame_bytes_max) = tokio::join!(sink.deliver(&event), broker);
    assert_eq!(frame_bytes_max, 128 * 1024, "the client library allocates 64 of them");
    // The client library does not always see that it was left here; then the time-out of the connection does.
    assert_eq!(name(&outcome).0, "away", "{outcome:?}");
}

/// One story, since each broker of one's own takes seconds to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_or_has_an_alarm_loses_nothing() {
    let mut rabbit = RabbitMq::start().await;
    let queue = unique("queue");
    rabbit.queue(&queue, json!({})).await;
    let keys = keys(&rabbit, &format!("routing_key = \"{queue}\""));
    // A broker that has just begun on a busy machine confirms slowly, and whoever comes again before it has makes it
    // slower still: a lane waits longer each time, this test does not.
    let sink = sink(&format!("[sinks.orders]\ntimeout = \"30s\"\n{keys}"));
    let until_delivered = async |ids: &[String]| {
        let each = stream::iter(ids).for_each_concurrent(200, async |id| {
            let event = event(id);
            eventually_within(BACKLOG_PATIENCE, "it is delivered in the end", || async {
                (sink.deliver(&event).await == Outcome::Delivered).then_some(())
            })
            .await;
        });
        each.await;
    };
    let names = |what: &str, count: usize| (0..count).map(|n| format!("{what}-{n}")).collect::<Vec<_>>();

    let under_way = names("killed", 4000);
    let (events, ended) = (under_way.iter().map(|id| event(id)).collect(), AtomicU32::new(0));
    let (outcomes, ()) = tokio::join!(deliver_counted(&sink, events, 1000, &ended), async {
        eventually("some have ended", || async { (ended.load(Ordering::Relaxed) > 1000).then_some(()) })
            .await;
        rabbit.kill();
    });
    let mut missing = Vec::new();
    for (outcome, id) in outcomes.into_iter().zip(&under_way) {
        match name(&outcome) {
            ("delivered", None) => {}
            ("retry", Some(Reason::ConnectionLost)) | ("away", Some(_)) => missing.push(id.clone()),
            other => panic!("{other:?}"),
        }
    }
    assert!(!missing.is_empty(), "it died in the middle");
    eventually("nothing accepts connections", || async {
        (ending(&sink, &event("down")).await == ("away", Some(Reason::ConnectionRefused))).then_some(())
    })
    .await;
    rabbit.start_again().await;
    until_delivered(&missing).await;
    let arrived = rabbit.read_all(&queue).await;
    let arrived: BTreeSet<&str> = ids(&arrived).into_iter().collect();
    let lost: Vec<&String> = under_way.iter().filter(|id| !arrived.contains(id.as_str())).collect();
    assert_eq!(lost, Vec::<&String>::new(), "what was confirmed survives");

    rabbit.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let busy = join_all(names("alarm", 20).iter().map(async |id| sink.deliver(&event(id)).await)).await;
    for outcome in &busy {
        assert_eq!(name(outcome), ("busy", Some(Reason::Throttled)), "{outcome:?}");
    }
    assert_eq!(ending(&sink, &event("alarm-0")).await, ("busy", Some(Reason::Throttled)));
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.9"]).await;
    until_delivered(&names("alarm", 20)).await;

    let (events, ended) = (names("stopped", 4000).iter().map(|id| event(id)).collect(), AtomicU32::new(0));
    let (outcomes, ()) = tokio::join!(deliver_counted(&sink, events, 1000, &ended), async {
        eventually("some have ended", || async { (ended.load(Ordering::Relaxed) > 1000).then_some(()) })
            .await;
        rabbit.stop().await;
    });
    let endings: BTreeSet<&str> = outcomes.iter().map(|outcome| name(outcome).0).collect();
    assert!(endings.is_subset(&["delivered", "retry", "away"].into()), "{endings:?}");
    sink.close().await;
}
