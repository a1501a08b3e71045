//! A real RabbitMQ on loopback, told what to hold through its management API and read through pika, not our own client.
//! Holds: its Erlang port mapper listens on loopback too; both end with the test process.

use super::super::authority::{Authority, Leaf};
use super::super::client;
use super::{Leashed, free_port, installed};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

/// The most bytes of a message; small, so that tests can exceed it.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/brokers/read_amqp.py");

/// A running broker, or one that is down for a while.
pub struct RabbitMq {
    folder: TempDir,
    ports: Ports,
    mapper: Leashed,
    server: Option<Leashed>,
    /// Signed the certificate of its TLS listener; lets users in by theirs (EXTERNAL, user = common name).
    pub authority: Authority,
}

struct Ports {
    amqp: u16,
    amqps: u16,
    management: u16,
    mapper: u16,
    distribution: u16,
}

/// One message as pika sees it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Message {
    pub body: Vec<u8>,
    /// Properties by the protocol's names, without the headers.
    pub properties: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
}

impl RabbitMq {
    /// One for all tests that leave it up.
    pub async fn shared() -> &'static RabbitMq {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED.get_or_init(RabbitMq::start).await
    }

    /// One of one's own.
    pub async fn start() -> RabbitMq {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports {
            amqp: free_port(),
            amqps: free_port(),
            management: free_port(),
            mapper: free_port(),
            distribution: free_port(),
        };
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &ports.mapper.to_string()]);
        let mapper = Leashed::spawn("epmd", &command, &folder.path().join("epmd.log"));
        mapper.until(async || TcpStream::connect(("127.0.0.1", ports.mapper)).await.is_ok()).await;
        let mut rabbit = RabbitMq { folder, ports, mapper, server: None, authority: Authority::new() };
        rabbit.write_configuration();
        rabbit.start_again().await;
        rabbit
    }

    fn write_configuration(&self) {
        let folder = self.folder.path();
        let ca = self.authority.file(folder, "ca.pem");
        let Leaf { cert, key } = self.authority.leaf_files(folder, "localhost");
        let Ports { amqp, amqps, management, .. } = self.ports;
        let (ca, cert, key) = (ca.display(), cert.display(), key.display());
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\nlisteners.ssl.1 = 127.0.0.1:{amqps}\n\
             management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             ssl_options.cacertfile = {ca}\nssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n\
             ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\n\
             auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n\
             max_message_size = {MESSAGE_BYTES_MAX}\nlog.file.level = warning\n"
        );
        std::fs::write(folder.join("rabbitmq.conf"), configuration).unwrap();
        let plugins = "[rabbitmq_management,rabbitmq_auth_mechanism_ssl].";
        std::fs::write(folder.join("enabled_plugins"), plugins).unwrap();
    }

    /// Starts it at its old place, with all that it had.
    pub async fn start_again(&mut self) {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        self.set_environment(&mut command);
        let server = Leashed::spawn("rabbitmq", &command, &self.folder.path().join("rabbitmq.log"));
        server.until(|| self.is_ready()).await;
        self.server = Some(server);
    }

    fn set_environment(&self, command: &mut Command) {
        let folder = self.folder.path();
        command
            .env("HOME", folder)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", format!("hookbus-{}@localhost", self.ports.amqp))
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("ERL_EPMD_PORT", self.ports.mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // Ours is on a leash; one that Erlang starts because ours has just ended would outlive the test.
            .env("ERL_FLAGS", "-start_epmd false");
    }

    async fn is_ready(&self) -> bool {
        let checks =
            ["health/checks/local-alarms", &format!("health/checks/port-listener/{}", self.ports.amqps)]
                .map(|path| self.request(reqwest::Method::GET, path).send());
        let answers = futures_util::future::join_all(checks).await;
        answers.into_iter().all(|answer| answer.is_ok_and(|answer| answer.status().is_success()))
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.server.take().expect("it is up").kill();
    }

    /// Stops as its operator would, and gone.
    pub async fn stop(&mut self) {
        let server = self.server.take().expect("it is up");
        server.signal("-TERM");
        server.ended().await;
    }

    /// Its process, while it is up.
    pub fn process(&self) -> &Leashed {
        self.server.as_ref().expect("it is up")
    }

    /// The port of plain AMQP.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The port of AMQP over TLS.
    pub fn tls_port(&self) -> u16 {
        self.ports.amqps
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// `rabbitmqctl`, which takes seconds.
    pub async fn ctl(&self, arguments: &[&str]) {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        self.set_environment(&mut command);
        let output = tokio::process::Command::from(command).args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://127.0.0.1:{}/api/{path}", self.ports.management);
        client().request(method, url).basic_auth("guest", Some("guest"))
    }

    async fn tell(&self, method: reqwest::Method, path: &str, body: Value) {
        let answer = self.request(method, path).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    pub async fn exchange(&self, name: &str, kind: &str) {
        let path = format!("exchanges/%2F/{name}");
        self.tell(reqwest::Method::PUT, &path, json!({"type": kind, "durable": true})).await;
    }

    pub async fn delete_exchange(&self, name: &str) {
        self.tell(reqwest::Method::DELETE, &format!("exchanges/%2F/{name}"), json!({})).await;
    }

    pub async fn queue(&self, name: &str, arguments: Value) {
        let path = format!("queues/%2F/{name}");
        self.tell(reqwest::Method::PUT, &path, json!({"durable": true, "arguments": arguments})).await;
    }

    pub async fn purge(&self, queue: &str) {
        self.tell(reqwest::Method::DELETE, &format!("queues/%2F/{queue}/contents"), json!({})).await;
    }

    pub async fn bind(&self, exchange: &str, queue: &str, routing_key: &str) {
        let path = format!("bindings/%2F/e/{exchange}/q/{queue}");
        self.tell(reqwest::Method::POST, &path, json!({"routing_key": routing_key})).await;
    }

    /// A user who may write to exchanges whose names match `may_write` (a regular expression).
    pub async fn user(&self, name: &str, password: &str, may_write: &str) {
        let path = format!("users/{name}");
        self.tell(reqwest::Method::PUT, &path, json!({"password": password, "tags": ""})).await;
        let path = format!("permissions/%2F/{name}");
        let permissions = json!({"configure": "^$", "write": may_write, "read": "^$"});
        self.tell(reqwest::Method::PUT, &path, permissions).await;
    }

    /// The user may publish to this exchange with routing keys like `may_write` only.
    pub async fn routing_keys(&self, name: &str, exchange: &str, may_write: &str) {
        let path = format!("topic-permissions/%2F/{name}");
        let permissions = json!({"exchange": exchange, "write": may_write, "read": "^$"});
        self.tell(reqwest::Method::PUT, &path, permissions).await;
    }

    /// Every message of a queue, in its order; they stay there.
    pub async fn read_all(&self, queue: &str) -> Vec<Message> {
        let output = tokio::process::Command::new(installed().join("python/bin/python"))
            .args([READER, &self.ports.amqp.to_string(), queue])
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "pika: {}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Message::of(&serde_json::from_slice(line).unwrap())).collect()
    }
}

impl Message {
    fn of(read: &Value) -> Self {
        let texts = |of: &Value| {
            let texts = of.as_object().unwrap().iter();
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            texts.map(|(name, value)| (name.clone(), text(value))).collect()
        };
        Message {
            body: STANDARD.decode(read["body"].as_str().unwrap()).unwrap(),
            properties: texts(&read["properties"]),
            headers: texts(&read["headers"]),
        }
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // Before the folder goes.
        drop(self.server.take());
        self.mapper.kill();
    }
}
