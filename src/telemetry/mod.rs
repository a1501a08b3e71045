//! What the daemon tells about itself: metrics and logs.
//! Holds: R8 (labels are closed enums or names from the configuration; log fields never carry a payload or a secret).

pub mod logging;
pub mod metrics;
pub mod prometheus;
