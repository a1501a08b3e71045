//! Sectors that the disk cannot read, for a while or for ever: what lies on them is lost, and nothing else; what cannot be
//! read is not written over, and what can be read again takes nobody's place.

use super::faults::{DIRECTORY, SEGMENT, contents, frame_bytes_of, open_on, with_records, with_segments};
use super::memory_disk::MemoryDisk;
use super::*;

/// Takes all records from the journal on `disk`, and tells how often reading failed on the way.
async fn insist(disk: &MemoryDisk, count: usize, failures_max: usize) -> (Vec<String>, usize) {
    let journal = open_on(disk, &["orders"]).unwrap();
    let mut feed = journal.feed("orders").unwrap();
    let (mut given, mut failures) = (Vec::new(), 0);
    while given.len() < count && failures < failures_max {
        let next = tokio::time::timeout(PATIENCE, feed.next(1, 1)).await;
        match next.unwrap_or_else(|_| panic!("{} of {count} records", given.len())) {
            Ok(entries) => {
                given.extend(entries.iter().map(|entry| String::from_utf8(entry.payload.to_vec()).unwrap()))
            }
            Err(ReadError::Io(_)) => failures += 1,
            Err(ReadError::Closed) => panic!("the journal is open"),
        }
    }
    journal.close().await;
    (given, failures)
}

#[tokio::test]
async fn a_bad_sector_costs_what_lies_on_it_once_reading_has_failed_often_enough() {
    let disk = MemoryDisk::new();
    let texts = with_segments(&disk).await;
    disk.make_unreadable(Path::new(SEGMENT), 8192..8200);
    let hit = |at: usize| {
        let start = segment::HEADER_BYTES + at * frame_bytes_of(&texts[0]);
        start < 3 * 4096 && start + frame_bytes_of(&texts[0]) > 2 * 4096
    };
    let expected: Vec<String> =
        texts.iter().enumerate().filter(|(at, _)| !hit(*at)).map(|(_, text)| format!("{text}!")).collect();
    assert_eq!(expected.len(), 51);
    let (given, failures) = insist(&disk, 51, 100).await;
    assert_eq!((given, failures), (expected, 10));
    let aside = disk.names("j/damaged");
    assert_eq!(
        aside,
        [format!("00000001-{:010}.bin", segment::HEADER_BYTES + 7 * frame_bytes_of(&texts[0]))]
    );
    let kept = disk.read(&Path::new("j/damaged").join(&aside[0]));
    assert!(kept.starts_with(
        &disk.read(Path::new(SEGMENT))[segment::HEADER_BYTES + 7 * frame_bytes_of(&texts[0])..8192]
    ));
    assert!(
        kept[kept.len() - 100..].iter().all(|byte| *byte != 0xff),
        "what can be read on both sides is there"
    );
}

#[tokio::test]
async fn nothing_is_given_up_while_the_whole_disk_does_not_answer() {
    let disk = MemoryDisk::new();
    with_segments(&disk).await;
    let journal = open_on(&disk, &["orders"]).unwrap();
    let mut feed = journal.feed("orders").unwrap();
    disk.make_unreadable(Path::new(SEGMENT), 0..16 * 1024);
    disk.fail_writes(true);
    for _ in 0..30 {
        assert!(matches!(feed.next(1, 1).await, Err(ReadError::Io(_))));
    }
    assert_eq!(journal.lag("orders").unwrap().events, 60);
    disk.fail_writes(false);
    disk.make_readable();
    assert_eq!(take(&mut feed, 60).await.len(), 60, "all are there when it is back");
    journal.close().await;
}

#[tokio::test]
async fn a_bad_sector_in_the_last_segment_stops_no_start_and_is_not_written_over() {
    let texts: Vec<String> = (0..12).map(|number| format!("{number:0>500}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let intact = with_records(&texts).await;
    let end = segment::HEADER_BYTES + 12 * frame_bytes_of(texts[0]);
    for (sentence, bad) in [("in the middle", 8192..8193), ("at the end", end - 1..end)] {
        let disk = intact.copy();
        disk.make_unreadable(Path::new(SEGMENT), bad.clone());
        let page = bad.start / 4096 * 4096;
        let is_lost = |at: usize| {
            let start = segment::HEADER_BYTES + at * frame_bytes_of(texts[0]);
            start < page + 4096 && start + frame_bytes_of(texts[0]) > page
        };
        let mut expected: Vec<String> =
            (0..12).filter(|at| !is_lost(*at)).map(|at| format!("{}!", texts[at])).collect();
        expected.push("more!".to_owned());
        let journal = open_on(&disk, &["orders"]).unwrap();
        journal.append(vec![record("more")]).await.unwrap();
        journal.close().await;
        assert_eq!(insist(&disk, expected.len(), 100).await.0, expected, "{sentence}");
        assert_eq!(disk.names("j/damaged").len(), 1, "{sentence}");
        assert_eq!(
            disk.read(Path::new(SEGMENT))[..end],
            intact.read(Path::new(SEGMENT))[..end],
            "{sentence}"
        );
    }
}

#[tokio::test]
async fn what_is_written_behind_a_bad_sector_is_given_also_once_that_can_be_read_again() {
    let texts: Vec<String> = (0..12).map(|number| format!("{number:0>500}")).collect();
    let disk = with_records(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let end = segment::HEADER_BYTES + 12 * frame_bytes_of(&texts[0]);
    disk.make_unreadable(Path::new(SEGMENT), end - 1..end);
    for text in ["behind", "more"] {
        let journal = open_on(&disk, &["orders"]).unwrap();
        journal.append(vec![record(text)]).await.unwrap();
        journal.close().await;
    }
    disk.make_readable();
    // What lay there was set aside, and its numbers are those of other records now.
    let whole = (8192 - segment::HEADER_BYTES) / frame_bytes_of(&texts[0]);
    let mut expected: Vec<String> = texts[..whole].iter().map(|text| format!("{text}!")).collect();
    expected.extend(["behind!".to_owned(), "more!".to_owned()]);
    assert_eq!(insist(&disk, expected.len(), 1).await, (expected, 0));
}

#[tokio::test]
async fn what_can_be_read_again_takes_no_number_of_the_segment_behind_it() {
    let disk = MemoryDisk::new();
    let journal = open_on(&disk, &["orders"]).unwrap();
    let texts: Vec<String> = (0..12).map(|number| format!("{number:0>500}")).collect();
    for (text, key) in texts.iter().zip(0..) {
        journal.append(vec![identified(text, key)]).await.unwrap();
    }
    journal.close().await;
    let frame = record::frame_bytes(&identified(&texts[0], 0));
    let whole = (8192 - segment::HEADER_BYTES) / frame;
    disk.make_unreadable(Path::new(SEGMENT), 8192..segment::HEADER_BYTES + 12 * frame);
    let journal = open_on(&disk, &["orders"]).unwrap();
    journal.append(vec![record("behind")]).await.unwrap();
    journal.close().await;
    disk.make_readable();
    // With the last record before the sector lost, too, the first one that comes has the number of another one.
    let last_whole = segment::HEADER_BYTES + (whole - 1) * frame;
    disk.edit(Path::new(SEGMENT), |bytes| bytes[last_whole + 100] ^= 1);
    let journal = open_on(&disk, &["orders"]).unwrap();
    let key = u8::try_from(whole).unwrap();
    let repeated = journal.append(vec![identified(&texts[whole], key)]).await.map(Vec::from);
    assert_eq!(repeated, Ok(vec![Appended::Stored]), "no lane will get what lay in the sector");
    journal.close().await;
    let mut expected: Vec<String> = texts[..whole - 1].iter().map(|text| format!("{text}!")).collect();
    expected.extend(["behind!".to_owned(), format!("{}!", texts[whole])]);
    assert_eq!(insist(&disk, expected.len(), 1).await, (expected, 0));
}

#[tokio::test]
async fn a_last_segment_cut_short_where_it_cannot_be_read_stops_no_start_and_takes_no_more() {
    let texts: Vec<String> = (0..12).map(|number| format!("{number:0>500}")).collect();
    let intact = with_records(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let frame = frame_bytes_of(&texts[0]);
    for cut in [8193, 8200, 10_001, 12_287, 12_288] {
        let disk = intact.copy();
        disk.make_unreadable(Path::new(SEGMENT), 8192..12_288);
        disk.edit(Path::new(SEGMENT), |bytes| bytes.truncate(cut));
        let mut expected: Vec<String> =
            texts[..(8192 - segment::HEADER_BYTES) / frame].iter().map(|text| format!("{text}!")).collect();
        for text in ["behind", "more"] {
            let journal = open_on(&disk, &["orders"]).unwrap();
            let stored = journal.append(vec![record(text)]).await.map(Vec::from);
            assert_eq!(stored, Ok(vec![Appended::Stored]), "cut at {cut}");
            journal.close().await;
            expected.push(format!("{text}!"));
        }
        assert_eq!(disk.read(Path::new(SEGMENT)).len(), cut, "nothing goes behind it");
        assert_eq!(insist(&disk, expected.len(), 100).await.0, expected, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_bad_sector_under_a_cursor_slot_holds_up_neither_the_cursor_nor_the_segments_it_passed() {
    let disk = MemoryDisk::new();
    let texts = with_segments(&disk).await;
    let config = Config { retention: Period::secs(0), ..small() };
    let tick = Duration::from_millis(1);
    let journal = Journal::open_with_tick(
        &config,
        Path::new(DIRECTORY),
        Arc::new(disk.clone()),
        &sinks(&["orders"]),
        tick,
    )
    .unwrap();
    for slot in disk.names("j/cursors") {
        disk.make_unreadable(&Path::new("j/cursors").join(slot), 0..1);
    }
    take(&mut journal.feed("orders").unwrap(), texts.len()).await;
    let freed = async {
        while disk.names(DIRECTORY).contains(&"00000001.seg".to_owned()) {
            tokio::time::sleep(tick).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the oldest segment is freed");
    journal.close().await;
    assert_eq!(contents(&disk.after_crash(11)).await.0, Vec::<String>::new(), "and all of it is on disk");
}

#[tokio::test]
async fn unreadable_cursor_slots_and_headers_are_damaged_ones() {
    let disk = with_records(&["a", "b"]).await;
    for slot in disk.names("j/cursors") {
        disk.make_unreadable(&Path::new("j/cursors").join(slot), 0..1);
    }
    assert_eq!(contents(&disk).await.0, ["a!", "b!"]);
    disk.make_unreadable(Path::new(SEGMENT), 0..1);
    disk.make_unreadable(Path::new(SEGMENT), segment::HEADER_BYTES..segment::HEADER_BYTES + 1);
    assert_eq!(contents(&disk).await, (vec![], 1));
    assert_eq!(disk.names("j/damaged"), ["00000001.seg"]);
}
