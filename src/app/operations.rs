//! The operations that the operators' listener asks of parts it may not know.

use crate::admin;
use crate::envelope::SourceName;
use crate::ingress;
use crate::journal::Journal;
use crate::source::Sources;
use bytes::Bytes;
use futures_util::future::BoxFuture;

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
