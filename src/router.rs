//! Which sinks an event goes to: pure, compiled once from `[[routes]]`.
//! Holds: with no routes at all every event goes to every sink.

use crate::envelope::{Envelope, SinkName, SourceName};
use serde::{Deserialize, Serialize};

/// One `[[routes]]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The sources it takes from; absent: all.
    #[serde(default)]
    pub from: Option<Vec<SourceName>>,
    /// Globs over the CloudEvents type (`*` stands for any characters); absent: all.
    #[serde(default)]
    pub types: Option<Vec<String>>,
    /// The sinks it leads to.
    pub to: Vec<SinkName>,
}

/// All routes.
#[derive(Clone, Debug, Default)]
pub struct Router {
    routes: Vec<Route>,
}

impl Router {
    /// From the configured routes.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        Router { routes }
    }
    /// Does the event go to `sink`?
    #[must_use]
    pub fn leads_to(&self, event: &Envelope, sink: &SinkName) -> bool {
        self.routes.is_empty()
            || self.routes.iter().any(|route| route.to.contains(sink) && route.takes(event))
    }
    /// Does the event go to any sink of these routes? With no routes: to all there are.
    #[must_use]
    pub fn leads_anywhere(&self, event: &Envelope) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|route| !route.to.is_empty() && route.takes(event))
    }
}

impl Route {
    fn takes(&self, event: &Envelope) -> bool {
        let from = self
            .from
            .as_ref()
            .is_none_or(|sources| sources.iter().any(|name| name.as_str() == event.hookbus_source()));
        from && self
            .types
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob_matches(glob, &event.event_type)))
    }
}

/// `*` stands for any characters, also none and also dots; everything else for itself.
#[must_use]
pub fn glob_matches(glob: &str, text: &str) -> bool {
    let mut pieces = glob.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_is_special() {
        for (sentence, glob, text, matches) in [
            ("a star alone takes all", "*", "a.b", true),
            ("a star may stand for nothing", "a*", "a", true),
            ("a prefix", "io.z-api.message.*", "io.z-api.message.received", true),
            ("a prefix does not take its own stem", "io.z-api.message.*", "io.z-api.message", false),
            ("no star means equality", "a.b", "a.bc", false),
            ("a dot is a dot", "a.b", "aXb", false),
            ("stars in the middle", "a*c*e", "abcde", true),
            ("pieces may not overlap", "ab*ba", "aba", false),
            ("an empty glob takes only nothing", "", "a", false),
        ] {
            assert_eq!(glob_matches(glob, text), matches, "{sentence}");
        }
    }
}
