//! R6 in the whole program: a sync of the journal fails once. Nobody is told "kept" who is not, what was kept still goes
//! out, and the program ends by itself.

use crate::support::disk::SteppedDisk;
use crate::support::http_sink::HttpSink;
use crate::support::{PATIENCE, client, eventually};
use hookbus::app::config::Config;
use hookbus::app::{App, Host, RunError};
use hookbus::telemetry::logging;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

async fn start(file: PathBuf, fails: &Arc<AtomicBool>) -> App {
    let config = Config::read(Some(file), &[], false).unwrap().config;
    let log_level = logging::install(&config.log).unwrap();
    let fails = Arc::clone(fails);
    let disk = SteppedDisk::new(move || match fails.swap(false, Ordering::SeqCst) {
        true => Err(io::Error::other("the test says so")),
        false => Ok(()),
    });
    App::start_on(config, log_level, Host { disk, ..Host::default() }).await.unwrap()
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
    let (ingress, admin) = (app.ingress().address().unwrap(), app.admin_address());
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
    let address = again.ingress().address().unwrap();
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
