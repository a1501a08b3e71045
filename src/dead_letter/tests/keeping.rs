//! Putting, listing, showing, discarding, and the budget.

use super::*;

#[tokio::test]
async fn what_is_put_is_shown_with_the_senders_bytes() {
    let store = Store::new();
    let event = event("a1");
    let id = store
        .put_with("orders", &event, failure(Reason::ContentRefused, "answered 422"), None)
        .await
        .unwrap();
    let (summary, payload) = store.letters.get(id.clone()).await.unwrap().unwrap();
    assert_eq!(payload, Payload::Event(event));
    assert_eq!(summary.origin, Origin::Sink(sink("orders")));
    assert_eq!(summary.source.as_str(), "inbox");
    assert_eq!(
        (summary.event_id.as_deref(), summary.event_type.as_deref()),
        (Some("a1"), Some("com.example.a"))
    );
    assert_eq!((summary.reason.as_str(), summary.attempts), ("content_refused", 3));
    assert_eq!((summary.first_error.as_str(), summary.last_error.as_str()), ("answered 500", "answered 422"));
    assert_eq!(store.all().await, [summary]);
    assert_eq!(store.letters.get(LetterId("0".repeat(32))).await.unwrap(), None);
}

#[tokio::test]
async fn a_quarantined_body_is_kept_as_it_came() {
    let store = Store::new();
    let id = store.quarantine(b"{not json \xff").await;
    let (summary, payload) = store.letters.get(id).await.unwrap().unwrap();
    let body = Bytes::from_static(b"{not json \xff");
    assert_eq!(payload, Payload::Body { body, content_type: Some("text/plain".into()) });
    assert_eq!((summary.origin, summary.event_id, summary.attempts), (Origin::Ingress, None, 0));
    assert_eq!(store.letters.totals().quarantined, 1);
}

#[tokio::test]
async fn the_same_event_for_the_same_sink_is_one_letter() {
    let store = Store::new();
    let first = store.put("orders", "a1").await.unwrap();
    let other = store.put("audit", "a1").await.unwrap();
    let again = failure(Reason::TooLarge, "answered 413");
    let second = store.put_with("orders", &event("a1"), again, None).await.unwrap();
    assert_eq!(first, second);
    assert_ne!(first, other);
    assert_eq!(store.quarantine(b"x").await, store.quarantine(b"x").await);
    let (summary, _) = store.letters.get(first).await.unwrap().unwrap();
    assert_eq!((summary.first_error.as_str(), summary.last_error.as_str()), ("answered 500", "answered 413"));
    assert_eq!((summary.reason.as_str(), summary.attempts), ("too_large", 6));
    let totals = store.letters.totals();
    assert_eq!(totals.by_sink, [(sink("audit"), 1), (sink("orders"), 1)].into());
    assert_eq!((totals.quarantined, store.all().await.len()), (1, 3));
}

#[tokio::test]
async fn two_events_that_share_an_id_but_not_their_bytes_or_their_source_are_two_letters() {
    let store = Store::new();
    let first = event_with("a1", r#"{"n":1}"#);
    // The sender has used its id again, after the window in which that is a repetition.
    let reused = event_with("a1", r#"{"n":2}"#);
    // Another configured source, whose sender writes all of its attributes itself.
    let mut foreign = first.clone();
    foreign.extensions.insert(Cow::Borrowed(HOOKBUS_SOURCE), "other".into());
    let mut of_another_type = first.clone();
    of_another_type.event_type = "com.example.b".into();
    let events = [first, reused, foreign, of_another_type];
    let mut kept = Vec::new();
    for event in &events {
        let last = failure(Reason::ContentRefused, "answered 422");
        let id = store.put_with("orders", event, last, None).await.unwrap();
        kept.push(store.letters.get(id).await.unwrap().unwrap().1);
    }
    assert_eq!(kept, events.map(Payload::Event), "none stands for another");
    assert_eq!(store.letters.totals().by_sink, [(sink("orders"), 4)].into());
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_repetition() {
    let store = Store::new();
    for n in 0..25 {
        store.put("orders", &format!("a{n}")).await.unwrap();
    }
    let whole = store.all().await;
    assert!(whole.is_sorted_by_key(|letter| (letter.died, letter.id.clone())));
    let mut paged: Vec<Summary> = Vec::new();
    loop {
        let after = paged.last().map(|letter| letter.id.clone());
        let page = store.letters.list(Filter::default(), after, 10).await.unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, whole);
    assert_eq!(store.letters.list(Filter::default(), None, 0).await.unwrap(), []);
    let ids = Filter { ids: whole.iter().map(|letter| letter.id.clone()).collect(), ..Filter::default() };
    let tail = store.letters.list(ids, Some(whole[19].id.clone()), 100).await.unwrap();
    assert_eq!(tail, whole[20..], "also among chosen letters");
}

#[tokio::test]
async fn a_filter_narrows_lists_and_discards() {
    let store = Store::new();
    for (name, id) in [("orders", "a1"), ("orders", "b1"), ("audit", "a1")] {
        store.put(name, id).await.unwrap();
    }
    store.quarantine(b"x").await;
    let of_type = Filter { event_type: Some("com.example.a*".into()), ..Filter::default() };
    assert_eq!(store.letters.list(of_type.clone(), None, 10).await.unwrap().len(), 2);
    let recent = Filter { since: Some(UnixMs(clock::now().0 - 60_000)), ..Filter::default() };
    assert_eq!(store.letters.list(recent, None, 10).await.unwrap().len(), 4);
    let future = Filter { since: Some(UnixMs(i64::MAX)), ..Filter::default() };
    assert_eq!(store.letters.list(future, None, 10).await.unwrap(), []);
    assert_eq!(store.letters.discard(of_type).await.unwrap(), 2);
    assert_eq!(store.letters.totals().by_sink, [(sink("orders"), 1)].into());
    assert_eq!(store.letters.discard(Filter::default()).await.unwrap(), 2);
    assert_eq!(store.all().await, []);
    assert_eq!(store.letters.totals().bytes, 0);
}

#[tokio::test]
async fn more_letters_than_one_step_holds_are_all_swept() {
    let store = Store::new();
    let count = SWEEP_ENTRIES_MAX + 10;
    let puts = (0..count).map(|n| {
        let store = &store;
        async move { store.put("orders", &format!("a{n}")).await.unwrap() }
    });
    futures_util::future::join_all(puts).await;
    assert_eq!(store.letters.request_replay(Filter::default()).await.unwrap(), count as u64);
    assert_eq!(store.letters.errands_open(), [(sink("orders"), count as u64)].into());
    assert_eq!(store.letters.discard(Filter::default()).await.unwrap(), count as u64);
    assert_eq!(store.letters.errands_open(), Default::default());
}

#[tokio::test]
async fn a_full_store_refuses_new_letters_takes_known_ones_and_heals() {
    let store = Store::of_size(ByteSize::kib(3));
    let mut kept = Vec::new();
    let refused = loop {
        match store.put("orders", &format!("a{}", kept.len())).await {
            Ok(id) => kept.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StoreError::Full);
    assert!(kept.len() > 1, "some letters fit into 3 KiB");
    assert_eq!(store.put("orders", "a0").await.unwrap(), kept[0], "a known letter is updated all the same");
    let store = store.reopened().await;
    assert_eq!(store.put("orders", "b0").await, Err(StoreError::Full), "fullness is known after a restart");
    assert_eq!(store.letters.discard(by_id(&kept[1])).await.unwrap(), 1);
    store.put("orders", "b0").await.expect("discarding makes room");
    assert!(store.letters.totals().bytes <= store.letters.totals().bytes_max);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let store = Store::new();
    store.put("orders", "a1").await.unwrap();
    store.quarantine(b"x").await;
    let (letters, totals) = (store.all().await, store.letters.totals());
    let store = store.reopened().await;
    assert_eq!(store.all().await, letters);
    assert_eq!(
        store.letters.totals(),
        totals,
        "what was counted while running is what is counted at the start"
    );
}

#[tokio::test]
async fn a_file_in_a_directory_is_private_locked_and_survives() {
    let directory = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let letters = DeadLetters::open(&Config::default(), directory.path(), &shutdown).unwrap();
    let undelivered = Undelivered {
        sink: &sink("orders"),
        event: &event("a1"),
        arrived: UnixMs(1),
        attempts: 1,
        first: &failure(Reason::Timeout, "first"),
        last: &failure(Reason::Timeout, "last"),
        copy_to: None,
    };
    let id = letters.put(undelivered).await.unwrap();
    let second = DeadLetters::open(&Config::default(), directory.path(), &shutdown);
    assert!(matches!(second, Err(StoreError::Failed(_))), "one process, one store");
    let mode = rustix::fs::stat(directory.path().join(file::FILE_NAME)).unwrap().st_mode;
    assert_eq!(mode & 0o777, 0o600);
    shutdown.stop(Phase::Storage).await;
    assert_eq!(letters.get(id.clone()).await, Err(StoreError::Closed), "the phase ends the store by itself");
    let again = DeadLetters::open(&Config::default(), directory.path(), &Shutdown::new()).unwrap();
    assert!(again.get(id).await.unwrap().is_some());
    let missing = DeadLetters::open(&Config::default(), &directory.path().join("no"), &Shutdown::new());
    assert!(matches!(missing, Err(StoreError::Failed(problem)) if problem.contains("dead-letters.redb")));
}
