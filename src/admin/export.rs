//! The export of dead letters: the one answer that hands out what senders wrote, because it exists for that (R8's
//! explicit exception; it needs the token wherever one is configured).
//! Holds: memory for one page of summaries and one payload, however many letters there are; each line is one JSON value.

use super::letters::{Asked, Listing};
use super::problem::Problem;
use super::{Desk, EXPORTS_MAX};
use crate::dead_letter::{Filter, LetterId, Payload, StoreError, Summary};
use crate::envelope::Envelope;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Summaries read at a time.
const PAGE: usize = 100;

/// Where an export stands.
struct Walk {
    desk: Arc<Desk>,
    filter: Filter,
    after: Option<LetterId>,
    page: VecDeque<Summary>,
    finished: bool,
    _place: OwnedSemaphorePermit,
}

/// Every matching letter with its content, one a line.
pub(super) async fn export(
    State(desk): State<Arc<Desk>>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    let place = Arc::clone(&desk.exports).try_acquire_owned();
    let place = place.map_err(|_| Problem::busy("exports", EXPORTS_MAX))?;
    let (filter, after, limit) = listing.split();
    if limit.is_some() {
        return Err(Problem::bad_request("an export has no limit; it streams every matching letter"));
    }
    let mut walk = Walk { desk, filter, after, page: VecDeque::new(), finished: false, _place: place };
    // The first page is read before the answer begins, so that a store that cannot answer is a 5xx and not a cut stream.
    walk.turn_page().await?;
    tracing::info!("an operator exports dead letters");
    let lines = try_unfold(walk, |mut walk| async move {
        match walk.next_line().await {
            Ok(line) => Ok(line.map(|line| (line, walk))),
            Err(error) => {
                tracing::error!(%error, "an export of dead letters was cut off");
                Err(error)
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

impl Walk {
    async fn next_line(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            while let Some(summary) = self.page.pop_front() {
                // A letter may have been replayed or discarded since its page was read.
                if let Some((summary, payload)) = self.desk.parts.dead_letters.get(summary.id).await? {
                    return Ok(Some(line(&summary, &payload, self.desk.parts.encode)));
                }
            }
            if self.finished {
                return Ok(None);
            }
            self.turn_page().await?;
        }
    }
    async fn turn_page(&mut self) -> Result<(), StoreError> {
        let store = &self.desk.parts.dead_letters;
        self.page = store.list(self.filter.clone(), self.after.clone(), PAGE).await?.into();
        self.finished = self.page.len() < PAGE;
        self.after = self.page.back().map(|letter| letter.id.clone()).or(self.after.take());
        Ok(())
    }
}

/// A quarantined body as it travels in a line.
#[derive(Serialize)]
struct QuarantinedBody<'a> {
    content_type: Option<&'a str>,
    base64: String,
}

fn line(summary: &Summary, payload: &Payload, encode: fn(&Envelope) -> Vec<u8>) -> Bytes {
    let (key, content) = match payload {
        Payload::Event(event) => (&b",\"event\":"[..], on_one_line(encode(event))),
        Payload::Body { body, content_type } => {
            let body =
                QuarantinedBody { content_type: content_type.as_deref(), base64: STANDARD.encode(body) };
            (&b",\"body\":"[..], json(&body))
        }
    };
    Bytes::from([&b"{\"letter\":"[..], &json(summary), key, &content, b"}\n"].concat())
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and flags are always JSON")
}

/// A sender's JSON may hold line breaks, but in JSON they are only ever space between tokens: a blank is the same value.
fn on_one_line(mut document: Vec<u8>) -> Vec<u8> {
    for byte in &mut document {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    document
}
