//! Each code has its meaning, and what a client that fails is said to suffer from.

use super::*;

#[test]
fn each_code_has_its_meaning() {
    for (sentence, code, expected) in [
        ("a batch with one that is too large", Code::MessageSizeTooLarge, Meaning::Suspect(Reason::TooLarge)),
        ("a batch that is too large", Code::MessageBatchTooLarge, Meaning::Suspect(Reason::TooLarge)),
        ("a compacted topic and no key", Code::InvalidRecord, Meaning::Suspect(Reason::ContentRefused)),
        ("a policy of the broker", Code::PolicyViolation, Meaning::Suspect(Reason::ContentRefused)),
        ("no such topic", Code::UnknownTopic, Meaning::Missing),
        ("no such topic, says the broker", Code::UnknownTopicOrPartition, Meaning::Missing),
        ("no permission for the topic", Code::TopicAuthorizationFailed, Meaning::Forbidden),
        ("no permission for any", Code::ClusterAuthorizationFailed, Meaning::Barred),
        ("confirmations that are not given", Code::InvalidRequiredAcks, Meaning::Barred),
        ("a full queue", Code::QueueFull, Meaning::Full),
        ("no confirmation in time", Code::MessageTimedOut, Meaning::Late),
        ("given up before it was sent", Code::PurgeQueue, Meaning::NeverSent),
        ("given up after it was sent", Code::PurgeInflight, Meaning::PerhapsSent),
        ("a fatal error", Code::Fatal, Meaning::Broken),
        ("a session the broker forgot", Code::UnknownProducerId, Meaning::Broken),
        ("too few replicas", Code::NotEnoughReplicas, Meaning::Failed),
        ("a disk of the broker's", Code::KafkaStorageError, Meaning::Failed),
    ] {
        assert_eq!(meaning(code), expected, "{sentence}");
    }
}

#[test]
fn what_ails_a_client_is_named() {
    for (code, text, reason) in [
        (Code::Resolve, "Failed to resolve 'nobody.invalid:9092'", Reason::NameNotResolved),
        (Code::SSL, "SSL handshake failed: certificate verify failed", Reason::Tls),
        (Code::BrokerTransportFailure, "error:0A000412:SSL routines::bad certificate", Reason::Tls),
        (
            Code::BrokerTransportFailure,
            "Connect to 127.0.0.1:1 failed: Connection refused",
            Reason::ConnectionRefused,
        ),
        (Code::BrokerTransportFailure, "Connection setup timed out in state CONNECT", Reason::Timeout),
        (Code::BrokerTransportFailure, "Disconnected (after 12ms in state UP)", Reason::ConnectionLost),
        (Code::Authentication, "SASL authentication error", Reason::NotAuthorized),
        (Code::ClusterAuthorizationFailed, "InitProducerId", Reason::NotAuthorized),
        (Code::OperationTimedOut, "", Reason::Timeout),
        (Code::OutOfOrderSequenceNumber, "", Reason::SinkError),
    ] {
        assert_eq!(Trouble::new(code, text).failure().reason, reason, "{code:?} {text}");
    }
}

#[test]
fn a_text_of_librdkafka_s_stays_short_and_on_one_line() {
    let failure = Trouble::new(Code::SSL, &format!("one\ntwo{}", "\u{e9}".repeat(500))).failure();
    assert!(failure.detail.chars().count() <= 300 && !failure.detail.contains('\n'), "{failure}");
}

#[test]
fn a_value_that_may_be_a_secret_is_not_repeated() {
    use rdkafka::config::ClientConfig;
    use rdkafka::producer::BaseProducer;
    let made: Result<BaseProducer, _> =
        ClientConfig::new().set("queue.buffering.max.messages", "SECRET").create();
    let Err(error) = made else { panic!("librdkafka took it") };
    assert!(format!("{error}{error:?}").contains("SECRET"), "or this test shows nothing");
    assert!(!not_created(&error).failure().detail.contains("SECRET"));
}
