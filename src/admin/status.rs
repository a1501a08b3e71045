//! What the daemon says about itself: alive, ready, its metrics, and everything at once.
//! Holds: readiness is about taking events in; no sink's trouble makes the process unready (R5). Nothing here waits for
//! the disk, so that it can be told that the disk hangs.

use super::problem::Problem;
use super::{Desk, SourceSummary};
use crate::clock;
use crate::dead_letter::Totals;
use crate::dispatch::LaneStatus;
use crate::journal::{self, Account, Health};
use crate::telemetry::metrics::{delivery::LaneAccount, journal as journal_metrics, process};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Everything `hookbus status` shows.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    ready: bool,
    not_ready_because: Option<&'static str>,
    journal: journal::Status,
    lanes: Vec<LaneStatus>,
    dead_letters: Totals,
    sources: Vec<SourceSummary>,
}

/// 200 for as long as the process can answer at all.
pub(super) async fn livez() -> &'static str {
    "alive\n"
}

/// 200 while events are taken; 503 with the reason otherwise.
pub(super) async fn readyz(State(desk): State<Arc<Desk>>) -> Result<&'static str, Problem> {
    match obstacle(&desk) {
        None => Ok("ready\n"),
        Some(reason) => Err(Problem::not_ready(reason)),
    }
}

fn obstacle(desk: &Desk) -> Option<&'static str> {
    let accepting = desk.parts.accepting.load(Ordering::Acquire);
    let stalls = desk.parts.journal.stalled_for() >= desk.parts.stall_max;
    what_hinders(accepting, *desk.parts.journal.health().borrow(), stalls)
}

fn what_hinders(accepting: bool, journal: Health, stalls: bool) -> Option<&'static str> {
    match journal {
        Health::Failed => Some("a write or sync of the journal failed; restart to recover it"),
        Health::Closed => Some("the journal is closed"),
        Health::Ready | Health::Full if !accepting => {
            Some("the ingress is not accepting: starting or stopping")
        }
        Health::Full => Some("the journal is full; let the sinks catch up or raise journal.disk_max"),
        Health::Ready if stalls => {
            Some("the disk hangs: a write or sync of the journal lasts longer than ingress.store_timeout")
        }
        Health::Ready => None,
    }
}

/// The Prometheus text format, version 0.0.4.
pub(super) async fn metrics(State(desk): State<Arc<Desk>>) -> impl IntoResponse {
    let rendered = {
        // One at a time, or another scrape's numbers would come between: what is in one answer must add up (R4). Whoever
        // waits takes no thread from senders and sinks.
        let _alone = desk.scrapes.lock().await;
        process::ready(obstacle(&desk).is_none());
        journal_metrics::stalled_for(desk.parts.journal.stalled_for());
        desk.parts.dead_letters.show();
        show_accounts(&desk.parts.lanes.status());
        desk.parts.metrics.render()
    };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], rendered)
}

fn show_accounts(lanes: &[LaneStatus]) {
    let now = clock::now();
    for LaneStatus { sink, lag, account, .. } in lanes {
        let Account {
            accepted,
            delivered,
            dead_lettered,
            shed,
            not_routed,
            missing,
            in_journal,
            unaccounted,
        } = *account;
        let shown = LaneAccount {
            accepted,
            accounted: [delivered, dead_lettered, shed, not_routed, missing],
            lag_events: in_journal,
            unaccounted,
            oldest_age: lag.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)),
        };
        shown.show(sink);
    }
}

/// Everything at once.
pub(super) async fn status(State(desk): State<Arc<Desk>>) -> Json<Status> {
    let not_ready_because = obstacle(&desk);
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: desk.started.elapsed().as_secs(),
        ready: not_ready_because.is_none(),
        not_ready_because,
        journal: desk.parts.journal.status(),
        lanes: desk.parts.lanes.status(),
        dead_letters: desk.parts.dead_letters.totals(),
        sources: desk.parts.sources.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_only_by_an_open_door_and_a_healthy_journal_on_a_disk_that_answers() {
        let (open, stopping) = (true, false);
        let (answers, hangs) = (false, true);
        for (sentence, accepting, journal, stalls, hindered_by) in [
            ("all is well", open, Health::Ready, answers, None),
            ("stopping", stopping, Health::Ready, answers, Some("not accepting")),
            ("no room", open, Health::Full, answers, Some("full")),
            ("a failed sync (R6)", open, Health::Failed, answers, Some("restart")),
            (
                "a failed sync explains more than the stop after it",
                stopping,
                Health::Failed,
                answers,
                Some("restart"),
            ),
            ("closed", open, Health::Closed, answers, Some("closed")),
            ("a sync that hangs", open, Health::Ready, hangs, Some("disk hangs")),
            (
                "a stop is said before the disk it waits for",
                stopping,
                Health::Ready,
                hangs,
                Some("not accepting"),
            ),
            ("a failed sync is not over", open, Health::Failed, hangs, Some("restart")),
        ] {
            let reason = what_hinders(accepting, journal, stalls);
            assert_eq!(reason.is_some(), hindered_by.is_some(), "{sentence}");
            assert!(
                reason.unwrap_or_default().contains(hindered_by.unwrap_or_default()),
                "{sentence}: {reason:?}"
            );
        }
    }
}
