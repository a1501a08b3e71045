//! The librdkafka properties of a sink: the promises, what is derived from the common keys, the secrets, and what the
//! user passes through.
//! Holds: no property of the user's can break a promise (confirmed by all replicas in sync, written once within a
//! session, given up in time); secrets are read anew for every client.
//! Sources: librdkafka's `CONFIGURATION.md`; the reasons for values that differ from its defaults stand beside them.

use super::config::{Config, Mechanism};
use super::oauth::Authority;
use crate::config::{ByteSize, Secret};
use crate::sink::{Failure, Reason};
use rdkafka::config::ClientConfig;
use std::path::Path;
use std::time::Duration;

/// The most bytes of a batch that topics take where nobody changed it (Kafka's `message.max.bytes`).
pub(super) const MESSAGE_BYTES_DEFAULT: u64 = 1_048_588;
/// The most bytes that wait in librdkafka, in KiB; its own default is a GiB.
const QUEUE_KIB: u64 = 64 * 1024;
/// The most bytes of a batch before compression (librdkafka's default).
const BATCH_BYTES_MAX: u64 = 1_000_000;
/// How long a topic that was never seen may take to appear before a record for it fails.
const APPEAR_MAX: Duration = Duration::from_secs(10);
/// The same for the one topic of a sink, which was there when the client connected.
const REAPPEAR_MAX: Duration = Duration::from_secs(2);

/// Properties that have a key of their own, by what they begin with.
const HAVE_A_KEY: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("compression.codec", "compression"),
    ("compression.type", "compression"),
    ("delivery.timeout.ms", "the sink's timeout"),
    ("message.timeout.ms", "the sink's timeout"),
    ("message.max.bytes", "message_max"),
    ("sasl.", "sasl"),
    ("security.protocol", "tls and sasl"),
    ("ssl.ca.", "ca"),
    ("ssl.certificate.", "cert"),
    ("ssl.key.", "cert_key"),
    ("ssl.keystore.", "cert and cert_key"),
];
/// Properties that are promises, or that would have no effect in this sink.
const NEVER_CHANGED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "delivery.report.only.error",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "log.queue",
    "plugin.library.paths",
    "request.required.acks",
    "statistics.interval.ms",
    "test.",
    "transaction",
    // librdkafka's own tests set this one, and it takes the text for the address of a function.
    "ut_handle_ProduceResponse",
];

/// Why a property cannot be passed through, if it cannot.
pub(super) fn objection(name: &str) -> Option<String> {
    if let Some((_, key)) = HAVE_A_KEY.iter().find(|(own, _)| name.starts_with(own)) {
        return Some(format!("has its own key: {key}"));
    }
    let is_fixed = NEVER_CHANGED.iter().any(|fixed| name.starts_with(fixed));
    is_fixed.then(|| "is set by the sink itself".to_owned())
}

/// See the module.
pub(super) struct Properties {
    config: Config,
    client_id: String,
    timeout: Duration,
    authority: Option<Authority>,
}

impl Properties {
    pub(super) fn new(
        config: Config,
        client_id: String,
        timeout: Duration,
        authority: Option<Authority>,
    ) -> Self {
        Properties { config, client_id, timeout, authority }
    }

    pub(super) fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The user did not say how large a record may be.
    pub(super) fn leaves_the_limit_to_the_topic(&self) -> bool {
        self.config.message_max.is_none()
    }

    /// Everything, with secrets as they are now, and with the topic's own limit where it is known.
    pub(super) fn client_config(&self, limit: Option<u64>) -> Result<ClientConfig, Failure> {
        let mut client = self.without_addresses(limit)?;
        client.set("bootstrap.servers", self.config.brokers());
        Ok(client)
    }

    /// The same for a client that connects to nobody.
    pub(super) fn without_addresses(&self, limit: Option<u64>) -> Result<ClientConfig, Failure> {
        // OpenSSL would otherwise take everything apart when the process ends, under threads of librdkafka's that still
        // speak TLS and that nobody can wait for: after a second signal, or while a name does not resolve. Whoever comes
        // first decides that, so it stands before everything that librdkafka is given.
        openssl_sys::init();
        let mut client = ClientConfig::new();
        self.set_promises(&mut client);
        self.set_times(&mut client);
        let message_max = self.config.message_max.map(ByteSize::get).or(limit);
        limit_messages(&mut client, message_max.unwrap_or(MESSAGE_BYTES_DEFAULT));
        client.set("compression.type", self.config.compression.label());
        for (name, value) in self.config.properties.iter() {
            client.set(name, value);
        }
        self.set_security(&mut client)?;
        Ok(client)
    }

    fn set_promises(&self, client: &mut ClientConfig) {
        client
            .set("client.id", &self.client_id)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("allow.auto.create.topics", "false")
            // What Java's producers do, so that both put a key into the same partition.
            .set("partitioner", "murmur2_random")
            .set("socket.keepalive.enable", "true")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.max.ms", "2000")
            // Whose topic is missing or moved is asked about this often.
            .set("topic.metadata.refresh.interval.ms", "10000");
    }

    /// librdkafka gives a record up before the lane does, so that nothing old is written after it was sent again.
    fn set_times(&self, client: &mut ClientConfig) {
        let message_timeout = self.timeout - (self.timeout / 4).min(Duration::from_secs(2));
        let is_constant = self.config.topic.as_ref().is_some_and(|topic| topic.constant().is_some());
        let appear_max = if is_constant { REAPPEAR_MAX } else { APPEAR_MAX };
        let millis = |time: Duration, most: u64| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, most).to_string()
        };
        client
            .set("message.timeout.ms", millis(message_timeout, 900_000))
            .set("request.timeout.ms", millis(message_timeout, 30_000))
            .set("socket.timeout.ms", millis(self.timeout.max(Duration::from_secs(1)), 60_000))
            .set("topic.metadata.propagation.max.ms", millis(appear_max.min(message_timeout / 2), 30_000));
    }

    /// Every record in a request of its own.
    pub(super) fn send_singly(client: &mut ClientConfig) {
        client.set("batch.num.messages", "1").set("linger.ms", "0");
    }

    fn set_security(&self, client: &mut ClientConfig) -> Result<(), Failure> {
        let config = &self.config;
        let protocol = match (config.speaks_tls(), config.sasl.mechanism.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if config.speaks_tls() {
            let path = |path: &Path| path.to_string_lossy().into_owned();
            for (key, file) in [("ca", &config.ca), ("cert", &config.cert), ("cert_key", &config.cert_key)] {
                // librdkafka would wait for the other end of a pipe; of what is missing it says so itself.
                if let Some(file) = file.as_deref().filter(|file| file.exists() && !file.is_file()) {
                    let problem = format!("{key}: {} is not a regular file", file.display());
                    return Err(Failure::new(Reason::Tls, problem));
                }
            }
            // The system's certificates have to be searched for where OpenSSL is built in.
            let ca = config.ca.as_deref().map_or_else(|| "probe".to_owned(), path);
            client.set("ssl.ca.location", ca);
            if let (Some(cert), Some(key)) = (&config.cert, &config.cert_key) {
                client.set("ssl.certificate.location", path(cert)).set("ssl.key.location", path(key));
            }
            if let Some(password) = &config.cert_key_password {
                client.set("ssl.key.password", now("cert_key_password", password)?.expose().trim());
            }
        }
        let Some(mechanism) = config.sasl.mechanism else { return Ok(()) };
        client.set("sasl.mechanism", mechanism.label());
        if mechanism != Mechanism::OauthBearer {
            for (property, key, secret) in [
                ("sasl.username", "sasl.username", &config.sasl.username),
                ("sasl.password", "sasl.password", &config.sasl.password),
            ] {
                if let Some(secret) = secret {
                    client.set(property, now(key, secret)?.expose());
                }
            }
        }
        Ok(())
    }
}

fn now(key: &str, secret: &Secret) -> Result<Secret, Failure> {
    secret.current().map_err(|problem| Failure::new(Reason::NotAuthorized, format!("{key}: {problem}")))
}

/// Refuses larger messages, and keeps batches as small, so that the broker does not refuse them.
fn limit_messages(client: &mut ClientConfig, bytes: u64) {
    let bytes = bytes.clamp(1000, 1_000_000_000);
    client
        .set("message.max.bytes", bytes.to_string())
        .set("batch.size", bytes.min(BATCH_BYTES_MAX).to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB.max(bytes / 512).to_string());
}
