//! Twilio (<https://www.twilio.com/docs/usage/webhooks>): messages, calls, recordings, conferences and what else posts
//! forms, and products that post JSON.

use super::facts::{Facts, fit_id, id_of_bytes, id_of_headers, type_of, uri_part};
use super::payload::Payload;
use super::signed::{Describe, Signed, defaults, wrong_secret};
use super::verify::{Algorithm, HmacKeys, PublicUrl, TwilioUrl};
use super::{Answer, Request, Source, SourceType};
use crate::config::{ConfigErrors, OneOrMany, Secret, Section};
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType { name: "twilio", build, defaults: defaults::<Config> };

/// TwiML that asks for nothing.
const EMPTY_TWIML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>";

/// `[sources.N.twilio]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The auth token of the account; several while one is being replaced. Required.
    secret: Option<OneOrMany<Secret>>,
    /// The URL as Twilio has it, without its query; a secret, since its path may hold one. Absent: as it arrives.
    url: Option<Secret>,
}

fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let config: Config = section.extract()?;
    let mut errors = Vec::new();
    let keys = |algorithm| HmacKeys::of(config.secret.as_ref(), algorithm);
    let keys = keys(Algorithm::Sha1).and_then(|sha1| Ok((sha1, keys(Algorithm::Sha256)?)));
    let keys = ConfigErrors::collect(&mut errors, keys.map_err(|problem| wrong_secret(section, problem)));
    let url = config.url.as_ref().map(|url| PublicUrl::parse(url.expose())).transpose();
    let url = url.map_err(|problem| ConfigErrors(vec![section.error("url", problem)]));
    match (keys, ConfigErrors::collect(&mut errors, url)) {
        (Some((sha1, sha256)), Some(url)) => Ok(Signed::source(TwilioUrl::new(sha1, sha256, url), Twilio)),
        _ => Err(ConfigErrors(errors)),
    }
}

struct Twilio;

/// What a form is about: the noun and its state, and what is the same when the same news is posted again.
struct News<'a> {
    kind: [Option<Cow<'a, str>>; 2],
    id: Option<String>,
}

impl<'a> News<'a> {
    fn of(payload: &'a Payload<'_>) -> Self {
        let noun = |noun: &'static str| Some(Cow::Borrowed(noun));
        let first = |names: &[&str]| names.iter().find_map(|name| payload.field(name));
        let message = first(&["MessageSid", "SmsSid", "SmsMessageSid"]);
        let (kind, identity) = if let Some(event) = first(&["EventType"]).or_else(|| payload.at("/EventType"))
        {
            ([Some(event), None], [None, None, None])
        } else if let Some(recording) = payload.field("RecordingSid") {
            let state = payload.field("RecordingStatus");
            ([noun("recording"), state.clone()], [Some(recording), state, noun("")])
        } else if let Some(message) = message {
            let state = first(&["MessageStatus", "SmsStatus"]);
            ([noun("message"), state.clone()], [Some(message), state, noun("")])
        } else if let Some(conference) = payload.field("ConferenceSid") {
            let state = payload.field("StatusCallbackEvent");
            ([noun("conference"), state.clone()], [Some(conference), state, payload.field("SequenceNumber")])
        } else if let Some(call) = payload.field("CallSid") {
            let state = payload.field("CallStatus");
            // What is heard meanwhile is counted too, from zero at each question, and has no time.
            let number = payload.field("Timestamp").and_then(|_| payload.field("SequenceNumber"));
            ([noun("call"), state.clone()], [Some(call), state, number])
        } else {
            ([noun("event"), None], [None, None, None])
        };
        News { kind, id: joined(identity) }
    }
}

/// Only a whole identity is one: what a caller presses at a menu is posted alike each time, and each time counts.
fn joined(identity: [Option<Cow<'_, str>>; 3]) -> Option<String> {
    let [sid, state, number] = identity;
    let (sid, state, number) = (sid?, state?, number?);
    let dot = if number.is_empty() { "" } else { "." };
    Some(fit_id(format!("{sid}.{state}{dot}{number}").as_bytes()))
}

/// The number at the other end: the sender of what comes in, the receiver of what went out.
fn other_end(payload: &Payload<'_>) -> Option<String> {
    let is_outbound = match payload.field("Direction") {
        Some(direction) => direction.starts_with("outbound"),
        None => payload.field("MessageStatus").is_some_and(|status| status != "received"),
    };
    let names = if is_outbound { ["To", "Called"] } else { ["From", "Caller"] };
    names.iter().find_map(|name| payload.field(name)).map(Cow::into_owned)
}

impl Describe for Twilio {
    /// The parameters that the pages of messaging and voice list. `I-Twilio-Idempotency-Token` stays the same when a
    /// webhook is repeated ("Webhook connection overrides").
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let news = News::of(payload);
        let id = id_of_headers(request, &["i-twilio-idempotency-token"]).or(news.id);
        let id = id.or_else(|| payload.has_json().then(|| id_of_bytes(request)).flatten());
        let account =
            payload.field("AccountSid").or_else(|| payload.first_at(&["/AccountSid", "/account_sid"]));
        let number = other_end(payload);
        let [noun, state] = news.kind;
        let call_or_message =
            ["CallSid", "MessageSid", "ConferenceSid"].iter().find_map(|name| payload.field(name));
        let time = payload.field("Timestamp");
        Facts {
            id,
            source: Some(match account {
                Some(account) => format!("//api.twilio.com/accounts/{}", uri_part(&account)),
                None => "//api.twilio.com".to_owned(),
            }),
            event_type: type_of(&[Some(Cow::Borrowed("com.twilio")), noun, state]),
            subject: number.clone(),
            time: time.and_then(|text| UnixMs::parse_rfc2822(&text).or_else(|| UnixMs::from_sender(&text))),
            key: number.or_else(|| call_or_message.map(Cow::into_owned)),
        }
    }

    /// Twilio reads the answer as TwiML.
    fn answer(&self) -> Answer {
        Answer::Fixed { media_type: "text/xml", body: EMPTY_TWIML }
    }
}

#[cfg(test)]
mod tests {
    use crate::source::testing::{Post, configured};

    #[test]
    fn what_is_heard_during_a_call_is_never_taken_for_a_repetition() {
        let source = configured("[twilio]\nsecret = \"t\"").unwrap();
        let read = |fields: &str| {
            let body = format!("CallSid=CA1&CallStatus=in-progress&SequenceNumber=0{fields}");
            let post = Post::of(body).with("content-type", "application/x-www-form-urlencoded");
            post.read(&source).unwrap()
        };
        let (first, second) = (read("&UnstableSpeechResult=yes"), read("&UnstableSpeechResult=no"));
        assert!(!first.can_repeat() && first.id != second.id, "each question counts from zero");
        let state = read("&Timestamp=Fri%2C+20+Nov+2026+23%3A59%3A57+%2B0000");
        assert!(state.can_repeat());
        assert_eq!(state.id, "CA1.in-progress.0");
    }
}
