//! Percent-encoded text of headers, queries, forms, paths and URLs, decoded in exactly one pass (RFC 3986, section 2.4).

use std::borrow::Cow;

/// The bytes meant. A `%` that two hexadecimal digits do not follow stays, since senders forget to encode it.
#[must_use]
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let encoded = match (first, after) {
            (b'%', [high, low, ..]) => byte(*high, *low),
            _ => None,
        };
        bytes.push(encoded.unwrap_or(first));
        rest = if encoded.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(bytes)
}

fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(high)? * 16 + digit(low)?)
}

/// The same in a form or a query, where a plus is a space (WHATWG URL, section 5.1).
#[must_use]
pub fn form_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return decoded(text);
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(decoded(&spaced).into_owned())
}

/// A path segment as it was meant; `None` where a `%` encodes nothing, or where the result is not text.
#[must_use]
pub fn decoded_strictly(segment: &str) -> Option<Cow<'_, str>> {
    let is_encoded = |after: &str| matches!(after.as_bytes(), [high, low, ..] if byte(*high, *low).is_some());
    if !segment.split('%').skip(1).all(is_encoded) {
        return None;
    }
    match decoded(segment.as_bytes()) {
        Cow::Borrowed(_) => Some(Cow::Borrowed(segment)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_and_no_more() {
        for (sentence, encoded, meant) in [
            ("plain text is itself", "plain", "plain"),
            ("digits of either case", "Euro%20%E2%82%AC%20%f0%9f%98%80", "Euro € 😀"),
            ("what was encoded twice is decoded once", "100%2525", "100%25"),
            ("a sign that nobody encoded stays", "100% of %zz and %4", "100% of %zz and %4"),
        ] {
            assert_eq!(decoded(encoded.as_bytes()), meant.as_bytes(), "{sentence}");
        }
    }

    #[test]
    fn in_a_path_nothing_odd_passes() {
        for (sentence, segment, expected) in [
            ("plain text is itself", "s3cret-_.~+", Some("s3cret-_.~+")),
            ("encoded characters are decoded", "a%20b%2Fc%c3%a9", Some("a b/cé")),
            ("a sign without digits", "a%2", None),
            ("two signs", "a%%41", None),
            ("digits that are none", "a%zz", None),
            ("bytes that are no text", "%ff", None),
        ] {
            assert_eq!(decoded_strictly(segment).as_deref(), expected, "{sentence}");
        }
    }
}
