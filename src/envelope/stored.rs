//! The stored form of an envelope: a versioned head with the attributes, then the data's bytes verbatim.
//! Holds: R7 (the data is appended and sliced, never touched); every envelope decodes to itself; no bytes make
//! `decode` panic or reserve more memory than they have.
//!
//! ```text
//! head  = version:1 kind:1 data_bytes:number id source type subject? time? datacontenttype? dataschema? extensions
//! text  = length:number UTF-8            text? = 0 | (length + 1):number UTF-8
//! extensions = count:number { name:text (0 text | 1 | 2 | 3 integer:4) } in alphabetical order of the names
//! number = LEB128, seven bits a byte, low first
//! ```
//! Absent on purpose: a checksum; the journal's record has one over head and data.

use super::attributes::known_extension;
use super::{Attribute, Data, Envelope, Extensions};
use bytes::Bytes;
use std::borrow::Cow;

/// The version written at the front of every stored envelope.
pub const STORED_VERSION: u8 = 1;
/// As many extensions as room is made for ahead; more are read all the same.
const EXTENSIONS_EXPECTED_MAX: usize = 64;

/// Why stored bytes are not an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer Hookbus.
    #[error("stored envelope has version {0}, this program reads up to {STORED_VERSION}")]
    UnknownVersion(u8),
    /// Not what `encode_head` writes.
    #[error("stored envelope is malformed: {0}")]
    Malformed(&'static str),
}

const DATA_NONE: u8 = 0;
const DATA_JSON: u8 = 1;
const DATA_TEXT: u8 = 2;
const DATA_BINARY: u8 = 3;

const VALUE_TEXT: u8 = 0;
const VALUE_FALSE: u8 = 1;
const VALUE_TRUE: u8 = 2;
const VALUE_INTEGER: u8 = 3;

impl Envelope {
    /// Everything but the data's bytes, which follow it directly: stored form = head ++ `data.bytes()`.
    #[must_use]
    pub fn encode_head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.head_bytes_estimate());
        head.push(STORED_VERSION);
        head.push(match self.data {
            Data::None => DATA_NONE,
            Data::Json(_) => DATA_JSON,
            Data::Text(_) => DATA_TEXT,
            Data::Binary(_) => DATA_BINARY,
        });
        push_number(&mut head, self.data.bytes().len());
        for text in [&self.id, &self.source, &self.event_type] {
            push_text(&mut head, text);
        }
        for text in [&self.subject, &self.time, &self.datacontenttype, &self.dataschema] {
            push_optional(&mut head, text.as_deref());
        }
        push_number(&mut head, self.extensions.len());
        for (name, value) in self.extensions.iter() {
            push_text(&mut head, name);
            match value {
                Attribute::Text(text) => {
                    head.push(VALUE_TEXT);
                    push_text(&mut head, text);
                }
                Attribute::Bool(flag) => head.push(if *flag { VALUE_TRUE } else { VALUE_FALSE }),
                Attribute::Integer(number) => {
                    head.push(VALUE_INTEGER);
                    head.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        head
    }

    /// Reads the stored form; the data is a slice of `stored`, not a copy.
    ///
    /// # Errors
    /// [`DecodeError`] where `stored` is not head ++ data of a known version.
    pub fn decode(stored: &Bytes) -> Result<Envelope, DecodeError> {
        let mut reader = Reader { rest: stored };
        let version = reader.byte()?;
        if version != STORED_VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let kind = reader.byte()?;
        let data_bytes = reader.number()?;
        let mut envelope = Envelope {
            id: reader.text()?.to_owned(),
            source: reader.text()?.to_owned(),
            event_type: reader.text()?.to_owned(),
            subject: reader.optional()?,
            time: reader.optional()?,
            datacontenttype: reader.optional()?,
            dataschema: reader.optional()?,
            extensions: reader.extensions()?,
            data: Data::None,
        };
        if reader.rest.len() != data_bytes {
            return Err(DecodeError::Malformed("the data has another length than the head says"));
        }
        let data = stored.slice(stored.len() - data_bytes..);
        envelope.data = match kind {
            DATA_NONE if data.is_empty() => Data::None,
            DATA_JSON => Data::Json(data),
            DATA_TEXT => Data::Text(data),
            DATA_BINARY => Data::Binary(data),
            _ => return Err(DecodeError::Malformed("unknown kind of data")),
        };
        Ok(envelope)
    }

    /// Large enough that the head is allocated once.
    fn head_bytes_estimate(&self) -> usize {
        let optional = |text: &Option<String>| text.as_deref().map_or(0, str::len);
        let attributes = self.id.len()
            + self.source.len()
            + self.event_type.len()
            + optional(&self.subject)
            + optional(&self.time)
            + optional(&self.datacontenttype)
            + optional(&self.dataschema);
        let extension = |(name, value): (&Cow<'_, str>, &Attribute)| match value {
            Attribute::Text(text) => name.len() + text.len() + 6,
            Attribute::Bool(_) | Attribute::Integer(_) => name.len() + 8,
        };
        64 + attributes + self.extensions.iter().map(extension).sum::<usize>()
    }
}

fn push_number(head: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest >= 0x80 {
        head.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    head.push(rest as u8);
}

fn push_text(head: &mut Vec<u8>, text: &str) {
    push_number(head, text.len());
    head.extend_from_slice(text.as_bytes());
}

fn push_optional(head: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => head.push(0),
        Some(text) => {
            push_number(head, text.len() + 1);
            head.extend_from_slice(text.as_bytes());
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(bytes).ok_or(DecodeError::Malformed("the head is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<usize, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(number).map_err(|_| DecodeError::Malformed("a length is too large"));
            }
        }
        Err(DecodeError::Malformed("a length is too large"))
    }

    fn utf8(&mut self, bytes: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.take(bytes)?)
            .map_err(|_| DecodeError::Malformed("an attribute is not valid UTF-8"))
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.number()?;
        self.utf8(bytes)
    }

    fn optional(&mut self) -> Result<Option<String>, DecodeError> {
        match self.number()?.checked_sub(1) {
            None => Ok(None),
            Some(bytes) => Ok(Some(self.utf8(bytes)?.to_owned())),
        }
    }

    fn extensions(&mut self) -> Result<Extensions, DecodeError> {
        let count = self.number()?;
        // The count is not believed before the attributes are there.
        let mut extensions = Extensions::with_capacity(count.min(EXTENSIONS_EXPECTED_MAX));
        for _ in 0..count {
            let name = self.text()?;
            let value = match self.byte()? {
                VALUE_TEXT => Attribute::Text(self.text()?.to_owned()),
                VALUE_FALSE => Attribute::Bool(false),
                VALUE_TRUE => Attribute::Bool(true),
                VALUE_INTEGER => {
                    let bytes = self.take(4)?.try_into().expect("take gives as many bytes as asked for");
                    Attribute::Integer(i32::from_le_bytes(bytes))
                }
                _ => return Err(DecodeError::Malformed("unknown kind of extension")),
            };
            if extensions.insert(owned_or_known(name), value).is_some() {
                return Err(DecodeError::Malformed("an extension stands there twice"));
            }
        }
        Ok(extensions)
    }
}

/// The names that most events carry cost no allocation.
fn owned_or_known(name: &str) -> Cow<'static, str> {
    known_extension(name).map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed)
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
