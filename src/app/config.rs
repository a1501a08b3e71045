//! The whole configuration: every part's own `Config`, read from one set of layers.
//! Holds: all errors of all parts come at once, each naming its key and layer.
//! Absent on purpose: what a key means (its part knows), how layers are merged (`config`).

mod checks;

use crate::config::{ConfigError, ConfigErrors, Layers, Period, Section, nearest};
use crate::envelope::{InvalidName, SinkName, SourceName};
use crate::router::Route;
use crate::sink::ConfiguredSink;
use crate::source::{ConfiguredSource, Sources};
use crate::telemetry::logging;
use crate::{admin, dead_letter, ingress, journal};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// The variable that names the file, after `--config`.
pub const FILE_VARIABLE: &str = "HOOKBUS_CONFIG";
/// Where the file is looked for when nobody names one.
pub const FILES: [&str; 2] = ["hookbus.toml", "/etc/hookbus/hookbus.toml"];
/// The sections at the top level; what else is there, [`General`] reads.
pub const SECTIONS: [&str; 8] =
    ["ingress", "admin", "journal", "dead_letters", "log", "shutdown", "sources", "sinks"];

/// What runs where there is no file.
const BUILT_IN: &str = r#"
[sources.inbox.generic]
[sources.zapi.zapi]
[sources.plugzapi.plugzapi]
[sinks.events.file]
path = "events.ndjson"
"#;
/// And this, where a person is watching.
const BUILT_IN_SCREEN: &str = "[sinks.screen.stdout]\n";

/// All sinks by name.
pub type Sinks = BTreeMap<SinkName, ConfiguredSink>;

/// Everything the daemon is told.
#[derive(Clone)]
pub struct Config {
    /// Where the journal, the dead letters and relative paths of files are.
    pub data_dir: PathBuf,
    /// `[ingress]`
    pub ingress: ingress::Config,
    /// `[admin]`
    pub admin: admin::Config,
    /// `[journal]`
    pub journal: journal::Config,
    /// `[dead_letters]`
    pub dead_letters: dead_letter::Config,
    /// `[log]`
    pub log: logging::Config,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[sources.N]`
    pub sources: Sources,
    /// `[sinks.N]`
    pub sinks: Sinks,
    /// `[[routes]]`; none: every event goes to every sink.
    pub routes: Vec<Route>,
}

/// A configuration that can run, and what should be said about it.
#[derive(Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read; absent: the built-in default.
    pub file: Option<PathBuf>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<ConfigError>,
    /// What it was read from; read once more, they give the same configuration with the secrets as they are then.
    pub layers: Layers,
}

/// The keys at the top level that belong to no section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    /// Where everything on disk is.
    pub data_dir: PathBuf,
    /// Which events go where.
    pub routes: Vec<Route>,
}

impl Default for General {
    fn default() -> Self {
        General { data_dir: PathBuf::from("./hookbus-data"), routes: Vec::new() }
    }
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long requests and deliveries in hand may take to end, together; what is not delivered by then is delivered
    /// after the next start. All of a stop takes at most 5 seconds more.
    pub grace: Period,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { grace: Period::secs(25) }
    }
}

/// The variables of this process that are text.
#[must_use]
pub fn process_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
        .collect()
}

/// What [`Config::on_disk`] reads.
pub struct OnDisk {
    /// Where everything on disk is.
    pub data_dir: PathBuf,
    /// The names of the sinks.
    pub sinks: BTreeSet<String>,
}

impl Config {
    /// Finds the file (`file`, else `HOOKBUS_CONFIG`, else one of [`FILES`]) and reads it; with none, the built-in default.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong.
    pub fn load(file: Option<&Path>, environment: &[(String, String)]) -> Result<Loaded, ConfigErrors> {
        Config::read(found(file, environment), environment, std::io::stdout().is_terminal())
    }

    /// The same for whoever only looks at the data directory: nothing else is read, so that it works where the secrets
    /// are not, for instance those that systemd keeps for a service only while that runs.
    ///
    /// # Errors
    /// [`ConfigErrors`] where the file cannot be read or `data_dir` is no path.
    pub fn on_disk(file: Option<&Path>, environment: &[(String, String)]) -> Result<OnDisk, ConfigErrors> {
        let file = found(file, environment);
        let root = layers(file.as_deref(), environment, std::io::stdout().is_terminal())?.root();
        let General { data_dir, .. } = general(&root).extract()?;
        let sinks = root.child("sinks").tables().into_iter().map(|(name, _)| name).collect();
        Ok(OnDisk { data_dir, sinks })
    }

    /// Reads exactly this file, or the built-in default, which also writes to standard output where that is a terminal.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong.
    pub fn read(
        file: Option<PathBuf>,
        environment: &[(String, String)],
        stdout_is_terminal: bool,
    ) -> Result<Loaded, ConfigErrors> {
        let layers = layers(file.as_deref(), environment, stdout_is_terminal)?;
        let config = Config::of(&layers)?;
        let warnings = checks::warnings(&config, &layers.root(), &layers.literal_secrets());
        Ok(Loaded { config, file, warnings, layers })
    }

    /// Reads layers that were loaded before, and every secret that they name as it is now.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong.
    pub fn of(layers: &Layers) -> Result<Config, ConfigErrors> {
        let root = layers.root();
        let (parts, mut errors) = Parts::read(&root);
        errors.extend(checks::errors(&parts, &root));
        parts.complete().filter(|_| errors.is_empty()).ok_or(ConfigErrors(errors))
    }
}

/// The file that is named, else the first of [`FILES`] that is there.
fn found(file: Option<&Path>, environment: &[(String, String)]) -> Option<PathBuf> {
    let named = || environment.iter().find(|(name, text)| name == FILE_VARIABLE && !text.is_empty());
    let found = || {
        FILES
            .iter()
            .map(PathBuf::from)
            // One that cannot be looked at is read, so that the error is said and no other configuration runs instead.
            .find(|file| file.try_exists().unwrap_or(true))
    };
    file.map(Path::to_owned).or_else(|| named().map(|(_, text)| text.into())).or_else(found)
}

fn layers(
    file: Option<&Path>,
    environment: &[(String, String)],
    stdout_is_terminal: bool,
) -> Result<Layers, ConfigErrors> {
    let built_in = match (file, stdout_is_terminal) {
        (Some(_), _) => None,
        (None, false) => Some(BUILT_IN.to_owned()),
        (None, true) => Some(format!("{BUILT_IN}{BUILT_IN_SCREEN}")),
    };
    Layers::load(built_in.as_deref(), file, environment)
}

/// What stands in no section.
fn general(root: &Section) -> Section {
    let keys = root.keys();
    let others: Vec<&str> =
        keys.iter().map(String::as_str).filter(|key| !["data_dir", "routes"].contains(key)).collect();
    root.without(&others)
}

/// The parts that could be read, each by itself, so that one part's errors hide no other's.
struct Parts {
    general: Option<General>,
    ingress: Option<ingress::Config>,
    admin: Option<admin::Config>,
    journal: Option<journal::Config>,
    dead_letters: Option<dead_letter::Config>,
    log: Option<logging::Config>,
    shutdown: Option<Shutdown>,
    sources: Option<Sources>,
    sinks: Option<Sinks>,
}

impl Parts {
    fn read(root: &Section) -> (Parts, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let known: Vec<&str> = SECTIONS.into_iter().chain(["data_dir", "routes"]).collect();
        for key in root.keys().iter().filter(|key| !known.contains(&key.as_str())) {
            errors.push(root.error(key, unknown_section(key, &known)));
        }
        let parts = Parts {
            general: part(&general(root), &mut errors),
            ingress: part(&root.child("ingress"), &mut errors),
            admin: part(&root.child("admin"), &mut errors),
            journal: part(&root.child("journal"), &mut errors),
            dead_letters: part(&root.child("dead_letters"), &mut errors),
            log: part(&root.child("log"), &mut errors),
            shutdown: part(&root.child("shutdown"), &mut errors),
            sources: named(&root.child("sources"), SourceName::new, ConfiguredSource::parse, &mut errors),
            sinks: named(&root.child("sinks"), SinkName::new, ConfiguredSink::parse, &mut errors),
        };
        (parts, errors)
    }

    fn complete(self) -> Option<Config> {
        let General { data_dir, routes } = self.general?;
        Some(Config {
            data_dir,
            ingress: self.ingress?,
            admin: self.admin?,
            journal: self.journal?,
            dead_letters: self.dead_letters?,
            log: self.log?,
            shutdown: self.shutdown?,
            sources: self.sources?,
            sinks: self.sinks?,
            routes,
        })
    }
}

fn unknown_section(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("is not a key here; did you mean `{near}`?"),
        None => format!("is not a key here; known: {}", known.join(", ")),
    }
}

fn part<T: DeserializeOwned>(section: &Section, errors: &mut Vec<ConfigError>) -> Option<T> {
    ConfigErrors::collect(errors, section.extract())
}

/// Reads a table of named tables; nothing where a single one of them is wrong.
fn named<N: Ord + Clone, T>(
    section: &Section,
    name: fn(&str) -> Result<N, InvalidName>,
    parse: fn(N, &Section) -> Result<T, ConfigErrors>,
    errors: &mut Vec<ConfigError>,
) -> Option<BTreeMap<N, T>> {
    let entries: BTreeMap<String, IgnoredAny> = part(section, errors)?;
    let tables: BTreeMap<String, Section> = section.tables().into_iter().collect();
    let mut parsed = BTreeMap::new();
    let mut is_whole = true;
    for key in entries.keys() {
        let read = match (name(key), tables.get(key)) {
            (Err(invalid), _) => Err(section.error(key, invalid.to_string()).into()),
            (Ok(_), None) => Err(section.error(key, "expected a table").into()),
            (Ok(name), Some(table)) => parse(name.clone(), table).map(|value| (name, value)),
        };
        match ConfigErrors::collect(errors, read) {
            Some((name, value)) => _ = parsed.insert(name, value),
            None => is_whole = false,
        }
    }
    is_whole.then_some(parsed)
}
