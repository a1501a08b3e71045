//! What a capture shows and hides, and what it does not cost.

use super::*;
use crate::config::Layers;
use http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Value, json};

fn source() -> ConfiguredSource {
    let section = "path_secret = \"path-Secr3t\"\n[generic.auth]\ntoken = [\"t0ken-Marked\", \"a+b/c=\"]\ntoken_header = \"x-gate\"";
    let layers = Layers::load(Some(section), None, &[]).unwrap();
    ConfiguredSource::parse(SourceName::new("inbox").unwrap(), &layers.root()).unwrap()
}

fn captured(headers: &[(&'static str, &'static str)], query: &str, body: &str) -> Captured {
    let headers = headers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
    Captured {
        at: UnixMs(7),
        address: None,
        method: Method::POST,
        in_path: Some("path-Secr3t".to_owned()),
        query: (!query.is_empty()).then(|| query.to_owned()),
        headers: headers.collect(),
        body: Body::Whole(Bytes::copy_from_slice(body.as_bytes())),
        answer: Answer { status: 200, problem: "", reason: String::new() },
        events: Vec::new(),
        events_count: 0,
    }
}

fn shown(captured: &Captured, with_body: bool) -> Value {
    serde_json::from_slice(&shown::line(&source(), captured, with_body)).unwrap()
}

#[test]
fn a_field_that_proves_who_sends_is_hidden_and_the_rest_is_shown() {
    for (sentence, name, value, expected) in [
        (
            "plain",
            "user-agent",
            "shop/1.0 (+https://shop.example/bot)",
            "shop/1.0 (+https://shop.example/bot)",
        ),
        ("the delivery's id", "idempotency-key", "k1", "k1"),
        ("the dialect's own header", "x-gate", "anything", "*** (8 characters)"),
        ("a known scheme stays", "authorization", "Bearer abc", "Bearer *** (10 characters in all)"),
        ("an unknown one does not", "authorization", "s3cr3t abc", "*** (10 characters)"),
        ("a signature", "x-hub-signature-256", "sha256=00ff", "*** (11 characters)"),
        ("a cookie", "cookie", "a=b", "*** (3 characters)"),
        ("a key", "x-functions-key", "k", "*** (1 characters)"),
        ("a live token in an unexpected place", "x-other", "t0ken-Marked", "***"),
        ("within a text", "x-other", "is t0ken-Marked, yes", "is ***, yes"),
        ("one with odd characters", "x-other", "a+b/c=", "***"),
        (
            "the path secret within a URL",
            "referer",
            "https://h/hooks/inbox/path-Secr3t",
            "https://h/hooks/inbox/***",
        ),
        (
            "an unknown token within a URL",
            "referer",
            "https://h/?a=1&token=unknown&b=2",
            "https://h/?a=1&token=***&b=2",
        ),
        (
            "a token with signs in it within a URL",
            "referer",
            "https://h:1/a?b=1&c=a+b/c=&d=2",
            "https://h:1/a?b=1&c=***&d=2",
        ),
        ("the same, encoded", "referer", "https://h/a%2Bb%2fc%3D/x", "https://h/***/x"),
        ("a header for what nobody knows", "x-auth", "unknown", "*** (7 characters)"),
        ("a name with a word for it", "x-user-pwd", "unknown", "*** (7 characters)"),
        ("a name that only begins like one", "x-author", "Ann", "Ann"),
        ("a signed token", "x-other", "eyJhbGciOiJub25lIn0.eyJ9.c2ln", "***"),
    ] {
        let line = shown(&captured(&[(name, value)], "", ""), true);
        assert_eq!(line["headers"], json!([[name, expected]]), "{sentence}");
    }
}

#[test]
fn what_stood_in_the_path_is_shown_nowhere_however_a_proxy_repeats_it() {
    for (sentence, in_path, value, expected) in [
        ("as it was sent", "ab=cd/ef==", "/hooks/inbox/ab=cd/ef==?x=1", "/hooks/inbox/***?x=1"),
        ("also a wrong one", "guess=1/2", "http://h/hooks/inbox/guess=1/2", "http://h/hooks/inbox/***"),
        ("under another path", "ab=cd/ef", "/w/ab=cd/ef", "/w/***"),
        ("decoded", "ab%3Dcd%2Fef", "/w/ab=cd/ef x", "/w/*** x"),
        ("with digits of another case", "ab%3Dcd%2Fef", "/w/ab%3dcd%2fef", "***"),
        ("encoded where it was not", "ab=cd/ef", "u=%2Fab%3Dcd%2Fef", "***"),
        ("too short to be looked for", "ab", "cabs", "cabs"),
    ] {
        let captured =
            Captured { in_path: Some(in_path.to_owned()), ..captured(&[("x-original-uri", value)], "", "") };
        let line = shown(&captured, true);
        assert_eq!(line["headers"], json!([["x-original-uri", expected]]), "{sentence}");
    }
}

#[test]
fn a_text_that_would_cost_too_much_to_look_through_is_hidden() {
    let line = shown(&captured(&[], "", &"=/:".repeat(20_000)), true);
    assert_eq!(line["body"]["content"], "***");
}

#[test]
fn a_body_is_its_names_and_with_values_only_where_asked() {
    let json_body = r#"{"id":12345,"token":"unknown","nested":[{"clientSecret":1,"note":"t0ken-Marked"}],"ok":true,"n":null}"#;
    let json_type: &[_] = &[("content-type", "application/json")];
    let line = shown(&captured(json_type, "", json_body), false);
    assert_eq!(
        line["body"],
        json!({"bytes": json_body.len(), "media_type": "application/json", "kind": "json", "shape":
            {"id": "number", "token": "string", "nested": [{"clientSecret": "number", "note": "string"}],
             "ok": "boolean", "n": "null"}})
    );
    let line = shown(&captured(json_type, "", json_body), true);
    assert_eq!(
        line["body"]["content"],
        json!({"id": 12345, "token": "***", "nested": [{"clientSecret": "***", "note": "***"}], "ok": true, "n": null})
    );
    let form: &[_] = &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let line = shown(&captured(form, "", "Body=hello+you&AccountSecret=x&other=t0ken%2DMarked"), true);
    assert_eq!(line["body"]["shape"], json!(["Body", "AccountSecret", "other"]));
    assert_eq!(
        line["body"]["content"],
        json!([["Body", "hello you"], ["AccountSecret", "*** (1 characters)"], ["other", "***"]])
    );
    let line = shown(&captured(&[], "", "password: hunter2\n{\"token\": \"x\", t0ken-Marked"), true);
    assert_eq!(line["body"]["shape"], json!({"lines": 2}));
    assert_eq!(line["body"]["content"], "password: ***\n{\"token\": \"***\", ***");
    for (body, kind) in [
        (Body::Large(70_000), "large"),
        (Body::Whole(Bytes::from_static(b"\xff")), "binary"),
        (Body::Whole(Bytes::new()), "empty"),
    ] {
        let line = shown(&Captured { body, ..captured(&[], "", "") }, true);
        assert_eq!((&line["body"]["kind"], &line["body"]["content"]), (&json!(kind), &Value::Null));
    }
    assert_eq!(shown(&Captured { body: Body::NotRead, ..captured(&[], "", "") }, true)["body"], Value::Null);
}

#[test]
fn a_query_shows_its_names_and_the_path_no_secret() {
    let query = "a=1&token=unknown&code=k&b=t0ken-Marked&c=a+b/c=&d=%74oken&t0ken-Marked=e";
    let line = shown(&captured(&[], query, ""), false);
    assert_eq!(line["path"], "/hooks/inbox/***");
    assert_eq!(
        line["query"],
        json!([
            ["a", "1"],
            ["token", "*** (7 characters)"],
            ["code", "*** (1 characters)"],
            ["b", "***"],
            ["c", "***"],
            ["d", "token"],
            ["***", "e"]
        ])
    );
}

#[tokio::test]
async fn nothing_is_noted_while_nobody_looks_and_a_slow_watcher_is_told_what_it_missed() {
    let source = source();
    let sources = Sources::from([(source.name.clone(), source)]);
    let shutdown = Shutdown::new();
    let captures = Captures::of(&sources, &shutdown);
    let spot = captures.spot(sources.keys().next().unwrap()).unwrap();
    let (head, ()) = http::Request::post("/hooks/inbox").body(()).unwrap().into_parts();
    let note = || Note::begin(Some(&spot), &head);
    assert!(note().0.is_none());
    let mut watch = captures.watch("inbox", false, 100).unwrap();
    assert!(captures.watch("nobody", false, 1).is_none());
    for _ in 0..WAITING_MAX + 3 {
        note().publish(&End::Problem(&Problem::NotFound));
    }
    let mut next = async || serde_json::from_slice::<Value>(&watch.next().await.unwrap()).unwrap();
    assert_eq!(next().await, json!({"missed": 3}));
    assert_eq!(next().await["answer"]["status"], 404);
    drop(watch);
    assert!(note().0.is_none(), "nobody looks any more");
    let mut watch = captures.watch("inbox", false, 1).unwrap();
    note().publish(&End::Handshake);
    assert!(watch.next().await.is_some());
    assert!(watch.next().await.is_none(), "one was asked for");
    let mut watch = captures.watch("inbox", false, 1).unwrap();
    shutdown.stop(Phase::Ingress).await;
    assert!(watch.next().await.is_none(), "the ingress has stopped");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_says_that_it_goes_on() {
    let source = source();
    let sources = Sources::from([(source.name.clone(), source)]);
    let captures = Captures::of(&sources, &Shutdown::new());
    let mut watch = captures.watch("inbox", false, 1).unwrap();
    assert_eq!(watch.next().await.unwrap(), "\n");
}

proptest! {
    #[test]
    fn no_text_around_it_shows_a_live_secret(before in "[ -~éß]{0,30}", after in "[ -~éß]{0,30}") {
        let source = source();
        let shown = mask::Mask::new(&source, None).text(&format!("{before} t0ken-Marked \"path-Secr3t\"{after}"));
        prop_assert!(!shown.contains("Marked"), "{}", shown);
        let is_its_own_word = !after.starts_with(|c: char| !c.is_whitespace());
        prop_assert!(!is_its_own_word || !shown.contains("path-Secr3t"), "{}", shown);
    }
}
