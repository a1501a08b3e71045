//! A small client of the admin listener.
//! Holds: a bound on every wait and on every answer that is kept in memory; the token goes nowhere but into its header.

use super::pinned;
use super::settings::Target;
use crate::config::Secret;
use reqwest::{Method, StatusCode, Url, redirect};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The longest a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest an answer may take; a little more than the listener gives an operation.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// The longest the answer to a probe may take; less than supervisors give a health check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest silence within a streamed answer.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The most bytes of an answer that is not streamed.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why the daemon gave no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The URL of `--admin` is none.
    #[error("{0} is not a URL; write it like http://127.0.0.1:8081")]
    Url(String),
    /// This process cannot make requests.
    #[error("cannot make requests: {0}")]
    Setup(String),
    /// Nothing listens there.
    #[error(
        "no hookbus answers at {url}; is it running? (`hookbus run` starts it, admin.listen or --admin say where)"
    )]
    Nobody {
        /// Where.
        url: String,
    },
    /// Something listens, but the exchange broke.
    #[error("the answer of {url} did not arrive: {problem}")]
    Broken {
        /// Where.
        url: String,
        /// What happened.
        problem: String,
    },
    /// It wants the token, or another one.
    #[error("{url} wants a token: set admin.token, or name the variable that holds it with --token-env")]
    Unauthorized {
        /// Where.
        url: String,
    },
    /// It said no.
    #[error("{url} answered {status}: {detail}")]
    Refused {
        /// Where.
        url: String,
        /// The HTTP status.
        status: StatusCode,
        /// Its sentence.
        detail: String,
    },
    /// It answered something that is not ours.
    #[error("what answers at {url} is not a hookbus of this version: {problem}")]
    Strange {
        /// Where.
        url: String,
        /// What is strange.
        problem: String,
    },
}

/// A daemon's admin listener.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

/// A client that follows nothing, asks no proxy, and loads root certificates only where TLS is spoken.
pub(super) fn http(base: &Url) -> Result<reqwest::Client, ClientError> {
    let builder = if base.scheme() == "https" { bounded() } else { bounded().tls_certs_only([]) };
    builder.build().map_err(|error| ClientError::Setup(sentence(&error)))
}

/// The same for HTTPS with whoever shows this certificate.
pub(super) fn https_with(certificate: CertificateDer<'static>) -> Result<reqwest::Client, ClientError> {
    let builder = bounded().tls_backend_preconfigured(pinned::only(certificate));
    builder.build().map_err(|error| ClientError::Setup(sentence(&error)))
}

fn bounded() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_MAX)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("hookbus/", env!("CARGO_PKG_VERSION")))
}

/// The innermost cause: what the system said, without the URL, which may hold a secret.
pub(super) fn sentence(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if std::ptr::addr_eq(std::ptr::from_ref(cause), std::ptr::from_ref(error)) {
        return if error.is_timeout() {
            "it took too long".to_owned()
        } else {
            "the exchange failed".to_owned()
        };
    }
    cause.to_string()
}

impl Client {
    /// For the listener at `target`; connects on the first question.
    pub(super) fn new(target: Target) -> Result<Self, ClientError> {
        let base = Url::parse(&target.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = base.ok_or(ClientError::Url(target.url))?;
        Ok(Client { http: http(&base)?, base, token: target.token })
    }
    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let request = self.request(Method::GET, path, query).timeout(ANSWER_TIMEOUT);
        self.json(request).await
    }
    /// Asks whether a probe's answer is good, soon enough for whoever probes.
    pub(super) async fn probe(&self, path: &str) -> Result<(), ClientError> {
        let request = self.request(Method::GET, path, &[]).timeout(PROBE_TIMEOUT);
        self.answer(request).await.map(drop)
    }
    /// Asks for something to be done.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.request(Method::POST, path, &[]).timeout(ANSWER_TIMEOUT).json(body);
        self.json(request).await
    }
    /// Asks for something long, to be read piece by piece.
    pub(super) async fn stream(&self, path: &str, query: &[(&str, String)]) -> Result<Pieces, ClientError> {
        let answer = self.answer(self.request(Method::GET, path, query)).await?;
        Ok(Pieces { answer, url: self.base.to_string() })
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }
    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let url = self.base.to_string();
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Err(ClientError::Nobody { url }),
            Err(error) => return Err(ClientError::Broken { url, problem: sentence(&error) }),
        };
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(ClientError::Unauthorized { url }),
            status => {
                let body = self.body(answer).await?;
                let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let text = |name| document.get(name).and_then(serde_json::Value::as_str);
                let detail = text("detail").or_else(|| text("title")).unwrap_or("no reason given");
                Err(ClientError::Refused { url, status, detail: super::human::harmless(detail) })
            }
        }
    }
    async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        let answer = self.answer(request).await?;
        let body = self.body(answer).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Strange { url: self.base.to_string(), problem: error.to_string() })
    }
    async fn body(&self, answer: reqwest::Response) -> Result<Vec<u8>, ClientError> {
        let url = self.base.to_string();
        let mut pieces = Pieces { answer, url: url.clone() };
        let mut body = Vec::new();
        while let Some(piece) = pieces.next().await? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::Strange { url, problem: "the answer has no end".to_owned() });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// An answer as it arrives.
pub(super) struct Pieces {
    answer: reqwest::Response,
    url: String,
}

impl Pieces {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, ClientError> {
        let piece = self.answer.chunk().await;
        piece.map_err(|error| ClientError::Broken { url: self.url.clone(), problem: sentence(&error) })
    }
}
