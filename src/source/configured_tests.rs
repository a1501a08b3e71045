//! The section of a source, and what every event of it carries.

use crate::config::ConfigError;
use crate::source::testing::{ARRIVAL, Post, configured, extension};
use crate::source::{Config, SOURCE_TYPES};

#[test]
fn a_section_has_the_common_keys_and_one_dialect() {
    let source = configured(
        "path_secret = [\"one\", \"two\"]\nkeep_headers = [\"X-Shop-Domain\"]\ndedupe = \"0s\"\n[zapi]\ninstance = \"I\"",
    )
    .unwrap();
    assert_eq!((source.name.as_str(), source.type_name), ("inbox", "zapi"));
    assert!(source.path_secret_matches("two") && !source.path_secret_matches("three"));
    assert!(!source.is_unauthenticated());
    let open = configured("[generic]").unwrap();
    assert_eq!(open.config, Config::default());
    assert!(open.is_unauthenticated() && !open.path_secret_matches(""));
}

#[test]
fn every_mistake_is_named_with_its_key() {
    for (sentence, section, key, problem) in [
        ("no dialect", "dedupe = \"1m\"", "", "needs the section of a dialect: "),
        ("a misspelt dialect", "[zap]", "zap", "is no dialect; did you mean zapi? (known: "),
        ("an unknown dialect", "[wordpress]", "wordpress", "is no dialect (known: "),
        ("two dialects", "[generic]\n[zapi]", "zapi", "a source has one dialect; this is the second"),
        ("an empty path secret", "path_secret = \"\"\n[generic]", "path_secret", "empty"),
        ("an empty token in a list", "[zapi]\ntoken = [\"a\", \"\"]", "zapi.token.1", "empty"),
        ("an empty instance", "[zapi]\ninstance = \" \"", "zapi.instance", "must not be empty"),
        ("a header that is none", "[zapi]\ntoken_header = \"a b\"", "zapi.token_header", "expected the name"),
        (
            "a prefix that names no subject",
            "[zapi]\ntype_prefix = \"a..b\"",
            "zapi.type_prefix",
            "expected words",
        ),
        (
            "an unknown way to recognise",
            "[zapi]\nstatus_dedupe = \"never\"",
            "zapi.status_dedupe",
            "expected",
        ),
        ("an unknown key of a dialect", "[zapi]\ntokn = \"t\"", "zapi.tokn", "token"),
        ("a constant id", "[generic]\nid = \"a\"", "generic.id", "expected a JSON pointer"),
        ("a constant time", "[generic]\ntime = \"now\"", "generic.time", "expected a JSON pointer"),
        ("an empty type", "[generic]\ntype = \"\"", "generic.type", "must not be empty"),
        ("a kept credential", "keep_headers = [\"Authorization\"]\n[generic]", "keep_headers", "never kept"),
        ("a kept token", "keep_headers = [\"z-api-token\"]\n[generic]", "keep_headers", "never kept"),
        (
            "a kept signature",
            "keep_headers = [\"X-Hub-Signature-256\"]\n[generic]",
            "keep_headers",
            "never kept",
        ),
        (
            "the header of the token",
            "keep_headers = [\"x-gate\"]\n[zapi]\ntoken_header = \"X-Gate\"",
            "keep_headers",
            "never kept",
        ),
        (
            "a kept header that is none",
            "keep_headers = [\"a b\"]\n[generic]",
            "keep_headers",
            "expected names",
        ),
        (
            "a kept header over an attribute",
            "keep_headers = [\"Subject\"]\n[generic]",
            "keep_headers",
            "another attribute",
        ),
        (
            "a kept header over an extension",
            "keep_headers = [\"partition-key\"]\n[generic]",
            "keep_headers",
            "another attribute",
        ),
        (
            "two that become one",
            "keep_headers = [\"a-b\", \"ab\"]\n[generic]",
            "keep_headers",
            "same attribute",
        ),
        ("a common key that is wrong", "dedup = \"1m\"\n[generic]", "dedup", "dedupe"),
    ] {
        let errors = configured(section).map(|_| ()).unwrap_err().0;
        let named = errors.iter().any(|error| error.key == key && error.problem.contains(problem));
        assert!(named, "{sentence}: {errors:?}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let errors = configured("path_secret = \"\"\ndedup = \"1m\"\n[zapi]\ninstance = \"\"");
    let mut keys: Vec<_> = errors.map(|_| ()).unwrap_err().0.into_iter().map(|error| error.key).collect();
    keys.sort();
    assert!(
        ["dedup", "path_secret", "zapi.instance"].iter().all(|key| keys.iter().any(|k| k == key)),
        "{keys:?}"
    );
}

#[test]
fn every_dialect_shows_its_keys_and_takes_its_own_defaults() {
    for row in SOURCE_TYPES {
        let defaults = (row.defaults)();
        let keys = defaults.as_object().expect(row.name);
        assert!(!keys.is_empty(), "{}", row.name);
        // What has no default is asked for, and nothing else is wrong.
        let errors = configured(&format!("[{}]", row.name)).err().map(|errors| errors.0).unwrap_or_default();
        let is_asked_for = |error: &ConfigError| error.problem.starts_with("is required");
        assert!(errors.iter().all(is_asked_for), "{}: {errors:?}", row.name);
    }
    assert!(SOURCE_TYPES.is_sorted_by_key(|row| row.name), "alphabetical");
}

#[test]
fn every_event_says_where_and_when_it_came_in() {
    let envelope = Post::of("{}").read(&configured("[generic]").unwrap()).unwrap();
    assert_eq!(envelope.hookbus_source(), "inbox");
    assert_eq!(extension(&envelope, "receivedtime"), ARRIVAL.to_rfc3339());
}

#[test]
fn only_the_headers_asked_for_are_kept_and_never_as_they_could_do_harm() {
    let source = configured("keep_headers = [\"X-Shop-Domain\", \"X-Absent\"]\n[generic]").unwrap();
    let post = Post::of("{}")
        .with("x-shop-domain", b"caf\xe9\tshop")
        .with("x-other", "1")
        .with("authorization", "b");
    let envelope = post.read(&source).unwrap();
    assert_eq!(extension(&envelope, "xshopdomain"), "caf\u{fffd}\u{fffd}shop");
    let names: Vec<_> = envelope.extensions.keys().map(AsRef::as_ref).collect();
    assert_eq!(names, ["dedupe", "hookbussource", "receivedtime", "timesource", "xshopdomain"]);
}

#[test]
fn a_trace_passes_on_only_where_it_is_well_formed() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let source = configured("[generic]").unwrap();
    for (sentence, traceparent, passes) in [
        ("well formed", parent.to_owned(), true),
        ("a later version with more in it", format!("01{}-extra", &parent[2..]), true),
        ("this version with more in it", format!("{parent}-extra"), false),
        ("the version that is none", format!("ff{}", &parent[2..]), false),
        ("upper case", parent.to_uppercase(), false),
        ("no trace", format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
        ("no parent", format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16)), false),
        ("cut off", parent[..50].to_owned(), false),
        ("nothing", String::new(), false),
    ] {
        let post = Post::of("{}")
            .with("traceparent", &traceparent)
            .with("tracestate", "a=1")
            .with("tracestate", "b=2");
        let envelope = post.read(&source).unwrap();
        let expected = if passes { (traceparent, "a=1,b=2".to_owned()) } else { Default::default() };
        assert_eq!(
            (extension(&envelope, "traceparent"), extension(&envelope, "tracestate")),
            expected,
            "{sentence}"
        );
    }
    let twice = Post::of("{}").with("traceparent", parent).with("traceparent", parent).read(&source).unwrap();
    assert_eq!(extension(&twice, "traceparent"), "", "two parents are none");
}

#[test]
fn every_dialect_knows_the_secrets_that_senders_present_as_they_are() {
    for (sentence, section, secrets) in [
        (
            "GitLab's token",
            "[gitlab]\nsecret = [\"old-token\", \"new-token\"]",
            &["old-token", "new-token"][..],
        ),
        ("a token of CloudEvents", "[cloudevents]\ntoken = \"s3cret\"", &["s3cret"]),
        ("the gateway's token", "[zapi]\ntoken = \"s3cret\"", &["s3cret"]),
    ] {
        let source = configured(section).unwrap_or_else(|errors| panic!("{sentence}: {errors}"));
        for secret in secrets {
            assert!(source.dialect.knows_secret(secret.as_bytes()), "{sentence}");
        }
        assert!(!source.dialect.knows_secret(b"another"), "{sentence}");
    }
}

#[test]
fn a_header_whose_name_is_that_of_a_secret_is_never_kept() {
    for (header, is_kept) in [
        ("x-auth", false),
        ("x-authtoken", false),
        ("X-HubSignature", false),
        ("x-session-id", false),
        ("x-basic-credentials", false),
        ("x-functions-key", false),
        ("x-jwt", false),
        ("x-author", true),
        ("x-event-key", true),
        ("idempotency-key", true),
        ("x-pinned", true),
    ] {
        let taken = configured(&format!("keep_headers = [\"{header}\"]\n[generic]"));
        assert_eq!(taken.is_ok(), is_kept, "{header}");
    }
}

#[test]
fn a_path_secret_that_no_path_can_have_is_refused() {
    let errors = configured("path_secret = [\"good\", \"s3cret\\n\"]\n[generic]").map(|_| ()).unwrap_err();
    let error = errors.0.iter().find(|error| error.key == "path_secret").map(|error| error.problem.clone());
    assert!(error.is_some_and(|problem| problem.contains("white space")), "{errors}");
}
