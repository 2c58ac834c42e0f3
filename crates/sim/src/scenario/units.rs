//! Shares, durations, rates and sizes as scenario files write them: words with a unit, read exactly, without floats.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A whole in parts per million.
pub(super) const WHOLE: u32 = 1_000_000;

const NANOS: u64 = 1_000_000_000;

/// Nanoseconds of each unit of time.
const TIMES: [(&str, u64); 6] =
    [("us", 1_000), ("µs", 1_000), ("ms", 1_000_000), ("s", NANOS), ("m", 60 * NANOS), ("h", 3_600 * NANOS)];

const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Bits a second.
const RATES: [(&str, u64); 4] = [("bit", 1), ("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)];

/// A part of a whole, in parts per million: `"20%"`, `"0.5%"`; at most 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Share(u32);

impl Share {
    /// Nothing of it.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const ALL: Self = Self(WHOLE);

    /// So many parts per million, at most all of them.
    pub fn from_ppm(ppm: u32) -> Self {
        Self(ppm.min(WHOLE))
    }

    /// Parts per million.
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// This share of `count`, rounded to the nearest, halves up.
    pub fn of(self, count: u64) -> u64 {
        let parts = u128::from(count) * u128::from(self.0) + u128::from(WHOLE / 2);
        u64::try_from(parts / u128::from(WHOLE)).unwrap_or(count) // A part is never more than the whole.
    }

    /// Reads `"20%"`; `None` if it is anything else or above 100 %.
    pub fn read(text: &str) -> Option<Self> {
        let ppm = quantity(text, &[("%", u64::from(WHOLE / 100))])?;
        u32::try_from(ppm).ok().filter(|ppm| *ppm <= WHOLE).map(Self)
    }
}

/// A length of virtual time: `"250ms"`, `"1.5s"`, `"30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Span(pub Duration);

impl Span {
    /// So many whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The duration it is.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Reads `"250ms"`; `None` if it is anything else.
    pub fn read(text: &str) -> Option<Self> {
        quantity(text, &TIMES).map(|nanos| Self(Duration::from_nanos(nanos)))
    }
}

/// A bandwidth in bytes a second, written in bits: `"50Mbit"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// So many bytes a second.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes a second, never 0.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Reads `"50Mbit"`; `None` if it is anything else, nothing, or not whole bytes.
    pub fn read(text: &str) -> Option<Self> {
        let bits = quantity(text, &RATES)?;
        (bits > 0 && bits % 8 == 0).then_some(Self(bits / 8))
    }
}

/// A size in bytes: `"100B"`, `"4KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Reads `"4KiB"`; `None` if it is anything else.
    pub fn read(text: &str) -> Option<Self> {
        quantity(text, &SIZES).map(Self)
    }
}

/// Sizes from `min` to `max`, both included: `"1KiB"` or `"100B..4KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// The smallest.
    pub min: Size,
    /// The largest; never below `min`.
    pub max: Size,
}

impl Sizes {
    /// Reads `"1KiB"` or `"100B..4KiB"`; `None` if it is anything else or runs backwards.
    pub fn read(text: &str) -> Option<Self> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (min, max) = (Size::read(min)?, Size::read(max)?);
        (min <= max).then_some(Self { min, max })
    }
}

/// How far a clock is set, and which way: `"30s"` forward, `"-30s"` back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// Whether the clock is set back.
    pub back: bool,
    /// How far.
    pub by: Span,
}

impl Step {
    /// Reads `"30s"` or `"-30s"`; `None` if it is anything else.
    pub fn read(text: &str) -> Option<Self> {
        let (back, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        Some(Self { back, by: Span::read(rest)? })
    }
}

/// A decimal number with one of `units`, in the smallest: `None` unless it is exact and fits.
pub(super) fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    decimal(number, scale)
}

/// `"2.5"` in parts of 1/`scale`: `None` unless it is exact and fits.
pub(crate) fn decimal(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction)) {
        return None;
    }
    let fraction = fraction.unwrap_or("0");
    let places = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = fraction.parse::<u128>().ok()? * u128::from(scale);
    if parts % places != 0 {
        return None;
    }
    let whole = whole.parse::<u128>().ok()? * u128::from(scale);
    u64::try_from(whole + parts / places).ok()
}

/// Reads a value from a string, and says what was expected otherwise.
macro_rules! in_words {
    ($($type:ty: $expecting:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Words;
                impl Visitor<'_> for Words {
                    type Value = $type;
                    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                        to.write_str($expecting)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        <$type>::read(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
                    }
                }
                from.deserialize_str(Words)
            }
        }
    )*};
}

in_words! {
    Share: "a share such as \"20%\" or \"0.5%\", at most \"100%\"";
    Span: "a duration such as \"250ms\", \"90s\" or \"30m\"";
    Rate: "a bandwidth such as \"50Mbit\" (a second)";
    Size: "a size such as \"100B\" or \"4KiB\"";
    Sizes: "a size such as \"4KiB\" or a range such as \"100B..4KiB\"";
    Step: "a duration such as \"30s\", or \"-30s\" for back";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_parts_per_million() {
        assert_eq!(Share::read("20%").map(Share::ppm), Some(200_000));
        assert_eq!(Share::read("0.5%").map(Share::ppm), Some(5_000));
        assert_eq!(Share::read("0.0001%").map(Share::ppm), Some(1));
        assert_eq!(Share::read("100 %"), Some(Share::ALL));
        for text in ["20", "0.2", "%", "-1%", "100.0001%", "0.00001%", "1e2%", "20%%"] {
            assert_eq!(Share::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_of_nodes_is_rounded_to_the_nearest() {
        let share = Share::from_ppm(50_000);
        assert_eq!([0, 9, 10, 29, 30, 1_000].map(|count| share.of(count)), [0, 0, 1, 1, 2, 50]);
        assert_eq!(Share::ALL.of(u64::MAX), u64::MAX);
    }

    #[test]
    fn durations_are_exact() {
        let cases =
            [("250ms", 250_000_000), ("90s", 90_000_000_000), ("30m", 1_800_000_000_000), ("1.5s", 1_500_000_000)];
        for (text, nanos) in cases {
            assert_eq!(Span::read(text), Some(Span(Duration::from_nanos(nanos))), "{text}");
        }
        for text in ["5", "s", "1m30s", "-5s", "5 sec", "1.5.5s", "99999999999h"] {
            assert_eq!(Span::read(text), None, "{text}");
        }
    }

    #[test]
    fn rates_are_whole_bytes_a_second() {
        assert_eq!(Rate::read("50Mbit").map(Rate::bytes), Some(6_250_000));
        assert_eq!(Rate::read("1.5kbit"), None, "187.5 bytes");
        assert_eq!(Rate::read("0Mbit"), None, "nothing would ever arrive");
        assert_eq!(Rate::read("50MB"), None);
    }

    #[test]
    fn sizes_are_one_or_a_range_that_runs_upward() {
        let sizes = |min, max| Some(Sizes { min: Size(min), max: Size(max) });
        assert_eq!(Sizes::read("100B..4KiB"), sizes(100, 4_096));
        assert_eq!(Sizes::read("1MiB"), sizes(1 << 20, 1 << 20));
        assert_eq!(Sizes::read("4KiB..100B"), None);
        assert_eq!(Sizes::read("100..200B"), None);
    }

    #[test]
    fn a_clock_is_set_forward_or_back() {
        assert_eq!(Step::read("30s"), Some(Step { back: false, by: Span::seconds(30) }));
        assert_eq!(Step::read("-30s"), Some(Step { back: true, by: Span::seconds(30) }));
        assert_eq!(Step::read("--30s"), None);
    }
}
