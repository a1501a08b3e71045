//! `hookbus send`: posts a sample or a file to a source of the running daemon, as its sender would.
//! Holds: R8 (the path secret and the token are sent, never shown).

use super::client::{self, ClientError};
use super::settings::{self, Way};
use super::{CliError, Ending, files, human};
use crate::clock;
use crate::ingress::tls;
use crate::source::{Arrival, Draft, Proof};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use reqwest::{Url, header};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest an answer may take; the ingress bounds itself to less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an answer that are shown.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A built-in request.
struct Sample {
    name: &'static str,
    /// The dialect that it is the first choice for.
    dialect: &'static str,
    body: &'static str,
    /// Where the body is no JSON.
    content_type: Option<&'static str>,
    /// Headers by which the sender says what it is.
    headers: &'static [(&'static str, &'static str)],
}

impl Sample {
    const fn json(name: &'static str, dialect: &'static str, body: &'static str) -> Self {
        Sample { name, dialect, body, content_type: None, headers: &[] }
    }
}

/// What `--sample` offers; the last is for every other source.
const SAMPLES: [Sample; 13] = [
    Sample::json("zapi-text", "zapi", include_str!("samples/zapi-text.json")),
    Sample::json("plugzapi-text", "plugzapi", include_str!("samples/plugzapi-text.json")),
    Sample::json("cloudevent", "cloudevents", include_str!("samples/cloudevent.json")),
    Sample {
        headers: &[("x-github-event", "push"), ("x-github-delivery", "@MESSAGE@")],
        ..Sample::json("github-push", "github", include_str!("samples/github-push.json"))
    },
    Sample {
        headers: &[
            ("x-gitlab-event", "Push Hook"),
            ("x-gitlab-instance", "https://gitlab.com"),
            ("idempotency-key", "@MESSAGE@"),
        ],
        ..Sample::json("gitlab-push", "gitlab", include_str!("samples/gitlab-push.json"))
    },
    Sample {
        headers: &[
            ("x-shopify-topic", "orders/create"),
            ("x-shopify-shop-domain", "hookbus-sample.myshopify.com"),
            ("x-shopify-webhook-id", "@MESSAGE@"),
        ],
        ..Sample::json("shopify-order", "shopify", include_str!("samples/shopify-order.json"))
    },
    Sample::json("slack-message", "slack", include_str!("samples/slack-message.json")),
    Sample::json("slack-challenge", "slack", include_str!("samples/slack-challenge.json")),
    Sample::json("standard-event", "standard_webhooks", include_str!("samples/standard-event.json")),
    Sample::json("stripe-invoice", "stripe", include_str!("samples/stripe-invoice.json")),
    Sample {
        content_type: Some("application/x-www-form-urlencoded"),
        ..Sample::json("twilio-message", "twilio", include_str!("samples/twilio-message.txt"))
    },
    Sample {
        content_type: Some("application/cloudevents+json"),
        ..Sample::json("cloudevent", "cloudevents", include_str!("samples/cloudevent.json"))
    },
    Sample::json("json", "generic", include_str!("samples/json.json")),
];

#[derive(Args, Debug)]
#[group(id = "body", multiple = false)]
struct BodyArguments {
    /// Send this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Send a built-in sample; without any of these, the one that suits the source
    #[arg(long, value_name = "NAME", value_parser = SAMPLES.map(|sample| sample.name))]
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
    /// Send this header too; several may be given
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header_of)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The ingress' URL; without it: ingress.listen of the configuration
    #[arg(long, value_name = "URL")]
    ingress: Option<String>,
}

/// What is posted.
struct Message {
    body: Vec<u8>,
    content_type: String,
    headers: HeaderMap,
}

pub(super) async fn send(config: Option<&Path>, arguments: &Arguments) -> Result<Ending, CliError> {
    let way = settings::way_to(config, &arguments.source)?;
    let arrival = Arrival { at: clock::now(), unique: uuid::Uuid::now_v7() };
    let message = message(arguments, &way, arrival)?;
    let (mut url, base) = url(arguments.ingress.as_deref(), &way)?;
    let proof = proof(&url, &message, &way, arrival)?;
    url.set_query(proof.query.as_deref());

    let http = match (&arguments.ingress, url.scheme()) {
        (None, "https") => {
            let certificate = tls::server_certificate(&way.tls);
            client::https_with(certificate.map_err(|error| CliError::Failed(error.to_string()))?)?
        }
        _ => client::http(&url)?,
    };
    let mut request = http.post(url).timeout(ANSWER_TIMEOUT);
    request = request.headers(message.headers).headers(proof.headers);
    request = request.header(header::CONTENT_TYPE, message.content_type).body(message.body);
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
    // A Unix socket, or one of the service manager's.
    if ingress.is_none() && !base.starts_with("http") {
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

/// What the source's dialect adds so that the request passes for one of its sender.
fn proof(url: &Url, message: &Message, way: &Way, arrival: Arrival) -> Result<Proof, CliError> {
    let uri: Uri = url.as_str().parse().map_err(|_| CliError::Usage("the URL is too long".to_owned()))?;
    let Message { body, content_type, .. } = message;
    let draft = Draft { uri: &uri, content_type, body, arrival };
    way.source_dialect.sign(&draft).map_err(|error| CliError::Failed(format!("{}: {error}", way.source)))
}

fn header_of(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    const EXPECTED: &str = "expected a header such as \"X-GitHub-Event: push\"";
    let (name, value) = text.split_once(':').ok_or(EXPECTED)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| EXPECTED)?;
    Ok((name, HeaderValue::from_str(value.trim()).map_err(|_| EXPECTED)?))
}

fn message(arguments: &Arguments, way: &Way, arrival: Arrival) -> Result<Message, CliError> {
    let (body, sample) = body(&arguments.body, way, arrival)?;
    let of_sample = sample.and_then(|sample| sample.content_type);
    let content_type = arguments
        .content_type
        .as_deref()
        .or(of_sample)
        .unwrap_or_else(|| guess(&body, way.dialect))
        .to_owned();
    let mut headers = HeaderMap::new();
    for (name, value) in sample.map_or(&[][..], |sample| sample.headers) {
        let value = HeaderValue::try_from(filled(value, None, arrival));
        headers.insert(HeaderName::from_static(name), value.expect("a sample's header is header text"));
    }
    for (name, value) in &arguments.headers {
        headers.insert(name, value.clone());
    }
    Ok(Message { body, content_type, headers })
}

/// The body, and the sample that it is of.
fn body(
    arguments: &BodyArguments,
    way: &Way,
    arrival: Arrival,
) -> Result<(Vec<u8>, Option<&'static Sample>), CliError> {
    static ALL: [Sample; SAMPLES.len()] = SAMPLES;
    if let Some(text) = &arguments.data {
        return Ok((text.clone().into_bytes(), None));
    }
    let input = arguments.input.as_ref().map(PathBuf::from);
    if let Some(path) = arguments.file.as_ref().or(input.as_ref()) {
        return files::read(path).map(|body| (body, None));
    }
    let suits = |sample: &&Sample| match &arguments.sample {
        Some(wanted) => sample.name == wanted,
        None => sample.dialect == way.dialect,
    };
    let sample = ALL.iter().find(suits).or(ALL.last());
    let sample = sample.expect("the list of samples is not empty");
    Ok((filled(sample.body, way.instance.as_deref(), arrival).into_bytes(), Some(sample)))
}

/// A fresh message of the source's own instance: an old one would be recognised, another's quarantined.
fn filled(sample: &str, instance: Option<&str>, arrival: Arrival) -> String {
    let now = arrival.at;
    let mut text = sample.trim_end().to_owned();
    for (place, value) in [
        ("@INSTANCE@", instance.unwrap_or("3C67AB641C8AA0F49E4BC2F5CBA37A21").to_owned()),
        ("@MESSAGE@", arrival.unique.simple().to_string().to_uppercase()),
        ("@NOW@", now.0.to_string()),
        ("@SECONDS@", (now.0 / 1000).to_string()),
        ("@TIME@", now.to_rfc3339()),
    ] {
        text = text.replace(place, &value);
    }
    text
}

fn guess(body: &[u8], dialect: &str) -> &'static str {
    match std::str::from_utf8(body) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => match dialect {
            "cloudevents" if text.trim_start().starts_with('[') => "application/cloudevents-batch+json",
            "cloudevents" => "application/cloudevents+json",
            _ => "application/json",
        },
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Secret};
    use crate::envelope::SourceName;
    use crate::source::ConfiguredSource;
    use crate::time::UnixMs;

    fn way() -> Way {
        let layers = Layers::load(Some("[zapi]"), None, &[]).unwrap();
        let source = ConfiguredSource::parse(SourceName::new("whatsapp").unwrap(), &layers.root()).unwrap();
        Way {
            base: "http://127.0.0.1:8080".to_owned(),
            tls: tls::Config::default(),
            source: "whatsapp".to_owned(),
            dialect: "zapi",
            source_dialect: source.dialect,
            path_secret: Some(Secret::literal("a/b c")),
            headers: Vec::new(),
            instance: Some("MINE".to_owned()),
        }
    }

    #[test]
    fn a_socket_without_a_url_is_no_place_to_post_to() {
        for base in ["unix:/run/x", "systemd:ingress"] {
            let way = Way { base: base.to_owned(), ..way() };
            assert!(url(None, &way).unwrap_err().to_string().contains("--ingress"), "{base}");
            assert!(url(Some("http://127.0.0.1:1"), &way).is_ok());
        }
    }

    #[test]
    fn the_path_secret_is_one_escaped_segment_and_no_part_of_the_name() {
        let (url, name) = url(Some("http://bus.test/prefix/"), &way()).unwrap();
        assert_eq!(url.as_str(), "http://bus.test/prefix/hooks/whatsapp/a%2Fb%20c");
        assert_eq!(name, "http://bus.test/prefix");
        assert!(super::url(Some("not a url"), &way()).is_err());
    }

    #[test]
    fn every_sample_is_a_fresh_document_of_the_sources_instance() {
        let arrival = Arrival { at: UnixMs(42_000), unique: uuid::Uuid::from_u128(7) };
        for Sample { name, body, content_type, .. } in SAMPLES {
            let text = filled(body, Some("MINE"), arrival);
            assert!(!text.contains('@'), "{name} is filled in");
            if content_type.is_some() {
                continue;
            }
            let value: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            if name.contains("zapi") {
                assert_eq!(value["instanceId"], "MINE", "{name}");
                assert_eq!(value["momment"], 42_000, "{name}");
                assert_eq!(value["messageId"], "00000000000000000000000000000007", "{name}");
            }
        }
    }

    #[test]
    fn a_header_is_written_as_in_a_request() {
        let (name, value) = header_of("X-GitHub-Event:  push ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-github-event", "push"));
        for text in ["push", "a b: c", ": c", "a: \u{7}"] {
            assert!(header_of(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_media_type_is_guessed_from_the_body() {
        for (body, dialect, media_type) in [
            (&b"{\"a\":1}"[..], "generic", "application/json"),
            (b"12", "zapi", "application/json"),
            (b"hello", "cloudevents", "text/plain; charset=utf-8"),
            (b"\xff\xfe", "generic", "application/octet-stream"),
            (b"{}", "cloudevents", "application/cloudevents+json"),
            (b" []", "cloudevents", "application/cloudevents-batch+json"),
        ] {
            assert_eq!(guess(body, dialect), media_type);
        }
    }
}
