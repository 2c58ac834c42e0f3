//! The lines that a run prints, and the same as JSON.

use std::path::Path;

use serde::Serialize;

use crate::Failure;
use crate::job::Impl;
use crate::machine::Machine;
use crate::stats::Summary;

/// One line: a figure, or why there is none.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Line {
    Figure {
        bench: &'static str,
        #[serde(rename = "impl")]
        by: &'static str,
        metric: String,
        value: f64,
        min: f64,
        max: f64,
        unit: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        vs: Option<&'static str>,
    },
    Skipped {
        bench: &'static str,
        #[serde(rename = "impl")]
        by: &'static str,
        skipped: String,
    },
}

/// Prints lines as they come and keeps them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: usize,
    quick: bool,
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn begin(machine: Machine, rounds: usize, quick: bool) -> Report {
        println!("{} pairs={rounds} quick={quick}", machine.line());
        Report { machine, rounds, quick, lines: Vec::new() }
    }

    pub(crate) fn figure(
        &mut self,
        bench: &'static str,
        by: Impl,
        metric: &str,
        unit: &'static str,
        of: Summary,
        vs: Option<Impl>,
    ) {
        let Summary { median: value, min, max } = of;
        let (by, vs) = (by.name(), vs.map(Impl::name));
        let against = vs.map(|vs| format!(" vs={vs}")).unwrap_or_default();
        let (shown, low, high) = (number(value), number(min), number(max));
        println!("bench={bench} impl={by} metric={metric} value={shown} min={low} max={high} unit={unit}{against}");
        self.lines.push(Line::Figure { bench, by, metric: metric.to_owned(), value, min, max, unit, vs });
    }

    pub(crate) fn skipped(&mut self, bench: &'static str, by: Impl, why: &str) {
        println!("bench={bench} impl={} skipped={why}", by.name());
        self.lines.push(Line::Skipped { bench, by: by.name(), skipped: why.to_owned() });
    }

    pub(crate) fn write(&self, to: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(to, text + "\n").map_err(|error| format!("cannot write {}: {error}", to.display()).into())
    }
}

/// Three digits or more, never more than the measurement deserves.
fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.3}"),
        middle if middle < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([0.8514, 97.25, 1234.5].map(number), ["0.851", "97.2", "1234"]);
    }
}
