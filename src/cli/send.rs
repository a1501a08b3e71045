//! `hookbus send`: posts a sample or a file to a source of the running daemon, as its sender would.
//! Holds: R8 (the path secret and the token are sent, never shown).

use super::client::{self, ClientError};
use super::settings::{self, Way};
use super::{CliError, Ending, files, human};
use crate::clock;
use crate::ingress::tls;
use crate::time::UnixMs;
use clap::Args;
use reqwest::{Url, header};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest an answer may take; the ingress bounds itself to less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an answer that are shown.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What `--sample` offers: a name, the dialect it is the first choice for, and the body.
const SAMPLES: [(&str, &str, &str); 3] = [
    ("zapi-text", "zapi", include_str!("samples/zapi-text.json")),
    ("plugzapi-text", "plugzapi", include_str!("samples/plugzapi-text.json")),
    ("json", "generic", include_str!("samples/json.json")),
];

#[derive(Args, Debug)]
#[group(id = "body", multiple = false)]
struct BodyArguments {
    /// Send this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Send a built-in sample; without any of these, the one that suits the source
    #[arg(long, value_name = "NAME", value_parser = SAMPLES.map(|(name, ..)| name))]
    sample: Option<String>,
    /// Send this text
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// Send standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    input: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The source's name in the configuration
    source: String,
    #[command(flatten)]
    body: BodyArguments,
    /// The body's media type; without it: JSON where the body is JSON, else text or bytes
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The ingress' URL; without it: ingress.listen of the configuration
    #[arg(long, value_name = "URL")]
    ingress: Option<String>,
}

pub(super) async fn send(config: Option<&Path>, arguments: &Arguments) -> Result<Ending, CliError> {
    let way = settings::way_to(config, &arguments.source)?;
    let body = body(&arguments.body, &way)?;
    let content_type = arguments.content_type.as_deref().unwrap_or_else(|| guess(&body)).to_owned();
    let (url, base) = url(arguments.ingress.as_deref(), &way)?;

    let http = match (&arguments.ingress, url.scheme()) {
        (None, "https") => {
            let certificate = tls::server_certificate(&way.tls);
            client::https_with(certificate.map_err(|error| CliError::Failed(error.to_string()))?)?
        }
        _ => client::http(&url)?,
    };
    let mut request = http.post(url).timeout(ANSWER_TIMEOUT);
    request = request.header(header::CONTENT_TYPE, content_type).body(body);
    for (name, secret) in &way.headers {
        request = request.header(name, secret.expose());
    }
    let mut answer = request.send().await.map_err(|error| failed(&error, &base))?;
    let status = answer.status();
    let mut text = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| failed(&error, &base))? {
        text.extend_from_slice(&piece);
        if text.len() >= ANSWER_BYTES_MAX {
            text.truncate(ANSWER_BYTES_MAX);
            break;
        }
    }
    human::say(&format!("{status}\n{}", human::harmless(String::from_utf8_lossy(&text).trim_end())))?;
    Ok(if status.is_success() { Ending::Done } else { Ending::Failed })
}

fn failed(error: &reqwest::Error, base: &str) -> CliError {
    if error.is_connect() {
        let problem = client::sentence(error);
        return CliError::Failed(format!(
            "nothing answers at {base}: {problem}; is hookbus running? (ingress.listen or --ingress say where)"
        ));
    }
    CliError::Client(ClientError::Broken { url: base.to_owned(), problem: client::sentence(error) })
}

/// Where to post, and how that place may be named in a message.
fn url(ingress: Option<&str>, way: &Way) -> Result<(Url, String), CliError> {
    let base = ingress.unwrap_or(&way.base).trim_end_matches('/').to_owned();
    if ingress.is_none() && base.starts_with("unix:") {
        let problem =
            format!("the ingress listens at {base} only, where send cannot post; --ingress names a URL");
        return Err(CliError::Failed(problem));
    }
    let mut url = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    if let Some(mut segments) = url.as_mut().and_then(|url| url.path_segments_mut().ok()) {
        segments.pop_if_empty().push("hooks").push(&way.source);
        segments.extend(way.path_secret.iter().map(crate::config::Secret::expose));
    }
    url.map(|url| (url, base.clone())).ok_or(CliError::Client(ClientError::Url(base)))
}

fn body(arguments: &BodyArguments, way: &Way) -> Result<Vec<u8>, CliError> {
    if let Some(text) = &arguments.data {
        return Ok(text.clone().into_bytes());
    }
    let input = arguments.input.as_ref().map(PathBuf::from);
    if let Some(path) = arguments.file.as_ref().or(input.as_ref()) {
        return files::read(path);
    }
    let suits = |(name, dialect, _): &(&str, &str, &str)| match &arguments.sample {
        Some(wanted) => name == wanted,
        None => *dialect == way.dialect,
    };
    let sample = SAMPLES.iter().find(|row| suits(row)).or(SAMPLES.last());
    let (_, _, sample) = sample.expect("the list of samples is not empty");
    Ok(filled(sample, way.instance.as_deref(), clock::now(), uuid::Uuid::now_v7()).into_bytes())
}

/// A fresh message of the source's own instance: an old one would be recognised, another's quarantined.
fn filled(sample: &str, instance: Option<&str>, now: UnixMs, unique: uuid::Uuid) -> String {
    let instance = instance.unwrap_or("3C67AB641C8AA0F49E4BC2F5CBA37A21");
    let message = unique.simple().to_string().to_uppercase();
    sample.replace("@INSTANCE@", instance).replace("@MESSAGE@", &message).replace("@NOW@", &now.0.to_string())
}

fn guess(body: &[u8]) -> &'static str {
    match std::str::from_utf8(body) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => "application/json",
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn way() -> Way {
        Way {
            base: "http://127.0.0.1:8080".to_owned(),
            tls: tls::Config::default(),
            source: "whatsapp".to_owned(),
            dialect: "zapi",
            path_secret: Some(Secret::literal("a/b c")),
            headers: Vec::new(),
            instance: Some("MINE".to_owned()),
        }
    }

    #[test]
    fn a_unix_socket_is_no_place_to_post_to() {
        let way = Way { base: "unix:/run/x".to_owned(), ..way() };
        assert!(url(None, &way).unwrap_err().to_string().contains("--ingress"));
        assert!(url(Some("http://127.0.0.1:1"), &way).is_ok());
    }

    #[test]
    fn the_path_secret_is_one_escaped_segment_and_no_part_of_the_name() {
        let (url, name) = url(Some("http://bus.test/prefix/"), &way()).unwrap();
        assert_eq!(url.as_str(), "http://bus.test/prefix/hooks/whatsapp/a%2Fb%20c");
        assert_eq!(name, "http://bus.test/prefix");
        assert!(super::url(Some("not a url"), &way()).is_err());
    }

    #[test]
    fn every_sample_is_a_fresh_json_document_of_the_sources_instance() {
        let unique = uuid::Uuid::from_u128(7);
        for (name, _, sample) in SAMPLES {
            let text = filled(sample, Some("MINE"), UnixMs(42), unique);
            let value: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!text.contains('@'), "{name} is filled in");
            if name != "json" {
                assert_eq!(value["instanceId"], "MINE", "{name}");
                assert_eq!(value["momment"], 42, "{name}");
                assert_eq!(value["messageId"], "00000000000000000000000000000007", "{name}");
            }
        }
    }

    #[test]
    fn the_media_type_is_guessed_from_the_body() {
        for (body, media_type) in [
            (&b"{\"a\":1}"[..], "application/json"),
            (b"12", "application/json"),
            (b"hello", "text/plain; charset=utf-8"),
            (b"\xff\xfe", "application/octet-stream"),
        ] {
            assert_eq!(guess(body), media_type);
        }
    }
}
