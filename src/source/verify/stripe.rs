//! Stripe's scheme (<https://docs.stripe.com/webhooks#verify-manually>): `t=…,v1=…[,v1=…]` in one header, `t.body` signed.
//! Holds: only `v1` counts; `v0` is a test signature and other names are Stripe's future.

use super::time::{is_fresh, seconds};
use super::{Encoding, HmacKeys, SIGNATURES_MAX, Scheme, header_value, single};
use crate::source::{CannotSign, Draft, Head, Proof, Refused, Request};
use http::{HeaderMap, HeaderName};
use std::time::Duration;

static SIGNATURE: [HeaderName; 1] = [HeaderName::from_static("stripe-signature")];

/// The scheme with its keys: the whole secret, `whsec_` included, is the key.
pub(in crate::source) struct StripeHeader {
    pub(in crate::source) keys: HmacKeys,
    pub(in crate::source) tolerance: Duration,
}

/// What the header claims.
struct Claim<'a> {
    timestamp: &'a [u8],
    signed_secs: i64,
    signatures: Vec<Vec<u8>>,
}

impl StripeHeader {
    fn claim<'a>(&self, headers: &'a HeaderMap) -> Result<Claim<'a>, Refused> {
        let (mut timestamp, mut signatures) = (None, Vec::new());
        for element in single(headers, &SIGNATURE[0])?.split(|&byte| byte == b',') {
            match element.trim_ascii() {
                [b't', b'=', ..] if timestamp.is_some() => return Err(Refused::Wrong),
                [b't', b'=', time @ ..] => timestamp = Some(time),
                [b'v', b'1', b'=', signature @ ..] => {
                    let signature = Encoding::Hex.decode(signature);
                    signatures.extend(signature.filter(|bytes| bytes.len() == self.keys.signature_len()));
                }
                _ => {}
            }
        }
        let timestamp = timestamp.ok_or(Refused::Missing)?;
        if signatures.is_empty() || signatures.len() > SIGNATURES_MAX {
            return Err(Refused::Wrong);
        }
        Ok(Claim { timestamp, signed_secs: seconds(timestamp)?, signatures })
    }
}

impl Scheme for StripeHeader {
    fn headers(&self) -> &[HeaderName] {
        &SIGNATURE
    }

    fn present(&self, head: &Head<'_>) -> Result<(), Refused> {
        self.claim(head.headers).map(|_| ())
    }

    fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let claim = self.claim(request.head.headers)?;
        is_fresh(claim.signed_secs, request.arrival.at, self.tolerance)?;
        let matches = self.keys.match_any(&[claim.timestamp, b".", request.body], &claim.signatures);
        if matches { Ok(()) } else { Err(Refused::Wrong) }
    }

    fn tolerance(&self) -> Option<Duration> {
        Some(self.tolerance)
    }

    fn sign(&self, draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        let timestamp = (draft.arrival.at.0 / 1000).to_string();
        let signature = self.keys.sign(&[timestamp.as_bytes(), b".", draft.body]).ok_or(CannotSign)?;
        let mut proof = Proof::default();
        let text = format!("t={timestamp},v1={}", Encoding::Hex.encode(&signature));
        proof.headers.insert(&SIGNATURE[0], header_value(&text));
        Ok(proof)
    }
}
