//! Tokens for SASL OAUTHBEARER by the client credentials grant (RFC 6749, section 4.4).
//! Holds: R8 (neither secret nor token nor answer is printed); the first token is fetched before the producer is made,
//! so that a refusal has its reason; later ones on the producer's own thread, which may wait for them for a while.

use crate::clock;
use crate::config::Secret;
use crate::sink::{ANSWER_BYTES_MAX, Failure, Reason};
use rdkafka::client::OAuthToken;
use reqwest::{Client, Url};
use serde::Deserialize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the authority may take to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for later tokens: no delivery is confirmed meanwhile, and it is asked long before the last one ends, again
/// after ten seconds.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a token lives whose authority does not say.
const LIFETIME_DEFAULT_SECS: u64 = 300;
/// The longest life of a token that is believed.
const LIFETIME_MAX_SECS: u64 = 24 * 3600;

/// Where tokens come from, and as whom.
#[derive(Clone)]
pub(super) struct Authority {
    pub(super) url: Url,
    pub(super) client_id: String,
    pub(super) client_secret: Secret,
    pub(super) scope: Option<String>,
    pub(super) http: Client,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

impl Authority {
    async fn fetch(&self, timeout: Duration) -> Result<OAuthToken, Failure> {
        let host = self.url.host_str().unwrap_or_default();
        let failed = |reason, problem: &str| Failure::new(reason, format!("token from {host}: {problem}"));
        let secret = self.client_secret.current().map_err(|error| failed(Reason::NotAuthorized, &error))?;
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let form = Url::parse_with_params("form:", form).map_err(|_| failed(Reason::SinkError, "no form"))?;
        let request = self
            .http
            .post(self.url.clone())
            .basic_auth(&self.client_id, Some(secret.expose().trim()))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form.query().unwrap_or_default().to_owned())
            .timeout(timeout);
        let mut answer = request.send().await.map_err(|error| match error {
            error if error.is_timeout() => failed(Reason::Timeout, "no answer in time"),
            _ => failed(Reason::ConnectionRefused, "it cannot be reached"),
        })?;
        let status = answer.status();
        if !status.is_success() {
            return Err(failed(Reason::NotAuthorized, &format!("refused with {}", status.as_u16())));
        }
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX.as_len() {
                break;
            }
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| failed(Reason::SinkError, "the answer is not that of a token endpoint"))?;
        let lifetime_secs = answer.expires_in.unwrap_or(LIFETIME_DEFAULT_SECS).clamp(1, LIFETIME_MAX_SECS);
        let lifetime_ms = i64::try_from(lifetime_secs * 1000).unwrap_or(i64::MAX);
        Ok(OAuthToken {
            token: answer.access_token,
            principal_name: self.client_id.clone(),
            lifetime_ms: clock::now().0.saturating_add(lifetime_ms),
        })
    }
}

/// The tokens of one client.
pub(super) struct Tokens {
    authority: Authority,
    runtime: Handle,
    first: Mutex<Option<OAuthToken>>,
}

impl Tokens {
    /// With the first token at hand. Called inside the runtime.
    pub(super) async fn begin(authority: Authority) -> Result<Self, Failure> {
        let first = authority.fetch(FETCH_TIMEOUT).await?;
        Ok(Tokens { authority, runtime: Handle::current(), first: Mutex::new(Some(first)) })
    }

    /// The next token; waits for the authority. Called on a thread that is none of the runtime's.
    pub(super) fn next(&self) -> Result<OAuthToken, Failure> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(token) => Ok(token),
            None => self.runtime.block_on(self.authority.fetch(RENEWAL_TIMEOUT)),
        }
    }
}
