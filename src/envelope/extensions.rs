//! The extension attributes of one event, kept in one allocation: an event has some twenty, built once and read often.
//! Holds: names are unique and in alphabetical order.

use super::Attribute;
use std::borrow::Cow;
use std::ops::Index;

/// As many as the dialects set, so that an event is built without growing.
const USUAL_COUNT: usize = 24;

type Named = (Cow<'static, str>, Attribute);

/// Extension attributes by name, in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extensions(Vec<Named>);

impl Extensions {
    /// None yet, with room for what an event usually has.
    #[must_use]
    pub fn new() -> Self {
        Extensions(Vec::with_capacity(USUAL_COUNT))
    }

    /// None yet, with room for exactly `count`.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Extensions(Vec::with_capacity(count))
    }

    /// Sets an attribute and returns what it replaced.
    pub fn insert(&mut self, name: Cow<'static, str>, value: Attribute) -> Option<Attribute> {
        // Stored envelopes come in order: the end is looked at first.
        if self.0.last().is_none_or(|(last, _)| *last < name) {
            self.0.push((name, value));
            return None;
        }
        match self.place(&name) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                self.0.insert(place, (name, value));
                None
            }
        }
    }

    /// The value of an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.place(name).ok().map(|place| &self.0[place].1)
    }

    /// Whether the attribute is there.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    /// All, in alphabetical order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Cow<'static, str>, &Attribute)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The names, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &Cow<'static, str>> {
        self.0.iter().map(|(name, _)| name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_ref().cmp(name))
    }
}

impl Index<&str> for Extensions {
    type Output = Attribute;

    fn index(&self, name: &str) -> &Attribute {
        self.get(name).expect("the caller knows that the extension is there")
    }
}

impl FromIterator<Named> for Extensions {
    fn from_iter<I: IntoIterator<Item = Named>>(named: I) -> Self {
        let mut extensions = Extensions::default();
        for (name, value) in named {
            extensions.insert(name, value);
        }
        extensions
    }
}

impl<const N: usize> From<[Named; N]> for Extensions {
    fn from(named: [Named; N]) -> Self {
        named.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_behaves_as_an_ordered_map(entries in prop::collection::vec(("[a-c]{1,2}", 0..100_i32), 0..40)) {
            let (mut ours, mut model) = (Extensions::new(), BTreeMap::new());
            for (name, number) in entries {
                let name: Cow<'static, str> = Cow::Owned(name);
                let replaced = ours.insert(name.clone(), Attribute::Integer(number));
                prop_assert_eq!(replaced, model.insert(name, Attribute::Integer(number)));
            }
            prop_assert_eq!(ours.len(), model.len());
            prop_assert!(ours.iter().eq(model.iter()));
            prop_assert!(model.iter().all(|(name, value)| ours.get(name) == Some(value) && ours.contains_key(name)));
            prop_assert_eq!(ours.get("d"), None);
        }
    }
}
