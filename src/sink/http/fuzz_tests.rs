//! Fuzzing of what a receiver answers.
//! Holds: a wait is within its bounds, and whatever is neither a number nor a date is none.

use super::super::fuzz_tests::label;
use super::answer::{outcome, retry_after};
use crate::fuzz_tests::{Target, Verdict, run, texts};
use crate::time::UnixMs;
use std::time::Duration;

static TARGETS: &[Target] = &[Target {
    name: "retry-after",
    seeds: || {
        texts(&[
            "120",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ])
    },
    check: answered,
}];

fn answered(input: &[u8]) -> Verdict {
    // What is no visible ASCII never gets as far as this.
    let text = std::str::from_utf8(input).map_err(|_| "no text".to_owned())?;
    let wait = retry_after(text, UnixMs(784_111_657_000));
    let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
    assert!(wait.is_none_or(|wait| bounds.contains(&wait)), "{wait:?}");
    let digits = text.trim();
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        assert!(wait.is_some(), "a number is always a wait");
    }
    for status in [200, 429, 503, u16::try_from(input.len() % 1000).unwrap()] {
        let ended = label(&outcome(status, wait, "example.com"));
        assert_eq!(ended == "delivered", matches!(status, 200..=299 | 409), "{status}");
    }
    wait.map(|_| ()).ok_or_else(|| "no wait".to_owned())
}

#[test]
fn a_receivers_answer_holds_whatever_it_is() {
    run(TARGETS);
}
