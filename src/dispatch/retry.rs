//! When an event is tried again and when it is given up: pure arithmetic, no clock, no randomness of its own.
//! Holds: only `Retry` outcomes come here; nothing that a sink's absence causes ever uses up an attempt.

use std::time::Duration;

/// The limits of one sink's retries (`[sinks.N.retry]`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The longest first delay.
    pub first: Duration,
    /// The longest delay of all.
    pub max: Duration,
    /// Deliveries tried before the event is given up, at least 1.
    pub attempts_max: u32,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Try again after this long.
    After(Duration),
    /// Give the event up.
    GiveUp,
}

impl Policy {
    /// The step after attempt number `attempts` (from 1) failed, where the event may still live for `life_left`.
    /// `jitter` in `[0, 1]` picks the delay between nothing and the full exponential step.
    #[must_use]
    pub fn step(&self, attempts: u32, life_left: Duration, jitter: f64) -> Step {
        if attempts >= self.attempts_max || life_left.is_zero() {
            return Step::GiveUp;
        }
        Step::After(full_jitter(self.first, self.max, attempts, jitter).min(life_left))
    }
}

/// A delay between zero and `first × 2^(attempts − 1)`, capped at `max`: spread out, so that many events that failed
/// together do not come back together.
#[must_use]
pub fn full_jitter(first: Duration, max: Duration, attempts: u32, jitter: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(32);
    let ceiling = first.checked_mul(2_u32.saturating_pow(doublings)).map_or(max, |grown| grown.min(max));
    ceiling.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn attempts_and_age_decide_between_another_try_and_giving_up() {
        let policy = Policy { first: Duration::from_secs(1), max: Duration::from_secs(60), attempts_max: 5 };
        let after = |secs| Step::After(Duration::from_secs(secs));
        for (sentence, attempts, life_left, jitter, step) in [
            ("the first delay is the configured one", 1, HOUR, 1.0, after(1)),
            ("each further one doubles", 3, HOUR, 1.0, after(4)),
            ("jitter may shorten a delay to nothing", 3, HOUR, 0.0, after(0)),
            ("the last attempt is the last", 5, HOUR, 1.0, Step::GiveUp),
            ("an old event is given up whatever attempts are left", 1, Duration::ZERO, 1.0, Step::GiveUp),
            ("the last try comes when life ends, not after", 4, Duration::from_secs(3), 1.0, after(3)),
        ] {
            assert_eq!(policy.step(attempts, life_left, jitter), step, "{sentence}");
        }
    }

    #[test]
    fn no_number_of_attempts_exceeds_the_ceiling_or_overflows() {
        let (first, max) = (Duration::from_millis(500), Duration::from_secs(300));
        for attempts in [1, 2, 10, 32, 33, 64, u32::MAX] {
            assert!(full_jitter(first, max, attempts, 1.0) <= max, "after {attempts} attempts");
        }
        assert_eq!(full_jitter(first, max, 40, 1.0), max);
    }
}
