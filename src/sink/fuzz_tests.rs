//! Fuzzing of the sinks' pure half: names made of attributes, and events in the forms of the wire.
//! Holds: no attribute leaves its name; what binary mode says in headers reads back as the same attributes, and a line
//! of NDJSON is one line.

use super::cloudevents::{attributes, percent_encoded, write_line};
use super::outcome::Outcome;
use super::template::{Destination, Template};
use crate::config::Layers;
use crate::envelope::{Data, Envelope, Extensions, SourceName};
use crate::fuzz_tests::{RawRequest, Target, Verdict, run, texts};
use crate::percent;
use crate::source::{Arrival, ConfiguredSource, Head, Peer, Request};
use crate::time::UnixMs;
use http::{HeaderName, HeaderValue, Method};
use std::collections::HashSet;

static TARGETS: &[Target] = &[
    Target {
        name: "template",
        seeds: || texts(&["hooks.{type}.{hookbussource}\nio.z-api.x", "a{{b}}{id}\na/b>*", "plain\n"]),
        check: template,
    },
    Target { name: "events on the wire", seeds: wire_seeds, check: wire },
    #[cfg(feature = "nats")]
    Target {
        name: "words of a NATS server",
        seeds: || texts(&["'Authorization Violation'", "é"]),
        check: nats_words,
    },
];

fn template(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let (pattern, attribute) = text.split_once('\n').unwrap_or((&text, ""));
    let template = Template::parse(pattern).map_err(|error| error.to_string())?;
    let written = serde_json::to_string(&template).unwrap();
    assert_eq!(
        serde_json::from_str::<Template>(&written).unwrap(),
        template,
        "it reads back as it was written"
    );
    let event = Envelope {
        id: attribute.to_owned(),
        source: "//s".to_owned(),
        event_type: attribute.to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Extensions::new(),
        data: Data::None,
    };
    let safe = |c: char| c.is_ascii_alphanumeric();
    let name = template.name(&event, safe).into_owned();
    let literals: HashSet<char> = pattern.chars().collect();
    let is_expected = |c: char| safe(c) || matches!(c, '_' | '{' | '}') || literals.contains(&c);
    assert!(name.chars().all(is_expected), "{name:?} has what only the sender wrote");
    let guarded = Destination::new(template, vec!["hooks.*".to_owned()], safe);
    if guarded.constant().is_none() {
        assert!(
            guarded.name(&event).is_ok_and(|name| name.starts_with("hooks.")) || !name.starts_with("hooks.")
        );
    }
    Ok(())
}

fn wire_seeds() -> Vec<Vec<u8>> {
    let event = r#"{"specversion":"1.0","id":"1 \"%41","source":"/s","type":"t","subject":"é🚀","time":"2026-01-31T12:00:00.1Z","dataschema":"https://s/%20","flag":true,"n":-5,"datacontenttype":"application/json","data":{"a": 1.10,
        "b":[{}]}}"#;
    let text = r#"{"specversion":"1.0","id":"2","source":"/s","type":"t","datacontenttype":"text/plain","ext":"\"a\\\"","data":"a\né"}"#;
    let binary = r#"{"specversion":"1.0","id":"3","source":"/s","type":"t","data_base64":"AAH/"}"#;
    [event, text, binary].map(|event| event.as_bytes().to_vec()).to_vec()
}

/// The input is an event in structured mode.
fn wire(input: &[u8]) -> Verdict {
    let structured = RawRequest::write("", &[("content-type", "application/cloudevents+json")], input);
    let event = read(&RawRequest::read(&structured))?;
    let mut line = Vec::new();
    write_line(&event, &mut line);
    assert_eq!(line.iter().position(|byte| matches!(byte, b'\n' | b'\r')), Some(line.len() - 1), "one line");
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok());
    let mut binary = RawRequest::read(b"\n\n");
    for (name, value) in attributes(&event) {
        let encoded = percent_encoded(&value);
        assert_eq!(percent::decoded(encoded.as_bytes()), value.as_bytes());
        let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes()).unwrap();
        binary.headers.append(name, HeaderValue::from_str(&encoded).unwrap());
    }
    if let Some(media_type) = &event.datacontenttype {
        let Ok(value) = HeaderValue::from_str(media_type) else { return Err("media type".to_owned()) };
        binary.headers.insert(http::header::CONTENT_TYPE, value);
    }
    binary.body = event.data.bytes().clone();
    // A media type of CloudEvents itself would say that the data is an event.
    let is_event = event.datacontenttype.as_deref().unwrap_or_default().trim().to_ascii_lowercase();
    if is_event.starts_with("application/cloudevents") {
        return Ok(());
    }
    let carried = read(&binary).expect("what a sink writes in binary mode can be read");
    assert_eq!(carried.data.bytes(), event.data.bytes());
    let texts = |event: &Envelope| -> Vec<(String, String)> {
        attributes(event).map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    };
    assert_eq!(texts(&carried), texts(&event));
    Ok(())
}

fn read(raw: &RawRequest) -> Result<Envelope, String> {
    thread_local!(static SOURCE: ConfiguredSource = {
        let layers = Layers::load(Some("[cloudevents]"), None, &[]).unwrap();
        ConfiguredSource::parse(SourceName::new("inbox").unwrap(), &layers.root()).unwrap()
    });
    SOURCE.with(|source| {
        let head = Head {
            source: &source.name,
            peer: Peer::NONE,
            path: "/hooks/inbox",
            method: &Method::POST,
            path_secret_matched: false,
            query: None,
            headers: &raw.headers,
            rate: None,
        };
        let arrival = Arrival { at: UnixMs(0), unique: uuid::Uuid::nil() };
        let events = source.dialect.read(&Request { head, body: &raw.body, arrival });
        events.map(|mut events| events.remove(0)).map_err(|why| why.label().to_owned())
    })
}

#[cfg(feature = "nats")]
fn nats_words(input: &[u8]) -> Verdict {
    let said = super::nats::server::quoted(&String::from_utf8_lossy(input));
    assert!(said.chars().count() <= 1000 && !said.contains(char::is_control), "{said:?}");
    Ok(())
}

/// What an answer came to, as a word: for the targets beside the sinks.
pub(super) fn label(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::Retry(failure) => format!("retry {}", failure.reason.label()),
        Outcome::Busy { failure, .. } => format!("busy {}", failure.reason.label()),
        Outcome::Away(failure) => format!("away {}", failure.reason.label()),
        Outcome::Reject(failure) => format!("reject {}", failure.reason.label()),
    }
}

#[test]
fn names_and_events_on_the_wire_hold_for_every_input() {
    run(TARGETS);
}
