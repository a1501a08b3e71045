//! The daemon as a systemd service: the test is the service manager. It opens the socket, listens for notifications,
//! asks for reloads and restarts, and checks the shipped units with systemd's own tools.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::oracle::file_has_all;
use crate::support::{PATIENCE, client, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::process::Child;

/// As systemd starts a service with a socket: the socket is descriptor 3, and the variables speak of this process.
pub const AS_SYSTEMD: &str = r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;

/// What a service manager keeps while the service comes and goes.
struct Manager {
    folder: TempDir,
    socket: TcpListener,
    notified: UnixDatagram,
    told: Mutex<Vec<String>>,
}

/// One run of the service.
struct Service {
    child: Child,
    log: PathBuf,
}

impl Manager {
    fn new(config: &str) -> Manager {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hookbus.toml"), config).unwrap();
        let notified = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notified.set_nonblocking(true).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        Manager { folder, socket, notified, told: Mutex::default() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn command(&self, name: &str) -> tokio::process::Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = tokio::process::Command::new("sh");
        command
            .args(["-c", AS_SYSTEMD, "sh", PROGRAM, "run", "--config", "hookbus.toml"])
            .current_dir(self.folder.path())
            .env("LISTEN_FDNAMES", name)
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", "200000")
            .env("HOOKBUS__ADMIN__LISTEN", "127.0.0.1:0")
            .env("HOOKBUS__LOG__FORMAT", "json")
            .stdin(Stdio::from(OwnedFd::from(self.socket.try_clone().unwrap())))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts the service and waits until it says that it is ready, as systemd does.
    async fn start(&self) -> Service {
        let service = Service { child: self.command("ingress").spawn().unwrap(), log: self.log() };
        self.hears("READY=1").await;
        service
    }

    /// Waits for a notification with this line, and takes it and all before.
    async fn hears(&self, line: &str) -> String {
        eventually(&format!("{line} is told; the log: {}", read(&self.log())), || async {
            let mut bytes = [0; 4096];
            let mut told = self.told.lock().unwrap();
            while let Ok(length) = self.notified.recv(&mut bytes) {
                told.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
            }
            let at = told
                .iter()
                .position(|notification| notification.lines().any(|told| told.starts_with(line)))?;
            told.drain(..=at).next_back()
        })
        .await
    }

    async fn post(&self, path: &str, body: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.address());
        client()
            .post(url)
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Service {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    async fn ended(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not end; its log: {}", read(&self.log))).unwrap().code()
    }

    /// The operators' address, from the last start in the log.
    fn admin(&self) -> String {
        let log = read(&self.log);
        let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address = lines.filter_map(|line| line["admin"].as_str().map(str::to_owned)).next().unwrap();
        format!("http://{address}")
    }

    async fn metric(&self, token: &str, series: &str) -> Option<f64> {
        let url = format!("{}/metrics", self.admin());
        let text = client().get(url).bearer_auth(token).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?.to_owned();
        line.parse().ok()
    }
}

const LISTENS_AT_THE_SOCKET: &str = "[ingress]\nlisten = \"systemd:ingress\"\n";

fn plain() -> String {
    format!("{LISTENS_AT_THE_SOCKET}[sources.inbox.generic]\n[sinks.events.file]\npath = \"events.ndjson\"\n")
}

#[tokio::test]
async fn the_manager_is_told_when_it_is_ready_that_it_lives_and_when_it_stops() {
    let manager = Manager::new(&plain());
    let mut service = manager.start().await;
    assert_eq!(manager.post("/hooks/inbox", "{}").await.status(), 200, "ready means that senders are served");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    let told = manager.hears("STATUS=").await;
    assert!(told.contains("STATUS=1 sinks run; 0 deliveries wait"), "{told}");
    service.signal("-TERM");
    manager.hears("STOPPING=1").await;
    assert_eq!(service.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_refuses_nobody_and_loses_nothing() {
    const RESTARTS: usize = 5;
    let manager = Arc::new(Manager::new(&plain()));
    let mut service = manager.start().await;
    let (promised, is_over) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let (manager, promised, is_over) = (manager.clone(), promised.clone(), is_over.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    // A client of its own each time: every post opens a connection.
                    let answer =
                        manager.post("/hooks/inbox", &format!("{{\"s\":{sender},\"n\":{number}}}")).await;
                    assert_eq!(answer.status(), 200);
                    let answer: Value = answer.json().await.unwrap();
                    promised.lock().unwrap().insert(answer["id"].as_str().unwrap().to_owned());
                }
            })
        })
        .collect();
    for _ in 0..RESTARTS {
        let enough = promised.lock().unwrap().len() + 50;
        eventually("some more are promised", || async {
            (promised.lock().unwrap().len() >= enough).then_some(())
        })
        .await;
        service.signal("-TERM");
        assert_eq!(service.ended().await, Some(0));
        service = manager.start().await;
    }
    is_over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("no request was refused, reset or answered otherwise");
    }
    let promised = promised.lock().unwrap().clone();
    file_has_all(&manager.folder.path().join("hookbus-data/events.ndjson"), &promised).await;
    drop(service);
}

#[tokio::test]
async fn a_socket_that_nobody_names_or_that_nobody_passed_stops_the_start_with_a_sentence() {
    for (config, name, sentence) in [
        (plain(), "other", "no socket of that name was passed"),
        (plain().replace("systemd:ingress", "127.0.0.1:0"), "ingress", "no address of the ingress names it"),
    ] {
        let manager = Manager::new(&config);
        let mut service = Service { child: manager.command(name).spawn().unwrap(), log: manager.log() };
        assert_eq!(service.ended().await, Some(1));
        assert!(read(&service.log).contains(sentence), "{}", read(&service.log));
    }
}

#[tokio::test]
async fn a_reload_takes_over_secrets_and_the_log_s_level_and_names_the_rest() {
    let sink = HttpSink::start().await;
    sink.is(Mood::AsksFor("Bearer first".to_owned()));
    let manager = Manager::new("");
    let secrets = ["path", "admin", "sink"].map(|name| {
        let first = if name == "sink" { "Bearer first" } else { "first" };
        manager.file(name, first).display().to_string()
    });
    let [path, admin, authorization] = &secrets;
    let config = format!(
        "[log]\nlevel = \"info\"\n{LISTENS_AT_THE_SOCKET}plain_listen = []\n[admin]\ntoken = {{ file = \"{admin}\" }}\n\
         [sources.inbox]\npath_secret = {{ file = \"{path}\" }}\n[sources.inbox.generic]\n{}\
         [sinks.orders.http.headers]\nauthorization = {{ file = \"{authorization}\" }}\n",
        sink.table("orders")
    );
    manager.file("hookbus.toml", &config);
    let mut service = manager.start().await;
    assert_eq!(manager.post("/hooks/inbox/first", "{\"n\":1}").await.status(), 200);
    eventually("it is delivered", || async { (sink.confirmed().len() == 1).then_some(()) }).await;

    // The sink asks for its new token before the daemon has it.
    sink.is(Mood::AsksFor("Bearer second".to_owned()));
    for (name, second) in [("path", "second"), ("admin", "second"), ("sink", "Bearer second")] {
        manager.file(name, second);
    }
    manager.file(
        "hookbus.toml",
        &config
            .replace("\"info\"", "\"debug\"")
            .replace("[sources.inbox]\n", "[sources.inbox]\nrate = \"9/s\"\n"),
    );
    service.signal("-HUP");
    let told = manager.hears("RELOADING=1").await;
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    manager.hears("READY=1").await;
    assert_eq!(manager.post("/hooks/inbox/first", "{\"n\":2}").await.status(), 404);
    assert_eq!(manager.post("/hooks/inbox/second", "{\"n\":2}").await.status(), 200);
    eventually("it is delivered with the new token", || async {
        (sink.confirmed().len() == 2).then_some(())
    })
    .await;
    assert_eq!(service.metric("second", "hookbus_config_reload_success").await, Some(1.0));
    assert_eq!(service.metric("first", "hookbus_config_reload_success").await, None, "the old token is none");
    let level = client().get(format!("{}/api/v1/log-level", service.admin())).bearer_auth("second");
    assert!(level.send().await.unwrap().text().await.unwrap().contains("debug"));
    let log = read(&service.log);
    assert!(log.contains("only a restart takes them over") && log.contains("sources.inbox.rate"), "{log}");

    manager.file("hookbus.toml", "[sinks.orders]\nordr = 1\n");
    std::fs::remove_file(path).unwrap();
    service.signal("-HUP");
    manager.hears("RELOADING=1").await;
    manager.hears("READY=1").await;
    assert_eq!(manager.post("/hooks/inbox/second", "{\"n\":3}").await.status(), 200, "what was goes on");
    assert_eq!(service.metric("second", "hookbus_config_reload_success").await, Some(0.0));
    assert_eq!(service.metric("second", "hookbus_config_reloads_total{result=\"failed\"}").await, Some(1.0));
    let log = read(&service.log);
    assert!(log.contains("sinks.orders.ordr") && log.contains("does not exist"), "{log}");
    service.signal("-TERM");
    assert_eq!(service.ended().await, Some(0));
}

#[tokio::test]
async fn a_reload_that_waits_for_a_disk_delays_neither_senders_nor_the_stop() {
    let manager = Manager::new("");
    let file = manager.folder.path().join("hookbus.toml").display().to_string();
    let notify = format!("NOTIFY_SOCKET={}", manager.folder.path().join("notify").display());
    // The first to open the file is the start.
    let hangs = ["-e", "trace=openat", "-e", "inject=openat:delay_enter=600000000:when=2+"];
    let through = ["env", &notify, "strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", &file];
    let config = "[sources.inbox.generic]\n[sinks.events.file]\npath = \"events.ndjson\"\n";
    let daemon = Daemon::start_through(manager.folder.path(), &[&through[..], &hangs].concat(), config).await;
    manager.hears("READY=1").await;
    daemon.ask_to_reload();
    manager.hears("RELOADING=1").await;
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
    daemon.ask_to_stop();
    manager.hears("STOPPING=1").await;
    daemon.kill_now();
}

// === The units

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(name)
}

fn analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .output()
        .expect("systemd-analyze is there; tests/run instruments installs it")
}

/// Copies of the units that name the program under test: the shipped ones name a path that nothing is installed at.
fn units_of_this_build() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hookbus.service", "hookbus.socket"] {
        let text = read(&unit(name));
        assert!(!text.is_empty(), "{name}");
        std::fs::write(folder.path().join(name), text.replace("/usr/bin/hookbus", PROGRAM)).unwrap();
    }
    folder
}

#[test]
fn the_units_are_what_systemd_understands() {
    let units = units_of_this_build();
    let paths = ["hookbus.service", "hookbus.socket"].map(|name| units.path().join(name));
    let [service, socket] = paths.each_ref().map(|path| path.to_str().unwrap());
    let verified = analyze(&["verify", service, socket]);
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");

    std::fs::write(service, read(service.as_ref()).replace("ProtectHome=yes", "ProtectHome=perhaps"))
        .unwrap();
    let verified = analyze(&["verify", service]);
    assert!(!verified.stderr.is_empty(), "a mistake is found");
}

#[test]
fn the_service_exposes_itself_to_no_more_than_1_5() {
    let service = unit("hookbus.service");
    let judged = analyze(&["security", "--offline=true", "--threshold=15", service.to_str().unwrap()]);
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

/// The names in a set of systemd's, those of the sets in it included.
fn system_calls_of(set: &str) -> BTreeSet<String> {
    let listed = String::from_utf8(analyze(&["syscall-filter", set]).stdout).unwrap();
    let names =
        listed.lines().skip(1).map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#'));
    let (sets, calls): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with('@'));
    let calls = calls.into_iter().map(str::to_owned).collect();
    sets.into_iter().map(system_calls_of).fold(calls, |all: BTreeSet<String>, some| &all | &some)
}

#[tokio::test]
async fn the_daemon_makes_no_system_call_that_the_service_forbids() {
    let filters: Vec<String> = read(&unit("hookbus.service"))
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter=").map(str::to_owned))
        .collect();
    let mut allowed = BTreeSet::new();
    for filter in &filters {
        match filter.strip_prefix('~') {
            None => filter.split(' ').for_each(|set| allowed.extend(system_calls_of(set))),
            Some(forbidden) => {
                let forbidden: BTreeSet<_> = forbidden.split(' ').flat_map(system_calls_of).collect();
                allowed = &allowed - &forbidden;
            }
        }
    }
    assert!(allowed.contains("fdatasync") && !allowed.contains("reboot"), "{filters:?}");

    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace").display().to_string();
    let sink = HttpSink::start().await;
    // Nobody is there; the clients of the brokers do what they do at a start.
    let config = format!(
        "[sources.inbox.generic]\n[sinks.events.file]\npath = \"events.ndjson\"\n{}[sinks.k.kafka]\nbrokers = [\"127.0.0.1:9\"]\n\
         topic = \"x\"\n[sinks.n.jetstream]\nurl = \"nats://127.0.0.1:9\"\nstream = \"X\"\nsubject = \"x\"\n\
         [sinks.a.amqp]\nurl = \"amqp://127.0.0.1:9\"\nrouting_key = \"x\"\n",
        sink.table("orders")
    );
    let daemon =
        Daemon::start_through(folder.path(), &["strace", "-D", "-f", "-qq", "-o", &trace], &config).await;
    for number in 0..20 {
        assert_eq!(daemon.post("/hooks/inbox", format!("{{\"n\":{number}}}")).await.unwrap().status, 200);
    }
    eventually("the sinks that are there have them", || async {
        (sink.confirmed().len() == 20).then_some(())
    })
    .await;
    for away in ["k", "n", "a"] {
        eventually("the others were tried", || async {
            (daemon.lane(away).await["state"] == "away").then_some(())
        })
        .await;
    }
    assert!(daemon.stop().await.success());
    let made: BTreeSet<String> = read(trace.as_ref())
        .lines()
        .filter_map(|line| {
            line.split_once(' ')?.1.trim_start().split_once('(').map(|(name, _)| name.to_owned())
        })
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(made.contains("fdatasync") && made.contains("connect"), "{made:?}");
    assert_eq!(&made - &allowed, BTreeSet::new(), "forbidden and made");
}
