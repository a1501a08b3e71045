//! The real program with a source for each sender that signs: `hookbus send` posts what they accept, strangers do not.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use crate::support::oracle::lines_of;
use std::path::Path;

const CONFIG: &str = r#"
[sources.code.github]
secret = "It's a Secret to Everybody"
[sources.projects.gitlab]
secret = "a token"
signing_token = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q="
[sources.payments.stripe]
secret = ["whsec_next", "whsec_last"]
[sources.workspace.slack]
secret = "8f742231b10e8888abcd99yyyzzz85a5"
[sources.shop]
path_secret = "hush"
[sources.shop.shopify]
secret = "Convoy"
[sources.phone.twilio]
secret = "12345"
[sources.proxied]
[sources.proxied.twilio]
secret = "12345"
url = "https://bus.example.com/in/twilio"
[sources.events.standard_webhooks]
secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
type_prefix = "com.acme"
[sources.outside.standard_webhooks]
secret = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
[sources.partner.hmac]
secret = "secret"
header = "X-Sign"
timestamp_header = "X-Time"
id_header = "X-Delivery"
algorithm = "sha512"
encoding = "base64"
[sinks.events.file]
"#;

struct Sent {
    code: i32,
    out: String,
    err: String,
}

async fn send(daemon: &Daemon, arguments: &str) -> Sent {
    let file = daemon.folder.join("hookbus.toml");
    let output = tokio::process::Command::new(PROGRAM)
        .arg("--config")
        .arg(file)
        .arg("send")
        .args(arguments.split_whitespace())
        .args(["--ingress", &format!("http://{}", daemon.ingress)])
        .output()
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Sent { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

async fn event_of(events: &Path, source: &str) -> serde_json::Value {
    eventually(&format!("the event of {source}"), || async {
        lines_of(events).into_iter().find(|event| event["hookbussource"] == source)
    })
    .await
}

#[tokio::test]
async fn a_sample_of_every_sender_is_signed_let_in_and_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), CONFIG).await;
    let events = folder.path().join("hookbus-data/events.ndjson");
    for (source, event_type, answer) in [
        ("code", "com.github.push", "\"duplicate\":false"),
        ("projects", "com.gitlab.push", "\"duplicate\":false"),
        ("payments", "com.stripe.invoice.paid", "\"duplicate\":false"),
        ("workspace", "com.slack.message", ""),
        ("shop", "com.shopify.orders.create", "\"duplicate\":false"),
        ("phone", "com.twilio.message.received", "<Response/>"),
        ("proxied", "com.twilio.message.received", "<Response/>"),
        ("events", "com.acme.invoice.paid", "\"duplicate\":false"),
        ("partner", "webhook.received", "\"duplicate\":false"),
    ] {
        let sent = send(&daemon, source).await;
        assert_eq!(sent.code, 0, "{source}: {} {}", sent.out, sent.err);
        let said = sent.out.strip_prefix("200 OK\n").unwrap();
        assert!(said.contains(answer) && said.trim().is_empty() == answer.is_empty(), "{source}: {said}");
        assert_eq!(event_of(&events, source).await["type"], event_type, "{source}");
    }
    let question = send(&daemon, "workspace --sample slack-challenge").await;
    assert_eq!(question.code, 0, "{}", question.err);
    let challenge = question.out.lines().nth(1).unwrap();
    assert!(challenge.len() == 32 && challenge.bytes().all(|byte| byte.is_ascii_hexdigit()), "{challenge}");

    let event = send(&daemon, "code --data {} --header X-GitHub-Event:ping").await;
    assert_eq!(event.code, 0, "{}", event.err);
    eventually("the ping", || async {
        lines_of(&events).into_iter().find(|event| event["type"] == "com.github.ping")
    })
    .await;
    let cannot = send(&daemon, "outside").await;
    assert_eq!(cannot.code, 1, "{}", cannot.out);
    assert!(cannot.err.contains("make none"), "{}", cannot.err);

    assert_eq!(lines_of(&events).len(), 10, "the question is no event");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn who_proves_nothing_gets_a_401_a_count_by_reason_and_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), CONFIG).await;
    let wrong = format!("sha256={}", "0".repeat(64));
    let old = format!("t=1533204620,v1={}", "0".repeat(64));
    for (source, header, value, reason) in [
        ("code", "x-hub-signature", "sha1=0123456789abcdef0123456789abcdef01234567", "missing"),
        ("code", "x-hub-signature-256", wrong.as_str(), "wrong"),
        ("payments", "stripe-signature", old.as_str(), "stale"),
        ("projects", "x-gitlab-token", "a token", "missing"),
        ("phone", "x-twilio-signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "wrong"),
    ] {
        let url = format!("http://{}/hooks/{source}", daemon.ingress);
        let answer = daemon.http.post(url).header(header, value).body("{}").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{source}: {header}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("urn:hookbus:problem:unauthorized") && !text.contains("sha256"), "{text}");
        let (_, metrics) = daemon.ask("/metrics").await;
        let is_counted = |line: &&str| {
            line.contains("unauthorized")
                && line.contains(&format!("source=\"{source}\""))
                && line.contains(reason)
        };
        let counted =
            metrics.lines().find(is_counted).unwrap_or_else(|| panic!("{source} {reason}: {metrics}"));
        assert!(counted.ends_with(" 1"), "{counted}");
    }
    let question = r#"{"type":"url_verification","challenge":"abc123"}"#;
    let answer = daemon.post("/hooks/workspace", question).await.unwrap();
    assert_eq!(answer.status, 401, "a stranger's question is not answered");
    assert!(!answer.body.contains("abc123"), "{}", answer.body);
    assert!(!daemon.log().contains("whsec_"), "R8: {}", daemon.log());
    let events = folder.path().join("hookbus-data/events.ndjson");
    assert_eq!(lines_of(&events).len(), 0);
    assert!(daemon.stop().await.success());
}
