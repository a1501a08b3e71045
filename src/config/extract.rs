//! Reads a tree as a type and finds every problem: serde stops at the first, so the wrong value is taken out and the rest
//! read again.
//! Holds: no problem is invented by taking something out; R8 (a message never repeats a value).

use super::reader::{Kind, ReadError, Reader, Reading};
use super::section::nearest;
use super::tree::{Node, Tree};
use serde::de::DeserializeOwned;

/// The most problems that one section reports.
const PROBLEMS_MAX: usize = 100;

/// A problem at a path below the section.
pub(super) struct Problem {
    pub(super) path: Vec<String>,
    pub(super) text: String,
}

/// Reads `tree` as `T`, or says everything that is in the way.
pub(super) fn extract<T: DeserializeOwned>(tree: &Tree, reading: &Reading<'_>) -> Result<T, Vec<Problem>> {
    let mut mended = tree.clone();
    let mut problems = Vec::new();
    let mut touched: Vec<Vec<String>> = Vec::new();
    while problems.len() < PROBLEMS_MAX && touched.len() < 4 * PROBLEMS_MAX {
        let (path, kind) = match T::deserialize(Reader::new(&mended, reading)) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(ReadError { path, kind }) => (place_of(path.unwrap_or_default(), &kind), kind),
        };
        let follows_from_a_mend = touched.iter().any(|mend| match kind {
            Kind::Missing(_) => *mend == path,
            _ => mend.starts_with(&path),
        });
        if !follows_from_a_mend {
            problems.push(Problem { text: describe(&kind, &path, tree), path: path.clone() });
        }
        match mend(&mut mended, &path, &kind) {
            Some(place) => touched.push(place),
            None => break,
        }
    }
    Err(problems)
}

fn place_of(mut path: Vec<String>, kind: &Kind) -> Vec<String> {
    if let Kind::Missing(field) = kind {
        path.push((*field).to_owned());
    }
    path
}

/// Changes the tree at `path` so that reading it again gets further; where that cannot be done, nothing.
/// A wrong value of a table is left out (its default applies), one of a list and a missing one get a stand-in.
fn mend(tree: &mut Tree, path: &[String], kind: &Kind) -> Option<Vec<String>> {
    let (key, around) = path.split_last()?;
    let parent = tree.at_mut(around)?;
    if let Kind::Missing(field) = kind {
        let entries = parent.table_mut()?;
        let before = entries.insert((*field).to_owned(), Tree { origin: None, node: Node::StandIn });
        return before.is_none().then(|| path.to_vec());
    }
    if let Some(entries) = parent.table_mut() {
        let removed = entries.remove(key)?;
        return (!matches!(removed.node, Node::StandIn)).then(|| path.to_vec());
    }
    parent.list_mut()?;
    let item = parent.below_mut(key)?;
    if matches!(item.node, Node::StandIn) {
        return mend(tree, around, kind); // no stand-in fits: the whole list goes
    }
    item.node = Node::StandIn;
    Some(path.to_vec())
}

fn describe(kind: &Kind, path: &[String], tree: &Tree) -> String {
    let key = path.last().map_or("", String::as_str);
    match kind {
        Kind::Wrong(expected) => format!("expected {}", plainly(expected)),
        Kind::Missing(_) => "is required".to_owned(),
        Kind::UnknownVariant(known) => format!("expected {}", one_of(known)),
        Kind::UnknownKey(known) => match nearest(key, known.iter().copied()) {
            Some(near) => format!("is not a key here; did you mean `{near}`?"),
            None if known.is_empty() => "is not a key here; there are none".to_owned(),
            None => format!("is not a key here; known: {}", known.join(", ")),
        },
        Kind::Secret(problem) => problem.clone(),
        Kind::Message(message) => {
            let repeats = |text: &str| text.len() >= 4 && message.contains(text);
            if message == "invalid socket address syntax" {
                "expected an address and a port such as \"127.0.0.1:8080\"".to_owned()
            } else if tree.at(path).is_some_and(|value| value.texts().into_iter().any(repeats)) {
                "is not a value this key takes".to_owned()
            } else {
                message.clone()
            }
        }
    }
}

fn one_of(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
    }
}

/// Serde's words for what a type wants, as somebody who writes the file would say them.
fn plainly(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number, not below 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "a text in quotes".to_owned(),
        "path string" => "a path in quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "socket address" => "an address and a port such as \"127.0.0.1:8080\"".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.starts_with("tuple struct ") => "a text in quotes".to_owned(),
        other => other.to_owned(),
    }
}
