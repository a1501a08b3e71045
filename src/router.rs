//! Which sinks an event goes to: pure, compiled once from `[[routes]]`.
//! Holds: with no routes at all every event goes to every sink.

use crate::envelope::{Envelope, SinkName, SourceName};
use crate::glob;
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
            .is_none_or(|globs| globs.iter().any(|glob| glob::matches(glob, &event.event_type)))
    }
}
