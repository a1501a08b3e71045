//! A source as configured: its section of the configuration, and what every event of it carries whatever the dialect.
//! Holds: R8 (no header that authenticates becomes an attribute); a sender's trace passes on only where it is well
//! formed.

use super::secrets::{
    EDGE_PROBLEM, LiveSecrets, PARTS_OF_SECRET_NAMES, WORDS_OF_SECRET_NAMES, any_has_an_edge,
};
use super::{Config, ConfiguredSource, Request, SOURCE_TYPES, Source, SourceType, Unreadable};
use crate::config::{ConfigError, ConfigErrors, Section, nearest};
use crate::envelope::{
    Attribute, Envelope, HOOKBUS_SOURCE, RECEIVED_TIME, SourceName, is_attribute_name, is_context_attribute,
    known_extension,
};
use http::{HeaderMap, HeaderName};
use std::borrow::Cow;
use std::sync::Arc;

/// The most kept headers of a source.
const KEEP_HEADERS_MAX: usize = 32;
/// Headers with keys that let in, whose names do not say so.
const KEYS_OF_FUNCTIONS: [&str; 2] = ["x-functions-key", "ocp-apim-subscription-key"];
/// The most bytes of a `tracestate` that is passed on (W3C Trace Context, section 3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;

impl ConfiguredSource {
    /// Of parts that fit together.
    #[must_use]
    pub fn new(name: SourceName, config: Config, type_name: &'static str, dialect: Arc<dyn Source>) -> Self {
        let path_secrets = LiveSecrets::of(config.path_secret.as_ref());
        ConfiguredSource { name, config, type_name, dialect, path_secrets }
    }

    /// Reads `[sources.N]`: the common keys and exactly one dialect's section.
    ///
    /// # Errors
    /// [`ConfigErrors`] naming every wrong key, an unknown dialect with the known ones, or two dialects.
    pub fn parse(name: SourceName, section: &Section) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let (rows, strangers) = dialects(section);
        let not_common: Vec<&str> =
            rows.iter().map(|row| row.name).chain(strangers.iter().map(String::as_str)).collect();
        let config = ConfigErrors::collect(&mut errors, section.without(&not_common).extract::<Config>());
        for stranger in &strangers {
            errors.push(section.error(stranger, unknown_dialect(stranger)));
        }
        let dialect = match rows.as_slice() {
            [row] => ConfigErrors::collect(&mut errors, (row.build)(&section.child(row.name)))
                .map(|dialect| (row.name, dialect)),
            [] if strangers.is_empty() => {
                errors
                    .push(section.error("", format!("needs the section of a dialect: {}", known_dialects())));
                None
            }
            [] => None,
            [_, second, ..] => {
                errors.push(section.error(second.name, "a source has one dialect; this is the second"));
                None
            }
        };
        if let Some(config) = &config {
            let credentials = dialect.as_ref().map_or(&[][..], |(_, dialect)| dialect.credential_headers());
            errors.extend(wrong_values(config, credentials, section));
        }
        match (config, dialect) {
            (Some(config), Some((type_name, dialect))) if errors.is_empty() => {
                Ok(Self::new(name, config, type_name, dialect))
            }
            _ => Err(ConfigErrors(errors)),
        }
    }

    /// Reads an authenticated request: the dialect's envelopes with the extensions that every event has.
    ///
    /// # Errors
    /// [`Unreadable`] from the dialect.
    pub fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        let mut envelopes = self.dialect.read(request)?;
        let received = request.arrival.at.to_rfc3339();
        let trace = trace(request.head.headers);
        for envelope in &mut envelopes {
            let mut set = |name: Cow<'static, str>, text: &str| {
                envelope.extensions.insert(name, Attribute::from(text));
            };
            set(Cow::Borrowed(HOOKBUS_SOURCE), self.name.as_str());
            set(Cow::Borrowed(RECEIVED_TIME), &received);
            // What the event itself says stays: it knows where it came from, the headers only the last hop.
            let is_traced = envelope.extensions.contains_key("traceparent");
            let mut add = |name: Cow<'static, str>, text: &str| {
                if !envelope.extensions.contains_key(&name) {
                    envelope.extensions.insert(name, Attribute::from(text));
                }
            };
            if let Some((parent, state)) = trace.as_ref().filter(|_| !is_traced) {
                add(Cow::Borrowed("traceparent"), parent);
                if !state.is_empty() {
                    add(Cow::Borrowed("tracestate"), state);
                }
            }
            for header in &self.config.keep_headers {
                let value = request
                    .head
                    .headers
                    .get(header.as_str())
                    .map(|value| String::from_utf8_lossy(value.as_bytes()));
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    add(Cow::Owned(extension_of_header(header)), &value);
                }
            }
        }
        Ok(envelopes)
    }

    /// The path's secret segment is one of the live ones (constant time); false where none is configured.
    #[must_use]
    pub fn path_secret_matches(&self, segment: &str) -> bool {
        self.path_secrets.contains(segment.as_bytes())
    }

    /// Nothing proves who sends: neither a path secret nor a credential of the dialect is configured.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        self.config.path_secret.is_none() && !self.dialect.has_credential()
    }

    /// Where senders post to, for people: `/hooks/whatsapp`, with `/***` where a secret follows (R8).
    #[must_use]
    pub fn masked_path(&self) -> String {
        let secret = if self.config.path_secret.is_some() { "/***" } else { "" };
        format!("/hooks/{}{secret}", self.name)
    }
}

/// The dialects that the section names, and the tables in it that are no dialect and no common key.
fn dialects(section: &Section) -> (Vec<&'static SourceType>, Vec<String>) {
    let keys = section.keys();
    let rows = SOURCE_TYPES.iter().filter(|row| keys.iter().any(|key| key == row.name)).collect();
    let common = serde_json::to_value(Config::default()).unwrap_or_default();
    let tables = section.tables().into_iter().map(|(key, _)| key);
    let is_stranger =
        |key: &String| SOURCE_TYPES.iter().all(|row| row.name != key) && common.get(key).is_none();
    (rows, tables.filter(is_stranger).collect())
}

fn known_dialects() -> String {
    SOURCE_TYPES.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}

fn unknown_dialect(name: &str) -> String {
    let meant = nearest(name, SOURCE_TYPES.iter().map(|row| row.name));
    let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    format!("is no dialect{hint} (known: {})", known_dialects())
}

/// What the types of the common keys let pass and may not stand.
fn wrong_values(config: &Config, credentials: &[HeaderName], section: &Section) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    if any_has_an_edge(config.path_secret.as_ref()) {
        errors.push(section.error("path_secret", EDGE_PROBLEM));
    }
    if config.keep_headers.len() > KEEP_HEADERS_MAX {
        errors.push(section.error("keep_headers", format!("at most {KEEP_HEADERS_MAX} headers can be kept")));
    }
    let mut taken: Vec<String> = Vec::new();
    for header in &config.keep_headers {
        let extension = extension_of_header(header);
        let problem = match HeaderName::from_bytes(header.as_bytes()) {
            Err(_) => "expected names of request headers",
            Ok(name) if authenticates(&name) || credentials.contains(&name) => {
                "a header that authenticates is never kept"
            }
            Ok(_) if !is_attribute_name(&extension) => {
                "the name of a kept header has 1 to 40 letters and digits besides hyphens"
            }
            Ok(_) if is_ours(&extension) => "a kept header would take the name of another attribute",
            Ok(_) if taken.contains(&extension) => "two kept headers would become the same attribute",
            Ok(_) => {
                taken.push(extension);
                continue;
            }
        };
        errors.push(section.error("keep_headers", problem));
    }
    errors
}

/// Does a header of this name prove who sends? By what is in it, since senders invent names; not by its end, since
/// some write what happened in a "key" (`X-Event-Key`).
fn authenticates(name: &HeaderName) -> bool {
    let letters = extension_of_header(name.as_str());
    let is_word = |word: &str| WORDS_OF_SECRET_NAMES.contains(&word);
    let mut words = name.as_str().split(|letter: char| !letter.is_ascii_alphanumeric());
    PARTS_OF_SECRET_NAMES.iter().any(|part| letters.contains(part))
        || words.any(is_word)
        || KEYS_OF_FUNCTIONS.contains(&name.as_str())
}

/// Attributes that CloudEvents, Hookbus or a dialect sets.
fn is_ours(extension: &str) -> bool {
    is_context_attribute(extension) || known_extension(extension).is_some()
}

/// `X-Shop-Domain` as `xshopdomain`.
fn extension_of_header(header: &str) -> String {
    let kept = header.chars().filter(char::is_ascii_alphanumeric);
    kept.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// The sender's trace (W3C Trace Context); none where its parent is malformed, then its state means nothing either.
fn trace(headers: &HeaderMap) -> Option<(String, String)> {
    let mut parents = headers.get_all("traceparent").iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() || !is_trace_parent(parent) {
        return None;
    }
    let states: Result<Vec<&str>, _> =
        headers.get_all("tracestate").iter().map(|state| state.to_str()).collect();
    let state = states.map(|states| states.join(",")).unwrap_or_default();
    let state = if state.len() <= TRACESTATE_BYTES_MAX { state } else { String::new() };
    Some((parent.to_owned(), state))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower case, ids not zero; a later version may go on after another hyphen.
fn is_trace_parent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags, further @ ..] = parts.as_slice() else { return false };
    let is_hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, digits| is_hex(part, digits) && part.bytes().any(|byte| byte != b'0');
    let is_version = is_hex(version, 2) && *version != "ff" && (*version != "00" || further.is_empty());
    is_version && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2) && text.len() <= 128
}

#[cfg(test)]
#[path = "configured_tests.rs"]
mod tests;
