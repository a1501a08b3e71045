//! One record as bytes: a frame whose checksum covers its length, sequence number, generation and payload.
//! Holds: a frame is believed only where its checksum, its segment's generation and its place in the order all agree,
//! so that neither a torn write, nor stale bytes, nor bytes a sender chose can pass for a record.
//!
//! ```text
//!  0        4         8          16           24         32      33    36
//!  | crc32  | payload | sequence | generation | arrival  | flags | 000 | [key 16, window ms 8] payload … to 8
//! ```

use super::types::{Dedupe, Record};
use crate::time::UnixMs;
use std::ops::Range;
use std::time::Duration;

/// Frames begin at multiples of this, so that a search for the next one has fewer places to look.
pub(super) const ALIGNMENT: usize = 8;
/// Bytes of a frame before the de-duplication fields and the payload.
pub(super) const FIXED_BYTES: usize = 36;
const DEDUPE_BYTES: usize = 24;
const FLAG_DEDUPE: u8 = 1;

/// Where a frame stands in the journal; part of what the checksum covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The record's number, from 1.
    pub sequence: u64,
    /// The random number of the segment it was written to.
    pub generation: u64,
}

/// A frame's fields but its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameHead {
    crc: u32,
    payload_bytes: usize,
    pub place: Place,
    pub arrival: UnixMs,
    has_dedupe: bool,
}

/// Bytes that `record` takes on disk.
pub(super) fn frame_bytes(record: &Record) -> usize {
    frame_bytes_of(record.head.len() + record.body.len(), record.dedupe.is_some())
}

fn frame_bytes_of(payload_bytes: usize, has_dedupe: bool) -> usize {
    let dedupe_bytes = if has_dedupe { DEDUPE_BYTES } else { 0 };
    (FIXED_BYTES + dedupe_bytes + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// Appends the frame of `record` to `buffer` and tells where in it the payload lies.
pub(super) fn encode(record: &Record, place: Place, buffer: &mut Vec<u8>) -> Range<usize> {
    let start = buffer.len();
    let payload_bytes = record.head.len() + record.body.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&u32::try_from(payload_bytes).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend_from_slice(&place.sequence.to_le_bytes());
    buffer.extend_from_slice(&place.generation.to_le_bytes());
    buffer.extend_from_slice(&record.arrival.0.to_le_bytes());
    buffer.extend_from_slice(&[u8::from(record.dedupe.is_some()) * FLAG_DEDUPE, 0, 0, 0]);
    if let Some(dedupe) = &record.dedupe {
        buffer.extend_from_slice(&dedupe.key);
        let window_ms = u64::try_from(dedupe.window.as_millis()).unwrap_or(u64::MAX);
        buffer.extend_from_slice(&window_ms.to_le_bytes());
    }
    let payload = buffer.len()..buffer.len() + payload_bytes;
    buffer.extend_from_slice(&record.head);
    buffer.extend_from_slice(&record.body);
    let crc = crc32fast::hash(&buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(start + frame_bytes(record), 0);
    payload
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The generation a frame at the start of `bytes` would have; a cheap first test of a candidate.
pub(super) fn generation_of(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= FIXED_BYTES).then(|| u64_at(bytes, 16))
}

impl FrameHead {
    /// Reads the fixed part, unverified; `None` where there are too few bytes or the flags are not ours.
    pub(super) fn parse(bytes: &[u8]) -> Option<FrameHead> {
        if bytes.len() < FIXED_BYTES || bytes[32] & !FLAG_DEDUPE != 0 || bytes[33..36] != [0; 3] {
            return None;
        }
        Some(FrameHead {
            crc: u32_at(bytes, 0),
            payload_bytes: u32_at(bytes, 4) as usize,
            place: Place { sequence: u64_at(bytes, 8), generation: u64_at(bytes, 16) },
            arrival: UnixMs(u64_at(bytes, 24).cast_signed()),
            has_dedupe: bytes[32] & FLAG_DEDUPE != 0,
        })
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_bytes(&self) -> usize {
        frame_bytes_of(self.payload_bytes, self.has_dedupe)
    }

    /// Whether the checksum is that of `frame`, which holds [`FrameHead::frame_bytes`] bytes.
    pub(super) fn verify(&self, frame: &[u8]) -> bool {
        frame.get(4..self.payload().end).is_some_and(|covered| crc32fast::hash(covered) == self.crc)
    }

    /// Where in the frame the payload lies.
    pub(super) fn payload(&self) -> Range<usize> {
        let start = FIXED_BYTES + if self.has_dedupe { DEDUPE_BYTES } else { 0 };
        start..start + self.payload_bytes
    }

    /// The identity in a verified frame.
    pub(super) fn dedupe(&self, frame: &[u8]) -> Option<Dedupe> {
        self.has_dedupe.then(|| Dedupe {
            key: frame[FIXED_BYTES..FIXED_BYTES + 16].try_into().expect("sixteen bytes"),
            window: Duration::from_millis(u64_at(frame, FIXED_BYTES + 16)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_gives_back_what_was_put_in(
            head in proptest::collection::vec(any::<u8>(), 0..40),
            body in proptest::collection::vec(any::<u8>(), 0..40),
            arrival: i64, sequence: u64, generation: u64,
            dedupe in proptest::option::of((any::<[u8; 16]>(), 0u64..1 << 50)),
        ) {
            let dedupe = dedupe.map(|(key, ms)| Dedupe { key, window: Duration::from_millis(ms) });
            let record = Record { head: head.clone(), body: Bytes::from(body.clone()), arrival: UnixMs(arrival), dedupe };
            let mut buffer = vec![7; 8];
            let payload = encode(&record, Place { sequence, generation }, &mut buffer);
            prop_assert_eq!(&buffer[payload], [head, body].concat());
            let frame = &buffer[8..];
            let parsed = FrameHead::parse(frame).unwrap();
            prop_assert!(parsed.verify(frame));
            prop_assert_eq!(frame.len(), parsed.frame_bytes());
            prop_assert_eq!(parsed.place, Place { sequence, generation });
            prop_assert_eq!(parsed.arrival, UnixMs(arrival));
            prop_assert_eq!(parsed.dedupe(frame), dedupe);
        }
    }

    #[test]
    fn no_single_flipped_bit_survives_the_checksum() {
        let record =
            Record { head: vec![1; 5], body: Bytes::from_static(b"body"), arrival: UnixMs(9), dedupe: None };
        let mut good = Vec::new();
        let payload = encode(&record, Place { sequence: 3, generation: 77 }, &mut good);
        for bit in 0..payload.end * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let believed = FrameHead::parse(&flipped).is_some_and(|head| head.verify(&flipped));
            assert!(!believed, "bit {bit}");
        }
    }
}
