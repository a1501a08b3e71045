//! Standard Webhooks (<https://www.standardwebhooks.com>): the one dialect of many senders, also under its older `svix-`
//! names.

use super::facts::{Facts, fit_id, header, id_of_bytes, type_of};
use super::payload::Payload;
use super::picks::{DEFAULT_TYPE, Picks, Written};
use super::signed::{Describe, Signed, defaults, no_problems, tolerance, wrong_secret};
use super::verify::{Names, Standard, TOLERANCE_DEFAULT, WITH_SVIX_NAMES};
use super::whatsapp::is_type_prefix;
use super::{Request, Source, SourceType};
use crate::config::{ConfigErrors, OneOrMany, Period, Secret, Section};
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType =
    SourceType { name: "standard_webhooks", build, defaults: defaults::<Config> };

/// `[sources.N.standard_webhooks]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What is signed with: `whsec_…`, or the public key `whpk_…`; several while one is being replaced. Required.
    secret: Option<OneOrMany<Secret>>,
    /// How far the time of a signature may be from the arrival.
    tolerance: Period,
    /// What the types of events begin with. Absent: the payload's `type` as it is.
    type_prefix: Option<String>,
    /// The CloudEvents subject: a constant or a JSON pointer.
    subject: Option<String>,
    /// What events are kept in order by: a constant or a JSON pointer.
    key: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { secret: None, tolerance: TOLERANCE_DEFAULT, type_prefix: None, subject: None, key: None }
    }
}

fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let config: Config = section.extract()?;
    let (mut errors, mut wrong) = (Vec::new(), Vec::new());
    let tolerance =
        ConfigErrors::collect(&mut errors, tolerance(section, config.tolerance)).unwrap_or_default();
    let scheme = Standard::new(WITH_SVIX_NAMES, config.secret.as_ref(), tolerance);
    let scheme = ConfigErrors::collect(&mut errors, scheme.map_err(|problem| wrong_secret(section, problem)));
    if config.type_prefix.as_deref().is_some_and(|prefix| !is_type_prefix(prefix)) {
        wrong.push(("type_prefix", "expected words of lower-case letters, digits and hyphens between dots"));
    }
    let written = Written { subject: config.subject, key: config.key, ..Written::default() };
    let picks = Picks::parse(written, &mut wrong);
    ConfigErrors::collect(&mut errors, no_problems(section, &wrong));
    match scheme {
        Some(scheme) if errors.is_empty() => {
            Ok(Signed::source(scheme, StandardWebhooks { type_prefix: config.type_prefix, picks }))
        }
        _ => Err(ConfigErrors(errors)),
    }
}

struct StandardWebhooks {
    type_prefix: Option<String>,
    picks: Picks,
}

impl Describe for StandardWebhooks {
    /// "Payload structure": `type`, `timestamp`, `data`. The header's time is that of the attempt, not of the event.
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let names = Names::of(WITH_SVIX_NAMES, request.head.headers);
        let id = names.and_then(|names| header(request, names.id.as_str())).map(fit_id);
        let prefix = self.type_prefix.as_deref().map(Cow::Borrowed);
        let event_type = match (payload.at("/type"), prefix) {
            (None, None) => DEFAULT_TYPE.to_owned(),
            (None, prefix) => type_of(&[prefix, Some(Cow::Borrowed("received"))]),
            (kind, prefix) => type_of(&[prefix, kind]),
        };
        Facts {
            id: id.or_else(|| id_of_bytes(request)),
            event_type,
            time: payload.at("/timestamp").and_then(|time| UnixMs::from_sender(&time)),
            ..self.picks.facts(payload)
        }
    }
}
