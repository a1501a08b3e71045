//! The one form every event takes inside Hookbus: CloudEvents 1.0 attributes and the sender's own bytes.
//! Holds: R7 (`Data` keeps the body exactly as it was received; nothing here re-serialises it).
//! Control characters leave a text where it becomes an attribute ([`clean`], [`Attribute::from`]), so that every sink
//! may put attributes into headers and lines without a check of its own.
//! Absent on purpose: clocks, randomness and IO; whoever builds an envelope brings them.

mod attributes;
mod extensions;
#[cfg(test)]
mod fuzz_tests;
mod names;
mod stored;

pub use attributes::{
    ATTRIBUTE_BYTES_MAX, Attribute, clean, has_forbidden_character, is_attribute_name, is_context_attribute,
    known_extension,
};
pub use extensions::Extensions;
pub use names::{InvalidName, SinkName, SourceName};
pub use stored::{DecodeError, STORED_VERSION};

use bytes::Bytes;
use std::borrow::Cow;

/// Name of the extension that holds the source's name in the configuration; always present.
pub const HOOKBUS_SOURCE: &str = "hookbussource";
/// Name of the extension that holds the time of arrival (RFC 3339, UTC, milliseconds); always present.
pub const RECEIVED_TIME: &str = "receivedtime";
/// Name of the extension by which events are kept in order (CloudEvents partitioning extension).
pub const PARTITION_KEY: &str = "partitionkey";
/// Name of the extension that says whether `id` recognises the event when it comes again: [`DEDUPE_STRONG`] or
/// [`DEDUPE_NONE`].
pub const DEDUPE: &str = "dedupe";
/// `id` follows from the event: the same event always has the same one.
pub const DEDUPE_STRONG: &str = "strong";
/// The event carries no identity; `id` was made on arrival and says nothing about repetition.
pub const DEDUPE_NONE: &str = "none";

/// One event: the CloudEvents 1.0 context attributes and its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Unique together with `source`; not empty.
    pub id: String,
    /// URI-reference of the context in which the event happened; not empty.
    pub source: String,
    /// The kind of event, what subscribers filter by; not empty.
    pub event_type: String,
    /// What the event is about, in the context of its source.
    pub subject: Option<String>,
    /// When the event happened, RFC 3339.
    pub time: Option<String>,
    /// Media type of `data`.
    pub datacontenttype: Option<String>,
    /// URI of the schema that `data` follows.
    pub dataschema: Option<String>,
    /// Extension attributes: lower-case letters and digits, in alphabetical order.
    pub extensions: Extensions,
    /// What the sender wrote.
    pub data: Data,
}

/// The sender's bytes and how they travel in structured mode.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// There was no body.
    None,
    /// Valid UTF-8 JSON: `data` verbatim.
    Json(Bytes),
    /// Valid UTF-8: `data` as a JSON string.
    Text(Bytes),
    /// Anything else: `data_base64`.
    Binary(Bytes),
}

impl Data {
    /// The bytes as they were received.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        match self {
            Data::None => &NOTHING,
            Data::Json(bytes) | Data::Text(bytes) | Data::Binary(bytes) => bytes,
        }
    }
}

impl Envelope {
    /// The text of a context attribute or extension by its CloudEvents name; `None` where it is absent.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        fn optional(text: &Option<String>) -> Option<Cow<'_, str>> {
            text.as_deref().map(Cow::Borrowed)
        }
        match name {
            "specversion" => Some(Cow::Borrowed("1.0")),
            "id" => Some(Cow::Borrowed(&self.id)),
            "source" => Some(Cow::Borrowed(&self.source)),
            "type" => Some(Cow::Borrowed(&self.event_type)),
            "subject" => optional(&self.subject),
            "time" => optional(&self.time),
            "datacontenttype" => optional(&self.datacontenttype),
            "dataschema" => optional(&self.dataschema),
            extension => self.extensions.get(extension).map(Attribute::as_text),
        }
    }

    /// The name of the source that took the event in; empty only for envelopes built by hand.
    #[must_use]
    pub fn hookbus_source(&self) -> &str {
        match self.extensions.get(HOOKBUS_SOURCE) {
            Some(Attribute::Text(name)) => name,
            _ => "",
        }
    }

    /// False where the event carries no identity of its own: it must never be taken for a repetition of another.
    #[must_use]
    pub fn can_repeat(&self) -> bool {
        !matches!(self.extensions.get(DEDUPE), Some(Attribute::Text(strength)) if strength == DEDUPE_NONE)
    }

    /// The key whose events stay in order, where the dialect knows one.
    #[must_use]
    pub fn partition_key(&self) -> Option<&str> {
        match self.extensions.get(PARTITION_KEY) {
            Some(Attribute::Text(key)) if !key.is_empty() => Some(key),
            _ => None,
        }
    }
}
