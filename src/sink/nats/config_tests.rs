//! What a user who writes a nats or jetstream sink is told, before anything is sent.

use crate::sink::testing::errors;

#[test]
fn what_cannot_work_is_refused_with_its_key_and_without_its_value() {
    const BOTH: &str = "url = \"nats://user:SECRET@localhost\"\nsubject = \"hooks.a\"\n";
    for (sentence, keys, key) in [
        ("no URL", "subject = \"a\"".to_owned(), "url"),
        ("another protocol", "url = \"ws://SECRET\"\nsubject = \"a\"".to_owned(), "url"),
        ("one of several", "url = [\"nats://a\", \"amqp://SECRET\"]\nsubject = \"a\"".to_owned(), "url"),
        ("no subject", "url = \"nats://a\"".to_owned(), "subject"),
        ("a wildcard", "url = \"nats://a\"\nsubject = \"hooks.*\"".to_owned(), "subject"),
        ("any subject at all", "url = \"nats://a\"\nsubject = \"{type}\"".to_owned(), "subject"),
        ("a user alone", format!("{BOTH}user = \"SECRET\""), "password"),
        ("a password alone", format!("{BOTH}password = \"SECRET\""), "user"),
        ("two ways", format!("{BOTH}token = \"SECRET\"\nnkey = \"SECRET\""), "nkey"),
        ("no seed", format!("{BOTH}nkey = \"UDSECRET\""), "nkey"),
        ("a path for the content", format!("{BOTH}credentials = \"/SECRET.creds\""), "credentials"),
        ("no inbox", format!("{BOTH}inbox_prefix = \"a b\""), "inbox_prefix"),
        ("half an identity", format!("{BOTH}cert = \"client.pem\""), "key"),
        ("the other half", format!("{BOTH}key = \"client.key\""), "cert"),
    ] {
        let errors = errors("nats", &keys);
        assert_eq!(errors.len(), 1, "{sentence}: {errors:?}");
        assert!(errors[0].starts_with(&format!("sinks.orders.nats.{key}: ")), "{sentence}: {errors:?}");
        assert!(!errors[0].contains("SECRET"), "{sentence}: {errors:?}");
    }
    for (sentence, stream) in [("no stream", ""), ("no stream's name", "stream = \"a.b\"")] {
        let errors = errors("jetstream", &format!("{BOTH}{stream}"));
        assert_eq!(errors.len(), 1, "{sentence}: {errors:?}");
        assert!(errors[0].starts_with("sinks.orders.jetstream.stream: "), "{sentence}: {errors:?}");
    }
}

#[test]
fn what_works_is_taken() {
    for keys in [
        "url = \"localhost\"\nsubject = \"a\"",
        "url = [\"nats://a:1\", \"tls://[::1]:2\"]\nsubject = \"{type}\"\nsubject_allowed = [\"io.*\"]",
        "url = \"tls://a\"\nsubject = \"a.{type}\"\ntoken = \"t\"\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"",
    ] {
        assert_eq!(errors("nats", keys), Vec::<String>::new(), "{keys}");
    }
}
