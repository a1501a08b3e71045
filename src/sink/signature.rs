//! Signs what leaves, by Standard Webhooks v1 (<https://www.standardwebhooks.com>, "Signature scheme").
//! Holds: R8 (a key is never printed); every live key signs, so that receivers can change theirs at leisure.

use crate::config::{OneOrMany, Secret};
use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The live keys, at least one.
#[derive(Clone)]
pub(super) struct Signer {
    keyed: Vec<Hmac<Sha256>>,
}

/// A secret is no key; which one is not said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected base64 of at least one byte, with or without whsec_ before it")]
pub(super) struct InvalidKey;

impl Signer {
    /// From `whsec_…` secrets, in the order in which their signatures are sent.
    pub(super) fn new(secrets: &OneOrMany<Secret>) -> Result<Self, InvalidKey> {
        secrets.iter().map(keyed).collect::<Result<_, _>>().map(|keyed| Signer { keyed })
    }

    /// The value of `webhook-signature`: `v1,…` of each live key, with spaces between them.
    pub(super) fn sign(&self, id: &str, timestamp_secs: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp_secs}.");
        let one = |keyed: &Hmac<Sha256>| {
            let mac = keyed.clone().chain_update(head.as_bytes()).chain_update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.keyed.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

fn keyed(secret: &Secret) -> Result<Hmac<Sha256>, InvalidKey> {
    let text = secret.expose().trim();
    let key = LENIENT.decode(text.strip_prefix(PREFIX).unwrap_or(text)).map_err(|_| InvalidKey)?;
    if key.is_empty() {
        return Err(InvalidKey);
    }
    Hmac::new_from_slice(&key).map_err(|_| InvalidKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const TIMESTAMP: i64 = 1_649_367_553;
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn signer(secret: &str) -> Result<Signer, InvalidKey> {
        Signer::new(&OneOrMany::one(Secret::literal(secret)))
    }

    #[test]
    fn the_published_example_is_signed_as_published() {
        assert_eq!(signer(SECRET).unwrap().sign(ID, TIMESTAMP, BODY), SIGNATURE);
        let bare = signer(SECRET.strip_prefix(PREFIX).unwrap()).unwrap();
        assert_eq!(bare.sign(ID, TIMESTAMP, BODY), SIGNATURE, "the prefix is optional");
    }

    #[test]
    fn a_secret_that_is_no_key_is_refused() {
        for secret in ["", "whsec_", "  ", "not base64!", "whsec_%%%"] {
            assert!(signer(secret).is_err_and(|error| error == InvalidKey), "{secret:?}");
        }
    }
}
