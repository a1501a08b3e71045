//! How many requests one source may send.
//! Holds: a request over the rate is told how long to wait, and waiting that long is enough for one request.

use crate::config::Rate;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use std::time::Duration;

/// One source's allowance: `count` at once, refilled evenly over `per`.
pub(super) struct Limiter {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        let burst = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
        let refill = (rate.per / burst.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(refill).expect("a period of at least a nanosecond").allow_burst(burst);
        Limiter { limiter: RateLimiter::direct(quota), clock: DefaultClock::default() }
    }

    /// Takes one request from the allowance.
    ///
    /// # Errors
    /// How long until the next one is allowed.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_allows_its_count_at_once_and_then_says_how_long_to_wait() {
        let limiter = Limiter::new(Rate { count: 3, per: Duration::from_secs(3600) });
        assert_eq!([limiter.take(), limiter.take(), limiter.take()], [Ok(()); 3]);
        let wait = limiter.take().unwrap_err();
        assert!(wait > Duration::from_secs(1100) && wait <= Duration::from_secs(1200), "{wait:?}");
    }

    #[test]
    fn absurd_rates_are_rates_too() {
        for (count, per) in
            [(u32::MAX, Duration::from_millis(1)), (1, Duration::ZERO), (0, Duration::from_secs(1))]
        {
            assert_eq!(Limiter::new(Rate { count, per }).take(), Ok(()));
        }
    }
}
