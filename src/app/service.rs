//! What the service manager is told: that the daemon is ready, reloads, stops, and lives.
//! Holds: without one (no `NOTIFY_SOCKET`) nothing is done, and one that does not listen is waited for by nobody; that it
//! missed a change is made good with the next sign of life, or it would wait for readiness until it ends the process. Life is
//! told by a task of the runtime that serves senders and sinks, so a runtime that hangs is found out. A disk that hangs is
//! not told of: a new process would hang on it too.
//!
//! The protocol is sd_notify(3).

use crate::dispatch::{Dispatcher, LaneState};
use crate::shutdown::{Phase, Shutdown};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// How often a sign of life is expected, in microseconds, and of whom.
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// How often the line that `systemctl status` shows is written.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// The shortest time between two signs of life.
const SIGN_EVERY_MIN: Duration = Duration::from_millis(10);

/// The manager that has started this process, or none.
#[derive(Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// It did not take what it was told last.
    is_deaf: AtomicBool,
    /// The last change, while it has not taken it.
    unsaid: Mutex<Option<String>>,
}

impl ServiceManager {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let Some(address) = std::env::var_os(NOTIFY_SOCKET) else { return Self::default() };
        let socket = connected(&address.into_vec());
        if let Err(error) = &socket {
            tracing::warn!(%error, "{NOTIFY_SOCKET} leads nowhere; the service manager is told nothing");
        }
        let is_ours = variable(WATCHDOG_PID).is_none_or(|pid| pid == std::process::id().to_string());
        let allowed_us = variable(WATCHDOG_USEC).filter(|_| is_ours).and_then(|us| us.parse().ok());
        let watchdog = allowed_us.map(Duration::from_micros);
        ServiceManager { socket: socket.ok(), watchdog, ..Self::default() }
    }

    /// Senders are served.
    pub fn ready(&self) {
        self.tell_change("READY=1".to_owned());
    }

    /// A reload has begun; [`ServiceManager::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now_us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell_change(format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    /// The stop has begun.
    pub fn stopping(&self) {
        self.tell_change("STOPPING=1\nSTATUS=stopping".to_owned());
    }

    /// Gives signs of life, twice in the time that the manager allows, and the state of the lanes, until the last phase
    /// has stopped.
    pub(super) fn keep_told(self: &Arc<Self>, dispatcher: Dispatcher, shutdown: &Shutdown) {
        if self.socket.is_none() {
            return;
        }
        let manager = Arc::clone(self);
        let every = self.watchdog.map_or(STATUS_EVERY, |allowed| allowed / 2);
        let (stop, stopping) = (shutdown.token(Phase::Admin).clone(), shutdown.token(Phase::Ingress).clone());
        drop(shutdown.spawn(Phase::Admin, async move {
            let mut signs = tokio::time::interval(every.clamp(SIGN_EVERY_MIN, STATUS_EVERY));
            while stop.run_until_cancelled(signs.tick()).await.is_some() {
                manager.repeat_change();
                if stopping.is_cancelled() {
                    manager.tell("WATCHDOG=1");
                } else {
                    manager.tell(&format!("WATCHDOG=1\nSTATUS={}", status(&dispatcher)));
                }
            }
        }));
    }

    fn tell_change(&self, change: String) {
        let mut unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        *unsaid = (!self.tell(&change)).then_some(change);
    }

    fn repeat_change(&self) {
        let mut unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        *unsaid = unsaid.take().filter(|change| !self.tell(change));
    }

    /// Returns whether it took it; nobody takes everything.
    fn tell(&self, state: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        let sent = socket.send(state.as_bytes());
        let was_deaf = self.is_deaf.swap(sent.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (&sent, was_deaf) {
            tracing::warn!(%error, "the service manager does not listen");
        }
        sent.is_ok()
    }
}

/// To a path, or to an abstract name after an `@`.
fn connected(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_the_manager_was_too_busy_for_is_told_again_and_only_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let notified = UnixDatagram::bind(&path).unwrap();
        notified.set_nonblocking(true).unwrap();
        let socket = connected(path.as_os_str().as_bytes()).unwrap();
        let manager = ServiceManager { socket: Some(socket), ..ServiceManager::default() };
        while manager.tell("STATUS=busy") {}
        manager.reloading();
        manager.ready();
        manager.repeat_change();
        let heard = || {
            let mut bytes = [0; 64];
            notified
                .recv(&mut bytes)
                .ok()
                .map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned())
        };
        while heard().is_some_and(|told| told == "STATUS=busy") {}
        assert_eq!(heard(), None, "it waits for nobody");
        manager.repeat_change();
        assert_eq!((heard().as_deref(), heard()), (Some("READY=1"), None));
        manager.repeat_change();
        assert_eq!(heard(), None, "once is enough");
    }
}
