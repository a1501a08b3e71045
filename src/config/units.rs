//! Sizes, periods and rates, written as text with units in the configuration, and "one or a list".
//! Holds: what a unit writes, it reads back as the same value.

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// A number of bytes: `"64KiB"`, `"10MiB"`, `"1GB"`, `"512"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(u64);

impl ByteSize {
    /// From a number of bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        ByteSize(bytes)
    }
    /// From a number of KiB.
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        ByteSize(kib * 1024)
    }
    /// From a number of MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        ByteSize(mib * 1024 * 1024)
    }
    /// From a number of GiB.
    #[must_use]
    pub const fn gib(gib: u64) -> Self {
        ByteSize(gib * 1024 * 1024 * 1024)
    }
    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The number of bytes as a length in memory.
    #[must_use]
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A length of time in whole milliseconds: `"500ms"`, `"5m"`, `"72h"`, `"1h 30m"`, `"0s"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Period(Duration);

impl Period {
    /// From milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Period(Duration::from_millis(millis))
    }
    /// From seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Period(Duration::from_secs(secs))
    }
    /// From minutes.
    #[must_use]
    pub const fn mins(mins: u64) -> Self {
        Period(Duration::from_secs(mins * 60))
    }
    /// From hours.
    #[must_use]
    pub const fn hours(hours: u64) -> Self {
        Period(Duration::from_secs(hours * 3600))
    }
    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// So many in a period: `"100/s"`, `"6000/m"`, `"10/30s"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many, at least 1.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// One value or a list of them; never empty. Only a [`super::Section`] reads lists of them; other deserialisers see one value.
#[derive(Clone, PartialEq, Debug)]
pub struct OneOrMany<T>(Vec<T>);

impl<T> OneOrMany<T> {
    /// Of one value.
    #[must_use]
    pub fn one(value: T) -> Self {
        OneOrMany(vec![value])
    }
    /// The same with every value replaced.
    ///
    /// # Errors
    /// The first that could not be.
    pub fn try_map<E>(&self, replaced: impl FnMut(&T) -> Result<T, E>) -> Result<Self, E> {
        Ok(OneOrMany(self.0.iter().map(replaced).collect::<Result<_, E>>()?))
    }

    /// The values in the order written.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

/// The longest period that is accepted: a hundred years, so that adding one to a time never overflows.
const PERIOD_MS_MAX: u64 = 100 * 365 * 24 * 3_600_000;
/// Name and bytes of each unit of size, in the order in which they are tried for writing.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];
/// Name and milliseconds of each unit of time.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A value that is written as text.
trait Unit: Sized + fmt::Display {
    /// What an error asks for.
    const EXPECTED: &'static str;
    fn parse(text: &str) -> Option<Self>;
    /// From a bare number, where that has an obvious meaning.
    fn from_number(_number: u64) -> Option<Self> {
        None
    }
}

/// Cuts `text` into its leading digits and the rest, both trimmed.
fn number_and_rest(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest.trim_start()))
}

impl Unit for ByteSize {
    const EXPECTED: &'static str = "a size such as \"10MiB\"";
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_rest(text.trim())?;
        let bytes = match SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, bytes)) => *bytes,
            None if unit.is_empty() => 1,
            None => return None,
        };
        number.checked_mul(bytes).map(ByteSize)
    }
    fn from_number(number: u64) -> Option<Self> {
        Some(ByteSize(number))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = SIZES.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        let (name, bytes) = fitting.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / bytes)
    }
}

impl Unit for Period {
    const EXPECTED: &'static str = "a length of time such as \"30s\" or \"1h 30m\"";
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut total_ms = 0u64;
        loop {
            let (number, after) = number_and_rest(rest)?;
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let (_, unit_ms) = TIMES.iter().find(|(name, _)| *name == unit)?;
            total_ms = total_ms.checked_add(number.checked_mul(*unit_ms)?)?;
            rest = after.trim_start();
            if rest.is_empty() {
                return (total_ms <= PERIOD_MS_MAX).then_some(Period::millis(total_ms));
            }
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest_ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest_ms == 0 {
            return f.write_str("0s");
        }
        let mut space = "";
        // Days are read but not written: "72h" is how retention and age are spoken of.
        for (name, unit_ms) in &TIMES[1..] {
            if rest_ms >= *unit_ms {
                write!(f, "{space}{}{name}", rest_ms / unit_ms)?;
                rest_ms %= unit_ms;
                space = " ";
            }
        }
        Ok(())
    }
}

impl Unit for Rate {
    const EXPECTED: &'static str = "a rate such as \"100/s\" or \"6000/m\"";
    fn parse(text: &str) -> Option<Self> {
        let (count, per) = text.split_once('/')?;
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        let per = per.trim();
        let single = TIMES.iter().find(|(name, _)| *name == per).map(|(_, ms)| Period::millis(*ms));
        let per = single.or_else(|| Period::parse(per))?.get();
        (!per.is_zero()).then_some(Rate { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = TIMES.iter().find(|(_, ms)| u128::from(*ms) == self.per.as_millis());
        match single {
            Some((name, _)) => write!(f, "{}/{name}", self.count),
            None => write!(f, "{}/{}", self.count, Period(self.per)),
        }
    }
}

struct UnitVisitor<U>(PhantomData<U>);

impl<U: Unit> Visitor<'_> for UnitVisitor<U> {
    type Value = U;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(U::EXPECTED)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<U, E> {
        U::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Other("text"), &self))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<U, E> {
        U::from_number(number).ok_or_else(|| E::invalid_type(Unexpected::Other("a number"), &self))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<U, E> {
        let number = u64::try_from(number).ok().and_then(U::from_number);
        number.ok_or_else(|| E::invalid_type(Unexpected::Other("a number"), &self))
    }
}

macro_rules! written_as_text { ($($unit:ty),*) => { $(
    impl Serialize for $unit {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }
    impl<'de> Deserialize<'de> for $unit {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(UnitVisitor(PhantomData))
        }
    }
)* } }
written_as_text!(ByteSize, Period, Rate);

/// The name under which [`OneOrMany`] asks a section's reader for "a list, or else the value itself".
pub(super) const ONE_OR_MANY: &str = "hookbus::OneOrMany";

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of at least one")
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        T::deserialize(deserializer).map(OneOrMany::one)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        let values = Vec::<T>::deserialize(SeqAccessDeserializer::new(items))?;
        if values.is_empty() { Err(A::Error::invalid_length(0, &self)) } else { Ok(OneOrMany(values)) }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, OneOrManyVisitor(PhantomData))
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_periods_and_rates_are_read_with_their_units() {
        for (text, size) in [
            ("512", Some(512)),
            ("512 B", Some(512)),
            ("64KiB", Some(65_536)),
            ("1MB", Some(1_000_000)),
            ("10 gib", Some(10 << 30)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1XB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(ByteSize::parse(text).map(ByteSize::get), size, "size {text:?}");
        }
        for (text, millis) in [
            ("500ms", Some(500)),
            ("5m", Some(300_000)),
            ("72h", Some(259_200_000)),
            ("3d", Some(259_200_000)),
            ("1h 30m", Some(5_400_000)),
            ("1h30m", Some(5_400_000)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("5 minutes", None),
            ("1h,30m", None),
            ("40000d", None),
        ] {
            assert_eq!(Period::parse(text), millis.map(Period::millis), "period {text:?}");
        }
        for (text, rate) in [
            ("100/s", Some((100, 1_000))),
            ("6000/m", Some((6_000, 60_000))),
            ("10/30s", Some((10, 30_000))),
            ("0/s", None),
            ("1/0s", None),
            ("100", None),
            ("/s", None),
        ] {
            let expected = rate.map(|(count, ms)| Rate { count, per: Duration::from_millis(ms) });
            assert_eq!(Rate::parse(text), expected, "rate {text:?}");
        }
    }

    #[test]
    fn units_are_written_the_way_people_write_them() {
        let written = [
            ByteSize::mib(1).to_string(),
            ByteSize::bytes(0).to_string(),
            ByteSize::bytes(3_000_000).to_string(),
            Period::hours(72).to_string(),
            Period::mins(90).to_string(),
            Period::secs(0).to_string(),
            Rate { count: 100, per: Duration::from_secs(1) }.to_string(),
        ];
        assert_eq!(written, ["1MiB", "0B", "3MB", "72h", "1h 30m", "0s", "100/s"]);
    }

    proptest! {
        #[test]
        fn what_a_unit_writes_it_reads_back(bytes: u64, millis in 0..=PERIOD_MS_MAX, count in 1u32.., per in 1..=PERIOD_MS_MAX) {
            let rate = Rate { count, per: Duration::from_millis(per) };
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
            prop_assert_eq!(Period::parse(&Period::millis(millis).to_string()), Some(Period::millis(millis)));
            prop_assert_eq!(Rate::parse(&rate.to_string()), Some(rate));
        }

        #[test]
        fn no_text_makes_a_unit_panic(text: String) {
            let _ = (ByteSize::parse(&text), Period::parse(&text), Rate::parse(&text));
        }
    }
}
