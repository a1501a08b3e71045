//! What is a CloudEvent and what is none: attributes, data, the three modes, tokens, the handshake.

use crate::config::Rate;
use crate::envelope::{Attribute, Data, Envelope, SourceName};
use crate::source::testing::{ARRIVAL, Post, configured, extension};
use crate::source::{
    Answer, Arrival, ConfiguredSource, Handshake, Head, OnUnreadable, Peer, Refused, Request, Unreadable,
};
use bytes::Bytes;
use http::Method;
use proptest::prelude::*;
use std::time::Duration;

fn source() -> ConfiguredSource {
    configured("[cloudevents]").unwrap()
}

/// A post in structured mode: the members every event has, and these.
fn structured(members: &str) -> Post {
    let comma = if members.is_empty() { "" } else { "," };
    Post::of(format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{comma}{members}}}"#))
        .with("content-type", "application/cloudevents+json")
}

/// A post in binary mode: the headers every event has.
fn binary(body: impl AsRef<[u8]>) -> Post {
    Post::of(body)
        .with("ce-specversion", "1.0")
        .with("ce-id", "1")
        .with("ce-source", "/s")
        .with("ce-type", "t")
}

fn read(post: &Post) -> Result<Envelope, Unreadable> {
    post.read(&source())
}

fn text(bytes: &str) -> Bytes {
    Bytes::copy_from_slice(bytes.as_bytes())
}

#[test]
fn every_attribute_stays_with_its_type() {
    let members = r#""subject":"a \"b\" ✅","time":"2026-01-31T12:00:00.123456789-03:00","dataschema":"https://s/1",
        "datacontenttype":"text/plain","flag":true,"off":false,"number":-5,"json":"{\"a\": [1]}","unset":null,
        "empty":"","partitionkey":"k","data":"x""#;
    let event = read(&structured(members)).unwrap();
    assert_eq!((event.id.as_str(), event.source.as_str(), event.event_type.as_str()), ("1", "/s", "t"));
    assert_eq!(event.subject.as_deref(), Some("a \"b\" ✅"));
    assert_eq!(event.time.as_deref(), Some("2026-01-31T12:00:00.123456789-03:00"), "to the last digit");
    assert_eq!(event.dataschema.as_deref(), Some("https://s/1"));
    assert_eq!(event.datacontenttype.as_deref(), Some("text/plain"));
    for (name, value) in [
        ("flag", Attribute::Bool(true)),
        ("off", Attribute::Bool(false)),
        ("number", Attribute::Integer(-5)),
        ("json", Attribute::Text("{\"a\": [1]}".into())),
        ("empty", Attribute::Text(String::new())),
        ("dedupe", Attribute::Text("strong".into())),
    ] {
        assert_eq!(event.extensions.get(name), Some(&value), "{name}");
    }
    assert!(!event.extensions.contains_key("unset"), "null is no attribute");
    assert!(!event.extensions.contains_key("timesource"), "the time is the sender's own or there is none");
    assert_eq!(event.partition_key(), Some("k"));
    let long = format!("\"long\":\"{}\"", "x".repeat(20_000));
    assert_eq!(extension(&read(&structured(&long)).unwrap(), "long").len(), 20_000, "nothing is cut");
}

#[test]
fn a_header_is_unquoted_then_decoded_once() {
    for (sentence, value, attribute) in [
        ("plain", "plain", "plain"),
        ("percent-encoded", "Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("in lower case", "%e2%82%ac", "€"),
        ("once only", "%2525", "%25"),
        ("quoted", "\"a b\"", "a b"),
        ("quoted, with escapes", r#""a \"b\" \\c""#, r#"a "b" \c"#),
        ("quoted and encoded", "\"%22a%22\"", "\"a\""),
        ("a sign that nobody encoded", "100%", "100%"),
        ("UTF-8 that nobody encoded", "€", "€"),
        ("JSON", "%7B%22a%22:%201%7D", "{\"a\": 1}"),
    ] {
        let event = read(&binary("").with("ce-ext", value).with("ce-subject", value)).unwrap();
        assert_eq!(extension(&event, "ext"), attribute, "{sentence}");
        assert_eq!(event.subject.as_deref(), Some(attribute), "{sentence}");
    }
}

#[test]
fn data_are_the_senders_bytes() {
    for (sentence, post, data, media_type) in [
        (
            "a JSON object as it stands between the commas",
            structured(r#""data" : {"a": 1.10, "a":2}  "#),
            Data::Json(text("{\"a\": 1.10, \"a\":2}")),
            Some("application/json"),
        ),
        ("null is JSON", structured(r#""data":null"#), Data::Json(text("null")), Some("application/json")),
        (
            "a JSON string is not unwrapped",
            structured(r#""datacontenttype":"application/x+JSON; a=b","data":"\u0041""#),
            Data::Json(text(r#""\u0041""#)),
            Some("application/x+JSON; a=b"),
        ),
        (
            "text is unwrapped",
            structured(r#""datacontenttype":"text/plain","data":"a\né\n""#),
            Data::Text(text("a\né\n")),
            Some("text/plain"),
        ),
        (
            "text of a type that is not known for it",
            structured(r#""datacontenttype":"application/yaml","data":"a: é\n""#),
            Data::Text(text("a: é\n")),
            Some("application/yaml"),
        ),
        (
            "a value that is no text",
            structured(r#""datacontenttype":"text/xml","data":[1]"#),
            Data::Json(text("[1]")),
            Some("text/xml"),
        ),
        (
            "base64",
            structured(r#""data_base64":"AAH/","data":null"#),
            Data::Binary(Bytes::from_static(&[0, 1, 255])),
            None,
        ),
        (
            "base64 without padding",
            structured(r#""data_base64":"AA""#),
            Data::Binary(Bytes::from_static(&[0])),
            None,
        ),
        ("base64 that is null is none", structured(r#""data_base64":null"#), Data::None, None),
        ("nothing", structured(""), Data::None, None),
        (
            "a body of JSON with its last line feed",
            binary("{\"a\":1}\n").with("content-type", "application/json"),
            Data::Json(text("{\"a\":1}\n")),
            Some("application/json"),
        ),
        (
            "a body that is not the JSON it claims",
            binary("{").with("content-type", "application/json"),
            Data::Binary(text("{")),
            Some("application/json"),
        ),
        ("a body of no type that is JSON", binary("[1]"), Data::Json(text("[1]")), None),
        ("a body of no type that is none", binary("hello\n"), Data::Binary(text("hello\n")), None),
        (
            "a body of text in another encoding",
            binary("h\0i\0").with("content-type", "text/plain; charset=UTF-16LE"),
            Data::Binary(text("h\0i\0")),
            Some("text/plain; charset=UTF-16LE"),
        ),
        ("no body", binary("").with("content-type", "text/plain"), Data::None, Some("text/plain")),
    ] {
        let event = read(&post).unwrap_or_else(|why| panic!("{sentence}: {why}"));
        assert_eq!((event.data, event.datacontenttype.as_deref()), (data, media_type), "{sentence}");
    }
}

#[test]
fn the_media_type_tells_the_mode_and_the_header_only_after_it() {
    let event = r#"{"specversion":"1.0","id":"inside","source":"/s","type":"t"}"#;
    for (sentence, media_type, outcome) in [
        ("structured", "application/cloudevents+json", Ok("inside")),
        ("in capital letters, with a charset", "Application/CloudEvents+JSON; charset=UTF-8", Ok("inside")),
        ("another format", "application/cloudevents+avro", Err(Unreadable::MediaType)),
        ("another format of batches", "application/cloudevents-batch+protobuf", Err(Unreadable::MediaType)),
        ("a batch that is no array", "application/cloudevents-batch+json", Err(Unreadable::NotJson)),
        ("any other is binary", "application/json", Ok("header")),
    ] {
        let post = Post::of(event).with("content-type", media_type).with("ce-specversion", "1.0");
        let post = post.with("ce-id", "header").with("ce-source", "/s").with("ce-type", "t");
        let id = read(&post).map(|event| event.id);
        assert_eq!(id, outcome.map(str::to_owned), "{sentence}");
    }
    let plain = Post::of(event).with("content-type", "application/json");
    assert_eq!(read(&plain).unwrap_err(), Unreadable::NotACloudEvent);
    assert_eq!(source().dialect.answer(), Answer::Identities);
    assert_eq!(source().dialect.on_unreadable(), OnUnreadable::Reject);
}

#[test]
fn what_the_specification_forbids_is_refused_whole() {
    let whole = |body: &str| Post::of(body).with("content-type", "application/cloudevents+json");
    let with = |name: &str, value: &str| binary("").with(name, value);
    let without = |name: &str| {
        let mut post = binary("");
        post.headers.remove(name);
        post
    };
    let many: String = (0..300).map(|n| format!(",\"x{n}\":1")).collect();
    let deep = format!(r#""data":{}"#, "[".repeat(64) + &"]".repeat(64));
    let long = "x".repeat(70_000);
    for (sentence, post, why) in [
        ("no id", without("ce-id"), Unreadable::AttributeMissing),
        ("no source", without("ce-source"), Unreadable::AttributeMissing),
        ("no type", without("ce-type"), Unreadable::AttributeMissing),
        ("an empty subject", with("ce-subject", ""), Unreadable::Attribute),
        (
            "an empty id",
            whole(r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#),
            Unreadable::Attribute,
        ),
        (
            "a null id",
            whole(r#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#),
            Unreadable::AttributeMissing,
        ),
        (
            "a number as id",
            whole(r#"{"specversion":"1.0","id":1,"source":"/s","type":"t"}"#),
            Unreadable::Attribute,
        ),
        (
            "another version",
            whole(r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#),
            Unreadable::SpecVersion,
        ),
        ("no version", whole(r#"{"id":"1","source":"/s","type":"t"}"#), Unreadable::SpecVersion),
        ("a time that is none", with("ce-time", "yesterday"), Unreadable::Attribute),
        ("a name with a hyphen", with("ce-my-ext", "a"), Unreadable::Attribute),
        ("a name in capitals", structured(r#""myExt":"a""#), Unreadable::Attribute),
        ("an attribute named data", with("ce-data", "a"), Unreadable::Attribute),
        ("the media type in the wrong place", with("ce-datacontenttype", "a/b"), Unreadable::Attribute),
        ("a header twice", with("ce-id", "2"), Unreadable::Attribute),
        ("a member twice", structured(r#""id":"2""#), Unreadable::Attribute),
        ("an extension twice", structured(r#""a":"2","a":"3""#), Unreadable::Attribute),
        ("an object as extension", structured(r#""a":{}"#), Unreadable::Attribute),
        ("a fraction as extension", structured(r#""a":1.5"#), Unreadable::Attribute),
        ("a number of more than 32 bits", structured(r#""a":2147483648"#), Unreadable::Attribute),
        ("half a surrogate pair", structured(r#""a":"\ud83d""#), Unreadable::Attribute),
        ("a line break within an attribute", structured(r#""a":"x\r\ny""#), Unreadable::Attribute),
        ("an encoded line break", with("ce-a", "x%0D%0Ay"), Unreadable::Attribute),
        ("bytes that are no text", with("ce-a", "%FF"), Unreadable::Attribute),
        ("too many attributes", structured(&many[1..]), Unreadable::Attribute),
        ("too long ones", structured(&format!("\"a\":\"{long}\"")), Unreadable::Attribute),
        ("data in two forms", structured(r#""data":1,"data_base64":"AA==""#), Unreadable::EventData),
        ("data twice", structured(r#""data":1,"data":2"#), Unreadable::EventData),
        ("base64 that is none", structured(r#""data_base64":"***""#), Unreadable::EventData),
        ("base64 that is no string", structured(r#""data_base64":1"#), Unreadable::EventData),
        (
            "text that its encoding would write in other bytes",
            structured(r#""datacontenttype":"text/plain; charset=ISO-8859-1","data":"é""#),
            Unreadable::EventData,
        ),
        ("too deep", structured(&deep), Unreadable::TooDeep),
        ("cut off", whole(r#"{"specversion":"1.0""#), Unreadable::NotJson),
        ("no object", whole("[]"), Unreadable::NotAnObject),
    ] {
        assert_eq!(read(&post).map(|event| event.id), Err(why), "{sentence}");
    }
    let latin =
        Post::of(b"{\"id\":\"\xe9\"}").with("content-type", "application/cloudevents+json; charset=latin1");
    assert_eq!(read(&latin).unwrap_err(), Unreadable::NotUtf8);
}

#[test]
fn a_batch_is_all_of_its_events_or_none() {
    let event =
        |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t","data":"{id}"}}"#);
    let batch = |events: &[String]| {
        Post::of(format!(" [ {} ]\n", events.join(" , ")))
            .with("content-type", "application/cloudevents-batch+json")
    };
    let read = |post: &Post| with_request(post, &Method::POST, None, |request| source().read(request));
    let events = read(&batch(&[event("a"), event("b")])).unwrap();
    let ids: Vec<_> = events.iter().map(|event| (event.id.as_str(), event.data.bytes().clone())).collect();
    assert_eq!(ids, [("a", text("\"a\"")), ("b", text("\"b\""))]);
    assert_eq!(read(&batch(&[event("a"), "{}".into()])).unwrap_err(), Unreadable::SpecVersion);
    assert_eq!(read(&batch(&[event("a"), "1".into()])).unwrap_err(), Unreadable::NotAnObject);
    let many = vec!["1".to_owned(); super::structured::BATCH_EVENTS_MAX + 1];
    assert_eq!(read(&batch(&many)).unwrap_err(), Unreadable::BatchTooLarge);
    let nothing =
        with_request(&batch(&[]), &Method::POST, None, |request| source().dialect.handshake(request));
    assert_eq!(nothing.unwrap().body, "[]");
    let something = with_request(&batch(&[event("a")]), &Method::POST, None, |request| {
        source().dialect.handshake(request)
    });
    assert_eq!(something, None);
}

#[test]
fn what_an_event_says_of_itself_wins_over_the_last_hop() {
    let parent = |digit: &str| format!("00-{}-{}-01", digit.repeat(32), digit.repeat(16));
    let source = configured("keep_headers = [\"x-region\"]\n[cloudevents]").unwrap();
    let hop = |post: Post| {
        post.with("traceparent", parent("1")).with("tracestate", "hop=1").with("x-region", "hop")
    };
    let own = hop(binary(""))
        .with("ce-traceparent", parent("2"))
        .with("ce-xregion", "own")
        .with("ce-dedupe", "none");
    let event = own.read(&source).unwrap();
    let said = |name| extension(&event, name);
    assert_eq!((said("traceparent"), said("tracestate")), (parent("2"), String::new()));
    assert_eq!((said("xregion"), said("dedupe")), ("own".to_owned(), "none".to_owned()));
    assert_eq!((said("hookbussource"), said("receivedtime")), ("inbox".to_owned(), ARRIVAL.to_rfc3339()));
    let event = hop(binary("")).read(&source).unwrap();
    assert_eq!(extension(&event, "traceparent"), parent("1"), "the hop's where the event has none");
}

#[test]
fn a_token_comes_in_the_header_or_in_the_query() {
    let source = configured("[cloudevents]\ntoken = [\"old\", \"a+b/c=\"]").unwrap();
    for (sentence, header, query, outcome) in [
        ("in the header", Some("Bearer old"), None, Ok(())),
        ("the other live one, any case of the scheme", Some("bearer a+b/c="), None, Ok(())),
        ("in the query", None, Some("x=1&access_token=a%2Bb%2Fc%3D"), Ok(())),
        ("in both", Some("Bearer old"), Some("access_token=old"), Ok(())),
        ("nowhere", None, Some("token=old"), Err(Refused::Missing)),
        ("a wrong one", Some("Bearer new"), None, Err(Refused::Wrong)),
        ("another scheme", Some("Basic old"), None, Err(Refused::Wrong)),
        ("no scheme", Some("old"), None, Err(Refused::Wrong)),
        ("a right one beside a wrong one", Some("Bearer old"), Some("access_token=x"), Err(Refused::Wrong)),
        ("an empty one", None, Some("access_token="), Err(Refused::Wrong)),
    ] {
        let mut post = binary("");
        if let Some(header) = header {
            post = post.with("authorization", header);
        }
        let ask = |request: &Request<'_>| source.dialect.authenticate(&request.head);
        assert_eq!(with_request(&post, &Method::POST, query, ask), outcome, "{sentence}");
        assert_eq!(with_request(&post, &Method::OPTIONS, query, ask), Ok(()), "the handshake asks for none");
    }
    assert!(source.dialect.has_credential() && source.dialect.knows_secret(b"old"));
    assert_eq!(source.dialect.credential_headers(), ["authorization"]);
    let open = self::source();
    assert!(!open.dialect.has_credential() && open.dialect.credential_headers().is_empty());
}

#[test]
fn the_handshake_consents_to_configured_origins_only() {
    for (sentence, origins, asks, allowed) in [
        ("nobody is configured", "[]", Some("events.example.com"), None),
        (
            "the one that is",
            r#"["events.example.com"]"#,
            Some("Events.Example.com"),
            Some("Events.Example.com"),
        ),
        ("another one", r#"["events.example.com"]"#, Some("evil.example.com"), None),
        ("any", r#"["*"]"#, Some("a.example"), Some("a.example")),
        ("any, with a name that is none", r#"["*"]"#, Some("a b"), None),
        ("nobody asks", r#"["*"]"#, None, None),
    ] {
        let source = configured(&format!("[cloudevents]\nallowed_origins = {origins}")).unwrap();
        let mut post = Post::of("");
        if let Some(asks) = asks {
            post = post
                .with("webhook-request-origin", asks)
                .with("webhook-request-callback", "http://127.0.0.1/");
        }
        let answer = with_request(&post, &Method::OPTIONS, None, |request| source.dialect.handshake(request));
        let Handshake { headers, body } = answer.unwrap();
        let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(said("webhook-allowed-origin").as_deref(), allowed, "{sentence}");
        assert_eq!(said("webhook-allowed-rate").as_deref(), allowed.map(|_| "*"), "{sentence}");
        assert_eq!((said("allow").as_deref(), body.len()), (Some("POST, OPTIONS"), 0), "{sentence}");
    }
    for (count, per_secs, said) in
        [(100, 1, "6000"), (1, 3600, "1"), (90, 60, "90"), (u32::MAX, 1, "257698037700")]
    {
        let rate = Rate { count, per: Duration::from_secs(per_secs) };
        assert_eq!(super::per_minute(rate), said, "{rate}");
    }
    let errors = configured("[cloudevents]\nallowed_origins = [\"https://a\"]").map(|_| ()).unwrap_err().0;
    assert_eq!(errors[0].key, "cloudevents.allowed_origins");
}

fn with_request<T>(
    post: &Post,
    method: &Method,
    query: Option<&str>,
    then: impl FnOnce(&Request<'_>) -> T,
) -> T {
    then(&Request {
        head: Head {
            source: &SourceName::new("inbox").unwrap(),
            peer: Peer::NONE,
            path: "/hooks/inbox",
            method,
            path_secret_matched: false,
            query,
            headers: &post.headers,
            rate: None,
        },
        body: &post.body,
        arrival: Arrival { at: ARRIVAL, unique: uuid::Uuid::now_v7() },
    })
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        value in proptest::collection::vec(prop_oneof![32..=126_u8, 128..=255_u8], 0..60),
        members in "[a-z0-9_\":,{}\\[\\]\\\\]{0,80}",
    ) {
        let post = binary(&body).with("ce-ext", &value).with("ce-time", &value).with("content-type", &value);
        let _ = read(&post);
        let _ = read(&structured(&members));
        for media_type in ["application/cloudevents+json", "application/cloudevents-batch+json"] {
            let post = Post::of(&body).with("content-type", media_type);
            let _ = with_request(&post, &Method::POST, None, |request| source().read(request));
        }
    }
}
