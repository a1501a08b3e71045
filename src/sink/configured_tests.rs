//! What a user who writes a sink's section is told.

use super::*;
use crate::config::Layers;

fn parsed(text: &str) -> Result<ConfiguredSink, Vec<String>> {
    let layers = Layers::load(Some(text), None, &[]).unwrap();
    let section = layers.root().child("sinks").child("orders");
    ConfiguredSink::parse(SinkName::new("orders").unwrap(), &section)
        .map_err(|errors| errors.0.iter().map(|error| format!("{}: {}", error.key, error.problem)).collect())
}

#[test]
fn a_kind_s_table_alone_is_enough_and_the_defaults_are_the_documented_ones() {
    let sink = parsed("[sinks.orders.file]").unwrap();
    assert_eq!((sink.type_name, sink.name.as_str()), ("file", "orders"));
    assert_eq!(sink.common, CommonConfig::default());
    assert_eq!(
        serde_json::to_value(&sink.common).unwrap(),
        serde_json::json!({
            "order": "key", "in_flight_max": 64, "format": "structured", "timeout": "30s", "dead_letter": null,
            "retry": { "first": "500ms", "max": "5m", "attempts_max": 20, "age_max": "72h" },
            "on_backlog_full": "refuse",
        })
    );
}

#[test]
fn the_list_of_common_keys_is_complete() {
    let defaults = serde_json::to_value(CommonConfig::default()).unwrap();
    let mut keys: Vec<&str> = defaults.as_object().unwrap().keys().map(String::as_str).collect();
    let mut listed = CommonConfig::KEYS.to_vec();
    keys.sort_unstable();
    listed.sort_unstable();
    assert_eq!(keys, listed);
}

#[test]
fn every_key_can_be_set() {
    let sink = parsed(
        "[sinks.orders]\norder = \"strict\"\nin_flight_max = 1\nformat = \"binary\"\ntimeout = \"5s\"\n\
         dead_letter = \"audit\"\non_backlog_full = \"shed_oldest\"\n\
         [sinks.orders.retry]\nmax = \"1m\"\n[sinks.orders.http]\nurl = \"http://127.0.0.1:9\"",
    )
    .unwrap();
    assert_eq!(sink.type_name, "http");
    assert_eq!(sink.common.order, Order::Strict);
    assert_eq!(sink.common.format, Format::Binary);
    assert_eq!(sink.common.on_backlog_full, OnBacklogFull::ShedOldest);
    assert_eq!(sink.common.retry, RetryConfig { max: Period::mins(1), ..RetryConfig::default() });
}

#[test]
fn what_is_wrong_is_said_all_at_once_and_by_its_key() {
    for (sentence, text, expected) in [
        ("no kind", "[sinks.orders]\norder = \"key\"", &["sinks.orders: expected the table of one kind"][..]),
        (
            "two kinds",
            "[sinks.orders.file]\n[sinks.orders.stdout]",
            &["sinks.orders: expected one kind of sink, found"],
        ),
        (
            "a misspelt kind",
            "[sinks.orders.htpp]",
            &["sinks.orders.htpp: is not a kind of sink; did you mean http?"],
        ),
        (
            "an unknown kind",
            "[sinks.orders.pigeon]",
            &["sinks.orders.pigeon: is not a kind of sink; known: "],
        ),
        ("a kind that is no table", "[sinks.orders]\nhttp = \"x\"", &["sinks.orders.http: expected a table"]),
        (
            "a form the kind cannot write",
            "[sinks.orders]\nformat = \"binary\"\n[sinks.orders.file]",
            &["sinks.orders.format: a file sink cannot write the binary form"],
        ),
        (
            "its own letters",
            "[sinks.orders]\ndead_letter = \"orders\"\n[sinks.orders.file]",
            &["sinks.orders.dead_letter: expected another sink"],
        ),
        (
            "several at once",
            "[sinks.orders]\nin_flight_max = 0\n[sinks.orders.retry]\nattempts_max = 0\nmax = \"1ms\"\n\
             [sinks.orders.file]\nrotate_at = \"0\"",
            &[
                "sinks.orders.in_flight_max",
                "sinks.orders.retry.max",
                "sinks.orders.retry.attempts_max",
                "sinks.orders.file.rotate_at",
            ],
        ),
        (
            "unknown keys on both levels",
            "[sinks.orders]\nordr = \"key\"\n[sinks.orders.file]\npaht = \"x\"",
            &["sinks.orders.ordr", "sinks.orders.file.paht"],
        ),
    ] {
        let errors = parsed(text).unwrap_err();
        assert_eq!(errors.len(), expected.len(), "{sentence}: {errors:?}");
        for begin in expected {
            assert!(errors.iter().any(|error| error.starts_with(begin)), "{sentence}: {errors:?}");
        }
    }
}
