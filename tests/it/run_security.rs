//! What SECURITY.md says of the running program, asked of the real one: as whom it runs, what it makes and may be read,
//! where it connects to, what its answers give away, and what it does not follow.

use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::http_sink::HttpSink;
use crate::support::strace::{strace, system_calls};
use crate::support::{PATIENCE, eventually};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONFIG: &str = "
[sources.inbox.generic]
[sources.whatsapp.zapi]
[sinks.events.file]
path = 'events.ndjson'
";

/// The program with these arguments and this configuration in `folder`, until it ends.
async fn program(folder: &Path, config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    std::fs::write(folder.join("hookbus.toml"), config).unwrap();
    let output = tokio::process::Command::new(PROGRAM)
        .args(arguments)
        .current_dir(folder)
        .env("HOOKBUS__INGRESS__LISTEN", "127.0.0.1:0")
        .env("HOOKBUS__ADMIN__LISTEN", "127.0.0.1:0")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, output).await.expect("it ends by itself").unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

// === Who may ask

#[tokio::test]
async fn the_admin_listener_is_on_loopback_and_beyond_it_only_with_a_token() {
    assert!(hookbus::admin::Config::default().listen.ip().is_loopback());
    assert!(
        hookbus::ingress::Config::default()
            .endpoints()
            .iter()
            .all(|endpoint| { endpoint.address.tcp().is_some_and(|address| address.ip().is_loopback()) })
    );
    let folder = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = program(folder.path(), CONFIG, &["run"], &[("HOOKBUS__ADMIN__LISTEN", address)]).await;
        let text = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("admin.token: is required because admin.listen is not on loopback"), "{text}");
    }
    assert!(!folder.path().join("hookbus-data").exists(), "nothing has begun");
}

/// Everything that comes back to these bytes.
async fn answer(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    // An answer may come, and the connection end, before all is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn no_answer_to_a_stranger_names_the_program_its_parts_or_their_versions() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &format!("[admin]\ntoken = 'a-token'\n{CONFIG}")).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(300));
    let rows: [(&str, &str); 12] = [
        (
            "a post",
            "POST /hooks/inbox HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        ),
        (
            "what cannot be read",
            "POST /hooks/inbox HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{",
        ),
        ("nothing there", "GET /none HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        ("no such method", "BREW /hooks/inbox HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        ("a trace", "TRACE / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        ("options", "OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        ("operations without a token", "GET /api/v1/status HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        ("metrics without a token", "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        ("no HTTP", "\u{16}\u{3}\u{1}\u{2}\u{0}hello\r\n\r\n"),
        ("HTTP of another kind", "GET / HTTP/9.9\r\n\r\n"),
        ("a header that is too long", &long),
        ("too many headers", &many),
    ];
    let mut answered = 0;
    for (listener, address) in [("ingress", daemon.ingress), ("admin", daemon.admin)] {
        for (sentence, request) in &rows {
            let text = answer(address, request.as_bytes()).await.to_lowercase();
            answered += usize::from(text.starts_with("http/1.1 "));
            for word in [
                "\nserver:",
                "\nvia:",
                "x-powered",
                "hyper",
                "axum",
                "rust",
                "tokio",
                env!("CARGO_PKG_VERSION"),
            ] {
                assert!(!text.contains(word), "{listener}, {sentence}: {word:?} in {text}");
            }
        }
    }
    assert!(answered >= 18, "most were answered: {answered}");
}

// === What it makes

/// Everything below a directory, links not followed.
fn everything_below(directory: &Path, found: &mut Vec<(PathBuf, std::fs::Metadata)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            everything_below(&path, found);
        }
        found.push((path, metadata));
    }
}

#[tokio::test]
async fn what_the_daemon_makes_is_its_owner_s_alone_however_lax_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let lax =
        r#"umask 000; export HOOKBUS__INGRESS__LISTEN="[\"127.0.0.1:0\",\"unix:$PWD/in.sock\"]"; exec "$@""#;
    let config = format!(
        "data_dir = 'made/deep/data'\n{CONFIG}rotate_at = '1KiB'\n[sinks.far.file]\npath = 'sub/far.ndjson'\n"
    );
    let daemon = Daemon::start_through(folder.path(), &["sh", "-c", lax, "sh"], &config).await;
    for number in 0..8 {
        let body = format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(400));
        assert_eq!(daemon.post("/hooks/inbox", body).await.unwrap().status, 200);
    }
    assert_eq!(daemon.post("/hooks/whatsapp", "{").await.unwrap().status, 200, "it is quarantined");
    let rotated = || async {
        (std::fs::read_dir(folder.path().join("made/deep/data")).ok()?.count() > 6).then_some(())
    };
    eventually("the file is full, and a new one begun", rotated).await;
    let out = folder.path().join("export.ndjson");
    let exported = tokio::process::Command::new("sh")
        .args(["-c", r#"umask 000; exec "$@""#, "sh", PROGRAM, "dead-letters", "export", "--output"])
        .arg(&out)
        .args(["--admin", &format!("http://{}", daemon.admin)])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    assert!(exported.status.success() && out.exists(), "{}", said(&exported));

    let mut found = Vec::new();
    everything_below(folder.path(), &mut found);
    let is_ours = |path: &Path| !path.ends_with("hookbus.toml");
    for (path, metadata) in found.iter().filter(|(path, _)| is_ours(path)) {
        let mode = metadata.permissions().mode() & 0o777;
        let expected = match metadata.file_type() {
            kind if kind.is_dir() => 0o700,
            // Its mode is a key of its own.
            kind if kind.is_socket() => 0o660,
            _ => 0o600,
        };
        assert_eq!(format!("{mode:o}"), format!("{expected:o}"), "{}", path.display());
    }
    for made in ["in.sock", "export.ndjson", "sub/far.ndjson", "dead-letters.redb"] {
        assert!(found.iter().any(|(path, _)| path.ends_with(made)), "{made} was made: {found:#?}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_crash_leaves_no_core_file_whatever_the_limit_was() {
    let unlimited = r#"ulimit -c "$(ulimit -H -c)"; exec "$@""#;
    for signal in ["-ABRT", "-SYS"] {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start_through(folder.path(), &["sh", "-c", unlimited, "sh"], CONFIG).await;
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let bytes: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        // A machine that allows none at all is as good.
        assert!(bytes == ["1", "1"] || bytes == ["0", "0"], "{core}");
        let pid = daemon.pid().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let ended = daemon.ended().await;
        assert!(ended.signal().is_some() && !ended.core_dumped(), "{ended:?}");
        let mut found = Vec::new();
        everything_below(folder.path(), &mut found);
        let names = found.iter().filter_map(|(path, _)| path.file_name()?.to_str());
        assert_eq!(names.filter(|name| name.starts_with("core")).count(), 0, "{found:#?}");
    }
}

// === What it needs

#[tokio::test]
async fn it_runs_as_nobody_without_any_capability_and_can_gain_none() {
    // Where the tests do not run as root the user is nobody in particular anyhow.
    let is_root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t0");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("hookbus");
    std::fs::copy(PROGRAM, &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    if is_root {
        std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    }
    // The tests' own folder may be closed to others: the copy is run instead of the program in the arguments.
    let as_nobody = r#"shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$PWD/hookbus" "$@""#;
    let as_we_are = r#"shift; exec setpriv --no-new-privs "$PWD/hookbus" "$@""#;
    let wrapper = ["sh", "-c", if is_root { as_nobody } else { as_we_are }, "sh"];
    let daemon = Daemon::start_through(folder.path(), &wrapper, CONFIG).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && !status.contains("\nUid:\t0"), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{set} in {status}");
    }
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
    let events = folder.path().join("hookbus-data/events.ndjson");
    eventually("the event is delivered", || async {
        (std::fs::metadata(&events).ok()?.len() > 0).then_some(())
    })
    .await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn it_connects_to_nobody_but_the_sinks_of_the_configuration() {
    let sink = HttpSink::start().await;
    let watched = strace(&["-e", "trace=connect,sendto,sendmsg"]);
    let idle = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_through(idle.path(), &watched, CONFIG).await;
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
    daemon.stop().await;
    let calls = system_calls(idle.path()).await;
    let outgoing = |name: &str, arguments: &str| name == "connect" || arguments.contains("sa_family=AF_INET");
    let strays: Vec<_> = calls.iter().filter(|call| outgoing(&call.name, &call.arguments)).collect();
    assert!(strays.is_empty(), "without a sink on the network: {strays:#?}");

    let busy = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}[sinks.orders.http]\nurl = 'http://{}/'\n", sink.address);
    let daemon = Daemon::start_through(busy.path(), &watched, &config).await;
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
    eventually("the sink has it", || async {
        (daemon.lane("orders").await["lag"]["events"] == 0).then_some(())
    })
    .await;
    daemon.stop().await;
    let calls = system_calls(busy.path()).await;
    let connects: Vec<_> = calls.iter().filter(|call| outgoing(&call.name, &call.arguments)).collect();
    assert!(!connects.is_empty(), "the check can see a connection");
    for call in connects {
        let is_sink = call.arguments.contains(&format!("htons({})", sink.address.port()))
            && call.arguments.contains("127.0.0.1");
        assert!(is_sink, "{call:?}");
    }
}

// === What it does not follow

#[tokio::test]
async fn no_name_leads_out_of_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), CONFIG).await;
    for path in [
        "/hooks/../../etc/passwd",
        "/hooks/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/hooks/inbox/../whatsapp",
        "/hooks//etc/passwd",
        "/hooks/inbox%00",
        "/hooks/./inbox",
    ] {
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
        let text = answer(daemon.ingress, request.as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 404 "), "{path}: {text}");
    }
    for (section, name) in [("sources", "../x"), ("sources", "a/b"), ("sinks", "../x"), ("sinks", "/etc")] {
        let kind = if section == "sources" { "generic" } else { "stdout" };
        let other = tempfile::tempdir().unwrap();
        let refused =
            program(other.path(), &format!("{CONFIG}[{section}.\"{name}\".{kind}]\n"), &["check"], &[]).await;
        assert_eq!(refused.status.code(), Some(1), "{name}: {}", said(&refused));
    }
    let (out, victim) = (folder.path().join("out.ndjson"), folder.path().join("victim"));
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, folder.path().join("out.ndjson.part")).unwrap();
    let exported = daemon.command(&["dead-letters", "export", "--output", out.to_str().unwrap()]).await;
    assert!(exported.status.success(), "{}", said(&exported));
    assert_eq!(
        std::fs::read_to_string(&victim).unwrap(),
        "precious",
        "a link that somebody laid is not followed"
    );
    assert!(!out.is_symlink() && out.is_file());
    daemon.stop().await;
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    for (sentence, config) in [
        ("a certificate", format!("{CONFIG}[ingress.tls]\ncert = '{pipe}'\nkey = '{pipe}'\n")),
        ("a secret", format!("{CONFIG}[admin]\ntoken = {{ file = '{pipe}' }}\n")),
        (
            "a sink's authorities",
            format!("{CONFIG}[sinks.o.http]\nurl = 'https://127.0.0.1:1'\nca = '{pipe}'\n"),
        ),
        ("a sink's file", format!("[sources.inbox.generic]\n[sinks.o.file]\npath = '{pipe}'\n")),
        (
            "a broker's authorities",
            format!(
                "{CONFIG}[sinks.o.kafka]\nbrokers = '127.0.0.1:1'\ntopic = 't'\ntls = true\nca = '{pipe}'\n"
            ),
        ),
    ] {
        let output = program(folder.path(), &config, &["check", "--connect"], &[]).await;
        let text = said(&output);
        assert!(!output.status.success() && text.contains("not a regular file"), "{sentence}: {text}");
    }
}
