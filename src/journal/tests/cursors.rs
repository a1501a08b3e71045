//! What a cursor keeps beside its progress: how each record was settled, and what is to be tried again.

use super::memory_disk::MemoryDisk;
use super::*;
use crate::time::UnixMs;

fn deferral(due: i64, note: &'static str) -> Deferral {
    Deferral { due: UnixMs(due), note: note.into() }
}

fn open_on(disk: &MemoryDisk) -> Journal {
    let tick = Duration::from_millis(1);
    Journal::open_with_tick(&small(), Path::new("j"), Arc::new(disk.clone()), &sinks(&["orders"]), tick)
        .unwrap()
}

/// The entries that the feed gives until `last` is among them.
async fn entries(feed: &mut Feed, last: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    while entries.last().is_none_or(|entry| entry.payload != last) {
        let next = tokio::time::timeout(PATIENCE, feed.next(100, usize::MAX));
        entries.extend(next.await.expect("a record that should be there").unwrap());
    }
    entries
}

#[tokio::test]
async fn counts_and_what_is_behind_always_add_up_to_what_was_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&small(), directory.path(), &["orders"]);
    let mut feed = journal.feed("orders").unwrap();
    let records = (0..8).map(|number| record(&number.to_string())).collect();
    journal.append(records).await.unwrap();
    let given = entries(&mut feed, "7!").await;
    let endings =
        [Ending::Delivered, Ending::DeadLettered, Ending::Shed, Ending::NotRouted, Ending::Delivered];
    for (entry, ending) in given.iter().zip(endings) {
        feed.settle(entry.position, ending);
        feed.settle(entry.position, Ending::Shed);
    }
    feed.settle(Position(99), Ending::Delivered);
    let expected =
        Tally { began_after: 0, delivered: 2, dead_lettered: 1, shed: 1, not_routed: 1, missing: 0 };
    let (tally, lag) = journal.tally("orders").unwrap();
    assert_eq!(
        (tally, lag.events),
        (expected, 3),
        "the first ending counts, once, and only of what is there"
    );
    journal.close().await;

    let journal = open(&small(), directory.path(), &["orders", "late"]);
    assert_eq!(journal.tally("orders").unwrap().0, expected, "also after a restart");
    journal.append(vec![record("8")]).await.unwrap();
    let (late, lag) = journal.tally("late").unwrap();
    assert_eq!(
        (late.began_after, late.settled() + lag.events),
        (8, 9),
        "a new cursor counts from its beginning"
    );
    assert_eq!(journal.tally("nobody"), None);
    journal.close().await;
}

#[tokio::test]
async fn what_a_crash_undoes_is_not_counted_and_what_it_repeats_is_counted_once() {
    let mut disk = MemoryDisk::new();
    let mut crashes = 0;
    for round in 0..30_u64 {
        let journal = open_on(&disk);
        let mut feed = journal.feed("orders").unwrap();
        journal.append(vec![record("more"), record(&round.to_string())]).await.unwrap();
        let given = entries(&mut feed, &format!("{round}!")).await;
        for (index, entry) in given.iter().enumerate().filter(|(index, _)| index % 3 != 2) {
            feed.settle(entry.position, if index % 2 == 0 { Ending::Delivered } else { Ending::NotRouted });
        }
        disk.crash_after(round % 7);
        drop(feed);
        journal.close().await;
        crashes += u32::from(disk.has_crashed());
        disk = disk.after_crash(round);
        let journal = open_on(&disk);
        let (tally, lag) = journal.tally("orders").unwrap();
        assert_eq!(tally.settled() + lag.events, journal.shared.durable(), "in round {round}");
        journal.close().await;
    }
    assert!(crashes > 5, "the power failed in {crashes} rounds only");
    let journal = open_on(&disk);
    let mut feed = journal.feed("orders").unwrap();
    journal.append(vec![record("last")]).await.unwrap();
    for entry in entries(&mut feed, "last!").await {
        feed.settle(entry.position, Ending::Delivered);
    }
    let (tally, _) = journal.tally("orders").unwrap();
    assert_eq!(tally.delivered + tally.not_routed, journal.shared.durable());
    journal.close().await;
}

#[tokio::test]
async fn records_that_are_gone_are_counted_as_missing() {
    let disk = MemoryDisk::new();
    let journal = open_on(&disk);
    for text in ["a", "b", "c"] {
        journal.append(vec![record(text)]).await.unwrap();
    }
    journal.close().await;
    let segment = Path::new("j/00000001.seg");
    let frame = record::frame_bytes(&record("a"));
    disk.edit(segment, |bytes| bytes[super::segment::HEADER_BYTES + frame + 36] ^= 1);
    let journal = open_on(&disk);
    let mut feed = journal.feed("orders").unwrap();
    let given = entries(&mut feed, "c!").await;
    given.iter().for_each(|entry| feed.settle(entry.position, Ending::Delivered));
    let (tally, lag) = journal.tally("orders").unwrap();
    assert_eq!((tally.delivered, tally.missing, lag.events), (2, 1, 0));
    journal.close().await;
}

#[tokio::test]
async fn what_is_noted_of_a_record_comes_back_with_it_until_it_is_settled() {
    let disk = MemoryDisk::new();
    let journal = open_on(&disk);
    let mut feed = journal.feed("orders").unwrap();
    journal.append(["a", "b", "c"].map(record).into()).await.unwrap();
    let given = entries(&mut feed, "c!").await;
    assert!(given.iter().all(|entry| entry.deferral.is_none()));
    feed.defer(given[0].position, deferral(1, "once"));
    feed.defer(given[0].position, deferral(2, "twice"));
    feed.defer(given[1].position, deferral(3, "then settled"));
    feed.settle(given[1].position, Ending::Delivered);
    feed.defer(given[1].position, deferral(4, "too late"));
    feed.defer(given[2].position, Deferral { due: UnixMs(5), note: vec![7; NOTE_BYTES_MAX + 9].into() });
    feed.defer(Position(99), deferral(6, "no such record"));
    journal.close().await;

    for _ in 0..2 {
        let journal = open_on(&disk);
        let mut feed = journal.feed("orders").unwrap();
        let noted: Vec<_> = entries(&mut feed, "c!").await.into_iter().map(|entry| entry.deferral).collect();
        let cut = Deferral { due: UnixMs(5), note: vec![7; NOTE_BYTES_MAX].into() };
        assert_eq!(noted, [Some(deferral(2, "twice")), Some(cut)], "the newest; also at a second restart");
        journal.close().await;
    }
}

#[tokio::test]
async fn without_room_for_the_notes_progress_is_saved_all_the_same() {
    let disk = MemoryDisk::new();
    let journal = open_on(&disk);
    let mut feed = journal.feed("orders").unwrap();
    journal.append((0..60).map(|number| record(&number.to_string())).collect()).await.unwrap();
    let given = entries(&mut feed, "59!").await;
    disk.limit_room(Some(0));
    for entry in &given[1..] {
        feed.defer(entry.position, Deferral { due: UnixMs(1), note: vec![7; NOTE_BYTES_MAX].into() });
    }
    feed.settle(given[0].position, Ending::Delivered);
    journal.close().await;
    let journal = open_on(&disk);
    let (tally, lag) = journal.tally("orders").unwrap();
    assert_eq!((tally.delivered, lag.events), (1, 59));
    journal.close().await;
}
