//! What is read from the store: listings, single letters, a lane's errands. Each is one snapshot, on a blocking thread.
//! Holds: R8 (a listing reads no payload); what cannot be read is passed over and counted.

use super::letter::{Letter, decode_payload};
use super::rows::{self, Bounds, kind_from_row};
use super::types::{Errand, ErrandKind, Filter, LetterId, Payload, StoreError, Summary};
use crate::envelope::{Attribute, Envelope, SinkName};
use crate::journal::Deferral;
use crate::time::UnixMs;
use bytes::Bytes;
use redb::ReadTransaction;
use std::borrow::Cow;
use std::collections::HashSet;

/// Added to a copy: the sink that could not take the event.
pub const DEAD_LETTER_SINK: &str = "deadlettersink";
/// Added to a copy: the reason's label.
pub const DEAD_LETTER_REASON: &str = "deadletterreason";
/// Added to a copy: when the event was given up, RFC 3339.
pub const DEAD_LETTER_TIME: &str = "deadlettertime";
/// Added to a copy: deliveries tried.
pub const DEAD_LETTER_ATTEMPTS: &str = "deadletterattempts";

/// Why something could not be read.
pub(super) enum ReadError {
    Store(redb::Error),
    Answer(StoreError),
}
impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        ReadError::Store(error.into())
    }
}

pub(super) fn list(
    snapshot: &ReadTransaction,
    filter: &Filter,
    after: Option<&LetterId>,
    limit: usize,
    unreadable: &mut u64,
) -> Result<Vec<Summary>, ReadError> {
    let letters = snapshot.open_table(rows::LETTERS)?;
    let order = snapshot.open_table(rows::ORDER)?;
    let after = match after {
        Some(id) => {
            rows::letter(&letters, id, unreadable)?.map(|(letter, _)| rows::position(&letter.summary))
        }
        None => None,
    };
    if limit == 0 {
        return Ok(Vec::new());
    }
    let bounds = Bounds { letters_max: limit, entries_max: usize::MAX };
    let walk = rows::walk(&letters, &order, filter, after.as_ref(), bounds, unreadable)?;
    Ok(walk.letters.into_iter().map(|(letter, _)| letter.summary).collect())
}

pub(super) fn get(
    snapshot: &ReadTransaction,
    id: &LetterId,
    unreadable: &mut u64,
) -> Result<Option<(Summary, Payload)>, ReadError> {
    let letters = snapshot.open_table(rows::LETTERS)?;
    let Some(record) = letters.get(id.0.as_str())? else { return Ok(None) };
    let letter = Letter::decode(record.value());
    let payload = snapshot.open_table(rows::PAYLOADS)?.get(id.0.as_str())?;
    let content = match payload {
        Some(row) => decode_payload(&Bytes::copy_from_slice(row.value())),
        None => Err(super::letter::Undecodable::PayloadMissing),
    };
    match letter.and_then(|letter| content.map(|content| (letter.summary, content))) {
        Ok(found) => Ok(Some(found)),
        Err(problem) => {
            *unreadable += 1;
            let sentence = format!("letter {} cannot be read back: {problem}", id.0);
            Err(ReadError::Answer(StoreError::Failed(sentence)))
        }
    }
}

/// How much one answer may hold; the errand that crosses the bytes is still given.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrandBounds {
    pub count_max: usize,
    pub bytes_max: usize,
}

pub(super) fn errands(
    snapshot: &ReadTransaction,
    sink: &SinkName,
    in_hand: &HashSet<(LetterId, ErrandKind)>,
    bounds: ErrandBounds,
    unreadable: &mut u64,
) -> Result<Vec<Errand>, ReadError> {
    let (rows, notes) = (snapshot.open_table(rows::ERRANDS)?, snapshot.open_table(rows::ERRAND_NOTES)?);
    let (mut found, mut bytes) = (Vec::new(), 0);
    for row in rows.range((sink.as_str(), 0)..=(sink.as_str(), u64::MAX))? {
        if found.len() >= bounds.count_max || bytes >= bounds.bytes_max {
            break;
        }
        let (key, value) = row?;
        let (kind, id) = value.value();
        let id = LetterId(id.to_owned());
        let Some(kind) = kind_from_row(kind) else {
            *unreadable += 1;
            continue;
        };
        if in_hand.contains(&(id.clone(), kind)) {
            continue;
        }
        match get(snapshot, &id, unreadable) {
            Ok(Some((summary, Payload::Event(event)))) => {
                bytes += event.data.bytes().len();
                let deferral = notes.get(key.value())?.map(|row| {
                    let (due, note) = row.value();
                    Deferral { due: UnixMs(due), note: Bytes::copy_from_slice(note) }
                });
                found.push(Errand { deferral, ..errand(id, kind, summary, event) });
            }
            Ok(Some((_, Payload::Body { .. })) | None) => *unreadable += 1,
            Err(ReadError::Answer(_already_counted)) => {}
            Err(error @ ReadError::Store(_)) => return Err(error),
        }
    }
    Ok(found)
}

fn errand(letter: LetterId, kind: ErrandKind, summary: Summary, mut event: Envelope) -> Errand {
    if kind == ErrandKind::Copy {
        let attempts = i32::try_from(summary.attempts).unwrap_or(i32::MAX);
        let mut add = |name, value| event.extensions.insert(Cow::Borrowed(name), value);
        if let super::types::Origin::Sink(sink) = &summary.origin {
            add(DEAD_LETTER_SINK, Attribute::from(sink.as_str()));
        }
        add(DEAD_LETTER_REASON, Attribute::Text(summary.reason));
        add(DEAD_LETTER_TIME, Attribute::Text(summary.died.to_rfc3339()));
        add(DEAD_LETTER_ATTEMPTS, Attribute::Integer(attempts));
    }
    Errand { letter, kind, event, arrived: summary.arrived, deferral: None }
}
