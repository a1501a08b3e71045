//! Single operations of the disk fail: who is refused, what goes on, what is tried again and what never is.

use super::faults::{SEGMENT, contents, open_on, with_records};
use super::memory_disk::{Fault, MemoryDisk};
use super::*;

const QUICK: Duration = Duration::from_millis(1);

fn open_quick(disk: &MemoryDisk) -> Journal {
    let config = Config { retention: Period::secs(0), ..small() };
    Journal::open_with_tick(&config, Path::new("j"), Arc::new(disk.clone()), &sinks(&["orders"]), QUICK)
        .unwrap()
}

fn large() -> Record {
    record(&"x".repeat(3000))
}

/// Waits until `holds`, which a broken journal never reaches.
async fn until(mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(QUICK).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("what was waited for");
}

#[tokio::test]
async fn a_failed_write_or_sync_refuses_all_who_wait_is_never_tried_again_and_what_is_durable_goes_on() {
    for (sentence, operation, fault) in [
        ("a short write that ends in an error", "write", Fault::Broken),
        ("a write for which there is no room after all", "write", Fault::NoRoom),
        ("a sync that fails", "sync", Fault::Broken),
        ("a sync that finds no room", "sync", Fault::NoRoom),
    ] {
        let disk = with_records(&["before"]).await;
        let journal = open_on(&disk, &["orders"]).unwrap();
        let mut feed = journal.feed("orders").unwrap();
        disk.fail_once(&format!("{operation} {SEGMENT}"), fault);
        let (one, two, same) = tokio::join!(
            journal.append(vec![identified("one", 1)]),
            journal.append(vec![identified("two", 2)]),
            journal.append(vec![identified("one", 1)]),
        );
        for refused in [one, two, same] {
            assert_eq!(refused, Err(AppendError::Failed), "{sentence}");
        }
        assert_eq!(*journal.health().borrow(), Health::Failed, "{sentence}: readiness fails at once");
        let before = disk.operations().len();
        for _ in 0..3 {
            assert_eq!(
                journal.append(vec![record("after")]).await,
                Err(AppendError::Failed),
                "{sentence}: R6"
            );
        }
        assert_eq!(take(&mut feed, 1).await, ["before!"], "{sentence}: sinks go on with what is durable");
        assert!(
            futures_util::FutureExt::now_or_never(feed.next(9, 9)).is_none(),
            "{sentence}: and with no more"
        );
        journal.close().await;
        let later = disk.operations().split_off(before);
        assert!(
            later.iter().all(|operation| !operation.ends_with(".seg")),
            "{sentence}: not again: {later:?}"
        );
        assert!(
            later.contains(&"sync j/cursors/orders.0".to_owned())
                || later.contains(&"sync j/cursors/orders.1".to_owned())
        );
        // Nobody was told that they are there, so they may be there or not, but what was settled stays settled.
        let (given, damaged) = contents(&disk.after_crash(7)).await;
        assert!(given.iter().all(|text| ["one!", "two!"].contains(&&**text)), "{sentence}: {given:?}");
        assert_eq!(damaged, 0, "{sentence}");
    }
}

#[tokio::test]
async fn a_failure_while_the_next_segment_is_made_is_one_of_the_disk_unless_only_room_is_missing() {
    for (operation, fault) in [
        ("create j/00000002.new", Fault::Broken),
        ("create j/00000002.new", Fault::NoRoom),
        ("create j/00000002.new", Fault::Shortage),
        ("write j/00000002.new", Fault::Broken),
        ("write j/00000002.new", Fault::NoRoom),
        ("sync j/00000002.new", Fault::Broken),
        ("sync j/00000002.new", Fault::NoRoom),
        ("rename j/00000002.new", Fault::Broken),
        ("rename j/00000002.new", Fault::NoRoom),
        ("sync j/", Fault::Broken),
        ("sync j/", Fault::NoRoom),
        ("sync j/", Fault::Shortage),
    ] {
        let disk = MemoryDisk::new();
        let journal = open_quick(&disk);
        let mut feed = journal.feed("orders").unwrap();
        journal.append(vec![large()]).await.unwrap();
        disk.fail_once(operation, fault);
        let mut count = 1;
        let refused = loop {
            if count > 20 {
                break None;
            }
            match journal.append(vec![large()]).await {
                Ok(_) => count += 1,
                Err(error) => break Some(error),
            }
        };
        if fault == Fault::Broken {
            assert_eq!(refused, Some(AppendError::Failed), "{operation}");
            assert_eq!(
                journal.append(vec![large()]).await.map(Vec::from),
                Err(AppendError::Failed),
                "{operation}: R6"
            );
            let tried = disk.operations().iter().filter(|tried| *tried == "create j/00000002.new").count();
            assert_eq!(tried, 1, "{operation}: not tried again");
        } else {
            assert!(matches!(refused, None | Some(AppendError::Full)), "{operation} {fault:?}: {refused:?}");
            until(|| *journal.health().borrow() == Health::Ready).await;
            let taken = async {
                while journal.append(vec![large()]).await.is_err() {
                    tokio::time::sleep(QUICK).await;
                }
            };
            tokio::time::timeout(PATIENCE, taken).await.expect("records are taken again");
            count += 1;
        }
        assert_eq!(take(&mut feed, count).await.len(), count, "{operation} {fault:?}: sinks go on");
        journal.close().await;
        assert!(disk.names("j").iter().all(|name| !name.ends_with(".new") || name.starts_with("recycled")));
        assert_eq!(
            contents(&disk.after_crash(3)).await,
            (vec![], 0),
            "{operation} {fault:?}: all was settled"
        );
    }
}

#[tokio::test]
async fn a_cursor_that_cannot_be_saved_holds_its_segments_and_is_saved_when_that_is_over() {
    for slot in 0..2 {
        for operation in ["write", "sync"] {
            let disk = MemoryDisk::new();
            let journal = open_quick(&disk);
            for _ in 0..12 {
                journal.append(vec![large()]).await.unwrap();
            }
            let mut feed = journal.feed("orders").unwrap();
            for _ in 0..4 {
                disk.fail_once(&format!("{operation} j/cursors/orders.{slot}"), Fault::Broken);
                disk.fail_once(&format!("create j/cursors/orders.{slot}.new"), Fault::Broken);
            }
            let taken = take(&mut feed, 12).await.len();
            until(|| !disk.names("j").contains(&"00000001.seg".to_owned())).await;
            assert_eq!((taken, *journal.health().borrow()), (12, Health::Ready), "{operation} {slot}");
            assert_eq!(journal.append(vec![large()]).await.map(Vec::from), Ok(vec![Appended::Stored]));
            journal.close().await;
            let mut log = disk.log();
            log.truncate(log.iter().position(|event| event == "rename j/00000001.seg").unwrap());
            let last_append = log.iter().rposition(|event| event.ends_with(".seg")).unwrap();
            let is_saved = log[last_append..].iter().any(|event| event.starts_with("sync j/cursors/orders."));
            assert!(is_saved, "{operation} {slot}: {log:?}");
            let crashed = disk.after_crash(5);
            let journal = open_quick(&crashed);
            let oldest = lock(&journal.shared.table).oldest().unwrap().first;
            let through = lock(&journal.shared.cursors["orders"].state).standing.progress().through();
            assert!(oldest <= through + 1, "{operation} {slot}: R3");
            journal.close().await;
        }
    }
}

#[tokio::test]
async fn a_directory_sync_that_fails_after_a_segment_was_freed_is_no_failure_of_the_journal() {
    for fault in [Fault::Broken, Fault::NoRoom, Fault::Shortage] {
        let disk = MemoryDisk::new();
        let journal = open_quick(&disk);
        for _ in 0..12 {
            journal.append(vec![large()]).await.unwrap();
        }
        let mut feed = journal.feed("orders").unwrap();
        // The next segment is there already, so that only freeing syncs the directory.
        until(|| lock(&journal.shared.table).spare_bytes > 0).await;
        disk.fail_once("sync j/", fault);
        take(&mut feed, 12).await;
        until(|| disk.names("j").iter().filter(|name| name.ends_with(".seg")).count() <= 2).await;
        assert_eq!(*journal.health().borrow(), Health::Ready, "{fault:?}");
        assert_eq!(
            journal.append(vec![large()]).await.map(Vec::from),
            Ok(vec![Appended::Stored]),
            "{fault:?}"
        );
        journal.close().await;
        assert_eq!(contents(&disk.after_crash(9)).await.0.len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn an_opening_that_fails_at_any_step_costs_nothing() {
    let filled = MemoryDisk::new();
    let journal = open_quick(&filled);
    for number in 0..8u8 {
        journal.append(vec![Record { dedupe: identified("", number).dedupe, ..large() }]).await.unwrap();
    }
    journal.close().await;
    for fault in [Fault::Broken, Fault::NoRoom, Fault::Shortage] {
        for steps in 0.. {
            let disk = filled.copy();
            disk.fail_after(steps, fault);
            match Journal::open(&small(), Path::new("j"), Arc::new(disk.clone()), &sinks(&["orders", "late"]))
            {
                Ok(journal) if disk.faults().is_empty() => {
                    disk.calm();
                    journal.close().await;
                    break;
                }
                Ok(journal) => journal.close().await,
                Err(error) => assert!(matches!(error, OpenError::Io { .. }), "{error}"),
            }
            let disk = if steps % 2 == 0 { disk.after_kill() } else { disk.after_crash(steps) };
            disk.calm();
            let (given, damaged) = contents(&disk).await;
            assert_eq!((given.len(), damaged), (8, 0), "{fault:?} after {steps} steps");
        }
    }
}

#[tokio::test]
async fn the_name_of_a_cursor_that_a_killed_process_left_unsynced_is_durable_before_a_record_is_accepted() {
    let disk = MemoryDisk::new();
    disk.fail_once("sync j/cursors/", Fault::Broken);
    disk.fail_once("sync j/cursors/", Fault::Broken);
    for _ in 0..2 {
        assert!(open_on(&disk, &["orders"]).is_err());
    }
    let disk = disk.after_kill();
    let before = disk.operations().len();
    let journal = open_on(&disk, &["orders"]).unwrap();
    journal.append(vec![record("a")]).await.unwrap();
    let operations = disk.operations().split_off(before);
    let first = |wanted: &str| operations.iter().position(|operation| operation == wanted).unwrap();
    assert!(first("sync j/cursors/") < first("create j/00000001.new"), "{operations:?}");
    journal.close().await;
}

#[tokio::test]
async fn housekeeping_that_ends_by_a_defect_fails_the_journal_and_nobody_waits_for_it() {
    let disk = MemoryDisk::new();
    let journal = open_quick(&disk);
    disk.panic_once("create j/00000002.new");
    let refused = async {
        loop {
            if let Err(error) = journal.append(vec![large()]).await {
                return error;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("an answer");
    assert_eq!((refused, *journal.health().borrow()), (AppendError::Failed, Health::Failed));
    let closed = tokio::time::timeout(PATIENCE, journal.close()).await;
    closed.expect("nor does closing wait for it");
}

#[tokio::test]
async fn a_writer_that_ends_by_a_defect_fails_the_journal_and_is_not_taken_for_one_that_was_closed() {
    let disk = with_records(&["before"]).await;
    let journal = open_quick(&disk);
    disk.panic_once(&format!("sync {SEGMENT}"));
    let answer = tokio::time::timeout(PATIENCE, journal.append(vec![record("lost")])).await;
    assert_eq!(answer.expect("an answer"), Err(AppendError::Closed), "it promises nothing");
    until(|| *journal.health().borrow() != Health::Ready).await;
    assert_eq!(*journal.health().borrow(), Health::Failed, "so that the process ends, and a new one goes on");
    let closed = tokio::time::timeout(PATIENCE, journal.close()).await;
    closed.expect("closing waits for nobody");
    assert_eq!(*journal.health().borrow(), Health::Failed);
    assert_eq!(contents(&disk.after_kill()).await.0[0], "before!");
}

#[tokio::test]
async fn a_read_that_ends_by_a_defect_fails_for_its_own_lane_and_others_go_on_reading() {
    let disk = with_records(&["one", "two"]).await;
    let journal =
        Journal::open(&small(), Path::new("j"), Arc::new(disk.clone()), &sinks(&["orders", "audit"]));
    let journal = journal.unwrap();
    let mut feed = journal.feed("orders").unwrap();
    disk.panic_once(&format!("read {SEGMENT}"));
    let read = tokio::time::timeout(PATIENCE, feed.next(1, 1)).await.expect("an answer");
    assert!(matches!(read, Err(ReadError::Io(_))), "{read:?}");
    assert_eq!(take(&mut feed, 2).await, ["one!", "two!"], "the next one succeeds");
    journal.close().await;
}
