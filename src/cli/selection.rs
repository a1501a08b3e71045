//! Which dead letters a command is about: the same filters for every operation, as arguments and on the wire.

use crate::time::UnixMs;
use clap::Args;
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde_json::{Map, Value, json};

/// The filters; a letter must match all that are given.
#[derive(Args, Debug, Default, Clone)]
pub(super) struct Filters {
    /// Given up by this sink's lane
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Taken in by this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Of this event type; `*` stands for any characters
    #[arg(long = "type", value_name = "GLOB")]
    event_type: Option<String>,
    /// For this reason, as the listing shows it
    #[arg(long)]
    reason: Option<String>,
    /// Given up since then: RFC 3339, or how long ago (`2h`, `3 days`)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<UnixMs>,
    /// Given up before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<UnixMs>,
    /// Only bodies that could not be read
    #[arg(long)]
    quarantined: bool,
}

/// The letters that `replay` and `discard` are about.
#[derive(Args, Debug, Default)]
pub(super) struct Selection {
    /// These very letters
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// Every letter there is, or every one that the filters leave
    #[arg(long)]
    all: bool,
}

impl Filters {
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let text = |text: &Option<String>| text.clone().map(Value::String);
        let time = |time: Option<UnixMs>| time.map(|time| json!(time.0));
        [
            ("sink", text(&self.sink)),
            ("source", text(&self.source)),
            ("event_type", text(&self.event_type)),
            ("reason", text(&self.reason)),
            ("since", time(self.since)),
            ("until", time(self.until)),
            ("quarantined", self.quarantined.then_some(Value::Bool(true))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
    /// As query parameters.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let as_text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.fields().into_iter().map(|(name, value)| (name, as_text(value))).collect()
    }
}

impl Selection {
    /// As the body of an operation; `None` where nothing was selected.
    pub(super) fn body(&self) -> Option<Map<String, Value>> {
        let mut body = Map::new();
        if !self.ids.is_empty() {
            body.insert("ids".to_owned(), json!(self.ids));
        }
        body.extend(self.filters.fields().into_iter().map(|(name, value)| (name.to_owned(), value)));
        if self.all {
            body.insert("all".to_owned(), Value::Bool(true));
        }
        (!body.is_empty()).then_some(body)
    }
    /// Letters by name rather than by filter.
    pub(super) fn ids(&self) -> &[String] {
        &self.ids
    }
    /// The filters.
    pub(super) fn filters(&self) -> &Filters {
        &self.filters
    }
}

fn moment(text: &str) -> Result<UnixMs, String> {
    moment_before(text, crate::clock::now())
}

fn moment_before(text: &str, now: UnixMs) -> Result<UnixMs, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(UnixMs(at.as_millisecond()));
    }
    let ago = text.strip_suffix("ago").unwrap_or(text).trim();
    let span = ago.parse::<Span>().ok();
    let ago_ms = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let ago_ms = ago_ms.and_then(|span| i64::try_from(span.as_millis()).ok()).filter(|ago_ms| *ago_ms >= 0);
    let at = ago_ms.and_then(|ago_ms| now.0.checked_sub(ago_ms));
    at.map(UnixMs).ok_or_else(|| {
        "expected a time like 2026-01-31T12:00:00Z, or how long ago like 2h or 3 days".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now = UnixMs(1_000_000_000);
        for (sentence, text, moment) in [
            ("a time", "1970-01-01T00:00:01Z", Some(1_000)),
            ("a time with an offset", "1970-01-01T01:00:01+01:00", Some(1_000)),
            ("hours ago", "2h", Some(1_000_000_000 - 7_200_000)),
            ("days ago, in words", "3 days ago", Some(1_000_000_000 - 3 * 86_400_000)),
            ("two units", "1h 30m", Some(1_000_000_000 - 5_400_000)),
            ("the future is not ago", "-2h", None),
            ("months have no length", "1mo", None),
            ("a date alone is at no time", "2026-01-31", None),
            ("nothing is no time", "", None),
        ] {
            assert_eq!(moment_before(text, now).ok(), moment.map(UnixMs), "{sentence}");
        }
    }

    #[test]
    fn an_empty_selection_is_nothing_and_not_everything() {
        assert_eq!(Selection::default().body(), None);
        let all = Selection { all: true, ..Selection::default() };
        assert_eq!(Value::Object(all.body().unwrap()), json!({"all": true}));
        let filters = Filters { sink: Some("orders".into()), since: Some(UnixMs(5)), ..Filters::default() };
        let some = Selection { ids: vec!["a".into()], filters: filters.clone(), all: false };
        assert_eq!(Value::Object(some.body().unwrap()), json!({"ids": ["a"], "sink": "orders", "since": 5}));
        assert_eq!(filters.query(), [("sink", "orders".to_owned()), ("since", "5".to_owned())]);
    }
}
