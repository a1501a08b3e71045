//! The real binary as a user starts it: a child process with its own folder, found by what it prints.

use super::{PATIENCE, client};
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_hookbus");

/// A running hookbus.
pub struct Daemon {
    child: Child,
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    pub folder: PathBuf,
    pub http: reqwest::Client,
    log: Arc<Mutex<Vec<String>>>,
}

fn written(folder: &Path, config: &str) -> PathBuf {
    let file = folder.join("hookbus.toml");
    std::fs::write(&file, config).unwrap();
    file
}

/// What was answered to a webhook.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub body: String,
}

impl Daemon {
    /// Starts with the built-in default, on free ports, in `folder`.
    pub async fn start_default(folder: &Path) -> Daemon {
        Self::start_with(folder, &[], None, Stdio::null()).await
    }

    /// Starts with this configuration (TOML without the listeners), on free ports, in `folder`.
    pub async fn start(folder: &Path, config: &str) -> Daemon {
        Self::start_printing(folder, config, Stdio::null()).await
    }

    /// As [`Daemon::start`], with its standard output going somewhere.
    pub async fn start_printing(folder: &Path, config: &str, output: impl Into<Stdio>) -> Daemon {
        let file = written(folder, config);
        Self::start_with(folder, &[], Some(&file), output.into()).await
    }

    /// As [`Daemon::start`], through another program with these arguments, which must become it under its own process
    /// id: `strace -D …`, `faketime …`, `unshare --mount sh -c '…; exec "$@"' sh`.
    pub async fn start_through(folder: &Path, wrapper: &[&str], config: &str) -> Daemon {
        let file = written(folder, config);
        Self::start_with(folder, wrapper, Some(&file), Stdio::null()).await
    }

    async fn start_with(folder: &Path, wrapper: &[&str], config: Option<&Path>, output: Stdio) -> Daemon {
        let mut words = wrapper.iter().copied().chain([PROGRAM]);
        let mut command = Command::new(words.next().expect("the program is one"));
        command.args(words);
        if let Some(file) = config {
            command.arg("--config").arg(file);
        }
        let mut child = command
            .arg("run")
            .current_dir(folder)
            .env("HOOKBUS__INGRESS__LISTEN", "127.0.0.1:0")
            .env("HOOKBUS__ADMIN__LISTEN", "127.0.0.1:0")
            .env("HOOKBUS__LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = loop {
            let line = tokio::time::timeout(PATIENCE, lines.next_line())
                .await
                .expect("it says that it is ready")
                .unwrap();
            let Some(line) = line else {
                panic!("hookbus ended before it was ready:\n{}", log.lock().unwrap().join("\n"))
            };
            log.lock().unwrap().push(line.clone());
            let fields: Value = serde_json::from_str(&line).unwrap_or_default();
            if let (Some(ingress), Some(admin)) = (fields["ingress"].as_str(), fields["admin"].as_str()) {
                break (ingress.parse().unwrap(), admin.parse().unwrap());
            }
        };
        let keep = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                keep.lock().unwrap().push(line);
            }
        });
        Daemon { child, ingress: ready.0, admin: ready.1, folder: folder.to_owned(), http: client(), log }
    }

    /// Posts a webhook.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Result<Answered, reqwest::Error> {
        let url = format!("http://{}{path}", self.ingress);
        let request = self.http.post(url).header("content-type", "application/json").body(body);
        let response = request.send().await?;
        Ok(Answered { status: response.status().as_u16(), body: response.text().await? })
    }

    /// Asks the operators' listener.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("http://{}{path}", self.admin)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// `/api/v1/status`, parsed.
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.ask("/api/v1/status").await.1).unwrap()
    }

    /// The status of one lane.
    pub async fn lane(&self, sink: &str) -> Value {
        let status = self.status().await;
        let lanes = status["lanes"].as_array().cloned().unwrap_or_default();
        lanes
            .into_iter()
            .find(|lane| lane["sink"] == sink)
            .unwrap_or_else(|| panic!("no lane {sink} in {status}"))
    }

    /// One sample of `/metrics` by its full name with labels.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.ask("/metrics").await;
        let samples: HashMap<&str, &str> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
        samples.get(series).and_then(|value| value.parse().ok())
    }

    /// Runs another subcommand against this daemon.
    pub async fn command(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(PROGRAM)
            .args(arguments)
            .args(["--admin", &format!("http://{}", self.admin)])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap()
    }

    /// Runs `hookbus send` with this daemon's configuration and its real address.
    pub async fn send(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(PROGRAM)
            .args(["--config", "hookbus.toml", "send"])
            .args(arguments)
            .args(["--ingress", &format!("http://{}", self.ingress)])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap()
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// SIGKILL, now. It may still take a moment.
    pub fn kill_now(&self) {
        self.signal("-KILL");
    }

    /// SIGKILL, and waits until it is gone: only then can the next one have the directory.
    pub async fn kill(mut self) {
        self.kill_now();
        self.ended().await;
    }

    /// Sends SIGTERM and does not wait.
    pub fn ask_to_stop(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGHUP and does not wait.
    pub fn ask_to_reload(&self) {
        self.signal("-HUP");
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for yet")
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGTERM, then waits for the end.
    pub async fn stop(mut self) -> ExitStatus {
        self.ask_to_stop();
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("it stops within the patience")
            .unwrap()
    }

    /// Waits for an end that somebody else caused.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends within the patience").unwrap()
    }
}
