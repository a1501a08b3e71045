//! An event as a Kafka record, by the CloudEvents Kafka protocol binding 1.0.
//! Holds: R7 (the value is the event or the sender's own bytes); the value is never null; header values are the
//! attributes' own UTF-8, since Kafka's headers take any bytes.
//! Absent on purpose: a timestamp. A sender's clock may be wrong, and topics are retained and rolled by it, so the
//! client's time stands; the event's own time is an attribute.

use super::producer::Record;
use crate::envelope::Envelope;
use crate::sink::cloudevents::{STRUCTURED_MEDIA_TYPE, attributes, structured, trace_context};
use crate::sink::template::{Destination, Template};
use crate::sink::{Failure, Format, Reason};
use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use std::borrow::Cow;

/// The longest name of a topic that brokers take.
const TOPIC_CHARS_MAX: usize = 249;

/// Characters of which brokers take the name of a topic.
pub(super) fn is_safe_in_a_topic(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

/// Is it a name that a topic can have?
pub(super) fn is_topic(name: &str) -> bool {
    (1..=TOPIC_CHARS_MAX).contains(&name.len())
        && name.chars().all(is_safe_in_a_topic)
        && !matches!(name, "." | "..")
}

/// Writes events as records.
pub(super) struct Encoder {
    pub(super) topic: Destination,
    pub(super) key: Template,
    pub(super) format: Format,
}

impl Encoder {
    /// Where an event goes.
    ///
    /// # Errors
    /// [`Reason::NotEncodable`] where no topic can have the name, or where it is not allowed.
    pub(super) fn topic<'a>(&'a self, event: &Envelope) -> Result<Cow<'a, str>, Failure> {
        let topic = self.topic.name(event)?;
        if is_topic(&topic) {
            return Ok(topic);
        }
        let detail = format!("{topic:.100} is not a name that a topic can have");
        Err(Failure::new(Reason::NotEncodable, detail))
    }

    /// The record of an event.
    pub(super) fn record<'a>(&self, topic: &'a str, event: &Envelope) -> Record<'a> {
        let (headers, value) = match self.format {
            Format::Structured => {
                let headers = OwnedHeaders::new_with_capacity(4);
                let headers = with(headers, "content-type", STRUCTURED_MEDIA_TYPE);
                // Allowed beside a structured event, and enough to recognise a repetition without reading it.
                (with(headers, "ce_id", &event.id), Bytes::from(structured(event)))
            }
            Format::Binary => (binary_headers(event), event.data.bytes().clone()),
        };
        let key = self.key.value(event).filter(|key| !key.is_empty());
        Record { topic, key, headers: with_trace(headers, event), value }
    }
}

fn with(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

fn binary_headers(event: &Envelope) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(12);
    for (name, value) in attributes(event) {
        headers = with(headers, &format!("ce_{name}"), &value);
    }
    match &event.datacontenttype {
        Some(media_type) => with(headers, "content-type", media_type),
        None => headers,
    }
}

fn with_trace(headers: OwnedHeaders, event: &Envelope) -> OwnedHeaders {
    trace_context(event).fold(headers, |headers, (name, value)| with(headers, name, &value))
}
