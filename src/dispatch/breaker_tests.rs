//! The breaker, walked through its states with a time of the test's own.

use super::*;

fn refused() -> Failure {
    Failure::new(Reason::ConnectionRefused, "nothing listens there")
}
fn rejected(reason: Reason) -> Failure {
    Failure::new(reason, "the sink says no")
}

#[test]
fn an_away_sink_gets_one_probe_at_a_time_and_ever_longer_waits_up_to_the_limit() {
    let mut now = Instant::now();
    let mut breaker = Breaker::new(8);
    assert_eq!(breaker.permit(now), Permit::Send(8));
    assert!(breaker.away(now, refused(), 1.0), "the first failure opens it");
    let mut waits = Vec::new();
    for _ in 0..8 {
        let Permit::WaitUntil(probe_at) = breaker.permit(now) else { panic!("an open breaker waits first") };
        waits.push((probe_at - now).as_secs());
        now = probe_at;
        assert_eq!(breaker.permit(now), Permit::Probe);
        breaker.probe_sent();
        assert_eq!(breaker.permit(now), Permit::AwaitProbe, "one probe at a time");
        assert!(!breaker.away(now, refused(), 1.0), "it was open already");
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15, 15]);
}

#[test]
fn a_confirmed_probe_closes_the_breaker_and_forgets_the_failure() {
    let now = Instant::now();
    let mut breaker = Breaker::new(8);
    breaker.away(now, refused(), 0.5);
    breaker.nudge(now);
    assert_eq!(breaker.permit(now), Permit::Probe, "a nudge lets the probe go at once");
    breaker.probe_sent();
    assert!(breaker.delivered(now));
    assert_eq!(breaker.permit(now), Permit::Send(8));
    assert_eq!(breaker.failure(), None);
}

#[test]
fn a_probe_that_fails_by_itself_shows_that_the_sink_is_back() {
    let now = Instant::now();
    let mut breaker = Breaker::new(8);
    breaker.away(now, refused(), 0.5);
    breaker.probe_sent();
    breaker.retried(now, 0.5);
    assert_eq!(breaker.permit(now), Permit::Send(8));
}

#[test]
fn what_was_under_way_when_the_breaker_opened_neither_delays_the_probe_nor_closes_it() {
    let now = Instant::now();
    let mut breaker = Breaker::new(64);
    breaker.away(now, refused(), 1.0);
    let first_probe = Permit::WaitUntil(now + WAIT_FIRST);
    for _ in 0..20 {
        assert!(!breaker.away(now, refused(), 1.0));
        breaker.retried(now, 1.0);
    }
    assert_eq!(breaker.rejected(now, &rejected(Reason::ContentRefused), 1.0), Rejected::Bury);
    assert_eq!(breaker.permit(now), first_probe);

    let mut suspect = Breaker::new(64);
    for _ in 0..REJECTIONS_IN_A_ROW + 20 {
        suspect.rejected(now, &rejected(Reason::ContentRefused), 1.0);
    }
    assert_eq!(suspect.permit(now), first_probe);
}

#[test]
fn a_burst_of_answers_that_ask_for_less_is_one_pause_of_the_first_length() {
    let now = Instant::now();
    let mut breaker = Breaker::new(64);
    for _ in 0..64 {
        breaker.busy(now, None, refused(), 1.0);
    }
    assert_eq!(breaker.permit(now), Permit::WaitUntil(now + WAIT_FIRST));
}

#[test]
fn a_busy_sink_gets_the_pause_it_asked_for_and_then_half_the_window() {
    let now = Instant::now();
    let mut breaker = Breaker::new(8);
    breaker.busy(now, Some(Duration::from_secs(30)), refused(), 1.0);
    assert_eq!(breaker.permit(now), Permit::WaitUntil(now + Duration::from_secs(30)));
    let later = now + Duration::from_secs(30);
    assert_eq!(breaker.permit(later), Permit::Send(4));
    breaker.busy(later, None, refused(), 1.0);
    breaker.busy(later, None, refused(), 1.0);
    let Permit::WaitUntil(until) = breaker.permit(later) else { panic!("busy again") };
    assert!(until > later);
    assert_eq!(breaker.permit(until), Permit::Send(2), "two answers of one burst halve the window once");
}

#[test]
fn a_delivery_that_was_under_way_does_not_end_the_pause_the_sink_asked_for() {
    let now = Instant::now();
    let mut breaker = Breaker::new(8);
    breaker.busy(now, Some(Duration::from_secs(30)), refused(), 1.0);
    breaker.delivered(now);
    assert_eq!(breaker.permit(now), Permit::WaitUntil(now + Duration::from_secs(30)));
}

#[test]
fn confirmed_deliveries_let_the_window_grow_back() {
    let now = Instant::now();
    let mut breaker = Breaker::new(4);
    breaker.busy(now, Some(Duration::ZERO), refused(), 1.0);
    assert_eq!(breaker.permit(now), Permit::Send(2));
    for _ in 0..2 + 3 {
        breaker.delivered(now);
    }
    assert_eq!(breaker.permit(now), Permit::Send(4));
}

#[test]
fn the_twentieth_rejection_in_a_row_makes_the_sink_suspect_and_only_a_delivery_clears_it() {
    let now = Instant::now();
    let mut breaker = Breaker::new(8);
    let no = rejected(Reason::ContentRefused);
    for _ in 0..REJECTIONS_IN_A_ROW - 1 {
        assert_eq!(breaker.rejected(now, &no, 0.5), Rejected::Bury);
    }
    assert_eq!(breaker.rejected(now, &no, 0.5), Rejected::Keep);
    assert!(breaker.is_open());
    breaker.probe_sent();
    assert_eq!(breaker.rejected(now, &no, 0.5), Rejected::Keep, "the next probe is rejected, too");
    breaker.probe_sent();
    breaker.retried(now, 0.5);
    assert!(breaker.is_open(), "a failure that may pass says nothing about the rejections");
    breaker.probe_sent();
    assert!(breaker.delivered(now));
    assert_eq!(breaker.rejected(now, &no, 0.5), Rejected::Bury, "the run starts over");
}

#[test]
fn another_reason_or_a_delivery_breaks_the_run_of_rejections() {
    let now = Instant::now();
    let mut breaker = Breaker::new(8);
    for round in 0..REJECTIONS_IN_A_ROW * 2 {
        let reason = if round % 19 == 18 { Reason::TooLarge } else { Reason::ContentRefused };
        assert_eq!(breaker.rejected(now, &rejected(reason), 0.5), Rejected::Bury, "rejection {round}");
    }
    for _ in 0..REJECTIONS_IN_A_ROW * 2 {
        assert_eq!(breaker.rejected(now, &rejected(Reason::TooLarge), 0.5), Rejected::Bury);
        breaker.delivered(now);
    }
}
