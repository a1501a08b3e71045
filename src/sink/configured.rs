//! `[sinks.N]`: the keys every sink has, and the one table of its kind.
//! Holds: every wrong key is reported, all at once; a key that a kind cannot honour is an error, never ignored.
//! Absent on purpose: what order, retries and backlogs mean in practice (`dispatch`); whether the sink named by
//! `dead_letter` exists (`app`, which knows all names).

use super::{BuildError, Context, Format, SINK_TYPES, Sink, SinkConfig, SinkType};
use crate::config::{ConfigError, ConfigErrors, Period, Section, nearest};
use crate::envelope::SinkName;
use crate::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The most deliveries of one sink that may be in flight at once.
pub const IN_FLIGHT_MAX: usize = 10_000;

/// How many it is where nothing is set and each delivery is a request of its own.
pub(super) const IN_FLIGHT_DEFAULT: usize = 64;
/// How many it is where nothing is set and the sink is a broker, whose confirmations take long and cover many.
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
pub(super) const IN_FLIGHT_PIPELINED: usize = 1000;

/// In which order a sink gets its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As fast as the window allows; a retry holds back nobody.
    None,
    /// Events of one `partitionkey` one after the other; a retry holds back only its key.
    #[default]
    Key,
    /// One event after the other.
    Strict,
}

/// What happens when a sink's backlog has used up the journal's disk budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBacklogFull {
    /// New work is refused at the ingress (503) until there is room.
    #[default]
    Refuse,
    /// This sink's oldest undelivered events are given up, counted and logged.
    ShedOldest,
}

/// When a failed delivery is tried again, and when it is given up: `[sinks.N.retry]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// The upper bound of the first wait.
    pub first: Period,
    /// The upper bound of every wait.
    pub max: Period,
    /// Attempts after which an event becomes a dead letter, at least 1.
    pub attempts_max: u32,
    /// How long after its first failure an event that keeps failing becomes a dead letter; time in which its lane could
    /// not send (the sink away or busy, the lane paused, the process not running) does not count.
    pub age_max: Period,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            first: Period::millis(500),
            max: Period::mins(5),
            attempts_max: 20,
            age_max: Period::hours(72),
        }
    }
}

/// The keys every sink has, whatever its kind: `[sinks.N]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommonConfig {
    /// In which order events are delivered.
    pub order: Order,
    /// The most deliveries in flight, 1 to [`IN_FLIGHT_MAX`]; where it is not set, each kind has its own.
    pub in_flight_max: usize,
    /// The form of the events, one that the kind can write.
    pub format: Format,
    /// How long one delivery may take.
    pub timeout: Period,
    /// When to try again and when to give up.
    pub retry: RetryConfig,
    /// A sink to which this one's dead letters are also published.
    pub dead_letter: Option<SinkName>,
    /// What gives way when the disk budget is used up.
    pub on_backlog_full: OnBacklogFull,
}

impl Default for CommonConfig {
    fn default() -> Self {
        CommonConfig {
            order: Order::default(),
            in_flight_max: IN_FLIGHT_DEFAULT,
            format: Format::default(),
            timeout: Period::secs(30),
            retry: RetryConfig::default(),
            dead_letter: None,
            on_backlog_full: OnBacklogFull::default(),
        }
    }
}

impl CommonConfig {
    const KEYS: [&'static str; 7] =
        ["order", "in_flight_max", "format", "timeout", "retry", "dead_letter", "on_backlog_full"];

    fn check(&self, name: &SinkName, section: &Section, errors: &mut Vec<ConfigError>) {
        let zero = Period::millis(0);
        let wrong = [
            (
                !(1..=IN_FLIGHT_MAX).contains(&self.in_flight_max),
                "in_flight_max",
                format!("expected 1 to {IN_FLIGHT_MAX}"),
            ),
            (self.timeout == zero, "timeout", "expected more than nothing, \"30s\" for example".to_owned()),
            (self.retry.first == zero, "retry.first", "expected more than nothing".to_owned()),
            (
                self.retry.max < self.retry.first,
                "retry.max",
                "expected at least as much as retry.first".to_owned(),
            ),
            (self.retry.attempts_max == 0, "retry.attempts_max", "expected at least 1".to_owned()),
            (self.retry.age_max == zero, "retry.age_max", "expected more than nothing".to_owned()),
            (
                self.dead_letter.as_ref() == Some(name),
                "dead_letter",
                "expected another sink than this one".to_owned(),
            ),
        ];
        errors.extend(
            wrong
                .into_iter()
                .filter(|(is_wrong, ..)| *is_wrong)
                .map(|(_, key, problem)| section.error(key, problem)),
        );
    }
}

/// A sink as configured: its name, the common keys and its kind's own.
#[derive(Clone, Debug)]
pub struct ConfiguredSink {
    /// The name in the configuration.
    pub name: SinkName,
    /// The common keys.
    pub common: CommonConfig,
    /// The key of its kind in [`SINK_TYPES`].
    pub type_name: &'static str,
    /// The kind's own keys.
    pub config: Arc<dyn SinkConfig>,
}

impl ConfiguredSink {
    /// Reads `[sinks.N]`: the common keys and exactly one kind's table.
    ///
    /// # Errors
    /// [`ConfigErrors`] naming every wrong key, an unknown kind with the known ones, no kind, or two.
    pub fn parse(name: SinkName, section: &Section) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let (kinds, not_common) = find_kinds(section, &mut errors);
        let not_common: Vec<&str> = not_common.iter().map(String::as_str).collect();

        let common = section.without(&not_common).extract::<CommonConfig>();
        let common = ConfigErrors::collect(&mut errors, common);
        if let Some(common) = &common {
            common.check(&name, section, &mut errors);
        }

        let mut parsed = Vec::new();
        for (kind, own) in &kinds {
            if let Some(config) = ConfigErrors::collect(&mut errors, (kind.parse)(own)) {
                parsed.push((*kind, config));
            }
            if let Some(common) = common.as_ref().filter(|common| !kind.formats.contains(&common.format)) {
                let problem = format!("a {} sink cannot write the {} form", kind.name, common.format.label());
                errors.push(section.error("format", problem));
            }
        }
        match (common, parsed.pop()) {
            (Some(mut common), Some((kind, config))) if errors.is_empty() => {
                if !section.says("in_flight_max") {
                    common.in_flight_max = kind.in_flight_default;
                }
                Ok(ConfiguredSink { name, common, type_name: kind.name, config: Arc::from(config) })
            }
            _ => Err(ConfigErrors(errors)),
        }
    }

    /// Makes the sink. Called inside the tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] where a file it needs (a certificate, say) cannot be read.
    pub fn build(&self, data_dir: &Path, shutdown: &Shutdown) -> Result<Arc<dyn Sink>, BuildError> {
        let context = Context {
            name: self.name.clone(),
            format: self.common.format,
            timeout: self.common.timeout,
            data_dir: data_dir.to_owned(),
        };
        self.config.build(context, shutdown)
    }
}

type Kinds = Vec<(&'static SinkType, Section)>;

/// The kinds this section has a table for, and every key that is not a common one and so must not be read as such.
fn find_kinds(section: &Section, errors: &mut Vec<ConfigError>) -> (Kinds, Vec<String>) {
    let (mut kinds, mut not_common) = (Vec::new(), Vec::new());
    let tables = section.tables();
    let mut kind_is_misspelt = false;
    for key in section.keys() {
        let table = tables.iter().find(|(name, _)| *name == key).map(|(_, table)| table);
        let kind = SINK_TYPES.iter().find(|kind| kind.name == key);
        match (kind, table) {
            (Some(kind), Some(table)) => kinds.push((kind, table.clone())),
            (Some(kind), None) => {
                kind_is_misspelt = true;
                errors.push(
                    section.error(&key, format!("expected a table with the {} sink's keys", kind.name)),
                );
            }
            (None, Some(_)) if !CommonConfig::KEYS.contains(&key.as_str()) => {
                kind_is_misspelt = true;
                errors.push(section.error(&key, unknown_kind(&key)));
            }
            (None, _) => continue,
        }
        not_common.push(key);
    }
    match kinds.as_slice() {
        [] if !kind_is_misspelt => {
            let problem = format!("expected the table of one kind of sink: {}", known_kinds());
            errors.push(section.error("", problem));
        }
        [] | [_] => {}
        [(first, _), (second, _), ..] => {
            let problem = format!("expected one kind of sink, found {} and {}", first.name, second.name);
            errors.push(section.error("", problem));
        }
    }
    (kinds, not_common)
}

fn known_kinds() -> String {
    SINK_TYPES.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

/// The kinds whose client libraries can be left out of the build, each with the Cargo feature that brings it.
const OPTIONAL_KINDS: [(&str, &str); 4] =
    [("amqp", "amqp"), ("jetstream", "nats"), ("kafka", "kafka"), ("nats", "nats")];

fn unknown_kind(key: &str) -> String {
    if let Some((kind, feature)) = OPTIONAL_KINDS.iter().find(|(kind, _)| *kind == key) {
        return format!(
            "this hookbus was built without the {kind} sink; build it with the feature {feature}"
        );
    }
    match nearest(key, SINK_TYPES.iter().map(|kind| kind.name).chain(["retry"])) {
        Some(name) => format!("is not a kind of sink; did you mean {name}? known: {}", known_kinds()),
        None => format!("is not a kind of sink; known: {}", known_kinds()),
    }
}

#[cfg(test)]
#[path = "configured_tests.rs"]
mod tests;
