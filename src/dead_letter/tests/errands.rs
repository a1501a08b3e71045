//! The life of a replay and of a copy.

use super::*;

fn ids_of(errands: &[Errand]) -> Vec<(LetterId, ErrandKind)> {
    errands.iter().map(|errand| (errand.letter.clone(), errand.kind)).collect()
}

#[tokio::test]
async fn a_replay_is_asked_for_once_and_its_letter_stays_until_it_is_confirmed() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.quarantine(b"x").await;
    let mut changed = store.letters.errands_changed();
    assert_eq!(store.letters.request_replay(Filter::default()).await.unwrap(), 1, "quarantines do not match");
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    assert_eq!(
        store.letters.request_replay(Filter::default()).await.unwrap(),
        0,
        "it is being replayed already"
    );

    let errands = store.errands("orders").await;
    assert_eq!(ids_of(&errands), [(id.clone(), ErrandKind::Replay)]);
    assert_eq!((&errands[0].event, errands[0].arrived), (&event("a1"), UnixMs(1_000)));
    assert_eq!(ids_of(&store.errands("audit").await), [], "only for its own lane");
    let not_in_hand = store.letters.errands(sink("orders"), ids_of(&errands), 100, usize::MAX).await.unwrap();
    assert_eq!(ids_of(&not_in_hand), []);
    assert!(store.letters.list(by_id(&id), None, 1).await.unwrap()[0].replaying);

    store
        .letters
        .end_errand(sink("orders"), id.clone(), ErrandKind::Replay, ErrandEnd::Delivered)
        .await
        .unwrap();
    assert_eq!(store.letters.get(id).await.unwrap(), None);
    assert_eq!((store.errands("orders").await.len(), store.letters.totals().by_sink.len()), (0, 0));
}

#[tokio::test]
async fn an_answer_ends_with_the_errand_that_crosses_its_bytes() {
    let store = Store::new();
    for id in ["a1", "a2", "a3"] {
        store.put("orders", id).await.unwrap();
    }
    store.letters.request_replay(Filter::default()).await.unwrap();
    let bytes = event("a1").data.bytes().len();
    let two = store.letters.errands(sink("orders"), vec![], 100, bytes + 1).await.unwrap();
    let third = store.letters.errands(sink("orders"), ids_of(&two), 100, bytes + 1).await.unwrap();
    assert_eq!((two.len(), third.len()), (2, 1), "what was left out comes with the next answer");
}

#[tokio::test]
async fn a_replay_that_fails_puts_its_letter_back_to_rest() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.letters.request_replay(by_id(&id)).await.unwrap();
    let last = failure(Reason::DestinationGone, "answered 410");
    let end = ErrandEnd::Failed { attempts: 4, last: &last };
    store.letters.end_errand(sink("orders"), id.clone(), ErrandKind::Replay, end).await.unwrap();
    let (summary, _) = store.letters.get(id.clone()).await.unwrap().unwrap();
    assert_eq!(
        (summary.attempts, summary.replaying, summary.reason.as_str()),
        (7, false, "destination_gone")
    );
    assert_eq!((summary.first_error.as_str(), summary.last_error.as_str()), ("answered 500", "answered 410"));
    assert_eq!(store.errands("orders").await.len(), 0);
    assert_eq!(store.letters.request_replay(by_id(&id)).await.unwrap(), 1, "and may be asked for again");
}

#[tokio::test]
async fn a_replay_survives_a_restart_in_the_middle() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.letters.request_replay(by_id(&id)).await.unwrap();
    let store = store.reopened().await;
    assert_eq!(ids_of(&store.errands("orders").await), [(id.clone(), ErrandKind::Replay)]);
    let later = store.put("orders", "a2").await.unwrap();
    store.letters.request_replay(by_id(&later)).await.unwrap();
    let both = [(id.clone(), ErrandKind::Replay), (later.clone(), ErrandKind::Replay)];
    assert_eq!(ids_of(&store.errands("orders").await), both, "oldest first across the restart");
    let one = store.letters.errands(sink("orders"), vec![both[0].clone()], 1, usize::MAX).await.unwrap();
    assert_eq!(ids_of(&one), [both[1].clone()], "what is in hand takes no place");
    store.letters.end_errand(sink("orders"), id, ErrandKind::Replay, ErrandEnd::Delivered).await.unwrap();
    let store = store.reopened().await;
    assert_eq!(ids_of(&store.errands("orders").await), [(later, ErrandKind::Replay)]);
    assert_eq!(store.all().await.len(), 1);
}

#[tokio::test]
async fn a_discarded_letter_takes_its_errands_along_and_their_late_end_changes_nothing() {
    let store = Store::new();
    let last = failure(Reason::Timeout, "last");
    let id = store.put_with("orders", &event("a1"), last, Some(&sink("alerts"))).await.unwrap();
    store.letters.request_replay(by_id(&id)).await.unwrap();
    assert_eq!(store.letters.discard(by_id(&id)).await.unwrap(), 1);
    assert_eq!(store.letters.errands_open(), Default::default());
    let again = store.put("orders", "a1").await.unwrap();
    assert_eq!(again, id);
    store
        .letters
        .end_errand(sink("orders"), id.clone(), ErrandKind::Replay, ErrandEnd::Delivered)
        .await
        .unwrap();
    assert!(store.letters.get(id).await.unwrap().is_some(), "the end belonged to a replay that is gone");
}

#[tokio::test]
async fn a_copy_names_the_dead_letter_and_ends_without_touching_it() {
    let store = Store::new();
    let alerts = sink("alerts");
    let last = || failure(Reason::ContentRefused, "answered 422");
    let mut changed = store.letters.errands_changed();
    let id = store.put_with("orders", &event("a1"), last(), Some(&alerts)).await.unwrap();
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    let store = store.reopened().await;
    let errands = store.errands("alerts").await;
    assert_eq!(ids_of(&errands), [(id.clone(), ErrandKind::Copy)]);
    let copy = &errands[0].event;
    assert_eq!((copy.id.as_str(), &copy.data), ("a1", &event("a1").data));
    assert_eq!(copy.attribute(DEAD_LETTER_SINK).as_deref(), Some("orders"));
    assert_eq!(copy.attribute(DEAD_LETTER_REASON).as_deref(), Some("content_refused"));
    assert_eq!(copy.attribute(DEAD_LETTER_ATTEMPTS).as_deref(), Some("3"));
    let died = store.all().await[0].died.to_rfc3339();
    assert_eq!(copy.attribute(DEAD_LETTER_TIME).as_deref(), Some(died.as_str()));

    let end = ErrandEnd::Failed { attempts: 1, last: &failure(Reason::Timeout, "no answer") };
    store.letters.end_errand(alerts.clone(), id.clone(), ErrandKind::Copy, end).await.unwrap();
    assert_eq!(store.errands("alerts").await.len(), 0);
    let (summary, payload) = store.letters.get(id.clone()).await.unwrap().unwrap();
    assert_eq!((summary.last_error.as_str(), summary.attempts), ("answered 422", 3));
    assert_eq!(payload, Payload::Event(event("a1")));
    store.put_with("orders", &event("a1"), last(), Some(&alerts)).await.unwrap();
    assert_eq!(store.errands("alerts").await.len(), 0, "one letter is copied once to one sink");
}

#[tokio::test]
async fn errands_of_a_sink_that_is_gone_are_still_counted() {
    let store = Store::new();
    let last = failure(Reason::Timeout, "last");
    store.put_with("orders", &event("a1"), last, Some(&sink("alerts"))).await.unwrap();
    let store = store.reopened().await;
    store.letters.announce([&sink("orders")]);
    assert_eq!(store.letters.errands_open(), [(sink("alerts"), 1)].into());
}

fn noted(due: i64, note: &'static [u8]) -> Deferral {
    Deferral { due: UnixMs(due), note: Bytes::from_static(note) }
}

/// Something that is answered, so that what was sent before it has been done.
async fn all_is_done(store: &Store) {
    let end = ErrandEnd::Delivered;
    let nobody = LetterId("nobody".to_owned());
    store.letters.end_errand(sink("orders"), nobody, ErrandKind::Replay, end).await.unwrap();
}

#[tokio::test]
async fn what_is_noted_of_an_errand_comes_back_with_it_also_after_a_restart_and_ends_with_it() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.put("orders", "a2").await.unwrap();
    store.letters.request_replay(Filter::default()).await.unwrap();
    let note =
        |due| store.letters.note_errand(sink("orders"), id.clone(), ErrandKind::Replay, noted(due, b"n"));
    note(5);
    note(6);
    all_is_done(&store).await;
    let deferrals = async |store: &Store| -> Vec<Option<Deferral>> {
        store.errands("orders").await.into_iter().map(|errand| errand.deferral).collect()
    };
    let expected = [Some(noted(6, b"n")), None];
    assert_eq!(deferrals(&store).await, expected, "the newest, and of this errand only");
    let store = store.after_a_power_cut();
    assert_eq!(deferrals(&store).await, expected);

    let last = failure(Reason::Timeout, "last");
    let end = ErrandEnd::Failed { attempts: 1, last: &last };
    store.letters.end_errand(sink("orders"), id.clone(), ErrandKind::Replay, end).await.unwrap();
    store.letters.note_errand(sink("orders"), id.clone(), ErrandKind::Replay, noted(7, b"late"));
    all_is_done(&store).await;
    {
        use redb::{ReadableDatabase, ReadableTableMetadata};
        let snapshot = store.letters.shared.database().unwrap().begin_read().unwrap();
        let notes = snapshot.open_table(crate::dead_letter::rows::ERRAND_NOTES).unwrap();
        assert_eq!(notes.len().unwrap(), 0, "nothing is kept of what has ended");
    }
    store.letters.request_replay(Filter::default()).await.unwrap();
    assert_eq!(deferrals(&store).await, [None, None], "asked for anew it starts anew");
    let store = store.reopened().await;
    assert_eq!(deferrals(&store).await, [None, None]);
}

#[tokio::test]
async fn a_note_that_an_earlier_version_left_behind_is_nobody_elses() {
    let store = Store::new();
    let id = store.put("orders", "a1").await.unwrap();
    store.letters.request_replay(Filter::default()).await.unwrap();
    store.letters.note_errand(sink("orders"), id, ErrandKind::Replay, noted(6, b"n"));
    all_is_done(&store).await;
    {
        // It knows nothing of notes.
        let database = store.letters.shared.database().unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(crate::dead_letter::rows::ERRANDS).unwrap().retain(|_, _| false).unwrap();
        transaction
            .open_table(crate::dead_letter::rows::ERRAND_NUMBERS)
            .unwrap()
            .retain(|_, _| false)
            .unwrap();
        transaction.commit().unwrap();
    }
    let store = store.reopened().await;
    store.put("orders", "a2").await.unwrap();
    let second = Filter { event_type: Some("com.example.a".into()), ..Filter::default() };
    store.letters.request_replay(second).await.unwrap();
    assert!(store.errands("orders").await.iter().all(|errand| errand.deferral.is_none()));
}
