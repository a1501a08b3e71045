//! Damage, torn writes, failing disks and foreign files: what is lost is exactly what was hit, and nothing stops a start.

use super::memory_disk::MemoryDisk;
use super::*;
use std::path::PathBuf;

pub(super) const DIRECTORY: &str = "j";
pub(super) const SEGMENT: &str = "j/00000001.seg";

pub(super) fn open_on(disk: &MemoryDisk, names: &[&str]) -> Result<Journal, OpenError> {
    Journal::open(&small(), Path::new(DIRECTORY), Arc::new(disk.clone()), &sinks(names))
}

/// A closed journal with these records, none of them settled.
pub(super) async fn with_records(texts: &[&str]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let journal = open_on(&disk, &["orders"]).unwrap();
    for text in texts {
        journal.append(vec![record(text)]).await.unwrap();
    }
    journal.close().await;
    disk
}

/// What a sink gets from the journal on `disk`, up to a record that is appended now, and how much damage is shown.
pub(super) async fn contents(disk: &MemoryDisk) -> (Vec<String>, u64) {
    let journal = open_on(disk, &["orders"]).unwrap();
    let mut feed = journal.feed("orders").unwrap();
    journal.append(vec![record("end")]).await.unwrap();
    let mut given = Vec::new();
    while given.last().is_none_or(|last| last != "end!") {
        given.extend(take(&mut feed, 1).await);
    }
    given.pop();
    assert_eq!(
        journal.lag("orders"),
        Some(Lag::default()),
        "what is gone holds nothing back: {given:?} {:?}",
        journal.tally("orders")
    );
    journal.close().await;
    (given, journal.status().damaged_ranges)
}

fn lose_header_and_first_record(bytes: &mut [u8]) {
    bytes[..segment::HEADER_BYTES].fill(7);
    bytes[segment::HEADER_BYTES] ^= 1;
}

pub(super) fn frame_bytes_of(text: &str) -> usize {
    record::frame_bytes(&record(text))
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_tears_and_what_was_before_stays() {
    let texts = ["first", "second", "third"];
    let disk = with_records(&texts).await;
    let ends: Vec<usize> = (1..=3)
        .map(|count| {
            segment::HEADER_BYTES + texts[..count].iter().map(|text| frame_bytes_of(text)).sum::<usize>()
        })
        .collect();
    for cut in ends[0]..ends[2] {
        let torn = disk.copy();
        torn.edit(Path::new(SEGMENT), |bytes| bytes[cut..].fill(0));
        let shorter = disk.copy();
        shorter.edit(Path::new(SEGMENT), |bytes| bytes.truncate(cut));
        for disk in [torn, shorter] {
            // The last bytes of a frame may be padding, which nobody misses.
            let whole = if cut + record::ALIGNMENT > ends[2] {
                3
            } else {
                1 + usize::from(cut + record::ALIGNMENT > ends[1])
            };
            let (given, damaged) = contents(&disk).await;
            let count = given.len();
            assert!(count == whole || count + 1 == whole, "cut at {cut}: {given:?}");
            assert_eq!((given, damaged), (texts[..count].iter().map(|text| format!("{text}!")).collect(), 0));
        }
    }
}

#[tokio::test]
async fn nothing_of_a_torn_tail_is_left_behind_what_stays() {
    let disk = with_records(&["first", "second"]).await;
    let end = segment::HEADER_BYTES + frame_bytes_of("first");
    disk.edit(Path::new(SEGMENT), |bytes| bytes[end] ^= 1);
    open_on(&disk, &["orders"]).unwrap().close().await;
    assert!(disk.read(Path::new(SEGMENT))[end..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_flipped_bit_in_the_middle_costs_that_record_only_and_is_set_aside_once() {
    let disk = with_records(&["first", "second", "third"]).await;
    let start = segment::HEADER_BYTES + frame_bytes_of("first");
    let covered = record::FIXED_BYTES + "second!".len();
    for byte in start..start + covered {
        let damaged = disk.copy();
        damaged.edit(Path::new(SEGMENT), |bytes| bytes[byte] ^= 0x10);
        assert_eq!(contents(&damaged).await, (vec!["first!".into(), "third!".into()], 1), "byte {byte}");
        assert_eq!(damaged.names("j/damaged"), [format!("00000001-{start:010}.bin")]);
        let aside = damaged.read(&PathBuf::from(format!("j/damaged/00000001-{start:010}.bin")));
        assert_eq!(aside, damaged.read(Path::new(SEGMENT))[start..start + frame_bytes_of("second")]);
        assert_eq!(contents(&damaged).await, (vec![], 1), "met again, it is not counted again");
    }
}

#[tokio::test]
async fn damage_in_an_older_segment_is_met_by_the_reader_and_skipped() {
    let disk = MemoryDisk::new();
    let journal = open_on(&disk, &["orders"]).unwrap();
    let texts: Vec<String> = (0..60).map(|number| format!("{number:0>500}")).collect();
    for text in &texts {
        journal.append(vec![record(text)]).await.unwrap();
    }
    journal.close().await;
    let third = segment::HEADER_BYTES + 2 * frame_bytes_of(&texts[0]);
    disk.edit(Path::new(SEGMENT), |bytes| bytes[third + 100] ^= 1);
    let (given, damaged) = contents(&disk).await;
    let expected: Vec<String> =
        texts.iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, text)| format!("{text}!")).collect();
    assert_eq!((given, damaged), (expected, 1));
}

/// Two segments and more of records of 500 bytes.
async fn with_segments(disk: &MemoryDisk) -> Vec<String> {
    let journal = open_on(disk, &["orders"]).unwrap();
    let texts: Vec<String> = (0..60).map(|number| format!("{number:0>500}")).collect();
    for text in &texts {
        journal.append(vec![record(text)]).await.unwrap();
    }
    journal.close().await;
    texts
}

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
async fn a_damaged_cursor_slot_repeats_deliveries_and_never_skips_any() {
    let disk = with_records(&["a", "b", "c"]).await;
    let journal = open_on(&disk, &["orders"]).unwrap();
    let mut feed = journal.feed("orders").unwrap();
    take(&mut feed, 2).await;
    journal.close().await;
    let slots = disk.names("j/cursors");
    assert_eq!(slots, ["orders.0", "orders.1"]);
    for (sentence, damaged, given) in [
        ("both good: what is unsettled", &slots[..0], vec!["c!"]),
        ("both bad: from the oldest record", &slots[..], vec!["a!", "b!", "c!"]),
    ] {
        let disk = disk.copy();
        for slot in damaged {
            disk.edit(&Path::new("j/cursors").join(slot), |bytes| bytes[30] ^= 1);
        }
        assert_eq!(contents(&disk).await.0, given, "{sentence}");
    }
    for slot in &slots {
        let disk = disk.copy();
        disk.edit(&Path::new("j/cursors").join(slot), |bytes| bytes[30] ^= 1);
        let given = contents(&disk).await.0;
        assert!(
            given == ["c!"] || given == ["a!", "b!", "c!"],
            "one bad: the newest good one counts: {given:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_sync_or_write_fails_everybody_who_waits_and_everything_after() {
    for sentence in ["sync", "write"] {
        let fail = |disk: &MemoryDisk, on| {
            if sentence == "sync" { disk.fail_syncs(on) } else { disk.fail_writes(on) }
        };
        let disk = with_records(&["before"]).await;
        let journal = open_on(&disk, &["orders"]).unwrap();
        let mut feed = journal.feed("orders").unwrap();
        fail(&disk, true);
        let (one, same) =
            tokio::join!(journal.append(vec![identified("a", 1)]), journal.append(vec![identified("a", 1)]));
        assert_eq!((one, same), (Err(AppendError::Failed), Err(AppendError::Failed)), "{sentence}");
        fail(&disk, false);
        assert_eq!(
            journal.append(vec![record("after")]).await,
            Err(AppendError::Failed),
            "{sentence}: not optimistic"
        );
        assert_eq!(*journal.health().borrow(), Health::Failed);
        assert_eq!(take(&mut feed, 1).await, ["before!"], "{sentence}: sinks go on with what is durable");
        journal.close().await;
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_vouched_for_that_only_the_page_cache_holds() {
    let disk = with_records(&["before"]).await;
    let journal = open_on(&disk, &["orders"]).unwrap();
    disk.fail_syncs(true);
    journal.append(vec![identified("a", 1)]).await.unwrap_err();
    journal.close().await;
    let disk = disk.after_kill();
    let journal = open_on(&disk, &["orders"]).unwrap();
    assert_eq!(journal.append(vec![identified("a", 1)]).await.map(Vec::from), Ok(vec![Appended::Duplicate]));
    let disk = disk.after_crash(1);
    journal.close().await;
    assert_eq!(contents(&disk).await.0, ["before!", "a!"]);
}

#[tokio::test]
async fn files_of_a_newer_format_are_refused_by_name() {
    let disk = with_records(&["a"]).await;
    for (path, at, copies) in [(SEGMENT, 8, vec![0, 2048]), ("j/cursors/orders.0", 8, vec![0])] {
        let disk = disk.copy();
        disk.edit(Path::new(path), |bytes| {
            for copy in copies {
                bytes[copy + at] = 9;
                let end = if path == SEGMENT { copy + 64 } else { bytes.len() };
                let covered = [&bytes[copy..copy + 12], &bytes[copy + 16..end]].concat();
                let crc = crc32fast::hash(&covered).to_le_bytes();
                bytes[copy + 12..copy + 16].copy_from_slice(&crc);
            }
        });
        let Err(error) = open_on(&disk, &["orders"]) else { panic!("{path} is of a newer format") };
        let known = if path == SEGMENT { segment::FORMAT } else { cursor_file::FORMAT };
        let sentence =
            format!("{path} was written by a newer version (format 9, this program reads up to {known})");
        assert_eq!(error.to_string(), sentence);
    }
}

#[tokio::test]
async fn what_a_sender_wrote_never_passes_for_a_record() {
    let disk = with_records(&["x"]).await;
    // A payload that holds a frame as it lies on disk, but not of this segment.
    let frame = disk.read(Path::new(SEGMENT))[segment::HEADER_BYTES..][..frame_bytes_of("x")].to_vec();
    let disk = MemoryDisk::new();
    let journal = open_on(&disk, &["orders"]).unwrap();
    let smuggled = Record { head: vec![0; 4], body: frame.into(), ..record("") };
    journal.append(vec![record("a")]).await.unwrap();
    journal.append(vec![smuggled]).await.unwrap();
    journal.close().await;
    let at = segment::HEADER_BYTES + frame_bytes_of("a");
    disk.edit(Path::new(SEGMENT), |bytes| bytes[at] ^= 1);
    assert_eq!(contents(&disk).await, (vec!["a!".into()], 0));
}
