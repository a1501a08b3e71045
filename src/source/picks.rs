//! Attributes that the configuration picks out of a body: a constant, or a JSON pointer to a value.
//! Holds: what a pointer does not find is absent, never an error of the sender's.

use super::facts::{Facts, fit_id};
use super::json::Pointer;
use super::payload::Payload;
use crate::envelope::clean;
use crate::time::UnixMs;
use std::borrow::Cow;

/// The type of events that nothing says more about.
pub(super) const DEFAULT_TYPE: &str = "webhook.received";

/// A value that begins with a slash is a JSON pointer into the body, anything else the value itself.
pub(super) enum Pick {
    Constant(String),
    At(Pointer),
}

impl Pick {
    pub(super) fn parse(text: String) -> Self {
        Pointer::parse(&text).map_or(Pick::Constant(text), Pick::At)
    }

    /// The text of the value; none where the body has none.
    pub(super) fn text<'a>(&'a self, payload: &'a Payload<'_>) -> Option<Cow<'a, str>> {
        match self {
            Pick::Constant(text) => Some(Cow::Borrowed(text)),
            Pick::At(pointer) => payload.find(pointer),
        }
    }
}

/// The keys as they are written.
#[derive(Default)]
pub(super) struct Written {
    pub(super) id: Option<String>,
    pub(super) event_type: Option<String>,
    /// What stands before the type that the body names.
    pub(super) type_prefix: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) time: Option<String>,
    pub(super) key: Option<String>,
}

/// What to pick for each attribute.
#[derive(Default)]
pub(super) struct Picks {
    id: Option<Pointer>,
    event_type: Option<Pick>,
    type_prefix: String,
    subject: Option<Pick>,
    time: Option<Pointer>,
    key: Option<Pick>,
}

impl Picks {
    /// Reads the keys; what is wrong with one is added to `wrong` by its name.
    pub(super) fn parse(written: Written, wrong: &mut Vec<(&'static str, &'static str)>) -> Self {
        let mut pointer = |key, text: Option<String>| {
            let parsed = text.as_deref().map(Pointer::parse);
            if parsed == Some(None) {
                wrong.push((key, "expected a JSON pointer such as \"/order/id\""));
            }
            parsed.flatten()
        };
        let (id, time) = (pointer("id", written.id), pointer("time", written.time));
        let mut value = |key, text: Option<String>| {
            if text.as_deref() == Some("") {
                wrong.push((key, "must not be empty"));
            }
            text.map(Pick::parse)
        };
        let event_type = value("type", written.event_type);
        let subject = value("subject", written.subject);
        let key = value("key", written.key);
        if written.type_prefix.is_some() && !matches!(event_type, Some(Pick::At(_))) {
            wrong.push(("type_prefix", "needs type to be a JSON pointer; else write the whole type there"));
        }
        let type_prefix = written.type_prefix.unwrap_or_default();
        Picks { id, event_type, type_prefix, subject, time, key }
    }

    /// What is found in one body.
    pub(super) fn facts(&self, payload: &Payload<'_>) -> Facts {
        let text = |pick: &Option<Pick>| pick.as_ref()?.text(payload).map(|text| clean(&text));
        let time = self.time.as_ref().and_then(|pointer| payload.find(pointer));
        Facts {
            id: self.id.as_ref().and_then(|pointer| payload.find(pointer)).map(|id| fit_id(id.as_bytes())),
            source: None,
            event_type: self.event_type(payload),
            subject: text(&self.subject),
            time: time.and_then(|text| UnixMs::from_sender(&text)),
            key: text(&self.key),
        }
    }

    fn event_type(&self, payload: &Payload<'_>) -> String {
        let named = self.event_type.as_ref().and_then(|pick| pick.text(payload));
        named.map_or_else(|| DEFAULT_TYPE.to_owned(), |name| clean(&format!("{}{name}", self.type_prefix)))
    }
}
