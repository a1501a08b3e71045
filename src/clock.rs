//! The only place that reads the wall clock, so that everything else can be handed a time.
//! Durations are measured with `tokio::time::Instant` or `std::time::Instant`, never with this clock: it may jump.

use crate::time::UnixMs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock's reading now; a clock set before 1970 reads as 1970.
#[must_use]
pub fn now() -> UnixMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
