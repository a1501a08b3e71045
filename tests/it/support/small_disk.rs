//! A small disk that a program can be given: ext4 in a file, mounted in a mount namespace of its own, that can be filled,
//! frozen, made read-only and healed.
//! Holds: nothing is left behind, however the test ends. The namespace lives as long as the processes in it, all of which
//! are on a leash, and the mount and its loop device as long as the namespace; a freeze is thawed by a helper as soon as its
//! pipe breaks.
//! Where ext4 cannot be mounted (a container, a user who is not root) it is a tmpfs, which cannot be frozen.

use super::brokers::Leashed;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Makes and mounts it, says how, and keeps the namespace.
const HOLDER: &str = r#"
set -e
image=$1 place=$2 bytes=$3 said=$4
truncate -s "$bytes" "$image"
if mkfs.ext4 -q -F -m 0 "$image" && mount -o loop "$image" "$place"; then
    echo ext4 >"$said.new"
else
    mount -t tmpfs -o "size=$bytes,mode=0700" tmpfs "$place"
    echo tmpfs >"$said.new"
fi
mv "$said.new" "$said"
exec sleep infinity
"#;

/// Frozen until its input ends, which also happens when the test dies.
const FREEZER: &str = r#"fsfreeze -f "$1" && echo frozen && cat >/dev/null; fsfreeze -u "$1""#;

/// Its name in the folder of the test, where only programs that are started through [`SmallDisk::enter`] see it.
pub const DISK: &str = "disk";

/// See the module.
pub struct SmallDisk {
    holder: Leashed,
    place: PathBuf,
    can_freeze: bool,
    enter: Vec<String>,
}

/// A disk on which every write and sync waits, until this is dropped.
pub struct Frozen(Child);

impl SmallDisk {
    /// Of so many bytes, in `folder`, which gets the files `disk.img`, `disk.log` and the directory `disk`.
    pub async fn start(folder: &Path, bytes: u64) -> SmallDisk {
        let place = folder.join(DISK);
        std::fs::create_dir(&place).unwrap();
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let more: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
        let said = folder.join("disk.kind");
        let mut command = Command::new("unshare");
        command.arg("--mount").args(more).args(["sh", "-c", HOLDER, "sh"]);
        command.args([&folder.join("disk.img"), &place]).arg(bytes.to_string()).arg(&said);
        let holder = Leashed::spawn("the small disk", &command, &folder.join("disk.log"));
        holder.until(async || said.exists()).await;
        let kind = std::fs::read_to_string(&said).unwrap();
        let target = format!("--target={}", holder.pid());
        let user: &[&str] = if is_root { &[] } else { &["--user", "--preserve-credentials"] };
        // Entering leads to the root, and the test's folder is looked up anew, or the disk would not be in it.
        let back = ["sh", "-c", "cd \"$0\" && exec \"$@\"", folder.to_str().expect("a plain path")];
        let start = ["nsenter", &target, "--mount"];
        let enter = start.iter().chain(user).chain(&back).map(|word| (*word).to_owned()).collect();
        SmallDisk { holder, place, can_freeze: kind.trim() == "ext4", enter }
    }

    /// Where it is for programs that are started through [`SmallDisk::enter`].
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The program and its arguments that start another one in the test's folder, with the disk in it, under its own
    /// process id.
    pub fn enter(&self) -> &[String] {
        &self.enter
    }

    /// Where it is for everybody else.
    pub fn outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(self.place.strip_prefix("/").expect("it is absolute"))
    }

    /// Writes a file until there is no space. Waits while the disk is frozen.
    pub async fn fill(&self) {
        let filler = self.outside().join("filler");
        let filled = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(filler)?;
            // The last bytes too.
            for size in [1 << 20, 4096, 1] {
                let bytes = vec![0; size];
                while file.write_all(&bytes).is_ok() {}
            }
            std::io::Result::Ok(())
        });
        // Where not even the file can be made, the disk is full already.
        let _ = filled.await.expect("it does not panic");
    }

    /// Frees what `fill` took.
    pub async fn free(&self) {
        let filler = self.outside().join("filler");
        let freed = tokio::task::spawn_blocking(move || std::fs::remove_file(filler));
        let _ = freed.await.expect("it does not panic");
    }

    /// With other options, of the mount alone, which an unprivileged user may change, too. Nobody may have a file open for
    /// writing.
    pub fn remount(&self, how: &str) {
        let (program, arguments) = self.enter.split_first().expect("a program");
        let mut command = Command::new(program);
        let remounted = command.args(arguments).args(["mount", "-o", how]).arg(&self.place).status();
        assert!(remounted.expect("it can be started").success(), "it can be remounted");
    }

    /// Every write and every sync waits until the value is dropped. `None` where that cannot be done.
    pub async fn freeze(&self) -> Option<Frozen> {
        if !self.can_freeze {
            return None;
        }
        let mut words = self.enter.iter();
        let mut child = Command::new(words.next().expect("a program"))
            .args(words)
            .args(["sh", "-c", FREEZER, "sh"])
            .arg(&self.place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not ended with the test by the terminal, or nobody would thaw.
            .process_group(0)
            .spawn()
            .expect("nsenter is installed");
        let mut output = child.stdout.take().expect("it is piped");
        let frozen = tokio::task::spawn_blocking(move || {
            let mut said = [0; 6];
            output.read_exact(&mut said).is_ok()
        });
        let is_frozen = frozen.await.expect("it does not panic");
        assert!(is_frozen, "fsfreeze cannot freeze {}", self.place.display());
        Some(Frozen(child))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_is_filled_freed_frozen_and_gone_with_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::start(folder.path(), 16 << 20).await;
    let file = disk.outside().join("file");
    std::fs::write(&file, "before").unwrap();
    disk.fill().await;
    let full = std::fs::write(&file, vec![1; 64 * 1024]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    disk.free().await;
    std::fs::write(&file, "after").unwrap();
    if let Some(frozen) = disk.freeze().await {
        let waiting = tokio::task::spawn_blocking(move || std::fs::write(file, "thawed"));
        super::lasts(std::time::Duration::from_millis(50)).await;
        assert!(!waiting.is_finished(), "a write waits");
        drop(frozen);
        waiting.await.unwrap().unwrap();
    }
    let inside = disk.outside();
    drop(disk);
    super::eventually("the disk is gone", || async { (!inside.exists()).then_some(()) }).await;
    assert!(!folder.path().join("disk/file").exists(), "it was never mounted where others see it");
}
