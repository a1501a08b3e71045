//! The http sink against real servers: what they receive, and what becomes of each way in which they answer or do not.

use crate::support::ending::ending as ending_of;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hookbus::config::Layers;
use hookbus::envelope::{Attribute, Data, Envelope, Extensions, SinkName};
use hookbus::shutdown::Shutdown;
use hookbus::sink::{ConfiguredSink, Outcome, Reason, Sink};

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLD_SECRET: &str = "whsec_b2xkIGtleSBvZiBzb21lYm9keQ==";
const BODY: &[u8] = b"{ \"n\": 12345678901234567.10, \"n\": 1,\n \"caf\\u00e9\": 1e400 }";

pub(crate) fn sink(keys: &str) -> Arc<dyn Sink> {
    let layers = Layers::load(Some(keys), None, &[]).unwrap();
    let section = layers.root().child("sinks").child("orders");
    let configured = ConfiguredSink::parse(SinkName::new("orders").unwrap(), &section).unwrap();
    configured.build(&std::env::temp_dir(), &Shutdown::new()).unwrap()
}

pub(crate) fn event() -> Arc<Envelope> {
    Arc::new(Envelope {
        id: "msg 100% \u{20ac}".to_owned(),
        source: "//hookbus/sources/whatsapp".to_owned(),
        event_type: "io.z-api.message.received".to_owned(),
        subject: Some("a\nb".to_owned()),
        time: Some("2026-01-31T12:00:00.000Z".to_owned()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: Extensions::from([
            ("hookbussource".into(), "whatsapp".into()),
            ("replayed".into(), Attribute::Bool(true)),
            ("traceparent".into(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ]),
        data: Data::Json(Bytes::from_static(BODY)),
    })
}

/// A server that answers every request the same way and remembers what it got.
#[derive(Clone, Default)]
struct Receiver {
    answer: (StatusCode, HeaderMap),
    received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Receiver {
    async fn start(status: u16, headers: &[(&'static str, &str)]) -> (Self, SocketAddr) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
        let receiver = Receiver {
            answer: (StatusCode::from_u16(status).unwrap(), headers.collect()),
            received: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(Self::take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, address)
    }

    async fn take(
        State(receiver): State<Receiver>,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, HeaderMap, String) {
        receiver.received.lock().unwrap().push((headers, body));
        (receiver.answer.0, receiver.answer.1, "ANSWERSECRET".repeat(10_000))
    }

    fn only(&self) -> (HeaderMap, Bytes) {
        let received = self.received.lock().unwrap();
        assert_eq!(received.len(), 1);
        received[0].clone()
    }
}

fn keys(address: SocketAddr, more: &str) -> String {
    format!("[sinks.orders.http]\nurl = \"http://user:PASSWORD@{address}/PATHSECRET?q=QUERYSECRET\"\n{more}")
}

fn name(outcome: &Outcome) -> (&'static str, Option<Reason>) {
    ending_of(outcome, &["PASSWORD", "PATHSECRET", "QUERYSECRET", "ANSWERSECRET", "user"])
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("{name} is missing")).to_str().unwrap()
}

#[tokio::test]
async fn a_structured_event_arrives_with_the_sender_s_bytes_untouched() {
    let (receiver, address) = Receiver::start(204, &[]).await;
    let more = "headers = { Authorization = \"Bearer abc\" }";
    assert_eq!(sink(&keys(address, more)).deliver(&event()).await, Outcome::Delivered);
    let (headers, body) = receiver.only();
    assert_eq!(text(&headers, "content-type"), "application/cloudevents+json; charset=UTF-8");
    assert_eq!(text(&headers, "traceparent"), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.ends_with(&format!(",\"data\":{}}}", std::str::from_utf8(BODY).unwrap())), "R7: {body}");
    assert!(body.starts_with("{\"specversion\":\"1.0\",\"id\":\"msg 100% \u{20ac}\""), "{body}");
    assert!(headers.get("webhook-signature").is_none());
}

#[tokio::test]
async fn a_binary_event_is_the_sender_s_body_with_attributes_as_headers() {
    let (receiver, address) = Receiver::start(200, &[]).await;
    let keys = format!("[sinks.orders]\nformat = \"binary\"\n{}", keys(address, ""));
    assert_eq!(sink(&keys).deliver(&event()).await, Outcome::Delivered);
    let (headers, body) = receiver.only();
    assert_eq!(&body[..], BODY);
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "msg%20100%25%20%E2%82%AC"),
        ("ce-source", "//hookbus/sources/whatsapp"),
        ("ce-type", "io.z-api.message.received"),
        ("ce-subject", "a%0Ab"),
        ("ce-time", "2026-01-31T12:00:00.000Z"),
        ("ce-hookbussource", "whatsapp"),
        ("ce-replayed", "true"),
    ] {
        assert_eq!(text(&headers, name), value);
    }
    assert!(headers.get("ce-datacontenttype").is_none());
}

#[tokio::test]
async fn every_live_key_signs_what_was_sent() {
    let (receiver, address) = Receiver::start(200, &[]).await;
    let more = format!("secret = [\"{SECRET}\", \"{OLD_SECRET}\"]");
    assert_eq!(sink(&keys(address, &more)).deliver(&event()).await, Outcome::Delivered);
    let (headers, body) = receiver.only();
    let (id, timestamp) = (text(&headers, "webhook-id"), text(&headers, "webhook-timestamp"));
    assert_eq!(id, "msg%20100%25%20%E2%82%AC");
    let now = hookbus::clock::now().0 / 1000;
    assert!((now - 300..=now).contains(&timestamp.parse().unwrap()), "{timestamp}");
    let expected: Vec<String> = [SECRET, OLD_SECRET]
        .iter()
        .map(|secret| {
            let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
            mac.update(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat());
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    assert_eq!(text(&headers, "webhook-signature"), expected.join(" "));
}

#[tokio::test]
async fn each_class_of_answer_has_its_ending_and_none_reveals_a_secret() {
    for (sentence, status, headers, ending, reason) in [
        ("a failure of its own", 500, &[][..], "retry", Some(Reason::SinkError)),
        ("what it refuses", 422, &[], "reject", Some(Reason::ContentRefused)),
        ("what is too large", 413, &[], "reject", Some(Reason::TooLarge)),
        ("credentials", 401, &[], "away", Some(Reason::NotAuthorized)),
        ("a wrong path", 404, &[], "away", Some(Reason::DestinationMissing)),
        ("a place that is gone", 410, &[], "away", Some(Reason::DestinationGone)),
        ("an event it has", 409, &[], "delivered", None),
        ("a redirect", 308, &[("location", "/elsewhere")], "retry", Some(Reason::DestinationMoved)),
        ("too much", 429, &[("retry-after", "7")], "busy", Some(Reason::Throttled)),
        ("maintenance", 503, &[("retry-after", "7")], "busy", Some(Reason::Throttled)),
        ("a failure without a time", 503, &[("retry-after", "soon")], "retry", Some(Reason::SinkError)),
    ] {
        let (receiver, address) = Receiver::start(status, headers).await;
        let outcome = sink(&keys(address, "")).deliver(&event()).await;
        assert_eq!(name(&outcome), (ending, reason), "{sentence}: {outcome:?}");
        receiver.only();
    }
}

#[tokio::test]
async fn retry_after_says_how_long_in_seconds_or_as_a_date() {
    let in_an_hour = jiff::Timestamp::from_millisecond(hookbus::clock::now().0 + 7_200_000).unwrap();
    let date = in_an_hour.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (value, seconds) in [("7", 7), (date.as_str(), 3600)] {
        let (_receiver, address) = Receiver::start(429, &[("retry-after", value)]).await;
        let outcome = sink(&keys(address, "")).deliver(&event()).await;
        let Outcome::Busy { wait, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(wait, Some(Duration::from_secs(seconds)), "{value}");
    }
}

/// Answers each connection by `serve`, counting them.
async fn raw_server<F, R>(serve: F) -> (SocketAddr, Arc<Mutex<usize>>)
where
    F: Fn(TcpStream, usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = *counter.lock().unwrap();
            *counter.lock().unwrap() += 1;
            tokio::spawn(serve(stream, number));
        }
    });
    (address, accepted)
}

/// Reads one request whose body ends as the test's event does.
async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"1e400 }}") {
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

#[tokio::test]
async fn a_server_that_never_answers_runs_into_the_time_out() {
    let (address, _) = raw_server(|mut stream, _| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let keys = format!("[sinks.orders]\ntimeout = \"200ms\"\n{}", keys(address, ""));
    assert_eq!(name(&sink(&keys).deliver(&event()).await), ("retry", Some(Reason::Timeout)));
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_leaves_the_outcome_unknown() {
    let (address, accepted) =
        raw_server(|mut stream, _| async move { read_request(&mut stream).await }).await;
    assert_eq!(
        name(&sink(&keys(address, "")).deliver(&event()).await),
        ("retry", Some(Reason::ConnectionLost))
    );
    assert_eq!(*accepted.lock().unwrap(), 1, "a fresh connection is no reason to try again at once");
}

#[tokio::test]
async fn a_kept_connection_that_breaks_is_replaced_at_once() {
    let (address, accepted) = raw_server(|mut stream, number| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        read_request(&mut stream).await;
        if number > 0 {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let sink = sink(&keys(address, ""));
    for _ in 0..2 {
        assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    }
    assert_eq!(*accepted.lock().unwrap(), 2);
}

#[tokio::test]
async fn nobody_there_is_away_and_connecting_says_so_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = sink(&keys(address, ""));
    assert_eq!(name(&refused.deliver(&event()).await), ("away", Some(Reason::ConnectionRefused)));
    assert_eq!(refused.connect().await.unwrap_err().reason, Reason::ConnectionRefused);
    let nameless = sink("[sinks.orders.http]\nurl = \"http://nobody.invalid/\"");
    assert_eq!(name(&nameless.deliver(&event()).await), ("away", Some(Reason::NameNotResolved)));

    let (receiver, address) = Receiver::start(405, &[]).await;
    assert!(sink(&keys(address, "")).connect().await.is_ok());
    assert!(receiver.only().1.is_empty(), "connecting delivers nothing");
}

#[tokio::test]
async fn the_guard_judges_what_a_name_resolves_to() {
    let (receiver, address) = Receiver::start(200, &[]).await;
    let named = |more: &str| {
        let port = address.port();
        sink(&format!("[sinks.orders.http]\nurl = \"http://localhost:{port}/\"\n{more}"))
    };
    let guarded = named("deny_private_addresses = true");
    assert_eq!(name(&guarded.deliver(&event()).await), ("away", Some(Reason::AddressForbidden)));
    assert!(receiver.received.lock().unwrap().is_empty());
    let excepted = named("deny_private_addresses = true\nallow_addresses = [\"127.0.0.1\"]");
    assert_eq!(excepted.deliver(&event()).await, Outcome::Delivered);
}
