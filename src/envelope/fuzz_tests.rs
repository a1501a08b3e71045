//! Fuzzing of the stored form: the payload of every record in the journal and of every dead letter.
//! Holds: what is read writes back as itself and takes no more memory than was there.

use super::{Data, Envelope};
use crate::fuzz_tests::{Target, Verdict, run};
use bytes::Bytes;

static TARGETS: &[Target] = &[Target { name: "stored envelope", seeds, check: stored }];

fn seeds() -> Vec<Vec<u8>> {
    let small: &[u8] = b"\x01\x01\x02\x02id\x03src\x01t\x04sub\0\0\0\x02\x06dedupe\0\x04none\x06fromme\x02{}";
    let integer: &[u8] =
        b"\x01\x03\x04\x02id\x03src\x01t\x01\x02a\x02b\x02c\x01\x03seq\x03\xfe\xff\xff\xff\0\x01\xfe\xff";
    vec![small.to_vec(), integer.to_vec(), b"\x01\0\0\x01i\x01s\x01t\0\0\0\0\0".to_vec()]
}

fn stored(input: &[u8]) -> Verdict {
    let stored = Bytes::copy_from_slice(input);
    let event =
        Envelope::decode(&stored).map_err(|error| error.to_string().chars().take(60).collect::<String>())?;
    assert!(matches!(event.data, Data::None) || stored.ends_with(event.data.bytes()), "R7");
    let again = Bytes::from([&event.encode_head(), &event.data.bytes()[..]].concat());
    assert!(again.len() <= stored.len(), "there is no shorter way to write it");
    assert_eq!(Envelope::decode(&again), Ok(event));
    Ok(())
}

#[test]
fn the_stored_form_holds_for_every_input() {
    run(TARGETS);
}
