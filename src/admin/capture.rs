//! The capture of a source: its next requests as they come, for whoever writes a source for an unknown sender.
//! Holds: R8 (the lines come without secrets, and without values of bodies unless asked for); at most `CAPTURES_MAX`.

use super::letters::Asked;
use super::problem::Problem;
use super::{CAPTURES_MAX, Desk};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;

/// What is asked for.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    /// After so many requests the answer ends.
    count: u64,
    /// Whether values of bodies are shown.
    bodies: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted { count: u64::MAX, bodies: false }
    }
}

/// One line of JSON a request, from now on.
pub(super) async fn capture(
    State(desk): State<Arc<Desk>>,
    Path(source): Path<String>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Problem> {
    let place = Arc::clone(&desk.captures).try_acquire_owned();
    let place = place.map_err(|_| Problem::busy("captures", CAPTURES_MAX))?;
    let lines = desk.parts.watch.watch(&source, wanted.bodies, wanted.count);
    let lines = lines.ok_or_else(|| Problem::not_found("there is no source of this name"))?;
    tracing::info!(%source, with_bodies = wanted.bodies, "an operator watches requests");
    let lines = lines.map(move |line| {
        // Held for as long as the stream lives.
        let _ = &place;
        Ok::<_, Infallible>(line)
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}
