//! The ingress over TLS: versions and protocols, clients' certificates, certificates that change, and how it all ends.

use crate::ingress_rig::{Client, Reply, Rig, SOON, post, seen, who};
use crate::support::authority::{Authority, Pair};
use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use hookbus::config::Period;
use hookbus::ingress::tls::{self, ClientCertificates, MinVersion};
use hookbus::ingress::{self, Address};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The server's certificate of these tests.
const SERVER: &str = "hooks.test";

fn keys(directory: &Path) -> tls::Config {
    tls::Config {
        cert: Some(directory.join("tls.crt")),
        key: Some(directory.join("tls.key")),
        ..tls::Config::default()
    }
}

/// An ingress over TLS with the source `who`, the authority of its certificate, and the folder with the files.
struct TlsRig {
    rig: Rig,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl TlsRig {
    async fn plain() -> TlsRig {
        TlsRig::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ingress::Config)) -> TlsRig {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        authority.pair(SERVER).write(folder.path());
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        let mut config = ingress::Config { tls: keys(folder.path()), ..ingress::Config::default() };
        change(&mut config);
        // What a test says about the clients' authorities is relative to the folder.
        config.tls.client_ca = config.tls.client_ca.map(|name| folder.path().join(name));
        TlsRig { rig: Rig::with(config, vec![who()]).await, authority, folder }
    }

    fn client(&self) -> ClientConfig {
        self.authority.client_config(&[&TLS13, &TLS12], None)
    }

    /// A raw connection over TLS.
    async fn connect(&self) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let tcp = TcpStream::connect(self.rig.address).await?;
        Ok(Client::over(shake_hands(tcp, self.client()).await?))
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> CertificateDer<'static> {
        let client = self.connect().await.unwrap();
        client.tcp.get_ref().1.peer_certificates().unwrap()[0].clone()
    }
}

async fn shake_hands(tcp: TcpStream, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(SERVER).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

fn http(config: ClientConfig, to: SocketAddr) -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(config).resolve(SERVER, to)
}

/// Posts to the source `who`: the version spoken, and what it saw.
async fn ask(client: &reqwest::Client, to: SocketAddr) -> Result<(http::Version, String), reqwest::Error> {
    let url = format!("https://{SERVER}:{}/hooks/who", to.port());
    let response = client.post(url).body("x").send().await?.error_for_status()?;
    Ok((response.version(), seen(&response.text().await?)))
}

// === What is spoken

#[tokio::test]
async fn both_versions_of_tls_carry_both_versions_of_http() {
    let server = TlsRig::plain().await;
    let to = server.rig.address;
    assert_eq!(server.rig.endpoints[0].to_string(), format!("https://{to}"));
    for version in [&TLS12, &TLS13] {
        let config = || {
            let mut config = server.authority.client_config(&[version], None);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            config
        };
        let both = http(config(), to).build().unwrap();
        let mut only_old = config();
        only_old.alpn_protocols.remove(0);
        let old = http(only_old, to).http1_only().build().unwrap();
        let sees = format!("127.0.0.1 https {SERVER}:{}", to.port());
        for _ in 0..2 {
            let answers = (ask(&both, to).await.unwrap(), ask(&old, to).await.unwrap());
            let expected = ((http::Version::HTTP_2, sees.clone()), (http::Version::HTTP_11, sees.clone()));
            assert_eq!(answers, expected, "{version:?}");
        }
    }
}

#[tokio::test]
async fn an_older_version_than_configured_is_refused() {
    let server = TlsRig::with(|config| config.tls.min_version = MinVersion::Tls13).await;
    let to = server.rig.address;
    let old = http(server.authority.client_config(&[&TLS12], None), to).build().unwrap();
    assert!(ask(&old, to).await.unwrap_err().is_connect());
    let tcp = TcpStream::connect(to).await.unwrap();
    let refused =
        shake_hands(tcp, server.authority.client_config(&[&TLS12], None)).await.unwrap_err().to_string();
    assert!(refused.contains("ProtocolVersion"), "the alert says why: {refused}");
    let new = http(server.client(), to).build().unwrap();
    ask(&new, to).await.unwrap();
}

#[tokio::test]
async fn plain_http_to_a_tls_port_is_told_so() {
    let server = TlsRig::plain().await;
    let mut client = server.rig.connect().await;
    client.send(post("/hooks/who", &[], &[b'x'; 10_000])).await;
    let reply: Reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
    assert!(reply.body.contains("https://"), "{}", reply.body);
    assert!(client.reply().await.is_none());
}

#[tokio::test]
async fn plain_http_is_spoken_beside_tls_only_where_it_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("ingress.sock").display());
    let any: Address = "127.0.0.1:0".parse().unwrap();
    let layers = format!("listen = ['127.0.0.1:0', '[::1]:0', '{socket}']");
    let layers = hookbus::config::Layers::load(Some(&layers), None, &[]).unwrap();
    let listen = layers.root().extract::<ingress::Config>().unwrap().listen;
    let server = TlsRig::with(|config| {
        config.listen = listen;
        config.plain_listen = vec![any];
    })
    .await;
    let shown: Vec<String> = server.rig.endpoints.iter().map(ToString::to_string).collect();
    for (shown, begins) in
        shown.iter().zip(["https://127.0.0.1:", "https://[::1]:", &socket, "http://127.0.0.1:"])
    {
        assert!(shown.starts_with(begins), "{shown} begins with {begins}");
    }

    for endpoint in server.rig.endpoints.iter().filter(|endpoint| endpoint.speaks_tls) {
        let to = endpoint.address.tcp().unwrap();
        let (_, sees) = ask(&http(server.client(), to).build().unwrap(), to).await.unwrap();
        assert_eq!(sees, format!("{} https {SERVER}:{}", to.ip(), to.port()));
    }
    let plain = server.rig.endpoints[3].address.tcp().unwrap();
    let mut client = Client::over(TcpStream::connect(plain).await.unwrap());
    client.send(post("/hooks/who", &[], b"x")).await;
    assert_eq!(seen(&client.reply().await.unwrap().body), "127.0.0.1 http test");
    let unix = tokio::net::UnixStream::connect(folder.path().join("ingress.sock")).await.unwrap();
    let mut client = Client::over(unix);
    client.send(post("/hooks/who", &[], b"x")).await;
    assert_eq!(seen(&client.reply().await.unwrap().body), "127.0.0.1 http test");
}

// === Whose certificates are taken

#[tokio::test]
async fn a_client_is_known_by_the_certificate_of_a_trusted_authority() {
    let stranger = Authority::new();
    for (who, without) in [(ClientCertificates::Optional, true), (ClientCertificates::Required, false)] {
        let server = TlsRig::with(|config| {
            config.tls.client_ca = Some("ca.crt".into());
            config.tls.client_certificates = who;
        })
        .await;
        let to = server.rig.address;
        let own = server.authority.pair("shop.test");
        let foreign = stranger.pair("shop.test");
        let expired = server.authority.pair_until("shop.test", SystemTime::now() - DAY);
        for version in [&TLS12, &TLS13] {
            for (sentence, pair, expected) in [
                ("its own", Some(&own), Some(" shop.test")),
                ("none", None, without.then_some("")),
                ("another authority's", Some(&foreign), None),
                ("an expired one", Some(&expired), None),
            ] {
                let client = http(server.authority.client_config(&[version], pair), to).build().unwrap();
                let sees = ask(&client, to).await.ok().map(|(_, sees)| sees);
                let expected = expected.map(|name| format!("127.0.0.1 https {SERVER}:{}{name}", to.port()));
                assert_eq!(sees, expected, "{who:?}, {version:?}: {sentence}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_already_sends_is_told_what_was_missing() {
    let server = TlsRig::with(|config| {
        config.tls.client_ca = Some("ca.crt".into());
        config.tls.client_certificates = ClientCertificates::Required;
    })
    .await;
    // In TLS 1.3 the client's part of the handshake is over before the server has looked for its certificate.
    let mut client = server.connect().await.unwrap();
    client.send(post("/hooks/who", &[], &[b'x'; 200_000])).await;
    let refused = tokio::time::timeout(SOON, client.next_reply()).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("CertificateRequired"), "an alert and no reset: {refused:?}");
}

#[tokio::test]
async fn nobody_is_asked_for_a_certificate_unless_configured() {
    let server = TlsRig::plain().await;
    let to = server.rig.address;
    let own = server.authority.pair("shop.test");
    let client = http(server.authority.client_config(&[&TLS13], Some(&own)), to).build().unwrap();
    assert_eq!(ask(&client, to).await.unwrap().1, format!("127.0.0.1 https {SERVER}:{}", to.port()));
}

#[tokio::test]
async fn a_session_is_resumed_only_where_no_certificate_is_asked_for() {
    for (client_ca, expected) in [(None, HandshakeKind::Resumed), (Some("ca.crt"), HandshakeKind::Full)] {
        let server = TlsRig::with(|config| config.tls.client_ca = client_ca.map(Into::into)).await;
        for version in [&TLS12, &TLS13] {
            let own = server.authority.pair("shop.test");
            let config = server.authority.client_config(&[version], client_ca.map(|_| &own));
            let mut kind = None;
            for _ in 0..2 {
                let tcp = TcpStream::connect(server.rig.address).await.unwrap();
                let mut client = Client::over(shake_hands(tcp, config.clone()).await.unwrap());
                client.send(post("/hooks/who", &[], b"x")).await;
                assert_eq!(client.reply().await.unwrap().status, 200);
                kind = client.tcp.get_ref().1.handshake_kind();
            }
            assert_eq!(kind, Some(expected), "{version:?}, {client_ca:?}");
        }
    }
}

// === Bounds

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let quick = |config: &mut ingress::Config| config.header_timeout = Period::millis(300);
    let server = TlsRig::with(quick).await;
    // The beginning of a ClientHello of 512 bytes.
    for begins in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
        let mut tcp = TcpStream::connect(server.rig.address).await.unwrap();
        tcp.write_all(begins).await.unwrap();
        let ended = tokio::time::timeout(SOON, tcp.read_u8()).await.expect("it is cut");
        assert!(ended.is_err(), "nothing is said, the connection ends: {ended:?}");
    }
    let mut silent = server.connect().await.unwrap();
    let ended =
        tokio::time::timeout(SOON, silent.tcp.read_u8()).await.expect("nor is silence after it endured");
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn what_is_no_tls_ends_its_connection_and_nothing_else() {
    let server = TlsRig::plain().await;
    for rubbish in
        [&b"\0\0\0\0\0\0\0\0\0\0"[..], &[22, 3, 1, 0, 5, 9, 9, 9, 9, 9], &[0x80, 0x2e, 1, 3, 1, 0, 0]]
    {
        let mut tcp = TcpStream::connect(server.rig.address).await.unwrap();
        tcp.write_all(rubbish).await.unwrap();
        let mut said = Vec::new();
        let ended = tokio::time::timeout(SOON, tcp.read_to_end(&mut said)).await.unwrap();
        ended.expect("an end and no reset");
    }
    server.connect().await.unwrap();
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_reaches_its_sender() {
    let server = TlsRig::with(|config| config.body_max = hookbus::config::ByteSize::kib(1)).await;
    let mut client = server.connect().await.unwrap();
    let head = "POST /hooks/who HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n";
    client.send(head).await;
    let body = vec![b'x'; 1_000_000];
    // The answer comes, and the end, while this is still being sent.
    let (mut reading, mut writing) = tokio::io::split(client.tcp);
    let sending = tokio::spawn(async move { writing.write_all(&body).await });
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, reading.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
    let _ = sending.await.unwrap();
}

// === Certificates that change

/// Posts without a pause, over one connection and over a new one each time, until told to stop; fails with the first
/// request that does. Gives how many were answered.
fn load(server: &Arc<TlsRig>, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<u64>> {
    (0..4)
        .map(|sender| {
            let (server, stop) = (Arc::clone(server), Arc::clone(stop));
            tokio::spawn(async move {
                let keeps = sender % 2 == 0;
                let mut client = server.connect().await.unwrap();
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    if !keeps {
                        client = server.connect().await.expect("not one handshake fails");
                    }
                    client.send(post("/hooks/who", &[], b"x")).await;
                    assert_eq!(client.reply().await.expect("no connection is closed").status, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_to_new_connections_and_no_request_fails() {
    let server = Arc::new(TlsRig::plain().await);
    let folder = server.folder.path();
    let stop = Arc::new(AtomicBool::new(false));
    let senders = load(&server, &stop);

    let second = server.authority.pair(SERVER);
    second.write(folder);
    eventually("the files that were replaced", async || (server.shown().await == second.der()).then_some(()))
        .await;

    // Written in place and one file after the other.
    let third = server.authority.pair(SERVER);
    std::fs::write(folder.join("tls.crt"), third.certificate.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), third.key.serialize_pem()).unwrap();
    eventually("the whole pair", async || (server.shown().await == third.der()).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        assert!(sender.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubernetes_volume_that_changes_is_followed() {
    // tls.crt -> ..data/tls.crt, ..data -> ..2026_01; an update makes a new folder and renames a new ..data over the old.
    let server = TlsRig::plain().await;
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path();
    let publish = |authority: &Authority, name: &str| {
        let pair = authority.pair(SERVER);
        pair.write(&volume.join(name));
        std::os::unix::fs::symlink(name, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        pair
    };
    let first = publish(&server.authority, "..2026_01");
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
    }
    let config = ingress::Config { tls: keys(volume), ..ingress::Config::default() };
    let server = Arc::new(TlsRig { rig: Rig::with(config, vec![who()]).await, ..server });
    let stop = Arc::new(AtomicBool::new(false));
    let senders = load(&server, &stop);
    assert_eq!(server.shown().await, first.der());
    let second = publish(&server.authority, "..2026_02");
    std::fs::remove_dir_all(volume.join("..2026_01")).unwrap();
    eventually("the new folder", async || (server.shown().await == second.der()).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        assert!(sender.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_new_client_authority_is_trusted_and_the_old_one_no_more() {
    let server = TlsRig::with(|config| {
        config.tls.client_ca = Some("ca.crt".into());
        config.tls.client_certificates = ClientCertificates::Required;
    })
    .await;
    let to = server.rig.address;
    let other = Authority::new();
    let (old, new) = (server.authority.pair("shop.test"), other.pair("shop.test"));
    let takes = async |pair: &Pair| {
        let client = http(server.authority.client_config(&[&TLS13], Some(pair)), to).build().unwrap();
        ask(&client, to).await.is_ok()
    };
    assert_eq!((takes(&old).await, takes(&new).await), (true, false));
    std::fs::write(server.folder.path().join("ca.crt"), other.pem()).unwrap();
    eventually("the new authority", async || takes(&new).await.then_some(())).await;
    assert!(!takes(&old).await);
}

// === The end

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_load_resets_nobody_and_keeps_every_promise() {
    let server = Arc::new(TlsRig::plain().await);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let (server, acknowledged) = (Arc::clone(&server), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut client = server.connect().await.unwrap();
                loop {
                    client.send(post("/hooks/who", &[], b"x")).await;
                    match client.next_reply().await {
                        Ok(Some(reply)) => {
                            assert_eq!(reply.status, 200);
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            if reply.header("connection") == Some("close") {
                                // And TLS is closed as it should be: no truncation.
                                return assert!(client.next_reply().await.unwrap().is_none());
                            }
                        }
                        Ok(None) => return,
                        Err(error) => {
                            assert_ne!(error.kind(), ErrorKind::ConnectionReset, "nobody is reset");
                            assert_ne!(error.kind(), ErrorKind::UnexpectedEof, "the end is said");
                            return;
                        }
                    }
                }
            })
        })
        .collect();
    eventually("load", async || (acknowledged.load(Ordering::Relaxed) > 200).then_some(())).await;
    server.rig.stop_ingress().await;
    for sender in senders {
        tokio::time::timeout(SOON, sender).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn whoever_has_connected_shakes_hands_and_is_served() {
    let server = TlsRig::plain().await;
    // Nobody has accepted these when the stop begins.
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let tcp = std::net::TcpStream::connect(server.rig.address).unwrap();
            tcp.set_nonblocking(true).unwrap();
            TcpStream::from_std(tcp).unwrap()
        })
        .collect();
    let replies = futures_util::future::join_all(waiting.into_iter().map(async |tcp| {
        let mut client = Client::over(shake_hands(tcp, server.client()).await.unwrap());
        client.send(post("/hooks/who", &[], b"x")).await;
        client.reply().await.unwrap().status
    }));
    let ((), replies) = tokio::join!(server.rig.stop_ingress(), replies);
    assert_eq!(replies, [200; 4]);
}

#[tokio::test]
async fn idle_connections_and_unfinished_handshakes_do_not_hold_up_the_stop() {
    let server = TlsRig::with(|config| config.header_timeout = Period::secs(3600)).await;
    let _idle = server.connect().await.unwrap();
    let _silent = TcpStream::connect(server.rig.address).await.unwrap();
    server.rig.stop_ingress().await;
}

// === The program

fn daemon_config(folder: &Path, more: &str) -> String {
    let folder = folder.display();
    format!(
        "[ingress.tls]\ncert = '{folder}/tls.crt'\nkey = '{folder}/tls.key'\n{more}\n[sources.inbox.generic]\n[sinks.events.file]\n"
    )
}

#[tokio::test]
async fn the_program_shows_when_its_certificate_ends_and_warns_before() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let path = folder.path();
    authority.pair_until(SERVER, SystemTime::now() + 3 * DAY).write(path);
    let daemon = Daemon::start(path, &daemon_config(path, "")).await;
    let url = format!("\"url\":\"https://{}\"", daemon.ingress);
    eventually("the URL and the warning", async || {
        let log = daemon.log();
        (log.contains(&url) && log.contains("ingress.tls.cert: a certificate expires on")).then_some(())
    })
    .await;
    let ends =
        daemon.metric("hookbus_tls_certificate_expiry_timestamp_seconds{file=\"cert\"}").await.unwrap();
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((ends - since_1970 - 3.0 * 86_400.0).abs() < 3600.0, "{ends}");

    let series =
        |reason: &str| format!("hookbus_ingress_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    assert_eq!(daemon.metric(&series("plain_http")).await, Some(0.0));
    assert_eq!(daemon.post("/hooks/inbox", "{}").await.unwrap().status, 400, "plain HTTP");
    assert_eq!(daemon.metric(&series("plain_http")).await, Some(1.0));

    std::fs::write(path.join("tls.key"), "no key").unwrap();
    eventually("the broken key is counted", async || {
        (daemon.metric("hookbus_ingress_tls_reload_failures_total").await == Some(1.0)).then_some(())
    })
    .await;
    let sender = http(authority.client_config(&[&TLS13], None), daemon.ingress).build().unwrap();
    let url = format!("https://{SERVER}:{}/hooks/inbox", daemon.ingress.port());
    let post = async || sender.post(&url).body("x").send().await.unwrap().status();
    assert_eq!(post().await, 200, "the pair from before serves on");
    authority.pair(SERVER).write(path);
    eventually("the new pair is counted", async || {
        (daemon.metric("hookbus_ingress_tls_reloads_total").await == Some(1.0)).then_some(())
    })
    .await;
    assert_eq!(post().await, 200);
    let log = daemon.log();
    assert_eq!(log.matches("the changed files cannot be used").count(), 1, "{log}");
    assert!(!log.contains("no key"), "what is in a file is not said");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_client_that_is_refused_is_counted_once_however_long_it_stays() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.pair(SERVER).write(folder.path());
    let config = daemon_config(folder.path(), "[ingress]\nheader_timeout = '300ms'\n");
    let daemon = Daemon::start(folder.path(), &config).await;
    let mut client = Client::over(TcpStream::connect(daemon.ingress).await.unwrap());
    client.send(post("/hooks/inbox", &[], b"x")).await;
    assert_eq!(client.reply().await.unwrap().status, 400);
    eventually("the daemon closes", async || {
        (daemon.metric("hookbus_ingress_connections").await == Some(0.0)).then_some(())
    })
    .await;
    for (reason, count) in [("plain_http", 1.0), ("timed_out", 0.0)] {
        let series = format!("hookbus_ingress_tls_handshake_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(daemon.metric(&series).await, Some(count), "{reason}");
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn check_says_what_is_wrong_with_the_certificate_and_run_starts_where_it_can() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let path = folder.path();
    let file = path.join("hookbus.toml");
    let listen = "[ingress]\nlisten = '127.0.0.1:8443'\n";
    std::fs::write(&file, format!("{listen}{}", daemon_config(path, ""))).unwrap();
    let check = || {
        let output =
            std::process::Command::new(PROGRAM).arg("--config").arg(&file).arg("check").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    };
    let now = SystemTime::now();
    let other = authority.pair(SERVER);
    for (sentence, pair, key, code, says) in [
        ("good", authority.pair(SERVER), None, 0, "https://127.0.0.1:8443/hooks/inbox"),
        ("near its end", authority.pair_until(SERVER, now + 5 * DAY), None, 0, "warning: ingress.tls.cert: "),
        (
            "expired",
            authority.pair_until(SERVER, now - DAY),
            None,
            1,
            "error: ingress.tls.cert: a certificate has expired",
        ),
        (
            "another key",
            authority.pair(SERVER),
            Some(other.key.serialize_pem()),
            1,
            "is not the key of the certificate",
        ),
        ("no key", authority.pair(SERVER), Some("x".to_owned()), 1, "holds no private key in PEM form"),
    ] {
        pair.write(path);
        if let Some(key) = key {
            std::fs::write(path.join("tls.key"), key).unwrap();
        }
        let (found, text) = check();
        assert_eq!(found, code, "{sentence}: {text}");
        assert!(text.contains(says), "{sentence}: {text}");
    }
    std::fs::remove_file(path.join("tls.crt")).unwrap();
    let (code, text) = check();
    assert!(code == 1 && text.contains("tls.crt does not exist"), "{text}");

    // An expired one is bad, but nothing is better about not running at all.
    authority.pair_until(SERVER, now - DAY).write(path);
    let daemon = Daemon::start(path, &daemon_config(path, "")).await;
    eventually("the error", async || daemon.log().contains("a certificate has expired on").then_some(()))
        .await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn send_takes_the_certificate_of_its_own_configuration_and_no_other() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let path = folder.path();
    authority.pair(SERVER).write(path);
    let daemon = Daemon::start(path, &daemon_config(path, "")).await;
    let send = |config: &Path, more: &[&str]| {
        let output = std::process::Command::new(PROGRAM)
            .arg("--config")
            .arg(config)
            .args(["send", "inbox", "--data", "x"])
            .args(more)
            .env("HOOKBUS__INGRESS__LISTEN", daemon.ingress.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let (sent, text) = send(&path.join("hookbus.toml"), &[]);
    assert!(
        sent && text.contains("duplicate"),
        "an authority nobody trusts, a name that is not 127.0.0.1: {text}"
    );

    let other = path.join("other");
    authority.pair(SERVER).write(&other);
    std::fs::write(other.join("hookbus.toml"), daemon_config(&other, "")).unwrap();
    assert!(!send(&other.join("hookbus.toml"), &[]).0, "another certificate of the same authority");
    let url = format!("https://{}", daemon.ingress);
    assert!(!send(&path.join("hookbus.toml"), &["--ingress", &url]).0, "a URL is checked as a sender would");
    assert!(daemon.stop().await.success());
}
