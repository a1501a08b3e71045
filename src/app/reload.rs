//! What SIGHUP does: secrets, the certificates of sinks and the level of the log as they are now, and a word on the rest.
//! Holds: what cannot be read never takes the place of what can; a changed key that only a restart takes over is named.
//! Files are read on a thread that may block: a daemon whose secrets are on a disk that hangs can still be stopped.
//! Absent on purpose: the rest of the configuration, which decides on files, sockets and lanes; the certificates of the
//! ingress, which are followed without being asked.

use super::config::{Config, Loaded, process_environment};
use super::service::ServiceManager;
use crate::admin::Admin;
use crate::config::{ConfigErrors, Layers};
use crate::envelope::SinkName;
use crate::ingress::Ingress;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::Sink;
use crate::telemetry::logging::LogLevel;
use crate::telemetry::metrics::config as metrics;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

/// The only key besides secrets that a reload takes over.
const LOG_LEVEL: &str = "log.level";

/// Where the running configuration came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file; absent: the built-in default.
    pub file: Option<PathBuf>,
    /// What was read at the start.
    pub layers: Layers,
}

impl Origin {
    /// Of what was loaded.
    #[must_use]
    pub fn of(loaded: &Loaded) -> Self {
        Origin { file: loaded.file.clone(), layers: loaded.layers.clone() }
    }
}

/// Asks for reloads; those asked for while one is under way become one more.
pub struct Reloads(Arc<Notify>);

impl Reloads {
    /// Does not wait.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// The parts of the running daemon that a reload reaches.
pub(super) struct Reloader {
    pub(super) origin: Origin,
    pub(super) ingress: Arc<Ingress>,
    pub(super) admin: Arc<Admin>,
    pub(super) sinks: BTreeMap<SinkName, Arc<dyn Sink>>,
    pub(super) log_level: LogLevel,
}

impl Reloader {
    /// Reloads whenever it is asked to, one at a time, and has the manager told, until the stop begins.
    pub(super) fn start(self, manager: &Arc<ServiceManager>, shutdown: &Shutdown) -> Reloads {
        let asked = Arc::new(Notify::new());
        let reloads = Reloads(Arc::clone(&asked));
        let (reloader, manager, phases) = (Arc::new(self), Arc::clone(manager), shutdown.clone());
        let stop = shutdown.token(Phase::Ingress).clone();
        drop(shutdown.spawn(Phase::Ingress, async move {
            while stop.run_until_cancelled(asked.notified()).await.is_some() {
                manager.reloading();
                let reloader = Arc::clone(&reloader);
                // In the last phase: a disk that hangs takes nothing of the grace.
                let reloading = phases.spawn_blocking(Phase::Admin, move || reloader.reload());
                // A panic is logged where it happens.
                let ended = stop.run_until_cancelled(reloading).await;
                if ended.is_some() {
                    manager.ready();
                }
            }
        }));
        reloads
    }

    /// Reads again what can be taken over while running. What happened is logged; nothing of it ends the daemon.
    fn reload(&self) {
        let secrets_were_read = self.renew_secrets();
        let file_was_read = self.compare_with_file();
        let is_whole = secrets_were_read && file_was_read;
        metrics::reloaded(is_whole);
        if is_whole {
            tracing::info!("reloaded: secrets, certificates of sinks, and the level of the log");
        }
    }

    /// The configuration of the start once more: whatever differs is a secret.
    fn renew_secrets(&self) -> bool {
        let config = match Config::of(&self.origin.layers) {
            Ok(config) => config,
            Err(errors) => {
                let errors = one_line(&errors);
                tracing::error!(errors, "secrets could not be read again; those from before stay");
                return false;
            }
        };
        self.admin.renew_token(config.admin.token.as_ref());
        self.ingress.renew_sources(config.sources);
        let mut are_all_renewed = true;
        for (name, sink) in &self.sinks {
            if let Err(failure) = sink.renew() {
                are_all_renewed = false;
                tracing::error!(sink = %name, %failure, "the sink goes on with its secrets and certificates from before");
            }
        }
        are_all_renewed
    }

    /// Takes the level of the log from the file as it is now, and names what else has changed there.
    fn compare_with_file(&self) -> bool {
        let Origin { file, layers } = &self.origin;
        let newer = match Config::read(file.clone(), &process_environment(), false) {
            Ok(newer) => newer,
            Err(errors) => {
                let errors = one_line(&errors);
                tracing::error!(errors, "the configuration has errors; the daemon would not start with it");
                return false;
            }
        };
        let level = String::from(newer.config.log.level);
        if let Err(error) = self.log_level.set(&level) {
            tracing::error!(%error, "the level of the log stays");
        }
        // The built-in default depends on the terminal, and nobody can have changed it.
        let mut changed = if file.is_some() { layers.changed_keys(&newer.layers) } else { Vec::new() };
        changed.retain(|key| key != LOG_LEVEL && key != "log");
        if !changed.is_empty() {
            let keys = changed.join(", ");
            tracing::warn!(keys, "these keys have changed, and only a restart takes them over");
        }
        true
    }
}

fn one_line(errors: &ConfigErrors) -> String {
    errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
