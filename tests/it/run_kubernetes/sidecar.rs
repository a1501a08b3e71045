//! The life of a pod with the sidecar, as processes: the test is the kubelet, and asks the probes of the manifest.
//! Holds: R4 through the pod's end and its next start on the same volume.

use super::manifests::{Manifests, secrets_of};
use crate::support::daemon::Daemon;
use crate::support::http_sink::HttpSink;
use crate::support::{client, eventually, eventually_within};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What the pod keeps while its containers come and go: the volume, the mounts, the application's address.
struct Pod {
    manifests: Manifests,
    folder: TempDir,
    application: HttpSink,
}

impl Pod {
    /// Nothing runs yet.
    async fn new() -> Pod {
        let mut application = HttpSink::start().await;
        application.goes_down().await;
        let pod =
            Pod { manifests: Manifests::of("sidecar"), folder: tempfile::tempdir().unwrap(), application };
        pod.mounts_secrets("first");
        pod
    }

    /// As the kubelet does: each file is a link to a folder's link, and that link is replaced.
    fn mounts_secrets(&self, value: &str) {
        let mount = self.folder.path().join("secrets");
        let version = mount.join(format!("..{value}"));
        std::fs::create_dir_all(&version).unwrap();
        for name in secrets_of(&self.manifests.configuration()) {
            std::fs::write(version.join(&name), value).unwrap();
            if !mount.join(&name).exists() {
                std::os::unix::fs::symlink(Path::new("..data").join(&name), mount.join(&name)).unwrap();
            }
        }
        std::os::unix::fs::symlink(format!("..{value}"), mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    }

    /// The configuration of the manifest, with this machine's places for the mounts and the application.
    fn configuration(&self) -> String {
        let (data, secrets) = (self.folder.path().join("data"), self.folder.path().join("secrets"));
        let application = self.application.address.to_string();
        let places = [
            ("\"/var/lib/hookbus\"", format!("{data:?}")),
            ("/run/secrets/hookbus", secrets.display().to_string()),
            ("127.0.0.1:3000", application),
        ];
        places.iter().fold(self.manifests.configuration(), |text, (place, here)| {
            assert!(text.contains(place), "{place}");
            text.replace(place, here)
        })
    }

    /// Starts the sidecar and waits for its startup probe, as long as the manifest lets it; only then the application.
    async fn starts(&mut self, change: impl Fn(String) -> String) -> Daemon {
        let sidecar = self.starts_the_sidecar(change).await;
        self.application.comes_back().await;
        sidecar
    }

    async fn starts_the_sidecar(&self, change: impl Fn(String) -> String) -> Daemon {
        let sidecar = Daemon::start(self.folder.path(), &change(self.configuration())).await;
        let probe = &self.manifests.hookbus()["startupProbe"];
        let seconds = ["periodSeconds", "failureThreshold"].map(|key| probe[key].as_u64().unwrap());
        eventually_within(Duration::from_secs(seconds[0] * seconds[1]), "the startup probe", || async {
            self.probe(&sidecar, "startupProbe").await.then_some(())
        })
        .await;
        sidecar
    }

    /// Asks a probe of the manifest, as the kubelet: without a token, any status from 200 to 399 is good.
    async fn probe(&self, sidecar: &Daemon, name: &str) -> bool {
        let probe = &self.manifests.hookbus()[name];
        let asked = &probe["httpGet"];
        assert_eq!(self.manifests.port(&asked["port"]), self.manifests.port(&json!("admin")));
        let url = format!("http://{}{}", sidecar.admin, asked["path"].as_str().unwrap());
        let timeout = Duration::from_secs(probe["timeoutSeconds"].as_u64().unwrap());
        let answer = client().get(url).timeout(timeout).send().await;
        answer.is_ok_and(|answer| (200..400).contains(&answer.status().as_u16()))
    }

    async fn all_are_delivered(&self, promised: &BTreeSet<String>) {
        eventually("the application has every event that was promised", || async {
            let confirmed = self.application.confirmed();
            promised.iter().all(|id| confirmed.contains_key(id)).then_some(())
        })
        .await;
    }
}

fn webhook(id: &str, padding: usize) -> String {
    json!({"event_id": id, "event_type": "order.paid", "customer": {"id": id.len()}, "pad": "x".repeat(padding)})
        .to_string()
}

/// Senders who go on whatever happens, and what was promised to them.
struct Senders {
    promised: Arc<Mutex<BTreeSet<String>>>,
    address: Arc<Mutex<std::net::SocketAddr>>,
    refused: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Senders {
    fn post_to(sidecar: &Daemon) -> Senders {
        let mut senders = Senders {
            promised: Arc::default(),
            address: Arc::new(Mutex::new(sidecar.ingress)),
            refused: Arc::default(),
            is_over: Arc::default(),
            tasks: Vec::new(),
        };
        senders.tasks = (0..4).map(|sender| senders.task(sender)).collect();
        senders
    }

    fn task(&self, sender: usize) -> tokio::task::JoinHandle<()> {
        let (promised, address) = (Arc::clone(&self.promised), Arc::clone(&self.address));
        let (refused, is_over) = (Arc::clone(&self.refused), Arc::clone(&self.is_over));
        let client = client();
        tokio::spawn(async move {
            for number in 0_u64.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("{sender}-{number}");
                let url = format!("http://{}/hooks/shop/first", *address.lock().unwrap());
                let request =
                    client.post(url).header("content-type", "application/json").body(webhook(&id, 0));
                match request.send().await {
                    Ok(answer) if answer.status() == 200 => {
                        let answer: Value = answer.json().await.unwrap();
                        assert_eq!(answer["id"], id.as_str());
                        promised.lock().unwrap().insert(id);
                    }
                    Ok(answer) => {
                        assert_eq!(answer.status(), 503, "kept, or refused");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        assert!(error.is_connect(), "a request that was taken was not answered: {error:?}");
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                }
            }
        })
    }

    /// Waits until some more are promised.
    async fn get_promises(&self, more: usize) {
        let enough = self.promised.lock().unwrap().len() + more;
        eventually("more is promised", || async {
            (self.promised.lock().unwrap().len() >= enough).then_some(())
        })
        .await;
    }

    async fn end(self) -> BTreeSet<String> {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every answer was a promise or a refusal");
        }
        self.promised.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_start_end_and_the_next_start_of_the_pod_nothing_promised_is_lost() {
    let mut pod = Pod::new().await;
    let sidecar = pod.starts_the_sidecar(|same| same).await;
    assert!(pod.probe(&sidecar, "readinessProbe").await, "it takes webhooks before there is an application");
    let senders = Senders::post_to(&sidecar);
    senders.get_promises(50).await;
    assert_eq!(pod.application.requests(), 0, "the application is not there yet");
    pod.application.comes_back().await;
    eventually("events flow", || async { (pod.application.confirmed().len() > 100).then_some(()) }).await;
    assert!(pod.probe(&sidecar, "livenessProbe").await);

    // The pod ends: the application has its signal and ends, while the sidecar's preStop holds back its own.
    pod.application.goes_down().await;
    assert!(pod.manifests.sleep_before_stop_seconds() > 0);
    senders.get_promises(50).await;
    assert!(
        pod.probe(&sidecar, "readinessProbe").await,
        "an application that is gone is no reason to refuse webhooks"
    );
    let mut sidecar = sidecar;
    sidecar.ask_to_stop();
    let time = Duration::from_secs(pod.manifests.stop_seconds());
    let ended =
        tokio::time::timeout(time, sidecar.ended()).await.expect("it ends in the time that the pod has");
    assert_eq!(ended.code(), Some(0));
    let refused = senders.refused.load(Ordering::Relaxed);
    eventually("senders are refused now", || async {
        (senders.refused.load(Ordering::Relaxed) > refused).then_some(())
    })
    .await;
    let confirmed = pod.application.confirmed();
    let waits = senders.promised.lock().unwrap().iter().any(|id| !confirmed.contains_key(id));
    assert!(waits, "what came after the application had ended is on the volume");

    // The next pod, on the same volume.
    let sidecar = pod.starts(|same| same).await;
    *senders.address.lock().unwrap() = sidecar.ingress;
    senders.get_promises(50).await;
    let promised = senders.end().await;
    pod.all_are_delivered(&promised).await;
    assert_eq!(sidecar.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_sidecar_with_a_full_journal_lets_its_application_start_and_gets_room() {
    let small = |text: String| {
        let changed = text
            .replace("disk_max = \"2GiB\"", "disk_max = \"64KiB\"\nsegment = \"16KiB\"")
            .replace("requests_max = 64", "requests_max = 64\nbody_max = \"4KiB\"");
        assert!(changed.contains("16KiB") && changed.contains("4KiB"));
        changed
    };
    let mut pod = Pod::new().await;
    let mut sidecar = pod.starts_the_sidecar(small).await;
    let mut promised = BTreeSet::new();
    loop {
        let id = promised.len().to_string();
        if sidecar.post("/hooks/shop/first", webhook(&id, 2000)).await.unwrap().status == 503 {
            break;
        }
        promised.insert(id);
        assert!(promised.len() < 1000, "it fills up");
    }
    sidecar.kill_now();
    sidecar.ended().await;

    let sidecar = pod.starts_the_sidecar(small).await;
    let refused = sidecar.post("/hooks/shop/first", webhook("one more", 2000)).await.unwrap();
    assert_eq!(refused.status, 503);
    eventually("the readiness probe fails", || async {
        (!pod.probe(&sidecar, "readinessProbe").await).then_some(())
    })
    .await;
    assert!(pod.probe(&sidecar, "livenessProbe").await, "nobody restarts it for that");
    pod.application.comes_back().await;
    pod.all_are_delivered(&promised).await;
    eventually("it takes webhooks again", || async {
        pod.probe(&sidecar, "readinessProbe").await.then_some(())
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_secret_that_changes_in_its_mount_counts_after_a_reload() {
    let mut pod = Pod::new().await;
    let sidecar = pod.starts(|same| same).await;
    assert_eq!(sidecar.post("/hooks/shop/first", webhook("1", 0)).await.unwrap().status, 200);
    pod.mounts_secrets("second");
    let reload = ["-HUP".to_owned(), sidecar.pid().to_string()];
    assert!(std::process::Command::new("kill").args(reload).status().unwrap().success());
    eventually("the new path counts", || async {
        let answer = sidecar.post("/hooks/shop/second", webhook("2", 0)).await.unwrap();
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(sidecar.post("/hooks/shop/first", webhook("3", 0)).await.unwrap().status, 404);
    pod.all_are_delivered(&["1", "2"].map(str::to_owned).into()).await;
    sidecar.stop().await;
}
