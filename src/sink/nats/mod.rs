//! `nats`: publishes each event to a subject of a NATS server, without a stream.
//! Holds: delivered means that the server has worked through the publish and has not refused it (see `link`). That is
//! best effort by NATS' own nature: whoever has not subscribed at that moment never sees the event, and no subscriber
//! need exist. Where events must be kept, the kind is `jetstream`, which shares everything here but the confirmation.
//! Absent on purpose: waiting and trying again (`dispatch`).

pub(super) mod config;
pub(super) mod link;
pub(super) mod message;
mod refused;
pub(super) mod sender;
pub(super) mod server;
mod tracker;

use super::{Failure, Format, Limits, Outcome, Reason, SinkType};
use crate::envelope::Envelope;
use link::{Link, NotSent};
use message::{HEADERS_BYTES_USUAL, Messages};
use sender::Kind;
use server::Server;

pub(super) const TYPE: SinkType =
    SinkType::of::<config::Config>("nats", &[Format::Structured, Format::Binary]).pipelined();

/// See the module.
struct Core {
    server: Server,
    messages: Messages,
}

impl Core {
    fn new(server: Server, messages: Messages) -> Self {
        Core { server, messages }
    }
}

impl Kind for Core {
    type Session = Link;

    async fn open(&self) -> Result<Link, Failure> {
        Link::open(&self.server, true).await
    }

    fn link(session: &Link) -> &Link {
        session
    }

    async fn send(&self, link: &Link, event: &Envelope) -> Result<Outcome, NotSent> {
        let message = match self.messages.encode(event) {
            Ok(message) => message,
            Err(failure) => return Ok(Outcome::Reject(failure)),
        };
        match too_large(message.bytes(), link.message_bytes_max(), link.host()) {
            Some(failure) => Ok(Outcome::Reject(failure)),
            None => link.publish(message).await,
        }
    }

    fn limits(&self, link: &Link) -> Result<Limits, Failure> {
        Ok(Limits { message_bytes_max: Some(payload_limit(link.message_bytes_max())) })
    }
}

/// The server closes the connection over one message that is too large, and so takes all others along.
pub(super) fn too_large(bytes: usize, bytes_max: usize, whose: &str) -> Option<Failure> {
    (bytes > bytes_max).then(|| {
        let problem = format!("it has {bytes} bytes with its headers, {whose} takes at most {bytes_max}");
        Failure::new(Reason::TooLarge, problem)
    })
}

/// What is left for an event beside its headers.
pub(super) fn payload_limit(message_bytes_max: usize) -> u64 {
    (message_bytes_max as u64).saturating_sub(HEADERS_BYTES_USUAL)
}
