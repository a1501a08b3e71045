//! `[sinks.N.kafka]`: the keys, what is wrong with them, and the sink they make.
//! Holds: R8 (no value that may be secret is printed); what cannot work is an error when the configuration is read, and
//! that includes every property that librdkafka does not know, does not take or would ignore.

use super::super::template::{Destination, Template};
use super::super::tls::TlsFiles;
use super::super::{BuildError, Context, OwnKeys, Sink, SinkConfig};
use super::client::{CONNECT_TIMEOUT, Plan};
use super::look::Look;
use super::oauth::Authority;
use super::passed_on::PassedOn;
use super::properties::{Properties, objection};
use super::record::{Encoder, is_safe_in_a_topic, is_topic};
use super::{KafkaSink, try_out};
use crate::config::{ByteSize, ConfigError, OneOrMany, Secret, Section};
use crate::shutdown::Shutdown;
use reqwest::{Url, redirect};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// What the keys are tried out with where the sink's own time-out is not known.
const ANY_TIMEOUT: Duration = Duration::from_secs(30);
/// The range of sizes that librdkafka takes.
const MESSAGE_BYTES: std::ops::RangeInclusive<u64> = 1000..=1_000_000_000;

/// How batches are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Compression {
    None,
    Gzip,
    Snappy,
    /// Costs least where it saves much.
    #[default]
    Lz4,
    Zstd,
}

impl Compression {
    pub(super) fn label(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// How the user proves who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl Mechanism {
    pub(super) fn label(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// `[sinks.N.kafka.sasl]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sasl {
    pub(super) mechanism: Option<Mechanism>,
    /// For PLAIN and SCRAM.
    pub(super) username: Option<Secret>,
    /// For PLAIN and SCRAM.
    pub(super) password: Option<Secret>,
    /// For OAUTHBEARER: where tokens are fetched by the client credentials grant.
    token_url: Option<Secret>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    scope: Option<String>,
    /// PEM file with the certificates to trust at `token_url` instead of the system's.
    token_ca: Option<PathBuf>,
}

/// `[sinks.N.kafka]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// `host:port` of one broker or several; required.
    brokers: Option<OneOrMany<String>>,
    /// The topic, a template; required.
    pub(super) topic: Option<Template>,
    /// Globs of which one must take the topic.
    topic_allowed: Vec<String>,
    /// The key of a record, a template; an event that lacks an attribute of it has none.
    key: Template,
    pub(super) compression: Compression,
    /// The most bytes of a record; without it what the topic takes.
    pub(super) message_max: Option<ByteSize>,
    /// Whether brokers are spoken to over TLS.
    tls: Option<bool>,
    /// PEM file with the certificates to trust instead of the system's.
    pub(super) ca: Option<PathBuf>,
    /// PEM file with the client's certificate chain.
    pub(super) cert: Option<PathBuf>,
    /// PEM file with the client's key.
    pub(super) cert_key: Option<PathBuf>,
    /// What the key is encrypted with.
    pub(super) cert_key_password: Option<Secret>,
    pub(super) sasl: Sasl,
    /// Any other property of librdkafka.
    pub(super) properties: PassedOn,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            brokers: None,
            topic: None,
            topic_allowed: Vec::new(),
            key: Template::parse("{partitionkey}").expect("a constant template"),
            compression: Compression::default(),
            message_max: None,
            tls: None,
            ca: None,
            cert: None,
            cert_key: None,
            cert_key_password: None,
            sasl: Sasl::default(),
            properties: PassedOn::default(),
        }
    }
}

impl OwnKeys for Config {
    fn check(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        let before = errors.len();
        self.check_places(section, errors);
        self.check_tls(section, errors);
        self.check_sasl(section, errors);
        for (name, _) in self.properties.iter() {
            if let Some(problem) = objection(name) {
                errors.push(section.error(&format!("properties.{name}"), problem));
            }
        }
        if errors.len() > before {
            return;
        }
        // Certificates are read when the sink is built.
        let mut alone = self.clone();
        (alone.tls, alone.sasl) = (None, Sasl::default());
        let properties = Properties::new(alone, String::new(), ANY_TIMEOUT, None);
        let refused = match properties.without_addresses(None) {
            Ok(client) => try_out::refusals(&client),
            Err(_) => Vec::new(),
        };
        let refused = refused.into_iter().map(|(name, problem)| match name {
            Some(name) => section.error(&format!("properties.{name}"), problem),
            None => section.error("properties", problem),
        });
        errors.extend(refused);
    }
}

impl Config {
    pub(super) fn brokers(&self) -> String {
        let brokers = self.brokers.iter().flat_map(OneOrMany::iter);
        brokers.flat_map(|brokers| brokers.split(',')).map(str::trim).collect::<Vec<_>>().join(",")
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.unwrap_or_default()
    }

    fn destination(&self) -> Option<Destination> {
        let topic = self.topic.clone()?;
        Some(Destination::new(topic, self.topic_allowed.clone(), is_safe_in_a_topic))
    }

    fn check_places(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        const EXPECTED: &str = "expected HOST:PORT, \"kafka-1.example.com:9092\" for example";
        match &self.brokers {
            None => errors.push(section.error("brokers", "is required: HOST:PORT of the brokers")),
            Some(_) if !self.brokers().split(',').all(is_address) => {
                errors.push(section.error("brokers", EXPECTED));
            }
            Some(_) => {}
        }
        match self.destination() {
            None => errors.push(section.error("topic", "is required: the topic to write to")),
            Some(topic) => {
                topic.check(section, "topic", "topic_allowed", errors);
                if topic.constant().is_some_and(|name| !is_topic(name)) {
                    let problem = "expected 1 to 249 of a-z, A-Z, 0-9, dot, underscore and hyphen";
                    errors.push(section.error("topic", problem));
                }
            }
        }
        if self.message_max.is_some_and(|size| !MESSAGE_BYTES.contains(&size.get())) {
            errors.push(section.error("message_max", "expected 1KB to 1GB"));
        }
    }

    fn check_tls(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        let files = [
            ("ca", self.ca.is_some()),
            ("cert", self.cert.is_some()),
            ("cert_key", self.cert_key.is_some()),
            ("cert_key_password", self.cert_key_password.is_some()),
        ];
        for (key, is_set) in files {
            if is_set && !self.speaks_tls() {
                errors.push(section.error(key, "has no effect without tls = true"));
            }
        }
        if self.cert.is_some() != self.cert_key.is_some() {
            let missing = if self.cert.is_some() { "cert_key" } else { "cert" };
            errors.push(section.error(missing, "is required: cert and cert_key belong together"));
        } else if self.cert_key_password.is_some() && self.cert_key.is_none() {
            errors.push(section.error("cert_key_password", "has no effect without cert_key"));
        }
    }

    fn check_sasl(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        let sasl = &self.sasl;
        let is_token = sasl.mechanism == Some(Mechanism::OauthBearer);
        let is_password = sasl.mechanism.is_some() && !is_token;
        for (key, is_set, belongs, is_needed) in [
            ("username", sasl.username.is_some(), is_password, true),
            ("password", sasl.password.is_some(), is_password, true),
            ("token_url", sasl.token_url.is_some(), is_token, true),
            ("client_id", sasl.client_id.is_some(), is_token, true),
            ("client_secret", sasl.client_secret.is_some(), is_token, true),
            ("scope", sasl.scope.is_some(), is_token, false),
            ("token_ca", sasl.token_ca.is_some(), is_token, false),
        ] {
            let key = format!("sasl.{key}");
            if is_set && !belongs {
                let problem = match sasl.mechanism {
                    None => "has no effect without sasl.mechanism".to_owned(),
                    Some(mechanism) => format!("has no effect with {}", mechanism.label()),
                };
                errors.push(section.error(&key, problem));
            } else if belongs && is_needed && !is_set {
                let mechanism = sasl.mechanism.map_or("", Mechanism::label);
                errors.push(section.error(&key, format!("is required with {mechanism}")));
            }
        }
        if is_token && sasl.token_url.is_some() && self.token_url().is_none() {
            errors.push(section.error("sasl.token_url", "expected a URL, https or http"));
        }
    }

    /// With the key and the file in question, which librdkafka does not name.
    fn named(&self, refused: String) -> String {
        let files = [
            ("ssl.ca.", "ca", &self.ca),
            ("ssl.certificate.", "cert", &self.cert),
            ("ssl.key.", "cert_key", &self.cert_key),
        ];
        let file = files.into_iter().find(|(property, ..)| refused.starts_with(property));
        match file {
            Some((_, key, Some(path))) => format!("{key}: {}: {refused}", path.display()),
            Some(_) | None => refused,
        }
    }

    fn token_url(&self) -> Option<Url> {
        let url = Url::parse(self.sasl.token_url.as_ref()?.expose().trim()).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    }

    fn authority(&self) -> Result<Option<Authority>, String> {
        let (Some(url), Some(client_id), Some(client_secret)) =
            (self.token_url(), &self.sasl.client_id, &self.sasl.client_secret)
        else {
            return Ok(None);
        };
        let files = TlsFiles { ca: self.sasl.token_ca.clone(), identity: None };
        let tls = files.client_config().map_err(|error| format!("sasl.token_ca: {error}"))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| error.without_url().to_string())?;
        Ok(Some(Authority {
            url,
            client_id: client_id.clone(),
            client_secret: client_secret.clone(),
            scope: self.sasl.scope.clone(),
            http,
        }))
    }
}

/// `host:port`, also with an address of IPv6 in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    !host.is_empty() && host.chars().all(is_host) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

impl SinkConfig for Config {
    fn build(&self, context: Context, shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        let problem = |problem: String| BuildError { sink: context.name.clone(), problem };
        let topic = self.destination().ok_or_else(|| problem("topic: is required".to_owned()))?;
        let timeout = context.timeout.get();
        let client_id = format!("hookbus-{}", context.name);
        let authority = self.authority().map_err(problem)?;
        let properties = Properties::new(self.clone(), client_id, timeout, authority);
        // A password whose file is not there yet is no mistake; the sink waits for it.
        if let Ok(client) = properties.without_addresses(None)
            && let Some((_, refused)) = try_out::refusals(&client).into_iter().next()
        {
            return Err(problem(self.named(refused)));
        }
        let plan = Plan {
            properties,
            topic: topic.constant().map(str::to_owned),
            // Short enough to fail before the delivery that waits for it, which could not say why, and to leave it time.
            connect_timeout: CONNECT_TIMEOUT.min(timeout / 2),
            shutdown: shutdown.clone(),
            running: TaskTracker::new(),
        };
        let encoder = Encoder { topic, key: self.key.clone(), format: context.format };
        let files = TlsFiles { ca: self.ca.clone(), identity: self.cert.clone().zip(self.cert_key.clone()) };
        let look = Look { sink: context.name, files, last: tokio::sync::Mutex::default() };
        Ok(Arc::new(KafkaSink::new(plan, encoder, timeout, look)))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
