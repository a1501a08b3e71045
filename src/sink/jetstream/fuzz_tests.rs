//! Fuzzing of what JetStream answers.
//! Holds: only an answer that names the stream confirms; what a server says is repeated in bounds, without what drives a
//! terminal.

use super::super::fuzz_tests::label;
use super::super::outcome::Outcome;
use super::answer::outcome;
use crate::fuzz_tests::{Target, Verdict, run, texts};

static TARGETS: &[Target] = &[Target {
    name: "jetstream acknowledgement",
    seeds: || {
        texts(&[
            r#"{"stream":"EVENTS","seq":7,"duplicate":true}"#,
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"},"stream":"EVENTS","seq":0}"#,
            r#"{"error":{"code":400,"err_code":10060,"description":"expected \u001b[1m"}}"#,
        ])
    },
    check: acknowledged,
}];

fn acknowledged(input: &[u8]) -> Verdict {
    let ended = outcome(input, "EVENTS");
    match &ended {
        Outcome::Delivered => {
            let says = |word: &str| String::from_utf8_lossy(input).contains(word);
            assert!(says("EVENTS") || says("\\u"), "nobody said that it is kept");
            Ok(())
        }
        Outcome::Retry(failure)
        | Outcome::Busy { failure, .. }
        | Outcome::Away(failure)
        | Outcome::Reject(failure) => {
            assert!(failure.detail.len() <= 2000 && !failure.detail.contains(char::is_control), "{failure}");
            Err(label(&ended))
        }
    }
}

#[test]
fn an_acknowledgement_holds_whatever_it_is() {
    run(TARGETS);
}
