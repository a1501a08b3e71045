//! A look at a store that is not open: every page and every row read, every letter counted anew, and compared with what
//! the store counted itself.
//! Holds: nothing is written, whatever state a crash left the file in.

use super::changes::Changes;
use super::file;
use super::ledger::Ledger;
use super::letter::Letter;
use super::rows;
use super::types::{StoreError, Totals};
use redb::{Database, ReadableDatabase, ReadableTable, TableError};
use std::path::Path;

/// The most sentences about single letters.
const SENTENCES_MAX: usize = 20;

/// What a look at the store gave.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Inspection {
    /// What is there, and what became of the rest.
    pub totals: Totals,
    /// What is wrong, a sentence each; never a payload (R8).
    pub findings: Vec<String>,
}

/// Recounts the store in `directory`; `None` where there is none. No process may have it open.
///
/// # Errors
/// [`StoreError::Failed`] where the file cannot be opened at all.
pub fn inspect(directory: &Path) -> Result<Option<Inspection>, StoreError> {
    let Some(mut database) = file::inspect(directory)? else { return Ok(None) };
    let mut findings = Vec::new();
    let failed = |error: redb::Error| StoreError::Failed(format!("{}: {error}", file::FILE_NAME));
    if let Err(error) = database.check_integrity() {
        findings.push(format!("{} does not hold together: {error}", file::FILE_NAME));
        return Ok(Some(Inspection { totals: Totals::default(), findings }));
    }
    let totals = recount(&database).map_err(failed)?;
    check_rows(&database, &mut findings).map_err(failed)?;
    for (name, account) in &totals.accounts {
        let unaccounted = account.unaccounted();
        if unaccounted != 0 {
            findings.push(format!(
                "dead letters of {name}: {} were made, {} replayed, {} discarded, and {} are there: {unaccounted} too few",
                account.created, account.replayed, account.discarded, account.kept
            ));
        }
    }
    let quarantines = totals.quarantines;
    if quarantines.unaccounted() != 0 {
        findings.push(format!(
            "quarantines: {} were made, {} replayed, {} discarded, and {} are there",
            quarantines.created, quarantines.replayed, quarantines.discarded, quarantines.kept
        ));
    }
    Ok(Some(Inspection { totals, findings }))
}

/// As an opening counts; the transaction is never committed, and would only change memory.
fn recount(database: &Database) -> Result<Totals, redb::Error> {
    let mut ledger = Ledger::default();
    let transaction = database.begin_write()?;
    let mut changes = Changes::begin(&transaction, &mut ledger, u64::MAX)?;
    changes.recount()?;
    changes.begin_counting()?;
    drop(changes);
    transaction.abort()?;
    Ok(ledger.totals(u64::MAX))
}

/// Every letter is readable, has its payload, and stands in the order.
fn check_rows(database: &Database, findings: &mut Vec<String>) -> Result<(), redb::Error> {
    let snapshot = database.begin_read()?;
    let letters = match snapshot.open_table(rows::LETTERS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        opened => opened?,
    };
    let (payloads, order) = (snapshot.open_table(rows::PAYLOADS)?, snapshot.open_table(rows::ORDER)?);
    let mut wrong = 0;
    for row in letters.iter()? {
        let (id, record) = row?;
        let id = id.value();
        let problem = match Letter::decode(record.value()) {
            Err(_undecodable) => Some("cannot be read"),
            Ok(letter) => {
                let payload_bytes = payloads.get(id)?.map(|payload| payload.value().len() as u64);
                if payload_bytes != Some(letter.payload_row_bytes) {
                    Some("has lost its payload, or part of it")
                } else if order.get((letter.summary.died.0, id))?.is_none() {
                    Some("is in no listing")
                } else {
                    None
                }
            }
        };
        if let Some(problem) = problem {
            wrong += 1;
            if wrong <= SENTENCES_MAX {
                findings.push(format!("the dead letter {id} {problem}"));
            }
        }
    }
    if wrong > SENTENCES_MAX {
        findings.push(format!("{} more dead letters are damaged", wrong - SENTENCES_MAX));
    }
    Ok(())
}
