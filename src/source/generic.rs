//! Any sender: POST, PUT or PATCH, any media type, the identity from the headers that senders commonly set.
//! Holds: R7 (the body travels as it came); a body without a sender's id is recognised by its bytes.
//! Absent on purpose: credentials; the source's path secret is its only one.

use super::json::{self, Pointer};
use super::{Answer, Head, OnUnreadable, Refused, Request, Source, SourceType, Unreadable};
use crate::config::{ConfigError, ConfigErrors, Section};
use crate::envelope::{
    ATTRIBUTE_BYTES_MAX, Attribute, DEDUPE, DEDUPE_NONE, DEDUPE_STRONG, Data, Envelope, Extensions,
    PARTITION_KEY, clean,
};
use crate::time::UnixMs;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType {
    name: "generic",
    build,
    defaults: || serde_json::to_value(Config::default()).unwrap_or_default(),
};

/// Headers by which senders name a delivery, by preference.
const ID_HEADERS: [&str; 5] =
    ["ce-id", "webhook-id", "x-github-delivery", "x-shopify-webhook-id", "idempotency-key"];
/// The most bytes of a sender's id; a longer one is replaced by its digest.
const ID_BYTES_MAX: usize = 256;
/// Hexadecimal digits of an id made of a digest.
const ID_DIGITS: usize = 32;
const DEFAULT_TYPE: &str = "webhook.received";

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
    /// The CloudEvents subject.
    subject: Option<String>,
    /// A JSON pointer to the time of the event: RFC 3339 or a number; absent: the time of arrival.
    time: Option<String>,
    /// What events are kept in order by.
    key: Option<String>,
}

enum Pick {
    Constant(String),
    At(Pointer),
}

impl Pick {
    fn parse(text: String) -> Self {
        Pointer::parse(&text).map_or(Pick::Constant(text), Pick::At)
    }

    /// The text of the value; none where the body has none.
    fn text<'a>(&'a self, json: Option<&'a str>) -> Option<Cow<'a, str>> {
        match self {
            Pick::Constant(text) => Some(Cow::Borrowed(text)),
            Pick::At(pointer) => pick(pointer, json),
        }
    }
}

fn pick<'a>(pointer: &Pointer, json: Option<&'a str>) -> Option<Cow<'a, str>> {
    pointer.find(json?).map(json::scalar).filter(|text| !text.is_empty())
}

struct Generic {
    id: Option<Pointer>,
    event_type: Option<Pick>,
    subject: Option<Pick>,
    time: Option<Pointer>,
    key: Option<Pick>,
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
        let mut pointer = |key, text: Option<String>| {
            let parsed = text.as_deref().map(Pointer::parse);
            if parsed == Some(None) {
                wrong.push((key, "expected a JSON pointer such as \"/order/id\""));
            }
            parsed.flatten()
        };
        let (id, time) = (pointer("id", config.id), pointer("time", config.time));
        let mut value = |key, text: Option<String>| {
            if text.as_deref() == Some("") {
                wrong.push((key, "must not be empty"));
            }
            text.map(Pick::parse)
        };
        let event_type = value("type", config.event_type);
        let subject = value("subject", config.subject);
        let key = value("key", config.key);
        if wrong.is_empty() { Ok(Generic { id, event_type, subject, time, key }) } else { Err(wrong) }
    }
}

impl Source for Generic {
    fn methods(&self) -> &'static [Method] {
        static METHODS: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];
        &METHODS
    }

    fn has_credential(&self) -> bool {
        false
    }

    fn authenticate(&self, _head: &Head<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn read(&self, request: &Request<'_>) -> Result<Vec<Envelope>, Unreadable> {
        let (data, datacontenttype) = data(request)?;
        let json = match &data {
            Data::Json(_) => std::str::from_utf8(request.body).ok(),
            Data::None | Data::Text(_) | Data::Binary(_) => None,
        };
        let id = self.id.as_ref().and_then(|pointer| pick(pointer, json)).map(|id| fit_id(id.as_bytes()));
        let id = id.or_else(|| id_of_headers(request.head.headers)).or_else(|| id_of_bytes(request));
        let time = self.time.as_ref().and_then(|pointer| pick(pointer, json));
        let time = time.and_then(|text| UnixMs::from_sender(&text));
        let text =
            |pick: &Option<Pick>| pick.as_ref().and_then(|pick| pick.text(json)).map(|text| clean(&text));

        let mut extensions = Extensions::new();
        let mut set = |name, text: &str| extensions.insert(Cow::Borrowed(name), Attribute::from(text));
        set(DEDUPE, if id.is_some() { DEDUPE_STRONG } else { DEDUPE_NONE });
        set("timesource", if time.is_some() { "payload" } else { "received" });
        if let Some(key) = text(&self.key) {
            set(PARTITION_KEY, &key);
        }
        Ok(vec![Envelope {
            id: id.unwrap_or_else(|| request.arrival.unique.to_string()),
            source: format!("//hookbus/sources/{}", request.head.source),
            event_type: text(&self.event_type).unwrap_or_else(|| DEFAULT_TYPE.to_owned()),
            subject: text(&self.subject),
            time: Some(time.unwrap_or(request.arrival.at).to_rfc3339()),
            datacontenttype,
            dataschema: None,
            extensions,
            data,
        }])
    }

    fn answer(&self) -> Answer {
        Answer::Identities
    }

    fn on_unreadable(&self) -> OnUnreadable {
        OnUnreadable::Reject
    }
}

fn id_of_headers(headers: &HeaderMap) -> Option<String> {
    let named = ID_HEADERS.iter().filter_map(|&name| headers.get(name));
    named.map(|id| id.as_bytes().trim_ascii()).find(|id| !id.is_empty()).map(fit_id)
}

/// The same bytes are the same event. No bytes are none: an empty post is a signal, and each counts.
fn id_of_bytes(request: &Request<'_>) -> Option<String> {
    if request.body.is_empty() {
        return None;
    }
    Some(json::digest_hex(&[request.head.source.as_str().as_bytes(), b"\0", request.body], ID_DIGITS))
}

/// A sender's id as it is, or its digest where it is too long or no plain text: two ids never become one.
fn fit_id(id: &[u8]) -> String {
    match std::str::from_utf8(id) {
        Ok(text) if text.len() <= ID_BYTES_MAX && clean(text) == text => text.to_owned(),
        _ => json::digest_hex(&[id], ID_DIGITS),
    }
}

/// How the body travels, and as what.
fn data(request: &Request<'_>) -> Result<(Data, Option<String>), Unreadable> {
    let body = request.body.clone();
    let declared =
        request.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::trim);
    let declared = declared.filter(|text| !text.is_empty() && text.len() <= ATTRIBUTE_BYTES_MAX);
    let essence = declared.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let media = essence.as_deref().map(Media::of);
    let datacontenttype = declared.map(clean);
    match media {
        Some(Media::Json) => {
            json::checked(&body)?;
            Ok((Data::Json(body), datacontenttype))
        }
        _ if body.is_empty() => Ok((Data::None, datacontenttype)),
        Some(Media::Text) if std::str::from_utf8(&body).is_ok() => Ok((Data::Text(body), datacontenttype)),
        Some(Media::Text | Media::Other) => Ok((Data::Binary(body), datacontenttype)),
        None if json::checked(&body).is_ok() => Ok((Data::Json(body), Some("application/json".to_owned()))),
        None if std::str::from_utf8(&body).is_ok() => Ok((Data::Text(body), Some("text/plain".to_owned()))),
        None => Ok((Data::Binary(body), Some("application/octet-stream".to_owned()))),
    }
}

enum Media {
    Json,
    Text,
    Other,
}

impl Media {
    fn of(essence: &str) -> Self {
        if essence == "application/json" || essence == "text/json" || essence.ends_with("+json") {
            Media::Json
        } else if essence.starts_with("text/")
            || essence.ends_with("+xml")
            || matches!(essence, "application/xml" | "application/x-www-form-urlencoded")
        {
            Media::Text
        } else {
            Media::Other
        }
    }
}

#[cfg(test)]
#[path = "generic_tests.rs"]
mod tests;
