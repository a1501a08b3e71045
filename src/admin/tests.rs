//! The listener through a real socket, over a real journal and a real dead-letter store.

use super::*;
use crate::dead_letter::{Quarantined, Undelivered};
use crate::dispatch::LaneState;
use crate::envelope::{Data, HOOKBUS_SOURCE, SinkName};
use crate::journal::{CursorSpec, Lag, RealDisk};
use crate::sink::{Failure, Reason};
use crate::telemetry::{logging, prometheus};
use crate::time::UnixMs;
use futures_util::stream::{self, StreamExt};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PAYLOAD: &str = "{\"text\":\n\"a secret payload\"}";

#[derive(Default)]
struct OneLane {
    asked: Mutex<Vec<String>>,
}

impl OneLane {
    fn ask(&self, verb: &str, sink: &str) -> Result<(), NoSuchSink> {
        if sink != "orders" {
            return Err(NoSuchSink(sink.to_owned()));
        }
        self.asked.lock().unwrap().push(format!("{verb} {sink}"));
        Ok(())
    }
}

impl Lanes for OneLane {
    fn status(&self) -> Vec<LaneStatus> {
        vec![LaneStatus {
            sink: SinkName::new("orders").unwrap(),
            kind: "http",
            state: LaneState::Away,
            failure: Some(Failure::new(Reason::ConnectionRefused, "nothing listens there")),
            lag: Lag { events: 3, oldest: Some(UnixMs(5)) },
            in_flight: 0,
            held: 0,
            delivered: 0,
            dead_lettered: 0,
            shed: 0,
            account: Default::default(),
        }]
    }
    fn pause(&self, sink: &str) -> Result<(), NoSuchSink> {
        self.ask("pause", sink)
    }
    fn resume(&self, sink: &str) -> Result<(), NoSuchSink> {
        self.ask("resume", sink)
    }
}

/// Shows one request of the source `inbox`, then goes on without an end.
struct OneRequest;

impl Watch for OneRequest {
    fn watch(&self, source: &str, with_bodies: bool, count: u64) -> Option<BoxStream<'static, Bytes>> {
        let line = Bytes::from(format!("{{\"bodies\":{with_bodies},\"count\":{count}}}\n"));
        let lines = stream::iter([line]).chain(stream::pending());
        (source == "inbox").then(|| if count == 1 { lines.take(1).boxed() } else { lines.boxed() })
    }
}

/// Reads every body but those that say they are bad.
struct Reader;

impl Readmit for Reader {
    fn readmit(
        &self,
        _source: SourceName,
        body: Bytes,
        _content_type: Option<String>,
    ) -> BoxFuture<'_, Result<(), String>> {
        let readable = !body.starts_with(b"bad");
        Box::pin(async move { if readable { Ok(()) } else { Err("the body is not valid JSON".to_owned()) } })
    }
}

/// The whole process has one log; these tests keep it quiet.
fn quiet_log() -> LogLevel {
    let level = logging::Level::try_from("off".to_owned()).unwrap();
    logging::install(&logging::Config { level, ..Default::default() }).unwrap()
}

struct Bench {
    url: String,
    http: reqwest::Client,
    parts: Parts,
    lanes: Arc<OneLane>,
    shutdown: Shutdown,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Bench {
        Self::with_token(None).await
    }
    async fn with_token(token: Option<&str>) -> Bench {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let journal =
            crate::journal::Config { segment: crate::config::ByteSize::mib(1), ..Default::default() };
        let cursors = [CursorSpec { name: "orders".to_owned(), sheddable: false }];
        let journal =
            Journal::open(&journal, &directory.path().join("journal"), Arc::new(RealDisk), &cursors);
        let letters = DeadLetters::open(&crate::dead_letter::Config::default(), directory.path(), &shutdown);
        let lanes = Arc::new(OneLane::default());
        let parts = Parts {
            journal: journal.unwrap(),
            lanes: Arc::<OneLane>::clone(&lanes),
            dead_letters: letters.unwrap(),
            sources: vec![SourceSummary {
                name: SourceName::new("inbox").unwrap(),
                kind: "generic",
                path: "/hooks/inbox/***".to_owned(),
                authenticated: true,
            }],
            readmit: Arc::new(Reader),
            watch: Arc::new(OneRequest),
            stall_max: Duration::from_secs(8),
            accepting: Arc::new(AtomicBool::new(true)),
            metrics: prometheus::install(&shutdown),
            log_level: quiet_log(),
            encode: |event| format!("{{\"id\":\"{}\",\"data\":{PAYLOAD}}}", event.id).into_bytes(),
        };
        let config =
            Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), token: token.map(Secret::literal) };
        let admin = Admin::start(config, parts.clone(), &shutdown).await.unwrap();
        let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        Bench {
            url: format!("http://{}", admin.address),
            http,
            parts,
            lanes,
            shutdown,
            _directory: directory,
        }
    }
    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", self.url))
    }
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request("GET", path)).await
    }
    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request("POST", path).json(&body)).await
    }
    async fn dead_letter(&self, id: &str) -> String {
        let inbox = (std::borrow::Cow::Borrowed(HOOKBUS_SOURCE), "inbox".into());
        let event = Envelope {
            id: id.to_owned(),
            source: "//hookbus/sources/inbox".to_owned(),
            event_type: "webhook.received".to_owned(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: [inbox].into(),
            data: Data::Json(Bytes::from_static(PAYLOAD.as_bytes())),
        };
        let failure = Failure::new(Reason::ContentRefused, "answered 422");
        let letter = Undelivered {
            sink: &SinkName::new("orders").unwrap(),
            event: &event,
            arrived: UnixMs(1),
            attempts: 1,
            first: &failure,
            last: &failure,
            copy_to: None,
        };
        self.parts.dead_letters.put(letter).await.unwrap().0
    }
    async fn quarantine(&self, body: &str) -> String {
        let letter = Quarantined {
            source: &SourceName::new("inbox").unwrap(),
            body: &Bytes::copy_from_slice(body.as_bytes()),
            content_type: Some("application/json"),
            reason: "not_json",
            detail: "the body is not valid JSON".to_owned(),
            arrived: UnixMs(2),
        };
        self.parts.dead_letters.quarantine(letter).await.unwrap().id().0.clone()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = answer.bytes().await.unwrap();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
}

fn ids(page: &Value) -> Vec<&str> {
    page["letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn readiness_is_about_taking_events_and_not_about_sinks() {
    let bench = Bench::start().await;
    assert_eq!(bench.get("/readyz").await.0, StatusCode::OK, "a sink that is away does not matter");
    bench.parts.accepting.store(false, Ordering::Release);
    let (status, problem) = bench.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().unwrap().contains("not accepting"), "{problem}");
    assert_eq!(bench.get("/livez").await.0, StatusCode::OK, "it lives all the same");

    bench.parts.accepting.store(true, Ordering::Release);
    bench.parts.journal.close().await;
    let (status, problem) = bench.get("/readyz").await;
    assert_eq!(
        (status, &problem["detail"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("the journal is closed"))
    );
}

#[tokio::test]
async fn status_tells_everything_at_once() {
    let bench = Bench::start().await;
    bench.dead_letter("one").await;
    let (code, status) = bench.get("/api/v1/status").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(status["ready"], true);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["journal"]["health"], "ready");
    assert_eq!(status["lanes"][0]["state"], "away");
    assert_eq!(status["lanes"][0]["failure"]["reason"], "connection_refused");
    assert_eq!(status["lanes"][0]["lag"], json!({"events": 3, "oldest": 5}));
    assert_eq!(status["dead_letters"]["by_sink"], json!({"orders": 1}));
    assert_eq!(status["sources"][0]["path"], "/hooks/inbox/***");
    assert_eq!(bench.get("/api/v1/sinks").await.1, status["lanes"]);
    assert_eq!(bench.get("/api/v1/sources").await.1, status["sources"]);
    let (_, metrics) = bench.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("# TYPE hookbus_build_info gauge"), "{metrics}");
}

#[tokio::test]
async fn a_lane_is_paused_and_resumed_by_its_name() {
    let bench = Bench::start().await;
    for (path, code) in [
        ("/api/v1/sinks/orders/pause", StatusCode::NO_CONTENT),
        ("/api/v1/sinks/orders/resume", StatusCode::NO_CONTENT),
        ("/api/v1/sinks/nobody/pause", StatusCode::NOT_FOUND),
        ("/api/v1/sinks/%1b%5b2J/resume", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(answer(bench.request("POST", path)).await.0, code, "{path}");
    }
    assert_eq!(*bench.lanes.asked.lock().unwrap(), ["pause orders", "resume orders"]);
    assert_eq!(bench.get("/api/v1/sinks/orders/pause").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn letters_are_listed_page_by_page_and_shown_without_their_payload() {
    let bench = Bench::start().await;
    let first = bench.dead_letter("one").await;
    let second = bench.dead_letter("two").await;
    let third = bench.quarantine("bad").await;

    let (_, page) = bench.get("/api/v1/dead-letters?limit=2").await;
    assert_eq!(ids(&page), [first.as_str(), &second]);
    let (_, rest) =
        bench.get(&format!("/api/v1/dead-letters?limit=2&after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((ids(&rest), &rest["next"]), (vec![third.as_str()], &Value::Null));
    assert_eq!(ids(&bench.get("/api/v1/dead-letters?sink=orders&event_type=webhook.*").await.1).len(), 2);
    assert_eq!(ids(&bench.get("/api/v1/dead-letters?quarantined=true").await.1), [third.as_str()]);

    let (code, shown) = bench.get(&format!("/api/v1/dead-letters/{first}")).await;
    assert_eq!(
        (code, &shown["event_id"], &shown["reason"]),
        (StatusCode::OK, &json!("one"), &json!("content_refused"))
    );
    assert!(!shown.to_string().contains("secret payload"), "R8: {shown}");
    assert_eq!(bench.get("/api/v1/dead-letters/nothing").await.0, StatusCode::NOT_FOUND);
    for query in ["limit=0", "limit=1001", "limit=x", "sink=Not-A-Name", "colour=red"] {
        let (code, problem) = bench.get(&format!("/api/v1/dead-letters?{query}")).await;
        assert_eq!((code, &problem["status"]), (StatusCode::BAD_REQUEST, &json!(400)), "{query}");
    }
}

#[tokio::test]
async fn nothing_selected_never_means_everything() {
    let bench = Bench::start().await;
    let first = bench.dead_letter("one").await;
    bench.dead_letter("two").await;
    for operation in ["replay", "discard"] {
        let path = format!("/api/v1/dead-letters/{operation}");
        for body in [json!({}), json!({"ids": []}), json!({"all": false}), json!({"al": true}), json!([])] {
            assert_eq!(
                bench.post(&path, body.clone()).await.0,
                StatusCode::BAD_REQUEST,
                "{operation} {body}"
            );
        }
        let bare = bench.request("POST", &path).body("{\"all\":true}");
        assert_eq!(
            answer(bare).await.0,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a form of a web page posts no JSON"
        );
    }
    let (_, done) = bench.post("/api/v1/dead-letters/discard", json!({"ids": [first]})).await;
    assert_eq!(done, json!({"discarded": 1}));
    let (_, done) = bench.post("/api/v1/dead-letters/discard", json!({"all": true})).await;
    assert_eq!(done, json!({"discarded": 1}));
    assert_eq!(ids(&bench.get("/api/v1/dead-letters").await.1).len(), 0);
}

#[tokio::test]
async fn a_replay_asks_the_lane_and_reads_quarantined_bodies_again() {
    let bench = Bench::start().await;
    bench.dead_letter("one").await;
    let bad = bench.quarantine("bad").await;
    bench.quarantine("{}").await;
    let (code, done) = bench.post("/api/v1/dead-letters/replay", json!({"all": true})).await;
    assert_eq!(code, StatusCode::OK, "{done}");
    assert_eq!(
        (&done["requested"], &done["readmitted"], &done["more"]),
        (&json!(1), &json!(1), &json!(false))
    );
    assert_eq!(done["refused"], json!([{"id": bad, "problem": "the body is not valid JSON"}]));
    let (_, page) = bench.get("/api/v1/dead-letters").await;
    let replaying =
        |letter: &Value| (letter["reason"].as_str().unwrap().to_owned(), letter["replaying"] == true);
    let left: Vec<_> = page["letters"].as_array().unwrap().iter().map(replaying).collect();
    assert_eq!(
        left,
        [("content_refused".to_owned(), true), ("not_json".to_owned(), false)],
        "what was read is gone"
    );
}

#[tokio::test]
async fn a_replay_of_many_quarantines_goes_on_after_those_that_stay() {
    let bench = Bench::start().await;
    let bodies = (0..150).map(|n| format!("{} {n}", if n % 2 == 0 { "bad" } else { "good" }));
    for body in bodies {
        bench.quarantine(&body).await;
    }
    let (mut readmitted, mut refused, mut requests) = (0, std::collections::BTreeSet::new(), 0);
    let mut body = json!({"quarantined": true});
    loop {
        requests += 1;
        let (_, done) = bench.post("/api/v1/dead-letters/replay", body.clone()).await;
        readmitted += done["readmitted"].as_u64().unwrap();
        for letter in done["refused"].as_array().unwrap() {
            assert!(refused.insert(letter["id"].as_str().unwrap().to_owned()), "each is read once");
        }
        if done["more"] == false {
            break;
        }
        body["after"] = done["after"].clone();
    }
    assert_eq!((readmitted, refused.len(), requests), (75, 75, 2));
}

#[tokio::test]
async fn an_export_is_one_json_value_a_line_with_the_payload() {
    let bench = Bench::start().await;
    for n in 0..120 {
        bench.dead_letter(&format!("n{n:03}")).await;
    }
    bench.quarantine("bad").await;
    let (code, text) = bench.get("/api/v1/dead-letters/export").await;
    assert_eq!(code, StatusCode::OK);
    let lines: Vec<Value> =
        text.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 121, "every letter, over several pages");
    assert_eq!(lines[0]["letter"]["event_id"], "n000");
    assert_eq!(lines[0]["event"], json!({"id": "n000", "data": {"text": "a secret payload"}}));
    assert_eq!(lines[120]["body"], json!({"content_type": "application/json", "base64": "YmFk"}));
    let (_, some) = bench.get("/api/v1/dead-letters/export?quarantined=true").await;
    assert_eq!(some["letter"]["reason"], "not_json", "the filters are those of the listing");
}

#[tokio::test]
async fn the_log_level_is_read_and_changed() {
    let bench = Bench::start().await;
    assert_eq!(bench.get("/api/v1/log-level").await.1, json!({"level": "off"}));
    let put = |level: &str| answer(bench.request("PUT", "/api/v1/log-level").json(&json!({"level": level})));
    assert_eq!(put("off,hookbus::admin=error").await.1, json!({"level": "off,hookbus::admin=error"}));
    let (code, problem) = put("verbose").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(problem["detail"].as_str().unwrap().starts_with("expected error, warn"), "{problem}");
}

#[tokio::test]
async fn probes_need_no_token_and_everything_else_does() {
    let bench = Bench::with_token(Some("correct")).await;
    for (path, open) in [
        ("/livez", true),
        ("/readyz", true),
        ("/metrics", false),
        ("/api/v1/status", false),
        ("/api/v1/dead-letters", false),
        ("/api/v1/dead-letters/export", false),
    ] {
        let code = if open { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(bench.get(path).await.0, code, "{path} without a token");
        let with_token = bench.request("GET", path).bearer_auth("correct");
        assert_eq!(answer(with_token).await.0, StatusCode::OK, "{path} with it");
    }
}

#[tokio::test]
async fn every_answer_says_what_it_is_and_that_it_is_not_to_be_kept() {
    let bench = Bench::start().await;
    let foreign = |path: &str| bench.request("POST", path).header(header::ORIGIN, "http://evil.test");
    let huge = "x".repeat(REQUEST_BODY_BYTES_MAX + 1);
    let huge = bench.request("POST", "/api/v1/dead-letters/discard").json(&json!({"reason": huge}));
    for (sentence, request, code, media_type) in [
        ("a document", bench.request("GET", "/api/v1/status"), 200, "application/json"),
        ("no such path", bench.request("GET", "/api/v2"), 404, "application/problem+json"),
        ("no such method", bench.request("DELETE", "/api/v1/status"), 405, "application/problem+json"),
        ("another site's page", foreign("/api/v1/sinks/orders/pause"), 403, "application/problem+json"),
        ("a body beyond its limit", huge, 413, "application/problem+json"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), code, "{sentence}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], media_type, "{sentence}");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{sentence}");
    }
    assert!(bench.lanes.asked.lock().unwrap().is_empty(), "the foreign page paused nothing");
}

#[tokio::test]
async fn the_listener_ends_with_its_phase_although_a_client_stays_connected() {
    let bench = Bench::start().await;
    bench.get("/livez").await;
    bench.shutdown.stop(Phase::Admin).await;
    let refused = bench.request("GET", "/livez").send().await.unwrap_err();
    assert!(refused.is_connect() || refused.is_request(), "{refused}");
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_key() {
    let bench = Bench::start().await;
    let listen = bench.url.strip_prefix("http://").unwrap().parse().unwrap();
    let config = Config { listen, token: None };
    let error = Admin::start(config, bench.parts.clone(), &bench.shutdown).await.err().unwrap().to_string();
    assert!(error.contains(&listen.to_string()) && error.contains("admin.listen"), "{error}");
}

#[tokio::test]
async fn a_capture_streams_and_only_so_many_run_at_once() {
    let bench = Bench::with_token(Some("correct")).await;
    let ask = |path: &str| bench.request("GET", path).bearer_auth("correct");
    let (status, _) = bench.get("/api/v1/sources/inbox/capture").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, line) = answer(ask("/api/v1/sources/inbox/capture?count=1&bodies=true")).await;
    assert_eq!((status, line), (StatusCode::OK, json!({"bodies": true, "count": 1})));
    assert_eq!(answer(ask("/api/v1/sources/nobody/capture")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(answer(ask("/api/v1/sources/inbox/capture?count=x")).await.0, StatusCode::BAD_REQUEST);
    let mut watching = Vec::new();
    for _ in 0..CAPTURES_MAX {
        let mut capture = ask("/api/v1/sources/inbox/capture").send().await.unwrap();
        let line = capture.chunk().await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap()["bodies"], false);
        watching.push(capture);
    }
    let (status, problem) = answer(ask("/api/v1/sources/inbox/capture")).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"urn:hookbus:problem:busy".into())
    );
}
