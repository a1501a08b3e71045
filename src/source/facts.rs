//! What a dialect has found out about one event, and the envelope it becomes; ids and URIs of what senders write.
//! Holds: two ids never become one; a text of the sender never ends the part of a URI or a type it stands in.

use super::payload::Payload;
use super::{Request, json};
use crate::envelope::{
    Attribute, DEDUPE, DEDUPE_NONE, DEDUPE_STRONG, Envelope, Extensions, PARTITION_KEY, clean,
};
use crate::time::UnixMs;
use std::borrow::Cow;

/// The most bytes of a sender's id; a longer one is replaced by its digest.
const ID_BYTES_MAX: usize = 256;
/// Hexadecimal digits of an id made of a digest.
const ID_DIGITS: usize = 32;
/// The most bytes of one word of a type.
const WORD_BYTES_MAX: usize = 100;

/// One event, as the dialect understands it.
#[derive(Default)]
pub(super) struct Facts {
    /// What is the same whenever the sender posts the same event; none: every post is an event of its own.
    pub(super) id: Option<String>,
    /// None: the source of the configuration.
    pub(super) source: Option<String>,
    /// The CloudEvents type.
    pub(super) event_type: String,
    pub(super) subject: Option<String>,
    /// The sender's time; none: the arrival.
    pub(super) time: Option<UnixMs>,
    /// What events are kept in order by.
    pub(super) key: Option<String>,
}

impl Facts {
    /// The envelope of one body.
    pub(super) fn envelope(self, request: &Request<'_>, payload: Payload<'_>) -> Envelope {
        let mut extensions = Extensions::new();
        let mut set = |name, text: &str| extensions.insert(Cow::Borrowed(name), Attribute::from(text));
        set(DEDUPE, if self.id.is_some() { DEDUPE_STRONG } else { DEDUPE_NONE });
        set("timesource", if self.time.is_some() { "payload" } else { "received" });
        if let Some(key) = &self.key {
            set(PARTITION_KEY, key);
        }
        let ours = || format!("//hookbus/sources/{}", request.head.source);
        Envelope {
            id: self.id.unwrap_or_else(|| request.arrival.unique.to_string()),
            source: self.source.map_or_else(ours, |source| clean(&source)),
            event_type: clean(&self.event_type),
            subject: self.subject.map(|subject| clean(&subject)),
            time: Some(self.time.unwrap_or(request.arrival.at).to_rfc3339()),
            datacontenttype: payload.media_type,
            dataschema: None,
            extensions,
            data: payload.data,
        }
    }
}

/// A sender's id as it is, or its digest where it is too long or no plain text.
pub(super) fn fit_id(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) if text.len() <= ID_BYTES_MAX && clean(text) == text => text.to_owned(),
        _ => json::digest_hex(&[id], ID_DIGITS),
    }
}

/// The id in the first of these headers that has one.
pub(super) fn id_of_headers(request: &Request<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| header(request, name)).map(fit_id)
}

/// The value of a header; none where it is absent or blank.
pub(super) fn header<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    let value = request.head.headers.get(name)?.as_bytes().trim_ascii();
    (!value.is_empty()).then_some(value)
}

/// The same as text.
pub(super) fn header_text<'a>(request: &Request<'a>, name: &str) -> Option<Cow<'a, str>> {
    header(request, name).map(String::from_utf8_lossy)
}

/// The same bytes are the same event. No bytes are none: an empty post is a signal, and each counts.
pub(super) fn id_of_bytes(request: &Request<'_>) -> Option<String> {
    id_of_bytes_and(request, b"")
}

/// The same, where something beside the body tells two events apart.
pub(super) fn id_of_bytes_and(request: &Request<'_>, beside: &[u8]) -> Option<String> {
    if request.body.is_empty() {
        return None;
    }
    let source = request.head.source.as_str().as_bytes();
    let parts: &[&[u8]] = if beside.is_empty() {
        &[source, b"\0", request.body]
    } else {
        &[source, b"\0", beside, b"\0", request.body]
    };
    Some(json::digest_hex(parts, ID_DIGITS))
}

/// A word of a type: what is no letter, digit, hyphen, underscore or dot becomes an underscore.
fn type_word(text: &str) -> String {
    let fit = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => letter,
        _ => '_',
    };
    text.trim().chars().take(WORD_BYTES_MAX).map(fit).collect()
}

/// Words of a type with dots between them; empty ones are left out.
pub(super) fn type_of(words: &[Option<Cow<'_, str>>]) -> String {
    let words = words.iter().flatten().map(|word| type_word(word)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(".")
}

/// A text as one segment of a URI (RFC 3986, section 2.3), so that it neither ends the segment nor the URI.
pub(super) fn uri_part(text: &str) -> String {
    escaped(text, "")
}

/// `https://host:port/path` as `//host:port/path`: how an installation is named whatever way leads to it.
pub(super) fn uri_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("//{}", escaped(rest.trim_end_matches('/'), ":/[]"))
}

fn escaped(text: &str, kept: &str) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        let letter = char::from(byte);
        if letter.is_ascii_alphanumeric() || "-._~".contains(letter) || kept.contains(letter) {
            part.push(letter);
        } else {
            part.push_str(&format!("%{byte:02X}"));
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sender_writes_stays_in_its_part_of_a_type_or_uri() {
        let word = |text: &'static str| Some(Cow::Borrowed(text));
        assert_eq!(type_of(&[word("com.github"), word("push"), None, word("")]), "com.github.push");
        assert_eq!(type_of(&[word("com.gitlab"), word("Merge Request\u{7}é")]), "com.gitlab.Merge_Request__");
        assert_eq!(type_word(&"x".repeat(500)).len(), WORD_BYTES_MAX);
        assert_eq!(uri_part("acme.myshopify.com"), "acme.myshopify.com");
        assert_eq!(uri_part("a/b?c#d e%"), "a%2Fb%3Fc%23d%20e%25");
        assert_eq!(uri_of("https://git.example.com:8443/lab/"), "//git.example.com:8443/lab");
        assert_eq!(uri_of("git.example.com?x#y"), "//git.example.com%3Fx%23y");
    }
}
