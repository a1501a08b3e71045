//! `hookbus journal inspect | verify`: what lies in the data directory, and whether it adds up (R4).
//! Holds: R8 (of a record its size and the event's id, source and type, never its payload); nothing is ever written. The
//! only commands that touch the data directory beside `run`: `inspect` reads along with a running daemon, `verify` wants
//! the directory for itself and says who has it (exit code 75).

use super::{CliError, Ending, human};
use crate::app::config::{Config, process_environment};
use crate::clock;
use crate::dead_letter;
use crate::envelope::Envelope;
use crate::journal::inspect::{self, CursorFound, Inspection, RecordFound, SegmentFound, Verification};
use crate::journal::{OpenError, ReadOnlyDisk};
use crate::time::UnixMs;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::Path;

/// The most records that one listing shows.
const RECORDS_MAX: usize = 10_000;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Show segments, cursors and what was set aside; fine while the daemon runs
    Inspect {
        /// Show records instead: number, arrival, size, and the event's id, source and type
        #[arg(long)]
        records: bool,
        /// The number of the first record to show; without it the oldest
        #[arg(long, value_name = "NUMBER", requires = "records")]
        from: Option<u64>,
        /// The most records to show
        #[arg(long, value_name = "N", default_value_t = 100, requires = "records")]
        limit: usize,
        /// Print a JSON document instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Read every record and recount what became of each; the daemon must not be running
    Verify {
        /// Print a JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn journal(config: Option<&Path>, command: &Command) -> Result<Ending, CliError> {
    let config = Config::on_disk(config, &process_environment())?;
    let directory = config.data_dir.join("journal");
    match *command {
        Command::Inspect { records: true, from, limit, json } => {
            list(&directory, from.unwrap_or(0), limit.min(RECORDS_MAX), json)
        }
        Command::Inspect { json, .. } => {
            let found = inspect::inspect(&directory, &ReadOnlyDisk).map_err(unreadable)?;
            if json {
                human::say_json(&found)?
            } else {
                human::say(&shown(&found, clock::now()))?
            }
            Ok(Ending::Done)
        }
        Command::Verify { json } => {
            // To the end: the dead letters belong to it.
            let held = match inspect::hold(&directory, &ReadOnlyDisk) {
                Err(error @ OpenError::Locked { .. }) => {
                    human::complain(&format!(
                        "hookbus: {error}; stop it first, or use `hookbus journal inspect`"
                    ));
                    return Ok(Ending::InUse);
                }
                held => held.map_err(unreadable)?,
            };
            let journal = inspect::verify(&directory, &ReadOnlyDisk, &config.sinks).map_err(unreadable)?;
            let dead_letters = dead_letter::inspect(&config.data_dir)
                .map_err(|error| CliError::Failed(error.to_string()))?;
            drop(held);
            verdict(&Verdict { journal, dead_letters }, json)
        }
    }
}

fn unreadable(error: OpenError) -> CliError {
    CliError::Failed(error.to_string())
}

/// What `verify --json` prints.
#[derive(Serialize)]
struct Verdict {
    journal: Verification,
    /// `null` where there is no store.
    dead_letters: Option<dead_letter::Inspection>,
}

fn verdict(verdict: &Verdict, json: bool) -> Result<Ending, CliError> {
    let letters = verdict.dead_letters.as_ref();
    let findings: Vec<&String> =
        verdict.journal.findings.iter().chain(letters.iter().flat_map(|letters| &letters.findings)).collect();
    if json {
        human::say_json(verdict)?;
    } else {
        human::say(&recount(&verdict.journal))?;
        human::say("")?;
        if let Some(letters) = letters {
            human::say(&letter_recount(letters))?;
            human::say("")?;
        }
        for note in &verdict.journal.notes {
            human::say(&format!("note: {}", human::harmless(note)))?;
        }
        for finding in &findings {
            human::say(&format!("WRONG: {}", human::harmless(finding)))?;
        }
        if findings.is_empty() {
            human::say("all adds up")?;
        }
    }
    Ok(if findings.is_empty() { Ending::Done } else { Ending::NotHealthy })
}

fn recount(journal: &Verification) -> String {
    let mut table = human::account_table();
    for cursor in &journal.cursors {
        match &cursor.account {
            Some(account) => table.add_row(human::account_row(&cursor.name, account)),
            None => table.add_row([human::harmless(&cursor.name), "unreadable".to_owned()]),
        };
    }
    format!(
        "{} records in {} segments, the last number is {}\n\n{}",
        journal.records,
        journal.segments,
        journal.last,
        table.trim_fmt(),
    )
}

fn letter_recount(letters: &dead_letter::Inspection) -> String {
    let mut table = human::table(&["DEAD LETTERS OF", "MADE", "REPLAYED", "DISCARDED", "KEPT"]);
    let totals = &letters.totals;
    let sinks = totals.accounts.iter().map(|(sink, account)| (sink.as_str(), account));
    for (name, account) in sinks.chain([("(quarantines)", &totals.quarantines)]) {
        let counts = [account.created, account.replayed, account.discarded, account.kept];
        table.add_row([human::harmless(name)].into_iter().chain(counts.map(|count| count.to_string())));
    }
    table.trim_fmt()
}

fn shown(found: &Inspection, now: UnixMs) -> String {
    let until = found.remembered_until.filter(|until| *until > now);
    let identities = match until {
        Some(until) => format!("{} in the last segment, until {}", found.identities, until.to_rfc3339()),
        None => format!("{} in the last segment, none of them remembered any more", found.identities),
    };
    let damaged = match found.damaged.files {
        0 => "nothing was set aside".to_owned(),
        files => format!(
            "{files} files of {} set aside in damaged/: {}",
            human::bytes(found.damaged.bytes),
            human::harmless(&found.damaged.names.join(", "))
        ),
    };
    [
        segments(&found.segments),
        cursors(&found.cursors, found.last, now),
        format!("the last number is {}", found.last),
        format!("identities for de-duplication: {identities}"),
        damaged,
    ]
    .join("\n\n")
}

fn segments(segments: &[SegmentFound]) -> String {
    let mut table =
        human::table(&["SEGMENT", "STATE", "GENERATION", "FIRST", "LAST", "RECORDS", "SIZE", "FROM", "TO"]);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let time = |at: Option<UnixMs>| at.map_or_else(|| "-".to_owned(), UnixMs::to_rfc3339);
    for segment in segments {
        table.add_row([
            segment.number.to_string(),
            segment.state.to_owned(),
            segment.generation.clone().unwrap_or_else(|| "-".to_owned()),
            number(segment.first),
            number(segment.last),
            segment.records.to_string(),
            human::bytes(segment.bytes),
            time(segment.first_ms),
            time(segment.newest_ms),
        ]);
    }
    table.trim_fmt()
}

fn cursors(cursors: &[CursorFound], last: u64, now: UnixMs) -> String {
    let mut table = human::table(&[
        "CURSOR",
        "THROUGH",
        "RANGES ABOVE",
        "BEHIND",
        "DELIVERED",
        "DEAD-LETTERED",
        "SHED",
        "NOT ROUTED",
        "MISSING",
        "DEFERRED",
        "SLOTS",
    ]);
    for cursor in cursors {
        let tally = cursor.tally.unwrap_or_default();
        let counts = [tally.delivered, tally.dead_lettered, tally.shed, tally.not_routed, tally.missing];
        let ranges = format!("{} of {} numbers", cursor.ranges, cursor.settled_above);
        let deferred = match cursor.next_due {
            None => "0".to_owned(),
            Some(due) if due <= now => format!("{}, due now", cursor.deferrals),
            Some(due) => format!("{}, next in {}", cursor.deferrals, human::duration(due.since(now))),
        };
        let slots = cursor.slots.each_ref().map(|slot| match slot.state {
            "good" => format!("saving {} (format {})", slot.saving, slot.format),
            state => state.to_owned(),
        });
        let behind = last.saturating_sub(cursor.through).saturating_sub(cursor.settled_above);
        let head = [human::harmless(&cursor.name), cursor.through.to_string(), ranges, behind.to_string()];
        let counts = counts.map(|count| count.to_string());
        table.add_row(head.into_iter().chain(counts).chain([deferred, slots.join(", ")]));
    }
    table.trim_fmt()
}

/// What of a record may be shown.
#[derive(Serialize)]
struct Listed {
    sequence: u64,
    segment: u64,
    arrival: UnixMs,
    bytes: usize,
    /// `null` where the record is no event.
    event: Option<EventHead>,
}

#[derive(Serialize)]
struct EventHead {
    id: String,
    source: String,
    r#type: String,
}

impl Listed {
    fn of(record: &RecordFound) -> Listed {
        let event = Envelope::decode(&record.payload).ok();
        Listed {
            sequence: record.sequence,
            segment: record.segment,
            arrival: record.arrival,
            bytes: record.payload.len(),
            event: event.map(|event| EventHead {
                id: event.id,
                source: event.source,
                r#type: event.event_type,
            }),
        }
    }
}

fn list(directory: &Path, from: u64, limit: usize, json: bool) -> Result<Ending, CliError> {
    let mut listed = Vec::new();
    inspect::list(directory, &ReadOnlyDisk, from, &mut |record| {
        if listed.len() < limit {
            listed.push(Listed::of(&record));
        }
        if listed.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(unreadable)?;
    if json {
        human::say_json(&listed)?;
        return Ok(Ending::Done);
    }
    let mut table = human::table(&["NUMBER", "SEGMENT", "ARRIVED", "BYTES", "ID", "SOURCE", "TYPE"]);
    for record in listed {
        let [id, source, r#type] = match record.event {
            Some(EventHead { id, source, r#type }) => [id, source, r#type],
            None => ["(no event)", "", ""].map(str::to_owned),
        };
        table.add_row([
            record.sequence.to_string(),
            record.segment.to_string(),
            record.arrival.to_rfc3339(),
            record.bytes.to_string(),
            human::harmless(&id),
            human::harmless(&source),
            human::harmless(&r#type),
        ]);
    }
    human::say(&table.trim_fmt())?;
    Ok(Ending::Done)
}
