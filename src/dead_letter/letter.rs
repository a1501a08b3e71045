//! One letter as it is kept: its identity, its record (JSON behind a version byte) and its payload (a kind byte, then
//! the stored form of the event, or the media type and the raw body).
//! Holds: the same event for the same sink has the same identity, and no other event has it (R4); R7 (a payload's bytes are kept verbatim).
//! Absent on purpose: where the bytes go (`rows`), when they are durable (`writer`).

use super::types::{LetterId, Origin, Payload, Quarantined, Summary, Undelivered};
use crate::envelope::{DecodeError, Envelope, SinkName, SourceName};
use crate::time::UnixMs;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// The version at the front of every record.
pub(super) const RECORD_VERSION: u8 = 1;
const PAYLOAD_EVENT: u8 = 1;
const PAYLOAD_BODY: u8 = 2;
const NO_CONTENT_TYPE: u16 = u16::MAX;
const ID_HEX_DIGITS: usize = 32;

/// Why kept bytes are not a letter.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecodable {
    #[error("it was written by a newer version ({0})")]
    UnknownVersion(u8),
    #[error("its record is malformed")]
    Record,
    #[error("its payload is missing")]
    PayloadMissing,
    #[error("its payload is malformed")]
    Payload,
    #[error(transparent)]
    Event(#[from] DecodeError),
}

/// A letter without its payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Letter {
    pub summary: Summary,
    /// Length of the payload's row, so that opening need not read payloads to know how full the store is.
    pub payload_row_bytes: u64,
    /// Sinks that have yet to get a copy.
    pub copies_open: BTreeSet<SinkName>,
    /// Sinks whose copy was delivered or given up: one letter is copied once to one sink.
    pub copies_ended: BTreeSet<SinkName>,
}

impl Letter {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = vec![RECORD_VERSION];
        serde_json::to_writer(&mut record, self).expect("names, text and numbers always become JSON");
        record
    }

    pub(super) fn decode(record: &[u8]) -> Result<Letter, Undecodable> {
        match record.split_first() {
            Some((&RECORD_VERSION, json)) => serde_json::from_slice(json).map_err(|_| Undecodable::Record),
            Some((&version, _)) => Err(Undecodable::UnknownVersion(version)),
            None => Err(Undecodable::Record),
        }
    }

    /// Given up once more: the newest failure counts, the first stays, and the attempts add up.
    pub(super) fn died_again(&mut self, attempts: u32, reason: String, error: String, died: UnixMs) {
        let summary = &mut self.summary;
        summary.attempts = summary.attempts.saturating_add(attempts);
        summary.reason = reason;
        summary.last_error = error;
        summary.died = died;
    }
}

/// A payload's row in two pieces, so that the sender's bytes are not copied before they reach the store.
#[derive(Clone, Debug)]
pub(super) struct PayloadRow {
    pub head: Vec<u8>,
    pub data: Bytes,
}

impl PayloadRow {
    pub(super) fn of_event(event: &Envelope) -> PayloadRow {
        let mut head = vec![PAYLOAD_EVENT];
        head.extend_from_slice(&event.encode_head());
        PayloadRow { head, data: event.data.bytes().clone() }
    }

    pub(super) fn of_body(body: &Bytes, content_type: Option<&str>) -> PayloadRow {
        let mut head = vec![PAYLOAD_BODY];
        let known = content_type.and_then(|text| {
            let length = u16::try_from(text.len()).ok().filter(|length| *length != NO_CONTENT_TYPE)?;
            Some((length, text))
        });
        match known {
            Some((length, text)) => {
                head.extend_from_slice(&length.to_le_bytes());
                head.extend_from_slice(text.as_bytes());
            }
            None => head.extend_from_slice(&NO_CONTENT_TYPE.to_le_bytes()),
        }
        PayloadRow { head, data: body.clone() }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.data.len()
    }

    /// Writes both pieces; `row` has exactly `self.len()` bytes.
    pub(super) fn write_to(&self, row: &mut [u8]) {
        let (head, data) = row.split_at_mut(self.head.len());
        head.copy_from_slice(&self.head);
        data.copy_from_slice(&self.data);
    }
}

/// Reads a payload's row; the content is a slice of it, not a copy.
pub(super) fn decode_payload(row: &Bytes) -> Result<Payload, Undecodable> {
    match row.first() {
        Some(&PAYLOAD_EVENT) => Ok(Payload::Event(Envelope::decode(&row.slice(1..))?)),
        Some(&PAYLOAD_BODY) => {
            let length: [u8; 2] =
                row.get(1..3).and_then(|two| two.try_into().ok()).ok_or(Undecodable::Payload)?;
            let length = u16::from_le_bytes(length);
            if length == NO_CONTENT_TYPE {
                return Ok(Payload::Body { body: row.slice(3..), content_type: None });
            }
            let body_begins = 3 + usize::from(length);
            let text = row.get(3..body_begins).ok_or(Undecodable::Payload)?;
            let content_type = String::from_utf8(text.to_vec()).map_err(|_| Undecodable::Payload)?;
            Ok(Payload::Body { body: row.slice(body_begins..), content_type: Some(content_type) })
        }
        Some(&version) => Err(Undecodable::UnknownVersion(version)),
        None => Err(Undecodable::Payload),
    }
}

/// A letter on its way into the store.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub summary: Summary,
    /// The summary's reason as a metric label.
    pub reason: &'static str,
    pub payload: PayloadRow,
    pub copy_to: Option<SinkName>,
}

impl Draft {
    pub(super) fn of_event(letter: &Undelivered<'_>, died: UnixMs) -> Draft {
        let event = letter.event;
        // Source and id alone name no letter: a sender may write both itself, or use an id again, and the other event
        // would be gone. By `hookbussource` as for repetitions; by the bytes, because letters have no window.
        let id = identity(&[
            b"2",
            letter.sink.as_str().as_bytes(),
            event.hookbus_source().as_bytes(),
            event.source.as_bytes(),
            event.id.as_bytes(),
            event.event_type.as_bytes(),
            event.data.bytes(),
        ]);
        let summary = Summary {
            id,
            origin: Origin::Sink(letter.sink.clone()),
            source: source_of(event),
            event_id: Some(event.id.clone()),
            event_type: Some(event.event_type.clone()),
            reason: letter.last.reason.label().to_owned(),
            attempts: letter.attempts,
            first_error: letter.first.detail.clone(),
            last_error: letter.last.detail.clone(),
            arrived: letter.arrived,
            died,
            payload_bytes: event.data.bytes().len() as u64,
            replaying: false,
        };
        Draft {
            summary,
            reason: letter.last.reason.label(),
            payload: PayloadRow::of_event(event),
            copy_to: letter.copy_to.cloned(),
        }
    }

    pub(super) fn of_body(letter: &Quarantined<'_>, died: UnixMs) -> Draft {
        let summary = Summary {
            id: identity(&[b"1q", letter.source.as_str().as_bytes(), letter.body]),
            origin: Origin::Ingress,
            source: letter.source.clone(),
            event_id: None,
            event_type: None,
            reason: letter.reason.to_owned(),
            attempts: 0,
            first_error: letter.detail.clone(),
            last_error: letter.detail.clone(),
            arrived: letter.arrived,
            died,
            payload_bytes: letter.body.len() as u64,
            replaying: false,
        };
        Draft {
            summary,
            reason: letter.reason,
            payload: PayloadRow::of_body(letter.body, letter.content_type),
            copy_to: None,
        }
    }
}

/// Every event from an ingress names its source; one that does not must still find its place here.
fn source_of(event: &Envelope) -> SourceName {
    SourceName::new(event.hookbus_source())
        .or_else(|_| SourceName::new("unknown"))
        .expect("the fallback is a valid name")
}

/// The parts' lengths are hashed too, so that no two lists of parts look alike.
fn identity(parts: &[&[u8]]) -> LetterId {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(ID_HEX_DIGITS);
    LetterId(digits)
}
