//! Where the running daemon answers, operators and senders: from the configuration that `run` reads, or the arguments.

use super::CliError;
use crate::app::config::{Config, Loaded, process_environment};
use crate::config::{Layers, OneOrMany, Secret};
use crate::envelope::SourceName;
use crate::ingress::{self, Address, Endpoint};
use crate::source::ConfiguredSource;
use crate::source::Source;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::AUTHORIZATION;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// How a live command finds the admin listener.
#[derive(clap::Args, Debug, Default)]
pub(super) struct AdminArguments {
    /// The admin listener's URL; without it: admin.listen of the configuration
    #[arg(long = "admin", value_name = "URL")]
    url: Option<String>,
    /// The environment variable that holds the admin token; without it: admin.token of the configuration
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
}

/// A listener to talk to.
#[derive(Debug)]
pub(super) struct Target {
    /// `http://127.0.0.1:8081`
    pub(super) url: String,
    /// The bearer token.
    pub(super) token: Option<Secret>,
}

/// Reads the configuration exactly as `run` does.
pub(super) fn load(file: Option<&Path>) -> Result<Loaded, CliError> {
    Ok(Config::load(file, &process_environment())?)
}

impl AdminArguments {
    /// The listener at `url`, or else the configuration's.
    pub(super) fn at(url: Option<String>) -> Self {
        AdminArguments { url, token_env: None }
    }

    /// The listener these arguments and the configuration name. The configuration is read only for what the arguments
    /// leave open, so that another machine's daemon can be asked without its configuration.
    pub(super) fn target(&self, file: Option<&Path>) -> Result<Target, CliError> {
        let token = self.token_env.as_deref().map(token_from).transpose()?;
        match &self.url {
            // The configuration's token is not sent to an address that the configuration does not name.
            Some(url) => Ok(Target { url: url.trim_end_matches('/').to_owned(), token }),
            None => {
                let admin = load(file)?.config.admin;
                Ok(Target {
                    url: format!("http://{}", reachable(admin.listen)),
                    token: token.or(admin.token),
                })
            }
        }
    }
}

fn token_from(name: &str) -> Result<Secret, CliError> {
    match std::env::var(name) {
        Ok(token) if !token.is_empty() => Ok(Secret::literal(&token)),
        _ => Err(CliError::Usage(format!("--token-env: the environment variable {name} is not set"))),
    }
}

/// An address that means "all of this machine's" is reached on loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Where senders post to: the first address with a port; what stands beside it is for others.
pub(super) fn senders_base(ingress: &ingress::Config) -> String {
    let endpoints = ingress.endpoints();
    let first = endpoints.iter().min_by_key(|endpoint| endpoint.address.tcp().is_none());
    first.map(base_of).unwrap_or_default()
}

/// The base of the URLs at an address of the ingress.
fn base_of(endpoint: &Endpoint) -> String {
    match &endpoint.address {
        Address::Tcp(listen) => {
            Endpoint { address: Address::Tcp(reachable(*listen)), ..endpoint.clone() }.to_string()
        }
        Address::Unix(_) | Address::Passed(_) => endpoint.to_string(),
    }
}

/// How this machine best reaches the ingress: a certificate hardly names loopback, so plain HTTP where there is any.
fn nearest_of(ingress: &ingress::Config) -> String {
    let endpoints = ingress.endpoints();
    let rank = |endpoint: &&Endpoint| (endpoint.address.tcp().is_none(), endpoint.speaks_tls);
    endpoints.iter().min_by_key(rank).map(base_of).unwrap_or_default()
}

/// How a sender reaches one source of the running daemon.
pub(super) struct Way {
    /// The ingress: `http://127.0.0.1:8080`
    pub(super) base: String,
    /// The files of its TLS, if it speaks any.
    pub(super) tls: ingress::tls::Config,
    /// The source.
    pub(super) source: String,
    /// The name of its dialect.
    pub(super) dialect: &'static str,
    /// The dialect itself, which proves who sends.
    pub(super) source_dialect: Arc<dyn Source>,
    /// The last path segment, where the source has one.
    pub(super) path_secret: Option<Secret>,
    /// Headers that prove who sends.
    pub(super) headers: Vec<(String, Secret)>,
    /// The instance whose events the source takes.
    pub(super) instance: Option<String>,
}

/// What `send` must know of a dialect's own keys; other keys are the dialect's business.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct DialectKeys {
    token: Option<OneOrMany<Secret>>,
    instance: Option<String>,
    auth: AuthKeys,
}

/// What `[sources.N.generic.auth]` asks of a request, as far as a request can be given it.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct AuthKeys {
    user: Option<Secret>,
    password: Option<OneOrMany<Secret>>,
    bearer: Option<OneOrMany<Secret>>,
    token: Option<OneOrMany<Secret>>,
    token_header: Option<String>,
}

impl DialectKeys {
    /// The headers with the first live secret of each kind.
    fn headers(&self, dialect: &dyn crate::source::Source) -> Vec<(String, Secret)> {
        let first =
            |secrets: &Option<OneOrMany<Secret>>| secrets.as_ref().and_then(|all| all.iter().next().cloned());
        let token_header = dialect.credential_headers().first().map(HeaderName::to_string);
        let own = token_header.zip(first(&self.token)).map(|(name, token)| {
            let is_bearer = name == AUTHORIZATION.as_str();
            let value =
                if is_bearer { Secret::literal(&format!("Bearer {}", token.expose())) } else { token };
            (name, value)
        });
        let AuthKeys { user, password, bearer, token, token_header } = &self.auth;
        let authorization = match (user, first(password), first(bearer)) {
            (Some(user), Some(password), _) => {
                let pair = STANDARD.encode(format!("{}:{}", user.expose(), password.expose()));
                Some(format!("Basic {pair}"))
            }
            (_, _, bearer) => bearer.map(|token| format!("Bearer {}", token.expose())),
        };
        let authorization = authorization.map(|text| (AUTHORIZATION.to_string(), Secret::literal(&text)));
        own.into_iter().chain(authorization).chain(token_header.clone().zip(first(token))).collect()
    }
}

/// The source of that name.
pub(super) fn source_named<'a>(config: &'a Config, source: &str) -> Result<&'a ConfiguredSource, CliError> {
    config.sources.values().find(|configured| configured.name.as_str() == source).ok_or_else(|| {
        let known: Vec<&str> = config.sources.keys().map(SourceName::as_str).collect();
        let (source, known) = (super::human::harmless(source), known.join(", "));
        CliError::Usage(format!("there is no source {source}; configured: {known}"))
    })
}

/// The way to the source of that name, as configured.
pub(super) fn way_to(file: Option<&Path>, source: &str) -> Result<Way, CliError> {
    let Loaded { config, file, .. } = load(file)?;
    let configured = source_named(&config, source)?;
    // A dialect keeps only digests of its secrets, so its section is read once more.
    let layers = Layers::load(None, file.as_deref(), &process_environment())?;
    let keys: DialectKeys =
        layers.root().child("sources").child(source).child(configured.type_name).extract()?;
    let headers = keys.headers(&*configured.dialect);
    Ok(Way {
        base: nearest_of(&config.ingress),
        tls: config.ingress.tls.clone(),
        source: source.to_owned(),
        dialect: configured.type_name,
        source_dialect: Arc::clone(&configured.dialect),
        path_secret: configured
            .config
            .path_secret
            .as_ref()
            .and_then(|secrets| secrets.iter().next().cloned()),
        headers,
        instance: keys.instance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("10.1.2.3:8081", "10.1.2.3:8081"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached, "{listen}");
        }
    }

    #[test]
    fn this_machine_posts_over_plain_http_where_it_can() {
        for (sentence, listen, plain, nearest) in [
            ("as ever", "127.0.0.1:80", None, "http://127.0.0.1:80"),
            ("TLS alone", "0.0.0.0:443", None, "https://127.0.0.1:443"),
            ("plain HTTP beside it", "0.0.0.0:443", Some("127.0.0.1:80"), "http://127.0.0.1:80"),
            ("a Unix socket alone", "unix:/run/x", None, "unix:/run/x"),
            ("a Unix socket beside TLS", "0.0.0.0:443", Some("unix:/run/x"), "https://127.0.0.1:443"),
        ] {
            let cert = listen.ends_with("443").then(|| "tls.crt".into());
            let config = ingress::Config {
                listen: OneOrMany::one(listen.parse().unwrap()),
                plain_listen: plain.iter().map(|plain| plain.parse().unwrap()).collect(),
                tls: ingress::tls::Config { cert, ..Default::default() },
                ..ingress::Config::default()
            };
            assert_eq!(nearest_of(&config), nearest, "{sentence}");
            let listens = Endpoint {
                address: config.listen.iter().next().unwrap().clone(),
                speaks_tls: config.tls.is_on(),
            };
            assert_eq!(senders_base(&config), base_of(&listens), "{sentence}");
        }
    }

    #[test]
    fn the_arguments_alone_name_another_machines_daemon() {
        let arguments = AdminArguments { url: Some("http://bus.test:9/".to_owned()), token_env: None };
        let target = arguments.target(Some(Path::new("/does/not/exist.toml"))).unwrap();
        assert_eq!((target.url.as_str(), target.token), ("http://bus.test:9", None));
    }
}
