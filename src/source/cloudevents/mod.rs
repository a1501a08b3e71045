//! Senders that speak CloudEvents 1.0 over HTTP: binary, structured and batched, and the handshake of its web hooks.
//! Holds: R7; every attribute of the event stays as the sender wrote it, `source` and `id` its identity among them.
//! Absent on purpose: callbacks (`WebHook-Request-Callback`): whoever asks would name a URL for us to call.
//!
//! References: HTTP binding, JSON event format and HTTP web hooks of CloudEvents, each version 1.0.2.

mod binary;
mod draft;
mod structured;

pub(super) use draft::Content;

use super::access::after_scheme;
use super::form::Form;
use super::secrets::{EDGE_PROBLEM, LiveSecrets, any_has_an_edge};
use super::{Answer, Handshake, Head, OnUnreadable, Refused, Request, Source, SourceType, Unreadable};
use crate::config::{ConfigErrors, OneOrMany, Rate, Secret, Section};
use crate::envelope::Envelope;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType {
    name: "cloudevents",
    build,
    defaults: || serde_json::to_value(Config::default()).unwrap_or_default(),
};

/// The query parameter that carries a token (web hooks, section 3.2).
const TOKEN_PARAMETER: &str = "access_token";
const REQUEST_ORIGIN: &str = "webhook-request-origin";
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
const ANY: &str = "*";

/// `[sources.N.cloudevents]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The token that senders present: after `Bearer` in `authorization`, or as the query's `access_token`.
    token: Option<OneOrMany<Secret>>,
    /// The senders that are told in the handshake that they may send; `*` is any, none is nobody.
    allowed_origins: Vec<String>,
}

struct CloudEvents {
    tokens: LiveSecrets,
    allowed_origins: Vec<String>,
}

/// How a request carries its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Binary,
    Structured,
    Batch,
}

fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let config: Config = section.extract()?;
    if !config.allowed_origins.iter().all(|origin| origin == ANY || is_origin(origin)) {
        let problem = "expected names such as \"events.example.com\", or \"*\"";
        return Err(section.error("allowed_origins", problem).into());
    }
    if any_has_an_edge(config.token.as_ref()) {
        return Err(section.error("token", EDGE_PROBLEM).into());
    }
    let tokens = LiveSecrets::of(config.token.as_ref());
    Ok(Arc::new(CloudEvents { tokens, allowed_origins: config.allowed_origins }))
}

/// A DNS name, also one with a wildcard, that can be said in a header.
fn is_origin(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*' | b':');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(fits)
}

impl Source for CloudEvents {
    fn methods(&self) -> &'static [Method] {
        static METHODS: [Method; 2] = [Method::POST, Method::OPTIONS];
        &METHODS
    }

    fn has_credential(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn credential_headers(&self) -> &[HeaderName] {
        const HEADERS: [HeaderName; 1] = [AUTHORIZATION];
        if self.tokens.is_empty() { &[] } else { &HEADERS }
    }

    fn knows_secret(&self, text: &[u8]) -> bool {
        self.tokens.contains(text)
    }

    /// The handshake asks for no token: it grants nothing, and senders carry it out before they have one (section 4).
    fn authenticate(&self, head: &Head<'_>) -> Result<(), Refused> {
        if self.tokens.is_empty() || *head.method == Method::OPTIONS {
            return Ok(());
        }
        let mut outcome = Err(Refused::Missing);
        for value in head.headers.get_all(AUTHORIZATION) {
            match after_scheme(value.as_bytes(), "bearer") {
                Some(token) if self.tokens.contains(token) => outcome = Ok(()),
                _ => return Err(Refused::Wrong),
            }
        }
        let query = Form::read(head.query.unwrap_or_default().as_bytes());
        for (_, token) in query.fields().filter(|(name, _)| *name == TOKEN_PARAMETER.as_bytes()) {
            if !self.tokens.contains(token) {
                return Err(Refused::Wrong);
            }
            outcome = Ok(());
        }
        outcome
    }

    /// Besides the handshake itself, a batch without events: it is valid (JSON format, section 4.3), and there is
    /// nothing to keep.
    fn handshake(&self, request: &Request<'_>) -> Option<Handshake> {
        if *request.head.method == Method::OPTIONS {
            return Some(Handshake { headers: self.permission(&request.head), body: Bytes::new() });
        }
        let is_nothing =
            mode(request.head.headers) == Ok(Mode::Batch) && structured::is_empty_batch(request.body);
        is_nothing.then(|| {
            let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Handshake { headers: HeaderMap::from_iter([json]), body: Bytes::from_static(b"[]") }
        })
    }

    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        match mode(request.head.headers)? {
            Mode::Binary => binary::read(request).map(|event| vec![event]),
            Mode::Structured => structured::read(request.body).map(|event| vec![event]),
            Mode::Batch => structured::read_batch(request.body),
        }
    }

    fn answer(&self) -> Answer {
        Answer::Identities
    }

    fn on_unreadable(&self) -> OnUnreadable {
        OnUnreadable::Reject
    }
}

impl CloudEvents {
    /// Section 4.2: consent is the two headers, not the status; without them the sender has none.
    fn permission(&self, head: &Head<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        let Some(origin) = head.headers.get(REQUEST_ORIGIN) else { return headers };
        let is_allowed =
            |allowed: &String| allowed == ANY || origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
        if is_origin(&String::from_utf8_lossy(origin.as_bytes()))
            && self.allowed_origins.iter().any(is_allowed)
        {
            headers.insert(ALLOWED_ORIGIN, origin.clone());
            headers.insert(ALLOWED_RATE, head.rate.map_or(HeaderValue::from_static(ANY), per_minute));
        }
        headers
    }
}

/// Requests per minute, rounded down, but at least one: the header knows no zero (section 4.2.2).
fn per_minute(rate: Rate) -> HeaderValue {
    let count = u128::from(rate.count) * 60_000 / rate.per.as_millis().max(1);
    HeaderValue::from(u64::try_from(count).unwrap_or(u64::MAX).max(1))
}

/// The media type decides; only where it is none of CloudEvents' own is the header looked at (HTTP binding, section 3).
fn mode(headers: &HeaderMap) -> Result<Mode, Unreadable> {
    let media_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
    let essence = media_type.as_deref().and_then(|value| value.split(|byte| *byte == b';').next());
    match essence.unwrap_or_default().trim_ascii() {
        b"application/cloudevents+json" => Ok(Mode::Structured),
        b"application/cloudevents-batch+json" => Ok(Mode::Batch),
        // Another format, Avro say.
        other if other.starts_with(b"application/cloudevents") => Err(Unreadable::MediaType),
        _ if headers.contains_key(binary::VERSION) => Ok(Mode::Binary),
        _ => Err(Unreadable::NotACloudEvent),
    }
}

#[cfg(test)]
mod tests;
