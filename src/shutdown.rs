//! The order in which the daemon stops, and the tracker that knows every task it started.
//! Holds: no task outlives the phase it belongs to; `tokio::spawn` is called nowhere else.
//! The phases: readiness off → ingress stops → lanes settle what is in flight → journal closes → admin stops.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task serves, and so the phase in which it is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Listening and answering senders.
    Ingress,
    /// Delivering to sinks.
    Lanes,
    /// Writing to disk.
    Storage,
    /// Answering operators; last, so that the rest can be watched.
    Admin,
}

const PHASES: [Phase; 4] = [Phase::Ingress, Phase::Lanes, Phase::Storage, Phase::Admin];

#[derive(Clone, Debug, Default)]
struct Stage {
    stop: CancellationToken,
    tasks: TaskTracker,
    deadline: Arc<OnceLock<Instant>>,
}

/// Cheap to clone; every part gets one and spawns its tasks through it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    stages: [Stage; PHASES.len()],
}

impl Shutdown {
    /// With nothing started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Starts a task that belongs to `phase`; it must end soon after [`Shutdown::token`] of that phase is cancelled.
    pub fn spawn<F>(&self, phase: Phase, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.stages[phase as usize].tasks.spawn(task)
    }
    /// Runs blocking work that belongs to `phase`.
    pub fn spawn_blocking<F, T>(&self, phase: Phase, work: F) -> tokio::task::JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.stages[phase as usize].tasks.spawn_blocking(work)
    }
    /// Cancelled when `phase` begins to stop.
    #[must_use]
    pub fn token(&self, phase: Phase) -> &CancellationToken {
        &self.stages[phase as usize].stop
    }
    /// Asks the tasks of `phase` to stop and waits until all have ended.
    pub async fn stop(&self, phase: Phase) {
        let stage = &self.stages[phase as usize];
        stage.stop.cancel();
        stage.tasks.close();
        stage.tasks.wait().await;
    }
    /// Like [`Shutdown::stop`]; the tasks should cut off at `deadline` what they still do.
    pub async fn stop_by(&self, phase: Phase, deadline: Instant) {
        self.stages[phase as usize].deadline.get_or_init(|| deadline);
        self.stop(phase).await;
    }
    /// When a task of `phase` should cut off what it still does; `None` where nobody gave it time.
    #[must_use]
    pub fn deadline(&self, phase: Phase) -> Option<Instant> {
        self.stages[phase as usize].deadline.get().copied()
    }
    /// How many tasks of all phases still run.
    #[must_use]
    pub fn tasks_running(&self) -> usize {
        self.stages.iter().map(|stage| stage.tasks.len()).sum()
    }
}
