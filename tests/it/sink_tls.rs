//! The http sink over TLS: whom it trusts, as whom it appears, and what a refusal is.

use crate::sink_http::{event, sink};
use crate::support::authority::Authority;
use bytes::Bytes;
use hookbus::sink::{Outcome, Reason};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server of this authority that answers 200 to whatever it reads, to clients of the same authority only where
/// `asks_for_certificate`.
async fn serve(authority: &Authority, asks_for_certificate: bool) -> SocketAddr {
    let config = authority.server_config(asks_for_certificate);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut read = Vec::new();
                while !read.ends_with(b"1e400 }}") {
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            });
        }
    });
    address
}

/// A server that agrees on HTTP/2 by ALPN, and what it saw.
async fn serve_http2(authority: &Authority) -> (SocketAddr, Arc<Mutex<Http2Seen>>) {
    let mut config = authority.server_config(false);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Http2Seen::default()));
    let counter = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            counter.lock().unwrap().connections += 1;
            let seen = Arc::clone(&counter);
            let service = service_fn(move |request: http::Request<Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let version = request.version();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    seen.lock().unwrap().requests.push((version, body));
                    Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
                }
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, seen)
}

#[derive(Default)]
struct Http2Seen {
    connections: usize,
    requests: Vec<(http::Version, Bytes)>,
}

fn keys(address: SocketAddr, files: &[(&str, &Path)]) -> String {
    let mut keys = format!("[sinks.orders.http]\nurl = \"https://localhost:{}/\"\n", address.port());
    for (key, path) in files {
        keys.push_str(&format!("{key} = {:?}\n", path.display().to_string()));
    }
    keys
}

fn is_tls_away(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Away(failure) if failure.reason == Reason::Tls)
}

#[tokio::test]
async fn its_own_authority_is_trusted_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    let address = serve(&authority, false).await;
    let right = authority.file(directory.path(), "ca.pem");
    let wrong = other.file(directory.path(), "other.pem");
    assert_eq!(sink(&keys(address, &[("ca", &right)])).deliver(&event()).await, Outcome::Delivered);
    let outcome = sink(&keys(address, &[("ca", &wrong)])).deliver(&event()).await;
    assert!(is_tls_away(&outcome), "{outcome:?}");
}

#[tokio::test]
async fn a_server_that_asks_gets_the_client_s_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let address = serve(&authority, true).await;
    let ca = authority.file(directory.path(), "ca.pem");
    let client = authority.leaf_files(directory.path(), "client");
    let known = sink(&keys(address, &[("ca", &ca), ("cert", &client.cert), ("key", &client.key)]));
    assert_eq!(known.deliver(&event()).await, Outcome::Delivered);
    let outcome = sink(&keys(address, &[("ca", &ca)])).deliver(&event()).await;
    assert!(is_tls_away(&outcome), "{outcome:?}");
}

#[tokio::test]
async fn a_server_that_speaks_http_2_gets_all_deliveries_over_one_connection() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (address, seen) = serve_http2(&authority).await;
    let ca = authority.file(directory.path(), "ca.pem");
    let sink = sink(&keys(address, &[("ca", &ca)]));
    assert_eq!(sink.deliver(&event()).await, Outcome::Delivered);
    let event = event();
    let outcomes = futures_util::future::join_all((0..20).map(|_| sink.deliver(&event))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
    let seen = seen.lock().unwrap();
    assert_eq!((seen.connections, seen.requests.len()), (1, 21));
    for (version, body) in &seen.requests {
        assert_eq!(*version, http::Version::HTTP_2);
        assert!(body.ends_with(b"1e400 }}"), "R7");
    }
}
