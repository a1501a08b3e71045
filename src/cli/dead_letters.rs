//! `hookbus dead-letters list | show | replay | discard | export`.
//! Holds: R8 (only `export` shows payloads); nothing is discarded without a word that means it.

use super::client::{Client, Pieces};
use super::files::NewFile;
use super::selection::{Filters, Selection};
use super::settings::AdminArguments;
use super::{CliError, Ending, human};
use crate::clock;
use crate::dead_letter::{Origin, Summary};
use crate::time::UnixMs;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

const LETTERS: &str = "/api/v1/dead-letters";
/// The most letters the listener gives at a time.
const PAGE_MAX: usize = 1000;
/// Beyond this many letters a question before a discard says only "more than".
const COUNTED_MAX: usize = 10_000;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Show letters, the oldest first
    List {
        #[command(flatten)]
        filters: Filters,
        /// The most letters shown
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print a JSON list instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Show everything about one letter but its payload
    Show {
        /// Its identity, as the listing shows it
        id: String,
        /// Print a JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Have letters delivered again, and unreadable bodies read again
    Replay {
        #[command(flatten)]
        selection: Selection,
        /// Print a JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Delete letters for good
    Discard {
        #[command(flatten)]
        selection: Selection,
        /// Do not ask first
        #[arg(long)]
        yes: bool,
        /// Print a JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Write letters with their payloads, one JSON value a line
    Export {
        #[command(flatten)]
        filters: Filters,
        /// Write to this file instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArguments,
    },
}

pub(super) async fn dead_letters(config: Option<&Path>, command: &Command) -> Result<Ending, CliError> {
    let client = |admin: &AdminArguments| Ok::<_, CliError>(Client::new(admin.target(config)?)?);
    match command {
        Command::List { filters, limit, json, admin } => list(&client(admin)?, filters, *limit, *json).await,
        Command::Show { id, json, admin } => show(&client(admin)?, id, *json).await,
        Command::Replay { selection, json, admin } => {
            let body = chosen(selection)?;
            replay(&client(admin)?, body, *json).await
        }
        Command::Discard { selection, yes, json, admin } => {
            let body = chosen(selection)?;
            if !yes && !std::io::stdin().is_terminal() {
                let problem = "nobody can be asked here; --yes discards without a question";
                return Err(CliError::Usage(problem.to_owned()));
            }
            discard(&client(admin)?, selection, body, *yes, *json).await
        }
        Command::Export { filters, output, admin } => {
            export(&client(admin)?, filters, output.as_deref()).await
        }
    }
}

fn chosen(selection: &Selection) -> Result<Map<String, Value>, CliError> {
    selection
        .body()
        .ok_or_else(|| CliError::Usage("name letters by id, by a filter, or say --all".to_owned()))
}

#[derive(Deserialize)]
struct Page {
    letters: Vec<Summary>,
    next: Option<String>,
}

/// At most `limit` letters, page by page.
async fn letters(client: &Client, filters: &Filters, limit: usize) -> Result<Vec<Summary>, CliError> {
    let mut letters = Vec::new();
    let mut after = None;
    while letters.len() < limit {
        let mut query = filters.query();
        query.push(("limit", (limit - letters.len()).min(PAGE_MAX).to_string()));
        query.extend(after.map(|after| ("after", after)));
        let page: Page = client.get(LETTERS, &query).await?;
        letters.extend(page.letters);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(letters)
}

async fn list(client: &Client, filters: &Filters, limit: usize, json: bool) -> Result<Ending, CliError> {
    let letters = letters(client, filters, limit).await?;
    if json {
        human::say_json(&letters)?;
    } else if letters.is_empty() {
        human::complain("no dead letters match");
    } else {
        human::say(&render(&letters, clock::now()))?;
        if letters.len() == limit {
            human::complain(&format!("the first {limit} are shown; --limit shows more"));
        }
    }
    Ok(Ending::Done)
}

fn render(letters: &[Summary], now: UnixMs) -> String {
    let mut table = human::table(&["ID", "FROM", "SOURCE", "TYPE", "REASON", "TRIES", "DIED", "LAST ERROR"]);
    for letter in letters {
        let replaying = if letter.replaying { " (replaying)" } else { "" };
        table.add_row([
            human::harmless(&letter.id.0),
            origin(&letter.origin),
            letter.source.to_string(),
            human::harmless(letter.event_type.as_deref().unwrap_or("-")),
            format!("{}{replaying}", human::harmless(&letter.reason)),
            letter.attempts.to_string(),
            format!("{} ago", human::age(Some(letter.died), now)),
            human::harmless(&letter.last_error),
        ]);
    }
    table.trim_fmt()
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Sink(sink) => sink.to_string(),
        Origin::Ingress => "(quarantine)".to_owned(),
    }
}

async fn show(client: &Client, id: &str, json: bool) -> Result<Ending, CliError> {
    // Asked for as a filter, since an identity is any text and a path is not.
    let query = [("id", id.to_owned()), ("limit", "1".to_owned())];
    let page: Page = client.get(LETTERS, &query).await?;
    let Some(letter) = page.letters.into_iter().next() else {
        return Err(CliError::Failed(format!("there is no dead letter {}", human::harmless(id))));
    };
    if json {
        human::say_json(&letter)?;
    } else {
        human::say(&details(&letter))?;
    }
    Ok(Ending::Done)
}

fn details(letter: &Summary) -> String {
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        ("id", letter.id.0.clone()),
        ("given up by", origin(&letter.origin)),
        ("source", letter.source.to_string()),
        ("event id", dash(&letter.event_id)),
        ("event type", dash(&letter.event_type)),
        ("reason", letter.reason.clone()),
        ("attempts", letter.attempts.to_string()),
        ("first error", letter.first_error.clone()),
        ("last error", letter.last_error.clone()),
        ("arrived", letter.arrived.to_rfc3339()),
        ("given up", letter.died.to_rfc3339()),
        ("payload", human::bytes(letter.payload_bytes)),
        ("replaying", if letter.replaying { "yes" } else { "no" }.to_owned()),
    ]
    .map(|(name, value)| format!("{name:<12} {}", human::harmless(&value)))
    .join("\n")
}

#[derive(Deserialize, serde::Serialize, Default)]
struct Replayed {
    requested: u64,
    readmitted: u64,
    refused: Vec<Refused>,
    #[serde(skip_serializing)]
    more: bool,
    #[serde(skip_serializing)]
    after: Option<String>,
}

#[derive(Deserialize, serde::Serialize)]
struct Refused {
    id: String,
    problem: String,
}

async fn replay(client: &Client, mut body: Map<String, Value>, json: bool) -> Result<Ending, CliError> {
    let mut total = Replayed::default();
    loop {
        let done: Replayed = client.post(&format!("{LETTERS}/replay"), &body).await?;
        total.requested += done.requested;
        total.readmitted += done.readmitted;
        total.refused.extend(done.refused);
        if !done.more {
            break;
        }
        // The lanes have been asked; what is left are bodies to be read again.
        body.insert("quarantined".to_owned(), Value::Bool(true));
        if let Some(after) = done.after {
            body.insert("after".to_owned(), Value::String(after));
        }
    }
    if json {
        human::say_json(&total)?;
    } else {
        let Replayed { requested, readmitted, refused, .. } = &total;
        human::say(&format!(
            "{requested} letters will be delivered again, {readmitted} bodies could be read this time"
        ))?;
        for Refused { id, problem } in refused {
            human::complain(&format!("{}: {}", human::harmless(id), human::harmless(problem)));
        }
    }
    Ok(if total.refused.is_empty() { Ending::Done } else { Ending::Failed })
}

#[derive(Deserialize, serde::Serialize)]
struct Discarded {
    discarded: u64,
}

async fn discard(
    client: &Client,
    selection: &Selection,
    body: Map<String, Value>,
    yes: bool,
    json: bool,
) -> Result<Ending, CliError> {
    if !yes {
        let found = match selection.ids() {
            [] => match letters(client, selection.filters(), COUNTED_MAX).await?.len() {
                COUNTED_MAX => format!("{COUNTED_MAX} or more"),
                count => count.to_string(),
            },
            ids => format!("at most {}", ids.len()),
        };
        if !agreed(&format!("discard {found} dead letters for good? [y/N] "))? {
            human::complain("nothing was discarded");
            return Ok(Ending::Failed);
        }
    }
    let done: Discarded = client.post(&format!("{LETTERS}/discard"), &body).await?;
    if json {
        human::say_json(&done)?
    } else {
        human::say(&format!("{} letters discarded", done.discarded))?
    }
    Ok(Ending::Done)
}

fn agreed(question: &str) -> Result<bool, CliError> {
    let failed = |source| CliError::Io { what: "cannot ask".to_owned(), source };
    let mut terminal = std::io::stderr().lock();
    terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()).map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

async fn export(client: &Client, filters: &Filters, output: Option<&Path>) -> Result<Ending, CliError> {
    let mut pieces = client.stream(&format!("{LETTERS}/export"), &filters.query()).await?;
    let mut lines = 0;
    match output {
        Some(path) => {
            let mut file = NewFile::create(path)?;
            copy(&mut pieces, &mut lines, |piece| file.write(piece)).await?;
            file.finish()?;
            human::complain(&format!("{lines} letters written to {}", path.display()));
        }
        None => {
            let failed = |source| CliError::Io { what: "cannot write the output".to_owned(), source };
            let mut stdout = std::io::stdout().lock();
            copy(&mut pieces, &mut lines, |piece| stdout.write_all(piece).map_err(failed)).await?;
            stdout.flush().map_err(failed)?;
        }
    }
    Ok(Ending::Done)
}

async fn copy(
    pieces: &mut Pieces,
    lines: &mut usize,
    mut write: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    while let Some(piece) = pieces.next().await? {
        *lines += piece.iter().filter(|byte| **byte == b'\n').count();
        write(&piece)?;
    }
    Ok(())
}
