//! Fuzzing of what recovery reads: frames, headers of segments, slots of cursors.
//! Holds: what is believed writes back as itself. Each target sees its input as it is, and once more with the checksum
//! that a program gone wrong could have written: nothing behind the checksum may break either.

use super::cursor::{Progress, Standing};
use super::cursor_file::{self, Slot};
use super::record::{FrameHead, Place, encode};
use super::segment::{Header, HeaderFound, file_name, number_of};
use super::types::{Dedupe, Deferral, Ending, Record};
use crate::fuzz_tests::{Target, Verdict, run};
use crate::time::UnixMs;
use bytes::Bytes;
use std::time::Duration;

static TARGETS: &[Target] = &[
    Target { name: "journal frame", seeds: frame_seeds, check: frame },
    Target { name: "journal segment header", seeds: header_seeds, check: header },
    Target { name: "journal cursor slot", seeds: slot_seeds, check: slot },
];

fn frame_seeds() -> Vec<Vec<u8>> {
    let dedupe = Dedupe { key: [7; 16], window: Duration::from_mins(10) };
    let frames = [None, Some(dedupe)].map(|dedupe| {
        let body = Bytes::from_static(b"{\"a\":1}");
        let record = Record { head: vec![1, 1, 7], body, arrival: UnixMs(1_795_219_200_000), dedupe };
        let mut frame = Vec::new();
        encode(&record, Place { sequence: 3, generation: 0x0123_4567_89ab_cdef }, &mut frame);
        frame
    });
    frames.to_vec()
}

/// With the checksum at `at` of everything before it and of what follows it until `end`.
fn with_crc(input: &[u8], at: usize, end: usize) -> Vec<u8> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&input[..at]);
    hasher.update(&input[at + 4..end]);
    let mut sound = input.to_vec();
    sound[at..at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
    sound
}

fn frame(input: &[u8]) -> Verdict {
    let head = FrameHead::parse(input).ok_or("no head")?;
    assert!(head.payload().end <= head.frame_bytes(), "a payload ends with its frame");
    let believed = head.verify(input);
    if input.len() < head.payload().end {
        assert!(!believed, "what is not there cannot be verified");
        return Err("cut off".to_owned());
    }
    let sound = with_crc(input, 0, head.payload().end);
    let head = FrameHead::parse(&sound).ok_or("no head")?;
    assert!(head.verify(&sound));
    let dedupe = head.dedupe(&sound);
    let record = Record {
        head: Vec::new(),
        body: Bytes::copy_from_slice(&sound[head.payload()]),
        arrival: head.arrival,
        dedupe,
    };
    let mut again = Vec::new();
    encode(&record, head.place, &mut again);
    assert_eq!(again[..head.payload().end], sound[..head.payload().end]);
    if believed { Ok(()) } else { Err("checksum".to_owned()) }
}

fn header_seeds() -> Vec<Vec<u8>> {
    let header = Header {
        generation: 0x0123_4567_89ab_cdef,
        first: 17,
        number: 3,
        first_ms: UnixMs(1_795_219_200_000),
        previous_newest_ms: UnixMs(-1),
        previous_remember_until: UnixMs(i64::MAX),
    };
    vec![header.encode(), vec![0; 64], b"00000042.seg".to_vec()]
}

fn header(input: &[u8]) -> Verdict {
    if let Some(number) = std::str::from_utf8(input).ok().and_then(number_of) {
        assert_eq!(file_name(number).as_bytes(), input, "one name a number");
    }
    let check = |region: &[u8]| match Header::decode(region) {
        HeaderFound::Good(header) => {
            assert_eq!(Header::decode(&header.encode()), HeaderFound::Good(header));
            Ok(())
        }
        HeaderFound::Newer(version) => Err(format!("newer {}", version > 2)),
        HeaderFound::Blank => Err("blank".to_owned()),
        HeaderFound::Bad => Err("bad".to_owned()),
    };
    if input.len() >= 64 {
        let _: Verdict = check(&with_crc(input, 12, 64));
    }
    check(input)
}

fn slot_seeds() -> Vec<Vec<u8>> {
    let standing = |ranges: &[(u64, u64)]| {
        Standing::beginning_at(Progress::from_parts(7, ranges.iter().copied()).unwrap())
    };
    let mut noted = standing(&[(9, 12), (20, 20)]);
    noted.settle(8, Ending::DeadLettered);
    noted.defer(14, Deferral { due: UnixMs(5), note: Bytes::from_static(b"note") });
    [standing(&[]), noted, standing(&[(1 << 40, 1 << 50)])]
        .iter()
        .map(|standing| cursor_file::encode(3, standing))
        .collect()
}

fn slot(input: &[u8]) -> Verdict {
    if let Some(count) = input.get(32..40) {
        let count = u64::from_le_bytes(count.try_into().unwrap());
        let end = usize::try_from(count).ok().and_then(|count| count.checked_mul(16)?.checked_add(40));
        if let Some(end) = end.filter(|end| *end <= input.len()) {
            let _: Verdict = believed_slot(&with_crc(input, 12, end));
        }
    }
    believed_slot(input)
}

fn believed_slot(bytes: &[u8]) -> Verdict {
    match cursor_file::decode(bytes) {
        Slot::Good { saving, standing } => {
            let again = cursor_file::encode(saving, &standing);
            let mut progress = standing.progress().clone();
            assert_eq!(cursor_file::decode(&again), Slot::Good { saving, standing });
            let highest = progress.highest();
            assert!(
                progress.is_settled(highest) && progress.unsettled(u64::MAX) <= u64::MAX - progress.through()
            );
            // What comes next is taken, and settled like any other.
            progress.settle(highest + 1, highest + 1);
            assert_eq!(progress.highest(), highest + 1);
            Ok(())
        }
        Slot::Newer(_) => Err("newer".to_owned()),
        Slot::Bad => Err("bad".to_owned()),
    }
}

#[test]
fn what_recovery_reads_holds_for_every_input() {
    run(TARGETS);
}
