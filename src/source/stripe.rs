//! Stripe (<https://docs.stripe.com/webhooks>): snapshot events and the thin events of API v2.

use super::facts::{Facts, fit_id, id_of_bytes, type_of, uri_part};
use super::payload::Payload;
use super::signed::{Dated, Describe, Signed, defaults};
use super::verify::StripeHeader;
use super::{Request, Source, SourceType};
use crate::config::{ConfigErrors, Section};
use crate::time::UnixMs;
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType { name: "stripe", build, defaults: defaults::<Dated> };

fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let (keys, tolerance) = Dated::read(section)?;
    Ok(Signed::source(StripeHeader { keys, tolerance }, Stripe))
}

struct Stripe;

impl Describe for Stripe {
    /// "The Event object". Its `id` stays the same when a delivery is repeated; `account` is there for events of
    /// connected accounts, `context` in its place in API v2.
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let account = payload.first_at(&["/account", "/context"]);
        let object = payload.first_at(&["/data/object/id", "/related_object/id"]).map(Cow::into_owned);
        let kind = payload.at("/type").unwrap_or(Cow::Borrowed("unknown"));
        Facts {
            id: payload.at("/id").map(|id| fit_id(id.as_bytes())).or_else(|| id_of_bytes(request)),
            source: Some(match &account {
                Some(account) => format!("//api.stripe.com/accounts/{}", uri_part(account)),
                None => "//api.stripe.com".to_owned(),
            }),
            event_type: type_of(&[Some(Cow::Borrowed("com.stripe")), Some(kind)]),
            subject: object.clone(),
            time: payload.at("/created").and_then(|created| UnixMs::from_sender(&created)),
            key: object.or_else(|| account.map(Cow::into_owned)),
        }
    }
}
