//! The dialects of senders that sign: a scheme proves who sent a request, a description says what it is about.
//! Holds: nothing is read before it is verified; a verified post is kept even where it cannot be read, since most of
//! these senders give up after a few tries, or after one.
//! Absent on purpose: the schemes (`verify`), what each sender's fields mean (its own file).

use super::facts::Facts;
use super::payload::Payload;
use super::verify::{Algorithm, HmacKeys, Scheme, SecretProblem, TOLERANCE_DEFAULT};
use super::{
    Answer, CannotSign, Draft, Handshake, Head, OnUnreadable, Proof, Refused, Request, Source, Unreadable,
};
use crate::config::{ConfigError, ConfigErrors, OneOrMany, Period, Secret, Section};
use crate::envelope::Envelope;
use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What a sender's requests are about.
pub(super) trait Describe: Send + Sync + 'static {
    /// What is found in one verified request.
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts;
    /// A field of a form that holds the JSON of the event, where the sender can be set to that.
    fn json_field(&self) -> Option<&'static str> {
        None
    }
    /// The answer to a verified question.
    fn handshake(&self, _request: &Request<'_>) -> Option<Handshake> {
        None
    }
    /// What a 2xx says.
    fn answer(&self) -> Answer {
        Answer::Identities
    }
}

/// A dialect made of the two.
pub(super) struct Signed<S, D> {
    scheme: S,
    describe: D,
}

impl<S: Scheme + 'static, D: Describe> Signed<S, D> {
    pub(super) fn source(scheme: S, describe: D) -> Arc<dyn Source> {
        Arc::new(Signed { scheme, describe })
    }
}

impl<S: Scheme, D: Describe> Source for Signed<S, D> {
    fn methods(&self) -> &'static [Method] {
        static METHODS: [Method; 1] = [Method::POST];
        &METHODS
    }

    fn has_credential(&self) -> bool {
        true
    }

    fn credential_headers(&self) -> &[HeaderName] {
        self.scheme.headers()
    }

    fn knows_secret(&self, text: &[u8]) -> bool {
        self.scheme.knows(text)
    }

    fn authenticate(&self, head: &Head<'_>) -> Result<(), Refused> {
        self.scheme.present(head)
    }

    fn tolerance(&self) -> Option<Duration> {
        self.scheme.tolerance()
    }

    fn signs(&self) -> bool {
        self.scheme.covers_body()
    }

    fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        self.scheme.verify(request)
    }

    fn sign(&self, draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        self.scheme.sign(draft)
    }

    fn handshake(&self, request: &Request<'_>) -> Option<Handshake> {
        self.describe.handshake(request)
    }

    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        let mut payload = Payload::read(request)?;
        if let Some(field) = self.describe.json_field() {
            payload = payload.with_json_of_field(field);
        }
        let facts = self.describe.facts(request, &payload);
        Ok(vec![facts.envelope(request, payload)])
    }

    fn answer(&self) -> Answer {
        self.describe.answer()
    }

    fn on_unreadable(&self) -> OnUnreadable {
        OnUnreadable::Quarantine
    }
}

/// The keys of a dialect whose signatures carry no time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Undated {
    /// What the sender signs with; several while one is being replaced. Required.
    secret: Option<OneOrMany<Secret>>,
}

impl Undated {
    /// The keys in `section`: HMAC-SHA256 with the secret as it stands there.
    pub(super) fn read(section: &Section) -> Result<HmacKeys, ConfigErrors> {
        let config: Undated = section.extract()?;
        HmacKeys::of(config.secret.as_ref(), Algorithm::Sha256)
            .map_err(|problem| wrong_secret(section, problem))
    }
}

/// The keys of a dialect whose signatures carry their time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Dated {
    /// What the sender signs with; several while one is being replaced. Required.
    secret: Option<OneOrMany<Secret>>,
    /// How far the time of a signature may be from the arrival.
    tolerance: Period,
}

impl Default for Dated {
    fn default() -> Self {
        Dated { secret: None, tolerance: TOLERANCE_DEFAULT }
    }
}

impl Dated {
    /// The keys in `section`, and the tolerance.
    pub(super) fn read(section: &Section) -> Result<(HmacKeys, Duration), ConfigErrors> {
        let config: Dated = section.extract()?;
        let mut errors = Vec::new();
        let keys = HmacKeys::of(config.secret.as_ref(), Algorithm::Sha256);
        let keys = ConfigErrors::collect(&mut errors, keys.map_err(|problem| wrong_secret(section, problem)));
        let tolerance = ConfigErrors::collect(&mut errors, tolerance(section, config.tolerance));
        match (keys, tolerance) {
            (Some(keys), Some(tolerance)) => Ok((keys, tolerance)),
            _ => Err(ConfigErrors(errors)),
        }
    }
}

/// The defaults of a dialect's keys, for documents and tests.
pub(super) fn defaults<C: Default + Serialize>() -> serde_json::Value {
    serde_json::to_value(C::default()).unwrap_or_default()
}

/// The problem with `secret`, as an error of the configuration.
pub(super) fn wrong_secret(section: &Section, problem: SecretProblem) -> ConfigErrors {
    ConfigErrors(vec![section.error("secret", problem.to_string())])
}

/// A tolerance that lets a request arrive at all.
pub(super) fn tolerance(section: &Section, written: Period) -> Result<Duration, ConfigErrors> {
    if written < Period::secs(1) {
        let problem = "must be at least 1s: a signature takes time to arrive";
        return Err(ConfigErrors(vec![section.error("tolerance", problem)]));
    }
    Ok(written.get())
}

/// Every problem of a dialect's keys, as errors of the configuration; none is no error.
pub(super) fn no_problems(
    section: &Section,
    wrong: &[(&'static str, &'static str)],
) -> Result<(), ConfigErrors> {
    let errors: Vec<ConfigError> = wrong.iter().map(|(key, problem)| section.error(key, *problem)).collect();
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}
