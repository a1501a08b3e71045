//! The senders' dialects: how a request proves who sent it, and which envelopes its bytes become.
//! Holds: pure functions of the request; time and a fresh identity arrive with it (`Arrival`).
//! Absent on purpose: HTTP serving, limits and the journal (`ingress`); what happens to unreadable bodies (`ingress` decides).

mod access;
mod account;
mod cloudevents;
mod configured;
mod facts;
mod form;
#[cfg(test)]
mod fuzz_tests;
mod generic;
mod github;
mod gitlab;
mod hmac;
mod json;
mod payload;
mod picks;
mod plugzapi;
mod secrets;
mod shopify;
mod signed;
mod slack;
mod standard_webhooks;
mod stripe;
#[cfg(test)]
mod testing;
mod twilio;
mod verify;
mod whatsapp;
mod zapi;

pub use account::Account;
pub use secrets::{PARTS_OF_SECRET_NAMES, WORDS_OF_SECRET_NAMES};

use crate::config::{ByteSize, ConfigErrors, OneOrMany, Period, Rate, Secret, Section};
use crate::envelope::{Envelope, SourceName};
use crate::time::UnixMs;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Uri};
use secrets::LiveSecrets;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// When a request arrived, and an identity of its own for events that carry none.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The wall clock, read once for the request.
    pub at: UnixMs,
    /// A UUIDv7 made for the request.
    pub unique: uuid::Uuid,
}

/// Who is at the other end, as far as the connection tells, and the proxies that the configuration trusts.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The client's address; behind a trusted proxy the one that it forwarded for. `None` where that is not clear: such
    /// a client is in no network, not even in one of all addresses.
    pub address: Option<IpAddr>,
    /// `http` or `https`, as the client used it.
    pub scheme: &'a str,
    /// Host and port of the URL as the client wrote it; empty where nobody says.
    pub authority: &'a str,
    /// The names in the client certificate that TLS has verified: its DNS and URI names, or else its common name.
    pub certificate_names: &'a [String],
}

impl Peer<'static> {
    /// Nobody in particular: for what was sent long ago.
    pub const NONE: Peer<'static> =
        Peer { address: None, scheme: "https", authority: "", certificate_names: &[] };
}

/// What a dialect sees of a request before its body is read.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The source the path named.
    pub source: &'a SourceName,
    /// Who sends it.
    pub peer: Peer<'a>,
    /// The path of the URL, with the path secret where there is one.
    pub path: &'a str,
    /// The HTTP method, one of [`Source::methods`].
    pub method: &'a Method,
    /// The path carried one of the source's path secrets; false where none is configured.
    pub path_secret_matched: bool,
    /// The query string without `?`.
    pub query: Option<&'a str>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The most requests that the source takes, for senders that ask; none where it is not limited.
    pub rate: Option<Rate>,
}

/// A whole request: its head and the inflated body.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What came before the body.
    pub head: Head<'a>,
    /// The body after any content coding was undone.
    pub body: &'a Bytes,
    /// When it came.
    pub arrival: Arrival,
}

/// The request did not prove who sent it. What was expected is never said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// No credential where one is required.
    #[error("no credential was sent")]
    Missing,
    /// A credential that is not one of the live ones.
    #[error("the credential is not valid")]
    Wrong,
    /// A signature whose time is too far from now: a repetition by a third party, or a clock that is wrong.
    #[error("the signature is too old or too new")]
    Stale,
    /// An address that may not send to this source.
    #[error("the address may not send here")]
    Address,
}

impl Refused {
    /// Every reason there is.
    pub const ALL: [Refused; 4] = [Refused::Missing, Refused::Wrong, Refused::Stale, Refused::Address];

    /// The closed set of metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Refused::Missing => "missing",
            Refused::Wrong => "wrong",
            Refused::Stale => "stale",
            Refused::Address => "address",
        }
    }
}

/// What a sender asks before it sends events, answered with 200; it carries none itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Handshake {
    /// Headers of the answer, its media type among them.
    pub headers: HeaderMap,
    /// The body of the answer.
    pub body: Bytes,
}

/// An authenticated request whose body could not become envelopes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON at all, or cut off.
    #[error("the body is not valid JSON")]
    NotJson,
    /// JSON, but not UTF-8.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// JSON whose top level is not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// Nested more than 64 levels.
    #[error("the body is nested too deeply")]
    TooDeep,
    /// The payload names another instance than the source's.
    #[error("the payload belongs to another instance")]
    OtherInstance,
    /// The dialect cannot take this media type.
    #[error("the media type is not one this source takes")]
    MediaType,
    /// Neither a media type of CloudEvents nor the header of its binary mode.
    #[error("the request is no CloudEvent: it has neither its media type nor the header ce-specversion")]
    NotACloudEvent,
    /// A CloudEvent of another version, or of none.
    #[error("the specversion of the CloudEvent is not 1.0")]
    SpecVersion,
    /// A CloudEvent without one of the attributes that each has.
    #[error("the CloudEvent lacks id, source or type")]
    AttributeMissing,
    /// An attribute that CloudEvents does not allow: its name, its value, its type, there twice, or too long in all.
    #[error("an attribute of the CloudEvent has a name or a value that is not allowed")]
    Attribute,
    /// Data in two forms at once, or in none that can be decoded.
    #[error("data and data_base64 exclude each other, and each must be what it says")]
    EventData,
    /// More events in one batch than are taken at once.
    #[error("the batch has more than 10000 events")]
    BatchTooLarge,
}

impl Unreadable {
    /// Every reason there is.
    pub const ALL: [Unreadable; 12] = [
        Unreadable::NotJson,
        Unreadable::NotUtf8,
        Unreadable::NotAnObject,
        Unreadable::TooDeep,
        Unreadable::OtherInstance,
        Unreadable::MediaType,
        Unreadable::NotACloudEvent,
        Unreadable::SpecVersion,
        Unreadable::AttributeMissing,
        Unreadable::Attribute,
        Unreadable::EventData,
        Unreadable::BatchTooLarge,
    ];

    /// The closed set of metric labels and stored reason codes.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Unreadable::NotJson => "not_json",
            Unreadable::NotUtf8 => "not_utf8",
            Unreadable::NotAnObject => "not_an_object",
            Unreadable::TooDeep => "too_deep",
            Unreadable::OtherInstance => "other_instance",
            Unreadable::MediaType => "media_type",
            Unreadable::NotACloudEvent => "not_a_cloudevent",
            Unreadable::SpecVersion => "specversion",
            Unreadable::AttributeMissing => "attribute_missing",
            Unreadable::Attribute => "attribute",
            Unreadable::EventData => "event_data",
            Unreadable::BatchTooLarge => "batch_too_large",
        }
    }
}

/// The body of a 2xx in the sender's own dialect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// `{"value":true}`
    ValueTrue,
    /// `{"id":…,"duplicate":…}`, a list of these where the request held several events.
    Identities,
    /// Always the same, whatever was kept: for senders that read the answer as instructions.
    Fixed {
        /// Its media type.
        media_type: &'static str,
        /// Its text, perhaps none.
        body: &'static str,
    },
}

/// A request about to be posted to a source of our own, as its sender would (`hookbus send`).
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Where it goes, without a query.
    pub uri: &'a Uri,
    /// The media type of its body.
    pub content_type: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// When it is sent, and an identity for it.
    pub arrival: Arrival,
}

/// What makes a [`Draft`] a request of the source's sender.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// Headers to add: signature, time, id.
    pub headers: HeaderMap,
    /// The query to post with.
    pub query: Option<String>,
}

/// The source knows how to check a signature and not how to make one: it has public keys only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this source's secrets check signatures and make none")]
pub struct CannotSign;

/// One sender's dialect. A new one is a file under `source/` and a row in [`SOURCE_TYPES`].
pub trait Source: Send + Sync {
    /// The methods it takes; anything else is a 405 that names these.
    fn methods(&self) -> &'static [Method];
    /// True where at least one credential of the dialect's own is configured.
    fn has_credential(&self) -> bool;
    /// The headers that carry the dialect's credentials: never kept, logged or passed on.
    fn credential_headers(&self) -> &[HeaderName] {
        &[]
    }
    /// Is `text` one of the dialect's secrets that senders present as they are? For those who must not show it.
    fn knows_secret(&self, _text: &[u8]) -> bool {
        false
    }
    /// Checks who sent the request, in constant time, as far as its head tells. Asked before the body is read, so that
    /// whoever has no credential takes up neither memory nor a place among the requests in work.
    ///
    /// # Errors
    /// [`Refused`] where the credential is missing or wrong.
    fn authenticate(&self, head: &Head<'_>) -> Result<(), Refused>;
    /// True where who sent a request shows only in its body: then [`Source::verify`] comes before the source's rate.
    fn signs(&self) -> bool {
        false
    }
    /// How old a signature may be; `None` where there is none, or none with a time.
    fn tolerance(&self) -> Option<Duration> {
        None
    }
    /// Checks the signature over the body's bytes, in constant time, and its age against the request's arrival. The body
    /// is the one after content codings were undone: senders sign what they wrote.
    ///
    /// # Errors
    /// [`Refused`] where it does not match.
    fn verify(&self, _request: &Request<'_>) -> Result<(), Refused> {
        Ok(())
    }
    /// Makes a request of our own pass [`Source::authenticate`] and [`Source::verify`].
    ///
    /// # Errors
    /// [`CannotSign`]
    fn sign(&self, _draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        Ok(Proof::default())
    }
    /// The answer to a verified request that asks something and carries no event.
    fn handshake(&self, _request: &Request<'_>) -> Option<Handshake> {
        None
    }
    /// Turns the body into one or more envelopes, with every attribute except those that the common keys of the
    /// source add (`hookbussource`, `receivedtime`, `traceparent`, `keep_headers`).
    ///
    /// # Errors
    /// [`Unreadable`] where that is not possible; the caller rejects or quarantines.
    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable>;
    /// What a 2xx says.
    fn answer(&self) -> Answer;
    /// What happens to unreadable bodies where the configuration does not say.
    fn on_unreadable(&self) -> OnUnreadable;
    /// The account at the sender's provider, where the provider has an API that sets webhooks and tells how it is.
    fn account(&self) -> Option<&Account> {
        None
    }
}

/// What happens to an authenticated body that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnreadable {
    /// 400, nothing is kept.
    Reject,
    /// Kept as a dead letter of the ingress, answered 2xx.
    Quarantine,
}

/// The keys every source has, whatever its dialect: `[sources.N]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The last path segment that authenticates the sender; several while one is being replaced.
    pub path_secret: Option<OneOrMany<Secret>>,
    /// The most bytes of a body, raw and inflated; absent: the ingress' own.
    pub body_max: Option<ByteSize>,
    /// The most requests; absent: unlimited.
    pub rate: Option<Rate>,
    /// Absent: the dialect's own choice.
    pub on_unreadable: Option<OnUnreadable>,
    /// Request headers that become extension attributes.
    pub keep_headers: Vec<String>,
    /// How long an event is recognised when it comes again; `0s` = off.
    pub dedupe: Period,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            path_secret: None,
            body_max: None,
            rate: None,
            on_unreadable: None,
            keep_headers: Vec::new(),
            dedupe: Period::mins(10),
        }
    }
}

/// A row of the table of dialects.
pub struct SourceType {
    /// The key of its section: `[sources.N.NAME]`.
    pub name: &'static str,
    /// Reads its section and makes the dialect.
    pub build: fn(&Section) -> Result<Arc<dyn Source>, ConfigErrors>,
    /// Its own keys with their defaults, for documents and tests.
    pub defaults: fn() -> serde_json::Value,
}

/// Every dialect, alphabetical.
pub static SOURCE_TYPES: &[SourceType] = &[
    cloudevents::TYPE,
    generic::TYPE,
    github::TYPE,
    gitlab::TYPE,
    hmac::TYPE,
    plugzapi::TYPE,
    shopify::TYPE,
    slack::TYPE,
    standard_webhooks::TYPE,
    stripe::TYPE,
    twilio::TYPE,
    zapi::TYPE,
];

/// A source as configured: its name, the common keys and its dialect.
#[derive(Clone)]
pub struct ConfiguredSource {
    /// The name in the configuration and the URL.
    pub name: SourceName,
    /// The common keys.
    pub config: Config,
    /// The key of its dialect in [`SOURCE_TYPES`].
    pub type_name: &'static str,
    /// The dialect.
    pub dialect: Arc<dyn Source>,
    path_secrets: LiveSecrets,
}

/// All sources by name.
pub type Sources = BTreeMap<SourceName, ConfiguredSource>;
