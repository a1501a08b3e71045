//! The other side of the stdout sink: the daemon's standard output, led into a file.

use super::file::lines;
use super::{Arrived, Binding, Need, Rig, Setup};
use std::fs::OpenOptions;
use std::process::Stdio;
use tempfile::TempDir;

const ONE_PROCESS: &str = "standard output is part of the daemon itself";

/// See the module.
pub struct StdoutRig {
    folder: TempDir,
}

impl Rig for StdoutRig {
    const KIND: &'static str = "stdout";
    const BINDING: Option<Binding> = None;
    const CANNOT: &'static [(Need, &'static str)] = &[
        (
            Need::AwayAtStart,
            "standard output is there from the start; a reader that goes away never comes back",
        ),
        (Need::Restart, "a reader that went away cannot come back; that is in the sink's own tests"),
        (Need::Silence, "a pipe takes a line or does not; a reader that stalls is in the sink's own tests"),
        (Need::Missing, ONE_PROCESS),
        (Need::Credentials, ONE_PROCESS),
        (Need::Permission, ONE_PROCESS),
        (Need::Poison, ONE_PROCESS),
        (Need::Limit, ONE_PROCESS),
        (Need::Tls, ONE_PROCESS),
        (Need::Authentication, ONE_PROCESS),
    ];

    async fn start(_setup: Setup) -> Self {
        StdoutRig { folder: tempfile::tempdir().unwrap() }
    }

    fn table(&self) -> String {
        "[sinks.orders.stdout]\n".to_owned()
    }

    fn stdout(&self) -> Stdio {
        let file = self.folder.path().join("stdout");
        OpenOptions::new().create(true).append(true).open(file).unwrap().into()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        lines(&self.folder.path().join("stdout"))
    }
}
