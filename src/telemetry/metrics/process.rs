//! The metrics of the process as a whole.

use metrics::{describe_gauge, gauge};

const BUILD_INFO: &str = "hookbus_build_info";

/// Says what each metric means.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "always 1; its labels say which build runs");
}

/// The process has started.
pub fn started() {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
