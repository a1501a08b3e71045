//! Structured and batched content mode (JSON event format 1.0.2): one JSON object an event, an array of them a batch.
//! Holds: R7 (JSON data is the very bytes between the commas); nothing is parsed that is nested too deeply.

use super::super::{Unreadable, json};
use super::draft::{Content, Draft};
use crate::envelope::{Attribute, Data, Envelope};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The most events of a batch.
pub(super) const BATCH_EVENTS_MAX: usize = 10_000;
/// Padding may be missing: some senders leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One event.
pub(super) fn read(body: &Bytes) -> Result<Envelope, Unreadable> {
    event(json::bounded_text(body)?, body)
}

/// All events of a batch, or none.
pub(super) fn read_batch(body: &Bytes) -> Result<Vec<Envelope>, Unreadable> {
    let text = json::bounded_text(body)?;
    let events: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Unreadable::NotJson)?;
    if events.len() > BATCH_EVENTS_MAX {
        return Err(Unreadable::BatchTooLarge);
    }
    events.into_iter().map(|raw| event(raw.get(), body)).collect()
}

/// Is it a batch without events? The format allows it (section 4.3).
pub(super) fn is_empty_batch(body: &[u8]) -> bool {
    let inside = body.trim_ascii().strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    inside.is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// `text` is a part of `body`.
fn event(text: &str, body: &Bytes) -> Result<Envelope, Unreadable> {
    let Members(members) = serde_json::from_str(text)
        .map_err(|error| if error.is_data() { Unreadable::NotAnObject } else { Unreadable::NotJson })?;
    let mut draft = Draft::default();
    let (mut plain, mut encoded) = (None, None);
    for (name, raw) in members {
        let twice = match name.as_ref() {
            "data" => plain.replace(raw).is_some(),
            "data_base64" => encoded.replace(raw).is_some(),
            _ => {
                if let Some(value) = attribute(raw)? {
                    draft.set(&name, value)?;
                }
                false
            }
        };
        if twice {
            return Err(Unreadable::EventData);
        }
    }
    let encoded = encoded.filter(|raw| raw.get() != "null");
    // Beside the other form, null can only mean "not this one".
    let plain = plain.filter(|raw| encoded.is_none() || raw.get() != "null");
    let data = match (plain, encoded) {
        (None, None) => Data::None,
        (None, Some(raw)) => Data::Binary(decoded(raw)?),
        (Some(raw), None) => data(raw, &mut draft, body)?,
        (Some(_), Some(_)) => return Err(Unreadable::EventData),
    };
    draft.finish(data)
}

/// By the mapping of types (section 2.2); null is no attribute.
fn attribute(raw: &RawValue) -> Result<Option<Attribute>, Unreadable> {
    let text = raw.get();
    let value = match text.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b't') => Attribute::Bool(true),
        Some(b'f') => Attribute::Bool(false),
        Some(b'"') => Attribute::Text(string(raw).ok_or(Unreadable::Attribute)?),
        _ => Attribute::Integer(text.parse().map_err(|_| Unreadable::Attribute)?),
    };
    Ok(Some(value))
}

/// None where it is no string, or has half a surrogate pair, which no text can hold.
fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn decoded(raw: &RawValue) -> Result<Bytes, Unreadable> {
    let text = string(raw).ok_or(Unreadable::EventData)?;
    BASE64.decode(text).map(Bytes::from).map_err(|_| Unreadable::EventData)
}

fn data(raw: &RawValue, draft: &mut Draft, body: &Bytes) -> Result<Data, Unreadable> {
    let verbatim = || Data::Json(body.slice_ref(raw.get().as_bytes()));
    let content = Content::of(draft.datacontenttype());
    if content == Content::Json {
        // Section 3.1.2: what this format implies must be said where the event goes on in another form.
        draft.imply_datacontenttype("application/json");
        return Ok(verbatim());
    }
    if !raw.get().starts_with('"') {
        return Ok(verbatim());
    }
    let text = string(raw).ok_or(Unreadable::EventData)?;
    // The string stands for the text in the encoding that the media type names. Ours is UTF-8.
    let is_ours = match content {
        Content::Json | Content::Text | Content::Other => true,
        Content::LikeAscii => text.is_ascii(),
        Content::Wide => false,
    };
    if is_ours { Ok(Data::Text(Bytes::from(text))) } else { Err(Unreadable::EventData) }
}

/// The members of an object in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), raw)) = map.next_entry()? {
            members.push((name, raw));
        }
        Ok(Members(members))
    }
}
