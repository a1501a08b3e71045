//! Which requests get in, by every proof and by several together.

use crate::envelope::SourceName;
use crate::source::testing::configured;
use crate::source::{Head, Peer, Refused};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// What a request brings: its address, the names of its certificate, its headers.
type Brought<'a> = (&'a str, &'a [&'a str], &'a [(&'static str, &'a str)]);

fn outcome(auth: &str, (address, names, sent): Brought<'_>) -> Result<(), Refused> {
    let source = configured(&format!("[generic.auth]\n{auth}")).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in sent {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let certificate_names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let peer = Peer { address: address.parse().ok(), certificate_names: &certificate_names, ..Peer::NONE };
    source.dialect.authenticate(&Head {
        source: &SourceName::new("inbox").unwrap(),
        peer,
        path: "/hooks/inbox",
        method: &Method::POST,
        path_secret_matched: false,
        query: None,
        headers: &headers,
        rate: None,
    })
}

const HERE: &str = "127.0.0.1";
const BASIC: &str = "user = \"ana\"\npassword = [\"old\", \"n:ew\"]";
const BEARER: &str = "bearer = [\"one\", \"two\"]";
const TOKEN: &str = "token = \"t0ken\"\ntoken_header = \"X-Api-Key\"";
const ADDRESSES: &str = "addresses = [\"10.0.0.0/8\", \"fd00::/8\"]";
const NAMES: &str = "certificate_names = [\"*.example.com\", \"spiffe://Prod/a\", \"Sender One\"]";

#[test]
fn each_proof_lets_in_who_has_it() {
    for (sentence, auth, brought, expected) in [
        ("nothing is asked", "", (HERE, &[][..], &[][..]), Ok(())),
        ("a user with her password", BASIC, (HERE, &[], &[("authorization", "Basic YW5hOm9sZA==")]), Ok(())),
        (
            "her other one, a colon in it",
            BASIC,
            (HERE, &[], &[("authorization", "basic YW5hOm46ZXc=")]),
            Ok(()),
        ),
        ("another user", BASIC, (HERE, &[], &[("authorization", "Basic Ym9iOm9sZA==")]), Err(Refused::Wrong)),
        ("another password", BASIC, (HERE, &[], &[("authorization", "Basic YW5hOng=")]), Err(Refused::Wrong)),
        ("no colon", BASIC, (HERE, &[], &[("authorization", "Basic YW5h")]), Err(Refused::Wrong)),
        ("no base64", BASIC, (HERE, &[], &[("authorization", "Basic ana:old")]), Err(Refused::Wrong)),
        ("no header", BASIC, (HERE, &[], &[]), Err(Refused::Missing)),
        ("a bearer's token", BEARER, (HERE, &[], &[("authorization", "Bearer two")]), Ok(())),
        ("a wrong one", BEARER, (HERE, &[], &[("authorization", "Bearer three")]), Err(Refused::Wrong)),
        ("without its scheme", BEARER, (HERE, &[], &[("authorization", "two")]), Err(Refused::Wrong)),
        (
            "a right and a wrong one",
            BEARER,
            (HERE, &[], &[("authorization", "Bearer two"), ("authorization", "Bearer x")]),
            Err(Refused::Wrong),
        ),
        ("a token in its header", TOKEN, (HERE, &[], &[("x-api-key", "t0ken")]), Ok(())),
        ("in another header", TOKEN, (HERE, &[], &[("x-api-kex", "t0ken")]), Err(Refused::Missing)),
        ("a wrong token", TOKEN, (HERE, &[], &[("x-api-key", "T0KEN")]), Err(Refused::Wrong)),
        ("an address of a network", ADDRESSES, ("10.9.8.7", &[], &[]), Ok(())),
        ("the same written as IPv6", ADDRESSES, ("::ffff:10.9.8.7", &[], &[]), Ok(())),
        ("one of the other network", ADDRESSES, ("fd00::1", &[], &[]), Ok(())),
        (
            "nobody's, in a network of all",
            "addresses = [\"0.0.0.0/0\", \"::/0\"]",
            ("", &[], &[]),
            Err(Refused::Address),
        ),
        ("one of none", ADDRESSES, ("11.0.0.1", &[], &[]), Err(Refused::Address)),
        ("a certificate with one label more", NAMES, (HERE, &["A.Example.com"], &[]), Ok(())),
        ("with two more", NAMES, (HERE, &["a.b.example.com"], &[]), Err(Refused::Wrong)),
        ("with none more", NAMES, (HERE, &["example.com", ".example.com"], &[]), Err(Refused::Wrong)),
        ("a URI to the letter", NAMES, (HERE, &["x", "spiffe://Prod/a"], &[]), Ok(())),
        ("a URI in other letters", NAMES, (HERE, &["spiffe://prod/a"], &[]), Err(Refused::Wrong)),
        ("a common name", NAMES, (HERE, &["Sender One"], &[]), Ok(())),
        ("no certificate", NAMES, (HERE, &[], &[]), Err(Refused::Missing)),
    ] {
        assert_eq!(outcome(auth, brought), expected, "{sentence}");
    }
}

#[test]
fn several_proofs_are_all_needed_or_any_is_enough() {
    let both = format!("{ADDRESSES}\n{TOKEN}");
    let any = format!("require = \"any\"\n{both}");
    let good: &[(&'static str, &str)] = &[("x-api-key", "t0ken")];
    let bad: &[(&'static str, &str)] = &[("x-api-key", "nope")];
    for (sentence, auth, brought, expected) in [
        ("all: both", &both, ("10.0.0.1", &[][..], good), Ok(())),
        ("all: only the address", &both, ("10.0.0.1", &[], &[]), Err(Refused::Missing)),
        ("all: only the token", &both, ("11.0.0.1", &[], good), Err(Refused::Address)),
        ("all: neither", &both, ("11.0.0.1", &[], bad), Err(Refused::Address)),
        ("any: the address", &any, ("10.0.0.1", &[], bad), Ok(())),
        ("any: the token", &any, ("11.0.0.1", &[], good), Ok(())),
        ("any: a wrong token tells most", &any, ("11.0.0.1", &[], bad), Err(Refused::Wrong)),
        ("any: neither", &any, ("11.0.0.1", &[], &[]), Err(Refused::Address)),
    ] {
        assert_eq!(outcome(auth, brought), expected, "{sentence}");
    }
    let either = format!("{BASIC}\n{BEARER}");
    for value in ["Basic YW5hOm9sZA==", "Bearer one"] {
        let brought = (HERE, &[][..], &[("authorization", value)][..]);
        assert_eq!(outcome(&either, brought), Ok(()), "both are one header: {value}");
    }
}

#[test]
fn every_proof_makes_a_source_authenticated_and_its_header_is_a_credential() {
    for (auth, headers) in [
        (BASIC, &["authorization"][..]),
        (BEARER, &["authorization"]),
        (TOKEN, &["x-api-key"]),
        (ADDRESSES, &[]),
        (NAMES, &[]),
    ] {
        let source = configured(&format!("[generic.auth]\n{auth}")).unwrap();
        assert!(!source.is_unauthenticated(), "{auth}");
        assert_eq!(source.dialect.credential_headers(), headers, "{auth}");
    }
    let all = configured(&format!("[generic.auth]\nrequire = \"any\"\n{BASIC}\n{BEARER}\n{TOKEN}")).unwrap();
    assert_eq!(all.dialect.credential_headers(), ["authorization", "x-api-key"]);
    for secret in ["ana", "old", "one", "t0ken"] {
        assert!(all.dialect.knows_secret(secret.as_bytes()), "{secret}");
    }
    assert!(!all.dialect.knows_secret(b"x-api-key"));
}

#[test]
fn what_cannot_be_meant_is_named() {
    for (auth, key, problem) in [
        ("user = \"a\"", "generic.auth.user", "needs password"),
        ("password = \"a\"", "generic.auth.password", "needs user"),
        ("token = \"a\"", "generic.auth.token", "needs token_header"),
        ("token_header = \"a\"", "generic.auth.token_header", "needs token"),
        ("token = \"a\"\ntoken_header = \"a b\"", "generic.auth.token_header", "name of a request header"),
        ("addresses = [\"10.0.0.0/40\"]", "generic.auth.addresses.0", "expected an address or a network"),
        ("certificate_names = [\"*.\"]", "generic.auth.certificate_names", "must not be empty"),
        ("require = \"some\"", "generic.auth.require", "expected"),
        ("bearer = \"\"", "generic.auth.bearer", "empty"),
        ("bearer = [\"a\", \" \"]", "generic.auth.bearer", "white space"),
        ("token = \"a\\n\"\ntoken_header = \"x\"", "generic.auth.token", "white space"),
        ("user = \"a:b\"\npassword = \"c\"", "generic.auth.user", "colon"),
        ("berer = \"a\"", "generic.auth.berer", "bearer"),
    ] {
        let errors = configured(&format!("[generic.auth]\n{auth}")).map(|_| ()).unwrap_err().0;
        let named = errors.iter().any(|error| error.key == key && error.problem.contains(problem));
        assert!(named, "{auth}: {errors:?}");
    }
}
