//! `http`: posts each event to a URL, and reads from the answer's status what became of it.
//! Holds: R7 (the body is the event or the sender's own bytes), R8 (details name host and status, nothing of the URL's
//! path, of a header or of an answer); redirects are never followed, proxies of the environment never used.
//! Absent on purpose: waiting and trying again (`dispatch`), but for one repetition on a kept connection that turned
//! out to be dead. The client itself repeats only what the server has provably not begun (HTTP/2 REFUSED_STREAM and
//! GOAWAY, a request that never left).

mod answer;
mod config;
mod means;
#[cfg(test)]
mod fuzz_tests;
mod transport;

use super::cloudevents::{STRUCTURED_MEDIA_TYPE, attributes, percent_encoded, structured, trace_context};
use super::connection::{Connection, with_own_shortage};
use super::signature::Signer;
use super::{ANSWER_BYTES_MAX, Failure, Format, Limits, Outcome, Reason, Sink, SinkType};
use crate::envelope::{Envelope, SinkName};
use bytes::Bytes;
use config::Config;
use futures_util::future::{BoxFuture, FutureExt};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use means::{IDLE_MAX, Means};
use reqwest::{Method, Response};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

pub(super) const TYPE: SinkType = SinkType::of::<Config>("http", &[Format::Structured, Format::Binary]);

/// How long the rest of an answer is read, so that its connection can be used again.
const ANSWER_READ_MAX: Duration = Duration::from_secs(1);

/// The Standard Webhooks headers, which every receiver's library expects under these names.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

struct HttpSink {
    name: SinkName,
    config: Config,
    means: Connection<Means>,
    format: Format,
    timeout: Duration,
    answered_at: Mutex<Option<Instant>>,
}

struct Encoded {
    headers: HeaderMap,
    body: Bytes,
}

impl Sink for HttpSink {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        async move {
            let means = match self.means().await {
                Ok(means) => means,
                Err(failure) => return Outcome::Away(failure),
            };
            let outcome = match self.encoded(&means, event) {
                Ok(encoded) => self.post(&means, &encoded).await,
                Err(failure) => Outcome::Reject(failure),
            };
            match outcome {
                Outcome::Away(failure) => {
                    let failure = self.config.tls_files().explained(failure, crate::clock::now());
                    let failure = with_own_shortage(failure);
                    if speaks_against_what_was_read(failure.reason) {
                        self.means.fail(&means, &failure);
                    }
                    Outcome::Away(failure)
                }
                other => other,
            }
        }
        .boxed()
    }

    /// Asks for the URL's options: any answer shows that there is a server; nothing is delivered.
    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        async move {
            let means = self.means().await?;
            let request = means.client.request(Method::OPTIONS, means.url.clone());
            match request.headers(means.headers.clone()).timeout(self.timeout).send().await {
                Ok(_answer) => Ok(Limits::default()),
                Err(error) => Err(transport::Broken::of(&error).failure(&means.host)),
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // Kept connections end with the client.
        std::future::ready(()).boxed()
    }

    fn renew(&self) -> Result<(), Failure> {
        Means::reread(&self.config, &self.name).map(|means| self.means.replace(means))
    }
}

/// Whether a secret or certificate that was replaced since may be what is missing.
fn speaks_against_what_was_read(reason: Reason) -> bool {
    // A URL may be a secret as well, with a token in its path.
    use Reason::{DestinationGone, DestinationMissing, NotAuthorized, Tls};
    matches!(reason, NotAuthorized | Tls | DestinationMissing | DestinationGone)
}

impl HttpSink {
    async fn means(&self) -> Result<Arc<Means>, Failure> {
        self.means.get(|| async { Means::reread(&self.config, &self.name) }).await
    }

    async fn post(&self, means: &Means, encoded: &Encoded) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        let connection_may_be_old = self.may_hold_a_kept_connection();
        let mut result = send(means, encoded, deadline).await;
        if let Err(error) = &result
            && connection_may_be_old
            && transport::Broken::of(error).is_lost_unanswered()
        {
            result = send(means, encoded, deadline).await;
        }
        match result {
            Ok(response) => self.read(response, &means.host).await,
            Err(error) => transport::Broken::of(&error).outcome(&means.host),
        }
    }

    async fn read(&self, response: Response, host: &str) -> Outcome {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = retry_after.and_then(|value| answer::retry_after(value, crate::clock::now()));
        let _ = tokio::time::timeout(ANSWER_READ_MAX, read_rest(response)).await;
        *self.answered_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        answer::outcome(status, wait, host)
    }

    /// A connection is kept only after an answer, and not for long.
    fn may_hold_a_kept_connection(&self) -> bool {
        let answered_at = *self.answered_at.lock().unwrap_or_else(PoisonError::into_inner);
        answered_at.is_some_and(|at| at.elapsed() <= IDLE_MAX)
    }

    fn encoded(&self, means: &Means, event: &Envelope) -> Result<Encoded, Failure> {
        let mut headers = means.headers.clone();
        let body = match self.format {
            Format::Structured => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED_MEDIA_TYPE));
                Bytes::from(structured(event))
            }
            Format::Binary => {
                write_binary_headers(event, &mut headers)?;
                event.data.bytes().clone()
            }
        };
        for (name, text) in trace_context(event) {
            // A value that is no header's is no trace context either.
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Some(signer) = &means.signer {
            sign(signer, &event.id, &body, &mut headers);
        }
        Ok(Encoded { headers, body })
    }
}

async fn send(means: &Means, encoded: &Encoded, deadline: Instant) -> reqwest::Result<Response> {
    means
        .client
        .post(means.url.clone())
        .headers(encoded.headers.clone())
        .body(encoded.body.clone())
        .timeout(deadline.saturating_duration_since(Instant::now()))
        .send()
        .await
}

async fn read_rest(mut response: Response) {
    let mut read_bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read_bytes += chunk.len();
        if read_bytes >= ANSWER_BYTES_MAX.as_len() {
            return;
        }
    }
}

fn write_binary_headers(event: &Envelope, headers: &mut HeaderMap) -> Result<(), Failure> {
    for (name, value) in attributes(event) {
        let not_encodable = || {
            let problem = format!("attribute {} cannot be a header", name.escape_default());
            Failure::new(Reason::NotEncodable, problem)
        };
        let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes()).map_err(|_| not_encodable())?;
        let value = HeaderValue::from_str(&percent_encoded(&value)).map_err(|_| not_encodable())?;
        headers.insert(name, value);
    }
    // Also without data: it is an attribute (HTTP binding, section 3.1.1).
    if let Some(media_type) = &event.datacontenttype {
        let value = HeaderValue::from_str(media_type).map_err(|_| {
            Failure::new(Reason::NotEncodable, "attribute datacontenttype cannot be a header")
        })?;
        headers.insert(CONTENT_TYPE, value);
    }
    Ok(())
}

/// What is signed is what is sent: an id with characters that no header can hold is percent-encoded in both.
fn sign(signer: &Signer, id: &str, body: &[u8], headers: &mut HeaderMap) {
    let id = percent_encoded(id);
    let timestamp_secs = crate::clock::now().0.div_euclid(1000);
    let signature = signer.sign(&id, timestamp_secs, body);
    let visible =
        |text: &str| HeaderValue::from_str(text).expect("base64, digits and percent-encoded text are ASCII");
    headers.insert(WEBHOOK_ID, visible(&id));
    headers.insert(WEBHOOK_TIMESTAMP, timestamp_secs.into());
    headers.insert(WEBHOOK_SIGNATURE, visible(&signature));
}
