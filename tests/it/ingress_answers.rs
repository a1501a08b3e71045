//! Every answer of the ingress as a sender sees it, over a real socket.

use crate::ingress_rig::{Lines, Reply, Rig, eventually, post, source, with_path_secret};
use hookbus::config::{ByteSize, Rate};
use hookbus::dead_letter::Filter;
use hookbus::ingress;
use hookbus::journal;
use hookbus::router::{Route, Router};
use hookbus::source::{Answer, Config, OnUnreadable};
use metrics_exporter_prometheus::PrometheusBuilder;
use std::time::Duration;

async fn rig_of_every_kind() -> Rig {
    let value_true =
        Lines { token: Some("right"), answer: Answer::ValueTrue, on_unreadable: OnUnreadable::Quarantine };
    let rate = Config { rate: Some(Rate { count: 1, per: Duration::from_secs(3600) }), ..Config::default() };
    let small = Config { body_max: Some(ByteSize::bytes(10)), ..Config::default() };
    let no_dedupe = Config { dedupe: hookbus::config::Period::secs(0), ..Config::default() };
    let quarantines = Config { on_unreadable: Some(OnUnreadable::Quarantine), ..Config::default() };
    let sources = vec![
        source("open", Lines::default(), Config::default()),
        source("zapi", value_true, Config::default()),
        source("path", Lines::default(), with_path_secret("s3 cret")),
        source("rated", Lines::default(), rate),
        source("small", Lines::default(), small),
        source("always", Lines::default(), no_dedupe),
        source("quarantines", Lines::default(), quarantines),
    ];
    Rig::with(ingress::Config::default(), sources).await
}

fn request(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn every_request_gets_its_documented_answer() {
    let rig = rig_of_every_kind().await;
    assert_eq!(rig.ask(post("/hooks/rated", &[], b"first")).await.status, 200);
    for (sentence, request, status, problem) in [
        ("an event is taken", post("/hooks/open", &[], b"one"), 200, ""),
        ("a query does not matter", post("/hooks/open?a=b", &[], b"two"), 200, ""),
        ("PUT where the source takes it", request("PUT", "/hooks/open"), 400, "no-event"),
        ("an unknown source", post("/hooks/nobody", &[], b"x"), 404, "not-found"),
        ("no source at all", post("/hooks/", &[], b"x"), 404, "not-found"),
        ("another path", post("/", &[], b"x"), 404, "not-found"),
        ("a path below a source", post("/hooks/open/a/b", &[], b"x"), 404, "not-found"),
        ("a secret nobody expects", post("/hooks/open/s3%20cret", &[], b"x"), 404, "not-found"),
        ("a trailing slash is an empty secret", post("/hooks/open/", &[], b"x"), 404, "not-found"),
        ("the right path secret, encoded", post("/hooks/path/s3%20cret", &[], b"x"), 200, ""),
        ("a wrong path secret", post("/hooks/path/secret", &[], b"x"), 404, "not-found"),
        ("no path secret", post("/hooks/path", &[], b"x"), 404, "not-found"),
        ("GET on a hook", request("GET", "/hooks/open"), 405, "method-not-allowed"),
        ("DELETE on a hook", request("DELETE", "/hooks/open"), 405, "method-not-allowed"),
        ("GET without the path secret says nothing", request("GET", "/hooks/path"), 404, "not-found"),
        ("the right token", post("/hooks/zapi", &["x-token: right"], b"x"), 200, ""),
        ("a wrong token", post("/hooks/zapi", &["x-token: wrong"], b"x"), 401, "unauthorized"),
        ("no token", post("/hooks/zapi", &[], b"x"), 401, "unauthorized"),
        ("no token and unreadable", post("/hooks/zapi", &[], b"bad"), 401, "unauthorized"),
        ("unreadable, rejected", post("/hooks/open", &[], b"bad"), 400, "unreadable"),
        ("unreadable, quarantined", post("/hooks/zapi", &["x-token: right"], b"bad"), 200, ""),
        ("unreadable, quarantined by the keys", post("/hooks/quarantines", &[], b"bad"), 200, ""),
        (
            "a media type it does not take",
            post("/hooks/open", &["content-type: application/xml"], b"x"),
            415,
            "unsupported-media-type",
        ),
        ("an unknown coding", post("/hooks/open", &["content-encoding: lzma"], b"x"), 415, "unknown-coding"),
        ("a broken coding", post("/hooks/open", &["content-encoding: gzip"], b"x"), 400, "broken-coding"),
        ("a large body", post("/hooks/small", &[], b"01234567890"), 413, "body-too-large"),
        ("the largest body", post("/hooks/small", &[], b"0123456789"), 200, ""),
        ("over the rate", post("/hooks/rated", &[], b"x"), 429, "rate-limited"),
    ] {
        let reply = rig.ask(request).await;
        assert_eq!((reply.status, reply.problem().as_str()), (status, problem), "{sentence}: {reply:?}");
        let media_type = if status == 200 { "application/json" } else { "application/problem+json" };
        assert_eq!(reply.header("content-type"), Some(media_type), "{sentence}");
    }
}

#[tokio::test]
async fn refusals_carry_the_headers_that_their_status_asks_for() {
    let rig = rig_of_every_kind().await;
    rig.ask(post("/hooks/rated", &[], b"first")).await;
    assert_eq!(rig.ask(request("GET", "/hooks/open")).await.header("allow"), Some("post, put"));
    let rated = rig.ask(post("/hooks/rated", &[], b"second")).await;
    let wait: u64 = rated.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait));
    let refused = rig.ask(post("/hooks/zapi", &[], b"x")).await;
    assert!(refused.header("www-authenticate").is_some());
}

#[tokio::test]
async fn head_on_a_hook_is_answered_without_a_body() {
    let rig = Rig::plain().await;
    let mut client = rig.connect().await;
    client.send(request("HEAD", "/hooks/open")).await;
    client.tcp.readable().await.unwrap();
    let mut bytes = vec![0; 4096];
    let length = client.tcp.try_read(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 405 ") && bytes[..length].ends_with(b"\r\n\r\n"));
}

#[tokio::test]
async fn a_2xx_names_the_event_and_whether_it_was_known() {
    let rig = rig_of_every_kind().await;
    for (sentence, path, body, answer) in [
        ("new", "/hooks/open", "a", r#"{"id":"a","duplicate":false}"#),
        ("again", "/hooks/open", "a", r#"{"id":"a","duplicate":true}"#),
        (
            "several, one of them known",
            "/hooks/open",
            "b\na",
            r#"[{"id":"b","duplicate":false},{"id":"a","duplicate":true}]"#,
        ),
        ("without a window nothing is known", "/hooks/always", "c", r#"{"id":"c","duplicate":false}"#),
        ("not even then", "/hooks/always", "c", r#"{"id":"c","duplicate":false}"#),
    ] {
        assert_eq!(rig.ask(post(path, &[], body.as_bytes())).await.body, answer, "{sentence}");
    }
    let zapi: Reply = rig.ask(post("/hooks/zapi", &["x-token: right"], b"d")).await;
    assert_eq!(zapi.body, r#"{"value":true}"#);
    assert_eq!(rig.ids().await, ["a", "b", "c", "c", "d"]);
}

#[tokio::test]
async fn a_quarantined_body_is_kept_before_it_is_acknowledged() {
    let rig = rig_of_every_kind().await;
    let reply = rig.ask(post("/hooks/quarantines", &["content-type: text/x"], b"bad \xff")).await;
    let letters = rig.dead_letters.list(Filter::default(), None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "not_json");
    assert_eq!(reply.body, format!(r#"{{"id":"{}","duplicate":false}}"#, letters[0].id.0));
    assert!(rig.ids().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_never_acknowledged() {
    let rig = rig_of_every_kind().await;
    rig.journal.close().await;
    rig.dead_letters.close().await;
    for (sentence, request) in [
        ("an event, with the journal closed", post("/hooks/open", &[], b"x")),
        ("a quarantine, with the store closed", post("/hooks/quarantines", &[], b"bad")),
    ] {
        let reply = rig.ask(request).await;
        assert_eq!((reply.status, reply.problem().as_str()), (503, "storage-unavailable"), "{sentence}");
        assert!(reply.header("retry-after").is_some(), "{sentence}");
    }
}

#[tokio::test]
async fn a_full_journal_refuses_new_work_and_keeps_what_it_promised() {
    let (disk_max, segment) = (ByteSize::mib(2), ByteSize::mib(1));
    let journal = journal::Config { disk_max, segment, ..journal::Config::default() };
    let sources = vec![source("open", Lines::default(), Config::default())];
    let rig = Rig::over(ingress::Config::default(), sources, journal, Router::default()).await;
    let mut promised = 0;
    let refusal = loop {
        assert!(promised < 40, "two mebibytes hold no forty bodies of 100 kB");
        let body = [format!("{promised:03}").as_bytes(), &[b'x'; 100_000][..]].concat();
        let reply = rig.ask(post("/hooks/open", &[], &body)).await;
        if reply.status != 200 {
            break reply;
        }
        promised += 1;
    };
    assert_eq!((refusal.status, refusal.problem().as_str()), (503, "storage-unavailable"));
    assert!(refusal.header("retry-after").is_some());
    assert!(promised > 0);
    assert_eq!(rig.ids().await.len(), promised);
}

#[tokio::test]
async fn an_event_larger_than_a_segment_is_too_large() {
    let journal = journal::Config { segment: ByteSize::mib(1), ..journal::Config::default() };
    let config = ingress::Config { body_max: ByteSize::mib(4), ..ingress::Config::default() };
    let sources = vec![source("open", Lines::default(), Config::default())];
    let rig = Rig::over(config, sources, journal, Router::default()).await;
    let reply = rig.ask(post("/hooks/open", &[], &vec![b'x'; 2 * 1024 * 1024])).await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "event-too-large"));
}

#[tokio::test]
async fn every_series_starts_at_zero_and_counts_what_happened() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let route = |to: &str| Route {
        from: None,
        types: Some(vec!["nothing".into()]),
        to: vec![hookbus::envelope::SinkName::new(to).unwrap()],
    };
    let lines = Lines { token: Some("t"), on_unreadable: OnUnreadable::Quarantine, ..Lines::default() };
    let rig = Rig::over(
        ingress::Config::default(),
        vec![source("lines", lines, Config::default())],
        journal::Config::default(),
        Router::new(vec![route("nowhere")]),
    )
    .await;
    let rendered = || recorder.handle().render();
    let shows = |line: &str| rendered().lines().any(|shown| shown == line);
    for zero in [
        r#"hookbus_ingress_requests_total{source="lines",answer="accepted"} 0"#,
        r#"hookbus_ingress_requests_total{source="unknown",answer="not_found"} 0"#,
        r#"hookbus_ingress_quarantined_total{source="lines",reason="too_deep"} 0"#,
        r#"hookbus_ingress_requests_in_work 0"#,
        r#"hookbus_ingress_connections 0"#,
    ] {
        assert!(shows(zero), "{zero} in\n{}", rendered());
    }
    for body in ["one", "one", "bad"] {
        assert_eq!(rig.ask(post("/hooks/lines", &["x-token: t"], body.as_bytes())).await.status, 200);
    }
    rig.ask(post("/hooks/lines", &[], b"x")).await;
    rig.ask(post("/hooks/secret-path-of-nobody", &[], b"x")).await;
    for (sentence, line) in [
        ("accepted", r#"hookbus_ingress_requests_total{source="lines",answer="accepted"} 3"#),
        ("stored", r#"hookbus_ingress_events_total{source="lines"} 1"#),
        ("known", r#"hookbus_ingress_duplicates_total{source="lines"} 1"#),
        ("quarantined", r#"hookbus_ingress_quarantined_total{source="lines",reason="not_json"} 1"#),
        ("unauthorized", r#"hookbus_ingress_unauthorized_total{source="lines",reason="missing"} 1"#),
        ("unrouted", r#"hookbus_ingress_unrouted_events_total{source="lines"} 1"#),
        ("bytes, not those of a stranger", r#"hookbus_ingress_body_bytes_total{source="lines"} 9"#),
        ("latency", r#"hookbus_ingress_request_seconds_count{source="lines"} 3"#),
        ("nobody", r#"hookbus_ingress_requests_total{source="unknown",answer="not_found"} 1"#),
    ] {
        assert!(shows(line), "{sentence}: {line} in\n{}", rendered());
    }
    assert!(!rendered().contains("secret-path"), "a path nobody configured is no label");
    eventually("all connections are closed", || shows("hookbus_ingress_connections 0")).await;
}
