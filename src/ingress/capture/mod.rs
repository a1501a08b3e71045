//! Shows an operator the next requests of a source, refused ones too, while somebody looks.
//! Holds: nobody looking costs one atomic read a request; a slow watcher loses captures, is told how many, and delays
//! nobody (R5); what leaves here is masked (R8).
//! Absent on purpose: HTTP for operators (`admin`), which gets finished lines.

mod mask;
mod shown;

use super::kept::{Kept, What};
use super::reply::Problem;
use crate::clock;
use crate::config::Live;
use crate::envelope::{Envelope, SourceName};
use crate::journal::Appended;
use crate::shutdown::{Phase, Shutdown};
use crate::source::{ConfiguredSource, Refused, Sources};
use crate::time::UnixMs;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, Method, request};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// The most captures that wait for a slow watcher; older ones are dropped.
const WAITING_MAX: usize = 16;
/// The most bytes of a body that is looked into; of a longer one only the length is shown.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The most events of one request that are shown.
const EVENTS_MAX: usize = 20;
/// After so long without a request an empty line says that the watch goes on.
const QUIET_MAX: Duration = Duration::from_secs(15);

/// Where requests can be watched, source by source. Cheap to clone.
#[derive(Clone)]
pub struct Captures {
    spots: Arc<BTreeMap<SourceName, Arc<Spot>>>,
    stop: CancellationToken,
}

/// One source's requests.
pub(super) struct Spot {
    /// Whose secrets are hidden.
    source: Live<Arc<ConfiguredSource>>,
    watchers: AtomicUsize,
    captured: broadcast::Sender<Arc<Captured>>,
}

/// A request as it came, and what became of it. Never shown as it is: it holds secrets.
struct Captured {
    at: UnixMs,
    address: Option<IpAddr>,
    method: Method,
    /// What stood in the path behind the source's name: a path secret, or a try at one.
    in_path: Option<String>,
    query: Option<String>,
    headers: HeaderMap,
    body: Body,
    answer: Answer,
    events: Vec<(Envelope, bool)>,
    events_count: usize,
}

enum Body {
    /// The request was answered before.
    NotRead,
    Whole(Bytes),
    /// With so many bytes.
    Large(usize),
}

struct Answer {
    status: u16,
    /// Empty where there is none.
    problem: &'static str,
    reason: String,
}

/// What is noted of a request while it is worked on; nothing where nobody looks.
pub(super) struct Note(Option<Box<Noted>>);

struct Noted {
    spot: Arc<Spot>,
    captured: Captured,
    refused: Option<Refused>,
}

/// How a request ended.
pub(super) enum End<'a> {
    Kept(&'a Kept),
    Handshake,
    Problem(&'a Problem),
}

impl Captures {
    /// For these sources, until the ingress stops.
    #[must_use]
    pub fn of(sources: &Sources, shutdown: &Shutdown) -> Self {
        let spot = |source: &ConfiguredSource| {
            let captured = broadcast::Sender::new(WAITING_MAX);
            let source = Live::new(Arc::new(source.clone()));
            Arc::new(Spot { source, watchers: AtomicUsize::new(0), captured })
        };
        let spots = sources.iter().map(|(name, source)| (name.clone(), spot(source)));
        Captures { spots: Arc::new(spots.collect()), stop: shutdown.token(Phase::Ingress).clone() }
    }

    /// The next `count` requests of a source, each one line of JSON; an empty line now and then in between, and
    /// `{"missed": n}` where the reader was too slow. `None` where there is no such source.
    #[must_use]
    pub fn watch(&self, source: &str, with_bodies: bool, count: u64) -> Option<BoxStream<'static, Bytes>> {
        let (_, spot) = self.spots.iter().find(|(name, _)| name.as_str() == source)?;
        let receiver = spot.captured.subscribe();
        spot.watchers.fetch_add(1, Ordering::Relaxed);
        let watch =
            Watch { spot: Arc::clone(spot), receiver, stop: self.stop.clone(), with_bodies, left: count };
        Some(
            stream::unfold(watch, |mut watch| async move { watch.next().await.map(|line| (line, watch)) })
                .boxed(),
        )
    }

    pub(super) fn spot(&self, source: &SourceName) -> Option<Arc<Spot>> {
        self.spots.get(source).cloned()
    }
}

impl Spot {
    /// What is shown from now on hides the secrets of this one.
    pub(super) fn renew(&self, source: &ConfiguredSource) {
        self.source.set(Arc::new(source.clone()));
    }
}

struct Watch {
    spot: Arc<Spot>,
    receiver: broadcast::Receiver<Arc<Captured>>,
    stop: CancellationToken,
    with_bodies: bool,
    left: u64,
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let received = tokio::time::timeout(QUIET_MAX, self.receiver.recv());
        match self.stop.run_until_cancelled(received).await? {
            Err(_elapsed) => Some(Bytes::from_static(b"\n")),
            Ok(Ok(captured)) => {
                self.left -= 1;
                Some(shown::line(&self.spot.source.get(), &captured, self.with_bodies))
            }
            Ok(Err(RecvError::Lagged(missed))) => Some(format!("{{\"missed\":{missed}}}\n").into()),
            Ok(Err(RecvError::Closed)) => None,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.spot.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Note {
    /// Begins a note of a request where somebody watches its source.
    pub(super) fn begin(spot: Option<&Arc<Spot>>, head: &request::Parts) -> Note {
        let watched = spot.filter(|spot| spot.watchers.load(Ordering::Relaxed) > 0);
        Note(watched.map(|spot| {
            let captured = Captured {
                at: clock::now(),
                address: None,
                method: head.method.clone(),
                // `/hooks/NAME/…`
                in_path: head.uri.path().splitn(4, '/').nth(3).map(str::to_owned),
                query: head.uri.query().map(str::to_owned),
                headers: head.headers.clone(),
                body: Body::NotRead,
                answer: Answer { status: 200, problem: "", reason: String::new() },
                events: Vec::new(),
                events_count: 0,
            };
            Box::new(Noted { spot: Arc::clone(spot), captured, refused: None })
        }))
    }

    /// Who sends it, where anybody knows.
    pub(super) fn address(&mut self, address: Option<IpAddr>) {
        if let Some(noted) = &mut self.0 {
            noted.captured.address = address;
        }
    }

    /// Why it was not let in; the answer does not say so.
    pub(super) fn refused(&mut self, refused: Refused) {
        if let Some(noted) = &mut self.0 {
            noted.refused = Some(refused);
        }
    }

    /// Its body, codings undone.
    pub(super) fn body(&mut self, body: &Bytes) {
        if let Some(noted) = &mut self.0 {
            let is_small = body.len() <= BODY_BYTES_MAX;
            noted.captured.body = if is_small { Body::Whole(body.clone()) } else { Body::Large(body.len()) };
        }
    }

    /// Shows it to whoever watches.
    pub(super) fn publish(self, end: &End<'_>) {
        let Some(noted) = self.0 else { return };
        let Noted { spot, mut captured, refused } = *noted;
        match end {
            End::Kept(kept) => captured.keep(kept),
            End::Handshake => captured.answer.reason = "it carries no event".to_owned(),
            End::Problem(problem) => {
                let (status, name, mut reason) = problem.shown();
                if let Some(refused) = refused {
                    reason = refused.to_string();
                }
                captured.answer = Answer { status, problem: name, reason };
            }
        }
        // Whoever watched may be gone by now.
        let _ = spot.captured.send(Arc::new(captured));
    }
}

impl Captured {
    fn keep(&mut self, kept: &Kept) {
        match kept.what() {
            What::Letter(_) => self.answer.reason = "it could not be read and is quarantined".to_owned(),
            What::Events(events) => {
                self.events_count = events.each().len();
                let shown = events.each().take(EVENTS_MAX);
                self.events = shown.map(|(event, how)| (event.clone(), how == Appended::Duplicate)).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests;
