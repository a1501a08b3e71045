//! The format is pinned byte by byte: what today's code writes is what lies in the kept files of its version.

use super::record::{FrameHead, Place};
use super::segment::{HEADER_BYTES, Header, HeaderFound};
use super::*;

/// The segment that format 1 left behind (`tests/it/journal_formats.rs` opens it).
fn kept(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(path)).unwrap()
}

#[test]
fn a_segment_is_written_byte_for_byte_as_the_kept_one_of_its_format() {
    assert_eq!(segment::FORMAT, 1, "a new format needs a kept directory of its own, and this test its files");
    let file = kept("journal_v1/00000001.seg");
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
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(written, file[..written.len()]);
    assert!(file[written.len()..].iter().all(|byte| *byte == 0), "and the rest is blank");
}
