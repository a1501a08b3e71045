//! Reading JSON that somebody else wrote, without building a tree of it: bounds, scalars, pointers, digests.
//! Holds: nothing here recurses deeper than [`DEPTH_MAX`] or copies what it only looks at; every text that passes
//! [`checked`] is strict JSON and may stand in another JSON text as it is (R7).

use super::Unreadable;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;

/// The most levels of arrays and objects in a body.
pub(super) const DEPTH_MAX: usize = 64;
/// The most bytes of JSON that become a tree, which takes up to twenty times as many.
const CANONICAL_BYTES_MAX: usize = 64 * 1024;

/// The body as text that is not nested too deeply; whether it is JSON is still open.
pub(super) fn bounded_text(body: &[u8]) -> Result<&str, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::NotUtf8)?;
    if is_too_deep(body) { Err(Unreadable::TooDeep) } else { Ok(text) }
}

/// The body as strict JSON of bounded depth, whatever stands at its top.
pub(super) fn checked(body: &[u8]) -> Result<&str, Unreadable> {
    let text = bounded_text(body)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Unreadable::NotJson)?;
    Ok(text)
}

fn is_too_deep(body: &[u8]) -> bool {
    // Counting is many times faster than following the strings, and enough for nearly every real body.
    if body.iter().filter(|&&byte| matches!(byte, b'{' | b'[')).count() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A string's or a number's text, trimmed; empty for everything else, since senders write null, nothing and ""
/// for the same.
pub(super) fn scalar(raw: &RawValue) -> Cow<'_, str> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => string(text),
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(text),
        _ => Cow::Borrowed(""),
    }
}

fn string(quoted: &str) -> Cow<'_, str> {
    let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or("");
    if !inside.contains('\\') {
        return Cow::Borrowed(inside.trim());
    }
    match serde_json::from_str::<String>(quoted) {
        Ok(text) => Cow::Owned(text.trim().to_owned()),
        // Half a surrogate pair is JSON but no Unicode. As written it still tells two texts apart.
        Err(_) => Cow::Borrowed(inside.trim()),
    }
}

/// The same value always gives the same text: keys sorted, nothing between the tokens. What is larger than
/// [`CANONICAL_BYTES_MAX`] or no value in memory (1e999, half a surrogate pair) stays as written.
pub(super) fn push_canonical(out: &mut Vec<u8>, raw: &RawValue) {
    let text = raw.get();
    let value = (text.len() <= CANONICAL_BYTES_MAX).then(|| serde_json::from_str::<Value>(text));
    match value {
        Some(Ok(value)) => push_sorted(out, &value),
        Some(Err(_)) | None => out.extend_from_slice(text.as_bytes()),
    }
}

fn push_sorted(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                push_comma(out, index);
                push_string(out, name);
                out.push(b':');
                push_sorted(out, member);
            }
            out.push(b'}');
        }
        Value::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                push_comma(out, index);
                push_sorted(out, element);
            }
            out.push(b']');
        }
        Value::String(text) => push_string(out, text),
        Value::Number(_) | Value::Bool(_) | Value::Null => {
            out.extend_from_slice(value.to_string().as_bytes())
        }
    }
}

/// A comma before every element but the first.
pub(super) fn push_comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// `text` as a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always JSON and memory takes every write");
}

/// SHA-256 over the parts one after the other, in lower-case hexadecimal, cut to `digits`.
pub(super) fn digest_hex(parts: &[&[u8]], digits: usize) -> String {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut hex = hex::encode(digest.finalize());
    hex.truncate(digits);
    hex
}

/// A JSON pointer (RFC 6901) that is not the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/order/id`; none where it does not begin with a slash.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix('/')?.split('/');
        Some(Pointer(tokens.map(|token| token.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// What it points at in `text`; of a name that stands there twice the last, as most readers take it.
    pub(super) fn find<'a>(&self, text: &'a str) -> Option<&'a RawValue> {
        let mut found: Option<&'a RawValue> = None;
        for token in &self.0 {
            let within = found.map_or(text, RawValue::get);
            let mut deserializer = serde_json::Deserializer::from_str(within);
            found = Some(deserializer.deserialize_any(Descend(token)).ok().flatten()?);
        }
        found
    }
}

struct Descend<'t>(&'t str);

impl<'de> Visitor<'de> for Descend<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(NameIs(self.0))? {
            if is_wanted {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let wanted: Option<usize> = self.0.parse().ok();
        let (mut found, mut index) = (None, 0);
        while let Some(element) = elements.next_element::<&RawValue>()? {
            if Some(index) == wanted {
                found = Some(element);
            }
            index += 1;
        }
        Ok(found)
    }
}

struct NameIs<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for NameIs<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIs<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn depth_is_bounded_before_anything_recurses() {
        for (sentence, body, outcome) in [
            ("the deepest that passes", nested(DEPTH_MAX), Ok(())),
            ("one level more", nested(DEPTH_MAX + 1), Err(Unreadable::TooDeep)),
            ("a million levels, never closed", "{\"a\":".repeat(1_000_000), Err(Unreadable::TooDeep)),
            ("brackets within a string are no levels", format!("\"{}\"", "[\\\"{".repeat(500)), Ok(())),
            ("many in a row are not deep", format!("[{}1]", "[],{},".repeat(500)), Ok(())),
            ("deep but cut off", "[".repeat(60), Err(Unreadable::NotJson)),
            ("a raw line break in a string", "\"a\nb\"".to_owned(), Err(Unreadable::NotJson)),
            ("nothing", String::new(), Err(Unreadable::NotJson)),
            ("two values", "1 2".to_owned(), Err(Unreadable::NotJson)),
        ] {
            assert_eq!(checked(body.as_bytes()).map(|_| ()), outcome, "{sentence}");
        }
        assert_eq!(checked(b"{\"a\":\"\xff\"}"), Err(Unreadable::NotUtf8));
    }

    #[test]
    fn a_scalar_is_its_text_and_anything_else_is_empty() {
        for (json, text) in [
            ("\" a \"", "a"),
            ("\"\\u00e9\\n\"", "é"),
            ("\"\\ud83d\"", "\\ud83d"),
            ("-99.9999999999999999", "-99.9999999999999999"),
            ("12345678901234567", "12345678901234567"),
            ("true", ""),
            ("null", ""),
            ("{\"a\":1}", ""),
            ("[1]", ""),
        ] {
            assert_eq!(scalar(serde_json::from_str(json).unwrap()), text, "{json}");
        }
    }

    #[test]
    fn the_canonical_text_forgets_order_and_spaces_only() {
        let canonical = |json: &str| {
            let mut out = Vec::new();
            push_canonical(&mut out, serde_json::from_str(json).unwrap());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            canonical(r#" {"b" : [1, {"z":null,"a":"é\n"}], "a": true} "#),
            r#"{"a":true,"b":[1,{"a":"é\n","z":null}]}"#
        );
        assert_eq!(canonical("1e999"), "1e999");
        let large = format!("{{\"b\": [{}0]}}", "[],".repeat(CANONICAL_BYTES_MAX));
        assert_eq!(canonical(&large), large);
    }

    #[test]
    fn a_pointer_finds_what_rfc_6901_says() {
        let text = r#"{"a":{"b":[10,{"c/d":"x","m~n":"y","":"z"}]},"twice":1,"twice":2}"#;
        for (pointer, found) in [
            ("/a/b/0", Some("10")),
            ("/a/b/1/c~1d", Some("\"x\"")),
            ("/a/b/1/m~0n", Some("\"y\"")),
            ("/a/b/1/", Some("\"z\"")),
            ("/twice", Some("2")),
            ("/a/b/7", None),
            ("/a/b/x", None),
            ("/a/nothing/there", None),
            ("/twice/deeper", None),
        ] {
            let found_now = Pointer::parse(pointer).unwrap().find(text).map(RawValue::get);
            assert_eq!(found_now, found, "{pointer}");
        }
        assert_eq!(Pointer::parse("a/b"), None);
    }
}
