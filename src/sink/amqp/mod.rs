//! `amqp`: publishes each event to an exchange of an AMQP 0-9-1 broker (RabbitMQ), and believes it delivered when the
//! broker has confirmed it and has not sent it back.
//! Holds: delivered means that at least one queue has it, persistently; R7, R8. One connection a sink.
//! Absent on purpose: waiting and trying again (`dispatch`); declaring exchanges and queues, which is their owner's.

mod address;
mod client;
mod config;
mod failure;
mod message;
mod publisher;

use super::{Failure, Format, Limits, Outcome, Sink, SinkType};
use crate::envelope::Envelope;
use futures_util::future::{BoxFuture, FutureExt};
use publisher::Publisher;
use std::sync::Arc;

pub(super) const TYPE: SinkType =
    SinkType::of::<config::Config>("amqp", &[Format::Structured, Format::Binary]).pipelined();

struct AmqpSink {
    publisher: Publisher,
    message_bytes_max: u64,
}

impl Sink for AmqpSink {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        self.publisher.deliver(event).boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        async move {
            self.publisher.connect().await?;
            // AMQP has no way to ask the broker for its limit.
            Ok(Limits { message_bytes_max: Some(self.message_bytes_max) })
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.publisher.close().boxed()
    }
}
