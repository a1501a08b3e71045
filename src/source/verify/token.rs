//! No signature at all: a shared token in a header.
//! Holds: the token is compared in constant time; it proves who sends, not what.

use super::{SECRETS_MAX, Scheme, SecretProblem};
use crate::config::{OneOrMany, Secret};
use crate::source::secrets::{LiveSecrets, any_has_an_edge};
use crate::source::{CannotSign, Draft, Head, Proof, Refused, Request};
use http::{HeaderName, HeaderValue};

/// The scheme with its live tokens.
pub(in crate::source) struct Token {
    header: [HeaderName; 1],
    live: LiveSecrets,
    /// What our own requests carry.
    first: Secret,
}

impl Token {
    pub(in crate::source) fn new(
        header: HeaderName,
        secrets: &OneOrMany<Secret>,
    ) -> Result<Self, SecretProblem> {
        let is_blank = |secret: &Secret| secret.expose().trim().is_empty();
        let first = secrets.iter().next().ok_or(SecretProblem::Missing)?.clone();
        if secrets.iter().any(is_blank) {
            return Err(SecretProblem::Empty);
        }
        if any_has_an_edge(Some(secrets)) {
            return Err(SecretProblem::Edge);
        }
        if secrets.iter().count() > SECRETS_MAX {
            return Err(SecretProblem::TooMany);
        }
        Ok(Token { header: [header], live: LiveSecrets::of(Some(secrets)), first })
    }
}

impl Scheme for Token {
    fn headers(&self) -> &[HeaderName] {
        &self.header
    }

    fn knows(&self, text: &[u8]) -> bool {
        self.live.contains(text)
    }

    fn present(&self, head: &Head<'_>) -> Result<(), Refused> {
        let token = super::single(head.headers, &self.header[0])?;
        if self.live.contains(token) { Ok(()) } else { Err(Refused::Wrong) }
    }

    fn covers_body(&self) -> bool {
        false
    }

    fn verify(&self, _request: &Request<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn sign(&self, _draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        let mut proof = Proof::default();
        let mut token = HeaderValue::from_str(self.first.expose()).map_err(|_| CannotSign)?;
        token.set_sensitive(true);
        proof.headers.insert(&self.header[0], token);
        Ok(proof)
    }
}
