//! Every letter that was ever made is kept, replayed or discarded, and the counts survive whatever the letters survive.

use super::*;

fn account(created: u64, replayed: u64, discarded: u64, kept: u64) -> LetterAccount {
    LetterAccount { created, replayed, discarded, kept }
}

/// The store after somebody else changed it.
async fn changed(store: Store, change: impl FnOnce(&redb::WriteTransaction)) -> Store {
    store.letters.close().await;
    let disk = store.disk.reopened();
    let database = file::builder().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
    drop(database);
    Store::on(disk.reopened(), store.disk_max)
}

async fn replay(store: &Store, sink_name: &str, id: &LetterId) {
    store.letters.request_replay(by_id(id)).await.unwrap();
    let ended = ErrandEnd::Delivered;
    store.letters.end_errand(sink(sink_name), id.clone(), ErrandKind::Replay, ended).await.unwrap();
}

#[tokio::test]
async fn letters_are_counted_once_each_and_for_good() {
    let store = Store::new();
    let first = store.put("orders", "a1").await.unwrap();
    let second = store.put("orders", "b2").await.unwrap();
    store.put("orders", "c3").await.unwrap();
    store.put("orders", "c3").await.unwrap();
    store.put("audit", "a1").await.unwrap();
    let body = store.quarantine(b"no json").await;
    store.quarantine(b"nor this").await;
    replay(&store, "orders", &first).await;
    store.letters.discard(by_id(&second)).await.unwrap();
    store.letters.readmitted(body).await.unwrap();
    for (sentence, store) in
        [("after a power cut", store.after_a_power_cut()), ("after a close", store.reopened().await)]
    {
        let totals = store.letters.totals();
        assert_eq!(
            totals.accounts[&sink("orders")],
            account(3, 1, 1, 1),
            "{sentence}: a letter that dies again is one"
        );
        assert_eq!(totals.accounts[&sink("audit")], account(1, 0, 0, 1), "{sentence}");
        assert_eq!(
            totals.quarantines,
            account(2, 1, 0, 1),
            "{sentence}: what could be read at last is not discarded"
        );
        assert_eq!((totals.unreadable, totals.unaccounted), (0, 0), "{sentence}");
    }
}

#[tokio::test]
async fn a_failed_replay_is_the_same_letter_and_an_ended_errand_counts_once() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.letters.request_replay(by_id(&id)).await.unwrap();
    let last = failure(Reason::Timeout, "again");
    let end = ErrandEnd::Failed { attempts: 1, last: &last };
    store.letters.end_errand(sink("orders"), id.clone(), ErrandKind::Replay, end).await.unwrap();
    assert_eq!(store.letters.totals().accounts[&sink("orders")], account(1, 0, 0, 1));
    replay(&store, "orders", &id).await;
    store.letters.end_errand(sink("orders"), id, ErrandKind::Replay, ErrandEnd::Delivered).await.unwrap();
    assert_eq!(store.letters.totals().accounts[&sink("orders")], account(1, 1, 0, 0));
}

#[tokio::test]
async fn a_store_that_never_counted_begins_with_what_it_holds() {
    let store = Store::new();
    store.put("orders", "a1").await.unwrap();
    store.quarantine(b"no json").await;
    let store = changed(store, |transaction| assert!(transaction.delete_table(rows::COUNTS).unwrap())).await;
    let totals = store.letters.totals();
    assert_eq!(totals.accounts[&sink("orders")], account(1, 0, 0, 1));
    assert_eq!((totals.quarantines, totals.unaccounted), (account(1, 0, 0, 1), 0));
}

#[tokio::test]
async fn a_letter_that_cannot_be_read_is_in_no_account_and_not_missing_either() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    let store = changed(store, |transaction| {
        let mut letters = transaction.open_table(rows::LETTERS).unwrap();
        letters.insert(id.0.as_str(), b"\xffnonsense".as_slice()).unwrap();
    })
    .await;
    let totals = store.letters.totals();
    assert_eq!((totals.unreadable, totals.unaccounted), (1, 0));
    assert_eq!(store.letters.discard(by_id(&id)).await, Ok(1));
    let totals = store.letters.totals();
    assert_eq!((totals.unreadable, totals.unaccounted), (1, 0), "it is gone, and still no account has it");
    store.put("orders", "a1").await.unwrap();
    assert_eq!(store.letters.totals().unaccounted, 0);
}

#[tokio::test]
async fn a_count_that_was_tampered_with_shows() {
    let store = Store::new();
    store.put("orders", "a1").await.unwrap();
    let store = changed(store, |transaction| {
        transaction.open_table(rows::COUNTS).unwrap().insert(("orders", 1), 2).unwrap();
    })
    .await;
    assert_eq!(store.letters.totals().unaccounted, 1);
}

/// In a real file, as a killed process left it: the copy is taken while the store is open.
#[tokio::test]
async fn an_inspection_of_an_unfinished_file_counts_everything_and_writes_nothing() {
    let (live, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shutdown = Shutdown::new();
    let letters = DeadLetters::open(&Config::default(), live.path(), &shutdown).unwrap();
    let (orders, last) = (sink("orders"), failure(Reason::Timeout, "no answer"));
    for id in ["a1", "b2"] {
        let event = event(id);
        let letter = Undelivered {
            sink: &orders,
            event: &event,
            arrived: UnixMs(1),
            attempts: 1,
            first: &last,
            last: &last,
            copy_to: None,
        };
        letters.put(letter).await.unwrap();
    }
    let file = copy.path().join(file::FILE_NAME);
    std::fs::copy(live.path().join(file::FILE_NAME), &file).unwrap();
    let before = std::fs::read(&file).unwrap();
    let inspection = inspect(copy.path()).unwrap().expect("there is a store");
    assert_eq!(inspection.totals.accounts[&orders], account(2, 0, 0, 2));
    assert_eq!(inspection.findings, Vec::<String>::new());
    assert_eq!(std::fs::read(&file).unwrap(), before, "not one byte of it was changed");
    assert_eq!(inspect(&copy.path().join("nowhere")), Ok(None));
    letters.close().await;
}

#[tokio::test]
async fn an_inspection_finds_what_is_wrong() {
    for (sentence, harm, finding) in [
        (
            "a count",
            (|transaction| {
                transaction.open_table(rows::COUNTS).unwrap().insert(("orders", 1), 2).unwrap();
            }) as fn(&redb::WriteTransaction),
            "orders: 2 were made, 0 replayed, 0 discarded, and 1 are there",
        ),
        (
            "a payload",
            |transaction| drop(transaction.open_table(rows::PAYLOADS).unwrap().retain(|_, _| false)),
            "has lost its payload",
        ),
        (
            "a place in the order",
            |transaction| drop(transaction.open_table(rows::ORDER).unwrap().retain(|_, ()| false)),
            "is in no listing",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let letters = DeadLetters::open(&Config::default(), folder.path(), &shutdown).unwrap();
        let (orders, last, event) = (sink("orders"), failure(Reason::Timeout, "no answer"), event("a1"));
        let letter = Undelivered {
            sink: &orders,
            event: &event,
            arrived: UnixMs(1),
            attempts: 1,
            first: &last,
            last: &last,
            copy_to: None,
        };
        letters.put(letter).await.unwrap();
        letters.close().await;
        let database = file::StoreFile::open(folder.path()).unwrap().database(&Arc::default()).unwrap();
        let transaction = database.begin_write().unwrap();
        harm(&transaction);
        transaction.commit().unwrap();
        drop(database);
        let findings = inspect(folder.path()).unwrap().expect("there is a store").findings;
        assert!(findings.iter().any(|found| found.contains(finding)), "{sentence}: {findings:?}");
    }
}
