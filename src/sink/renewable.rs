//! A sink whose inside can be replaced while its lane runs: a kind that reads its secrets only when it is built is built
//! anew when they have changed.
//! Holds: deliveries that are under way end with the one they began with.

use super::{Failure, Limits, Outcome, Sink};
use crate::config::Live;
use crate::envelope::Envelope;
use futures_util::future::{BoxFuture, FutureExt};
use std::sync::Arc;

/// See the module.
pub struct Renewable(Live<Arc<dyn Sink>>);

impl Renewable {
    /// With `sink` inside.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Renewable(Live::new(sink))
    }

    /// Later deliveries go through `sink`; the one before is not closed.
    pub fn renew(&self, sink: Arc<dyn Sink>) {
        self.0.set(sink);
    }
}

impl Sink for Renewable {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        async move { self.0.get().deliver(event).await }.boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        async move { self.0.get().connect().await }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move { self.0.get().close().await }.boxed()
    }
}
