//! One event while its attributes are gathered, whatever the mode they came in: what CloudEvents 1.0 demands of them.
//! Holds: an attribute is kept as the sender wrote it or the whole event is refused; nothing is cut or replaced, and no
//! control character gets in.

use super::super::Unreadable;
use crate::envelope::{
    Attribute, DEDUPE, DEDUPE_STRONG, Data, Envelope, Extensions, has_forbidden_character, is_attribute_name,
};
use crate::time::UnixMs;
use std::borrow::Cow;

/// The most attributes of an event.
const ATTRIBUTES_MAX: usize = 256;
/// The most bytes of all names and values of its attributes: the size of an event that intermediaries must forward
/// (CloudEvents 1.0, section 5).
const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;

/// What is known of an event until now.
#[derive(Default)]
pub(super) struct Draft {
    has_version: bool,
    id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    datacontenttype: Option<String>,
    dataschema: Option<String>,
    extensions: Extensions,
    count: usize,
    bytes: usize,
}

impl Draft {
    /// Takes an attribute by its CloudEvents name.
    ///
    /// # Errors
    /// [`Unreadable`] where CloudEvents does not allow the name or the value, or it stands there twice.
    pub(super) fn set(&mut self, name: &str, value: Attribute) -> Result<(), Unreadable> {
        let text = value.as_text();
        self.count += 1;
        self.bytes += name.len() + text.len();
        let fits = self.count <= ATTRIBUTES_MAX && self.bytes <= ATTRIBUTES_BYTES_MAX;
        if !fits || has_forbidden_character(&text) {
            return Err(Unreadable::Attribute);
        }
        let place = match name {
            "specversion" => return self.set_version(&text),
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "subject" => &mut self.subject,
            "time" if UnixMs::parse_rfc3339(&text).is_some() => &mut self.time,
            // No binding could carry another one than ASCII.
            "datacontenttype" if text.is_ascii() => &mut self.datacontenttype,
            "dataschema" => &mut self.dataschema,
            "time" | "datacontenttype" | "data" => return Err(Unreadable::Attribute),
            extension => return self.extend(extension, value),
        };
        match value {
            Attribute::Text(text) if !text.is_empty() && place.is_none() => *place = Some(text),
            _ => return Err(Unreadable::Attribute),
        }
        Ok(())
    }

    fn set_version(&mut self, version: &str) -> Result<(), Unreadable> {
        if version != "1.0" {
            return Err(Unreadable::SpecVersion);
        }
        if std::mem::replace(&mut self.has_version, true) { Err(Unreadable::Attribute) } else { Ok(()) }
    }

    fn extend(&mut self, name: &str, value: Attribute) -> Result<(), Unreadable> {
        let replaced = is_attribute_name(name)
            .then(|| self.extensions.insert(Cow::Owned(name.to_owned()), value))
            .ok_or(Unreadable::Attribute)?;
        if replaced.is_some() { Err(Unreadable::Attribute) } else { Ok(()) }
    }

    /// The media type of the data.
    pub(super) fn datacontenttype(&self) -> Option<&str> {
        self.datacontenttype.as_deref()
    }

    /// Says a media type that was only implied.
    pub(super) fn imply_datacontenttype(&mut self, media_type: &str) {
        self.datacontenttype.get_or_insert_with(|| media_type.to_owned());
    }

    /// The event, where it has all that it needs.
    ///
    /// # Errors
    /// [`Unreadable::SpecVersion`] and [`Unreadable::AttributeMissing`].
    pub(super) fn finish(mut self, data: Data) -> Result<Envelope, Unreadable> {
        if !self.has_version {
            return Err(Unreadable::SpecVersion);
        }
        let (Some(id), Some(source), Some(event_type)) = (self.id, self.source, self.event_type) else {
            return Err(Unreadable::AttributeMissing);
        };
        // `source` and `id` identify an event wherever it comes along; a sender that says otherwise is believed.
        if !self.extensions.contains_key(DEDUPE) {
            self.extensions.insert(Cow::Borrowed(DEDUPE), Attribute::from(DEDUPE_STRONG));
        }
        Ok(Envelope {
            id,
            source,
            event_type,
            subject: self.subject,
            time: self.time,
            datacontenttype: self.datacontenttype,
            dataschema: self.dataschema,
            extensions: self.extensions,
            data,
        })
    }
}

/// What a media type says about the bytes of the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Content {
    /// `*/json` and `*/*+json` (JSON format, section 3.1.1), and where nothing is said.
    Json,
    /// Text in UTF-8.
    Text,
    /// In an encoding that has ASCII in common with UTF-8, and nothing else.
    LikeAscii,
    /// In an encoding that has nothing in common with UTF-8.
    Wide,
    /// No known text.
    Other,
}

impl Content {
    pub(in super::super) fn of(media_type: Option<&str>) -> Self {
        let Some(media_type) = media_type else { return Content::Json };
        let mut parts = media_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let essence = parts.next().unwrap_or_default();
        if essence.ends_with("/json") || essence.ends_with("+json") {
            return Content::Json;
        }
        let is_text = essence.starts_with("text/")
            || essence.ends_with("/xml")
            || essence.ends_with("+xml")
            || essence == "application/x-www-form-urlencoded";
        let charset =
            parts.find_map(|part| Some(part.strip_prefix("charset=")?.trim_matches('"').to_owned()));
        match charset.as_deref() {
            None | Some("utf-8" | "utf8" | "us-ascii") if is_text => Content::Text,
            None | Some("utf-8" | "utf8" | "us-ascii") => Content::Other,
            Some(wide) if wide.starts_with("utf-16") || wide.starts_with("utf-32") => Content::Wide,
            Some(_) => Content::LikeAscii,
        }
    }
}
