//! `hookbus capture` against the real program: what an operator sees of requests, and what nobody may see.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::{PATIENCE, eventually};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const CONFIG: &str = r#"
[sources.inbox]
path_secret = "path-Marked"
[sources.inbox.generic]
id = "/id"
subject = "/customer"
[sources.inbox.generic.auth]
token = "gate-Marked"
token_header = "x-gate"
[sinks.events.file]
path = "events.ndjson"
"#;

/// A running `hookbus capture`.
struct Capture {
    child: Child,
    out: Arc<Mutex<String>>,
}

impl Capture {
    /// Resolves once the daemon watches.
    async fn start(daemon: &Daemon, arguments: &[&str]) -> Capture {
        let mut child = Command::new(PROGRAM)
            .args(["capture", "--source", "inbox", "--admin", &format!("http://{}", daemon.admin)])
            .args(arguments)
            .current_dir(&daemon.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let line =
            tokio::time::timeout(PATIENCE, said.next_line()).await.unwrap().unwrap().unwrap_or_default();
        assert!(line.starts_with("watching inbox"), "{line}");
        let out = Arc::new(Mutex::new(String::new()));
        let (shown, mut lines) = (Arc::clone(&out), BufReader::new(child.stdout.take().unwrap()).lines());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                shown.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Capture { child, out }
    }

    async fn ended(&mut self) -> (bool, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        let out = Arc::clone(&self.out);
        // The reader of its output may be a moment behind.
        eventually("its output is read", || async { Arc::strong_count(&out).le(&2).then_some(()) }).await;
        (ended.success(), self.out.lock().unwrap().clone())
    }
}

/// Requests of every kind, each with marked secrets wherever one may stand; what was answered.
async fn send_all(daemon: &Daemon) -> Vec<u16> {
    let post = |path: &str| daemon.http.post(format!("http://{}{path}", daemon.ingress));
    let body = r#"{"id":"e1","customer":"c9","token":"body-Marked","card":{"accessToken":"deep-Marked","last":4242}}"#;
    let good = || {
        post("/hooks/inbox/path-Marked?x=1&access_token=query-Marked&other=gate-Marked")
            .header("x-gate", "gate-Marked")
            .header("authorization", "Bearer bearer-Marked")
            .header("cookie", "sid=cookie-Marked")
            .header("x-hub-signature-256", "sha256=signature-Marked")
            .header("x-forwarded-uri", "/hooks/inbox/path-Marked?token=uri-Marked")
            .header("x-jwt-like", "eyJhbGciOi.eyJqd3QtTWFya2VkIjox.jwt-Marked")
            .header("content-type", "application/json")
            .header("user-agent", "shop/1.0")
            .body(body)
    };
    let mut answers = Vec::new();
    for request in [
        good(),
        good(),
        post("/hooks/inbox/path-Marked").header("x-gate", "wrong-Marked").body("{}"),
        post("/hooks/inbox/path-Marked").body("password=form-Marked"),
        post("/hooks/inbox/guess-Marked").body("{}"),
        good().body("{\"token\": \"broken-Marked"),
    ] {
        answers.push(request.send().await.unwrap().status().as_u16());
    }
    answers
}

#[tokio::test]
async fn a_capture_shows_requests_and_refusals_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), CONFIG).await;
    let mut people = Capture::start(&daemon, &["--count", "6"]).await;
    let mut values = Capture::start(&daemon, &["--count", "6", "--json", "--body"]).await;
    assert_eq!(send_all(&daemon).await, [200, 200, 401, 401, 404, 400]);

    let (success, text) = people.ended().await;
    assert!(success && !text.contains("Marked"), "{text}");
    for shown in [
        "POST /hooks/inbox/***?x=1&access_token=***",
        " from 127.0.0.1\n",
        "  user-agent: shop/1.0",
        "  authorization: Bearer ***",
        "\"card\":{\"accessToken\":\"string\",\"last\":\"number\"}",
        "    id: e1",
        "    subject: c9",
        "  event (a duplicate, not stored again):",
        "  answer: 401 unauthorized: the credential is not valid",
        "  answer: 401 unauthorized: no credential was sent",
        "  answer: 404 not-found",
        "  answer: 400 unreadable: the body is not valid JSON",
        "  body: not read",
    ] {
        assert!(text.contains(shown), "{shown:?} is not in\n{text}");
    }
    assert!(!text.contains("4242"), "no value of a body unless asked for: {text}");

    let (success, lines) = values.ended().await;
    assert!(success && !lines.contains("Marked"), "{lines}");
    let captures: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = captures.iter().map(|capture| capture["answer"]["status"].clone()).collect();
    assert_eq!(statuses, [200, 200, 401, 401, 404, 400]);
    assert_eq!(
        captures[0]["body"]["content"],
        json!({"id": "e1", "customer": "c9", "token": "***", "card": {"accessToken": "***", "last": 4242}})
    );
    assert_eq!(captures[0]["events"][0]["attributes"]["hookbussource"], "inbox");
    assert!(!daemon.log().contains("Marked"));
    assert!(daemon.log().contains("an operator watches requests"));
}

#[tokio::test]
async fn a_capture_ends_with_the_daemon_and_is_refused_for_a_source_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), CONFIG).await;
    let refused = daemon.command(&["capture", "--source", "nobody"]).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), said.contains("no source of this name")), (Some(1), true), "{said}");
    assert_eq!(daemon.command(&["capture", "--source", "no/body"]).await.status.code(), Some(2));
    let mut capture = Capture::start(&daemon, &[]).await;
    assert!(daemon.stop().await.success());
    assert_eq!(capture.ended().await, (true, String::new()));
}

#[tokio::test]
async fn a_secret_that_a_reload_took_over_is_hidden_too() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first-Marked").unwrap();
    let config = CONFIG.replace("\"gate-Marked\"", &format!("{{ file = \"{}\" }}", token.display()));
    let daemon = Daemon::start(folder.path(), &config).await;
    let mut capture = Capture::start(&daemon, &["--count", "1", "--json", "--body"]).await;
    std::fs::write(&token, "second-Marked").unwrap();
    daemon.ask_to_reload();
    eventually("the secrets are read again", || async { daemon.log().contains("reloaded").then_some(()) })
        .await;
    let request = daemon.http.post(format!("http://{}/hooks/inbox/path-Marked", daemon.ingress));
    let request = request.header("x-gate", "second-Marked").header("x-other", "second-Marked");
    let answer = request.body("{\"id\":1,\"note\":\"second-Marked\"}").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (success, line) = capture.ended().await;
    assert!(success && line.contains("\"note\":\"***\""), "{line}");
    assert!(!line.contains("Marked"), "{line}");
}
