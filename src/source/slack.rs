//! Slack (<https://docs.slack.dev/authentication/verifying-requests-from-slack>): the Events API, slash commands and
//! interactivity, whose requests are all signed alike.

use super::facts::{Facts, fit_id, header, id_of_bytes_and, type_of, uri_part};
use super::payload::Payload;
use super::signed::{self, Describe, Signed, defaults};
use super::verify::{Dated, Encoding, OneHeader, Template};
use super::{Answer, Handshake, Request, Source, SourceType};
use crate::config::{ConfigErrors, Section};
use crate::time::UnixMs;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;
use std::sync::Arc;

pub(super) const TYPE: SourceType = SourceType { name: "slack", build, defaults: defaults::<signed::Dated> };

const TIMESTAMP: &str = "x-slack-request-timestamp";
/// The most bytes of a body that may be a question; questions are a few hundred bytes.
const QUESTION_BYTES_MAX: usize = 4096;

/// `v0=` and the hexadecimal HMAC-SHA256 of version, time and body.
fn build(section: &Section) -> Result<Arc<dyn Source>, ConfigErrors> {
    let (keys, tolerance) = signed::Dated::read(section)?;
    let scheme = OneHeader {
        signature: [HeaderName::from_static("x-slack-signature")],
        prefix: "v0=".to_owned(),
        encoding: Encoding::Hex,
        signed: Template::dated("v0:", ":"),
        id: None,
        dated: Some(Dated { header: HeaderName::from_static(TIMESTAMP), tolerance }),
        keys,
    };
    Ok(Signed::source(scheme, Slack))
}

struct Slack;

impl Describe for Slack {
    /// The "outer event" of the Events API, the fields of a slash command, or the `payload` of an interaction.
    fn facts(&self, request: &Request<'_>, payload: &Payload<'_>) -> Facts {
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        let prefix = || Some(Cow::Borrowed("com.slack"));
        let is_command = payload.field("command").is_some();
        let event = payload.at("/event/type");
        let event_type = match (is_command, event) {
            (true, _) => type_of(&[prefix(), Some(Cow::Borrowed("command"))]),
            (false, Some(event)) => type_of(&[prefix(), Some(event), payload.at("/event/subtype")]),
            (false, None) => {
                type_of(&[prefix(), Some(payload.at("/type").unwrap_or(Cow::Borrowed("unknown")))])
            }
        };
        let team = payload.first_at(&["/team_id", "/team/id", "/enterprise_id", "/enterprise/id"]);
        let team = text(team.or_else(|| payload.field("team_id")));
        let channel = payload.first_at(&[
            "/event/channel",
            "/event/channel/id",
            "/event/item/channel",
            "/event/channel_id",
            "/channel/id",
            "/container/channel_id",
        ]);
        let channel = text(channel.or_else(|| payload.field("channel_id")));
        // Only the Events API repeats, and there each event has an id. A trigger belongs to one click or command.
        let id = payload.first_at(&["/event_id", "/trigger_id"]).or_else(|| payload.field("trigger_id"));
        let id = id.map(|id| fit_id(id.as_bytes()));
        let sent = header(request, TIMESTAMP).unwrap_or_default();
        let key = [team.as_deref(), channel.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("/");
        Facts {
            id: id.or_else(|| id_of_bytes_and(request, sent)),
            source: team.map(|team| format!("//slack.com/teams/{}", uri_part(&team))),
            event_type,
            subject: channel,
            time: payload
                .first_at(&["/event_time", "/action_ts"])
                .and_then(|time| UnixMs::from_sender(&time)),
            key: Some(key).filter(|key| !key.is_empty()),
        }
    }

    /// Interactions are a form with one field.
    fn json_field(&self) -> Option<&'static str> {
        Some("payload")
    }

    /// `url_verification` of the Events API, answered with its challenge, and the certificate check of slash commands.
    fn handshake(&self, request: &Request<'_>) -> Option<Handshake> {
        if request.body.len() > QUESTION_BYTES_MAX {
            return None;
        }
        let payload = Payload::read(request).ok()?;
        let answer = if payload.at("/type").as_deref() == Some("url_verification") {
            payload.at("/challenge")?.into_owned()
        } else if payload.field("ssl_check").as_deref() == Some("1") {
            String::new()
        } else {
            return None;
        };
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        Some(Handshake { headers: HeaderMap::from_iter([(CONTENT_TYPE, plain)]), body: Bytes::from(answer) })
    }

    /// Slack shows the answer to a command to its user and takes that to a dialogue for an instruction.
    fn answer(&self) -> Answer {
        Answer::Fixed { media_type: "text/plain", body: "" }
    }
}
