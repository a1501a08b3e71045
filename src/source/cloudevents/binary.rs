//! Binary content mode (HTTP binding 1.0.2, section 3.1): attributes are `ce-` headers, the body is the data as it is.
//! Holds: R7 (the body's bytes are the data's bytes, whatever the media type claims about them).

use super::super::{Request, Unreadable, json};
use super::draft::{Content, Draft};
use crate::envelope::{Attribute, Data, Envelope};
use crate::percent;
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use std::borrow::Cow;

/// What the names of headers with attributes begin with.
const PREFIX: &str = "ce-";
/// The header that tells a CloudEvent in binary mode.
pub(super) const VERSION: &str = "ce-specversion";

pub(super) fn read(request: &Request<'_>) -> Result<Envelope, Unreadable> {
    let headers = request.head.headers;
    let mut draft = Draft::default();
    for header in headers.keys() {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
        // Its place is Content-Type (section 3.1.1).
        if name == "datacontenttype" {
            return Err(Unreadable::Attribute);
        }
        for value in headers.get_all(header) {
            draft.set(name, Attribute::Text(text(value)?))?;
        }
    }
    if let Some(media_type) = headers.get(CONTENT_TYPE).filter(|value| !value.is_empty()) {
        let media_type = media_type.to_str().map_err(|_| Unreadable::Attribute)?;
        // Between parameters a tab is as good as a space (RFC 9110, section 5.6.3), but no attribute may have one.
        draft.set("datacontenttype", Attribute::Text(media_type.replace('\t', " ")))?;
    }
    let data = data(request.body.clone(), draft.datacontenttype());
    draft.finish(data)
}

/// The attribute's text (section 3.1.3.2): the quotes of older senders go first, then one round of decoding.
fn text(value: &HeaderValue) -> Result<String, Unreadable> {
    let unquoted = unquoted(value.as_bytes());
    let decoded = percent::decoded(&unquoted);
    String::from_utf8(decoded.into_owned()).map_err(|_| Unreadable::Attribute)
}

fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inside @ .., b'"'] = value else { return Cow::Borrowed(value) };
    let mut plain = Vec::with_capacity(inside.len());
    let mut is_escaped = false;
    for &byte in inside {
        is_escaped = byte == b'\\' && !is_escaped;
        if !is_escaped {
            plain.push(byte);
        }
    }
    Cow::Owned(plain)
}

/// A body that is not what its media type says stays bytes: an intermediary has no say in that.
fn data(body: Bytes, media_type: Option<&str>) -> Data {
    match Content::of(media_type) {
        _ if body.is_empty() => Data::None,
        Content::Json if json::checked(&body).is_ok() => Data::Json(body),
        Content::Text if std::str::from_utf8(&body).is_ok() => Data::Text(body),
        _ => Data::Binary(body),
    }
}
