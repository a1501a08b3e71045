//! What a lane notes of an event that is to be tried again, and how it takes the event up after a restart.
//! Holds: a restart starts nothing over and fires nothing all at once; whatever the wall clock did meanwhile, no event
//! waits for longer than the longest delay, and none ages by it. R8: a note says no more than a log line of the failure.
//! Pure: the caller brings the time and the jitter.

use super::retry::{Policy, full_jitter};
use crate::journal::NOTE_BYTES_MAX;
use crate::sink::{Failure, Reason};
use crate::time::UnixMs;
use bytes::Bytes;
use std::time::Duration;

/// The version at the front of every note.
const NOTE_VERSION: u8 = 1;
/// Events that became due while nobody was there are spread over so much, or the longest delay where that is shorter.
pub const OVERDUE_SPREAD: Duration = Duration::from_secs(5);

/// What an event has been through.
#[derive(Clone, PartialEq, Debug)]
pub struct Tried {
    /// Attempts whose answer was heard.
    pub attempts: u32,
    /// How much of its life is used up: time since its first failure in which the lane could send.
    pub age: Duration,
    /// Why it failed first.
    pub first: Failure,
}

impl Tried {
    /// `version, attempts 4, age ms 8, label length 1, label, detail`, numbers little-endian; the end of a long detail
    /// is left out.
    #[must_use]
    pub fn to_note(&self) -> Bytes {
        let label = self.first.reason.label();
        let age_ms = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        let mut note = Vec::with_capacity(NOTE_BYTES_MAX);
        note.push(NOTE_VERSION);
        note.extend_from_slice(&self.attempts.to_le_bytes());
        note.extend_from_slice(&age_ms.to_le_bytes());
        note.push(u8::try_from(label.len()).expect("labels are short"));
        note.extend_from_slice(label.as_bytes());
        let detail = &self.first.detail;
        let end = detail.floor_char_boundary(NOTE_BYTES_MAX.saturating_sub(note.len()));
        note.extend_from_slice(&detail.as_bytes()[..end]);
        note.into()
    }

    /// `None` where the note is none of this version's: then the event starts over.
    #[must_use]
    pub fn from_note(note: &[u8]) -> Option<Tried> {
        let (version, rest) = note.split_first()?;
        let (attempts, rest) = rest.split_first_chunk()?;
        let (age_ms, rest) = rest.split_first_chunk()?;
        let (label_bytes, rest) = rest.split_first()?;
        let (label, detail) = rest.split_at_checked(usize::from(*label_bytes))?;
        let reason = Reason::ALL.iter().find(|reason| reason.label().as_bytes() == label)?;
        (*version == NOTE_VERSION).then_some(Tried {
            attempts: u32::from_le_bytes(*attempts),
            age: Duration::from_millis(u64::from_le_bytes(*age_ms)),
            first: Failure::new(*reason, str::from_utf8(detail).ok()?),
        })
    }
}

/// How long after a restart at `now` an event waits that was to be tried again at `due`, after so many attempts.
/// `jitter` in `[0, 1]`.
#[must_use]
pub fn wait_after_restart(policy: &Policy, due: UnixMs, attempts: u32, now: UnixMs, jitter: f64) -> Duration {
    let wait = due.since(now);
    if wait > policy.max {
        // No delay was ever so long: the clock was set back. As if it had failed just now.
        return full_jitter(policy.first, policy.max, attempts, jitter);
    }
    if wait.is_zero() {
        return OVERDUE_SPREAD.min(policy.max).mul_f64(jitter.clamp(0.0, 1.0));
    }
    wait
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_note_gives_back_what_an_event_has_been_through() {
        let age = Duration::from_millis(72 * 3_600_000);
        for (sentence, detail, kept) in [
            ("a short detail", "the receiver answered 503", "the receiver answered 503"),
            ("none", "", ""),
            ("a long one ends where the room does, at a character", &"é".repeat(150), &"é".repeat(116)),
        ] {
            let tried = Tried { attempts: 7, age, first: Failure::new(Reason::SinkError, detail) };
            let note = tried.to_note();
            assert!(note.len() <= NOTE_BYTES_MAX, "{sentence}");
            let first = Failure::new(Reason::SinkError, kept);
            assert_eq!(Tried::from_note(&note), Some(Tried { first, ..tried }), "{sentence}");
        }
    }

    #[test]
    fn the_next_attempt_comes_when_it_was_due_and_never_later_than_the_longest_delay() {
        let secs = Duration::from_secs;
        let policy = Policy { first: secs(1), max: secs(300), attempts_max: 20 };
        let now = UnixMs(1_800_000_000_000);
        let at = |ms: i64| UnixMs(now.0 + ms);
        for (sentence, due, attempts, jitter, wait) in [
            ("due later: the rest of its delay", at(40_000), 3, 0.1, secs(40)),
            ("due as late as can be", at(300_000), 3, 0.1, secs(300)),
            ("the clock was set back by hours: as if it had just failed", at(7_200_000), 3, 1.0, secs(4)),
            ("and then never at once with the others", at(7_200_000), 30, 0.5, secs(150)),
            ("due while nobody was there: soon, but spread", at(-1), 3, 0.5, OVERDUE_SPREAD / 2),
            ("the clock was set ahead by years: the same", at(-100_000_000_000), 3, 1.0, OVERDUE_SPREAD),
            ("due at this very moment", at(0), 3, 0.0, secs(0)),
        ] {
            assert_eq!(wait_after_restart(&policy, due, attempts, now, jitter), wait, "{sentence}");
        }
        let hasty = Policy { max: Duration::from_millis(50), ..policy };
        assert_eq!(wait_after_restart(&hasty, at(-1), 1, now, 1.0), hasty.max, "a short longest delay");
    }

    proptest! {
        #[test]
        fn no_note_and_no_clock_makes_a_lane_panic(
            note in proptest::collection::vec(any::<u8>(), 0..60),
            (due, now) in any::<(i64, i64)>(),
            (attempts, jitter) in any::<(u32, f64)>(),
        ) {
            let _ = Tried::from_note(&note);
            let (first, max) = (Duration::from_secs(1), Duration::from_secs(300));
            let policy = Policy { first, max, attempts_max: 20 };
            let jitter = if jitter.is_finite() { jitter } else { 0.0 };
            prop_assert!(wait_after_restart(&policy, UnixMs(due), attempts, UnixMs(now), jitter) <= policy.max);
        }
    }
}
