//! Two daemons on one data directory: the second ends with 75 and names who has it, by whatever path it came and whatever
//! the first is doing; never do two write.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use crate::support::http_sink::{HttpSink, Mood};
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::Command;

const CONFIG: &str = "[sources.inbox.generic]\n[sinks.audit.file]\npath = \"audit.ndjson\"\n";
/// Shows the folder at another path as well, and goes there.
const AT_ANOTHER_PATH: &str = r#"mount --bind "$1" "$2" && cd "$2" && shift 2 && exec "$@""#;

fn another(wrapper: &[&str], folder: &Path) -> Command {
    let words: Vec<&str> =
        wrapper.iter().copied().chain([PROGRAM, "--config", "hookbus.toml", "run"]).collect();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .current_dir(folder)
        .env("HOOKBUS__INGRESS__LISTEN", "127.0.0.1:0")
        .env("HOOKBUS__ADMIN__LISTEN", "127.0.0.1:0")
        .env("HOOKBUS__LOG__FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn names(output: &Output, holder: u32) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains(&format!("in use by process {holder}")), "{holder}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_names_the_first_by_whatever_path_it_comes() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(folder.path(), CONFIG).await;
    names(&another(&[], folder.path()).output().await.unwrap(), daemon.pid());
    let (from, to) = (folder.path().to_str().unwrap(), elsewhere.path().to_str().unwrap());
    let mounted =
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", AT_ANOTHER_PATH, "sh", from, to];
    names(&another(&mounted, folder.path()).output().await.unwrap(), daemon.pid());
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    names(&another(&[], &link).output().await.unwrap(), daemon.pid());
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200, "the first does not notice");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_is_stopping_still_has_the_folder_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let config = format!("[sources.inbox.generic]\n{}", sink.table("orders"));
    let mut daemon = Daemon::start(folder.path(), &config).await;
    sink.is(Mood::Hangs);
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
    eventually("the delivery is under way", || async { (sink.requests() == 1).then_some(()) }).await;
    daemon.ask_to_stop();
    eventually("it began to stop", || async { daemon.log().contains("stopping").then_some(()) }).await;
    names(&another(&[], folder.path()).output().await.unwrap(), daemon.pid());
    daemon.kill_now();
    daemon.ended().await;
    sink.is(Mood::Confirms);
    let daemon = Daemon::start(folder.path(), &config).await;
    eventually("the next one delivers", || async { (sink.confirmed().len() == 1).then_some(()) }).await;
    assert!(daemon.stop().await.success());
}

/// Many start at once on a folder whose last daemon was killed, so that its id still stands there: one becomes ready, and
/// the others name that one, also those that find it between taking the lock and writing its own id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_start_at_once_one_has_the_folder_and_the_others_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut killed = Daemon::start(folder.path(), CONFIG).await;
    killed.kill_now();
    killed.ended().await;
    // The one that gets the lock is held up right after that, before it can write who it is.
    let slow = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=ftruncate", "-e", SLOW];
    let mut first = another(&slow, folder.path()).spawn().unwrap();
    let lock = folder.path().join("hookbus-data/journal/lock");
    eventually("the first has the lock", || async {
        let lock = std::fs::File::open(&lock).unwrap();
        lock.try_lock_shared().is_err().then_some(())
    })
    .await;
    let others = (0..4).map(|_| another(&[], folder.path()).output());
    let holder = first.id().unwrap();
    for output in futures_util::future::join_all(others).await {
        names(&output.unwrap(), holder);
    }
    first.start_kill().unwrap();
    first.wait().await.unwrap();
}

const SLOW: &str = "inject=ftruncate:delay_enter=1500000:when=1";
