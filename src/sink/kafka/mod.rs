//! `kafka`: writes each event to a topic as a record, and says "delivered" when all replicas in sync have it.
//! Holds: only a delivery report confirms; a record refused with its batch is sent again alone before it is rejected;
//! whatever ails the client, its brokers or the one topic is no event's fault (Away), what may have been written is
//! unknown (Retry); a client of no use is replaced by a new one, which reads the secrets anew.
//! Absent on purpose: trying again (`dispatch`), but for what librdkafka repeats within the time-out without writing it
//! twice; transactions, which would cost a round trip a batch and promise nothing about consumers.

mod answer;
mod client;
mod config;
mod look;
mod oauth;
mod passed_on;
mod producer;
mod properties;
mod record;
mod try_out;

use super::connection::Connection;
use super::{Failure, Format, Limits, Outcome, Reason, Sink, SinkType};
use crate::envelope::Envelope;
use answer::{Meaning, meaning};
use client::{Client, Plan};
use futures_util::future::{BoxFuture, FutureExt};
use look::Look;
use producer::Report;
use rdkafka::error::RDKafkaErrorCode;
use record::Encoder;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const TYPE: SinkType =
    SinkType::of::<config::Config>("kafka", &[Format::Structured, Format::Binary]).pipelined();

struct KafkaSink {
    plan: Plan,
    encoder: Encoder,
    timeout: Duration,
    look: Look,
    connection: Connection<Client>,
}

impl Sink for KafkaSink {
    fn deliver<'a>(&'a self, event: &'a Arc<Envelope>) -> BoxFuture<'a, Outcome> {
        async move {
            match self.deliver_by(Instant::now() + self.timeout, event).await {
                Outcome::Away(failure) => Outcome::Away(self.look.explained(failure).await),
                other => other,
            }
        }
        .boxed()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Limits, Failure>> {
        async move {
            match self.client().await {
                Ok(client) => Ok(client.limits()),
                Err(failure) => Err(self.look.explained(failure).await),
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(client) = self.connection.take() {
                client.flush().await;
            }
            self.plan.ended().await;
        }
        .boxed()
    }
}

impl KafkaSink {
    fn new(plan: Plan, encoder: Encoder, timeout: Duration, look: Look) -> Self {
        KafkaSink { plan, encoder, timeout, look, connection: Connection::new() }
    }

    /// A client that takes records.
    async fn client(&self) -> Result<Arc<Client>, Failure> {
        let connect = || {
            self.look.show_ends();
            Client::connect(&self.plan)
        };
        let client = self.connection.get(connect).await?;
        if !client.is_over() {
            return Ok(client);
        }
        self.connection.give_up(&client);
        // One that is over already says why; to connect again and again would be an attack.
        self.connection.get(connect).await
    }

    async fn client_by(&self, deadline: Instant) -> Result<Arc<Client>, Failure> {
        let client = tokio::time::timeout_at(deadline, self.client()).await;
        client.unwrap_or_else(|_| {
            Err(Failure::new(Reason::Timeout, "no connection to the brokers within the sink's timeout"))
        })
    }

    async fn deliver_by(&self, deadline: Instant, event: &Envelope) -> Outcome {
        let client = match self.client_by(deadline).await {
            Ok(client) => client,
            Err(failure) => return Outcome::Away(failure),
        };
        let outcome = self.deliver_through(&client, deadline, event).await;
        let is_too_large = matches!(&outcome, Outcome::Reject(failure) if failure.reason == Reason::TooLarge);
        if !(is_too_large && client.may_not_know_the_limit()) {
            return outcome;
        }
        // The topic may take more by now; a new client asks.
        client.retire();
        match self.client_by(deadline).await {
            Ok(client) => self.deliver_through(&client, deadline, event).await,
            Err(failure) => Outcome::Away(failure),
        }
    }

    async fn deliver_through(&self, client: &Arc<Client>, deadline: Instant, event: &Envelope) -> Outcome {
        let topic = match self.encoder.topic(event) {
            Ok(topic) => topic,
            Err(failure) => return Outcome::Reject(failure),
        };
        let (confirmed_before, sent_at) = (client.confirmed(), Instant::now());
        let sent = tokio::time::timeout_at(deadline, self.send(client, &topic, event));
        // The time that connecting took may be missing for librdkafka to give up first.
        let sent = sent.await.unwrap_or(Err(RDKafkaErrorCode::MessageTimedOut));
        let Err(code) = sent else { return Outcome::Delivered };
        let has_waited = sent_at.elapsed() >= self.timeout / 2;
        if meaning(code) == Meaning::Late && has_waited && client.confirmed() == confirmed_before {
            client.abandon();
        } else if self.is_of_no_use_after(code) {
            client.retire();
        }
        self.outcome(code, &topic, client)
    }

    /// With others, and where the broker refuses them together, alone.
    async fn send(&self, client: &Arc<Client>, topic: &str, event: &Envelope) -> Report {
        let Err(verdict) = client.send(self.encoder.record(topic, event)).await else { return Ok(()) };
        if !(verdict.is_of_a_batch && matches!(meaning(verdict.code), Meaning::Suspect(_))) {
            return Err(verdict.code);
        }
        if client.may_not_know_the_limit() {
            // It makes batches that the topic takes no more.
            client.retire();
        }
        client.send_alone(self.encoder.record(topic, event)).await
    }

    fn is_of_no_use_after(&self, code: RDKafkaErrorCode) -> bool {
        match meaning(code) {
            Meaning::NeverSent | Meaning::PerhapsSent | Meaning::Broken | Meaning::Barred => true,
            // Connecting is what asks whether the topic is there.
            Meaning::Missing | Meaning::Forbidden => self.plan.topic.is_some(),
            Meaning::Suspect(_) | Meaning::Full | Meaning::Late | Meaning::Failed => false,
        }
    }

    fn outcome(&self, code: RDKafkaErrorCode, topic: &str, client: &Client) -> Outcome {
        let failed = |reason, problem: &str| Failure::new(reason, format!("topic {topic:.100}: {problem}"));
        match meaning(code) {
            Meaning::Suspect(reason) => {
                Outcome::Reject(failed(reason, &format!("the broker refuses the record: {code}")))
            }
            // What every event needs is the sink's, what one event leads to is the event's.
            Meaning::Missing if self.plan.topic.is_some() => Outcome::Away(client::missing(topic)),
            Meaning::Missing => Outcome::Reject(client::missing(topic)),
            Meaning::Forbidden if self.plan.topic.is_some() => Outcome::Away(client::forbidden(topic)),
            Meaning::Forbidden => Outcome::Reject(client::forbidden(topic)),
            // Wherever the event leads, no other fares better.
            Meaning::Barred => Outcome::Away(client::barred(code)),
            Meaning::Full => {
                Outcome::Busy { failure: failed(Reason::Throttled, "the client's queue is full"), wait: None }
            }
            Meaning::Late => Outcome::Retry(late()),
            Meaning::NeverSent => Outcome::Away(client.failure()),
            Meaning::PerhapsSent => Outcome::Retry(failed(
                Reason::ConnectionLost,
                "the brokers were lost before they confirmed it",
            )),
            Meaning::Broken => match client.failure() {
                failure if failure.reason == Reason::NotAuthorized => Outcome::Away(failure),
                _ => Outcome::Retry(failed(
                    Reason::SinkError,
                    &format!("the client had to be replaced: {code}"),
                )),
            },
            Meaning::Failed => Outcome::Retry(failed(Reason::SinkError, &code.to_string())),
        }
    }
}

fn late() -> Failure {
    Failure::new(Reason::Timeout, "no confirmation within the sink's timeout")
}
