//! `hookbus check`: reads the configuration as `run` would, and the certificates, says everything that is wrong with
//! them, and can try the sinks.
//! Holds: R8 (URLs are shown with their secrets masked); exit code 1 where `run` would not start, senders would
//! refuse the certificate, or a sink cannot be reached.

use super::{CliError, Ending, human, settings};
use crate::app::config::{Config, Loaded};
use crate::clock;
use crate::ingress::tls;
use crate::router::Route;
use crate::shutdown::{Phase, Shutdown};
use crate::sink::{ConfiguredSink, Limits};
use crate::source::ConfiguredSource;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest one sink may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Connect to every sink as well; nothing is delivered
    #[arg(long)]
    connect: bool,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

/// What a valid configuration amounts to.
#[derive(Serialize)]
struct Report {
    valid: bool,
    /// Absent: the built-in default.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    sources: Vec<SourceLine>,
    sinks: Vec<SinkLine>,
    routes: Vec<Route>,
    /// What keeps senders out although the configuration itself is right.
    problems: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct SourceLine {
    name: String,
    kind: &'static str,
    url: String,
    authenticated: bool,
}

#[derive(Serialize)]
struct SinkLine {
    name: String,
    kind: &'static str,
    /// Absent where it was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    connects: Option<bool>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(super) fn check(file: Option<&Path>, arguments: &Arguments) -> Result<Ending, CliError> {
    let loaded = match settings::load(file) {
        Err(CliError::Config(errors)) if arguments.json => {
            let errors: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
            human::say_json(&serde_json::json!({"valid": false, "errors": errors}))?;
            return Ok(Ending::Failed);
        }
        loaded => loaded?,
    };
    let mut report = report(&loaded);
    if arguments.connect {
        super::blocking(async {
            connect(&loaded.config, &mut report).await;
            Ok(Ending::Done)
        })?;
    }
    if arguments.json {
        human::say_json(&report)?
    } else {
        human::say(&render(&report))?
    }
    let unreachable = report.sinks.iter().any(|sink| sink.connects == Some(false));
    Ok(if unreachable || !report.valid { Ending::Failed } else { Ending::Done })
}

fn report(loaded: &Loaded) -> Report {
    let config = &loaded.config;
    let base = settings::senders_base(&config.ingress);
    let certificates = tls::inspect(&config.ingress.tls, clock::now());
    let sources = config.sources.values().map(|source| SourceLine::of(source, &base)).collect();
    let sinks = config.sinks.values().map(SinkLine::of).collect();
    Report {
        valid: certificates.problems.is_empty(),
        file: loaded.file.clone(),
        sources,
        sinks,
        routes: config.routes.clone(),
        problems: certificates.problems,
        warnings: loaded.warnings.iter().map(ToString::to_string).chain(certificates.warnings).collect(),
    }
}

impl SourceLine {
    fn of(source: &ConfiguredSource, base: &str) -> Self {
        SourceLine {
            name: source.name.to_string(),
            kind: source.type_name,
            url: format!("{base}{}", source.masked_path()),
            authenticated: !source.is_unauthenticated(),
        }
    }
}

impl SinkLine {
    fn of(sink: &ConfiguredSink) -> Self {
        SinkLine { name: sink.name.to_string(), kind: sink.type_name, connects: None, problem: None }
    }
}

async fn connect(config: &Config, report: &mut Report) {
    let shutdown = Shutdown::new();
    for (sink, line) in config.sinks.values().zip(&mut report.sinks) {
        match try_sink(sink, config, &shutdown).await {
            Ok(limits) => {
                line.connects = Some(true);
                report.warnings.extend(limit_warning(
                    sink.name.as_str(),
                    limits,
                    config.ingress.body_max.get(),
                ));
            }
            Err(problem) => {
                line.connects = Some(false);
                line.problem = Some(problem);
            }
        }
    }
    shutdown.stop(Phase::Lanes).await;
}

async fn try_sink(sink: &ConfiguredSink, config: &Config, shutdown: &Shutdown) -> Result<Limits, String> {
    let built = sink.build(&config.data_dir, shutdown).map_err(|error| error.to_string())?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, built.connect()).await;
    built.close().await;
    match connected {
        Ok(Ok(limits)) => Ok(limits),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs())),
    }
}

fn limit_warning(sink: &str, limits: Limits, body_bytes_max: u64) -> Option<String> {
    let taken = limits.message_bytes_max.filter(|taken| *taken < body_bytes_max)?;
    let (taken, body_max) = (human::bytes(taken), human::bytes(body_bytes_max));
    Some(format!(
        "sink {sink} takes messages up to {taken}, ingress.body_max lets {body_max} in: larger events become dead letters"
    ))
}

fn render(report: &Report) -> String {
    let mut sources = human::table(&["SOURCE", "KIND", "URL", "AUTHENTICATED"]);
    for source in &report.sources {
        let authenticated = if source.authenticated { "yes" } else { "no" };
        sources.add_row([&source.name, source.kind, &source.url, authenticated]);
    }
    let mut sinks = human::table(&["SINK", "KIND", "CONNECTS"]);
    for sink in &report.sinks {
        let connects = match (sink.connects, &sink.problem) {
            (None, _) => "not tried (--connect tries)".to_owned(),
            (Some(true), _) => "ok".to_owned(),
            (Some(false), problem) => {
                format!("NO: {}", human::harmless(problem.as_deref().unwrap_or_default()))
            }
        };
        sinks.add_row([sink.name.clone(), sink.kind.to_owned(), connects]);
    }
    let built_in = || "no file was found, the built-in default runs".to_owned();
    let read = report.file.as_ref().map_or_else(built_in, |file| file.display().to_string());
    let mut parts = vec![
        format!("configuration is {}: {read}", if report.valid { "valid" } else { "NOT VALID" }),
        sources.trim_fmt(),
        sinks.trim_fmt(),
        routes(&report.routes),
    ];
    parts.extend(report.problems.iter().map(|problem| format!("error: {problem}")));
    parts.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    parts.join("\n\n")
}

fn routes(routes: &[Route]) -> String {
    if routes.is_empty() {
        return "no routes: every event goes to every sink".to_owned();
    }
    let mut table = human::table(&["ROUTE", "FROM", "TYPES", "TO"]);
    for (index, route) in routes.iter().enumerate() {
        let all = || "all".to_owned();
        let from = route.from.as_ref().map_or_else(all, |names| join(names));
        let types = route.types.as_ref().map_or_else(all, |types| join(types));
        table.add_row([(index + 1).to_string(), from, types, join(&route.to)]);
    }
    table.trim_fmt()
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_takes_less_than_the_ingress_lets_in_is_warned_about() {
        let limit = |message_bytes_max| Limits { message_bytes_max };
        for (sentence, limits, warned) in [
            ("a smaller limit", limit(Some(1024)), true),
            ("the same limit", limit(Some(2048)), false),
            ("no limit known", limit(None), false),
        ] {
            assert_eq!(limit_warning("orders", limits, 2048).is_some(), warned, "{sentence}");
        }
    }

    #[test]
    fn the_report_shows_why_a_sink_cannot_be_reached() {
        let line = |connects, problem: Option<&str>| SinkLine {
            name: "orders".to_owned(),
            kind: "http",
            connects,
            problem: problem.map(str::to_owned),
        };
        for (sentence, line, wanted) in [
            ("untried", line(None, None), "not tried"),
            ("reached", line(Some(true), None), "ok"),
            ("not reached", line(Some(false), Some("tls: not trusted")), "NO: tls: not trusted"),
        ] {
            let report = Report {
                valid: true,
                file: Some("mine.toml".into()),
                sources: Vec::new(),
                sinks: vec![line],
                routes: Vec::new(),
                problems: Vec::new(),
                warnings: vec!["look here".to_owned()],
            };
            let text = render(&report);
            assert!(text.starts_with("configuration is valid: mine.toml\n"), "{text}");
            assert!(text.contains(wanted) && text.contains("warning: look here"), "{sentence}: {text}");
        }
    }
}
