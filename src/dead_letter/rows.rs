//! The tables, and the one walk over them that listing, replaying and discarding share.
//! Holds: an entry that cannot be read is passed over and counted, never an error; memory is bounded by what is asked for.
//! Tables: `letters` id → record, `payloads` id → payload, `order` (died, id), `errands` (sink, number) → (kind, id) in
//! the order they were asked for, `errand_numbers` (sink, kind, id) → number to find one again, `errand_notes` (sink,
//! number) → (when it is to be tried again, what its lane noted), and `counts` (sink or nothing for the ingress, what) →
//! how often since the store began to count.

use super::letter::Letter;
use super::types::{ErrandKind, Filter, LetterId, Origin, Summary};
use crate::glob;
use redb::{ReadableTable, TableDefinition};
use std::ops::Bound;

pub(super) const LETTERS: TableDefinition<&str, &[u8]> = TableDefinition::new("letters");
pub(super) const PAYLOADS: TableDefinition<&str, &[u8]> = TableDefinition::new("payloads");
pub(super) const ORDER: TableDefinition<(i64, &str), ()> = TableDefinition::new("order");
pub(super) const ERRANDS: TableDefinition<(&str, u64), (u8, &str)> = TableDefinition::new("errands");
pub(super) const ERRAND_NUMBERS: TableDefinition<(&str, u8, &str), u64> =
    TableDefinition::new("errand_numbers");
pub(super) const ERRAND_NOTES: TableDefinition<(&str, u64), (i64, &[u8])> =
    TableDefinition::new("errand_notes");
pub(super) const COUNTS: TableDefinition<(&str, u8), u64> = TableDefinition::new("counts");

/// A place in the order of dying.
pub(super) type Position = (i64, String);

pub(super) fn kind_to_row(kind: ErrandKind) -> u8 {
    match kind {
        ErrandKind::Replay => 1,
        ErrandKind::Copy => 2,
    }
}

pub(super) fn kind_from_row(row: u8) -> Option<ErrandKind> {
    match row {
        1 => Some(ErrandKind::Replay),
        2 => Some(ErrandKind::Copy),
        _ => None,
    }
}

/// A letter and the length of its record.
pub(super) type Kept = (Letter, u64);

/// The letter of that id; `None` where there is none or its record cannot be read (then `unreadable` grows).
pub(super) fn letter(
    letters: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &LetterId,
    unreadable: &mut u64,
) -> Result<Option<Kept>, redb::Error> {
    let Some(record) = letters.get(id.0.as_str())? else { return Ok(None) };
    let record = record.value();
    match Letter::decode(record) {
        Ok(letter) => Ok(Some((letter, record.len() as u64))),
        Err(_undecodable) => {
            *unreadable += 1;
            Ok(None)
        }
    }
}

/// How far one walk goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The most letters it gathers.
    pub letters_max: usize,
    /// The most entries it looks at.
    pub entries_max: usize,
}

/// What a walk gathered.
pub(super) struct Walk {
    /// In the order of dying.
    pub letters: Vec<Kept>,
    /// The last entry looked at, where a bound ended the walk.
    pub next: Option<Position>,
}

/// Gathers matching letters in the order in which they were given up, from behind `after`.
pub(super) fn walk(
    letters: &impl ReadableTable<&'static str, &'static [u8]>,
    order: &impl ReadableTable<(i64, &'static str), ()>,
    filter: &Filter,
    after: Option<&Position>,
    bounds: Bounds,
    unreadable: &mut u64,
) -> Result<Walk, redb::Error> {
    if !filter.ids.is_empty() {
        return walk_ids(letters, filter, after, bounds.letters_max, unreadable);
    }
    let first = match (after, filter.since) {
        (Some((died, id)), since) if since.is_none_or(|since| since.0 <= *died) => {
            Bound::Excluded((*died, id.as_str()))
        }
        (_, Some(since)) => Bound::Included((since.0, "")),
        (_, None) => Bound::Unbounded,
    };
    let mut found = Walk { letters: Vec::new(), next: None };
    for (entries, row) in order.range::<(i64, &str)>((first, Bound::Unbounded))?.enumerate() {
        let (key, ()) = row.map(|(key, nothing)| (key, nothing.value()))?;
        let (died, id) = key.value();
        if filter.until.is_some_and(|until| died >= until.0) {
            break;
        }
        if let Some(kept) = letter(letters, &LetterId(id.to_owned()), unreadable)?
            && matches(filter, &kept.0.summary)
        {
            found.letters.push(kept);
        }
        if found.letters.len() >= bounds.letters_max || entries + 1 >= bounds.entries_max {
            found.next = Some((died, id.to_owned()));
            break;
        }
    }
    Ok(found)
}

fn walk_ids(
    letters: &impl ReadableTable<&'static str, &'static [u8]>,
    filter: &Filter,
    after: Option<&Position>,
    letters_max: usize,
    unreadable: &mut u64,
) -> Result<Walk, redb::Error> {
    let mut found = Vec::new();
    for id in filter.ids.iter().collect::<std::collections::BTreeSet<_>>() {
        if let Some(kept) = letter(letters, id, unreadable)?
            && matches(filter, &kept.0.summary)
            && after.is_none_or(|after| position(&kept.0.summary) > *after)
        {
            found.push(kept);
        }
    }
    found.sort_by_cached_key(|(letter, _)| position(&letter.summary));
    found.truncate(letters_max);
    Ok(Walk { letters: found, next: None })
}

pub(super) fn position(summary: &Summary) -> Position {
    (summary.died.0, summary.id.0.clone())
}

fn matches(filter: &Filter, summary: &Summary) -> bool {
    let Filter { ids, sink, source, event_type, reason, since, until, quarantined } = filter;
    let of_sink = match &summary.origin {
        Origin::Sink(origin) => sink.as_ref().is_none_or(|sink| sink == origin),
        Origin::Ingress => sink.is_none(),
    };
    let of_type = event_type
        .as_ref()
        .is_none_or(|glob| summary.event_type.as_ref().is_some_and(|text| glob::matches(glob, text)));
    of_sink
        && of_type
        && (ids.is_empty() || ids.contains(&summary.id))
        && source.as_ref().is_none_or(|source| *source == summary.source)
        && reason.as_ref().is_none_or(|reason| *reason == summary.reason)
        && since.is_none_or(|since| summary.died >= since)
        && until.is_none_or(|until| summary.died < until)
        && quarantined.is_none_or(|wanted| wanted == (summary.origin == Origin::Ingress))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{SinkName, SourceName};
    use crate::time::UnixMs;

    fn summary(origin: Origin) -> Summary {
        let quarantined = origin == Origin::Ingress;
        Summary {
            id: LetterId("a1".into()),
            origin,
            source: SourceName::new("inbox").unwrap(),
            event_id: (!quarantined).then(|| "e1".into()),
            event_type: (!quarantined).then(|| "io.z-api.message.received".into()),
            reason: "timeout".into(),
            attempts: 3,
            first_error: "first".into(),
            last_error: "last".into(),
            arrived: UnixMs(50),
            died: UnixMs(100),
            payload_bytes: 2,
            replaying: false,
        }
    }

    #[test]
    fn every_field_of_a_filter_narrows_and_an_absent_one_takes_all() {
        let orders = SinkName::new("orders").unwrap();
        let all = Filter::default;
        let event = summary(Origin::Sink(orders.clone()));
        let body = summary(Origin::Ingress);
        for (sentence, filter, takes_event, takes_body) in [
            ("nothing asked takes all", all(), true, true),
            ("a sink takes its letters only", Filter { sink: Some(orders), ..all() }, true, false),
            (
                "another sink takes none",
                Filter { sink: Some(SinkName::new("audit").unwrap()), ..all() },
                false,
                false,
            ),
            ("a source", Filter { source: Some(SourceName::new("inbox").unwrap()), ..all() }, true, true),
            (
                "another source",
                Filter { source: Some(SourceName::new("other").unwrap()), ..all() },
                false,
                false,
            ),
            (
                "a glob over the type, which a quarantine lacks",
                Filter { event_type: Some("io.z-api.*".into()), ..all() },
                true,
                false,
            ),
            ("another type", Filter { event_type: Some("io.other.*".into()), ..all() }, false, false),
            ("a reason", Filter { reason: Some("timeout".into()), ..all() }, true, true),
            ("another reason", Filter { reason: Some("tls".into()), ..all() }, false, false),
            ("since is inclusive", Filter { since: Some(UnixMs(100)), ..all() }, true, true),
            ("since a moment later", Filter { since: Some(UnixMs(101)), ..all() }, false, false),
            ("until is exclusive", Filter { until: Some(UnixMs(100)), ..all() }, false, false),
            ("until a moment later", Filter { until: Some(UnixMs(101)), ..all() }, true, true),
            ("only quarantines", Filter { quarantined: Some(true), ..all() }, false, true),
            ("no quarantines", Filter { quarantined: Some(false), ..all() }, true, false),
            ("these ids", Filter { ids: vec![LetterId("a1".into())], ..all() }, true, true),
            ("other ids", Filter { ids: vec![LetterId("b2".into())], ..all() }, false, false),
        ] {
            assert_eq!(matches(&filter, &event), takes_event, "{sentence}: event");
            assert_eq!(matches(&filter, &body), takes_body, "{sentence}: quarantine");
        }
    }
}
