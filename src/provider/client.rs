//! The calls to one instance's API.
//! Holds: bounds on every wait and answer; redirects are not followed and no proxy is asked, since the token is part of the
//! URL; R8 (neither URL nor header leaves this file).

use super::answer::{self, Secrets};
use super::problem::{ApiError, Problem};
use crate::config::Secret;
use crate::source::Account;
use http::{HeaderValue, Method};
use reqwest::{Client, RequestBuilder, Url, redirect};
use serde_json::{Map, Value};
use std::time::Duration;

/// The longest a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest one call may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The header with the account's security token.
const CLIENT_TOKEN: &str = "client-token";

/// The API cannot be called at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetupError {
    /// Keys that calls need.
    #[error("{section}: {} required for calls to the provider", missing.join(", ") + if missing.len() == 1 { " is" } else { " are" })]
    Missing {
        /// The dialect's section.
        section: String,
        /// The keys.
        missing: Vec<&'static str>,
    },
    /// This process cannot make requests.
    #[error("{section}.api: requests cannot be made: {problem}")]
    Client {
        /// The dialect's section.
        section: String,
        /// Why.
        problem: String,
    },
}

/// One instance's API.
pub(super) struct Api {
    http: Client,
    /// `…/instances/ID/token/TOKEN`, which nobody may see.
    base: Url,
    client_token: Option<HeaderValue>,
    host: String,
    section: String,
    secrets: Secrets,
}

impl Api {
    /// `also_secret` are texts besides the account's own that no answer may make this side repeat.
    pub(super) fn new(account: &Account, also_secret: &[&str]) -> Result<Api, SetupError> {
        let section = account.section.clone();
        let missing = account.missing();
        let (Some(instance), Some(token), true) = (&account.instance, &account.token, missing.is_empty())
        else {
            return Err(SetupError::Missing { section, missing });
        };
        let cannot =
            |problem: &str| SetupError::Client { section: section.clone(), problem: problem.to_owned() };
        let mut base = Url::parse(account.api.as_str()).map_err(|_| cannot("it is not a URL"))?;
        base.path_segments_mut().map_err(|()| cannot("it is not a URL"))?.pop_if_empty().extend([
            "instances",
            instance,
            "token",
            token.expose(),
        ]);
        let client_token = account.client_token.as_ref().map(sensitive).transpose();
        let also = also_secret.iter().copied();
        let secrets = [Some(token), account.client_token.as_ref()].into_iter().flatten().map(Secret::expose);
        Ok(Api {
            http: client(account).map_err(|error| cannot(&error.without_url().to_string()))?,
            base,
            client_token: client_token.map_err(|_| cannot("client_token cannot be a header"))?,
            host: account.api.authority().to_owned(),
            secrets: Secrets::of(secrets.chain(also)),
            section,
        })
    }

    /// Sets something.
    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<(), ApiError> {
        let (status, answer) = self.answer(Method::PUT, path, Some(body)).await?;
        answer::set(status, &answer, &self.secrets).map_err(|problem| self.error(&Method::PUT, path, problem))
    }

    /// Asks for an object that has any of `fields`.
    pub(super) async fn get(&self, path: &str, fields: &[&str]) -> Result<Map<String, Value>, ApiError> {
        let (status, answer) = self.answer(Method::GET, path, None).await?;
        answer::read(status, &answer, fields, &self.secrets)
            .map_err(|problem| self.error(&Method::GET, path, problem))
    }

    /// What the provider wrote as it may be passed on: one short line without a secret.
    pub(super) fn cleaned(&self, text: &str) -> String {
        self.secrets.cleaned(text)
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Vec<u8>), ApiError> {
        let exchange = async {
            let broken = |error: reqwest::Error| Problem::of(&error);
            let mut answer = self.request(&method, path, body).send().await.map_err(broken)?;
            let mut read = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(broken)? {
                if read.len() + piece.len() > ANSWER_BYTES_MAX {
                    return Err(Problem::TooLong);
                }
                read.extend_from_slice(&piece);
            }
            Ok((answer.status().as_u16(), read))
        };
        exchange.await.map_err(|problem| self.error(&method, path, problem))
    }

    fn request(&self, method: &Method, path: &str, body: Option<&Value>) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(path);
        }
        let mut request = self.http.request(method.clone(), url).timeout(ANSWER_TIMEOUT);
        if let Some(token) = &self.client_token {
            request = request.header(CLIENT_TOKEN, token.clone());
        }
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    fn error(&self, method: &Method, path: &str, problem: Problem) -> ApiError {
        let call = format!("{method} {path}");
        ApiError { problem, host: self.host.clone(), section: self.section.clone(), call }
    }
}

fn sensitive(token: &Secret) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(token.expose())?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(account: &Account) -> reqwest::Result<Client> {
    let builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .user_agent(concat!("hookbus/", env!("CARGO_PKG_VERSION")));
    // Without TLS there is nobody to trust, and the system's certificates need not be read.
    let builder = if account.api.is_https() { builder } else { builder.tls_certs_only([]) };
    builder.build()
}
