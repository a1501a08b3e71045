//! What may happen to the tables, each change applied within the transaction of its group.
//! Holds: a refused change leaves nothing behind; the ledger follows every row; R4 (only a discard or a confirmed
//! replay removes a letter).
//! Absent on purpose: when a transaction begins and commits (`writer`).

use super::ledger::{self, Counted, Ledger};
use super::letter::{Draft, Letter};
use super::rows::{self, Bounds, Kept, Position, kind_from_row, kind_to_row};
use super::types::{ErrandKind, Filter, LetterId, Origin, StoreError};
use crate::envelope::SinkName;
use crate::journal::{Deferral, NOTE_BYTES_MAX};
use crate::time::UnixMs;
use redb::{ReadableTable, Table, WriteTransaction};

/// The most entries that one sweep looks at before others get their turn.
pub(super) const SWEEP_ENTRIES_MAX: usize = 1024;

/// What a sweep does to each matching letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Replay,
    Discard,
    /// Away, because what was a quarantine is an event now.
    Readmitted,
}

/// How an errand ended, as the store keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    Delivered,
    Failed { attempts: u32, reason: &'static str, error: String, died: UnixMs },
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Keep(Box<Draft>),
    Sweep { action: Action, filter: Filter, after: Option<Position> },
    NoteErrand { sink: SinkName, letter: LetterId, kind: ErrandKind, deferral: Deferral },
    EndErrand { sink: SinkName, letter: LetterId, kind: ErrandKind, end: End },
}

/// What a change came to, once its group is durable.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Answer {
    Kept,
    Swept {
        letters: u64,
        next: Option<Position>,
    },
    Noted,
    /// `known`: there was such an errand.
    ErrandEnded {
        known: bool,
    },
}

pub(super) struct Changes<'txn, 'ledger> {
    letters: Table<'txn, &'static str, &'static [u8]>,
    payloads: Table<'txn, &'static str, &'static [u8]>,
    order: Table<'txn, (i64, &'static str), ()>,
    errands: Table<'txn, (&'static str, u64), (u8, &'static str)>,
    errand_numbers: Table<'txn, (&'static str, u8, &'static str), u64>,
    errand_notes: Table<'txn, (&'static str, u64), (i64, &'static [u8])>,
    counts: Table<'txn, (&'static str, u8), u64>,
    ledger: &'ledger mut Ledger,
    bytes_max: u64,
    /// Entries met that could not be read.
    pub unreadable: u64,
}

impl<'txn, 'ledger> Changes<'txn, 'ledger> {
    /// Opens every table, making those that are missing.
    pub(super) fn begin(
        transaction: &'txn WriteTransaction,
        ledger: &'ledger mut Ledger,
        bytes_max: u64,
    ) -> Result<Self, redb::Error> {
        Ok(Changes {
            letters: transaction.open_table(rows::LETTERS)?,
            payloads: transaction.open_table(rows::PAYLOADS)?,
            order: transaction.open_table(rows::ORDER)?,
            errands: transaction.open_table(rows::ERRANDS)?,
            errand_numbers: transaction.open_table(rows::ERRAND_NUMBERS)?,
            errand_notes: transaction.open_table(rows::ERRAND_NOTES)?,
            counts: transaction.open_table(rows::COUNTS)?,
            ledger,
            bytes_max,
            unreadable: 0,
        })
    }

    /// Counts what the tables hold into an empty ledger.
    pub(super) fn recount(&mut self) -> Result<(), redb::Error> {
        for row in self.letters.iter()? {
            let (id, record) = row?;
            let record = record.value();
            self.ledger.bytes_added(record.len() as u64);
            match Letter::decode(record) {
                Ok(letter) => self.ledger.letter_added(&letter.summary.origin, letter.payload_row_bytes),
                Err(_undecodable) => {
                    self.unreadable += 1;
                    self.ledger.unreadable_met();
                    let payload = self.payloads.get(id.value())?;
                    self.ledger.bytes_added(payload.map_or(0, |row| row.value().len() as u64));
                }
            }
        }
        for row in self.errands.iter()? {
            let (key, _) = row?;
            let (sink, number) = key.value();
            self.ledger.errand_next = self.ledger.errand_next.max(number + 1);
            match SinkName::new(sink) {
                Ok(sink) => self.ledger.errand_added(&sink),
                Err(_invalid) => self.unreadable += 1,
            }
        }
        // An earlier version ends errands without it, and a number may be given out again after a start.
        let mut open = Ok(());
        self.errand_notes.retain(|key, _| match self.errands.get(key) {
            Ok(errand) => errand.is_some(),
            Err(error) => {
                open = Err(error);
                true
            }
        })?;
        open?;
        for row in self.counts.iter()? {
            let (key, count) = row?;
            let (origin, what) = key.value();
            self.ledger.counted_before(origin, what, count.value());
        }
        Ok(())
    }

    /// A store that never counted begins with the letters that it holds.
    pub(super) fn begin_counting(&mut self) -> Result<(), redb::Error> {
        for (origin, kept) in self.ledger.uncounted() {
            self.count(&origin, Counted::Created, kept)?;
        }
        Ok(())
    }

    fn count(&mut self, origin: &Origin, what: Counted, times: u64) -> Result<(), redb::Error> {
        let count = self.ledger.counted(origin, what, times);
        self.counts.insert((ledger::origin_to_row(origin), what.to_row()), count)?;
        Ok(())
    }

    /// The outer error is the disk's and ends the transaction; the inner one refuses this change alone.
    pub(super) fn apply(&mut self, change: &Change) -> Result<Result<Answer, StoreError>, redb::Error> {
        match change {
            Change::Keep(draft) => self.keep(draft),
            Change::Sweep { action, filter, after } => self.sweep(*action, filter, after.as_ref()).map(Ok),
            Change::NoteErrand { sink, letter, kind, deferral } => {
                self.note_errand(sink, letter, *kind, deferral).map(|()| Ok(Answer::Noted))
            }
            Change::EndErrand { sink, letter, kind, end } => {
                self.end_errand(sink, letter, *kind, end).map(|known| Ok(Answer::ErrandEnded { known }))
            }
        }
    }

    fn keep(&mut self, draft: &Draft) -> Result<Result<Answer, StoreError>, redb::Error> {
        let summary = &draft.summary;
        let mut letter = match self.letter(&summary.id)? {
            Some((mut letter, record_bytes)) => {
                self.unlist(&letter, record_bytes)?;
                let (reason, error) = (summary.reason.clone(), summary.last_error.clone());
                letter.died_again(summary.attempts, reason, error, summary.died);
                letter
            }
            None => {
                let letter = Letter {
                    summary: summary.clone(),
                    payload_row_bytes: draft.payload.len() as u64,
                    copies_open: draft.copy_to.iter().cloned().collect(),
                    copies_ended: Default::default(),
                };
                let bytes = letter.payload_row_bytes + letter.encode().len() as u64;
                if self.ledger.bytes().saturating_add(bytes) > self.bytes_max {
                    return Ok(Err(StoreError::Full));
                }
                self.erase_unreadable(&summary.id)?;
                let mut row = self.payloads.insert_reserve(summary.id.0.as_str(), draft.payload.len())?;
                draft.payload.write_to(row.as_mut());
                drop(row);
                self.ledger.letter_added(&summary.origin, letter.payload_row_bytes);
                self.count(&summary.origin, Counted::Created, 1)?;
                letter
            }
        };
        if let Some(copy_to) = &draft.copy_to
            && !letter.copies_ended.contains(copy_to)
        {
            letter.copies_open.insert(copy_to.clone());
            self.add_errand(copy_to, ErrandKind::Copy, &summary.id)?;
        }
        self.enlist(&letter)?;
        Ok(Ok(Answer::Kept))
    }

    fn sweep(
        &mut self,
        action: Action,
        filter: &Filter,
        after: Option<&Position>,
    ) -> Result<Answer, redb::Error> {
        let bounds = Bounds { letters_max: SWEEP_ENTRIES_MAX, entries_max: SWEEP_ENTRIES_MAX };
        let walk = rows::walk(&self.letters, &self.order, filter, after, bounds, &mut self.unreadable)?;
        let mut swept = 0;
        for kept in walk.letters {
            swept += u64::from(match action {
                Action::Replay => self.request_replay(kept)?,
                Action::Discard => self.remove(&kept, Counted::Discarded).map(|()| true)?,
                Action::Readmitted => self.remove(&kept, Counted::Replayed).map(|()| true)?,
            });
        }
        let ids_only = Filter { ids: filter.ids.clone(), ..Filter::default() };
        if action != Action::Replay && *filter == ids_only {
            for id in &filter.ids {
                swept += u64::from(self.erase_unreadable(id)?);
            }
        }
        Ok(Answer::Swept { letters: swept, next: walk.next })
    }

    fn request_replay(&mut self, (mut letter, record_bytes): Kept) -> Result<bool, redb::Error> {
        let Origin::Sink(sink) = letter.summary.origin.clone() else { return Ok(false) };
        if letter.summary.replaying {
            return Ok(false);
        }
        self.unlist(&letter, record_bytes)?;
        letter.summary.replaying = true;
        self.enlist(&letter)?;
        self.add_errand(&sink, ErrandKind::Replay, &letter.summary.id)?;
        Ok(true)
    }

    fn end_errand(
        &mut self,
        sink: &SinkName,
        id: &LetterId,
        kind: ErrandKind,
        end: &End,
    ) -> Result<bool, redb::Error> {
        if !self.drop_errand(sink, kind, id)? {
            return Ok(false);
        }
        let kept = self.letter(id)?;
        match (kept, kind, end) {
            (None, ErrandKind::Replay, End::Delivered) => {
                self.erase_unreadable(id)?;
            }
            (None, _, _) => {}
            (Some(kept), ErrandKind::Replay, End::Delivered) => self.remove(&kept, Counted::Replayed)?,
            (
                Some((mut letter, record_bytes)),
                ErrandKind::Replay,
                End::Failed { attempts, reason, error, died },
            ) => {
                self.unlist(&letter, record_bytes)?;
                letter.died_again(*attempts, (*reason).to_owned(), error.clone(), *died);
                letter.summary.replaying = false;
                self.enlist(&letter)?;
            }
            (Some((mut letter, record_bytes)), ErrandKind::Copy, End::Delivered | End::Failed { .. }) => {
                self.unlist(&letter, record_bytes)?;
                letter.copies_open.remove(sink);
                letter.copies_ended.insert(sink.clone());
                self.enlist(&letter)?;
            }
        }
        Ok(true)
    }

    fn letter(&mut self, id: &LetterId) -> Result<Option<Kept>, redb::Error> {
        rows::letter(&self.letters, id, &mut self.unreadable)
    }

    /// Takes a letter out of the order, so that it can be changed and enlisted again.
    fn unlist(&mut self, letter: &Letter, record_bytes: u64) -> Result<(), redb::Error> {
        self.order.remove((letter.summary.died.0, letter.summary.id.0.as_str()))?;
        self.ledger.bytes_removed(record_bytes);
        Ok(())
    }

    fn enlist(&mut self, letter: &Letter) -> Result<(), redb::Error> {
        let id = letter.summary.id.0.as_str();
        let record = letter.encode();
        self.letters.insert(id, record.as_slice())?;
        self.order.insert((letter.summary.died.0, id), ())?;
        self.ledger.bytes_added(record.len() as u64);
        Ok(())
    }

    /// Removes a letter with everything that hangs on it: a copy of what is no longer dead says nothing.
    fn remove(&mut self, (letter, record_bytes): &Kept, why: Counted) -> Result<(), redb::Error> {
        let summary = &letter.summary;
        self.count(&summary.origin, why, 1)?;
        self.unlist(letter, *record_bytes)?;
        self.letters.remove(summary.id.0.as_str())?;
        self.payloads.remove(summary.id.0.as_str())?;
        self.ledger.letter_removed(&summary.origin, letter.payload_row_bytes);
        if let Origin::Sink(sink) = &summary.origin {
            self.drop_errand(sink, ErrandKind::Replay, &summary.id)?;
        }
        for sink in &letter.copies_open {
            self.drop_errand(sink, ErrandKind::Copy, &summary.id)?;
        }
        Ok(())
    }

    /// Removes what is left of a letter whose record cannot be read. Its place in the order and its errands are found
    /// by looking at all of them: slow, and rare enough.
    fn erase_unreadable(&mut self, id: &LetterId) -> Result<bool, redb::Error> {
        let record = self.letters.remove(id.0.as_str())?.map(|row| row.value().len());
        let Some(record_bytes) = record else { return Ok(false) };
        let payload = self.payloads.remove(id.0.as_str())?.map(|row| row.value().len());
        self.ledger.bytes_removed((record_bytes + payload.unwrap_or(0)) as u64);
        self.count(&Origin::Ingress, Counted::ErasedUnreadable, 1)?;
        self.order.retain(|(_, of), ()| of != id.0)?;
        let mut errands = Vec::new();
        for row in self.errand_numbers.iter()? {
            let (key, _) = row?;
            let (sink, kind, of) = key.value();
            if of == id.0
                && let (Ok(sink), Some(kind)) = (SinkName::new(sink), kind_from_row(kind))
            {
                errands.push((sink, kind));
            }
        }
        for (sink, kind) in errands {
            self.drop_errand(&sink, kind, id)?;
        }
        Ok(true)
    }

    fn add_errand(&mut self, sink: &SinkName, kind: ErrandKind, id: &LetterId) -> Result<(), redb::Error> {
        let key = (sink.as_str(), kind_to_row(kind), id.0.as_str());
        if self.errand_numbers.get(key)?.is_some() {
            return Ok(());
        }
        let number = self.ledger.errand_next;
        self.ledger.errand_next += 1;
        self.errand_numbers.insert(key, number)?;
        self.errands.insert((sink.as_str(), number), (kind_to_row(kind), id.0.as_str()))?;
        self.ledger.errand_added(sink);
        Ok(())
    }

    /// Of an errand that is there; its end forgets it.
    fn note_errand(
        &mut self,
        sink: &SinkName,
        id: &LetterId,
        kind: ErrandKind,
        deferral: &Deferral,
    ) -> Result<(), redb::Error> {
        let key = (sink.as_str(), kind_to_row(kind), id.0.as_str());
        if let Some(number) = self.errand_numbers.get(key)?.map(|row| row.value()) {
            let note = &deferral.note[..deferral.note.len().min(NOTE_BYTES_MAX)];
            self.errand_notes.insert((sink.as_str(), number), (deferral.due.0, note))?;
        }
        Ok(())
    }

    fn drop_errand(&mut self, sink: &SinkName, kind: ErrandKind, id: &LetterId) -> Result<bool, redb::Error> {
        let key = (sink.as_str(), kind_to_row(kind), id.0.as_str());
        let Some(number) = self.errand_numbers.remove(key)?.map(|row| row.value()) else { return Ok(false) };
        self.errands.remove((sink.as_str(), number))?;
        self.errand_notes.remove((sink.as_str(), number))?;
        self.ledger.errand_removed(sink);
        Ok(true)
    }
}
