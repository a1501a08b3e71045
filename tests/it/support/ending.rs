//! How a delivery ended, as one value to compare.
//! Holds: a failure's words are short, and name no secret (R8).

use hookbus::sink::{Outcome, Reason};

/// Of a delivery in which `secrets` played a part.
pub fn ending(outcome: &Outcome, secrets: &[&str]) -> (&'static str, Option<Reason>) {
    let (ending, failure) = match outcome {
        Outcome::Delivered => return ("delivered", None),
        Outcome::Retry(failure) => ("retry", failure),
        Outcome::Busy { failure, .. } => ("busy", failure),
        Outcome::Away(failure) => ("away", failure),
        Outcome::Reject(failure) => ("reject", failure),
    };
    for secret in secrets {
        assert!(!failure.detail.contains(secret), "R8: {failure}");
    }
    assert!(failure.detail.chars().count() <= 300, "{failure}");
    (ending, Some(failure.reason))
}
