//! A part of the configuration, cut out for the module that owns it.

use super::extract::extract;
use super::layers::Shared;
use super::reader::Reading;
use super::tree::Tree;
use super::{ConfigError, ConfigErrors};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// A part of the configuration that one module reads with its own type.
#[derive(Clone)]
pub struct Section {
    pub(super) path: String,
    pub(super) tree: Tree,
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Section {
    /// Dotted path of this section, empty at the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads the whole section as `T` (which denies unknown fields), reporting every problem at once.
    ///
    /// # Errors
    /// [`ConfigErrors`] with one entry a key.
    pub fn extract<T: DeserializeOwned>(&self) -> Result<T, ConfigErrors> {
        let reading =
            Reading { environment: &self.shared.environment, literal_secrets: RefCell::new(Vec::new()) };
        let read = extract(&self.tree, &reading);
        for path in reading.literal_secrets.into_inner() {
            self.shared.note_literal_secret(self.path_of(&path));
        }
        read.map_err(|problems| {
            // What a table lacks is its layer's to say.
            let errors = problems.into_iter().map(|problem| {
                let origin = self.tree.nearest_to(&problem.path).origin.as_deref();
                self.error_at(&problem.path, problem.text, origin)
            });
            ConfigErrors(errors.collect())
        })
    }

    /// The tables directly below this section, in alphabetical order, with their keys.
    #[must_use]
    pub fn tables(&self) -> Vec<(String, Section)> {
        let entries = self.tree.table().into_iter().flatten();
        let tables = entries.filter(|(_, tree)| tree.table().is_some());
        tables.map(|(key, _)| (key.clone(), self.child(key))).collect()
    }

    /// The section below this one at `key`: empty where the key is absent, so that defaults apply.
    #[must_use]
    pub fn child(&self, key: &str) -> Section {
        let tree = self.tree.table().and_then(|entries| entries.get(key)).cloned();
        Section {
            path: self.path_of(&[key.to_owned()]),
            tree: tree.unwrap_or_else(|| Tree::empty_table(self.tree.origin.clone())),
            shared: Arc::clone(&self.shared),
        }
    }

    /// This section without the given keys, so that the rest can be read by a type that denies unknown fields.
    #[must_use]
    pub fn without(&self, keys: &[&str]) -> Section {
        let mut rest = self.clone();
        if let Some(entries) = rest.tree.table_mut() {
            entries.retain(|key, _| !keys.contains(&key.as_str()));
        }
        rest
    }

    /// The keys directly below this section.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.tree.table().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    }

    /// An error at `key` below this section (or at the section itself where `key` is empty), with the layer that wrote
    /// it. Where nobody did and a default holds, it is the file around the key, but never a variable, which set another.
    /// A key may lead through several levels, with dots: `retry.max`.
    #[must_use]
    pub fn error(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let path = path_to(key);
        let around = || Some(self.tree.nearest_to(&path)).filter(|around| !around.is_from_variable());
        let origin = self.tree.at(&path).or_else(around).and_then(|tree| tree.origin.as_deref());
        self.error_at(&path, problem.into(), origin)
    }

    /// Is there a value at `key`? Where not, a default holds. The key is written as in [`Section::error`].
    #[must_use]
    pub fn says(&self, key: &str) -> bool {
        self.tree.at(&path_to(key)).is_some()
    }

    fn error_at(&self, path: &[String], problem: String, origin: Option<&str>) -> ConfigError {
        ConfigError { key: self.path_of(path), origin: origin.map(str::to_owned), problem }
    }

    fn path_of(&self, below: &[String]) -> String {
        let own = (!self.path.is_empty()).then_some(self.path.as_str());
        own.into_iter().chain(below.iter().map(String::as_str)).collect::<Vec<_>>().join(".")
    }
}

fn path_to(key: &str) -> Vec<String> {
    key.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The known name that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let with_likeness = known.into_iter().map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let alike = with_likeness.filter(|(likeness, _)| *likeness > 0.8);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, candidate)| candidate)
}
