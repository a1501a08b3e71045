//! The nats sink against a real server: what a subscriber gets, what each refusal becomes, and that it comes back.

use crate::sink_http::{event, sink};
use crate::support::brokers::nats::{Nats, NatsOptions, Received};
use crate::support::ending::ending as ending_of;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually};
use bytes::Bytes;
use futures_util::future::join_all;
use hookbus::envelope::{Attribute, Data, Envelope, Extensions};
use hookbus::sink::{Outcome, Reason, Sink};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A user who may publish below `hooks.` and use inboxes.
const LIMITED: &str = "authorization { users: [
    { user: app, password: right, permissions: { publish: [\"hooks.>\", \"_INBOX.>\"], subscribe: \"_INBOX.>\" } }
    { user: reader, password: reader }
] }";
/// The same user, who may publish nothing of ours.
const MUTE: &str = "authorization { users: [
    { user: app, password: right, permissions: { publish: [\"other.>\", \"_INBOX.>\"], subscribe: \"_INBOX.>\" } }
    { user: reader, password: reader }
] }";

/// A pair of keys that the documentation of NATS shows.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

pub(crate) fn limited() -> NatsOptions {
    NatsOptions { lines: LIMITED.to_owned(), login: "reader:reader@".to_owned(), ..NatsOptions::default() }
}

/// `[sinks.orders.KIND]` at this server.
pub(crate) fn keys(kind: &str, nats: &Nats, common: &str, more: &str) -> String {
    let url = nats.address();
    format!("[sinks.orders]\n{common}\n[sinks.orders.{kind}]\nurl = \"nats://{url}\"\n{more}")
}

fn core(nats: &Nats, common: &str, more: &str) -> Arc<dyn Sink> {
    sink(&keys("nats", nats, common, &format!("subject = \"hooks.a\"\n{more}")))
}

pub(crate) fn numbered(number: usize) -> Arc<Envelope> {
    let mut event = Envelope::clone(&event());
    event.id = format!("event-{number:05}");
    event.data = Data::Json(Bytes::from(format!("{{\"n\":{number}}}")));
    Arc::new(event)
}

/// An event whose attributes try everything: line breaks, NUL, 300 bytes, emoji, wildcards, empty tokens.
pub(crate) fn hostile() -> Arc<Envelope> {
    let mut event = Envelope::clone(&event());
    event.id = format!("a\r\nNats-Msg-Id: b\0\u{1f600} {}", "x".repeat(300));
    event.event_type = "..*.>.$JS.a b\r\nPUB x 0\r\n..".to_owned();
    event.extensions = Extensions::from([
        ("odd".into(), Attribute::Text("\r\n\r\n\u{7f}\u{e9}".to_owned())),
        ("tracestate".into(), Attribute::Text("a\r\nb".to_owned())),
    ]);
    Arc::new(event)
}

pub(crate) fn reason(outcome: &Outcome) -> (&'static str, Option<Reason>) {
    ending_of(outcome, &["PASSWORD", "right", "wrong"])
}

/// Delivers until it is delivered; what comes before must be `waits`, for which no attempt is counted.
pub(crate) async fn delivers_again(sink: &Arc<dyn Sink>, waits: Reason) {
    eventually("the sink delivers again", || async {
        let outcome = sink.deliver(&event()).await;
        let is_known = matches!(&outcome, Outcome::Away(failure) if failure.reason == waits
            || matches!(failure.reason, Reason::ConnectionRefused | Reason::ConnectionLost));
        assert!(is_known || outcome == Outcome::Delivered, "{outcome:?}");
        (outcome == Outcome::Delivered).then_some(())
    })
    .await;
}

pub(crate) fn ids(received: &[Received]) -> BTreeSet<String> {
    #[derive(serde::Deserialize)]
    struct Identity {
        id: String,
    }
    let id = |message: &Received| serde_json::from_slice::<Identity>(&message.payload).unwrap().id;
    received.iter().map(id).collect()
}

pub(crate) fn assert_structured(message: &Received) {
    assert_eq!(message.headers["Content-Type"], "application/cloudevents+json");
    assert_eq!(message.headers["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(message.payload, hookbus::sink::structured(&event()), "R7");
}

pub(crate) fn assert_binary(message: &Received) {
    assert_eq!(&message.payload[..], &event().data.bytes()[..], "R7");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "msg%20100%25%20%E2%82%AC"),
        ("ce-source", "//hookbus/sources/whatsapp"),
        ("ce-type", "io.z-api.message.received"),
        ("ce-subject", "a%0Ab"),
        ("ce-datacontenttype", "application/json"),
        ("ce-hookbussource", "whatsapp"),
        ("ce-replayed", "true"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        assert_eq!(message.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn both_forms_arrive_with_the_sender_s_bytes_untouched() {
    let nats = Nats::start().await;
    let subscriber = nats.subscribe("hooks.>").await;
    let structured = core(&nats, "", "");
    assert_eq!(structured.deliver(&event()).await, Outcome::Delivered);
    let binary = core(&nats, "format = \"binary\"", "");
    assert_eq!(binary.deliver(&event()).await, Outcome::Delivered);
    let received = subscriber.received_at_least(2).await;
    assert_structured(&received[0]);
    assert_binary(&received[1]);
    structured.close().await;
}

#[tokio::test]
async fn ten_thousand_at_once_arrive_all_and_need_no_subscriber() {
    let nats = Nats::start().await;
    let sink = core(&nats, "", "");
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered, "nobody listens");
    let subscriber = nats.subscribe("hooks.>").await;
    let events: Vec<_> = (0..10_000).map(numbered).collect();
    for outcome in join_all(events.iter().map(|event| sink.deliver(event))).await {
        assert_eq!(outcome, Outcome::Delivered);
    }
    let received = subscriber.received_at_least(10_000).await;
    assert_eq!(ids(&received), events.iter().map(|event| event.id.clone()).collect());
    assert_eq!(received.len(), 10_000, "each once");
}

#[tokio::test]
async fn what_a_sender_writes_stays_in_its_place() {
    let nats = Nats::start().await;
    let subscriber = nats.subscribe(">").await;
    let more = "subject = \"hooks.{type}.{missing}\"";
    let sink = sink(&keys("nats", &nats, "format = \"binary\"", more));
    assert_eq!(sink.deliver(&hostile()).await, Outcome::Delivered);
    let mut long = Envelope::clone(&event());
    long.event_type = "t".repeat(2000);
    assert_eq!(reason(&sink.deliver(&Arc::new(long)).await), ("reject", Some(Reason::NotEncodable)));
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered, "the connection lives");
    let received = subscriber.received_at_least(2).await;
    let hooks: Vec<_> = received.iter().filter(|message| message.subject.starts_with("hooks.")).collect();
    assert_eq!(hooks[0].subject, "hooks._._._._._JS.a_b__PUB_x_0__._._._");
    assert!(hooks[0].headers["ce-id"].starts_with("a%0D%0ANats-Msg-Id:%20b%00%F0%9F%98%80%20xxx"));
    assert_eq!(hooks[0].headers["ce-odd"], "%0D%0A%0D%0A%7F%C3%A9");
    assert!(!hooks[0].headers.contains_key("tracestate") && !hooks[0].headers.contains_key("Nats-Msg-Id"));
    assert_eq!(hooks[1].subject, "hooks.io.z-api.message.received._");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_harms_no_other() {
    let options = NatsOptions { lines: "max_payload: 8192".to_owned(), ..NatsOptions::default() };
    let nats = Nats::start_with(options).await;
    let subscriber = nats.subscribe("hooks.>").await;
    let sink = core(&nats, "", "");
    assert_eq!(sink.connect().await.unwrap().message_bytes_max, Some(4096));
    let mut large = Envelope::clone(&event());
    large.data = Data::Text(Bytes::from("x".repeat(8000)));
    let large = Arc::new(large);
    let events: Vec<_> = (0..100).map(numbered).collect();
    let neighbours = join_all(events.iter().map(|event| sink.deliver(event)));
    let (outcome, neighbours) = tokio::join!(sink.deliver(&large), neighbours);
    assert_eq!(reason(&outcome), ("reject", Some(Reason::TooLarge)));
    assert!(neighbours.iter().all(|outcome| *outcome == Outcome::Delivered), "{neighbours:?}");
    assert_eq!(subscriber.received_at_least(100).await.len(), 100);
}

#[tokio::test]
async fn a_limit_of_the_account_refuses_what_is_larger_and_lets_the_others_pass() {
    const LIMIT: usize = 2000;
    let lines = format!(
        "accounts {{ APP {{ limits {{ max_payload: {LIMIT} }}, users: [ {{ user: app, password: right }} ] }} }}"
    );
    let login = "app:right@".to_owned();
    let nats = Nats::start_with(NatsOptions { lines, login, without_jetstream: true }).await;
    let subscriber = nats.subscribe("hooks.>").await;
    let sink = core(&nats, "", "user = \"app\"\npassword = \"right\"");
    let large = |bytes: usize| {
        let mut large = Envelope::clone(&event());
        large.data = Data::Text(Bytes::from("x".repeat(bytes)));
        Arc::new(large)
    };
    let all: Vec<_> = [3000, 8000, 5000].into_iter().map(large).chain((0..50).map(numbered)).collect();
    let (mut open, mut refused, mut failures) = (all, Vec::new(), 0);
    while !open.is_empty() {
        let outcomes = join_all(open.iter().map(|event| sink.deliver(event))).await;
        let mut again = Vec::new();
        for (event, outcome) in open.into_iter().zip(outcomes) {
            match reason(&outcome) {
                ("delivered", _) => assert!(event.data.bytes().len() < LIMIT),
                ("reject", Some(Reason::TooLarge)) => refused.push(event.data.bytes().len()),
                ("retry" | "away", _) => again.push(event),
                other => panic!("{other:?}"),
            }
        }
        failures += usize::from(!again.is_empty());
        assert!(failures <= 3, "each costs a connection at most once: {} are open", again.len());
        open = again;
    }
    refused.sort_unstable();
    assert_eq!(refused, [3000, 5000, 8000]);
    assert_eq!(
        reason(&sink.deliver(&large(4000)).await),
        ("reject", Some(Reason::TooLarge)),
        "it is known by now"
    );
    assert!(ids(&subscriber.received_at_least(50).await).len() >= 50);
}

#[tokio::test]
async fn a_server_that_is_away_at_start_is_found_when_it_comes() {
    let nats = Nats::prepared(NatsOptions::default());
    let sink = core(&nats, "", "");
    assert_eq!(reason(&sink.deliver(&event()).await), ("away", Some(Reason::ConnectionRefused)));
    nats.start_again().await;
    delivers_again(&sink, Reason::ConnectionRefused).await;
    nats.stop().await;
    eventually("the stop is noticed", || async {
        let outcome = sink.deliver(&event()).await;
        (reason(&outcome) == ("away", Some(Reason::ConnectionRefused))).then_some(())
    })
    .await;
    nats.start_again().await;
    delivers_again(&sink, Reason::ConnectionRefused).await;

    let nameless =
        crate::sink_http::sink("[sinks.orders.nats]\nurl = \"nats://nobody.invalid\"\nsubject = \"a\"");
    assert_eq!(reason(&nameless.deliver(&event()).await), ("away", Some(Reason::NameNotResolved)));
    let several = format!("url = [\"nats://127.0.0.1:1\", \"nats://{}\"]", nats.address());
    let several = crate::sink_http::sink(&format!("[sinks.orders.nats]\n{several}\nsubject = \"hooks.a\""));
    assert_eq!(several.deliver(&event()).await, Outcome::Delivered, "one of several is enough");
}

#[tokio::test]
async fn nothing_that_waited_when_the_connection_broke_is_sent_behind_our_back() {
    const EVENTS: usize = 300;
    const BYTES: usize = 100_000;
    let nats = Nats::start().await;
    // A stream sees whatever comes, whoever sends it.
    nats.create_stream("SEEN", &["hooks.>"]).await;
    // The server stays, so that the client could connect to it again.
    let proxy = Proxy::start(nats.address().parse().unwrap()).await;
    let url = format!("nats://{}", proxy.address);
    let sink = sink(&format!("[sinks.orders.nats]\nurl = \"{url}\"\nsubject = \"hooks.a\""));
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    proxy.stall();
    // More than fits into the buffers of the system, so that most of it waits in the client.
    let mut large = Envelope::clone(&event());
    large.data = Data::Text(Bytes::from("x".repeat(BYTES)));
    let large = Arc::new(large);
    let sending = join_all((0..EVENTS).map(|_| sink.deliver(&large)));
    let breaking = async {
        for _ in 0..EVENTS {
            tokio::task::yield_now().await;
        }
        proxy.reset_all();
    };
    let (outcomes, ()) = tokio::join!(sending, breaking);
    for outcome in &outcomes {
        assert_eq!(reason(outcome), ("retry", Some(Reason::ConnectionLost)));
    }
    proxy.pass();
    for number in 0..100 {
        assert_eq!(sink.deliver(&numbered(number)).await, Outcome::Delivered);
    }
    assert_eq!(proxy.accepted(), 2, "the first connection and the one that the sink made itself");
    let seen = eventually("the stream has stored what was delivered", || async {
        let seen = nats.read_stream("SEEN");
        ids(&seen).contains("event-00099").then_some(seen)
    })
    .await;
    let large = seen.iter().filter(|message| message.payload.len() >= BYTES).count();
    assert_eq!((large, seen.len()), (0, 101));
}

#[tokio::test]
async fn a_server_that_takes_and_never_confirms_runs_into_the_time_out_and_is_left() {
    let nats = Nats::start().await;
    let sink = core(&nats, "timeout = \"300ms\"", "");
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    nats.signal("-STOP");
    assert_eq!(reason(&sink.deliver(&event()).await), ("retry", Some(Reason::Timeout)));
    assert_eq!(
        reason(&sink.deliver(&event()).await),
        ("away", Some(Reason::Timeout)),
        "a new connection is tried"
    );
    nats.signal("-CONT");
    delivers_again(&sink, Reason::Timeout).await;
}

#[tokio::test]
async fn a_refused_publish_is_never_delivered_and_passes_once_it_is_allowed() {
    let nats = Nats::start_with(NatsOptions { lines: MUTE.to_owned(), ..limited() }).await;
    let subscriber = nats.subscribe("hooks.>").await;
    let sink = core(&nats, "", "user = \"app\"\npassword = \"right\"");
    let events: Vec<_> = (0..500).map(numbered).collect();
    for outcome in join_all(events.iter().map(|event| sink.deliver(event))).await {
        assert_eq!(reason(&outcome), ("away", Some(Reason::NotAuthorized)), "{outcome:?}");
    }
    nats.reload(LIMITED).await;
    delivers_again(&sink, Reason::NotAuthorized).await;
    assert_eq!(subscriber.received_at_least(1).await.len(), 1);
}

/// Delivers events that lead to allowed and to forbidden subjects, all at once and whatever stays open again. Returns the
/// subjects that were delivered.
pub(crate) async fn delivers_among_forbidden(sink: &Arc<dyn Sink>) -> BTreeSet<String> {
    const EVENTS: usize = 1000;
    let mut open: Vec<_> = (0..EVENTS)
        .map(|number| {
            let mut event = Envelope::clone(&numbered(number));
            let kind = if number % 2 == 0 { "bad" } else { "good" };
            // Some lead to the same subject, some to one of their own.
            event.event_type = format!("{kind}.{}", number % 700);
            Arc::new(event)
        })
        .collect();
    let (mut rejected, mut delivered, mut rounds) = (0, BTreeSet::new(), 0);
    while !open.is_empty() {
        let outcomes = join_all(open.iter().map(|event| sink.deliver(event))).await;
        let mut again = Vec::new();
        for (event, outcome) in open.into_iter().zip(outcomes) {
            match (event.event_type.split('.').next().unwrap(), reason(&outcome)) {
                ("good", ("delivered", _)) => _ = delivered.insert(format!("hooks.{}", event.event_type)),
                ("bad", ("reject", Some(Reason::NotAuthorized))) => {
                    let Outcome::Reject(failure) = outcome else { unreachable!() };
                    assert!(failure.detail.contains(&event.event_type), "{failure}");
                    rejected += 1;
                }
                (_, ("retry", Some(Reason::ConnectionLost))) | ("bad", ("retry", Some(Reason::Timeout))) => {
                    again.push(event)
                }
                other => panic!("{}: {other:?}", event.event_type),
            }
        }
        rounds += usize::from(!again.is_empty());
        assert!(rounds <= 1, "so many refusals as to be unclear are met once: {} are open", again.len());
        open = again;
    }
    assert_eq!(rejected, EVENTS / 2);
    delivered
}

#[tokio::test]
async fn a_sender_who_chooses_forbidden_subjects_stops_no_other_event() {
    let lines = LIMITED.replace("hooks.>", "hooks.good.>");
    let nats = Nats::start_with(NatsOptions { lines, ..limited() }).await;
    let subscriber = nats.subscribe("hooks.>").await;
    let more = "subject = \"hooks.{type}\"\nuser = \"app\"\npassword = \"right\"";
    let sink = sink(&keys("nats", &nats, "", more));
    let delivered = delivers_among_forbidden(&sink).await;
    let received = subscriber.received_at_least(500).await;
    assert_eq!(received.iter().map(|message| message.subject.clone()).collect::<BTreeSet<_>>(), delivered);

    let mut bad = Envelope::clone(&event());
    bad.event_type = "bad".to_owned();
    let bad = Arc::new(bad);
    assert_eq!(reason(&sink.deliver(&bad).await), ("reject", Some(Reason::NotAuthorized)));
    nats.reload(LIMITED).await;
    eventually("what is granted suffices", || async {
        (sink.deliver(&bad).await == Outcome::Delivered).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_user_without_an_inbox_is_told_so() {
    let lines = LIMITED.replace("subscribe: \"_INBOX.>\"", "subscribe: \"private.>\"");
    let nats = Nats::start_with(NatsOptions { lines, ..limited() }).await;
    let sink = core(&nats, "", "user = \"app\"\npassword = \"right\"");
    let outcome = sink.deliver(&event()).await;
    assert_eq!(reason(&outcome), ("away", Some(Reason::NotAuthorized)));
    let Outcome::Away(failure) = outcome else { unreachable!() };
    assert!(failure.detail.contains("_INBOX."), "{failure}");
    let lines = LIMITED.replace("_INBOX.>", "private.>");
    let nats = Nats::start_with(NatsOptions { lines, ..limited() }).await;
    let sink = core(&nats, "", "user = \"app\"\npassword = \"right\"\ninbox_prefix = \"private.in\"");
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
}

#[tokio::test]
async fn wrong_credentials_are_read_anew_once_they_are_right() {
    let nats = Nats::start_with(limited()).await;
    let file = nats.folder().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let more = format!("user = \"app\"\npassword = {{ file = {file:?} }}");
    let sink = core(&nats, "", &more);
    assert_eq!(reason(&sink.deliver(&event()).await), ("away", Some(Reason::NotAuthorized)));
    std::fs::write(&file, "right\n").unwrap();
    delivers_again(&sink, Reason::NotAuthorized).await;
}

#[tokio::test]
async fn every_way_to_log_in_works() {
    let nkey = format!("authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}");
    let token = "authorization { token: \"t k%\" }";
    let user = "authorization { user: \"a@b\", password: \"p:w/d\" }";
    for (sentence, lines, url, more) in [
        ("user and password", user, "", "user = \"a@b\"\npassword = \"p:w/d\""),
        ("the same in the URL", user, "a%40b:p%3Aw%2Fd@", ""),
        ("a token", token, "", "token = \"t k%\""),
        ("the same in the URL", token, "t%20k%25@", ""),
        ("an NKey", nkey.as_str(), "", &format!("nkey = \"{SEED}\"")),
    ] {
        let nats = Nats::start_with(NatsOptions { lines: lines.to_owned(), ..NatsOptions::default() }).await;
        let keys = |url: &str, more: &str| {
            format!("[sinks.orders.nats]\nurl = \"nats://{url}{}\"\nsubject = \"a\"\n{more}", nats.address())
        };
        assert_eq!(sink(&keys(url, more)).deliver(&event()).await, Outcome::Delivered, "{sentence}");
        let nobody = sink(&keys("", "")).deliver(&event()).await;
        assert_eq!(reason(&nobody), ("away", Some(Reason::NotAuthorized)), "{sentence}");
    }
}

#[tokio::test]
async fn a_credentials_file_logs_in_and_is_read_anew() {
    const RIGHT: &str = include_str!("support/brokers/nats_app.creds");
    let lines = include_str!("support/brokers/nats_operator.conf").to_owned();
    let nats =
        Nats::start_with(NatsOptions { lines, without_jetstream: true, ..NatsOptions::default() }).await;
    let file = nats.folder().join("app.creds");
    let seed = RIGHT.lines().find(|line| line.starts_with("SU")).unwrap();
    std::fs::write(&file, RIGHT.replace(seed, SEED)).unwrap();
    let sink = core(&nats, "", &format!("credentials = {{ file = {file:?} }}"));
    assert_eq!(
        reason(&sink.deliver(&event()).await),
        ("away", Some(Reason::NotAuthorized)),
        "another's seed"
    );
    // Nothing behind the last line that counts, not even its end.
    let needed = RIGHT.split_once("END USER NKEY SEED------").unwrap().0;
    std::fs::write(&file, format!("{needed}END USER NKEY SEED------")).unwrap();
    delivers_again(&sink, Reason::NotAuthorized).await;
}

#[tokio::test]
async fn a_delivery_that_is_given_up_harms_no_other() {
    let nats = Nats::start().await;
    let sink = core(&nats, "", "");
    let events: Vec<_> = (0..100).map(numbered).collect();
    let borrowed = &sink;
    let deliver = |event| async move {
        let delivery = borrowed.deliver(event);
        tokio::select! { biased;
            () = tokio::task::yield_now() => None,
            outcome = delivery => Some(outcome),
        }
    };
    join_all(events.iter().map(deliver)).await;
    let after = join_all(events.iter().map(|event| sink.deliver(event)));
    for outcome in tokio::time::timeout(PATIENCE, after).await.unwrap() {
        assert_eq!(outcome, Outcome::Delivered);
    }
}
