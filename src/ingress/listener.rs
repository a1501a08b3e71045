//! The accept loop and the life of one connection: TLS where its address speaks it, then HTTP/1.1 or HTTP/2, which the
//! first bytes tell apart.
//! Holds: `connections_max`; a head is bounded in bytes, fields and time; no connection outlives its phase; stopping
//! resets nobody: whoever has connected is served, whoever has sent a request gets its answer.
//! Absent on purpose: `Upgrade: h2c` (RFC 9113 dropped it; some senders offer it and are content with HTTP/1.1).

use super::Config;
use super::handler::Handler;
use super::peer::Caller;
use super::sockets::{Accepted, Sockets, concerns_one_connection};
use super::stream::{Opening, Socket};
use super::tls::{self, Tls};
use crate::config::Period;
use crate::shutdown::{Phase, Shutdown};
use crate::source::Sources;
use crate::telemetry::metrics::ingress::ListenerMeter;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::{debug, warn};

/// The most bytes of a request's head, names and values together.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Up to so many header fields HTTP/1.1 heads are parsed without an allocation.
const HEADERS_WITHOUT_ALLOCATION: u32 = 100;
/// The most requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How often a silent HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_MAX: Duration = Duration::from_secs(10);
/// How long to wait before accepting again when the system has no more descriptors or memory.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often at the most the log says so.
const ACCEPT_WARN_EVERY: Duration = Duration::from_secs(60);
/// When stopping: for so long a connection that looks idle may still turn out to have sent a request.
const LAST_CALL: Duration = Duration::from_millis(50);
/// When stopping: for so long a connection is new, and its first request may be on the way, after the client's half of
/// the handshake for instance.
const NEW_FOR: Duration = Duration::from_secs(1);
/// When stopping: how long an answer may take to be made and read, beyond the time its body may take.
const DRAIN_EXTRA: Duration = Duration::from_secs(15);

/// What the loop and its connections share.
pub(super) struct Listener {
    handler: Arc<Handler>,
    builder: auto::Builder<PhaseExecutor>,
    connections: Arc<Semaphore>,
    tls: Option<Tls>,
    meter: Arc<ListenerMeter>,
    shutdown: Shutdown,
    head_max: Duration,
    drain_max: Duration,
}

/// Bytes to and from HTTP.
type Channel = Either<Socket, Box<TlsStream<Socket>>>;

/// Runs the library's own tasks (one a request on HTTP/2) where the phase knows them.
#[derive(Clone)]
struct PhaseExecutor(Shutdown);

impl<F> Executor<F> for PhaseExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        drop(self.0.spawn(Phase::Ingress, task));
    }
}

impl Listener {
    pub(super) fn new(
        config: &Config,
        handler: Handler,
        tls: Option<Tls>,
        meter: Arc<ListenerMeter>,
        shutdown: &Shutdown,
    ) -> Self {
        let connections_max = (config.connections_max as usize).clamp(1, Semaphore::MAX_PERMITS);
        Listener {
            handler: Arc::new(handler),
            builder: builder(config, shutdown),
            connections: Arc::new(Semaphore::new(connections_max)),
            tls,
            meter,
            shutdown: shutdown.clone(),
            head_max: bounded(config.header_timeout),
            drain_max: bounded(config.header_timeout) + bounded(config.body_timeout) + DRAIN_EXTRA,
        }
    }

    pub(super) fn renew_sources(&self, sources: Sources) {
        self.handler.renew_sources(sources);
    }

    /// Accepts until the phase stops.
    pub(super) async fn run(self: Arc<Self>, mut sockets: Sockets) {
        let stop = self.shutdown.token(Phase::Ingress).clone();
        let mut pause = ACCEPT_PAUSE_MIN;
        let mut warned_at: Option<Instant> = None;
        loop {
            let accepted = tokio::select! { biased;
                () = stop.cancelled() => break,
                accepted = self.accept(&mut sockets) => accepted,
            };
            match accepted {
                Ok((accepted, permit)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    self.serve(accepted, permit);
                }
                Err(error) if concerns_one_connection(&error) => {
                    debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => {
                    // Each connection that ends lets one in, and the next one fails again.
                    if warned_at.is_none_or(|at| at.elapsed() >= ACCEPT_WARN_EVERY) {
                        warn!(%error, "the ingress cannot accept connections; retrying");
                        warned_at = Some(Instant::now());
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        // As many as may be open.
        let place = || Arc::clone(&self.connections).try_acquire_owned().ok();
        if let Err(error) = sockets.drain(place, |accepted, permit| self.serve(accepted, permit)) {
            debug!(%error, "connections that waited may have been reset");
        }
    }

    /// The permit comes first: beyond `connections_max`, connections wait in the system's backlog.
    async fn accept(&self, sockets: &mut Sockets) -> io::Result<(Accepted, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.expect("never closed");
        Ok((sockets.accept().await?, permit))
    }

    fn serve(self: &Arc<Self>, accepted: Accepted, permit: OwnedSemaphorePermit) {
        let listener = Arc::clone(self);
        drop(self.shutdown.spawn(Phase::Ingress, async move {
            let _permit = permit;
            let _open = listener.meter.connection_opened();
            if let Either::Left(tcp) = &accepted.wire
                && let Err(error) = tcp.set_nodelay(true)
            {
                debug!(%error, "answers may be delayed");
            }
            let deadline = Instant::now() + listener.head_max;
            if let Some((stream, caller)) = listener.open(accepted, deadline).await {
                listener.converse(Opening::new(stream, deadline), caller).await;
            }
        }));
    }

    /// Agrees on TLS where the address speaks it.
    async fn open(&self, accepted: Accepted, deadline: Instant) -> Option<(Channel, Caller)> {
        let Accepted { wire, from: address, speaks_tls } = accepted;
        let Some(tls) = self.tls.as_ref().filter(|_| speaks_tls) else {
            let caller = Caller { address, scheme: "http", certificate_names: Vec::new() };
            return Some((Either::Left(Socket::new(wire)), caller));
        };
        let stop = self.shutdown.token(Phase::Ingress);
        let stopped = async {
            stop.cancelled().await;
            sleep(NEW_FOR).await;
        };
        let shaken = tokio::select! { biased;
            shaken = timeout_at(deadline, tls.accept(wire)) => shaken,
            () = stopped => return None,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let certificate_names = tls::client_names(&stream);
                Some((Either::Right(stream), Caller { address, scheme: "https", certificate_names }))
            }
            // Outside the time for the handshake, or running out would be counted too; a farewell has bounds of its own.
            Ok(Err(failed)) => {
                tls.dismiss(failed).await;
                None
            }
            Err(_elapsed) => {
                tls.timed_out();
                None
            }
        }
    }

    async fn converse(&self, stream: Opening<Channel>, caller: Caller) {
        let (caller, since) = (Arc::new(caller), Instant::now());
        let in_work = watch::Sender::new(0);
        let service = service_fn(|request| {
            let (handler, in_work) = (Arc::clone(&self.handler), InWork::began(&in_work));
            let caller = Arc::clone(&caller);
            async move {
                let answer = handler.answer(&caller, request).await;
                drop(in_work);
                Ok::<_, Infallible>(answer.into_http())
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let stop = self.shutdown.token(Phase::Ingress);
        let ended = tokio::select! { biased;
            ended = connection.as_mut() => ended,
            () = idle(in_work.subscribe(), self.head_max) => tokio::select! {
                ended = self.finish(connection) => ended,
                // Not even a farewell is answered.
                () = idle(in_work.subscribe(), self.head_max) => Ok(()),
            },
            () = stop.cancelled() => match timeout(last_call(since), connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_elapsed) => self.finish(connection).await,
            },
        };
        if let Err(error) = ended {
            debug!(%error, "a connection ended early");
        }
    }

    /// Takes no further request of the connection, and answers those in work.
    async fn finish<C: GracefulConnection>(&self, mut connection: Pin<&mut C>) -> Result<(), C::Error> {
        connection.as_mut().graceful_shutdown();
        timeout(self.drain_max, connection).await.unwrap_or(Ok(()))
    }
}

/// How long a connection that has been open since then may still turn out to have sent a request.
fn last_call(since: Instant) -> Duration {
    NEW_FOR.saturating_sub(since.elapsed()).max(LAST_CALL)
}

/// One request in work on a connection, until it is dropped.
struct InWork(watch::Sender<u32>);

impl InWork {
    fn began(count: &watch::Sender<u32>) -> Self {
        count.send_modify(|count| *count += 1);
        InWork(count.clone())
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Resolves when no request has been in work for so long. The HTTP library bounds this for HTTP/1.1 only; over HTTP/2 it
/// is content with somebody who sends nothing but answers to its pings, or a head without an end.
async fn idle(mut in_work: watch::Receiver<u32>, max: Duration) {
    loop {
        let is_quiet = in_work.wait_for(|count| *count == 0).await.is_ok();
        if timeout(max, in_work.changed()).await.is_err() || !is_quiet {
            return;
        }
    }
}

fn builder(config: &Config, shutdown: &Shutdown) -> auto::Builder<PhaseExecutor> {
    let mut builder = auto::Builder::new(PhaseExecutor(shutdown.clone()));
    let mut http1 = builder.http1();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(bounded(config.header_timeout))
        .max_buf_size(HEAD_BYTES_MAX as usize)
        .half_close(true);
    if config.headers_max != HEADERS_WITHOUT_ALLOCATION {
        http1.max_headers(config.headers_max as usize);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_MAX);
    builder
}

/// The HTTP library adds time-outs to the present, which overflows for absurd ones; a year is as good as for ever.
fn bounded(period: Period) -> Duration {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    period.get().min(YEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absurd_period_stays_a_time() {
        let absurd = Period::secs(u64::MAX);
        assert!(std::time::Instant::now().checked_add(bounded(absurd)).is_some());
        assert_eq!(bounded(Period::secs(10)), Duration::from_secs(10));
    }
}
