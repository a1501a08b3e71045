//! The daemon as a supervisor keeps it: whenever it ends it is started again, at once, until the campaign is over.
//! Holds: every life has a log of its own and is remembered with how it ended and what the campaign did to it; the process
//! is on a leash.

use crate::support::brokers::Leashed;
use crate::support::daemon::PROGRAM;
use crate::support::small_disk::SmallDisk;
use crate::support::{client, eventually_within, lasts};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Between an end and the next start.
const RESTART_AFTER: Duration = Duration::from_millis(50);
/// How often the supervisor looks.
const LOOKS_EVERY: Duration = Duration::from_millis(10);
/// No start and no stop may take longer, faults that hold it up included: each lasts some seconds.
pub const LIFE_CHANGE_MAX: Duration = Duration::from_secs(150);
/// How long an operator waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Where it listens, and in which of its lives.
#[derive(Clone, Copy, Debug)]
pub struct Up {
    pub life: usize,
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
}

/// From one start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    pub log: PathBuf,
    /// Signals that the campaign sent.
    pub signals: Vec<&'static str>,
    pub ended: Option<ExitStatus>,
}

/// See the module.
pub struct Supervised {
    shared: Arc<Shared>,
    pub http: reqwest::Client,
    _ends_with: DropGuard,
}

struct Shared {
    folder: PathBuf,
    words: Vec<String>,
    up: watch::Sender<Option<Up>>,
    process: Mutex<Option<Arc<Leashed>>>,
    lives: Mutex<Vec<Life>>,
    is_over: CancellationToken,
}

impl Supervised {
    /// With this configuration, on the disk; its logs are in `folder`.
    pub fn start(folder: &Path, disk: &SmallDisk, config: &str) -> Supervised {
        let file = folder.join("hookbus.toml");
        std::fs::write(&file, config).unwrap();
        let own = [PROGRAM.to_owned(), "--config".to_owned(), file.display().to_string(), "run".to_owned()];
        let is_over = CancellationToken::new();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            words: disk.enter().iter().cloned().chain(own).collect(),
            up: watch::Sender::new(None),
            process: Mutex::default(),
            lives: Mutex::default(),
            is_over: is_over.clone(),
        });
        tokio::spawn(supervise(Arc::clone(&shared)));
        Supervised { shared, http: client(), _ends_with: is_over.drop_guard() }
    }

    /// Where it is, while it is up.
    pub fn up(&self) -> Option<Up> {
        *self.shared.up.borrow()
    }

    /// Which life it is in, up or not; counted from one.
    pub fn life(&self) -> usize {
        self.shared.lives.lock().unwrap().len()
    }

    /// Waits until it is up in a life after this one.
    pub async fn up_after(&self, life: usize) -> Up {
        let what = format!("hookbus is up again after its life {life}");
        eventually_within(LIFE_CHANGE_MAX, &what, || async { self.up().filter(|up| up.life > life) }).await
    }

    /// Sends a signal to whatever process there is, starting or up.
    pub fn signal(&self, signal: &'static str) {
        let process = self.shared.process.lock().unwrap().clone();
        let Some(process) = process.filter(|process| !process.has_ended()) else { return };
        if let Some(life) = self.shared.lives.lock().unwrap().last_mut() {
            life.signals.push(signal);
        }
        // It may have ended just now.
        let _ =
            Command::new("kill").args([signal, &process.pid().to_string()]).stderr(Stdio::null()).status();
    }

    /// Asks the operators' listener. `None` where there is no good answer, as while it is down.
    pub async fn ask(&self, path: &str) -> Option<Value> {
        let url = format!("http://{}{path}", self.up()?.admin);
        let answer = self.http.get(url).timeout(ANSWER_MAX).send().await.ok()?;
        serde_json::from_slice(&answer.error_for_status().ok()?.bytes().await.ok()?).ok()
    }

    /// The status of one lane.
    pub async fn lane(&self, sink: &str) -> Option<Value> {
        let status = self.ask("/api/v1/status").await?;
        status["lanes"].as_array()?.iter().find(|lane| lane["sink"] == sink).cloned()
    }

    /// SIGTERM for good, and how it ended.
    pub async fn stop(&self) -> ExitStatus {
        self.shared.is_over.cancel();
        self.signal("-TERM");
        eventually_within(LIFE_CHANGE_MAX, "hookbus stops", || async { self.lives().last()?.ended }).await
    }

    /// `hookbus journal verify`, after the stop.
    pub async fn verify_journal(&self) -> Output {
        let mut words = self.shared.words.iter().filter(|word| *word != "run");
        let mut command = tokio::process::Command::new(words.next().expect("a program"));
        command.args(words).args(["journal", "verify", "--json"]).output().await.expect("it can be started")
    }

    /// All of them so far.
    pub fn lives(&self) -> Vec<Life> {
        self.shared.lives.lock().unwrap().clone()
    }
}

async fn supervise(shared: Arc<Shared>) {
    while !shared.is_over.is_cancelled() {
        let number = shared.lives.lock().unwrap().len() + 1;
        let log = shared.folder.join(format!("hookbus-{number:04}.log"));
        let (program, arguments) = shared.words.split_first().expect("a program");
        let mut command = Command::new(program);
        command.args(arguments);
        let process = Arc::new(Leashed::spawn("hookbus", &command, &log));
        shared.lives.lock().unwrap().push(Life { log: log.clone(), signals: Vec::new(), ended: None });
        *shared.process.lock().unwrap() = Some(Arc::clone(&process));
        let mut looks = interval(LOOKS_EVERY);
        let ended = loop {
            looks.tick().await;
            if let Some(ended) = process.ending() {
                break ended;
            }
            if shared.up.borrow().is_none() {
                shared.up.send_replace(addresses_in(&log, number));
            }
        };
        shared.up.send_replace(None);
        *shared.process.lock().unwrap() = None;
        shared.lives.lock().unwrap().last_mut().expect("it was pushed").ended = Some(ended);
        drop(process);
        lasts(RESTART_AFTER).await;
    }
}

/// What it says when it is ready.
fn addresses_in(log: &Path, life: usize) -> Option<Up> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().find_map(|line| {
        let fields: Value = serde_json::from_str(line).ok()?;
        let address = |name: &str| fields[name].as_str()?.parse().ok();
        Some(Up { life, ingress: address("ingress")?, admin: address("admin")? })
    })
}
