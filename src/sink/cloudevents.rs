//! The CloudEvents 1.0 bindings that all sinks share: the JSON format, NDJSON, the attributes of binary mode, and the
//! trace context.
//! Holds: R7 (JSON data is copied as the sender wrote it: no number, key, order or repetition changes).
//! Absent on purpose: where binary attributes go. Every protocol has its own prefix and place (`ce-` headers in HTTP
//! and NATS, `ce_` in Kafka, `cloudEvents_` in AMQP); its sink takes [`attributes`] and writes them there.

use crate::envelope::{Attribute, Data, Envelope};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// The media type of one event in structured mode over HTTP.
pub(super) const STRUCTURED_MEDIA_TYPE: &str = "application/cloudevents+json; charset=UTF-8";
/// What the attribute names and punctuation of a structured event take at the most, as a first guess of its size.
const ATTRIBUTES_BYTES_GUESS: usize = 768;
/// Names an extension may not have, since the event's own members have them (JSON event format, section 3.1).
const TAKEN_NAMES: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
];

/// The event as one JSON document, attributes first, `data` verbatim.
pub fn structured(event: &Envelope) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.data.bytes().len() + ATTRIBUTES_BYTES_GUESS);
    write_structured(event, &mut out);
    out
}

/// Appends the event as one line of NDJSON, with its line feed.
///
/// `data` stays as the sender wrote it, except that line feeds and carriage returns become spaces: inside a JSON
/// string they cannot stand raw, so each of them is white space between two tokens and the value stays the same.
pub(super) fn write_line(event: &Envelope, out: &mut Vec<u8>) {
    let begin = out.len();
    write_structured(event, out);
    for byte in &mut out[begin..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.push(b'\n');
}

/// Every attribute for binary mode with its canonical text, by its CloudEvents name; without `datacontenttype`, which
/// most protocols carry in a place of its own.
pub(super) fn attributes(event: &Envelope) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let required = [
        ("specversion", Some("1.0")),
        ("id", Some(event.id.as_str())),
        ("source", Some(event.source.as_str())),
        ("type", Some(event.event_type.as_str())),
        ("subject", event.subject.as_deref()),
        ("time", event.time.as_deref()),
        ("dataschema", event.dataschema.as_deref()),
    ];
    let present = required.into_iter().filter_map(|(name, value)| Some((name, Cow::Borrowed(value?))));
    present.chain(extensions(event).map(|(name, value)| (name, value.as_text())))
}

/// The trace context, which goes into the protocol's own headers as well (CloudEvents, distributed tracing extension).
pub(super) fn trace_context(event: &Envelope) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
    ["traceparent", "tracestate"].into_iter().filter_map(|name| Some((name, event.attribute(name)?)))
}

/// A header's value for HTTP and NATS (HTTP binding, section 3.1.3.2): space, `"`, `%` and everything outside
/// U+0021 to U+007E as the `%XX` of its UTF-8 bytes.
pub(super) fn percent_encoded(value: &str) -> Cow<'_, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: u8| matches!(byte, 0x21..=0x7E) && !matches!(byte, b'"' | b'%');
    if value.bytes().all(is_plain) {
        return Cow::Borrowed(value);
    }
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 0x0F)]));
        }
    }
    Cow::Owned(encoded)
}

fn extensions(event: &Envelope) -> impl Iterator<Item = (&str, &Attribute)> {
    let named = event.extensions.iter().map(|(name, value)| (name.as_ref(), value));
    named.filter(|(name, _)| !TAKEN_NAMES.contains(name))
}

fn write_structured(event: &Envelope, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"specversion":"1.0""#);
    let context = [
        (r#","id":"#, Some(&event.id)),
        (r#","source":"#, Some(&event.source)),
        (r#","type":"#, Some(&event.event_type)),
        (r#","subject":"#, event.subject.as_ref()),
        (r#","time":"#, event.time.as_ref()),
        (r#","datacontenttype":"#, event.datacontenttype.as_ref()),
        (r#","dataschema":"#, event.dataschema.as_ref()),
    ];
    for (name, value) in context {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            write_string(value, out);
        }
    }
    for (name, value) in extensions(event) {
        out.push(b',');
        write_string(name, out);
        out.push(b':');
        match value {
            Attribute::Text(text) => write_string(text, out),
            Attribute::Bool(_) | Attribute::Integer(_) => out.extend_from_slice(value.as_text().as_bytes()),
        }
    }
    write_data(&event.data, out);
    out.push(b'}');
}

fn write_data(data: &Data, out: &mut Vec<u8>) {
    match data {
        Data::None => {}
        Data::Json(bytes) if bytes.is_empty() => {}
        Data::Json(bytes) => {
            out.extend_from_slice(br#","data":"#);
            out.extend_from_slice(bytes);
        }
        Data::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.extend_from_slice(br#","data":"#);
                write_string(text, out);
            }
            Err(_) => write_base64(bytes, out),
        },
        Data::Binary(bytes) => write_base64(bytes, out),
    }
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#","data_base64":""#);
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing text to memory cannot fail");
}

#[cfg(test)]
#[path = "cloudevents_tests.rs"]
mod tests;
