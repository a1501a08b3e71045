//! The files of `[ingress.tls]` while the daemon runs: read again now and then, and watched for their end.
//! Holds: what cannot be used, or is still being written, never takes the place of what can; each trouble is said once, an end that comes near once a
//! day.
//! Absent on purpose: notifications of the file system. They differ between file systems and miss what happens behind
//! the symbolic links of a Kubernetes volume; a few kilobytes read every [`REREAD_EVERY`] do not.

use super::Config;
use super::material::{Contents, Fingerprint, Material, TlsProblem};
use crate::clock;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::metrics::tls::TlsMeter;
use crate::time::UnixMs;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

/// How often the files are read again.
const REREAD_EVERY: Duration = Duration::from_secs(2);
/// From so long before its end a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);
const DAY_MS: i64 = 24 * 3600 * 1000;

/// One reading of the files, compared with the one in use.
enum Reading {
    Same,
    New(Box<Material>),
    Broken(TlsProblem),
}

/// What is in use, and what has been said about it.
pub(super) struct Watch {
    config: Config,
    current: watch::Sender<Arc<ServerConfig>>,
    fingerprint: Fingerprint,
    /// Of the last reading, where that can be used: a file that is being written may end after any certificate.
    candidate: Option<Fingerprint>,
    ends: Ends,
    meter: Arc<TlsMeter>,
    /// Seen at the last reading. Two files are rarely replaced in the same moment, so only what lasts is reported.
    problem: Option<TlsProblem>,
    is_reported: bool,
    /// The day, counted from 1970, on which an end was last warned of.
    warned_on: Option<i64>,
}

impl Watch {
    /// Begins with `material`; the receiver always has what new connections are to be served with.
    pub(super) fn new(
        config: Config,
        material: Material,
        meter: Arc<TlsMeter>,
    ) -> (Watch, watch::Receiver<Arc<ServerConfig>>) {
        let (current, receiver) = watch::channel(Arc::clone(&material.server));
        let ends = Ends::of(&material);
        ends.show(&meter);
        let watch = Watch {
            config,
            current,
            fingerprint: material.fingerprint,
            candidate: None,
            ends,
            meter,
            problem: None,
            is_reported: false,
            warned_on: None,
        };
        (watch, receiver)
    }

    /// Until the phase stops.
    pub(super) async fn run(mut self, shutdown: Shutdown) {
        let stop = shutdown.token(Phase::Ingress).clone();
        loop {
            self.warn_of_ends(clock::now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(REREAD_EVERY) => {}
            }
            let (config, known) = (self.config.clone(), self.fingerprint);
            let reading = shutdown.spawn_blocking(Phase::Ingress, move || read(&config, known)).await;
            if let Ok(reading) = reading {
                self.take(reading);
            }
        }
    }

    fn take(&mut self, reading: Reading) {
        let candidate = self.candidate.take();
        match reading {
            Reading::Broken(problem) => return self.keep(problem),
            Reading::New(material) if candidate != Some(material.fingerprint) => {
                self.candidate = Some(material.fingerprint);
                return;
            }
            Reading::New(material) => {
                self.fingerprint = material.fingerprint;
                self.ends = Ends::of(&material);
                self.ends.show(&self.meter);
                self.warned_on = None;
                self.current.send_replace(material.server);
                self.meter.reloaded();
                info!(ends = %self.ends.cert.to_rfc3339(), "the certificate has changed; new connections get the new one");
            }
            Reading::Same if self.is_reported => info!("the files of ingress.tls can be used again"),
            Reading::Same => {}
        }
        (self.problem, self.is_reported) = (None, false);
    }

    fn keep(&mut self, problem: TlsProblem) {
        let has_lasted = self.problem.as_ref() == Some(&problem);
        if !has_lasted {
            (self.problem, self.is_reported) = (Some(problem), false);
        } else if !self.is_reported {
            self.is_reported = true;
            self.meter.reload_failed();
            warn!(%problem, "the changed files cannot be used; new connections get the certificate from before");
        }
    }

    fn warn_of_ends(&mut self, now: UnixMs) {
        let findings = self.ends.findings(now);
        let today = now.0.div_euclid(DAY_MS);
        if self.warned_on == Some(today) {
            return;
        }
        for problem in &findings.problems {
            error!("{problem}");
        }
        for warning in &findings.warnings {
            warn!("{warning}");
        }
        let is_silent = findings.problems.is_empty() && findings.warnings.is_empty();
        self.warned_on = (!is_silent).then_some(today);
    }
}

fn read(config: &Config, known: Fingerprint) -> Reading {
    let material = Contents::read(config).and_then(|contents| match contents.fingerprint() == known {
        true => Ok(None),
        false => Material::of(&contents, config).map(Some),
    });
    match material {
        Ok(None) => Reading::Same,
        Ok(Some(material)) => Reading::New(Box::new(material)),
        Err(problem) => Reading::Broken(problem),
    }
}

/// When certificates run out.
struct Ends {
    cert: UnixMs,
    client_ca: Option<UnixMs>,
}

/// What an operator should know of the files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Senders cannot connect because of these.
    pub problems: Vec<String>,
    /// They soon will not be able to.
    pub warnings: Vec<String>,
}

impl Ends {
    fn of(material: &Material) -> Self {
        Ends { cert: material.cert_ends, client_ca: material.client_ca_ends }
    }

    fn show(&self, meter: &TlsMeter) {
        for (file, end) in self.each() {
            meter.runs_out(file, end.0 / 1000);
        }
    }

    /// The key of each file and its end.
    fn each(&self) -> impl Iterator<Item = (&'static str, UnixMs)> {
        let client_ca = self.client_ca.map(|end| ("client_ca", end));
        [("cert", self.cert)].into_iter().chain(client_ca)
    }

    fn findings(&self, now: UnixMs) -> Findings {
        let mut findings = Findings::default();
        for (key, end) in self.each() {
            let has_expired = end <= now;
            let how = if has_expired { "has expired" } else { "expires" };
            let finding = format!("ingress.tls.{key}: a certificate {how} on {}", end.to_rfc3339());
            if has_expired && key == "cert" {
                findings.problems.push(finding);
            } else if end < now.plus(WARN_BEFORE) {
                // An authority is trusted because it is in the file, also after its own end.
                findings.warnings.push(finding);
            }
        }
        findings
    }
}

/// Reads the files as the daemon would and says what is wrong with them, or soon will be.
#[must_use]
pub fn inspect(config: &Config, now: UnixMs) -> Findings {
    if !config.is_on() {
        return Findings::default();
    }
    match Material::read(config) {
        Ok(material) => Ends::of(&material).findings(now),
        Err(problem) => Findings { problems: vec![problem.to_string()], warnings: Vec::new() },
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
