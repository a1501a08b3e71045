//! Properties of librdkafka that the user passes on: by name, with dots in it or as tables in tables, so that lines of a
//! properties file can be copied; values are texts, numbers or truth values.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// See the module.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct PassedOn(BTreeMap<String, String>);

impl PassedOn {
    /// Name and value of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'de> Deserialize<'de> for PassedOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = BTreeMap::new();
        for (name, node) in BTreeMap::<String, Node>::deserialize(deserializer)? {
            node.flatten(name, &mut flat);
        }
        Ok(PassedOn(flat))
    }
}

enum Node {
    Value(String),
    Table(BTreeMap<String, Node>),
}

impl Node {
    fn flatten(self, name: String, flat: &mut BTreeMap<String, String>) {
        match self {
            Node::Value(value) => _ = flat.insert(name, value),
            Node::Table(entries) => {
                for (key, node) in entries {
                    node.flatten(format!("{name}.{key}"), flat);
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }
    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Value(text.to_owned()))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Value(number.to_string()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Value(number.to_string()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Value(number.to_string()))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, node)) = map.next_entry()? {
            entries.insert(key, node);
        }
        Ok(Node::Table(entries))
    }
}
