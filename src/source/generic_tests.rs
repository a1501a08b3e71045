//! The dialect of any sender: identity, media types, picked attributes.

use crate::envelope::Data;
use crate::source::testing::{ARRIVAL, Post, configured, extension};
use crate::source::{Answer, ConfiguredSource, OnUnreadable, Unreadable};
use bytes::Bytes;
use http::Method;
use proptest::prelude::*;

fn generic(keys: &str) -> ConfiguredSource {
    configured(&format!("[generic]\n{keys}")).unwrap()
}

#[test]
fn the_identity_is_the_first_that_the_sender_gives() {
    let json = |body: &str| Post::of(body).with("content-type", "application/json");
    let every = |post: Post| {
        post.with("idempotency-key", "k5").with("x-shopify-webhook-id", "k4").with("x-github-delivery", "k3")
    };
    let pointed = "id = \"/event/id\"";
    for (sentence, keys, post, id) in [
        ("a real CloudEvent's", "", every(json("{}")).with("webhook-id", "k2").with("ce-id", "k1"), "k1"),
        ("a Standard Webhook's", "", every(json("{}")).with("webhook-id", "k2"), "k2"),
        ("GitHub's", "", every(json("{}")), "k3"),
        ("an idempotency key", "", json("{}").with("idempotency-key", " k5 "), "k5"),
        ("an empty header is none", "", json("{}").with("ce-id", "").with("idempotency-key", "k5"), "k5"),
        (
            "where the configuration points",
            pointed,
            json(r#"{"event":{"id":"p1"}}"#).with("ce-id", "k1"),
            "p1",
        ),
        ("a number there", pointed, json(r#"{"event":{"id":12345678901234567}}"#), "12345678901234567"),
        ("nothing there: the header", pointed, json(r#"{"event":{}}"#).with("ce-id", "k1"), "k1"),
        ("an object there: the header", pointed, json(r#"{"event":{"id":{}}}"#).with("ce-id", "k1"), "k1"),
    ] {
        let envelope = post.read(&generic(keys)).unwrap();
        assert_eq!(envelope.id, id, "{sentence}");
        assert_eq!(extension(&envelope, "dedupe"), "strong", "{sentence}");
    }
}

#[test]
fn the_same_cloudevents_id_of_two_producers_is_two_events() {
    let read = |source: &str| {
        let post = Post::of("{}").with("ce-id", "1").with("ce-source", source);
        let envelope = post.read(&generic("")).unwrap();
        (envelope.source, envelope.id)
    };
    assert_eq!(read("/shop/a"), ("/shop/a".to_owned(), "1".to_owned()));
    assert_ne!(read("/shop/a"), read("/shop/b"));
    let unnamed =
        Post::of("{}").with("ce-source", "/shop/a").with("webhook-id", "1").read(&generic("")).unwrap();
    assert_eq!(unnamed.source, "//hookbus/sources/inbox", "the source of an id that is not there");
}

#[test]
fn without_a_senders_id_the_bytes_are_the_identity() {
    let source = generic("");
    let id = |body: &str| Post::of(body).read(&source).unwrap().id;
    assert_eq!(id("hello"), id("hello"));
    assert_ne!(id("hello"), id("hello "));
    assert_eq!(id("hello").len(), 32);
    assert!(id("hello").bytes().all(|byte| byte.is_ascii_hexdigit()));
    let mut other = source.clone();
    other.name = crate::envelope::SourceName::new("other").unwrap();
    assert_ne!(id("hello"), Post::of("hello").read(&other).unwrap().id, "of this source");
}

#[test]
fn an_empty_post_is_a_signal_and_each_counts() {
    let source = generic("");
    let (one, other) = (Post::of("").read(&source).unwrap(), Post::of("").read(&source).unwrap());
    assert_ne!(one.id, other.id);
    assert!(!one.can_repeat());
    assert_eq!((one.data, one.datacontenttype), (Data::None, None));
}

#[test]
fn an_id_that_no_header_could_carry_is_replaced_by_its_digest() {
    let long = "x".repeat(300);
    let ids: Vec<String> = [long.as_bytes(), b"caf\xe9", b"a\tb", "é".repeat(200).as_bytes()]
        .iter()
        .map(|id| Post::of("{}").with("ce-id", id).read(&generic("")).unwrap().id)
        .collect();
    for id in &ids {
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    let longer = Post::of("{}").with("ce-id", format!("{long}y")).read(&generic("")).unwrap().id;
    assert_ne!(ids[0], longer, "two ids never become one");
}

#[test]
fn a_body_travels_as_what_it_is() {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let deep: &'static str = Box::leak("[".repeat(65).into_boxed_str());
    for (sentence, content_type, body, outcome) in [
        (
            "JSON",
            "application/json",
            "{\"a\": 1.10}",
            Ok((Data::Json(bytes("{\"a\": 1.10}")), "application/json")),
        ),
        (
            "any +json",
            "application/ld+json; charset=utf-8",
            "[1]",
            Ok((Data::Json(bytes("[1]")), "application/ld+json; charset=utf-8")),
        ),
        (
            "JSON by capital letters",
            "APPLICATION/JSON",
            "1",
            Ok((Data::Json(bytes("1")), "APPLICATION/JSON")),
        ),
        ("text", "text/plain", "{\"a\":1}", Ok((Data::Text(bytes("{\"a\":1}")), "text/plain"))),
        (
            "a form",
            "application/x-www-form-urlencoded",
            "a=1",
            Ok((Data::Text(bytes("a=1")), "application/x-www-form-urlencoded")),
        ),
        ("XML", "application/xml", "<a/>", Ok((Data::Text(bytes("<a/>")), "application/xml"))),
        ("anything else", "image/png", "png", Ok((Data::Binary(bytes("png")), "image/png"))),
        ("nothing said, JSON there", "", "{}", Ok((Data::Json(bytes("{}")), "application/json"))),
        ("nothing said, text there", "", "hello", Ok((Data::Text(bytes("hello")), "text/plain"))),
        ("JSON said, none there", "application/json", "{", Err(Unreadable::NotJson)),
        ("JSON said, nothing there", "application/json", "", Err(Unreadable::NotJson)),
        ("JSON said, too deep", "application/json", deep, Err(Unreadable::TooDeep)),
        ("nothing said, too deep to be read", "", deep, Ok((Data::Text(bytes(deep)), "text/plain"))),
    ] {
        let post = if content_type.is_empty() {
            Post::of(body)
        } else {
            Post::of(body).with("content-type", content_type)
        };
        let read = post.read(&generic("")).map(|envelope| (envelope.data, envelope.datacontenttype.unwrap()));
        assert_eq!(read, outcome.map(|(data, media)| (data, media.to_owned())), "{sentence}");
    }
    let latin =
        Post::of(b"caf\xe9").with("content-type", "text/plain; charset=latin1").read(&generic("")).unwrap();
    assert_eq!(latin.data, Data::Binary(Bytes::from_static(b"caf\xe9")), "text that is no UTF-8 stays bytes");
    let latin = Post::of(b"\"caf\xe9\"").with("content-type", "application/json").read(&generic(""));
    assert_eq!(latin, Err(Unreadable::NotUtf8));
}

#[test]
fn attributes_come_from_constants_and_pointers() {
    let source = generic(
        "type = \"shop.order\"\nsubject = \"/order/customer\"\ntime = \"/order/at\"\nkey = \"/order/shop\"",
    );
    let body = r#"{"order":{"customer":"c\u0007 1","at":1768480840417,"shop":7}}"#;
    let envelope = Post::of(body).read(&source).unwrap();
    assert_eq!(envelope.event_type, "shop.order");
    assert_eq!(envelope.subject.as_deref(), Some("c\u{fffd} 1"));
    assert_eq!(envelope.time.as_deref(), Some("2026-01-15T12:40:40.417Z"));
    assert_eq!(envelope.partition_key(), Some("7"));
    assert_eq!(extension(&envelope, "timesource"), "payload");

    let bare = Post::of("{}").read(&source).unwrap();
    assert_eq!((bare.subject.as_deref(), bare.partition_key()), (None, None));
    assert_eq!(bare.time, Some(ARRIVAL.to_rfc3339()));
    assert_eq!(extension(&bare, "timesource"), "received");

    let plain = Post::of("hello").read(&generic("type = \"/kind\"\nkey = \"all\"")).unwrap();
    assert_eq!(plain.event_type, "webhook.received", "nothing to point at");
    assert_eq!(plain.source, "//hookbus/sources/inbox");
    assert_eq!(plain.partition_key(), Some("all"));
}

#[test]
fn the_dialect_takes_what_most_senders_send_and_answers_with_the_identity() {
    let dialect = generic("").dialect;
    assert_eq!(dialect.methods(), [Method::POST, Method::PUT, Method::PATCH]);
    assert_eq!((dialect.answer(), dialect.on_unreadable()), (Answer::Identities, OnUnreadable::Reject));
    assert!(!dialect.has_credential());
}

proptest! {
    #[test]
    fn arbitrary_posts_never_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        header in proptest::collection::vec(32..=126_u8, 0..60),
    ) {
        let source = generic("id = \"/a/0\"\ntime = \"/b\"\nsubject = \"/c~1d\"");
        let _ = Post::of(body).with("content-type", &header).with("webhook-id", &header).read(&source);
    }
}

#[test]
fn text_in_another_encoding_stays_bytes_and_a_tab_in_its_media_type_becomes_a_space() {
    for (sentence, media_type, body, data) in [
        ("UTF-8", "text/xml; charset=\"UTF-8\"", "é", Data::Text(Bytes::from_static("é".as_bytes()))),
        (
            "UTF-16 of a wide text, which UTF-8 could be too",
            "text/plain; charset=utf-16le",
            "h\0i\0",
            Data::Binary(Bytes::from_static(b"h\0i\0")),
        ),
        (
            "Latin-1, which UTF-8 could be too",
            "text/plain; charset=iso-8859-1",
            "é",
            Data::Binary(Bytes::from_static("é".as_bytes())),
        ),
        (
            "Latin-1 that is ASCII",
            "text/plain; charset=iso-8859-1",
            "e",
            Data::Text(Bytes::from_static(b"e")),
        ),
    ] {
        let event = Post::of(body).with("content-type", media_type).read(&generic("")).unwrap();
        assert_eq!((event.data, event.datacontenttype.as_deref()), (data, Some(media_type)), "{sentence}");
    }
    let event = Post::of("a").with("content-type", "text/plain;\tcharset=utf-8").read(&generic("")).unwrap();
    assert_eq!(event.datacontenttype.as_deref(), Some("text/plain; charset=utf-8"));
}

#[test]
fn a_configuration_adds_attributes_and_a_prefix() {
    let source = generic(
        "type = \"/event\"\ntype_prefix = \"com.shop.\"\n[generic.attributes]\nregion = \"eu\"\nstore = \"/store/id\"",
    );
    let event = Post::of(r#"{"event":"paid","store":{"id":7}}"#).read(&source).unwrap();
    assert_eq!(event.event_type, "com.shop.paid");
    assert_eq!((extension(&event, "region"), extension(&event, "store")), ("eu".into(), "7".into()));
    let event = Post::of("{}").read(&source).unwrap();
    assert_eq!(event.event_type, "webhook.received", "what the body does not name has no prefix");
    assert!(!event.extensions.contains_key("store"));
    for (keys, key) in [
        ("type_prefix = \"a.\"", "generic.type_prefix"),
        ("type = \"constant\"\ntype_prefix = \"a.\"", "generic.type_prefix"),
        ("[generic.attributes]\nRegion = \"eu\"", "generic.attributes"),
        ("[generic.attributes]\nsubject = \"eu\"", "generic.attributes"),
        ("[generic.attributes]\npartitionkey = \"eu\"", "generic.attributes"),
        ("[generic.attributes]\nregion = \"\"", "generic.attributes"),
    ] {
        let errors = configured(&format!("[generic]\n{keys}")).map(|_| ()).unwrap_err().0;
        assert!(errors.iter().any(|error| error.key == key), "{keys}: {errors:?}");
    }
}
