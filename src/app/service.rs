//! What the service manager is told: that the daemon is ready, reloads, stops, and lives.
//! Holds: without one (no `NOTIFY_SOCKET`) nothing is done. Life is told by a task of the runtime that serves senders and
//! sinks, so a runtime that hangs is found out. A disk that hangs is not told of: a new process would hang on it too.
//!
//! The protocol is sd_notify(3).

use crate::dispatch::{Dispatcher, LaneState};
use crate::shutdown::{Phase, Shutdown};
use sd_notify::NotifyState;
use std::time::Duration;

/// How often the line that `systemctl status` shows is written.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// The shortest time between two signs of life.
const SIGN_EVERY_MIN: Duration = Duration::from_millis(10);

/// The manager that has started this process, or none.
pub struct ServiceManager {
    is_there: bool,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        ServiceManager {
            is_there: std::env::var_os("NOTIFY_SOCKET").is_some(),
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// Senders are served.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A reload has begun; [`ServiceManager::ready`] ends it.
    pub fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now();
        self.tell(&now.map_or(vec![NotifyState::Reloading], |now| vec![NotifyState::Reloading, now]));
    }

    /// The stop has begun.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// Gives signs of life, twice in the time that the manager allows, and the state of the lanes, until the last phase
    /// has stopped.
    pub fn keep_told(self: &std::sync::Arc<Self>, dispatcher: Dispatcher, shutdown: &Shutdown) {
        if !self.is_there {
            return;
        }
        let manager = std::sync::Arc::clone(self);
        let every =
            self.watchdog.map_or(STATUS_EVERY, |allowed| allowed / 2).clamp(SIGN_EVERY_MIN, STATUS_EVERY);
        let (stop, stopping) = (shutdown.token(Phase::Admin).clone(), shutdown.token(Phase::Ingress).clone());
        drop(shutdown.spawn(Phase::Admin, async move {
            let mut signs = tokio::time::interval(every);
            while stop.run_until_cancelled(signs.tick()).await.is_some() {
                if stopping.is_cancelled() {
                    manager.tell(&[NotifyState::Watchdog]);
                } else {
                    let status = status(&dispatcher);
                    manager.tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
                }
            }
        }));
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if !self.is_there {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

/// One line for `systemctl status`.
fn status(dispatcher: &Dispatcher) -> String {
    let lanes = dispatcher.status();
    let waiting: u64 = lanes.iter().map(|lane| lane.lag.events).sum();
    let troubled: Vec<&str> =
        lanes.iter().filter(|lane| lane.state != LaneState::Running).map(|lane| lane.sink.as_str()).collect();
    match troubled.as_slice() {
        [] => format!("{} sinks run; {waiting} deliveries wait", lanes.len()),
        some => format!(
            "{} of {} sinks do not run ({}); {waiting} deliveries wait",
            some.len(),
            lanes.len(),
            some.join(", ")
        ),
    }
}
