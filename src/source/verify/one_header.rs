//! The commonest scheme: one header with a prefix and an HMAC, over the body and perhaps a time and an id beside it.
//! GitHub, Slack and Shopify are three settings of it; `hmac` leaves the settings to the configuration.

use super::time::{is_fresh, seconds};
use super::{Encoding, HmacKeys, Part, Scheme, Template, header_value, single};
use crate::source::{CannotSign, Draft, Head, Proof, Refused, Request};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// Where the time of the signature is, and how far it may be from the arrival.
pub(in crate::source) struct Dated {
    pub(in crate::source) header: HeaderName,
    pub(in crate::source) tolerance: Duration,
}

/// The scheme with its settings.
pub(in crate::source) struct OneHeader {
    /// Carries the signature.
    pub(in crate::source) signature: [HeaderName; 1],
    /// What stands before the signature in its header.
    pub(in crate::source) prefix: String,
    pub(in crate::source) encoding: Encoding,
    pub(in crate::source) signed: Template,
    /// Carries the id, where one is signed.
    pub(in crate::source) id: Option<HeaderName>,
    pub(in crate::source) dated: Option<Dated>,
    pub(in crate::source) keys: HmacKeys,
}

/// What the head claims.
struct Claim<'a> {
    id: &'a [u8],
    timestamp: &'a [u8],
    signed_secs: i64,
    signature: Vec<u8>,
}

impl OneHeader {
    fn claim<'a>(&self, headers: &'a HeaderMap) -> Result<Claim<'a>, Refused> {
        let signature = single(headers, &self.signature[0])?;
        let id = match &self.id {
            Some(id) if self.signed.has(&Part::Id) => single(headers, id)?,
            Some(_) | None => b"",
        };
        let timestamp = self.dated.as_ref().map_or(Ok(&b"0"[..]), |dated| single(headers, &dated.header))?;
        let signature = signature.strip_prefix(self.prefix.as_bytes()).ok_or(Refused::Wrong)?;
        let signature = self.encoding.decode(signature).ok_or(Refused::Wrong)?;
        if signature.len() != self.keys.signature_len() {
            return Err(Refused::Wrong);
        }
        Ok(Claim { id, timestamp, signed_secs: seconds(timestamp)?, signature })
    }
}

impl Scheme for OneHeader {
    fn headers(&self) -> &[HeaderName] {
        &self.signature
    }

    fn present(&self, head: &Head<'_>) -> Result<(), Refused> {
        self.claim(head.headers).map(|_| ())
    }

    fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let claim = self.claim(request.head.headers)?;
        if let Some(dated) = &self.dated {
            is_fresh(claim.signed_secs, request.arrival.at, dated.tolerance)?;
        }
        let parts = self.signed.fill(claim.id, claim.timestamp, request.body);
        if self.keys.match_any(&parts, &[claim.signature]) { Ok(()) } else { Err(Refused::Wrong) }
    }

    fn tolerance(&self) -> Option<Duration> {
        self.dated.as_ref().map(|dated| dated.tolerance)
    }

    fn sign(&self, draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        let id = draft.arrival.unique.to_string();
        let timestamp = (draft.arrival.at.0 / 1000).to_string();
        let parts = self.signed.fill(id.as_bytes(), timestamp.as_bytes(), draft.body);
        let signature = self.keys.sign(&parts).ok_or(CannotSign)?;
        let text = format!("{}{}", self.prefix, self.encoding.encode(&signature));
        let mut proof = Proof::default();
        proof.headers.insert(&self.signature[0], header_value(&text));
        if let Some(header) = &self.id {
            proof.headers.insert(header, header_value(&id));
        }
        if let Some(dated) = &self.dated {
            proof.headers.insert(&dated.header, HeaderValue::from(draft.arrival.at.0 / 1000));
        }
        Ok(proof)
    }
}
