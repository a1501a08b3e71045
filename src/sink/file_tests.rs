//! The file sink over real files, with faults put in where the operating system would.

use super::*;
use crate::config::Period;
use crate::envelope::{Data, Extensions};
use bytes::Bytes;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn event(id: &str) -> Arc<Envelope> {
    Arc::new(Envelope {
        id: id.to_owned(),
        source: "//tests".to_owned(),
        event_type: "test".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: Extensions::new(),
        data: Data::Json(Bytes::from_static(b"{\n\"n\": 1\n}")),
    })
}

fn sink_at(directory: &Path, rotate_at: Option<ByteSize>, calls: Box<dyn FileCalls>) -> FileSink {
    let config = Config { rotate_at, ..Config::default() };
    let context = Context {
        name: SinkName::new("events").unwrap(),
        format: Format::Structured,
        timeout: Period::secs(30),
        data_dir: directory.to_owned(),
    };
    FileSink::new(&config, &context, &Shutdown::new(), calls)
}

/// The ids in a file; every line must parse.
fn ids(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line is left");
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(|line| parse(line)["id"].as_str().unwrap().to_owned()).collect()
}

fn is_storage_away(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Away(failure) if failure.reason == Reason::Storage)
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Half of the bytes, then a full disk.
    Write,
    /// All bytes, then a sync that fails.
    Sync,
}

#[derive(Clone, Default)]
struct FaultyCalls {
    next: Arc<Mutex<Vec<Fault>>>,
    syncs: Arc<AtomicUsize>,
}

impl FaultyCalls {
    fn fails(&self, fault: Fault) -> bool {
        let mut next = self.next.lock().unwrap();
        let is_next = next.first() == Some(&fault);
        if is_next {
            next.remove(0);
        }
        is_next
    }
}

impl FileCalls for FaultyCalls {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if self.fails(Fault::Write) {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(ErrorKind::StorageFull.into());
        }
        file.write_all(bytes)
    }
    fn sync(&mut self, file: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, SeqCst);
        if self.fails(Fault::Sync) { Err(io::Error::other("input/output error")) } else { file.sync_data() }
    }
}

#[tokio::test]
async fn an_event_is_one_line_that_only_its_owner_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink_at(directory.path(), None, Box::new(RealCalls));
    assert_eq!(sink.connect().await, Ok(Limits::default()), "before there is a file");
    assert_eq!(sink.deliver(&event("a")).await, Outcome::Delivered);
    assert_eq!(sink.connect().await, Ok(Limits::default()), "while it is written");
    sink.close().await;
    let path = directory.path().join("events.ndjson");
    assert_eq!(ids(&path), ["a"]);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, FILE_MODE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deliveries_at_the_same_time_share_syncs_and_all_of_them_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let calls = FaultyCalls::default();
    let sink = sink_at(directory.path(), None, Box::new(calls.clone()));
    let events: Vec<_> = (0..500).map(|number| event(&format!("e{number}"))).collect();
    let outcomes = futures_util::future::join_all(events.iter().map(|event| sink.deliver(event))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    let mut found = ids(&directory.path().join("events.ndjson"));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 500);
    assert!(calls.syncs.load(SeqCst) < 500, "{} syncs", calls.syncs.load(SeqCst));
}

#[tokio::test]
async fn a_torn_last_line_is_cut_and_whole_lines_stay() {
    for (sentence, before, kept) in [
        ("half a line", "{\"id\":\"x\"}\n{\"id\":\"y".to_owned(), vec!["x", "a"]),
        ("nothing but half a line", "{\"id\":\"y".to_owned(), vec!["a"]),
        (
            "a tail of many chunks",
            format!("{{\"id\":\"x\"}}\n{}", "z".repeat(3 * TAIL_CHUNK_BYTES)),
            vec!["x", "a"],
        ),
        ("nothing torn", "{\"id\":\"x\"}\n".to_owned(), vec!["x", "a"]),
        ("an empty file", String::new(), vec!["a"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.ndjson");
        std::fs::write(&path, before).unwrap();
        let sink = sink_at(directory.path(), None, Box::new(RealCalls));
        assert_eq!(sink.deliver(&event("a")).await, Outcome::Delivered, "{sentence}");
        assert_eq!(ids(&path), kept, "{sentence}");
    }
}

#[tokio::test]
async fn a_full_file_is_rotated_and_nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink_at(directory.path(), Some(ByteSize::bytes(300)), Box::new(RealCalls));
    let events: Vec<_> = (0..20).map(|number| event(&format!("e{number}"))).collect();
    let outcomes = futures_util::future::join_all(events.iter().map(|event| sink.deliver(event))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    let mut found = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.metadata().unwrap().len() <= 300);
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("events.ndjson"));
        found.extend(ids(&path));
        files += 1;
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 20);
    assert!(files >= 10, "{files} files");
}

#[tokio::test]
async fn an_event_larger_than_a_file_gets_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let sink = sink_at(directory.path(), Some(ByteSize::bytes(1)), Box::new(RealCalls));
    for id in ["a", "b"] {
        assert_eq!(sink.deliver(&event(id)).await, Outcome::Delivered);
    }
    assert_eq!(ids(&directory.path().join("events.ndjson")), ["b"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn after_a_failure_nothing_counts_and_nothing_torn_stays_and_it_heals_by_itself() {
    for fault in [Fault::Write, Fault::Sync] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.ndjson");
        let calls = FaultyCalls::default();
        let sink = sink_at(directory.path(), None, Box::new(calls.clone()));
        assert_eq!(sink.deliver(&event("a")).await, Outcome::Delivered);
        calls.next.lock().unwrap().push(fault);
        let failed = sink.deliver(&event("b")).await;
        assert!(is_storage_away(&failed), "{failed:?}");
        assert_eq!(ids(&path), ["a"], "what failed is gone at once");
        assert_eq!(sink.deliver(&event("b")).await, Outcome::Delivered);
        assert_eq!(ids(&path), ["a", "b"]);
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_away_and_heals_when_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.ndjson");
    std::fs::create_dir(&path).unwrap();
    let sink = sink_at(directory.path(), None, Box::new(RealCalls));
    assert!(is_storage_away(&sink.deliver(&event("a")).await));
    assert!(sink.connect().await.is_err());
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(sink.deliver(&event("a")).await, Outcome::Delivered);
    assert_eq!(ids(&path), ["a"]);
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.ndjson");
    let sink = sink_at(directory.path(), None, Box::new(RealCalls));
    assert_eq!(sink.deliver(&event("a")).await, Outcome::Delivered);
    std::fs::rename(&path, directory.path().join("archived")).unwrap();
    assert_eq!(sink.deliver(&event("b")).await, Outcome::Delivered);
    assert_eq!(ids(&directory.path().join("archived")), ["a"]);
    assert_eq!(ids(&path), ["b"]);
}

#[tokio::test]
async fn two_sinks_never_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let first = sink_at(directory.path(), None, Box::new(RealCalls));
    let second = sink_at(directory.path(), None, Box::new(RealCalls));
    assert_eq!(first.deliver(&event("a")).await, Outcome::Delivered);
    assert!(is_storage_away(&second.deliver(&event("b")).await));
    first.close().await;
    drop(first);
    assert_eq!(second.deliver(&event("b")).await, Outcome::Delivered);
    assert_eq!(ids(&directory.path().join("events.ndjson")), ["a", "b"]);
}
