//! Standard Webhooks 1.0.0 (<https://www.standardwebhooks.com>, "Signature scheme"): `id.timestamp.body`, signed by HMAC
//! (`v1`) or Ed25519 (`v1a`), any number of signatures in one header.
//! Holds: a signature of one version is only ever checked with keys of that version.

use super::encoding::BASE64_OF_KEYS;
use super::time::{is_fresh, seconds};
use super::{
    Algorithm, Encoding, HmacKeys, SECRETS_MAX, SIGNATURES_MAX, Scheme, SecretProblem, header_value, single,
};
use crate::config::{OneOrMany, Secret};
use crate::source::{CannotSign, Draft, Head, Proof, Refused, Request};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use http::{HeaderMap, HeaderName};
use std::time::Duration;

/// The most Ed25519 signatures that are checked: each reads the whole body once for each key.
const ED25519_SIGNATURES_MAX: usize = 4;
/// Bytes of an Ed25519 public key (RFC 8032, section 5.1.5).
const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of an Ed25519 signature.
const ED25519_BYTES: usize = 64;

/// The names of the three headers under one brand.
pub(in crate::source) struct Names {
    pub(in crate::source) id: HeaderName,
    timestamp: HeaderName,
    signature: HeaderName,
}

/// The specification's own names, then those of the service that it comes from, which still sends them.
static NAMES: [Names; 2] = [
    Names {
        id: HeaderName::from_static("webhook-id"),
        timestamp: HeaderName::from_static("webhook-timestamp"),
        signature: HeaderName::from_static("webhook-signature"),
    },
    Names {
        id: HeaderName::from_static("svix-id"),
        timestamp: HeaderName::from_static("svix-timestamp"),
        signature: HeaderName::from_static("svix-signature"),
    },
];
/// Only the specification's own.
pub(in crate::source) static OWN_NAMES: &[Names] = NAMES.split_at(1).0;
/// Also the older ones.
pub(in crate::source) static WITH_SVIX_NAMES: &[Names] = &NAMES;

impl Names {
    /// Those under which the request is signed.
    pub(in crate::source) fn of(known: &'static [Names], headers: &HeaderMap) -> Option<&'static Names> {
        known.iter().find(|names| headers.contains_key(&names.signature))
    }
}

/// The scheme with its keys.
pub(in crate::source) struct Standard {
    names: &'static [Names],
    signature_headers: Vec<HeaderName>,
    shared: HmacKeys,
    public: Vec<[u8; PUBLIC_KEY_BYTES]>,
    tolerance: Duration,
}

/// What the head claims.
struct Claim<'a> {
    id: &'a [u8],
    timestamp: &'a [u8],
    signed_secs: i64,
    v1: Vec<Vec<u8>>,
    v1a: Vec<Vec<u8>>,
}

impl Standard {
    /// With the first of `names` whose signature is there. Secrets are `whsec_…`, also without that prefix, and
    /// `whpk_…` for public keys.
    pub(in crate::source) fn new(
        names: &'static [Names],
        secrets: Option<&OneOrMany<Secret>>,
        tolerance: Duration,
    ) -> Result<Self, SecretProblem> {
        let secrets = secrets.ok_or(SecretProblem::Missing)?;
        if secrets.iter().count() > SECRETS_MAX {
            return Err(SecretProblem::TooMany);
        }
        let (mut shared, mut public) = (Vec::new(), Vec::new());
        for secret in secrets.iter() {
            let text = secret.expose().trim();
            if text.is_empty() {
                return Err(SecretProblem::Empty);
            } else if text.starts_with("whsk_") {
                return Err(SecretProblem::Private);
            } else if let Some(key) = text.strip_prefix("whpk_") {
                let key = BASE64_OF_KEYS.decode(key).ok().and_then(|key| key.try_into().ok());
                public.push(key.ok_or(SecretProblem::NoKey)?);
            } else {
                let key = BASE64_OF_KEYS.decode(text.strip_prefix("whsec_").unwrap_or(text));
                shared.push(key.ok().filter(|key| !key.is_empty()).ok_or(SecretProblem::NoKey)?);
            }
        }
        let signature_headers = names.iter().map(|names| names.signature.clone()).collect();
        let shared = HmacKeys::of_bytes(shared, Algorithm::Sha256);
        Ok(Standard { names, signature_headers, shared, public, tolerance })
    }

    fn claim<'a>(&self, headers: &'a HeaderMap) -> Result<Claim<'a>, Refused> {
        let names = Names::of(self.names, headers).ok_or(Refused::Missing)?;
        let id = single(headers, &names.id)?;
        let timestamp = single(headers, &names.timestamp)?;
        let signatures = single(headers, &names.signature)?;
        let signed_secs = seconds(timestamp)?;
        let mut claim = Claim { id, timestamp, signed_secs, v1: Vec::new(), v1a: Vec::new() };
        let signatures = signatures.split(u8::is_ascii_whitespace).filter(|text| !text.is_empty());
        for (index, signature) in signatures.enumerate() {
            if index == SIGNATURES_MAX {
                return Err(Refused::Wrong);
            }
            let (list, text, len) = match signature {
                [b'v', b'1', b',', text @ ..] => (&mut claim.v1, text, self.shared.signature_len()),
                [b'v', b'1', b'a', b',', text @ ..] => (&mut claim.v1a, text, ED25519_BYTES),
                // A version of the future, for which the sender sends another signature beside it.
                _ => continue,
            };
            list.extend(Encoding::Base64.decode(text).filter(|bytes| bytes.len() == len));
        }
        if claim.v1.is_empty() && claim.v1a.is_empty() { Err(Refused::Wrong) } else { Ok(claim) }
    }

    fn matches_public(&self, parts: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        if self.public.is_empty() || signatures.is_empty() {
            return false;
        }
        let signed = parts.concat();
        let signatures = &signatures[..signatures.len().min(ED25519_SIGNATURES_MAX)];
        // Neither a public key nor a signature is a secret, so the first match may end it.
        let verifies = |key: &[u8; PUBLIC_KEY_BYTES], signature: &Vec<u8>| {
            UnparsedPublicKey::new(&ED25519, key).verify(&signed, signature).is_ok()
        };
        self.public.iter().any(|key| signatures.iter().any(|signature| verifies(key, signature)))
    }
}

impl Scheme for Standard {
    fn headers(&self) -> &[HeaderName] {
        &self.signature_headers
    }

    fn present(&self, head: &Head<'_>) -> Result<(), Refused> {
        self.claim(head.headers).map(|_| ())
    }

    fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let claim = self.claim(request.head.headers)?;
        is_fresh(claim.signed_secs, request.arrival.at, self.tolerance)?;
        let parts: [&[u8]; 5] = [claim.id, b".", claim.timestamp, b".", request.body];
        let matches = self.shared.match_any(&parts, &claim.v1) || self.matches_public(&parts, &claim.v1a);
        if matches { Ok(()) } else { Err(Refused::Wrong) }
    }

    fn tolerance(&self) -> Option<Duration> {
        Some(self.tolerance)
    }

    fn sign(&self, draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        let names = self.names.first().ok_or(CannotSign)?;
        let id = format!("msg_{}", draft.arrival.unique.simple());
        let timestamp = (draft.arrival.at.0 / 1000).to_string();
        let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", draft.body];
        let signature = self.shared.sign(&parts).ok_or(CannotSign)?;
        let mut proof = Proof::default();
        proof.headers.insert(&names.id, header_value(&id));
        proof.headers.insert(&names.timestamp, header_value(&timestamp));
        let signature = format!("v1,{}", Encoding::Base64.encode(&signature));
        proof.headers.insert(&names.signature, header_value(&signature));
        Ok(proof)
    }
}
