//! The command line: what each subcommand is called, what it takes, and how it ends.
//! Holds: exit codes 0 done, 1 failed, 2 bad usage, 3 differs or not healthy, 75 the data directory is in use, and for
//! `run` 78; errors go to standard error, once. Live commands go through the admin listener and never touch the data
//! directory, which one process owns; `journal` reads it and writes nothing.

mod capture;
mod check;
mod client;
mod dead_letters;
mod files;
mod human;
mod journal;
mod pinned;
mod register;
mod run;
mod selection;
mod send;
mod settings;
mod status;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Takes webhooks in, keeps them, and delivers each to every configured sink.
#[derive(Parser, Debug)]
#[command(name = "hookbus", version, max_term_width = 100)]
struct Arguments {
    /// The configuration file; without one: $HOOKBUS_CONFIG, ./hookbus.toml, /etc/hookbus/hookbus.toml, built-in default
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to do; `run` where nothing is said
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the daemon
    Run,
    /// Read the configuration and say everything that is wrong with it
    Check(check::Arguments),
    /// Post a sample or a file to a source of the running daemon
    Send(send::Arguments),
    /// Show the next requests of a source, secrets hidden, and what became of them
    Capture(capture::Arguments),
    /// Set and verify the webhook URLs of a source at its provider
    Register(register::Arguments),
    /// Show health, journal, lanes, dead letters and sources of the running daemon
    Status(status::Arguments),
    /// Look at, replay, discard or export what could not be delivered or read
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Look into the journal on disk, and recount it
    #[command(subcommand)]
    Journal(journal::Command),
}

/// How a subcommand ended where nothing went wrong with the command itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Exit code 0.
    Done,
    /// Exit code 1: it was tried and did not succeed; what there is to say is said.
    Failed,
    /// Exit code 3.
    NotHealthy,
    /// Exit code 75 (EX_TEMPFAIL of sysexits.h): another process has the data directory.
    InUse,
    /// Exit code 78 (EX_CONFIG): the data directory cannot be written.
    NotWritable,
}

impl Ending {
    fn code(self) -> u8 {
        match self {
            Ending::Done => 0,
            Ending::Failed => 1,
            Ending::NotHealthy => 3,
            Ending::InUse => 75,
            Ending::NotWritable => 78,
        }
    }
}

/// Why a subcommand could not be carried out.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The configuration has errors, one a line.
    #[error("the configuration has errors:\n{0}")]
    Config(#[from] crate::config::ConfigErrors),
    /// The daemon could not be asked.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A file or the terminal failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's name.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The arguments contradict each other or the configuration.
    #[error("{0}")]
    Usage(String),
    /// Anything else, as a sentence.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Config(_) | CliError::Client(_) | CliError::Io { .. } | CliError::Failed(_) => 1,
        }
    }
}

/// Does what the arguments say (the first is the program's name) and returns the exit code. A TLS provider must be
/// installed before.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to be done where not even this can be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match carry_out(arguments) {
        Ok(ending) => ExitCode::from(ending.code()),
        // The reader has seen enough (`| head`).
        Err(CliError::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            human::complain(&format!("hookbus: {error}"));
            ExitCode::from(error.code())
        }
    }
}

fn carry_out(arguments: Arguments) -> Result<Ending, CliError> {
    let config = arguments.config.as_deref();
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => run::run(config),
        Command::Check(arguments) => check::check(config, &arguments),
        Command::Send(arguments) => blocking(send::send(config, &arguments)),
        Command::Capture(arguments) => blocking(capture::capture(config, &arguments)),
        Command::Register(arguments) => blocking(register::register(config, &arguments)),
        Command::Status(arguments) => blocking(status::status(config, &arguments)),
        Command::Journal(command) => journal::journal(config, &command),
        Command::DeadLetters(command) => blocking(dead_letters::dead_letters(config, &command)),
    }
}

/// Runs a short-lived command on this thread.
fn blocking(command: impl Future<Output = Result<Ending, CliError>>) -> Result<Ending, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "cannot start".to_owned(), source })?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests;
