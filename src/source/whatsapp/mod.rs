//! The WhatsApp gateway engine behind `zapi` and `plugzapi`: one set of webhooks under two brands.
//! Holds: an authenticated post is refused for nothing but its form (UTF-8, JSON, an object, 64 levels) and its
//! instance; everything else is data. The provider's own documentation contradicts itself, so no type, unit, spelling
//! or presence of a field is relied upon.
//! Absent on purpose: calls to the provider (setting its webhook URLs is a command's work).

mod attributes;
mod class;
mod identity;
mod payload;

use super::secrets::LiveSecrets;
use super::{Answer, Head, OnUnreadable, Refused, Request, Source, Unreadable};
use crate::config::{ConfigError, ConfigErrors, OneOrMany, Secret, Section};
use crate::envelope::Envelope;
use http::{HeaderName, Method};
use identity::{Owner, StatusDedupe};
use payload::{Field, Payload};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What differs between two brands of the engine.
pub(super) struct Brand {
    /// The extension `provider`, an element of every identity.
    pub(super) name: &'static str,
    /// The authority of the CloudEvents `source`.
    pub(super) host: &'static str,
    /// What CloudEvents types begin with where the configuration does not say.
    pub(super) type_prefix: &'static str,
}

impl Brand {
    pub(super) fn build(&'static self, section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
        let config: Config = section.extract()?;
        let gateway = Gateway::new(self, config).map_err(|wrong| {
            let errors = wrong.into_iter().map(|(key, problem)| section.error(key, problem));
            ConfigErrors(errors.collect::<Vec<ConfigError>>())
        })?;
        Ok(Arc::new(gateway))
    }

    pub(super) fn defaults(&self) -> serde_json::Value {
        let config = Config { type_prefix: Some(self.type_prefix.to_owned()), ..Config::default() };
        serde_json::to_value(config).unwrap_or_default()
    }
}

/// `[sources.N.zapi]` and `[sources.N.plugzapi]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// The instance whose events the source takes; a payload of another is unreadable. Absent: any.
    pub(super) instance: Option<String>,
    /// The instance's token as the gateway sends it; several while one is being replaced.
    pub(super) token: Option<OneOrMany<Secret>>,
    /// The request header that carries the token.
    pub(super) token_header: String,
    /// What CloudEvents types begin with. Absent: the brand's own.
    pub(super) type_prefix: Option<String>,
    /// Which status webhooks are the same event.
    pub(super) status_dedupe: StatusDedupe,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            instance: None,
            token: None,
            token_header: "z-api-token".to_owned(),
            type_prefix: None,
            status_dedupe: StatusDedupe::Event,
        }
    }
}

/// One source of either brand.
pub(super) struct Gateway {
    brand: &'static Brand,
    /// Empty: any.
    instance: String,
    tokens: LiveSecrets,
    token_header: [HeaderName; 1],
    type_prefix: String,
    status_dedupe: StatusDedupe,
}

impl Gateway {
    /// Checks the values that their types let pass; the error lists keys and problems.
    pub(super) fn new(
        brand: &'static Brand,
        config: Config,
    ) -> Result<Self, Vec<(&'static str, &'static str)>> {
        let mut wrong = Vec::new();
        let instance = config.instance.map(|instance| instance.trim().to_owned());
        if instance.as_deref() == Some("") {
            wrong.push(("instance", "must not be empty; leave it out to take every instance"));
        }
        let type_prefix = config.type_prefix.unwrap_or_else(|| brand.type_prefix.to_owned());
        if !is_type_prefix(&type_prefix) {
            wrong.push((
                "type_prefix",
                "expected words of lower-case letters, digits and hyphens between dots",
            ));
        }
        let token_header = HeaderName::from_bytes(config.token_header.as_bytes());
        match token_header {
            Ok(token_header) if wrong.is_empty() => Ok(Gateway {
                brand,
                instance: instance.unwrap_or_default(),
                tokens: LiveSecrets::of(config.token.as_ref()),
                token_header: [token_header],
                type_prefix,
                status_dedupe: config.status_dedupe,
            }),
            Ok(_) => Err(wrong),
            Err(_) => {
                wrong.push(("token_header", "expected the name of a request header"));
                Err(wrong)
            }
        }
    }
}

fn is_type_prefix(prefix: &str) -> bool {
    let is_word = |word: &str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !word.is_empty() && word.bytes().all(fits)
    };
    prefix.len() <= 128 && prefix.split('.').all(is_word)
}

impl Source for Gateway {
    fn methods(&self) -> &'static [Method] {
        static METHODS: [Method; 1] = [Method::POST];
        &METHODS
    }

    fn has_credential(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn credential_headers(&self) -> &[HeaderName] {
        &self.token_header
    }

    fn authenticate(&self, head: &Head<'_>) -> Result<(), Refused> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let mut is_missing = true;
        for presented in head.headers.get_all(&self.token_header[0]) {
            is_missing = false;
            if !self.tokens.contains(presented.as_bytes()) {
                return Err(Refused::Wrong);
            }
        }
        // The gateway documents no credential at all, so the secret in the URL may stand in for the header.
        if is_missing && !head.path_secret_matched { Err(Refused::Missing) } else { Ok(()) }
    }

    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        let payload = Payload::read(request.body)?;
        let named = payload.text(Field::InstanceId);
        if !self.instance.is_empty() && !named.is_empty() && named != self.instance {
            return Err(Unreadable::OtherInstance);
        }
        let instance = if named.is_empty() { self.instance.as_str() } else { &named };
        let classified = class::classify(&payload);
        let owner = Owner { provider: self.brand.name, instance };
        let key = identity::key(owner, &payload, &classified, self.status_dedupe, request.body);
        let id = key.as_deref().map(identity::id);
        let context = attributes::Context { brand: self.brand, type_prefix: &self.type_prefix, instance, id };
        Ok(vec![attributes::envelope(request, &payload, &classified, context)])
    }

    fn answer(&self) -> Answer {
        Answer::ValueTrue
    }

    fn on_unreadable(&self) -> OnUnreadable {
        OnUnreadable::Quarantine
    }
}

#[cfg(test)]
mod tests;
