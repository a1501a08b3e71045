//! The other side of the file sink: a directory that can go away, and the lines of the file in it.

use super::{Arrived, Binding, Need, Rig, Setup};
use std::path::PathBuf;
use tempfile::TempDir;

/// See the module.
pub struct FileRig {
    place: TempDir,
}

impl FileRig {
    /// Absolute, so that the sink never makes it: it may be a volume that is not mounted yet.
    fn directory(&self) -> PathBuf {
        self.place.path().join("volume")
    }

    fn unmounted(&self) -> PathBuf {
        self.place.path().join("unmounted")
    }

    fn file(&self) -> PathBuf {
        self.directory().join("events.ndjson")
    }
}

/// Every whole line of an NDJSON file, as bodies.
pub fn lines(path: &std::path::Path) -> Vec<Arrived> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "every line is whole");
    text.lines().map(|line| Arrived { body: line.as_bytes().to_vec(), ..Arrived::default() }).collect()
}

impl Rig for FileRig {
    const KIND: &'static str = "file";
    const BINDING: Option<Binding> = None;
    const REASON_DOWN: &'static str = "storage";
    const REASON_MISSING: &'static str = "storage";
    const CANNOT: &'static [(Need, &'static str)] = &[
        (
            Need::Silence,
            "there is no proxy before a disk; a sync that hangs or fails is in the sink's own tests",
        ),
        (Need::Credentials, "a file asks nobody for credentials"),
        (
            Need::Permission,
            "root, as whom these tests may run, may write everywhere; a directory that is not there is waited for alike",
        ),
        (Need::Poison, "a file refuses no event that could be accepted"),
        (Need::Limit, "a file takes events of every size"),
        (Need::Tls, "a file is not reached over a network"),
        (Need::Authentication, "a file asks nobody who it is"),
    ];

    async fn start(setup: Setup) -> Self {
        let rig = FileRig { place: tempfile::tempdir().unwrap() };
        if setup != Setup::Missing {
            std::fs::create_dir(rig.directory()).unwrap();
        }
        rig
    }

    fn table(&self) -> String {
        format!("[sinks.orders.file]\npath = \"{}\"\n", self.file().display())
    }

    async fn arrived(&self) -> Vec<Arrived> {
        lines(&self.file())
    }

    async fn goes_down(&mut self) {
        std::fs::rename(self.directory(), self.unmounted()).unwrap();
    }

    async fn comes_back(&mut self) {
        std::fs::rename(self.unmounted(), self.directory()).unwrap();
    }

    async fn create_destination(&mut self) {
        std::fs::create_dir(self.directory()).unwrap();
    }
}
