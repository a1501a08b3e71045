//! A real nats-server with JetStream on loopback, and a reader that is not our own client.
//! Holds: the same ports and folder for its whole life, however often it is stopped, killed and started again.

use super::super::{PATIENCE, client, eventually};
use super::{Leashed, free_port, installed};
use async_nats::jetstream::stream::Config as StreamConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// How it differs from the ordinary one.
#[derive(Clone, Default)]
pub struct NatsOptions {
    /// Lines of its configuration, at the top level.
    pub lines: String,
    /// `user:password@` for the readers and the management.
    pub login: String,
    pub without_jetstream: bool,
}

/// See the module.
pub struct Nats {
    folder: TempDir,
    port: u16,
    monitor: u16,
    options: Mutex<NatsOptions>,
    process: Mutex<Option<Leashed>>,
    readers: AtomicU32,
}

/// A message as the independent reader got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    pub subject: String,
    pub headers: BTreeMap<String, String>,
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Line {
    subject: String,
    headers: BTreeMap<String, String>,
    payload: String,
}

impl Received {
    fn parse(line: &str) -> Received {
        let Line { subject, headers, payload } = serde_json::from_str(line).unwrap();
        Received { subject, headers, payload: STANDARD.decode(payload).unwrap() }
    }
}

impl Nats {
    pub async fn start() -> Nats {
        Nats::start_with(NatsOptions::default()).await
    }

    pub async fn start_with(options: NatsOptions) -> Nats {
        let nats = Nats::prepared(options);
        nats.start_again().await;
        nats
    }

    /// With its port chosen, not started.
    pub fn prepared(options: NatsOptions) -> Nats {
        let folder = tempfile::tempdir().unwrap();
        let (port, monitor) = (free_port(), free_port());
        Nats {
            folder,
            port,
            monitor,
            options: Mutex::new(options),
            process: Mutex::new(None),
            readers: AtomicU32::new(0),
        }
    }

    /// Before it is started.
    pub fn change(&self, options: NatsOptions) {
        *self.options.lock().unwrap() = options;
    }

    /// A folder that lives as long as the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, also after `stop` and `kill`.
    pub async fn start_again(&self) {
        self.write_config();
        let mut command = Command::new(installed().join("bin/nats-server"));
        command.arg("-c").arg(self.config_file());
        let process = Leashed::spawn("nats-server", &command, &self.folder().join("nats.log"));
        let health = format!("http://127.0.0.1:{}/healthz", self.monitor);
        let client = client();
        process
            .until(async || client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()))
            .await;
        *self.process.lock().unwrap() = Some(process);
    }

    /// Ends it as an operator does.
    pub async fn stop(&self) {
        let process = self.process.lock().unwrap().take().expect("it runs");
        process.signal("-TERM");
        process.ended().await;
    }

    /// Ends it as a crash does.
    pub fn kill(&self) {
        self.process.lock().unwrap().take().expect("it runs").kill();
    }

    pub fn is_running(&self) -> bool {
        self.process.lock().unwrap().is_some()
    }

    /// `-STOP` and `-CONT`: it holds its connections and does nothing.
    pub fn signal(&self, signal: &str) {
        self.process.lock().unwrap().as_ref().expect("it runs").signal(signal);
    }

    /// Does something to its process, while it is up.
    pub fn with_process<T>(&self, act: impl FnOnce(&Leashed) -> T) -> T {
        act(self.process.lock().unwrap().as_ref().expect("it runs"))
    }

    /// Changes its configuration while it runs.
    pub async fn reload(&self, lines: &str) {
        let before = self.loaded_at().await;
        self.options.lock().unwrap().lines = lines.to_owned();
        self.write_config();
        self.signal("-HUP");
        eventually("nats-server has read its configuration again", || async {
            (self.loaded_at().await != before).then_some(())
        })
        .await;
    }

    async fn loaded_at(&self) -> String {
        let url = format!("http://127.0.0.1:{}/varz", self.monitor);
        let bytes = client().get(url).send().await.unwrap().bytes().await.unwrap();
        let status: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        status["config_load_time"].as_str().unwrap().to_owned()
    }

    fn config_file(&self) -> PathBuf {
        self.folder().join("nats.conf")
    }

    fn write_config(&self) {
        let options = self.options.lock().unwrap().clone();
        let jetstream = if options.without_jetstream {
            String::new()
        } else {
            let store = self.folder().join("jetstream");
            format!("jetstream {{ store_dir: {store:?}, sync_interval: always }}")
        };
        let text = format!(
            "host: 127.0.0.1\nport: {}\nhttp: \"127.0.0.1:{}\"\n{jetstream}\n{}\n",
            self.port, self.monitor, options.lines
        );
        std::fs::write(self.config_file(), text).unwrap();
    }

    fn url(&self) -> String {
        format!("nats://{}{}", self.options.lock().unwrap().login, self.address())
    }

    /// A client for managing streams.
    pub async fn manager(&self) -> async_nats::jetstream::Context {
        let login = self.options.lock().unwrap().login.clone();
        let options = match login.trim_end_matches('@').split_once(':') {
            Some((user, password)) => {
                async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
            }
            None if login.is_empty() => async_nats::ConnectOptions::new(),
            None => async_nats::ConnectOptions::with_token(login.trim_end_matches('@').to_owned()),
        };
        // A server on a busy machine gets as much time as everything else.
        let connected = options.connection_timeout(PATIENCE).connect(self.address()).await.unwrap();
        let mut manager = async_nats::jetstream::new(connected);
        manager.set_timeout(PATIENCE);
        manager
    }

    /// Makes a stream for `subjects`.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) {
        self.create_stream_with(StreamConfig {
            name: name.to_owned(),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            ..StreamConfig::default()
        })
        .await;
    }

    pub async fn create_stream_with(&self, config: StreamConfig) {
        self.manager().await.create_stream(config).await.unwrap();
    }

    pub async fn update_stream(&self, config: StreamConfig) {
        self.manager().await.update_stream(config).await.unwrap();
    }

    pub async fn delete_stream(&self, name: &str) {
        self.manager().await.delete_stream(name).await.unwrap();
    }

    pub async fn purge_stream(&self, name: &str) {
        self.manager().await.get_stream(name).await.unwrap().purge().await.unwrap();
    }

    fn reader(&self, mode: &str, name: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/brokers/nats_reader.py");
        let mut command = Command::new(installed().join("python/bin/python"));
        command.arg(script).args([&self.url(), mode, name]);
        command
    }

    /// Everything that a stream has, in its order.
    pub fn read_stream(&self, name: &str) -> Vec<Received> {
        let output = self.reader("stream", name).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(Received::parse).collect()
    }

    /// Takes what is published from now on.
    pub async fn subscribe(&self, subject: &str) -> Subscription {
        let number = self.readers.fetch_add(1, Ordering::Relaxed);
        let log = self.folder().join(format!("subscriber-{number}.log"));
        let process = Leashed::spawn("the NATS reader", &self.reader("subscribe", subject), &log);
        let subscription = Subscription { _process: process, log };
        eventually("the NATS reader has subscribed", || async {
            subscription.text().starts_with("{\"ready\"").then_some(())
        })
        .await;
        subscription
    }
}

/// A subscriber of core NATS.
pub struct Subscription {
    _process: Leashed,
    log: PathBuf,
}

impl Subscription {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has got so far, in that order.
    pub fn received(&self) -> Vec<Received> {
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().skip(1).map(Received::parse).collect()
    }

    /// Waits until it has got `count`.
    pub async fn received_at_least(&self, count: usize) -> Vec<Received> {
        eventually("the subscriber got everything", || async {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}
