//! The oracle of R4: what was promised with a 2xx is delivered, dead-lettered or still in the journal; and here, where
//! the tests wait until the journal is drained: delivered or dead-lettered.

use super::eventually;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How often each id stands in an NDJSON file. Every line must parse: a torn line is a defect by itself.
pub fn events_in(path: &Path) -> BTreeMap<String, u32> {
    let mut ids = BTreeMap::new();
    for event in lines_of(path) {
        *ids.entry(event["id"].as_str().expect("every event has an id").to_owned()).or_default() += 1;
    }
    ids
}

/// Every event of an NDJSON file in order.
pub fn lines_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Waits until the file holds every promised id.
pub async fn file_has_all(path: &Path, promised: &BTreeSet<String>) {
    eventually(&format!("{} holds every promised event", path.display()), || async {
        let found = events_in(path);
        promised.iter().all(|id| found.contains_key(id)).then_some(())
    })
    .await;
}
