//! What an answer's status says about the event: pure functions.
//! Holds: what no row names counts as its class does (RFC 9110, section 15): 4xx as 400, 5xx as 500.

use super::super::{Failure, Outcome, Reason};
use crate::time::UnixMs;
use std::time::Duration;

/// The shortest and the longest wait that a `Retry-After` can ask for.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The three forms of an HTTP date (RFC 9110, section 5.6.7); receivers take all of them.
const HTTP_DATES: [&str; 3] =
    ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// How a delivery ended that `host` answered with `status`.
pub(super) fn outcome(status: u16, retry_after: Option<Duration>, host: &str) -> Outcome {
    let failure = |reason| Failure::new(reason, format!("{host} answered {status}"));
    let explained =
        |reason, meaning: &str| Failure::new(reason, format!("{host} answered {status}: {meaning}"));
    match (status, retry_after) {
        // 409: it has the event already, from an attempt whose answer was lost.
        (200..=299 | 409, _) => Outcome::Delivered,
        (300..=399, _) => {
            let meaning = "it has moved; redirects are not followed, set the new url";
            Outcome::Retry(explained(Reason::DestinationMoved, meaning))
        }
        (429, wait) => Outcome::Busy { failure: failure(Reason::Throttled), wait },
        (503, Some(wait)) => Outcome::Busy { failure: failure(Reason::Throttled), wait: Some(wait) },
        (401 | 403 | 407, _) => Outcome::Away(explained(Reason::NotAuthorized, "check the credentials")),
        (404, _) => Outcome::Away(explained(Reason::DestinationMissing, "check the url")),
        (405 | 421, _) => Outcome::Away(explained(Reason::DestinationMissing, "nothing there takes events")),
        (410, _) => Outcome::Away(explained(Reason::DestinationGone, "it is gone for good, remove the sink")),
        (408 | 504, _) => Outcome::Retry(failure(Reason::Timeout)),
        (425, _) => Outcome::Retry(failure(Reason::SinkError)),
        (413 | 431, _) => Outcome::Reject(failure(Reason::TooLarge)),
        (400..=499 | 501 | 505, _) => Outcome::Reject(failure(Reason::ContentRefused)),
        _ => Outcome::Retry(failure(Reason::SinkError)),
    }
}

/// The wait that a `Retry-After` asks for at `now`, within 1 s and 1 h; `None` where it is neither seconds nor a date.
pub(super) fn retry_after(value: &str, now: UnixMs) -> Option<Duration> {
    let value = value.trim();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        // Too long for a number is too long for us as well.
        value.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let date = HTTP_DATES.iter().find_map(|form| jiff::civil::DateTime::strptime(form, value).ok())?;
        let date = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        UnixMs(date.timestamp().as_millisecond()).since(now)
    };
    Some(wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reason::{
        ContentRefused, DestinationGone, DestinationMissing, DestinationMoved, NotAuthorized, SinkError,
        Throttled, Timeout, TooLarge,
    };

    fn name(outcome: &Outcome) -> (&'static str, Option<Reason>) {
        match outcome {
            Outcome::Delivered => ("delivered", None),
            Outcome::Retry(failure) => ("retry", Some(failure.reason)),
            Outcome::Busy { failure, .. } => ("busy", Some(failure.reason)),
            Outcome::Away(failure) => ("away", Some(failure.reason)),
            Outcome::Reject(failure) => ("reject", Some(failure.reason)),
        }
    }

    #[test]
    fn every_status_has_one_ending() {
        let classes: &[(&str, &[u16], &str, Option<Reason>)] = &[
            ("any 2xx confirms", &[200, 201, 202, 204, 226, 299], "delivered", None),
            ("a conflict is an event it already has", &[409], "delivered", None),
            (
                "a redirect is not followed",
                &[300, 301, 302, 303, 304, 307, 308],
                "retry",
                Some(DestinationMoved),
            ),
            ("its time-outs may pass", &[408, 504], "retry", Some(Timeout)),
            ("too early may pass", &[425], "retry", Some(SinkError)),
            (
                "its own failures may pass",
                &[500, 502, 503, 507, 508, 509, 510, 511, 520, 521, 522, 523, 524, 525, 526, 527, 530, 599],
                "retry",
                Some(SinkError),
            ),
            ("asking for less is no failure", &[429], "busy", Some(Throttled)),
            ("credentials concern every event", &[401, 403, 407], "away", Some(NotAuthorized)),
            ("so does a wrong URL", &[404, 405, 421], "away", Some(DestinationMissing)),
            ("and one that is gone", &[410], "away", Some(DestinationGone)),
            (
                "what it cannot take it never will",
                &[400, 402, 406, 411, 412, 414, 415, 416, 417, 422, 426, 428, 451, 499, 501, 505],
                "reject",
                Some(ContentRefused),
            ),
            ("nor what is too large", &[413, 431], "reject", Some(TooLarge)),
            ("what is no status may pass", &[100, 103, 600, 999], "retry", Some(SinkError)),
        ];
        for (sentence, statuses, ending, reason) in classes {
            for status in *statuses {
                let ended = outcome(*status, None, "example.com");
                assert_eq!(name(&ended), (*ending, *reason), "{status}: {sentence}");
            }
        }
    }

    #[test]
    fn retry_after_makes_429_and_503_busy_and_changes_nothing_else() {
        let wait = Some(Duration::from_secs(7));
        for status in [429, 503] {
            let Outcome::Busy { failure, wait: asked } = outcome(status, wait, "example.com:8443") else {
                panic!("{status} is not busy")
            };
            assert_eq!(asked, wait);
            assert_eq!(failure.to_string(), format!("throttled: example.com:8443 answered {status}"));
        }
        assert_eq!(name(&outcome(500, wait, "h")), ("retry", Some(SinkError)));
        assert_eq!(name(&outcome(301, wait, "h")), ("retry", Some(DestinationMoved)));
    }

    #[test]
    fn retry_after_is_read_in_every_form_and_kept_within_bounds() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        let now = UnixMs(784_111_777_000 - 120_000);
        for (sentence, value, seconds) in [
            ("seconds", "120", Some(120)),
            ("white space around them", " 120 ", Some(120)),
            ("no wait is one second", "0", Some(1)),
            ("a day is one hour", "86400", Some(3600)),
            ("nor is more than a number can hold", "99999999999999999999999", Some(3600)),
            ("a date", "Sun, 06 Nov 1994 08:49:37 GMT", Some(120)),
            ("the date of RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", Some(120)),
            ("the date of asctime", "Sun Nov  6 08:49:37 1994", Some(120)),
            ("a date that has passed", "Sun, 06 Nov 1994 08:00:00 GMT", Some(1)),
            ("a date far away", "Mon, 07 Nov 1994 08:49:37 GMT", Some(3600)),
            ("a fraction is no form of it", "1.5", None),
            ("nor is a negative number", "-1", None),
            ("nor nothing", "", None),
            ("nor a word", "soon", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{sentence}: {value}");
        }
    }
}
