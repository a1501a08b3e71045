//! What JetStream answered to a publish, and what becomes of the event.
//! Holds: every error code of the server that a publish can meet has its ending (nats-server, `server/errors.json`);
//! an unknown one leaves the outcome open.

use super::super::nats::server::quoted;
use super::super::{Failure, Outcome, Reason};
use serde::Deserialize;

/// The part of `PubAck` that matters here. `duplicate` is left out: the stream has the event either way.
#[derive(Deserialize)]
struct PubAck {
    error: Option<ApiError>,
    stream: Option<String>,
}

/// JetStream's own error.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiError {
    /// As in HTTP.
    pub(super) code: u16,
    pub(super) err_code: u32,
    pub(super) description: String,
}

/// What the answer to a publish into `stream` means.
pub(super) fn outcome(answer: &[u8], stream: &str) -> Outcome {
    match serde_json::from_slice::<PubAck>(answer) {
        Ok(PubAck { error: Some(error), .. }) => outcome_of(&error, stream),
        Ok(PubAck { stream: Some(kept_in), .. }) if kept_in == stream => Outcome::Delivered,
        // Somebody else answers on this subject.
        Ok(_) | Err(_) => Outcome::Retry(Failure::new(
            Reason::SinkError,
            format!("what answers the publish is not stream {stream}"),
        )),
    }
}

/// What an error means for an event.
pub(super) fn outcome_of(error: &ApiError, stream: &str) -> Outcome {
    let said = quoted(&error.description);
    let failure = |reason, problem: &str| {
        Failure::new(reason, format!("stream {stream}: {problem} ({said}, {})", error.err_code))
    };
    let busy = |problem| Outcome::Busy { failure: failure(Reason::Throttled, problem), wait: None };
    match error.err_code {
        // A limit of one subject is no limit of the stream: others still pass, so only this event waits.
        10077 if said.contains("per subject") => {
            Outcome::Retry(failure(Reason::Throttled, "this subject is full and refuses what is new"))
        }
        10077 if said.contains("maximum") => {
            busy("it is full and refuses what is new; make room or raise its limits")
        }
        10002 | 10023 | 10028 | 10047 | 10120 | 10122 => {
            busy("the account's or the server's storage is used up")
        }
        10167 => busy("the server asks for less"),
        10054 => Outcome::Reject(failure(Reason::TooLarge, "the message is larger than it takes")),
        10097 => Outcome::Reject(failure(Reason::TooLarge, "the headers are larger than it takes")),
        10056 | 10060 => Outcome::Away(failure(
            Reason::DestinationMissing,
            "the subject belongs to another stream; change stream or subject",
        )),
        10059 => Outcome::Away(failure(Reason::DestinationMissing, "it does not exist; create it")),
        10109 => Outcome::Away(failure(Reason::DestinationMissing, "it is sealed; name another stream")),
        10035 | 10039 | 10076 => Outcome::Away(failure(
            Reason::DestinationMissing,
            "JetStream is not enabled on the server or for this account",
        )),
        // The first copy of this very message is being stored: the next attempt finds it stored (10158), or a leader is
        // being elected, a server of the cluster is away, a write failed.
        _ => Outcome::Retry(failure(Reason::SinkError, "it has not stored the event")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_ending() {
        let error = |code: u32, description: &str| {
            format!(
                r#"{{"error":{{"code":503,"err_code":{code},"description":"{description}"}},"stream":"EVENTS","seq":0}}"#
            )
        };
        for (sentence, answer, ending) in [
            ("stored", r#"{"stream":"EVENTS","seq":7}"#.to_owned(), ("delivered", None)),
            ("had it", r#"{"stream":"EVENTS","seq":7,"duplicate":true}"#.to_owned(), ("delivered", None)),
            (
                "another stream",
                r#"{"stream":"OTHER","seq":7}"#.to_owned(),
                ("retry", Some(Reason::SinkError)),
            ),
            ("no stream at all", "+OK".to_owned(), ("retry", Some(Reason::SinkError))),
            ("full by bytes", error(10077, "maximum bytes exceeded"), ("busy", Some(Reason::Throttled))),
            ("full by count", error(10077, "maximum messages exceeded"), ("busy", Some(Reason::Throttled))),
            (
                "full for one subject",
                error(10077, "maximum messages per subject exceeded"),
                ("retry", Some(Reason::Throttled)),
            ),
            ("a failed write", error(10077, "disk error"), ("retry", Some(Reason::SinkError))),
            ("too many at once", error(10167, "too many requests"), ("busy", Some(Reason::Throttled))),
            ("no storage", error(10047, "insufficient storage"), ("busy", Some(Reason::Throttled))),
            ("too large", error(10054, "message size exceeds maximum"), ("reject", Some(Reason::TooLarge))),
            ("headers too large", error(10097, "header size exceeds"), ("reject", Some(Reason::TooLarge))),
            ("the wrong stream", error(10060, "expected"), ("away", Some(Reason::DestinationMissing))),
            ("sealed", error(10109, "sealed"), ("away", Some(Reason::DestinationMissing))),
            ("in process", error(10158, "in process"), ("retry", Some(Reason::SinkError))),
            ("no leader", error(10009, "not leader"), ("retry", Some(Reason::SinkError))),
            ("unknown", error(19999, "?"), ("retry", Some(Reason::SinkError))),
        ] {
            let found = match outcome(answer.as_bytes(), "EVENTS") {
                Outcome::Delivered => ("delivered", None),
                Outcome::Retry(failure) => ("retry", Some(failure.reason)),
                Outcome::Busy { failure, .. } => ("busy", Some(failure.reason)),
                Outcome::Away(failure) => ("away", Some(failure.reason)),
                Outcome::Reject(failure) => ("reject", Some(failure.reason)),
            };
            assert_eq!(found, ending, "{sentence}");
        }
    }
}
