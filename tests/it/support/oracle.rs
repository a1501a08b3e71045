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

/// What a sender did with one event.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    /// Its key, where events of a key are posted one after the other, each until it is promised.
    pub key: Option<String>,
    /// When it was answered 2xx, in milliseconds since the beginning.
    pub promised_ms: Option<u64>,
    /// Anything that helps to find out what became of it.
    pub story: Vec<String>,
}

/// Every event that was posted, by its id.
pub type Ledger = BTreeMap<String, Posted>;

/// One event as a sink has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivery {
    pub id: String,
    pub key: String,
    /// Grows with every event of a key.
    pub number: u64,
}

/// What is wrong with what a sink has, and how much it has.
#[derive(Default, PartialEq, Debug)]
pub struct Verdict {
    /// Promised, and nowhere.
    pub lost: Vec<String>,
    /// Came, and was never posted.
    pub unknown: Vec<String>,
    /// Came for the first time after a later one of its key.
    pub out_of_order: Vec<String>,
    /// Promised, and a dead letter.
    pub dead: usize,
    /// Not promised, and came all the same: its sender heard no answer.
    pub unpromised: usize,
    /// How many came more than once.
    pub twice: usize,
}

impl Verdict {
    /// Of what a sink has in its order; `dead` are the ids of its dead letters.
    pub fn of(ledger: &Ledger, deliveries: &[Delivery], dead: &BTreeSet<String>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut times: BTreeMap<&str, u32> = BTreeMap::new();
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        for delivery in deliveries {
            let id = delivery.id.as_str();
            let came = times.entry(id).or_default();
            *came += 1;
            if *came > 1 {
                verdict.twice += usize::from(*came == 2);
                continue;
            }
            let Some(posted) = ledger.get(id) else {
                verdict.unknown.push(id.to_owned());
                continue;
            };
            verdict.unpromised += usize::from(posted.promised_ms.is_none());
            if posted.key.is_some() {
                let newest = newest.entry(&delivery.key).or_default();
                if delivery.number < *newest {
                    verdict.out_of_order.push(id.to_owned());
                }
                *newest = delivery.number.max(*newest);
            }
        }
        for (id, _) in ledger.iter().filter(|(_, posted)| posted.promised_ms.is_some()) {
            if !times.contains_key(id.as_str()) {
                if dead.contains(id) {
                    verdict.dead += 1;
                } else {
                    verdict.lost.push(id.clone());
                }
            }
        }
        verdict
    }

    /// Nothing lost, nothing invented, nothing out of order.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty() && self.unknown.is_empty() && self.out_of_order.is_empty()
    }
}

#[test]
fn the_oracle_sees_what_is_lost_invented_and_out_of_order() {
    let posted = |key: Option<&str>, promised_ms| Posted {
        key: key.map(str::to_owned),
        promised_ms,
        ..Posted::default()
    };
    let ledger: Ledger = [
        ("a-1".to_owned(), posted(Some("a"), Some(1))),
        ("a-2".to_owned(), posted(Some("a"), Some(2))),
        ("a-3".to_owned(), posted(Some("a"), Some(3))),
        ("loose-1".to_owned(), posted(None, None)),
        ("loose-2".to_owned(), posted(None, Some(4))),
    ]
    .into();
    let came = |ids: &[&str]| -> Vec<Delivery> {
        let delivery = |id: &&str| {
            let (key, number) = id.rsplit_once('-').unwrap();
            Delivery { id: (*id).to_owned(), key: key.to_owned(), number: number.parse().unwrap() }
        };
        ids.iter().map(delivery).collect()
    };
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    for (sentence, ids_came, dead, expected) in [
        ("all is there", vec!["a-1", "loose-2", "a-2", "a-3"], vec![], Verdict::default()),
        (
            "a promised one is missing",
            vec!["a-1", "a-3", "loose-2"],
            vec![],
            Verdict { lost: ids(&["a-2"]), ..Verdict::default() },
        ),
        (
            "a dead letter is not lost",
            vec!["a-1", "a-3", "loose-2"],
            vec!["a-2"],
            Verdict { dead: 1, ..Verdict::default() },
        ),
        (
            "one that nobody posted",
            vec!["a-1", "a-2", "a-3", "loose-2", "b-1"],
            vec![],
            Verdict { unknown: ids(&["b-1"]), ..Verdict::default() },
        ),
        (
            "one that nobody was promised may come",
            vec!["loose-1", "a-1", "a-2", "a-3", "loose-2"],
            vec![],
            Verdict { unpromised: 1, ..Verdict::default() },
        ),
        (
            "the first delivery of an earlier one after a later one",
            vec!["a-1", "a-3", "a-2", "loose-2"],
            vec![],
            Verdict { out_of_order: ids(&["a-2"]), ..Verdict::default() },
        ),
        (
            "a repetition is no matter of order",
            vec!["a-1", "a-2", "a-1", "a-2", "a-1", "a-3", "loose-2"],
            vec![],
            Verdict { twice: 2, ..Verdict::default() },
        ),
    ] {
        let dead = dead.into_iter().map(str::to_owned).collect();
        assert_eq!(Verdict::of(&ledger, &came(&ids_came), &dead), expected, "{sentence}");
    }
}
