//! `hookbus capture`: shows the next requests of a source, refused ones too, to write a source for an unknown sender.
//! Holds: R8 (the daemon hides secrets before anything gets here; values of bodies are shown only with `--body`).

use super::client::{Client, Pieces};
use super::settings::AdminArguments;
use super::{CliError, Ending, human};
use crate::time::UnixMs;
use serde_json::Value;
use std::path::Path;

/// The most bytes of one capture; the daemon's own bounds are far below.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The source's name in the configuration
    #[arg(long, value_name = "NAME")]
    source: String,
    /// End after so many requests; without it, with Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Also show the bodies' values, which may be personal; secrets stay hidden
    #[arg(long)]
    body: bool,
    /// Print one JSON document a request, each on a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) async fn capture(config: Option<&Path>, arguments: &Arguments) -> Result<Ending, CliError> {
    let client = Client::new(arguments.admin.target(config)?)?;
    // A name is one segment of the path.
    let source = crate::envelope::SourceName::new(&arguments.source)
        .map_err(|invalid| CliError::Usage(format!("--source: {invalid}")))?;
    let mut query = vec![("bodies", arguments.body.to_string())];
    query.extend(arguments.count.map(|count| ("count", count.to_string())));
    let mut pieces = client.stream(&format!("/api/v1/sources/{source}/capture"), &query).await?;
    human::complain(&format!("watching {source}: the next requests to /hooks/{source} are shown here"));
    let mut waiting = Vec::new();
    while let Some(line) = next_line(&mut pieces, &mut waiting).await? {
        let document: Value = serde_json::from_slice(&line)
            .map_err(|error| CliError::Failed(format!("the answer is not one of this version: {error}")))?;
        match document["missed"].as_u64() {
            Some(missed) => human::complain(&format!("{missed} requests came too fast to be shown")),
            None if arguments.json => human::say(&document.to_string())?,
            None => human::say(&render(&document))?,
        }
    }
    Ok(Ending::Done)
}

/// The next line that says something; none at the end.
async fn next_line(pieces: &mut Pieces, waiting: &mut Vec<u8>) -> Result<Option<Vec<u8>>, CliError> {
    loop {
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            if line.len() > 1 {
                return Ok(Some(line));
            }
        }
        match pieces.next().await? {
            Some(piece) if waiting.len() + piece.len() <= LINE_BYTES_MAX => waiting.extend_from_slice(&piece),
            Some(_) => return Err(CliError::Failed("a capture has no end".to_owned())),
            None => return Ok(None),
        }
    }
}

fn render(capture: &Value) -> String {
    let text = |value: &Value| human::harmless(value.as_str().unwrap_or_default());
    let at = UnixMs(capture["at"].as_i64().unwrap_or_default()).to_rfc3339();
    let from = capture["from"].as_str().map(|from| format!(" from {}", human::harmless(from)));
    let mut lines = vec![format!(
        "{at} {} {}{}{}",
        text(&capture["method"]),
        text(&capture["path"]),
        query(&capture["query"]),
        from.unwrap_or_default()
    )];
    for header in capture["headers"].as_array().into_iter().flatten() {
        lines.push(format!("  {}: {}", text(&header[0]), text(&header[1])));
    }
    lines.push(format!("  body: {}", body(&capture["body"])));
    let answer = &capture["answer"];
    let said: Vec<String> = [&answer["problem"], &answer["reason"]]
        .into_iter()
        .filter(|part| part.is_string())
        .map(text)
        .collect();
    lines.push(format!("  answer: {} {}", answer["status"], said.join(": ")).trim_end().to_owned());
    let events = capture["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    for event in events {
        let duplicate = if event["duplicate"] == true { " (a duplicate, not stored again)" } else { "" };
        lines.push(format!("  event{duplicate}:"));
        for (name, value) in event["attributes"].as_object().into_iter().flatten() {
            lines.push(format!("    {}: {}", human::harmless(name), text(value)));
        }
    }
    let count = capture["events_count"].as_u64().unwrap_or_default();
    let more = count.saturating_sub(events.len() as u64);
    if more > 0 {
        lines.push(format!("  and {more} more events"));
    }
    lines.join("\n")
}

fn query(pairs: &Value) -> String {
    let pairs: Vec<String> = pairs
        .as_array()
        .into_iter()
        .flatten()
        .map(|pair| {
            format!("{}={}", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default())
        })
        .collect();
    if pairs.is_empty() { String::new() } else { human::harmless(&format!("?{}", pairs.join("&"))) }
}

fn body(body: &Value) -> String {
    if body.is_null() {
        return "not read".to_owned();
    }
    let size = human::bytes(body["bytes"].as_u64().unwrap_or_default());
    let media_type = body["media_type"].as_str().unwrap_or("no media type");
    let kind = body["kind"].as_str().unwrap_or_default();
    let inside = if body.get("content").is_some() { &body["content"] } else { &body["shape"] };
    let inside = if inside.is_null() { String::new() } else { format!(": {inside}") };
    human::harmless(&format!("{size}, {media_type}, {kind}{inside}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_capture_reads_like_the_request_and_drives_no_terminal() {
        let shown = render(&json!({
            "at": 0, "source": "inbox", "from": "10.0.0.1", "method": "POST", "path": "/hooks/inbox/***",
            "query": [["a", "1"], ["token", "***"]],
            "headers": [["user-agent", "x\u{1b}[2J"], ["authorization", "Bearer ***"]],
            "body": {"bytes": 9, "media_type": "application/json", "kind": "json", "shape": {"a": "number"}},
            "answer": {"status": 401, "problem": "unauthorized", "reason": "no credential was sent"},
            "events": [{"attributes": {"id": "1"}, "duplicate": true}], "events_count": 3,
        }));
        for line in [
            "1970-01-01T00:00:00.000Z POST /hooks/inbox/***?a=1&token=*** from 10.0.0.1",
            "  user-agent: x [2J",
            "  authorization: Bearer ***",
            "  body: 9 B, application/json, json: {\"a\":\"number\"}",
            "  answer: 401 unauthorized: no credential was sent",
            "  event (a duplicate, not stored again):",
            "    id: 1",
            "  and 2 more events",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line:?} in {shown}");
        }
        let refused = json!({"body": null, "answer": {"status": 200, "problem": null, "reason": null}});
        assert!(render(&refused).contains("  body: not read\n  answer: 200"));
    }
}
