//! Signature schemes: which headers carry what, which bytes are signed and with what, and for how long that holds.
//! Holds: R8 (a key is never printed, and a refusal never tells what was expected); signatures are compared in constant
//! time with every live secret, also after one has matched; what a stranger's request costs is bounded by
//! [`SECRETS_MAX`] and [`SIGNATURES_MAX`]; an age is measured against the request's arrival.
//! Absent on purpose: what events are (the dialects).

mod encoding;
mod one_header;
mod standard;
mod stripe;
mod template;
mod time;
mod token;
mod twilio;

pub(super) use encoding::{Algorithm, Encoding, HmacKeys, SecretProblem};
pub(super) use one_header::{Dated, OneHeader};
pub(super) use standard::{Names, OWN_NAMES, Standard, WITH_SVIX_NAMES};
pub(super) use stripe::StripeHeader;
pub(super) use template::{Part, Template};
pub(super) use time::TOLERANCE_DEFAULT;
pub(super) use token::Token;
pub(super) use twilio::{PublicUrl, TwilioUrl};

use super::{CannotSign, Draft, Head, Proof, Refused, Request};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// The most live secrets of a source: one, and its successor, with room.
pub(super) const SECRETS_MAX: usize = 8;
/// The most signatures in one request: senders send one for each of their live keys.
const SIGNATURES_MAX: usize = 16;

/// How a sender proves that it wrote a request.
pub(super) trait Scheme: Send + Sync {
    /// The headers that carry the proof: never kept, logged or passed on.
    fn headers(&self) -> &[HeaderName];
    /// Is `text` a secret that senders present as it is?
    fn knows(&self, _text: &[u8]) -> bool {
        false
    }
    /// Looks at the head alone: everything that belongs there is there and well formed.
    fn present(&self, head: &Head<'_>) -> Result<(), Refused>;
    /// Whether the proof covers the body, so that [`Scheme::verify`] has something to do.
    fn covers_body(&self) -> bool {
        true
    }
    /// Checks the proof over the bytes of the body.
    fn verify(&self, request: &Request<'_>) -> Result<(), Refused>;
    /// How far the time of a proof may be from the arrival; `None` where a proof has no time.
    fn tolerance(&self) -> Option<Duration> {
        None
    }
    /// Makes the proof for a request of our own, with the first live secret.
    fn sign(&self, draft: &Draft<'_>) -> Result<Proof, CannotSign>;
}

/// The value of a header that must stand there once. Two would leave open which of them was signed.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Refused> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.as_bytes().trim_ascii());
    let value = value.filter(|value| !value.is_empty()).ok_or(Refused::Missing)?;
    if values.next().is_some() { Err(Refused::Wrong) } else { Ok(value) }
}

/// A header that the scheme itself has written: its text is always fit for one.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text)
        .expect("digits, letters of an encoding and the checked prefix are header text")
}
