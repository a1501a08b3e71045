//! `[sinks.N.jetstream]`: the keys of every NATS client, and the stream.
//! Holds: as `nats::config`, where the keys are declared and checked.

use super::super::nats::config::nats_config;
use super::super::nats::sender::Sender;
use super::super::template::Template;
use super::super::{BuildError, Context, OwnKeys, Sink, SinkConfig};
use super::JetStream;
use super::stream::is_stream_name;
use crate::config::{ConfigError, OneOrMany, Secret, Section};
use crate::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

nats_config! {
    /// `[sinks.N.jetstream]`.
    {
        /// The stream that keeps the events; required. It must exist and take the subjects.
        stream: Option<String>,
    }
}

impl OwnKeys for Config {
    fn check(&self, section: &Section, errors: &mut Vec<ConfigError>) {
        self.common().check(section, errors);
        match &self.stream {
            None => errors.push(section.error("stream", "is required: the stream that keeps the events")),
            Some(name) if !is_stream_name(name) => {
                errors.push(
                    section.error("stream", "expected the name of a stream, without spaces . * > / and \\"),
                );
            }
            Some(_) => {}
        }
    }
}

impl SinkConfig for Config {
    fn build(&self, context: Context, _shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        let (server, messages) = self.common().parts(&context)?;
        let stream = self.stream.clone().unwrap_or_default();
        Ok(Arc::new(Sender::new(JetStream::new(server, messages, stream), context.timeout.get())))
    }
}
