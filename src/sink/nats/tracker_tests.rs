//! What becomes of messages in flight, event by event, as the client would tell them.

use super::*;
use std::future::Future;
use std::task::{Context, Poll, Waker};

/// What is known of a message now; `None` while it waits.
fn known(ticket: &mut Ticket) -> Option<Outcome> {
    let mut outcome = std::pin::pin!(ticket.outcome());
    match outcome.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn is_away(ticket: &mut Ticket) -> bool {
    matches!(known(ticket), Some(Outcome::Away(failure)) if failure.reason == Reason::NotAuthorized)
}

fn with_fences() -> Tracker {
    Tracker::new(Arc::default(), true)
}

fn published(tracker: &Arc<Tracker>, subject: &str) -> (Ticket, bool) {
    let ticket = tracker.wait_for(subject, false, 1).unwrap();
    let is_due = tracker.handed_over(ticket.number, None);
    (ticket, is_due)
}

fn fence() -> Event {
    Event::SlowConsumer(1)
}

fn denial(subject: &str) -> Event {
    Event::ServerError(ServerError::Other(format!("Permissions Violation for Publish to \"{subject}\"")))
}

#[test]
fn a_fence_covers_what_was_handed_over_before_it_and_no_more() {
    let tracker = Arc::new(with_fences());
    let (mut first, is_due) = published(&tracker, "a");
    assert!(is_due, "the first sends a fence");
    let (mut second, is_due) = published(&tracker, "b");
    assert!(!is_due, "one fence at a time");
    let mut waits = tracker.wait_for("c", false, 1).unwrap();
    assert!(tracker.told(&fence()), "the second needs a fence of its own");
    assert_eq!(known(&mut first), Some(Outcome::Delivered));
    assert_eq!((known(&mut second), known(&mut waits)), (None, None));
    assert!(!tracker.told(&fence()), "nothing was handed over since");
    assert_eq!((known(&mut second), known(&mut waits)), (Some(Outcome::Delivered), None));
}

#[test]
fn a_refusal_before_the_fence_counts_for_its_subject_alone() {
    let tracker = Arc::new(with_fences());
    let (mut good, _) = published(&tracker, "good");
    let (mut bad, _) = published(&tracker, "bad");
    let (mut bad_too, _) = published(&tracker, "bad");
    for _ in 0..2 {
        tracker.told(&denial("bad"));
    }
    assert!(is_away(&mut bad) && is_away(&mut bad_too));
    tracker.told(&fence());
    tracker.told(&fence());
    assert_eq!(known(&mut good), Some(Outcome::Delivered));
}

#[test]
fn an_event_that_leads_to_a_refused_subject_is_rejected_in_its_turn_and_no_other_is_harmed() {
    let tracker = Arc::new(with_fences());
    let mut tickets: Vec<_> = ["good", "bad", "bad", "good"]
        .into_iter()
        .map(|subject| {
            let ticket = tracker.wait_for(subject, true, 1).unwrap();
            tracker.handed_over(ticket.number, None);
            ticket
        })
        .collect();
    for _ in 0..2 {
        tracker.told(&denial("bad"));
    }
    assert!(tickets.iter_mut().all(|ticket| known(ticket).is_none()), "not before those that were taken");
    tracker.told(&fence());
    tracker.told(&fence());
    for (ticket, is_refused) in tickets.iter_mut().zip([false, true, true, false]) {
        let outcome = known(ticket).unwrap();
        let is_rejected = matches!(&outcome, Outcome::Reject(failure)
            if failure.reason == Reason::NotAuthorized && failure.detail.contains("bad"));
        assert!(if is_refused { is_rejected } else { outcome == Outcome::Delivered }, "{outcome:?}");
    }
    assert!(tracker.wait_for("good", true, 1).is_ok(), "the connection stays");
}

#[test]
fn without_fences_each_refusal_rejects_one_event_however_many_there_are() {
    let tracker = Arc::new(Tracker::new(Arc::default(), false));
    let mut good = tracker.wait_for("good", true, 1).unwrap();
    for _ in 0..3 * DENIALS_MAX {
        let mut bad = [(); 2].map(|()| tracker.wait_for("bad", true, 1).unwrap());
        for ticket in &mut bad {
            assert_eq!(known(ticket), None);
            tracker.told(&denial("bad"));
            assert!(matches!(known(ticket), Some(Outcome::Reject(_))));
        }
    }
    assert_eq!(known(&mut good), None);
}

#[test]
fn more_refusals_than_can_be_told_apart_leave_those_open_that_were_not_named() {
    let refused = Arc::new(Refused::default());
    let tracker = Arc::new(Tracker::new(Arc::clone(&refused), true));
    let wait_for = |subject: &str| tracker.wait_for(subject, true, 1).unwrap();
    let mut bad: Vec<_> = (0..DENIALS_MAX).map(|number| wait_for(&format!("bad.{number}"))).collect();
    let mut open = wait_for("good");
    for number in 0..DENIALS_MAX {
        tracker.told(&denial(&format!("bad.{number}")));
    }
    assert!(bad.iter_mut().all(|ticket| matches!(known(ticket), Some(Outcome::Reject(_)))));
    assert!(matches!(known(&mut open), Some(Outcome::Retry(_))), "the lane goes on");
    assert!(tracker.wait_for("good", true, 1).is_err());
    assert!(refused.has_subject(), "the next connection is careful");
}

#[test]
fn a_refusal_of_nobody_known_is_everybody_s() {
    for event in [
        denial("mapped"),
        Event::ServerError(ServerError::Other(
            "Permissions Violation for Subscription to \"_INBOX.x\"".to_owned(),
        )),
    ] {
        let tracker = Arc::new(with_fences());
        let (mut one, _) = published(&tracker, "one");
        tracker.told(&event);
        assert!(is_away(&mut one));
        assert!(tracker.wait_for("one", false, 1).is_err(), "the connection is of no more use");
    }
}

#[test]
fn so_many_refusals_that_some_may_be_lost_end_everything_before_the_next_fence() {
    let tracker = Arc::new(with_fences());
    // Of 128 events that wait, one of them a fence, so many are on one side of it at least (see `link`).
    const SURE: u32 = 63;
    let mut bad: Vec<Ticket> = (0..SURE).map(|n| published(&tracker, &format!("bad.{n}")).0).collect();
    let (mut lost_refusal, _) = published(&tracker, "bad.lost");
    for number in 0..SURE {
        tracker.told(&denial(&format!("bad.{number}")));
    }
    for _ in 0..2 {
        tracker.told(&fence());
    }
    assert!(bad.iter_mut().all(is_away) && is_away(&mut lost_refusal));
    assert!(tracker.wait_for("good", false, 1).is_err());
}

#[test]
fn what_is_in_flight_when_the_connection_ends_may_have_arrived() {
    let tracker = Arc::new(with_fences());
    tracker.name("nats.example.com:4222");
    let (mut one, _) = published(&tracker, "one");
    tracker.told(&Event::ServerError(ServerError::Other("Stale Connection".to_owned())));
    tracker.told(&Event::Disconnected);
    let Some(Outcome::Retry(failure)) = known(&mut one) else { panic!("the outcome is unknown") };
    assert_eq!(failure.reason, Reason::ConnectionLost);
    assert!(
        failure.detail.starts_with("nats.example.com:4222: ") && failure.detail.ends_with("Stale Connection")
    );
    assert!(*tracker.is_lost().borrow());
    assert!(tracker.wait_for("one", false, 1).is_err());
}

#[test]
fn the_largest_of_those_nothing_is_known_of_ended_the_connection_unless_it_is_gone() {
    let too_large = || Event::ServerError(ServerError::Other("Maximum Payload Violation".to_owned()));
    let sent = |tracker: &Arc<Tracker>, subject: &str, bytes| {
        let ticket = tracker.wait_for(subject, false, bytes).unwrap();
        tracker.handed_over(ticket.number, None);
        ticket
    };
    for (sentence, goes, is_refused) in [
        ("it waits", None, true),
        ("a smaller one gave up", Some(("gone", 50)), true),
        ("one that may have been it gave up", Some(("gone", 101)), false),
        ("one that may have been it was refused before for its subject", Some(("denied", 101)), false),
    ] {
        let refused = Arc::new(Refused::default());
        let tracker = Arc::new(Tracker::new(Arc::clone(&refused), true));
        let mut confirmed = sent(&tracker, "a", 1000);
        tracker.told(&fence());
        let (mut small, mut large) = (sent(&tracker, "a", 10), sent(&tracker, "a", 100));
        if let Some((subject, bytes)) = goes {
            let ticket = sent(&tracker, subject, bytes);
            if subject == "denied" {
                tracker.told(&denial(subject));
            }
            drop(ticket);
        }
        tracker.told(&too_large());
        tracker.told(&Event::Disconnected);
        assert_eq!(known(&mut confirmed), Some(Outcome::Delivered), "{sentence}");
        assert!(matches!(known(&mut small), Some(Outcome::Retry(_))), "{sentence}");
        let outcome = known(&mut large).unwrap();
        let is_rejected = matches!(&outcome, Outcome::Reject(failure) if failure.reason == Reason::TooLarge);
        assert_eq!(is_rejected, is_refused, "{sentence}: {outcome:?}");
        assert_eq!(refused.bytes_max(), if is_refused { 99 } else { usize::MAX }, "{sentence}");
    }
}

#[test]
fn who_stops_waiting_leaves_nothing_behind() {
    let tracker = Arc::new(with_fences());
    drop(published(&tracker, "one"));
    assert!(tracker.state().entries.is_empty());
    let (mut two, _) = published(&tracker, "two");
    assert!(tracker.told(&fence()), "the fence of who went covers who went");
    tracker.told(&fence());
    assert_eq!(known(&mut two), Some(Outcome::Delivered));
}
