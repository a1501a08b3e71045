//! The other side of the nats sink: a real server, and a subscriber that is not our own client.
//! Here is also what the jetstream sink's other side has in common with it: which server serves a case, how one logs in.

use super::{Arrived, Binding, Need, Rig, Setup, own_broker, unique_name};
use crate::support::authority::{Authority, Leaf};
use crate::support::brokers::nats::{Nats, NatsOptions, Received, Subscription};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

const PASSWORD: &str = "user and password";
const URL: &str = "user and password in the URL";
const TOKEN: &str = "a token";
const NKEY: &str = "an NKey";
const CERTIFICATE: &str = "a client certificate";
pub const AUTHENTICATIONS: &[&str] = &[PASSWORD, URL, TOKEN, NKEY, CERTIFICATE];

/// A pair that the documentation of NATS shows.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

pub const LIMIT_BYTES: usize = 256 * 1024;

/// Serves the cases that leave it alone; ends with the process.
static SHARED: OnceCell<Arc<Nats>> = OnceCell::const_new();

/// A server and how the sink reaches it.
pub struct Place {
    pub nats: Arc<Nats>,
    pub proxy: Option<Proxy>,
    /// Where the sink knocks, whoever listens there.
    port: u16,
    /// The scheme and, in the URL, the user.
    url_begins: &'static str,
    /// Keys of the sink's table beside `url`, `subject` and `stream`.
    pub keys: String,
    _leave: Option<OwnedSemaphorePermit>,
}

impl Place {
    pub async fn start(setup: Setup) -> Place {
        let is_shared = matches!(setup, Setup::Plain | Setup::Proxied | Setup::Missing | Setup::Choosy);
        let (mut url_begins, mut keys) = ("nats://", String::new());
        let (nats, leave) = if is_shared {
            (Arc::clone(SHARED.get_or_init(|| async { Arc::new(Nats::start().await) }).await), None)
        } else {
            let leave = own_broker().await;
            let nats = Nats::prepared(NatsOptions::default());
            let (options, begins, more) = own(&nats, setup);
            (url_begins, keys) = (begins, more);
            nats.change(options);
            nats.start_again().await;
            (Arc::new(nats), Some(leave))
        };
        let (proxy, port) = match setup {
            Setup::Proxied | Setup::Alone | Setup::Disturbed => {
                let proxy = Proxy::start(address(&nats)).await;
                let port = proxy.address.port();
                (Some(proxy), port)
            }
            _ => (None, address(&nats).port()),
        };
        Place { nats, proxy, port, url_begins, keys, _leave: leave }
    }

    /// `url = …` and the keys that go with it.
    pub fn table(&self) -> String {
        format!("url = \"{}localhost:{}\"\n{}", self.url_begins, self.port, self.keys)
    }

    /// Nobody listens where the sink knocks.
    pub async fn goes_down(&mut self) {
        self.proxy = None;
        self.nats.kill();
        let port = self.port;
        eventually("the server's port is closed", || async move {
            TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(())
        })
        .await;
    }

    /// The server runs again; the sink reaches it after `opens`.
    pub async fn comes_back(&mut self) {
        self.nats.start_again().await;
    }

    pub async fn opens(&mut self) {
        self.proxy = Some(Proxy::start_at(self.port, address(&self.nats)).await);
    }

    pub async fn grant_permission(&self) {
        self.nats.reload(&users(APP)).await;
    }

    pub async fn correct_credentials(&self) {
        std::fs::write(self.nats.folder().join("password"), "right\n").unwrap();
    }
}

fn address(nats: &Nats) -> SocketAddr {
    nats.address().parse().unwrap()
}

/// A user who may do everything.
const APP: &str = "{ user: app, password: right }";
/// The same one, who may publish no events.
const MUTE: &str =
    "{ user: app, password: right, permissions: { publish: { allow: \">\", deny: \"*.webhook.>\" } } }";

/// The server's line with this user and the tests' own.
fn users(user: &str) -> String {
    format!("authorization {{ users: [ {user}, {{ user: reader, password: reader }} ] }}")
}

/// The server's options, the beginning of the sink's URL, and the sink's keys.
fn own(nats: &Nats, setup: Setup) -> (NatsOptions, &'static str, String) {
    let guarded = |user: &str| NatsOptions {
        lines: users(user),
        login: "reader:reader@".to_owned(),
        ..NatsOptions::default()
    };
    match setup {
        Setup::WrongCredentials => {
            let file = nats.folder().join("password");
            std::fs::write(&file, "wrong\n").unwrap();
            (guarded(APP), "nats://", format!("user = \"app\"\npassword = {{ file = {file:?} }}\n"))
        }
        Setup::Forbidden => {
            let keys = "user = \"app\"\npassword = \"right\"\n".to_owned();
            (guarded(MUTE), "nats://", keys)
        }
        Setup::Limited => {
            let lines = format!("max_payload: {LIMIT_BYTES}");
            (NatsOptions { lines, ..NatsOptions::default() }, "nats://", String::new())
        }
        Setup::Tls { trusted } => {
            let (tls, keys) = tls(nats, trusted, false);
            (NatsOptions { lines: tls, ..NatsOptions::default() }, "tls://", keys)
        }
        Setup::Authenticated(PASSWORD) => {
            (guarded(APP), "nats://", "user = \"app\"\npassword = \"right\"\n".to_owned())
        }
        Setup::Authenticated(URL) => (guarded(APP), "nats://app:right@", String::new()),
        Setup::Authenticated(TOKEN) => {
            let lines = "authorization { token: \"right\" }".to_owned();
            let options = NatsOptions { lines, login: "right@".to_owned(), ..NatsOptions::default() };
            (options, "nats://", "token = \"right\"\n".to_owned())
        }
        Setup::Authenticated(NKEY) => {
            (guarded(&format!("{{ nkey: {PUBLIC} }}")), "nats://", format!("nkey = \"{SEED}\"\n"))
        }
        Setup::Authenticated(_) => {
            let (tls, keys) = tls(nats, true, true);
            (NatsOptions { lines: tls, ..NatsOptions::default() }, "tls://", keys)
        }
        Setup::Alone | Setup::Disturbed | Setup::Plain | Setup::Proxied | Setup::Missing | Setup::Choosy => {
            (NatsOptions::default(), "nats://", String::new())
        }
    }
}

/// The server's TLS, which the readers do without, and the sink's keys.
fn tls(nats: &Nats, trusted: bool, asks_for_certificate: bool) -> (String, String) {
    let (folder, authority) = (nats.folder(), Authority::new());
    let Leaf { cert, key } = authority.leaf_files(folder, "server");
    let ca = authority.file(folder, "ca.pem");
    let verify =
        if asks_for_certificate { format!(", ca_file: {ca:?}, verify: true") } else { String::new() };
    let lines = format!("\ntls {{ cert_file: {cert:?}, key_file: {key:?}{verify} }}\nallow_non_tls: true\n");
    let named = if trusted { ca } else { Authority::new().file(folder, "other.pem") };
    let mut keys = format!("ca = {named:?}\n");
    if asks_for_certificate {
        let Leaf { cert, key } = authority.leaf_files(folder, "app");
        keys.push_str(&format!("cert = {cert:?}\nkey = {key:?}\n"));
    }
    (lines, keys)
}

pub const BINDING: Binding = Binding {
    prefix: "ce-",
    percent_encoded: true,
    structured_type: "Content-Type",
    binary_type: "ce-datacontenttype",
    identity: None,
};

pub fn arrived(message: Received) -> Arrived {
    Arrived { body: message.payload, headers: message.headers, key: None }
}

/// See the module.
pub struct NatsRig {
    setup: Setup,
    place: Place,
    subject: String,
    subscription: Subscription,
}

impl NatsRig {
    async fn subscription(place: &Place, subject: &str) -> Subscription {
        place.nats.subscribe(&format!("{subject}.>")).await
    }
}

impl Rig for NatsRig {
    const KIND: &'static str = "nats";
    const BINDING: Option<Binding> = Some(BINDING);
    const CANNOT: &'static [(Need, &'static str)] = &[
        (
            Need::Restart,
            "core NATS keeps nothing: what a killed server had not passed on is gone for the subscriber",
        ),
        (Need::Missing, "a subject is there as soon as somebody publishes to it"),
    ];
    const REASON_POISON: &'static str = "not_encodable";
    const TELLS_LIMIT: bool = true;
    const AUTHENTICATIONS: &'static [&'static str] = AUTHENTICATIONS;

    async fn start(setup: Setup) -> Self {
        let place = Place::start(setup).await;
        let subject = unique_name();
        let subscription = Self::subscription(&place, &subject).await;
        NatsRig { setup, place, subject, subscription }
    }

    fn table(&self) -> String {
        let Self { place, subject, .. } = self;
        if self.setup == Setup::Forbidden {
            let table = place.table();
            return format!("[sinks.orders.nats]\nsubject = \"{subject}.webhook.received\"\n{table}");
        }
        let names = format!("subject = \"{subject}.{{type}}\"\nsubject_allowed = [\"{subject}.webhook.*\"]");
        format!("[sinks.orders.nats]\n{names}\n{}", place.table())
    }

    /// What the server had taken when this is called has reached the subscriber when nothing more comes: a message to
    /// the same subscriber behind all others says so.
    async fn arrived(&self) -> Vec<Arrived> {
        let last = format!("{}.last.{}", self.subject, unique_name());
        let client = self.place.nats.manager().await.client();
        client.publish(last.clone(), "".into()).await.unwrap();
        client.flush().await.unwrap();
        let received = eventually("the last message arrives", || async {
            let received = self.subscription.received();
            received.iter().any(|message| message.subject == last).then_some(received)
        })
        .await;
        let is_last = |message: &Received| message.subject.starts_with(&format!("{}.last.", self.subject));
        received.into_iter().filter(|message| !is_last(message)).map(arrived).collect()
    }

    async fn goes_down(&mut self) {
        self.place.goes_down().await;
    }

    async fn comes_back(&mut self) {
        self.place.comes_back().await;
        self.subscription = Self::subscription(&self.place, &self.subject).await;
        self.place.opens().await;
    }

    fn proxy(&self) -> &Proxy {
        self.place.proxy.as_ref().expect("it was started behind one")
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
