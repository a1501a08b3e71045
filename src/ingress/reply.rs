//! Every answer the ingress gives: one 2xx that promises something, which takes the proof; the answer to a question that
//! carried no event; and the problems (RFC 9457).
//! Holds: R1 (a [`Response`] is made here only, and [`accepted`] takes a [`Kept`], which only a finished append or
//! quarantine can make), R8 (a problem says what the sender got wrong in general terms, never what it sent or what was
//! expected as a credential).
//! Absent on purpose: answers to heads that are no HTTP, too long or too many fields over HTTP/1.1: the HTTP library
//! gives those (400, 414, 431, without a body) before there is a request.

use super::kept::{Kept, What};
use crate::journal::Appended;
use crate::source::{self, Handshake, Unreadable};
use crate::telemetry::metrics::ingress::Answer;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::Full;
use std::time::Duration;

/// A whole answer in memory. Nobody else in the ingress can make one: `http::Response` is not named elsewhere.
pub(super) struct Response(http::Response<Full<Bytes>>);

impl Response {
    pub(super) fn status(&self) -> StatusCode {
        self.0.status()
    }
    /// For the wire.
    pub(super) fn into_http(self) -> http::Response<Full<Bytes>> {
        self.0
    }
}

/// When to try again after "too many at once".
const BUSY_RETRY_SECS: u64 = 1;
/// When to try again after "no room on disk": an operator or the retention has to make some.
const STORAGE_RETRY_SECS: u64 = 30;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// No such source, or a path secret that is wrong, missing or not expected: one answer for all, so that nobody
    /// learns which sources there are.
    NotFound,
    /// The source takes other methods.
    MethodNotAllowed(&'static [Method]),
    /// More header fields than may be.
    HeadTooLarge,
    /// The source's rate is used up for so long.
    RateLimited(Duration),
    /// As many requests are in work as may be.
    Busy,
    /// The body took too long.
    BodyTimeout,
    /// The body is too large, as sent or inflated.
    BodyTooLarge,
    /// The body ended too early or its chunks are malformed.
    BodyIncomplete,
    /// The body is not of the content coding it claims.
    BrokenCoding,
    /// A content coding that is not gzip, deflate, br or zstd, or too many of them.
    UnknownCoding,
    /// The credential is missing or wrong.
    Unauthorized,
    /// The source cannot read it, and rejects what it cannot read.
    Unreadable(Unreadable),
    /// It was read and holds no event at all.
    NoEvent,
    /// An event does not fit into the journal.
    EventTooLarge,
    /// The journal or the dead-letter store cannot take it now.
    StorageUnavailable,
}

impl Problem {
    /// The status, the last part of `type` (which never changes), and how it is counted.
    fn class(&self) -> (StatusCode, &'static str, Answer) {
        match self {
            Problem::NotFound => (StatusCode::NOT_FOUND, "not-found", Answer::NotFound),
            Problem::MethodNotAllowed(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", Answer::MethodNotAllowed)
            }
            Problem::HeadTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", Answer::HeadTooLarge)
            }
            Problem::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate-limited", Answer::RateLimited),
            Problem::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", Answer::Busy),
            Problem::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body-timeout", Answer::BodyTimeout),
            Problem::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", Answer::TooLarge),
            Problem::BodyIncomplete => (StatusCode::BAD_REQUEST, "body-incomplete", Answer::BadRequest),
            Problem::BrokenCoding => (StatusCode::BAD_REQUEST, "broken-coding", Answer::BadRequest),
            Problem::UnknownCoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown-coding", Answer::UnsupportedMedia)
            }
            Problem::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", Answer::Unauthorized),
            Problem::Unreadable(Unreadable::MediaType | Unreadable::NotACloudEvent) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", Answer::UnsupportedMedia)
            }
            Problem::Unreadable(_) => (StatusCode::BAD_REQUEST, "unreadable", Answer::BadRequest),
            Problem::NoEvent => (StatusCode::BAD_REQUEST, "no-event", Answer::BadRequest),
            Problem::EventTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "event-too-large", Answer::TooLarge),
            Problem::StorageUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "storage-unavailable", Answer::StorageUnavailable)
            }
        }
    }

    /// One sentence for whoever reads the sender's log.
    fn title(&self) -> &'static str {
        match self {
            Problem::NotFound => "there is no such source, or its secret is missing or wrong",
            Problem::MethodNotAllowed(_) => "this source takes other methods",
            Problem::HeadTooLarge => "the request has too many header fields",
            Problem::RateLimited(_) => "this source may not send more for now",
            Problem::Busy => "too many requests at once",
            Problem::BodyTimeout => "the body took too long",
            Problem::BodyTooLarge => "the body is too large, as sent or inflated",
            Problem::BodyIncomplete => "the body ended too early or its chunks are malformed",
            Problem::BrokenCoding => "the body is not of the content coding that it claims, or cut off",
            Problem::UnknownCoding => "only gzip, deflate, br and zstd are taken, at most three at once",
            Problem::Unauthorized => "the credential is missing or wrong",
            Problem::Unreadable(Unreadable::MediaType | Unreadable::NotACloudEvent) => {
                "this source does not take the media type"
            }
            Problem::Unreadable(_) => "the body is not what this source reads",
            Problem::NoEvent => "the body holds no event",
            Problem::EventTooLarge => "the event is larger than can be stored",
            Problem::StorageUnavailable => "nothing can be stored for now",
        }
    }

    /// Status, name and what is wrong, for operators.
    pub(super) fn shown(&self) -> (u16, &'static str, String) {
        let (status, name, _) = self.class();
        let reason = match self {
            Problem::Unreadable(why) => why.to_string(),
            other => other.title().to_owned(),
        };
        (status.as_u16(), name, reason)
    }

    /// How it is counted.
    pub(super) fn answer(&self) -> Answer {
        self.class().2
    }

    /// What `Retry-After` says, in seconds, where the same request may pass later.
    fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Problem::RateLimited(wait) => Some(whole_secs(*wait)),
            Problem::Busy => Some(BUSY_RETRY_SECS),
            Problem::StorageUnavailable => Some(STORAGE_RETRY_SECS),
            _ => None,
        }
    }
}

/// The 2xx that promises an event, in the sender's own dialect. Whoever holds a [`Kept`] has everything on disk; it is
/// spent, because a promise is given once.
pub(super) fn accepted(kept: Kept, dialect: source::Answer) -> Response {
    let (media_type, body) = match dialect {
        source::Answer::ValueTrue => ("application/json", Bytes::from_static(b"{\"value\":true}")),
        source::Answer::Identities => ("application/json", identities(&kept).into()),
        source::Answer::Fixed { media_type, body } => (media_type, Bytes::from_static(body.as_bytes())),
    };
    answer(StatusCode::OK, HeaderValue::from_static(media_type), body)
}

/// The answer to a question that carried no event. It promises nothing.
pub(super) fn handshake(handshake: Handshake) -> Response {
    let mut response = http::Response::new(Full::new(handshake.body));
    *response.headers_mut() = handshake.headers;
    Response(response)
}

fn identities(kept: &Kept) -> Vec<u8> {
    let mut json = Vec::with_capacity(96);
    match kept.what() {
        What::Letter(letter) => identity(&mut json, &letter.id().0, false),
        What::Events(events) => {
            let single = events.each().len() == 1;
            if !single {
                json.push(b'[');
            }
            for (index, (event, appended)) in events.each().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                identity(&mut json, &event.id, appended == Appended::Duplicate);
            }
            if !single {
                json.push(b']');
            }
        }
    }
    json
}

fn identity(json: &mut Vec<u8>, id: &str, duplicate: bool) {
    json.extend_from_slice(b"{\"id\":");
    serde_json::to_writer(&mut *json, id).expect("text is always JSON, and memory takes it");
    json.extend_from_slice(if duplicate { b",\"duplicate\":true}" } else { b",\"duplicate\":false}" });
}

/// A refusal as `application/problem+json`, with the headers its status asks for.
pub(super) fn refused(problem: &Problem) -> Response {
    let (status, name, _) = problem.class();
    let mut fields = serde_json::json!({
        "type": format!("urn:hookbus:problem:{name}"),
        "title": problem.title(),
        "status": status.as_u16(),
    });
    if let Problem::Unreadable(why) = problem {
        fields["detail"] = why.to_string().into();
    }
    let media_type = HeaderValue::from_static("application/problem+json");
    let mut response = answer(status, media_type, fields.to_string().into());
    let headers = response.0.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(secs) = problem.retry_after_secs() {
        headers.insert(RETRY_AFTER, secs.into());
    }
    if let Problem::MethodNotAllowed(methods) = problem {
        let names = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        headers.insert(ALLOW, HeaderValue::from_str(&names).expect("method names are header text"));
    }
    if *problem == Problem::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Webhook"));
    }
    response
}

/// Tells the sender that no further request is answered on this connection (HTTP/1.1 only: HTTP/2 has GOAWAY).
pub(super) fn last_on_its_connection(mut response: Response) -> Response {
    response.0.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Rounded up, at least one: a sender that waits this long is not refused again for the same reason.
fn whole_secs(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn answer(status: StatusCode, media_type: HeaderValue, body: Bytes) -> Response {
    let mut response = http::Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    Response(response)
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
