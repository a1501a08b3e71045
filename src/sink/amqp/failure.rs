//! What an error of the client library or a reply of the broker means for the event.
//! Holds: what was never sent is no event's fault (Away); what may have arrived is unknown (Retry). R8: no reply text is
//! repeated, since it may name users; sentences say host, exchange and queue.

use super::super::tls::described;
use super::super::{Failure, Outcome, Reason};
use super::address::Address;
use super::client::Target;
use super::message::Encoder;
use lapin::protocol::AMQPErrorKind;
use lapin::{Error, ErrorKind};
use std::io;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const CONTENT_TOO_LARGE: u16 = 311;
const NOT_ALLOWED: u16 = 530;

pub(super) fn not_resolved(address: &Address) -> Failure {
    Failure::new(Reason::NameNotResolved, format!("{address}: its name does not resolve"))
}

/// No TCP connection.
pub(super) fn not_connected(address: &Address, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::new(Reason::Timeout, format!("{address}: no connection in time")),
        _ => Failure::new(Reason::ConnectionRefused, format!("{address}: nothing accepts connections there")),
    }
}

/// No TLS session.
pub(super) fn not_secured(address: &Address, error: &io::Error) -> Failure {
    tls(address, error).unwrap_or_else(|| dropped(address))
}

fn tls(address: &Address, error: &io::Error) -> Option<Failure> {
    let description = described(error.get_ref()?.downcast_ref::<rustls::Error>()?);
    Some(Failure::new(Reason::Tls, format!("{address}: TLS failed: {description}")))
}

fn dropped(address: &Address) -> Failure {
    Failure::new(Reason::ConnectionLost, format!("{address}: it dropped the connection while it was made"))
}

/// No AMQP connection on one that is otherwise good.
pub(super) fn connecting(address: &Address, error: &Error) -> Failure {
    let vhost = address.vhost();
    match error.kind() {
        ErrorKind::ProtocolError(reply) => match reply.get_id() {
            ACCESS_REFUSED => {
                Failure::new(Reason::NotAuthorized, format!("{address}: it refuses the user or the password"))
            }
            NOT_ALLOWED if reply.get_message().as_str().contains("not found") => Failure::new(
                Reason::DestinationMissing,
                format!("{address}: the virtual host \"{vhost:.100}\" does not exist"),
            ),
            NOT_ALLOWED => Failure::new(
                Reason::NotAuthorized,
                format!("{address}: the user may not use the virtual host \"{vhost:.100}\""),
            ),
            code => {
                Failure::new(Reason::SinkError, format!("{address}: it refuses the connection, code {code}"))
            }
        },
        ErrorKind::IOError(error) => tls(address, error).unwrap_or_else(|| dropped(address)),
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::ParsingError(_) => {
            Failure::new(Reason::SinkError, format!("{address}: what it answers is not AMQP 0-9-1"))
        }
        _ => dropped(address),
    }
}

/// The look at the target failed.
pub(super) fn looking_for(target: &Target, label: &str, error: &Error) -> Failure {
    let lost = || Failure::new(Reason::ConnectionLost, format!("{label}: the connection broke"));
    let what = match target {
        Target::Exchange(name) => format!("the exchange \"{name:.100}\""),
        Target::Queue(name) => format!("the queue \"{name:.100}\""),
        Target::Varies => return lost(),
    };
    match code(error) {
        Some(NOT_FOUND) => missing(label, &what),
        Some(ACCESS_REFUSED) => not_allowed(label, &what),
        Some(RESOURCE_LOCKED) => Failure::new(
            Reason::NotAuthorized,
            format!("{label}: {what} belongs to another connection alone"),
        ),
        Some(_) | None => lost(),
    }
}

fn missing(label: &str, what: &str) -> Failure {
    Failure::new(Reason::DestinationMissing, format!("{label}: {what} does not exist; create it"))
}

fn not_allowed(label: &str, what: &str) -> Failure {
    Failure::new(Reason::NotAuthorized, format!("{label}: the user may not write to {what}; allow it"))
}

fn code(error: &Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => Some(reply.get_id()),
        _ => None,
    }
}

/// What a reply is about, where its code does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// The size of a message.
    Size,
    /// A permission that depends on the routing key (RabbitMQ's topic authorisation).
    RoutingKey,
    /// Anything else.
    Other,
}

impl About {
    /// The texts are RabbitMQ's. A routing key is quoted behind the words that are looked for first.
    fn of(text: &str) -> Self {
        if text.contains("access to topic '") {
            About::RoutingKey
        } else if text.contains("size") {
            About::Size
        } else {
            About::Other
        }
    }
}

/// Why publishing stopped before everything was confirmed.
#[derive(Debug)]
pub(super) enum Broken {
    /// The broker closed the channel over a message, or over where it was to go.
    Channel { code: u16, about: About },
    /// The connection is of no use any more; what was sent is unknown, unless nothing was.
    Connection { is_sent: bool },
    /// No confirm in time; what was sent is unknown.
    Late,
}

impl Broken {
    /// What an error says; of several of one batch the broker's own.
    pub(super) fn of<'a>(errors: impl IntoIterator<Item = &'a Error>, is_sent: bool) -> Self {
        let replies = errors.into_iter().filter_map(|error| match error.kind() {
            ErrorKind::ProtocolError(reply) => Some(reply),
            _ => None,
        });
        for reply in replies {
            if let AMQPErrorKind::Soft(_) = reply.kind() {
                let about = About::of(reply.get_message().as_str());
                return Broken::Channel { code: reply.get_id(), about };
            }
        }
        Broken::Connection { is_sent }
    }

    /// Whether one event of many may be the cause for all, so that each half must be tried by itself.
    pub(super) fn may_be_one_of_many(&self, encoder: &Encoder) -> bool {
        match self {
            Broken::Channel { code: NOT_FOUND, .. } => encoder.exchange_varies(),
            Broken::Channel { code: ACCESS_REFUSED, about } => is_of_one_event(encoder, *about),
            Broken::Channel { code: RESOURCE_LOCKED, .. } | Broken::Connection { .. } | Broken::Late => false,
            Broken::Channel { .. } => true,
        }
    }

    /// What became of an event that was alone, or whose neighbours share its fate.
    pub(super) fn outcome(&self, encoder: &Encoder, label: &str) -> Outcome {
        let target = || encoder.describe();
        match self {
            Broken::Channel { code: NOT_FOUND, .. } => {
                let failure = missing(label, &format!("the exchange of {}", target()));
                if encoder.exchange_varies() { Outcome::Reject(failure) } else { Outcome::Away(failure) }
            }
            Broken::Channel { code: ACCESS_REFUSED, about } => {
                let failure = not_allowed(label, &target());
                if is_of_one_event(encoder, *about) {
                    Outcome::Reject(failure)
                } else {
                    Outcome::Away(failure)
                }
            }
            Broken::Channel { code: RESOURCE_LOCKED, .. } => {
                let detail = format!("{label}: {} belongs to another connection alone", target());
                Outcome::Away(Failure::new(Reason::NotAuthorized, detail))
            }
            Broken::Channel { code: CONTENT_TOO_LARGE, .. }
            | Broken::Channel { code: PRECONDITION_FAILED, about: About::Size } => {
                let detail =
                    format!("{label}: it is larger than the broker takes; lower message_max to match");
                Outcome::Reject(Failure::new(Reason::TooLarge, detail))
            }
            Broken::Channel { code, .. } => {
                let detail = format!("{label}: it closed the channel with code {code}");
                Outcome::Retry(Failure::new(Reason::SinkError, detail))
            }
            Broken::Connection { is_sent: true } => {
                let detail = format!("{label}: the connection broke before the confirm");
                Outcome::Retry(Failure::new(Reason::ConnectionLost, detail))
            }
            Broken::Connection { is_sent: false } => {
                let detail = format!("{label}: the connection broke before anything was sent");
                Outcome::Away(Failure::new(Reason::ConnectionLost, detail))
            }
            Broken::Late => Outcome::Retry(late(label)),
        }
    }
}

/// Whether a refused permission is about where this event leads; one for the exchange of all events is the sink's.
fn is_of_one_event(encoder: &Encoder, about: About) -> bool {
    encoder.exchange_varies() || about == About::RoutingKey && encoder.route_varies()
}

/// No confirm in time.
pub(super) fn late(label: &str) -> Failure {
    Failure::new(Reason::Timeout, format!("{label}: no confirm in time"))
}

/// The message came back: no queue takes it.
pub(super) fn unroutable(encoder: &Encoder, label: &str) -> Outcome {
    let detail = format!("{label}: no queue takes what goes to {}; bind one", encoder.describe());
    let failure = Failure::new(Reason::DestinationMissing, detail);
    if encoder.route_varies() { Outcome::Reject(failure) } else { Outcome::Away(failure) }
}
