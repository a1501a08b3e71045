//! The format is pinned byte by byte: what today's code writes is what lies in the kept files of its version.

use super::memory_disk::MemoryDisk;
use super::record::{FrameHead, Place};
use super::segment::{HEADER_BYTES, Header, HeaderFound};
use super::*;
use crate::time::UnixMs;

/// A file that an earlier version left behind (`tests/it/journal_formats.rs` opens them).
fn kept(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(path)).unwrap()
}

#[test]
fn a_segment_is_written_byte_for_byte_as_the_kept_one_of_its_format() {
    assert_eq!(segment::FORMAT, 1, "a new format needs a kept directory of its own, and this test its files");
    for kept_in in ["journal_v1", "journal_v2"] {
        is_written_as(&kept(&format!("{kept_in}/00000001.seg")));
    }
}

fn is_written_as(file: &[u8]) {
    let HeaderFound::Good(header) = Header::decode(&file[..HEADER_BYTES]) else {
        panic!("the header is sound")
    };
    let mut written = header.encode();
    let mut sequences = Vec::new();
    while let Some(head) = FrameHead::parse(&file[written.len()..]).filter(|head| head.place.sequence > 0) {
        let frame = &file[written.len()..written.len() + head.frame_bytes()];
        assert!(head.verify(frame));
        let record = Record {
            head: frame[head.payload()].to_vec(),
            body: Bytes::new(),
            arrival: head.arrival,
            dedupe: head.dedupe(frame),
        };
        let place = Place { sequence: head.place.sequence, generation: header.generation };
        record::encode(&record, place, &mut written);
        sequences.push(place.sequence);
    }
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    assert!(sequences.len() >= 3);
    assert_eq!(written, file[..written.len()]);
    assert!(file[written.len()..].iter().all(|byte| *byte == 0), "and the rest is blank");
}

/// A short life that leaves one of everything in its cursors: what was settled with and without a gap, what of it is
/// counted how, and what is to be tried again.
async fn live(disk: &MemoryDisk) {
    let journal =
        Journal::open(&small(), Path::new("j"), Arc::new(disk.clone()), &sinks(&["orders", "audit"]))
            .unwrap();
    for text in ["one", "two", "three", "four", "five"] {
        journal.append(vec![record(text)]).await.unwrap();
    }
    let mut feed = journal.feed("orders").unwrap();
    let mut given = Vec::new();
    while given.len() < 5 {
        given.extend(feed.next(5, usize::MAX).await.unwrap());
    }
    let endings = [Ending::Delivered, Ending::DeadLettered, Ending::Shed, Ending::NotRouted];
    for (at, ending) in [0, 2, 3, 4].into_iter().zip(endings) {
        feed.settle(given[at].position, ending);
    }
    let note = Bytes::from_static(b"tried twice");
    feed.defer(given[1].position, Deferral { due: UnixMs(1_800_000_060_000), note });
    journal.close().await;
}

/// The newer of two slots, without the checksum and the number of the saving, which depends on the time it took.
fn newest_slot(slots: [Vec<u8>; 2]) -> Vec<u8> {
    let saving = |slot: &Vec<u8>| u64::from_le_bytes(slot[16..24].try_into().unwrap());
    let mut newest = slots.into_iter().max_by_key(saving).unwrap();
    newest.drain(12..24);
    newest
}

#[tokio::test]
async fn a_cursor_slot_is_written_byte_for_byte_as_the_kept_one_of_its_format() {
    assert_eq!(
        cursor_file::FORMAT,
        2,
        "a new format needs a kept directory of its own, and this test its files"
    );
    let disk = MemoryDisk::new();
    live(&disk).await;
    for name in ["orders", "audit"] {
        let written = [0, 1].map(|slot| disk.read(Path::new(&format!("j/cursors/{name}.{slot}"))));
        let kept = [0, 1].map(|slot| kept(&format!("journal_v2/cursors/{name}.{slot}")));
        assert_eq!(newest_slot(written), newest_slot(kept), "{name}");
    }
}
