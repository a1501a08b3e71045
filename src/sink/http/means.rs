//! What requests are made with: the client with its certificates, the URL, the headers, the key that signs.
//! Holds: all of it is from one reading of the secrets and files, which is repeated after the other side refused it, so
//! that a credential or certificate that was replaced needs no restart.

use super::super::signature::Signer;
use super::super::tls::no_tls;
use super::super::{Failure, Reason};
use super::config::Config;
use crate::envelope::SinkName;
use http::header::HeaderMap;
use reqwest::{Client, Url, redirect};
use std::time::Duration;

const USER_AGENT: &str = concat!("hookbus/", env!("CARGO_PKG_VERSION"));
/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept without use: less than the 60 s after which load balancers usually drop it.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);
/// The most connections that are kept without use. After a burst there is one for each event that was in flight at once,
/// up to 10 000, and each is a file descriptor here and there. Answers come in bunches, so a limit below what a lane has in
/// flight makes it connect anew all the time: with 16 for the usual 64, every other request was on a new connection.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// How often an idle connection is probed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// See the module.
pub(super) struct Means {
    pub(super) client: Client,
    pub(super) url: Url,
    /// Host and port, the only part of the URL that is ever named.
    pub(super) host: String,
    pub(super) headers: HeaderMap,
    pub(super) signer: Option<Signer>,
}

impl Means {
    /// With the secrets as the configuration has them, and the files as they are now.
    ///
    /// # Errors
    /// What cannot be used, with its key.
    pub(super) fn of(config: &Config, sink: &SinkName) -> Result<Means, Failure> {
        let refused = |problem: String| Failure::new(Reason::NotAuthorized, problem);
        let url = config.url().map_err(|problem| refused(format!("url: {problem}")))?;
        let headers =
            config.headers().map_err(|(name, problem)| refused(format!("headers.{name}: {problem}")))?;
        let signer = config.signer().map_err(|problem| refused(format!("secret: {problem}")))?;
        let unusable = |problem: String| Failure::new(Reason::Tls, problem);
        let mut tls = match url.scheme() {
            "https" => config.tls_files().client_config().map_err(|problem| unusable(problem.to_string()))?,
            _ => no_tls(),
        };
        config.tls_files().show_ends(sink);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(config.guard())
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tcp_keepalive(TCP_KEEPALIVE)
            .http2_adaptive_window(true)
            .build()
            .map_err(|error| unusable(error.without_url().to_string()))?;
        Ok(Means { client, host: host_and_port(&url), url, headers, signer })
    }

    /// With everything read again.
    ///
    /// # Errors
    /// What cannot be used any more, with its key.
    pub(super) fn reread(config: &Config, sink: &SinkName) -> Result<Means, Failure> {
        let config = config.reread().map_err(|problem| Failure::new(Reason::NotAuthorized, problem))?;
        Means::of(&config, sink)
    }
}

fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
