//! R6 in the whole program: a sync of the journal fails once. Nobody is told "kept" who is not, what was kept still goes
//! out, and the program ends by itself.

use crate::support::http_sink::HttpSink;
use crate::support::{PATIENCE, client, eventually};
use hookbus::app::config::Config;
use hookbus::app::{App, RunError};
use hookbus::journal::{Disk, DiskFile, LockAttempt, RealDisk};
use hookbus::telemetry::logging;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The real disk, whose next sync of a segment fails once when told to.
struct FailingDisk(Arc<AtomicBool>);

struct FailingFile {
    file: Box<dyn DiskFile>,
    fails: Option<Arc<AtomicBool>>,
}

impl FailingDisk {
    fn wrap(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let is_segment = path.parent().is_some_and(|directory| directory.ends_with("journal"));
        Box::new(FailingFile { file, fails: is_segment.then(|| Arc::clone(&self.0)) })
    }
}

impl Disk for FailingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(directory)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(path, RealDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(path, RealDisk.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_dir(directory)
    }
    fn lock(&self, path: &Path, note: &str) -> io::Result<LockAttempt> {
        RealDisk.lock(path, note)
    }
}

impl DiskFile for FailingFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        match &self.fails {
            Some(fails) if fails.swap(false, Ordering::SeqCst) => Err(io::Error::other("the test says so")),
            _ => self.file.sync_data(),
        }
    }
}

async fn start(file: PathBuf, fails: &Arc<AtomicBool>) -> App {
    let config = Config::read(Some(file), &[], false).unwrap().config;
    let log_level = logging::install(&config.log).unwrap();
    App::start_on(config, log_level, Arc::new(FailingDisk(Arc::clone(fails)))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_promised_what_was_promised_goes_out_and_the_program_ends() {
    let folder = tempfile::tempdir().unwrap();
    let sink = HttpSink::start().await;
    let file = folder.path().join("hookbus.toml");
    let text = format!(
        "data_dir = {:?}\n[ingress]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"off\"\n\
         [sources.inbox.generic]\n{}",
        folder.path().join("data").display().to_string(),
        sink.table("orders")
    );
    std::fs::write(&file, text).unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let app = start(file.clone(), &fails).await;
    let (ingress, admin) = (app.ingress_address(), app.admin_address());
    let http = client();
    let post = async |number: u64| {
        let request = http.post(format!("http://{ingress}/hooks/inbox")).body(format!("{{\"n\":{number}}}"));
        request.send().await.unwrap()
    };
    let running = tokio::spawn(app.run(std::future::pending()));
    let order = async |what: &str| {
        let asked = http.post(format!("http://{admin}/api/v1/sinks/orders/{what}")).send().await.unwrap();
        assert!(asked.status().is_success());
    };

    order("pause").await;
    for number in 0..5 {
        assert_eq!(post(number).await.status(), 200);
    }
    fails.store(true, Ordering::SeqCst);
    for answer in futures_util::future::join_all((5..20).map(post)).await {
        assert_eq!(answer.status(), 503, "nobody is told that it is kept");
    }
    assert_eq!(http.get(format!("http://{admin}/readyz")).send().await.unwrap().status(), 503);
    assert_eq!(post(20).await.status(), 503, "nor later, though the disk would sync again");
    order("resume").await;
    let ended = tokio::time::timeout(PATIENCE, running).await.expect("it ends by itself").unwrap();
    assert_eq!(ended, Err(RunError::JournalFailed));
    let mut delivered: Vec<_> = sink.data_in_order().iter().map(|data| data["n"].as_u64().unwrap()).collect();
    delivered.sort_unstable();
    assert_eq!(delivered, [0, 1, 2, 3, 4], "what was durable goes out, and nothing else");

    let again = start(file, &fails).await;
    let address = again.ingress_address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(again.run(async { drop(stopped.await) }));
    let posted = http.post(format!("http://{address}/hooks/inbox")).body("{\"n\":5}").send().await.unwrap();
    assert_eq!(posted.status(), 200, "a new start recovers and takes events again");
    eventually("the sender's repeat is delivered", || async {
        sink.data_in_order().iter().any(|data| data["n"] == 5).then_some(())
    })
    .await;
    drop(stop);
    assert_eq!(running.await.unwrap(), Ok(()));
}
