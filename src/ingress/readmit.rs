//! A quarantined body goes through its source once more, with today's configuration.
//! Holds: R1 (it resolves after the journal has synced); who sent the body was proven when it came.

use super::kept::Kept;
use crate::clock;
use crate::envelope::SourceName;
use crate::journal::{AppendError, Journal};
use crate::source::{Arrival, Head, Peer, Request, Sources, Unreadable};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

/// Why a body stays in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadmitError {
    /// Its source is gone from the configuration.
    #[error("source {0} is not configured")]
    NoSuchSource(SourceName),
    /// It still cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The journal did not take it.
    #[error(transparent)]
    Journal(#[from] AppendError),
}

/// Reads the body and appends what it becomes.
///
/// # Errors
/// [`ReadmitError`]; nothing was appended.
pub async fn readmit(
    sources: &Sources,
    journal: &Journal,
    source: &SourceName,
    body: &Bytes,
    content_type: Option<&str>,
) -> Result<(), ReadmitError> {
    let source = sources.get(source).ok_or_else(|| ReadmitError::NoSuchSource(source.clone()))?;
    let mut headers = HeaderMap::new();
    if let Some(value) = content_type.and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(CONTENT_TYPE, value);
    }
    let request = Request {
        head: Head {
            source: &source.name,
            peer: Peer::NONE,
            path: "",
            method: &Method::POST,
            path_secret_matched: true,
            query: None,
            headers: &headers,
            rate: None,
        },
        body,
        arrival: Arrival { at: clock::now(), unique: uuid::Uuid::now_v7() },
    };
    let events = source.read(&request)?;
    Kept::events(journal, events, request.arrival.at, source.config.dedupe.get()).await?;
    Ok(())
}
