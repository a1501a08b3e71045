//! Where a broker is and as whom to log in, from its URL and the keys beside it.
//! Holds: R8 (a label names host, port and virtual host, never the user or the password).

use super::super::{Failure, Reason};
use super::config::Auth;
use crate::config::Secret;
use lapin::types::ShortString;
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use reqwest::Url;
use std::fmt;

const EXPECTED: &str = "expected a URL, \"amqps://user:password@rabbit.example.com/vhost\" for example";
/// The virtual host where the URL names none.
const VHOST_DEFAULT: &str = "/";
/// The largest frame we agree to: RabbitMQ's own default. lapin allocates 64 of them for each connection, and where
/// neither side names a limit a frame has 4 GiB.
const FRAME_BYTES_MAX: u32 = 128 * 1024;

/// One broker of the list.
#[derive(Clone)]
pub(super) struct Address(AMQPUri);

impl Address {
    /// Reads a URL: `amqp` or `amqps`, and the virtual host, percent-encoded, as its path. No path, or an empty one, is
    /// the virtual host `/`; no user is RabbitMQ's own `guest`.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let url = url.trim();
        let mut uri: AMQPUri = url.parse().map_err(|_| EXPECTED)?;
        let url = Url::parse(url).map_err(|_| EXPECTED)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(EXPECTED)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("expected a URL without a query: heartbeat, auth and TLS have keys of their own");
        }
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // lapin takes an IPv6 address for no host at all, and goes to localhost.
            address.clone_into(&mut uri.authority.host);
        }
        if uri.vhost.is_empty() {
            VHOST_DEFAULT.clone_into(&mut uri.vhost);
        }
        if ShortString::try_new(uri.vhost.as_str()).is_err() {
            return Err("expected a virtual host of at most 255 bytes");
        }
        Ok(Address(uri))
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }

    pub(super) fn host(&self) -> (&str, u16) {
        (&self.0.authority.host, self.0.authority.port)
    }

    pub(super) fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// With the credentials as they are now, and how often to show life.
    pub(super) fn login(mut self, login: &Login<'_>, heartbeat_secs: u16) -> Result<AMQPUri, Failure> {
        let current = |key: &str, secret: &Secret| {
            let not_read = |problem| Failure::new(Reason::NotAuthorized, format!("{key}: {problem}"));
            secret.current().map(|secret| secret.expose().to_owned()).map_err(not_read)
        };
        if let Some(user) = login.user {
            self.0.authority.userinfo.username = current("user", user)?;
        }
        if let Some(password) = login.password {
            self.0.authority.userinfo.password = current("password", password)?;
        }
        self.0.query.frame_max = Some(FRAME_BYTES_MAX);
        self.0.query.heartbeat = Some(heartbeat_secs);
        self.0.query.auth_mechanism = Some(match login.auth {
            Auth::Plain => SASLMechanism::Plain,
            Auth::External => SASLMechanism::External,
        });
        Ok(self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.host();
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The keys that say who logs in, besides the URL.
pub(super) struct Login<'a> {
    pub(super) user: Option<&'a Secret>,
    pub(super) password: Option<&'a Secret>,
    pub(super) auth: Auth,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<(String, String, bool)> {
        let address = Address::parse(url).ok()?;
        Some((address.to_string(), address.vhost().to_owned(), address.is_tls()))
    }

    #[test]
    fn a_url_says_host_port_virtual_host_and_whether_tls_is_spoken() {
        for (url, label, vhost, is_tls) in [
            ("amqp://localhost", "localhost:5672", "/", false),
            ("amqp://localhost/", "localhost:5672", "/", false),
            ("amqps://u:p@rabbit.example.com/a%2fb", "rabbit.example.com:5671", "a/b", true),
            (" amqp://u@127.0.0.1:5673/%2f\n", "127.0.0.1:5673", "/", false),
            ("amqp://[::1]:5673/v", "[::1]:5673", "v", false),
        ] {
            assert_eq!(parsed(url), Some((label.to_owned(), vhost.to_owned(), is_tls)), "{url}");
        }
        let long = format!("amqp://h/{}", "v".repeat(256));
        for url in ["", "localhost", "http://h", "amqp:///v", "amqp:h", "amqp://h?heartbeat=5", &long] {
            assert_eq!(parsed(url), None, "{url}");
        }
    }

    #[test]
    fn the_keys_take_the_place_of_what_the_url_says() {
        let (user, password) = (Secret::literal("me"), Secret::literal("p@ss"));
        let address = || Address::parse("amqp://a:b%40@h").unwrap();
        let uri = |user, password| {
            let login = Login { user, password, auth: Auth::Plain };
            let uri = address().login(&login, 7).unwrap();
            (uri.authority.userinfo.username, uri.authority.userinfo.password, uri.query.heartbeat)
        };
        assert_eq!(uri(None, None), ("a".to_owned(), "b@".to_owned(), Some(7)));
        assert_eq!(uri(Some(&user), Some(&password)), ("me".to_owned(), "p@ss".to_owned(), Some(7)));
        assert!(!address().to_string().contains("b@"), "R8");
    }
}
