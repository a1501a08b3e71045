//! The one handler: from a request's head to its answer, the cheapest and most general check first.
//! Holds: R1 (an answer is either a [`Problem`] or made from a [`Kept`]), R5 (what cannot be stored is a 503 at once),
//! R8 (neither path, header nor body is ever logged); no more is in work than `limits` lets in.
//! Absent on purpose: the words of an answer (`reply`), connections (`listener`), what bytes mean (`source`).

use super::alarm::Alarm;
use super::body::{self, BodyError, Bounds, Unpacking};
use super::capture::{End, Note, Spot};
use super::inflate;
use super::kept::{Kept, What};
use super::limits::{Hold, Limits, UsedUp};
use super::peer::{Caller, Proxies};
use super::rate::Limiter;
use super::reply::{self, Problem, Response};
use super::{Config, Parts};
use crate::clock;
use crate::config::Live;
use crate::dead_letter::{DeadLetters, Quarantined};
use crate::envelope::Envelope;
use crate::journal::{AppendError, Appended, Journal};
use crate::percent::decoded_strictly;
use crate::router::Router;
use crate::shutdown::{Phase, Shutdown};
use crate::source::{
    Arrival, ConfiguredSource, Handshake, Head, OnUnreadable, Refused, Request, Sources, Unreadable,
};
use crate::telemetry::metrics::ingress::{Answer, ListenerMeter, SourceMeter};
use crate::time::UnixMs;
use bytes::Bytes;
use http::{Method, StatusCode, Version, request};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::{debug, warn};

/// Why a request is refused whose event has not been on disk in time.
const TOO_SLOW: &str = "the disk has not answered within ingress.store_timeout";
/// The prefix of every path that leads to a source.
const HOOKS: &str = "/hooks/";

/// All that answering needs; shared by all connections.
pub(super) struct Handler {
    gates: HashMap<String, Live<Arc<Gate>>>,
    proxies: Proxies,
    journal: Journal,
    dead_letters: DeadLetters,
    router: Router,
    limits: Arc<Limits>,
    store_max: Duration,
    unpacking: Unpacking,
    headers_max: usize,
    shutdown: Shutdown,
    meter: Arc<ListenerMeter>,
    journal_alarm: Alarm,
    letters_alarm: Alarm,
}

/// One source with its bounds and its counters.
struct Gate {
    source: ConfiguredSource,
    limiter: Option<Arc<Limiter>>,
    bounds: Bounds,
    meter: Arc<SourceMeter>,
    /// Whoever passes `authenticate` has proven who it is.
    proves_at_head: bool,
    /// Where operators may watch.
    spot: Option<Arc<Spot>>,
}

/// What came of a request that was not refused.
enum Taken {
    Kept(Kept),
    Handshake(Handshake),
}

/// Where a path leads.
struct Way {
    gate: Arc<Gate>,
    path_secret_matched: bool,
}

impl Handler {
    pub(super) fn new(config: &Config, parts: Parts, meter: Arc<ListenerMeter>, shutdown: &Shutdown) -> Self {
        let gates = parts.sources.into_values().map(|source| {
            let spot = parts.captures.spot(&source.name);
            (source.name.as_str().to_owned(), Live::new(Arc::new(Gate::new(config, source, spot))))
        });
        let gates: HashMap<_, _> = gates.collect();
        let body_bytes_max = gates.values().map(|gate| gate.get().bounds.bytes_max).max().unwrap_or(0);
        Handler {
            gates,
            proxies: Proxies(config.trusted_proxies.clone()),
            journal: parts.journal,
            dead_letters: parts.dead_letters,
            router: parts.router,
            limits: Limits::new(config, body_bytes_max),
            store_max: config.store_timeout.get(),
            unpacking: Unpacking::new(shutdown),
            headers_max: config.headers_max as usize,
            shutdown: shutdown.clone(),
            meter,
            journal_alarm: Alarm::new("journal"),
            letters_alarm: Alarm::new("dead letters"),
        }
    }

    /// Requests from now on are measured by the secrets of these sources; who is not known already is passed over.
    pub(super) fn renew_sources(&self, sources: Sources) {
        for source in sources.into_values() {
            let Some(gate) = self.gates.get(source.name.as_str()) else { continue };
            let current = gate.get();
            // Before anybody is let in by the new secrets, or one of them would be shown.
            if let Some(spot) = &current.spot {
                spot.renew(&source);
            }
            gate.set(Arc::new(current.with(source)));
        }
    }

    /// Answers one request. Dropping the future (the sender is gone) leaves nothing behind; an append that has begun
    /// goes on, and the event is kept although nobody was told.
    pub(super) async fn answer(&self, caller: &Caller, request: http::Request<Incoming>) -> Response {
        let may_close = request.version() < Version::HTTP_2;
        let response = self.answer_any(caller, request).await;
        // RFC 9110, section 15.5.9: a 408 announces that the connection is closed.
        let must_close = response.status() == StatusCode::REQUEST_TIMEOUT
            || self.shutdown.token(Phase::Ingress).is_cancelled();
        if may_close && must_close { reply::last_on_its_connection(response) } else { response }
    }

    async fn answer_any(&self, caller: &Caller, request: http::Request<Incoming>) -> Response {
        if request.headers().len() > self.headers_max {
            self.meter.head_too_large();
            return reply::refused(&Problem::HeadTooLarge);
        }
        let (head, body) = request.into_parts();
        let Some(way) = self.way(head.uri.path()) else {
            self.meter.not_found();
            self.note_of_lost(&head).publish(&End::Problem(&Problem::NotFound));
            return reply::refused(&Problem::NotFound);
        };
        let visit = way.gate.meter.request_began();
        let mut note = Note::begin(way.gate.spot.as_ref(), &head);
        let taken = self.take(caller, &way, &head, body, &mut note).await;
        note.publish(&match &taken {
            Ok(Taken::Kept(kept)) => End::Kept(kept),
            Ok(Taken::Handshake(_)) => End::Handshake,
            Err(problem) => End::Problem(problem),
        });
        match taken {
            Ok(Taken::Kept(kept)) => {
                visit.ended(Answer::Accepted);
                reply::accepted(kept, way.gate.source.dialect.answer())
            }
            Ok(Taken::Handshake(handshake)) => {
                visit.ended(Answer::Handshake);
                reply::handshake(handshake)
            }
            Err(problem) => {
                visit.ended(problem.answer());
                reply::refused(&problem)
            }
        }
    }

    /// The source that a path names, where the path also has the secret that the source wants, or none if it wants none.
    fn way(&self, path: &str) -> Option<Way> {
        let rest = path.strip_prefix(HOOKS)?;
        let (name, secret) = match rest.split_once('/') {
            Some((name, secret)) => (name, Some(secret)),
            None => (rest, None),
        };
        let gate = self.gates.get(name)?.get();
        let path_secret_matched = match (&gate.source.config.path_secret, secret) {
            (None, None) => false,
            (Some(_), Some(secret)) if gate.source.path_secret_matches(&decoded_strictly(secret)?) => true,
            (None, Some(_)) | (Some(_), None | Some(_)) => return None,
        };
        Some(Way { gate, path_secret_matched })
    }

    /// A note of a request whose path names a source but lacks its secret, or has one too many.
    fn note_of_lost(&self, head: &request::Parts) -> Note {
        let rest = head.uri.path().strip_prefix(HOOKS).unwrap_or_default();
        let name = rest.split('/').next().unwrap_or_default();
        let spot = self.gates.get(name).and_then(|gate| gate.get().spot.clone());
        Note::begin(spot.as_ref(), head)
    }

    async fn take(
        &self,
        caller: &Caller,
        way: &Way,
        parts: &request::Parts,
        body: Incoming,
        note: &mut Note,
    ) -> Result<Taken, Problem> {
        let gate = &*way.gate;
        let methods = gate.source.dialect.methods();
        if !methods.contains(&parts.method) {
            return Err(Problem::MethodNotAllowed(methods));
        }
        let head = Head {
            source: &gate.source.name,
            peer: self.proxies.peer(caller, parts),
            path: parts.uri.path(),
            method: &parts.method,
            path_secret_matched: way.path_secret_matched,
            query: parts.uri.query(),
            headers: &parts.headers,
            rate: gate.source.config.rate,
        };
        note.address(head.peer.address);
        let dialect = &gate.source.dialect;
        // Before the rate and the body: strangers use up neither the source's allowance nor a place in work.
        gate.admit(dialect.authenticate(&head), note)?;
        // Nor does a question, for which nobody has to prove anything.
        let is_question = parts.method == Method::OPTIONS;
        if !dialect.signs() && !is_question {
            gate.within_rate()?;
        }
        let is_proven = !is_question && (way.path_secret_matched || gate.proves_at_head);
        let mut hold = self.limits.enter(is_proven)?;
        let body = self.read_body(gate, parts, body, &mut hold).await?;
        note.body(&body);
        let body = hold.carried_by(body);
        let request = Request { head, body: &body, arrival: arrival() };
        gate.admit(dialect.verify(&request), note)?;
        hold.proven();
        if dialect.signs() {
            gate.within_rate()?;
        }
        if let Some(handshake) = dialect.handshake(&request) {
            return Ok(Taken::Handshake(handshake));
        }
        let kept = match gate.source.read(&request) {
            Ok(events) => self.keep_events(gate, events, request.arrival.at).await,
            Err(why) => self.keep_unreadable(gate, &request, why).await,
        };
        kept.map(Taken::Kept)
    }

    async fn read_body(
        &self,
        gate: &Gate,
        head: &request::Parts,
        body: Incoming,
        hold: &mut Hold,
    ) -> Result<Bytes, Problem> {
        let codings = inflate::codings(&head.headers).ok_or(Problem::UnknownCoding)?;
        let sent = body::read(body, gate.bounds, hold).await?;
        gate.meter.body_read(sent.len());
        if codings.is_empty() {
            return Ok(sent);
        }
        Ok(body::unpack(sent, codings, gate.bounds, &self.unpacking, hold).await?)
    }

    async fn keep_events(
        &self,
        gate: &Gate,
        events: Vec<Envelope>,
        arrival: UnixMs,
    ) -> Result<Kept, Problem> {
        let _weight = self.limits.beside_body(events.len())?;
        let window = gate.source.config.dedupe.get();
        let keeping = Kept::events(&self.journal, events, arrival, window);
        let Ok(kept) = timeout(self.store_max, keeping).await else {
            self.journal_alarm.refused(&TOO_SLOW);
            return Err(Problem::StorageUnavailable);
        };
        let kept = kept.map_err(|error| match error {
            AppendError::Nothing => Problem::NoEvent,
            AppendError::TooLarge => Problem::EventTooLarge,
            AppendError::Full | AppendError::Failed | AppendError::Closed => {
                self.journal_alarm.refused(&error);
                Problem::StorageUnavailable
            }
        })?;
        self.journal_alarm.took();
        if let What::Events(events) = kept.what() {
            let (mut stored, mut unrouted, mut duplicates) = (0, 0, 0);
            for (event, appended) in events.each() {
                match appended {
                    Appended::Duplicate => duplicates += 1,
                    Appended::Stored => {
                        stored += 1;
                        unrouted += u64::from(!self.router.leads_anywhere(event));
                    }
                }
            }
            gate.meter.events_kept(stored, unrouted, duplicates);
        }
        Ok(kept)
    }

    async fn keep_unreadable(
        &self,
        gate: &Gate,
        request: &Request<'_>,
        why: Unreadable,
    ) -> Result<Kept, Problem> {
        match gate.on_unreadable() {
            OnUnreadable::Reject => Err(Problem::Unreadable(why)),
            OnUnreadable::Quarantine => {
                let letter = Quarantined {
                    source: &gate.source.name,
                    body: request.body,
                    content_type: media_type(request),
                    reason: why.label(),
                    detail: why.to_string(),
                    arrived: request.arrival.at,
                };
                let keeping = Kept::letter(&self.dead_letters, letter);
                let Ok(kept) = timeout(self.store_max, keeping).await else {
                    self.letters_alarm.refused(&TOO_SLOW);
                    return Err(Problem::StorageUnavailable);
                };
                let kept = kept.map_err(|error| {
                    self.letters_alarm.refused(&error);
                    Problem::StorageUnavailable
                })?;
                self.letters_alarm.took();
                gate.meter.quarantined(why.label());
                warn!(source = %gate.source.name, reason = why.label(), "a body could not be read and is kept as a dead letter");
                Ok(kept)
            }
        }
    }
}

impl Gate {
    fn new(config: &Config, source: ConfiguredSource, spot: Option<Arc<Spot>>) -> Self {
        let (unreadable, refused) =
            (Unreadable::ALL.map(Unreadable::label), Refused::ALL.map(Refused::label));
        Gate {
            limiter: source.config.rate.map(|rate| Arc::new(Limiter::new(rate))),
            bounds: Bounds {
                bytes_max: source.config.body_max.unwrap_or(config.body_max).as_len(),
                inflate_ratio_max: config.inflate_ratio_max,
                time_max: config.body_timeout.get(),
            },
            proves_at_head: source.dialect.has_credential() && !source.dialect.signs(),
            meter: Arc::new(SourceMeter::started(source.name.label(), &unreadable, &refused)),
            spot,
            source,
        }
    }

    /// The same bounds and counters, with other secrets.
    fn with(&self, source: ConfiguredSource) -> Self {
        Gate {
            source,
            limiter: self.limiter.clone(),
            bounds: self.bounds,
            proves_at_head: self.proves_at_head,
            meter: Arc::clone(&self.meter),
            spot: self.spot.clone(),
        }
    }

    fn admit(&self, proof: Result<(), Refused>, note: &mut Note) -> Result<(), Problem> {
        proof.map_err(|refused| {
            note.refused(refused);
            self.meter.unauthorized(refused.label());
            debug!(source = %self.source.name, reason = %refused, "request refused");
            Problem::Unauthorized
        })
    }

    fn within_rate(&self) -> Result<(), Problem> {
        self.limiter.as_ref().map_or(Ok(()), |limiter| limiter.take().map_err(Problem::RateLimited))
    }

    fn on_unreadable(&self) -> OnUnreadable {
        self.source.config.on_unreadable.unwrap_or_else(|| self.source.dialect.on_unreadable())
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TimedOut => Problem::BodyTimeout,
            BodyError::TooLarge => Problem::BodyTooLarge,
            BodyError::Incomplete => Problem::BodyIncomplete,
            BodyError::BrokenCoding => Problem::BrokenCoding,
            BodyError::UsedUp => Problem::Busy,
        }
    }
}

impl From<UsedUp> for Problem {
    fn from(_: UsedUp) -> Self {
        Problem::Busy
    }
}

/// The request's one reading of the clock, and an identity that sorts by it.
fn arrival() -> Arrival {
    let at = clock::now();
    let since_1970_ms = u64::try_from(at.0).unwrap_or(0);
    let (secs, nanos) = (since_1970_ms / 1000, (since_1970_ms % 1000) as u32 * 1_000_000);
    let timestamp = uuid::Timestamp::from_unix(uuid::NoContext, secs, nanos);
    Arrival { at, unique: uuid::Uuid::new_v7(timestamp) }
}

fn media_type<'a>(request: &Request<'a>) -> Option<&'a str> {
    request.head.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_is_one_moment() {
        let arrival = arrival();
        let (secs, nanos) = arrival.unique.get_timestamp().unwrap().to_unix();
        assert_eq!(i64::try_from(secs * 1000 + u64::from(nanos / 1_000_000)).unwrap(), arrival.at.0);
    }
}
