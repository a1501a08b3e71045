//! Asks librdkafka what it thinks of a set of properties, without connecting to anybody.
//! Holds: R8 (librdkafka repeats the value that it refuses; that is left out).

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, ProducerContext};
use rdkafka::types::RDKafkaConfRes;
use std::sync::Mutex;
use std::time::Duration;

/// The facility under which librdkafka warns of properties.
const WARNS_OF_PROPERTIES: &str = "CONFWARN";

/// The property, where it is about one, and what is wrong.
pub(super) type Refusal = (Option<String>, String);

/// Everything librdkafka has against these properties.
pub(super) fn refusals(config: &ClientConfig) -> Vec<Refusal> {
    let made: Result<BaseProducer<Listener>, _> = config.create_with_context(Listener::default());
    match made {
        Ok(producer) => {
            producer.poll(Duration::ZERO);
            let warnings = rdkafka::producer::Producer::context(&producer).0.lock();
            warnings.map(|mut warnings| std::mem::take(&mut *warnings)).unwrap_or_default()
        }
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _)) => {
            vec![(Some(name), "is no property of librdkafka".to_owned())]
        }
        Err(KafkaError::ClientConfig(_, _, name, _)) => {
            vec![(Some(name), "librdkafka does not take this value".to_owned())]
        }
        Err(KafkaError::ClientCreation(text)) => vec![(None, text)],
        Err(_) => vec![(None, "librdkafka does not take the properties".to_owned())],
    }
}

/// Collects warnings about properties that would be ignored.
#[derive(Default)]
struct Listener(Mutex<Vec<Refusal>>);

impl ClientContext for Listener {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility != WARNS_OF_PROPERTIES || !message.contains("ignored") {
            return;
        }
        let mut words = message.split_whitespace();
        let name = words.find(|word| *word == "property").and_then(|_| words.next());
        if let (Some(name), Ok(mut warnings)) = (name, self.0.lock()) {
            warnings.push((Some(name.to_owned()), "has no effect in a producer".to_owned()));
        }
    }

    fn error(&self, _error: KafkaError, _text: &str) {}
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();
    fn delivery(&self, _report: &DeliveryResult<'_>, _opaque: ()) {}
}
