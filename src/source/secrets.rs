//! The live secrets of one kind, whether a presented one is among them, and which names are those of secrets.
//! Holds: R8 (only digests are kept, made once); the time of a comparison tells neither how much of a secret was right nor
//! which of several it was.

use crate::config::{OneOrMany, Secret};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What is wrong with a secret that can never arrive as it stands.
pub(super) const EDGE_PROBLEM: &str =
    "begins or ends with white space, which never arrives: look for a space or an empty line too many";

/// A name that has one of these anywhere in it, hyphens and the like left out, names a secret.
pub const PARTS_OF_SECRET_NAMES: [&str; 16] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "authoriz",
    "authentic",
    "cookie",
    "signature",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "hmac",
    "credential",
    "session",
];
/// A name that has one of these as a word names a secret: `X-Auth`, `authKey` and `user_pwd`, but not `author`.
pub const WORDS_OF_SECRET_NAMES: [&str; 6] = ["pwd", "pass", "pin", "otp", "jwt", "auth"];

/// Does one of the secrets begin or end with white space? HTTP takes it from the values of headers, and no path has it.
pub(super) fn any_has_an_edge(secrets: Option<&OneOrMany<Secret>>) -> bool {
    let has_an_edge = |secret: &Secret| secret.expose().trim() != secret.expose();
    secrets.is_some_and(|secrets| secrets.iter().any(has_an_edge))
}

/// Digests of the secrets that are accepted now.
#[derive(Clone)]
pub(super) struct LiveSecrets(Vec<[u8; 32]>);

impl LiveSecrets {
    pub(super) fn of(secrets: Option<&OneOrMany<Secret>>) -> Self {
        let digest = |secret: &Secret| Sha256::digest(secret.expose().as_bytes()).into();
        LiveSecrets(secrets.into_iter().flat_map(OneOrMany::iter).map(digest).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares with every live secret, also after one has matched.
    pub(super) fn contains(&self, presented: &[u8]) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        let matched = self.0.iter().fold(Choice::from(0), |matched, live| matched | live.ct_eq(&presented));
        bool::from(matched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_live_secret_is_accepted() {
        let live = LiveSecrets::of(Some(&OneOrMany::one(Secret::literal("correct horse"))));
        for (presented, accepted) in
            [("correct horse", true), ("correct", false), ("correct horse ", false), ("", false)]
        {
            assert_eq!(live.contains(presented.as_bytes()), accepted, "{presented}");
        }
        assert!(!LiveSecrets::of(None).contains(b""), "no secret accepts nobody");
    }
}
