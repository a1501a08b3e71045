//! `[sinks.N.nats]`, and the keys that `[sinks.N.jetstream]` has as well.
//! Holds: R8 (a URL may hold a password, so none is ever printed); what cannot work is an error when the configuration
//! is read, not at the first event.

use super::super::template::{Destination, Template};
use super::super::tls::TlsFiles;
use super::super::{BuildError, Context, OwnKeys, Sink, SinkConfig};
use super::Core;
use super::message::{self, Messages};
use super::sender::Sender;
use super::server::{Login, Server};
use crate::config::{ConfigError, OneOrMany, Secret, Section};
use crate::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What replies are received under where nothing else is set, as with every client of NATS.
const INBOX_PREFIX: &str = "_INBOX";

/// Declares a kind's `Config`: the keys of every NATS client here, and `$own` keys of the kind. Not `flatten`: an error
/// must name its key.
macro_rules! nats_config {
    ($(#[$doc:meta])* { $($(#[$own_doc:meta])* $own:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct Config {
            /// The servers, `nats://` or `tls://`; required. One that answers is enough.
            url: Option<OneOrMany<Secret>>,
            /// Where to publish; required. Attributes in braces.
            subject: Option<Template>,
            /// Globs, one of which every subject must match.
            subject_allowed: Vec<String>,
            $($(#[$own_doc])* $own: $type,)*
            /// The user; together with `password`.
            user: Option<Secret>,
            /// The user's password.
            password: Option<Secret>,
            /// A token instead of a user.
            token: Option<Secret>,
            /// The seed of a user's NKey.
            nkey: Option<Secret>,
            /// A credentials file's content: JWT and seed.
            credentials: Option<Secret>,
            /// What the subjects begin with under which the server's answers are received.
            inbox_prefix: String,
            /// PEM file with the certificates to trust instead of the system's.
            ca: Option<PathBuf>,
            /// PEM file with the client's certificate chain.
            cert: Option<PathBuf>,
            /// PEM file with the client's key.
            key: Option<PathBuf>,
        }

        impl Default for Config {
            fn default() -> Self {
                Config {
                    url: None,
                    subject: None,
                    subject_allowed: Vec::new(),
                    $($own: Default::default(),)*
                    user: None,
                    password: None,
                    token: None,
                    nkey: None,
                    credentials: None,
                    inbox_prefix: $crate::sink::nats::config::inbox_prefix(),
                    ca: None,
                    cert: None,
                    key: None,
                }
            }
        }

        impl Config {
            fn common(&self) -> $crate::sink::nats::config::Common<'_> {
                $crate::sink::nats::config::Common {
                    url: self.url.as_ref(),
                    subject: self.subject.as_ref(),
                    subject_allowed: &self.subject_allowed,
                    user: self.user.as_ref(),
                    password: self.password.as_ref(),
                    token: self.token.as_ref(),
                    nkey: self.nkey.as_ref(),
                    credentials: self.credentials.as_ref(),
                    inbox_prefix: &self.inbox_prefix,
                    ca: self.ca.as_ref(),
                    cert: self.cert.as_ref(),
                    key: self.key.as_ref(),
                }
            }
        }
    };
}
pub(in super::super) use nats_config;

nats_config! {
    /// `[sinks.N.nats]`.
    {}
}

impl OwnKeys for Config {
    fn check(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        self.common().check(section, errors);
    }
}

impl SinkConfig for Config {
    fn build(&self, context: Context, _shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        let (server, messages) = self.common().parts(&context)?;
        Ok(Arc::new(Sender::new(Core::new(server, messages), context.timeout.get())))
    }
}

pub(in super::super) fn inbox_prefix() -> String {
    INBOX_PREFIX.to_owned()
}

/// The keys that both kinds have, where they are in a kind's own `Config`.
pub(in super::super) struct Common<'a> {
    pub(in super::super) url: Option<&'a OneOrMany<Secret>>,
    pub(in super::super) subject: Option<&'a Template>,
    pub(in super::super) subject_allowed: &'a [String],
    pub(in super::super) user: Option<&'a Secret>,
    pub(in super::super) password: Option<&'a Secret>,
    pub(in super::super) token: Option<&'a Secret>,
    pub(in super::super) nkey: Option<&'a Secret>,
    pub(in super::super) credentials: Option<&'a Secret>,
    pub(in super::super) inbox_prefix: &'a str,
    pub(in super::super) ca: Option<&'a PathBuf>,
    pub(in super::super) cert: Option<&'a PathBuf>,
    pub(in super::super) key: Option<&'a PathBuf>,
}

impl Common<'_> {
    pub(in super::super) fn check(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        if self.url.is_none() {
            errors.push(section.error("url", "is required: the server's URL, or a list of several"));
        }
        let wrong_url =
            self.url.into_iter().flat_map(OneOrMany::iter).find_map(|url| Server::url_problem(url));
        if let Some(problem) = wrong_url {
            errors.push(section.error("url", problem));
        }
        match self.destination() {
            None => errors.push(section.error("subject", "is required: where to publish")),
            Some(destination) => {
                let before = errors.len();
                destination.check(section, "subject", "subject_allowed", errors);
                if errors.len() == before
                    && let Some(problem) = message::subject_problem(&destination)
                {
                    errors.push(section.error("subject", problem));
                }
            }
        }
        if let Err((key, problem)) = self.login() {
            errors.push(section.error(key, problem));
        }
        if !message::is_subject(self.inbox_prefix) {
            errors.push(
                section.error("inbox_prefix", "expected the beginning of a subject, \"_INBOX\" for example"),
            );
        }
        if self.cert.is_some() != self.key.is_some() {
            let missing = if self.cert.is_some() { "key" } else { "cert" };
            errors.push(section.error(missing, "is required: cert and key belong together"));
        }
    }

    /// What a sink of either kind is made of.
    pub(in super::super) fn parts(&self, context: &Context) -> Result<(Server, Messages), BuildError> {
        let problem = |problem: String| BuildError { sink: context.name.clone(), problem };
        let (Some(urls), Some(destination)) = (self.url, self.destination()) else {
            return Err(problem("url and subject are required".to_owned()));
        };
        let login = self.login().map_err(|(key, error)| problem(format!("{key}: {error}")))?;
        let server = Server {
            urls: urls.clone(),
            login,
            tls: TlsFiles { ca: self.ca.cloned(), identity: self.cert.cloned().zip(self.key.cloned()) },
            sink: context.name.clone(),
            client_name: format!("hookbus/{}", context.name),
            inbox_prefix: self.inbox_prefix.to_owned(),
            refused: Arc::default(),
        };
        server.check_files().map_err(|error| problem(error.to_string()))?;
        Ok((server, Messages { destination, format: context.format, sink: context.name.clone() }))
    }

    fn destination(&self) -> Option<Destination> {
        let template = self.subject?.clone();
        Some(Destination::new(template, self.subject_allowed.to_vec(), message::is_safe))
    }

    fn login(&self) -> Result<Login, (&'static str, &'static str)> {
        let login = match (self.user, self.password) {
            (Some(user), Some(password)) => Some(("user", Login::Password(user.clone(), password.clone()))),
            (None, None) => None,
            (Some(_), None) => return Err(("password", "is required: user and password belong together")),
            (None, Some(_)) => return Err(("user", "is required: user and password belong together")),
        };
        let named = |key, secret: Option<&Secret>, login: fn(Secret) -> Login| {
            secret.map(|secret| (key, login(secret.clone())))
        };
        let mut logins = [
            login,
            named("token", self.token, Login::Token),
            named("nkey", self.nkey, Login::NKey),
            named("credentials", self.credentials, Login::Credentials),
        ]
        .into_iter()
        .flatten();
        let Some((key, login)) = logins.next() else { return Ok(Login::InUrl) };
        if let Some((second, _)) = logins.next() {
            return Err((
                second,
                "is one of several ways to log in; expected one: user and password, token, nkey or credentials",
            ));
        }
        match login.problem() {
            Some(problem) => Err((key, problem)),
            None => Ok(login),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
