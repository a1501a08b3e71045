//! The table of answers: each problem's status, type and headers, and the forms of the 2xx.

use super::super::kept::tests::event;
use super::*;
use crate::dead_letter::{DeadLetters, Quarantined};
use crate::envelope::SourceName;
use crate::journal::{Journal, RealDisk};
use crate::shutdown::Shutdown;
use crate::time::UnixMs;
use http_body_util::BodyExt;

/// What senders are told of all this.
const DOCUMENTED: &str = include_str!("../../docs/reference/ingress.md");

async fn text(response: Response) -> String {
    String::from_utf8(response.into_http().into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn every_problem_has_its_status_its_type_and_its_headers() {
    let wait = Duration::from_millis(1500);
    for (problem, status, name, header) in [
        (Problem::NotFound, 404, "not-found", None),
        (
            Problem::MethodNotAllowed(&[Method::POST, Method::PUT]),
            405,
            "method-not-allowed",
            Some(("allow", "POST, PUT")),
        ),
        (Problem::HeadTooLarge, 431, "head-too-large", None),
        (Problem::RateLimited(wait), 429, "rate-limited", Some(("retry-after", "2"))),
        (Problem::Busy, 503, "busy", Some(("retry-after", "1"))),
        (Problem::BodyTimeout, 408, "body-timeout", None),
        (Problem::BodyTooLarge, 413, "body-too-large", None),
        (Problem::BodyIncomplete, 400, "body-incomplete", None),
        (Problem::BrokenCoding, 400, "broken-coding", None),
        (Problem::UnknownCoding, 415, "unknown-coding", None),
        (Problem::Unauthorized, 401, "unauthorized", Some(("www-authenticate", "Webhook"))),
        (Problem::Unreadable(Unreadable::MediaType), 415, "unsupported-media-type", None),
        (Problem::Unreadable(Unreadable::NotJson), 400, "unreadable", None),
        (Problem::NoEvent, 400, "no-event", None),
        (Problem::EventTooLarge, 413, "event-too-large", None),
        (Problem::StorageUnavailable, 503, "storage-unavailable", Some(("retry-after", "30"))),
    ] {
        let response = refused(&problem);
        assert_eq!(response.status(), status, "{problem:?}");
        let row = DOCUMENTED.lines().find(|row| row.contains(&format!("`{name}`")));
        assert!(
            row.is_some_and(|row| row.starts_with(&format!("| {status} |"))),
            "{name} in ingress.md: {row:?}"
        );
        assert!(status >= 400, "a refusal never promises");
        let headers = response.0.headers();
        assert_eq!(headers["content-type"], "application/problem+json", "{problem:?}");
        if let Some((header, value)) = header {
            assert_eq!(headers[header], value, "{problem:?}");
        }
        let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body["type"], format!("urn:hookbus:problem:{name}"));
        assert_eq!(body["status"], status);
        assert!(!body["title"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_wait_is_rounded_up_to_whole_seconds_and_never_none() {
    for (wait_ms, secs) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (u64::MAX, u64::MAX / 1000 + 1)] {
        assert_eq!(whole_secs(Duration::from_millis(wait_ms)), secs, "{wait_ms} ms");
    }
}

/// Real stores, because nobody but they can make a proof.
struct Stores {
    _folder: tempfile::TempDir,
    journal: Journal,
    letters: DeadLetters,
}

impl Stores {
    fn open() -> Stores {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::journal::Config {
            disk_max: crate::config::ByteSize::kib(256),
            ..crate::journal::Config::default()
        };
        let journal =
            Journal::open(&config, &folder.path().join("journal"), std::sync::Arc::new(RealDisk), &[]);
        let letters = DeadLetters::open(&Default::default(), folder.path(), &Shutdown::new());
        Stores { journal: journal.unwrap(), letters: letters.unwrap(), _folder: folder }
    }

    async fn events(&self, ids: &[&str]) -> Kept {
        let events = ids.iter().map(|id| event("s", id)).collect();
        Kept::events(&self.journal, events, UnixMs(1), Duration::from_secs(60)).await.unwrap()
    }

    async fn letter(&self) -> Kept {
        let body = Quarantined {
            source: &SourceName::new("inbox").unwrap(),
            body: &Bytes::from_static(b"what"),
            content_type: None,
            reason: "not_json",
            detail: String::new(),
            arrived: UnixMs(1),
        };
        Kept::letter(&self.letters, body).await.unwrap()
    }
}

#[tokio::test]
async fn a_2xx_speaks_the_senders_dialect() {
    let stores = Stores::open();
    let letter = stores.letter().await;
    let What::Letter(kept) = letter.what() else { panic!("it is a letter") };
    let named_letter = format!(r#"{{"id":"{}","duplicate":false}}"#, kept.id().0);
    for (sentence, kept, dialect, expected) in [
        ("value true", stores.events(&["one"]).await, source::Answer::ValueTrue, r#"{"value":true}"#),
        (
            "one identity, escaped",
            stores.events(&["one \"quoted\""]).await,
            source::Answer::Identities,
            r#"{"id":"one \"quoted\"","duplicate":false}"#,
        ),
        (
            "several are a list",
            stores.events(&["one", "two"]).await,
            source::Answer::Identities,
            r#"[{"id":"one","duplicate":true},{"id":"two","duplicate":false}]"#,
        ),
        ("a quarantine is named by its letter", letter, source::Answer::Identities, &named_letter),
        ("or not named at all", stores.letter().await, source::Answer::ValueTrue, r#"{"value":true}"#),
    ] {
        let response = accepted(kept, dialect);
        assert_eq!(response.status(), 200, "{sentence}");
        assert_eq!(response.0.headers()["content-type"], "application/json", "{sentence}");
        assert_eq!(text(response).await, expected, "{sentence}");
    }
}
