//! What is said of a journal on a real directory: a sound one, and one that somebody has harmed.

use super::super::segment::file_name;
use super::super::types::{Account, Appended, Config, CursorSpec, Dedupe, Ending, Record};
use super::super::{Journal, ReadOnlyDisk, RealDisk};
use super::*;
use crate::config::ByteSize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const ENDINGS: [Ending; 4] = [Ending::Delivered, Ending::DeadLettered, Ending::Shed, Ending::NotRouted];
/// In segments of 16 KiB: four of them, and a blank one ahead.
const RECORDS: u64 = 150;
const UNSETTLED: u64 = 7;

fn config() -> Config {
    Config { segment: ByteSize::kib(16), disk_max: ByteSize::kib(1024), ..Config::default() }
}

fn open(directory: &Path, names: &[&str]) -> Journal {
    let cursors: Vec<CursorSpec> =
        names.iter().map(|name| CursorSpec { name: (*name).to_owned(), sheddable: false }).collect();
    Journal::open(&config(), directory, Arc::new(RealDisk), &cursors).unwrap()
}

fn payload(number: u64) -> String {
    format!("<record {number}>{}", "x".repeat(200))
}

/// 150 records, of which `orders` has settled all but the last seven, one way after the other, and `audit` none.
async fn fill(directory: &Path) {
    let journal = open(directory, &["orders", "audit"]);
    let record = |number: u64| Record {
        head: payload(number).into_bytes(),
        body: Bytes::new(),
        arrival: crate::clock::now(),
        dedupe: Some(Dedupe { key: [u8::try_from(number).unwrap(); 16], window: Duration::from_secs(60) }),
    };
    for first in (1..=RECORDS).step_by(5) {
        let records = (first..first + 5).map(record).collect();
        assert_eq!(journal.append(records).await, Ok(vec![Appended::Stored; 5]));
    }
    let mut feed = journal.feed("orders").unwrap();
    let mut settled = 0;
    while settled < RECORDS - UNSETTLED {
        for entry in feed.next(1, 1).await.unwrap() {
            feed.settle(entry.position, ENDINGS[usize::try_from(settled % 4).unwrap()]);
            settled += 1;
        }
    }
    drop(feed);
    journal.close().await;
}

fn sinks(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn verified(directory: &Path) -> Verification {
    verify(directory, &ReadOnlyDisk, &sinks(&["orders", "audit"])).unwrap()
}

/// Every file with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            let bytes = std::fs::read(&entry).unwrap();
            found.insert(entry, bytes);
        }
    }
    found
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Where a record's payload begins in its segment's bytes.
fn place_of(bytes: &[u8], number: u64) -> usize {
    let wanted = payload(number);
    bytes.windows(wanted.len()).position(|window| window == wanted.as_bytes()).expect("it is in this segment")
}

/// Changes a slot as somebody would who knows the format: with a checksum that is right again.
fn forge(bytes: &mut [u8], at: usize, change: impl FnOnce(u64) -> u64) {
    let number = change(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
}

#[tokio::test]
async fn a_sound_journal_adds_up_and_not_one_byte_of_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("journal");
    fill(&directory).await;
    let before = files(&directory);
    let result = verified(&directory);
    assert_eq!((&result.findings, &result.notes), (&vec![], &vec![]));
    assert_eq!((result.records, result.last), (RECORDS, RECORDS));
    let account =
        |name: &str| result.cursors.iter().find(|cursor| cursor.name == name).unwrap().account.unwrap();
    let orders = Account {
        accepted: RECORDS,
        delivered: 36,
        dead_lettered: 36,
        shed: 36,
        not_routed: 35,
        missing: 0,
        in_journal: UNSETTLED,
        unaccounted: 0,
    };
    assert_eq!(account("orders"), orders);
    assert_eq!(account("audit"), Account { accepted: RECORDS, in_journal: RECORDS, ..Account::default() });

    let inspection = inspect(&directory, &ReadOnlyDisk).unwrap();
    let sound: Vec<&SegmentFound> =
        inspection.segments.iter().filter(|segment| segment.state == "sound").collect();
    assert_eq!((sound[0].first, sound.last().unwrap().last), (Some(1), Some(RECORDS)));
    assert_eq!(sound.iter().map(|segment| segment.records).sum::<u64>(), RECORDS);
    for pair in sound.windows(2) {
        assert_eq!(pair[0].last.unwrap() + 1, pair[1].first.unwrap());
    }
    let orders = inspection.cursors.iter().find(|cursor| cursor.name == "orders").unwrap();
    assert_eq!((orders.through, orders.slots.map(|slot| slot.state)), (RECORDS - UNSETTLED, ["good"; 2]));
    assert!(inspection.identities > 0 && inspection.remembered_until.is_some());
    let mut listed = Vec::new();
    list(&directory, &ReadOnlyDisk, 60, &mut |record| {
        listed.push((record.sequence, record.payload));
        if listed.len() < 80 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    let expected: Vec<(u64, Bytes)> = (60..140).map(|number| (number, payload(number).into())).collect();
    assert_eq!(listed, expected);
    assert_eq!(files(&directory), before);
}

#[tokio::test]
async fn whatever_is_harmed_is_found() {
    type Harm = fn(&Path);
    fn newer(directory: &Path) -> (PathBuf, PathBuf) {
        let saving = |slot: usize| {
            let path = directory.join(format!("cursors/orders.{slot}"));
            let bytes = std::fs::read(&path).unwrap();
            (u64::from_le_bytes(bytes[16..24].try_into().unwrap()), path)
        };
        let (zero, one) = (saving(0), saving(1));
        if zero.0 > one.0 { (zero.1, one.1) } else { (one.1, zero.1) }
    }
    let cases: &[(&str, Harm, &[&str])] = &[
        (
            "a byte of a record",
            |directory| {
                edit(&directory.join(file_name(1)), |bytes| {
                    let place = place_of(bytes, 20);
                    bytes[place] ^= 1;
                });
            },
            &["segment 1: the bytes", "the record 20 is not on the disk", "audit: 1 events are neither"],
        ),
        (
            "a whole segment",
            |directory| std::fs::remove_file(directory.join(file_name(2))).unwrap(),
            &["are not on the disk, although later ones are", "audit: "],
        ),
        (
            "both copies of a header",
            |directory| edit(&directory.join(file_name(2)), |bytes| bytes[..4096].fill(7)),
            &["segment 2: neither copy of its header", "are not on the disk", "audit: "],
        ),
        (
            "the end of a segment that is not the last",
            |directory| {
                edit(&directory.join(file_name(1)), |bytes| {
                    let end = bytes.len();
                    bytes[end - 9000..].fill(3);
                });
            },
            &["segment 1: the bytes", "are not on the disk", "audit: "],
        ),
        (
            "the last record of all, which was not settled: no more than an unfinished write",
            |directory| {
                edit(&directory.join(file_name(4)), |bytes| {
                    let place = place_of(bytes, RECORDS);
                    bytes[place] ^= 1;
                });
            },
            &[],
        ),
        (
            "the last records, of which some were settled",
            |directory| {
                edit(&directory.join(file_name(4)), |bytes| {
                    let place = place_of(bytes, RECORDS - UNSETTLED - 1);
                    bytes[place - 56..].fill(0);
                });
            },
            &["the records 142 to 143 are not on the disk", "audit: 2 events are neither"],
        ),
        (
            "one slot",
            |directory| edit(&newer(directory).0, |bytes| bytes[50] ^= 1),
            &["of the cursor orders cannot be believed"],
        ),
        (
            "both slots",
            |directory| {
                let (newer, older) = newer(directory);
                edit(&newer, |bytes| bytes[50] ^= 1);
                edit(&older, |bytes| bytes[50] ^= 1);
            },
            &[
                "slot 0 of the cursor orders",
                "slot 1 of the cursor orders",
                "neither slot of the cursor orders",
            ],
        ),
        (
            "a count, with a right checksum",
            |directory| edit(&newer(directory).0, |bytes| forge(bytes, 48, |delivered| delivered + 1)),
            &["of the cursor orders cannot be believed: its checksum is wrong, or its counts"],
        ),
        (
            "records counted as older than the counting, with a right checksum",
            |directory| {
                edit(&newer(directory).0, |bytes| {
                    forge(bytes, 40, |began_after| began_after + 30);
                    forge(bytes, 48, |delivered| delivered - 30);
                });
            },
            &["the newer slot of the cursor orders does not follow from the older one"],
        ),
        (
            "a watermark with its count, with a right checksum",
            |directory| {
                edit(&newer(directory).0, |bytes| {
                    forge(bytes, 24, |through| through + 10);
                    forge(bytes, 48, |delivered| delivered + 10);
                });
            },
            &["the records 151 to 153 are not on the disk", "audit: 3 events are neither"],
        ),
        (
            "what was set aside",
            |directory| std::fs::write(directory.join("damaged/00000001-0000004096.bin"), "x").unwrap(),
            &["damaged/ holds 1 files (00000001-0000004096.bin"],
        ),
    ];
    for (sentence, harm, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("journal");
        fill(&directory).await;
        harm(&directory);
        let findings = verified(&directory).findings;
        assert_eq!(findings.len(), expected.len(), "{sentence}: {findings:#?}");
        for (finding, part) in findings.iter().zip(*expected) {
            assert!(finding.contains(part), "{sentence}: {part:?} is not in {finding:?}");
        }
    }
}

#[tokio::test]
async fn a_record_that_its_lane_knows_to_be_gone_is_counted_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("journal");
    fill(&directory).await;
    edit(&directory.join(file_name(1)), |bytes| {
        let place = place_of(bytes, 20);
        bytes[place] ^= 1;
    });
    let journal = open(&directory, &["orders", "audit"]);
    let mut feed = journal.feed("audit").unwrap();
    let mut given = 0;
    while given < RECORDS - 1 {
        given += feed.next(1000, usize::MAX).await.unwrap().len() as u64;
    }
    let (live, _) = journal.account("audit").unwrap();
    assert_eq!((live.missing, live.in_journal, live.unaccounted), (1, RECORDS - 1, 0));
    drop(feed);
    journal.close().await;
    let result = verified(&directory);
    let audit = result.cursors.iter().find(|cursor| cursor.name == "audit").unwrap().account.unwrap();
    assert_eq!(audit, live, "what the journal said is what the disk says");
    assert_eq!(result.findings.len(), 3, "the damage itself stays a finding: {:#?}", result.findings);
}

#[tokio::test]
async fn beside_its_owner_it_can_be_looked_at_and_not_recounted() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("journal");
    fill(&directory).await;
    let journal = open(&directory, &["orders", "audit"]);
    assert_eq!(inspect(&directory, &ReadOnlyDisk).unwrap().last, RECORDS);
    let refused = verify(&directory, &ReadOnlyDisk, &sinks(&["orders"]));
    let own = std::process::id();
    assert!(matches!(refused, Err(OpenError::Locked { pid, .. }) if pid == own), "{refused:?}");
    journal.close().await;
    let held = ReadOnlyDisk.lock(&directory.join("lock"), "").unwrap();
    let opened = Journal::open(&config(), &directory, Arc::new(RealDisk), &[]);
    assert!(matches!(opened.err(), Some(OpenError::Locked { .. })), "no process takes it during a recount");
    drop(held);
}

#[tokio::test]
async fn nothing_is_kept_for_a_sink_that_is_not_configured_and_a_new_one_has_no_cursor_yet() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("journal");
    fill(&directory).await;
    std::fs::remove_file(directory.join(file_name(1))).unwrap();
    let result = verify(&directory, &ReadOnlyDisk, &sinks(&["orders", "later"])).unwrap();
    assert_eq!(result.findings, Vec::<String>::new(), "the oldest segment was only the other one's");
    assert_eq!(result.notes.len(), 2, "{:?}", result.notes);
    assert!(result.notes[0].starts_with("audit is not configured, so nothing is kept for it: "));
    assert!(result.notes[1].starts_with("later has no cursor yet"));
    assert!(matches!(inspect(&folder.path().join("nowhere"), &ReadOnlyDisk), Err(OpenError::Io { .. })));
}
