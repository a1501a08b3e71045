//! Every error the operators' listener answers with: RFC 9457 problem documents with a stable `type`.
//! Holds: R8 (a detail is a sentence about names and limits, never a stored value).

use crate::dead_letter::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::borrow::Cow;

/// An answer that is not a 2xx.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
}

/// The document on the wire.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    fn new(
        status: StatusCode,
        slug: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Problem { status, slug, title, detail: detail.into() }
    }
    pub(super) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "the request cannot be understood", detail)
    }
    pub(super) fn unauthorized() -> Self {
        let detail = "send the configured admin.token as `authorization: Bearer …`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a token is needed", detail)
    }
    pub(super) fn foreign_page(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign-page", "the request comes from another site's page", detail)
    }
    pub(super) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is no such thing", detail)
    }
    pub(super) fn media_type() -> Self {
        let detail = "send `content-type: application/json`";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "the body must be JSON",
            detail,
        )
    }
    pub(super) fn too_large() -> Self {
        let detail = format!("a body has at most {} bytes", super::REQUEST_BODY_BYTES_MAX);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "the body is too large", detail)
    }
    pub(super) fn timed_out() -> Self {
        let detail = format!("it took longer than {} seconds", super::REQUEST_TIMEOUT.as_secs());
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the operation was given up", detail)
    }
    pub(super) fn busy(what: &'static str, most: usize) -> Self {
        let detail = format!("at most {most} {what} run at once; try again later");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many of these at once", detail)
    }
    pub(super) fn not_ready(detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "no events are taken now", detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Full | StoreError::Closed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "the dead-letter store cannot do it now",
                detail,
            ),
            StoreError::Failed(_) => {
                tracing::error!(error = %detail, "a dead-letter operation failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "store-failed",
                    "the dead-letter store failed",
                    detail,
                )
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: format!("urn:hookbus:problem:{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let body = serde_json::to_vec(&document).expect("a document of texts and a number is always JSON");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// For paths that do not exist.
pub(super) async fn no_such_path() -> Problem {
    Problem::not_found("no such path; see docs/reference/admin-api.md")
}

/// For methods that a path does not take; the router adds `Allow`.
pub(super) async fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "the path does not take this method",
        "see the header `allow`",
    )
}
