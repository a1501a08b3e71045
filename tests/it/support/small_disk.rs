//! A disk of a fixed size that only the program sees: a tmpfs in a mount namespace of its own, which goes with its owner.
//! Holds: nothing is left mounted, however a test ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The name of the mounted folder in the folder of the test.
pub const DISK: &str = "disk";

/// A small disk at `disk/` in the folder of a test.
pub struct SmallDisk {
    keeper: Child,
    folder: PathBuf,
}

impl SmallDisk {
    pub async fn of(folder: &Path, bytes: u64) -> SmallDisk {
        let mount =
            format!("mkdir {DISK} && mount -t tmpfs -o size={bytes} tmpfs {DISK} && echo mounted && cat");
        let mut unshare = Command::new("unshare");
        if !is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        // It keeps the namespace until its input ends, and then ends, too.
        let mut keeper = unshare
            .args(["--mount", "sh", "-c", &mount])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare is there: `tests/run instruments` installs it");
        let mut lines = BufReader::new(keeper.stdout.as_mut().unwrap()).lines();
        let said = lines.next_line().await.unwrap();
        assert_eq!(
            said.as_deref(),
            Some("mounted"),
            "a small disk can be mounted: as root, or in a user namespace"
        );
        SmallDisk { keeper, folder: folder.to_owned() }
    }

    /// The words that start a program where the disk is.
    pub fn wrapper(&self) -> Vec<String> {
        let pid = self.keeper.id().expect("it runs").to_string();
        let user: &[&str] = if is_root() { &[] } else { &["--user", "--preserve-credentials"] };
        let enter = ["nsenter", "--target", &pid, "--mount"];
        let there = ["sh", "-c", "cd \"$0\" && exec \"$@\"", self.folder.to_str().unwrap()];
        enter.iter().chain(user).chain(&there).map(|word| (*word).to_owned()).collect()
    }

    /// The disk as the test sees it.
    pub fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id().expect("it runs")));
        root.join(self.folder.strip_prefix("/").unwrap()).join(DISK)
    }

    /// Other data takes all the room that is left.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.path().join("filler")).unwrap();
        for bytes in [64 << 10, 4 << 10] {
            while filler.write_all(&vec![b'x'; bytes]).is_ok() {}
        }
    }

    /// And goes.
    pub fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }

    /// With other options, of the mount alone, which an unprivileged user may change, too. Nobody may have a file open for
    /// writing.
    pub async fn remount(&self, how: &str) {
        let mut words = self.wrapper();
        words.extend(["mount", "-o", how, DISK].map(str::to_owned));
        let status = Command::new(&words[0]).args(&words[1..]).status().await.unwrap();
        assert!(status.success());
    }
}

fn is_root() -> bool {
    let me = std::process::Command::new("id").arg("-u").output().unwrap();
    me.stdout.starts_with(b"0")
}
