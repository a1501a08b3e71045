//! Damage, torn writes, failing disks and foreign files: what is lost is exactly what was hit, and nothing stops a start.
//! What a disk cannot read is in `sectors`, segments that are lost as a whole are in `segments`.

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
pub(super) async fn with_segments(disk: &MemoryDisk) -> Vec<String> {
    let journal = open_on(disk, &["orders"]).unwrap();
    let texts: Vec<String> = (0..60).map(|number| format!("{number:0>500}")).collect();
    for text in &texts {
        journal.append(vec![record(text)]).await.unwrap();
    }
    journal.close().await;
    texts
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
