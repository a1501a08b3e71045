//! Which of the gateway's events a payload is: by its `type`, by its shape where the documentation contradicts itself
//! or `type` says nothing, and by its content block.
//! Holds: nothing is refused for what it is; what no rule knows is `Unknown` and still an event.

use super::payload::{Field, Payload};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One of the six webhooks (connection counts twice), or none that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Connected,
    Disconnected,
    Delivery,
    Received,
    Status,
    Presence,
    Unknown,
}

impl Class {
    /// Its name in identities; changing one changes every id.
    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Connected => "connected",
            Class::Disconnected => "disconnected",
            Class::Delivery => "delivery",
            Class::Received => "received",
            Class::Status => "status",
            Class::Presence => "presence",
            Class::Unknown => "unknown",
        }
    }
}

/// What a `ReceivedCallback` carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind<'a> {
    /// No message: `CALL_VOICE`, `PROFILE_NAME_UPDATED`, an open set.
    Notification(Cow<'a, str>),
    /// A message, named by its content block.
    Block(&'static str),
    /// A message whose content is not decrypted yet.
    Waiting,
    /// A message of a kind that is not known yet.
    Unknown,
}

impl Kind<'_> {
    /// Its name in identities and in the extension `msgkind`.
    pub(super) fn name(&self) -> Cow<'_, str> {
        match self {
            Kind::Notification(name) => Cow::Owned(format!("notification:{name}")),
            Kind::Block(name) => Cow::Borrowed(name),
            Kind::Waiting => Cow::Borrowed("waiting"),
            Kind::Unknown => Cow::Borrowed("unknown"),
        }
    }
}

/// What a payload is.
#[derive(Clone, Debug)]
pub(super) struct Classified<'a> {
    pub(super) class: Class,
    /// Its shape overruled its `type`.
    pub(super) type_conflict: bool,
    /// Only of [`Class::Received`].
    pub(super) kind: Option<Kind<'a>>,
    /// The content block that named the kind.
    pub(super) block: Option<&'a RawValue>,
}

pub(super) fn classify<'a>(payload: &Payload<'a>) -> Classified<'a> {
    let said = by_type(&payload.text(Field::Type));
    let overruled = match said {
        Class::Status if payload.ids().is_empty() => connection(payload),
        Class::Delivery if has_no_id(payload) && looks_like_presence(payload) => Some(Class::Presence),
        _ => None,
    };
    let class = match (overruled, said) {
        (Some(class), _) => class,
        (None, Class::Unknown) => by_shape(payload),
        (None, said) => said,
    };
    let (kind, block) = if class == Class::Received { kind(payload) } else { (None, None) };
    Classified { class, type_conflict: overruled.is_some(), kind, block }
}

/// Case and punctuation differ between the provider's tables and samples.
fn by_type(text: &str) -> Class {
    let is = |name: &str| {
        let letters = text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
        letters.eq(name.bytes())
    };
    for (name, class) in [
        ("receivedcallback", Class::Received),
        ("messagestatuscallback", Class::Status),
        ("deliverycallback", Class::Delivery),
        ("presencechatcallback", Class::Presence),
        ("connectedcallback", Class::Connected),
        ("disconnectedcallback", Class::Disconnected),
    ] {
        if is(name) {
            return class;
        }
    }
    Class::Unknown
}

fn by_shape(payload: &Payload<'_>) -> Class {
    if payload.raw(Field::Ids).is_some_and(|ids| ids.get().starts_with('[')) {
        return Class::Status;
    }
    if let Some(class) = connection(payload) {
        return class;
    }
    if payload.raw(Field::LastSeen).is_some() || (has_no_id(payload) && looks_like_presence(payload)) {
        return Class::Presence;
    }
    if payload.has(Field::ZaapId) {
        return Class::Delivery;
    }
    let is_message = payload.has(Field::MessageId) || payload.has(Field::Notification);
    let is_dated =
        [Field::FromMe, Field::Momment, Field::Moment].iter().any(|&field| payload.raw(field).is_some());
    if is_message && is_dated { Class::Received } else { Class::Unknown }
}

fn connection(payload: &Payload<'_>) -> Option<Class> {
    if payload.raw(Field::Disconnected).is_some() {
        Some(Class::Disconnected)
    } else {
        payload.raw(Field::Connected).map(|_| Class::Connected)
    }
}

fn has_no_id(payload: &Payload<'_>) -> bool {
    !payload.has(Field::MessageId) && !payload.has(Field::ZaapId)
}

fn looks_like_presence(payload: &Payload<'_>) -> bool {
    const PRESENCES: [&str; 5] = ["UNAVAILABLE", "AVAILABLE", "COMPOSING", "PAUSED", "RECORDING"];
    let status = payload.text(Field::Status);
    payload.raw(Field::LastSeen).is_some()
        || PRESENCES.iter().any(|presence| status.eq_ignore_ascii_case(presence))
}

fn kind<'a>(payload: &Payload<'a>) -> (Option<Kind<'a>>, Option<&'a RawValue>) {
    let notification = payload.text(Field::Notification);
    if !notification.is_empty() {
        return (Some(Kind::Notification(notification)), None);
    }
    match payload.block() {
        Some((name, block)) => (Some(Kind::Block(name)), Some(block)),
        None if payload.is_set(Field::WaitingMessage) => (Some(Kind::Waiting), None),
        None => (Some(Kind::Unknown), None),
    }
}
