//! What a reload counts.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const RELOADS: &str = "hookbus_config_reloads_total";
const SUCCESS: &str = "hookbus_config_reload_success";

const RESULTS: [&str; 2] = ["failed", "succeeded"];

/// Says what each metric means.
pub fn describe() {
    describe_counter!(RELOADS, "Reloads asked for, by result.");
    describe_gauge!(SUCCESS, "1 while the last reload, or the start, could read everything.");
}

/// The daemon has started, with a configuration that could be read.
pub fn started() {
    for result in RESULTS {
        counter!(RELOADS, "result" => result).increment(0);
    }
    gauge!(SUCCESS).set(1.0);
}

/// A reload has ended.
pub fn reloaded(succeeded: bool) {
    counter!(RELOADS, "result" => RESULTS[usize::from(succeeded)]).increment(1);
    gauge!(SUCCESS).set(f64::from(u8::from(succeeded)));
}
