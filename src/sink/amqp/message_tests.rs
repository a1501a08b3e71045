//! No event, however long or odd, panics or makes a frame that would end the connection.

use super::super::super::template::Template;
use super::*;
use crate::envelope::{Attribute, Data, Extensions};
use proptest::prelude::*;

fn encoder(format: Format) -> Encoder {
    let destination =
        |text| Destination::new(Template::parse(text).unwrap(), Vec::new(), |c| !c.is_control());
    Encoder {
        format,
        prefix: HeaderPrefix::default(),
        exchange: Some(destination("hooks.{hookbussource}")),
        routing_key: destination("hooks.{type}"),
        body_bytes_max: 1000,
    }
}

fn event() -> Envelope {
    Envelope {
        id: "1".to_owned(),
        source: "/s".to_owned(),
        event_type: "t".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("text/plain".to_owned()),
        dataschema: None,
        extensions: Extensions::new(),
        data: Data::Text(Bytes::from_static(b"hello")),
    }
}

fn reason(result: Result<Message, Failure>) -> Option<Reason> {
    result.err().map(|failure| failure.reason)
}

#[test]
fn what_is_too_large_is_found_before_it_is_sent() {
    let mut large = event();
    large.data = Data::Text(Bytes::from(vec![b'x'; 1001]));
    for format in [Format::Structured, Format::Binary] {
        assert_eq!(reason(encoder(format).message(&large, HEADERS_BYTES_MAX)), Some(Reason::TooLarge));
        assert_eq!(reason(encoder(format).message(&event(), HEADERS_BYTES_MAX)), None);
        assert_eq!(reason(encoder(format).message(&event(), 10)), Some(Reason::TooLarge));
    }
    let mut full = event();
    full.data = Data::Text(Bytes::from(vec![b'x'; 1000]));
    assert_eq!(reason(encoder(Format::Binary).message(&full, HEADERS_BYTES_MAX)), None, "just fits");
}

#[test]
fn a_time_before_the_epoch_has_no_timestamp_and_one_after_it_whole_seconds() {
    for (time, seconds) in [
        ("1970-01-01T00:00:01.999Z", Some(1)),
        ("1969-12-31T23:59:59Z", None),
        ("2026-01-31T12:00:00+02:00", Some(1_769_853_600)),
        ("yesterday", None),
    ] {
        let mut event = event();
        event.time = Some(time.to_owned());
        let message = encoder(Format::Binary).message(&event, HEADERS_BYTES_MAX).unwrap();
        assert_eq!(*message.properties.timestamp(), seconds, "{time}");
    }
}

#[test]
fn an_event_without_data_has_an_empty_body_and_its_media_type() {
    let mut event = event();
    event.data = Data::None;
    let message = encoder(Format::Binary).message(&event, HEADERS_BYTES_MAX).unwrap();
    assert!(message.body.is_empty());
    let media_type = message.properties.content_type().as_ref().map(|media_type| media_type.as_str());
    assert_eq!(media_type, event.datacontenttype.as_deref(), "it is an attribute");
}

proptest! {
    #[test]
    fn any_event_makes_a_message_that_fits_a_frame_or_a_reason(
        id in ".{0,300}", event_type in ".{0,300}", subject in proptest::option::of(".{0,400}"),
        media_type in ".{0,300}", name in ".{0,300}", value in ".{0,300}", structured: bool,
    ) {
        let mut event = event();
        event.id = id.clone();
        event.event_type = event_type;
        event.subject = subject;
        event.datacontenttype = Some(media_type);
        event.extensions.insert(name.into(), Attribute::Text(value));
        let encoder = encoder(if structured { Format::Structured } else { Format::Binary });
        if let Ok(message) = encoder.message(&event, HEADERS_BYTES_MAX) {
            prop_assert!(message.routing_key.as_str().len() <= 255);
            prop_assert_eq!(encoder.id_of(&message.properties), Some(id.as_bytes()));
        }
    }
}
