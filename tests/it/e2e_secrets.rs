//! R8 of the real program at its most talkative: marked secrets and payloads in every place where one can be today, and
//! none of the marks in anything that it says.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use axum::http::{HeaderMap, StatusCode};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Part of every secret and payload here.
const MARK: &str = "hunter2";
/// A signing key is base64; this decodes, and is a mark by itself.
const SIGNING_KEY: &str = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==";

/// A sink that answers with the given status, and repeats the event and what proves who sends it.
async fn echoing_sink() -> (String, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(500));
    let answers = Arc::clone(&status);
    let echo = move |headers: HeaderMap, body: String| async move {
        let status = StatusCode::from_u16(answers.load(Ordering::Relaxed)).unwrap();
        let location = [("location", format!("http://127.0.0.1:1/{MARK}"))];
        (status, location, format!("{MARK} {headers:?} {body}"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(echo);
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address.to_string(), status)
}

/// Everything that the program has said to anybody.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn note(&mut self, where_from: impl Into<String>, text: impl Into<String>) {
        self.0.push((where_from.into(), text.into()));
    }

    /// An ingress or admin request, its answer with its headers noted.
    async fn ask(&mut self, what: &str, request: reqwest::RequestBuilder) -> u16 {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
        self.note(format!("{what}: {status}"), headers + &response.text().await.unwrap());
        status
    }

    /// A subcommand with the daemon's own configuration.
    async fn command(&mut self, daemon: &Daemon, line: &str) -> i32 {
        let output = Command::new(PROGRAM)
            .args(line.split_whitespace())
            .current_dir(&daemon.folder)
            .env("HOOKBUS__INGRESS__LISTEN", daemon.ingress.to_string())
            .env("HOOKBUS__ADMIN__LISTEN", daemon.admin.to_string())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).join("\n");
        self.note(format!("hookbus {line}"), text);
        output.status.code().unwrap()
    }

    fn holds_no_mark(&self) {
        for (place, text) in &self.0 {
            for mark in [MARK, SIGNING_KEY, "aHVudGVyM"] {
                let around = text.find(mark).map(|at| text.get(at.saturating_sub(200)..at + 20));
                assert!(!text.contains(mark), "R8: {mark} in {place}: {around:?}");
            }
        }
    }
}

fn config(sink: &str) -> String {
    format!(
        "
        [log]
        level = 'trace'
        [admin]
        token = 'admin-{MARK}'
        [sources.open.generic]
        [sources.path]
        path_secret = ['path-{MARK}', 'old-path-{MARK}']
        [sources.path.generic]
        [sources.whatsapp.zapi]
        token = ['token-{MARK}', 'old-token-{MARK}']
        instance = 'I1'
        [sinks.orders]
        in_flight_max = 1
        retry = {{ first = '1ms', max = '5ms', attempts_max = 2 }}
        [sinks.orders.http]
        url = 'http://user-{MARK}:password-{MARK}@{sink}/?key={MARK}'
        secret = ['{SIGNING_KEY}']
        headers = {{ authorization = 'Bearer {MARK}' }}
        [sinks.gone.http]
        url = 'http://user-{MARK}:password-{MARK}@127.0.0.1:1/{MARK}?key={MARK}'
        "
    )
}

async fn talk_to_the_ingress(said: &mut Said, daemon: &Daemon) {
    let payload = format!("{{\"card\":\"{MARK}\"}}");
    let unreadable = format!("{{\"card\":\"{MARK}");
    let other = format!("{{\"instanceId\":\"other-{MARK}\",\"type\":\"ReceivedCallback\"}}");
    let (right, wrong) = (format!("token-{MARK}"), format!("wrong-{MARK}"));
    let path = format!("/hooks/path/path-{MARK}");
    for (sentence, path, token, body, status) in [
        ("an event", "/hooks/open", "", &payload, 200),
        ("an event with a query", &format!("/hooks/open?token={MARK}"), "", &format!("[{payload}]"), 200),
        ("unreadable, rejected", "/hooks/open", "", &unreadable, 400),
        ("the path secret", &path, "", &payload, 200),
        ("a wrong path secret", &format!("/hooks/path/wrong-{MARK}"), "", &payload, 404),
        ("no such source", &format!("/hooks/{MARK}"), "", &payload, 404),
        ("the token", "/hooks/whatsapp", &right, &payload, 200),
        ("a wrong token", "/hooks/whatsapp", &wrong, &payload, 401),
        ("no token", "/hooks/whatsapp", "", &payload, 401),
        ("unreadable, quarantined", "/hooks/whatsapp", &right, &unreadable, 200),
        ("another instance, quarantined", "/hooks/whatsapp", &right, &other, 200),
    ] {
        let mut request = daemon.http.post(format!("http://{}{path}", daemon.ingress));
        if !token.is_empty() {
            request = request.header("z-api-token", token);
        }
        let request =
            request.header("content-type", "application/json").header("x-note", MARK).body(body.clone());
        assert_eq!(said.ask(sentence, request).await, status, "{sentence}");
    }
    let url = format!("http://{}{path}", daemon.ingress);
    assert_eq!(said.ask("a wrong method", daemon.http.get(&url)).await, 405);
    let broken = daemon.http.post(&url).header("content-encoding", "gzip").body(payload.clone());
    assert_eq!(said.ask("a broken coding", broken).await, 400);
    assert_eq!(said.ask("too large", daemon.http.post(&url).body(MARK.repeat(200_000))).await, 413);
}

async fn talk_to_the_operators_listener(said: &mut Said, daemon: &Daemon) {
    for path in ["/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/sources", "/api/v1/sinks"]
        .into_iter()
        .chain(["/api/v1/dead-letters", "/api/v1/log-level", "/api/v1/none"])
    {
        let get = || daemon.http.get(format!("http://{}{path}", daemon.admin));
        said.ask(path, get()).await;
        said.ask(path, get().bearer_auth(format!("wrong-{MARK}"))).await;
        said.ask(path, get().bearer_auth(format!("admin-{MARK}"))).await;
    }
    let at = |path: &str| format!("http://{}/api/v1/{path}", daemon.admin);
    let sent = |request: reqwest::RequestBuilder, body: String| {
        request.bearer_auth(format!("admin-{MARK}")).header("content-type", "application/json").body(body)
    };
    let replay = sent(daemon.http.post(at("dead-letters/replay")), "{\"all\":true}".to_owned());
    assert_eq!(said.ask("replay", replay).await, 200);
    for (sentence, request) in [
        ("no such sink", sent(daemon.http.post(at(&format!("sinks/{MARK}-/pause"))), String::new())),
        ("no level", sent(daemon.http.put(at("log-level")), format!("{{\"level\":\"{MARK}\"}}"))),
        ("no JSON", sent(daemon.http.post(at("dead-letters/discard")), format!("{{\"{MARK}"))),
    ] {
        assert!(said.ask(sentence, request).await >= 400, "{sentence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_payload_is_said_to_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, answers) = echoing_sink().await;
    let daemon = Daemon::start(folder.path(), &config(&sink)).await;
    let mut said = Said::default();
    talk_to_the_ingress(&mut said, &daemon).await;
    let letters_of = async |wanted: u64| {
        let listed = async || {
            let url = format!("http://{}/api/v1/status", daemon.admin);
            let status = daemon.http.get(url).bearer_auth(format!("admin-{MARK}")).send().await.ok()?;
            let status: serde_json::Value = serde_json::from_str(&status.text().await.ok()?).ok()?;
            (status["dead_letters"]["by_sink"]["orders"].as_u64()? >= wanted).then_some(())
        };
        eventually("dead letters of the sink", listed).await;
    };
    letters_of(2).await;
    for status in [422, 301, 429, 401] {
        answers.store(status, Ordering::Relaxed);
        let url = format!("http://{}/hooks/open", daemon.ingress);
        let body = format!("{{\"card\":\"{MARK}\",\"status\":{status}}}");
        said.ask("another event", daemon.http.post(url).body(body)).await;
        talk_to_the_operators_listener(&mut said, &daemon).await;
    }
    for line in [
        "status",
        "status --json",
        "check",
        "check --json",
        "check --connect",
        "send whatsapp",
        "send path",
        "dead-letters list",
        "dead-letters list --json",
        "dead-letters replay --all",
        "dead-letters discard --all --yes",
    ] {
        said.command(&daemon, line).await;
    }
    let panicked = daemon.log().contains("panicked");
    said.note("the log", daemon.log());
    assert!(!panicked, "{}", daemon.log());
    assert!(daemon.log().contains("\"level\":\"DEBUG\""), "the log was as talkative as it can be");
    daemon.stop().await;
    for wanted in ["/hooks/path/***", "other_instance", "content_refused", "orders"] {
        assert!(said.0.iter().any(|(_, text)| text.contains(wanted)), "{wanted} was said");
    }
    said.holds_no_mark();
}
