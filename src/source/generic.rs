//! Any sender: POST, PUT or PATCH, any media type, the identity from the headers that senders commonly set.
//! Holds: R7 (the body travels as it came); a body without a sender's id is recognised by its bytes.
//! Absent on purpose: how a request proves who sent it (`access`).

use super::access::{self, Access};
use super::facts::{Facts, header, header_text, id_of_bytes, id_of_headers};
use super::payload::Payload;
use super::picks::{Pick, Picks, Written};
use super::{Answer, Head, OnUnreadable, Refused, Request, Source, SourceType, Unreadable};
use crate::config::{ConfigError, ConfigErrors, Section};
use crate::envelope::{Attribute, Envelope, is_attribute_name, is_context_attribute, known_extension};
use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType {
    name: "generic",
    build,
    defaults: || serde_json::to_value(Config::default()).unwrap_or_default(),
};

/// Headers by which senders name a delivery, by preference.
const ID_HEADERS: [&str; 5] =
    ["ce-id", "webhook-id", "x-github-delivery", "x-shopify-webhook-id", "idempotency-key"];
/// The most attributes that a configuration adds.
const ATTRIBUTES_MAX: usize = 32;

/// `[sources.N.generic]`: where attributes come from. A value that begins with a slash is a JSON pointer into the
/// body, anything else the value itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// A JSON pointer to the sender's id of the event; before the headers.
    id: Option<String>,
    /// The CloudEvents type; absent: `webhook.received`.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// What stands before the type that the body names, where `type` is a JSON pointer.
    type_prefix: Option<String>,
    /// The CloudEvents subject.
    subject: Option<String>,
    /// A JSON pointer to the time of the event: RFC 3339 or a number; absent: the time of arrival.
    time: Option<String>,
    /// What events are kept in order by.
    key: Option<String>,
    /// Further attributes of every event.
    attributes: BTreeMap<String, String>,
    /// What a request must bring besides the path secret.
    auth: access::Config,
}

struct Generic {
    picks: Picks,
    attributes: Vec<(String, Pick)>,
    access: Access,
}

fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let config: Config = section.extract()?;
    let generic = Generic::new(config).map_err(|wrong| {
        let errors = wrong.into_iter().map(|(key, problem)| section.error(key, problem));
        ConfigErrors(errors.collect::<Vec<ConfigError>>())
    })?;
    Ok(Arc::new(generic))
}

impl Generic {
    fn new(config: Config) -> Result<Self, Vec<(&'static str, &'static str)>> {
        let mut wrong = Vec::new();
        let Config { id, event_type, type_prefix, subject, time, key, attributes, auth } = config;
        let written = Written { id, event_type, type_prefix, subject, time, key };
        let picks = Picks::parse(written, &mut wrong);
        if attributes.len() > ATTRIBUTES_MAX {
            wrong.push(("attributes", "at most 32 attributes can be added"));
        }
        for (name, text) in &attributes {
            wrong.extend(problem_of_attribute(name, text).map(|problem| ("attributes", problem)));
        }
        let attributes = attributes.into_iter().map(|(name, text)| (name, Pick::parse(text))).collect();
        let access = Access::new(auth).unwrap_or_else(|more| {
            wrong.extend(more);
            Access::default()
        });
        if wrong.is_empty() { Ok(Generic { picks, attributes, access }) } else { Err(wrong) }
    }
}

/// What is wrong with an attribute that the configuration adds.
fn problem_of_attribute(name: &str, text: &str) -> Option<&'static str> {
    if !is_attribute_name(name) {
        Some("the name of an attribute has 1 to 40 lower-case letters and digits")
    } else if is_context_attribute(name) || known_extension(name).is_some() {
        Some("an attribute would take the name of another one")
    } else if text.is_empty() {
        Some("an attribute must not be empty")
    } else {
        None
    }
}

/// Gives an event whose body named no id the one that headers name, or that of its bytes. A CloudEvent's id is only unique
/// beside its source (CloudEvents 1.0, section 3.1.1): alone it would make events of two producers one.
pub(super) fn identify(facts: &mut Facts, request: &Request<'_>) {
    if facts.id.is_some() {
        return;
    }
    if header(request, "ce-id").is_some() {
        facts.source = header_text(request, "ce-source").map(Cow::into_owned);
    }
    facts.id = id_of_headers(request, &ID_HEADERS).or_else(|| id_of_bytes(request));
}

impl Source for Generic {
    fn methods(&self) -> &'static [Method] {
        static METHODS: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];
        &METHODS
    }

    fn has_credential(&self) -> bool {
        !self.access.is_open()
    }

    fn credential_headers(&self) -> &[HeaderName] {
        self.access.headers()
    }

    fn knows_secret(&self, text: &[u8]) -> bool {
        self.access.knows(text)
    }

    fn authenticate(&self, head: &Head<'_>) -> Result<(), Refused> {
        self.access.check(head)
    }

    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        let payload = Payload::read(request)?;
        let mut facts = self.picks.facts(&payload);
        identify(&mut facts, request);
        let added = self.attributes.iter().filter_map(|(name, pick)| {
            Some((Cow::Owned(name.clone()), Attribute::from(pick.text(&payload)?.into_owned())))
        });
        let added: Vec<_> = added.collect();
        let mut envelope = facts.envelope(request, payload);
        for (name, value) in added {
            envelope.extensions.insert(name, value);
        }
        Ok(vec![envelope])
    }

    fn answer(&self) -> Answer {
        Answer::Identities
    }

    fn on_unreadable(&self) -> OnUnreadable {
        OnUnreadable::Reject
    }
}

#[cfg(test)]
#[path = "generic_tests.rs"]
mod tests;
