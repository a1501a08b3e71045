//! The metrics of the process as a whole.

use crate::time::UnixMs;
use metrics::{describe_gauge, gauge};

const BUILD_INFO: &str = "hookbus_build_info";
const STARTED_AT: &str = "hookbus_start_timestamp_seconds";
const READY: &str = "hookbus_ready";

/// Says what each metric means.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "Always 1; its labels say which build runs");
    describe_gauge!(STARTED_AT, "When the process started, in seconds since 1970");
    describe_gauge!(READY, "1 while new webhooks are accepted, as /readyz says");
}

/// The process has started.
pub fn started() {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// It began to serve its operators.
pub fn started_at(at: UnixMs) {
    gauge!(STARTED_AT).set(at.0 as f64 / 1000.0);
}

/// Whether it takes events at the moment of a scrape.
pub fn ready(is_ready: bool) {
    gauge!(READY).set(f64::from(u8::from(is_ready)));
}
