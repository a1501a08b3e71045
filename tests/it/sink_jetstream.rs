//! The jetstream sink against a real server: what the stream keeps, what each refusal becomes, and that it comes back.

use crate::sink_http::{event, sink};
use crate::sink_nats::{
    assert_binary, assert_structured, delivers_again, delivers_among_forbidden, hostile, ids, keys, limited,
    numbered, reason,
};
use crate::support::authority::Authority;
use crate::support::brokers::nats::{Nats, NatsOptions};
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy};
use bytes::Bytes;
use futures_util::future::join_all;
use hookbus::envelope::{Attribute, Data, Envelope};
use hookbus::sink::{Outcome, Reason, Sink};
use std::sync::Arc;

fn stream(nats: &Nats, common: &str, more: &str) -> Arc<dyn Sink> {
    let more = format!("stream = \"EVENTS\"\nsubject = \"hooks.a\"\n{more}");
    sink(&keys("jetstream", nats, common, &more))
}

fn events() -> StreamConfig {
    StreamConfig {
        name: "EVENTS".to_owned(),
        subjects: vec!["hooks.>".to_owned()],
        ..StreamConfig::default()
    }
}

async fn nats_with_stream() -> Nats {
    let nats = Nats::start().await;
    nats.create_stream_with(events()).await;
    nats
}

fn with(change: impl FnOnce(&mut Envelope)) -> Arc<Envelope> {
    let mut event = Envelope::clone(&event());
    change(&mut event);
    Arc::new(event)
}

#[tokio::test]
async fn both_forms_are_kept_with_the_sender_s_bytes_untouched() {
    let nats = nats_with_stream().await;
    let structured = stream(&nats, "", "");
    assert_eq!(structured.deliver(&event()).await, Outcome::Delivered);
    let more = "stream = \"EVENTS\"\nsubject = \"hooks.{type}\"";
    let binary = sink(&keys("jetstream", &nats, "format = \"binary\"", more));
    assert_eq!(
        binary.deliver(&with(|event| event.source = "//elsewhere".to_owned())).await,
        Outcome::Delivered
    );
    let kept = nats.read_stream("EVENTS");
    assert_structured(&kept[0]);
    assert_eq!(kept[0].headers["Nats-Expected-Stream"], "EVENTS");
    assert_eq!(
        kept[0].headers["Nats-Msg-Id"],
        "orders|whatsapp|//hookbus/sources/whatsapp|msg%20100%25%20%E2%82%AC"
    );
    assert_eq!(
        (kept[0].subject.as_str(), kept[1].subject.as_str()),
        ("hooks.a", "hooks.io.z-api.message.received")
    );
    assert_eq!(kept[1].headers["ce-source"], "//elsewhere");
    assert_eq!(kept[1].payload, event().data.bytes()[..]);
    structured.close().await;
}

#[tokio::test]
async fn a_binary_message_has_every_attribute() {
    let nats = nats_with_stream().await;
    assert_eq!(stream(&nats, "format = \"binary\"", "").deliver(&event()).await, Outcome::Delivered);
    assert_binary(&nats.read_stream("EVENTS")[0]);
}

#[tokio::test]
async fn ten_thousand_at_once_are_kept_and_what_comes_again_is_kept_once() {
    let nats = nats_with_stream().await;
    let sink = stream(&nats, "", "");
    let events: Vec<_> = (0..10_000).map(numbered).collect();
    for window in events.chunks(1000).chain(events.chunks(1000).take(1)) {
        for outcome in join_all(window.iter().map(|event| sink.deliver(event))).await {
            assert_eq!(outcome, Outcome::Delivered);
        }
    }
    let kept = nats.read_stream("EVENTS");
    assert_eq!(kept.len(), 10_000, "each once");
    assert_eq!(ids(&kept), events.iter().map(|event| event.id.clone()).collect());
}

#[tokio::test]
async fn the_same_id_of_another_source_or_without_identity_is_another_event() {
    let nats = nats_with_stream().await;
    let sink = stream(&nats, "", "");
    let nameless =
        with(|event| _ = event.extensions.insert("dedupe".into(), Attribute::Text("none".to_owned())));
    assert!(!nameless.can_repeat());
    let named = |source: &str, id: &str| with(|event| (event.source, event.id) = (source.into(), id.into()));
    let through_another = with(|event| _ = event.extensions.insert("hookbussource".into(), "other".into()));
    let events = [
        event(),
        with(|event| event.source = "//elsewhere".to_owned()),
        through_another,
        named("a|b", "c"),
        named("a", "b|c"),
        nameless.clone(),
        nameless,
    ];
    for event in &events {
        assert_eq!(sink.deliver(event).await, Outcome::Delivered);
    }
    assert_eq!(nats.read_stream("EVENTS").len(), events.len());
}

#[tokio::test]
async fn what_a_sender_writes_stays_in_its_place() {
    let nats = nats_with_stream().await;
    let more = "stream = \"EVENTS\"\nsubject = \"hooks.{type}\"";
    let sink = sink(&keys("jetstream", &nats, "format = \"binary\"", more));
    assert_eq!(sink.deliver(&hostile()).await, Outcome::Delivered);
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered, "the connection lives");
    let kept = nats.read_stream("EVENTS");
    assert_eq!(kept[0].subject, "hooks._._._._._JS.a_b__PUB_x_0__._._");
    assert!(kept[0].headers["Nats-Msg-Id"].contains("a%0D%0ANats-Msg-Id:%20b%00%F0%9F%98%80%20xxx"));
}

#[tokio::test]
async fn a_stream_that_is_missing_is_found_when_it_is_created_also_again() {
    let nats = Nats::start().await;
    let sink = stream(&nats, "", "");
    assert_eq!(reason(&sink.deliver(&event()).await), ("away", Some(Reason::DestinationMissing)));
    assert_eq!(sink.connect().await.unwrap_err().reason, Reason::DestinationMissing);
    nats.create_stream_with(events()).await;
    delivers_again(&sink, Reason::DestinationMissing).await;
    assert!(sink.connect().await.is_ok());

    nats.delete_stream("EVENTS").await;
    let outcome = sink.deliver(&event()).await;
    assert_eq!(reason(&outcome), ("away", Some(Reason::DestinationMissing)));
    let Outcome::Away(failure) = outcome else { unreachable!() };
    assert!(failure.detail.contains("EVENTS") && failure.detail.contains("does not exist"), "{failure}");
    nats.create_stream_with(events()).await;
    delivers_again(&sink, Reason::DestinationMissing).await;
    assert_eq!(nats.read_stream("EVENTS").len(), 1);
}

#[tokio::test]
async fn a_subject_that_the_stream_does_not_take_refuses_its_event_only_until_it_does() {
    let nats = nats_with_stream().await;
    let templated = "stream = \"EVENTS\"\nsubject = \"{hookbussource}.{type}\"\nsubject_allowed = [\"*\"]";
    let templated = sink(&keys("jetstream", &nats, "", templated));
    assert_eq!(reason(&templated.deliver(&event()).await), ("reject", Some(Reason::DestinationMissing)));
    let known = with(|event| _ = event.extensions.insert("hookbussource".into(), "hooks".into()));
    assert_eq!(templated.deliver(&known).await, Outcome::Delivered, "others pass");
    let constant = sink(&keys("jetstream", &nats, "", "stream = \"EVENTS\"\nsubject = \"whatsapp.a\""));
    assert_eq!(reason(&constant.deliver(&event()).await), ("away", Some(Reason::DestinationMissing)));
    assert_eq!(constant.connect().await.unwrap_err().reason, Reason::DestinationMissing);
    let subjects = vec!["hooks.>".to_owned(), "whatsapp.>".to_owned()];
    nats.update_stream(StreamConfig { subjects, ..events() }).await;
    delivers_again(&constant, Reason::DestinationMissing).await;
    assert_eq!(templated.deliver(&with(|event| event.id = "n".to_owned())).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_subject_that_moved_to_another_stream_is_not_taken_for_ours() {
    let nats = nats_with_stream().await;
    let sink = stream(&nats, "", "");
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    nats.update_stream(StreamConfig { subjects: vec!["else.>".to_owned()], ..events() }).await;
    nats.create_stream("OTHER", &["hooks.>"]).await;
    assert_eq!(reason(&sink.deliver(&numbered(1)).await), ("away", Some(Reason::DestinationMissing)));
    assert!(nats.read_stream("OTHER").is_empty());
}

#[tokio::test]
async fn a_full_stream_asks_for_less_and_goes_on_when_there_is_room() {
    let nats = Nats::start().await;
    nats.create_stream_with(StreamConfig { max_messages: 2, discard: DiscardPolicy::New, ..events() }).await;
    let sink = stream(&nats, "", "");
    for number in 0..2 {
        assert_eq!(sink.deliver(&numbered(number)).await, Outcome::Delivered);
    }
    assert_eq!(reason(&sink.deliver(&numbered(2)).await), ("busy", Some(Reason::Throttled)));
    nats.purge_stream("EVENTS").await;
    assert_eq!(sink.deliver(&numbered(2)).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_stream_that_takes_or_confirms_nothing_is_no_destination() {
    let nats = nats_with_stream().await;
    let sink = stream(&nats, "", "");
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    nats.update_stream(StreamConfig { sealed: true, ..events() }).await;
    assert_eq!(reason(&sink.deliver(&numbered(1)).await), ("away", Some(Reason::DestinationMissing)));
    assert_eq!(
        reason(&stream(&nats, "", "").deliver(&event()).await),
        ("away", Some(Reason::DestinationMissing))
    );
    let nats = Nats::start().await;
    nats.create_stream_with(StreamConfig { no_ack: true, ..events() }).await;
    let outcome = stream(&nats, "", "").deliver(&event()).await;
    assert_eq!(
        reason(&outcome),
        ("away", Some(Reason::DestinationMissing)),
        "or each would run into its time-out"
    );
}

#[tokio::test]
async fn what_is_too_large_for_the_stream_or_the_server_is_refused_and_harms_no_other() {
    let nats = Nats::start().await;
    nats.create_stream_with(StreamConfig { max_message_size: 8192, ..events() }).await;
    let sink = stream(&nats, "", "");
    assert_eq!(sink.connect().await.unwrap().message_bytes_max, Some(4096));
    let large = with(|event| event.data = Data::Text(Bytes::from("x".repeat(8000))));
    let huge = with(|event| event.data = Data::Text(Bytes::from("x".repeat(1_048_576))));
    let headers = stream(&nats, "format = \"binary\"", "");
    let wide = with(|event| _ = event.extensions.insert("wide".into(), Attribute::Text("x".repeat(65_536))));
    let events: Vec<_> = (0..100).map(numbered).collect();
    let neighbours = join_all(events.iter().map(|event| sink.deliver(event)));
    let (large, huge, wide, neighbours) =
        tokio::join!(sink.deliver(&large), sink.deliver(&huge), headers.deliver(&wide), neighbours);
    for outcome in [large, huge, wide] {
        assert_eq!(reason(&outcome), ("reject", Some(Reason::TooLarge)), "{outcome:?}");
    }
    assert!(neighbours.iter().all(|outcome| *outcome == Outcome::Delivered), "{neighbours:?}");
    assert_eq!(nats.read_stream("EVENTS").len(), 100);
}

#[tokio::test]
async fn a_limit_that_was_raised_or_lowered_is_noticed() {
    let nats = nats_with_stream().await;
    let sink = stream(&nats, "", "");
    let large = with(|event| event.data = Data::Text(Bytes::from("x".repeat(8000))));
    assert_eq!(sink.deliver(&large).await, Outcome::Delivered);
    nats.update_stream(StreamConfig { max_message_size: 1000, ..events() }).await;
    let larger = with(|event| event.data = Data::Text(Bytes::from("x".repeat(8001))));
    assert_eq!(
        reason(&sink.deliver(&larger).await),
        ("reject", Some(Reason::TooLarge)),
        "by the stream's own answer"
    );
}

#[tokio::test]
async fn a_server_killed_in_the_middle_loses_nothing_that_was_confirmed() {
    let nats = nats_with_stream().await;
    let sink = stream(&nats, "", "");
    let events: Vec<_> = (0..2000).map(numbered).collect();
    let sending = join_all(events.iter().map(|event| sink.deliver(event)));
    let killing = async {
        let manager = nats.manager().await;
        let mut kept = manager.get_stream("EVENTS").await.unwrap();
        while kept.info().await.unwrap().state.messages < 20 {}
        nats.kill();
    };
    let (outcomes, ()) = tokio::join!(sending, killing);
    let open: Vec<_> = events
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| {
            assert!(matches!(reason(outcome).0, "delivered" | "retry" | "away"), "{outcome:?}");
            **outcome != Outcome::Delivered
        })
        .map(|(event, _)| event)
        .collect();
    assert!(!open.is_empty(), "the kill came in the middle");
    assert_eq!(reason(&sink.deliver(&event()).await), ("away", Some(Reason::ConnectionRefused)));
    nats.start_again().await;
    delivers_again(&sink, Reason::ConnectionRefused).await;
    for outcome in join_all(open.iter().map(|event| sink.deliver(event))).await {
        assert_eq!(outcome, Outcome::Delivered);
    }
    let kept = ids(&nats.read_stream("EVENTS"));
    assert!(events.iter().all(|event| kept.contains(&event.id)));
}

#[tokio::test]
async fn a_server_that_takes_and_never_confirms_runs_into_the_time_out_and_is_left() {
    let nats = nats_with_stream().await;
    let sink = stream(&nats, "timeout = \"300ms\"", "");
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    nats.signal("-STOP");
    assert_eq!(reason(&sink.deliver(&numbered(1)).await), ("retry", Some(Reason::Timeout)));
    assert_eq!(
        reason(&sink.deliver(&numbered(1)).await),
        ("away", Some(Reason::Timeout)),
        "a new connection is tried"
    );
    nats.signal("-CONT");
    delivers_again(&sink, Reason::Timeout).await;
}

#[tokio::test]
async fn permissions_that_are_missing_are_named_and_suffice_once_granted() {
    let granted = limited().lines.replace("\"_INBOX.>\"]", "\"$JS.API.STREAM.INFO.EVENTS\"]");
    let mute = granted.replace("hooks.>", "other.>");
    let nats = Nats::start_with(NatsOptions { lines: limited().lines, ..limited() }).await;
    nats.create_stream_with(events()).await;
    let sink = stream(&nats, "", "user = \"app\"\npassword = \"right\"");
    for (sentence, lines, named) in [
        ("the stream may not be asked for", limited().lines, "$JS.API.STREAM.INFO.EVENTS"),
        ("nothing may be published there", mute, "hooks.a"),
    ] {
        nats.reload(&lines).await;
        let outcome = sink.deliver(&event()).await;
        assert_eq!(reason(&outcome), ("away", Some(Reason::NotAuthorized)), "{sentence}");
        let Outcome::Away(failure) = outcome else { unreachable!() };
        assert!(failure.detail.contains(named), "{sentence}: {failure}");
        nats.reload(&granted).await;
        delivers_again(&sink, Reason::NotAuthorized).await;
    }
}

#[tokio::test]
async fn a_sender_who_chooses_forbidden_subjects_stops_no_other_event() {
    let good = "\"hooks.good.>\", \"$JS.API.STREAM.INFO.EVENTS\"";
    let lines = limited().lines.replace("\"hooks.>\", \"_INBOX.>\"", good);
    let nats = Nats::start_with(NatsOptions { lines, ..limited() }).await;
    nats.create_stream_with(events()).await;
    let more = "stream = \"EVENTS\"\nsubject = \"hooks.{type}\"\nuser = \"app\"\npassword = \"right\"";
    let sink = sink(&keys("jetstream", &nats, "timeout = \"5s\"", more));
    // Of so many at once the client may lose refusals, which then run into the time-out.
    let delivered = delivers_among_forbidden(&sink).await;
    let kept: Vec<_> = nats.read_stream("EVENTS").into_iter().map(|message| message.subject).collect();
    assert_eq!(kept.len(), 500);
    assert_eq!(kept.into_iter().collect::<std::collections::BTreeSet<_>>(), delivered);
}

#[tokio::test]
async fn a_server_without_jetstream_is_no_destination() {
    let nats = Nats::start_with(NatsOptions { without_jetstream: true, ..NatsOptions::default() }).await;
    let outcome = stream(&nats, "", "").deliver(&event()).await;
    assert_eq!(reason(&outcome), ("away", Some(Reason::DestinationMissing)));
}

#[tokio::test]
async fn over_tls_both_sides_show_certificates_and_trust_only_their_authority() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (authority, ca, names) in [
        (Authority::new(), "ca.pem", &["server", "client"][..]),
        (Authority::new(), "stranger-ca.pem", &["stranger"]),
    ] {
        authority.file(folder.path(), ca);
        for name in names {
            authority.leaf_files(folder.path(), name);
        }
    }
    let lines = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        at("server.pem"),
        at("server.key"),
        at("ca.pem")
    );
    let nats = Nats::start_with(NatsOptions { lines, ..NatsOptions::default() }).await;
    let port = nats.address().rsplit_once(':').unwrap().1.to_owned();
    let core = |scheme: &str, more: &str| {
        sink(&format!("[sinks.orders.nats]\nurl = \"{scheme}://localhost:{port}\"\nsubject = \"a\"\n{more}"))
    };
    let own = format!("ca = {:?}\ncert = {:?}\nkey = {:?}", at("ca.pem"), at("client.pem"), at("client.key"));
    let no_certificate = format!("ca = {:?}", at("ca.pem"));
    let stranger = own.replace("client.", "stranger.");
    let untrusting = own.replace("ca.pem", "stranger-ca.pem");
    for (sentence, scheme, more, ending) in [
        ("both know each other", "tls", own.as_str(), ("delivered", None)),
        ("files alone say that TLS is wanted", "nats", own.as_str(), ("delivered", None)),
        ("no certificate of ours", "tls", no_certificate.as_str(), ("away", Some(Reason::Tls))),
        ("another authority's", "tls", stranger.as_str(), ("away", Some(Reason::Tls))),
        ("a server of another authority", "tls", untrusting.as_str(), ("away", Some(Reason::Tls))),
        ("the system's authorities do not know it", "nats", "", ("away", Some(Reason::Tls))),
    ] {
        let outcome = core(scheme, more).deliver(&event()).await;
        assert_eq!(reason(&outcome), ending, "{sentence}: {outcome:?}");
    }
}
