//! The manifests of `deploy/kubernetes`: what Kubernetes' own schemas say of them, and that what belongs together agrees:
//! configuration, ports, probes, policies, volumes, secrets, and the times of a stop.

use crate::support::daemon::PROGRAM;
use crate::support::instruments;
use hookbus::app::config::Config;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Both ways to run it.
const BOTH: [&str; 2] = ["feed", "sidecar"];
/// The oldest version that the manifests say they need, and the newest that the schemas know.
const VERSIONS: [&str; 2] = ["1.30.0", "1.37.0"];
/// What a stop takes at most beyond `shutdown.grace`, as docs/operating/running.md says.
const STOP_MARGIN_SECONDS: u64 = 5;
const SECRETS: &str = "/run/secrets/hookbus";
const DATA: &str = "/var/lib/hookbus";
const MIB: u64 = 1024 * 1024;

/// The objects of one folder, as `kubectl apply -k` makes them.
pub(super) struct Manifests {
    folder: PathBuf,
    objects: Vec<Value>,
}

impl Manifests {
    pub(super) fn of(name: &str) -> Manifests {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes").join(name);
        let mut manifests = Manifests { folder, objects: Vec::new() };
        manifests.objects = manifests.files().iter().flat_map(|file| documents(file)).collect();
        manifests
    }

    /// The files that the kustomization names.
    fn files(&self) -> Vec<PathBuf> {
        let kustomization = &documents(&self.folder.join("kustomization.yaml"))[0];
        let names = kustomization["resources"].as_array().unwrap().iter();
        names.map(|name| self.folder.join(name.as_str().unwrap())).collect()
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    fn the(&self, kind: &str) -> &Value {
        let all = self.all(kind);
        assert_eq!(all.len(), 1, "{kind} in {}", self.folder.display());
        all[0]
    }

    fn pod(&self) -> &Value {
        &self.the("StatefulSet")["spec"]["template"]["spec"]
    }

    /// Hookbus's container; a sidecar is an init container.
    pub(super) fn hookbus(&self) -> &Value {
        let pod = self.pod();
        let containers = ["initContainers", "containers"].iter().filter_map(|list| pod[*list].as_array());
        containers.flatten().find(|container| container["name"] == "hookbus").unwrap()
    }

    /// The configuration in the ConfigMap.
    pub(super) fn configuration(&self) -> String {
        self.the("ConfigMap")["data"]["hookbus.toml"].as_str().unwrap().to_owned()
    }

    /// The number of a container's port that something names, or gives as a number.
    pub(super) fn port(&self, named: &Value) -> u64 {
        let ports = self.hookbus()["ports"].as_array().unwrap().iter();
        let mut found = ports.filter(|port| port["name"] == *named || port["containerPort"] == *named);
        found.next().unwrap_or_else(|| panic!("no container port {named}"))["containerPort"].as_u64().unwrap()
    }

    pub(super) fn stop_seconds(&self) -> u64 {
        self.pod()["terminationGracePeriodSeconds"].as_u64().unwrap()
    }

    pub(super) fn sleep_before_stop_seconds(&self) -> u64 {
        self.hookbus()["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap()
    }

    /// The configuration, read as the daemon reads it, with secrets that exist.
    fn loaded(&self) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = self.written(folder.path());
        let loaded = Config::read(Some(file), &[], false).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(loaded.warnings, []);
        loaded.config
    }

    /// The same as a file in `folder`, its secrets beside it.
    fn written(&self, folder: &Path) -> PathBuf {
        for secret in secrets_of(&self.configuration()) {
            std::fs::write(folder.join(secret), "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz").unwrap();
        }
        let file = folder.join("hookbus.toml");
        std::fs::write(&file, self.configuration().replace(SECRETS, folder.to_str().unwrap())).unwrap();
        file
    }
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let read =
        |text| yaml_serde::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.split("\n---\n").map(read).collect()
}

/// The names of the secrets' files that a configuration names; all are in the one folder.
pub(super) fn secrets_of(configuration: &str) -> BTreeSet<String> {
    let files = configuration.split("file = \"").skip(1).filter_map(|rest| rest.split('"').next());
    files.map(|file| file.strip_prefix(&format!("{SECRETS}/")).unwrap().to_owned()).collect()
}

fn validate(version: &str, files: &[PathBuf]) -> Output {
    let mut command = instruments::python("kubernetes-validate");
    command.args(["-k", version, "--strict"]).args(files).output().unwrap()
}

#[test]
fn every_manifest_is_what_kubernetes_understands() {
    let files: Vec<PathBuf> = BOTH.iter().flat_map(|name| Manifests::of(name).files()).collect();
    for version in VERSIONS {
        let said = validate(version, &files);
        let text =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{text}");
        let passed = text.lines().filter(|line| line.contains(" passed for resource ")).count();
        let objects: usize = BOTH.iter().map(|name| Manifests::of(name).objects.len()).sum();
        assert_eq!(passed, objects, "each object has a schema: {text}");
    }
}

#[test]
fn a_wrong_field_in_a_manifest_is_found() {
    let text = std::fs::read_to_string(Manifests::of("feed").folder.join("statefulset.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("statefulset.yaml");
    for (sentence, right, wrong) in [
        ("a name that is none", "readOnlyRootFilesystem: true", "readonlyRootFilesystem: true"),
        ("a value of another kind", "replicas: 2", "replicas: two"),
        ("what belongs elsewhere", "enableServiceLinks: false", "restartCount: 1"),
    ] {
        assert!(text.contains(right), "{sentence}");
        std::fs::write(&file, text.replace(right, wrong)).unwrap();
        assert!(!validate(VERSIONS[1], std::slice::from_ref(&file)).status.success(), "{sentence}");
    }
}

#[test]
fn every_file_is_applied_but_what_needs_an_operator() {
    for name in BOTH {
        let manifests = Manifests::of(name);
        let applied: BTreeSet<PathBuf> = manifests.files().into_iter().collect();
        let there = std::fs::read_dir(&manifests.folder).unwrap().map(|entry| entry.unwrap().path());
        let left_out: Vec<PathBuf> = there.filter(|file| !applied.contains(file)).collect();
        for file in left_out {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(["kustomization.yaml", "podmonitor.yaml"].contains(&name), "{name}");
        }
    }
}

#[test]
fn the_configuration_loads_and_check_is_content() {
    for name in BOTH {
        let manifests = Manifests::of(name);
        assert_eq!(manifests.loaded().data_dir, Path::new(DATA));
        let folder = tempfile::tempdir().unwrap();
        let file = manifests.written(folder.path());
        let check =
            Command::new(PROGRAM).arg("--config").arg(file).args(["check", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&check.stdout).unwrap();
        assert!(check.status.success() && report["valid"] == true, "{report}");
        assert_eq!(report["warnings"], json!([]));
        assert_eq!(manifests.hookbus()["args"], json!(["run", "--config", "/etc/hookbus/hookbus.toml"]));
        for source in report["sources"].as_array().unwrap() {
            assert_eq!(source["authenticated"], true, "{source}");
        }
    }
}

#[test]
fn ports_of_configuration_probes_services_and_policies_agree() {
    for name in BOTH {
        let manifests = Manifests::of(name);
        let config = manifests.loaded();
        let (http, admin) = (manifests.port(&json!("http")), manifests.port(&json!("admin")));
        let listens: Vec<u64> =
            config.ingress.endpoints().iter().map(|it| it.address.tcp().unwrap().port().into()).collect();
        assert_eq!((listens, u64::from(config.admin.listen.port())), (vec![http], admin));
        assert!(
            config.admin.listen.ip().is_unspecified() && config.admin.token.is_some(),
            "probes come from outside"
        );
        for (probe, path) in
            [("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]
        {
            let asked = &manifests.hookbus()[probe]["httpGet"];
            assert_eq!(
                (manifests.port(&asked["port"]), asked["path"].as_str()),
                (admin, Some(path)),
                "{probe}"
            );
        }
        for service in manifests.all("Service") {
            let is_headless = service["spec"]["clusterIP"] == "None";
            let target = manifests.port(&service["spec"]["ports"][0]["targetPort"]);
            assert_eq!(
                target,
                if is_headless { admin } else { http },
                "the public Service leads to the ingress only"
            );
            assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 1);
        }
        let rules = manifests.the("NetworkPolicy")["spec"]["ingress"].as_array().unwrap();
        let open: Vec<u64> = rules
            .iter()
            .filter(|rule| rule["from"].is_null())
            .map(|rule| manifests.port(&rule["ports"][0]["port"]))
            .collect();
        assert_eq!(open, [http], "only the ingress is open to everybody");
        assert_eq!(rules.len(), 2);
        assert_eq!(manifests.port(&rules[1]["ports"][0]["port"]), admin);
    }
}

#[test]
fn the_feed_may_go_where_its_sink_is_and_the_sidecar_stays_in_the_pod() {
    let feed = Manifests::of("feed");
    let egress = feed.the("NetworkPolicy")["spec"]["egress"].as_array().unwrap().clone();
    let configuration = feed.configuration();
    let url = configuration.split("url = \"nats://").nth(1).unwrap().split('"').next().unwrap();
    let (host, port) = url.rsplit_once(':').unwrap();
    let namespace = host.split('.').nth(1).unwrap();
    let allows = |rule: &&Value| {
        rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace
    };
    let rule = egress.iter().find(allows).expect("the sink's namespace is allowed");
    assert_eq!(rule["ports"][0]["port"].to_string(), port);
    assert!(egress.iter().any(|rule| rule["ports"][0]["port"] == 53), "names are looked up");
    assert!(Manifests::of("sidecar").configuration().contains("url = \"http://127.0.0.1:"));
}

#[test]
fn a_stop_fits_into_the_time_that_the_pod_has() {
    for (name, application_seconds) in [("feed", 0), ("sidecar", 25)] {
        let manifests = Manifests::of(name);
        let grace = manifests.loaded().shutdown.grace.get();
        assert!(manifests.configuration().contains("[shutdown]\n"), "{name}: what it follows from is shown");
        // A sidecar's preStop runs beside the application's end; its signal comes after both.
        let before = manifests.sleep_before_stop_seconds().max(application_seconds);
        let all = Duration::from_secs(before + STOP_MARGIN_SECONDS) + grace;
        assert!(all <= Duration::from_secs(manifests.stop_seconds()), "{name}: {all:?}");
        assert!(manifests.sleep_before_stop_seconds() > 0, "{name}");
    }
}

/// `"10Gi"`, in bytes.
fn quantity(text: &Value) -> u64 {
    let text = text.as_str().unwrap();
    let (number, unit) = text.split_at(text.len() - 2);
    let unit = match unit {
        "Mi" => MIB,
        "Gi" => 1024 * MIB,
        other => panic!("the unit {other}"),
    };
    number.parse::<u64>().unwrap() * unit
}

#[test]
fn disk_and_memory_hold_what_the_configuration_lets_in() {
    for name in BOTH {
        let manifests = Manifests::of(name);
        let config = manifests.loaded();
        let claim = &manifests.the("StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"];
        let disk = config.journal.disk_max.get() + config.dead_letters.disk_max.get();
        // File systems keep some for themselves.
        assert!(disk * 10 <= quantity(&claim["resources"]["requests"]["storage"]) * 9, "{name}: {disk}");
        let (bodies, identities) = (
            u64::from(config.ingress.requests_max) * config.ingress.body_max.get(),
            config.journal.dedupe_max,
        );
        let identities = u64::from(identities) * 128;
        let memory = bodies + identities + config.journal.recent_max.get() + 64 * MIB;
        let limit = quantity(&manifests.hookbus()["resources"]["limits"]["memory"]);
        assert!(memory <= limit, "{name}: {} MiB", memory / MIB);
    }
}

#[test]
fn the_pods_satisfy_the_restricted_standard_and_write_nowhere_but_to_the_volume() {
    for name in BOTH {
        let manifests = Manifests::of(name);
        let pod = manifests.pod();
        let context = &pod["securityContext"];
        assert_eq!(
            (&context["runAsNonRoot"], &context["seccompProfile"]["type"]),
            (&json!(true), &json!("RuntimeDefault"))
        );
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(context[id], 65532, "the image's user: {id}");
        }
        assert_eq!(
            (&pod["automountServiceAccountToken"], &pod["enableServiceLinks"]),
            (&json!(false), &json!(false))
        );
        let containers = ["initContainers", "containers"].iter().filter_map(|list| pod[*list].as_array());
        for container in containers.flatten() {
            let wanted = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]}});
            assert_eq!(container["securityContext"], wanted, "{name}: {}", container["name"]);
        }
        let hookbus = manifests.hookbus();
        assert!(
            hookbus["image"].as_str().unwrap().ends_with(concat!("/hookbus:", env!("CARGO_PKG_VERSION")))
        );
        let mounts = hookbus["volumeMounts"].as_array().unwrap();
        let writable: Vec<&Value> = mounts
            .iter()
            .filter(|mount| mount["readOnly"] != true)
            .map(|mount| &mount["mountPath"])
            .collect();
        assert_eq!(writable, [DATA]);
        assert!(mounts.iter().any(|mount| mount["mountPath"] == SECRETS));
        assert!(hookbus["env"].is_null(), "secrets are files");
    }
    let sidecar = Manifests::of("sidecar");
    let init = sidecar.pod()["initContainers"].as_array().unwrap();
    assert!(init.len() == 1 && init[0]["restartPolicy"] == "Always", "a native sidecar");
}

#[test]
fn the_journal_lies_on_a_volume_that_outlives_the_pod() {
    for name in BOTH {
        let manifests = Manifests::of(name);
        let set = &manifests.the("StatefulSet")["spec"];
        let mounts = manifests.hookbus()["volumeMounts"].as_array().unwrap().iter();
        let data = mounts.clone().find(|mount| mount["mountPath"] == DATA).unwrap();
        assert_eq!(set["volumeClaimTemplates"][0]["metadata"]["name"], data["name"]);
        let volumes = manifests.pod()["volumes"].as_array().unwrap();
        assert!(volumes.iter().all(|volume| volume["emptyDir"].is_null() && volume["ephemeral"].is_null()));
        assert_eq!(
            set["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(set["podManagementPolicy"], "Parallel");
    }
}

#[test]
fn what_names_another_object_names_one_that_is_there() {
    for name in BOTH {
        let manifests = Manifests::of(name);
        let (set, pod) = (&manifests.the("StatefulSet")["spec"], manifests.pod());
        let labels = &set["template"]["metadata"]["labels"];
        let selectors = [&set["selector"]["matchLabels"]]
            .into_iter()
            .chain(manifests.all("Service").into_iter().map(|service| &service["spec"]["selector"]))
            .chain(
                pod["topologySpreadConstraints"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|it| &it["labelSelector"]["matchLabels"]),
            )
            .chain([
                &manifests.the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
                &manifests.the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            ]);
        for selector in selectors {
            assert_eq!(selector, labels, "{name}");
        }
        let headless =
            manifests.all("Service").into_iter().find(|it| it["spec"]["clusterIP"] == "None").unwrap();
        assert_eq!(set["serviceName"], headless["metadata"]["name"]);
        assert_eq!(pod["serviceAccountName"], manifests.the("ServiceAccount")["metadata"]["name"]);
        let volumes = pod["volumes"].as_array().unwrap();
        let maps: Vec<&Value> =
            volumes.iter().filter_map(|volume| volume.get("configMap")).map(|map| &map["name"]).collect();
        assert_eq!(maps, [&manifests.the("ConfigMap")["metadata"]["name"]]);
    }
}

#[test]
fn the_documents_create_every_secret_that_a_configuration_reads() {
    for (name, page) in [("feed", "kubernetes.md"), ("sidecar", "sidecar.md")] {
        let manifests = Manifests::of(name);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating").join(page);
        let page = std::fs::read_to_string(path).unwrap();
        let volumes = manifests.pod()["volumes"].as_array().unwrap();
        let secret = volumes.iter().find_map(|volume| volume["secret"]["secretName"].as_str()).unwrap();
        assert!(page.contains(&format!("create secret generic {secret} ")), "{secret}");
        for key in secrets_of(&manifests.configuration()) {
            assert!(page.contains(&format!("--from-file={key}")), "{key}");
        }
    }
    let monitor = &documents(&Manifests::of("feed").folder.join("podmonitor.yaml"))[0]["spec"];
    let endpoint = &monitor["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&json!("admin"), &json!("/metrics")));
    assert_eq!(endpoint["authorization"]["credentials"], json!({"name": "hookbus", "key": "admin-token"}));
}

#[test]
fn the_bus_that_the_documents_show_may_stand_beside_the_application() {
    let mut sidecar = Manifests::of("sidecar");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating/sidecar.md");
    let page = std::fs::read_to_string(page).unwrap();
    let shown = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let both = sidecar.configuration() + shown;
    let map = sidecar.objects.iter_mut().find(|object| object["kind"] == "ConfigMap").unwrap();
    map["data"]["hookbus.toml"] = both.into();
    assert_eq!(sidecar.loaded().sinks.len(), 2);
}
