//! What a run must show to pass.

use serde::Deserialize;

use crate::report::{Metric, Report, Unit, Written, unit_of};

/// A bound on one metric of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The metric's name.
    pub metric: String,
    /// Which side of the value is right.
    pub bound: Bound,
    /// The value, with the metric's unit.
    pub value: Metric,
}

/// Which side of a value is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The value or more.
    AtLeast,
    /// The value or less.
    AtMost,
    /// The value.
    Equals,
}

impl Bound {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
            Self::Equals => "exactly",
        }
    }
}

/// Why an expectation was missed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// The value is on the wrong side.
    #[error("{metric}: expected {bound} {expected}, got {got}", bound = bound.words())]
    Value {
        /// The metric's name.
        metric: String,
        /// Which side would have been right.
        bound: Bound,
        /// Of this value.
        expected: Metric,
        /// What the report says.
        got: Metric,
    },
    /// The report's metric is of another unit.
    #[error("{metric}: expected {expected}, but it is {got}", expected = expected.words(), got = got.words())]
    Unit {
        /// The metric's name.
        metric: String,
        /// What was expected.
        expected: Unit,
        /// What the report says.
        got: Unit,
    },
    /// The report has no such metric.
    #[error("{metric}: the report has no such metric{}", hint(near))]
    Missing {
        /// The name that was asked for.
        metric: String,
        /// Names that the report has, nearest first.
        near: Vec<String>,
    },
}

fn hint(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

impl Expectation {
    /// Whether the report fulfils it.
    ///
    /// # Errors
    ///
    /// When the metric's value is on the wrong side, of another unit, or not there.
    pub fn judge(&self, report: &Report) -> Result<(), Miss> {
        let (metric, expected) = (self.metric.clone(), self.value);
        let Some(got) = report.metrics.get(&metric).copied() else {
            let near = near(&metric, report.metrics.keys());
            return Err(Miss::Missing { metric, near });
        };
        if got.unit != expected.unit {
            return Err(Miss::Unit { metric, expected: expected.unit, got: got.unit });
        }
        let fulfilled = match self.bound {
            Bound::AtLeast => got.value >= expected.value,
            Bound::AtMost => got.value <= expected.value,
            Bound::Equals => got.value == expected.value,
        };
        if fulfilled { Ok(()) } else { Err(Miss::Value { metric, bound: self.bound, expected, got }) }
    }
}

/// At most five of `names`, nearest first: misspellings of `name`, then those of the same family (`delivery.…`).
fn near<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let family = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let mut found: Vec<(bool, usize, &String)> = names
        .filter_map(|other| {
            let apart = distance(name, other);
            let alike = apart * 3 <= name.len().max(other.len());
            (alike || family(name) == family(other)).then_some((!alike, apart, other))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(5).map(|(_, _, other)| other.clone()).collect()
}

/// Letters to add, drop or change to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = index + 1;
        for (column, second) in other.iter().enumerate() {
            let change = corner + usize::from(letter != *second);
            corner = row[column + 1];
            row[column + 1] = change.min(corner + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// `[[expect]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpectation {
    metric: String,
    at_least: Option<Written>,
    at_most: Option<Written>,
    equals: Option<Written>,
}

impl RawExpectation {
    pub(super) fn checked(self) -> Result<Expectation, String> {
        let Self { metric, at_least, at_most, equals } = self;
        let bounds = [(Bound::AtLeast, at_least), (Bound::AtMost, at_most), (Bound::Equals, equals)];
        let mut given = bounds.into_iter().filter_map(|(bound, value)| Some((bound, value?.0)));
        let (Some((bound, value)), None) = (given.next(), given.next()) else {
            return Err(format!("`{metric}` needs exactly one of `at_least`, `at_most` and `equals`"));
        };
        if let Some(unit) = unit_of(&metric).filter(|unit| *unit != value.unit) {
            return Err(format!(
                "`{metric}` is {}, so it cannot be compared with {}",
                unit.words(),
                value.unit.words()
            ));
        }
        Ok(Expectation { metric, bound, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Cost;

    fn report() -> Report {
        let metrics = [
            ("delivered", Unit::Share, 999_700),
            ("delivery.max", Unit::Time, 900_000),
            ("delivery.p50", Unit::Time, 100_000),
            ("bans", Unit::Count, 3),
        ];
        Report {
            scenario: "small".into(),
            seed: 1,
            nodes: 10,
            digest: String::new(),
            events: 1,
            virtual_ms: 1,
            metrics: metrics.map(|(name, unit, value)| (name.to_owned(), Metric { unit, value })).into(),
            curves: [].into(),
            violations: Vec::new(),
            cost: Cost::default(),
        }
    }

    fn judge(metric: &str, bound: Bound, unit: Unit, value: u64) -> Result<(), String> {
        let expectation = Expectation { metric: metric.to_owned(), bound, value: Metric { unit, value } };
        expectation.judge(&report()).map_err(|miss| miss.to_string())
    }

    #[test]
    fn a_value_on_its_bound_is_fulfilled() {
        for bound in [Bound::AtLeast, Bound::AtMost, Bound::Equals] {
            assert_eq!(judge("bans", bound, Unit::Count, 3), Ok(()));
        }
        assert_eq!(judge("bans", Bound::AtLeast, Unit::Count, 2), Ok(()));
        assert_eq!(judge("bans", Bound::AtMost, Unit::Count, 4), Ok(()));
    }

    #[test]
    fn a_miss_says_what_was_expected_and_what_came() {
        let cases = [
            (Bound::AtLeast, 1_000_000, "delivered: expected at least 100 %, got 99.97 %"),
            (Bound::AtMost, 999_000, "delivered: expected at most 99.9 %, got 99.97 %"),
            (Bound::Equals, 0, "delivered: expected exactly 0 %, got 99.97 %"),
        ];
        for (bound, value, text) in cases {
            assert_eq!(judge("delivered", bound, Unit::Share, value), Err(text.to_owned()));
        }
    }

    #[test]
    fn a_value_of_another_unit_is_a_miss() {
        let text = "bans: expected a time (\"400ms\"), but it is a count (12)";
        assert_eq!(judge("bans", Bound::AtMost, Unit::Time, 5), Err(text.to_owned()));
    }

    #[test]
    fn a_metric_that_is_not_there_is_a_miss_that_names_what_is() {
        let text = "delivery.p99: the report has no such metric; did you mean delivery.p50, delivery.max?";
        assert_eq!(judge("delivery.p99", Bound::AtMost, Unit::Time, 5), Err(text.to_owned()));
        let text = "delivred: the report has no such metric; did you mean delivered?";
        assert_eq!(judge("delivred", Bound::AtMost, Unit::Share, 5), Err(text.to_owned()));
        let text = "zebra: the report has no such metric";
        assert_eq!(judge("zebra", Bound::AtMost, Unit::Count, 5), Err(text.to_owned()));
    }
}
