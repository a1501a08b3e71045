//! The other side of each sink of a campaign: a rig whose type is forgotten, so that all can be in one list.

use crate::contract::{Rig, Setup};
use crate::support::oracle::Delivery;
use crate::support::proxy::Proxy;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::sync::Mutex;

/// See [`Rig`].
pub trait Place {
    fn kind(&self) -> &'static str;
    /// Its sink's table, by the name of its kind, with these common keys.
    fn table(&self, keys: &str) -> String;
    fn goes_down(&mut self) -> LocalBoxFuture<'_, ()>;
    fn comes_back(&mut self) -> LocalBoxFuture<'_, ()>;
    fn stands_still(&self);
    fn goes_on(&self);
    /// Where it is behind one.
    fn proxy(&self) -> Option<&Proxy>;
    /// Everything it has, in its order.
    fn deliveries(&self) -> LocalBoxFuture<'_, Vec<Delivery>>;
}

struct PlaceOf<R>(R);

impl<R: Rig> Place for PlaceOf<R> {
    fn kind(&self) -> &'static str {
        R::KIND
    }
    fn table(&self, keys: &str) -> String {
        let kind = R::KIND;
        let own = self.0.table().replace("[sinks.orders.", &format!("[sinks.{kind}."));
        format!("[sinks.{kind}]\n{}\n{own}\n", keys.replace("[retry]", &format!("[sinks.{kind}.retry]")))
    }
    fn goes_down(&mut self) -> LocalBoxFuture<'_, ()> {
        self.0.goes_down().boxed_local()
    }
    fn comes_back(&mut self) -> LocalBoxFuture<'_, ()> {
        self.0.comes_back().boxed_local()
    }
    fn stands_still(&self) {
        self.0.stands_still();
    }
    fn goes_on(&self) {
        self.0.goes_on();
    }
    fn proxy(&self) -> Option<&Proxy> {
        // The only one that is reached over no network.
        (R::KIND != "file").then(|| self.0.proxy())
    }
    fn deliveries(&self) -> LocalBoxFuture<'_, Vec<Delivery>> {
        async {
            let arrived = self.0.arrived().await.into_iter();
            let delivery = |body: &[u8]| {
                let event: Value = serde_json::from_slice(body).expect("every event is whole");
                let text = |value: &Value| value.as_str().expect("it was posted with one").to_owned();
                let (id, key) = (text(&event["id"]), text(&event["data"]["key"]));
                Delivery { id, key, number: event["data"]["n"].as_u64().expect("it was posted with one") }
            };
            arrived.map(|arrived| delivery(&arrived.body)).collect()
        }
        .boxed_local()
    }
}

/// By kind; whoever strikes one has it for that time.
pub type Places = BTreeMap<&'static str, Mutex<Box<dyn Place>>>;

async fn place<R: Rig + 'static>() -> (&'static str, Mutex<Box<dyn Place>>) {
    (R::KIND, Mutex::new(Box::new(PlaceOf(R::start(Setup::Disturbed).await))))
}

/// Every kind that keeps what it confirmed.
pub async fn places() -> Places {
    use crate::contract::{
        amqp::AmqpRig, file::FileRig, http::HttpRig, jetstream::JetStreamRig, kafka::KafkaRig,
    };
    let started = [
        place::<AmqpRig>().boxed_local(),
        place::<FileRig>().boxed_local(),
        place::<HttpRig>().boxed_local(),
        place::<JetStreamRig>().boxed_local(),
        place::<KafkaRig>().boxed_local(),
    ];
    join_all(started).await.into_iter().collect()
}
