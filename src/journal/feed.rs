//! One cursor's way through the journal: what comes next for it, and what it has settled.
//! Holds: R2 (only durable records are given; what is settled is a number this feed was given, or one that is gone);
//! `next` may be dropped at any await without losing a record; memory is one chunk.

use super::reader::{Fetched, ReadPlace, ReadRequest};
use super::shared::{Cursor, Shared, lock};
use super::types::{Deferral, Ending, Entry, Position, ReadError};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// After so many reads in a row that failed, what the disk does not give counts as damage. A lane asks once a second.
const FAILED_READS_MAX: u32 = 10;

/// One cursor's way through the journal; one owner. It does not keep the journal open.
pub struct Feed {
    shared: Arc<Shared>,
    cursor: Arc<Cursor>,
    published: watch::Receiver<super::shared::Published>,
    /// The next number to look at.
    next: u64,
    /// Read from disk and not yet given.
    ahead: VecDeque<Entry>,
    reading: Option<oneshot::Receiver<io::Result<Fetched>>>,
    place: Option<ReadPlace>,
    /// In a row.
    failed_reads: u32,
}

impl Feed {
    pub(super) fn new(shared: Arc<Shared>, cursor: Arc<Cursor>) -> Feed {
        let next = lock(&cursor.state).standing.progress().through() + 1;
        let published = shared.published.subscribe();
        Feed {
            shared,
            cursor,
            published,
            next,
            ahead: VecDeque::new(),
            reading: None,
            place: None,
            failed_reads: 0,
        }
    }

    /// The next records in order, at least one, at most `count_max`, stopping after `bytes_max` payload bytes;
    /// waits while there are none. Each unsettled record is given once per opening of the journal. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self, count_max: usize, bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        loop {
            let published = *self.published.borrow_and_update();
            if published.closed {
                return Err(ReadError::Closed);
            }
            if self.reading.is_some() {
                self.finish_reading().await?;
            }
            let entries = self.take(count_max.max(1), bytes_max, published.through);
            if !entries.is_empty() {
                return Ok(entries);
            }
            if self.next <= published.through {
                self.start_reading()?;
            } else if self.published.changed().await.is_err() {
                return Err(ReadError::Closed);
            }
        }
    }

    /// Marks a record as settled for this cursor. Cheap; saved lazily, never ahead. The first ending counts.
    pub fn settle(&self, position: Position, ending: Ending) {
        if position.0 <= self.shared.durable() {
            self.cursor.settle(position.0, ending);
        }
    }

    /// Notes of an unsettled record when it is to be tried again; [`Entry::deferral`] gives the newest that was saved
    /// back after a restart. Cheap; saved lazily, and forgotten when the record is settled.
    pub fn defer(&self, position: Position, deferral: Deferral) {
        if position.0 <= self.shared.durable() {
            self.cursor.defer(position.0, deferral);
        }
    }

    /// For a sheddable cursor: everything before this position should be settled as shed, to free the disk.
    /// `None` while there is room, and while another cursor that is not sheddable holds the same records.
    #[must_use]
    pub fn shed_before(&self) -> watch::Receiver<Option<Position>> {
        self.cursor.shed_before.subscribe()
    }

    /// How many records were given and not settled.
    #[cfg(test)]
    pub(super) fn cursor_outstanding(&self) -> u64 {
        lock(&self.cursor.state).outstanding.len() as u64
    }

    /// What is in memory: first what was read ahead, then the recent records. Nothing awaits here.
    fn take(&mut self, count_max: usize, bytes_max: usize, durable: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut state = lock(&self.cursor.state);
        let mut recent = None;
        while entries.len() < count_max && (entries.is_empty() || bytes < bytes_max) {
            let entry = match self.ahead.pop_front() {
                Some(entry) => entry,
                None if self.next > durable => break,
                None => {
                    let recent = recent.get_or_insert_with(|| lock(&self.shared.recent));
                    let Some((arrival, payload)) = recent.get(self.next) else { break };
                    self.next += 1;
                    Entry { position: Position(self.next - 1), arrival, payload, deferral: None }
                }
            };
            if !state.standing.progress().is_settled(entry.position.0) {
                // Noted by an earlier opening: in this one the record was not given yet.
                let deferral = state.standing.deferral(entry.position.0).cloned();
                let entry = Entry { deferral, ..entry };
                bytes += entry.payload.len();
                state.outstanding.insert(entry.position.0, entry.arrival);
                entries.push(entry);
            }
        }
        entries
    }

    fn start_reading(&mut self) -> Result<(), ReadError> {
        let (done, reading) = oneshot::channel();
        let salvage = self.failed_reads >= FAILED_READS_MAX;
        let request = ReadRequest { from: self.next, place: self.place.take(), salvage, done };
        let sent = lock(&self.shared.reads).as_ref().is_some_and(|reads| reads.try_send(request).is_ok());
        if !sent {
            return Err(ReadError::Closed);
        }
        self.reading = Some(reading);
        Ok(())
    }

    async fn finish_reading(&mut self) -> Result<(), ReadError> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let fetched = reading.await;
        self.reading = None;
        let fetched = fetched.map_err(|_| ReadError::Closed)?.map_err(|error| {
            self.failed_reads = self.failed_reads.saturating_add(1);
            ReadError::Io(error.to_string())
        })?;
        self.failed_reads = 0;
        self.settle_missing(&fetched);
        self.next = self.next.max(fetched.through + 1);
        self.ahead = fetched.entries.into();
        self.place = fetched.place;
        Ok(())
    }

    /// Numbers that were looked at and are not there are damaged or were freed: nobody can deliver them any more.
    fn settle_missing(&self, fetched: &Fetched) {
        let mut expected = self.next;
        for entry in &fetched.entries {
            if entry.position.0 > expected {
                self.cursor.miss(expected, entry.position.0 - 1);
            }
            expected = entry.position.0 + 1;
        }
        if fetched.through >= expected {
            self.cursor.miss(expected, fetched.through);
        }
    }
}
