//! `hookbus status`: health, journal, lanes, dead letters and sources of the running daemon.
//! Holds: exit code 3 while no events are taken, a lane cannot deliver, or what became of events does not add up (R4).

use super::client::Client;
use super::settings::AdminArguments;
use super::{CliError, Ending, human};
use crate::clock;
use crate::journal::Account;
use crate::time::UnixMs;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

#[derive(clap::Args, Debug, Default)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

/// What the tables need of the listener's answer; it may say more.
#[derive(Deserialize)]
struct Status {
    version: String,
    uptime_seconds: u64,
    ready: bool,
    not_ready_because: Option<String>,
    journal: Journal,
    lanes: Vec<Lane>,
    dead_letters: DeadLetters,
    sources: Vec<Source>,
}

#[derive(Deserialize)]
struct Journal {
    health: String,
    bytes: u64,
    bytes_max: u64,
    segments: u64,
    records: u64,
    oldest: Option<UnixMs>,
    damaged_ranges: u64,
}

#[derive(Deserialize)]
struct Lane {
    sink: String,
    kind: String,
    state: String,
    failure: Option<Failure>,
    lag: Lag,
    in_flight: u64,
    held: u64,
    account: Account,
}

#[derive(Deserialize)]
struct Failure {
    reason: String,
    detail: String,
}

#[derive(Deserialize)]
struct Lag {
    events: u64,
    oldest: Option<UnixMs>,
}

#[derive(Deserialize)]
struct DeadLetters {
    by_sink: BTreeMap<String, u64>,
    quarantined: u64,
    bytes: u64,
    bytes_max: u64,
    accounts: BTreeMap<String, LetterAccount>,
    quarantines: LetterAccount,
    unaccounted: i64,
}

#[derive(Deserialize, Default)]
struct LetterAccount {
    created: u64,
    replayed: u64,
    discarded: u64,
}

#[derive(Deserialize)]
struct Source {
    name: String,
    kind: String,
    path: String,
    authenticated: bool,
}

pub(super) async fn status(config: Option<&Path>, arguments: &Arguments) -> Result<Ending, CliError> {
    let client = Client::new(arguments.admin.target(config)?)?;
    let document: serde_json::Value = client.get("/api/v1/status", &[]).await?;
    let status = Status::deserialize(&document)
        .map_err(|error| CliError::Failed(format!("the answer is not one of this version: {error}")))?;
    if arguments.json {
        human::say_json(&document)?;
    } else {
        human::say(&render(&status, clock::now()))?;
    }
    Ok(if status.is_healthy() { Ending::Done } else { Ending::NotHealthy })
}

impl Status {
    /// A lane that an operator paused, or whose sink asks for less, is as it should be.
    fn is_healthy(&self) -> bool {
        let delivers = !self.lanes.iter().any(|lane| matches!(lane.state.as_str(), "away" | "stuck"));
        self.ready && delivers && self.miscounts().is_empty()
    }

    /// What does not add up, a loud sentence each: it never should.
    fn miscounts(&self) -> Vec<String> {
        let verify = "stop the daemon and run `hookbus journal verify`";
        let lanes = self.lanes.iter().filter(|lane| lane.account.unaccounted != 0).map(|lane| {
            let (sink, events) = (human::harmless(&lane.sink), lane.account.unaccounted);
            format!("THE EVENTS OF {sink} DO NOT ADD UP: {events} unaccounted for; {verify}")
        });
        let letters = (self.dead_letters.unaccounted != 0).then(|| {
            let letters = self.dead_letters.unaccounted;
            format!("THE DEAD LETTERS DO NOT ADD UP: {letters} unaccounted for; {verify}")
        });
        lanes.chain(letters).collect()
    }
}

fn render(status: &Status, now: UnixMs) -> String {
    let uptime = human::duration(Duration::from_secs(status.uptime_seconds));
    let ready = match &status.not_ready_because {
        None if status.ready => "ready".to_owned(),
        reason => format!("NOT READY: {}", reason.as_deref().unwrap_or("no reason given")),
    };
    let mut head = format!("hookbus {}, up {uptime}, {ready}", human::harmless(&status.version));
    for miscount in status.miscounts() {
        head = format!("{head}\n{miscount}");
    }
    [
        head,
        journal(&status.journal, now),
        lanes(&status.lanes, now),
        accounts(&status.lanes),
        letters(&status.dead_letters),
        sources(&status.sources),
    ]
    .join("\n\n")
}

fn journal(journal: &Journal, now: UnixMs) -> String {
    let damage = match journal.damaged_ranges {
        0 => String::new(),
        ranges => format!("\n  {ranges} damaged ranges were set aside in the data directory's damaged/"),
    };
    format!(
        "journal: {}, {} of {} in {} segments, {} records, the oldest {} old{damage}",
        human::harmless(&journal.health),
        human::bytes(journal.bytes),
        human::bytes(journal.bytes_max),
        journal.segments,
        journal.records,
        human::age(journal.oldest, now),
    )
}

fn lanes(lanes: &[Lane], now: UnixMs) -> String {
    let mut table = human::table(&["SINK", "KIND", "STATE", "BEHIND", "OLDEST", "IN FLIGHT", "HELD", "WHY"]);
    for lane in lanes {
        let why = lane.failure.as_ref().map(|failure| format!("{}: {}", failure.reason, failure.detail));
        table.add_row([
            human::harmless(&lane.sink),
            human::harmless(&lane.kind),
            human::harmless(&lane.state),
            lane.lag.events.to_string(),
            human::age(lane.lag.oldest, now),
            lane.in_flight.to_string(),
            lane.held.to_string(),
            human::harmless(&why.unwrap_or_default()),
        ]);
    }
    table.trim_fmt()
}

/// What became of everything, since each sink's counting began.
fn accounts(lanes: &[Lane]) -> String {
    let mut table = human::account_table();
    for lane in lanes {
        table.add_row(human::account_row(&lane.sink, &lane.account));
    }
    table.trim_fmt()
}

fn letters(letters: &DeadLetters) -> String {
    let count: u64 = letters.by_sink.values().sum();
    let sinks: Vec<String> = letters
        .by_sink
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(sink, count)| format!("{sink} {count}"))
        .collect();
    let by_sink =
        if sinks.is_empty() { String::new() } else { format!(" ({})", human::harmless(&sinks.join(", "))) };
    let sum = |of: fn(&LetterAccount) -> u64| letters.accounts.values().map(of).sum::<u64>();
    format!(
        "dead letters: {count} undelivered{by_sink}, {} quarantined, {} of {}\n  \
         ever made: {} ({} replayed, {} discarded); ever quarantined: {} ({} read at last, {} discarded)",
        letters.quarantined,
        human::bytes(letters.bytes),
        human::bytes(letters.bytes_max),
        sum(|account| account.created),
        sum(|account| account.replayed),
        sum(|account| account.discarded),
        letters.quarantines.created,
        letters.quarantines.replayed,
        letters.quarantines.discarded,
    )
}

fn sources(sources: &[Source]) -> String {
    let mut table = human::table(&["SOURCE", "KIND", "PATH", "AUTHENTICATED"]);
    for source in sources {
        let authenticated = if source.authenticated { "yes" } else { "no" };
        table.add_row([
            human::harmless(&source.name),
            human::harmless(&source.kind),
            human::harmless(&source.path),
            authenticated.to_owned(),
        ]);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status_with(ready: bool, state: &str) -> Status {
        let lane = json!({
            "sink": "orders", "kind": "http", "state": state,
            "failure": {"reason": "connection_refused", "detail": "nothing listens\u{1b}[2J"},
            "lag": {"events": 3, "oldest": 1_000}, "in_flight": 1, "held": 2, "account": {
                "accepted": 48, "delivered": 40, "dead_lettered": 5, "shed": 0, "not_routed": 0, "missing": 0,
                "in_journal": 3, "unaccounted": 0,
            },
        });
        serde_json::from_value(json!({
            "version": "0.1.0", "uptime_seconds": 61, "ready": ready,
            "not_ready_because": (!ready).then_some("the journal is full"),
            "journal": {"health": "ready", "bytes": 2048, "bytes_max": 4096, "segments": 1, "records": 3,
                        "oldest": null, "damaged_ranges": 0},
            "lanes": [lane],
            "dead_letters": {"by_sink": {"audit": 0, "orders": 5}, "quarantined": 1, "bytes": 10, "bytes_max": 20,
                "accounts": {"orders": {"created": 9, "replayed": 3, "discarded": 1, "kept": 5}},
                "quarantines": {"created": 1, "replayed": 0, "discarded": 0, "kept": 1}, "unaccounted": 0},
            "sources": [{"name": "zapi", "kind": "zapi", "path": "/hooks/zapi/***", "authenticated": true}],
            "later": "versions may say more",
        }))
        .unwrap()
    }

    #[test]
    fn only_what_needs_an_operator_is_not_healthy() {
        for (sentence, ready, state, healthy) in [
            ("all is well", true, "running", true),
            ("an operator's pause is no trouble", true, "paused", true),
            ("a sink that asks for less is no trouble", true, "busy", true),
            ("a sink that is away is", true, "away", false),
            ("a stuck lane is", true, "stuck", false),
            ("so is a daemon that takes no events", false, "running", false),
        ] {
            assert_eq!(status_with(ready, state).is_healthy(), healthy, "{sentence}");
        }
    }

    #[test]
    fn what_does_not_add_up_is_said_first_and_loudly() {
        let mut status = status_with(true, "running");
        status.lanes[0].account.unaccounted = 2;
        status.dead_letters.unaccounted = -1;
        assert!(!status.is_healthy());
        let text = render(&status, UnixMs(61_000));
        let loud: Vec<&str> = text.lines().skip(1).take(2).collect();
        assert!(loud[0].starts_with("THE EVENTS OF orders DO NOT ADD UP: 2 unaccounted for"), "{text}");
        assert!(loud[1].starts_with("THE DEAD LETTERS DO NOT ADD UP: -1 unaccounted for"), "{text}");
    }

    #[test]
    fn the_tables_say_what_an_operator_looks_for() {
        let text = render(&status_with(false, "away"), UnixMs(61_000));
        for wanted in [
            "NOT READY: the journal is full",
            "up 1m 1s",
            "2.0 KiB of 4.0 KiB",
            "orders",
            "away",
            "connection_refused: nothing listens",
            "5 undelivered (orders 5), 1 quarantined",
            "ever made: 9 (3 replayed, 1 discarded); ever quarantined: 1 (0 read at last, 0 discarded)",
            "/hooks/zapi/***",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "what a sink said cannot drive the terminal");
    }
}
