//! The journal through its handle, on a real directory: what a user of it would notice.

use super::*;
mod cursors;
mod every_byte;
mod failures;
mod faults;
mod formats;
mod memory_disk;
mod model;
mod model_run;
mod sectors;
mod segments;
mod space;

use crate::config::{ByteSize, Period};
use bytes::Bytes;

/// After so long a test gives up; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A small journal: four segments of 16 KiB and more.
fn small() -> Config {
    Config {
        segment: ByteSize::kib(16),
        disk_max: ByteSize::kib(1024),
        retention: Period::hours(1),
        ..Config::default()
    }
}

fn sinks(names: &[&str]) -> Vec<CursorSpec> {
    names.iter().map(|name| CursorSpec { name: (*name).to_owned(), sheddable: false }).collect()
}

fn open(config: &Config, directory: &Path, names: &[&str]) -> Journal {
    Journal::open(config, directory, Arc::new(RealDisk), &sinks(names)).unwrap()
}

fn record(payload: &str) -> Record {
    Record {
        head: payload.as_bytes().to_vec(),
        body: Bytes::from_static(b"!"),
        arrival: crate::clock::now(),
        dedupe: None,
    }
}

fn identified(payload: &str, key: u8) -> Record {
    Record { dedupe: Some(Dedupe { key: [key; 16], window: Duration::from_secs(600) }), ..record(payload) }
}

async fn take(feed: &mut Feed, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let next = feed.next(count - texts.len(), usize::MAX);
        let entries = tokio::time::timeout(PATIENCE, next).await.expect("a record that should be there");
        for entry in entries.unwrap() {
            feed.settle(entry.position, Ending::Delivered);
            texts.push(String::from_utf8(entry.payload.to_vec()).unwrap());
        }
    }
    texts
}

#[tokio::test]
async fn what_was_appended_is_given_in_order_and_only_what_is_unsettled_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&small(), directory.path(), &["orders"]);
    let mut feed = journal.feed("orders").unwrap();
    assert!(journal.feed("orders").is_none(), "a cursor has one owner");
    assert_eq!(journal.append(Vec::new()).await, Err(AppendError::Nothing), "nothing is no promise");
    for text in ["a", "b", "c"] {
        assert_eq!(journal.append(vec![record(text)]).await.map(Vec::from), Ok(vec![Appended::Stored]));
    }
    assert_eq!(take(&mut feed, 2).await, ["a!", "b!"]);
    assert_eq!(journal.lag("orders").unwrap().events, 1);
    journal.close().await;
    assert_eq!(journal.append(vec![record("late")]).await, Err(AppendError::Closed));
    assert_eq!(feed.next(1, 1).await.unwrap_err(), ReadError::Closed);

    let journal = open(&small(), directory.path(), &["orders"]);
    journal.append(vec![record("d")]).await.unwrap();
    let mut feed = journal.feed("orders").unwrap();
    assert_eq!(take(&mut feed, 2).await, ["c!", "d!"]);
    journal.close().await;
}

#[tokio::test]
async fn nobody_but_its_owner_may_read_what_the_journal_keeps() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("data/journal");
    let opened = open(&small(), &journal, &["orders"]);
    opened.append(vec![record("a")]).await.unwrap();
    opened.close().await;
    let mut folders = vec![journal];
    let mut seen = Vec::new();
    while let Some(folder) = folders.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            seen.push(entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
            }
        }
    }
    for name in ["lock", "00000001.seg", "cursors", "orders.0", "orders.1", "damaged"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} is not among {seen:?}");
    }
}

#[tokio::test]
async fn a_second_opening_is_refused_and_names_the_holder() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&small(), directory.path(), &[]);
    let second = Journal::open(&small(), directory.path(), Arc::new(RealDisk), &[]);
    assert!(matches!(second, Err(OpenError::Locked { pid, .. }) if pid == std::process::id()));
    journal.close().await;
    open(&small(), directory.path(), &[]).close().await;
}

#[tokio::test]
async fn the_same_identity_is_stored_once_also_in_one_call_and_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&small(), directory.path(), &["orders"]);
    let both = vec![identified("a", 1), identified("again", 1)];
    assert_eq!(journal.append(both).await.map(Vec::from), Ok(vec![Appended::Stored, Appended::Duplicate]));
    journal.close().await;
    let journal = open(&small(), directory.path(), &["orders"]);
    assert_eq!(
        journal.append(vec![identified("once more", 1)]).await.map(Vec::from),
        Ok(vec![Appended::Duplicate])
    );
    assert_eq!(journal.append(vec![identified("b", 2)]).await.map(Vec::from), Ok(vec![Appended::Stored]));
    let mut feed = journal.feed("orders").unwrap();
    assert_eq!(take(&mut feed, 2).await, ["a!", "b!"]);
    journal.close().await;
}

#[tokio::test]
async fn a_reader_that_is_behind_reads_from_disk_across_segments() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { recent_max: ByteSize::bytes(1), ..small() };
    let journal = open(&config, directory.path(), &["orders"]);
    let texts: Vec<String> = (0..200).map(|number| format!("{number:0>500}")).collect();
    for text in &texts {
        journal.append(vec![record(text)]).await.unwrap();
    }
    assert!(journal.status().segments > 3);
    let mut feed = journal.feed("orders").unwrap();
    let given = take(&mut feed, 200).await;
    assert!(given.iter().zip(&texts).all(|(given, text)| given.strip_suffix('!') == Some(text)));
    assert_eq!(journal.lag("orders"), Some(Lag::default()));
    journal.close().await;
}

#[tokio::test]
async fn a_wait_that_is_dropped_costs_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { recent_max: ByteSize::bytes(1), ..small() };
    let journal = open(&config, directory.path(), &["orders"]);
    let mut feed = journal.feed("orders").unwrap();
    let mut given = Vec::new();
    for _ in 0..50 {
        journal.append(vec![record("one"), record("two")]).await.unwrap();
        // Polled once and dropped, wherever it was.
        let once = futures_util::FutureExt::now_or_never(feed.next(1, 1));
        given.extend(once.map_or(Vec::new(), Result::unwrap));
    }
    while given.len() < 100 {
        let next = tokio::time::timeout(PATIENCE, feed.next(7, usize::MAX)).await;
        given.extend(next.expect("a record that should be there").unwrap());
    }
    let positions: Vec<u64> = given.iter().map(|entry| entry.position.0).collect();
    assert_eq!(positions, (1..=100).collect::<Vec<_>>());
    journal.close().await;
}

#[tokio::test]
async fn a_journal_whose_handles_are_dropped_lets_its_directory_go() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&small(), directory.path(), &["orders"]);
    let feed = journal.feed("orders").unwrap();
    drop(journal);
    let reopened = async {
        loop {
            match Journal::open(&small(), directory.path(), Arc::new(RealDisk), &sinks(&["orders"])) {
                Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                other => return other.unwrap(),
            }
        }
    };
    let reopened = tokio::time::timeout(PATIENCE, reopened).await.expect("the directory is let go");
    drop(feed);
    reopened.close().await;
}
