//! The other side of the jetstream sink: a stream on a real server, read by a client that is not our own.

use super::nats::{AUTHENTICATIONS, BINDING, LIMIT_BYTES, Place, arrived};
use super::{Arrived, Binding, Rig, Setup, unique_name};
use crate::support::brokers::Leashed;
use crate::support::brokers::nats::Received;
use crate::support::proxy::Proxy;
use async_nats::jetstream::stream::Config as StreamConfig;
use serde_json::{Value, json};

/// The event's own part of `Nats-Msg-Id`, which begins with the sink and the sources.
const ID_IN_MESSAGE_ID: &str = "the id in Nats-Msg-Id";

/// See the module.
pub struct JetStreamRig {
    setup: Setup,
    place: Place,
    stream: String,
}

impl JetStreamRig {
    /// `-STOP` and `-CONT` to the server.
    pub fn signal(&self, signal: &str) {
        self.place.nats.signal(signal);
    }

    async fn create(&self, max_message_size: i32) {
        // Only what the ordinary events are published to, so that another type is poison.
        let subjects = vec![format!("{}.webhook.*", self.stream)];
        let config =
            StreamConfig { name: self.stream.clone(), subjects, max_message_size, ..StreamConfig::default() };
        self.place.nats.create_stream_with(config).await;
    }
}

impl Rig for JetStreamRig {
    const KIND: &'static str = "jetstream";
    const BINDING: Option<Binding> = Some(Binding { identity: Some(ID_IN_MESSAGE_ID), ..BINDING });
    const REASON_POISON: &'static str = "destination_missing";
    const TELLS_LIMIT: bool = true;
    const AUTHENTICATIONS: &'static [&'static str] = AUTHENTICATIONS;

    async fn start(setup: Setup) -> Self {
        let rig = JetStreamRig { setup, place: Place::start(setup).await, stream: unique_name() };
        match setup {
            Setup::Missing => {}
            Setup::Limited => rig.create(i32::try_from(LIMIT_BYTES).unwrap()).await,
            _ => rig.create(-1).await,
        }
        rig
    }

    fn table(&self) -> String {
        let Self { setup, place, stream } = self;
        let kind = if *setup == Setup::Forbidden { "webhook.received" } else { "{type}" };
        let names = format!("stream = \"{stream}\"\nsubject = \"{stream}.{kind}\"");
        format!("[sinks.orders.jetstream]\n{names}\n{}", place.table())
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let with_id = |mut message: Received| {
            let id = message
                .headers
                .get("Nats-Msg-Id")
                .and_then(|text| text.rsplit('|').next())
                .map(str::to_owned);
            message.headers.extend(id.map(|id| (ID_IN_MESSAGE_ID.to_owned(), id)));
            arrived(message)
        };
        self.place.nats.read_stream(&self.stream).into_iter().map(with_id).collect()
    }

    async fn goes_down(&mut self) {
        self.place.goes_down().await;
    }

    async fn comes_back(&mut self) {
        self.place.comes_back().await;
        self.place.opens().await;
    }

    fn stands_still(&self) {
        self.place.nats.with_process(Leashed::stands_still);
    }

    fn goes_on(&self) {
        self.place.nats.with_process(Leashed::goes_on);
    }

    fn proxy(&self) -> &Proxy {
        self.place.proxy.as_ref().expect("it was started behind one")
    }

    async fn create_destination(&mut self) {
        self.create(-1).await;
    }

    async fn correct_credentials(&mut self) {
        self.place.correct_credentials().await;
    }

    async fn grant_permission(&mut self) {
        self.place.grant_permission().await;
    }

    fn poison(&self) -> Value {
        json!({"type": "poison"})
    }
}
