//! Log lines on standard error: for people, or JSON when asked; the level can be changed while running.
//! Holds: R8 (a panic's formatted message is not logged, and other crates are never asked for more than `info`: at
//! `debug` and `trace` some of them write headers and bodies).

use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// The target of everything this program logs itself.
const OURS: &str = "hookbus";
/// The most that other crates are asked for.
const OTHERS_MAX: LevelFilter = LevelFilter::INFO;
/// What writes messages with their bodies at a level that may be asked for: it is never heard.
const NEVER_HEARD: &str = "lapin::returned_messages";
/// Clients that tell at `info` what happens for every window of messages, or say again, as errors of their own, what a
/// sink reports: not heard unless asked for by name.
const HEARD_IF_ASKED: [&str; 2] = ["async_nats", "lapin"];
/// The most characters of a level.
const LEVEL_CHARS_MAX: usize = 1024;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, for all or by target: `info,hookbus::journal=debug`.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Config { level: Level("info".to_owned()), format: Format::Auto }
    }
}

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people, coloured on a terminal (unless `NO_COLOR` is set).
    #[default]
    Auto,
    /// For people, never coloured.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which lines are written, checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Level(String);

/// Not a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLevel {
    /// It is not in the syntax.
    #[error(
        "expected error, warn, info, debug, trace or off, alone or by target: \"info,hookbus::journal=debug\""
    )]
    Syntax,
    /// It asks too much of another crate.
    #[error(
        "only targets that begin with hookbus may be set to debug or trace: others may log secrets there"
    )]
    OthersTooDeep,
}

impl TryFrom<String> for Level {
    type Error = InvalidLevel;
    fn try_from(text: String) -> Result<Self, InvalidLevel> {
        targets(&text).map(|_| Level(text))
    }
}
impl From<Level> for String {
    fn from(level: Level) -> String {
        level.0
    }
}

/// Own parsing, because the crate's takes any word for a target and then logs everything of it.
fn targets(text: &str) -> Result<Targets, InvalidLevel> {
    if text.len() > LEVEL_CHARS_MAX {
        return Err(InvalidLevel::Syntax);
    }
    let mut targets: Targets = HEARD_IF_ASKED.iter().map(|target| (*target, LevelFilter::OFF)).collect();
    for directive in text.split(',').map(str::trim) {
        match directive.split_once('=') {
            None => {
                let level = level(directive)?;
                targets = targets.with_default(level.min(OTHERS_MAX)).with_target(OURS, level);
            }
            Some((target, text)) => {
                let level = level(text.trim())?;
                let target = target.trim();
                let named = !target.is_empty()
                    && target.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                if !named {
                    return Err(InvalidLevel::Syntax);
                }
                let ours = target == OURS || target.starts_with("hookbus::");
                if !ours && level > OTHERS_MAX {
                    return Err(InvalidLevel::OthersTooDeep);
                }
                targets = targets.with_target(target, level);
            }
        }
    }
    Ok(targets.with_target(NEVER_HEARD, LevelFilter::OFF))
}

fn level(word: &str) -> Result<LevelFilter, InvalidLevel> {
    let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    LevelFilter::from_str(word).ok().filter(|_| known).ok_or(InvalidLevel::Syntax)
}

/// Reads and changes the level of the running program.
#[derive(Clone, Debug)]
pub struct LogLevel {
    filter: reload::Handle<Targets, Registry>,
    current: Arc<Mutex<String>>,
}

impl LogLevel {
    /// The level in force, as it was written.
    #[must_use]
    pub fn get(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Replaces it, until the next start.
    ///
    /// # Errors
    /// [`InvalidLevel`]; the level in force stays.
    pub fn set(&self, text: &str) -> Result<(), InvalidLevel> {
        let targets = targets(text)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Refused only where the subscriber is gone, and then nothing is logged at all.
        let _ = self.filter.reload(targets);
        text.clone_into(&mut current);
        Ok(())
    }
}

/// Something else has taken the log of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log of this process was set up by something else")]
pub struct AlreadyInstalled;

/// Sets the log up. A second call in the same process sets the level only.
///
/// # Errors
/// [`AlreadyInstalled`].
pub fn install(config: &Config) -> Result<LogLevel, AlreadyInstalled> {
    static INSTALLED: OnceLock<Result<LogLevel, AlreadyInstalled>> = OnceLock::new();
    let log_level = INSTALLED.get_or_init(|| {
        let (filter, log_level) = filter(config);
        let lines = lines(config.format, colours(), std::io::stderr);
        let installed = tracing_subscriber::registry().with(filter).with(lines).try_init();
        installed.map(|()| log_level).map_err(|_| AlreadyInstalled)
    });
    if let Ok(log_level) = log_level {
        log_level.set(&config.level.0).expect("a configured level was checked when it was read");
    }
    log_level.clone()
}

fn filter(config: &Config) -> (reload::Layer<Targets, Registry>, LogLevel) {
    let targets = targets(&config.level.0).expect("a configured level was checked when it was read");
    let (layer, filter) = reload::Layer::new(targets);
    (layer, LogLevel { filter, current: Arc::new(Mutex::new(config.level.0.clone())) })
}

fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn lines<S, W>(format: Format, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
    W: for<'writer> fmt::MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        Format::Auto => layer.compact().with_target(false).with_ansi(colours).boxed(),
        Format::Human => layer.compact().with_target(false).with_ansi(false).boxed(),
        Format::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    }
}

/// From now on a panic is a log line with its place, and with its message where that is a literal of the program: a
/// formatted one may hold a value.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
        let thread = std::thread::current();
        tracing::error!(
            place = panic.location().map(tracing::field::display),
            thread = thread.name().unwrap_or("unnamed"),
            panic = message,
            "a task panicked; this is a bug, please report it"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);
    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }
    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, level: &str, work: impl FnOnce(&LogLevel)) -> String {
        let output = Output::default();
        let sink = output.clone();
        let config = Config { level: Level::try_from(level.to_owned()).unwrap(), format };
        let (filter, log_level) = filter(&config);
        let subscriber =
            tracing_subscriber::registry().with(filter).with(lines(format, false, move || sink.clone()));
        tracing::subscriber::with_default(subscriber, || work(&log_level));
        output.text()
    }

    #[test]
    fn what_would_log_a_message_s_body_is_never_heard() {
        let text = logged(Format::Human, "info,lapin=info,lapin::returned_messages=info", |_| {
            tracing::warn!(target: "lapin::returned_messages", message = "SECRETBODY");
            tracing::error!(target: "lapin::channels", "heard when asked for");
        });
        assert!(!text.contains("SECRETBODY") && text.contains("heard when asked for"), "R8: {text}");
        let text =
            logged(Format::Human, "info", |_| tracing::error!(target: "lapin::channels", "said again"));
        assert_eq!(text, "");
    }

    #[test]
    fn a_level_is_a_word_or_words_by_target_and_anything_else_is_refused() {
        for (sentence, text, checked) in [
            ("a word", "debug", Ok(())),
            ("nothing at all is a level too", "off", Ok(())),
            ("ours by target", "info,hookbus::journal=debug", Ok(())),
            ("spaces do not matter", " warn , hookbus=trace ", Ok(())),
            ("others up to info", "warn,hyper=info", Ok(())),
            ("others no deeper", "info,hyper=trace", Err(InvalidLevel::OthersTooDeep)),
            ("a name that only begins like ours", "hookbusy=debug", Err(InvalidLevel::OthersTooDeep)),
            ("a word that is no level is not taken for a target", "verbose", Err(InvalidLevel::Syntax)),
            ("nothing written", "", Err(InvalidLevel::Syntax)),
            ("a target without a level", "hookbus=", Err(InvalidLevel::Syntax)),
            ("a level without a target", "=info", Err(InvalidLevel::Syntax)),
            ("numbers", "3", Err(InvalidLevel::Syntax)),
            ("span filters", "hookbus[span]=debug", Err(InvalidLevel::Syntax)),
        ] {
            assert_eq!(targets(text).map(|_| ()), checked, "{sentence}");
            assert_eq!(Level::try_from(text.to_owned()).map(|_| ()), checked, "{sentence}: in the config");
        }
    }

    #[test]
    fn a_bad_level_in_the_config_says_what_is_expected_and_not_what_was_there() {
        let error = serde_json::from_str::<Config>(r#"{"level":"s3cret"}"#).unwrap_err().to_string();
        assert!(error.contains("expected error, warn, info") && !error.contains("s3cret"), "{error}");
        let default = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(default, serde_json::json!({ "level": "info", "format": "auto" }));
    }

    #[test]
    fn a_human_line_has_time_level_message_and_fields_and_no_colour_by_itself() {
        let text = logged(Format::Human, "info", |_| tracing::info!(sink = "orders", "lane started"));
        assert!(text.contains("INFO lane started sink=\"orders\""), "{text}");
        assert!(text.starts_with("20") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_json_line_is_one_object_with_its_fields_on_top() {
        let text = logged(Format::Json, "info", |_| tracing::info!(sink = "orders", "lane started"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["message"], &line["sink"]), (&"lane started".into(), &"orders".into()));
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn the_level_changes_while_running_and_a_bad_one_changes_nothing() {
        let text = logged(Format::Human, "info", |level| {
            tracing::debug!("one");
            level.set("debug").unwrap();
            tracing::debug!("two");
            assert_eq!(level.set("loud"), Err(InvalidLevel::Syntax));
            assert_eq!(level.get(), "debug");
            tracing::debug!("three");
            tracing::debug!(target: "hyper", "authorization: s3cret");
            level.set("warn").unwrap();
            tracing::info!("four");
        });
        assert!(text.contains("two") && text.contains("three"), "{text}");
        assert!(!text.contains("one") && !text.contains("four") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_what_was_formatted_into_it() {
        let before = std::panic::take_hook();
        log_panics();
        let text = logged(Format::Human, "info", |_| {
            let body = String::from("s3cret");
            let _ = std::panic::catch_unwind(|| panic!("cannot read {body}"));
            let _ = std::panic::catch_unwind(|| panic!("a literal"));
        });
        std::panic::set_hook(before);
        assert!(text.contains("logging.rs:") && text.contains("a literal"), "{text}");
        assert!(text.contains("(message withheld)") && !text.contains("s3cret"), "{text}");
    }
}
