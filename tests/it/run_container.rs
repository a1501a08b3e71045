//! The container image: its Dockerfile, linted and read, and the root file system that it makes, in which the program runs
//! as it would in a container: that root and nothing else, read-only, a user by number, no capability, process 1.
//! Absent on purpose: a container engine, which test machines need not have.

use crate::support::authority::Authority;
use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::http_sink::HttpSink;
use crate::support::oracle::events_in;
use crate::support::tls_front::TlsFront;
use crate::support::{PATIENCE, eventually, instruments};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A container as an engine makes one of `$ROOT`: its own mounts and processes, the root read-only, what the host provides
/// mounted over it. The arguments of the caller are dropped; `$START` becomes process 1.
const AS_AN_ENGINE: &str = r#"
set -e
cd "$FOLDER"
mount --bind "$ROOT" "$ROOT"
mount --bind hosts "$ROOT/etc/hosts"
mount --bind hookbus.toml "$ROOT/etc/hookbus/hookbus.toml"
mount --bind data "$ROOT/var/lib/hookbus"
mount -o remount,ro,bind "$ROOT"
eval "$START"
"#;
/// The user of the image, really: as root.
const AS_THE_USER: &str = r#"
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+setuid,+setgid,+sys_chroot,+dac_override \
    unshare --setgid 65532 --setuid 65532 --root="$ROOT" --wd="$WORKDIR" /usr/bin/hookbus run
"#;
/// The same for somebody who is not root: a user of that number in a name space of its own.
const AS_IF_THE_USER: &str = r#"
exec setpriv --no-new-privs \
    unshare --user --map-user=65532 --map-group=65532 --root="$ROOT" --wd="$WORKDIR" /usr/bin/hookbus run
"#;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

// === The Dockerfile

/// The instructions, each in one line, without comments.
fn instructions() -> Vec<String> {
    let text = read("deploy/Dockerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.lines().map(words).filter(|line| !line.is_empty()).collect()
}

/// The instructions of the image itself: of the last stage.
fn image() -> Vec<String> {
    let all = instructions();
    let from = all.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    all[from..].to_vec()
}

/// What stands behind an instruction of the image that is there once.
fn the(instruction: &str) -> String {
    let all = image();
    let found: Vec<&str> =
        all.iter().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' ')).collect();
    assert_eq!(found.len(), 1, "{instruction}: {found:?}");
    found[0].to_owned()
}

fn hadolint(file: &Path) -> Output {
    instruments::python("hadolint").arg("--no-color").arg(file).output().unwrap()
}

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    let said = hadolint(&repository().join("deploy/Dockerfile"));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));

    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("Dockerfile");
    std::fs::write(&bad, "FROM debian:latest\nRUN cd /tmp && sudo ls\n").unwrap();
    assert!(!hadolint(&bad).status.success(), "a mistake is found");
}

/// What a build gets to see: the lines of .dockerignore that let something in.
fn let_in() -> BTreeSet<String> {
    let text = read(".dockerignore");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*", "everything is left out first");
    lines[1..].iter().map(|line| line.strip_prefix('!').unwrap().to_owned()).collect()
}

#[test]
fn the_build_copies_what_is_there_and_sees_nothing_else() {
    let mut copied = BTreeSet::new();
    for line in instructions().iter().filter(|line| line.starts_with("COPY ")) {
        let words: Vec<&str> = line.split(' ').skip(1).filter(|word| !word.starts_with("--")).collect();
        if !line.contains("--from=") {
            copied.extend(words[..words.len() - 1].iter().map(|word| (*word).to_owned()));
        }
    }
    assert_eq!(copied, let_in());
    for path in &copied {
        assert!(repository().join(path).exists(), "{path}");
    }
}

#[test]
fn what_the_program_is_compiled_from_is_all_in_the_build() {
    let listed = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let (mut folders, mut included) = (vec![repository().join("src")], 0);
    while let Some(folder) = folders.pop() {
        for path in listed(&folder) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for macro_name in ["include_str!(\"", "include_bytes!(\"", "#[path = \""] {
                for rest in text.split(macro_name).skip(1) {
                    let target = folder.join(rest.split('"').next().unwrap()).canonicalize().unwrap();
                    let source = repository().join("src").canonicalize().unwrap();
                    // Only what ships: tests may read fixtures.
                    let is_test = path.to_str().unwrap().contains("test");
                    assert!(is_test || target.starts_with(source), "{}: {target:?}", path.display());
                    included += 1;
                }
            }
        }
    }
    assert!(included > 5, "the search finds what is there");
    assert!(!repository().join("build.rs").exists(), "the build copies no build script");
}

#[test]
fn the_image_is_bare_not_root_and_built_by_the_toolchain_that_the_crate_asks_for() {
    let all = instructions();
    let image_lines = image();
    assert_eq!(image_lines[0], "FROM scratch");
    let copies: Vec<&String> = image_lines.iter().filter(|line| line.starts_with("COPY ")).collect();
    assert_eq!(
        copies,
        [
            "COPY --from=build /image /",
            "COPY --from=build --chown=65532:65532 --chmod=700 /empty /var/lib/hookbus"
        ]
    );
    assert!(!image_lines.iter().any(|line| line.starts_with("RUN ") || line.starts_with("ADD ")));
    assert_eq!(the("USER"), "65532:65532");
    assert_eq!(the("VOLUME"), "[\"/var/lib/hookbus\"]");
    assert_eq!(the("WORKDIR"), "/var/lib/hookbus");
    assert_eq!(the("STOPSIGNAL"), "SIGTERM");
    assert_eq!(
        (the("ENTRYPOINT"), the("CMD")),
        ("[\"/usr/bin/hookbus\"]".to_owned(), "[\"run\"]".to_owned())
    );

    let tag = all[0].strip_prefix("ARG RUST_IMAGE=rust:").unwrap();
    let (version, debian) = tag.split_once('-').unwrap();
    assert_eq!(debian, "bookworm");
    let manifest = read("Cargo.toml");
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let number = |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap()).collect() };
    assert!(number(version) >= number(needed.trim_matches('"')), "{version} and {needed}");
    assert_eq!(version.split('.').count(), 3, "pinned to the last number");
    assert!(all.iter().filter(|line| line.contains("cargo build")).all(|line| line.contains("--locked")));
}

// === What is in it

/// The root file system of the image, of the program under test.
fn root_of_this_build(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    let script = repository().join("deploy/image-root.sh");
    let made = Command::new("sh").arg(script).arg(PROGRAM).arg(&root).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    root
}

/// Every file and link below the root, by its path in the image.
fn files_in(root: &Path) -> BTreeSet<String> {
    let (mut folders, mut found) = (vec![root.to_owned()], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(format!("/{}", entry.path().strip_prefix(root).unwrap().display()));
            }
        }
    }
    found
}

#[test]
fn the_image_holds_the_program_its_libraries_and_the_authorities_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = root_of_this_build(folder.path());
    let linked = Command::new("ldd").arg(PROGRAM).output().unwrap();
    let linked = String::from_utf8(linked.stdout).unwrap();
    let mut wanted: BTreeSet<String> =
        linked.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect();
    let names: BTreeSet<&str> = wanted.iter().filter_map(|path| path.rsplit('/').next()).collect();
    // A library that joins these is one more to be watched for its weaknesses: decide, then name it here and in
    // docs/operating/container.md.
    let known = ["libc.so.6", "libcrypto.so.3", "libgcc_s.so.1", "libm.so.6", "libssl.so.3"];
    let is_loader = |name: &str| name.starts_with("ld-linux");
    assert!(names.iter().all(|name| known.contains(name) || is_loader(name)), "{names:?}");
    assert!(names.iter().any(|name| is_loader(name)));
    wanted.extend(
        ["/usr/bin/hookbus", "/etc/ssl/certs/ca-certificates.crt", "/etc/nsswitch.conf"].map(str::to_owned),
    );
    assert_eq!(files_in(&root), wanted);
    for file in &wanted {
        let mode = std::fs::symlink_metadata(root.join(&file[1..])).unwrap().permissions().mode();
        assert!(mode & 0o7022 == 0 && mode & 0o004 != 0, "{file} has mode {mode:o}");
    }
    assert!(the("ENV").ends_with("=/etc/ssl/certs/ca-certificates.crt"));
}

// === The program in it

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim() == "0"
}

/// A folder with the image's root and what a user mounts into it.
struct Container {
    folder: tempfile::TempDir,
}

impl Container {
    fn new() -> Container {
        let folder = tempfile::tempdir().unwrap();
        let root = root_of_this_build(folder.path());
        // What an engine makes to mount things at.
        for directory in ["etc/hookbus", "var/lib/hookbus"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["etc/hosts", "etc/hookbus/hookbus.toml"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        std::fs::write(folder.path().join("hosts"), "127.0.0.1 sink.test\n").unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&data, Some(65532), Some(65532)).unwrap();
        }
        // The folder's own mode would keep the user out.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Container { folder }
    }

    /// As if everybody's list of authorities had this one.
    fn trusts(&self, authority: &Authority) {
        let bundle = self.folder.path().join("root/etc/ssl/certs/ca-certificates.crt");
        let public = std::fs::read_to_string(&bundle).unwrap();
        std::fs::write(bundle, public + &authority.pem()).unwrap();
    }

    async fn start(&self, config: &str) -> Daemon {
        let (root, folder) = (self.folder.path().join("root"), self.folder.path());
        let start = if is_root() { AS_THE_USER } else { AS_IF_THE_USER };
        let root = format!("ROOT={}", root.display());
        let (folder_of, start) = (format!("FOLDER={}", folder.display()), format!("START={start}"));
        let (workdir, certificates) = (format!("WORKDIR={}", the("WORKDIR")), the("ENV"));
        let mut wrapper = vec!["env", &root, &folder_of, &workdir, &start, &certificates, "unshare"];
        if !is_root() {
            wrapper.extend(["--user", "--map-root-user"]);
        }
        wrapper.extend(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", AS_AN_ENGINE, "sh"]);
        Daemon::start_through(folder, &wrapper, config).await
    }
}

/// Process 1 of the container: the only child of the program that made its name spaces.
fn first_process(daemon: &Daemon) -> u32 {
    let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
    std::fs::read_to_string(children).unwrap().trim().parse().unwrap()
}

/// As engines stop a container: the image's signal to process 1. Nothing else ends it: with the user it has lost the wish to
/// end with its parent.
async fn stops(mut daemon: Daemon) {
    let signal = format!("-{}", the("STOPSIGNAL").strip_prefix("SIG").unwrap());
    let process = first_process(&daemon).to_string();
    assert!(Command::new("kill").args([&signal, &process]).status().unwrap().success());
    assert_eq!(daemon.ended().await.code(), Some(0));
}

fn status_of(process: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The command of the image's HEALTHCHECK, asked of this daemon through `way`, as in a container; exit code and what it
/// says.
async fn health_check(daemon: &Daemon, way: &[&str]) -> (Option<i32>, String) {
    let check = the("HEALTHCHECK");
    let (options, command) = check.split_once(" CMD ").unwrap();
    assert!(options.contains("--timeout=5s"), "longer than the command waits by itself: {options}");
    let mut words: Vec<String> = serde_json::from_str(command).unwrap();
    let address = words.iter().position(|word| word == "http://127.0.0.1:8081").expect("the default address");
    words[address] = format!("http://{}", daemon.admin);
    if way.is_empty() {
        words[0] = PROGRAM.to_owned();
    }
    // In an empty folder: it needs no configuration.
    let empty = tempfile::tempdir().unwrap();
    let mut words = way.iter().map(|word| (*word).to_owned()).chain(words);
    let mut asked = tokio::process::Command::new(words.next().unwrap());
    asked.args(words).current_dir(empty.path()).stdin(Stdio::null());
    let asked = tokio::time::timeout(PATIENCE, asked.output()).await.unwrap().unwrap();
    (asked.status.code(), String::from_utf8_lossy(&asked.stderr).into_owned())
}

#[tokio::test]
async fn in_the_image_alone_it_takes_delivers_keeps_and_stops() {
    let (container, authority, outside) = (Container::new(), Authority::new(), HttpSink::start().await);
    container.trusts(&authority);
    let shown = authority.server_showing(&authority.pair("sink.test"), false);
    let front = TlsFront::start(0, outside.address, shown).await;
    // Without data_dir, as somebody's first configuration may be.
    let config = format!(
        "[sources.inbox.generic]\n[sinks.events.file]\npath = \"events.ndjson\"\n\
         [sinks.outside.http]\nurl = \"https://sink.test:{}/\"\n",
        front.port
    );
    let mut daemon = container.start(&config).await;
    let process = first_process(&daemon);
    assert!(status_of(process, "NSpid").ends_with(" 1"), "it is process 1");
    assert_eq!(status_of(process, "NoNewPrivs"), "1");
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status_of(process, set), "0000000000000000", "{set}");
    }
    if is_root() {
        assert_eq!(status_of(process, "Uid"), "65532 65532 65532 65532");
        assert_eq!(status_of(process, "Gid"), "65532 65532 65532 65532");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");

    let answered = daemon.post("/hooks/inbox", "{\"n\":1}").await.unwrap();
    assert_eq!(answered.status, 200, "{}", answered.body);
    let events = container.folder.path().join("data/hookbus-data/events.ndjson");
    eventually("it is delivered", || async { (events_in(&events).len() == 1).then_some(()) }).await;
    eventually("also where names and public authorities are needed", || async {
        (outside.confirmed().len() == 1).then_some(())
    })
    .await;
    // As engines do: one more process in the name spaces and the root of the first. Only root may enter those.
    let target = format!("--target={process}");
    let inside = ["nsenter", &target, "--all", "--root", "--wd", "--"];
    assert_eq!(health_check(&daemon, if is_root() { &inside } else { &[] }).await, (Some(0), String::new()));

    // As engines stop a container: the image's signal to process 1.
    let signal = format!("-{}", the("STOPSIGNAL").strip_prefix("SIG").unwrap());
    assert!(Command::new("kill").args([&signal, &process.to_string()]).status().unwrap().success());
    assert_eq!(daemon.ended().await.code(), Some(0));
    let (code, said) = health_check(&daemon, &[]).await;
    assert!(code == Some(1) && said.contains("no hookbus answers"), "{code:?} {said}");
    assert!(
        !files_in(&container.folder.path().join("root")).iter().any(|file| file.contains("hookbus-data"))
    );

    // The same volume again: its journal opens and knows the event.
    let daemon = container.start(&config).await;
    let again = daemon.post("/hooks/inbox", "{\"n\":1}").await.unwrap();
    assert!(again.body.contains("\"duplicate\":true"), "{}", again.body);
    stops(daemon).await;
}

#[tokio::test]
async fn a_volume_that_is_the_group_s_as_kubernetes_makes_it_is_enough() {
    let container = Container::new();
    let data = container.folder.path().join("data");
    let lost = data.join("lost+found");
    std::fs::create_dir(&lost).unwrap();
    std::fs::set_permissions(&lost, PermissionsExt::from_mode(0o700)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&data, Some(0), Some(65532)).unwrap();
    }
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o2775)).unwrap();
    let config = "data_dir = \"/var/lib/hookbus\"\n[sources.inbox.generic]\n[sinks.events.file]\npath = \"events.ndjson\"\n";
    let daemon = container.start(config).await;
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 200);
    let events = data.join("events.ndjson");
    eventually("it is delivered", || async { (events_in(&events).len() == 1).then_some(()) }).await;
    stops(daemon).await;
}

#[tokio::test]
async fn health_tells_a_full_journal_from_a_dead_process() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[ingress]\nbody_max = \"4KiB\"\n[journal]\nsegment = \"16KiB\"\ndisk_max = \"64KiB\"\n\
                  [sources.inbox.generic]\n[sinks.away.http]\nurl = \"http://127.0.0.1:9/\"\n";
    let daemon = Daemon::start(folder.path(), config).await;
    let ready = daemon.command(&["health"]).await;
    assert_eq!((ready.status.code(), ready.stdout.as_slice()), (Some(0), b"ok\n".as_slice()));
    let fills = async {
        for number in 0.. {
            let body = format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(2000));
            if daemon.post("/hooks/inbox", body).await.unwrap().status == 503 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), fills).await.expect("the journal fills up");
    let ready = daemon.command(&["health", "ready"]).await;
    let said = String::from_utf8_lossy(&ready.stderr).into_owned();
    assert!(ready.status.code() == Some(3) && said.contains("full"), "{:?} {said}", ready.status);
    assert_eq!(daemon.command(&["health", "live"]).await.status.code(), Some(0));
    assert_eq!(health_check(&daemon, &[]).await.0, Some(0), "no engine restarts it for that");
    daemon.stop().await;
}
