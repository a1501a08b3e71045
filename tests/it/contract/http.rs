//! The other side of the http sink: a server at an address that stays the same while it comes and goes.

use super::{Arrived, Binding, Rig, Setup};
use crate::support::authority::{Authority, Leaf};
use crate::support::brokers::free_port;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const HEADER: &str = "a header";
const URL: &str = "user and password in the URL";
const CERTIFICATE: &str = "a client certificate";

const TOKEN: &str = "Bearer right";
const BODY_BYTES_MAX: usize = 256 * 1024;

/// See the module.
pub struct HttpRig {
    setup: Setup,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    receiver: Arc<Receiver>,
    up: CancellationToken,
    proxy: Option<Proxy>,
    folder: TempDir,
    keys: String,
}

#[derive(Default)]
struct Receiver {
    rules: Mutex<Rules>,
    arrived: Mutex<Vec<Arrived>>,
}

/// What it does not take.
#[derive(Default)]
struct Rules {
    path_is_missing: bool,
    is_forbidden: bool,
    /// The only credentials that are right, where some are asked for.
    authorization: Option<String>,
    refuses_poison: bool,
    body_bytes_max: Option<usize>,
}

impl Receiver {
    async fn take(&self, request: Request<Incoming>) -> StatusCode {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return StatusCode::BAD_REQUEST };
        let body = body.to_bytes();
        let verdict = self.verdict(head.headers.get(AUTHORIZATION).map(|value| value.as_bytes()), &body);
        if verdict.is_success() {
            let headers = head.headers.iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            let event = Arrived { body: body.to_vec(), headers: headers.collect(), key: None };
            self.arrived.lock().unwrap().push(event);
        }
        verdict
    }

    fn verdict(&self, authorization: Option<&[u8]>, body: &Bytes) -> StatusCode {
        let rules = self.rules.lock().unwrap();
        let wanted = rules.authorization.as_ref().map(String::as_bytes);
        if rules.path_is_missing {
            StatusCode::NOT_FOUND
        } else if rules.is_forbidden {
            StatusCode::FORBIDDEN
        } else if wanted.is_some() && authorization != wanted {
            StatusCode::UNAUTHORIZED
        } else if rules.body_bytes_max.is_some_and(|most| body.len() > most) {
            StatusCode::PAYLOAD_TOO_LARGE
        } else if rules.refuses_poison && body.windows(6).any(|part| part == b"poison") {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::NO_CONTENT
        }
    }

    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(move |request| {
            let receiver = Arc::clone(&self);
            async move {
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = receiver.take(request).await;
                Ok::<_, Infallible>(response)
            }
        });
        // The client may go at any time.
        let _ =
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    receiver: Arc<Receiver>,
    up: CancellationToken,
) {
    // Dropped, not drained: going down breaks connections, as a crash does.
    let mut connections = JoinSet::new();
    while let Some(Ok((stream, _))) = up.run_until_cancelled(listener.accept()).await {
        let (tls, receiver) = (tls.clone(), Arc::clone(&receiver));
        connections.spawn(async move {
            match tls {
                None => receiver.serve(stream).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        receiver.serve(stream).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The acceptor of a server of a new authority, and the keys of a sink that trusts it and has a certificate of it.
fn tls(folder: &Path, trusted: bool, asks_for_certificate: bool) -> (TlsAcceptor, String) {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(asks_for_certificate)));
    let named =
        if trusted { authority.file(folder, "ca.pem") } else { Authority::new().file(folder, "ca.pem") };
    let mut keys = format!("ca = \"{}\"\n", named.display());
    if asks_for_certificate {
        let Leaf { cert, key } = authority.leaf_files(folder, "client");
        keys.push_str(&format!("cert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display()));
    }
    (acceptor, keys)
}

impl HttpRig {
    fn listen(&mut self, listener: TcpListener) {
        self.up = CancellationToken::new();
        tokio::spawn(accept(listener, self.tls.clone(), Arc::clone(&self.receiver), self.up.clone()));
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.receiver.rules.lock().unwrap()
    }
}

impl Drop for HttpRig {
    fn drop(&mut self) {
        self.up.cancel();
    }
}

impl Rig for HttpRig {
    const KIND: &'static str = "http";
    const BINDING: Option<Binding> = Some(Binding {
        prefix: "ce-",
        percent_encoded: true,
        structured_type: "content-type",
        binary_type: "content-type",
        identity: None,
    });
    const AUTHENTICATIONS: &'static [&'static str] = &[HEADER, URL, CERTIFICATE];

    async fn start(setup: Setup) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).await.unwrap();
        let mut rig = HttpRig {
            setup,
            address: listener.local_addr().unwrap(),
            tls: None,
            receiver: Arc::default(),
            up: CancellationToken::new(),
            proxy: None,
            folder: tempfile::tempdir().unwrap(),
            keys: String::new(),
        };
        let folder = rig.folder.path().to_owned();
        match setup {
            Setup::Plain | Setup::Alone => {}
            Setup::Proxied | Setup::Disturbed => rig.proxy = Some(Proxy::start(rig.address).await),
            Setup::Missing => rig.rules().path_is_missing = true,
            Setup::WrongCredentials => {
                rig.rules().authorization = Some(TOKEN.to_owned());
                let file = folder.join("authorization");
                std::fs::write(&file, "Bearer wrong\n").unwrap();
                rig.keys = format!("headers = {{ authorization = {{ file = {file:?} }} }}\n");
            }
            Setup::Forbidden => rig.rules().is_forbidden = true,
            Setup::Choosy => rig.rules().refuses_poison = true,
            Setup::Limited => rig.rules().body_bytes_max = Some(BODY_BYTES_MAX),
            Setup::Tls { trusted } => {
                let (acceptor, keys) = tls(&folder, trusted, false);
                (rig.tls, rig.keys) = (Some(acceptor), keys);
            }
            Setup::Authenticated(HEADER) => {
                rig.rules().authorization = Some(TOKEN.to_owned());
                rig.keys = format!("headers = {{ authorization = \"{TOKEN}\" }}\n");
            }
            Setup::Authenticated(URL) => {
                rig.rules().authorization = Some(format!("Basic {}", STANDARD.encode("user:pass")));
            }
            Setup::Authenticated(_) => {
                let (acceptor, keys) = tls(&folder, true, true);
                (rig.tls, rig.keys) = (Some(acceptor), keys);
            }
        }
        rig.listen(listener);
        rig
    }

    fn table(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let user = if self.setup == Setup::Authenticated(URL) { "user:pass@" } else { "" };
        let port = self.proxy.as_ref().map_or(self.address, |proxy| proxy.address).port();
        format!("[sinks.orders.http]\nurl = \"{scheme}://{user}localhost:{port}/events\"\n{}", self.keys)
    }

    async fn arrived(&self) -> Vec<Arrived> {
        self.receiver.arrived.lock().unwrap().clone()
    }

    async fn goes_down(&mut self) {
        self.up.cancel();
        let address = self.address;
        eventually("the server's port is closed", || async move {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
    }

    async fn comes_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it was started behind one")
    }

    async fn create_destination(&mut self) {
        self.rules().path_is_missing = false;
    }

    async fn correct_credentials(&mut self) {
        std::fs::write(self.folder.path().join("authorization"), TOKEN).unwrap();
    }

    async fn grant_permission(&mut self) {
        self.rules().is_forbidden = false;
    }

    fn poison(&self) -> Value {
        json!({"text": "poison"})
    }
}
