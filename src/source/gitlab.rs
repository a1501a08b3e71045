//! GitLab (<https://docs.gitlab.com/user/project/integrations/webhooks/>): projects, groups and system hooks.
//! Two proofs: the secret token in a header, and in newer versions a signing token that signs by Standard Webhooks.

use super::facts::{Facts, header, header_text, id_of_bytes_and, id_of_headers, type_of, uri_of};
use super::payload::Payload;
use super::signed::{Describe, Signed, defaults, tolerance, wrong_secret};
use super::verify::{OWN_NAMES, Scheme, Standard, TOLERANCE_DEFAULT, Token};
use super::{CannotSign, Draft, Head, Proof, Refused, Request, Source, SourceType};
use crate::config::{ConfigErrors, OneOrMany, Period, Secret, Section};
use http::HeaderName;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType { name: "gitlab", build, defaults: defaults::<Config> };

/// `[sources.N.gitlab]`. What is configured is required: with both keys both proofs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The secret token, which GitLab sends as it is; several while one is being replaced.
    secret: Option<OneOrMany<Secret>>,
    /// The signing token, `whsec_…`; several while one is being replaced.
    signing_token: Option<OneOrMany<Secret>>,
    /// How far the time of a signature may be from the arrival.
    tolerance: Period,
}

impl Default for Config {
    fn default() -> Self {
        Config { secret: None, signing_token: None, tolerance: TOLERANCE_DEFAULT }
    }
}

fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let config: Config = section.extract()?;
    let mut errors = Vec::new();
    let header = HeaderName::from_static("x-gitlab-token");
    let token = config.secret.as_ref().map(|secrets| Token::new(header, secrets)).transpose();
    let token = token.map_err(|problem| wrong_secret(section, problem));
    let token = ConfigErrors::collect(&mut errors, token).flatten();
    let tolerance =
        ConfigErrors::collect(&mut errors, tolerance(section, config.tolerance)).unwrap_or_default();
    let signing = config.signing_token.as_ref();
    let signature = signing.map(|secrets| Standard::new(OWN_NAMES, Some(secrets), tolerance));
    let signature = signature
        .transpose()
        .map_err(|problem| ConfigErrors(vec![section.error("signing_token", problem.to_string())]));
    let signature = ConfigErrors::collect(&mut errors, signature).flatten();
    if config.secret.is_none() && config.signing_token.is_none() {
        errors.push(section.error("secret", "is required, or signing_token"));
    }
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let both = [token.as_ref().map(Scheme::headers), signature.as_ref().map(Scheme::headers)];
    let headers = both.into_iter().flatten().flatten().cloned().collect();
    Ok(Signed::source(Proofs { token, signature, headers }, GitLab))
}

/// Each that is configured.
struct Proofs {
    token: Option<Token>,
    signature: Option<Standard>,
    headers: Vec<HeaderName>,
}

impl Proofs {
    fn each(&self) -> impl Iterator<Item = &dyn Scheme> {
        let token = self.token.as_ref().map(|token| token as &dyn Scheme);
        token.into_iter().chain(self.signature.as_ref().map(|signature| signature as &dyn Scheme))
    }
}

impl Scheme for Proofs {
    fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    fn knows(&self, text: &[u8]) -> bool {
        self.each().any(|scheme| scheme.knows(text))
    }

    fn present(&self, head: &Head<'_>) -> Result<(), Refused> {
        self.each().try_for_each(|scheme| scheme.present(head))
    }

    fn covers_body(&self) -> bool {
        self.each().any(Scheme::covers_body)
    }

    fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        self.each().try_for_each(|scheme| scheme.verify(request))
    }

    fn tolerance(&self) -> Option<std::time::Duration> {
        self.each().find_map(Scheme::tolerance)
    }

    fn sign(&self, draft: &Draft<'_>) -> Result<Proof, CannotSign> {
        let mut both = Proof::default();
        for scheme in self.each() {
            both.headers.extend(scheme.sign(draft)?.headers);
        }
        Ok(both)
    }
}

struct GitLab;

impl Describe for GitLab {
    /// "Webhook events" and "Delivery headers". `Idempotency-Key` (GitLab 17.4) and the equal `webhook-id` stay the same
    /// when a delivery is repeated. `X-Gitlab-Event-UUID` does not separate events: webhooks that other webhooks set off
    /// share it.
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let hook = header_text(request, "x-gitlab-event");
        let hook = hook.map(|name| Cow::Owned(name.trim_end_matches(" Hook").to_ascii_lowercase()));
        let kind =
            payload.first_at(&["/object_kind", "/event_name"]).or(hook).unwrap_or(Cow::Borrowed("unknown"));
        let action = payload.first_at(&[
            "/object_attributes/action",
            "/action",
            "/object_attributes/status",
            "/build_status",
            "/status",
        ]);
        let about = payload.first_at(&[
            "/project/path_with_namespace",
            "/path_with_namespace",
            "/group/full_path",
            "/group_path",
            "/full_path",
        ]);
        let about = about.map(Cow::into_owned);
        let id = id_of_headers(request, &["webhook-id", "idempotency-key"]);
        let uuid = header(request, "x-gitlab-event-uuid").unwrap_or_default();
        Facts {
            id: id.or_else(|| id_of_bytes_and(request, uuid)),
            source: header_text(request, "x-gitlab-instance").map(|instance| uri_of(&instance)),
            event_type: type_of(&[Some(Cow::Borrowed("com.gitlab")), Some(kind), action]),
            subject: about.clone(),
            time: None,
            key: about,
        }
    }
}
