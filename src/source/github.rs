//! GitHub (<https://docs.github.com/en/webhooks>): repositories, organisations and apps, also of an Enterprise Server.
//! `X-Hub-Signature-256` only: `X-Hub-Signature` is SHA-1, which GitHub sends for those who never changed.

use super::facts::{Facts, header_text, id_of_bytes, id_of_headers, type_of, uri_part};
use super::payload::Payload;
use super::signed::{Describe, Signed, Undated, defaults};
use super::verify::{Encoding, OneHeader, Template};
use super::{Request, Source, SourceType};
use crate::config::{ConfigErrors, Section};
use http::HeaderName;
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType { name: "github", build, defaults: defaults::<Undated> };

/// "Validating webhook deliveries": `sha256=` and the hexadecimal HMAC-SHA256 of the body.
fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let scheme = OneHeader {
        signature: [HeaderName::from_static("x-hub-signature-256")],
        prefix: "sha256=".to_owned(),
        encoding: Encoding::Hex,
        signed: Template::body(),
        id: None,
        dated: None,
        keys: Undated::read(section)?,
    };
    Ok(Signed::source(scheme, GitHub))
}

struct GitHub;

impl Describe for GitHub {
    /// "Webhook events and payloads", delivery headers. `X-GitHub-Delivery` stays the same when a delivery is repeated.
    /// No field of every payload says when its event happened.
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let event = header_text(request, "x-github-event").unwrap_or(Cow::Borrowed("unknown"));
        let about = payload
            .first_at(&["/repository/full_name", "/organization/login", "/installation/account/login"])
            .map(Cow::into_owned);
        let host = header_text(request, "x-github-enterprise-host").unwrap_or(Cow::Borrowed("github.com"));
        Facts {
            id: id_of_headers(request, &["x-github-delivery"]).or_else(|| id_of_bytes(request)),
            source: Some(format!("//{}", uri_part(&host))),
            event_type: type_of(&[Some(Cow::Borrowed("com.github")), Some(event), payload.at("/action")]),
            subject: about.clone(),
            time: None,
            key: about,
        }
    }

    /// A webhook whose content type is `application/x-www-form-urlencoded` has its JSON there.
    fn json_field(&self) -> Option<&'static str> {
        Some("payload")
    }
}
