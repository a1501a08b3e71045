//! The stored form against every envelope and every byte string there can be.

use super::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn attributes() -> impl Strategy<Value = Attribute> {
    prop_oneof![
        ".{0,40}".prop_map(Attribute::Text),
        any::<bool>().prop_map(Attribute::Bool),
        any::<i32>().prop_map(Attribute::Integer),
    ]
}

fn bodies() -> impl Strategy<Value = Data> {
    let bytes = || vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    prop_oneof![
        Just(Data::None),
        bytes().prop_map(Data::Json),
        bytes().prop_map(Data::Text),
        bytes().prop_map(Data::Binary),
    ]
}

prop_compose! {
    fn envelopes()(
        required in [".{0,200}", ".{0,40}", ".{0,40}"],
        optional in [option::of(".{0,40}"), option::of(".{0,4}"), option::of(".{0,4}"), option::of(".{0,4}")],
        extensions in btree_map("[a-z0-9]{1,20}|dedupe|wamsgid", attributes(), 0..8),
        data in bodies(),
    ) -> Envelope {
        let [id, source, event_type] = required;
        let [subject, time, datacontenttype, dataschema] = optional;
        let extensions = extensions.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect();
        Envelope { id, source, event_type, subject, time, datacontenttype, dataschema, extensions, data }
    }
}

fn stored(envelope: &Envelope) -> Vec<u8> {
    let mut stored = envelope.encode_head();
    stored.extend_from_slice(envelope.data.bytes());
    stored
}

fn small() -> Envelope {
    Envelope {
        id: "1a97aa1b".to_owned(),
        source: "//hookbus/sources/inbox".to_owned(),
        event_type: "webhook.received".to_owned(),
        subject: Some(String::new()),
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: Extensions::from([
            (Cow::Borrowed("dedupe"), Attribute::from("strong")),
            (Cow::Borrowed("fromme"), Attribute::Bool(true)),
            (Cow::Borrowed("sequence"), Attribute::Integer(-2)),
        ]),
        data: Data::Json(Bytes::from_static(b"{\"a\":-99.9999999999999999}")),
    }
}

proptest! {
    #[test]
    fn every_envelope_decodes_to_itself(envelope in envelopes()) {
        let stored = Bytes::from(stored(&envelope));
        prop_assert_eq!(Envelope::decode(&stored), Ok(envelope));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Envelope::decode(&Bytes::from(bytes));
    }

    #[test]
    fn a_flipped_byte_never_panics(envelope in envelopes(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut stored = stored(&envelope);
        let at = at.index(stored.len());
        stored[at] = byte;
        let _ = Envelope::decode(&Bytes::from(stored));
    }
}

#[test]
fn the_data_is_a_slice_of_what_was_stored_and_no_copy() {
    let stored = Bytes::from(stored(&small()));
    let decoded = Envelope::decode(&stored).unwrap();
    let data = decoded.data.bytes();
    assert_eq!(data.as_ptr(), stored[stored.len() - data.len()..].as_ptr());
    assert_eq!(decoded, small());
}

#[test]
fn an_envelope_cut_anywhere_is_malformed() {
    let whole = Bytes::from(stored(&small()));
    for length in 0..whole.len() {
        let error = Envelope::decode(&whole.slice(..length)).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed(_)), "cut to {length}: {error}");
    }
}

#[test]
fn a_newer_version_is_named_instead_of_guessed_at() {
    let mut newer = stored(&small());
    newer[0] = STORED_VERSION + 1;
    assert_eq!(Envelope::decode(&Bytes::from(newer)), Err(DecodeError::UnknownVersion(STORED_VERSION + 1)));
}

#[test]
fn version_1_stays_readable() {
    let bytes: &[u8] = b"\x01\x01\x02\x02id\x03src\x01t\x04sub\0\0\0\x02\x06dedupe\0\x04none\x06fromme\x02{}";
    let decoded = Envelope::decode(&Bytes::from_static(bytes)).unwrap();
    assert_eq!(
        (decoded.id.as_str(), decoded.source.as_str(), decoded.event_type.as_str()),
        ("id", "src", "t")
    );
    assert_eq!((decoded.subject.as_deref(), decoded.time), (Some("sub"), None));
    assert_eq!(decoded.extensions["fromme"], Attribute::Bool(true));
    assert!(!Envelope::decode(&Bytes::from_static(bytes)).unwrap().can_repeat());
    assert_eq!(decoded.data, Data::Json(Bytes::from_static(b"{}")));
}

#[test]
fn a_length_beyond_what_is_there_reserves_nothing() {
    for count in [b"\x01\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\x0f".as_slice(), b"\x01\0\0\xff\xff\xff\xff\x0f"] {
        assert!(matches!(Envelope::decode(&Bytes::copy_from_slice(count)), Err(DecodeError::Malformed(_))));
    }
}
