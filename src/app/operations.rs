//! The operations that one part asks of another it may not know: the operators' listener of the ingress, the polls of it too.

use crate::admin;
use crate::envelope::{Envelope, SourceName};
use crate::ingress;
use crate::journal::Journal;
use crate::provider;
use crate::source::Sources;
use crate::time::UnixMs;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::time::Duration;

/// What reading a quarantined body again needs.
pub(super) struct Readmission {
    pub sources: Sources,
    pub journal: Journal,
}

impl admin::Readmit for Readmission {
    fn readmit(
        &self,
        source: SourceName,
        body: Bytes,
        content_type: Option<String>,
    ) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let again =
                ingress::readmit(&self.sources, &self.journal, &source, &body, content_type.as_deref());
            again.await.map_err(|error| error.to_string())
        })
    }
}

impl admin::Watch for ingress::Captures {
    fn watch(&self, source: &str, with_bodies: bool, count: u64) -> Option<BoxStream<'static, Bytes>> {
        ingress::Captures::watch(self, source, with_bodies, count)
    }
}

/// What keeping events of the daemon's own needs.
pub(super) struct OwnEvents(pub Journal);

impl provider::Keep for OwnEvents {
    fn keep(&self, event: Envelope, at: UnixMs, window: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            ingress::keep_own(&self.0, event, at, window).await.map_err(|error| error.to_string())
        })
    }
}
