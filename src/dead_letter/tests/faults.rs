//! A disk that fails, power that goes, entries that cannot be read.

use super::*;
use futures_util::FutureExt;
use redb::ReadableDatabase;

#[tokio::test]
async fn what_was_answered_is_there_after_a_power_cut() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.letters.request_replay(by_id(&id)).await.unwrap();
    let after = store.after_a_power_cut();
    assert_eq!(after.all().await, store.all().await);
    assert_eq!(after.errands("orders").await.len(), 1);
    assert_eq!(after.letters.totals(), store.letters.totals());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_share_few_commits() {
    let store = Store::new();
    let before = store.disk.syncs();
    store.put("orders", "x1").await.unwrap();
    let syncs_of_one = store.disk.syncs() - before;
    let before = store.disk.syncs();
    let events: Vec<Envelope> = (0..200).map(|n| event(&format!("a{n}"))).collect();
    let last = failure(Reason::Timeout, "last");
    let puts = events.iter().map(|event| store.put_with("orders", event, last.clone(), None));
    let mut puts = Box::pin(tokio::task::unconstrained(futures_util::future::join_all(puts)));
    let busy_disk = store.disk.hold();
    assert!((&mut puts).now_or_never().is_none(), "the queue fills while the disk is busy");
    drop(busy_disk);
    let kept = puts.await;
    assert!(kept.iter().all(Result::is_ok));
    let commits = (store.disk.syncs() - before) / syncs_of_one;
    assert!(commits <= 100, "200 letters took {commits} commits");
    assert_eq!(store.all().await.len(), 201);
}

#[tokio::test]
async fn after_a_failed_commit_nobody_is_told_durable_any_more() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.disk.fail_syncs(std::io::ErrorKind::Other);
    let (second, third) = tokio::join!(store.put("orders", "a2"), store.put("orders", "a3"));
    assert!(matches!(second, Err(StoreError::Failed(_))), "{second:?}");
    assert!(matches!(third, Err(StoreError::Failed(_))));
    assert!(matches!(store.put("orders", "a1").await, Err(StoreError::Failed(_))), "not optimistic");
    assert!(matches!(store.letters.get(id.clone()).await, Err(StoreError::Failed(_))));
    let after = store.after_a_power_cut();
    let kept: Vec<_> = after.all().await.into_iter().map(|letter| letter.id).collect();
    assert!(kept.contains(&id), "what was durable stays");
}

#[tokio::test]
async fn a_store_without_room_takes_nothing_and_goes_on_by_itself_when_there_is_some() {
    let store = Store::new();
    let mut kept = vec![store.put("orders", "a1").await.unwrap()];
    for id in ["b1", "c1"] {
        let errands_before = *store.letters.errands_changed().borrow();
        store.disk.is_full(true);
        let (one, other) = tokio::join!(store.put("orders", id), store.put("orders", "z1"));
        assert!(matches!(one, Err(StoreError::Failed(_))), "{one:?}");
        assert!(matches!(other, Err(StoreError::Failed(_))));
        assert!(matches!(store.letters.get(kept[0].clone()).await, Err(StoreError::Failed(_))));
        // Room that is not there is looked for in vain, again and again.
        for _ in 0..3 {
            store.letters.commands.send(Command::LookForRoom).await.unwrap();
        }
        assert!(matches!(store.put("orders", id).await, Err(StoreError::Failed(_))));
        assert!(store.letters.shared.waits_for_room());

        store.disk.is_full(false);
        store.letters.commands.send(Command::LookForRoom).await.unwrap();
        kept.push(store.put("orders", id).await.unwrap());
        assert!(*store.letters.errands_changed().borrow() > errands_before, "lanes ask for errands again");
        store.put("orders", id).await.unwrap();
        let there: Vec<_> = store.all().await.into_iter().map(|letter| letter.id).collect();
        assert_eq!(there, kept, "nothing is lost, nothing is there twice, nothing refused is there");
    }
    let after = store.after_a_power_cut();
    assert_eq!(store.letters.totals().unaccounted, 0);
    assert_eq!(store.letters.totals(), after.letters.totals());
    assert_eq!(store.all().await, after.all().await);
    store.letters.close().await;
    assert_eq!(store.put("orders", "a4").await, Err(StoreError::Closed));
}

#[tokio::test]
async fn only_a_write_that_found_no_room_is_ever_tried_again() {
    let sentences = [
        ("a sync that fails", std::io::ErrorKind::Other),
        ("a sync that finds no room", std::io::ErrorKind::StorageFull),
    ];
    for (sentence, kind) in sentences {
        let store = Store::new();
        store.disk.fail_syncs(kind);
        assert!(matches!(store.put("orders", "a1").await, Err(StoreError::Failed(_))), "{sentence}");
        assert!(!store.letters.shared.waits_for_room(), "{sentence}");
    }
    // Full first, and then worse.
    let store = Store::new();
    store.disk.is_full(true);
    store.put("orders", "a1").await.unwrap_err();
    assert!(store.letters.shared.waits_for_room());
    store.disk.is_full(false);
    store.disk.fail_syncs(std::io::ErrorKind::Other);
    store.letters.commands.send(Command::LookForRoom).await.unwrap();
    store.put("orders", "a1").await.unwrap_err();
    assert!(!store.letters.shared.waits_for_room());
}

#[tokio::test]
async fn a_store_that_waits_for_room_can_be_closed() {
    let store = Store::new();
    store.put("orders", "a1").await.unwrap();
    store.disk.is_full(true);
    store.put("orders", "a2").await.unwrap_err();
    store.letters.close().await;
    store.shutdown.stop(Phase::Storage).await;
    assert_eq!(store.shutdown.tasks_running(), 0);
    store.disk.is_full(false);
    assert_eq!(store.reopened().await.all().await.len(), 1);
}

#[tokio::test]
async fn a_closed_store_says_so_and_what_was_taken_before_is_kept() {
    let store = Store::new();
    let (kept, ()) = tokio::join!(store.put("orders", "a1"), store.letters.close());
    let id = kept.unwrap();
    assert_eq!(store.put("orders", "a2").await, Err(StoreError::Closed));
    assert_eq!(store.letters.list(Filter::default(), None, 1).await, Err(StoreError::Closed));
    store.letters.close().await;
    store.shutdown.stop(Phase::Storage).await;
    assert_eq!(store.shutdown.tasks_running(), 0);
    assert!(store.reopened().await.letters.get(id).await.unwrap().is_some());
}

/// Overwrites what is stored under `id` in one of the two tables.
async fn damage(store: Store, table: redb::TableDefinition<'static, &str, &[u8]>, id: &LetterId) -> Store {
    store.letters.close().await;
    let disk = store.disk.reopened();
    let database = file::builder().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(id.0.as_str(), b"\xffdamaged".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    Store::on(disk.reopened(), store.disk_max)
}

#[tokio::test]
async fn a_record_that_cannot_be_read_hides_only_itself() {
    let store = Store::new();
    let last = failure(Reason::Timeout, "last");
    let lost = store.put_with("orders", &event("a1"), last, Some(&sink("alerts"))).await.unwrap();
    let good = store.put("orders", "a2").await.unwrap();
    store.letters.request_replay(Filter::default()).await.unwrap();
    let store = damage(store, rows::LETTERS, &lost).await;

    assert_eq!(store.all().await.iter().map(|letter| &letter.id).collect::<Vec<_>>(), [&good]);
    assert!(matches!(store.letters.get(lost.clone()).await, Err(StoreError::Failed(_))));
    assert_eq!(store.errands("orders").await.len(), 1);
    assert_eq!(store.errands("alerts").await.len(), 0);
    assert_eq!(store.letters.totals().by_sink, [(sink("orders"), 1)].into());
    assert_eq!(store.letters.discard(by_id(&lost)).await.unwrap(), 1, "by its id it can be discarded");
    assert_eq!(store.letters.errands_open(), [(sink("orders"), 1)].into());
    assert_eq!(store.letters.discard(Filter::default()).await.unwrap(), 1);
    assert_eq!(store.letters.totals().bytes, 0);
    let snapshot = store.letters.shared.database().unwrap().begin_read().unwrap();
    assert!(redb::ReadableTableMetadata::is_empty(&snapshot.open_table(rows::ORDER).unwrap()).unwrap());
}

#[tokio::test]
async fn an_event_that_dies_again_replaces_its_unreadable_record() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    let store = damage(store, rows::LETTERS, &id).await;
    assert_eq!(store.put("orders", "a1").await.unwrap(), id);
    assert_eq!(store.all().await.len(), 1);
    assert_eq!(store.letters.get(id).await.unwrap().unwrap().1, Payload::Event(event("a1")));
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_leaves_its_summary_and_the_others() {
    let store = Store::new();
    let lost = store.put("orders", "a1").await.unwrap();
    store.put("orders", "a2").await.unwrap();
    store.letters.request_replay(Filter::default()).await.unwrap();
    let store = damage(store, rows::PAYLOADS, &lost).await;
    assert_eq!(store.all().await.len(), 2);
    assert!(matches!(store.letters.get(lost.clone()).await, Err(StoreError::Failed(_))));
    assert_eq!(store.errands("orders").await.len(), 1, "the lane gets what can be read");
    assert_eq!(store.letters.discard(by_id(&lost)).await.unwrap(), 1);
}
