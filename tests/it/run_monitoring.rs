//! What is watched and alerted on: the rules, the dashboard and the scrape configuration, by promtool, and by a real
//! Prometheus that scrapes two real daemons under load, one of them in trouble.
//! Holds: every query of rules and dashboard runs and finds its series; every metric of the code is used or named here as
//! left out on purpose; what the document says of alerts and cardinality is what the files and a scrape say.

use crate::support::authority::Authority;
use crate::support::brokers::nats::Nats;
use crate::support::brokers::{Leashed, free_port};
use crate::support::daemon::Daemon;
use crate::support::gateway::Gateway;
use crate::support::http_sink::{HttpSink, Mood};
use crate::support::{client, eventually};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const RULES: &str = "deploy/prometheus/alerts.yml";
const RULES_TEST: &str = "deploy/prometheus/alerts_test.yml";
const DASHBOARD: &str = "deploy/grafana/hookbus.json";
const DOCUMENT: &str = "docs/operating/monitoring.md";

/// Metrics that neither a rule nor the dashboard uses, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("hookbus_journal_records_total", "the events of all sources together, plus what polls found"),
    ("hookbus_journal_duplicates_total", "the duplicates of all sources together"),
    ("hookbus_quarantines_created_total", "the ingress counts them by source and reason"),
];

/// Alerts that must fire in the run below, and an instance for which they must: `busy`, `full`, or `nobody`.
const FIRE: &[(&str, &str)] = &[
    ("HookbusCertificateAges", "busy"),
    ("HookbusCertificateRunsOut", "busy"),
    ("HookbusDown", "nobody"),
    ("HookbusNewDeadLetters", "busy"),
    ("HookbusNotReady", "full"),
    ("HookbusQuarantined", "busy"),
    ("HookbusRefusing", "full"),
    ("HookbusShedding", "busy"),
    ("HookbusSinkAway", "full"),
    ("HookbusSinkCertificateRunsOut", "busy"),
    ("HookbusSinkPaused", "busy"),
    ("HookbusUnauthorized", "busy"),
    ("HookbusUnrouted", "busy"),
];

/// Alerts that nothing in the run below is a reason for. The others depend on how quick the machine is.
const QUIET: &[&str] = &[
    "HookbusAbsent",
    "HookbusCertificateUnusable",
    "HookbusDataDamaged",
    "HookbusDeadLetterStoreFailed",
    "HookbusDeadLettersFillingUp",
    "HookbusDeadLettersUnaccounted",
    "HookbusDeadLettersUnreadable",
    "HookbusEventsMissing",
    "HookbusEventsUnaccounted",
    "HookbusReloadFailed",
    "HookbusRestarting",
    "HookbusSinkStuck",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there; tests/run instruments installs it");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // It may end without reading.
    let _ = writer.join().unwrap();
    output
}

#[track_caller]
fn assert_clean(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

// === The rules by themselves

/// An alert as its file writes it.
struct Alert {
    name: String,
    after: String,
    severity: String,
    summary: String,
    runbook: String,
}

/// Reads what the document shows of the rules; each value stands on the line of its key.
fn alerts() -> Vec<Alert> {
    let rules = text(RULES);
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(|value| value.trim().trim_matches('"').to_owned())
    };
    let read = |block: &str| {
        let name = block.lines().next().unwrap().trim().to_owned();
        let severity = value(block, "labels: {severity:").expect(&name);
        Alert {
            after: value(block, "for:").unwrap_or_else(|| "at once".to_owned()),
            severity: severity.trim_end_matches('}').to_owned(),
            summary: value(block, "summary:").expect(&name),
            runbook: value(block, "runbook:").expect(&name),
            name,
        }
    };
    rules.split("- alert:").skip(1).map(read).collect()
}

#[test]
fn the_rules_are_sound_and_each_fires_when_it_should_and_only_then() {
    assert_clean(&promtool(&["check", "rules", RULES], ""));
    assert_clean(&promtool(&["test", "rules", RULES_TEST], ""));
    let tests = text(RULES_TEST);
    for Alert { name, .. } in alerts() {
        let cases: Vec<&str> =
            tests.split("alertname: ").filter(|case| case.lines().next() == Some(&name)).collect();
        let quiet = cases.iter().filter(|case| case.contains("exp_alerts: []")).count();
        assert!(quiet > 0, "{RULES_TEST} has no case in which {name} is quiet");
        assert!(cases.len() > quiet, "{RULES_TEST} has no case in which {name} fires");
    }
}

/// As GitHub and most others make an anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_has_a_severity_and_a_runbook_that_exists() {
    for Alert { name, severity, runbook, .. } in alerts() {
        assert!(matches!(&*severity, "page" | "ticket"), "{name}: {severity}");
        let (file, wanted) = runbook.split_once('#').expect(&name);
        let document = text(file);
        let mut headings = document.lines().filter(|line| line.starts_with('#'));
        let is_there = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == wanted);
        assert!(is_there, "{name}: no heading {wanted} in {file}");
    }
}

/// `{{ $labels.sink }}` becomes *sink*, and what shows the value becomes *n*.
fn readable(summary: &str) -> String {
    let mut parts = summary.split("{{");
    let mut readable = parts.next().unwrap().to_owned();
    for part in parts {
        let (template, rest) = part.split_once("}}").unwrap();
        let label = template.trim().strip_prefix("$labels.");
        write!(readable, "*{}*{rest}", label.unwrap_or("n")).unwrap();
    }
    readable
}

fn alert_table() -> String {
    let mut table =
        "\n| alert | severity | after | it says | what to do |\n|---|---|---|---|---|\n".to_owned();
    for Alert { name, after, severity, summary, runbook } in alerts() {
        let (file, heading) = runbook.split_once('#').unwrap();
        let link = format!("{}#{heading}", file.rsplit('/').next().unwrap());
        let says = readable(&summary);
        writeln!(table, "| `{name}` | {severity} | {after} | {says} | [runbook]({link}) |").unwrap();
    }
    table + "\n"
}

#[test]
fn the_alerts_of_the_document_are_those_of_the_file() {
    let (begin, end) =
        ("<!-- alerts: written by tests/it/run_monitoring.rs -->\n", "<!-- end of the alerts -->");
    let document = text(DOCUMENT);
    let (before, rest) = document.split_once(begin).expect("where the table begins");
    let (shown, after) = rest.split_once(end).expect("where the table ends");
    let table = alert_table();
    if std::env::var_os("HOOKBUS_WRITE_DOCS").is_some() {
        std::fs::write(root().join(DOCUMENT), format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(shown, table, "HOOKBUS_WRITE_DOCS=1 cargo test --test it run_monitoring writes it anew");
    }
}

// === Queries

/// A query and where it stands.
struct Query {
    place: String,
    expr: String,
}

/// The values of the dashboard's variables when all of each is chosen, and what Grafana fills in by itself.
const VARIABLES: &[(&str, &str)] = &[
    ("$instance", ".*"),
    ("$sink", ".*"),
    ("$source", ".*"),
    ("$__rate_interval", "1m"),
    ("$__range", "1h"),
];

/// Every panel's queries, those of panels in collapsed rows too, and those of the variables.
fn dashboard_queries() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let mut queries = Vec::new();
    panels_queries(&dashboard, &mut queries);
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (series, label) = inside.expect(query).rsplit_once(',').expect(query);
        let expr = format!("count by ({}) ({series})", label.trim());
        queries.push(Query { place: format!("variable {}", variable["name"]), expr });
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        // What marks a moment gives nothing at most moments, so its series stand for it.
        let place = format!("annotation {}", annotation["name"]);
        let series = selectors(annotation["expr"].as_str().unwrap());
        queries.extend(series.into_iter().map(|expr| Query { place: place.clone(), expr }));
    }
    for query in &mut queries {
        for (name, value) in VARIABLES {
            query.expr = query.expr.replace(name, value);
        }
        assert!(!query.expr.contains('$'), "{}: a variable that is not one: {}", query.place, query.expr);
    }
    queries
}

fn panels_queries(parent: &Value, queries: &mut Vec<Query>) {
    for panel in parent["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let place = format!("panel {} {}", panel["title"], target["refId"]);
            queries.push(Query { place, expr: target["expr"].as_str().unwrap().to_owned() });
        }
        if panel["panels"].is_array() {
            panels_queries(panel, queries);
        }
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// Every selector of a query with its labels, `hookbus_ready{job="hookbus"}`; the names of recorded series too.
fn selectors(expr: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expr;
    while let Some(start) = rest.find(is_of_a_name) {
        let word = rest[start..].split(|c| !is_of_a_name(c)).next().unwrap();
        let after = &rest[start + word.len()..];
        // A label's value may be a name too: "hookbus".
        if word.starts_with("hookbus_") || word.contains(":hookbus_") {
            let labels = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            found.insert(labels.map_or_else(|| word.to_owned(), |(labels, _)| format!("{word}{{{labels}}}")));
        }
        rest = after;
    }
    found
}

/// The names of the metrics in a query, without what a histogram appends.
fn metrics_of(expr: &str) -> BTreeSet<String> {
    let names = selectors(expr).into_iter().filter_map(|selector| {
        let name = selector.split('{').next().unwrap();
        (!name.contains(':')).then(|| name.to_owned())
    });
    let plain = |name: String| {
        let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        histogram.map_or(name.clone(), str::to_owned)
    };
    names.map(plain).collect()
}

/// Every metric that the code declares.
fn metrics_of_the_code() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("src/telemetry/metrics")).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let quoted = source.split('"').filter(|text| text.starts_with("hookbus_"));
        names.extend(quoted.map(str::to_owned));
    }
    names
}

#[test]
fn the_dashboard_can_be_read_and_edited_by_hand() {
    let written = text(DASHBOARD);
    let dashboard: Value = serde_json::from_str(&written).unwrap();
    assert!(dashboard["id"].is_null(), "Grafana gives it one");
    assert!(written.lines().all(|line| line.len() < 500), "one thing a line");
    let mut ids = BTreeSet::new();
    let mut open: Vec<&Value> = dashboard["panels"].as_array().unwrap().iter().collect();
    while let Some(panel) = open.pop() {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is there twice");
        open.extend(panel["panels"].as_array().into_iter().flatten());
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        assert!(
            panel["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{title} explains nothing"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
    }
}

#[test]
fn every_metric_is_watched_or_left_out_on_purpose() {
    let mut used: BTreeSet<String> = selectors(&text(RULES)).iter().flat_map(|one| metrics_of(one)).collect();
    used.extend(dashboard_queries().iter().flat_map(|query| metrics_of(&query.expr)));
    let code = metrics_of_the_code();
    let unknown: Vec<&String> = used.difference(&code).collect();
    assert!(unknown.is_empty(), "not in the code: {unknown:?}");
    let unused: BTreeSet<&str> = code.difference(&used).map(String::as_str).collect();
    assert_eq!(unused, LEFT_OUT.iter().map(|(name, _)| *name).collect());
}

// === Against the real thing

const TOKEN: &str = "a-token-for-the-scrapes";

/// A Prometheus with the configuration of the document and the rules of the file, quicker.
struct Prometheus {
    _process: Leashed,
    _folder: TempDir,
    url: String,
    http: reqwest::Client,
}

#[track_caller]
fn replace_once(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

/// The first block of code after a comment in the document.
fn block_after(comment: &str) -> String {
    let document = text(DOCUMENT);
    let after = document.split(comment).nth(1).unwrap_or_else(|| panic!("no {comment}"));
    let block = after.split("```").nth(1).unwrap();
    block.split_once('\n').unwrap().1.to_owned()
}

impl Prometheus {
    async fn start(targets: &[String]) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("token"), TOKEN).unwrap();
        let waits = |line: &&str| line.trim().starts_with("for:");
        let rules: Vec<String> = text(RULES)
            .lines()
            .map(|line| if waits(&line) { "        for: 1s".to_owned() } else { line.to_owned() })
            .collect();
        std::fs::write(path("alerts.yml"), rules.join("\n")).unwrap();
        let shown = block_after("<!-- scrape -->");
        let quoted: Vec<String> = targets.iter().map(|target| format!("{target:?}")).collect();
        let config = replace_once(&shown, "\"127.0.0.1:8081\"", &quoted.join(", "));
        let config = replace_once(&config, "/etc/prometheus/hookbus-token", path("token").to_str().unwrap());
        let config =
            replace_once(&config, "/etc/prometheus/hookbus-alerts.yml", path("alerts.yml").to_str().unwrap());
        assert_eq!(config.matches("15s").count(), 2, "{config}");
        std::fs::write(path("prometheus.yml"), config.replace("15s", "1s")).unwrap();
        assert_clean(&promtool(&["check", "config", path("prometheus.yml").to_str().unwrap()], ""));

        let listen = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .arg("--log.level=warn")
            .current_dir(folder.path());
        let process = Leashed::spawn("prometheus", &command, &path("log"));
        let (url, http) = (format!("http://{listen}"), client());
        let ready = async || {
            let answer = http.get(format!("{url}/-/ready")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        process.until(ready).await;
        Prometheus { _process: process, _folder: folder, url, http }
    }

    async fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("{}/api/v1/{path}", self.url);
        let url = reqwest::Url::parse_with_params(&url, parameters).unwrap();
        let body = self.http.get(url).send().await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// How many series a query gives now.
    async fn series(&self, Query { place, expr }: &Query) -> usize {
        let answer = self.data("query", &[("query", expr)]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{place}: {error}\n{expr}"));
        answer["result"].as_array().unwrap().len()
    }

    /// Waits until every query gives something.
    async fn all_give(&self, queries: &[Query]) {
        for query in queries {
            let what = format!("{} gives data: {}", query.place, query.expr);
            eventually(&what, || async { (self.series(query).await > 0).then_some(()) }).await;
        }
    }

    /// Every rule as Prometheus read it.
    async fn rules(&self) -> Vec<Value> {
        let groups = self.data("rules", &[]).await.unwrap()["groups"].take();
        let rules = groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
        rules.cloned().collect()
    }

    /// The instances for which each alert fires.
    async fn firing(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut firing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for alert in self.data("alerts", &[]).await.unwrap()["alerts"].as_array().unwrap() {
            if alert["state"] == "firing" {
                let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
                firing.entry(label("alertname")).or_default().insert(label("instance"));
            }
        }
        firing
    }
}

/// Two daemons: one busy over several kinds of sinks, with TLS, a poll, a sink that takes nothing and is shed, and one that
/// refuses some events; the other full because its only sink takes nothing.
struct Scene {
    busy: Daemon,
    full: Daemon,
    busy_plain: String,
    _folders: [TempDir; 2],
    _nats: Nats,
    _sinks: [HttpSink; 3],
}

const JOURNAL: &str = "[journal]\nsegment = '16KiB'\ndisk_max = '64KiB'\n";

fn admin_token() -> String {
    format!("[admin]\ntoken = '{TOKEN}'\n")
}

impl Scene {
    async fn start() -> Scene {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [folder, other] = [folders[0].path(), folders[1].path()];
        let soon = SystemTime::now() + Duration::from_secs(2 * 24 * 3600);
        Authority::new().pair_until("localhost", soon).write(folder);
        let gateway = Gateway::start("INSTANCE", "token", "client").await;
        let nats = Nats::start().await;
        let (orders, picky, mut gone) =
            (HttpSink::start().await, HttpSink::start().await, HttpSink::start().await);
        picky.is(Mood::Refuses(422, (0..1_000_000).step_by(10).collect()));
        gone.goes_down().await;
        let plain = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "[ingress]\nbody_max = '4KiB'\nplain_listen = ['{plain}']\n\
             [ingress.tls]\ncert = 'tls.crt'\nkey = 'tls.key'\n{}{JOURNAL}\
             [sources.inbox]\non_unreadable = 'quarantine'\n[sources.inbox.generic]\nid = '/id'\n\
             [sources.closed.generic.auth]\nbearer = 'right'\n[sources.lost.generic]\n\
             [sources.whatsapp]\n[sources.whatsapp.zapi]\napi = '{}'\ninstance = 'INSTANCE'\ntoken = 'token'\n\
             client_token = 'client'\npoll = '10s'\n\
             [[routes]]\nfrom = ['inbox', 'closed', 'whatsapp']\n\
             to = ['audit', 'orders', 'picky', 'gone', 'news', 'waiting', 'secured']\n\
             [sinks.audit.file]\npath = 'audit.ndjson'\n{}{}[sinks.gone]\non_backlog_full = 'shed_oldest'\n{}\
             [sinks.news.nats]\nurl = '{}'\nsubject = 'hooks.news'\n\
             [sinks.waiting]\non_backlog_full = 'shed_oldest'\n[sinks.waiting.file]\npath = 'waiting.ndjson'\n\
             [sinks.secured]\non_backlog_full = 'shed_oldest'\n[sinks.secured.http]\nurl = 'https://{}/'\nca = 'tls.crt'\n",
            admin_token(),
            gateway.api(),
            orders.table("orders"),
            picky.table("picky"),
            gone.table("gone"),
            nats.address(),
            gone.address,
        );
        let busy = Daemon::start(folder, &config).await;
        let config = format!(
            "[ingress]\nbody_max = '4KiB'\n{}{JOURNAL}[sources.inbox.generic]\n{}",
            admin_token(),
            gone.table("gone")
        );
        let full = Daemon::start(other, &config).await;
        let busy_plain = format!("http://{plain}");
        Scene { busy, full, busy_plain, _folders: folders, _nats: nats, _sinks: [orders, picky, gone] }
    }

    async fn post(&self, to: &str, body: String) -> u16 {
        let request = self.busy.http.post(to).header("content-type", "application/json").body(body);
        request.send().await.unwrap().status().as_u16()
    }

    /// One round of everything that happens here all day.
    async fn round(&self, number: u64) {
        let body =
            |number: u64| format!("{{\"n\":{number},\"id\":\"{number}\",\"text\":\"{}\"}}", "x".repeat(1000));
        let at = |source: &str| format!("{}/hooks/{source}", self.busy_plain);
        self.post(&at("inbox"), body(number)).await;
        self.post(&at("inbox"), body(number)).await;
        assert_eq!(self.post(&at("closed"), body(number)).await, 401);
        self.post(&at("lost"), body(number)).await;
        if number.is_multiple_of(10) {
            self.post(&at("inbox"), "{".to_owned()).await;
        }
        self.post(&format!("http://{}/hooks/inbox", self.full.ingress), body(number)).await;
    }

    /// A scrape as Prometheus gets it.
    async fn scrape(&self) -> String {
        let request = self.busy.http.get(format!("http://{}/metrics", self.busy.admin)).bearer_auth(TOKEN);
        request.send().await.unwrap().text().await.unwrap()
    }

    async fn pause(&self, sink: &str) {
        let url = format!("http://{}/api/v1/sinks/{sink}/pause", self.busy.admin);
        let answer = self.busy.http.post(url).bearer_auth(TOKEN).send().await.unwrap();
        assert!(answer.status().is_success());
    }
}

/// The documented number of series: of a source, of a polled one, of a sink, of everything else.
fn documented_series() -> BTreeMap<String, usize> {
    let document = text(DOCUMENT);
    let table = document.split("<!-- cardinality -->").nth(1).expect("the table");
    let rows =
        table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let row = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].to_owned(), cells[1].parse().unwrap())
    };
    rows.skip(2).map(row).collect()
}

fn assert_a_scrape_is_clean_and_bounded(scrape: &str) {
    let complaints = assert_clean(&promtool(&["check", "metrics"], scrape));
    assert_eq!(complaints, "");
    let declared = |kind: &str| -> BTreeSet<String> {
        let lines = scrape.lines().filter_map(|line| line.strip_prefix(&format!("# {kind} ")));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(declared("TYPE"), metrics_of_the_code(), "every metric is shown with its type");
    assert_eq!(declared("HELP"), metrics_of_the_code(), "every metric is explained");
    for line in scrape.lines().filter(|line| line.starts_with("# TYPE ")) {
        let (name, kind) = line["# TYPE ".len()..].split_once(' ').unwrap();
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
    }
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for line in scrape.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let owner = ["sink", "source"].iter().find_map(|label| {
            let value = line.split(&format!("{label}=\"")).nth(1)?.split('"').next()?;
            (value != "unknown").then(|| format!("{label} {value}"))
        });
        *counted.entry(owner.unwrap_or_else(|| "all".to_owned())).or_default() += 1;
    }
    let documented = documented_series();
    for (owner, row) in [
        ("source inbox", "a source"),
        ("source whatsapp", "a source with `poll`"),
        ("sink orders", "a sink"),
        ("sink audit", "a sink"),
        ("sink news", "a sink"),
        ("all", "the daemon"),
    ] {
        assert_eq!(counted.get(owner), documented.get(row), "{owner}; all of them: {counted:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_runs_against_a_real_prometheus_and_alerts_really_fire() {
    let scene = Scene::start().await;
    let nobody = format!("127.0.0.1:{}", free_port());
    let (busy, full) = (scene.busy.admin.to_string(), scene.full.admin.to_string());
    let prometheus = Prometheus::start(&[busy.clone(), full.clone(), nobody.clone()]).await;
    eventually("both are scraped, with the token", || async {
        let up = Query { place: "up".to_owned(), expr: "up{job=\"hookbus\"} == 1".to_owned() };
        (prometheus.series(&up).await == 2).then_some(())
    })
    .await;
    scene.pause("waiting").await;

    let instances: BTreeMap<&str, &String> =
        [("busy", &busy), ("full", &full), ("nobody", &nobody)].into_iter().collect();
    let watch = async {
        eventually("the alerts fire that have a reason", || async {
            let firing = prometheus.firing().await;
            let fires = |(alert, instance): &(&str, &str)| {
                firing.get(*alert).is_some_and(|at| at.contains(instances[instance]))
            };
            FIRE.iter().all(fires).then_some(())
        })
        .await;
        let rules = prometheus.rules().await;
        let known: BTreeSet<&str> =
            FIRE.iter().map(|(alert, _)| *alert).chain(QUIET.iter().copied()).collect();
        let mut seen = BTreeSet::new();
        let mut queries = dashboard_queries();
        for rule in &rules {
            let place = rule["name"].as_str().unwrap().to_owned();
            assert_eq!(
                (&rule["health"], rule["lastError"].as_str().unwrap_or("")),
                (&"ok".into(), ""),
                "{place}"
            );
            let expr = rule["query"].as_str().unwrap();
            let parts = selectors(expr).into_iter().map(|expr| Query { place: place.clone(), expr });
            queries.extend(parts);
            seen.insert(place);
        }
        let gone: Vec<_> = known.iter().filter(|alert| !seen.contains(**alert)).collect();
        assert!(gone.is_empty(), "no such alerts: {gone:?}");
        let parts: Vec<Query> = queries
            .iter()
            .flat_map(|Query { place, expr }| {
                selectors(expr).into_iter().map(move |expr| Query { place: place.clone(), expr })
            })
            .collect();
        prometheus.all_give(&queries).await;
        prometheus.all_give(&parts).await;
        let firing = prometheus.firing().await;
        let loud: Vec<_> = QUIET.iter().filter(|alert| firing.contains_key(**alert)).collect();
        assert!(loud.is_empty(), "these fire without a reason: {loud:?}");
        assert!(!firing["HookbusNotReady"].contains(&nobody), "who is not there says nothing");
    };
    let load = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for number in 0.. {
            pace.tick().await;
            scene.round(number).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = load => unreachable!("it goes on"),
    }
    assert_a_scrape_is_clean_and_bounded(&scene.scrape().await);
    assert!(!scene.busy.log().contains(TOKEN));
    assert!(scene.full.stop().await.success());
    assert!(scene.busy.stop().await.success());
}
