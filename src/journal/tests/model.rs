//! What must hold of a journal, whatever happens to it: the whole of what it promises, without a file or a number.
//! Holds: this stays small enough to be read at once. How the real journal is driven through it is `model_run`.

use super::*;
use std::collections::BTreeSet;

/// A record that somebody tried to append; they are numbered in order.
pub(super) type Attempt = usize;

#[derive(Default)]
pub(super) struct Model {
    /// The identity of every attempt.
    pub attempts: Vec<Option<u8>>,
    /// For each record that was answered: the attempts, one of which must be there.
    promises: Vec<BTreeSet<Attempt>>,
    /// Identities that must be recognised when they come again.
    known: BTreeSet<u8>,
    /// Attempts of which nothing is there nor ever will be: that is what the refusal said.
    refused: BTreeSet<Attempt>,
    /// Attempts whose record was damaged once.
    hit: BTreeSet<Attempt>,
    pub sinks: [Sink; 2],
}

#[derive(Default)]
pub(super) struct Sink {
    /// Given since the journal was opened.
    given: BTreeSet<Attempt>,
    /// Settled, and not given again since.
    settled: BTreeSet<Attempt>,
    /// Settled since the journal was opened.
    unsaved: BTreeSet<Attempt>,
    /// Settled, and then the journal was closed in peace: never given again.
    saved: BTreeSet<Attempt>,
}

impl Model {
    pub(super) fn answered(&mut self, attempt: Attempt, appended: Appended) {
        let key = self.attempts[attempt];
        let there: BTreeSet<Attempt> = match appended {
            Appended::Stored => [attempt].into(),
            Appended::Duplicate => (0..=attempt).filter(|other| self.attempts[*other] == key).collect(),
        };
        // What was damaged, and can be read again, may be there for a sink that has not passed it, and for no other.
        if there.is_disjoint(&self.hit) {
            self.promises.push(there);
        }
        let is_first = key.is_none_or(|key| self.known.insert(key));
        assert!(
            is_first || appended == Appended::Duplicate,
            "what was answered is recognised when it comes again"
        );
        assert!(key.is_some() || appended == Appended::Stored, "what has no identity repeats nothing");
    }

    pub(super) fn refused(&mut self, attempts: std::ops::Range<Attempt>) {
        self.refused.extend(attempts);
    }

    pub(super) fn given(&mut self, sink: usize, attempt: Attempt) {
        assert!(
            attempt < self.attempts.len() && !self.refused.contains(&attempt),
            "given is only what was taken"
        );
        let sink = &mut self.sinks[sink];
        assert!(sink.given.last().is_none_or(|last| *last < attempt), "in order, each once");
        assert!(!sink.saved.contains(&attempt), "what was settled and saved stays settled");
        sink.given.insert(attempt);
        sink.settled.remove(&attempt);
    }

    pub(super) fn settled(&mut self, sink: usize, attempt: Attempt) {
        self.sinks[sink].settled.insert(attempt);
        self.sinks[sink].unsaved.insert(attempt);
    }

    /// The journal begins anew; after a close in peace it knows what was settled.
    pub(super) fn stopped(&mut self, in_peace: bool) {
        for sink in &mut self.sinks {
            sink.given.clear();
            let unsaved = std::mem::take(&mut sink.unsaved);
            sink.saved.extend(unsaved.into_iter().filter(|_| in_peace));
        }
    }

    /// These records were hit, and may be gone.
    pub(super) fn damaged(&mut self, hit: &BTreeSet<Attempt>) {
        self.promises.retain(|there| there.is_disjoint(hit));
        self.hit.extend(hit);
        for key in hit.iter().filter_map(|attempt| self.attempts[*attempt]) {
            self.known.remove(&key);
        }
    }

    /// The cursor of this sink was hit: what it settled may be given again.
    pub(super) fn cursor_damaged(&mut self, sink: usize) {
        self.sinks[sink].saved.clear();
    }

    /// Records were freed before their time, for room: what they were recognised by went with them.
    pub(super) fn freed_early(&mut self) {
        self.known.clear();
    }

    /// Once every sink has been given all there is: what was answered is with each of them.
    pub(super) fn verify(&self) {
        for (name, sink) in SINKS.iter().zip(&self.sinks) {
            let is_lost = |there: &&BTreeSet<Attempt>| {
                there.is_disjoint(&sink.given) && there.is_disjoint(&sink.settled)
            };
            let lost: Vec<_> = self.promises.iter().filter(is_lost).collect();
            assert!(lost.is_empty(), "answered and lost to {name}: {lost:?}");
        }
    }
}

pub(super) const SINKS: [&str; 2] = ["first", "second"];
