//! A captured request as one line of JSON: what came, without its secrets, and what became of it.
//! Holds: R8; values of a body are there only where somebody asked for them; every part is bounded.

use super::mask::{HIDDEN, Mask};
use super::{Body, Captured};
use crate::envelope::Envelope;
use crate::percent::form_decoded;
use crate::source::ConfiguredSource;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

/// The most members of an object, or pairs of a form, whose names are shown.
const NAMES_MAX: usize = 50;
/// The most characters of a name.
const NAME_CHARS_MAX: usize = 64;
/// The most levels of a body that are shown.
const LEVELS_MAX: usize = 8;
/// The most characters of a text.
const TEXT_CHARS_MAX: usize = 8 * 1024;

pub(super) fn line(source: &ConfiguredSource, captured: &Captured, with_body: bool) -> Bytes {
    let mask = Mask::new(source, captured.in_path.as_deref());
    let secret = if captured.in_path.is_some() { "/***" } else { "" };
    let headers = captured.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        json!([name.as_str(), mask.value(name.as_str(), &value)])
    });
    let document = json!({
        "at": captured.at.0,
        "source": source.name.as_str(),
        "dialect": source.type_name,
        "from": captured.address.map(|address| address.to_string()),
        "method": captured.method.as_str(),
        "path": format!("/hooks/{}{secret}", source.name),
        "query": captured.query.as_deref().map(|query| pairs(&mask, query)),
        "headers": headers.collect::<Vec<Value>>(),
        "body": body(&mask, captured, with_body),
        "answer": {
            "status": captured.answer.status,
            "problem": Some(captured.answer.problem).filter(|name| !name.is_empty()),
            "reason": Some(&captured.answer.reason).filter(|reason| !reason.is_empty()),
        },
        "events": captured.events.iter().map(|(event, is_known)| attributes(&mask, event, *is_known)).collect::<Vec<Value>>(),
        "events_count": captured.events_count,
    });
    let mut line = serde_json::to_vec(&document).expect("texts, numbers and flags are always JSON");
    line.push(b'\n');
    Bytes::from(line)
}

fn body(mask: &Mask<'_>, captured: &Captured, with_content: bool) -> Value {
    let media_type =
        captured.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let (bytes, kind, shape, content) = match &captured.body {
        Body::NotRead => return Value::Null,
        Body::Large(bytes) => (*bytes, "large", Value::Null, Value::Null),
        Body::Whole(body) => {
            let is_form = media_type.as_deref().is_some_and(|text| {
                text.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
            });
            let (kind, shape, content) = looked_into(mask, body, is_form);
            (body.len(), kind, shape, content)
        }
    };
    let media_type = media_type.map(|text| mask.text(&text));
    let mut shown = json!({ "bytes": bytes, "media_type": media_type, "kind": kind, "shape": shape });
    if with_content {
        shown["content"] = content;
    }
    shown
}

/// What the body is, which names are in it, and its values without secrets.
fn looked_into(mask: &Mask<'_>, body: &[u8], is_form: bool) -> (&'static str, Value, Value) {
    if body.is_empty() {
        return ("empty", Value::Null, Value::Null);
    }
    let Ok(text) = std::str::from_utf8(body) else { return ("binary", Value::Null, Value::Null) };
    if is_form {
        let content = pairs(mask, text);
        let names: Vec<Value> =
            content.as_array().into_iter().flatten().map(|pair| pair[0].clone()).collect();
        return ("form", names.into(), content);
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value) => ("json", shape(mask, &value, 0), content(mask, &value, 0)),
        Err(_) => {
            let shown: String = text.chars().take(TEXT_CHARS_MAX).collect();
            ("text", json!({ "lines": text.lines().count() }), mask.text(&shown).into())
        }
    }
}

/// The parameters of a query or a form, decoded as a source does it, so that the mask sees the same.
fn pairs(mask: &Mask<'_>, text: &str) -> Value {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(NAMES_MAX).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, plain) = (readable(name), readable(value));
        // A secret with a plus in it is one as it stands, too.
        let value = if mask.text(value) == HIDDEN { HIDDEN.to_owned() } else { mask.value(&name, &plain) };
        json!([short(&mask.text(&name)), value])
    });
    pairs.collect::<Vec<Value>>().into()
}

fn readable(text: &str) -> String {
    String::from_utf8_lossy(&form_decoded(text.as_bytes())).into_owned()
}

/// The names and kinds of values, none of the values.
fn shape(mask: &Mask<'_>, value: &Value, level: usize) -> Value {
    match value {
        _ if level > LEVELS_MAX => "…".into(),
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(elements) => {
            elements.first().map(|first| shape(mask, first, level + 1)).into_iter().collect::<Vec<_>>().into()
        }
        Value::Object(members) => {
            let named = members.iter().take(NAMES_MAX);
            let shapes =
                named.map(|(name, member)| (short(&mask.text(name)), shape(mask, member, level + 1)));
            shapes.collect::<Map<String, Value>>().into()
        }
    }
}

/// The values, secrets hidden.
fn content(mask: &Mask<'_>, value: &Value, level: usize) -> Value {
    match value {
        _ if level > LEVELS_MAX => "…".into(),
        Value::String(text) => mask.text(text).into(),
        Value::Number(number) => match mask.text(&number.to_string()) {
            hidden if hidden == HIDDEN => hidden.into(),
            _ => value.clone(),
        },
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Array(elements) => {
            elements.iter().map(|element| content(mask, element, level + 1)).collect::<Vec<_>>().into()
        }
        Value::Object(members) => {
            let shown = members.iter().map(|(name, member)| {
                let member = if mask.hides(name) { HIDDEN.into() } else { content(mask, member, level + 1) };
                (mask.text(name), member)
            });
            shown.collect::<Map<String, Value>>().into()
        }
    }
}

fn short(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

/// The attributes of an event by their names, and whether it was known already.
fn attributes(mask: &Mask<'_>, event: &Envelope, is_known: bool) -> Value {
    const CONTEXT: [&str; 7] = ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];
    let context = CONTEXT.into_iter().filter_map(|name| Some((name, event.attribute(name)?)));
    let extensions = event.extensions.iter().map(|(name, value)| (name.as_ref(), value.as_text()));
    let shown = context
        .chain(extensions)
        .map(|(name, value)| (name.to_owned(), Value::from(mask.value(name, &value))));
    json!({ "attributes": shown.collect::<Map<String, Value>>(), "duplicate": is_known })
}
