//! The live secrets of one kind, and whether a presented one is among them.
//! Holds: R8 (only digests are kept, made once); the time of a comparison tells neither how much of a secret was right nor
//! which of several it was.

use crate::config::{OneOrMany, Secret};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

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
