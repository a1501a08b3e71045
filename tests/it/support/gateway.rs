//! A WhatsApp gateway as Z-API and PlugZapi document theirs: the API that sets webhooks, strict about every detail and
//! fond of repeating what it was sent, and the posts to the webhooks that were set.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;

/// How it behaves from now on.
#[derive(Clone, PartialEq, Debug)]
pub enum Mood {
    /// As Z-API documents it.
    Documented,
    /// As PlugZapi documents it: one call a webhook; no call for all, no flag, no `/me`.
    Older,
    /// Like the older one, but it shows the instance.
    OlderWithMe,
    /// Like the older one, and an empty URL is answered `{"value":false}`.
    OlderNeverClears,
    /// Sets the URL for received and sent, and answers that call 503 all the same.
    Stumbles,
    /// Like the older one, and hangs up where a URL is to be taken away.
    OlderHangsUp,
    /// Says yes and stores nothing.
    Lies,
    /// `{"value":false}` to everything that sets.
    SaysNo,
    /// `{"error":"[ip] not allowed"}`
    Blocks,
    /// Takes the call and never answers.
    Hangs,
    /// An answer without an end.
    Endless,
    /// This status and body to every call; `@` stands for the URL's path up to its last part and the security token of the call.
    Answers(u16, &'static str),
}

struct Inner {
    mood: Mood,
    hooks: BTreeMap<&'static str, String>,
    sent_by_me: bool,
    status: Value,
    calls: Vec<String>,
}

/// The instance and what its calls must carry.
struct Keys {
    instance: String,
    token: String,
    client_token: String,
}

/// The gateway with one instance.
#[derive(Clone)]
pub struct Gateway {
    pub address: SocketAddr,
    keys: Arc<Keys>,
    inner: Arc<Mutex<Inner>>,
}

/// The last part of the path and the field of `/me`.
const HOOKS: [(&str, &str); 7] = [
    ("update-webhook-connected", "connectedCallbackUrl"),
    ("update-webhook-disconnected", "disconnectedCallbackUrl"),
    ("update-webhook-delivery", "deliveryCallbackUrl"),
    ("update-webhook-received", "receivedCallbackUrl"),
    ("update-webhook-received-delivery", BOTH),
    ("update-webhook-message-status", "messageStatusCallbackUrl"),
    ("update-webhook-chat-presence", "presenceChatCallbackUrl"),
];
const BOTH: &str = "receivedAndDeliveryCallbackUrl";
const RECEIVED: &str = "receivedCallbackUrl";

impl Gateway {
    /// Listens on a free port, with one instance that is connected and has no webhook.
    pub async fn start(instance: &str, token: &str, client_token: &str) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Gateway {
            address: listener.local_addr().unwrap(),
            keys: Arc::new(Keys {
                instance: instance.to_owned(),
                token: token.to_owned(),
                client_token: client_token.to_owned(),
            }),
            inner: Arc::new(Mutex::new(Inner {
                mood: Mood::Documented,
                hooks: BTreeMap::new(),
                sent_by_me: false,
                status: json!({"connected": true, "error": "You are already connected.", "smartphoneConnected": true}),
                calls: Vec::new(),
            })),
        };
        let app = Router::new().fallback(take).with_state(gateway.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        gateway
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Where its API is.
    pub fn api(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn is(&self, mood: Mood) {
        self.inner().mood = mood;
    }

    /// What `/status` shows from now on.
    pub fn has_status(&self, status: Value) {
        self.inner().status = status;
    }

    /// Somebody set this webhook by hand.
    pub fn has_hook(&self, field: &'static str, url: &str) {
        let mut inner = self.inner();
        inner.hooks.insert(field, url.to_owned());
        inner.sent_by_me |= field == BOTH;
    }

    /// Every webhook that is set, by its field of `/me`.
    pub fn hooks(&self) -> BTreeMap<&'static str, String> {
        self.inner().hooks.clone()
    }

    /// The calls since the last question: method and last part of the path.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().calls)
    }

    /// Where a message goes, by the documented precedence.
    pub fn notified_of_a_message(&self, from_me: bool) -> Option<String> {
        let inner = self.inner();
        let url = |field| inner.hooks.get(field).filter(|url| !url.is_empty()).cloned();
        match url(BOTH) {
            Some(both) if inner.sent_by_me => Some(both),
            _ if from_me => None,
            _ => url(RECEIVED),
        }
    }

    fn instance_shown(&self) -> Value {
        let inner = self.inner();
        let mut me = Map::from_iter([
            ("id".to_owned(), json!(self.keys.instance)),
            ("token".to_owned(), json!(self.keys.token)),
            ("name".to_owned(), json!("Bus")),
            ("receiveCallbackSentByMe".to_owned(), json!(inner.sent_by_me)),
        ]);
        for (_, field) in HOOKS {
            me.insert(field.to_owned(), inner.hooks.get(field).map_or(Value::Null, |url| json!(url)));
        }
        Value::Object(me)
    }

    fn set(&self, call: &str, body: &Value) -> Response {
        let mut inner = self.inner();
        let mood = inner.mood.clone();
        let url = body["value"].as_str();
        let flag = body["notifySentByMe"].as_bool();
        // "Does not accept webhooks that are not HTTPS".
        let is_taken = url.is_none_or(|url| {
            url.starts_with("https://") || (url.is_empty() && mood != Mood::OlderNeverClears)
        });
        let hooks: Vec<&'static str> = HOOKS
            .iter()
            .filter(|(path, field)| *path == call || (call == "update-every-webhooks" && *field != BOTH))
            .map(|(_, field)| *field)
            .collect();
        let is_no = match call {
            "update-notify-sent-by-me" => {
                let has_received = inner.hooks.contains_key(RECEIVED) || mood == Mood::Lies;
                flag.is_none() || !has_received
            }
            _ => url.is_none(),
        };
        if is_no || !is_taken || mood == Mood::SaysNo {
            return answer(200, json!({"value": false}));
        }
        if mood != Mood::Lies {
            for field in hooks {
                inner.hooks.insert(field, url.unwrap_or_default().to_owned());
                // Setting the URL for both makes it take precedence.
                if field == BOTH {
                    inner.sent_by_me = url != Some("");
                }
            }
            if let Some(flag) = flag {
                inner.sent_by_me = flag;
            }
        }
        if mood == Mood::Stumbles && call == "update-webhook-received-delivery" {
            return answer(503, json!({}));
        }
        answer(200, json!({"value": true}))
    }
}

fn answer(status: u16, body: Value) -> Response {
    let header = [("content-type", "application/json")];
    (StatusCode::from_u16(status).unwrap(), header, body.to_string()).into_response()
}

async fn take(
    State(gateway): State<Gateway>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let mood = {
        let mut inner = gateway.inner();
        inner.calls.push(format!("{method} {call}"));
        inner.mood.clone()
    };
    match &mood {
        Mood::Hangs => return std::future::pending().await,
        Mood::Endless => {
            let pieces = futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from_static(
                &[b' '; 4096],
            )));
            return Response::new(Body::from_stream(pieces));
        }
        Mood::OlderHangsUp if call == "update-webhook-received-delivery" => {
            let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
            return Response::new(Body::from_stream(broken));
        }
        Mood::Blocks => return answer(400, json!({"error": "[203.0.113.9] not allowed"})),
        Mood::Answers(status, body) => {
            let asked = uri.path().rsplit_once('/').map_or("", |(before, _)| before);
            let body = body.replace('@', &format!("{asked} {}", text(&headers, "client-token")));
            let location = [("location", format!("http://127.0.0.1:1{uri}"))];
            return (StatusCode::from_u16(*status).unwrap(), location, body).into_response();
        }
        _ => {}
    }
    gateway.strictly(&mood, &method, &uri, &headers, &body, &call)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("null", |value| value.to_str().unwrap())
}

impl Gateway {
    /// The documented checks, then the call itself.
    fn strictly(
        &self,
        mood: &Mood,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
        call: &str,
    ) -> Response {
        let is_older =
            matches!(mood, Mood::Older | Mood::OlderWithMe | Mood::OlderNeverClears | Mood::OlderHangsUp);
        let is_read = matches!(call, "me" | "status");
        let lacks = match call {
            "update-every-webhooks" | "update-notify-sent-by-me" => is_older,
            "me" => is_older && *mood != Mood::OlderWithMe,
            "status" => false,
            call => !HOOKS.iter().any(|(path, _)| *path == call),
        };
        if lacks {
            return answer(404, json!({"error": "NOT_FOUND", "message": format!("no {uri}")}));
        }
        if *method != (if is_read { Method::GET } else { Method::PUT }) {
            return answer(405, json!({"error": "method"}));
        }
        if !is_read && text(headers, "content-type") != "application/json" {
            return answer(415, json!({"error": "media type"}));
        }
        let client_token = text(headers, "client-token");
        if client_token != self.keys.client_token {
            return answer(400, json!({"error": format!("{client_token} not allowed")}));
        }
        if uri.path() != format!("/instances/{}/token/{}/{call}", self.keys.instance, self.keys.token) {
            return answer(400, json!({"error": format!("Instance not found: {uri}")}));
        }
        match call {
            "me" => answer(200, self.instance_shown()),
            "status" => answer(200, self.inner().status.clone()),
            call => self.set(call, &serde_json::from_slice(body).unwrap_or_default()),
        }
    }

    /// Posts a webhook to the URL that is set for the field, as the gateway does; the status of the answer and its body.
    pub async fn posts(
        &self,
        field: &str,
        client: &reqwest::Client,
        body: impl Into<reqwest::Body>,
    ) -> (u16, String) {
        let url = self.hooks()[field].clone();
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .header("origin", "https://api.z-api.io")
            .header("server", "Z-API")
            .header("z-api-token", &self.keys.token);
        let response = request.body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}
