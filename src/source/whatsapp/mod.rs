//! The WhatsApp gateway engine behind `zapi` and `plugzapi`: one set of webhooks under two brands.
//! Holds: an authenticated post is refused for nothing but its form (UTF-8, JSON, an object, 64 levels) and its
//! instance; everything else is data. The provider's own documentation contradicts itself, so no type, unit, spelling
//! or presence of a field is relied upon.
//! Absent on purpose: calls to the provider (`provider`), which need to know the account that is read here.

mod attributes;
mod class;
mod identity;
mod payload;

use super::secrets::{EDGE_PROBLEM, LiveSecrets, any_has_an_edge};
use super::{Account, Answer, Head, OnUnreadable, Refused, Request, Source, Unreadable};
use crate::config::{ConfigError, ConfigErrors, HttpUrl, OneOrMany, Period, Secret, Section};
use crate::envelope::Envelope;
use http::{HeaderName, Method};
use identity::{Owner, StatusDedupe};
use payload::{Field, Payload};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// No polls.
const NEVER: Period = Period::secs(0);
/// The shortest time between two polls: the API is the provider's, and shared.
const POLL_MIN: Period = Period::secs(10);

/// What differs between two brands of the engine.
pub(super) struct Brand {
    /// The extension `provider`, an element of every identity.
    pub(super) name: &'static str,
    /// The brand as people call it.
    pub(super) title: &'static str,
    /// The authority of its API and of the CloudEvents `source`.
    pub(super) host: &'static str,
    /// What CloudEvents types begin with where the configuration does not say.
    pub(super) type_prefix: &'static str,
    /// Its documentation has all of the API that setting webhooks wants; see [`Account::documents_all`].
    pub(super) documents_all: bool,
    /// Its documentation says that a call without the account's security token is refused.
    pub(super) needs_client_token: bool,
}

impl Brand {
    pub(super) fn build(&'static self, section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
        let config: Config = section.extract()?;
        let gateway = Gateway::new(self, config, section.path()).map_err(|wrong| {
            let errors = wrong.into_iter().map(|(key, problem)| section.error(key, problem));
            ConfigErrors(errors.collect::<Vec<ConfigError>>())
        })?;
        Ok(Arc::new(gateway))
    }

    pub(super) fn defaults(&self) -> serde_json::Value {
        let config = Config {
            type_prefix: Some(self.type_prefix.to_owned()),
            api: Some(self.api()),
            ..Config::default()
        };
        serde_json::to_value(config).unwrap_or_default()
    }

    fn api(&self) -> HttpUrl {
        format!("https://{}", self.host).parse().expect("the hosts of the brands are hosts")
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
    /// The account's security token, a header of calls to the API.
    pub(super) client_token: Option<Secret>,
    /// Where the API is. Absent: the brand's own place.
    pub(super) api: Option<HttpUrl>,
    /// How often the instance is asked for its state; `0s`: never.
    pub(super) poll: Period,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            instance: None,
            token: None,
            token_header: "z-api-token".to_owned(),
            type_prefix: None,
            status_dedupe: StatusDedupe::Event,
            client_token: None,
            api: None,
            poll: Period::secs(0),
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
    account: Account,
}

impl Gateway {
    /// Checks the values that their types let pass; the error lists keys and problems.
    pub(super) fn new(
        brand: &'static Brand,
        config: Config,
        section: &str,
    ) -> Result<Self, Vec<(&'static str, &'static str)>> {
        let mut wrong = Vec::new();
        let instance = config.instance.as_ref().map(|instance| instance.trim().to_owned());
        if instance.as_deref() == Some("") {
            wrong.push(("instance", "must not be empty; leave it out to take every instance"));
        }
        let type_prefix = config.type_prefix.clone().unwrap_or_else(|| brand.type_prefix.to_owned());
        if !is_type_prefix(&type_prefix) {
            wrong.push((
                "type_prefix",
                "expected words of lower-case letters, digits and hyphens between dots",
            ));
        }
        if any_has_an_edge(config.token.as_ref()) {
            wrong.push(("token", EDGE_PROBLEM));
        }
        let account = account(brand, &config, section, instance.as_deref(), &type_prefix);
        wrong.extend(wrong_of_the_account(&account));
        let token_header = HeaderName::from_bytes(config.token_header.as_bytes());
        match token_header {
            Ok(token_header) if wrong.is_empty() => Ok(Gateway {
                brand,
                instance: instance.unwrap_or_default(),
                tokens: LiveSecrets::of(config.token.as_ref()),
                token_header: [token_header],
                type_prefix,
                status_dedupe: config.status_dedupe,
                account,
            }),
            Ok(_) => Err(wrong),
            Err(_) => {
                wrong.push(("token_header", "expected the name of a request header"));
                Err(wrong)
            }
        }
    }
}

fn account(
    brand: &'static Brand,
    config: &Config,
    section: &str,
    instance: Option<&str>,
    type_prefix: &str,
) -> Account {
    let event_source = instance.map(|instance| attributes::source_of_instance(brand.host, instance));
    Account {
        section: section.to_owned(),
        provider: brand.name,
        title: brand.title,
        api: config.api.clone().unwrap_or_else(|| brand.api()),
        instance: instance.map(str::to_owned),
        token: config.token.as_ref().and_then(|tokens| tokens.iter().next()).cloned(),
        client_token: config.client_token.clone(),
        needs_client_token: brand.needs_client_token,
        documents_all: brand.documents_all,
        poll: config.poll,
        type_prefix: type_prefix.to_owned(),
        event_source: event_source.unwrap_or_default(),
    }
}

fn wrong_of_the_account(account: &Account) -> Vec<(&'static str, &'static str)> {
    let mut wrong = Vec::new();
    if !account.api.is_https() && !account.api.is_loopback() {
        wrong.push(("api", "must be https: the token is part of every URL of the API"));
    }
    let is_header = |secret: &Secret| {
        http::HeaderValue::from_str(secret.expose()).is_ok() && secret.expose().trim() == secret.expose()
    };
    if account.client_token.as_ref().is_some_and(|secret| !is_header(secret)) {
        wrong.push(("client_token", "expected visible ASCII characters without blanks around them"));
    }
    if account.poll != NEVER {
        if account.poll < POLL_MIN {
            wrong.push(("poll", "expected at least \"10s\", or \"0s\" for never"));
        }
        wrong.extend(account.missing().into_iter().map(|key| (key, "is required by poll")));
    }
    wrong
}

/// Is this what the types of events may begin with?
pub(super) fn is_type_prefix(prefix: &str) -> bool {
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

    fn knows_secret(&self, text: &[u8]) -> bool {
        self.tokens.contains(text)
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

    fn account(&self) -> Option<&Account> {
        Some(&self.account)
    }
}

#[cfg(test)]
mod tests;
