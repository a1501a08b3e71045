//! Any sender that signs with an HMAC in a header of its own: the configuration says how.

use super::facts::{Facts, fit_id, header};
use super::generic::identify;
use super::payload::Payload;
use super::picks::{Picks, Written};
use super::signed::{Describe, Signed, defaults, no_problems, tolerance, wrong_secret};
use super::verify::{Algorithm, Dated, Encoding, HmacKeys, OneHeader, Part, TOLERANCE_DEFAULT, Template};
use super::{Request, Source, SourceType};
use crate::config::{ConfigErrors, OneOrMany, Period, Secret, Section};
use http::HeaderName;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

pub(super) const TYPE: SourceType = SourceType { name: "hmac", build, defaults: defaults::<Config> };

/// `[sources.N.hmac]`: how requests are signed, then where attributes come from as for `generic`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What the sender signs with; several while one is being replaced. Required.
    secret: Option<OneOrMany<Secret>>,
    /// The header with the signature. Required.
    header: Option<String>,
    /// The hash within the HMAC.
    algorithm: Algorithm,
    /// How the signature is written.
    encoding: Encoding,
    /// What stands before it.
    prefix: String,
    /// What is signed. Absent: the body, after the time and a dot where there is a time.
    signed: Option<String>,
    /// The header with the time of the signature, in seconds or milliseconds since 1970.
    timestamp_header: Option<String>,
    /// The header with the sender's id of the delivery.
    id_header: Option<String>,
    /// How far the time of a signature may be from the arrival.
    tolerance: Period,
    /// A JSON pointer to the sender's id of the event; before the headers.
    id: Option<String>,
    /// The CloudEvents type.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// The CloudEvents subject.
    subject: Option<String>,
    /// A JSON pointer to the time of the event.
    time: Option<String>,
    /// What events are kept in order by.
    key: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            secret: None,
            header: None,
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
            prefix: String::new(),
            signed: None,
            timestamp_header: None,
            id_header: None,
            tolerance: TOLERANCE_DEFAULT,
            id: None,
            event_type: None,
            subject: None,
            time: None,
            key: None,
        }
    }
}

fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let config: Config = section.extract()?;
    let (mut errors, mut wrong) = (Vec::new(), Vec::new());
    let keys = HmacKeys::of(config.secret.as_ref(), config.algorithm);
    let keys = ConfigErrors::collect(&mut errors, keys.map_err(|problem| wrong_secret(section, problem)));
    let tolerance =
        ConfigErrors::collect(&mut errors, tolerance(section, config.tolerance)).unwrap_or_default();
    if section.says("tolerance") && config.timestamp_header.is_none() {
        wrong.push(("tolerance", "has no effect without timestamp_header"));
    }
    let written = Written {
        id: config.id.clone(),
        event_type: config.event_type.clone(),
        type_prefix: None,
        subject: config.subject.clone(),
        time: config.time.clone(),
        key: config.key.clone(),
    };
    let picks = Picks::parse(written, &mut wrong);
    let scheme = scheme(&config, keys, tolerance, &mut wrong);
    ConfigErrors::collect(&mut errors, no_problems(section, &wrong));
    match scheme {
        Some(scheme) if errors.is_empty() => {
            let id_header = scheme.id.clone();
            Ok(Signed::source(scheme, AnySender { id_header, picks }))
        }
        _ => Err(ConfigErrors(errors)),
    }
}

/// The scheme that the keys describe; what is wrong with them is added to `wrong`.
fn scheme(
    config: &Config,
    keys: Option<HmacKeys>,
    tolerance: Duration,
    wrong: &mut Vec<(&'static str, &'static str)>,
) -> Option<OneHeader> {
    let mut name = |key, text: &Option<String>| {
        let name = text.as_ref().map(|text| HeaderName::from_bytes(text.as_bytes()));
        if matches!(name, Some(Err(_))) {
            wrong.push((key, "expected the name of a request header"));
        }
        name.and_then(Result::ok)
    };
    let signature = name("header", &config.header);
    let id = name("id_header", &config.id_header);
    let timestamp = name("timestamp_header", &config.timestamp_header);
    if config.header.is_none() {
        wrong.push(("header", "is required"));
    }
    if !config.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        wrong.push(("prefix", "expected letters, digits and signs without spaces"));
    }
    let usual = if config.timestamp_header.is_some() { "{timestamp}.{body}" } else { "{body}" };
    let signed = Template::parse(config.signed.as_deref().unwrap_or(usual))
        .map_err(|problem| wrong.push(("signed", problem)))
        .ok()?;
    if signed.has(&Part::Id) && config.id_header.is_none() {
        wrong.push(("id_header", "is required: {id} is signed"));
    }
    match (signed.has(&Part::Timestamp), config.timestamp_header.is_some()) {
        (true, false) => wrong.push(("timestamp_header", "is required: {timestamp} is signed")),
        (false, true) => wrong.push(("timestamp_header", "proves nothing where signed has no {timestamp}")),
        (true, true) | (false, false) => {}
    }
    Some(OneHeader {
        signature: [signature?],
        prefix: config.prefix.clone(),
        encoding: config.encoding,
        signed,
        id,
        dated: timestamp.map(|header| Dated { header, tolerance }),
        keys: keys?,
    })
}

struct AnySender {
    id_header: Option<HeaderName>,
    picks: Picks,
}

impl Describe for AnySender {
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let mut facts = self.picks.facts(payload);
        let of_header =
            || self.id_header.as_ref().and_then(|name| header(request, name.as_str())).map(fit_id);
        facts.id = facts.id.or_else(of_header);
        identify(&mut facts, request);
        facts
    }
}
