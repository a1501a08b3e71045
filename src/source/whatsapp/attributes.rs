//! The CloudEvents attributes of a payload.
//! Holds: `type` is made of lower-case letters, digits, dots and hyphens only, so that it can name subjects and topics
//! anywhere; the token never appears; the data is the body itself (R7).

use super::super::Request;
use super::class::{Class, Classified, Kind};
use super::identity::{MOMENTS, has_failed, normalised_status};
use super::payload::{Field, Payload};
use crate::envelope::{
    Attribute, DEDUPE, DEDUPE_NONE, DEDUPE_STRONG, Data, Envelope, Extensions, PARTITION_KEY, clean,
};
use crate::time::UnixMs;
use std::borrow::Cow;

/// The most bytes of a word in `type` that a sender chose.
const WORD_BYTES_MAX: usize = 64;

/// What the configuration and the identity add to a payload.
pub(super) struct Context<'a> {
    pub(super) brand: &'static super::Brand,
    pub(super) type_prefix: &'a str,
    /// The payload's, else the configured one; may be empty.
    pub(super) instance: &'a str,
    /// None where the event has no identity of its own.
    pub(super) id: Option<String>,
}

pub(super) fn envelope(
    request: &Request<'_>,
    payload: &Payload<'_>,
    classified: &Classified<'_>,
    context: Context<'_>,
) -> Envelope {
    let phone = payload.text(Field::Phone);
    let time = MOMENTS.iter().find_map(|&field| UnixMs::from_sender(&payload.text(field)));
    let strength = if context.id.is_some() { DEDUPE_STRONG } else { DEDUPE_NONE };

    let mut extensions = Attributes(Extensions::new());
    extensions.set("provider", context.brand.name);
    extensions.set("instanceid", context.instance);
    extensions.set("routeid", request.head.source.as_str());
    extensions.set("zapitype", payload.text(Field::Type));
    extensions.set("eventgroup", event_group(classified));
    extensions.set("chatkind", chat_kind(&phone, payload));
    extensions.set("chatlid", payload.text(Field::ChatLid));
    extensions.set(DEDUPE, strength);
    extensions.set("timesource", if time.is_some() { "payload" } else { "received" });
    extensions.set(PARTITION_KEY, format!("{}/{}", or_hyphen(context.instance), or_hyphen(&phone)));
    if classified.type_conflict {
        extensions.flag("typeconflict", Some(true));
    }
    set_of_class(&mut extensions, payload, classified);

    Envelope {
        source: source(request, &context),
        id: context.id.unwrap_or_else(|| request.arrival.unique.to_string()),
        event_type: format!("{}.{}", context.type_prefix, type_suffix(payload, classified)),
        subject: (!phone.is_empty()).then(|| clean(&phone)),
        time: Some(time.unwrap_or(request.arrival.at).to_rfc3339()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: extensions.0,
        data: Data::Json(request.body.clone()),
    }
}

struct Attributes(Extensions);

impl Attributes {
    /// An empty text is an absent extension.
    fn set<'a>(&mut self, name: &'static str, text: impl Into<Cow<'a, str>>) {
        let text = text.into();
        if !text.is_empty() {
            self.0.insert(Cow::Borrowed(name), Attribute::from(text.into_owned()));
        }
    }
    fn flag(&mut self, name: &'static str, flag: Option<bool>) {
        if let Some(flag) = flag {
            self.0.insert(Cow::Borrowed(name), Attribute::Bool(flag));
        }
    }
}

fn set_of_class(extensions: &mut Attributes, payload: &Payload<'_>, classified: &Classified<'_>) {
    match classified.class {
        Class::Received => {
            if let Some(kind) = &classified.kind {
                extensions.set("msgkind", kind.name());
            }
            if let Some(Kind::Notification(name)) = &classified.kind {
                extensions.set("notification", name.as_ref());
            }
            extensions.set("wamsgid", payload.text(Field::MessageId));
            extensions
                .set("participant", payload.first_text(&[Field::ParticipantPhone, Field::ParticipantLid]));
            extensions.set("callid", payload.text(Field::CallId));
            extensions.flag("fromme", payload.flag(Field::FromMe));
            extensions.flag("fromapi", payload.flag(Field::FromApi));
        }
        Class::Status => {
            extensions.set("wamsgid", payload.ids().join(","));
            extensions.set("wastatus", normalised_status(&payload.text(Field::Status)));
        }
        Class::Delivery | Class::Unknown => {
            extensions.set("wamsgid", payload.text(Field::MessageId));
            extensions.set("zaapid", payload.text(Field::ZaapId));
        }
        Class::Connected | Class::Disconnected | Class::Presence => {}
    }
}

fn or_hyphen(part: &str) -> &str {
    if part.is_empty() { "-" } else { part }
}

fn source(request: &Request<'_>, context: &Context<'_>) -> String {
    let host = context.brand.host;
    if context.instance.is_empty() {
        format!("//{host}/routes/{}", request.head.source)
    } else {
        source_of_instance(host, context.instance)
    }
}

/// The CloudEvents `source` of all events of an instance.
pub(super) fn source_of_instance(host: &str, instance: &str) -> String {
    clean(&format!("//{host}/instances/{}", percent_encoded(instance)))
}

/// RFC 3986: all but unreserved characters become `%XX`.
fn percent_encoded(segment: &str) -> Cow<'_, str> {
    let is_unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    if segment.bytes().all(|byte| is_unreserved(&byte)) {
        return Cow::Borrowed(segment);
    }
    let mut encoded = String::with_capacity(segment.len() * 3);
    for byte in segment.bytes() {
        if is_unreserved(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(encoded)
}

fn event_group(classified: &Classified<'_>) -> &'static str {
    match (classified.class, &classified.kind) {
        (Class::Received, Some(Kind::Notification(name))) if name.starts_with("CALL_") => "call",
        (Class::Received, Some(Kind::Notification(_))) => "other",
        (Class::Received, _) => "message",
        (Class::Connected | Class::Disconnected, _) => "connection",
        (Class::Delivery, _) => "delivery",
        (Class::Status, _) => "status",
        (Class::Presence, _) => "presence",
        (Class::Unknown, _) => "unknown",
    }
}

/// What kind of chat `phone` names; groups of before November 2021 have no suffix, only the flag.
fn chat_kind(phone: &str, payload: &Payload<'_>) -> &'static str {
    if phone.is_empty() {
        ""
    } else if phone.ends_with("@newsletter") || payload.is_set(Field::IsNewsletter) {
        "newsletter"
    } else if phone.ends_with("-broadcast") || payload.is_set(Field::Broadcast) {
        "broadcast"
    } else if phone.ends_with("-group") || payload.is_set(Field::IsGroup) {
        "group"
    } else if phone.ends_with("@lid") {
        "lid"
    } else {
        "user"
    }
}

fn type_suffix(payload: &Payload<'_>, classified: &Classified<'_>) -> Cow<'static, str> {
    Cow::Borrowed(match classified.class {
        Class::Connected => "connection.connected",
        Class::Disconnected => "connection.disconnected",
        Class::Delivery if has_failed(payload) => "delivery.failed",
        Class::Delivery => "delivery.sent",
        Class::Status => {
            return Cow::Owned(format!("status.{}", word(&normalised_status(&payload.text(Field::Status)))));
        }
        Class::Presence => return Cow::Owned(format!("presence.{}", word(&payload.text(Field::Status)))),
        Class::Received => return received_suffix(payload, classified),
        Class::Unknown => "unknown",
    })
}

fn received_suffix(payload: &Payload<'_>, classified: &Classified<'_>) -> Cow<'static, str> {
    if let Some(Kind::Notification(name)) = &classified.kind {
        return Cow::Owned(match name.strip_prefix("CALL_") {
            Some(call) => format!("call.{}", word(call)),
            None => format!("notification.{}", word(name)),
        });
    }
    Cow::Borrowed(if payload.is_set(Field::WaitingMessage) {
        "message.waiting"
    } else if payload.is_set(Field::IsEdit) {
        "message.edited"
    } else if payload.is_set(Field::FromMe) {
        "message.sent"
    } else {
        "message.received"
    })
}

/// `READ_BY_ME` as `read-by-me`; `unknown` where nothing is left.
fn word(text: &str) -> String {
    let mut word = String::with_capacity(text.len().min(WORD_BYTES_MAX));
    for byte in text.bytes() {
        if word.len() == WORD_BYTES_MAX {
            break;
        }
        if byte.is_ascii_alphanumeric() {
            word.push(char::from(byte.to_ascii_lowercase()));
        } else if !word.is_empty() && !word.ends_with('-') {
            word.push('-');
        }
    }
    word.truncate(word.trim_end_matches('-').len());
    if word.is_empty() { "unknown".to_owned() } else { word }
}
