//! What a user who writes an amqp sink is told, before anything is sent.

use crate::sink::testing::errors;

#[test]
fn what_cannot_work_is_refused_with_its_key_and_without_its_value() {
    const URL: &str = "url = \"amqp://user:SECRET@example.com/vhost\"\n";
    const TLS: &str = "url = \"amqps://user:SECRET@example.com/vhost\"\n";
    const KEY: &str = "routing_key = \"orders\"\n";
    for (sentence, keys, key) in [
        ("no URL", KEY.to_owned(), "url"),
        ("no URL's form", format!("{KEY}url = \"example.com/SECRET\""), "url"),
        ("another protocol", format!("{KEY}url = \"http://SECRET@example.com\""), "url"),
        ("a bad one in a list", format!("{KEY}url = [\"amqp://h\", \"SECRET\"]"), "url"),
        ("keys in the URL", format!("{KEY}url = \"amqp://SECRET@h?heartbeat=5\""), "url"),
        ("no routing key", URL.to_owned(), "routing_key"),
        ("a routing key of the sender's choice", format!("{URL}routing_key = \"{{type}}\""), "routing_key"),
        ("an exchange of the sender's choice", format!("{URL}{KEY}exchange = \"{{type}}\""), "exchange"),
        ("one that is not allowed", format!("{URL}{KEY}routing_key_allowed = [\"x*\"]"), "routing_key"),
        ("globs for nothing", format!("{URL}{KEY}exchange_allowed = [\"x*\"]"), "exchange_allowed"),
        ("half an identity", format!("{TLS}{KEY}cert = \"client.pem\""), "key"),
        ("the other half", format!("{TLS}{KEY}key = \"client.key\""), "cert"),
        ("a CA without TLS", format!("{URL}{KEY}ca = \"ca.pem\""), "ca"),
        ("a certificate to log in with that is not there", format!("{TLS}{KEY}auth = \"external\""), "cert"),
        (
            "a password that nobody asks for",
            format!("{TLS}{KEY}auth = \"external\"\ncert = \"c\"\nkey = \"k\"\npassword = \"SECRET\""),
            "password",
        ),
        ("no sign of life", format!("{URL}{KEY}heartbeat = \"0s\""), "heartbeat"),
        ("too few of them", format!("{URL}{KEY}heartbeat = \"2h\""), "heartbeat"),
        ("no room for a message", format!("{URL}{KEY}message_max = 0"), "message_max"),
        ("a prefix of one's own", format!("{URL}{KEY}header_prefix = \"SECRET\""), "header_prefix"),
    ] {
        let errors = errors("amqp", &keys);
        assert_eq!(errors.len(), 1, "{sentence}: {errors:?}");
        assert!(errors[0].starts_with(&format!("sinks.orders.amqp.{key}: ")), "{sentence}: {errors:?}");
        assert!(!errors[0].contains("SECRET"), "{sentence}: {errors:?}");
    }
}

#[test]
fn what_works_is_taken() {
    for keys in [
        "url = \"amqp://127.0.0.1\"\nrouting_key = \"orders\"",
        "url = [\"amqp://a/v\", \"amqps://b/v\"]\nrouting_key = \"hooks.{type}\"\nexchange = \"hooks\"\nca = \"ca.pem\"",
        "url = \"amqp://[::1]:1\"\nexchange = \"\"\nrouting_key = \"{type}\"\nrouting_key_allowed = [\"io.*\"]",
        "url = \"amqps://h\"\nrouting_key = \"o\"\nauth = \"external\"\ncert = \"c.pem\"\nkey = \"c.key\"",
        "url = \"amqp://h\"\nrouting_key = \"o\"\nuser = \"u\"\npassword = \"p\"\nheader_prefix = \"ce-\"",
    ] {
        assert_eq!(errors("amqp", keys), Vec::<String>::new(), "{keys}");
    }
}
