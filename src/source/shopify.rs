//! Shopify (<https://shopify.dev/docs/apps/build/webhooks>): webhooks over HTTPS.

use super::facts::{Facts, header_text, id_of_bytes, id_of_headers, type_of, uri_part};
use super::payload::Payload;
use super::signed::{Describe, Signed, Undated, defaults};
use super::verify::{Encoding, OneHeader, Template};
use super::{Request, Source, SourceType};
use crate::config::{ConfigErrors, Section};
use crate::time::UnixMs;
use http::HeaderName;
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType { name: "shopify", build, defaults: defaults::<Undated> };

/// "Verify webhook deliveries": the base64 HMAC-SHA256 of the body, made with the app's client secret.
fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let scheme = OneHeader {
        signature: [HeaderName::from_static("x-shopify-hmac-sha256")],
        prefix: String::new(),
        encoding: Encoding::Base64,
        signed: Template::body(),
        id: None,
        dated: None,
        keys: Undated::read(section)?,
    };
    Ok(Signed::source(scheme, Shopify))
}

struct Shopify;

impl Describe for Shopify {
    /// "Webhooks delivery structure". `X-Shopify-Webhook-Id` is of one delivery and its repetitions;
    /// `X-Shopify-Event-Id` is shared by all the deliveries that one action in the shop sets off, so it would make
    /// different events one.
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let topic = header_text(request, "x-shopify-topic").unwrap_or(Cow::Borrowed("unknown"));
        let shop = header_text(request, "x-shopify-shop-domain");
        let resource = topic.split('/').next().unwrap_or_default();
        let subject = payload.at("/id").map(|id| format!("{resource}/{id}"));
        let key = match (&shop, &subject) {
            (Some(shop), Some(subject)) => Some(format!("{shop}/{subject}")),
            (Some(shop), None) => Some(shop.clone().into_owned()),
            (None, _) => subject.clone(),
        };
        let event_type = type_of(&[Some(Cow::Borrowed("com.shopify")), Some(topic.replace('/', ".").into())]);
        let triggered = header_text(request, "x-shopify-triggered-at");
        Facts {
            id: id_of_headers(request, &["x-shopify-webhook-id"]).or_else(|| id_of_bytes(request)),
            source: shop.map(|shop| format!("//{}", uri_part(&shop))),
            event_type,
            subject,
            time: triggered.and_then(|time| UnixMs::from_sender(&time)),
            key,
        }
    }
}
