//! Whom a source sees through the real listener: the connection's own end, or whom a trusted proxy forwards for.

use crate::ingress_rig::{Client, Rig, SOON, post, seen, who};
use hookbus::config::OneOrMany;
use hookbus::ingress::{self, SocketMode};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::net::UnixStream;

const FORWARDED: [&str; 3] =
    ["x-forwarded-for: 203.0.113.9, 192.0.2.1", "x-forwarded-proto: https", "x-forwarded-host: hooks.test"];

fn trusting(proxies: &[&str]) -> ingress::Config {
    ingress::Config {
        trusted_proxies: proxies.iter().map(|network| network.parse().unwrap()).collect(),
        ..ingress::Config::default()
    }
}

fn at(path: &Path) -> OneOrMany<ingress::Address> {
    OneOrMany::one(format!("unix:{}", path.display()).parse().unwrap())
}

#[tokio::test]
async fn only_a_trusted_proxy_says_whom_it_forwards_for() {
    for (sentence, proxies, expected) in [
        ("nobody is trusted unless the configuration says so", &[][..], "127.0.0.1 http test"),
        ("another proxy is trusted", &["10.0.0.0/8"], "127.0.0.1 http test"),
        ("this one is", &["10.0.0.0/8", "127.0.0.0/8"], "192.0.2.1 https hooks.test"),
    ] {
        let rig = Rig::with(trusting(proxies), vec![who()]).await;
        let reply = rig.ask(post("/hooks/who", &FORWARDED, b"x")).await;
        assert_eq!((reply.status, seen(&reply.body).as_str()), (200, expected), "{sentence}");
        let reply =
            rig.ask(post("/hooks/who", &["forwarded: for=\"[2001:db8::1]:7\";proto=https"], b"x")).await;
        let expected = if expected.contains("https") { "2001:db8::1 https test" } else { expected };
        assert_eq!(seen(&reply.body), expected, "{sentence}");
    }
}

#[tokio::test]
async fn every_request_of_a_connection_is_looked_at_anew() {
    let rig = Rig::with(trusting(&["127.0.0.1"]), vec![who()]).await;
    let mut proxy = rig.connect().await;
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
        proxy.send(post("/hooks/who", &[&format!("x-forwarded-for: {client}")], client.as_bytes())).await;
        assert_eq!(seen(&proxy.reply().await.unwrap().body), format!("{client} http test"));
    }
}

#[tokio::test]
async fn a_unix_socket_serves_who_may_open_it_and_goes_with_the_ingress() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ingress.sock");
    let mode = "0600".parse::<SocketMode>().unwrap();
    let config = ingress::Config { listen: at(&path), socket_mode: mode, ..trusting(&[]) };
    let rig = Rig::with(config, vec![who()]).await;
    assert_eq!(rig.endpoints[0].to_string(), format!("unix:{}", path.display()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
    for body in ["one", "two"] {
        client.send(post("/hooks/who", &FORWARDED, body.as_bytes())).await;
        assert_eq!(seen(&client.reply().await.unwrap().body), "127.0.0.1 http test");
    }
    let mut waiting = Client::over(UnixStream::connect(&path).await.unwrap());
    waiting.send(post("/hooks/who", &[], b"three")).await;
    rig.stop_ingress().await;
    assert_eq!(waiting.reply().await.unwrap().status, 200, "whoever has connected is served");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_proxy_behind_a_unix_socket_is_trusted_as_loopback() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ingress.sock");
    let rig = Rig::with(ingress::Config { listen: at(&path), ..trusting(&["127.0.0.1"]) }, vec![who()]).await;
    let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
    client.send(post("/hooks/who", &FORWARDED, b"x")).await;
    assert_eq!(seen(&client.reply().await.unwrap().body), "192.0.2.1 https hooks.test");
    tokio::time::timeout(SOON, rig.shutdown.stop(hookbus::shutdown::Phase::Ingress)).await.unwrap();
}
