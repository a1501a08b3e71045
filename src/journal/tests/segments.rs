//! Segments that are lost as a whole, or whose header is: they cost what lay in them, and hide nothing behind them.

use super::faults::{DIRECTORY, SEGMENT, contents, frame_bytes_of, open_on, with_records, with_segments};
use super::memory_disk::MemoryDisk;
use super::*;

fn lose_header_and_first_record(bytes: &mut [u8]) {
    bytes[..segment::HEADER_BYTES].fill(7);
    bytes[segment::HEADER_BYTES] ^= 1;
}

#[tokio::test]
async fn what_is_set_aside_counts_towards_the_budget_until_it_is_cleared_away() {
    let disk = MemoryDisk::new();
    with_segments(&disk).await;
    disk.edit(Path::new(SEGMENT), |bytes| lose_header_and_first_record(bytes));
    let journal = open_on(&disk, &["orders"]).unwrap();
    let files =
        |disk: &MemoryDisk| disk.names(DIRECTORY).iter().filter(|name| name.ends_with(".seg")).count() as u64;
    assert_eq!(journal.status().damaged_ranges, 1);
    assert!(journal.status().bytes >= (files(&disk) + 1) * 16 * 1024 - 16 * 1024);
    disk.unlink(Path::new("j/damaged/00000001.seg"));
    let cleared = async {
        while journal.status().damaged_ranges > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cleared).await.expect("what was cleared away no longer counts");
    assert_eq!(journal.status().bytes, files(&disk) * 16 * 1024);
    journal.close().await;
}

#[tokio::test]
async fn a_segment_whose_header_and_first_record_are_lost_is_set_aside_whole() {
    let disk = MemoryDisk::new();
    let journal = open_on(&disk, &["orders"]).unwrap();
    let texts: Vec<String> = (0..60).map(|number| format!("{number:0>500}")).collect();
    for text in &texts {
        journal.append(vec![record(text)]).await.unwrap();
    }
    journal.close().await;
    let segments = disk.names(DIRECTORY);
    let per_segment = (16 * 1024 - segment::HEADER_BYTES) / frame_bytes_of(&texts[0]);
    for (sentence, at, lost) in [
        ("the first", 0, per_segment),
        ("one in the middle", 1, per_segment),
        ("the last with records", 2, 60 - 2 * per_segment),
    ] {
        let disk = disk.copy();
        let path = Path::new(DIRECTORY).join(&segments[at]);
        disk.edit(&path, |bytes| lose_header_and_first_record(bytes));
        let (given, damaged) = contents(&disk).await;
        assert_eq!((given.len(), damaged), (60 - lost, 1), "{sentence}");
        assert_eq!(disk.names("j/damaged"), segments[at..=at], "{sentence}");
    }
}

#[tokio::test]
async fn a_lost_header_costs_no_record_and_no_identity() {
    let disk = MemoryDisk::new();
    let texts = with_segments(&disk).await;
    let journal = open_on(&disk, &["orders"]).unwrap();
    journal.append(vec![identified("known", 9)]).await.unwrap();
    journal.close().await;
    let mut expected: Vec<String> = texts.iter().map(|text| format!("{text}!")).collect();
    expected.push("known!".to_owned());
    let segments: Vec<String> =
        disk.names(DIRECTORY).into_iter().filter(|name| name.ends_with(".seg")).take(3).collect();
    for (sentence, at) in [("the first", 0), ("one in the middle", 1), ("the last with records", 2)] {
        for how in ["filled", "blank", "unreadable"] {
            let disk = disk.copy();
            let path = Path::new(DIRECTORY).join(&segments[at]);
            match how {
                "unreadable" => disk.make_unreadable(&path, 0..segment::HEADER_BYTES),
                how => disk.edit(&path, |bytes| {
                    bytes[..segment::HEADER_BYTES].fill(if how == "blank" { 0 } else { 7 });
                }),
            }
            // The second time it is read again, but not counted again.
            open_on(&disk, &["orders"]).unwrap().close().await;
            let journal = open_on(&disk, &["orders"]).unwrap();
            let again = journal.append(vec![identified("known", 9)]).await.map(Vec::from);
            assert_eq!(again, Ok(vec![Appended::Duplicate]), "{sentence} {how}");
            journal.close().await;
            assert_eq!(contents(&disk).await, (expected.clone(), 1), "{sentence} {how}");
            assert_eq!(
                disk.names("j/damaged"),
                [format!("{}-0000000000.bin", segments[at].strip_suffix(".seg").unwrap())]
            );
        }
    }
}

#[tokio::test]
async fn a_number_that_was_settled_is_never_given_out_again_even_when_its_segment_is_gone() {
    let disk = with_records(&["a", "b", "c"]).await;
    assert_eq!(contents(&disk).await.0.len(), 3);
    disk.unlink(Path::new(SEGMENT));
    let journal = open_on(&disk, &["orders"]).unwrap();
    journal.append(vec![record("new")]).await.unwrap();
    assert_eq!(take(&mut journal.feed("orders").unwrap(), 1).await, ["new!"]);
    journal.close().await;
}

#[tokio::test]
async fn a_segment_that_damage_has_emptied_hides_none_behind_it() {
    let text = "x".repeat(500);
    let per_segment = (16 * 1024 - segment::HEADER_BYTES) / frame_bytes_of(&text);
    let disk = with_records(&vec![text.as_str(); per_segment + 1]).await;
    // The one record of the second segment is cut off, and with it the room for others.
    disk.edit(Path::new("j/00000002.seg"), |bytes| bytes.truncate(segment::HEADER_BYTES + 8));
    let journal = open_on(&disk, &["orders"]).unwrap();
    for text in ["behind", "more"] {
        journal.append(vec![record(text)]).await.unwrap();
    }
    journal.close().await;
    let holds_records = disk.read(Path::new("j/00000003.seg")).iter().any(|byte| *byte != 0);
    assert!(holds_records, "the second one is empty and stays");
    // Without the first segment the empty one is what a reader meets first.
    disk.edit(Path::new(SEGMENT), |bytes| bytes.truncate(732));
    assert_eq!(contents(&disk).await.0, ["behind!", "more!"]);
}
