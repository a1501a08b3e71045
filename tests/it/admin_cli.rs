//! The command line as its users meet it: the real binary against a real admin listener.

use hookbus::admin::{self, Admin, Lanes, Parts, Readmit, Watch};
use hookbus::config::Secret;
use hookbus::dead_letter::{DeadLetters, Quarantined};
use hookbus::dispatch::{LaneState, LaneStatus, NoSuchSink};
use hookbus::envelope::{SinkName, SourceName};
use hookbus::journal::{Journal, Lag, RealDisk};
use hookbus::shutdown::Shutdown;
use hookbus::telemetry::{logging, prometheus};
use hookbus::time::UnixMs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

struct OneLane(LaneState);

impl Lanes for OneLane {
    fn status(&self) -> Vec<LaneStatus> {
        vec![LaneStatus {
            sink: SinkName::new("orders").unwrap(),
            kind: "http",
            state: self.0,
            failure: None,
            lag: Lag::default(),
            in_flight: 0,
            held: 0,
            delivered: 0,
            dead_lettered: 0,
            shed: 0,
            account: Default::default(),
        }]
    }
    fn pause(&self, sink: &str) -> Result<(), NoSuchSink> {
        Err(NoSuchSink(sink.to_owned()))
    }
    fn resume(&self, sink: &str) -> Result<(), NoSuchSink> {
        Err(NoSuchSink(sink.to_owned()))
    }
}

struct Unreadable;

impl Readmit for Unreadable {
    fn readmit(
        &self,
        _source: SourceName,
        _body: bytes::Bytes,
        _content_type: Option<String>,
    ) -> futures_util::future::BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err("the body is not valid JSON".to_owned()) })
    }
}

struct Nothing;

impl Watch for Nothing {
    fn watch(
        &self,
        _source: &str,
        _with_bodies: bool,
        _count: u64,
    ) -> Option<futures_util::stream::BoxStream<'static, bytes::Bytes>> {
        None
    }
}

/// A listener whose one lane is in `state`, over a store with one quarantined body; its URL and the letter.
async fn daemon(state: LaneState, directory: &Path, token: Option<&str>) -> (String, String) {
    let shutdown = Shutdown::new();
    let journal =
        Journal::open(&Default::default(), &directory.join("journal"), Arc::new(RealDisk), &[]).unwrap();
    let dead_letters = DeadLetters::open(&Default::default(), directory, &shutdown).unwrap();
    let letter = Quarantined {
        source: &SourceName::new("inbox").unwrap(),
        body: &bytes::Bytes::from_static(b"{\"secret payload"),
        content_type: None,
        reason: "not_json",
        detail: "the body is not valid JSON".to_owned(),
        arrived: UnixMs(1),
    };
    let letter = dead_letters.quarantine(letter).await.unwrap().id().clone();
    let level = logging::Level::try_from("off".to_owned()).unwrap();
    let parts = Parts {
        journal,
        lanes: Arc::new(OneLane(state)),
        dead_letters,
        sources: Vec::new(),
        readmit: Arc::new(Unreadable),
        watch: Arc::new(Nothing),
        stall_max: Duration::from_secs(8),
        accepting: Arc::new(AtomicBool::new(true)),
        metrics: prometheus::install(&shutdown),
        log_level: logging::install(&logging::Config { level, ..Default::default() }).unwrap(),
        encode: |_| Vec::new(),
    };
    let config = admin::Config { listen: "127.0.0.1:0".parse().unwrap(), token: token.map(Secret::literal) };
    let admin = Admin::start(config, parts, &shutdown).await.unwrap();
    (format!("http://{}", admin.address), letter.0)
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

/// Runs the binary in `directory`; words are separated by blanks.
async fn hookbus(directory: &Path, line: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookbus"));
    command.args(line.split_whitespace()).current_dir(directory).stdin(Stdio::null());
    command.env_remove("HOOKBUS_CONFIG").env("TEST_TOKEN", "correct");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test]
async fn status_ends_with_3_only_while_a_lane_needs_somebody() {
    for (state, code) in
        [(LaneState::Running, 0), (LaneState::Paused, 0), (LaneState::Away, 3), (LaneState::Stuck, 3)]
    {
        let directory = tempfile::tempdir().unwrap();
        let (url, _) = daemon(state, directory.path(), None).await;
        let run = hookbus(directory.path(), &format!("status --admin {url}")).await;
        assert_eq!(run.code, code, "{state:?}: {}{}", run.out, run.err);
        assert!(run.out.contains("orders") && run.out.contains("1 quarantined"), "{}", run.out);
        let json = hookbus(directory.path(), &format!("status --json --admin {url}")).await;
        let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!((json.code, &document["ready"]), (code, &true.into()));
    }
}

#[tokio::test]
async fn dead_letters_go_from_the_listing_to_the_export_to_the_bin() {
    let directory = tempfile::tempdir().unwrap();
    let (url, id) = daemon(LaneState::Running, directory.path(), None).await;
    let run =
        async |line: String| hookbus(directory.path(), &format!("dead-letters {line} --admin {url}")).await;

    let list = run("list --quarantined".to_owned()).await;
    assert!(
        list.code == 0 && list.out.contains(&id) && list.out.contains("not_json"),
        "{}{}",
        list.out,
        list.err
    );
    let show = run(format!("show {id}")).await;
    assert!(show.code == 0 && show.out.contains("the body is not valid JSON"), "{}{}", show.out, show.err);
    for shown in [&list.out, &show.out] {
        assert!(!shown.contains("secret payload"), "R8: {shown}");
    }
    assert_eq!(run("show nothing".to_owned()).await.code, 1);

    let replay = run(format!("replay {id}")).await;
    assert_eq!(replay.code, 1, "it still cannot be read: {}", replay.out);
    assert!(replay.err.contains("the body is not valid JSON"), "{}", replay.err);

    let export = run("export --output letters.ndjson".to_owned()).await;
    assert_eq!(export.code, 0, "{}", export.err);
    let written = std::fs::read_to_string(directory.path().join("letters.ndjson")).unwrap();
    assert_eq!(run("export".to_owned()).await.out, written, "a file holds what standard output shows");
    let line: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(line["letter"]["id"], id.as_str());

    assert_eq!(run("discard".to_owned()).await.code, 2, "nothing named");
    assert_eq!(run(format!("discard {id}")).await.code, 2, "nobody can be asked");
    let discard = run(format!("discard {id} --yes")).await;
    assert_eq!((discard.code, discard.out.trim()), (0, "1 letters discarded"), "{}", discard.err);
    assert_eq!(run("list --json".to_owned()).await.out.trim(), "[]");
}

#[tokio::test]
async fn who_cannot_be_asked_is_said_clearly() {
    let directory = tempfile::tempdir().unwrap();
    let (url, _) = daemon(LaneState::Running, directory.path(), Some("correct")).await;
    let rig = crate::ingress_rig::Rig::plain().await;
    let ingress = format!("http://{}", rig.address);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (sentence, line, code, words) in [
        ("a token is needed", format!("status --admin {url}"), 1, "wants a token"),
        ("it is read from a variable", format!("status --admin {url} --token-env TEST_TOKEN"), 0, ""),
        ("which must be set", format!("status --admin {url} --token-env NO_SUCH"), 2, "NO_SUCH is not set"),
        ("nobody listens", format!("status --admin http://{nobody}"), 1, "is it running?"),
        ("not a URL", "status --admin nowhere".to_owned(), 1, "is not a URL"),
        (
            "the ingress is no admin listener",
            format!("status --admin {ingress}"),
            1,
            "there is no such source",
        ),
    ] {
        let run = hookbus(directory.path(), &line).await;
        assert_eq!(run.code, code, "{sentence}: {}", run.err);
        assert!(run.err.contains(words), "{sentence}: {}", run.err);
        assert!(!run.err.contains("correct"), "R8: {}", run.err);
    }
}

#[tokio::test]
async fn check_says_all_that_is_wrong_and_masks_what_is_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hookbus.toml");
    std::fs::write(&file, "[sources.inbox]\npath_secret = \"hush\"\n[sources.inbox.generic]\n").unwrap();
    let valid = hookbus(directory.path(), "check").await;
    assert_eq!(valid.code, 0, "{}", valid.err);
    assert!(
        valid.out.contains("configuration is valid") && valid.out.contains("/hooks/inbox/***"),
        "{}",
        valid.out
    );
    assert!(!valid.out.contains("hush"), "R8: {}", valid.out);

    std::fs::write(&file, "[ingress]\nlisen = 1\n[sources.inbox.generik]\n").unwrap();
    let wrong = hookbus(directory.path(), "check").await;
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.err.contains("ingress.lisen") && wrong.err.contains("generik"),
        "both at once: {}",
        wrong.err
    );
    let json = hookbus(directory.path(), "check --json").await;
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &document["valid"]), (1, &false.into()));
}

#[tokio::test]
async fn send_posts_as_the_sender_would() {
    let directory = tempfile::tempdir().unwrap();
    let (seen, mut posts) = tokio::sync::mpsc::channel(8);
    let answer = move |request: axum::extract::Request| async move {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let text = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let post = (head.uri.path().to_owned(), text("x-gate"), text("content-type"), body);
        seen.send(post).await.unwrap();
        let is_known = head.uri.path().starts_with("/hooks/whatsapp");
        let (status, answer) = if is_known { (200, "{\"value\":true}") } else { (400, "no") };
        http::Response::builder().status(status).body(axum::body::Body::from(answer)).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving =
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    let config = format!(
        "[ingress]\nlisten = \"{address}\"\n[sources.inbox.generic]\n[sources.whatsapp]\npath_secret = \"hush\"\n\
         [sources.whatsapp.zapi]\ntoken = \"correct\"\ntoken_header = \"X-Gate\"\ninstance = \"MINE\"\n"
    );
    std::fs::write(directory.path().join("hookbus.toml"), config).unwrap();

    let sent = hookbus(directory.path(), "send whatsapp").await;
    assert_eq!(sent.code, 0, "{}", sent.err);
    assert_eq!(sent.out, "200 OK\n{\"value\":true}\n");
    let (path, token, media_type, body) = posts.recv().await.unwrap();
    assert_eq!((path.as_str(), token.as_deref()), ("/hooks/whatsapp/hush", Some("correct")));
    assert_eq!(media_type.as_deref(), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["type"], &body["instanceId"]), (&"ReceivedCallback".into(), &"MINE".into()));

    let refused = hookbus(directory.path(), "send inbox --data hello").await;
    assert_eq!((refused.code, refused.out.as_str()), (1, "400 Bad Request\nno\n"));
    let (path, token, media_type, body) = posts.recv().await.unwrap();
    assert_eq!((path.as_str(), token, &body[..]), ("/hooks/inbox", None, &b"hello"[..]));
    assert_eq!(media_type.as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(hookbus(directory.path(), "send nobody").await.code, 2, "no such source");
    serving.abort();
}
