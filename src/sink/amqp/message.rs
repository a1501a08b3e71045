//! One event as an AMQP 0-9-1 message: properties, headers and body.
//! Holds: R7 (the body is the event or the sender's own bytes); no attribute, however long or odd, panics or makes a
//! frame that the broker would close the connection for. Every message carries the event's id as a header, since the
//! property `message_id` takes at most 255 bytes.

use super::super::cloudevents::{STRUCTURED_MEDIA_TYPE, attributes, structured, trace_context};
use super::super::template::Destination;
use super::super::{Failure, Format, Reason};
use crate::envelope::Envelope;
use crate::time::UnixMs;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde::{Deserialize, Serialize};

/// What identifies us to consumers, as the property `app_id`.
const APP_ID: &str = "hookbus";
/// Messages survive a restart of the broker.
const PERSISTENT: u8 = 2;
/// The most bytes of all headers; a message's properties must fit one frame, which RabbitMQ makes 128 KiB.
pub(super) const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// What the properties besides the headers take at the most: five short strings and fixed fields.
pub(super) const PROPERTIES_BYTES_MAX: usize = 2 * 1024;
/// The bytes of a header besides its name and value: two lengths and a type.
const HEADER_BYTES_MIN: usize = 6;
/// What identifies an event also where its document is the body.
const IDENTITY: [&str; 2] = ["id", "source"];

/// What the names of attributes begin with as headers. There is no CloudEvents binding for AMQP 0-9-1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum HeaderPrefix {
    /// As RabbitMQ turns it into a valid AMQP 1.0 event.
    #[default]
    #[serde(rename = "cloudEvents_")]
    CloudEventsUnderscore,
    /// As Knative's broker expects it.
    #[serde(rename = "ce-")]
    Ce,
    /// The older form of the AMQP 1.0 binding.
    #[serde(rename = "cloudEvents:")]
    CloudEventsColon,
}

impl HeaderPrefix {
    fn text(self) -> &'static str {
        match self {
            HeaderPrefix::CloudEventsUnderscore => "cloudEvents_",
            HeaderPrefix::Ce => "ce-",
            HeaderPrefix::CloudEventsColon => "cloudEvents:",
        }
    }
}

/// Makes messages.
pub(super) struct Encoder {
    pub(super) format: Format,
    pub(super) prefix: HeaderPrefix,
    /// `None`: the default exchange.
    pub(super) exchange: Option<Destination>,
    pub(super) routing_key: Destination,
    pub(super) body_bytes_max: u64,
}

/// What is published.
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Encoder {
    /// The message of an event, with at most `headers_bytes_max` of headers.
    ///
    /// # Errors
    /// Why it can never be one: too large, or a name that the protocol or the configuration does not take.
    pub(super) fn message(&self, event: &Envelope, headers_bytes_max: usize) -> Result<Message, Failure> {
        let exchange = match &self.exchange {
            Some(exchange) => short("exchange", &exchange.name(event)?)?,
            None => ShortString::default(),
        };
        let routing_key = short("routing key", &self.routing_key.name(event)?)?;
        let body = match self.format {
            Format::Structured => Bytes::from(structured(event)),
            Format::Binary => event.data.bytes().clone(),
        };
        if body.len() as u64 > self.body_bytes_max {
            let (len, max) = (body.len(), self.body_bytes_max);
            let detail = format!("its {len} bytes are more than message_max, {max}");
            return Err(Failure::new(Reason::TooLarge, detail));
        }
        let properties = self.properties(event, headers_bytes_max)?;
        Ok(Message { exchange, routing_key, properties, body })
    }

    fn properties(&self, event: &Envelope, headers_bytes_max: usize) -> Result<BasicProperties, Failure> {
        let mut headers = Headers { table: FieldTable::default(), bytes: 0 };
        let is_structured = self.format == Format::Structured;
        for (name, value) in attributes(event) {
            if !is_structured || IDENTITY.contains(&name) {
                headers.insert(format!("{}{name}", self.prefix.text()), &value)?;
            }
        }
        for (name, value) in trace_context(event) {
            headers.insert(name.to_owned(), &value)?;
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_app_id(ShortString::try_new(APP_ID).expect("it is shorter than 255 bytes"));
        // What is too long for a property is among the headers, or in the body.
        if let Ok(id) = ShortString::try_new(event.id.as_str()) {
            properties = properties.with_message_id(id);
        }
        if let Ok(event_type) = ShortString::try_new(event.event_type.as_str()) {
            properties = properties.with_type(event_type);
        }
        if let Some(seconds) = event.time.as_deref().and_then(unix_seconds) {
            properties = properties.with_timestamp(seconds);
        }
        let media_type = match &event.datacontenttype {
            _ if is_structured => Some(STRUCTURED_MEDIA_TYPE),
            media_type => media_type.as_deref(),
        };
        if let Some(media_type) = media_type {
            match ShortString::try_new(media_type) {
                Ok(media_type) => properties = properties.with_content_type(media_type),
                Err(_) => headers.insert(format!("{}datacontenttype", self.prefix.text()), media_type)?,
            }
        }
        if headers.bytes > headers_bytes_max {
            let detail = format!("its attributes make {} bytes of headers", headers.bytes);
            let detail = format!("{detail}, {headers_bytes_max} fit into a frame");
            return Err(Failure::new(Reason::TooLarge, detail));
        }
        Ok(properties.with_headers(headers.table))
    }

    /// The event's id in a message that came back.
    pub(super) fn id_of<'a>(&self, properties: &'a BasicProperties) -> Option<&'a [u8]> {
        let headers = properties.headers().as_ref()?;
        match headers.inner().get(format!("{}id", self.prefix.text()).as_str())? {
            AMQPValue::LongString(id) => Some(id.as_bytes()),
            _ => None,
        }
    }

    /// Whether a sender's event decides where it goes.
    pub(super) fn exchange_varies(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.constant().is_none())
    }

    /// Whether a sender's event decides which queues it reaches.
    pub(super) fn route_varies(&self) -> bool {
        self.exchange_varies() || self.routing_key.constant().is_none()
    }

    /// Where events go, for a sentence.
    pub(super) fn describe(&self) -> String {
        let exchange = match &self.exchange {
            Some(exchange) => exchange.constant().map_or_else(|| "its exchange".to_owned(), named),
            None => "the default exchange".to_owned(),
        };
        let key = self.routing_key.constant().map_or_else(|| "its routing key".to_owned(), named);
        format!("{exchange} with the routing key {key}")
    }
}

fn named(name: &str) -> String {
    format!("\"{name:.100}\"")
}

struct Headers {
    table: FieldTable,
    bytes: usize,
}

impl Headers {
    fn insert(&mut self, name: String, value: &str) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(HEADER_BYTES_MIN + name.len() + value.len());
        let name = short("name of a header", &name)?;
        self.table.insert(name, AMQPValue::LongString(LongString::from(value.as_bytes())));
        Ok(())
    }
}

/// The protocol's names take at most 255 bytes; lapin's own conversion panics above.
fn short(what: &str, text: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(text).map_err(|_| {
        let detail = format!("its {what} would have {} bytes, AMQP takes 255", text.len());
        Failure::new(Reason::NotEncodable, detail)
    })
}

/// The protocol counts whole seconds and knows no time before 1970.
fn unix_seconds(time: &str) -> Option<u64> {
    u64::try_from(UnixMs::parse_rfc3339(time)?.0.div_euclid(1000)).ok()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
