//! The other side of the amqp sink: a real RabbitMQ with an exchange and a queue of the case's own, read through pika.

use super::{Arrived, Binding, Rig, Setup, own_broker, unique_name};
use crate::support::authority::Authority;
use crate::support::brokers::rabbitmq::{Message, RabbitMq};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

const URL: &str = "PLAIN, user and password in the URL";
const KEYS: &str = "PLAIN, user and password from files";
const CERTIFICATE: &str = "EXTERNAL, by certificate";

const PASSWORD: &str = "right";

/// See the module.
pub struct AmqpRig {
    setup: Setup,
    broker: Broker,
    name: String,
    proxy: Option<Proxy>,
    folder: TempDir,
}

enum Broker {
    Shared(&'static RabbitMq),
    Own(Box<RabbitMq>, #[allow(dead_code)] OwnedSemaphorePermit),
}

impl AmqpRig {
    fn rabbit(&self) -> &RabbitMq {
        match &self.broker {
            Broker::Shared(rabbit) => rabbit,
            Broker::Own(rabbit, _) => rabbit,
        }
    }

    fn own(&mut self) -> &mut RabbitMq {
        match &mut self.broker {
            Broker::Shared(_) => panic!("a shared broker stays up"),
            Broker::Own(rabbit, _) => rabbit,
        }
    }

    /// A file of the rig with this text.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn user_keys(&self) -> String {
        let (user, password) = (self.file("user", &self.name), self.folder.path().join("password"));
        format!("user = {{ file = \"{user}\" }}\npassword = {{ file = \"{}\" }}\n", password.display())
    }

    fn tls_keys(&self, trusted: bool) -> String {
        let another = || Authority::new().file(self.folder.path(), "another.pem");
        let ca = if trusted { self.rabbit().ca() } else { another() };
        format!("ca = \"{}\"\n", ca.display())
    }
}

impl Rig for AmqpRig {
    const KIND: &'static str = "amqp";
    const BINDING: Option<Binding> = Some(Binding {
        prefix: "cloudEvents_",
        percent_encoded: false,
        structured_type: "content_type",
        binary_type: "content_type",
        identity: Some("message_id"),
    });
    /// What a broker refuses for good is what no queue is bound for.
    const REASON_POISON: &'static str = "destination_missing";
    const AUTHENTICATIONS: &'static [&'static str] = &[URL, KEYS, CERTIFICATE];

    async fn start(setup: Setup) -> Self {
        let broker = match setup {
            Setup::Alone | Setup::Disturbed => {
                let place = own_broker().await;
                Broker::Own(Box::new(RabbitMq::start().await), place)
            }
            _ => Broker::Shared(RabbitMq::shared().await),
        };
        let (name, folder) = (unique_name(), tempfile::tempdir().unwrap());
        let mut rig = AmqpRig { setup, broker, name, proxy: None, folder };
        let (rabbit, name) = (rig.rabbit(), &rig.name);
        rabbit.queue(name, json!({})).await;
        if setup != Setup::Missing {
            rabbit.exchange(name, "topic").await;
            let key = if setup == Setup::Choosy { "hooks.webhook.received" } else { "#" };
            rabbit.bind(name, name, key).await;
        }
        let may_write = if setup == Setup::Forbidden { "^$" } else { name };
        rabbit.user(name, PASSWORD, may_write).await;
        let is_wrong = setup == Setup::WrongCredentials;
        rig.file("password", if is_wrong { "wrong" } else { PASSWORD });
        if matches!(setup, Setup::Proxied | Setup::Disturbed) {
            let address = ([127, 0, 0, 1], rig.rabbit().port()).into();
            rig.proxy = Some(Proxy::start(address).await);
        }
        rig
    }

    fn table(&self) -> String {
        let (rabbit, name) = (self.rabbit(), &self.name);
        let port = self.proxy.as_ref().map_or_else(|| rabbit.port(), |proxy| proxy.address.port());
        let plain = format!("amqp://localhost:{port}");
        let tls = format!("amqps://localhost:{}", rabbit.tls_port());
        let (url, keys) = match self.setup {
            Setup::Tls { trusted } => (tls, self.tls_keys(trusted)),
            Setup::Authenticated(URL) => {
                (format!("amqp://{name}:{PASSWORD}@localhost:{port}"), String::new())
            }
            Setup::Authenticated(KEYS) | Setup::WrongCredentials | Setup::Forbidden => {
                (plain, self.user_keys())
            }
            Setup::Authenticated(_) => {
                let leaf = rabbit.authority.leaf_files(self.folder.path(), name);
                let (ca, cert, key) = (self.tls_keys(true), leaf.cert.display(), leaf.key.display());
                (tls, format!("{ca}cert = \"{cert}\"\nkey = \"{key}\"\nauth = \"external\"\n"))
            }
            _ => (plain, String::new()),
        };
        format!(
            "[sinks.orders.amqp]\nurl = \"{url}\"\nexchange = \"{name}\"\nrouting_key = \"hooks.{{type}}\"\n{keys}"
        )
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let messages = self.rabbit().read_all(&self.name).await.into_iter();
        let arrived = |Message { body, properties, headers }| Arrived {
            body,
            headers: headers.into_iter().chain(properties).collect(),
            key: None,
        };
        messages.map(arrived).collect()
    }

    async fn goes_down(&mut self) {
        self.own().kill();
        let port = self.rabbit().port();
        eventually("the broker's port is closed", || async move {
            TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(())
        })
        .await;
    }

    async fn comes_back(&mut self) {
        self.own().start_again().await;
    }

    fn stands_still(&self) {
        self.rabbit().process().stands_still();
    }

    fn goes_on(&self) {
        self.rabbit().process().goes_on();
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it was started behind one")
    }

    async fn create_destination(&mut self) {
        self.rabbit().exchange(&self.name, "topic").await;
        self.rabbit().bind(&self.name, &self.name, "#").await;
    }

    async fn correct_credentials(&mut self) {
        self.file("password", PASSWORD);
    }

    async fn grant_permission(&mut self) {
        self.rabbit().user(&self.name, PASSWORD, &self.name).await;
    }

    fn poison(&self) -> Value {
        json!({"type": "poison"})
    }
}
