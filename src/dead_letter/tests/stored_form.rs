//! Records and payloads: written and read are inverse, and arbitrary bytes are an error, not a panic.

use super::*;
use crate::dead_letter::letter::{Letter, PayloadRow, decode_payload};
use proptest::prelude::*;

fn row_of(payload: &PayloadRow) -> Bytes {
    let mut row = vec![0; payload.len()];
    payload.write_to(&mut row);
    Bytes::from(row)
}

fn letters() -> impl Strategy<Value = Letter> {
    let texts = (any::<String>(), any::<String>(), any::<String>(), any::<Option<String>>());
    let numbers = (any::<u32>(), any::<i64>(), any::<i64>(), any::<u64>(), any::<u64>());
    let names = (prop::option::of("[a-z][a-z0-9_]{0,63}"), prop::collection::btree_set("[a-z]{1,5}", 0..4));
    (texts, numbers, names, any::<bool>()).prop_map(|(texts, numbers, (origin, copies), replaying)| Letter {
        summary: Summary {
            id: LetterId(texts.0),
            origin: origin.map_or(Origin::Ingress, |name| Origin::Sink(sink(&name))),
            source: SourceName::new("inbox").unwrap(),
            event_id: texts.3.clone(),
            event_type: texts.3,
            reason: texts.1.clone(),
            attempts: numbers.0,
            first_error: texts.1,
            last_error: texts.2,
            arrived: UnixMs(numbers.1),
            died: UnixMs(numbers.2),
            payload_bytes: numbers.3,
            replaying,
        },
        payload_row_bytes: numbers.4,
        copies_open: copies.iter().map(|name| sink(name)).collect(),
        copies_ended: Default::default(),
    })
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was_written(letter in letters()) {
        prop_assert_eq!(Letter::decode(&letter.encode()).unwrap(), letter);
    }

    #[test]
    fn a_body_comes_back_as_it_was_received(body: Vec<u8>, content_type: Option<String>) {
        let body = Bytes::from(body);
        let row = row_of(&PayloadRow::of_body(&body, content_type.as_deref()));
        prop_assert_eq!(decode_payload(&row).unwrap(), Payload::Body { body, content_type });
    }

    #[test]
    fn an_event_comes_back_as_it_was_received(id in "[a-z][a-z0-9]{1,40}", body: String) {
        let event = Envelope { data: Data::Text(Bytes::from(body)), ..event(&id) };
        let row = row_of(&PayloadRow::of_event(&event));
        prop_assert_eq!(decode_payload(&row).unwrap(), Payload::Event(event));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        let _ = Letter::decode(&bytes);
        let _ = decode_payload(&Bytes::from(bytes));
    }
}

#[test]
fn an_absurdly_long_media_type_is_dropped_rather_than_cut() {
    let body = Bytes::from_static(b"x");
    let row = row_of(&PayloadRow::of_body(&body, Some(&"t".repeat(70_000))));
    assert_eq!(decode_payload(&row).unwrap(), Payload::Body { body, content_type: None });
}

#[tokio::test]
async fn nothing_of_a_payload_is_in_a_listing() {
    let store = Store::new();
    let event = event_with("a1", r#"{"secret":"hunter2"}"#);
    store.put_with("orders", &event, failure(Reason::Timeout, "no answer"), None).await.unwrap();
    store.quarantine(b"hunter2 in a body").await;
    let listing = serde_json::to_string(&store.all().await).unwrap();
    assert!(!listing.contains("hunter2"), "{listing}");
    assert_eq!(store.all().await.len(), 2);
}
