//! `hookbus run`: the daemon, from its configuration to the last phase of its shutdown.
//! Holds: the first SIGTERM or SIGINT stops in phases, the second ends at once (the journal is crash-safe); SIGHUP reads
//! secrets and certificates again.

use super::{CliError, Ending};
use crate::app::config::{Config, Loaded, process_environment};
use crate::app::{self, App, Host, Origin, ServiceManager, StartError};
use crate::ingress::{Address, PassedSockets};
use crate::journal::OpenError;
use crate::source::ConfiguredSource;
use crate::telemetry::logging::{self, LogLevel};
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Starts the daemon and runs it until it is told to stop.
pub(super) fn run(file: Option<&Path>) -> Result<Ending, CliError> {
    // Before there is a second thread: it takes variables out of the environment.
    let sockets = PassedSockets::from_environment().map_err(|source| CliError::Io {
        what: "the service manager passed something that is no stream socket".to_owned(),
        source,
    })?;
    app::take_all_descriptors();
    let loaded = Config::load(file, &process_environment())?;
    let origin = Origin::of(&loaded);
    let Loaded { config, warnings, .. } = loaded;
    logging::log_panics();
    let log_level = logging::install(&config.log).map_err(|error| CliError::Failed(error.to_string()))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "cannot start".to_owned(), source })?;
    let host = Host { sockets, ..Host::default() };
    let ending = runtime.block_on(serve(config, origin, log_level, host));
    // After a second signal something may still be blocked on a disk: the process does not wait for it.
    runtime.shutdown_background();
    Ok(ending)
}

async fn serve(config: Config, origin: Origin, log_level: LogLevel, host: Host) -> Ending {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return Ending::Failed;
        }
    };
    let welcome = origin.file.is_none().then(|| Welcome::of(&config));
    let app = match App::start_on(config, log_level, host).await {
        Ok(app) => app,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ending_of(&error);
        }
    };
    let ingress = &app.ingress().endpoints[0];
    tracing::info!(ingress = %ingress.address, admin = %app.admin_address(), "hookbus is ready");
    if let Some(welcome) = welcome {
        welcome.print(&app);
    }
    let manager = Arc::new(ServiceManager::from_environment());
    manager.ready();
    app.keep_told(&manager);
    let reloads = app.keep_reloading(origin, &manager);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = app.run(async {
        // A dropped sender says the same as a message.
        let _ = stopped.await;
    });
    tokio::pin!(running);
    let mut stop = Some(stop);
    loop {
        tokio::select! {
            ended = &mut running => return match ended {
                Ok(()) => Ending::Done,
                Err(error) => {
                    tracing::error!(%error, "ended");
                    Ending::Failed
                }
            },
            ask = signals.next() => match ask {
                Ask::Reload => reloads.ask(),
                Ask::Stop if stop.take().is_some() => manager.stopping(),
                Ask::Stop => {
                    tracing::warn!("second signal: ending at once; what is not delivered yet is delivered after the next start");
                    return Ending::Failed;
                }
            },
        }
    }
}

fn ending_of(error: &StartError) -> Ending {
    match error {
        StartError::Journal(OpenError::Locked { .. }) => Ending::InUse,
        StartError::Journal(OpenError::Io { source, .. })
            if matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
        {
            Ending::NotWritable
        }
        StartError::Journal(_)
        | StartError::DeadLetters(_)
        | StartError::Sink(_)
        | StartError::Provider(_)
        | StartError::Ingress(_)
        | StartError::Admin(_) => Ending::Failed,
    }
}

/// What a signal asks for.
enum Ask {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// A terminal that goes away sends the signal, too.
    had_terminal: bool,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            had_terminal: std::io::stderr().is_terminal(),
        })
    }

    async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.terminate.recv() => Ask::Stop,
            _ = self.interrupt.recv() => Ask::Stop,
            _ = self.hangup.recv() => {
                let terminal_is_gone = self.had_terminal && !std::io::stderr().is_terminal();
                if terminal_is_gone { Ask::Stop } else { Ask::Reload }
            }
        }
    }
}

/// What a person who started the built-in default wants to know.
struct Welcome {
    paths: Vec<String>,
    events: PathBuf,
}

impl Welcome {
    fn of(config: &Config) -> Self {
        Welcome {
            paths: config.sources.values().map(ConfiguredSource::masked_path).collect(),
            events: config.data_dir.join("events.ndjson"),
        }
    }

    fn print(&self, app: &App) {
        let endpoint = &app.ingress().endpoints[0];
        let base = endpoint.to_string();
        // A Unix socket has no URL; what curl needs instead is its path and any name.
        let curl = match &endpoint.address {
            Address::Tcp(_) => base.clone(),
            Address::Unix(path) => format!("--unix-socket {} http://localhost", path.display()),
            Address::Passed(_) => "http://localhost".to_owned(),
        };
        let mut text =
            "\nHookbus runs with its built-in configuration; `hookbus run --config FILE` uses yours.\n\n"
                .to_owned();
        for path in &self.paths {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  POST {base}{path}");
        }
        let _ = writeln!(text, "  every event goes to {}\n", self.events.display());
        let _ = writeln!(
            text,
            "Try it:\n  curl -d '{{\"hello\":\"world\"}}' -H 'content-type: application/json' {curl}/hooks/inbox\n"
        );
        let _ = writeln!(
            text,
            "`hookbus status` shows how it is (http://{}). Ctrl-C stops it.\n",
            app.admin_address()
        );
        // To standard error, like the log: standard output belongs to the events. Nobody to read it is no reason to stop.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
