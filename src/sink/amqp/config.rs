//! `[sinks.N.amqp]`: the keys, and what is wrong with them.
//! Holds: R8 (the URLs hold secrets, so none is ever printed); what cannot work is an error when the configuration is
//! read, not at the first event.

use super::super::template::{Destination, Template};
use super::super::tls::TlsFiles;
use super::super::{BuildError, Context, OwnKeys, Sink, SinkConfig};
use super::AmqpSink;
use super::address::Address;
use super::client::{Connector, Target};
use super::message::{Encoder, HeaderPrefix};
use super::publisher::Publisher;
use crate::config::{ByteSize, ConfigError, OneOrMany, Period, Secret, Section};
use crate::shutdown::Shutdown;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Between which both sides must show life; AMQP counts whole seconds in 16 bits.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
const HEARTBEAT_MAX: Duration = Duration::from_secs(3600);

/// `[sinks.N.amqp]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// The broker; required. With a list one after the other is tried.
    url: Option<OneOrMany<Secret>>,
    /// Where to publish; empty is the default exchange, which routes to the queue that the routing key names.
    exchange: Exchange,
    /// Globs that the exchange's name must match where attributes are in it.
    exchange_allowed: Vec<String>,
    /// The routing key; required.
    routing_key: Option<Template>,
    /// Globs that the routing key must match where attributes are in it.
    routing_key_allowed: Vec<String>,
    /// In place of the URL's user.
    user: Option<Secret>,
    /// In place of the URL's password.
    password: Option<Secret>,
    /// How to log in.
    auth: Auth,
    /// PEM file with the certificates to trust instead of the system's.
    ca: Option<PathBuf>,
    /// PEM file with the client's certificate chain.
    cert: Option<PathBuf>,
    /// PEM file with the client's key.
    key: Option<PathBuf>,
    /// What the names of attributes begin with as headers.
    header_prefix: HeaderPrefix,
    /// How often both sides show that they live.
    heartbeat: Period,
    /// The most bytes of a body: the broker's `max_message_size`.
    message_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            url: None,
            exchange: Exchange(None),
            exchange_allowed: Vec::new(),
            routing_key: None,
            routing_key_allowed: Vec::new(),
            user: None,
            password: None,
            auth: Auth::default(),
            ca: None,
            cert: None,
            key: None,
            header_prefix: HeaderPrefix::default(),
            heartbeat: Period::secs(10),
            // What RabbitMQ 4 takes unless told otherwise; its predecessors took 128 MiB.
            message_max: ByteSize::mib(16),
        }
    }
}

/// How to log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Auth {
    /// User and password.
    #[default]
    Plain,
    /// The client's certificate.
    External,
}

/// A template, or the default exchange, whose name is empty.
#[derive(Clone, PartialEq, Debug)]
struct Exchange(Option<Template>);

impl Serialize for Exchange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(template) => template.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for Exchange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let template = (!text.is_empty()).then(|| Template::parse(&text)).transpose();
        template.map(Exchange).map_err(serde::de::Error::custom)
    }
}

impl OwnKeys for Config {
    fn check(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        let addresses = self.addresses();
        if let Err(problem) = &addresses {
            errors.push(section.error("url", *problem));
        }
        if let Some(exchange) = self.exchange() {
            exchange.check(section, "exchange", "exchange_allowed", errors);
        }
        match self.routing_key() {
            Some(key) => key.check(section, "routing_key", "routing_key_allowed", errors),
            None => errors.push(section.error("routing_key", "is required: the key to publish with")),
        }
        if !self.exchange_allowed.is_empty() && self.exchange().is_none_or(|name| name.constant().is_some()) {
            errors.push(section.error("exchange_allowed", "has no effect without attributes in exchange"));
        }
        self.check_login(section, addresses.as_deref().ok(), errors);
        if !(HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&self.heartbeat.get()) {
            errors.push(section.error("heartbeat", "expected 1s to 1h"));
        }
        if self.message_max == ByteSize::bytes(0) {
            errors.push(section.error("message_max", "expected more than nothing"));
        }
    }
}

impl SinkConfig for Config {
    fn build(&self, context: Context, shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        let problem = |problem: String| BuildError { sink: context.name.clone(), problem };
        let addresses = self.addresses().map_err(|error| problem(format!("url: {error}")))?;
        let routing_key = self.routing_key().ok_or_else(|| problem("routing_key: is required".to_owned()))?;
        let exchange = self.exchange();
        let tls = self.tls_files();
        if addresses.iter().any(Address::is_tls) {
            // They are read anew for every connection; one that is wrong from the start is said at the start.
            tls.client_config().map_err(|error| problem(error.to_string()))?;
        }
        let connector = Connector {
            name: context.name.clone(),
            urls: self.url.iter().flat_map(OneOrMany::iter).cloned().collect(),
            user: self.user.clone(),
            password: self.password.clone(),
            auth: self.auth,
            tls,
            heartbeat_secs: u16::try_from(self.heartbeat.get().as_secs()).unwrap_or(u16::MAX),
            target: Target::of(exchange.as_ref(), &routing_key),
        };
        let encoder = Encoder {
            format: context.format,
            prefix: self.header_prefix,
            exchange,
            routing_key,
            body_bytes_max: self.message_max.get(),
        };
        let publisher = Publisher::new(connector, encoder, context.timeout.get(), shutdown.clone());
        Ok(Arc::new(AmqpSink { publisher, message_bytes_max: self.message_max.get() }))
    }
}

impl Config {
    fn check_login(&self, section: &Section, addresses: Option<&[Address]>, errors: &mut Vec<ConfigError>) {
        if self.cert.is_some() != self.key.is_some() {
            let missing = if self.cert.is_some() { "key" } else { "cert" };
            errors.push(section.error(missing, "is required: cert and key belong together"));
        }
        let speaks_tls = addresses.is_none_or(|addresses| addresses.iter().any(Address::is_tls));
        for (key, is_set) in [("ca", self.ca.is_some()), ("cert", self.cert.is_some())] {
            if is_set && !speaks_tls {
                errors.push(section.error(key, "has no effect with a URL that is not amqps"));
            }
        }
        if self.auth == Auth::Plain {
            return;
        }
        if self.cert.is_none() && self.key.is_none() {
            errors.push(section.error("cert", "is required: external means to log in by certificate"));
        }
        for (key, is_set) in [("user", self.user.is_some()), ("password", self.password.is_some())] {
            if is_set {
                errors.push(section.error(key, "has no effect with auth = \"external\""));
            }
        }
    }

    fn addresses(&self) -> Result<Vec<Address>, &'static str> {
        let urls = self.url.as_ref().ok_or("is required: the broker to publish to")?;
        urls.iter().map(|url| Address::parse(url.expose())).collect()
    }

    fn exchange(&self) -> Option<Destination> {
        let template = self.exchange.0.clone()?;
        Some(Destination::new(template, self.exchange_allowed.clone(), is_safe_in_an_exchange))
    }

    fn routing_key(&self) -> Option<Destination> {
        let template = self.routing_key.clone()?;
        Some(Destination::new(template, self.routing_key_allowed.clone(), is_safe_in_a_routing_key))
    }

    fn tls_files(&self) -> TlsFiles {
        TlsFiles { ca: self.ca.clone(), identity: self.cert.clone().zip(self.key.clone()) }
    }
}

/// The characters of an exchange's name (AMQP 0-9-1, domain `exchange-name`).
fn is_safe_in_an_exchange(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_.:".contains(character)
}

/// Anything printable but the wildcards of a binding, which have no meaning in a key and only mislead.
fn is_safe_in_a_routing_key(character: char) -> bool {
    !character.is_control() && !character.is_whitespace() && !matches!(character, '*' | '#')
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
