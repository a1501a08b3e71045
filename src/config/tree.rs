//! The merged configuration as a tree whose every value knows the layer it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the name of a layer that is a variable begins with.
pub(super) const VARIABLE_ORIGIN: &str = "environment variable ";

/// One value and the layer that said it (`None`: nobody did, as for the root itself).
#[derive(Clone)]
pub(super) struct Tree {
    pub(super) origin: Option<Arc<str>>,
    pub(super) node: Node,
}

/// What a value is.
#[derive(Clone)]
pub(super) enum Node {
    Text(String),
    Bool(bool),
    Int(i128),
    Float(f64),
    List(Vec<Tree>),
    Table(BTreeMap<String, Tree>),
    /// JSON's and YAML's null.
    Nothing,
    /// The text of an environment variable and, where it is one, what the text means as a TOML value.
    Variable {
        text: String,
        meaning: Option<Box<Tree>>,
    },
    /// In the place of a missing or wrong value while the problems behind it are looked for; fits most types.
    StandIn,
}

impl Tree {
    pub(super) fn empty_table(origin: Option<Arc<str>>) -> Tree {
        Tree { origin, node: Node::Table(BTreeMap::new()) }
    }

    pub(super) fn is_from_variable(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.starts_with(VARIABLE_ORIGIN))
    }

    /// The entries, where this is a table (also one that an environment variable spells out).
    pub(super) fn table(&self) -> Option<&BTreeMap<String, Tree>> {
        match &self.node {
            Node::Table(entries) => Some(entries),
            Node::Variable { meaning: Some(meaning), .. } => meaning.table(),
            _ => None,
        }
    }

    pub(super) fn table_mut(&mut self) -> Option<&mut BTreeMap<String, Tree>> {
        match &mut self.node {
            Node::Table(entries) => Some(entries),
            Node::Variable { meaning: Some(meaning), .. } => meaning.table_mut(),
            _ => None,
        }
    }

    pub(super) fn list_mut(&mut self) -> Option<&mut Vec<Tree>> {
        match &mut self.node {
            Node::List(items) => Some(items),
            Node::Variable { meaning: Some(meaning), .. } => meaning.list_mut(),
            _ => None,
        }
    }

    fn below(&self, key: &str) -> Option<&Tree> {
        match &self.node {
            Node::Table(entries) => entries.get(key),
            Node::List(items) => items.get(key.parse::<usize>().ok()?),
            Node::Variable { meaning: Some(meaning), .. } => meaning.below(key),
            _ => None,
        }
    }

    pub(super) fn below_mut(&mut self, key: &str) -> Option<&mut Tree> {
        match &mut self.node {
            Node::Table(entries) => entries.get_mut(key),
            Node::List(items) => items.get_mut(key.parse::<usize>().ok()?),
            Node::Variable { meaning: Some(meaning), .. } => meaning.below_mut(key),
            _ => None,
        }
    }

    pub(super) fn at(&self, path: &[String]) -> Option<&Tree> {
        path.iter().try_fold(self, |tree, key| tree.below(key))
    }

    pub(super) fn at_mut(&mut self, path: &[String]) -> Option<&mut Tree> {
        path.iter().try_fold(self, |tree, key| tree.below_mut(key))
    }

    /// The value nearest to `path` that exists: itself or the closest table around it.
    pub(super) fn nearest_to(&self, path: &[String]) -> &Tree {
        let mut nearest = self;
        for key in path {
            match nearest.below(key) {
                Some(below) => nearest = below,
                None => break,
            }
        }
        nearest
    }

    /// The same value, whichever layer said it.
    fn is_same(&self, other: &Tree) -> bool {
        match (&self.node, &other.node) {
            (Node::Text(one), Node::Text(other)) => one == other,
            (Node::Bool(one), Node::Bool(other)) => one == other,
            (Node::Int(one), Node::Int(other)) => one == other,
            (Node::Float(one), Node::Float(other)) => one.to_bits() == other.to_bits(),
            (Node::List(one), Node::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is_same(other))
            }
            (Node::Table(one), Node::Table(other)) => {
                one.len() == other.len()
                    && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| one.is_same(other)))
            }
            (Node::Variable { text: one, .. }, Node::Variable { text: other, .. }) => one == other,
            (Node::Nothing, Node::Nothing) | (Node::StandIn, Node::StandIn) => true,
            _ => false,
        }
    }

    /// The dotted paths, below `path`, of what is not the same in `other`: the nearest table around each.
    pub(super) fn differences(&self, other: &Tree, path: &str, found: &mut Vec<String>) {
        let (Some(one), Some(two)) = (self.table(), other.table()) else {
            if !self.is_same(other) {
                found.push(path.to_owned());
            }
            return;
        };
        let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (one.get(key), two.get(key)) {
                (Some(one), Some(two)) => one.differences(two, &path, found),
                _ => found.push(path),
            }
        }
    }

    /// Every text at or below this value.
    pub(super) fn texts(&self) -> Vec<&str> {
        match &self.node {
            Node::Text(text) => vec![text],
            Node::Variable { text, .. } => vec![text],
            Node::List(items) => items.iter().flat_map(Tree::texts).collect(),
            Node::Table(entries) => entries.values().flat_map(Tree::texts).collect(),
            Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Nothing | Node::StandIn => Vec::new(),
        }
    }
}
