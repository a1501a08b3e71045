//! Room: retention, the budget, a full disk, and who holds what back.

use super::memory_disk::MemoryDisk;
use super::*;
use rustix::io::Errno;
use std::future::Future;

const QUICK: Duration = Duration::from_millis(1);

fn open_quick(config: &Config, disk: &MemoryDisk, cursors: &[CursorSpec]) -> Journal {
    Journal::open_with_tick(config, Path::new("j"), Arc::new(disk.clone()), cursors, QUICK).unwrap()
}

/// Waits until `holds`, which a broken journal never reaches.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(QUICK).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("what was waited for");
}

fn large() -> Record {
    record(&"x".repeat(3000))
}

/// Appends until the journal is full, and tells how many it took.
async fn fill(journal: &Journal) -> usize {
    let mut count = 0;
    loop {
        match journal.append(vec![large()]).await {
            Ok(_) => count += 1,
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                return count;
            }
        }
    }
}

#[tokio::test]
async fn a_settled_segment_goes_only_after_the_cursors_that_passed_it_are_on_disk() {
    let disk = MemoryDisk::new();
    let config = Config { retention: Period::secs(0), ..small() };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    for _ in 0..12 {
        journal.append(vec![large()]).await.unwrap();
    }
    let mut feed = journal.feed("orders").unwrap();
    assert_eq!(take(&mut feed, 12).await.len(), 12);
    until(|| async { !disk.names("j").contains(&"00000002.seg".to_owned()) }).await;
    journal.close().await;
    let log = disk.log();
    let is_append = |event: &String| event.starts_with("sync j/0000") && event.ends_with(".seg");
    let last_append = log.iter().rposition(is_append).unwrap();
    // The first file is kept for the next segment.
    for segment in ["rename j/00000001.seg", "remove j/00000002.seg"] {
        let removed = log.iter().position(|event| event == segment).unwrap();
        let is_saved =
            log[last_append..removed].iter().any(|event| event.starts_with("sync j/cursors/orders."));
        assert!(is_saved, "{segment}: {log:?}");
        assert_eq!(log[removed + 1], "sync j/", "{segment}");
    }
}

#[tokio::test]
async fn a_segment_stays_while_an_identity_in_it_is_remembered_also_after_two_restarts() {
    let disk = MemoryDisk::new();
    let config = Config { retention: Period::secs(0), ..small() };
    let known = Record { dedupe: identified("", 1).dedupe, ..large() };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    for record in [known.clone(), large(), large()] {
        journal.append(vec![record]).await.unwrap();
    }
    until(|| async { disk.names("j").contains(&"00000002.seg".to_owned()) }).await;
    journal.close().await;
    // The blank second segment is removed at this start, and one is made anew.
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    for _ in 0..2 {
        journal.append(vec![large()]).await.unwrap();
    }
    take(&mut journal.feed("orders").unwrap(), 5).await;
    journal.close().await;
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    journal.append(vec![large()]).await.unwrap();
    take(&mut journal.feed("orders").unwrap(), 1).await;
    let before = disk.log().len();
    until(|| async { disk.log()[before..].iter().any(|event| event.starts_with("sync j/cursors/")) }).await;
    journal.close().await;
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    assert_eq!(journal.append(vec![known]).await.map(Vec::from), Ok(vec![Appended::Duplicate]));
    journal.close().await;
}

#[tokio::test]
async fn an_unsettled_record_holds_its_segment_for_ever_and_a_removed_sink_holds_none() {
    let disk = MemoryDisk::new();
    let config = Config { retention: Period::secs(0), ..small() };
    let journal = open_quick(&config, &disk, &sinks(&["orders", "gone"]));
    for _ in 0..12 {
        journal.append(vec![large()]).await.unwrap();
    }
    let mut feed = journal.feed("orders").unwrap();
    take(&mut feed, 12).await;
    journal.close().await;
    assert!(disk.names("j").contains(&"00000001.seg".to_owned()), "the other sink has settled nothing");

    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    until(|| async { !disk.names("j").contains(&"00000001.seg".to_owned()) }).await;
    journal.close().await;
    assert!(disk.names("j/cursors").contains(&"gone.0".to_owned()), "its cursor is kept");
}

#[tokio::test]
async fn a_full_budget_refuses_and_heals_when_a_sink_catches_up() {
    let disk = MemoryDisk::new();
    let config = Config { disk_max: ByteSize::kib(64), ..small() };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    let mut feed = journal.feed("orders").unwrap();
    let count = fill(&journal).await;
    assert_eq!(*journal.health().borrow(), Health::Full);
    assert!(journal.status().bytes <= 64 * 1024);
    assert_eq!(take(&mut feed, count).await.len(), count, "sinks go on");
    // The retention of an hour does not stand in the way: to refuse new records would be worse.
    until(|| async { journal.append(vec![large()]).await.is_ok() }).await;
    assert_eq!(*journal.health().borrow(), Health::Ready);
    assert_eq!(take(&mut feed, 1).await.len(), 1);
    journal.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_heals_when_there_is_room_again() {
    let disk = MemoryDisk::new();
    let journal = open_quick(&small(), &disk, &sinks(&["orders"]));
    disk.limit_room(Some(50_000));
    let count = fill(&journal).await;
    assert_eq!(*journal.health().borrow(), Health::Full);
    assert!(disk.names("j").iter().all(|name| !name.ends_with(".new")), "nothing half made is left");
    disk.limit_room(None);
    until(|| async { journal.append(vec![large()]).await.is_ok() }).await;
    let mut feed = journal.feed("orders").unwrap();
    assert_eq!(take(&mut feed, count + 1).await.len(), count + 1, "and every answered record is there");
    journal.close().await;
}

#[tokio::test]
async fn a_disk_that_fails_while_the_next_segment_is_made_fails_the_journal_and_a_shortage_does_not() {
    for (errno, error, health) in [
        (Errno::IO, AppendError::Failed, Health::Failed),
        (Errno::ROFS, AppendError::Failed, Health::Failed),
        (Errno::MFILE, AppendError::Full, Health::Full),
        (Errno::NOSPC, AppendError::Full, Health::Full),
    ] {
        let disk = MemoryDisk::new();
        let journal = open_quick(&small(), &disk, &sinks(&["orders"]));
        journal.append(vec![large()]).await.unwrap();
        disk.fail_creates(Some(errno.raw_os_error()));
        let mut count = 1;
        let refused = loop {
            match journal.append(vec![large()]).await {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((refused, *journal.health().borrow()), (error.clone(), health), "{errno}");
        let mut feed = journal.feed("orders").unwrap();
        assert_eq!(take(&mut feed, count).await.len(), count, "{errno}: sinks go on with what is durable");
        disk.fail_creates(None);
        if error == AppendError::Failed {
            assert_eq!(journal.append(vec![record("a")]).await, Err(AppendError::Failed), "{errno}: R6");
        } else {
            until(|| async { journal.append(vec![large()]).await.is_ok() }).await;
        }
        journal.close().await;
    }
}

#[tokio::test]
async fn a_cursor_that_was_read_is_saved_again_before_anything_is_deleted_by_it() {
    let disk = MemoryDisk::new();
    let journal =
        Journal::open(&small(), Path::new("j"), Arc::new(disk.clone()), &sinks(&["orders"])).unwrap();
    for _ in 0..12 {
        journal.append(vec![large()]).await.unwrap();
    }
    take(&mut journal.feed("orders").unwrap(), 12).await;
    journal.close().await;
    let before = disk.log().len();
    let config = Config { retention: Period::secs(0), ..small() };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    until(|| async { !disk.names("j").contains(&"00000002.seg".to_owned()) }).await;
    journal.close().await;
    let log = &disk.log()[before..];
    let removed = log.iter().position(|event| event == "rename j/00000001.seg").unwrap();
    assert!(log[..removed].iter().any(|event| event.starts_with("sync j/cursors/orders.")), "{log:?}");
}

#[tokio::test]
async fn a_duplicate_is_recognised_even_when_nothing_new_fits() {
    let disk = MemoryDisk::new();
    let config = Config { disk_max: ByteSize::kib(64), ..small() };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    let known = Record { dedupe: identified("", 1).dedupe, ..large() };
    journal.append(vec![known.clone()]).await.unwrap();
    fill(&journal).await;
    assert_eq!(journal.append(vec![known]).await.map(Vec::from), Ok(vec![Appended::Duplicate]));
    journal.close().await;
}

#[tokio::test]
async fn what_a_new_record_of_the_same_call_makes_forgotten_is_not_written_beyond_the_segment() {
    let disk = MemoryDisk::new();
    let config = Config { dedupe_max: 1, ..small() };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    let known = Record { dedupe: identified("", 1).dedupe, ..large() };
    for record in [known.clone(), large(), large(), large()] {
        journal.append(vec![record]).await.unwrap();
    }
    // There is room for the first of them only, and the second seems to need none.
    let both = vec![identified("new", 2), known];
    assert_eq!(journal.append(both).await.map(Vec::from), Ok(vec![Appended::Stored; 2]));
    journal.close().await;
    for name in disk.names("j").iter().filter(|name| name.ends_with(".seg")) {
        assert_eq!(disk.read(&Path::new("j").join(name)).len(), 16 * 1024, "{name}");
    }
}

#[tokio::test]
async fn a_segment_goes_also_where_the_next_header_was_lost_and_nothing_more_can_be_remembered() {
    let disk = MemoryDisk::new();
    let config = Config { dedupe_max: 1, retention: Period::secs(0), ..small() };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    for number in 0..6 {
        journal.append(vec![Record { dedupe: identified("", number).dedupe, ..large() }]).await.unwrap();
    }
    journal.close().await;
    disk.edit(Path::new("j/00000002.seg"), |bytes| bytes[..segment::HEADER_BYTES].fill(7));
    open_quick(&config, &disk, &sinks(&["orders"])).close().await;
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    let until_told = lock(&journal.shared.table).sealed_oldest().unwrap().remember_until;
    let in_an_hour = crate::clock::now().plus(Duration::from_secs(3600));
    assert!(until_told < in_an_hour, "{until_told:?}");
    journal.close().await;
}

#[tokio::test]
async fn a_sheddable_cursor_is_told_to_give_up_what_it_alone_holds() {
    let config = Config { disk_max: ByteSize::kib(64), ..small() };
    let cursors = [("cache", true), ("orders", false)]
        .map(|(name, sheddable)| CursorSpec { name: name.into(), sheddable });
    let disk = MemoryDisk::new();
    let journal = open_quick(&config, &disk, &cursors);
    let (mut cache, mut orders) = (journal.feed("cache").unwrap(), journal.feed("orders").unwrap());
    let count = fill(&journal).await;
    assert_eq!(*cache.shed_before().borrow(), None, "another sink holds the same records");
    take(&mut orders, count).await;
    let mut asked = cache.shed_before();
    let asked_for = tokio::time::timeout(PATIENCE, asked.wait_for(Option::is_some)).await;
    let before = asked_for.expect("it is asked").unwrap().unwrap();
    let entries = cache.next(count, usize::MAX).await.unwrap();
    let shed: Vec<_> = entries.iter().filter(|entry| entry.position < before).collect();
    assert!(!shed.is_empty() && shed.len() < count, "the oldest segment's records, not all");
    shed.iter().for_each(|entry| cache.settle(entry.position, Ending::Shed));
    until(|| async { journal.append(vec![large()]).await.is_ok() }).await;
    let settled = tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked != Some(before))).await;
    settled.expect("once is enough").unwrap();
    assert_eq!(*orders.shed_before().borrow(), None);
    journal.close().await;
}

#[tokio::test]
async fn a_cursor_that_may_shed_is_told_before_anybody_is_refused() {
    let config = Config { disk_max: ByteSize::kib(64), ..small() };
    let cache = [CursorSpec { name: "cache".into(), sheddable: true }];
    let journal = open_quick(&config, &MemoryDisk::new(), &cache);
    let mut cache = journal.feed("cache").unwrap();
    let stored = Ok(vec![Appended::Stored]);
    // Three segments, and the file for the next one, are all that the budget takes.
    while journal.status().bytes < 64 * 1024 {
        assert_eq!(journal.append(vec![large()]).await.map(Vec::from), stored);
    }
    let mut asked = cache.shed_before();
    let asked_for = tokio::time::timeout(PATIENCE, asked.wait_for(Option::is_some)).await;
    let before = asked_for.expect("it is asked while there is room").unwrap().unwrap();
    let entries = cache.next(1000, usize::MAX).await.unwrap();
    let given_up = entries.iter().filter(|entry| entry.position < before).count();
    entries[..given_up].iter().for_each(|entry| cache.settle(entry.position, Ending::Shed));
    let settled = tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked != Some(before))).await;
    settled.expect("once is enough").unwrap();
    for _ in 0..given_up {
        assert_eq!(
            journal.append(vec![large()]).await.map(Vec::from),
            stored,
            "there is room for as many more"
        );
    }
    journal.close().await;
}

#[tokio::test]
async fn a_call_that_no_segment_can_hold_is_refused_and_stores_nothing() {
    let journal = open_quick(&small(), &MemoryDisk::new(), &sinks(&["orders"]));
    let too_large = record(&"x".repeat(13_000));
    assert_eq!(journal.append(vec![record("a"), too_large]).await, Err(AppendError::TooLarge));
    assert_eq!(journal.append(vec![record("b")]).await.map(Vec::from), Ok(vec![Appended::Stored]));
    assert_eq!(take(&mut journal.feed("orders").unwrap(), 1).await, ["b!"]);
    assert_eq!(journal.status().records, 1);
    journal.close().await;
}

#[tokio::test]
async fn a_new_sink_starts_at_the_end_and_keeps_its_place() {
    let disk = MemoryDisk::new();
    let journal = open_quick(&small(), &disk, &sinks(&["orders"]));
    journal.append(vec![record("old")]).await.unwrap();
    journal.close().await;
    let journal = open_quick(&small(), &disk, &sinks(&["orders", "late"]));
    journal.append(vec![record("new")]).await.unwrap();
    let disk = disk.after_kill();
    journal.close().await;
    let journal = open_quick(&small(), &disk, &sinks(&["orders", "late"]));
    assert_eq!(journal.lag("late").unwrap().events, 1);
    assert_eq!(take(&mut journal.feed("late").unwrap(), 1).await, ["new!"]);
    assert_eq!(take(&mut journal.feed("orders").unwrap(), 2).await, ["old!", "new!"]);
    journal.close().await;
}

#[tokio::test]
async fn a_place_far_inside_a_large_segment_is_found_a_turn_at_a_time() {
    let disk = MemoryDisk::new();
    let config = Config {
        segment: ByteSize::mib(16),
        disk_max: ByteSize::gib(1),
        recent_max: ByteSize::bytes(1),
        ..small()
    };
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    let mut feed = journal.feed("orders").unwrap();
    let texts: Vec<String> = (0..11).map(|number| format!("{number}{}", "x".repeat(1_000_000))).collect();
    for text in &texts {
        journal.append(vec![record(text)]).await.unwrap();
    }
    take(&mut feed, 9).await;
    journal.close().await;
    let journal = open_quick(&config, &disk, &sinks(&["orders"]));
    let given = take(&mut journal.feed("orders").unwrap(), 2).await;
    assert!(given.iter().zip(&texts[9..]).all(|(given, text)| given.strip_suffix('!') == Some(text)));
    journal.close().await;
}
