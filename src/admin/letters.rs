//! The dead-letter operations: list, show, replay, discard.
//! Holds: R8 (summaries only), and that "all letters" is never what an empty request means.

use super::Desk;
use super::problem::Problem;
use crate::dead_letter::{Filter, LetterId, Origin, Payload, Summary};
use crate::envelope::{SinkName, SourceName};
use crate::time::UnixMs;
use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts as Head;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most letters of one page of a listing.
const PAGE_MAX: usize = crate::dead_letter::LIST_LETTERS_MAX;
const PAGE_DEFAULT: usize = 100;
/// The most quarantined bodies read again in one request; the client asks again with `after`.
const READMITTED_MAX: usize = 100;

/// A JSON body, refused with a problem document where it is none.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::media_type());
        }
        let bytes = bytes::Bytes::from_request(request, state).await.map_err(|rejection| match rejection
            .status()
        {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
            _ => Problem::bad_request("the body ended early"),
        })?;
        serde_json::from_slice(&bytes).map(Body).map_err(|error| Problem::bad_request(error.to_string()))
    }
}

/// Query parameters, refused with a problem document where they are wrong.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;
    async fn from_request_parts(head: &mut Head, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(head, state).await;
        query.map(|Query(asked)| Asked(asked)).map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// The parameters of a listing: the fields of a filter, one by one.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listing {
    id: Option<LetterId>,
    sink: Option<SinkName>,
    source: Option<SourceName>,
    event_type: Option<String>,
    reason: Option<String>,
    since: Option<i64>,
    until: Option<i64>,
    quarantined: Option<bool>,
    after: Option<LetterId>,
    limit: Option<usize>,
}

impl Listing {
    pub(super) fn split(self) -> (Filter, Option<LetterId>, Option<usize>) {
        let filter = Filter {
            ids: self.id.into_iter().collect(),
            sink: self.sink,
            source: self.source,
            event_type: self.event_type,
            reason: self.reason,
            since: self.since.map(UnixMs),
            until: self.until.map(UnixMs),
            quarantined: self.quarantined,
        };
        (filter, self.after, self.limit)
    }
}

/// One page.
#[derive(Serialize)]
pub(super) struct Page {
    letters: Vec<Summary>,
    /// What to give as `after` for the next page; absent on the last.
    next: Option<LetterId>,
}

/// Letters in the order they were given up.
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    Asked(listing): Asked<Listing>,
) -> Result<Json<Page>, Problem> {
    let (filter, after, limit) = listing.split();
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if limit == 0 || limit > PAGE_MAX {
        return Err(Problem::bad_request(format!("limit is 1 to {PAGE_MAX}")));
    }
    let letters = desk.parts.dead_letters.list(filter, after, limit).await?;
    let next = letters.last().filter(|_| letters.len() == limit).map(|letter| letter.id.clone());
    Ok(Json(Page { letters, next }))
}

/// One letter's summary.
pub(super) async fn show(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<LetterId>,
) -> Result<Json<Summary>, Problem> {
    let filter = Filter { ids: vec![id], ..Filter::default() };
    let found = desk.parts.dead_letters.list(filter, None, 1).await?.pop();
    found.map(Json).ok_or_else(|| Problem::not_found("there is no dead letter of this id"))
}

/// Which letters an operation is about: a filter, and a word for all of them.
#[derive(Deserialize)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
pub(super) struct Selection {
    filter: Filter,
    after: Option<LetterId>,
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Selection {
    type Error = String;
    fn try_from(mut fields: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        let all = fields.remove("all").is_some_and(|all| all == serde_json::Value::Bool(true));
        let after = fields.remove("after").filter(|after| !after.is_null());
        let after = after.map(serde_json::from_value).transpose().map_err(|error| error.to_string())?;
        let filter = serde_json::from_value(serde_json::Value::Object(fields));
        let filter: Filter = filter.map_err(|error| error.to_string())?;
        if filter == Filter::default() && !all {
            return Err("name ids or another filter, or say `\"all\": true`".to_owned());
        }
        Ok(Selection { filter, after })
    }
}

/// How many letters were deleted for good.
#[derive(Serialize)]
pub(super) struct Discarded {
    discarded: u64,
}

/// Deletes letters for good.
pub(super) async fn discard(
    State(desk): State<Arc<Desk>>,
    Body(selection): Body<Selection>,
) -> Result<Json<Discarded>, Problem> {
    let discarded = desk.parts.dead_letters.discard(selection.filter).await?;
    tracing::info!(letters = discarded, "an operator discarded dead letters");
    Ok(Json(Discarded { discarded }))
}

/// What a replay did.
#[derive(Serialize, Default)]
pub(super) struct Replayed {
    /// Letters that their lanes were asked to deliver again.
    requested: u64,
    /// Quarantined bodies that could be read this time, and are events now.
    readmitted: u64,
    /// Quarantined bodies that still cannot.
    refused: Vec<StillUnreadable>,
    /// More quarantined bodies wait: ask again with `quarantined` and this `after`.
    more: bool,
    after: Option<LetterId>,
}

/// A quarantined body that stays one.
#[derive(Serialize)]
pub(super) struct StillUnreadable {
    id: LetterId,
    problem: String,
}

/// Asks the lanes to deliver letters again, and the sources to read quarantined bodies again.
pub(super) async fn replay(
    State(desk): State<Arc<Desk>>,
    Body(Selection { filter, after }): Body<Selection>,
) -> Result<Json<Replayed>, Problem> {
    let mut done = Replayed { after, ..Replayed::default() };
    if filter.quarantined != Some(true) {
        done.requested = desk.parts.dead_letters.request_replay(filter.clone()).await?;
    }
    if filter.quarantined != Some(false) {
        readmit(&desk, Filter { quarantined: Some(true), ..filter }, &mut done).await?;
    }
    let Replayed { requested, readmitted, refused, .. } = &done;
    tracing::info!(requested, readmitted, refused = refused.len(), "an operator replayed dead letters");
    Ok(Json(done))
}

async fn readmit(desk: &Desk, filter: Filter, done: &mut Replayed) -> Result<(), Problem> {
    let store = &desk.parts.dead_letters;
    let page = store.list(filter, done.after.clone(), READMITTED_MAX).await?;
    done.more = page.len() == READMITTED_MAX;
    for letter in page {
        let Some((Summary { id, origin: Origin::Ingress, source, .. }, Payload::Body { body, content_type })) =
            store.get(letter.id).await?
        else {
            continue;
        };
        match desk.parts.readmit.readmit(source, body, content_type).await {
            // In this order a crash between the two leaves a letter too many, never one too few (R4).
            Ok(()) => {
                done.readmitted += 1;
                store.readmitted(id).await?;
            }
            // The next page begins after a letter that stays.
            Err(problem) => {
                done.after = Some(id.clone());
                done.refused.push(StillUnreadable { id, problem });
            }
        }
    }
    Ok(())
}
