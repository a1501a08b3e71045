//! The shipped configurations, each as it is: started, posted to by `hookbus send` as its senders would, and read at the
//! other end of every sink. What is changed for that is in one table a test, and each line of it must be needed.

use crate::run_systemd::AS_SYSTEMD;
use crate::support::authority::Authority;
use crate::support::brokers::free_port;
use crate::support::brokers::kafka;
use crate::support::brokers::nats::{Nats, NatsOptions};
use crate::support::brokers::rabbitmq::RabbitMq;
use crate::support::daemon::PROGRAM;
use crate::support::eventually;
use crate::support::oracle::lines_of;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Signs whatever is signed here.
const SIGNING: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

// === An example and its daemon

/// A shipped file on this machine.
struct Example {
    folder: TempDir,
    admin_port: u16,
    daemon: Option<Child>,
}

impl Example {
    /// The file with these texts put in place of others, and the files that it names. `secrets` are at `/run/secrets` or
    /// wherever the table puts that.
    fn of(name: &str, folder: TempDir, changes: &[(&str, String)], secrets: &[(&str, &str)]) -> Example {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples").join(name);
        let mut text = std::fs::read_to_string(shipped).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{name} says nothing of {from}");
            text = text.replace(from, to);
        }
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        for (secret, value) in secrets {
            assert!(text.contains(&format!("{secret}\" }}")), "{name} names no secret {secret}");
            std::fs::write(folder.path().join("secrets").join(secret), value).unwrap();
        }
        std::fs::write(folder.path().join("hookbus.toml"), text).unwrap();
        Example { folder, admin_port: free_port(), daemon: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Begins as the unit or the container does, the socket passed where there is one.
    async fn start(&mut self, socket: Option<&TcpListener>) {
        let mut command = match socket {
            None => Command::new(PROGRAM),
            Some(socket) => {
                let mut command = Command::new("sh");
                command.args(["-c", AS_SYSTEMD, "sh", PROGRAM]).env("LISTEN_FDNAMES", "ingress");
                command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
                command
            }
        };
        let log = std::fs::File::create(self.path("log")).unwrap();
        self.common(&mut command).arg("run").stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.daemon = Some(command.spawn().unwrap());
        eventually("the daemon is ready", || async {
            let log = std::fs::read_to_string(self.path("log")).unwrap();
            assert!(!log.contains("cannot start"), "{log}");
            log.contains("hookbus is ready").then_some(())
        })
        .await;
    }

    fn common<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let admin = format!("127.0.0.1:{}", self.admin_port);
        command.arg("--config").arg(self.path("hookbus.toml")).env("HOOKBUS__ADMIN__LISTEN", admin)
    }

    /// Another command, as its operator types it.
    async fn hookbus(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        self.common(&mut command).args(arguments).stdin(Stdio::null()).output().await.unwrap()
    }

    async fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.hookbus(arguments).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}{complained}");
        said
    }

    /// Everything is delivered and healthy; then whatever a sink has is all that it gets.
    async fn is_done(&self) {
        eventually("no sink is behind", || async {
            let output = self.hookbus(&["status", "--json"]).await;
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let status: Value = serde_json::from_slice(&output.stdout).expect(&complaint);
            let lanes = status["lanes"].as_array().unwrap();
            let done = |lane: &Value| lane["lag"]["events"] == 0 && lane["state"] == "running";
            (output.status.success() && lanes.iter().all(done)).then_some(())
        })
        .await;
    }

    async fn stop(mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let pid = daemon.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(daemon.wait().await.unwrap().success());
        // Those of a systemd service are gone with it; the directory can be looked at all the same.
        std::fs::remove_dir_all(self.path("secrets")).unwrap();
        self.succeeds(&["journal", "verify"]).await;
    }
}

/// What arrived somewhere: source and type, in no order.
type Got = Vec<(String, String)>;

fn sorted(mut got: Got) -> Got {
    got.sort();
    got
}

fn of_source_and_type(pairs: &[(&str, &str)]) -> Got {
    sorted(pairs.iter().map(|(source, event)| ((*source).to_owned(), (*event).to_owned())).collect())
}

fn of_document(event: &Value) -> (String, String) {
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    (text("hookbussource"), text("type"))
}

fn of_documents<'a>(events: impl IntoIterator<Item = &'a [u8]>) -> Got {
    let parsed = events.into_iter().map(|event| serde_json::from_slice::<Value>(event).unwrap());
    sorted(parsed.map(|event| of_document(&event)).collect())
}

// === An HTTP sink that keeps what it is sent

/// One request: path, headers, body.
type Request = (String, HeaderMap, Bytes);

#[derive(Clone, Default)]
struct Endpoint {
    requests: Arc<Mutex<Vec<Request>>>,
    refuses: Arc<AtomicBool>,
}

impl Endpoint {
    async fn start() -> (Endpoint, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (endpoint, address) = (Endpoint::default(), listener.local_addr().unwrap());
        let app = Router::new().fallback(Endpoint::take).with_state(endpoint.clone());
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        (endpoint, address)
    }

    async fn take(
        State(endpoint): State<Endpoint>,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        // `check --connect` asks without posting.
        if method != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED;
        }
        if endpoint.refuses.load(Ordering::Relaxed) {
            return StatusCode::UNPROCESSABLE_ENTITY;
        }
        endpoint.requests.lock().unwrap().push((uri.path().to_owned(), headers, body));
        StatusCode::NO_CONTENT
    }

    fn taken(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn documents(&self) -> Got {
        of_documents(self.taken().iter().map(|(_, _, body)| &body[..]))
    }
}

// === The tests

#[tokio::test]
async fn the_sidecar_gives_its_service_the_sender_s_bytes_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().display().to_string();
    let (service, address) = Endpoint::start().await;
    let changes = [
        ("/var/lib/hookbus", format!("{own}/data")),
        ("/run/secrets", format!("{own}/secrets")),
        ("0.0.0.0:8080", format!("127.0.0.1:{}", free_port())),
        ("127.0.0.1:3000", address.to_string()),
    ];
    let secrets = [("admin-token", "an-operator"), ("shop-path", "a-path")];
    let mut example = Example::of("sidecar.toml", folder, &changes, &secrets);
    example.start(None).await;
    let bodies: Vec<String> = (0..5)
        .map(|number| {
            format!(
                "{{\"event_id\": \"e{number}\", \"event_type\": \"com.shop.paid\", \"customer\": {{\"id\": 7}}, \"sum\": 1.10}}"
            )
        })
        .collect();
    for body in bodies.iter().chain([&bodies[0]]) {
        let said = example.succeeds(&["send", "shop", "--data", body]).await;
        assert_eq!(
            said.contains("\"duplicate\":true"),
            said.contains("e0") && service.taken().len() > 1,
            "{said}"
        );
    }
    example.is_done().await;
    let taken = service.taken();
    assert_eq!(
        taken.iter().map(|(_, _, body)| &body[..]).collect::<Vec<_>>(),
        bodies.iter().map(String::as_bytes).collect::<Vec<_>>()
    );
    for (path, headers, _) in &taken {
        assert_eq!(
            (path.as_str(), &headers["ce-type"], &headers["ce-hookbussource"]),
            ("/events", &"com.shop.paid".parse().unwrap(), &"shop".parse().unwrap())
        );
    }
    let refused =
        example.hookbus(&["status", "--admin", &format!("http://127.0.0.1:{}", example.admin_port)]).await;
    assert!(!refused.status.success(), "operators need the token");
    example.stop().await;
}

#[tokio::test]
async fn the_service_of_systemd_archives_everything_and_signs_the_messages() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().display().to_string();
    let (crm, address) = Endpoint::start().await;
    let changes = [
        ("/var/lib/hookbus", format!("{own}/data")),
        ("/run/credentials/hookbus.service/secret_", format!("{own}/secrets/")),
        ("https://crm.example.com", format!("http://{address}")),
    ];
    let secrets = [
        ("admin-token", "an-operator"),
        ("whatsapp-path", "a-path"),
        ("zapi-token", "a-token"),
        ("crm-signing", SIGNING),
    ];
    let mut example = Example::of("systemd.toml", folder, &changes, &secrets);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    example.start(Some(&socket)).await;
    let ingress = format!("http://{}", socket.local_addr().unwrap());
    let status = json!({
        "instanceId": "3C67AB641C8AA0F49E4BC2F5CBA37A21", "type": "MessageStatusCallback", "status": "READ",
        "ids": ["3EB0"], "momment": 1_795_000_000_000_i64, "phone": "5511900000002",
    });
    example.succeeds(&["send", "whatsapp", "--ingress", &ingress]).await;
    example.succeeds(&["send", "whatsapp", "--ingress", &ingress, "--data", &status.to_string()]).await;
    example.is_done().await;
    let archived = lines_of(&example.path("data/archive.ndjson"));
    let archived = sorted(archived.iter().map(of_document).collect());
    let message = ("whatsapp", "io.z-api.message.received");
    assert_eq!(archived, of_source_and_type(&[message, ("whatsapp", "io.z-api.status.read")]));
    assert_eq!(crm.documents(), of_source_and_type(&[message]));
    let (path, headers, _) = &crm.taken()[0];
    assert_eq!(path, "/webhooks/whatsapp");
    assert!(headers.contains_key("webhook-signature"));
    example.stop().await;
}

/// What stands behind the sinks of the central feed.
struct Buses {
    nats: Nats,
    kafka: &'static kafka::Kafka,
    rabbit: &'static RabbitMq,
}

const NATS_USER: &str = "feed";
const PASSWORD: &str = "a-password";

impl Buses {
    /// Ready as their operators would have them, all with TLS, each with an authority of its own.
    async fn start(folder: &Path) -> Buses {
        let authority = Authority::new();
        let leaf = authority.leaf_files(folder, "nats");
        let lines = format!(
            "authorization {{ user: {NATS_USER}, password: {PASSWORD} }}\ntls {{ cert_file: {:?}, key_file: {:?} }}\nallow_non_tls: true\n",
            leaf.cert, leaf.key
        );
        let login = format!("{NATS_USER}:{PASSWORD}@");
        let options = NatsOptions { lines, login, ..NatsOptions::default() };
        let (nats, kafka, rabbit) =
            tokio::join!(Nats::start_with(options), kafka::shared(), RabbitMq::shared());
        nats.create_stream("EVENTS", &["hooks.>"]).await;
        kafka.create_topic("hooks", 3, &[]).await;
        rabbit.exchange("ledger", "topic").await;
        rabbit.queue("ledger", json!({"x-queue-type": "quorum"})).await;
        rabbit.bind("ledger", "ledger", "#").await;
        rabbit.user("feed", PASSWORD, "^ledger$").await;
        authority.file(folder, "nats-ca.pem");
        std::fs::copy(rabbit.ca(), folder.join("rabbit-ca.pem")).unwrap();
        for (name, file) in [
            ("kafka-ca.pem", "ca.pem"),
            ("kafka-client.pem", "client.pem"),
            ("kafka-client.key", "client.key"),
        ] {
            std::fs::copy(kafka.file(file), folder.join(name)).unwrap();
        }
        // The ingress' own.
        let ingress = authority.leaf_files(folder, "tls");
        std::fs::rename(ingress.cert, folder.join("tls.crt")).unwrap();
        Buses { nats, kafka, rabbit }
    }

    /// Of a cluster of three or two, one answers: the others are down.
    fn addresses(&self) -> Vec<(&'static str, String)> {
        let down = || format!("localhost:{}", free_port());
        let port = |address: String| format!("localhost:{}", address.rsplit(':').next().unwrap());
        vec![
            ("nats-1.example.com:4222", port(self.nats.address())),
            ("nats-2.example.com:4222", down()),
            ("nats-3.example.com:4222", down()),
            ("kafka-1.example.com:9093", self.kafka.mutual_tls_address()),
            ("kafka-2.example.com:9093", down()),
            ("rabbit-1.example.com", format!("localhost:{}", self.rabbit.tls_port())),
            ("rabbit-2.example.com", down()),
        ]
    }

    async fn in_kafka(&self) -> Got {
        let records = self.kafka.read_all("hooks").await;
        let attribute = |record: &kafka::Read, name| record.header(name).unwrap().to_owned();
        sorted(
            records
                .iter()
                .map(|one| (attribute(one, "ce_hookbussource"), attribute(one, "ce_type")))
                .collect(),
        )
    }

    async fn in_rabbit(&self) -> Got {
        of_documents(self.rabbit.read_all("ledger").await.iter().map(|message| &message.body[..]))
    }

    fn in_nats(&self) -> Got {
        let received = self.nats.read_stream("EVENTS");
        for one in &received {
            let (source, event) = of_documents([&one.payload[..]]).remove(0);
            assert_eq!(one.subject, format!("hooks.{source}.{event}"));
        }
        of_documents(received.iter().map(|one| &one.payload[..]))
    }
}

const SECRETS_OF_THE_FEED: [(&str, &str); 14] = [
    ("admin-token", "an-operator"),
    ("whatsapp-path", "a-path"),
    ("zapi-token", "a-token"),
    ("sales-path", "a-path"),
    ("plugzapi-token", "a-token"),
    ("stripe-secret", SIGNING),
    ("shopify-secret", "a-secret"),
    ("github-secret", "a-secret"),
    ("billing-path-new", "the-new-path"),
    ("billing-path-old", "the-old-path"),
    ("nats-user", NATS_USER),
    ("nats-password", PASSWORD),
    ("desk-signing", SIGNING),
    ("desk-authorization", "Bearer of-the-desk"),
];

#[tokio::test]
async fn the_central_feed_brings_each_event_to_every_bus_that_its_routes_say_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().display().to_string();
    let (desk, address) = Endpoint::start().await;
    let buses = Buses::start(folder.path()).await;
    let mut changes = vec![
        ("/var/lib/hookbus", format!("{own}/data")),
        ("/run/secrets", format!("{own}/secrets")),
        ("\"/etc/hookbus/", format!("\"{own}/")),
        ("0.0.0.0:8443", format!("127.0.0.1:{}", free_port())),
        ("https://desk.example.com", format!("http://{address}")),
    ];
    changes.extend(buses.addresses());
    let secrets =
        [&SECRETS_OF_THE_FEED[..], &[("rabbit-user", "feed"), ("rabbit-password", PASSWORD)]].concat();
    let mut example = Example::of("event-bus.toml", folder, &changes, &secrets);
    let connected = example.succeeds(&["check", "--connect"]).await;
    assert!(!connected.contains("warning"), "{connected}");
    example.start(None).await;

    let samples = [
        ("whatsapp", "io.z-api.message.received"),
        ("sales", "br.com.plugzapi.message.received"),
        ("payments", "com.stripe.invoice.paid"),
        ("shop", "com.shopify.orders.create"),
        ("repositories", "com.github.push"),
        ("billing", "com.example.invoice"),
    ];
    for (source, _) in samples {
        example.succeeds(&["send", source]).await;
    }
    example.is_done().await;
    let all = of_source_and_type(&samples);
    let money = of_source_and_type(&[samples[2], samples[3], samples[5]]);
    assert_eq!((buses.in_nats(), buses.in_kafka().await), (all.clone(), all));
    assert_eq!(buses.in_rabbit().await, money);
    assert_eq!(desk.documents(), of_source_and_type(&samples[..2]));
    for (path, headers, _) in desk.taken() {
        assert_eq!(
            (path.as_str(), &headers["authorization"]),
            ("/events", &"Bearer of-the-desk".parse().unwrap())
        );
        assert!(headers.contains_key("webhook-signature"));
    }
    assert!(lines_of(&example.path("data/attic.ndjson")).is_empty(), "no route leads to the attic");

    // What the desk refuses for good is a letter, with a copy in the attic; nobody else notices.
    desk.refuses.store(true, Ordering::Relaxed);
    example.succeeds(&["send", "whatsapp"]).await;
    let attic = eventually("the attic has a copy", || async {
        let copies = lines_of(&example.path("data/attic.ndjson"));
        (!copies.is_empty()).then_some(copies)
    })
    .await;
    assert_eq!(
        (&attic[0]["deadlettersink"], &attic[0]["deadletterreason"]),
        (&json!("desk"), &json!("content_refused"))
    );
    desk.refuses.store(false, Ordering::Relaxed);
    example.succeeds(&["dead-letters", "replay", "--sink", "desk"]).await;
    eventually("the desk has it after all", || async { (desk.taken().len() == 3).then_some(()) }).await;
    example.is_done().await;
    assert_eq!((attic.len(), buses.in_nats().len(), buses.in_rabbit().await.len()), (1, 7, 3));
    example.stop().await;
}
