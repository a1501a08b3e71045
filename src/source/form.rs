//! The fields of an HTML form (`application/x-www-form-urlencoded`), decoded byte for byte.
//! Holds: no input makes it fail or grow beyond [`FIELDS_MAX`] fields; what is no percent-encoding stays as it is.

use crate::percent::form_decoded;
use std::borrow::Cow;

/// The most fields that are looked at.
const FIELDS_MAX: usize = 1000;

type Field<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The fields in the order in which they stand.
#[derive(Default)]
pub(super) struct Form<'a> {
    fields: Vec<Field<'a>>,
    /// There were more fields than are looked at.
    pub(super) is_cut: bool,
}

impl<'a> Form<'a> {
    /// Reads a body or a query (WHATWG URL, section 5.1).
    pub(super) fn read(body: &'a [u8]) -> Self {
        let mut pieces = body.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty());
        let fields = pieces.by_ref().take(FIELDS_MAX).map(|piece| {
            let equals = piece.iter().position(|&byte| byte == b'=').unwrap_or(piece.len());
            (form_decoded(&piece[..equals]), form_decoded(piece.get(equals + 1..).unwrap_or_default()))
        });
        let fields = fields.collect();
        Form { fields, is_cut: pieces.next().is_some() }
    }

    /// Every field.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The value of the first field of that name.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value)
    }

    /// The same as text.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(String::from_utf8_lossy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(body: &str) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Form::read(body.as_bytes()).fields().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn fields_are_decoded_as_browsers_and_senders_encode_them() {
        for (sentence, body, expected) in [
            ("plain fields", "a=1&b=2", vec![("a", "1"), ("b", "2")]),
            ("a plus is a space, an escaped one a plus", "a=x+y%2B", vec![("a", "x y+")]),
            ("names are decoded too", "a%5B%5D=1", vec![("a[]", "1")]),
            ("UTF-8", "a=%C3%A9", vec![("a", "é")]),
            ("no value", "a&b=", vec![("a", ""), ("b", "")]),
            ("another equals sign is part of the value", "a=b=c", vec![("a", "b=c")]),
            ("a name twice", "a=1&a=2", vec![("a", "1"), ("a", "2")]),
            ("no escape at all", "a=100%&b=%zz%4", vec![("a", "100%"), ("b", "%zz%4")]),
            ("nothing", "", vec![]),
        ] {
            let expected: Vec<(String, String)> =
                expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(pairs(body), expected, "{sentence}");
        }
    }

    #[test]
    fn more_fields_than_are_looked_at_are_told_of() {
        assert!(!Form::read("a&".repeat(FIELDS_MAX).as_bytes()).is_cut);
        let cut = "a&".repeat(FIELDS_MAX + 1);
        let cut = Form::read(cut.as_bytes());
        assert!(cut.is_cut && cut.fields().count() == FIELDS_MAX);
    }

    proptest! {
        #[test]
        fn no_body_makes_reading_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let form = Form::read(&body);
            let _ = (form.text("a"), form.fields().count());
        }
    }
}
