//! Apache Kafka as a child process: one node in KRaft mode, which is broker and controller; read by kcat, a client that
//! is none of ours.
//! Listeners: plain text, TLS (which asks for a client's certificate without insisting), SASL for each mechanism, and TLS
//! that insists on a client's certificate.

use super::{Leashed, free_port, installed};
use crate::support::authority::Authority;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::tls_front::TlsFront;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, OwnedMutexGuard};

/// The user that every password mechanism knows.
pub const USER: &str = "alice";
/// Its password.
pub const PASSWORD: &str = "alice-secret";

const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
/// Small and quick to start rather than fast.
const JAVA: [&str; 4] = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/// The one that every test shares that leaves it running and as it is; topics have names of their own.
pub async fn shared() -> &'static Kafka {
    static SHARED: OnceCell<Kafka> = OnceCell::const_new();
    SHARED.get_or_init(Kafka::start).await
}

/// One node.
pub struct Kafka {
    process: Mutex<Arc<Leashed>>,
    folder: tempfile::TempDir,
    ports: Ports,
    /// There is one proxied listener.
    proxied: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    controller: u16,
    sasl: u16,
    tls: u16,
    mutual: u16,
    proxied: u16,
    proxy: u16,
}

/// A record as kcat read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub partition: u32,
    pub offset: u64,
    /// `None` is no key, which is another thing than an empty one.
    pub key: Option<String>,
    /// `None` is a null value.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
}

impl Read {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Kafka {
    /// Starts one and waits until it answers.
    pub async fn start() -> Kafka {
        Kafka::start_with("").await
    }

    /// The same with more lines of `server.properties`.
    pub async fn start_with(more: &str) -> Kafka {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports {
            plain: free_port(),
            controller: free_port(),
            sasl: free_port(),
            tls: free_port(),
            mutual: free_port(),
            proxied: free_port(),
            proxy: free_port(),
        };
        write_certificates(folder.path());
        let properties = folder.path().join("server.properties");
        std::fs::write(&properties, server_properties(folder.path(), ports, more)).unwrap();
        let scram = |mechanism: &str| format!("{mechanism}=[name={USER},password={PASSWORD}]");
        let formatted = java()
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&properties)
            .args(["--add-scram", &scram("SCRAM-SHA-256"), "--add-scram", &scram("SCRAM-SHA-512")])
            .output()
            .expect("java is installed");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let kafka =
            Kafka { process: Mutex::new(spawn(folder.path())), folder, ports, proxied: Arc::default() };
        kafka.ready().await;
        kafka
    }

    async fn ready(&self) {
        let address = self.address();
        let answers = || {
            Command::new("kcat")
                .args(["-L", "-b", &address, "-m", "1"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("kcat is installed")
                .success()
        };
        self.process().until(async || answers()).await;
    }

    /// Its process.
    pub fn process(&self) -> Arc<Leashed> {
        Arc::clone(&self.process.lock().unwrap())
    }

    /// Without TLS and without credentials.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }
    /// With SASL, without TLS.
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sasl)
    }
    /// With TLS.
    pub fn tls_address(&self) -> String {
        format!("localhost:{}", self.ports.tls)
    }
    /// With TLS, to those who have a certificate of the same authority.
    pub fn mutual_tls_address(&self) -> String {
        format!("localhost:{}", self.ports.mutual)
    }
    /// A proxy in front of it, through which clients are led back to the proxy, and the turn to use it.
    pub async fn proxy(&self) -> (Proxy, OwnedMutexGuard<()>) {
        let (server, turn) = self.proxied_listener().await;
        (Proxy::start_at(self.ports.proxy, server).await, turn)
    }
    /// The same with TLS in front.
    pub async fn tls_front(&self, shown: rustls::ServerConfig) -> (TlsFront, OwnedMutexGuard<()>) {
        let (server, turn) = self.proxied_listener().await;
        (TlsFront::start(self.ports.proxy, server, shown).await, turn)
    }
    async fn proxied_listener(&self) -> (std::net::SocketAddr, OwnedMutexGuard<()>) {
        let turn = Arc::clone(&self.proxied).lock_owned().await;
        // The one before ends with the runtime of its test.
        eventually("the proxy's port is free", || async {
            tokio::net::TcpListener::bind(("127.0.0.1", self.ports.proxy)).await.ok()
        })
        .await;
        (([127, 0, 0, 1], self.ports.proxied).into(), turn)
    }

    /// A file of the private authority: `ca.pem`, `client.pem`, `client.key`, and of another one: `other-ca.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends it as a crash does.
    pub async fn kill(&self) {
        let process = self.process();
        process.signal("-KILL");
        process.ended().await;
    }

    /// Starts it again, on the same ports and with the same folder.
    pub async fn start_again(&self) {
        *self.process.lock().unwrap() = spawn(self.folder.path());
        self.ready().await;
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap()
    }

    /// Creates a topic of so many partitions, with `max.message.bytes` and the like.
    pub async fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        let created = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        for result in created {
            result.unwrap();
        }
    }

    /// Changes the configuration of a topic.
    pub async fn alter_topic(&self, name: &str, key: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let altered = self.admin().alter_configs([&change], &AdminOptions::new()).await.unwrap();
        for result in altered {
            result.unwrap();
        }
    }

    /// From now on only `user` may do anything with the topic: CreateAcls, version 1, by hand, since no client here can.
    pub async fn let_only(&self, user: &str, topic: &str) {
        const CREATE_ACLS: i16 = 30;
        const VERSION: i16 = 1;
        let (topic_resource, literal, all, allow) = (2_u8, 3_u8, 2_u8, 3_u8);
        let mut request = Vec::new();
        for number in [CREATE_ACLS, VERSION] {
            request.extend(number.to_be_bytes());
        }
        request.extend(7_i32.to_be_bytes());
        let text =
            |text: &str| [&i16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
        request.extend(text("test"));
        request.extend(1_i32.to_be_bytes());
        request.push(topic_resource);
        request.extend(text(topic));
        request.push(literal);
        request.extend(text(&format!("User:{user}")));
        request.extend(text("*"));
        request.extend([all, allow]);
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_i32(i32::try_from(request.len()).unwrap()).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = vec![0; usize::try_from(stream.read_i32().await.unwrap()).unwrap()];
        stream.read_exact(&mut answer).await.unwrap();
        // Correlation, throttle time, number of results, and the first one's error.
        assert_eq!(answer[12..14], [0, 0], "the broker refuses the permission: {answer:?}");
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) {
        for result in self.admin().delete_topics(&[name], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
    }

    /// Every record of a topic by partition and offset; read by kcat.
    pub async fn read_all(&self, topic: &str) -> Vec<Read> {
        let arguments = ["-C", "-J", "-e", "-q", "-b", &self.address(), "-t", topic, "-o", "beginning"];
        let output = tokio::process::Command::new("kcat").args(arguments).output().await.unwrap();
        assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut records: Vec<Read> = lines.map(|line| read(serde_json::from_slice(line).unwrap())).collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }
}

/// A line of kcat's JSON: the only one of its forms in which a header may hold any character.
#[derive(Deserialize)]
struct Line {
    partition: u32,
    offset: u64,
    key: Option<String>,
    payload: Option<Raw>,
    /// Name, value, name, value.
    #[serde(default)]
    headers: Vec<String>,
}

/// A JSON string whose bytes kcat writes as they are, UTF-8 or not.
struct Raw(Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Raw;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

fn read(line: Line) -> Read {
    let Line { partition, offset, key, payload, headers } = line;
    let headers = headers.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    Read { partition, offset, key, value: payload.map(|Raw(bytes)| bytes), headers }
}

fn java() -> Command {
    let mut java = Command::new("java");
    let jars = format!("{}/*", installed().join("kafka").display());
    java.args(JAVA).args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &jars]);
    java
}

fn spawn(folder: &Path) -> Arc<Leashed> {
    let mut command = java();
    command.arg("kafka.Kafka").arg(folder.join("server.properties"));
    Arc::new(Leashed::spawn("kafka", &command, &folder.join("log")))
}

fn server_properties(folder: &Path, ports: Ports, more: &str) -> String {
    let Ports { plain, controller, sasl, tls, mutual, proxied, proxy } = ports;
    let folder = folder.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL://127.0.0.1:{sasl},\
TLS://127.0.0.1:{tls},MUTUAL://127.0.0.1:{mutual},PROXIED://127.0.0.1:{proxied}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://localhost:{tls},\
MUTUAL://localhost:{mutual},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,MUTUAL:SSL,\
PROXIED:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=1
num.io.threads=2
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server-store.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.tls.ssl.client.auth=none
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{USER}=\"{PASSWORD}\";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
unsecuredLoginStringClaim_sub=\"broker\";
{more}
"
    )
}

/// An authority, a server certificate for loopback, a client's, and an authority that nobody knows.
fn write_certificates(folder: &Path) {
    let authority = Authority::new();
    authority.file(folder, "ca.pem");
    Authority::new().file(folder, "other-ca.pem");
    authority.leaf_files(folder, "client");
    let server = authority.leaf_files(folder, "server");
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let store = text(&server.key) + &text(&server.cert) + &text(&folder.join("ca.pem"));
    std::fs::write(folder.join("server-store.pem"), store).unwrap();
}

/// Where tokens come from that the broker's own test mode takes: not signed, but with a subject and an end.
pub struct TokenEndpoint {
    pub url: String,
}

impl TokenEndpoint {
    /// Gives tokens to this client only.
    pub async fn start(client_id: &str, secret: &str) -> TokenEndpoint {
        let expected = format!("Basic {}", STANDARD.encode(format!("{client_id}:{secret}")));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let give = move |headers: HeaderMap, body: String| {
            let is_right = headers.get("authorization").is_some_and(|value| *value == *expected);
            async move {
                assert!(body.contains("grant_type=client_credentials"), "{body}");
                if is_right { (StatusCode::OK, token()) } else { (StatusCode::UNAUTHORIZED, String::new()) }
            }
        };
        let router = axum::Router::new().route("/token", axum::routing::post(give));
        tokio::spawn(async move { axum::serve(listener, router).await });
        TokenEndpoint { url }
    }
}

fn token() -> String {
    let now = hookbus::clock::now().0 / 1000;
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = serde_json::json!({"sub": USER, "iat": now - 1, "exp": now + 600});
    let token = format!("{}.{}.", part(serde_json::json!({"alg": "none"})), part(claims));
    serde_json::json!({"access_token": token, "token_type": "bearer", "expires_in": 600}).to_string()
}
