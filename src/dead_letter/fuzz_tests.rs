//! Fuzzing of the rows of the store of dead letters.
//! Holds: what is read writes back as itself; a payload's bytes are a part of its row (R7).

use super::letter::{Letter, PayloadRow, decode_payload};
use super::types::{LetterId, Origin, Payload, Summary};
use crate::envelope::{SinkName, SourceName};
use crate::fuzz_tests::{Target, Verdict, run};
use crate::time::UnixMs;
use bytes::Bytes;
use std::collections::BTreeSet;

static TARGETS: &[Target] = &[
    Target { name: "dead letter record", seeds: record_seeds, check: record },
    Target { name: "dead letter payload", seeds: payload_seeds, check: payload },
];

fn record_seeds() -> Vec<Vec<u8>> {
    let orders = SinkName::new("orders").unwrap();
    let letter = |origin: Origin| Letter {
        summary: Summary {
            id: LetterId("0123456789abcdef0123456789abcdef".to_owned()),
            origin,
            source: SourceName::new("inbox").unwrap(),
            event_id: Some("é\"1".to_owned()),
            event_type: None,
            reason: "timeout".to_owned(),
            attempts: 3,
            first_error: String::new(),
            last_error: "\u{1f680}".to_owned(),
            arrived: UnixMs(-1),
            died: UnixMs(1_795_219_200_000),
            payload_bytes: 2,
            replaying: true,
        },
        payload_row_bytes: u64::MAX,
        copies_open: BTreeSet::from([orders.clone()]),
        copies_ended: BTreeSet::new(),
    };
    vec![letter(Origin::Ingress).encode(), letter(Origin::Sink(orders.clone())).encode()]
}

fn record(input: &[u8]) -> Verdict {
    let mut letter = Letter::decode(input).map_err(|error| error.to_string())?;
    assert_eq!(Letter::decode(&letter.encode()).ok().as_ref(), Some(&letter));
    letter.died_again(u32::MAX, "tls".to_owned(), String::new(), UnixMs(i64::MAX));
    assert!(Letter::decode(&letter.encode()).is_ok_and(|again| again.summary.attempts == u32::MAX));
    Ok(())
}

fn row(payload: &PayloadRow) -> Vec<u8> {
    let mut row = vec![0; payload.len()];
    payload.write_to(&mut row);
    row
}

fn payload_seeds() -> Vec<Vec<u8>> {
    let event: &[u8] = b"\x01\x01\x01\x02\x02id\x03src\x01t\x04sub\0\0\0\x01\x06dedupe\0\x04none{}";
    let body = Bytes::from_static(b"{\"a\":\xff");
    let bodies = [Some("text/plain"), None].map(|media_type| row(&PayloadRow::of_body(&body, media_type)));
    [vec![event.to_vec()], bodies.to_vec()].concat()
}

fn payload(input: &[u8]) -> Verdict {
    let stored = Bytes::copy_from_slice(input);
    let again = match decode_payload(&stored)
        .map_err(|error| error.to_string().chars().take(60).collect::<String>())?
    {
        Payload::Event(event) => {
            assert!(stored.ends_with(event.data.bytes()), "R7");
            let again = row(&PayloadRow::of_event(&event));
            assert!(matches!(decode_payload(&again.into()), Ok(Payload::Event(other)) if other == event));
            return Ok(());
        }
        Payload::Body { body, content_type } => row(&PayloadRow::of_body(&body, content_type.as_deref())),
    };
    assert_eq!(again, input, "there is one way only to write a body");
    Ok(())
}

#[test]
fn the_rows_of_dead_letters_hold_for_every_input() {
    run(TARGETS);
}
