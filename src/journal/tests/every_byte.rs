//! Every byte of a small journal is hit: exactly what lies there is lost, and it is noticed.

use super::faults::{SEGMENT, contents, frame_bytes_of, open_on, with_records};
use super::memory_disk::MemoryDisk;
use super::*;

const TEXTS: [&str; 3] = ["first", "second", "third"];

fn without(lost: Option<usize>) -> Vec<String> {
    let kept = TEXTS.iter().enumerate().filter(|(at, _)| Some(*at) != lost);
    kept.map(|(_, text)| format!("{text}!")).collect()
}

#[tokio::test]
async fn a_flipped_byte_anywhere_costs_the_record_it_lies_in_and_nothing_else() {
    let disk = with_records(&TEXTS).await;
    let starts: Vec<usize> = (0..=3)
        .map(|count| {
            segment::HEADER_BYTES + TEXTS[..count].iter().map(|text| frame_bytes_of(text)).sum::<usize>()
        })
        .collect();
    let header = (0..64).chain(2048..2048 + 64);
    let frames = starts[0]..starts[3];
    let blank = (starts[3]..starts[3] + 64).chain((starts[3]..16 * 1024).step_by(509));
    for byte in header.chain(frames).chain(blank) {
        let hit = (0..3).find(|at| {
            let covered = record::FIXED_BYTES + TEXTS[*at].len() + 1;
            (starts[*at]..starts[*at] + covered).contains(&byte)
        });
        let damaged = disk.copy();
        damaged.edit(Path::new(SEGMENT), |bytes| bytes[byte] ^= 0x41);
        // With nothing sound behind it, it is the torn end of a write, which was never answered.
        let is_counted = hit.is_some_and(|at| at < 2);
        assert_eq!(contents(&damaged).await, (without(hit), u64::from(is_counted)), "byte {byte}");
    }
}

/// Three records of 3500 bytes fill the first segment; more lie in the next one.
async fn with_a_sealed_segment() -> (MemoryDisk, Vec<String>, usize) {
    let texts: Vec<String> = (0..5).map(|number| number.to_string().repeat(3500)).collect();
    let disk = with_records(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let frame = frame_bytes_of(&texts[0]);
    (disk, texts.iter().map(|text| format!("{text}!")).collect(), frame)
}

#[tokio::test]
async fn in_a_sealed_segment_every_lost_record_is_counted_also_the_last_and_where_zeros_or_nothing_are_left()
{
    let (disk, texts, frame) = with_a_sealed_segment().await;
    let start = |at: usize| segment::HEADER_BYTES + at * frame;
    for at in 0..3 {
        let covered = record::FIXED_BYTES + 3501;
        let bytes = (0..record::FIXED_BYTES).chain((0..covered).step_by(97)).chain([covered - 1]);
        for byte in bytes.map(|byte| start(at) + byte) {
            let damaged = disk.copy();
            damaged.edit(Path::new(SEGMENT), |bytes| bytes[byte] ^= 0x41);
            let (given, ranges) = contents(&damaged).await;
            let mut expected = texts.clone();
            expected.remove(at);
            assert!(given == expected && ranges == 1, "byte {byte}: {} given, {ranges}", given.len());
        }
    }
    for (sentence, first_lost, cut) in [
        ("the last record is zeros", 2, None),
        ("the file ends with its second record", 2, Some(start(2))),
        ("the file ends in its second record", 1, Some(start(2) - 1)),
        ("the file ends with its header", 0, Some(start(0))),
        ("the file ends in its header", 0, Some(100)),
        ("nothing is left of the file", 0, Some(0)),
    ] {
        let damaged = disk.copy();
        damaged.edit(Path::new(SEGMENT), |bytes| match cut {
            Some(cut) => bytes.truncate(cut),
            None => bytes[start(2)..].fill(0),
        });
        let (given, ranges) = contents(&damaged).await;
        let expected = [&texts[..first_lost], &texts[3..]].concat();
        assert!(given == expected && ranges == 1, "{sentence}: {} given, {ranges}", given.len());
        assert_eq!(contents(&damaged).await.1, 1, "{sentence}: met again, it is not counted again");
    }
}

#[tokio::test]
async fn a_last_segment_cut_short_in_its_header_stops_no_start_and_is_counted() {
    let disk = with_records(&TEXTS).await;
    let near = |at: usize| at.saturating_sub(2)..at + 3;
    for cut in (0..70).chain(near(2048)).chain(near(2112)).chain(4090..=4096) {
        let damaged = disk.copy();
        damaged.edit(Path::new(SEGMENT), |bytes| bytes.truncate(cut));
        assert_eq!(contents(&damaged).await, (vec![], 1), "cut at {cut}");
    }
}

#[tokio::test]
async fn the_end_that_a_cursor_knows_of_is_missed_and_no_number_is_given_out_twice() {
    let disk = with_records(&TEXTS).await;
    let journal =
        Journal::open(&small(), Path::new("j"), Arc::new(disk.clone()), &sinks(&["orders", "audit"]))
            .unwrap();
    take(&mut journal.feed("orders").unwrap(), 3).await;
    journal.close().await;
    let end = segment::HEADER_BYTES + frame_bytes_of(TEXTS[0]);
    for (sentence, cut) in [("cut", true), ("zeros", false)] {
        let disk = disk.copy();
        disk.edit(Path::new(SEGMENT), |bytes| match cut {
            true => bytes.truncate(end),
            false => bytes[end..].fill(0),
        });
        for _ in 0..2 {
            let journal = open_on(&disk, &["orders"]).unwrap();
            assert_eq!(journal.status().damaged_ranges, 1, "{sentence}: noticed, and once");
            journal.close().await;
        }
        assert_eq!(contents(&disk).await.0, Vec::<String>::new(), "{sentence}: but a new record is given");
    }
}

#[tokio::test]
async fn a_cursor_with_one_bad_slot_goes_on_with_the_other_and_with_two_starts_at_the_oldest() {
    let disk = with_records(&TEXTS).await;
    let journal = open_on(&disk, &["orders"]).unwrap();
    take(&mut journal.feed("orders").unwrap(), 2).await;
    journal.close().await;
    let slots = ["j/cursors/orders.0", "j/cursors/orders.1"].map(Path::new);
    // What each slot says when the other was never there.
    let mut alone = Vec::new();
    for slot in slots.iter().rev() {
        let disk = disk.copy();
        disk.unlink(slot);
        alone.push(contents(&disk).await.0);
    }
    assert_ne!(alone[0], alone[1], "they were written in turn");
    for (slot, other) in [(0, &alone[1]), (1, &alone[0])] {
        for byte in 0..disk.read(slots[slot]).len() {
            let flipped = disk.copy();
            flipped.edit(slots[slot], |bytes| bytes[byte] ^= 0x41);
            let both = flipped.copy();
            assert_eq!(contents(&flipped).await.0, *other, "byte {byte} of slot {slot}");
            let cut = disk.copy();
            cut.edit(slots[slot], |bytes| bytes.truncate(byte));
            assert_eq!(contents(&cut).await.0, *other, "slot {slot} cut at byte {byte}");
            let other_bytes = both.read(slots[1 - slot]).len();
            both.edit(slots[1 - slot], |bytes| bytes[byte % other_bytes] ^= 0x41);
            assert_eq!(
                contents(&both).await.0,
                without(None),
                "byte {byte} of both: the oldest, never the newest"
            );
        }
    }
}
