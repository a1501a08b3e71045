//! The other side of the kafka sink: a real broker, read back by kcat. Every case but those that take it down shares one.

use super::{Arrived, Binding, Rig, Setup, own_broker, unique_name};
use crate::support::brokers::kafka::{Kafka, PASSWORD, TokenEndpoint, USER, shared};
use crate::support::proxy::Proxy;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

const CERTIFICATE: &str = "a client certificate";
const OAUTH: &str = "OAUTHBEARER";
const CLIENT_ID: &str = "hookbus";
const LIMIT_BYTES: &str = "262144";

enum Broker {
    Shared(&'static Kafka),
    Own { kafka: Box<Kafka>, _leave: OwnedSemaphorePermit },
}

/// See the module.
pub struct KafkaRig {
    broker: Broker,
    topic: String,
    table: String,
    folder: TempDir,
    proxy: Option<(Proxy, OwnedMutexGuard<()>)>,
}

impl KafkaRig {
    fn kafka(&self) -> &Kafka {
        match &self.broker {
            Broker::Shared(kafka) => kafka,
            Broker::Own { kafka, .. } => kafka,
        }
    }

    fn password_file(&self) -> std::path::PathBuf {
        self.folder.path().join("password")
    }

    /// Address and further keys.
    async fn keys(&self, setup: Setup) -> (String, String) {
        let kafka = self.kafka();
        let file = |name: &str| kafka.file(name);
        let with_password = |mechanism: &str, password: &str| {
            std::fs::write(self.password_file(), password).unwrap();
            format!(
                "sasl = {{ mechanism = \"{mechanism}\", username = \"{USER}\", password = {{ file = {:?} }} }}",
                self.password_file()
            )
        };
        match setup {
            Setup::Plain | Setup::Alone | Setup::Missing | Setup::Choosy | Setup::Limited => {
                (kafka.address(), String::new())
            }
            Setup::Proxied | Setup::Disturbed => {
                let (proxy, _) = self.proxy.as_ref().expect("it is started for this setup");
                (proxy.address.to_string(), String::new())
            }
            Setup::WrongCredentials => (kafka.sasl_address(), with_password("SCRAM-SHA-512", "wrong")),
            Setup::Forbidden => (kafka.sasl_address(), with_password("SCRAM-SHA-512", PASSWORD)),
            Setup::Tls { trusted } => {
                let ca = file(if trusted { "ca.pem" } else { "other-ca.pem" });
                (kafka.tls_address(), format!("tls = true\nca = {ca:?}"))
            }
            Setup::Authenticated(CERTIFICATE) => {
                let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
                let keys = format!("tls = true\nca = {ca:?}\ncert = {cert:?}\ncert_key = {key:?}");
                (kafka.mutual_tls_address(), keys)
            }
            Setup::Authenticated(OAUTH) => {
                let endpoint = TokenEndpoint::start(CLIENT_ID, PASSWORD).await;
                let keys = format!(
                    "sasl = {{ mechanism = \"{OAUTH}\", token_url = \"{}\", client_id = \"{CLIENT_ID}\", \
                     client_secret = \"{PASSWORD}\" }}",
                    endpoint.url
                );
                (kafka.sasl_address(), keys)
            }
            Setup::Authenticated(mechanism) => (kafka.sasl_address(), with_password(mechanism, PASSWORD)),
        }
    }
}

impl Rig for KafkaRig {
    const KIND: &'static str = "kafka";
    const BINDING: Option<Binding> = Some(Binding {
        prefix: "ce_",
        percent_encoded: false,
        structured_type: "content-type",
        binary_type: "content-type",
        identity: Some("ce_id"),
    });
    const TELLS_LIMIT: bool = true;
    const AUTHENTICATIONS: &'static [&'static str] =
        &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", OAUTH, CERTIFICATE];

    async fn start(setup: Setup) -> Self {
        let broker = match setup {
            Setup::Alone | Setup::Disturbed => {
                let leave = own_broker().await;
                Broker::Own { kafka: Box::new(Kafka::start().await), _leave: leave }
            }
            _ => Broker::Shared(shared().await),
        };
        let folder = tempfile::tempdir().unwrap();
        let mut rig = KafkaRig { broker, topic: unique_name(), table: String::new(), folder, proxy: None };
        if matches!(setup, Setup::Proxied | Setup::Disturbed) {
            rig.proxy = Some(rig.kafka().proxy().await);
        }
        let configs: &[(&str, &str)] = match setup {
            // Such a topic refuses what has no key, and the whole batch with it.
            Setup::Choosy => &[("cleanup.policy", "compact")],
            Setup::Limited => &[("max.message.bytes", LIMIT_BYTES)],
            _ => &[],
        };
        if setup != Setup::Missing {
            rig.kafka().create_topic(&rig.topic, 1, configs).await;
        }
        if setup == Setup::Forbidden {
            rig.kafka().let_only("somebody-else", &rig.topic).await;
        }
        let (address, more) = rig.keys(setup).await;
        let topic = &rig.topic;
        rig.table = format!("[sinks.orders.kafka]\nbrokers = [\"{address}\"]\ntopic = \"{topic}\"\n{more}\n");
        rig
    }

    fn table(&self) -> String {
        self.table.clone()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let records = self.kafka().read_all(&self.topic).await;
        let arrived = records.into_iter().map(|record| Arrived {
            body: record.value.expect("no value is null"),
            headers: record.headers.into_iter().collect(),
            key: record.key,
        });
        arrived.collect()
    }

    async fn goes_down(&mut self) {
        self.kafka().kill().await;
    }

    async fn comes_back(&mut self) {
        self.kafka().start_again().await;
    }

    fn stands_still(&self) {
        self.kafka().process().stands_still();
    }

    fn goes_on(&self) {
        self.kafka().process().goes_on();
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy.as_ref().expect("it is started for this setup").0
    }

    async fn create_destination(&mut self) {
        self.kafka().create_topic(&self.topic, 1, &[]).await;
    }

    async fn correct_credentials(&mut self) {
        std::fs::write(self.password_file(), PASSWORD).unwrap();
    }

    async fn grant_permission(&mut self) {
        self.kafka().let_only(USER, &self.topic).await;
    }

    fn poison(&self) -> Value {
        json!({"key": null})
    }
}
