//! An HTTP sink that does what the test tells it to: confirms, refuses, throttles, hangs, resets, or is not there.

use super::brokers::free_port;
use super::eventually;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How it answers from now on.
#[derive(Clone, PartialEq, Debug)]
pub enum Mood {
    /// 204.
    Confirms,
    /// This status, with these headers.
    Answers(u16, &'static [(&'static str, &'static str)]),
    /// Takes the request and never answers.
    Hangs,
    /// This status for events whose `data.n` is in the set, 204 for the others.
    Refuses(u16, BTreeSet<u64>),
    /// 204 for requests with this `authorization`, 401 for others.
    AsksFor(String),
}

#[derive(Default)]
struct Seen {
    confirmed: BTreeMap<String, u32>,
    order: Vec<Value>,
    requests: u64,
}

/// A sink at an address that stays the same while it comes and goes.
pub struct HttpSink {
    pub address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    seen: Arc<Mutex<Seen>>,
    up: Option<CancellationToken>,
}

type Shared = (Arc<Mutex<Mood>>, Arc<Mutex<Seen>>);

impl HttpSink {
    /// Listens on a free port and confirms.
    pub async fn start() -> HttpSink {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).await.unwrap();
        let mut sink = HttpSink {
            address: listener.local_addr().unwrap(),
            mood: Arc::new(Mutex::new(Mood::Confirms)),
            seen: Arc::default(),
            up: None,
        };
        sink.serve(listener);
        sink
    }

    fn serve(&mut self, listener: TcpListener) {
        let up = CancellationToken::new();
        let state: Shared = (Arc::clone(&self.mood), Arc::clone(&self.seen));
        let app = Router::new().route("/", post(take)).route("/{*path}", post(take)).with_state(state);
        let down = up.clone();
        tokio::spawn(async move {
            // Dropped, not drained: going down breaks connections, as a crash does.
            tokio::select! {
                ended = axum::serve(listener, app).into_future() => ended.unwrap(),
                () = down.cancelled() => {}
            }
        });
        self.up = Some(up);
    }

    /// From now on.
    pub fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Stops listening: connections are refused.
    pub async fn goes_down(&mut self) {
        self.up.take().expect("it is up").cancel();
        let address = self.address;
        eventually("the sink's port is closed", || async move {
            tokio::net::TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
    }

    /// Listens again at the same address.
    pub async fn comes_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    /// Every id it has confirmed, with how often.
    pub fn confirmed(&self) -> BTreeMap<String, u32> {
        self.seen.lock().unwrap().confirmed.clone()
    }

    /// `data` of every confirmed event, in the order of confirmation.
    pub fn data_in_order(&self) -> Vec<Value> {
        self.seen.lock().unwrap().order.clone()
    }

    /// Requests taken, whatever was answered.
    pub fn requests(&self) -> u64 {
        self.seen.lock().unwrap().requests
    }

    /// The sink's table for a configuration: `[sinks.NAME.http]`.
    pub fn table(&self, name: &str) -> String {
        format!("[sinks.{name}.http]\nurl = \"http://{}/\"\n", self.address)
    }
}

async fn take(State((mood, seen)): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    seen.lock().unwrap().requests += 1;
    let event: Value = serde_json::from_slice(&body).unwrap();
    let mood = mood.lock().unwrap().clone();
    let answer = match mood {
        Mood::Confirms => StatusCode::NO_CONTENT.into_response(),
        Mood::Answers(status, headers) => {
            (StatusCode::from_u16(status).unwrap(), headers_of(headers)).into_response()
        }
        Mood::Hangs => std::future::pending().await,
        Mood::AsksFor(authorization) => {
            let is_right = headers.get("authorization").is_some_and(|given| *given == *authorization);
            if is_right { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED }.into_response()
        }
        Mood::Refuses(status, numbers) => {
            let refused = event["data"]["n"].as_u64().is_some_and(|number| numbers.contains(&number));
            let status = if refused { status } else { 204 };
            StatusCode::from_u16(status).unwrap().into_response()
        }
    };
    if answer.status().is_success() {
        assert_eq!(headers["content-type"], "application/cloudevents+json; charset=UTF-8");
        let mut seen = seen.lock().unwrap();
        *seen.confirmed.entry(event["id"].as_str().unwrap().to_owned()).or_default() += 1;
        seen.order.push(event["data"].clone());
    }
    answer
}

fn headers_of(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}
