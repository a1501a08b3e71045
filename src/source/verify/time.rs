//! How old a signature may be.

use super::super::Refused;
use crate::config::Period;
use crate::time::UnixMs;
use std::time::Duration;

/// What every vendor's library allows: five minutes, into the past and, for clocks that differ, into the future.
pub(in crate::source) const TOLERANCE_DEFAULT: Period = Period::mins(5);
/// The most digits of a time: nobody signs microseconds.
const DIGITS_MAX: usize = 13;
/// Smaller numbers are seconds, larger ones milliseconds.
const SECONDS_END: i64 = 100_000_000_000;

/// Seconds since 1970 as the sender wrote them, all digits; what is too large for seconds is milliseconds.
pub(super) fn seconds(text: &[u8]) -> Result<i64, Refused> {
    if text.is_empty() || text.len() > DIGITS_MAX || !text.iter().all(u8::is_ascii_digit) {
        return Err(Refused::Wrong);
    }
    let number = text.iter().fold(0, |number: i64, digit| number * 10 + i64::from(digit - b'0'));
    Ok(if number < SECONDS_END { number } else { number / 1000 })
}

/// Whole seconds are compared, as they are signed: exactly the tolerance passes, a second more does not.
pub(super) fn is_fresh(signed_secs: i64, arrival: UnixMs, tolerance: Duration) -> Result<(), Refused> {
    let apart_secs = arrival.0.div_euclid(1000).abs_diff(signed_secs);
    if apart_secs <= tolerance.as_secs() { Ok(()) } else { Err(Refused::Stale) }
}
