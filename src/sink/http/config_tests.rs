//! What a user who writes an http sink is told, before anything is sent.

use crate::sink::testing::errors;

#[test]
fn what_cannot_work_is_refused_with_its_key_and_without_its_value() {
    const URL: &str = "url = \"https://example.com/hooks/PATHSECRET?key=QUERYSECRET\"\n";
    for (sentence, keys, key) in [
        ("no URL", String::new(), "url"),
        ("no URL's form", "url = \"example.com/SECRET\"".to_owned(), "url"),
        ("another protocol", "url = \"ftp://example.com/SECRET\"".to_owned(), "url"),
        ("an empty key", format!("{URL}secret = \"\""), "secret"),
        ("a key that is not base64", format!("{URL}secret = [\"c2VjcmV0\", \"SECRET!\"]"), "secret"),
        ("no header's name", format!("{URL}headers = {{ \"a b\" = \"SECRET\" }}"), "headers.a b"),
        ("no header's value", format!("{URL}headers = {{ x-key = \"SECRET\\n\" }}"), "headers.x-key"),
        (
            "a header of the sink's own",
            format!("{URL}headers = {{ Content-Type = \"a/b\" }}"),
            "headers.Content-Type",
        ),
        ("an attribute's header", format!("{URL}headers = {{ ce-id = \"SECRET\" }}"), "headers.ce-id"),
        ("half an identity", format!("{URL}cert = \"client.pem\""), "key"),
        ("the other half", format!("{URL}key = \"client.key\""), "cert"),
        ("a CA without TLS", "url = \"http://example.com\"\nca = \"ca.pem\"".to_owned(), "ca"),
        ("an exception to nothing", format!("{URL}allow_addresses = [\"10.0.0.0/8\"]"), "allow_addresses"),
        ("a private address", "url = \"http://[::1]/\"\ndeny_private_addresses = true".to_owned(), "url"),
        ("in disguise", "url = \"http://0x7f.1/\"\ndeny_private_addresses = true".to_owned(), "url"),
    ] {
        let errors = errors("http", &keys);
        assert_eq!(errors.len(), 1, "{sentence}: {errors:?}");
        assert!(errors[0].starts_with(&format!("sinks.orders.http.{key}: ")), "{sentence}: {errors:?}");
        assert!(!errors[0].contains("SECRET"), "{sentence}: {errors:?}");
    }
}

#[test]
fn what_works_is_taken() {
    for keys in [
        "url = \"http://127.0.0.1:1/\"",
        "url = \"http://10.1.2.3/\"\ndeny_private_addresses = true\nallow_addresses = [\"10.1.0.0/16\"]",
        "url = \"https://u:p@example.com:8443/x\"\nsecret = [\"whsec_c2VjcmV0\", \"c2VjcmV0\"]\n\
         headers = { Authorization = \"Bearer x\" }\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"",
    ] {
        assert_eq!(errors("http", keys), Vec::<String>::new(), "{keys}");
    }
}
