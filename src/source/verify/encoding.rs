//! HMAC keys, and how a signature is written as text.

use super::SECRETS_MAX;
use crate::config::{OneOrMany, Secret};
use crate::source::secrets::EDGE_PROBLEM;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq};

/// Keys, which people copy: with padding or without.
pub(super) const BASE64_OF_KEYS: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The hash within an HMAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::source) enum Algorithm {
    #[default]
    Sha256,
    Sha1,
    Sha512,
}

impl Algorithm {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// A signature as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::source) enum Encoding {
    /// In capital or small letters.
    #[default]
    Hex,
    Base64,
}

impl Encoding {
    /// The bytes; none where the text is not of this encoding.
    pub(super) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => STANDARD.decode(text).ok(),
        }
    }

    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
        }
    }
}

/// What is wrong with a secret, without the secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::source) enum SecretProblem {
    #[error("is required")]
    Missing,
    #[error("must not be empty")]
    Empty,
    #[error("{EDGE_PROBLEM}")]
    Edge,
    #[error(
        "ends with an empty line, which nobody signs with: the last line break of a file is left out, a second is not"
    )]
    EmptyLine,
    #[error("at most {SECRETS_MAX} secrets can be live at once")]
    TooMany,
    #[error("expected base64 of at least one byte after whsec_, or of 32 bytes after whpk_")]
    NoKey,
    #[error("is a private key, which only the sender has; put its public key (whpk_…) here")]
    Private,
}

/// The live keys, at least one.
#[derive(Clone)]
pub(in crate::source) struct HmacKeys {
    algorithm: Algorithm,
    keys: Vec<hmac::Key>,
}

impl HmacKeys {
    /// Of secrets whose text is the key.
    pub(in crate::source) fn of(
        secrets: Option<&OneOrMany<Secret>>,
        algorithm: Algorithm,
    ) -> Result<Self, SecretProblem> {
        let secrets = secrets.ok_or(SecretProblem::Missing)?;
        if secrets.iter().any(|secret| secret.expose().trim().is_empty()) {
            return Err(SecretProblem::Empty);
        }
        // A space may be part of a key; a line break is a slip that would refuse every request without a word.
        let has_empty_line = |secret: &Secret| secret.expose().ends_with(['\n', '\r']);
        if secrets.iter().any(has_empty_line) {
            return Err(SecretProblem::EmptyLine);
        }
        if secrets.iter().count() > SECRETS_MAX {
            return Err(SecretProblem::TooMany);
        }
        Ok(Self::of_bytes(secrets.iter().map(|secret| secret.expose().as_bytes()), algorithm))
    }

    /// Of keys.
    pub(super) fn of_bytes(keys: impl IntoIterator<Item = impl AsRef<[u8]>>, algorithm: Algorithm) -> Self {
        let keys = keys.into_iter().map(|key| hmac::Key::new(algorithm.hmac(), key.as_ref()));
        HmacKeys { algorithm, keys: keys.collect() }
    }

    /// How many bytes a signature has.
    pub(super) fn signature_len(&self) -> usize {
        self.algorithm.hmac().digest_algorithm().output_len()
    }

    /// Is one of the presented signatures what one of the keys makes of the parts? Every key is tried with every
    /// signature, also after two have matched, so that the time tells nothing.
    pub(super) fn match_any(&self, parts: &[&[u8]], presented: &[Vec<u8>]) -> bool {
        let mut matched = Choice::from(0);
        for key in &self.keys {
            let expected = mac(key, parts);
            for signature in presented {
                matched |= expected.as_ref().ct_eq(signature);
            }
        }
        bool::from(matched)
    }

    /// What the first key makes of the parts; none without a key.
    pub(super) fn sign(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        self.keys.first().map(|key| mac(key, parts).as_ref().to_vec())
    }
}

fn mac(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}
