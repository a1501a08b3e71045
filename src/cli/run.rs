//! `hookbus run`: the daemon, from its configuration to the last phase of its shutdown.
//! Holds: the first SIGTERM or SIGINT stops in phases, the second ends at once (the journal is crash-safe).

use super::{CliError, Ending};
use crate::app::config::{Config, Loaded, process_environment};
use crate::app::{App, StartError};
use crate::ingress::Address;
use crate::journal::OpenError;
use crate::source::ConfiguredSource;
use crate::telemetry::logging::{self, LogLevel};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Starts the daemon and runs it until it is told to stop.
pub(super) fn run(file: Option<&Path>) -> Result<Ending, CliError> {
    let Loaded { config, file, warnings } = Config::load(file, &process_environment())?;
    logging::log_panics();
    let log_level = logging::install(&config.log).map_err(|error| CliError::Failed(error.to_string()))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "cannot start".to_owned(), source })?;
    let ending = runtime.block_on(serve(config, file.is_none(), log_level));
    // After a second signal something may still be blocked on a disk: the process does not wait for it.
    runtime.shutdown_background();
    Ok(ending)
}

async fn serve(config: Config, is_built_in: bool, log_level: LogLevel) -> Ending {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return Ending::Failed;
        }
    };
    let welcome = is_built_in.then(|| Welcome::of(&config));
    let app = match App::start(config, log_level).await {
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
            () = signals.next() => if stop.take().is_none() {
                tracing::warn!("second signal: ending at once; what is not delivered yet is delivered after the next start");
                return Ending::Failed;
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

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
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
