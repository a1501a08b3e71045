//! What makes two posts the same event. The sender documents no retries, so a wrong "same" loses data for ever while
//! a wrong "different" costs one duplicate: the key has everything that separates real events, nothing that may drift
//! between two posts of one event (photos, signed URLs, names), and where no such key exists there is no identity.
//! Holds: the same post always has the same id. Changing a recipe changes ids: then change [`RECIPE`] too.

use super::super::json::{digest_hex, push_canonical, push_comma, push_string};
use super::class::{Class, Classified, Kind};
use super::payload::{Field, Payload};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The version of the recipe, the first element of every key.
const RECIPE: &str = "1";
/// Stands for what is missing.
const MISSING: &str = "-";
/// Where the moment of an event may stand, by preference.
pub(super) const MOMENTS: [Field; 3] = [Field::Momment, Field::Moment, Field::Timestamp];

/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 32;
/// Hexadecimal digits of a digest within a key.
const DIGEST_DIGITS: usize = 16;

/// What makes two status webhooks the same event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusDedupe {
    /// The same status of the same messages, at the same moment on the same device.
    #[default]
    Event,
    /// The same status of the same messages: of several readers or devices the first counts.
    State,
}

/// Whose event it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) provider: &'static str,
    /// Empty where neither payload nor configuration name one.
    pub(super) instance: &'a str,
}

pub(super) type Key<'a> = Vec<Cow<'a, str>>;

/// The elements of the key; none where the event has no identity.
pub(super) fn key<'a>(
    owner: Owner<'a>,
    payload: &Payload<'a>,
    classified: &Classified<'a>,
    status_dedupe: StatusDedupe,
    body: &[u8],
) -> Option<Key<'a>> {
    let tail = match classified.class {
        Class::Received => received(payload, classified),
        Class::Status => status(payload, status_dedupe),
        Class::Delivery => delivery(payload),
        Class::Connected => connection(payload, Field::Connected),
        Class::Disconnected => connection(payload, Field::Disconnected),
        Class::Presence => presence(payload),
        Class::Unknown => None,
    };
    let tail = tail.or_else(|| same_bytes(payload, classified.class, body))?;
    let chat = payload.text(Field::Phone);
    let head =
        [RECIPE.into(), owner.provider.into(), owner.instance.into(), classified.class.name().into(), chat];
    let or_missing = |part: Cow<'a, str>| if part.is_empty() { Cow::Borrowed(MISSING) } else { part };
    Some(head.into_iter().chain(tail).map(or_missing).collect())
}

/// The id of a key.
pub(super) fn id(key: &[Cow<'_, str>]) -> String {
    let mut json = Vec::with_capacity(256);
    json.push(b'[');
    for (index, element) in key.iter().enumerate() {
        push_comma(&mut json, index);
        push_string(&mut json, element);
    }
    json.push(b']');
    digest_hex(&[&json], ID_DIGITS)
}

fn moment<'a>(payload: &Payload<'a>) -> Cow<'a, str> {
    payload.first_text(&MOMENTS)
}

fn digit(flag: Option<bool>) -> &'static str {
    match flag {
        Some(true) => "1",
        Some(false) => "0",
        None => "",
    }
}

fn received<'a>(payload: &Payload<'a>, classified: &Classified<'a>) -> Option<Key<'a>> {
    let kind = classified.kind.as_ref()?;
    let from_me = if payload.is_set(Field::FromMe) { "1" } else { "0" };
    let message_id = payload.text(Field::MessageId);
    let mut tail = vec![from_me.into(), message_id, Cow::Owned(kind.name().into_owned())];
    if let Kind::Notification(_) = kind {
        // Ids of notifications are short, shared or absent: only the moment tells two apart.
        let moment = Some(moment(payload)).filter(|moment| !moment.is_empty())?;
        tail.extend([moment, Cow::Owned(notification_digest(payload))]);
        return Some(tail);
    }
    if tail[1].is_empty() {
        return None;
    }
    if payload.is_set(Field::WaitingMessage) {
        tail.push("waiting".into());
    }
    if payload.is_set(Field::IsEdit) {
        tail.push(Cow::Owned(format!("edit:{}", edit(payload, classified)?)));
    }
    Some(tail)
}

/// What tells one edit of a message from the next.
fn edit<'a>(payload: &Payload<'a>, classified: &Classified<'a>) -> Option<Cow<'a, str>> {
    let moment = moment(payload);
    if !moment.is_empty() {
        return Some(moment);
    }
    let mut canonical = Vec::new();
    push_canonical(&mut canonical, classified.block?);
    Some(Cow::Owned(digest_hex(&[&canonical], DIGEST_DIGITS)))
}

fn notification_digest(payload: &Payload<'_>) -> String {
    let mut canonical = vec![b'{'];
    let fields = [
        (Field::CallId, "callId"),
        (Field::Code, "code"),
        (Field::LinkMode, "linkMode"),
        (Field::NotificationParameters, "notificationParameters"),
        (Field::ProfileName, "profileName"),
        (Field::RequestMethod, "requestMethod"),
        (Field::UpdatedPhoto, "updatedPhoto"),
    ];
    let present = fields.into_iter().filter_map(|(field, name)| Some((name, payload.raw(field)?)));
    for (index, (name, raw)) in present.enumerate() {
        push_comma(&mut canonical, index);
        push_string(&mut canonical, name);
        canonical.push(b':');
        push_canonical(&mut canonical, raw);
    }
    canonical.push(b'}');
    digest_hex(&[&canonical], DIGEST_DIGITS)
}

fn status<'a>(payload: &Payload<'a>, status_dedupe: StatusDedupe) -> Option<Key<'a>> {
    let mut ids = payload.ids();
    ids.sort_unstable();
    let status = Cow::Owned(normalised_status(&payload.text(Field::Status)));
    let moment = moment(payload);
    let (device, moment) = match status_dedupe {
        StatusDedupe::State => (Cow::Borrowed(""), Cow::Borrowed("")),
        // Without a moment, a second reader's READ could not be told from the first one's.
        StatusDedupe::Event if moment.is_empty() => return None,
        StatusDedupe::Event => (payload.text(Field::PhoneDevice), moment),
    };
    (!ids.is_empty()).then(|| [status, device, moment].into_iter().chain(ids).collect())
}

fn delivery<'a>(payload: &Payload<'a>) -> Option<Key<'a>> {
    let id = payload.first_text(&[Field::MessageId, Field::ZaapId]);
    let (code, error) = (payload.text(Field::ErrorCode), payload.text(Field::Error));
    let outcome = if has_failed(payload) { "error" } else { "ok" };
    (!id.is_empty()).then(|| vec![id, outcome.into(), code, error])
}

/// The gateway could not hand the message over.
pub(super) fn has_failed(payload: &Payload<'_>) -> bool {
    payload.has(Field::Error) || payload.has(Field::ErrorCode)
}

fn connection<'a>(payload: &Payload<'a>, value: Field) -> Option<Key<'a>> {
    let moment = moment(payload);
    (!moment.is_empty()).then(|| vec![digit(payload.flag(value)).into(), payload.text(Field::Error), moment])
}

fn presence<'a>(payload: &Payload<'a>) -> Option<Key<'a>> {
    let last_seen = payload.text(Field::LastSeen);
    (!last_seen.is_empty()).then(|| vec![payload.text(Field::Status), last_seen])
}

/// Without a key of its own an event is recognised by its bytes, where these hold something that another event of
/// the kind would not repeat. Presence never does: people come and go and come again.
fn same_bytes<'a>(payload: &Payload<'a>, class: Class, body: &[u8]) -> Option<Key<'a>> {
    let is_dated = class != Class::Presence && !moment(payload).is_empty();
    let ids = [Field::MessageId, Field::ZaapId, Field::Ids, Field::Id];
    let is_named = class == Class::Unknown && ids.iter().any(|&field| payload.raw(field).is_some());
    (is_dated || is_named).then(|| vec!["body".into(), Cow::Owned(digest_hex(&[body], 2 * ID_DIGITS))])
}

/// The five spellings of one status become one: upper case, `_`, without the prefix of older versions.
pub(super) fn normalised_status(status: &str) -> String {
    let upper = status.to_ascii_uppercase().replace('-', "_");
    upper.strip_prefix("MESSAGE_").map_or_else(|| upper.clone(), str::to_owned)
}
