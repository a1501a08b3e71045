//! Points in time as values: milliseconds since 1970 and their RFC 3339 form.
//! Holds: what is printed always has 24 characters and always reads back as the same millisecond.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The first millisecond that RFC 3339 can write (year 0000).
const PRINTABLE_MIN: i64 = -62_167_219_200_000;
/// The last millisecond that RFC 3339 can write (year 9999).
const PRINTABLE_MAX: i64 = 253_402_300_799_999;
const DAY_MS: i64 = 86_400_000;
/// Smaller numbers are seconds, for the time from 2000 to 2099.
const SECONDS_END: u64 = 100_000_000_000;
/// Smaller numbers are milliseconds, if not seconds.
const MILLIS_END: u64 = 100_000_000_000_000;
/// Smaller numbers are microseconds, if neither; larger ones nanoseconds.
const MICROS_END: u64 = 100_000_000_000_000_000;
/// From 2000-01-01 until before 2100-01-01.
const PLAUSIBLE: std::ops::Range<UnixMs> = UnixMs(946_684_800_000)..UnixMs(4_102_444_800_000);

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// RFC 3339 in UTC with three decimals: `2026-01-31T12:00:00.000Z`. Years beyond 0000 to 9999, which RFC 3339
    /// cannot write, become the nearest it can.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let ms = self.0.clamp(PRINTABLE_MIN, PRINTABLE_MAX);
        let (year, month, day) = civil_date(ms.div_euclid(DAY_MS));
        let in_day = ms.rem_euclid(DAY_MS);
        let mut text = String::with_capacity(24);
        push_digits(&mut text, year, 4, '-');
        push_digits(&mut text, month, 2, '-');
        push_digits(&mut text, day, 2, 'T');
        push_digits(&mut text, in_day / 3_600_000, 2, ':');
        push_digits(&mut text, in_day / 60_000 % 60, 2, ':');
        push_digits(&mut text, in_day / 1000 % 60, 2, '.');
        push_digits(&mut text, in_day % 1000, 3, 'Z');
        text
    }

    /// The point `later` than this one; the end of time where it cannot be expressed.
    #[must_use]
    pub fn plus(self, later: Duration) -> UnixMs {
        UnixMs(self.0.saturating_add(i64::try_from(later.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Reads RFC 3339 with any offset; what is finer than a millisecond is dropped.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<UnixMs> {
        text.parse::<jiff::Timestamp>().ok().map(|timestamp| UnixMs(timestamp.as_millisecond()))
    }

    /// Reads the form of mail and HTTP headers: `Thu, 15 Jan 2026 12:40:40 +0000`.
    #[must_use]
    pub fn parse_rfc2822(text: &str) -> Option<UnixMs> {
        jiff::fmt::rfc2822::parse(text).ok().map(|zoned| UnixMs(zoned.timestamp().as_millisecond()))
    }

    /// Reads what senders write where a time belongs: RFC 3339, or a number whose magnitude tells its unit, since
    /// field names do not (below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds).
    /// A time before 2000 or after 2099 is none: such values are counters, placeholders or mistakes.
    #[must_use]
    pub fn from_sender(text: &str) -> Option<UnixMs> {
        let read = match text.parse::<i64>() {
            Ok(number) => from_magnitude(number),
            Err(_) => match text.parse::<f64>() {
                Ok(number) => from_fractional_magnitude(number)?,
                Err(_) => UnixMs::parse_rfc3339(text)?,
            },
        };
        PLAUSIBLE.contains(&read).then_some(read)
    }

    /// Time since `earlier`; zero where the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: UnixMs) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn from_magnitude(number: i64) -> UnixMs {
    UnixMs(match number.unsigned_abs() {
        ..SECONDS_END => number * 1000,
        SECONDS_END..MILLIS_END => number,
        MILLIS_END..MICROS_END => number.div_euclid(1000),
        _ => number.div_euclid(1_000_000),
    })
}

/// The same for what has a fraction or an exponent; none where no whole number of milliseconds can hold it.
fn from_fractional_magnitude(number: f64) -> Option<UnixMs> {
    let size = number.abs();
    let ms = if size < SECONDS_END as f64 {
        number * 1000.0
    } else if size < MILLIS_END as f64 {
        number
    } else if size < MICROS_END as f64 {
        number / 1000.0
    } else {
        number / 1_000_000.0
    };
    // Rounded to whole milliseconds, because 1768480840.417 seconds have no exact binary form.
    (ms.abs() < 1e15).then(|| UnixMs(ms.round() as i64))
}

fn push_digits(text: &mut String, number: i64, width: u32, end: char) {
    for place in (0..width).rev() {
        let digit = u8::try_from(number / 10_i64.pow(place) % 10).unwrap_or(0);
        text.push(char::from(b'0' + digit));
    }
    text.push(end);
}

/// Year, month and day of the proleptic Gregorian calendar. Counted in years that begin in March, so that the leap
/// day is the last of its year, and in eras of 400 years, which all have the same number of days.
fn civil_date(days_since_1970: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days_since_1970 + 719_468;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn printing_keeps_the_calendar_the_padding_and_the_bounds() {
        for (sentence, ms, text) in [
            ("the beginning", 0, "1970-01-01T00:00:00.000Z"),
            ("before the beginning", -1, "1969-12-31T23:59:59.999Z"),
            ("a leap day", 1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            ("the day after the leap day of a century", 951_868_800_000, "2000-03-01T00:00:00.000Z"),
            ("every part filled", 1_768_480_840_417, "2026-01-15T12:40:40.417Z"),
            ("the first year that can be written", i64::MIN, "0000-01-01T00:00:00.000Z"),
            ("the last year that can be written", i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(UnixMs(ms).to_rfc3339(), text, "{sentence}");
        }
    }

    #[test]
    fn reading_takes_any_offset_and_nothing_that_is_no_time() {
        for (text, ms) in [
            ("2026-01-15T12:40:40.417Z", Some(1_768_480_840_417)),
            ("2026-01-15T09:40:40.417-03:00", Some(1_768_480_840_417)),
            ("2026-01-15T12:40:40.417999999Z", Some(1_768_480_840_417)),
            ("2026-01-15", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(UnixMs::parse_rfc3339(text), ms.map(UnixMs), "{text}");
        }
    }

    #[test]
    fn the_form_of_mail_headers_is_read_too() {
        for (text, ms) in [
            ("Thu, 15 Jan 2026 12:40:40 +0000", Some(1_768_480_840_000)),
            ("Thu, 15 Jan 2026 09:40:40 -0300", Some(1_768_480_840_000)),
            ("2026-01-15T12:40:40Z", None),
            ("", None),
        ] {
            assert_eq!(UnixMs::parse_rfc2822(text), ms.map(UnixMs), "{text}");
        }
    }

    #[test]
    fn the_magnitude_of_a_number_tells_its_unit() {
        let moment = Some(UnixMs(1_768_480_840_000));
        for (sentence, text, read) in [
            ("seconds", "1768480840", moment),
            ("milliseconds", "1768480840000", moment),
            ("microseconds", "1768480840000000", moment),
            ("nanoseconds", "1768480840000000000", moment),
            ("seconds with a fraction", "1768480840.417", Some(UnixMs(1_768_480_840_417))),
            ("milliseconds with an exponent", "1.76848084e12", moment),
            ("RFC 3339", "2026-01-15T12:40:40Z", moment),
            ("the first moment of 2000", "946684800", Some(UnixMs(946_684_800_000))),
            ("a moment earlier is none", "946684799.9", None),
            ("nor is the first of 2100", "4102444800000", None),
            ("the sample value that fits no unit", "26151515154", None),
            ("zero", "0", None),
            ("a negative number", "-1768480840", None),
            ("more digits than a number holds", "99999999999999999999999999", None),
            ("infinity", "inf", None),
            ("no number", "NaN", None),
            ("no time", "número", None),
            ("nothing", "", None),
        ] {
            assert_eq!(UnixMs::from_sender(text), read, "{sentence}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in ".{0,40}", number: i64, fraction: f64) {
            for text in [text, number.to_string(), fraction.to_string()] {
                let _ = (UnixMs::from_sender(&text), UnixMs::parse_rfc2822(&text));
            }
        }

        #[test]
        fn what_is_printed_reads_back_as_the_same_millisecond(ms in PRINTABLE_MIN..=PRINTABLE_MAX) {
            let text = UnixMs(ms).to_rfc3339();
            prop_assert_eq!(text.len(), 24);
            prop_assert_eq!(UnixMs::parse_rfc3339(&text), Some(UnixMs(ms)));
        }
    }
}
