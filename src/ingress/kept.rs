//! Keeping a request: its events in the journal, or its unreadable body as a dead letter.
//! Holds: R1 (a [`Kept`] holds the proof that the journal or the dead-letter store has synced, which nobody else can
//! make, beside just the events it was made for), R7 (the body's bytes are handed on as they are).

use crate::dead_letter::{DeadLetters, KeptLetter, Quarantined, StoreError};
use crate::envelope::Envelope;
use crate::journal::{AppendError, Appended, Dedupe, Durable, Journal, Record};
use crate::time::UnixMs;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The proof that everything a request carried is on disk; the only way to a 2xx that promises something.
pub(super) struct Kept(What);

/// What is on disk.
pub(super) enum What {
    Events(KeptEvents),
    /// The body as a dead letter.
    Letter(KeptLetter),
}

/// At least one event, with the proof for all of them.
pub(super) struct KeptEvents {
    events: Vec<Envelope>,
    durable: Durable,
}

impl KeptEvents {
    /// In the order of the request, each with whether it was there already.
    pub(super) fn each(&self) -> impl ExactSizeIterator<Item = (&Envelope, Appended)> {
        self.events.iter().zip(self.durable.iter().copied())
    }
}

impl Kept {
    /// Appends all events or none. Each is recognised again within `window`; zero turns that off.
    ///
    /// # Errors
    /// [`AppendError`]
    pub(super) async fn events(
        journal: &Journal,
        events: Vec<Envelope>,
        arrival: UnixMs,
        window: Duration,
    ) -> Result<Kept, AppendError> {
        let records = events.iter().map(|event| record(event, arrival, window)).collect();
        let durable = journal.append(records).await?;
        Ok(Kept(What::Events(KeptEvents { events, durable })))
    }

    /// Keeps a body that could not be read.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(super) async fn letter(
        dead_letters: &DeadLetters,
        body: Quarantined<'_>,
    ) -> Result<Kept, StoreError> {
        dead_letters.quarantine(body).await.map(|letter| Kept(What::Letter(letter)))
    }

    pub(super) fn what(&self) -> &What {
        &self.0
    }
}

/// Appends an event of the daemon's own, which no request carried, as a webhook's would be.
///
/// # Errors
/// [`AppendError`]
pub async fn keep_own(
    journal: &Journal,
    event: Envelope,
    at: UnixMs,
    window: Duration,
) -> Result<(), AppendError> {
    Kept::events(journal, vec![event], at, window).await.map(|_kept| ())
}

fn record(event: &Envelope, arrival: UnixMs, window: Duration) -> Record {
    let dedupe = (!window.is_zero() && event.can_repeat()).then(|| Dedupe { key: identity(event), window });
    Record { head: event.encode_head(), body: event.data.bytes().clone(), arrival, dedupe }
}

/// CloudEvents 1.0, section 3.1.1: `source` and `id` together identify an event; here, of those that came in one way: a
/// sender that writes both itself must not be able to pass for another sender's event, which would then be dropped.
/// None of the three contains a zero byte.
fn identity(event: &Envelope) -> [u8; 16] {
    let way = Sha256::new().chain_update(event.hookbus_source()).chain_update([0]);
    let digest = way.chain_update(&event.source).chain_update([0]).chain_update(&event.id).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::envelope::{Attribute, DEDUPE, DEDUPE_NONE, Data, HOOKBUS_SOURCE};
    use bytes::Bytes;

    pub(in crate::ingress) fn event(source: &str, id: &str) -> Envelope {
        Envelope {
            id: id.into(),
            source: source.into(),
            event_type: "test".into(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Default::default(),
            data: Data::Binary(Bytes::from_static(b"body")),
        }
    }

    #[test]
    fn source_and_id_together_are_the_identity() {
        let identities =
            [("a", "b"), ("ab", ""), ("", "ab"), ("b", "a")].map(|(source, id)| identity(&event(source, id)));
        for (index, left) in identities.iter().enumerate() {
            assert!(identities[index + 1..].iter().all(|right| left != right));
        }
        assert_eq!(identity(&event("a", "b")), identities[0]);
        let mut elsewhere = event("a", "b");
        elsewhere.extensions.insert(HOOKBUS_SOURCE.into(), Attribute::from("other"));
        assert_ne!(identity(&elsewhere), identities[0], "of another source's events nobody is a repetition");
    }

    #[test]
    fn an_event_that_says_so_or_a_window_of_zero_is_never_a_duplicate() {
        let window = Duration::from_secs(1);
        let recognised = |event: &Envelope, window| record(event, UnixMs(0), window).dedupe.is_some();
        let mut presence = event("a", "b");
        presence.extensions.insert(DEDUPE.into(), Attribute::from(DEDUPE_NONE));
        assert!(recognised(&event("a", "b"), window));
        assert!(!recognised(&event("a", "b"), Duration::ZERO));
        assert!(!recognised(&presence, window));
    }
}
