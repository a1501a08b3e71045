//! `hookbus register` as its users meet it: the real program against a gateway that behaves as documented, and one that
//! fails in every documented way. None of the secrets, which the gateway likes to repeat, is ever printed.

use crate::support::daemon::PROGRAM;
use crate::support::gateway::{Gateway, Mood};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use tokio::net::TcpListener;
use tokio::process::Command;

/// Part of every secret here.
const MARK: &str = "hunter2";
const INSTANCE: &str = "3C67AB641C8AA0F49E4BC2F5CBA37A21";
const URL: &str = "https://hooks.example.com/hooks/whatsapp/path-hunter2%2F%20x";
const BOTH: &str = "receivedAndDeliveryCallbackUrl";

async fn gateway() -> Gateway {
    Gateway::start(INSTANCE, &format!("token-{MARK}"), &format!("client-{MARK}")).await
}

fn config(dialect: &str, api: &str) -> String {
    format!(
        "
        [ingress]
        public_url = 'https://Hooks.example.com/'
        [sources.inbox.generic]
        [sources.whatsapp]
        path_secret = ['path-{MARK}/ x', 'old-path-{MARK}']
        [sources.whatsapp.{dialect}]
        api = '{api}'
        instance = '{INSTANCE}'
        token = ['token-{MARK}', 'old-token-{MARK}']
        client_token = 'client-{MARK}'
        "
    )
}

/// What the program said and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// The state of a webhook in the table or the JSON document.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
    fn states(&self) -> Vec<String> {
        let hooks = self.json()["hooks"].as_array().unwrap().clone();
        hooks.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    }
    fn state_of(&self, hook: &str) -> (String, String) {
        let hooks = self.json()["hooks"].as_array().unwrap().clone();
        let row = hooks.into_iter().find(|row| row["hook"] == hook).unwrap();
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        (text("state"), text("note"))
    }
}

/// Runs `hookbus register` with this configuration; nothing secret may be in what it says.
async fn register(config: &str, line: &str) -> Said {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hookbus.toml"), config).unwrap();
    run(folder.path(), line).await
}

async fn run(folder: &Path, line: &str) -> Said {
    let output = Command::new(PROGRAM)
        .args(["register", "--source"])
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    for text in [&out, &err] {
        assert!(!text.contains(MARK), "R8: a secret in what `register --source {line}` says: {text}");
    }
    assert!(!err.contains("panicked"), "{err}");
    Said { code: output.status.code().unwrap(), out, err }
}

#[tokio::test]
async fn every_webhook_is_set_and_verified_and_no_older_url_goes_on_receiving() {
    let gateway = gateway().await;
    gateway.has_hook(BOTH, "https://forgotten.example.com/bot");
    assert_eq!(gateway.notified_of_a_message(false).unwrap(), "https://forgotten.example.com/bot");
    let said = register(&config("zapi", &gateway.api()), "whatsapp").await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert_eq!(
        gateway.calls(),
        [
            "PUT update-every-webhooks",
            "PUT update-webhook-received-delivery",
            "PUT update-notify-sent-by-me",
            "GET me"
        ]
    );
    let hooks = gateway.hooks();
    assert_eq!(hooks.len(), 7);
    assert!(hooks.values().all(|url| url == URL), "{hooks:?}");
    assert_eq!(gateway.notified_of_a_message(false).as_deref(), Some(URL));
    assert_eq!(gateway.notified_of_a_message(true), None, "own messages were not asked for");
    assert!(said.out.contains("https://hooks.example.com/hooks/whatsapp/***"), "{}", said.out);
    assert_eq!(said.out.matches("verified").count(), 8, "{}", said.out);
}

#[tokio::test]
async fn own_messages_come_where_they_are_asked_for_and_stop_where_they_no_longer_are() {
    let gateway = gateway().await;
    let config = config("zapi", &gateway.api());
    let said = register(&config, "whatsapp --sent-by-me --json").await;
    assert_eq!((said.code, said.states()), (0, vec!["verified".to_owned(); 8]), "{}", said.out);
    assert_eq!(gateway.notified_of_a_message(true).as_deref(), Some(URL));
    assert_eq!(gateway.notified_of_a_message(false).as_deref(), Some(URL));
    let said = register(&config, "whatsapp --check --json").await;
    assert_eq!((said.code, said.state_of("sent_by_me").0.as_str()), (3, "differs"));
    assert_eq!(register(&config, "whatsapp").await.code, 0);
    assert_eq!(gateway.notified_of_a_message(true), None);
    assert_eq!(gateway.notified_of_a_message(false).as_deref(), Some(URL));
}

#[tokio::test]
async fn check_only_reads_and_says_what_differs() {
    let gateway = gateway().await;
    gateway.has_hook("deliveryCallbackUrl", &format!("https://old.example.com/{MARK}"));
    let config = config("zapi", &gateway.api());
    let said = register(&config, "whatsapp --check --json").await;
    assert_eq!((said.code, said.json()["result"].as_str()), (3, Some("differs")));
    let differs = |note: &str| ("differs".to_owned(), note.to_owned());
    assert_eq!(said.state_of("delivery"), differs("it goes to https://old.example.com/…"));
    assert_eq!(said.state_of("received"), differs("nothing is set"));
    assert_eq!(
        said.state_of("received_and_sent").0,
        "verified",
        "nothing is set there, and nothing is wanted"
    );
    assert_eq!(gateway.calls(), ["GET me"]);
    assert_eq!(gateway.hooks().len(), 1, "nothing was set");
    assert_eq!(register(&config, "whatsapp").await.code, 0);
    assert_eq!(register(&config, "whatsapp --check").await.code, 0);
    gateway.has_hook("receivedCallbackUrl", &format!("https://hooks.example.com/hooks/whatsapp/{MARK}"));
    let said = register(&config, "whatsapp --check --json").await;
    let same_source = "it goes to the same source with another secret or query";
    assert_eq!((said.code, said.state_of("received")), (3, differs(same_source)));
}

#[tokio::test]
async fn dry_run_shows_the_calls_and_makes_none() {
    let gateway = gateway().await;
    let config = config("zapi", &gateway.api());
    let said = register(&config, "whatsapp --dry-run --sent-by-me").await;
    assert_eq!(said.code, 0, "{}", said.err);
    for wanted in [
        &format!("PUT {}/instances/{INSTANCE}/token/***/update-every-webhooks", gateway.api()),
        "{\"notifySentByMe\":true,\"value\":\"https://hooks.example.com/hooks/whatsapp/***\"}",
        &format!("GET {}/instances/{INSTANCE}/token/***/me", gateway.api()),
    ] {
        assert!(said.out.contains(wanted), "{wanted}: {}", said.out);
    }
    let said = register(&config, "whatsapp --dry-run --json").await;
    assert_eq!(said.json()["calls"].as_array().unwrap().len(), 4);
    assert_eq!(gateway.calls(), [""; 0]);
}

#[tokio::test]
async fn an_older_api_gets_one_call_a_webhook_and_what_it_does_not_show_is_not_verifiable() {
    let gateway = gateway().await;
    gateway.is(Mood::Older);
    gateway.has_hook(BOTH, "https://forgotten.example.com/bot");
    let config_of = |dialect| config(dialect, &gateway.api());
    let said = register(&config_of("plugzapi"), "whatsapp --json").await;
    assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    assert_eq!(gateway.calls().len(), 8);
    assert_eq!(
        said.state_of("received"),
        ("set".to_owned(), "not verifiable: the instance cannot be read back".to_owned())
    );
    assert_eq!(said.state_of("sent_by_me").0, "not_verifiable");
    assert_eq!(
        gateway.notified_of_a_message(false).as_deref(),
        Some(URL),
        "the forgotten URL was taken away"
    );
    assert_eq!(gateway.notified_of_a_message(true), None);

    let said = register(&config_of("plugzapi"), "whatsapp --sent-by-me").await;
    assert_eq!((said.code, gateway.notified_of_a_message(true).as_deref()), (0, Some(URL)), "{}", said.out);

    let said = register(&config_of("plugzapi"), "whatsapp --check --json").await;
    assert_eq!((said.code, said.json()["result"].as_str()), (1, Some("failed")), "nothing could be checked");

    gateway.calls();
    let said = register(&config_of("zapi"), "whatsapp --json").await;
    assert_eq!((said.code, said.state_of("connected").0.as_str()), (0, "set"), "another brand: {}", said.err);
    assert_eq!(gateway.calls().len(), 9, "one call for all was tried first");
    let rows = said.json()["hooks"].as_array().unwrap().clone();
    let both = rows.iter().find(|row| row["hook"] == "received_and_sent").unwrap();
    assert_eq!(both["wanted"], "none", "it was taken away, as for any API without the flag");
}

#[tokio::test]
async fn an_older_api_that_shows_the_instance_is_verified_and_may_refuse_to_clear() {
    let gateway = gateway().await;
    let config = config("plugzapi", &gateway.api());
    gateway.is(Mood::OlderWithMe);
    let said = register(&config, "whatsapp --json").await;
    assert_eq!((said.code, said.states()), (0, vec!["verified".to_owned(); 8]), "{}", said.out);
    gateway.is(Mood::OlderNeverClears);
    let said = register(&config, "whatsapp --json").await;
    let (state, note) = said.state_of("received_and_sent");
    assert_eq!((said.code, state.as_str()), (0, "not_verifiable"), "{}", said.err);
    assert!(note.contains("empty it in the panel"), "{note}");
}

#[tokio::test]
async fn what_the_gateway_says_it_set_is_not_believed() {
    let gateway = gateway().await;
    gateway.is(Mood::Lies);
    let said = register(&config("zapi", &gateway.api()), "whatsapp --json").await;
    assert_eq!((said.code, said.json()["result"].as_str()), (3, Some("differs")));
    assert_eq!(said.state_of("received"), ("differs".to_owned(), "nothing is set".to_owned()));
}

#[tokio::test]
async fn a_failure_halfway_leaves_no_own_messages_switched_on() {
    let gateway = gateway().await;
    gateway.is(Mood::Stumbles);
    let said = register(&config("zapi", &gateway.api()), "whatsapp --json").await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert_eq!(said.state_of("received_and_sent").0, "failed");
    assert_eq!(said.state_of("sent_by_me").0, "verified");
    assert_eq!(gateway.notified_of_a_message(true), None, "nobody asked for own messages");
    assert_eq!(gateway.notified_of_a_message(false).as_deref(), Some(URL));
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_refusal_to_clear() {
    let gateway = gateway().await;
    gateway.is(Mood::OlderHangsUp);
    let said = register(&config("plugzapi", &gateway.api()), "whatsapp --json").await;
    assert_eq!((said.code, said.state_of("received_and_sent").0.as_str()), (1, "failed"), "{}", said.out);
}

#[tokio::test]
async fn each_failure_is_one_sentence_that_says_what_to_do() {
    let gateway = gateway().await;
    let config = config("zapi", &gateway.api());
    let keys = "sources.whatsapp.zapi";
    for (sentence, mood, calls, wanted) in [
        ("a no", Mood::SaysNo, 4, "{\"value\":false}: it was not set; see in the provider's panel"),
        ("a blocked address", Mood::Blocks, 1, "this machine's address 203.0.113.9: allow the address"),
        (
            "405",
            Mood::Answers(405, ""),
            2,
            &format!("it does not take PUT update-webhook-connected; check that {keys}.api"),
        ),
        ("415", Mood::Answers(415, ""), 1, "the Content-Type did not arrive; look for a proxy"),
        (
            "no security token",
            Mood::Answers(400, "{\"error\":\"null not allowed\"}"),
            1,
            &format!("set {keys}.client_token"),
        ),
        (
            "another one",
            Mood::Answers(200, "{\"error\":\"@ not allowed\"}"),
            1,
            &format!("{keys}.client_token is not the one"),
        ),
        ("a wrong token", Mood::Answers(401, "@"), 1, &format!("{keys}.instance, {keys}.token or")),
        ("another refusal", Mood::Answers(400, "{\"error\":\"bad @\"}"), 4, "\"bad /instances/"),
        ("a move", Mood::Answers(302, ""), 1, &format!("redirects are not followed, set {keys}.api")),
        ("too many", Mood::Answers(429, ""), 1, "it has had too many calls; try again later"),
        ("its own failure", Mood::Answers(503, "@"), 1, "the provider has a failure; try again later"),
        ("strange JSON", Mood::Answers(200, "{\"value\": boolean}"), 4, "something that is not documented"),
        ("a page", Mood::Answers(200, "<html>@"), 4, "something that is not documented"),
        ("no end", Mood::Endless, 4, "has no end"),
    ] {
        gateway.is(mood);
        let said = register(&config, "whatsapp").await;
        assert_eq!(said.code, 1, "{sentence}: {} {}", said.out, said.err);
        assert!(said.err.contains(wanted), "{sentence}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{sentence}: {}", said.err);
        assert_eq!(gateway.calls().len(), calls, "{sentence}: no call is made in vain");
        let hooks = gateway.hooks();
        assert!(hooks.is_empty(), "{sentence}: {hooks:?}");
    }
}

#[tokio::test]
async fn wrong_keys_are_told_from_missing_ones() {
    let gateway = gateway().await;
    let right = config("zapi", &gateway.api());
    for (sentence, config, wanted) in [
        (
            "a wrong instance",
            right.replace(INSTANCE, "0ther"),
            "\"Instance not found: /instances/0ther/token/***/update-every-webhooks\"",
        ),
        (
            "a wrong token",
            right.replace("['token-", "['wrong-"),
            "check sources.whatsapp.zapi.instance, sources.whatsapp.zapi.token",
        ),
        (
            "a wrong security token",
            right.replace("'client-", "'wrong-"),
            "sources.whatsapp.zapi.client_token is not the one of the provider's panel",
        ),
        (
            "no security token, of a provider that documents none",
            right.replace(".zapi]", ".plugzapi]").replace("client_token", "# client_token"),
            "set sources.whatsapp.plugzapi.client_token",
        ),
    ] {
        let said = register(&config, "whatsapp").await;
        assert_eq!(said.code, 1, "{sentence}: {}", said.out);
        assert!(said.err.contains(wanted), "{sentence}: {}", said.err);
    }
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_is_said_and_asked_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = gateway().await;
    gateway.is(Mood::Hangs);
    for (sentence, api, wanted) in [
        ("nothing listens", format!("http://{free}"), "nothing accepts connections there"),
        ("no such name", "https://api.hookbus.invalid".to_owned(), "the name does not resolve"),
        ("no TLS there", format!("https://{}", gateway.address), "TLS failed"),
        ("no answer", gateway.api(), "no answer to PUT update-every-webhooks in time"),
    ] {
        let said = register(&config("zapi", &api), "whatsapp --json").await;
        assert_eq!((said.code, said.json()["result"].as_str()), (1, Some("failed")), "{sentence}");
        let problems = said.json()["problems"].as_array().unwrap().clone();
        assert_eq!(problems.len(), 1, "{sentence}: {problems:?}");
        assert!(problems[0].as_str().unwrap().contains(wanted), "{sentence}: {problems:?}");
        assert_eq!(said.state_of("received").0, "failed", "{sentence}");
        assert_eq!(said.state_of("sent_by_me").0, "not_tried", "{sentence}");
    }
    assert_eq!(gateway.calls(), ["PUT update-every-webhooks"]);
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_before_any_call() {
    let gateway = gateway().await;
    let right = config("zapi", &gateway.api());
    let without = |key: &str| right.replace(&format!("        {key} = "), &format!("        # {key} = "));
    for (sentence, config, line, code, wanted) in [
        (
            "http",
            right.clone(),
            "whatsapp --public-url http://hooks.example.com",
            2,
            "--public-url: must be https",
        ),
        (
            "http in the configuration",
            right.replace("https://Hooks", "http://Hooks"),
            "whatsapp",
            2,
            "ingress.public_url: must be https",
        ),
        (
            "no URL at all",
            without("public_url"),
            "whatsapp",
            2,
            "--public-url https://… or ingress.public_url",
        ),
        (
            "a URL with a query",
            right.clone(),
            "whatsapp --public-url https://a.example.com/?b",
            2,
            "--public-url: expected a URL",
        ),
        (
            "another dialect",
            right.clone(),
            "inbox",
            2,
            "of the dialect generic, whose webhooks cannot be set",
        ),
        (
            "no such source",
            right.clone(),
            "whatsap",
            2,
            "there is no source whatsap; configured: inbox, whatsapp",
        ),
        (
            "no instance",
            without("instance"),
            "whatsapp",
            1,
            "sources.whatsapp.zapi.instance: is required to register",
        ),
        ("no token", without("token"), "whatsapp", 1, "sources.whatsapp.zapi.token: is required to register"),
        (
            "no security token",
            without("client_token"),
            "whatsapp",
            1,
            "sources.whatsapp.zapi.client_token: is required",
        ),
        (
            "a token that would travel in the clear",
            right.replace(&gateway.api(), "http://api.example.com"),
            "whatsapp",
            1,
            "sources.whatsapp.zapi.api: must be https",
        ),
        (
            "polls too often",
            format!("{right}\n        poll = '1s'"),
            "whatsapp",
            1,
            "sources.whatsapp.zapi.poll: expected at least \"10s\"",
        ),
        (
            "polls without what they need",
            format!("{}\n        poll = '1m'", without("instance")),
            "whatsapp",
            1,
            "sources.whatsapp.zapi.instance: is required by poll",
        ),
    ] {
        let said = register(&config, line).await;
        assert_eq!(said.code, code, "{sentence}: {}", said.err);
        assert!(said.err.contains(wanted), "{sentence}: {}", said.err);
        assert_eq!(said.out, "", "{sentence}");
    }
    assert_eq!(gateway.calls(), [""; 0]);
}

#[tokio::test]
async fn the_flag_takes_the_place_of_the_configured_url_and_an_open_path_is_pointed_out() {
    let gateway = gateway().await;
    let config = config("zapi", &gateway.api()).replace("path_secret", "# path_secret");
    let said = register(&config, "whatsapp --public-url https://other.example.com:8443/bus").await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(gateway.hooks()["receivedCallbackUrl"], "https://other.example.com:8443/bus/hooks/whatsapp");
    assert!(said.out.contains("note: sources.whatsapp.path_secret is not set"), "{}", said.out);
}
