//! `hookbus register`: sets every webhook of a source's instance at its provider to this daemon's public URL, and checks
//! what the instance shows.
//! Holds: R8 (the path secret and the tokens are sent, never shown); a URL that is not HTTPS is refused, since the
//! providers take no other; exit code 1 where something could not be done, else 3 where something differs.

use super::{CliError, Ending, human, settings};
use crate::app::config::{Config, Loaded};
use crate::config::{ConfigError, ConfigErrors, HttpUrl, Secret};
use crate::provider::{Call, Registration, Report, Target};
use crate::source::{Account, ConfiguredSource};
use reqwest::Url;
use serde::Serialize;
use std::path::Path;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The source's name in the configuration; its dialect must be zapi or plugzapi
    #[arg(long, value_name = "NAME")]
    source: String,
    /// Where the provider reaches the ingress, before /hooks/NAME; without it: ingress.public_url
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Have messages that are sent by oneself notified too; without it they are switched off
    #[arg(long)]
    sent_by_me: bool,
    /// Only read what is set, and compare
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
    /// Only show the calls that would be made; nothing is asked and nothing is set
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// What is registered with whom, as far as it may be shown.
#[derive(Serialize)]
struct Subject {
    source: String,
    provider: &'static str,
    api: String,
    instance: String,
    /// The registered URL, its secret masked.
    url: String,
    sent_by_me: bool,
    /// What should be known about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    result: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct Plan<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    calls: Vec<Call>,
}

pub(super) async fn register(file: Option<&Path>, arguments: &Arguments) -> Result<Ending, CliError> {
    let Loaded { config, .. } = settings::load(file)?;
    let source = settings::source_named(&config, &arguments.source)?;
    let account = account_of(source, &config)?;
    let public_url = public_url(arguments, &config)?;
    let path_secret = source.config.path_secret.as_ref().and_then(|secrets| secrets.iter().next());
    let url = url(&public_url, source, path_secret)?;
    let subject = Subject {
        source: source.name.to_string(),
        provider: account.title,
        api: account.api.to_string(),
        instance: account.instance.clone().unwrap_or_default(),
        url: format!("{public_url}{}", source.masked_path()),
        sent_by_me: arguments.sent_by_me,
        hints: hints(source, account, path_secret),
    };
    let target = Target {
        url,
        masked_url: subject.url.clone(),
        path_secret: path_secret.cloned(),
        sent_by_me: arguments.sent_by_me,
    };
    let registration =
        Registration::new(account, target).map_err(|error| CliError::Failed(error.to_string()))?;
    if arguments.dry_run {
        return show_plan(&subject, registration.calls(), arguments.json);
    }
    let report = if arguments.check { registration.check().await } else { registration.set().await };
    show(&subject, &report, arguments.json)
}

/// The account of a source that has one, with every key that calls need.
fn account_of<'a>(source: &'a ConfiguredSource, config: &Config) -> Result<&'a Account, CliError> {
    let Some(account) = source.dialect.account() else {
        let can = config.sources.values().filter(|other| other.dialect.account().is_some());
        let names: Vec<&str> = can.map(|other| other.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(CliError::Usage(format!(
            "source {} is of the dialect {}, whose webhooks cannot be set from here; sources whose can: {names}",
            source.name, source.type_name
        )));
    };
    let missing = account.missing().into_iter().map(|key| ConfigError {
        key: format!("{}.{key}", account.section),
        origin: None,
        problem: "is required to register".to_owned(),
    });
    let missing: Vec<ConfigError> = missing.collect();
    if missing.is_empty() { Ok(account) } else { Err(ConfigErrors(missing).into()) }
}

fn public_url(arguments: &Arguments, config: &Config) -> Result<HttpUrl, CliError> {
    let (url, key) = match (&arguments.public_url, &config.ingress.public_url) {
        (Some(text), _) => {
            let url = text.parse().map_err(|error| CliError::Usage(format!("--public-url: {error}")))?;
            (url, "--public-url")
        }
        (None, Some(url)) => (url.clone(), "ingress.public_url"),
        (None, None) => {
            return Err(CliError::Usage(
                "where does the provider reach this daemon? say it with --public-url https://… or ingress.public_url"
                    .to_owned(),
            ));
        }
    };
    if url.is_https() {
        return Ok(url);
    }
    Err(CliError::Usage(format!(
        "{key}: must be https, the provider takes no other webhook; put a certificate into ingress.tls or a proxy with one in front"
    )))
}

/// `https://hooks.example.com/hooks/whatsapp/SECRET`; the secret is one segment, whatever is in it.
fn url(
    public_url: &HttpUrl,
    source: &ConfiguredSource,
    path_secret: Option<&Secret>,
) -> Result<String, CliError> {
    if path_secret.is_some_and(|secret| !is_carried(secret.expose())) {
        let key = format!("sources.{}.path_secret", source.name);
        let problem = "has a line break or a tab, or is only dots: no URL carries that; look at its end";
        return Err(ConfigErrors(vec![ConfigError { key, origin: None, problem: problem.to_owned() }]).into());
    }
    let no_url = || CliError::Usage(format!("{public_url} is not a URL that can be registered"));
    let mut url = Url::parse(public_url.as_str()).map_err(|_| no_url())?;
    url.path_segments_mut()
        .map_err(|()| no_url())?
        .pop_if_empty()
        .extend(["hooks", source.name.as_str()])
        .extend(path_secret.map(Secret::expose));
    Ok(url.into())
}

/// Arrives as it is when it is a segment of a URL: the URL's own rules drop the rest without a word, and every post to
/// what was registered would then be refused.
fn is_carried(secret: &str) -> bool {
    !matches!(secret, "." | "..") && !secret.contains(['\t', '\n', '\r'])
}

fn hints(source: &ConfiguredSource, account: &Account, path_secret: Option<&Secret>) -> Vec<String> {
    let mut hints = Vec::new();
    if path_secret.is_none() {
        hints.push(format!(
            "sources.{}.path_secret is not set: only the header with the token proves who posts, and {} documents none",
            source.name, account.title
        ));
    }
    hints
}

fn show_plan(subject: &Subject, calls: Vec<Call>, as_json: bool) -> Result<Ending, CliError> {
    if as_json {
        human::say_json(&Plan { subject, calls })?;
        return Ok(Ending::Done);
    }
    let mut lines = vec![headline(subject), "these calls would be made:".to_owned()];
    lines.extend(calls.iter().map(|call| {
        let body = call.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default();
        format!("  {} {}{body}", call.method, call.url)
    }));
    lines.extend(subject.hints.iter().map(|hint| format!("note: {hint}")));
    human::say(&lines.join("\n"))?;
    Ok(Ending::Done)
}

fn show(subject: &Subject, report: &Report, as_json: bool) -> Result<Ending, CliError> {
    let (ending, result) = match (report.failed(), report.differs()) {
        (true, _) => (Ending::Failed, "failed"),
        (false, true) => (Ending::NotHealthy, "differs"),
        (false, false) => (Ending::Done, "done"),
    };
    if as_json {
        human::say_json(&Outcome { subject, result, report })?;
        return Ok(ending);
    }
    let mut table = human::table(&["HOOK", "WANTED", "STATE", "NOTE"]);
    for row in &report.hooks {
        let note = human::harmless(row.note.as_deref().unwrap_or_default());
        table.add_row([row.hook.label(), &row.wanted, row.state.label(), &note]);
    }
    let mut parts = vec![headline(subject), table.trim_fmt()];
    parts.extend(subject.hints.iter().map(|hint| format!("note: {hint}")));
    human::say(&parts.join("\n\n"))?;
    for problem in &report.problems {
        human::complain(&format!("hookbus: {}", human::harmless(problem)));
    }
    Ok(ending)
}

fn headline(subject: &Subject) -> String {
    let Subject { source, provider, instance, api, .. } = subject;
    format!("source {source}: {provider} instance {} at {api}", human::harmless(instance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::envelope::SourceName;

    fn source(section: &str) -> ConfiguredSource {
        let layers = Layers::load(Some(section), None, &[]).unwrap();
        ConfiguredSource::parse(SourceName::new("whatsapp").unwrap(), &layers.root()).unwrap()
    }

    #[test]
    fn the_registered_url_ends_in_the_first_path_secret_as_one_segment() {
        for (sentence, section, public_url, registered) in [
            ("no secret", "[zapi]", "https://hooks.example.com", "https://hooks.example.com/hooks/whatsapp"),
            (
                "the first of two",
                "path_secret = [\"new\", \"old\"]\n[zapi]",
                "https://hooks.example.com:8443",
                "https://hooks.example.com:8443/hooks/whatsapp/new",
            ),
            (
                "a path before it, and characters that a URL writes in its own way",
                "path_secret = \"a/b c\"\n[zapi]",
                "https://hooks.example.com/bus/",
                "https://hooks.example.com/bus/hooks/whatsapp/a%2Fb%20c",
            ),
        ] {
            let source = source(section);
            let secret = source.config.path_secret.as_ref().and_then(|secrets| secrets.iter().next());
            let url = url(&public_url.parse().unwrap(), &source, secret).unwrap();
            assert_eq!(url, registered, "{sentence}");
        }
    }

    #[test]
    fn a_path_secret_that_no_url_carries_is_refused_and_not_repeated() {
        for (sentence, secret) in [
            ("a line break at its end, from a variable", "s3cret\n"),
            ("a tab", "s3\tcret"),
            ("a dot", "."),
            ("two dots", ".."),
        ] {
            let source = source("[zapi]");
            let error =
                url(&"https://hooks.example.com".parse().unwrap(), &source, Some(&Secret::literal(secret)))
                    .unwrap_err()
                    .to_string();
            assert!(error.contains("sources.whatsapp.path_secret: has a line break"), "{sentence}: {error}");
            assert!(!error.contains("s3"), "{sentence}: {error}");
        }
    }
}
