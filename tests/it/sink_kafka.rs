//! The kafka sink against a real broker, read back by kcat: what arrives, and what becomes of each thing that can be wrong.
//! One broker serves every test that leaves it running.

use crate::sink_http::event;
use crate::support::brokers::kafka::{Kafka, PASSWORD, TokenEndpoint, USER, shared};
use crate::support::ending::ending as ending_of;
use crate::support::{eventually, eventually_within};
use bytes::Bytes;
use futures_util::future::join_all;
use hookbus::config::Layers;
use hookbus::envelope::{Data, Envelope, SinkName};
use hookbus::shutdown::Shutdown;
use hookbus::sink::{ConfiguredSink, Outcome, Reason, Sink};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

const TYPE: &str = "application/cloudevents+json; charset=UTF-8";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn sink(keys: &str) -> Arc<dyn Sink> {
    sink_until(keys, &Shutdown::new())
}

fn sink_until(keys: &str, shutdown: &Shutdown) -> Arc<dyn Sink> {
    let layers = Layers::load(Some(keys), None, &[]).unwrap();
    let section = layers.root().child("sinks").child("orders");
    let configured = ConfiguredSink::parse(SinkName::new("orders").unwrap(), &section).unwrap();
    configured.build(&std::env::temp_dir(), shutdown).unwrap()
}

/// The keys of a sink for a topic; `more` are the kind's own.
fn keys(address: &str, topic: &str, more: &str) -> String {
    format!("[sinks.orders.kafka]\nbrokers = \"{address}\"\ntopic = \"{topic}\"\n{more}")
}

fn numbered(number: usize) -> Arc<Envelope> {
    with_data(&format!("event-{number}"), Data::Json(Bytes::from(format!("{{\"n\":{number}}}"))))
}

fn with_data(id: &str, data: Data) -> Arc<Envelope> {
    let mut event = Envelope::clone(&event());
    (event.id, event.data) = (id.to_owned(), data);
    event.extensions.insert("partitionkey".into(), id.into());
    Arc::new(event)
}

fn name(outcome: &Outcome) -> (&'static str, Option<Reason>) {
    ending_of(outcome, &[PASSWORD, "client-secret"])
}

/// As a lane's probe: once more after each pause, until it is taken.
async fn delivered_at_last(sink: &Arc<dyn Sink>, event: &Arc<Envelope>) {
    eventually("it is delivered", || async {
        matches!(sink.deliver(event).await, Outcome::Delivered).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_structured_event_arrives_as_one_json_document_with_its_key_and_identity() {
    let kafka = shared().await;
    kafka.create_topic("structured", 3, &[]).await;
    let sink = sink(&keys(&kafka.address(), "structured", ""));
    let keyed = with_data("msg \u{20ac}", event().data.clone());
    assert_eq!(sink.deliver(&keyed).await, Outcome::Delivered);
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);

    let records = kafka.read_all("structured").await;
    let record = records.iter().find(|record| record.key.is_some()).unwrap();
    assert_eq!(record.key.as_deref(), Some("msg \u{20ac}"));
    assert_eq!(record.header("content-type"), Some(TYPE));
    assert_eq!(record.header("ce_id"), Some("msg \u{20ac}"));
    assert_eq!(record.header("traceparent"), Some(TRACE));
    let value = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
    let Data::Json(body) = &keyed.data else { unreachable!() };
    assert!(value.starts_with("{\"specversion\":\"1.0\",\"id\":\"msg \u{20ac}\""), "{value}");
    assert!(value.ends_with(&format!(",\"data\":{}}}", std::str::from_utf8(body).unwrap())), "R7: {value}");
    assert_eq!(records.len(), 2);
    assert!(records.iter().any(|record| record.key.is_none()), "without partitionkey there is no key");
}

#[tokio::test]
async fn a_binary_event_is_the_sender_s_bytes_with_attributes_as_plain_utf_8() {
    let kafka = shared().await;
    kafka.create_topic("binary", 1, &[]).await;
    let keys = keys(&kafka.address(), "binary", "key = \"{type}/{subject}\"");
    let sink = sink(&format!("[sinks.orders]\nformat = \"binary\"\n{keys}"));
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    assert_eq!(sink.deliver(&with_data("empty", Data::None)).await, Outcome::Delivered);

    let records = kafka.read_all("binary").await;
    let [full, empty] = &records[..] else { panic!("{records:?}") };
    let Data::Json(body) = &event().data else { unreachable!() };
    assert_eq!(full.value.as_deref().unwrap(), body);
    assert_eq!(full.key.as_deref(), Some("io.z-api.message.received/a\nb"));
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", "msg 100% \u{20ac}"),
        ("ce_source", "//hookbus/sources/whatsapp"),
        ("ce_subject", "a\nb"),
        ("ce_hookbussource", "whatsapp"),
        ("ce_replayed", "true"),
        ("traceparent", TRACE),
    ] {
        assert_eq!(full.header(name), Some(value), "{name}");
    }
    assert_eq!(empty.value.as_deref(), Some(&b""[..]), "null would be a tombstone");
    assert_eq!(empty.header("content-type"), Some("application/json"), "an attribute, also of nothing");
}

#[tokio::test]
async fn ten_thousand_at_once_all_arrive() {
    let kafka = shared().await;
    kafka.create_topic("many", 4, &[]).await;
    let sink = sink(&keys(&kafka.address(), "many", ""));
    let events: Vec<_> = (0..10_000).map(numbered).collect();
    let outcomes = join_all(events.iter().map(|event| sink.deliver(event))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    let records = kafka.read_all("many").await;
    let keys: BTreeSet<_> = records.iter().map(|record| record.key.clone().unwrap()).collect();
    assert_eq!((records.len(), keys.len()), (10_000, 10_000));
}

#[tokio::test]
async fn a_missing_topic_is_waited_for_and_taken_up_when_it_is_there() {
    let kafka = shared().await;
    let keys = keys(&kafka.address(), "later", "");
    let sink = sink(&format!("[sinks.orders]\ntimeout = \"5s\"\n{keys}"));
    assert_eq!(name(&sink.deliver(&event()).await), ("away", Some(Reason::DestinationMissing)));
    assert_eq!(sink.connect().await.unwrap_err().reason, Reason::DestinationMissing);
    kafka.create_topic("later", 1, &[]).await;
    delivered_at_last(&sink, &event()).await;

    kafka.delete_topic("later").await;
    eventually("the loss of the topic is noticed", || async {
        let outcome = sink.deliver(&event()).await;
        (name(&outcome) == ("away", Some(Reason::DestinationMissing))).then_some(())
    })
    .await;
    kafka.create_topic("later", 1, &[]).await;
    delivered_at_last(&sink, &event()).await;
}

#[tokio::test]
async fn a_topic_that_an_attribute_leads_to_and_that_is_missing_is_that_event_s_fault() {
    let kafka = shared().await;
    kafka.create_topic("of.known", 1, &[]).await;
    let keys = keys(&kafka.address(), "of.{type}", "");
    let sink = sink(&format!("[sinks.orders]\ntimeout = \"4s\"\n{keys}"));
    let typed = |event_type: &str| {
        let mut event = Envelope::clone(&event());
        event.event_type = event_type.to_owned();
        Arc::new(event)
    };
    assert_eq!(sink.deliver(&typed("known")).await, Outcome::Delivered);
    assert_eq!(name(&sink.deliver(&typed("new")).await), ("reject", Some(Reason::DestinationMissing)));
    assert_eq!(sink.deliver(&typed("known")).await, Outcome::Delivered);
    assert_eq!(name(&sink.deliver(&typed(&"x".repeat(300))).await), ("reject", Some(Reason::NotEncodable)));
    kafka.create_topic("of.new", 1, &[]).await;
    delivered_at_last(&sink, &typed("new")).await;
}

#[tokio::test]
async fn a_record_refused_with_its_batch_goes_alone_and_so_do_its_neighbours() {
    let kafka = shared().await;
    kafka.create_topic("choosy", 1, &[("max.message.bytes", "20000")]).await;
    // A large limit of its own makes batches that the topic refuses.
    let more = "message_max = \"1MB\"\ncompression = \"none\"";
    let sink = sink(&keys(&kafka.address(), "choosy", more));
    let large = with_data("large", Data::Text(Bytes::from("x".repeat(50_000))));
    let small: Vec<_> = (0..200).map(numbered).collect();
    let events = small[..100].iter().chain([&large]).chain(&small[100..]);
    let outcomes = join_all(events.map(|event| sink.deliver(event))).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        let expected = if index == 100 { ("reject", Some(Reason::TooLarge)) } else { ("delivered", None) };
        assert_eq!(name(outcome), expected, "{index}");
    }
    assert_eq!(kafka.read_all("choosy").await.len(), 200);
}

#[tokio::test]
async fn the_topic_s_limit_is_learnt_and_kept() {
    let kafka = shared().await;
    kafka.create_topic("limited", 1, &[("max.message.bytes", "20000")]).await;
    let limited = sink(&keys(&kafka.address(), "limited", "compression = \"none\""));
    assert_eq!(limited.connect().await.unwrap().message_bytes_max, Some(20_000));
    let sized = |bytes: usize| with_data("sized", Data::Text(Bytes::from("x".repeat(bytes))));
    let large = name(&limited.deliver(&sized(21_000)).await);
    assert_eq!(large, ("reject", Some(Reason::TooLarge)));
    let many: Vec<_> = (0..100).map(|_| sized(15_000)).collect();
    let outcomes = join_all(many.iter().map(|event| limited.deliver(event))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "batches stay within the limit");

    kafka.create_topic("roomy", 1, &[("max.message.bytes", "4000000")]).await;
    let roomy = sink(&keys(&kafka.address(), "roomy", "compression = \"none\""));
    assert_eq!(roomy.deliver(&sized(3_000_000)).await, Outcome::Delivered);

    kafka.alter_topic("limited", "max.message.bytes", "30000").await;
    delivered_at_last(&limited, &sized(21_000)).await;
}

#[tokio::test]
async fn a_full_queue_asks_for_less_and_loses_nothing() {
    let kafka = shared().await;
    kafka.create_topic("narrow", 1, &[]).await;
    let more = "properties = { \"queue.buffering.max.messages\" = 10, \"linger.ms\" = 50 }";
    let sink = sink(&keys(&kafka.address(), "narrow", more));
    let events: Vec<_> = (0..100).map(numbered).collect();
    let outcomes = join_all(events.iter().map(|event| sink.deliver(event))).await;
    let busy = outcomes.iter().filter(|outcome| name(outcome) == ("busy", Some(Reason::Throttled))).count();
    let delivered = outcomes.iter().filter(|outcome| **outcome == Outcome::Delivered).count();
    assert!(busy > 0 && delivered >= 10 && busy + delivered == 100, "{busy} busy, {delivered} delivered");
    let refused = events.iter().zip(&outcomes).filter(|(_, outcome)| **outcome != Outcome::Delivered);
    let refused: Vec<_> = refused.map(|(event, _)| event).collect();
    for few in refused.chunks(4) {
        let outcomes = join_all(few.iter().map(|event| sink.deliver(event))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
    }
    assert_eq!(kafka.read_all("narrow").await.len(), 100);
}

#[tokio::test]
async fn each_mechanism_is_refused_when_wrong_and_gets_in_when_corrected() {
    let kafka = shared().await;
    kafka.create_topic("mechanisms", 1, &[]).await;
    let endpoint = TokenEndpoint::start("hookbus", PASSWORD).await;
    let folder = tempfile::tempdir().unwrap();
    let password = format!("username = \"{USER}\", password");
    let token = format!(
        "token_url = {:?}, scope = \"kafka write\", client_id = \"hookbus\", client_secret",
        endpoint.url
    );
    let each = [
        ("PLAIN", &password),
        ("SCRAM-SHA-256", &password),
        ("SCRAM-SHA-512", &password),
        ("OAUTHBEARER", &token),
    ];
    let each = each.map(async |(mechanism, keys_up_to_the_secret)| {
        let file = folder.path().join(mechanism);
        std::fs::write(&file, "wrong").unwrap();
        let more = format!(
            "sasl = {{ mechanism = \"{mechanism}\", {keys_up_to_the_secret} = {{ file = {file:?} }} }}"
        );
        let sink = sink(&keys(&kafka.sasl_address(), "mechanisms", &more));
        let refused = sink.deliver(&event()).await;
        assert_eq!(name(&refused), ("away", Some(Reason::NotAuthorized)), "{mechanism}: {refused:?}");
        assert!(!format!("{refused:?}").contains("wrong\""), "R8: {refused:?}");
        std::fs::write(&file, PASSWORD).unwrap();
        delivered_at_last(&sink, &event()).await;
    });
    join_all(each).await;
    assert_eq!(kafka.read_all("mechanisms").await.len(), 4);
}

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_are_needed_and_enough() {
    let kafka = shared().await;
    kafka.create_topic("tls", 1, &[]).await;
    let (ca, other) = (kafka.file("ca.pem"), kafka.file("other-ca.pem"));
    let (cert, key) = (kafka.file("client.pem"), kafka.file("client.key"));
    let private = format!("tls = true\nca = {ca:?}");
    let identity = format!("{private}\ncert = {cert:?}\ncert_key = {key:?}");
    let unknown = format!("tls = true\nca = {other:?}");
    let (tls, mutual) = (kafka.tls_address(), kafka.mutual_tls_address());
    for (sentence, address, more, expected) in [
        ("the authority is known", &tls, &private, ("delivered", None)),
        ("another one is not", &tls, &unknown, ("away", Some(Reason::Tls))),
        ("with a certificate", &mutual, &identity, ("delivered", None)),
        ("without one", &mutual, &private, ("away", Some(Reason::Tls))),
    ] {
        let outcome = sink(&keys(address, "tls", more)).deliver(&event()).await;
        assert_eq!(name(&outcome), expected, "{sentence}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_broker_that_is_killed_is_waited_for_by_nobody_and_gets_everything_when_back() {
    let kafka = Kafka::start().await;
    kafka.create_topic("orders", 1, &[]).await;
    let sink = sink(&keys(&kafka.address(), "orders", ""));
    // Killed while events are on their way: each is confirmed, or comes back and is delivered the next time.
    let events: Vec<_> = (0..300).map(numbered).collect();
    let first = join_all(events[..100].iter().map(|event| sink.deliver(event))).await;
    assert!(first.iter().all(|outcome| *outcome == Outcome::Delivered));
    let (outcomes, ()) =
        tokio::join!(join_all(events[100..].iter().map(|event| sink.deliver(event))), kafka.kill());
    for outcome in &outcomes {
        let is_handed_back = match outcome {
            Outcome::Delivered | Outcome::Away(_) => true,
            Outcome::Retry(failure) => failure.reason != Reason::Timeout,
            Outcome::Busy { .. } | Outcome::Reject(_) => false,
        };
        assert!(is_handed_back, "nobody waits for a broker that is gone: {outcome:?}");
    }
    let down = sink.deliver(&events[0]).await;
    assert_eq!(name(&down), ("away", Some(Reason::ConnectionRefused)), "{down:?}");
    kafka.start_again().await;
    let lost = events[100..].iter().zip(&outcomes).filter(|(_, outcome)| **outcome != Outcome::Delivered);
    for (event, _) in lost {
        delivered_at_last(&sink, event).await;
    }
    let records = kafka.read_all("orders").await;
    let keys: BTreeSet<_> = records.iter().filter_map(|record| record.key.clone()).collect();
    assert_eq!(keys.len(), 300);
}

#[tokio::test]
async fn what_was_handed_over_is_flushed_before_the_sink_closes() {
    let kafka = shared().await;
    kafka.create_topic("flushed", 1, &[]).await;
    let sink = sink(&keys(&kafka.address(), "flushed", "properties = { \"linger.ms\" = 300 }"));
    sink.connect().await.unwrap();
    let events: Vec<_> = (0..50).map(numbered).collect();
    // Polled once, which hands it over, and then abandoned.
    for event in &events {
        assert!(futures_util::FutureExt::now_or_never(sink.deliver(event)).is_none());
    }
    sink.close().await;
    assert_eq!(kafka.read_all("flushed").await.len(), 50);
}

#[tokio::test]
async fn why_nobody_is_reached_is_said() {
    for (address, reason) in
        [("nobody.invalid:9092", Reason::NameNotResolved), ("127.0.0.1:1", Reason::ConnectionRefused)]
    {
        let outcome = sink(&keys(address, "orders", "")).deliver(&event()).await;
        assert_eq!(name(&outcome), ("away", Some(reason)), "{address}: {outcome:?}");
    }
}

#[tokio::test]
async fn one_address_of_several_that_is_dead_keeps_nobody_away() {
    let kafka = shared().await;
    kafka.create_topic("addresses", 1, &[]).await;
    // As where a name has two addresses: the first connection fails, the next one is to another and gets through.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = kafka.address();
    tokio::spawn(async move {
        drop(listener.accept().await);
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let sink = sink(&keys(&address, "addresses", ""));
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_stop_waits_for_no_broker_that_is_asked() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = Shutdown::new();
    let keys = keys(&silent.local_addr().unwrap().to_string(), "orders", "");
    let sink = sink_until(&keys, &shutdown);
    let event = event();
    let _asked = tokio::select! {
        outcome = sink.deliver(&event) => panic!("nobody answers: {outcome:?}"),
        accepted = silent.accept() => accepted.unwrap(),
    };
    eventually_within(Duration::from_secs(3), "nothing runs that a stop would wait for", || async {
        (shutdown.tasks_running() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sink_that_has_closed_has_let_every_client_go() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys = keys(&silent.local_addr().unwrap().to_string(), "orders", "");
    let sink = sink(&format!("[sinks.orders]\ntimeout = \"1s\"\n{keys}"));
    let outcome = sink.deliver(&event()).await;
    assert!(matches!(outcome, Outcome::Away(_)), "{outcome:?}");
    sink.close().await;
    let mut connections = 0;
    while let Some(accepted) = futures_util::FutureExt::now_or_never(silent.accept()) {
        // It does not block: what is not at its end is an error.
        let mut connection = accepted.unwrap().0.into_std().unwrap();
        std::io::Read::read_to_end(&mut connection, &mut Vec::new()).expect("its socket is closed");
        connections += 1;
    }
    assert!(connections > 0, "or this shows nothing");
}

#[tokio::test]
async fn who_may_not_write_waits_until_it_may() {
    let kafka = shared().await;
    kafka.create_topic("guarded", 1, &[]).await;
    let more =
        format!("sasl = {{ mechanism = \"PLAIN\", username = \"{USER}\", password = \"{PASSWORD}\" }}");
    let sink = sink(&keys(&kafka.sasl_address(), "guarded", &more));
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    kafka.let_only("bob", "guarded").await;
    eventually("the loss of the permission is noticed", || async {
        let outcome = sink.deliver(&event()).await;
        (name(&outcome) == ("away", Some(Reason::NotAuthorized))).then_some(())
    })
    .await;
    kafka.let_only(USER, "guarded").await;
    delivered_at_last(&sink, &event()).await;
}

#[tokio::test]
async fn a_broker_that_never_confirms_leaves_the_outcome_unknown() {
    let kafka = shared().await;
    kafka.create_topic("silent", 1, &[]).await;
    let (proxy, _turn) = kafka.proxy().await;
    let keys = keys(&proxy.address.to_string(), "silent", "");
    let sink = sink(&format!("[sinks.orders]\ntimeout = \"4s\"\n{keys}"));
    assert_eq!(sink.deliver(&numbered(0)).await, Outcome::Delivered);
    proxy.swallow_answers();
    let (one, two) = (numbered(1), numbered(2));
    let begun = Instant::now();
    let (outcome, later) = tokio::join!(sink.deliver(&one), async {
        eventually("librdkafka's time for them differs", || async {
            (begun.elapsed() > Duration::from_secs(2)).then_some(())
        })
        .await;
        sink.deliver(&two).await
    });
    assert_eq!(name(&outcome), ("retry", Some(Reason::Timeout)));
    assert_ne!(name(&later), ("retry", Some(Reason::Timeout)), "what waits is handed back with it");
    assert_ne!(later, Outcome::Delivered);
    let connections = proxy.accepted();
    proxy.pass();
    delivered_at_last(&sink, &one).await;
    assert!(proxy.accepted() > connections, "the connection is made anew");
}

/// Brokers that librdkafka plays itself: for what a real one cannot be brought to do, and for more than one of them.
fn play(brokers: i32) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(brokers).unwrap();
    cluster.create_topic("played", brokers, 1).unwrap();
    cluster
}

#[tokio::test]
async fn a_client_with_a_fatal_error_is_replaced() {
    let cluster = play(1);
    let sink = sink(&keys(&cluster.bootstrap_servers(), "played", ""));
    assert_eq!(sink.deliver(&numbered(0)).await, Outcome::Delivered);
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
    assert_eq!(name(&sink.deliver(&numbered(1)).await), ("retry", Some(Reason::SinkError)));
    assert_eq!(sink.deliver(&numbered(1)).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_user_who_may_not_write_once_only_waits_with_that_reason() {
    let cluster = play(1);
    let sink = sink(&keys(&cluster.bootstrap_servers(), "played", ""));
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[forbidden]);
    let outcome = sink.deliver(&numbered(0)).await;
    assert_eq!(name(&outcome), ("away", Some(Reason::NotAuthorized)), "{outcome:?}");
    delivered_at_last(&sink, &numbered(0)).await;
}

#[tokio::test]
async fn a_user_who_may_write_to_no_topic_is_no_event_s_fault_wherever_it_leads() {
    let cluster = play(1);
    cluster.create_topic("hooks.io.z-api.message.received", 1, 1).unwrap();
    let sink = sink(&keys(&cluster.bootstrap_servers(), "hooks.{type}", ""));
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[forbidden]);
    let outcome = sink.deliver(&numbered(0)).await;
    assert_eq!(name(&outcome), ("away", Some(Reason::NotAuthorized)), "{outcome:?}");
    delivered_at_last(&sink, &numbered(0)).await;
}

#[tokio::test]
async fn one_broker_of_three_that_goes_takes_nobody_else_along() {
    const BROKERS: i32 = 3;
    let cluster = play(BROKERS);
    for partition in 0..BROKERS {
        cluster.partition_leader("played", partition, Some(partition + 1)).unwrap();
    }
    let keys = keys(&cluster.bootstrap_servers(), "played", "");
    let sink = sink(&format!("[sinks.orders]\ntimeout = \"4s\"\n{keys}"));
    let events: Vec<_> = (0..60).map(numbered).collect();
    let deliver_all = || join_all(events.iter().map(|event| sink.deliver(event)));
    assert!(deliver_all().await.iter().all(|outcome| *outcome == Outcome::Delivered));
    cluster.broker_down(2).unwrap();
    let outcomes = deliver_all().await;
    let delivered = outcomes.iter().filter(|outcome| **outcome == Outcome::Delivered).count();
    assert!((20..60).contains(&delivered), "{delivered} are with the other two");
    assert!(!outcomes.iter().any(|outcome| matches!(outcome, Outcome::Away(_))), "{outcomes:?}");
    cluster.broker_up(2).unwrap();
    for event in &events {
        delivered_at_last(&sink, event).await;
    }
}
