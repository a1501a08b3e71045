//! The generic source as a whole: what it asks of a request, and what it adds to an event.

use crate::support::authority::Authority;
use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::oracle::lines_of;

const CONFIG: &str = r#"
[ingress]
trusted_proxies = ["127.0.0.1"]

[sources.shop]
keep_headers = ["x-shop"]
[sources.shop.generic]
id = "/event/id"
type = "/event/name"
type_prefix = "com.shop."
subject = "/order/number"
time = "/event/at"
key = "/customer"
[sources.shop.generic.attributes]
region = "eu"
currency = "/order/currency"
[sources.shop.generic.auth]
user = "shop"
password = ["old-Marked", "new-Marked"]
token = "t0ken-Marked"
token_header = "x-gate"
addresses = ["127.0.0.0/8"]

[sources.far.generic.auth]
require = "any"
addresses = ["192.0.2.0/24"]
bearer = "b3arer-Marked"

[sinks.events.file]
path = "events.ndjson"
"#;

#[tokio::test]
async fn a_request_brings_what_is_asked_and_becomes_what_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), CONFIG).await;
    let body = r#"{"event":{"id":"e1","name":"paid","at":1767182400},"order":{"number":7,"currency":"EUR"},"customer":"c9"}"#;
    let post = |source: &str| {
        let request = daemon.http.post(format!("http://{}/hooks/{source}", daemon.ingress));
        request.header("content-type", "application/json").header("x-shop", "one").body(body)
    };
    for (sentence, request, status) in [
        ("nothing", post("shop"), 401),
        ("only a password", post("shop").basic_auth("shop", Some("old-Marked")), 401),
        ("only a token", post("shop").header("x-gate", "t0ken-Marked"), 401),
        (
            "another user",
            post("shop").basic_auth("x", Some("old-Marked")).header("x-gate", "t0ken-Marked"),
            401,
        ),
        (
            "all of it",
            post("shop").basic_auth("shop", Some("new-Marked")).header("x-gate", "t0ken-Marked"),
            200,
        ),
        ("neither of two", post("far"), 401),
        ("one of two", post("far").bearer_auth("b3arer-Marked"), 200),
        ("an address that a trusted proxy names", post("far").header("x-forwarded-for", "192.0.2.7"), 200),
        ("another address", post("far").header("x-forwarded-for", "198.51.100.7"), 401),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status, "{sentence}");
    }
    let file = folder.path().join("hookbus-data/events.ndjson");
    let events = eventually("both events are there", || async {
        Some(lines_of(&file)).filter(|events| events.len() == 2)
    })
    .await;
    let event = events.iter().find(|event| event["hookbussource"] == "shop").unwrap();
    for (name, value) in [
        ("id", "e1"),
        ("type", "com.shop.paid"),
        ("subject", "7"),
        ("time", "2025-12-31T12:00:00.000Z"),
        ("partitionkey", "c9"),
        ("region", "eu"),
        ("currency", "EUR"),
        ("xshop", "one"),
    ] {
        assert_eq!(event[name], value, "{name}");
    }
    let series = "hookbus_ingress_unauthorized_total{source=\"shop\",reason=\"missing\"}";
    assert!(
        daemon.metric(series).await.is_some_and(|count| count >= 3.0),
        "{}",
        daemon.ask("/metrics").await.1
    );
    for source in ["shop", "far"] {
        let sent = daemon.send(&[source, "--data", "{}"]).await;
        assert!(sent.status.success(), "`send` brings what {source} asks for: {sent:?}");
    }
    let status = daemon.status().await;
    assert!(status["sources"].as_array().unwrap().iter().all(|source| source["authenticated"] == true));
    assert!(!daemon.log().contains("Marked") && !std::fs::read_to_string(&file).unwrap().contains("Marked"));
}

#[tokio::test]
async fn a_client_certificate_lets_in_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.pair("127.0.0.1").write(folder.path());
    authority.file(folder.path(), "clients.crt");
    let config = "[ingress.tls]\ncert = \"tls.crt\"\nkey = \"tls.key\"\nclient_ca = \"clients.crt\"\n\
                  [sources.shop.generic.auth]\ncertificate_names = [\"*.shop.example\"]\n\
                  [sinks.events.file]\npath = \"events.ndjson\"\n";
    let daemon = Daemon::start(folder.path(), config).await;
    for (sentence, name, status) in [
        ("a name that may send", Some("eu.shop.example"), 200),
        ("another name of the same authority", Some("eu.other.example"), 401),
        ("no certificate", None, 401),
    ] {
        let mut client = authority.http_client();
        if let Some(name) = name {
            client = client.identity(authority.pair(name).identity());
        }
        let url = format!("https://{}/hooks/shop", daemon.ingress);
        let answer = client.build().unwrap().post(url).body("x").send().await.unwrap();
        assert_eq!(answer.status(), status, "{sentence}");
    }
}
