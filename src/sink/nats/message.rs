//! An event as a NATS message: its subject, headers and payload, in both forms.
//! Holds: R7 (the payload is the event or the sender's own bytes); nothing that a sender writes can panic the client
//! (only constructors that can fail are used), break the protocol's lines, or leave the configured subjects.

use super::super::cloudevents::{attributes, percent_encoded, structured, trace_context};
use super::super::template::Destination;
use super::super::{Failure, Format, Reason};
use crate::envelope::{Data, Envelope, Extensions, SinkName};
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use std::borrow::Cow;
use std::str::FromStr;

/// The most bytes of a subject: a quarter of what the server takes as one line of the protocol (`max_control_line`,
/// 4 KiB), which holds the answer's subject as well.
const SUBJECT_BYTES_MAX: usize = 1024;
/// What the headers of an event usually take at the most; for the limit that `connect` tells.
pub(super) const HEADERS_BYTES_USUAL: u64 = 4 * 1024;
/// The binding's marker of structured mode (NATS binding, section 3.2).
const STRUCTURED_MEDIA_TYPE: &str = "application/cloudevents+json";
/// Stands for an empty token, which a subject may not have.
const EMPTY_TOKEN: &str = "_";

/// A message ready to be sent.
#[derive(Debug)]
pub(in super::super) struct Message {
    pub(in super::super) subject: String,
    /// Do an event's attributes decide over the subject?
    pub(in super::super) is_led_by_event: bool,
    pub(in super::super) headers: HeaderMap,
    pub(in super::super) payload: Bytes,
}

impl Message {
    /// Adds a header.
    ///
    /// # Errors
    /// [`Reason::NotEncodable`] where it cannot be one.
    pub(in super::super) fn add(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let not_encodable = || {
            let problem = format!("attribute {} cannot be a header", name.escape_default());
            Failure::new(Reason::NotEncodable, problem)
        };
        let header = HeaderName::from_str(name).map_err(|_| not_encodable())?;
        let value = HeaderValue::from_str(value).map_err(|_| not_encodable())?;
        self.headers.insert(header, value);
        Ok(())
    }

    /// The bytes of the headers as they are sent: the version's line, a line for each, an empty one.
    pub(in super::super) fn headers_bytes(&self) -> usize {
        const FRAME: usize = "NATS/1.0\r\n\r\n".len();
        let lines = self.headers.iter().flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| AsRef::<str>::as_ref(name).len() + value.as_str().len() + ": \r\n".len())
        });
        FRAME + lines.sum::<usize>()
    }

    /// The bytes that the limits of servers and streams count.
    pub(in super::super) fn bytes(&self) -> usize {
        self.headers_bytes() + self.payload.len()
    }
}

/// How a sink makes messages of events.
#[derive(Clone, Debug)]
pub(in super::super) struct Messages {
    pub(in super::super) destination: Destination,
    pub(super) format: Format,
    pub(in super::super) sink: SinkName,
}

impl Messages {
    /// # Errors
    /// [`Reason::NotEncodable`] where the event's subject or attributes cannot be expressed.
    pub(in super::super) fn encode(&self, event: &Envelope) -> Result<Message, Failure> {
        let subject = subject(&self.destination, event)?;
        let is_led_by_event = self.destination.constant().is_none();
        let mut message =
            Message { subject, is_led_by_event, headers: HeaderMap::new(), payload: Bytes::new() };
        match self.format {
            Format::Structured => {
                message.add("Content-Type", STRUCTURED_MEDIA_TYPE)?;
                message.payload = Bytes::from(structured(event));
            }
            Format::Binary => {
                let media_type =
                    event.datacontenttype.as_deref().map(|value| ("datacontenttype", Cow::Borrowed(value)));
                for (name, value) in attributes(event).chain(media_type) {
                    message.add(&format!("ce-{name}"), &percent_encoded(&value))?;
                }
                message.payload = event.data.bytes().clone();
            }
        }
        for (name, value) in trace_context(event) {
            // A value that is no header's is no trace context either.
            if value.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
                message.add(name, &value)?;
            }
        }
        Ok(message)
    }
}

fn subject(destination: &Destination, event: &Envelope) -> Result<String, Failure> {
    let name = destination.name(event)?;
    let subject = if has_empty_token(&name) { without_empty_tokens(&name) } else { name.into_owned() };
    if subject.len() > SUBJECT_BYTES_MAX {
        let problem = format!("its subject would have {} bytes, at most {SUBJECT_BYTES_MAX}", subject.len());
        return Err(Failure::new(Reason::NotEncodable, problem));
    }
    Ok(subject)
}

fn has_empty_token(subject: &str) -> bool {
    subject.split('.').any(str::is_empty)
}

fn without_empty_tokens(subject: &str) -> String {
    let tokens = subject.split('.').map(|token| if token.is_empty() { EMPTY_TOKEN } else { token });
    tokens.collect::<Vec<_>>().join(".")
}

/// What an attribute may add to a subject; a dot begins a token.
pub(super) fn is_safe(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

/// Can this stand in a subject to publish to? Quotes and backslashes are left out, since the server quotes subjects.
pub(super) fn is_subject(text: &str) -> bool {
    let is_sound = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>' | '"' | '\\');
    text.len() <= SUBJECT_BYTES_MAX && text.chars().all(is_sound) && !has_empty_token(text)
}

/// What is wrong with the constant parts of the subjects.
pub(super) fn subject_problem(destination: &Destination) -> Option<&'static str> {
    let bare = Envelope {
        id: String::new(),
        source: String::new(),
        event_type: String::new(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Extensions::default(),
        data: Data::None,
    };
    // Where the bare event is not allowed by the globs, another may be; only the form is judged here.
    let name = destination.name(&bare).ok()?;
    (!is_subject(&name)).then_some(
        "expected a subject: tokens of visible ASCII characters without * > \" and \\, joined by single dots",
    )
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
