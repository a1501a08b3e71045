//! A secret of the configuration: `{ env = "NAME" }`, `{ file = "/path" }` or, discouraged, the literal text.
//! Holds: R8 (`Debug` and `Serialize` show `***`; an error names neither the text nor anything that may be it).

use super::file::read_at_most;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The most bytes of a secret's file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The name under which [`Secret`] asks a section's reader to resolve it.
pub(super) const SECRET: &str = "hookbus::Secret";
/// What a secret may look like, for errors.
pub(super) const EXPECTED: &str = "{ env = \"NAME\" }, { file = \"/path\" } or a text in quotes";

/// Where a secret was found, so that it can be read again when the configuration is reloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretOrigin {
    /// Written in the configuration itself.
    Literal,
    /// In this environment variable.
    Environment(String),
    /// In this file.
    File(PathBuf),
}

/// Text that is never printed. Reading a configuration resolves it; a missing variable or file is an error then.
#[derive(Clone)]
pub struct Secret {
    text: SecretString,
    origin: SecretOrigin,
}

impl Secret {
    /// Takes a literal.
    #[must_use]
    pub fn literal(text: &str) -> Self {
        Secret { text: SecretString::from(text), origin: SecretOrigin::Literal }
    }
    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
    /// The secret as it is now: read again where it came from a file, which may have changed since.
    ///
    /// # Errors
    /// A sentence without the text, where the file cannot be read any more.
    pub fn current(&self) -> Result<Secret, String> {
        match &self.origin {
            SecretOrigin::Literal | SecretOrigin::Environment(_) => Ok(self.clone()),
            SecretOrigin::File(path) => {
                let text = from_file(&path.to_string_lossy())?;
                Ok(Secret { text: SecretString::from(text), origin: self.origin.clone() })
            }
        }
    }
    /// Where it was found.
    #[must_use]
    pub fn origin(&self) -> &SecretOrigin {
        &self.origin
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SECRET, SecretVisitor)
    }
}

/// Takes a literal as text, and a resolved reference as the sequence `"env" | "file"`, name, text.
struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_str(self)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        if text.is_empty() {
            return Err(E::custom("must not be empty"));
        }
        Ok(Secret::literal(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Secret, A::Error> {
        let mut part = || parts.next_element::<String>();
        let (Some(kind), Some(name), Some(text)) = (part()?, part()?, part()?) else {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        };
        let origin = match kind.as_str() {
            "env" => SecretOrigin::Environment(name),
            "file" => SecretOrigin::File(name.into()),
            _ => return Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        };
        Ok(Secret { text: SecretString::from(text), origin })
    }
}

/// The text that `{ env = name }` stands for, or what is wrong with it.
pub(super) fn from_environment(name: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let variable = if is_surely_a_variable(name) {
        format!("the environment variable {name}")
    } else {
        "the environment variable named here".to_owned()
    };
    match environment.get(name) {
        Some(text) if text.is_empty() => Err(format!("{variable} is empty")),
        Some(text) => Ok(text.clone()),
        None => Err(format!("{variable} is not set")),
    }
}

/// The text of the file that `{ file = path }` names, without its last line break, or what is wrong with it.
pub(super) fn from_file(path: &str) -> Result<String, String> {
    // Nor is a pasted secret repeated as a path; one that begins like a path is the accepted exception.
    let is_surely_a_path = ["/", "./", "../"].iter().any(|start| path.starts_with(start));
    let file = if is_surely_a_path { format!("the file {path}") } else { "the file named here".to_owned() };
    let bytes = read_at_most(Path::new(path), FILE_BYTES_MAX).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{file} does not exist"),
        ErrorKind::PermissionDenied => format!("{file} may not be read by this user"),
        ErrorKind::InvalidInput => format!("{file} is not a regular file"),
        kind => format!("{file} cannot be read: {kind}"),
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{file} is larger than 64KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{file} is not UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(format!("{file} is empty")) } else { Ok(text.to_owned()) }
}

/// People paste the secret itself where its variable's name belongs; only what cannot be one is repeated in an error.
fn is_surely_a_variable(name: &str) -> bool {
    let words =
        name.split('_').filter(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase()));
    name.len() <= 64
        && words.count() >= 2
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}
