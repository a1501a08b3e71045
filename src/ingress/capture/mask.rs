//! What of a request may be shown to an operator: everything but what proves who sends.
//! Holds: R8 (a live secret of the source is hidden wherever it stands by itself; so is any value whose name says that it
//! is one, any value that looks like a signed token, and what the request's own path had behind the source's name).
//! Hiding too much is fine, too little is not.

use crate::percent::decoded;
use crate::source::{ConfiguredSource, PARTS_OF_SECRET_NAMES, WORDS_OF_SECRET_NAMES};
use std::cell::Cell;

/// What stands for a secret.
pub(super) const HIDDEN: &str = "***";
/// A name that is one of these, an `x` before it left out, names a secret.
const WHOLE: [&str; 4] = ["sig", "sign", "code", "sid"];
/// What ends so is a secret, `x-functions-key` say; these are not.
const KEYS: [&str; 3] = ["idempotencykey", "partitionkey", "routingkey"];
/// Schemes of the header `authorization` that may be shown.
const SCHEMES: [&str; 6] = ["basic", "bearer", "digest", "hmac", "hawk", "apikey"];

/// The most bytes of one request that are compared with secrets, each as often as it is; beyond, texts are hidden.
const COMPARED_BYTES_MAX: usize = 1024 * 1024;
/// What a comparison costs besides its bytes, in bytes.
const COMPARISON_BYTES: usize = 64;
/// The fewest characters of what stood in the path that are looked for within words.
const PATH_CHARS_MIN: usize = 4;

/// Hides the secrets of one source in one request.
pub(super) struct Mask<'a> {
    source: &'a ConfiguredSource,
    /// What stood in the path behind the source's name, as it was sent and as it was meant: a secret, or a try at one.
    in_path: Vec<String>,
    bytes_left: Cell<usize>,
}

impl<'a> Mask<'a> {
    pub(super) fn new(source: &'a ConfiguredSource, in_path: Option<&str>) -> Self {
        let in_path = in_path.filter(|text| text.chars().count() >= PATH_CHARS_MIN);
        let in_path = in_path.into_iter().flat_map(|text| [text.to_owned(), meant(text)]);
        Mask { source, in_path: in_path.collect(), bytes_left: Cell::new(COMPARED_BYTES_MAX) }
    }
}

impl Mask<'_> {
    /// Does a field of this name hold a secret?
    pub(super) fn hides(&self, name: &str) -> bool {
        let is_credential = |header: &http::HeaderName| header.as_str().eq_ignore_ascii_case(name);
        names_a_secret(name) || self.source.dialect.credential_headers().iter().any(is_credential)
    }

    /// The value of a field, hidden where its name says so.
    pub(super) fn value(&self, name: &str, text: &str) -> String {
        if !self.hides(name) {
            return self.text(text);
        }
        let scheme = text.split_once(' ').map(|(scheme, _)| scheme);
        let scheme = scheme.filter(|scheme| SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()));
        let length = text.chars().count();
        match scheme {
            Some(scheme) => format!("{scheme} {HIDDEN} ({length} characters in all)"),
            None => format!("{HIDDEN} ({length} characters)"),
        }
    }

    /// A text with the secrets in it hidden.
    pub(super) fn text(&self, text: &str) -> String {
        if self.is_secret(text.trim()) {
            return HIDDEN.to_owned();
        }
        let text = self.in_path.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN));
        // Proxies write a path anew, with digits of another case, and encode more or less of it.
        if self.in_path.iter().any(|secret| meant(&text).contains(secret)) {
            return HIDDEN.to_owned();
        }
        let mut shown = String::with_capacity(text.len());
        for chunk in text.split_inclusive(ends_a_chunk) {
            let (chunk, end) = chunk.split_at(chunk.trim_end_matches(ends_a_chunk).len());
            shown.push_str(&self.chunk(chunk));
            shown.push_str(end);
        }
        self.named(&shown)
    }

    /// A chunk with secrets hidden that have signs in them at which words end.
    fn chunk(&self, chunk: &str) -> String {
        let is_hidden =
            |text: &str| self.is_secret(text) || (text.contains('%') && self.is_secret(&meant(text)));
        let ends: Vec<usize> = chunk.match_indices(is_joint).map(|(at, _)| at).chain([chunk.len()]).collect();
        let begins: Vec<usize> = [0].into_iter().chain(ends.iter().map(|at| at + 1)).collect();
        let (mut shown, mut done) = (String::new(), 0);
        for (place, &begin) in begins.iter().enumerate().take(ends.len()) {
            // The longest first.
            for &end in ends[place..].iter().rev().filter(|_| begin >= done) {
                let cost = COMPARISON_BYTES + (end - begin.min(end));
                let Some(left) = self.bytes_left.get().checked_sub(cost) else { return HIDDEN.to_owned() };
                self.bytes_left.set(left);
                if begin < end && is_hidden(&chunk[begin..end]) {
                    shown.push_str(&chunk[done..begin]);
                    shown.push_str(HIDDEN);
                    done = end;
                    break;
                }
            }
        }
        shown + &chunk[done..]
    }

    /// A text with what follows a name hidden where that says that it names a secret.
    fn named(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        let (mut rest, mut follows_a_name) = (text, false);
        while !rest.is_empty() {
            let word = &rest[..rest.find(is_separator).unwrap_or(rest.len())];
            rest = &rest[word.len()..];
            let between = &rest[..rest.find(|c| !is_separator(c)).unwrap_or(rest.len())];
            rest = &rest[between.len()..];
            if follows_a_name && !word.is_empty() {
                shown.push_str(HIDDEN);
            } else {
                shown.push_str(word);
            }
            shown.push_str(between);
            // `token=…`, `"token": "…"`, and `Bearer …`, wherever they stand.
            let is_scheme = SCHEMES.contains(&word.to_ascii_lowercase().as_str()) && between == " ";
            let assigns = between.contains(['=', ':']) && !between.contains([',', ';', '&']);
            follows_a_name = is_scheme || (assigns && names_a_secret(word));
        }
        shown
    }

    fn is_secret(&self, text: &str) -> bool {
        !text.is_empty()
            && (looks_signed(text)
                || self.source.path_secret_matches(text)
                || self.source.dialect.knows_secret(text.as_bytes()))
    }
}

/// What a percent-encoded text means.
fn meant(text: &str) -> String {
    String::from_utf8_lossy(&decoded(text.as_bytes())).into_owned()
}

/// At these begins and ends what may be a secret by itself; one may also have them in it.
fn is_joint(character: char) -> bool {
    matches!(character, '/' | '=' | ':')
}

fn ends_a_chunk(character: char) -> bool {
    is_separator(character) && !is_joint(character)
}

fn is_separator(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '"' | '\'' | ',' | ';' | '&' | '=' | ':' | '?')
        || matches!(character, '(' | ')' | '<' | '>' | '[' | ']' | '{' | '}')
}

fn names_a_secret(name: &str) -> bool {
    let letters: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let is_key = letters.ends_with("key") && !KEYS.contains(&letters.as_str());
    let is_whole = WHOLE.contains(&letters.as_str())
        || letters.strip_prefix('x').is_some_and(|rest| WHOLE.contains(&rest));
    let has_part = PARTS_OF_SECRET_NAMES.iter().any(|part| letters.contains(part));
    is_key || is_whole || has_part || has_word_of_a_secret(name)
}

fn has_word_of_a_secret(name: &str) -> bool {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for character in name.chars() {
        if !character.is_ascii_alphanumeric() || (was_lower && character.is_ascii_uppercase()) {
            words.push(String::new());
        }
        was_lower = character.is_ascii_lowercase();
        let word = words.last_mut().expect("there is always one");
        word.extend(Some(character.to_ascii_lowercase()).filter(char::is_ascii_alphanumeric));
    }
    words.iter().any(|word| WORDS_OF_SECRET_NAMES.contains(&word.as_str()))
}

/// A JSON Web Token: three parts between dots, the first of them JSON in Base64.
fn looks_signed(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() >= 3
}
