//! Accepts operators' connections and serves each within its bounds until the last phase of a shutdown.
//! Holds: at most `CONNECTIONS_MAX` at once; a slow head, an idle connection and an endless download all end.
//! Only HTTP/1.1: every probe, scraper and `curl` speaks it, and it needs no tasks of its own.

use crate::shutdown::{Phase, Shutdown};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The most connections at once; more wait unaccepted.
const CONNECTIONS_MAX: usize = 64;
/// The longest the head of a request, and so also an idle connection, may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The longest a connection lives, a slow export included.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
/// How long an answer that has begun may take to finish once the listener stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long to wait after the system refused a connection (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn serve(listener: TcpListener, routes: Router, shutdown: Shutdown) {
    let stop = shutdown.token(Phase::Admin).clone();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut is_short = false;
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener, &places)).await {
        match accepted {
            Ok((stream, place)) => {
                is_short = false;
                let connection = converse(stream, routes.clone(), stop.clone(), place);
                shutdown.spawn(Phase::Admin, connection);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!(%error, "the admin listener cannot accept connections; retrying");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _peer) = listener.accept().await?;
    Ok((stream, place))
}

async fn converse(stream: TcpStream, routes: Router, stop: CancellationToken, place: OwnedSemaphorePermit) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => finish(connection).await,
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => finish(connection).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
    drop(place);
}

type Serving = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

async fn finish(mut connection: std::pin::Pin<&mut Serving>) -> hyper::Result<()> {
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(STOP_GRACE, connection).await.unwrap_or(Ok(()))
}
