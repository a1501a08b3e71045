//! From `hookbus register` to a delivered event, the gateway of the tests posting to the real daemon over
//! TLS; and what a poll tells of an instance.

use crate::support::authority::Authority;
use crate::support::daemon::{Daemon, PROGRAM};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// The instances of the fixtures.
const Z_API: &str = "32786C8885698B0A4CDC52CD1A426535";
const PLUGZAPI: &str = "6B165569BEC7B4271B0F2908594E59B5";
const MARK: &str = "hunter2";

fn config(dialect: &str, instance: &str, api: &str, more: &str) -> String {
    format!(
        "
        [sources.whatsapp]
        path_secret = 'path-{MARK}'
        [sources.whatsapp.{dialect}]
        api = '{api}'
        instance = '{instance}'
        token = 'token-{MARK}'
        client_token = 'client-{MARK}'
        {more}
        [sinks.events.file]
        path = 'events.ndjson'
        "
    )
}

async fn gateway(instance: &str) -> Gateway {
    Gateway::start(instance, &format!("token-{MARK}"), &format!("client-{MARK}")).await
}

/// Every event in the file of the sink.
fn events(daemon: &Daemon) -> Vec<Value> {
    let path = daemon.folder.join("hookbus-data/events.ndjson");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for so many events in the file, and gives them.
async fn events_of(daemon: &Daemon, count: usize) -> Vec<Value> {
    let enough = async || Some(events(daemon)).filter(|events| events.len() >= count);
    eventually(&format!("{count} events in the file"), enough).await
}

/// Every documented fixture of the brand: its webhook, the end of the type it must get.
fn fixtures(brand: &str) -> Vec<(String, String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let rows: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let ours = rows.iter().filter(|row| row["provider"] == brand);
    let read = |row: &Value| {
        let body = std::fs::read(folder.join(row["file"].as_str().unwrap())).unwrap();
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        (text("webhook"), text("ce_type_suffix"), body)
    };
    ours.map(read).collect()
}

/// The field of `/me` whose URL a documented webhook is posted to.
fn field_of(webhook: &str) -> &'static str {
    match webhook {
        "on-webhook-connected" => "connectedCallbackUrl",
        "on-whatsapp-disconnected" => "disconnectedCallbackUrl",
        "on-message-send" => "deliveryCallbackUrl",
        "on-whatsapp-message-status-changes" => "messageStatusCallbackUrl",
        "on-chat-presence" => "presenceChatCallbackUrl",
        _ => "receivedCallbackUrl",
    }
}

async fn from_register_to_a_delivered_event(dialect: &str, instance: &str, prefix: &str) {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(instance).await;
    let authority = Authority::new();
    authority.pair("localhost").write(folder.path());
    let tls = "[ingress.tls]\ncert = 'tls.crt'\nkey = 'tls.key'\n";
    let config = tls.to_owned() + &config(dialect, instance, &gateway.api(), "");
    let daemon = Daemon::start(folder.path(), &config).await;
    let public_url = format!("https://localhost:{}", daemon.ingress.port());
    let registered = Command::new(PROGRAM)
        .args(["register", "--source", "whatsapp", "--public-url", &public_url])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(registered.stdout).unwrap();
    assert!(registered.status.success(), "{said}{}", String::from_utf8(registered.stderr).unwrap());
    assert!(said.contains(&format!("{public_url}/hooks/whatsapp/***")) && !said.contains(MARK), "{said}");

    let fixtures = fixtures(dialect);
    assert!(fixtures.len() > 20, "{} fixtures", fixtures.len());
    let client = authority.http_client().build().unwrap();
    for (webhook, _, body) in &fixtures {
        let answer = gateway.posts(field_of(webhook), &client, body.clone()).await;
        assert_eq!(answer, (200, "{\"value\":true}".to_owned()), "{webhook}");
    }
    let wanted: std::collections::BTreeSet<String> =
        fixtures.iter().map(|(_, suffix, _)| format!("{prefix}.{suffix}")).collect();
    let types = eventually("an event of every type", async || {
        let types: std::collections::BTreeSet<String> =
            events(&daemon).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
        wanted.is_subset(&types).then_some(types)
    })
    .await;
    assert_eq!(types, wanted);
    assert!(events(&daemon).iter().all(|event| event["hookbussource"] == "whatsapp"));
    assert!(!daemon.log().contains(MARK), "{}", daemon.log());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z_api_from_register_to_a_delivered_event_over_tls() {
    from_register_to_a_delivered_event("zapi", Z_API, "io.z-api").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugzapi_from_register_to_a_delivered_event_over_tls() {
    from_register_to_a_delivered_event("plugzapi", PLUGZAPI, "br.com.plugzapi").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_tells_when_an_instance_is_lost_and_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(Z_API).await;
    let polled =
        "[log]\nlevel = 'trace'\n".to_owned() + &config("zapi", Z_API, &gateway.api(), "poll = '10s'");
    let daemon = Daemon::start(folder.path(), &polled).await;
    let told = events_of(&daemon, 1).await;
    assert_eq!(told[0]["type"], "io.z-api.connection.polled-connected", "what is found at a start is told");
    assert_eq!(told[0]["source"], format!("//api.z-api.io/instances/{Z_API}"));
    assert_eq!(told[0]["polled"], true);
    assert_eq!(told[0]["data"], json!({"state": "connected", "previous": null, "detail": ""}));
    assert_eq!(daemon.metric("hookbus_source_connected{source=\"whatsapp\"}").await, Some(1.0));

    gateway.has_status(
        json!({"connected": false, "error": format!("token-{MARK}: not connected"), "smartphoneConnected": false}),
    );
    let told = events_of(&daemon, 2).await;
    assert_eq!(told[1]["type"], "io.z-api.connection.polled-disconnected");
    let data = json!({"state": "disconnected", "previous": "connected", "detail": "***: not connected"});
    assert_eq!(told[1]["data"], data);
    assert_eq!(daemon.metric("hookbus_source_connected{source=\"whatsapp\"}").await, Some(0.0));
    let polls = "hookbus_source_polls_total{source=\"whatsapp\",outcome=\"disconnected\"}";
    assert!(daemon.metric(polls).await.is_some_and(|polls| polls >= 1.0));
    assert!(gateway.calls().iter().all(|call| call == "GET status"));
    assert!(!daemon.log().contains(MARK), "{}", daemon.log());
    daemon.stop().await;

    let daemon = Daemon::start(folder.path(), &polled).await;
    let told = events_of(&daemon, 3).await;
    assert_eq!(told[2]["type"], "io.z-api.connection.polled-disconnected");
    assert_eq!(told[2]["data"]["previous"], Value::Null, "what was before a start is not known");
    daemon.stop().await;
}
