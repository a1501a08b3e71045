//! The one place that knows every part: builds them in the order of the data, runs them, stops them in phases.
//! Holds: the ingress listens only when everything behind it stands; it is the first to stop.

pub mod config;
#[cfg(test)]
mod fuzz_tests;
mod operations;
mod process;
mod reload;
mod service;

use crate::admin::{Admin, SourceSummary};
use crate::dead_letter::{DeadLetters, StoreError};
use crate::dispatch::{self, Dispatcher, LaneParts};
use crate::envelope::SinkName;
use crate::ingress::{self, Captures, Ingress, PassedSockets};
use crate::journal::{CursorSpec, Disk, Health, Journal, OpenError, RealDisk};
use crate::router::Router;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{self, ConfiguredSink, OnBacklogFull, Sink};
use crate::source::Sources;
use crate::telemetry::logging::LogLevel;
use crate::telemetry::prometheus;
use crate::{admin, journal, provider};
use config::Config;
use operations::{OwnEvents, Readmission};
pub use process::{keep_to_itself, take_all_descriptors};
use reload::Reloader;
pub use reload::{Origin, Reloads};
pub use service::ServiceManager;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// After the journal has failed, how long the lanes may go on with what is durable; takes the place of the grace.
const DRAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// What a stop may take beyond its grace, all in all; with the default grace it stays within the 30 seconds that
/// orchestrators usually give.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// The part of it in which lanes let their sinks go.
const STOP_MARGIN_LANES: Duration = Duration::from_secs(1);
/// The part of it after the lanes in which the stores are closed; what is left is the operators' listener's.
const STOP_MARGIN_STORAGE: Duration = Duration::from_secs(2);
/// What is left at the least for requests in hand to be answered, once the lanes have drained.
const STOP_MIN: Duration = Duration::from_millis(500);
/// How often the lanes are asked whether they have drained, after the journal has failed.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal could not be opened.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The dead-letter store could not be opened.
    #[error(transparent)]
    DeadLetters(#[from] StoreError),
    /// A sink could not be made.
    #[error(transparent)]
    Sink(#[from] sink::BuildError),
    /// A provider cannot be asked for the state of its instance.
    #[error(transparent)]
    Provider(#[from] provider::SetupError),
    /// The public addresses are not to be had, or the certificate cannot be used.
    #[error(transparent)]
    Ingress(#[from] ingress::StartError),
    /// The operators' address is not to be had.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
}

/// Why the daemon ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    /// A write or a sync failed (R6): only a new start, which recovers the journal, may accept events again.
    #[error("the journal failed; check the disk and start again: what was accepted is kept")]
    JournalFailed,
}

/// What the daemon runs on.
pub struct Host {
    /// Where the journal is written.
    pub disk: Arc<dyn Disk>,
    /// Sockets that were there before it.
    pub sockets: PassedSockets,
}

impl Default for Host {
    /// The operating system's file system, and no sockets.
    fn default() -> Self {
        Host { disk: Arc::new(RealDisk), sockets: PassedSockets::default() }
    }
}

/// The running daemon.
pub struct App {
    ingress: Arc<Ingress>,
    admin: Arc<Admin>,
    sinks: BTreeMap<SinkName, Arc<dyn Sink>>,
    log_level: LogLevel,
    dispatcher: Dispatcher,
    journal: Journal,
    dead_letters: DeadLetters,
    accepting: Arc<AtomicBool>,
    shutdown: Shutdown,
    grace: Duration,
}

impl App {
    /// Builds every part and starts it.
    ///
    /// # Errors
    /// [`StartError`]; what was started before the error is stopped again.
    pub async fn start(config: Config, log_level: LogLevel) -> Result<App, StartError> {
        Self::start_on(config, log_level, Host::default()).await
    }

    /// Like [`App::start`], on a host that differs in something.
    ///
    /// # Errors
    /// [`StartError`]; what was started before the error is stopped again.
    pub async fn start_on(config: Config, log_level: LogLevel, host: Host) -> Result<App, StartError> {
        let shutdown = Shutdown::new();
        let started = Self::build(config, log_level, host, &shutdown).await;
        if started.is_err() {
            for phase in [Phase::Ingress, Phase::Lanes, Phase::Storage, Phase::Admin] {
                shutdown.stop(phase).await;
            }
        }
        started
    }

    async fn build(
        config: Config,
        log_level: LogLevel,
        host: Host,
        shutdown: &Shutdown,
    ) -> Result<App, StartError> {
        let metrics = prometheus::install(shutdown);
        let grace = config.shutdown.grace.get();
        let router = Router::new(config.routes);
        let accepting = Arc::new(AtomicBool::new(false));

        let journal = open_journal(&config.journal, &config.data_dir, host.disk, &config.sinks)?;
        let dead_letters = DeadLetters::open(&config.dead_letters, &config.data_dir, shutdown)?;
        dead_letters.announce(config.sinks.keys());
        let lanes = build_lanes(config.sinks.values(), &config.data_dir, shutdown)?;
        let own_sinks = lanes.iter().map(|lane| (lane.name.clone(), Arc::clone(&lane.sink))).collect();
        let shared = dispatch::Parts {
            journal: journal.clone(),
            dead_letters: dead_letters.clone(),
            router: Arc::new(router.clone()),
        };
        let dispatcher = Dispatcher::start(lanes, &shared, shutdown);
        let captures = Captures::of(&config.sources, shutdown);
        let admin_parts = admin::Parts {
            journal: journal.clone(),
            lanes: Arc::new(dispatcher.clone()),
            dead_letters: dead_letters.clone(),
            sources: summaries(&config.sources),
            readmit: Arc::new(Readmission { sources: config.sources.clone(), journal: journal.clone() }),
            watch: Arc::new(captures.clone()),
            stall_max: config.ingress.store_timeout.get(),
            accepting: Arc::clone(&accepting),
            metrics,
            log_level: log_level.clone(),
            encode: sink::structured,
        };
        let admin = Admin::start(config.admin, admin_parts, shutdown).await?;
        let own_events: Arc<dyn provider::Keep> = Arc::new(OwnEvents(journal.clone()));
        provider::start(&config.sources, &own_events, shutdown)?;
        let ingress_parts = ingress::Parts {
            sources: config.sources,
            journal: journal.clone(),
            dead_letters: dead_letters.clone(),
            router,
            captures,
            sockets: host.sockets,
        };
        let ingress = Ingress::start(config.ingress, ingress_parts, shutdown).await?;
        accepting.store(true, Ordering::Release);
        Ok(App {
            ingress: Arc::new(ingress),
            admin: Arc::new(admin),
            sinks: own_sinks,
            log_level,
            dispatcher,
            journal,
            dead_letters,
            accepting,
            shutdown: shutdown.clone(),
            grace,
        })
    }

    /// Where senders post to.
    #[must_use]
    pub fn ingress(&self) -> &Ingress {
        &self.ingress
    }

    /// Where operators look.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }

    /// Has secrets and what else `origin` can be read again for taken over whenever it is asked for, until the stop begins.
    #[must_use]
    pub fn keep_reloading(&self, origin: Origin, manager: &Arc<ServiceManager>) -> Reloads {
        let reloader = Reloader {
            origin,
            ingress: Arc::clone(&self.ingress),
            admin: Arc::clone(&self.admin),
            sinks: self.sinks.clone(),
            log_level: self.log_level.clone(),
        };
        reloader.start(manager, &self.shutdown)
    }

    /// Has the service manager told how the daemon is, until the last phase has stopped.
    pub fn keep_told(&self, manager: &Arc<ServiceManager>) {
        manager.keep_told(self.dispatcher.clone(), &self.shutdown);
    }

    /// Runs until `stop` resolves or the journal fails, then stops in phases.
    ///
    /// # Errors
    /// [`RunError`] where the daemon ended by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let failed = tokio::select! {
            () = stop => false,
            () = journal_failure(&self.journal) => true,
        };
        let deadline = Instant::now() + if failed { DRAIN_AFTER_FAILURE } else { self.grace };
        if failed {
            tracing::error!(
                "the journal failed: nothing more is accepted; the sinks get what is durable, then the process ends"
            );
            self.drain(deadline).await;
        }
        self.stop(deadline.max(Instant::now() + STOP_MIN)).await;
        if failed { Err(RunError::JournalFailed) } else { Ok(()) }
    }

    async fn drain(&self, deadline: Instant) {
        while self.dispatcher.status().iter().any(|lane| lane.lag.events > 0) && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Requests and deliveries in hand may end until `deadline`, whichever phase they belong to; lanes go on delivering
    /// while requests are answered. Everything has ended, or is left behind, [`STOP_MARGIN`] later.
    async fn stop(self, deadline: Instant) {
        self.accepting.store(false, Ordering::Release);
        let grace = deadline.saturating_duration_since(Instant::now());
        tracing::info!(
            grace_seconds = grace.as_secs_f64().round(),
            "stopping: requests in hand are answered first"
        );
        if timeout_at(deadline, self.shutdown.stop(Phase::Ingress)).await.is_err() {
            tracing::warn!("some connections did not end within the grace");
        }
        let lanes_end = deadline + STOP_MARGIN_LANES;
        if timeout_at(lanes_end, self.shutdown.stop_by(Phase::Lanes, deadline)).await.is_err() {
            tracing::warn!("some lanes did not end within the grace; their events wait in the journal");
        }
        let close_stores = async {
            self.dead_letters.close().await;
            self.journal.close().await;
            self.shutdown.stop(Phase::Storage).await;
        };
        if timeout_at(lanes_end + STOP_MARGIN_STORAGE, close_stores).await.is_err() {
            tracing::error!("the disk does not answer; the next start finds out what it kept");
        }
        if timeout_at(deadline + STOP_MARGIN, self.shutdown.stop(Phase::Admin)).await.is_err() {
            tracing::warn!("some connections of operators did not end in time");
        }
        tracing::info!("stopped");
    }
}

async fn journal_failure(journal: &Journal) {
    let mut health = journal.health();
    if health.wait_for(|health| *health == Health::Failed).await.is_err() {
        std::future::pending::<()>().await;
    }
}

type Sinks = BTreeMap<SinkName, ConfiguredSink>;

fn open_journal(
    config: &journal::Config,
    data_dir: &std::path::Path,
    disk: Arc<dyn Disk>,
    sinks: &Sinks,
) -> Result<Journal, OpenError> {
    let cursors: Vec<CursorSpec> = sinks
        .values()
        .map(|sink| CursorSpec {
            name: sink.name.as_str().to_owned(),
            sheddable: match sink.common.on_backlog_full {
                OnBacklogFull::ShedOldest => true,
                OnBacklogFull::Refuse => false,
            },
        })
        .collect();
    Journal::open(config, &data_dir.join("journal"), disk, &cursors)
}

fn build_lanes<'a>(
    sinks: impl Iterator<Item = &'a ConfiguredSink>,
    data_dir: &std::path::Path,
    shutdown: &Shutdown,
) -> Result<Vec<LaneParts>, sink::BuildError> {
    sinks
        .map(|configured| {
            Ok(LaneParts {
                name: configured.name.clone(),
                kind: configured.type_name,
                config: configured.common.clone(),
                sink: configured.build(data_dir, shutdown)?,
            })
        })
        .collect()
}

fn summaries(sources: &Sources) -> Vec<SourceSummary> {
    sources
        .values()
        .map(|source| SourceSummary {
            name: source.name.clone(),
            kind: source.type_name,
            path: source.masked_path(),
            authenticated: !source.is_unauthenticated(),
        })
        .collect()
}
