//! Says once that something refuses work and once that it takes work again, however many requests feel it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{info, warn};

/// One thing that can refuse.
pub(super) struct Alarm {
    what: &'static str,
    raised: AtomicBool,
}

impl Alarm {
    /// At rest; `what` names it in the log.
    pub(super) fn new(what: &'static str) -> Self {
        Alarm { what, raised: AtomicBool::new(false) }
    }

    /// It refused a request.
    pub(super) fn refused(&self, error: &dyn Display) {
        if !self.raised.swap(true, Ordering::Relaxed) {
            warn!(storage = self.what, %error, "requests are answered 503");
        }
    }

    /// It took a request.
    pub(super) fn took(&self) {
        if self.raised.load(Ordering::Relaxed) && self.raised.swap(false, Ordering::Relaxed) {
            info!(storage = self.what, "requests are taken again");
        }
    }
}
