//! Every format that was ever written still opens: one directory a format beside this file, as that version left it.

use bytes::Bytes;
use hookbus::journal::{
    Appended, Config, CursorSpec, Dedupe, Deferral, Ending, Feed, Journal, RealDisk, Record, Tally,
};
use hookbus::time::UnixMs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A copy of a kept directory, which the journal may change.
fn copy_of(format: &str) -> tempfile::TempDir {
    let kept = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(format);
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("cursors")).unwrap();
    for folder in [Path::new("."), Path::new("cursors")] {
        for entry in std::fs::read_dir(kept.join(folder)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.path().join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    copy
}

async fn payloads(mut feed: Feed, count: usize) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        payloads.extend(feed.next(1, 1).await.unwrap().into_iter().map(|entry| entry.payload));
    }
    payloads
}

#[tokio::test]
async fn format_1_opens_with_its_records_its_cursors_and_its_identities() {
    let directory = copy_of("journal_v1");
    let cursors = ["orders", "audit"].map(|name| CursorSpec { name: name.to_owned(), sheddable: false });
    let journal = Journal::open(&Config::default(), directory.path(), Arc::new(RealDisk), &cursors).unwrap();
    let known = Record {
        head: Vec::new(),
        body: Bytes::from_static(b"two again"),
        arrival: UnixMs(1_800_000_000_000),
        dedupe: Some(Dedupe { key: [7; 16], window: Duration::from_secs(1) }),
    };
    let new = Record { body: Bytes::from_static(b"four"), dedupe: None, ..known.clone() };
    assert_eq!(journal.append(vec![known, new]).await, Ok(vec![Appended::Duplicate, Appended::Stored]));
    // `orders` had settled the first and the third record, `audit` none. How was not counted then.
    let begins = |name| journal.tally(name).map(|(tally, lag)| (tally, lag.events)).unwrap();
    assert_eq!(begins("orders"), (Tally { began_after: 2, ..Tally::default() }, 2));
    assert_eq!(begins("audit"), (Tally::default(), 4));
    assert_eq!(payloads(journal.feed("orders").unwrap(), 2).await, ["head two", "four"]);
    assert_eq!(
        payloads(journal.feed("audit").unwrap(), 4).await,
        ["head one", "head two", "head three", "four"]
    );
    assert_eq!(journal.status().damaged_ranges, 0);
    journal.close().await;
}

#[tokio::test]
async fn format_2_opens_with_what_it_counted_and_what_it_noted() {
    let directory = copy_of("journal_v2");
    let cursors = ["orders", "audit"].map(|name| CursorSpec { name: name.to_owned(), sheddable: false });
    for _ in 0..2 {
        let journal =
            Journal::open(&Config::default(), directory.path(), Arc::new(RealDisk), &cursors).unwrap();
        let counted = Tally { delivered: 1, dead_lettered: 1, shed: 1, not_routed: 1, ..Tally::default() };
        let (tally, lag) = journal.tally("orders").unwrap();
        assert_eq!((tally, lag.events), (counted, 1));
        let mut feed = journal.feed("orders").unwrap();
        let given = feed.next(10, 1000).await.unwrap();
        assert_eq!((given.len(), &given[0].payload[..]), (1, &b"head two"[..]));
        let noted = Deferral { due: UnixMs(1_800_000_060_000), note: Bytes::from_static(b"tried twice") };
        assert_eq!(given[0].deferral, Some(noted));
        let expected = ["head one", "head two", "head three", "no event", "another's"];
        assert_eq!(payloads(journal.feed("audit").unwrap(), 5).await, expected);
        journal.close().await;
    }
    let journal = Journal::open(&Config::default(), directory.path(), Arc::new(RealDisk), &cursors).unwrap();
    let mut feed = journal.feed("orders").unwrap();
    let given = feed.next(1, 1).await.unwrap();
    feed.settle(given[0].position, Ending::Delivered);
    assert_eq!(journal.tally("orders").unwrap().0.settled(), 5);
    journal.close().await;
}
