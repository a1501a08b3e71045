//! Names made of envelope attributes: subjects, topics, exchanges, routing keys and message keys.
//! Holds: what a sender writes can neither leave the characters that are safe in a name nor the prefix or the pattern
//! that the configuration sets. A template has attributes in braces, `hooks.{hookbussource}.{type}`; `{{` and `}}`
//! stand for the braces themselves.

use super::{Failure, Reason};
use crate::config::{ConfigError, Section};
use crate::envelope::{Envelope, is_attribute_name};
use crate::glob;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt::Write;

/// Stands for an attribute that the event lacks, and for each character that is not safe.
const UNSAFE_STAND_IN: char = '_';

#[derive(Clone, PartialEq, Debug)]
enum Piece {
    Literal(String),
    Attribute(String),
}

/// A text with attributes in braces.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Template(Vec<Piece>);

/// A text is no template.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("must not be empty")]
    Empty,
    #[error("has a brace without its counterpart; write {{{{ or }}}} for a brace itself")]
    Unbalanced,
    #[error(
        "expected the name of an attribute in the braces: lower-case letters and digits, {{type}} for example"
    )]
    NotAnAttribute,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut literal) = (Vec::new(), String::new());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '{' | '}' if characters.next_if_eq(&character).is_some() => literal.push(character),
                '{' => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Attribute(attribute_name(&mut characters)?));
                }
                '}' => return Err(TemplateError::Unbalanced),
                other => literal.push(other),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        if pieces.is_empty() { Err(TemplateError::Empty) } else { Ok(Template(pieces)) }
    }

    /// The text itself, where it names no attribute.
    pub(super) fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// What every rendered text begins with.
    fn prefix(&self) -> &str {
        match self.0.first() {
            Some(Piece::Literal(text)) => text,
            Some(Piece::Attribute(_)) | None => "",
        }
    }

    /// For a name: of each attribute the characters that are `safe`, `_` for every other and for an absent attribute.
    pub(super) fn name(&self, event: &Envelope, safe: fn(char) -> bool) -> Cow<'_, str> {
        if let Some(constant) = self.constant() {
            return Cow::Borrowed(constant);
        }
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => name.push_str(text),
                Piece::Attribute(attribute) => match event.attribute(attribute) {
                    Some(value) if !value.is_empty() => {
                        name.extend(value.chars().map(|c| if safe(c) { c } else { UNSAFE_STAND_IN }));
                    }
                    Some(_) | None => name.push(UNSAFE_STAND_IN),
                },
            }
        }
        Cow::Owned(name)
    }

    /// For a value that may be any text, a message key for example; `None` where the event lacks an attribute.
    #[cfg(any(feature = "kafka", test))]
    pub(super) fn value(&self, event: &Envelope) -> Option<String> {
        let mut value = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => value.push_str(text),
                Piece::Attribute(attribute) => value.push_str(&event.attribute(attribute)?),
            }
        }
        Some(value)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(&literal.replace('{', "{{").replace('}', "}}")),
                Piece::Attribute(name) => write!(text, "{{{name}}}").expect("writing to memory cannot fail"),
            }
        }
        text
    }
}

fn attribute_name(characters: &mut impl Iterator<Item = char>) -> Result<String, TemplateError> {
    let mut name = String::new();
    loop {
        match characters.next() {
            None => return Err(TemplateError::Unbalanced),
            Some('}') if is_attribute_name(&name) && name != "data" => return Ok(name),
            Some('}') => return Err(TemplateError::NotAnAttribute),
            Some(other) => name.push(other),
        }
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Template::parse(&text).map_err(D::Error::custom)
    }
}

/// A template for a name, and where its names must stay.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    template: Template,
    allowed: Vec<String>,
    safe: fn(char) -> bool,
}

impl Destination {
    /// Names made by `template` of characters that are `safe`, all of them taken by one of the globs in `allowed`
    /// where there is any.
    pub(super) fn new(template: Template, allowed: Vec<String>, safe: fn(char) -> bool) -> Self {
        Destination { template, allowed, safe }
    }

    /// Adds an error where a sender could choose any name: a template that begins with an attribute needs globs. Also
    /// where a constant name is not allowed by the globs beside it.
    pub(super) fn check(
        &self,
        section: &Section,
        key: &str,
        allowed_key: &str,
        errors: &mut Vec<ConfigError>,
    ) {
        match self.template.constant() {
            Some(name) if !self.allows(name) => {
                errors.push(section.error(key, format!("is not among {allowed_key}")));
            }
            Some(_) => {}
            None if self.template.prefix().is_empty() && self.allowed.is_empty() => {
                let problem = format!(
                    "begins with an attribute, so a sender could choose any name; begin with a constant, \
                     \"hooks.{{type}}\" for example, or set {allowed_key}"
                );
                errors.push(section.error(key, problem));
            }
            None => {}
        }
    }

    /// The name, where it is one for all events.
    pub(super) fn constant(&self) -> Option<&str> {
        self.template.constant()
    }

    /// The name for an event.
    ///
    /// # Errors
    /// [`Reason::NotEncodable`] where it is not allowed.
    pub(super) fn name(&self, event: &Envelope) -> Result<Cow<'_, str>, Failure> {
        let name = self.template.name(event, self.safe);
        if self.template.constant().is_some() || self.allows(&name) {
            return Ok(name);
        }
        let detail = format!("{name:.100} is a name that the configuration does not allow");
        Err(Failure::new(Reason::NotEncodable, detail))
    }

    fn allows(&self, name: &str) -> bool {
        self.allowed.is_empty() || self.allowed.iter().any(|glob| glob::matches(glob, name))
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
