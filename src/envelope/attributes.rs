//! What an attribute may be: its name, its value, and the text that is fit for one.
//! Holds: no text that went through [`clean`] or [`Attribute::from`] has a control character or more than
//! [`ATTRIBUTE_BYTES_MAX`] bytes.

use std::borrow::Cow;

/// The most bytes of a text attribute. Attributes become headers, and most HTTP servers take 8 KiB of these in all.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// The value of an extension attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// Any text without control characters.
    Text(String),
    /// A CloudEvents Boolean.
    Bool(bool),
    /// A CloudEvents Integer (32 bits, signed).
    Integer(i32),
}

impl Attribute {
    /// The canonical string form (CloudEvents 1.0, section 3.1).
    #[must_use]
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Attribute::Text(text) => Cow::Borrowed(text),
            Attribute::Bool(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
            Attribute::Integer(number) => Cow::Owned(number.to_string()),
        }
    }
}

/// Cleaned, see [`clean`].
impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Attribute::Text(clean(text))
    }
}
/// Cleaned, see [`clean`].
impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Attribute::Text(if is_clean(&text) { text } else { clean(&text) })
    }
}
impl From<bool> for Attribute {
    fn from(flag: bool) -> Self {
        Attribute::Bool(flag)
    }
}

/// The text as an attribute may carry it: each character that CloudEvents 1.0 forbids (control characters and
/// non-characters, section 3.1) becomes U+FFFD, and what is longer than [`ATTRIBUTE_BYTES_MAX`] is cut.
#[must_use]
pub fn clean(text: &str) -> String {
    if is_clean(text) {
        return text.to_owned();
    }
    let mut cleaned = String::with_capacity(text.len().min(ATTRIBUTE_BYTES_MAX));
    for character in text.chars() {
        let fit = if is_forbidden(character) { char::REPLACEMENT_CHARACTER } else { character };
        if cleaned.len() + fit.len_utf8() > ATTRIBUTE_BYTES_MAX {
            break;
        }
        cleaned.push(fit);
    }
    cleaned
}

fn is_clean(text: &str) -> bool {
    text.len() <= ATTRIBUTE_BYTES_MAX && !has_forbidden_character(text)
}

/// Has the text a character that CloudEvents 1.0 forbids in attributes (section 3.1)?
#[must_use]
pub fn has_forbidden_character(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    !is_plain && text.chars().any(is_forbidden)
}

fn is_forbidden(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}

/// Is `name` one that CloudEvents allows and every binding can carry: 1 to 40 lower-case letters and digits?
/// CloudEvents suggests at most 20, which kept header names often exceed.
#[must_use]
pub fn is_attribute_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.len() <= 40 && name.bytes().all(allowed)
}

/// Is `name` one of CloudEvents' own, which no extension may take?
#[must_use]
pub fn is_context_attribute(name: &str) -> bool {
    matches!(
        name,
        "specversion"
            | "id"
            | "source"
            | "type"
            | "subject"
            | "time"
            | "datacontenttype"
            | "dataschema"
            | "data"
            | "database64"
    )
}

/// The extensions that Hookbus and its dialects set, alphabetical.
const EXTENSIONS: [&str; 25] = [
    "callid",
    "chatkind",
    "chatlid",
    "dedupe",
    "eventgroup",
    "fromapi",
    "fromme",
    "hookbussource",
    "instanceid",
    "msgkind",
    "notification",
    "participant",
    "partitionkey",
    "polled",
    "provider",
    "receivedtime",
    "routeid",
    "timesource",
    "traceparent",
    "tracestate",
    "typeconflict",
    "wamsgid",
    "wastatus",
    "zaapid",
    "zapitype",
];

/// The name itself where it is that of an extension that Hookbus or one of its dialects sets.
#[must_use]
pub fn known_extension(name: &str) -> Option<&'static str> {
    EXTENSIONS.binary_search(&name).ok().map(|index| EXTENSIONS[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_attribute_never_carries_a_control_character() {
        for (sentence, text, cleaned) in [
            ("plain text stays", "Olá! ✅", "Olá! ✅"),
            ("a header cannot be split", "a\r\nx-evil: 1", "a\u{fffd}\u{fffd}x-evil: 1"),
            ("nor ended by NUL", "a\0b", "a\u{fffd}b"),
            ("the second control block goes too", "a\u{85}b\u{7f}", "a\u{fffd}b\u{fffd}"),
            ("and what is no character", "\u{fdd0}\u{1ffff}", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(clean(text), cleaned, "{sentence}");
            assert_eq!(Attribute::from(text.to_owned()), Attribute::Text(cleaned.to_owned()), "{sentence}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let cleaned = clean(&"✅".repeat(ATTRIBUTE_BYTES_MAX));
        assert_eq!(cleaned, "✅".repeat(ATTRIBUTE_BYTES_MAX / 3));
    }

    #[test]
    fn every_known_extension_is_found() {
        for name in EXTENSIONS {
            assert_eq!(known_extension(name), Some(name), "the list is alphabetical");
            assert!(is_attribute_name(name) && !is_context_attribute(name), "{name}");
        }
        assert_eq!(known_extension("xshopid"), None);
    }

    #[test]
    fn attribute_names_are_lower_case_letters_and_digits() {
        for (name, allowed) in
            [("wamsgid", true), ("xshopid2", true), ("", false), ("Id", false), ("a-b", false), ("é", false)]
        {
            assert_eq!(is_attribute_name(name), allowed, "{name}");
        }
    }
}
