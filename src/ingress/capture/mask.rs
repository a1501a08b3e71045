//! What of a request may be shown to an operator: everything but what proves who sends.
//! Holds: R8 (a live secret of the source is hidden wherever it stands by itself; so is any value whose name says that it
//! is one, and any value that looks like a signed token). Hiding too much is fine, too little is not.

use crate::source::ConfiguredSource;

/// What stands for a secret.
pub(super) const HIDDEN: &str = "***";
/// A name that has one of these anywhere in it, hyphens and the like left out, names a secret.
const PARTS: [&str; 16] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "authoriz",
    "authentic",
    "cookie",
    "signature",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "hmac",
    "credential",
    "session",
];
/// A name that is one of these names a secret.
const WHOLE: [&str; 10] = ["sig", "sign", "pwd", "pass", "pin", "otp", "jwt", "code", "auth", "sid"];
/// What ends so is a secret, `x-functions-key` say; these are not.
const KEYS: [&str; 3] = ["idempotencykey", "partitionkey", "routingkey"];
/// Schemes of the header `authorization` that may be shown.
const SCHEMES: [&str; 6] = ["basic", "bearer", "digest", "hmac", "hawk", "apikey"];

/// Hides the secrets of one source.
pub(super) struct Mask<'a>(pub(super) &'a ConfiguredSource);

impl Mask<'_> {
    /// Does a field of this name hold a secret?
    pub(super) fn hides(&self, name: &str) -> bool {
        let is_credential = |header: &http::HeaderName| header.as_str().eq_ignore_ascii_case(name);
        names_a_secret(name) || self.0.dialect.credential_headers().iter().any(is_credential)
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
                self.push_word(word, &mut shown);
            }
            shown.push_str(between);
            // `token=…`, `"token": "…"`, and `Bearer …`, wherever they stand.
            let is_scheme = SCHEMES.contains(&word.to_ascii_lowercase().as_str()) && between == " ";
            let assigns = between.contains(['=', ':']) && !between.contains([',', ';', '&']);
            follows_a_name = is_scheme || (assigns && names_a_secret(word));
        }
        shown
    }

    fn push_word(&self, word: &str, shown: &mut String) {
        if self.is_secret(word) {
            shown.push_str(HIDDEN);
            return;
        }
        for (index, part) in word.split('/').enumerate() {
            if index > 0 {
                shown.push('/');
            }
            shown.push_str(if self.is_secret(part) { HIDDEN } else { part });
        }
    }

    fn is_secret(&self, text: &str) -> bool {
        !text.is_empty()
            && (looks_signed(text)
                || self.0.path_secret_matches(text)
                || self.0.dialect.knows_secret(text.as_bytes()))
    }
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
    is_key || WHOLE.contains(&letters.as_str()) || PARTS.iter().any(|part| letters.contains(part))
}

/// A JSON Web Token: three parts between dots, the first of them JSON in Base64.
fn looks_signed(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() >= 3
}
