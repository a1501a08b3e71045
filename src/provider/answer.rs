//! What an answer of the API means: pure functions of its status and body.
//! Holds: only a 2xx that says `value` true has set something; R8 (what an answer says is repeated only after every secret
//! that this side knows is taken out of it).

use super::problem::Problem;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// The most characters of an answer that are repeated.
const SAID_CHARS_MAX: usize = 160;
/// The end of every refusal of a Client-Token or an address.
const NOT_ALLOWED: &str = " not allowed";

/// The texts that must not be repeated.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Of these texts, as they are and as a URL writes them.
    pub(super) fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets = Vec::new();
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            secrets.push(in_a_url(text));
            secrets.push(text.to_owned());
        }
        // The longest first, so that a secret that begins like another leaves nothing behind.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Secrets(secrets)
    }

    /// One short line without secrets and without what drives a terminal.
    pub(super) fn cleaned(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret, "***");
        }
        let harmless = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        harmless.take(SAID_CHARS_MAX).collect::<String>().trim().to_owned()
    }
}

fn in_a_url(text: &str) -> String {
    let mut url = reqwest::Url::parse("http://h").expect("a constant");
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}

/// Did a call that sets something do so?
pub(super) fn set(status: u16, body: &[u8], secrets: &Secrets) -> Result<(), Problem> {
    let answer = object(body);
    match answer.as_ref().and_then(|answer| answer.get("value")) {
        Some(Value::Bool(true)) if is_success(status) => Ok(()),
        Some(Value::Bool(false)) if is_success(status) => Err(Problem::SaysNo),
        _ => Err(refusal(status, answer.as_ref(), secrets)),
    }
}

/// The object that a call asked for: one that has any of `fields`.
pub(super) fn read(
    status: u16,
    body: &[u8],
    fields: &[&str],
    secrets: &Secrets,
) -> Result<Map<String, Value>, Problem> {
    match object(body) {
        Some(answer) if is_success(status) && fields.iter().any(|field| answer.contains_key(*field)) => {
            Ok(answer)
        }
        answer => Err(refusal(status, answer.as_ref(), secrets)),
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn object(body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok()
}

fn refusal(status: u16, answer: Option<&Map<String, Value>>, secrets: &Secrets) -> Problem {
    let field = |name: &str| answer.and_then(|answer| answer.get(name)).and_then(Value::as_str);
    let said = field("error").or_else(|| field("message")).unwrap_or_default().trim();
    match (status, said.strip_suffix(NOT_ALLOWED)) {
        // "Method not allowed" is no word about a token.
        (405 | 415, _) | (_, None) => {}
        (_, Some(what)) => return not_allowed(what.trim()),
    }
    match status {
        300..=399 => Problem::Moved(status),
        401 | 403 => Problem::Unauthorized(status),
        404 => Problem::NotFound,
        405 => Problem::MethodRefused,
        415 => Problem::MediaTypeRefused,
        429 => Problem::TooMany,
        500..=599 => Problem::ProviderFailed(status),
        200..=299 if said.is_empty() => Problem::Strange(status),
        _ => Problem::Refused(status, secrets.cleaned(said)),
    }
}

/// `null`, an address, or else the Client-Token as it arrived, which is not repeated.
fn not_allowed(what: &str) -> Problem {
    let address = what.trim_matches(['[', ']']).parse::<IpAddr>();
    match address {
        Ok(address) => Problem::AddressBlocked(address),
        Err(_) if what == "null" => Problem::ClientTokenMissing,
        Err(_) => Problem::ClientTokenWrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::of(["tok/en", "tok"])
    }

    #[test]
    fn only_a_success_that_says_true_has_set_something() {
        let refused = |status, said: &str| Err(Problem::Refused(status, said.to_owned()));
        for (sentence, status, body, result) in [
            ("the documented answer", 200, r#"{"value":true}"#, Ok(())),
            ("created is a success too", 201, r#"{"value":true,"more":1}"#, Ok(())),
            ("a no", 200, r#"{"value":false}"#, Err(Problem::SaysNo)),
            ("a text is no yes", 200, r#"{"value":"true"}"#, Err(Problem::Strange(200))),
            ("what the older pages print", 200, r#"{"value": boolean}"#, Err(Problem::Strange(200))),
            ("nothing", 200, "", Err(Problem::Strange(200))),
            ("another document", 200, "<html>", Err(Problem::Strange(200))),
            (
                "an error in a success",
                200,
                r#"{"error":"Instance not found"}"#,
                refused(200, "Instance not found"),
            ),
            ("a yes in a refusal", 400, r#"{"value":true}"#, refused(400, "")),
            ("no Client-Token", 200, r#"{"error":"null not allowed"}"#, Err(Problem::ClientTokenMissing)),
            ("whatever its status", 403, r#"{"error":"null not allowed"}"#, Err(Problem::ClientTokenMissing)),
            (
                "a blocked address",
                400,
                r#"{"error":"[203.0.113.9] not allowed"}"#,
                Err(Problem::AddressBlocked(IpAddr::from([203, 0, 113, 9]))),
            ),
            ("another Client-Token", 401, r#"{"error":"F00BA not allowed"}"#, Err(Problem::ClientTokenWrong)),
            ("a wrong method", 405, "", Err(Problem::MethodRefused)),
            (
                "a wrong method in words",
                405,
                r#"{"error":"Method not allowed"}"#,
                Err(Problem::MethodRefused),
            ),
            ("no media type", 415, "", Err(Problem::MediaTypeRefused)),
            ("not authorized", 401, "{}", Err(Problem::Unauthorized(401))),
            ("no such call", 404, r#"{"error":"NOT_FOUND"}"#, Err(Problem::NotFound)),
            ("too many", 429, "", Err(Problem::TooMany)),
            ("somewhere else", 302, "", Err(Problem::Moved(302))),
            ("its own failure", 503, "down", Err(Problem::ProviderFailed(503))),
            ("another refusal", 422, r#"{"message":"bad url"}"#, refused(422, "bad url")),
        ] {
            assert_eq!(set(status, body.as_bytes(), &secrets()), result, "{sentence}");
        }
    }

    #[test]
    fn an_object_is_read_where_it_has_a_known_field() {
        let fields = ["connected"];
        let status = r#"{"connected":true,"error":"You are already connected."}"#;
        assert!(read(200, status.as_bytes(), &fields, &secrets()).unwrap().contains_key("connected"));
        let refused = read(200, br#"{"error":"null not allowed"}"#, &fields, &secrets());
        assert_eq!(refused.unwrap_err(), Problem::ClientTokenMissing);
        assert_eq!(read(200, b"[]", &fields, &secrets()).unwrap_err(), Problem::Strange(200));
        assert_eq!(
            read(500, status.as_bytes(), &fields, &secrets()).unwrap_err(),
            Problem::ProviderFailed(500)
        );
    }

    #[test]
    fn what_an_answer_says_is_repeated_without_secrets_controls_and_length() {
        let said = |text: &str| secrets().cleaned(text);
        assert_eq!(said("bad tok/en at https://a/tok%2Fen\u{1b}[1m"), "bad *** at https://a/*** [1m");
        assert_eq!(said(&"x".repeat(1000)).len(), SAID_CHARS_MAX);
    }
}
