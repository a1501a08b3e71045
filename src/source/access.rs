//! Proofs that any sender can bring: a password, a token, an address, a client certificate; all that are configured, or
//! any of them.
//! Holds: secrets are compared in constant time, and every one of them whatever the others gave; R8.
//! Absent on purpose: path secrets, which every source may have beside this; signatures (`verify`).

use super::secrets::{EDGE_PROBLEM, LiveSecrets, any_has_an_edge};
use super::{Head, Refused};
use crate::config::{Network, OneOrMany, Secret};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `[sources.N.generic.auth]`: what a request must bring. Without any of these nothing is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Whether a request needs all that is configured here, or one of it.
    require: Require,
    /// The user of HTTP basic authentication; together with `password`.
    user: Option<Secret>,
    /// The password; a list while one is being replaced.
    password: Option<OneOrMany<Secret>>,
    /// A token in the header `authorization`, after `Bearer`; where a password is configured too, either is good.
    bearer: Option<OneOrMany<Secret>>,
    /// A token that is the whole value of `token_header`.
    token: Option<OneOrMany<Secret>>,
    /// The header that carries `token`.
    token_header: Option<String>,
    /// Addresses and networks that may send; behind a trusted proxy the client's own address counts.
    addresses: Vec<Network>,
    /// Names that the client certificate has, one of them: exact, or `*.example.com` for one label more.
    certificate_names: Vec<String>,
}

/// How many of the configured proofs a request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Require {
    /// Every one.
    #[default]
    All,
    /// One at least.
    Any,
}

/// What is asked of every request.
#[derive(Default)]
pub(super) struct Access {
    require: Require,
    proofs: Vec<Proof>,
    headers: Vec<HeaderName>,
}

enum Proof {
    Addresses(Vec<Network>),
    CertificateNames(Vec<String>),
    Authorization { users: LiveSecrets, passwords: LiveSecrets, bearers: LiveSecrets },
    Token(HeaderName, LiveSecrets),
}

/// The key below `auth`, and what is wrong with it.
type Wrong = (&'static str, &'static str);

impl Access {
    /// Checks what the types let pass; the error lists keys and problems.
    pub(super) fn new(config: Config) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut access = Access { require: config.require, ..Access::default() };
        if !config.addresses.is_empty() {
            access.proofs.push(Proof::Addresses(config.addresses));
        }
        if config.certificate_names.iter().any(|name| name.trim_start_matches("*.").is_empty()) {
            wrong.push(("auth.certificate_names", "must not be empty"));
        }
        if !config.certificate_names.is_empty() {
            access.proofs.push(Proof::CertificateNames(config.certificate_names));
        }
        match (&config.user, &config.password) {
            (Some(_), None) => wrong.push(("auth.user", "needs password beside it")),
            (None, Some(_)) => wrong.push(("auth.password", "needs user beside it")),
            (Some(_), Some(_)) | (None, None) => {}
        }
        // Of a user and a password every byte counts, within Base64; but a colon ends the user.
        if config.user.as_ref().is_some_and(|user| user.expose().contains(':')) {
            wrong.push(("auth.user", "must not have a colon in it: there the password begins"));
        }
        for (key, secrets) in [("auth.bearer", &config.bearer), ("auth.token", &config.token)] {
            if any_has_an_edge(secrets.as_ref()) {
                wrong.push((key, EDGE_PROBLEM));
            }
        }
        if config.user.is_some() || config.bearer.is_some() {
            let users = LiveSecrets::of(config.user.map(OneOrMany::one).as_ref());
            let passwords = LiveSecrets::of(config.password.as_ref());
            let bearers = LiveSecrets::of(config.bearer.as_ref());
            access.add(AUTHORIZATION, Proof::Authorization { users, passwords, bearers });
        }
        match (&config.token, config.token_header.map(|name| HeaderName::from_bytes(name.as_bytes()))) {
            (Some(tokens), Some(Ok(header))) => {
                access.add(header.clone(), Proof::Token(header, LiveSecrets::of(Some(tokens))));
            }
            (None, Some(Ok(_))) => wrong.push(("auth.token_header", "needs token beside it")),
            (_, Some(Err(_))) => wrong.push(("auth.token_header", "expected the name of a request header")),
            (Some(_), None) => wrong.push(("auth.token", "needs token_header, the header that carries it")),
            (None, None) => {}
        }
        if wrong.is_empty() { Ok(access) } else { Err(wrong) }
    }

    fn add(&mut self, header: HeaderName, proof: Proof) {
        if !self.headers.contains(&header) {
            self.headers.push(header);
        }
        self.proofs.push(proof);
    }

    /// Is anything asked?
    pub(super) fn is_open(&self) -> bool {
        self.proofs.is_empty()
    }

    /// The headers that carry secrets.
    pub(super) fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Is `text` one of the secrets?
    pub(super) fn knows(&self, text: &[u8]) -> bool {
        self.proofs.iter().any(|proof| match proof {
            Proof::Addresses(_) | Proof::CertificateNames(_) => false,
            Proof::Authorization { users, passwords, bearers } => {
                users.contains(text) || passwords.contains(text) || bearers.contains(text)
            }
            Proof::Token(_, tokens) => tokens.contains(text),
        })
    }

    /// Does the request bring what is asked?
    ///
    /// # Errors
    /// [`Refused`]: of several reasons the first by their order in the configuration; with `any` a wrong secret tells
    /// more than one that is missing.
    pub(super) fn check(&self, head: &Head<'_>) -> Result<(), Refused> {
        let refusals: Vec<Refused> = self.proofs.iter().filter_map(|proof| proof.check(head).err()).collect();
        let is_enough = match self.require {
            Require::All => refusals.is_empty(),
            Require::Any => self.proofs.is_empty() || refusals.len() < self.proofs.len(),
        };
        if is_enough {
            return Ok(());
        }
        let wrong =
            refusals.iter().find(|refused| self.require == Require::Any && **refused == Refused::Wrong);
        Err(wrong.or(refusals.first()).copied().unwrap_or(Refused::Missing))
    }
}

impl Proof {
    fn check(&self, head: &Head<'_>) -> Result<(), Refused> {
        match self {
            Proof::Addresses(networks) => {
                // Whose address nobody knows is in no network, not even in one of all.
                let address = head.peer.address.map(plain);
                let is_one =
                    address.is_some_and(|address| networks.iter().any(|network| network.contains(address)));
                if is_one { Ok(()) } else { Err(Refused::Address) }
            }
            Proof::CertificateNames(patterns) => match head.peer.certificate_names {
                [] => Err(Refused::Missing),
                names if names.iter().any(|name| patterns.iter().any(|p| is_named(p, name))) => Ok(()),
                _ => Err(Refused::Wrong),
            },
            Proof::Authorization { users, passwords, bearers } => every(head, &AUTHORIZATION, |value| {
                let is_bearer = after_scheme(value, "bearer").is_some_and(|token| bearers.contains(token));
                is_bearer || after_scheme(value, "basic").is_some_and(|text| is_user(text, users, passwords))
            }),
            Proof::Token(header, tokens) => every(head, header, |value| tokens.contains(value)),
        }
    }
}

/// `user:password` in Base64 (RFC 7617). Both are compared whatever either gives.
fn is_user(encoded: &[u8], users: &LiveSecrets, passwords: &LiveSecrets) -> bool {
    let decoded = STANDARD.decode(encoded).unwrap_or_default();
    let colon = decoded.iter().position(|byte| *byte == b':').unwrap_or(decoded.len());
    let (user, rest) = decoded.split_at(colon);
    users.contains(user) & passwords.contains(rest.get(1..).unwrap_or_default())
}

/// An IPv4 client of a listener for both is written as IPv6.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// All values of the header must pass, and there must be one.
fn every(head: &Head<'_>, header: &HeaderName, passes: impl Fn(&[u8]) -> bool) -> Result<(), Refused> {
    let mut outcome = Err(Refused::Missing);
    for value in head.headers.get_all(header) {
        if !passes(value.as_bytes()) {
            return Err(Refused::Wrong);
        }
        outcome = Ok(());
    }
    outcome
}

/// What follows the scheme of an `authorization` header (RFC 9110, section 11.4); none where it is another.
pub(super) fn after_scheme<'v>(value: &'v [u8], scheme: &str) -> Option<&'v [u8]> {
    let (given, rest) = value.split_at_checked(scheme.len())?;
    let is_scheme = given.eq_ignore_ascii_case(scheme.as_bytes()) && rest.first() == Some(&b' ');
    is_scheme.then(|| rest.trim_ascii())
}

/// A name of a certificate by a configured one. A wildcard stands for exactly one label (RFC 9525, section 6.3); host
/// names are the same in any case.
fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == name || (is_host(name) && pattern.eq_ignore_ascii_case(name)),
        Some(parent) => {
            let rest = name.split_once('.').filter(|(label, _)| !label.is_empty());
            rest.is_some_and(|(_, rest)| is_host(name) && rest.eq_ignore_ascii_case(parent))
        }
    }
}

fn is_host(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
