//! `jetstream`: publishes each event into a stream of NATS JetStream and waits for the stream's own acknowledgement.
//! Holds: delivered means that the stream has stored the event, or had it already (the acknowledgement says duplicate).
//! How far "stored" survives a power cut is the stream's matter: replicas and the server's `sync_interval`.
//! `Nats-Expected-Stream` makes sure that it is this stream.
//!
//! `Nats-Msg-Id` is sink, configured source, source and id, not the id alone: JetStream drops what comes with the same
//! text within its window whatever the subject, so that of two sources that count from 1, or of two sinks that publish
//! into one stream, one would lose its events, confirmed. The configured source is there because CloudEvents senders
//! write `source` and `id` themselves and might write another's (ADR 0017). An event without an identity of its own
//! carries none.
//! Absent on purpose: creating streams; waiting and trying again (`dispatch`), but for a stream without a leader.

mod answer;
mod config;
#[cfg(test)]
mod fuzz_tests;
mod stream;

use super::cloudevents::percent_encoded;
use super::nats::link::{Link, NotSent, Reply};
use super::nats::message::{Message, Messages};
use super::nats::sender::Kind;
use super::nats::server::Server;
use super::nats::{payload_limit, too_large};
use super::{Failure, Format, Limits, Outcome, Reason, SinkType};
use crate::envelope::Envelope;
use std::time::Duration;
use stream::{Stream, StreamConfig};

pub(super) const TYPE: SinkType =
    SinkType::of::<config::Config>("jetstream", &[Format::Structured, Format::Binary]).pipelined();

/// How often a publish that nobody answers is repeated: a stream that elects a leader is back in about a second.
const NO_RESPONDERS_RETRIES: u32 = 4;
/// The wait before each.
const NO_RESPONDERS_WAIT: Duration = Duration::from_millis(250);
/// The most bytes of headers that a stream takes (nats-server, `JSStreamHeaderExceedsMaximumErr`).
const HEADERS_BYTES_MAX: usize = u16::MAX as usize;

/// See the module.
struct JetStream {
    server: Server,
    messages: Messages,
    stream: String,
}

/// A connection and the stream on it.
struct Session {
    link: Link,
    stream: Stream,
}

impl JetStream {
    fn new(server: Server, messages: Messages, stream: String) -> Self {
        JetStream { server, messages, stream }
    }

    fn encode(&self, event: &Envelope) -> Result<Message, Failure> {
        let mut message = self.messages.encode(event)?;
        message.add("Nats-Expected-Stream", &self.stream)?;
        if event.can_repeat() {
            message.add("Nats-Msg-Id", &self.identity(event))?;
        }
        Ok(message)
    }

    /// No two events have the same: what separates the parts is in none of them.
    fn identity(&self, event: &Envelope) -> String {
        let parts = [self.messages.sink.as_str(), event.hookbus_source(), &event.source, &event.id];
        parts.map(|part| percent_encoded(part).replace('|', "%7C")).join("|")
    }

    /// Why the stream does not take this message.
    fn refusal(&self, message: &Message, stream: &StreamConfig) -> Option<Outcome> {
        if !stream.covers(&message.subject) {
            let name = &self.stream;
            let problem =
                format!("stream {name} does not take the subject {:.100}; add it there", message.subject);
            let failure = Failure::new(Reason::DestinationMissing, problem);
            let is_for_all = self.messages.destination.constant().is_some();
            return Some(if is_for_all { Outcome::Away(failure) } else { Outcome::Reject(failure) });
        }
        let whose = format!("stream {}", self.stream);
        let bytes_max = stream.message_bytes_max().unwrap_or(usize::MAX);
        too_large(message.bytes(), bytes_max, &whose)
            .or_else(|| {
                too_large(message.headers_bytes(), HEADERS_BYTES_MAX, "the header of a stream's message")
            })
            .map(Outcome::Reject)
    }

    /// Nobody answered, again and again.
    async fn nobody(&self, session: &Session, event: &Envelope) -> Outcome {
        let stream = match session.stream.fresh(&session.link).await {
            Ok(stream) => stream,
            Err(failure) => return Outcome::Away(failure),
        };
        let refusal = self.encode(event).ok().and_then(|message| self.refusal(&message, &stream));
        refusal.or_else(|| stream.unusable(&self.stream).map(Outcome::Away)).unwrap_or_else(|| {
            let problem =
                format!("stream {} exists, but nobody answers for it; has it a leader?", self.stream);
            Outcome::Away(Failure::new(Reason::DestinationMissing, problem))
        })
    }
}

impl Kind for JetStream {
    type Session = Session;

    async fn open(&self) -> Result<Session, Failure> {
        let link = Link::open(&self.server, false).await?;
        let stream = Stream::find(&self.stream, &link).await?;
        Ok(Session { link, stream })
    }

    fn link(session: &Session) -> &Link {
        &session.link
    }

    async fn send(&self, session: &Session, event: &Envelope) -> Result<Outcome, NotSent> {
        for attempt in 0..=NO_RESPONDERS_RETRIES {
            let message = match self.encode(event) {
                Ok(message) => message,
                Err(failure) => return Ok(Outcome::Reject(failure)),
            };
            if let Some(failure) =
                too_large(message.bytes(), session.link.message_bytes_max(), session.link.host())
            {
                return Ok(Outcome::Reject(failure));
            }
            if self.refusal(&message, &session.stream.known()).is_some() {
                match session.stream.fresh(&session.link).await {
                    Ok(stream) => {
                        if let Some(refusal) = self.refusal(&message, &stream) {
                            return Ok(refusal);
                        }
                    }
                    Err(failure) => return Ok(Outcome::Away(failure)),
                }
            }
            match session.link.request(message).await? {
                Reply::Answer(answer) => return Ok(answer::outcome(&answer, &self.stream)),
                Reply::Ended(outcome) => return Ok(outcome),
                Reply::NoResponders if attempt < NO_RESPONDERS_RETRIES => {
                    tokio::time::sleep(NO_RESPONDERS_WAIT).await;
                }
                Reply::NoResponders => {}
            }
        }
        Ok(self.nobody(session, event).await)
    }

    fn limits(&self, session: &Session) -> Result<Limits, Failure> {
        let stream = session.stream.known();
        if let Some(subject) = self.messages.destination.constant()
            && !stream.covers(subject)
        {
            let problem =
                format!("stream {} does not take the subject {subject:.100}; add it there", self.stream);
            return Err(Failure::new(Reason::DestinationMissing, problem));
        }
        let server_max = session.link.message_bytes_max();
        let bytes_max =
            stream.message_bytes_max().map_or(server_max, |stream_max| stream_max.min(server_max));
        Ok(Limits { message_bytes_max: Some(payload_limit(bytes_max)) })
    }
}
