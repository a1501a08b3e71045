//! What librdkafka's error codes mean for one record and for the client.
//! Holds: what was never sent is no event's fault (Away); what may have arrived is unknown (Retry); what the broker says
//! of a whole batch is no verdict on one event (Suspect). Matched by code; texts are shown, and only told apart where
//! librdkafka has one code for several causes.
//! Sources: librdkafka `INTRODUCTION.md` (idempotent producer, message reliability) and the protocol's error codes,
//! <https://kafka.apache.org/protocol#protocol_error_codes>.

use crate::sink::{Failure, Reason};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The most characters taken over from librdkafka's descriptions.
const TEXT_CHARS_MAX: usize = 180;

/// What went wrong with a client, in librdkafka's words.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Trouble {
    pub(super) code: Code,
    text: String,
}

impl Trouble {
    pub(super) fn new(code: Code, text: &str) -> Self {
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        Trouble { code, text: printable.take(TEXT_CHARS_MAX).collect() }
    }

    /// One connection failed, in a way that another address of the same name need not.
    pub(super) fn may_pass_at_once(&self) -> bool {
        let reason = self.failure().reason;
        matches!(reason, Reason::ConnectionRefused | Reason::ConnectionLost | Reason::Timeout)
    }

    /// Why nothing can be sent through the client.
    pub(super) fn failure(&self) -> Failure {
        let text = &self.text;
        let (reason, sentence) = match self.code {
            Code::Resolve => (Reason::NameNotResolved, "a broker's name does not resolve"),
            Code::SSL => (Reason::Tls, "TLS failed"),
            Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
                (Reason::NotAuthorized, "the broker refused the credentials; see sasl")
            }
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => {
                (Reason::NotAuthorized, "the user has no permission; allow it to write")
            }
            // An alert that comes after the handshake, which is how TLS 1.3 refuses a client's certificate.
            Code::BrokerTransportFailure if text.contains("SSL routines") => (Reason::Tls, "TLS failed"),
            Code::BrokerTransportFailure if text.contains("refused") => {
                (Reason::ConnectionRefused, "nothing accepts connections there")
            }
            Code::BrokerTransportFailure if text.contains("timed out") => {
                (Reason::Timeout, "no connection in time")
            }
            Code::OperationTimedOut => (Reason::Timeout, "no answer in time"),
            Code::BrokerTransportFailure | Code::AllBrokersDown => {
                (Reason::ConnectionLost, "no broker can be reached")
            }
            _ => (Reason::SinkError, "the client failed"),
        };
        Failure::new(reason, format!("{sentence}: {text}"))
    }
}

/// A client that could not even be made. Only a certificate or a key can have changed since the configuration was
/// checked, and those are read when it is made.
pub(super) fn not_created(error: &KafkaError) -> Trouble {
    match error {
        KafkaError::ClientCreation(text) => Trouble::new(Code::SSL, text),
        // The others repeat the value, which may be a secret.
        _ => Trouble::new(Code::InvalidArgument, "a property is not valid"),
    }
}

/// What a code means for the record it came back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// It or another of its batch is refused; alone, it is the one.
    Suspect(Reason),
    /// The topic does not exist.
    Missing,
    /// The user may not write to the topic.
    Forbidden,
    /// The user may write to no topic, or not in the way of this client.
    Barred,
    /// librdkafka's queue is full.
    Full,
    /// No confirmation in time; it may have been stored.
    Late,
    /// The client was given up before it was sent.
    NeverSent,
    /// The client was given up after it may have been sent.
    PerhapsSent,
    /// The client is of no use any more.
    Broken,
    /// It failed by itself.
    Failed,
}

pub(super) fn meaning(code: Code) -> Meaning {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            Meaning::Suspect(Reason::TooLarge)
        }
        Code::InvalidRecord
        | Code::InvalidMessage
        | Code::InvalidTimestamp
        | Code::PolicyViolation
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => Meaning::Suspect(Reason::ContentRefused),
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic => Meaning::Missing,
        Code::TopicAuthorizationFailed => Meaning::Forbidden,
        Code::ClusterAuthorizationFailed | Code::InvalidRequiredAcks => Meaning::Barred,
        Code::QueueFull => Meaning::Full,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut => Meaning::Late,
        Code::PurgeQueue => Meaning::NeverSent,
        Code::PurgeInflight => Meaning::PerhapsSent,
        Code::Fatal
        | Code::Fenced
        | Code::State
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::ProducerFenced => Meaning::Broken,
        _ => Meaning::Failed,
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
