//! What an instance shows about its webhooks, against what is wanted: pure.
//! Holds: texts are compared exactly; R8 (of a URL that is not ours only scheme and host are shown: its path may hold
//! somebody else's secret).

use super::hooks::Hook;
use super::plan::Wanted;
use serde_json::{Map, Value};

/// What the instance shows of one webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Exactly what is wanted.
    Same,
    /// Something else, described.
    Other(String),
    /// Nothing is said about it.
    Unsaid,
}

/// The fields of which an answer has at least one.
pub(super) fn fields() -> Vec<&'static str> {
    Hook::ALL.iter().map(|hook| hook.field()).collect()
}

/// Compares one field.
pub(super) fn compare(hook: Hook, me: &Map<String, Value>, wanted: &Wanted) -> Found {
    let Some(value) = me.get(hook.field()) else { return Found::Unsaid };
    match (hook, value) {
        (Hook::SentByMe, Value::Bool(flag)) if *flag == wanted.sent_by_me => Found::Same,
        (Hook::SentByMe, Value::Bool(true)) => Found::Other("it is on".to_owned()),
        (Hook::SentByMe, Value::Bool(false) | Value::Null) if !wanted.sent_by_me => Found::Same,
        (Hook::SentByMe, Value::Bool(false) | Value::Null) => Found::Other("it is off".to_owned()),
        (Hook::SentByMe, _) => Found::Other("it is neither on nor off".to_owned()),
        (_, Value::String(url)) if *url == wanted.url => Found::Same,
        // Nobody receives there, which is as good as receiving here.
        (Hook::ReceivedAndSent, value) if is_nothing(value) && !wanted.sent_by_me => Found::Same,
        (_, value) if is_nothing(value) => Found::Other("nothing is set".to_owned()),
        (_, Value::String(url)) => Found::Other(describe(url, &wanted.url)),
        _ => Found::Other("it is no URL".to_owned()),
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// How a URL differs from the wanted one, without what in either may be secret.
fn describe(url: &str, wanted: &str) -> String {
    let (Ok(found), Ok(ours)) = (reqwest::Url::parse(url), reqwest::Url::parse(wanted)) else {
        return "it is no URL".to_owned();
    };
    if found.origin() != ours.origin() {
        return match (found.host_str(), found.port()) {
            (Some(host), Some(port)) => format!("it goes to {}://{host}:{port}/…", found.scheme()),
            (Some(host), None) => format!("it goes to {}://{host}/…", found.scheme()),
            (None, _) => "it is no URL".to_owned(),
        };
    }
    let source_of = |url: &reqwest::Url| {
        let path = url.path().to_owned();
        path.split_once("/hooks/").map(|(before, after)| {
            (before.to_owned(), after.split('/').next().unwrap_or_default().to_owned())
        })
    };
    if source_of(&found).is_some() && source_of(&found) == source_of(&ours) {
        "it goes to the same source with another secret or query".to_owned()
    } else {
        "it goes to another path of the same host".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const URL: &str = "https://hooks.example.com/hooks/whatsapp/s3cret";

    fn found(hook: Hook, value: Value, sent_by_me: bool) -> Found {
        let me = Map::from_iter([(hook.field().to_owned(), value)]);
        compare(hook, &me, &Wanted { url: URL.to_owned(), sent_by_me })
    }

    #[test]
    fn texts_are_compared_exactly_and_what_differs_is_described_without_secrets() {
        let other = |text: &str| Found::Other(text.to_owned());
        for (sentence, value, result) in [
            ("the same", json!(URL), Found::Same),
            (
                "a slash more",
                json!(format!("{URL}/")),
                other("it goes to the same source with another secret or query"),
            ),
            (
                "another secret",
                json!("https://hooks.example.com/hooks/whatsapp/0ther"),
                other("it goes to the same source with another secret or query"),
            ),
            (
                "another source",
                json!("https://hooks.example.com/hooks/other/s3cret"),
                other("it goes to another path of the same host"),
            ),
            (
                "another host",
                json!("https://old.example.com/0ther"),
                other("it goes to https://old.example.com/…"),
            ),
            (
                "another port",
                json!("https://hooks.example.com:8443/x"),
                other("it goes to https://hooks.example.com:8443/…"),
            ),
            ("nothing", json!(""), other("nothing is set")),
            ("null", json!(null), other("nothing is set")),
            ("no URL", json!("hooks"), other("it is no URL")),
            ("no text", json!(7), other("it is no URL")),
        ] {
            assert_eq!(found(Hook::Received, value, false), result, "{sentence}");
        }
        let me = Map::from_iter([("id".to_owned(), json!("A"))]);
        let wanted = Wanted { url: URL.to_owned(), sent_by_me: false };
        assert_eq!(compare(Hook::Received, &me, &wanted), Found::Unsaid);
    }

    #[test]
    fn received_and_sent_may_be_empty_only_where_it_is_not_wanted() {
        for (sentence, value, sent_by_me, is_same) in [
            ("ours", json!(URL), true, true),
            ("ours, the flag deciding", json!(URL), false, true),
            ("empty and not wanted", json!(null), false, true),
            ("empty and wanted", json!(""), true, false),
            ("somebody else's", json!("https://old.example.com"), false, false),
        ] {
            let found = found(Hook::ReceivedAndSent, value, sent_by_me);
            assert_eq!(found == Found::Same, is_same, "{sentence}: {found:?}");
        }
    }

    #[test]
    fn the_flag_is_on_or_off() {
        for (value, sent_by_me, is_same) in [
            (json!(true), true, true),
            (json!(false), false, true),
            (json!(null), false, true),
            (json!(true), false, false),
            (json!(false), true, false),
            (json!("true"), true, false),
        ] {
            let found = found(Hook::SentByMe, value, sent_by_me);
            assert_eq!(found == Found::Same, is_same, "{found:?}");
        }
    }
}
