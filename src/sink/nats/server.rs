//! Where the servers are, as whom we log in, and how a connection is made: one client for one connection.
//! Holds: secrets and certificates are read anew for every connection; every failure says which server and what to do,
//! nothing of a URL's userinfo.
//!
//! The client's own reconnecting is switched off: it would send what waits in its queue after a reconnect, while the
//! lane has long been told that the outcome is unknown and sends it again; and it would keep the old credentials. It has
//! no switch for "never", so its list of servers is replaced by an address where nobody can be, and the one attempt it
//! makes there ends it. Our own supervision (`sink::connection`) then makes a new client.
//! Absent on purpose: servers that a cluster advertises. `url` takes a list, and a name with several addresses.

use super::super::tls::{TlsFiles, TlsProblem, described, no_tls};
use super::super::{Failure, Reason};
use super::refused::Refused;
use crate::config::{OneOrMany, Secret};
use crate::envelope::SinkName;
use crate::percent::decoded;
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection to one address may take to be made, TLS and log-in included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a silent server is asked whether it is there; after two questions without an answer it is not.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The commands that may wait in the client, a message being one; whoever has more waits for a place.
const QUEUE_MAX: usize = 2048;
/// Port 0 is nobody's, so connecting there fails at once.
const NOBODY: &str = "nats://127.0.0.1:0";
/// What the server says is quoted up to here.
const QUOTED_CHARS_MAX: usize = 120;

const EXPECTED_URL: &str = "expected \"nats://host:4222\" or \"tls://host:4222\"";

/// How to log in.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// As the URL says, or not at all.
    InUrl,
    Password(Secret, Secret),
    Token(Secret),
    NKey(Secret),
    Credentials(Secret),
}

/// The servers of one sink.
#[derive(Clone, Debug)]
pub(in super::super) struct Server {
    pub(super) urls: OneOrMany<Secret>,
    pub(super) login: Login,
    pub(super) tls: TlsFiles,
    pub(super) sink: SinkName,
    pub(super) client_name: String,
    pub(super) inbox_prefix: String,
    pub(super) refused: Arc<Refused>,
}

impl Login {
    /// What is wrong with it as far as can be seen without a server.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self {
            Login::NKey(seed) if !is_seed(seed.expose().trim()) => {
                Some("expected the seed of a user's NKey, which begins with SU")
            }
            Login::Credentials(text)
                if ConnectOptions::with_credentials(&whole_lines(text.expose())).is_err() =>
            {
                Some(
                    "expected the content of a credentials file, { file = \"/path/user.creds\" } for example",
                )
            }
            _ => None,
        }
    }
}

fn is_seed(text: &str) -> bool {
    let is_base32 = |c: char| c.is_ascii_uppercase() || ('2'..='7').contains(&c);
    text.len() == 58 && text.starts_with("SU") && text.chars().all(is_base32)
}

impl Server {
    /// What is wrong with a URL.
    pub(super) fn url_problem(url: &Secret) -> Option<&'static str> {
        parsed(url).is_err().then_some(EXPECTED_URL)
    }

    /// Reads the certificates once, so that a wrong path is found at start.
    pub(super) fn check_files(&self) -> Result<(), TlsProblem> {
        if self.tls.ca.is_some() || self.tls.identity.is_some() {
            self.tls.client_config()?;
        }
        Ok(())
    }

    /// Connects to the first server that takes us, in random order. `observe` is called for everything that the client
    /// tells, in its order. Returns the client and the server's name.
    ///
    /// # Errors
    /// Why the last one did not; refused credentials end the search, since they are the same for all.
    pub(super) async fn connect<F, R>(&self, observe: F) -> Result<(Client, String), Failure>
    where
        F: Fn(Event) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = ()> + Send + Sync + 'static,
    {
        let mut urls: Vec<&Secret> = self.urls.iter().collect();
        fastrand::shuffle(&mut urls);
        let mut last = Failure::new(Reason::ConnectionRefused, "no server is configured");
        for url in urls {
            let current = url.current().map_err(|problem| unreadable("url", &problem))?;
            let address = parsed(&current)
                .map_err(|()| Failure::new(Reason::NameNotResolved, format!("url: {EXPECTED_URL}")))?;
            let host = format!("{}:{}", address.host(), address.port());
            match self.options(&address)?.event_callback(observe.clone()).connect(address).await {
                Ok(client) => {
                    // Refused only by a client that has ended already, which its first use shows.
                    let _ = client.set_server_pool(NOBODY).await;
                    return Ok((client, host));
                }
                Err(error) => {
                    last = self.tls.explained(connect_failure(&error, &host), crate::clock::now());
                }
            }
            if last.reason == Reason::NotAuthorized {
                break;
            }
        }
        Err(last)
    }

    fn options(&self, address: &ServerAddr) -> Result<ConnectOptions, Failure> {
        self.tls.show_ends(&self.sink);
        let wants_tls = address.tls_required() || self.tls.ca.is_some() || self.tls.identity.is_some();
        let tls = match self.tls.client_config() {
            Ok(tls) => tls,
            Err(problem) if wants_tls => return Err(Failure::new(Reason::Tls, problem.to_string())),
            // Only a server that demands TLS of a nats:// URL comes to see that this trusts nobody.
            Err(_) => no_tls(),
        };
        let options = ConnectOptions::new()
            .name(&self.client_name)
            .custom_inbox_prefix(&self.inbox_prefix)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .client_capacity(QUEUE_MAX)
            .subscription_capacity(1)
            .ignore_discovered_servers()
            .max_reconnects(1)
            .request_timeout(None)
            .tls_client_config(tls)
            .require_tls(wants_tls);
        self.logged_in(options, address)
    }

    fn logged_in(&self, options: ConnectOptions, address: &ServerAddr) -> Result<ConnectOptions, Failure> {
        let text = |key: &str, secret: &Secret| match secret.current() {
            Ok(secret) => Ok(secret.expose().trim().to_owned()),
            Err(problem) => Err(unreadable(key, &problem)),
        };
        Ok(match &self.login {
            Login::InUrl => match (address.username(), address.password()) {
                (None, _) => options,
                // As in every client of NATS, what stands there alone is a token.
                (Some(token), None) => options.token(plain(token)),
                (Some(user), Some(password)) => options.user_and_password(plain(user), plain(password)),
            },
            Login::Password(user, password) => {
                options.user_and_password(text("user", user)?, text("password", password)?)
            }
            Login::Token(token) => options.token(text("token", token)?),
            Login::NKey(seed) => options.nkey(text("nkey", seed)?),
            Login::Credentials(credentials) => {
                let credentials = whole_lines(&text("credentials", credentials)?);
                options.credentials(&credentials).map_err(|_| {
                    Failure::new(
                        Reason::NotAuthorized,
                        "credentials: is not the content of a credentials file",
                    )
                })?
            }
        })
    }
}

fn unreadable(key: &str, problem: &str) -> Failure {
    Failure::new(Reason::NotAuthorized, format!("{key}: {problem}"))
}

fn parsed(url: &Secret) -> Result<ServerAddr, ()> {
    let address: ServerAddr = url.expose().trim().parse().map_err(|_| ())?;
    let is_known = matches!(address.scheme(), "nats" | "tls");
    if is_known && !address.host().is_empty() { Ok(address) } else { Err(()) }
}

fn plain(encoded: &str) -> String {
    String::from_utf8_lossy(&decoded(encoded.as_bytes())).into_owned()
}

fn connect_failure(error: &ConnectError, host: &str) -> Failure {
    let (reason, what) = match error.kind() {
        ConnectErrorKind::Dns => (Reason::NameNotResolved, "its name does not resolve".to_owned()),
        ConnectErrorKind::AuthorizationViolation => {
            (Reason::NotAuthorized, "it refuses the credentials".to_owned())
        }
        ConnectErrorKind::Authentication => (
            Reason::NotAuthorized,
            "the key cannot sign the server's question; check nkey or credentials".to_owned(),
        ),
        ConnectErrorKind::TimedOut => {
            (Reason::Timeout, format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs()))
        }
        ConnectErrorKind::Tls => (Reason::Tls, "TLS cannot be set up; is the host's name valid?".to_owned()),
        ConnectErrorKind::ServerParse | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            io_problem(error)
        }
    };
    Failure::new(reason, format!("{host}: {what}"))
}

fn io_problem(error: &ConnectError) -> (Reason, String) {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(said) = cause.downcast_ref::<ServerError>() {
            let text = quoted(&said.to_string());
            return (server_reason(&text).unwrap_or(Reason::ConnectionLost), text);
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return (Reason::Tls, format!("TLS failed: {}", described(tls)));
            }
            if io.kind() == io::ErrorKind::ConnectionRefused {
                return (Reason::ConnectionRefused, "nothing listens there".to_owned());
            }
            return (Reason::ConnectionLost, format!("the connection broke: {}", io.kind()));
        }
        source = cause.source();
    }
    (Reason::ConnectionLost, "it does not speak as a NATS server does".to_owned())
}

/// What a server's complaint about a connection means; `None` where it is not known.
pub(super) fn server_reason(text: &str) -> Option<Reason> {
    let text = text.to_ascii_lowercase();
    let says = |word: &str| text.contains(word);
    if says("authorization") || says("authentication") || says("permissions") {
        Some(Reason::NotAuthorized)
    } else if says("maximum connections") || says("maximum account") {
        Some(Reason::Throttled)
    } else {
        None
    }
}

/// The beginning of what a server said, on one line.
pub(in super::super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A secret loses its last line break, and the client wants one behind the last line of a credentials file.
fn whole_lines(text: &str) -> String {
    format!("{text}\n")
}
