//! How long a lane could send, which is what events age by.
//! Holds: an event ages only while its sink takes events: not while the sink is away or asked for less, not while the
//! lane is paused, and not while the process does not run; nor by a wall clock that jumps.
//! Pure: the caller brings the time.

use std::time::Duration;
use tokio::time::Instant;

/// Counts while it is told to.
#[derive(Debug, Default)]
pub struct Lifetime {
    counted: Duration,
    since: Option<Instant>,
}

impl Lifetime {
    /// From `now` on it counts, or it does not.
    pub fn count(&mut self, counts: bool, now: Instant) {
        self.counted = self.reading(now);
        self.since = counts.then_some(now);
    }

    /// What was counted until `now`.
    #[must_use]
    pub fn reading(&self, now: Instant) -> Duration {
        self.counted + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_in_which_it_counts_is_counted() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut lifetime = Lifetime::default();
        for (sentence, at_second, counts, reading) in [
            ("nothing before it was told to", 5, true, 0),
            ("what has passed since", 8, true, 3),
            ("also when it is told again", 9, false, 4),
            ("and nothing while it is not to count", 100, true, 4),
            ("then it goes on", 101, true, 5),
        ] {
            lifetime.count(counts, at(at_second));
            assert_eq!(lifetime.reading(at(at_second)), Duration::from_secs(reading), "{sentence}");
        }
    }
}
