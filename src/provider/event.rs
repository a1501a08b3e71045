//! The event that tells a change of an instance: ours, not the sender's, and marked as such.
//! Holds: its type is none that the provider's webhooks have, so that nobody reads one as the other; the extension `polled`
//! says whose observation it is.
//! The id follows from the change and its millisecond. Where nothing is known of before (after a start) only from the state
//! and the minute, so that a daemon that starts over and over does not tell the same thing over and over, while a state
//! that really came back later is told.

use super::state::{Change, State};
use crate::envelope::{
    Attribute, DEDUPE, DEDUPE_STRONG, Data, Envelope, Extensions, HOOKBUS_SOURCE, PARTITION_KEY,
    RECEIVED_TIME, SourceName,
};
use crate::source::Account;
use crate::time::UnixMs;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// The version of the recipe of the id, the first element of what is hashed.
const RECIPE: &str = "polled-1";
/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 32;
const MINUTE_MS: i64 = 60_000;

/// The data of the event.
#[derive(Serialize)]
struct Told<'a> {
    state: &'static str,
    /// Null after a start.
    previous: Option<&'static str>,
    /// What the provider said, or why it could not be asked; may be empty.
    detail: &'a str,
}

/// The event for a change that was seen at `at`.
pub(super) fn of(
    change: Change,
    detail: &str,
    account: &Account,
    source: &SourceName,
    at: UnixMs,
) -> Envelope {
    let instance = account.instance.as_deref().unwrap_or_default();
    let time = at.to_rfc3339();
    let told = Told { state: change.state.label(), previous: change.previous.map(State::label), detail };
    let body = serde_json::to_vec(&told).expect("texts can be written as JSON");
    let mut extensions = Extensions::new();
    let mut set = |name: &'static str, value: Attribute| {
        extensions.insert(Cow::Borrowed(name), value);
    };
    set("provider", Attribute::from(account.provider));
    set("instanceid", Attribute::from(instance));
    set("routeid", Attribute::from(source.as_str()));
    set("eventgroup", Attribute::from("connection"));
    set("polled", Attribute::Bool(true));
    set("timesource", Attribute::from("received"));
    set(DEDUPE, Attribute::from(DEDUPE_STRONG));
    set(HOOKBUS_SOURCE, Attribute::from(source.as_str()));
    set(RECEIVED_TIME, Attribute::from(time.as_str()));
    // As of the provider's own connection events, which name no chat either: the two stay in order.
    set(PARTITION_KEY, Attribute::from(format!("{instance}/-")));
    Envelope {
        id: id(change, account.provider, instance, at),
        source: account.event_source.clone(),
        event_type: format!("{}.connection.polled-{}", account.type_prefix, change.state.label()),
        subject: None,
        time: Some(time),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions,
        data: Data::Json(Bytes::from(body)),
    }
}

fn id(change: Change, provider: &str, instance: &str, at: UnixMs) -> String {
    let (previous, moment) = match change.previous {
        Some(previous) => (previous.label(), at.0),
        None => ("-", at.0.div_euclid(MINUTE_MS)),
    };
    let moment = moment.to_string();
    let parts = [RECIPE, provider, instance, change.state.label(), previous, &moment];
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        digest.update([0]);
    }
    let mut id = hex::encode(digest.finalize());
    id.truncate(ID_DIGITS);
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::source::ConfiguredSource;

    const AT: UnixMs = UnixMs(1_795_219_200_000);

    fn event(change: Change, at: UnixMs) -> Envelope {
        let section = "[zapi]\ninstance = \"A B\"\ntoken = \"t0ken\"\nclient_token = \"c0de\"";
        let layers = Layers::load(Some(section), None, &[]).unwrap();
        let source = ConfiguredSource::parse(SourceName::new("whatsapp").unwrap(), &layers.root()).unwrap();
        of(change, "You are not connected.", source.dialect.account().unwrap(), &source.name, at)
    }

    fn change(state: State, previous: Option<State>) -> Change {
        Change { state, previous }
    }

    #[test]
    fn the_event_is_marked_as_ours_and_belongs_to_the_instance() {
        let event = event(change(State::Disconnected, Some(State::Connected)), AT);
        assert_eq!(event.event_type, "io.z-api.connection.polled-disconnected");
        assert_eq!(event.source, "//api.z-api.io/instances/A%20B");
        assert_eq!(event.time.as_deref(), Some("2026-11-21T00:00:00.000Z"));
        assert_eq!(event.hookbus_source(), "whatsapp");
        assert_eq!(event.partition_key(), Some("A B/-"));
        assert_eq!(event.attribute("polled").as_deref(), Some("true"));
        assert!(event.can_repeat());
        assert_eq!(
            event.data.bytes().as_ref(),
            br#"{"state":"disconnected","previous":"connected","detail":"You are not connected."}"#
        );
        for name in event.extensions.keys() {
            assert!(crate::envelope::known_extension(name).is_some(), "{name} is reserved");
        }
    }

    #[test]
    fn the_id_tells_real_changes_apart_and_recognises_a_start_again() {
        let id = |state, previous, at| event(change(state, previous), at).id;
        let (down, up) = (State::Disconnected, State::Connected);
        let soon = UnixMs(AT.0 + 59_999);
        let later = UnixMs(AT.0 + MINUTE_MS);
        assert_eq!(id(down, None, AT), id(down, None, soon), "two starts within a minute");
        assert_ne!(id(down, None, AT), id(down, None, later), "a start later");
        assert_ne!(id(down, None, AT), id(up, None, AT), "another state");
        assert_ne!(
            id(down, Some(up), AT),
            id(down, Some(up), UnixMs(AT.0 + 1)),
            "every change seen is its own"
        );
        assert_ne!(id(down, Some(up), AT), id(down, None, AT));
        assert_eq!(id(down, Some(up), AT).len(), ID_DIGITS);
    }
}
