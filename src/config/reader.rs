//! Reads a tree as any type that serde can make: the step that knows what a key wants, and so what a variable's text means.
//! Holds: R8 (an error keeps what was expected and where, never what was found).
//! The text of an environment variable stays text for a key that wants text (`0123` stays `0123`); for any other key it is
//! read as a TOML value.

use super::secret;
use super::tree::{Node, Tree};
use super::units::ONE_OR_MANY;
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use std::cell::RefCell;
use std::collections::{BTreeMap, btree_map};
use std::fmt;

/// Why a tree is not of the type asked for, and at which value (`None` until the innermost reader fills it in).
#[derive(Debug)]
pub(super) struct ReadError {
    pub(super) path: Option<Vec<String>>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Of another type, or out of range: what was expected.
    Wrong(String),
    UnknownKey(&'static [&'static str]),
    UnknownVariant(&'static [&'static str]),
    Missing(&'static str),
    /// A sentence of the type's own, of which nobody knows what it repeats.
    Message(String),
    /// A sentence about a secret's variable or file.
    Secret(String),
}

impl ReadError {
    fn new(kind: Kind) -> Self {
        ReadError { path: None, kind }
    }
    fn at(mut self, path: &[String]) -> Self {
        self.path.get_or_insert_with(|| path.to_vec());
        self
    }
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Message(message.to_string()))
    }
    fn invalid_type(_found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::Wrong(expected.to_string()))
    }
    fn invalid_value(_found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::Wrong(expected.to_string()))
    }
    fn invalid_length(_length: usize, expected: &dyn Expected) -> Self {
        Self::new(Kind::Wrong(expected.to_string()))
    }
    fn unknown_variant(_found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownVariant(known))
    }
    fn unknown_field(_found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey(known))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::Missing(field))
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self::new(Kind::Message(format!("{field} is there twice")))
    }
}
impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}
impl std::error::Error for ReadError {}

/// What a reading needs besides the tree, and what it learns.
pub(super) struct Reading<'a> {
    pub(super) environment: &'a BTreeMap<String, String>,
    /// The paths of the secrets that are written out in a file.
    pub(super) literal_secrets: RefCell<Vec<Vec<String>>>,
}

/// One value of the tree, about to become what a type wants.
pub(super) struct Reader<'a> {
    tree: &'a Tree,
    path: Vec<String>,
    reading: &'a Reading<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tree: &'a Tree, reading: &'a Reading<'a>) -> Self {
        Reader { tree, path: Vec::new(), reading }
    }

    fn below(&self, key: &str, tree: &'a Tree) -> Reader<'a> {
        let path = self.path.iter().cloned().chain([key.to_owned()]).collect();
        Reader { tree, path, reading: self.reading }
    }

    /// The value a variable's text spells, for a key that wants no text.
    fn meant(&self) -> &'a Tree {
        match &self.tree.node {
            Node::Variable { meaning: Some(meaning), .. } => meaning,
            _ => self.tree,
        }
    }

    fn visit<'de, V: Visitor<'de>>(&self, tree: &'a Tree, visitor: V) -> Result<V::Value, ReadError>
    where
        'a: 'de,
    {
        let result = match &tree.node {
            Node::Text(text) | Node::Variable { text, .. } => visitor.visit_str(text),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Float(value) => visitor.visit_f64(*value),
            Node::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => Err(de::Error::invalid_value(Unexpected::Other("number"), &"a smaller number")),
            },
            Node::List(items) => visitor.visit_seq(Items { of: self, items: items.iter().enumerate() }),
            Node::Table(entries) => {
                visitor.visit_map(Entries { of: self, entries: entries.iter(), current: None })
            }
            Node::Nothing => visitor.visit_unit(),
            Node::StandIn => visitor.visit_u64(1),
        };
        result.map_err(|error: ReadError| error.at(&self.path))
    }

    fn stands_in(&self) -> bool {
        matches!(self.tree.node, Node::StandIn)
    }

    fn secret<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let problem = |key: Option<&str>, text: String| {
            let path: Vec<String> = self.path.iter().cloned().chain(key.map(str::to_owned)).collect();
            Err(ReadError::new(Kind::Secret(text)).at(&path))
        };
        let Some(table) = self.tree.table() else {
            return match &self.tree.node {
                Node::StandIn => visitor.visit_str("x"),
                Node::Text(text) | Node::Variable { text, .. } => {
                    if !self.tree.is_from_variable() {
                        self.reading.literal_secrets.borrow_mut().push(self.path.clone());
                    }
                    visitor.visit_str(text).map_err(|error: ReadError| error.at(&self.path))
                }
                _ => problem(None, format!("expected {}", secret::EXPECTED)),
            };
        };
        let mut entries = table.iter();
        let (Some((kind, named)), None) = (entries.next(), entries.next()) else {
            return problem(None, format!("expected {}", secret::EXPECTED));
        };
        let (Node::Text(name) | Node::Variable { text: name, .. }) = &named.node else {
            return problem(Some(kind), "expected a text in quotes".to_owned());
        };
        let found = match kind.as_str() {
            "env" => secret::from_environment(name, self.reading.environment),
            "file" => secret::from_file(name),
            _ => return problem(None, format!("expected {}", secret::EXPECTED)),
        };
        match found {
            Ok(text) => {
                visitor.visit_seq(SeqDeserializer::new([kind.clone(), name.clone(), text].into_iter()))
            }
            Err(text) => problem(Some(kind), text),
        }
    }
}

/// Kinds of keys by what they take from a variable: its text, or the TOML value that the text spells.
macro_rules! read_text_as { ($($method:ident)*) => { $(
    fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.stands_in() { return visitor.visit_str("x"); }
        self.visit(self.tree, visitor)
    }
)* } }
macro_rules! read_value_as { ($($method:ident)*) => { $(
    fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.visit(self.meant(), visitor)
    }
)* } }

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    /// Types that look for themselves get a variable's list or table, and otherwise its text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.meant().node {
            Node::List(_) | Node::Table(_) => self.visit(self.meant(), visitor),
            _ => self.visit(self.tree, visitor),
        }
    }
    read_text_as! { deserialize_str deserialize_string deserialize_char deserialize_identifier }
    read_value_as! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_bytes deserialize_byte_buf deserialize_unit
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.stands_in() { visitor.visit_bool(true) } else { self.visit(self.meant(), visitor) }
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.stands_in() {
            visitor.visit_seq(SeqDeserializer::<_, ReadError>::new(["x"; 0].into_iter()))
        } else {
            self.visit(self.meant(), visitor)
        }
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.stands_in() {
            let none = std::iter::empty::<(&str, &str)>();
            visitor.visit_map(MapDeserializer::new(none)).map_err(|error: ReadError| error.at(&self.path))
        } else {
            self.visit(self.meant(), visitor)
        }
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.tree.node {
            Node::Nothing | Node::StandIn => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match (name, &self.meant().node) {
            (secret::SECRET, _) => self.secret(visitor),
            (ONE_OR_MANY, Node::List(_)) => self.visit(self.meant(), visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let result = match &self.tree.node {
            Node::StandIn => {
                visitor.visit_enum(variants.first().copied().unwrap_or_default().into_deserializer())
            }
            Node::Text(text) | Node::Variable { text, meaning: None } => {
                let text: StrDeserializer<'_, ReadError> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            _ => match self.meant().table() {
                Some(table) => {
                    let entries = Entries { of: &self, entries: table.iter(), current: None };
                    visitor.visit_enum(MapAccessDeserializer::new(entries))
                }
                None => Err(ReadError::new(Kind::UnknownVariant(variants))),
            },
        };
        result.map_err(|error| error.at(&self.path))
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_unit(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}

struct Items<'a, 'r> {
    of: &'r Reader<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Tree>>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = ReadError;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        let reader = self.of.below(&index.to_string(), item);
        let path = reader.path.clone();
        seed.deserialize(reader).map(Some).map_err(|error| error.at(&path))
    }
}

struct Entries<'a, 'r> {
    of: &'r Reader<'a>,
    entries: btree_map::Iter<'a, String, Tree>,
    current: Option<(&'a String, &'a Tree)>,
}

impl<'de> de::MapAccess<'de> for Entries<'de, '_> {
    type Error = ReadError;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.current = self.entries.next();
        let Some((key, tree)) = self.current else { return Ok(None) };
        let text: StrDeserializer<'_, ReadError> = key.as_str().into_deserializer();
        seed.deserialize(text).map(Some).map_err(|error| error.at(&self.of.below(key, tree).path))
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let (key, tree) = self.current.take().expect("serde asks for a key before its value");
        let reader = self.of.below(key, tree);
        let path = reader.path.clone();
        seed.deserialize(reader).map_err(|error| error.at(&path))
    }
}
