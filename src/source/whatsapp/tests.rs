//! The gateway engine: who may post, which posts are the same event, what contradictions become.

use crate::envelope::{Data, Envelope};
use crate::source::testing::{ARRIVAL, Post, configured, extension};
use crate::source::{Answer, ConfiguredSource, OnUnreadable, Refused, Unreadable};
use proptest::prelude::*;

fn zapi(keys: &str) -> ConfiguredSource {
    configured(&format!("[zapi]\n{keys}")).unwrap()
}

fn read(body: &str) -> Envelope {
    Post::of(body).read(&zapi("")).unwrap()
}

/// A received text with `more` members, as the gateway sends it.
fn received(more: &str) -> String {
    format!(
        r#"{{"type":"ReceivedCallback","instanceId":"I1","phone":"5511900000001","fromMe":false,"text":{{"message":"a"}}{more}}}"#
    )
}

#[test]
fn a_live_token_or_the_path_secret_lets_a_post_in() {
    let keys = "token = [\"old token\", \"new token\"]";
    for (sentence, keys, post, outcome) in [
        ("the live token", keys, Post::of("").with("z-api-token", "new token"), Ok(())),
        ("the one being replaced", keys, Post::of("").with("z-api-token", "old token"), Ok(())),
        ("no token", keys, Post::of(""), Err(Refused::Missing)),
        ("no token, but the secret in the path", keys, Post::of("").with_path_secret(), Ok(())),
        ("a wrong token", keys, Post::of("").with("z-api-token", "new toke"), Err(Refused::Wrong)),
        ("an empty token", keys, Post::of("").with("z-api-token", ""), Err(Refused::Wrong)),
        (
            "a wrong token is wrong even with the secret in the path",
            keys,
            Post::of("").with("z-api-token", "other").with_path_secret(),
            Err(Refused::Wrong),
        ),
        (
            "a second value that is wrong",
            keys,
            Post::of("").with("z-api-token", "new token").with("z-api-token", "other"),
            Err(Refused::Wrong),
        ),
        (
            "the token under another name",
            keys,
            Post::of("").with("client-token", "new token"),
            Err(Refused::Missing),
        ),
        (
            "the configured name",
            "token = \"t\"\ntoken_header = \"X-Gate-Token\"",
            Post::of("").with("x-gate-token", "t"),
            Ok(()),
        ),
        ("no credential is configured", "", Post::of("").with("z-api-token", "any"), Ok(())),
    ] {
        assert_eq!(post.authenticate(&zapi(keys)), outcome, "{sentence}");
    }
}

#[test]
fn the_dialect_takes_posts_and_answers_as_the_gateway_expects() {
    let source = zapi("token = \"t\"");
    assert_eq!(source.dialect.methods(), [http::Method::POST]);
    assert_eq!(source.dialect.answer(), Answer::ValueTrue);
    assert_eq!(source.dialect.on_unreadable(), OnUnreadable::Quarantine);
    assert!(source.dialect.has_credential() && !zapi("").dialect.has_credential());
}

#[test]
fn a_retry_of_the_same_post_has_the_same_id_and_another_event_has_not() {
    let message = received(r#","messageId":"M1","momment":1768480000000"#);
    for (sentence, body, is_same) in [
        ("the same bytes", message.clone(), true),
        (
            "another moment of arrival at the gateway",
            received(r#","messageId":"M1","momment":1768480000999"#),
            true,
        ),
        (
            "a photo whose signed URL changed",
            received(r#","messageId":"M1","senderPhoto":"https://x.test/2""#),
            true,
        ),
        ("a status that moved on", received(r#","messageId":"M1","status":"READ""#), true),
        ("null instead of nothing", received(r#","messageId":"M1","isEdit":null"#), true),
        ("another message", received(r#","messageId":"M2""#), false),
        ("another kind", received(r#","messageId":"M1","image":{}"#), false),
        ("sent instead of received", received(r#","messageId":"M1","fromMe":true"#), false),
        ("another chat", received(r#","messageId":"M1","phone":"5511900000002""#), false),
        ("another instance", received(r#","messageId":"M1","instanceId":"I2""#), false),
        ("its placeholder", received(r#","messageId":"M1","waitingMessage":true"#), false),
        ("its edit", received(r#","messageId":"M1","isEdit":true,"momment":1768480000000"#), false),
    ] {
        let (one, other) = (read(&message), read(&body));
        assert_eq!(one.id == other.id, is_same, "{sentence}");
        assert!(one.can_repeat() && other.can_repeat(), "{sentence}");
    }
}

#[test]
fn two_edits_of_a_message_differ_by_moment_or_by_content() {
    let edit = |more: &str| read(&received(&format!(r#","messageId":"M1","isEdit":true{more}"#))).id;
    assert_ne!(edit(r#","momment":1"#), edit(r#","momment":2"#), "another moment");
    assert_eq!(edit(r#","momment":1"#), edit(r#","momment":1,"text":{"message":"b"}"#), "the same moment");
    assert_ne!(edit(r#","text":{"message":"b"}"#), edit(r#","text":{"message":"c"}"#), "another content");
    assert_eq!(edit(r#","text":{"a":1,"b":2}"#), edit(r#","text":{"b":2, "a":1}"#), "the same content");
}

#[test]
fn a_status_repeats_by_event_or_by_state() {
    let status = |more: &str| {
        format!(r#"{{"type":"MessageStatusCallback","instanceId":"I1","phone":"55","ids":["B","A"]{more}}}"#)
    };
    let ids = |keys: &str, one: &str, other: &str| {
        let source = zapi(keys);
        let id = |more: &str| Post::of(status(more)).read(&source).unwrap().id;
        (id(one), id(other))
    };
    let state = "status_dedupe = \"state\"";
    for (sentence, keys, one, other, is_same) in [
        ("a second reader", "", r#","status":"READ","momment":1"#, r#","status":"READ","momment":2"#, false),
        (
            "a second device",
            "",
            r#","status":"READ","momment":1,"phoneDevice":0"#,
            r#","status":"READ","momment":1,"phoneDevice":1"#,
            false,
        ),
        (
            "another order of ids",
            "",
            r#","status":"READ","momment":1"#,
            r#","status":"READ","momment":1,"ids":["A","B"]"#,
            true,
        ),
        (
            "another spelling",
            "",
            r#","status":"READ-SELF","momment":1"#,
            r#","status":"MESSAGE_READ_SELF","momment":1"#,
            true,
        ),
        (
            "one id as text",
            "",
            r#","status":"READ","momment":1,"ids":"A""#,
            r#","status":"READ","momment":1,"ids":null,"id":["A"]"#,
            true,
        ),
        ("no moment: nobody can tell", "", r#","status":"READ""#, r#","status":"READ""#, false),
        (
            "by state the first reader counts",
            state,
            r#","status":"READ","momment":1"#,
            r#","status":"READ","momment":2"#,
            true,
        ),
        (
            "by state another status still differs",
            state,
            r#","status":"READ""#,
            r#","status":"PLAYED""#,
            false,
        ),
    ] {
        let (one, other) = ids(keys, one, other);
        assert_eq!(one == other, is_same, "{sentence}");
    }
}

#[test]
fn an_event_without_identity_gets_one_of_its_own_and_never_repeats() {
    for (sentence, body) in [
        ("presence", r#"{"type":"PresenceChatCallback","phone":"55","status":"COMPOSING","lastSeen":null}"#),
        ("a connection without its moment", r#"{"type":"ConnectedCallback","connected":true}"#),
        (
            "a message without id and moment",
            r#"{"type":"ReceivedCallback","phone":"55","text":{"message":"hi"}}"#,
        ),
        (
            "a notification without its moment",
            r#"{"type":"ReceivedCallback","messageId":"1","notification":"E2E"}"#,
        ),
        (
            "an edit of unknown moment and content",
            r#"{"type":"ReceivedCallback","messageId":"1","isEdit":true}"#,
        ),
        ("a delivery of no message", r#"{"type":"DeliveryCallback","phone":"55"}"#),
        ("something unknown", r#"{"hello":"world"}"#),
        ("an empty object", "{}"),
    ] {
        let (one, other) = (read(body), read(body));
        assert_ne!(one.id, other.id, "{sentence}");
        assert_eq!(extension(&one, "dedupe"), "none", "{sentence}");
        assert!(!one.can_repeat(), "{sentence}");
        assert!(uuid::Uuid::parse_str(&one.id).is_ok(), "{sentence}: {}", one.id);
    }
}

#[test]
fn an_event_of_no_known_form_repeats_by_its_bytes_where_these_hold_an_id_or_a_moment() {
    for body in [
        r#"{"type":"InitialDataCallback","momment":1768480000000,"chats":1}"#,
        r#"{"type":"Novelty","id":"7","chats":1}"#,
        r#"{"type":"ReceivedCallback","momment":1768480000000,"chats":1}"#,
    ] {
        let other = body.replace("\"chats\":1", "\"chats\":2");
        assert_eq!(read(body).id, read(body).id, "{body}");
        assert_ne!(read(body).id, read(&other).id, "{body}");
        assert_eq!(extension(&read(body), "dedupe"), "strong");
    }
}

#[test]
fn last_seen_identifies_presence() {
    let body =
        r#"{"type":"PresenceChatCallback","phone":"55","status":"UNAVAILABLE","lastSeen":1768480000000}"#;
    assert_eq!(read(body).id, read(body).id);
    assert_ne!(read(body).id, read(&body.replace("0000}", "0001}")).id);
}

#[test]
fn the_type_says_what_an_event_is_and_the_shape_where_the_type_does_not() {
    for (sentence, body, event_type, conflict) in [
        ("case does not matter", r#"{"type":"ReceivedCallBack","messageId":"1"}"#, "message.received", ""),
        ("nor punctuation", r#"{"type":"received-callback","messageId":"1"}"#, "message.received", ""),
        (
            "a status without ids that says connected",
            r#"{"type":"MessageStatusCallback","connected":true}"#,
            "connection.connected",
            "true",
        ),
        (
            "a status without ids that says disconnected",
            r#"{"type":"MessageStatusCallback","disconnected":true}"#,
            "connection.disconnected",
            "true",
        ),
        (
            "a status with ids stays one",
            r#"{"type":"MessageStatusCallback","connected":true,"ids":["1"],"status":"SENT"}"#,
            "status.sent",
            "",
        ),
        (
            "a delivery without ids that is present",
            r#"{"type":"DeliveryCallback","status":"composing"}"#,
            "presence.composing",
            "true",
        ),
        (
            "a delivery with an id stays one",
            r#"{"type":"DeliveryCallback","status":"COMPOSING","zaapId":"1"}"#,
            "delivery.sent",
            "",
        ),
        ("ids are a status", r#"{"ids":["1"],"status":"READ"}"#, "status.read", ""),
        ("disconnected", r#"{"disconnected":true,"connected":false}"#, "connection.disconnected", ""),
        ("connected", r#"{"connected":true}"#, "connection.connected", ""),
        ("a presence", r#"{"status":"PAUSED"}"#, "presence.paused", ""),
        ("a delivery", r#"{"zaapId":"1","messageId":"2"}"#, "delivery.sent", ""),
        ("a failed one", r#"{"zaapId":"1","errorCode":"SHADOW_BAN"}"#, "delivery.failed", ""),
        ("a message", r#"{"messageId":"2","fromMe":true}"#, "message.sent", ""),
        ("a message of no direction and time is unknown", r#"{"messageId":"2"}"#, "unknown", ""),
        ("a type of the wrong type", r#"{"type":7,"connected":true}"#, "connection.connected", ""),
        ("an edit", r#"{"type":"ReceivedCallback","isEdit":"true"}"#, "message.edited", ""),
        ("a placeholder", r#"{"type":"ReceivedCallback","waitingMessage":1}"#, "message.waiting", ""),
        (
            "a call",
            r#"{"type":"ReceivedCallback","notification":"CALL_MISSED_VIDEO"}"#,
            "call.missed-video",
            "",
        ),
        ("a status nobody documented", r#"{"ids":["1"],"status":"played by me"}"#, "status.played-by-me", ""),
        ("a status that cannot name a subject", r#"{"ids":["1"],"status":"ö.>*\r\n"}"#, "status.unknown", ""),
        ("no status", r#"{"ids":["1"]}"#, "status.unknown", ""),
    ] {
        let envelope = read(body);
        assert_eq!(envelope.event_type, format!("io.z-api.{event_type}"), "{sentence}");
        assert_eq!(extension(&envelope, "typeconflict"), conflict, "{sentence}");
    }
}

#[test]
fn the_block_that_names_the_kind_comes_before_those_that_accompany_it() {
    for (more, kind) in [
        (r#","image":{},"reaction":{}"#, "reaction"),
        (r#","image":null"#, "text"),
        (r#","contacts":[]"#, "contacts"),
        (r#","text":null,"orders":[]"#, "unknown"),
        (r#","text":null,"waitingMessage":true"#, "waiting"),
        (r#","notification":"REVOKE""#, "notification:REVOKE"),
        (r#","reviewAndPay":{"type":"x"}"#, "reviewAndPay"),
    ] {
        assert_eq!(extension(&read(&received(more)), "msgkind"), kind, "{more}");
    }
}

#[test]
fn chats_are_told_apart_by_their_suffix_or_their_flag() {
    for (phone, more, kind) in [
        ("5511900000001", "", "user"),
        ("5511900000001-1623281429", r#","isGroup":true"#, "group"),
        ("120363000000000001-group", "", "group"),
        ("120363000000000001@newsletter", "", "newsletter"),
        ("1774895799-broadcast", "", "broadcast"),
        ("100000000000001@lid", "", "lid"),
        ("", "", ""),
    ] {
        let body = format!(r#"{{"type":"ReceivedCallback","phone":"{phone}"{more}}}"#);
        assert_eq!(extension(&read(&body), "chatkind"), kind, "{phone}");
    }
}

#[test]
fn the_payload_names_its_instance_or_the_source_does() {
    let source = zapi("instance = \"I 1\"");
    for (sentence, body, outcome) in [
        ("its own", r#"{"instanceId":"I 1"}"#, Ok("//api.z-api.io/instances/I%201")),
        ("none", r#"{"phone":"1"}"#, Ok("//api.z-api.io/instances/I%201")),
        ("null", r#"{"instanceId":null}"#, Ok("//api.z-api.io/instances/I%201")),
        ("another's", r#"{"instanceId":"I2"}"#, Err(Unreadable::OtherInstance)),
        (
            "twice, the last counts",
            r#"{"instanceId":"I2","instanceId":"I 1"}"#,
            Ok("//api.z-api.io/instances/I%201"),
        ),
    ] {
        let source = Post::of(body).read(&source).map(|envelope| envelope.source);
        assert_eq!(source, outcome.map(str::to_owned), "{sentence}");
    }
    assert_eq!(read("{}").source, "//api.z-api.io/routes/inbox");
    let plugzapi = configured("[plugzapi]\ntype_prefix = \"whatsapp\"").unwrap();
    let envelope = Post::of(r#"{"instanceId":"X"}"#).read(&plugzapi).unwrap();
    assert_eq!(envelope.source, "//api.plugzapi.com.br/instances/X");
    assert_eq!(envelope.event_type, "whatsapp.unknown");
    assert_eq!(extension(&envelope, "provider"), "plugzapi");
}

#[test]
fn events_of_one_chat_share_a_partition_key() {
    for (body, key) in [
        (r#"{"instanceId":"I1","phone":5511900000001}"#, "I1/5511900000001"),
        (r#"{"instanceId":"I1"}"#, "I1/-"),
        (r#"{"phone":" 55 "}"#, "-/55"),
    ] {
        assert_eq!(read(body).partition_key(), Some(key));
    }
    assert_eq!(read(r#"{"phone":5511900000001}"#).subject.as_deref(), Some("5511900000001"));
}

#[test]
fn the_body_travels_byte_for_byte() {
    let body = "{ \"type\":\"ReceivedCallback\",\"type\" : \"ReceivedCallback\",\r\n\"location\":{\"latitude\":-99.9999999999999999,\"n\":12345678901234567}, \"x\":\"vocÃª \\ud83d\" }";
    assert_eq!(read(body).data, Data::Json(body.to_owned().into()));
}

#[test]
fn the_time_is_the_payloads_or_the_arrival() {
    for (sentence, body, time, source) in [
        ("milliseconds", r#"{"momment":1768480840417}"#, "2026-01-15T12:40:40.417Z", "payload"),
        ("text", r#"{"momment":" 1768480840417 "}"#, "2026-01-15T12:40:40.417Z", "payload"),
        (
            "the other spelling",
            r#"{"momment":null,"moment":1768480840}"#,
            "2026-01-15T12:40:40.000Z",
            "payload",
        ),
        ("a timestamp", r#"{"timestamp":"2026-01-15T12:40:40Z"}"#, "2026-01-15T12:40:40.000Z", "payload"),
        ("no time at all", r#"{"momment":26151515154}"#, &ARRIVAL.to_rfc3339(), "received"),
        ("a wrong type", r#"{"momment":{"$numberLong":"1"}}"#, &ARRIVAL.to_rfc3339(), "received"),
    ] {
        let envelope = read(body);
        assert_eq!(envelope.time.as_deref(), Some(time), "{sentence}");
        assert_eq!(extension(&envelope, "timesource"), source, "{sentence}");
    }
}

#[test]
fn what_a_sender_writes_cannot_end_a_header_or_fill_one() {
    let body =
        format!(r#"{{"type":"ReceivedCallback","phone":"5\r\n5","callId":"{}"}}"#, "x".repeat(100_000));
    let envelope = read(&body);
    assert_eq!(envelope.subject.as_deref(), Some("5\u{fffd}\u{fffd}5"));
    assert!(extension(&envelope, "callid").len() <= crate::envelope::ATTRIBUTE_BYTES_MAX);
}

#[test]
fn what_is_no_json_object_in_utf8_is_unreadable_and_says_why() {
    for (sentence, body, reason) in [
        ("nothing", &b""[..], Unreadable::NotJson),
        (
            "a documented sample that is no JSON",
            b"{'type': 'ConnectedCallback', 'instanceId': instance.id,, }",
            Unreadable::NotJson,
        ),
        ("a shell's number", br#"{"momment": NumberLong("1")}"#, Unreadable::NotJson),
        ("five objects in one body", b"{}{}{}{}{}", Unreadable::NotJson),
        ("a block that is never closed", br#"{"text":{"message":"a"}"#, Unreadable::NotJson),
        ("a missing comma", br#"{"a":1 "b":2}"#, Unreadable::NotJson),
        ("a form", b"type=ReceivedCallback", Unreadable::NotJson),
        ("an array", br#"[{"type":"ReceivedCallback"}]"#, Unreadable::NotAnObject),
        ("a text", br#""ReceivedCallback""#, Unreadable::NotAnObject),
        ("null", b"null", Unreadable::NotAnObject),
        ("Latin-1", b"{\"chatName\":\"voc\xea\"}", Unreadable::NotUtf8),
    ] {
        assert_eq!(Post::of(body).read(&zapi("")), Err(reason), "{sentence}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    assert_eq!(Post::of(deep).read(&zapi("")), Err(Unreadable::TooDeep));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Post::of(body).read(&zapi(""));
    }

    #[test]
    fn arbitrary_values_in_known_fields_are_events(
        fields in proptest::collection::vec((0..12_usize, "null|true|-1|1e999|\"[a-zA-Z0-9 ]{0,9}\"|\\[\\]|\\{\\}|\\[1,\"\"\\]"), 0..12),
    ) {
        let names = ["type", "ids", "id", "momment", "phone", "messageId", "notification", "isEdit", "fromMe", "text", "lastSeen", "status"];
        let members: Vec<_> = fields.iter().map(|(name, value)| format!("\"{}\":{value}", names[*name])).collect();
        let envelope = read(&format!("{{{}}}", members.join(",")));
        prop_assert!(!envelope.id.is_empty() && envelope.event_type.starts_with("io.z-api."));
    }
}
