//! The layers of the configuration, defaults < file < environment, merged; the only user of figment.
//! Holds: every value knows its layer; R8 (a syntax error says where, and quotes nothing).

use super::section::Section;
use super::tree::{Node, Tree, VARIABLE_ORIGIN};
use super::{ConfigError, ConfigErrors};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Empty, Map, Num, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The most bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What the names of the variables that set keys begin with.
const VARIABLE_PREFIX: &str = "HOOKBUS__";
/// The most levels that the name of a variable leads down: what reads them takes stack for each.
const VARIABLE_LEVELS_MAX: usize = 32;

/// The merged layers, each value knowing where it came from.
#[derive(Clone)]
pub struct Layers {
    tree: Tree,
    shared: Arc<Shared>,
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}

/// What all sections of one configuration have in common.
pub(super) struct Shared {
    /// The environment that secrets are looked up in.
    pub(super) environment: BTreeMap<String, String>,
    literal_secrets: Mutex<BTreeSet<String>>,
}

impl Shared {
    pub(super) fn note_literal_secret(&self, key: String) {
        self.literal_secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }
}

impl Layers {
    /// Reads `file` (by extension: toml, yaml, yml, json) and the given environment over `defaults_toml`.
    ///
    /// Of the environment, `HOOKBUS__A__B` sets the key `a.b`; `{ env = "NAME" }` finds any other.
    ///
    /// # Errors
    /// [`ConfigErrors`] where the file cannot be read or is not of its format, or a variable's name leads to no key.
    pub fn load(
        defaults_toml: Option<&str>,
        file: Option<&Path>,
        environment: &[(String, String)],
    ) -> Result<Layers, ConfigErrors> {
        let environment: BTreeMap<String, String> = environment.iter().cloned().collect();
        let mut errors = Vec::new();
        let mut layers = Vec::new();
        let defaults = defaults_toml.map(|text| read_layer("built-in default".to_owned(), "toml", text));
        let file = file.map(read_file);
        let variables = environment.iter().filter_map(|(name, text)| read_variable(name, text));
        for layer in defaults.into_iter().chain(file).chain(variables) {
            layers.extend(ConfigErrors::collect(&mut errors, layer.map_err(ConfigErrors::from)));
        }
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let merged = layers.into_iter().fold(Figment::new(), Figment::merge);
        let root = merged.find_value("").unwrap_or_else(|_| Value::from(Dict::new()));
        let tree = Conversion { merged: &merged, environment: &environment }.tree(root, &mut Vec::new());
        Ok(Layers { tree, shared: Arc::new(Shared { environment, literal_secrets: Mutex::default() }) })
    }

    /// The whole configuration as one section.
    #[must_use]
    pub fn root(&self) -> Section {
        Section { path: String::new(), tree: self.tree.clone(), shared: Arc::clone(&self.shared) }
    }

    /// The keys whose values differ in `newer`, without the values; a secret counts as what stands for it, not as its text.
    #[must_use]
    pub fn changed_keys(&self, newer: &Layers) -> Vec<String> {
        let mut changed = Vec::new();
        self.tree.differences(&newer.tree, "", &mut changed);
        changed
    }

    /// The keys of the secrets that were found written out in a file, as far as their sections have been read.
    #[must_use]
    pub fn literal_secrets(&self) -> Vec<String> {
        let keys = self.shared.literal_secrets.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().cloned().collect()
    }
}

/// One layer on its way into figment.
struct Layer {
    name: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn error(key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { key: key.to_owned(), origin: None, problem: problem.into() }
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let name = path.display().to_string();
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|problem| match problem.kind() {
        ErrorKind::NotFound => error(&name, "there is no such file"),
        ErrorKind::InvalidData => error(&name, "is not UTF-8 text"),
        kind => error(&name, format!("cannot be read: {kind}")),
    })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(error(&name, "is larger than 4MiB"));
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    read_layer(name, extension, &text)
}

/// Reads text in one of the formats. The parsers' own sentences quote the text, so only what cannot is passed on.
fn read_layer(name: String, extension: &str, text: &str) -> Result<Layer, ConfigError> {
    let syntax = |format: &str, line: usize, column: usize| {
        Err(error(&name, format!("is not valid {format} at line {line}, column {column}")))
    };
    let value = match extension {
        "toml" => match Toml::from_str::<Value>(text) {
            Ok(value) => value,
            Err(problem) => {
                let (line, column) = line_and_column(text, problem.span().map_or(0, |span| span.start));
                return syntax("TOML", line, column);
            }
        },
        "json" => match serde_json::from_str::<Unique>(text) {
            Ok(Unique(value)) => value,
            Err(problem) => return syntax("JSON", problem.line(), problem.column()),
        },
        "yaml" | "yml" => match yaml_serde::from_str::<Unique>(text) {
            Ok(Unique(value)) => value,
            Err(problem) => {
                let (line, column) = problem.location().map_or((1, 1), |at| (at.line(), at.column()));
                return syntax("YAML", line, column);
            }
        },
        _ => {
            return Err(error(
                &name,
                "is of no known format; its name must end in .toml, .yaml, .yml or .json",
            ));
        }
    };
    match value {
        Value::Dict(_, values) => Ok(Layer { name, values }),
        Value::Empty(..) => Ok(Layer { name, values: Dict::new() }),
        _ => Err(error(&name, "must be a table of sections at its top level")),
    }
}

/// Both count from 1; columns in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The layer that a variable is; nothing where its name sets no key.
fn read_variable(name: &str, text: &str) -> Option<Result<Layer, ConfigError>> {
    let levels: Vec<String> =
        name.strip_prefix(VARIABLE_PREFIX)?.split("__").map(str::to_lowercase).collect();
    if levels.iter().any(String::is_empty) {
        let problem = "leads to no key; two underscores go between the names of two levels";
        return Some(Err(error(&format!("{VARIABLE_ORIGIN}{name}"), problem)));
    }
    if levels.len() > VARIABLE_LEVELS_MAX {
        let problem = format!("leads to no key; no key is more than {VARIABLE_LEVELS_MAX} levels down");
        return Some(Err(error(&format!("{VARIABLE_ORIGIN}{name:.64}…"), problem)));
    }
    // A list or a table is one from the start, so that other variables can reach into the table.
    let structure = toml_value(text).filter(|value| matches!(value, Value::Dict(..) | Value::Array(..)));
    let value = structure.unwrap_or_else(|| Value::from(text));
    let nested = levels.into_iter().rev().fold(value, |value, key| Value::from(Dict::from([(key, value)])));
    let values = nested.into_dict().expect("a name has at least one level, so this is a table");
    Some(Ok(Layer { name: format!("{VARIABLE_ORIGIN}{name}"), values }))
}

/// What the text is as a TOML value, where it is exactly one.
fn toml_value(text: &str) -> Option<Value> {
    let mut table = Toml::from_str::<Dict>(&format!("value = {text}")).ok()?;
    let value = table.remove("value")?;
    table.is_empty().then_some(value)
}

/// Turns figment's values, whose tags lead to a layer, into the tree that sections are cut from.
struct Conversion<'a> {
    merged: &'a Figment,
    environment: &'a BTreeMap<String, String>,
}

impl Conversion<'_> {
    fn tree(&self, value: Value, path: &mut Vec<String>) -> Tree {
        let origin = self.origin(value.tag());
        if let Some(text) = self.text_of_variable(origin.as_deref(), path) {
            let meaning = match value {
                Value::String(..) => toml_value(&text).map(|value| self.plain(value, path, origin.as_ref())),
                structure => Some(self.plain(structure, path, origin.as_ref())),
            };
            return Tree { origin, node: Node::Variable { text, meaning: meaning.map(Box::new) } };
        }
        let mut tree = self.plain(value, path, origin.as_ref());
        // A table that a variable only passes through stays the file's.
        if tree.is_from_variable() {
            let mut below = tree.table().into_iter().flatten().map(|(_, tree)| tree);
            let elsewhere = below.find(|tree| tree.origin.is_some() && !tree.is_from_variable());
            tree.origin = elsewhere.map_or(tree.origin.clone(), |tree| tree.origin.clone());
        }
        tree
    }

    fn plain(&self, value: Value, path: &mut Vec<String>, origin: Option<&Arc<str>>) -> Tree {
        let node = match value {
            Value::String(_, text) => Node::Text(text),
            Value::Char(_, char) => Node::Text(char.to_string()),
            Value::Bool(_, value) => Node::Bool(value),
            Value::Num(_, number) => number_node(number),
            Value::Empty(_, Empty::None | Empty::Unit) => Node::Nothing,
            Value::Array(_, items) => {
                Node::List(items.into_iter().map(|item| self.plain(item, path, origin)).collect())
            }
            Value::Dict(_, entries) => {
                let entries = entries.into_iter().map(|(key, value)| {
                    path.push(key.clone());
                    let tree = self.tree(value, path);
                    path.pop();
                    (key, tree)
                });
                Node::Table(entries.collect())
            }
        };
        Tree { origin: origin.cloned(), node }
    }

    fn origin(&self, tag: Tag) -> Option<Arc<str>> {
        self.merged.get_metadata(tag).map(|metadata| Arc::from(metadata.name.as_ref()))
    }

    /// The text of the variable, where the value at `path` is all of it and not only a table on the way to it.
    fn text_of_variable(&self, origin: Option<&str>, path: &[String]) -> Option<String> {
        let name = format!("{VARIABLE_PREFIX}{}", path.join("__"));
        let variable = origin?.strip_prefix(VARIABLE_ORIGIN)?;
        let text = variable.eq_ignore_ascii_case(&name).then(|| self.environment.get(variable));
        text.flatten().cloned()
    }
}

fn number_node(number: Num) -> Node {
    let whole = number.to_i128().or_else(|| number.to_u128().and_then(|number| i128::try_from(number).ok()));
    match whole {
        Some(whole) => Node::Int(whole),
        None => Node::Float(number.to_f64().unwrap_or(f64::INFINITY)),
    }
}

/// A value of a format whose parser would take the last of two equal keys, which then is an error as it is in TOML.
struct Unique(Value);

struct UniqueVisitor;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(Value::from(value)))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(Value::from(value)))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(Value::from(value)))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(Value::from(value)))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Unique, E> {
        Ok(Unique(Value::from(value)))
    }
    fn visit_unit<E: de::Error>(self) -> Result<Unique, E> {
        Ok(Unique(Value::from(Empty::None)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Unique(Value::from(values)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unique, A::Error> {
        let mut dict = Dict::new();
        while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
            if dict.insert(key, value).is_some() {
                return Err(de::Error::custom("a key is there twice"));
            }
        }
        Ok(Unique(Value::from(dict)))
    }
}
