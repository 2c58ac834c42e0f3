//! One figure with its unit: how it is kept, shown to people, and written in files.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize, Serializer};

use crate::scenario::{Share, Size, Span, decimal};

/// One figure with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// What `value` counts.
    pub unit: Unit,
    /// So many of the unit.
    pub value: u64,
}

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, DeriveDeserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Parts per million of a whole.
    Share,
    /// Microseconds.
    Time,
    /// Thousandths.
    Ratio,
    /// Things.
    Count,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Share => "a share (\"99.9%\")",
            Self::Time => "a time (\"400ms\")",
            Self::Ratio => "a ratio (\"2.31\")",
            Self::Count => "a count (12)",
            Self::Bytes => "a size (\"96KiB\")",
        }
    }
}

/// The unit of a metric that every report with its subject has. `None`: a name of the scenario's own.
pub fn unit_of(metric: &str) -> Option<Unit> {
    let unit = match metric {
        "bootstrapped"
        | "delivered"
        | "lookup.answered"
        | "lookup.exact"
        | "requests.answered"
        | "lookup.nearest"
        | "hostile.table"
        | "hostile.table.worst"
        | "hostile.slots"
        | "victim.table"
        | "victim.slots" => Unit::Share,
        "bootstrap.p50" | "bootstrap.p99" | "bootstrap.last" | "first-peer.p50" | "first-peer.p99" | "delivery.p50"
        | "delivery.p99" | "delivery.max" | "delivery.slow.p50" | "delivery.slow.p99" | "delivery.fast.p50"
        | "delivery.fast.p99" | "requests.p50" | "requests.p99" | "requests.max" | "supplied.p50" | "supplied.p99" => {
            Unit::Time
        }
        "held.growth" | "peers.mean" | "lookup.queries" | "table.mean" | "copies" | "bytes" => Unit::Ratio,
        "peers.min"
        | "peers.max"
        | "components"
        | "missed"
        | "duplicates-delivered"
        | "lookup.hops.p50"
        | "lookup.hops.max"
        | "bans"
        | "bans.honest"
        | "blames"
        | "victim.peers" => Unit::Count,
        "requests.asked" | "requests.handled" => Unit::Count,
        "requests.members.of-handled" => Unit::Share,
        name if name.starts_with("requests.members.") => return unit_of(&name.replacen(".members", "", 1)),
        name if name.starts_with("held.growth.") => Unit::Ratio,
        name if name.starts_with("messages.") => Unit::Count,
        _ => return None,
    };
    Some(unit)
}

impl fmt::Display for Metric {
    /// For people: `99.97 %`, `412 ms`, `2.31`, `1 204`, `3.2 MiB`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        let text = match self.unit {
            Unit::Share => format!("{} %", decimals(value, 10_000, 4)),
            Unit::Time if value < 1_000 => format!("{value} µs"),
            Unit::Time if value < 1_000_000 => format!("{} ms", decimals(value, 1_000, 3)),
            Unit::Time => format!("{} s", decimals(value, 1_000_000, 6)),
            Unit::Ratio => decimals(value, 1_000, 3),
            Unit::Count => grouped(value),
            Unit::Bytes => bytes(value),
        };
        to.pad(&text)
    }
}

/// `value / scale` exactly, with at most `places` decimals and no zeros at the end.
fn decimals(value: u64, scale: u64, places: usize) -> String {
    grouped(value / scale) + &fraction(value % scale, places)
}

/// The same without groups.
fn exact(value: u64, scale: u64, places: usize) -> String {
    (value / scale).to_string() + &fraction(value % scale, places)
}

/// `.25`, or nothing.
fn fraction(rest: u64, places: usize) -> String {
    let rest = format!("{rest:0places$}");
    match rest.trim_end_matches('0') {
        "" => String::new(),
        rest => format!(".{rest}"),
    }
}

/// Digits in groups of three.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that leaves at least 1, to a tenth.
fn bytes(value: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, scale)| value >= *scale) {
        Some((name, scale)) => {
            let tenths = u128::from(value) * 10 / u128::from(scale);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{value} B"),
    }
}

impl Metric {
    /// Reads a figure as files write it: `"99.9%"`, `"400ms"`, `"2.31"` (a ratio has a point), `"96KiB"`. Counts are
    /// bare integers, not words. `None` if it is none of these.
    pub fn read(text: &str) -> Option<Self> {
        let share = || Share::read(text).map(|share| (Unit::Share, u64::from(share.ppm())));
        let time = || {
            let nanos = Span::read(text)?.get().as_nanos();
            let micros = u64::try_from(nanos / 1_000).ok()?;
            (nanos % 1_000 == 0).then_some((Unit::Time, micros))
        };
        let bytes = || Size::read(text).map(|size| (Unit::Bytes, size.bytes()));
        let ratio = || text.contains('.').then(|| decimal(text, 1_000)).flatten().map(|value| (Unit::Ratio, value));
        let (unit, value) = share().or_else(time).or_else(bytes).or_else(ratio)?;
        Some(Self { unit, value })
    }
}

/// A figure as files write it: an integer, or words whose unit says which. Exact both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written(pub(crate) Metric);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Metric { unit, value } = self.0;
        let text = match unit {
            Unit::Share => format!("{}%", exact(value, 10_000, 4)),
            Unit::Time if value % 1_000 == 0 => format!("{}ms", value / 1_000),
            Unit::Time => format!("{value}us"),
            Unit::Ratio => format!("{}.{:03}", value / 1_000, value % 1_000),
            Unit::Count => return to.serialize_u64(value),
            Unit::Bytes => format!("{value}B"),
        };
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Written;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str(
                    "a count such as 12, a share such as \"99.9%\", a time such as \"400ms\", a ratio such as \"2.31\" \
                     or a size such as \"96KiB\"",
                )
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
                Metric::read(text).map(Written).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Written, E> {
                let value = u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
                Ok(Written(Metric { unit: Unit::Count, value }))
            }
        }
        from.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(unit: Unit, value: u64) -> Metric {
        Metric { unit, value }
    }

    #[test]
    fn people_read_figures_with_their_units() {
        let cases = [
            (Unit::Share, 999_700, "99.97 %"),
            (Unit::Share, 1_000_000, "100 %"),
            (Unit::Time, 412_000, "412 ms"),
            (Unit::Time, 412_500, "412.5 ms"),
            (Unit::Time, 999, "999 µs"),
            (Unit::Time, 61_000_000, "61 s"),
            (Unit::Ratio, 2_310, "2.31"),
            (Unit::Count, 1_204, "1 204"),
            (Unit::Count, 999, "999"),
            (Unit::Bytes, 3_355_444, "3.2 MiB"),
            (Unit::Bytes, 1_023, "1023 B"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(metric(unit, value).to_string(), text);
        }
    }

    #[test]
    fn a_figure_written_to_a_file_is_read_back_exactly() {
        #[derive(Serialize, DeriveDeserialize)]
        struct File {
            figure: Written,
        }
        for unit in [Unit::Share, Unit::Time, Unit::Ratio, Unit::Count, Unit::Bytes] {
            for value in [0, 1, 999, 1_000, 1_001, 123_456, 1_000_000] {
                let text = toml::to_string(&File { figure: Written(metric(unit, value)) }).expect("a figure is TOML");
                let file: File = toml::from_str(&text).expect("what was written can be read");
                assert_eq!(file.figure.0, metric(unit, value), "{text}");
            }
        }
    }

    #[test]
    fn words_without_a_unit_are_no_figure() {
        for text in ["", "5", "5 parsecs", "101%", "-1ms", "1.2345", "0.0001us", ".5", "5."] {
            assert_eq!(Metric::read(text), None, "{text}");
        }
    }
}
