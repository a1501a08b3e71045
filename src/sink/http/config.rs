//! `[sinks.N.http]`: the keys, what is wrong with them, and the client they make.
//! Holds: R8 (the URL and every header may hold a secret, so none is ever printed); what cannot work is an error when
//! the configuration is read, not at the first event.

use super::super::addresses::Guard;
use super::super::connection::Connection;
use super::super::signature::Signer;
use super::super::tls::TlsFiles;
use super::super::{BuildError, Context, OwnKeys, Sink, SinkConfig};
use super::HttpSink;
use super::means::Means;
use crate::config::{ConfigError, Network, OneOrMany, Secret, Section};
use crate::shutdown::Shutdown;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Headers that the message itself decides.
const OWN_HEADERS: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "traceparent",
    "transfer-encoding",
    "upgrade",
];
const OWN_HEADER_PREFIXES: [&str; 2] = ["ce-", "webhook-"];

/// `[sinks.N.http]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Where to post; required. `http` or `https`.
    url: Option<Secret>,
    /// Headers of every request, for credentials above all.
    headers: BTreeMap<String, Secret>,
    /// Signs by Standard Webhooks; with several, each signs.
    secret: Option<OneOrMany<Secret>>,
    /// PEM file with the certificates to trust instead of the system's.
    ca: Option<PathBuf>,
    /// PEM file with the client's certificate chain.
    cert: Option<PathBuf>,
    /// PEM file with the client's key.
    key: Option<PathBuf>,
    /// Refuses to connect to anything but public addresses.
    deny_private_addresses: bool,
    /// Addresses and networks that are allowed all the same.
    allow_addresses: Vec<Network>,
}

impl OwnKeys for Config {
    fn check(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        let url = self.url();
        let is_https = url.as_ref().is_ok_and(|url| url.scheme() == "https");
        match &url {
            Err(problem) => errors.push(section.error("url", *problem)),
            Ok(url) if !literal_address(url).is_none_or(|address| self.guard().allows(address)) => {
                errors
                    .push(section.error("url", "its address is private, and deny_private_addresses is set"));
            }
            Ok(_) => {}
        }
        if let Err((name, problem)) = self.headers() {
            errors.push(section.error(&format!("headers.{name}"), problem));
        }
        if let Err(problem) = self.signer() {
            errors.push(section.error("secret", problem.to_string()));
        }
        if self.cert.is_some() != self.key.is_some() {
            let missing = if self.cert.is_some() { "key" } else { "cert" };
            errors.push(section.error(missing, "is required: cert and key belong together"));
        }
        for (key, is_set) in [("ca", self.ca.is_some()), ("cert", self.cert.is_some())] {
            if is_set && url.is_ok() && !is_https {
                errors.push(section.error(key, "has no effect with a URL that is not https"));
            }
        }
        if !self.allow_addresses.is_empty() && !self.deny_private_addresses {
            errors.push(section.error("allow_addresses", "has no effect without deny_private_addresses"));
        }
    }
}

impl SinkConfig for Config {
    fn build(&self, context: Context, _shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        let means = Means::of(self, &context.name)
            .map_err(|failure| BuildError { sink: context.name.clone(), problem: failure.detail })?;
        Ok(Arc::new(HttpSink {
            name: context.name,
            config: self.clone(),
            means: Connection::with(means),
            format: context.format,
            timeout: context.timeout.get(),
            answered_at: Mutex::new(None),
        }))
    }
}

impl Config {
    /// The same with every secret as it is now: read again where it came from a file.
    ///
    /// # Errors
    /// A sentence that names the key and the file.
    pub(super) fn reread(&self) -> Result<Config, String> {
        let current =
            |key: &str, secret: &Secret| secret.current().map_err(|problem| format!("{key}: {problem}"));
        let mut now = self.clone();
        if let Some(url) = &mut now.url {
            *url = current("url", url)?;
        }
        for (name, value) in &mut now.headers {
            *value = current(&format!("headers.{name}"), value)?;
        }
        if let Some(secrets) = &self.secret {
            now.secret = Some(secrets.try_map(|secret| current("secret", secret))?);
        }
        Ok(now)
    }

    pub(super) fn url(&self) -> Result<Url, &'static str> {
        const EXPECTED: &str = "expected a URL, \"https://example.com/events\" for example";
        let url = self.url.as_ref().ok_or("is required: the URL to post to")?;
        let url = Url::parse(url.expose().trim()).map_err(|_| EXPECTED)?;
        if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(EXPECTED) }
    }

    pub(super) fn headers(&self) -> Result<HeaderMap, (&str, &'static str)> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| (name.as_str(), "expected the name of a header"))?;
            let is_own = OWN_HEADERS.contains(&header.as_str())
                || OWN_HEADER_PREFIXES.iter().any(|prefix| header.as_str().starts_with(prefix));
            if is_own {
                return Err((name, "is set by the sink itself"));
            }
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| (name.as_str(), "expected visible ASCII characters and spaces"))?;
            value.set_sensitive(true);
            headers.append(header, value);
        }
        Ok(headers)
    }

    pub(super) fn signer(&self) -> Result<Option<Signer>, super::super::signature::InvalidKey> {
        self.secret.as_ref().map(Signer::new).transpose()
    }

    pub(super) fn guard(&self) -> Guard {
        Guard::new(self.deny_private_addresses, &self.allow_addresses)
    }

    pub(super) fn tls_files(&self) -> TlsFiles {
        TlsFiles { ca: self.ca.clone(), identity: self.cert.clone().zip(self.key.clone()) }
    }
}

/// The address where the host is none but an address; no resolver ever sees it.
fn literal_address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
