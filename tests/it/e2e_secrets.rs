//! R8 of the real program at its most talkative: marked secrets and payloads in every place where one can be, and none of
//! the marks in anything that it says. Which keys hold secrets is asked of the program itself, so that a new one which is
//! not here fails the test.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use axum::http::{HeaderMap, StatusCode};
use hookbus::app::config::Config;
use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Part of every secret and payload here.
const MARK: &str = "hunter2";
/// A signing key is base64; this decodes, and is a mark by itself.
const SIGNING_KEY: &str = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==";
/// The seed of an NKey has a form and a checksum; made of a text, and of nobody's account.
const NKEY_SEED: &str = "SUAG2YLSNNSWILLONNSXSLLTMVSWILLPMYWTGMRNMJ4XIZLTFUYDCMX47Y";
/// `hunter2:hunter2` as HTTP basic authentication writes it.
const BASIC: &str = "aHVudGVyMjpodW50ZXIy";

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
        let marks = [MARK, SIGNING_KEY, "aHVudGVyM", BASIC, NKEY_SEED, &NKEY_SEED[8..20]];
        let around = |text: &str, mark| {
            let at = text.find(mark)?;
            Some(
                text.chars()
                    .skip(text[..at].chars().count().saturating_sub(200))
                    .take(260)
                    .collect::<String>(),
            )
        };
        let shows = |(place, text): &(String, String)| {
            let found = marks.iter().find_map(|mark| around(text, mark))?;
            Some(format!("{place}: {found}"))
        };
        let leaks: BTreeSet<String> = self.0.iter().filter_map(shows).collect();
        assert!(leaks.is_empty(), "R8: {leaks:#?}");
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

// === Every key that is a secret

/// `(sources.N.generic, sources.inbox.generic, user, the line's place, its value)` of each key in TOML with one key a line,
/// examples behind a `# ` too.
fn keys_in(text: &str) -> Vec<(String, String, usize, String)> {
    let (mut keys, mut section) = (Vec::new(), String::new());
    for (place, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || "_-".contains(c))
        {
            let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let mut parts: Vec<&str> = path.split('.').collect();
            if ["sources", "sinks"].contains(&parts[0]) {
                parts[1] = "N";
            }
            keys.push((parts.join("."), path.clone(), place, value.to_owned()));
        }
    }
    keys
}

/// The keys that are secrets, asked of the program: where a reference to a variable that is not there is named as such.
/// `config/hookbus.toml` shows every key there is; another test sees to that.
fn secret_keys() -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hookbus.toml");
    let sample =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/hookbus.toml")).unwrap();
    let keys = keys_in(&sample);
    let is_table = |line: &str| line.trim_start_matches("# ").starts_with('[');
    let mut secrets = BTreeSet::new();
    for (generic, path, place, _) in &keys {
        let section = path.rsplit_once('.').map_or("", |(section, _)| section);
        // The one key in its table, beside nothing that could be wrong before it.
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let line = sample.lines().nth(*place).unwrap().trim_start_matches("# ");
        assert!(!is_table(line));
        let (key, _) = line.split_once(" = ").unwrap();
        std::fs::write(&file, format!("{header}{key} = {{ env = \"NOT_SET_ANYWHERE\" }}\n")).unwrap();
        let Err(errors) = Config::read(Some(file.clone()), &[], false) else {
            panic!("{path} takes anything")
        };
        if errors.to_string().contains("NOT_SET_ANYWHERE is not set") {
            secrets.insert(generic.clone());
        }
    }
    secrets
}

/// Sources of every dialect and sinks of every kind, a marked secret under every key that is one; `echo` answers what it
/// is asked, and nobody listens at port 1.
fn everything(echo: &str, folder: &std::path::Path) -> String {
    let authority = crate::support::authority::Authority::new();
    let leaf = authority.leaf_files(folder, "localhost");
    let (cert, key) = (leaf.cert.display().to_string(), leaf.key.display().to_string());
    let credentials = folder.join("nats.creds");
    let jwt = format!("eyJ0eXAiOiJKV1QifQ.eyJ{MARK}.{MARK}");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{NKEY_SEED}\n------END USER NKEY SEED------\n\n***\n"
    );
    std::fs::write(&credentials, text).unwrap();
    let (seed, credentials) = (folder.join("seed"), credentials.display());
    std::fs::write(&seed, format!("{NKEY_SEED}\n")).unwrap();
    let seed = seed.display();
    let mut config = format!(
        "
        [log]
        level = 'trace'
        [admin]
        token = 'admin-{MARK}'
        [sources.gate]
        path_secret = 'path={MARK}/a'
        [sources.gate.generic.auth]
        require = 'any'
        user = '{MARK}'
        password = '{MARK}'
        bearer = 'bearer-{MARK}'
        token = 'token-{MARK}'
        token_header = 'x-gate'
        [sources.events.cloudevents]
        token = 'token-{MARK}'
        [sources.code.github]
        secret = 'secret-{MARK}'
        [sources.projects.gitlab]
        secret = 'secret-{MARK}'
        signing_token = 'whsec_{SIGNING_KEY}'
        [sources.payments.stripe]
        secret = 'whsec_{MARK}'
        [sources.workspace.slack]
        secret = 'secret-{MARK}'
        [sources.shop.shopify]
        secret = 'secret-{MARK}'
        [sources.phone.twilio]
        secret = 'secret-{MARK}'
        url = 'https://example.com/hooks/phone/{MARK}'
        [sources.messages.standard_webhooks]
        secret = 'whsec_{SIGNING_KEY}'
        [sources.partner.hmac]
        secret = 'secret-{MARK}'
        header = 'x-partner'
        [sinks.orders]
        retry = {{ first = '1ms', max = '5ms', attempts_max = 2 }}
        [sinks.orders.http]
        url = 'http://user-{MARK}:password-{MARK}@{echo}/?key={MARK}'
        secret = '{SIGNING_KEY}'
        [sinks.orders.http.headers]
        authorization = 'Bearer {MARK}'
        [sinks.secure.http]
        url = 'https://user-{MARK}:password-{MARK}@{echo}/{MARK}'
        cert = '{cert}'
        key = '{key}'
        [sinks.rabbit.amqp]
        url = 'amqp://user-{MARK}:password-{MARK}@{echo}/'
        routing_key = 'r'
        user = 'user-{MARK}'
        password = 'password-{MARK}'
        [sinks.lake.kafka]
        brokers = '{echo}'
        topic = 't'
        tls = true
        cert = '{cert}'
        cert_key = '{key}'
        cert_key_password = 'password-{MARK}'
        [sinks.lake.kafka.sasl]
        mechanism = 'SCRAM-SHA-512'
        username = 'user-{MARK}'
        password = 'password-{MARK}'
        [sinks.stream.kafka]
        brokers = '127.0.0.1:1'
        topic = 't'
        [sinks.stream.kafka.sasl]
        mechanism = 'OAUTHBEARER'
        token_url = 'http://user-{MARK}:password-{MARK}@{echo}/{MARK}?key={MARK}'
        client_id = 'hookbus'
        client_secret = 'secret-{MARK}'
        "
    );
    for dialect in ["zapi", "plugzapi"] {
        config += &format!(
            "
            [sources.{dialect}.{dialect}]
            instance = 'I1'
            token = 'token-{MARK}'
            client_token = 'client-{MARK}'
            api = 'http://{echo}'
            poll = '10s'
            "
        );
    }
    for kind in ["nats", "jetstream"] {
        for (name, login) in [
            ("a", format!("user = 'user-{MARK}'\npassword = 'password-{MARK}'")),
            ("b", format!("token = 'token-{MARK}'")),
            ("c", format!("nkey = {{ file = '{seed}' }}")),
            ("d", format!("credentials = {{ file = '{credentials}' }}")),
        ] {
            let stream = if kind == "jetstream" { "stream = 'S'\n" } else { "" };
            let url = format!("nats://user-{MARK}:password-{MARK}@127.0.0.1:1");
            config +=
                &format!("\n[sinks.{kind}_{name}.{kind}]\nurl = '{url}'\nsubject = 's'\n{stream}{login}\n");
        }
    }
    config
}

/// A post to every source with a secret in each header that senders prove themselves with, and everywhere else.
async fn post_wrong_proofs(said: &mut Said, daemon: &Daemon, sources: &[&str]) {
    const PROOFS: [&str; 10] = [
        "x-hub-signature-256",
        "x-gitlab-token",
        "x-shopify-hmac-sha256",
        "x-twilio-signature",
        "x-slack-signature",
        "stripe-signature",
        "webhook-signature",
        "z-api-token",
        "cookie",
        "x-auth",
    ];
    let form = ("application/x-www-form-urlencoded", format!("a=1&password={MARK}"));
    let parts =
        ("multipart/form-data; boundary=b", format!("--b\r\nname: {MARK}\r\n\r\n{MARK}\r\n--b--\r\n"));
    let event = ("application/cloudevents+json", format!("{{\"specversion\":\"1.0\",\"id\":\"{MARK}\""));
    let bodies = [("application/json", format!("{{\"card\":\"{MARK}\"}}")), form, parts, event];
    for source in sources {
        for (media_type, body) in &bodies {
            for authorization in [format!("Bearer wrong-{MARK}"), format!("Basic {BASIC}"), MARK.to_owned()] {
                let url = format!(
                    "http://{}/hooks/{source}?access_token=wrong-{MARK}&password={MARK}",
                    daemon.ingress
                );
                let mut request =
                    daemon.http.post(url).header("content-type", *media_type).body(body.clone());
                // A header of a name that says nothing is hidden only where the source itself looks into it.
                let own = [("gate", "x-gate"), ("partner", "x-partner")];
                let own = own.iter().find(|(name, _)| source.starts_with(name)).map(|(_, header)| header);
                let uri = format!("/hooks/{source}?token={MARK}");
                request = request.header("x-original-uri", uri);
                for proof in PROOFS.iter().chain(own) {
                    request = request.header(*proof, format!("t=1,v1={MARK}, {MARK}"));
                }
                let request = request
                    .header("authorization", authorization)
                    .header("x-slack-request-timestamp", "1700000000");
                said.ask(&format!("{media_type} to {source}"), request).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_under_any_key_and_in_any_request_is_said_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (echo, answers) = echoing_sink().await;
    let config = everything(&echo, folder.path());
    let is_marked =
        |value: &str| value.contains(MARK) || value.contains(SIGNING_KEY) || value.contains("{ file = ");
    let keys = keys_in(&config).into_iter();
    let marked: BTreeSet<String> =
        keys.filter(|(.., value)| is_marked(value)).map(|(generic, ..)| generic).collect();
    let secrets = secret_keys();
    assert!(secrets.len() >= 35, "the program has told its secrets: {secrets:?}");
    let missing: Vec<&String> = secrets.difference(&marked).collect();
    assert!(missing.is_empty(), "secrets without a mark in this test; add them: {missing:?}");

    let notified = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    notified.set_nonblocking(true).unwrap();
    let variables = r#"export NOTIFY_SOCKET="$PWD/notify" WATCHDOG_USEC=200000; exec "$@""#;
    let daemon = Daemon::start_through(folder.path(), &["sh", "-c", variables, "sh"], &config).await;
    let mut said = Said::default();
    let open = "gate/path%3D{MARK}%2Fa".replace("{MARK}", MARK);
    let sources =
        ["gate", &open, "events", "code", "projects", "payments", "workspace", "shop", "phone", "messages"];
    let others = ["partner", "zapi", "plugzapi", "none"];
    let watch = |source: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["capture", "--json", "--count", "3", "--source", source]);
        command.args(["--config", "hookbus.toml"]).env("HOOKBUS__ADMIN__LISTEN", daemon.admin.to_string());
        command.current_dir(&daemon.folder).stdin(Stdio::null()).kill_on_drop(true);
        tokio::spawn(async move { command.output().await.unwrap() })
    };
    let watched = ["gate", "code", "zapi", "events"].map(watch);
    let watching = async || (daemon.log().matches("an operator watches requests").count() >= 4).then_some(());
    eventually("the captures have begun", watching).await;
    post_wrong_proofs(&mut said, &daemon, &sources).await;
    post_wrong_proofs(&mut said, &daemon, &others).await;
    for capture in watched {
        let output = capture.await.unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("\"answer\""), "{text}");
        said.note("hookbus capture", text);
    }
    // With right proofs, too.
    for source in [
        "gate",
        "events",
        "code",
        "projects",
        "payments",
        "workspace",
        "shop",
        "phone",
        "messages",
        "partner",
    ] {
        said.command(&daemon, &format!("send {source}")).await;
    }
    for source in ["zapi", "plugzapi"] {
        let url = format!("http://{}/hooks/{source}", daemon.ingress);
        let body = format!("{{\"instanceId\":\"other-{MARK}\",\"type\":\"ReceivedCallback\"}}");
        let request = daemon.http.post(url).header("z-api-token", format!("token-{MARK}")).body(body);
        assert_eq!(said.ask("another instance's event", request).await, 200);
        said.command(&daemon, &format!("register {source}")).await;
    }
    for status in [401, 200] {
        answers.store(status, Ordering::Relaxed);
        let request = daemon.http.post(format!("http://{}/hooks/{open}", daemon.ingress));
        let request = request
            .header("x-gate", format!("token-{MARK}"))
            .body(format!("{{\"card\":\"{MARK}{status}\"}}"));
        assert_eq!(said.ask("a right token", request).await, 200);
        talk_to_the_operators_listener(&mut said, &daemon).await;
    }
    let each_was_tried = async || {
        let url = format!("http://{}/api/v1/status", daemon.admin);
        let status = daemon.http.get(url).bearer_auth(format!("admin-{MARK}")).send().await.ok()?;
        let status: serde_json::Value = serde_json::from_str(&status.text().await.ok()?).ok()?;
        let failed = status["lanes"].as_array()?.iter().filter(|lane| !lane["failure"].is_null()).count();
        (failed >= 10).then_some(())
    };
    eventually("the lanes have said why they do not run", each_was_tried).await;
    for line in [
        "status",
        "status --json",
        "check --json",
        "check --connect",
        "dead-letters list --json",
        "journal inspect",
        "schema",
    ] {
        said.command(&daemon, line).await;
    }
    for file in ["cmdline", "comm"] {
        said.note(file, std::fs::read_to_string(format!("/proc/{}/{file}", daemon.pid())).unwrap());
    }
    let mut state = [0; 4096];
    let mut told = 0;
    while let Ok(bytes) = notified.recv(&mut state) {
        told += 1;
        said.note("the service manager", String::from_utf8_lossy(&state[..bytes]));
    }
    assert!(told > 2, "the service manager was told");
    said.note("the log", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    daemon.stop().await;
    said.holds_no_mark();
}

#[tokio::test]
async fn a_secret_in_the_wrong_place_of_a_configuration_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for (sentence, text) in [
        ("an address", "[ingress]\nlisten = 'MARK'"),
        ("a network", "[ingress]\ntrusted_proxies = ['MARK']"),
        ("a size", "[ingress]\nbody_max = 'MARK'"),
        ("a rate", "[sources.a]\nrate = 'MARK'\n[sources.a.generic]"),
        ("a level", "[log]\nlevel = 'MARK'"),
        ("a name of a variable", "[admin]\ntoken = { env = 'MARK' }"),
        ("a file's name", "[admin]\ntoken = { file = 'MARK' }"),
        ("a reference of no kind", "[admin]\ntoken = { vault = 'MARK' }"),
        ("text that is no TOML", "[admin]\ntoken = 'MARK"),
        ("a number in its place", "[admin]\ntoken = 'MARK'\nlisten = 5"),
        ("a name of a header", "[sources.a.generic.auth]\ntoken = 'MARK'\ntoken_header = 'MARK MARK'"),
        ("a URL of no kind", "[sinks.a.http]\nurl = 'MARK'"),
        ("a URL of another kind", "[sinks.a.http]\nurl = 'ftp://MARK@h'"),
        ("a broker's URL", "[sinks.a.amqp]\nurl = 'amqp://MARK@h?x=1'\nrouting_key = 'r'"),
        ("a server's URL", "[sinks.a.nats]\nurl = 'http://MARK@h'\nsubject = 's'"),
        ("no NKey", "[sinks.a.nats]\nurl = 'nats://h'\nsubject = 's'\nnkey = 'MARK'"),
        ("no credentials", "[sinks.a.nats]\nurl = 'nats://h'\nsubject = 's'\ncredentials = 'MARK'"),
        ("no signing secret", "[sources.a.standard_webhooks]\nsecret = 'whsec_MARK!'"),
        (
            "a property",
            "[sinks.a.kafka]\nbrokers = 'h:1'\ntopic = 't'\nproperties = { 'ssl.key.password' = 'MARK' }",
        ),
        ("a template", "[sinks.a.kafka]\nbrokers = 'h:1'\ntopic = '{MARK'"),
        ("a choice", "[sinks.a]\norder = 'MARK'\n[sinks.a.stdout]"),
    ] {
        std::fs::write(folder.path().join("hookbus.toml"), text.replace("MARK", MARK)).unwrap();
        for command in ["check", "run"] {
            let output = Command::new(PROGRAM)
                .arg(command)
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .output()
                .await
                .unwrap();
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!output.status.success(), "{sentence}: it is wrong: {text}");
            assert!(!text.contains(MARK), "R8: {sentence}, {command}: {text}");
        }
    }
}
