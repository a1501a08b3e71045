//! The names that a configuration gives to its sources and sinks: snake_case, short, cheap to clone.
//! They become metric labels, URL segments and file names, so nothing else may pass.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The most characters in a name.
pub const NAME_CHARS_MAX: usize = 64;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 64 lower-case letters, digits and underscores, and begins with a letter")]
pub struct InvalidName;

fn checked(name: &str) -> Result<Arc<str>, InvalidName> {
    let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let rest_is_well = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if begins_well && rest_is_well && name.len() <= NAME_CHARS_MAX {
        Ok(name.into())
    } else {
        Err(InvalidName)
    }
}

/// The name of a source: `whatsapp` in `[sources.whatsapp]` and `POST /hooks/whatsapp`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SourceName(Arc<str>);

/// The name of a sink: `orders` in `[sinks.orders]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SinkName(Arc<str>);

impl SourceName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`InvalidName`] where it is not snake_case of 1 to 64 characters.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        checked(name).map(Self)
    }
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The name as a metric label, without a copy of the text.
    #[must_use]
    pub fn label(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl SinkName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`InvalidName`] where it is not snake_case of 1 to 64 characters.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        checked(name).map(Self)
    }
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The name as a metric label, without a copy of the text.
    #[must_use]
    pub fn label(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl TryFrom<String> for SourceName {
    type Error = InvalidName;
    fn try_from(name: String) -> Result<Self, InvalidName> {
        Self::new(&name)
    }
}
impl TryFrom<String> for SinkName {
    type Error = InvalidName;
    fn try_from(name: String) -> Result<Self, InvalidName> {
        Self::new(&name)
    }
}
impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
