//! What any event's text becomes in a subject and in headers.

use super::super::super::template::Template;
use super::*;
use crate::envelope::Attribute;
use proptest::prelude::*;

fn messages(format: Format) -> Messages {
    let template = Template::parse("hooks.{type}.{subject}").unwrap();
    let destination = Destination::new(template, Vec::new(), is_safe);
    Messages { destination, format, sink: SinkName::new("orders").unwrap() }
}

fn event(id: &str, event_type: &str, subject: Option<&str>, extension: &str) -> Envelope {
    Envelope {
        id: id.to_owned(),
        source: "//hookbus/sources/inbox".to_owned(),
        event_type: event_type.to_owned(),
        subject: subject.map(str::to_owned),
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: Extensions::from([("odd".into(), Attribute::Text(extension.to_owned()))]),
        data: Data::None,
    }
}

#[test]
fn attributes_neither_leave_their_tokens_nor_make_empty_ones() {
    for (sentence, event_type, subject, expected) in [
        ("dots begin tokens", "a.b", Some("c"), "hooks.a.b.c"),
        ("an absent attribute", "a", None, "hooks.a._"),
        ("dots at the ends", ".a.", Some("b"), "hooks._.a._.b"),
        ("dots in a row", "a..b", Some("c"), "hooks.a._.b.c"),
        ("wildcards and line breaks", "*.>", Some("\r\nPUB"), "hooks._._.__PUB"),
    ] {
        let message = messages(Format::Binary).encode(&event("1", event_type, subject, "")).unwrap();
        assert_eq!(message.subject, expected, "{sentence}");
    }
    let long = messages(Format::Binary).encode(&event("1", &"t".repeat(1100), None, ""));
    assert_eq!(long.unwrap_err().reason, Reason::NotEncodable);
}

#[test]
fn constant_parts_are_judged_when_the_configuration_is_read() {
    for (text, is_sound) in [
        ("hooks.a", true),
        ("$events.{type}-x", true),
        ("hooks..a", false),
        ("hooks.", false),
        ("hooks.*", false),
        ("hooks.>", false),
        ("hooks a", false),
        ("h\u{f6}ks.{type}", false),
        ("hooks\\a", false),
    ] {
        let destination = Destination::new(Template::parse(text).unwrap(), Vec::new(), is_safe);
        assert_eq!(subject_problem(&destination).is_none(), is_sound, "{text}");
    }
}

/// The client's own conversions panic on each of these.
#[test]
fn what_the_client_would_panic_on_is_refused() {
    for (sentence, name, value) in [
        ("a space in a name", "ce odd", "a"),
        ("a colon in a name", "ce:odd", "a"),
        ("a line break in a name", "ce\r\nodd", "a"),
        ("a name of other letters", "ce-\u{f6}dd", "a"),
        ("a line break in a value", "ce-odd", "a\r\nNats-Msg-Id: b"),
        ("half a line break in a value", "ce-odd", "a\nb"),
    ] {
        let mut message = messages(Format::Binary).encode(&event("1", "a", None, "")).unwrap();
        let before = message.headers.clone();
        let refused = message.add(name, value).map_err(|failure| failure.reason);
        assert_eq!(refused, Err(Reason::NotEncodable), "{sentence}");
        assert_eq!(message.headers, before, "{sentence}");
        if value == "a" {
            let mut odd = event("1", "a", None, "");
            odd.extensions.insert(name.into(), "x".into());
            let refused = messages(Format::Binary).encode(&odd).map_err(|failure| failure.reason);
            assert_eq!(refused.unwrap_err(), Reason::NotEncodable, "{sentence}, of an event");
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics_or_breaks_a_line(
        id in "\\PC*|[\\x00-\\x7f]{0,40}",
        event_type in "\\PC+|[\\x00-\\x7f]{1,40}",
        extension in "\\PC*|[\\x00-\\x7f]{0,40}",
    ) {
        for format in [Format::Structured, Format::Binary] {
            if let Ok(message) = messages(format).encode(&event(&id, &event_type, Some(&id), &extension)) {
                prop_assert!(is_subject(&message.subject), "{}", message.subject);
                for (_, values) in message.headers.iter() {
                    for value in values {
                        prop_assert!(value.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                    }
                }
            }
        }
    }
}
