//! The few fields that an event's class, identity and attributes need, borrowed from the body in one pass.
//! Holds: of a name that stands there twice the last counts; null, nothing and "" are the same; no type is wrong,
//! only unusable.
//! Absent on purpose: a model of the content blocks. They change several times a year and travel verbatim.

use super::super::{Unreadable, json};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

macro_rules! fields {
    ($($field:ident = $name:literal,)*) => {
        /// A field of the envelope that is read.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Field { $($field,)* }
        const FIELD_COUNT: usize = [$($name),*].len();
        impl Field {
            fn named(name: &str) -> Option<Field> {
                match name { $($name => Some(Field::$field),)* _ => None }
            }
        }
    };
}

fields! {
    Type = "type",
    InstanceId = "instanceId",
    Phone = "phone",
    MessageId = "messageId",
    ZaapId = "zaapId",
    Ids = "ids",
    Id = "id",
    Status = "status",
    PhoneDevice = "phoneDevice",
    Connected = "connected",
    Disconnected = "disconnected",
    Error = "error",
    ErrorCode = "errorCode",
    LastSeen = "lastSeen",
    Momment = "momment",
    Moment = "moment",
    Timestamp = "timestamp",
    FromMe = "fromMe",
    FromApi = "fromApi",
    IsEdit = "isEdit",
    IsGroup = "isGroup",
    IsNewsletter = "isNewsletter",
    Broadcast = "broadcast",
    WaitingMessage = "waitingMessage",
    Notification = "notification",
    NotificationParameters = "notificationParameters",
    ProfileName = "profileName",
    UpdatedPhoto = "updatedPhoto",
    LinkMode = "linkMode",
    RequestMethod = "requestMethod",
    CallId = "callId",
    Code = "code",
    ChatLid = "chatLid",
    ParticipantPhone = "participantPhone",
    ParticipantLid = "participantLid",
}

/// The content blocks, the one that names the kind before those that may accompany it.
pub(super) const BLOCKS: [&str; 28] = [
    "reaction",
    "pollVote",
    "poll",
    "buttonsResponseMessage",
    "listResponseMessage",
    "buttonsMessage",
    "hydratedTemplate",
    "carouselMessage",
    "pixKeyMessage",
    "image",
    "audio",
    "video",
    "document",
    "sticker",
    "contact",
    "contacts",
    "location",
    "product",
    "order",
    "reviewAndPay",
    "reviewOrder",
    "requestPayment",
    "sendPayment",
    "newsletterAdminInvite",
    "pinMessage",
    "eventResponse",
    "event",
    "text",
];

/// A body's top level.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    fields: [Option<&'a RawValue>; FIELD_COUNT],
    blocks: [Option<&'a RawValue>; BLOCKS.len()],
}

impl<'a> Payload<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Unreadable`] where it is not a JSON object in UTF-8 of at most 64 levels.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Unreadable> {
        let text = json::bounded_text(body)?;
        if text.trim_ascii_start().starts_with('{') {
            return serde_json::from_str(text).map_err(|_| Unreadable::NotJson);
        }
        json::checked(body)?;
        Err(Unreadable::NotAnObject)
    }

    /// The value, unless it is null, absent or "".
    pub(super) fn raw(&self, field: Field) -> Option<&'a RawValue> {
        self.fields[field as usize]
    }

    /// The text of a string or number, trimmed; empty for everything else.
    pub(super) fn text(&self, field: Field) -> Cow<'a, str> {
        self.raw(field).map_or(Cow::Borrowed(""), json::scalar)
    }

    /// Does the field hold text?
    pub(super) fn has(&self, field: Field) -> bool {
        !self.text(field).is_empty()
    }

    /// A flag, however it is spelt; none where it is no flag.
    pub(super) fn flag(&self, field: Field) -> Option<bool> {
        match self.raw(field)?.get() {
            "true" | "1" | "\"true\"" | "\"1\"" => Some(true),
            "false" | "0" | "\"false\"" | "\"0\"" => Some(false),
            _ => None,
        }
    }

    /// Is the flag there and set?
    pub(super) fn is_set(&self, field: Field) -> bool {
        self.flag(field) == Some(true)
    }

    /// The first of the fields that holds text.
    pub(super) fn first_text(&self, fields: &[Field]) -> Cow<'a, str> {
        fields.iter().map(|&field| self.text(field)).find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// The message ids of a status: a list or one, under `ids` or, as one table has it, `id`.
    pub(super) fn ids(&self) -> Vec<Cow<'a, str>> {
        let listed = |field| {
            let raw = self.raw(field)?;
            let ids: Vec<_> = match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
                Ok(elements) => elements.into_iter().map(json::scalar).filter(|id| !id.is_empty()).collect(),
                Err(_) => Some(json::scalar(raw)).filter(|id| !id.is_empty()).into_iter().collect(),
            };
            (!ids.is_empty()).then_some(ids)
        };
        listed(Field::Ids).or_else(|| listed(Field::Id)).unwrap_or_default()
    }

    /// The content block that names the kind of message, with its name.
    pub(super) fn block(&self) -> Option<(&'static str, &'a RawValue)> {
        BLOCKS.into_iter().zip(self.blocks).find_map(|(name, block)| Some((name, block?)))
    }
}

impl<'de> Deserialize<'de> for Payload<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TopLevel)
    }
}

struct TopLevel;

impl<'de> Visitor<'de> for TopLevel {
    type Value = Payload<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Payload<'de>, A::Error> {
        let mut payload = Payload { fields: [None; FIELD_COUNT], blocks: [None; BLOCKS.len()] };
        while let Some(slot) = map.next_key_seed(SlotNamed)? {
            let target = match slot {
                Slot::Field(field) => &mut payload.fields[field as usize],
                Slot::Block(index) => &mut payload.blocks[index],
                Slot::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let raw = map.next_value::<&RawValue>()?;
            *target = (!matches!(raw.get(), "null" | "\"\"")).then_some(raw);
        }
        Ok(payload)
    }
}

enum Slot {
    Field(Field),
    Block(usize),
    Other,
}

struct SlotNamed;

impl<'de> DeserializeSeed<'de> for SlotNamed {
    type Value = Slot;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Slot, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for SlotNamed {
    type Value = Slot;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Slot, E> {
        if let Some(field) = Field::named(name) {
            return Ok(Slot::Field(field));
        }
        Ok(BLOCKS.iter().position(|&block| block == name).map_or(Slot::Other, Slot::Block))
    }
}
