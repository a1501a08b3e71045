//! Real brokers as child processes on loopback, each with its own ports and temporary folder.
//! Holds: a broker ends with its owner, and with the test process however that ends; a broker that is missing or does not
//! become ready fails the test, and says where to look.

pub mod kafka;
pub mod nats;
pub mod rabbitmq;

use super::{PATIENCE, eventually};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// The folder that the test command fills: `bin/nats-server`, `kafka/*.jar`, `python/bin/python`.
pub fn installed() -> PathBuf {
    let cache = || {
        let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("hookbus/brokers")
    };
    let folder = std::env::var_os("HOOKBUS_TEST_BROKERS").map_or_else(cache, PathBuf::from);
    assert!(folder.is_dir(), "{} is missing; tests/run brokers installs the brokers", folder.display());
    folder
}

/// Below the ports that the system gives to outgoing connections: one of those could take the port of a broker that is
/// down for a moment.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A port of 127.0.0.1 that was free a moment ago, and that nobody else of this process gets.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// The broker becomes the leader of a group of its own; beside it waits a watcher that ends the whole group as soon as
/// the test process closes its end of the pipe, also by dying.
const LEASH: &str =
    r#"exec 3<&0; { cat <&3 >/dev/null; kill -KILL 0; } >/dev/null 2>&1 & exec "$@" </dev/null 3<&-"#;

/// A process that cannot outlive the test.
pub struct Leashed {
    child: Mutex<Child>,
    pid: u32,
    name: String,
    log: PathBuf,
}

impl Leashed {
    /// Starts `command` (program, arguments, environment), which writes what it prints to the end of `log`.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Leashed {
        let output = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut leashed = Command::new("sh");
        leashed.args(["-c", LEASH, "sh"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => leashed.env(key, value),
                None => leashed.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            leashed.current_dir(folder);
        }
        let child = leashed
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Leashed { pid: child.id(), child: Mutex::new(child), name: name.to_owned(), log: log.to_owned() }
    }

    /// The process id of the broker itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the broker itself, `-TERM` for example; after `-STOP` all its threads stand still.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        while signal == "-STOP" && !is_stopped(&pid) {
            assert!(Instant::now() < deadline, "{} does not stop", self.name);
            std::thread::yield_now();
        }
    }

    /// All that it started stands still too, until [`Leashed::goes_on`]; its leash does not.
    pub fn stands_still(&self) {
        self.signal_all("-STOP");
    }

    /// See [`Leashed::stands_still`].
    pub fn goes_on(&self) {
        self.signal_all("-CONT");
    }

    /// To it and all that it started: some brokers are begun by a script.
    pub fn signal_all(&self, signal: &str) {
        let members = members_of_group(self.pid());
        // One that has just ended needs no signal.
        let _ = Command::new("kill").arg(signal).args(members).stderr(Stdio::null()).status();
    }

    /// How it ended, if it has.
    pub fn ending(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Has it ended?
    pub fn has_ended(&self) -> bool {
        self.ending().is_some()
    }

    /// Waits until it has ended by itself or by a signal.
    pub async fn ended(&self) {
        let what = format!("{} ends", self.name);
        eventually(&what, || async { self.has_ended().then_some(()) }).await;
    }

    /// Waits until `ready` says so; fails with the end of the log where the process ends before, or never is.
    pub async fn until(&self, ready: impl AsyncFn() -> bool) {
        let what = format!("{} is ready, see {}", self.name, self.log.display());
        eventually(&what, || async {
            if self.has_ended() {
                panic!("{} ended before it was ready:\n{}", self.name, self.end_of_log());
            }
            ready().await.then_some(())
        })
        .await;
    }

    fn end_of_log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// SIGKILL to it and all that it started.
    pub fn kill(&self) {
        let group = format!("-{}", self.pid());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.lock().unwrap().wait();
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_stopped(pid: &str) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.all(|thread| {
        // One that has just ended does nothing either.
        std::fs::read_to_string(thread.unwrap().path().join("stat"))
            .map_or(true, |stat| stat.contains(") T "))
    })
}

/// The processes of a group, without the shell and the `cat` of its leash.
fn members_of_group(group: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let is_member = |pid: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "PID (NAME) STATE PARENT GROUP …", where a name may hold anything.
        let (Some(begin), Some(end)) = (stat.find('('), stat.rfind(')')) else { return false };
        let mut fields = stat[end + 1..].split_whitespace();
        let is_leash = matches!(&stat[begin + 1..end], "sh" | "cat");
        fields.nth(2) == Some(&group.to_string()) && !is_leash
    };
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(is_member).collect()
}
