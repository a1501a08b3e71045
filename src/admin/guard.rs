//! Who may ask: the bearer token, and a refusal of what a browser sends on behalf of some other site's page.
//! Holds: the token is compared in constant time and never shown (R8); every answer is marked as not to be cached.
//!
//! A listener on loopback may run without a token. Then any web page the operator opens could post to it, or reach it
//! under a name of its own that resolves to 127.0.0.1; so an `Origin` must be the listener itself, and without a token
//! `Host` must be an address or `localhost`, which no foreign name can be.

use super::problem::Problem;
use super::{Desk, REQUEST_TIMEOUT};
use crate::config::Secret;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Lets a request through to the guarded paths, or answers it.
pub(super) async fn admit(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    match check(desk.token.get().as_deref(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Bounds the time of every request and keeps its answer out of caches.
pub(super) async fn bound(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_elapsed| Problem::timed_out().into_response());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn check(token: Option<&Secret>, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if headers.contains_key(header::ORIGIN)
        && text(header::ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") != Some(host))
    {
        return Err(Problem::foreign_page("the header `origin` is not this listener"));
    }
    match token {
        None if !is_address_or_localhost(host) => {
            Err(Problem::foreign_page("without admin.token, ask by address or as `localhost`"))
        }
        None => Ok(()),
        Some(token) if bearer_is(text(header::AUTHORIZATION), token) => Ok(()),
        Some(_) => Err(Problem::unauthorized()),
    }
}

fn is_address_or_localhost(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

fn bearer_is(authorization: Option<&str>, token: &Secret) -> bool {
    let Some((scheme, given)) = authorization.and_then(|text| text.split_once(' ')) else { return false };
    // Digests have one length, so that not even the token's length can be measured.
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    scheme.eq_ignore_ascii_case("bearer")
        && bool::from(digest(given.trim()).as_slice().ct_eq(digest(token.expose()).as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_and_a_wrong_token_are_refused() {
        let secret = Secret::literal("correct");
        let with = Some(&secret);
        for (sentence, token, headers, status) in [
            ("an address needs no token where none is set", None, &[("host", "127.0.0.1:8081")][..], None),
            ("nor does an IPv6 address", None, &[("host", "[::1]:8081")], None),
            ("nor localhost", None, &[("host", "localhost:8081")], None),
            ("a name that points here may be anybody's", None, &[("host", "evil.test:8081")], Some(403)),
            ("no host at all is not an address", None, &[], Some(403)),
            (
                "a page of another site is refused",
                None,
                &[("host", "127.0.0.1:8081"), ("origin", "http://evil.test")],
                Some(403),
            ),
            (
                "a sandboxed page is another site too",
                None,
                &[("host", "127.0.0.1:8081"), ("origin", "null")],
                Some(403),
            ),
            (
                "the listener's own page is not",
                None,
                &[("host", "127.0.0.1:8081"), ("origin", "http://127.0.0.1:8081")],
                None,
            ),
            (
                "the right token passes under any name",
                with,
                &[("host", "bus.test"), ("authorization", "Bearer correct")],
                None,
            ),
            ("the scheme is written in any case", with, &[("authorization", "bearer correct")], None),
            ("a wrong token is refused", with, &[("authorization", "Bearer wrong")], Some(401)),
            ("a prefix of it too", with, &[("authorization", "Bearer correc")], Some(401)),
            ("another scheme too", with, &[("authorization", "Basic correct")], Some(401)),
            ("and none at all", with, &[("host", "127.0.0.1:8081")], Some(401)),
        ] {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
                .collect::<Vec<(header::HeaderName, HeaderValue)>>()
                .into_iter()
                .collect();
            let answer =
                check(token, &headers).err().map(|problem| problem.into_response().status().as_u16());
            assert_eq!(answer, status, "{sentence}");
        }
    }
}
