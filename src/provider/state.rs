//! How an instance is, and which changes of it are worth telling: pure.
//! Holds: a change stays untold, and so is offered again, until it is known to be kept; a poll that fails says nothing
//! about the instance until several in a row have.

use serde_json::{Map, Value};

/// So many polls in a row must fail before the instance counts as unreachable: one lost answer is no outage.
const FAILURES_MAX: u32 = 3;
/// The fields of `/status` of which an answer has the first at the least.
pub(super) const FIELDS: [&str; 1] = ["connected"];

/// How an instance is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Linked to WhatsApp.
    Connected,
    /// Linked, but the phone itself is not online.
    PhoneOffline,
    /// Not linked.
    Disconnected,
    /// The API gave no usable answer several times in a row: nobody knows.
    Unreachable,
}

impl State {
    /// The word in types, data, logs and metric labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            State::Connected => "connected",
            State::PhoneOffline => "phone-offline",
            State::Disconnected => "disconnected",
            State::Unreachable => "unreachable",
        }
    }
}

/// What one answer of `/status` says, with the provider's own words where it is not well; none where `connected` is no
/// Boolean.
pub(super) fn read(status: &Map<String, Value>) -> Option<(State, &str)> {
    let state = match (status.get("connected")?.as_bool()?, status.get("smartphoneConnected")) {
        (false, _) => State::Disconnected,
        (true, Some(Value::Bool(false))) => State::PhoneOffline,
        (true, _) => State::Connected,
    };
    // The same field says "You are already connected." of an instance that is well.
    let said = status.get("error").and_then(Value::as_str).filter(|_| state != State::Connected);
    Some((state, said.unwrap_or_default()))
}

/// What was seen and told of one instance.
#[derive(Default)]
pub(super) struct Watch {
    told: Option<State>,
    failures_in_a_row: u32,
}

/// Something to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) state: State,
    /// Absent after a start: what was before it is not known.
    pub(super) previous: Option<State>,
}

impl Watch {
    /// A poll was answered.
    pub(super) fn saw(&mut self, state: State) -> Option<Change> {
        self.failures_in_a_row = 0;
        self.change_to(state)
    }

    /// A poll failed.
    pub(super) fn failed(&mut self) -> Option<Change> {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.is_unreachable() { self.change_to(State::Unreachable) } else { None }
    }

    /// It is the first failure after an answer or the start.
    pub(super) fn has_just_failed(&self) -> bool {
        self.failures_in_a_row == 1
    }

    /// So many polls have failed in a row that nobody knows how the instance is, told or not.
    pub(super) fn is_unreachable(&self) -> bool {
        self.failures_in_a_row >= FAILURES_MAX
    }

    /// The change is kept.
    pub(super) fn told(&mut self, state: State) {
        self.told = Some(state);
    }

    fn change_to(&self, state: State) -> Option<Change> {
        (self.told != Some(state)).then_some(Change { state, previous: self.told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Connected, Disconnected, PhoneOffline, Unreachable};
    use serde_json::json;

    #[test]
    fn the_documented_answers_are_understood() {
        for (sentence, answer, state) in [
            (
                "connected",
                json!({"connected": true, "error": "You are already connected.", "smartphoneConnected": true}),
                Some((Connected, "")),
            ),
            ("an answer of before the phone was shown", json!({"connected": true}), Some((Connected, ""))),
            (
                "the phone is away",
                json!({"connected": true, "smartphoneConnected": false}),
                Some((PhoneOffline, "")),
            ),
            (
                "not connected",
                json!({"connected": false, "error": "You are not connected.", "smartphoneConnected": true}),
                Some((Disconnected, "You are not connected.")),
            ),
            ("something else", json!({"connected": "yes"}), None),
        ] {
            assert_eq!(read(answer.as_object().unwrap()), state, "{sentence}");
        }
    }

    #[test]
    fn a_change_is_told_once_and_offered_until_it_is_kept() {
        let change = |state, previous| Some(Change { state, previous });
        let mut watch = Watch::default();
        assert_eq!(watch.saw(Connected), change(Connected, None), "what is found at a start is told");
        assert_eq!(watch.saw(Connected), change(Connected, None), "again, since it was not kept");
        watch.told(Connected);
        assert_eq!(watch.saw(Connected), None);
        assert_eq!(watch.saw(Disconnected), change(Disconnected, Some(Connected)));
        watch.told(Disconnected);
        assert_eq!(watch.saw(PhoneOffline), change(PhoneOffline, Some(Disconnected)));
    }

    #[test]
    fn three_failures_in_a_row_are_an_outage_and_an_answer_ends_it() {
        let mut watch = Watch::default();
        watch.saw(Connected);
        watch.told(Connected);
        assert_eq!((watch.failed(), watch.has_just_failed()), (None, true));
        assert_eq!((watch.failed(), watch.has_just_failed()), (None, false));
        assert_eq!(watch.saw(Connected), None, "an answer in between starts the count anew");
        assert_eq!((watch.failed(), watch.failed()), (None, None));
        let outage = Change { state: Unreachable, previous: Some(Connected) };
        assert_eq!(watch.failed(), Some(outage));
        watch.told(Unreachable);
        assert_eq!(watch.failed(), None);
        assert_eq!(watch.saw(Connected), Some(Change { state: Connected, previous: Some(Unreachable) }));
        assert!(!watch.is_unreachable());
        assert_eq!(
            (watch.failed(), watch.failed(), watch.failed()),
            (None, None, None),
            "nothing new to tell"
        );
        assert!(watch.is_unreachable(), "and yet nobody knows, though the answer between was not kept");
    }
}
