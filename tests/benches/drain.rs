//! How fast a lane drains a backlog into each broker, beside the broker's bare client library driven as its own
//! documentation recommends: the same window of unconfirmed messages, the same confirms, bodies of the same size, the
//! same broker, round after round in turn, because machines are noisy: only ratios mean anything.
//!
//! `cargo bench --bench drain [-- EVENTS ROUNDS]`; the brokers must be installed (`tests/run brokers`).

#![allow(clippy::unwrap_used)]

#[path = "../it/support/mod.rs"]
#[allow(dead_code)]
mod support;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered};
use hookbus::app::App;
use hookbus::app::config::Config;
use hookbus::telemetry::logging;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, ConnectionProperties};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::brokers::{kafka::Kafka, nats::Nats, rabbitmq::RabbitMq};

/// The same as the program's, for both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many messages wait for their confirm, on both sides; the default of the broker sinks.
const WINDOW: usize = 1000;
/// Connections that fill the journal.
const SENDERS: usize = 64;

/// What every webhook of the bench carries besides its number.
const PADDING: &str = "a short text as people send it, and the photos, names and flags that gateways put around it: \
    https://photo.test/0123456789abcdef.jpg https://photo.test/fedcba9876543210.jpg 554499999999 A20DA9C0183A2D35A260F";

/// A hookbus with one sink, and a way to fill and drain its lane.
struct Hookbus {
    ingress: SocketAddr,
    admin: SocketAddr,
    http: reqwest::Client,
    numbers: AtomicU64,
    _folder: tempfile::TempDir,
}

impl Hookbus {
    async fn start(sink: &str) -> Hookbus {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "data_dir = {:?}\n[ingress]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [sources.inbox.generic]\n[sinks.orders]\norder = \"none\"\n{sink}",
            folder.path().join("data")
        );
        let file = folder.path().join("hookbus.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file), &[]).unwrap().config;
        let log_level = logging::install(&config.log).unwrap();
        let app = App::start(config, log_level).await.unwrap();
        let (ingress, admin) = (app.ingress().address().unwrap(), app.admin_address());
        tokio::spawn(app.run(std::future::pending()));
        Hookbus { ingress, admin, http: support::client(), numbers: AtomicU64::new(0), _folder: folder }
    }

    async fn order(&self, what: &str) {
        let url = format!("http://{}/api/v1/sinks/orders/{what}", self.admin);
        assert!(self.http.post(url).send().await.unwrap().status().is_success());
    }

    async fn fill(&self, events: u64) {
        let url = format!("http://{}/hooks/inbox", self.ingress);
        stream::iter(0..events)
            .for_each_concurrent(SENDERS, |_| async {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                let body = format!("{{\"n\":{number},\"text\":\"{PADDING}\"}}");
                let request = self.http.post(&url).header("content-type", "application/json").body(body);
                assert_eq!(request.send().await.unwrap().status(), 200);
            })
            .await;
    }

    async fn lag(&self) -> u64 {
        let url = format!("http://{}/api/v1/status", self.admin);
        let status: serde_json::Value =
            serde_json::from_str(&self.http.get(url).send().await.unwrap().text().await.unwrap()).unwrap();
        status["lanes"][0]["lag"]["events"].as_u64().unwrap()
    }

    /// Events a second while the backlog drains.
    async fn drain(&self, events: u64) -> f64 {
        self.order("pause").await;
        self.fill(events).await;
        let began = Instant::now();
        self.order("resume").await;
        // Often enough for the measure, and too seldom to take the processor from the lane.
        let mut poll = tokio::time::interval(Duration::from_millis(5));
        while self.lag().await > 0 {
            poll.tick().await;
        }
        events as f64 / began.elapsed().as_secs_f64()
    }
}

/// One way to send a message and to hear that the broker has it.
type Send<'a> = Box<dyn Fn(u64) -> BoxFuture<'a, ()> + 'a>;

/// Messages a second with [`WINDOW`] of them unconfirmed.
async fn bare(events: u64, send: &Send<'_>) -> f64 {
    let began = Instant::now();
    let mut unconfirmed = FuturesUnordered::new();
    for number in 0..events {
        if unconfirmed.len() == WINDOW {
            unconfirmed.next().await;
        }
        unconfirmed.push(send(number));
    }
    while unconfirmed.next().await.is_some() {}
    events as f64 / began.elapsed().as_secs_f64()
}

/// What hookbus puts on the wire for one of the bench's webhooks, with another id.
fn message(number: u64) -> Vec<u8> {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{number:032x}\",\"source\":\"//hookbus/sources/inbox\",\
         \"type\":\"webhook.received\",\"time\":\"2026-01-31T12:00:00.000Z\",\"datacontenttype\":\"application/json\",\
         \"dedupe\":\"strong\",\"hookbussource\":\"inbox\",\"receivedtime\":\"2026-01-31T12:00:00.000Z\",\
         \"timesource\":\"received\",\"data\":{{\"n\":{number},\"text\":\"{PADDING}\"}}}}"
    )
    .into_bytes()
}

async fn compare(name: &str, hookbus: Hookbus, events: u64, rounds: usize, send: Send<'_>) {
    let mut ratios = Vec::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=rounds {
        let (bare, drained) = (bare(events, &send).await, hookbus.drain(events).await);
        if round > 0 {
            ratios.push(drained / bare);
            ours.push(drained);
            theirs.push(bare);
        }
    }
    println!(
        "{name:10} hookbus {:8.0} events/s, bare client {:8.0} messages/s, ratio {:.2} ({:.2} to {:.2})",
        median(&mut ours),
        median(&mut theirs),
        median(&mut ratios),
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn jetstream(events: u64, rounds: usize) {
    let nats = Nats::start().await;
    nats.create_stream("EVENTS", &["ours", "bare"]).await;
    let table = format!(
        "[sinks.orders.jetstream]\nurl = \"nats://{}\"\nstream = \"EVENTS\"\nsubject = \"ours\"\n",
        nats.address()
    );
    let client = async_nats::connect(nats.address()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let run = uuid::Uuid::now_v7();
    let sent = AtomicU64::new(0);
    let send: Send = Box::new(|number| {
        let id = format!("{run}-{}", sent.fetch_add(1, Ordering::Relaxed));
        let context = &context;
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            let publish = context.publish_with_headers("bare", headers, message(number).into());
            publish.await.unwrap().await.unwrap();
        })
    });
    compare("jetstream", Hookbus::start(&table).await, events, rounds, send).await;
}

async fn kafka(events: u64, rounds: usize) {
    let kafka = Kafka::start().await;
    for topic in ["ours", "bare"] {
        kafka.create_topic(topic, 4, &[]).await;
    }
    let table = format!("[sinks.orders.kafka]\nbrokers = [\"{}\"]\ntopic = \"ours\"\n", kafka.address());
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.address())
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .create()
        .unwrap();
    let send: Send = Box::new(|number| {
        let producer = &producer;
        Box::pin(async move {
            let body = message(number);
            let record = FutureRecord::<(), _>::to("bare").payload(&body);
            producer.send_result(record).unwrap().await.unwrap().unwrap();
        })
    });
    compare("kafka", Hookbus::start(&table).await, events, rounds, send).await;
}

/// What hookbus puts beside a structured event: the broker takes longer for a message with properties and headers.
fn properties(number: u64) -> BasicProperties {
    let mut headers = FieldTable::default();
    let identity = [
        ("cloudEvents_id", format!("{number:032x}")),
        ("cloudEvents_source", "//hookbus/sources/inbox".to_owned()),
    ];
    for (name, value) in identity {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_app_id("hookbus".into())
        .with_message_id(format!("{number:032x}").into())
        .with_type("webhook.received".into())
        .with_timestamp(1_769_860_800)
        .with_content_type("application/cloudevents+json; charset=UTF-8".into())
        .with_headers(headers)
}

async fn amqp(events: u64, rounds: usize) {
    let rabbit = RabbitMq::start().await;
    for queue in ["ours", "bare"] {
        rabbit.queue(queue, serde_json::json!({"x-max-length": 100_000})).await;
    }
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", rabbit.port());
    let table = format!("[sinks.orders.amqp]\nurl = \"{url}\"\nrouting_key = \"ours\"\n");
    let connection = lapin::Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let send: Send = Box::new(|number| {
        let channel = &channel;
        Box::pin(async move {
            let (body, properties) = (message(number), properties(number));
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let publish = channel.basic_publish("".into(), "bare".into(), options, &body, properties);
            let confirmation = publish.await.unwrap().await.unwrap();
            assert!(matches!(confirmation, Confirmation::Ack(None)));
        })
    });
    compare("amqp", Hookbus::start(&table).await, events, rounds, send).await;
}

#[tokio::main]
async fn main() {
    // `cargo bench` hands over `--bench`; what is left are our numbers.
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(20_000);
    let rounds = numbers.get(1).map_or(5, |rounds| usize::try_from(*rounds).unwrap());
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    println!("{events} events a round, {rounds} rounds, {WINDOW} unconfirmed at the most");
    jetstream(events, rounds).await;
    kafka(events, rounds).await;
    amqp(events, rounds).await;
}
