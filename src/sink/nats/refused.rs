//! What earlier connections of a sink have learnt by being refused.
//! How large a message may be, where that is less than the server says:
//! a server tells its own limit on connect. That of the account it tells after the log-in, when the client does not
//! listen any more, and ends the connection over each message beyond it, together with all that is in flight. So the
//! size of a message that was refused like that is remembered, and what is as large is not sent.
//! And whether events lead to subjects that the user may not publish to: then few may be in flight (see `link`).
//! Holds: a limit that was raised is found out: nothing is remembered for long.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a refusal counts: as soon as a lane notices other things that were set right.
const REMEMBERED: Duration = Duration::from_secs(30);

/// See the module. One for all connections of a sink.
#[derive(Debug, Default)]
pub(super) struct Refused {
    size: Mutex<Option<(Instant, usize)>>,
    subject: Mutex<Option<Instant>>,
}

impl Refused {
    /// The most bytes of a message; `usize::MAX` where nothing is known.
    pub(super) fn bytes_max(&self) -> usize {
        match *self.size.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, bytes)) if at.elapsed() < REMEMBERED => bytes.saturating_sub(1),
            Some(_) | None => usize::MAX,
        }
    }

    /// A message of this size was too large.
    pub(super) fn note(&self, bytes: usize) {
        if bytes <= self.bytes_max() {
            *self.size.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), bytes));
        }
    }

    /// Was a subject refused that an event led to?
    pub(super) fn has_subject(&self) -> bool {
        let at = *self.subject.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    /// One was.
    pub(super) fn note_subject(&self) {
        *self.subject.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_smallest_that_was_refused_counts_and_all_is_forgotten_in_time() {
        let refused = Refused::default();
        for (bytes, max) in [(5000, 4999), (3000, 2999), (4000, 2999)] {
            refused.note(bytes);
            assert_eq!(refused.bytes_max(), max);
        }
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(refused.bytes_max(), usize::MAX, "the limit may have been raised");
        refused.note_subject();
        assert!(refused.has_subject());
        tokio::time::advance(REMEMBERED).await;
        assert!(!refused.has_subject());
    }
}
