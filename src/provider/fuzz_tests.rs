//! Fuzzing of what a provider's API answers.
//! Holds: only a success that says so has set something; no secret of this side, no control character and no endless text
//! is repeated (R8).

use super::answer::{Secrets, read, set};
use super::problem::ApiError;
use super::state;
use crate::fuzz_tests::{Target, Verdict, run, texts};

static TARGETS: &[Target] = &[Target {
    name: "provider's answer",
    seeds: || {
        texts(&[
            "\u{c8}{\"value\":true}",
            r#"È{"connected":true,"smartphoneConnected":false,"error":"s3cret-token is https://a/s3cret-token"}"#,
            r#"{"error":"[203.0.113.9] not allowed"}"#,
            r#"{"message":"tell s3cret-token to nobody\u001b[1m"}"#,
        ])
    },
    check: answered,
}];

/// Of these the answers may repeat none.
const SECRET: &str = "s3cret-token";

fn answered(input: &[u8]) -> Verdict {
    let secrets = Secrets::of([SECRET]);
    let mut verdict = Err("refused".to_owned());
    for status in [200, 302, 400, 401, 404, 405, 422, 429, 500] {
        // The first two bytes of some seeds are there to be changed.
        for body in [input, input.get(2..).unwrap_or_default()] {
            let problems = match (set(status, body, &secrets), read(status, body, &state::FIELDS, &secrets)) {
                (set, Ok(answer)) => {
                    let told =
                        state::read(&answer).map(|(_, said)| secrets.cleaned(said)).unwrap_or_default();
                    assert_harmless(&told);
                    verdict = Ok(());
                    [set.err(), None]
                }
                (set, Err(problem)) => [set.err(), Some(problem)],
            };
            for problem in problems.into_iter().flatten() {
                let text = || "here".to_owned();
                let told = ApiError { problem, host: text(), section: text(), call: text() };
                assert_harmless(&told.to_string());
            }
            if set(status, body, &secrets).is_ok() {
                assert!((200..300).contains(&status));
                verdict = Ok(());
            }
        }
    }
    verdict
}

fn assert_harmless(told: &str) {
    assert!(!told.contains(SECRET) && !told.contains(char::is_control) && told.len() < 1500, "{told:?}");
}

#[test]
fn a_providers_answer_holds_whatever_it_is() {
    run(TARGETS);
}
