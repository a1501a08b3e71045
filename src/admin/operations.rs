//! Sources, sinks and the log level: what is there, and the few things an operator may change while it runs.
//! Holds: every change is logged once, here.

use super::letters::Body;
use super::problem::Problem;
use super::{Desk, SourceSummary};
use crate::dispatch::{LaneStatus, NoSuchSink};
use crate::telemetry::logging::InvalidLevel;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The configured sources.
pub(super) async fn sources(State(desk): State<Arc<Desk>>) -> Json<Vec<SourceSummary>> {
    Json(desk.parts.sources.clone())
}

/// Every lane.
pub(super) async fn sinks(State(desk): State<Arc<Desk>>) -> Json<Vec<LaneStatus>> {
    Json(desk.parts.lanes.status())
}

/// Stops a lane's deliveries until `resume` or a restart.
pub(super) async fn pause(
    State(desk): State<Arc<Desk>>,
    Path(sink): Path<String>,
) -> Result<StatusCode, Problem> {
    desk.parts.lanes.pause(&sink)?;
    tracing::info!(%sink, "an operator paused the lane");
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a lane go on at once.
pub(super) async fn resume(
    State(desk): State<Arc<Desk>>,
    Path(sink): Path<String>,
) -> Result<StatusCode, Problem> {
    desk.parts.lanes.resume(&sink)?;
    tracing::info!(%sink, "an operator resumed the lane");
    Ok(StatusCode::NO_CONTENT)
}

/// The log directives, as read and as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Level {
    level: String,
}

/// Which log lines are written now.
pub(super) async fn log_level(State(desk): State<Arc<Desk>>) -> Json<Level> {
    Json(Level { level: desk.parts.log_level.get() })
}

/// Changes which log lines are written, until the next start.
pub(super) async fn set_log_level(
    State(desk): State<Arc<Desk>>,
    Body(wanted): Body<Level>,
) -> Result<Json<Level>, Problem> {
    let refused = |error: InvalidLevel| Problem::bad_request(error.to_string());
    desk.parts.log_level.set(&wanted.level).map_err(refused)?;
    let level = desk.parts.log_level.get();
    tracing::info!(%level, "an operator changed the log level");
    Ok(Json(Level { level }))
}

impl From<NoSuchSink> for Problem {
    fn from(error: NoSuchSink) -> Self {
        // The name is the client's own text from the path; only names the configuration could hold are repeated.
        match crate::envelope::SinkName::new(&error.0) {
            Ok(_) => Problem::not_found(error.to_string()),
            Err(invalid) => Problem::not_found(invalid.to_string()),
        }
    }
}
