//! What a user who writes a kafka sink is told, before anything is sent.

use crate::shutdown::Shutdown;
use crate::sink::testing::parsed;

const GOOD: &str = "brokers = \"kafka:9092\"\ntopic = \"orders\"\n";

#[test]
fn what_cannot_work_is_refused_with_its_key_and_without_its_value() {
    let good = |more: &str| format!("{GOOD}{more}");
    let property = |property: &str| format!("{GOOD}[sinks.orders.kafka.properties]\n{property}");
    let sasl = |keys: &str| format!("{GOOD}[sinks.orders.kafka.sasl]\n{keys}");
    for (sentence, keys, key) in [
        ("no brokers", "topic = \"orders\"".to_owned(), "brokers"),
        ("a URL", "brokers = \"kafka://SECRET:9092\"\ntopic = \"orders\"".to_owned(), "brokers"),
        ("no port", "brokers = [\"kafka:9092\", \"SECRET\"]\ntopic = \"orders\"".to_owned(), "brokers"),
        ("no topic", "brokers = \"kafka:9092\"".to_owned(), "topic"),
        ("no name of a topic", "brokers = \"kafka:9092\"\ntopic = \"SECRET!\"".to_owned(), "topic"),
        ("any topic", "brokers = \"kafka:9092\"\ntopic = \"{type}\"".to_owned(), "topic"),
        ("a topic not allowed", good("topic_allowed = [\"hooks.*\"]"), "topic"),
        ("too small a size", good("message_max = \"10B\""), "message_max"),
        ("a CA without TLS", good("ca = \"ca.pem\""), "ca"),
        ("half an identity", good("tls = true\ncert = \"client.pem\""), "cert_key"),
        ("a password without a key", good("tls = true\ncert_key_password = \"SECRET\""), "cert_key_password"),
        ("a user without a mechanism", sasl("username = \"SECRET\""), "sasl.username"),
        ("no password", sasl("mechanism = \"PLAIN\"\nusername = \"SECRET\""), "sasl.password"),
        ("an unknown mechanism", sasl("mechanism = \"SECRET\""), "sasl.mechanism"),
        (
            "a token's key with a password",
            sasl("mechanism = \"PLAIN\"\nusername = \"u\"\npassword = \"SECRET\"\nscope = \"SECRET\""),
            "sasl.scope",
        ),
        (
            "no URL of tokens",
            sasl(
                "mechanism = \"OAUTHBEARER\"\ntoken_url = \"SECRET\"\nclient_id = \"i\"\nclient_secret = \"s\"",
            ),
            "sasl.token_url",
        ),
        ("a promise", property("acks = 1"), "properties.acks"),
        ("another promise", property("\"enable.idempotence\" = false"), "properties.enable.idempotence"),
        (
            "silence",
            property("\"delivery.report.only.error\" = true"),
            "properties.delivery.report.only.error",
        ),
        ("no transactions", property("\"transactional.id\" = \"SECRET\""), "properties.transactional.id"),
        (
            "no property",
            property("ut_handle_ProduceResponse = \"x\""),
            "properties.ut_handle_ProduceResponse",
        ),
        ("its own key", property("\"sasl.password\" = \"SECRET\""), "properties.sasl.password"),
        ("a key's password", property("\"ssl.key.password\" = \"SECRET\""), "properties.ssl.key.password"),
        (
            "a store's password",
            property("\"ssl.keystore.password\" = \"SECRET\""),
            "properties.ssl.keystore.password",
        ),
        (
            "a client's secret",
            property("\"sasl.oauthbearer.client.secret\" = \"SECRET\""),
            "properties.sasl.oauthbearer.client.secret",
        ),
        ("another key", property("\"message.max.bytes\" = 5000"), "properties.message.max.bytes"),
        ("unknown to librdkafka", property("\"linger.millis\" = \"SECRET\""), "properties.linger.millis"),
        ("a value out of range", property("\"linger.ms\" = \"SECRET\""), "properties.linger.ms"),
        ("a consumer's", property("\"group.id\" = \"SECRET\""), "properties.group.id"),
        ("one against another", property("\"max.in.flight\" = 100"), "properties"),
    ] {
        let errors = parsed("kafka", &keys).expect_err(sentence);
        assert_eq!(errors.len(), 1, "{sentence}: {errors:?}");
        assert!(errors[0].starts_with(&format!("sinks.orders.kafka.{key}: ")), "{sentence}: {errors:?}");
        assert!(!errors[0].contains("SECRET"), "{sentence}: {errors:?}");
    }
}

#[test]
fn what_works_is_taken() {
    for keys in [
        GOOD,
        "brokers = [\"[::1]:9092\", \"kafka-2.example.com:9092\"]\ntopic = \"hooks.{hookbussource}\"\nkey = \"{subject}\"",
        "brokers = \"k:1\"\ntopic = \"{type}\"\ntopic_allowed = [\"io.*\"]\ncompression = \"zstd\"\nmessage_max = \"5MiB\"",
        "brokers = \"k:1, k:2\"\ntopic = \"t\"\n[sinks.orders.kafka.properties]\nlinger.ms = 20\nretry.backoff.max.ms = \"500\"",
        "brokers = \"k:1\"\ntopic = \"t\"\nproperties = { \"linger.ms\" = 0.5, \"client.id\" = \"us\", \"partitioner\" = \"random\" }",
    ] {
        assert!(parsed("kafka", keys).is_ok(), "{keys}: {:?}", parsed("kafka", keys));
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_said_when_the_sink_is_made() {
    let configured = parsed("kafka", &format!("{GOOD}tls = true\nca = \"/nowhere/ca.pem\"")).unwrap();
    let Err(error) = configured.build(&std::env::temp_dir(), &Shutdown::new()) else {
        panic!("it was built");
    };
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
}
