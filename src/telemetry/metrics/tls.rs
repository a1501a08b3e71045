//! What TLS at the ingress counts: handshakes that failed, certificates read anew, and when they run out; and when those
//! of the sinks do.
//! Holds: R8 (labels are members of closed sets). The series exist where TLS is configured.

use crate::envelope::SinkName;
use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};

const HANDSHAKE_FAILURES: &str = "hookbus_ingress_tls_handshake_failures_total";
const RELOADS: &str = "hookbus_ingress_tls_reloads_total";
const RELOAD_FAILURES: &str = "hookbus_ingress_tls_reload_failures_total";
const SINK_EXPIRY: &str = "hookbus_sink_tls_certificate_expiry_timestamp_seconds";
const EXPIRY: &str = "hookbus_tls_certificate_expiry_timestamp_seconds";

/// What TLS counts and what it means.
pub fn describe() {
    describe_counter!(
        HANDSHAKE_FAILURES,
        Unit::Count,
        "connections that ended before TLS was agreed on, by reason"
    );
    describe_counter!(RELOADS, Unit::Count, "changes of the certificate files that were taken over");
    describe_counter!(
        RELOAD_FAILURES,
        Unit::Count,
        "changes of the certificate files that could not be used"
    );
    describe_gauge!(
        SINK_EXPIRY,
        Unit::Seconds,
        "when the first certificate of a sink's file runs out, since 1970, as of the last connection"
    );
    describe_gauge!(EXPIRY, Unit::Seconds, "when the first certificate of a file runs out, since 1970");
}

/// The closed set of reasons, as the label `reason`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeFailure {
    /// The client took too long.
    TimedOut,
    /// HTTP without TLS.
    PlainHttp,
    /// The client showed no certificate where one is required, or one that is not valid.
    ClientCertificate,
    /// No version, cipher or protocol in common, a refusal by the client, or something that is no TLS.
    Protocol,
    /// The client went away.
    Disconnected,
}

impl HandshakeFailure {
    /// In the order of the variants.
    const LABELS: [&str; 5] = ["timed_out", "plain_http", "client_certificate", "protocol", "disconnected"];
}

/// The handles of one ingress.
pub struct TlsMeter {
    failures: [Counter; HandshakeFailure::LABELS.len()],
    reloads: Counter,
    reload_failures: Counter,
}

impl TlsMeter {
    /// Starts the series at zero.
    #[must_use]
    pub fn started() -> Self {
        let meter = TlsMeter {
            failures: HandshakeFailure::LABELS.map(|reason| counter!(HANDSHAKE_FAILURES, "reason" => reason)),
            reloads: counter!(RELOADS),
            reload_failures: counter!(RELOAD_FAILURES),
        };
        for counter in meter.failures.iter().chain([&meter.reloads, &meter.reload_failures]) {
            counter.increment(0);
        }
        meter
    }
    /// A connection ended before TLS was agreed on.
    pub fn handshake_failed(&self, reason: HandshakeFailure) {
        self.failures[reason as usize].increment(1);
    }
    /// Changed files were taken over.
    pub fn reloaded(&self) {
        self.reloads.increment(1);
    }
    /// Changed files could not be used.
    pub fn reload_failed(&self) {
        self.reload_failures.increment(1);
    }
    /// When the first certificate of `file`, a key of `[ingress.tls]`, runs out; seconds since 1970.
    pub fn runs_out(&self, file: &'static str, at_seconds: i64) {
        gauge!(EXPIRY, "file" => file).set(at_seconds as f64);
    }
}

/// When the first certificate of `file`, `cert` or `ca` of a sink, runs out; seconds since 1970.
pub fn sink_certificate_runs_out(sink: &SinkName, file: &'static str, at_seconds: i64) {
    gauge!(SINK_EXPIRY, "sink" => sink.label(), "file" => file).set(at_seconds as f64);
}
