//! What a run gives: its digest, metrics, curves, violated invariants and cost.

mod metric;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use metric::Written;
pub use metric::{Metric, Unit, unit_of};

use metric::grouped;

/// What one run of a scenario gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed it ran with.
    pub seed: u64,
    /// All nodes that were in the world, hostile ones included.
    pub nodes: u64,
    /// The digest of every event, as hex: the same scenario and seed give the same.
    pub digest: String,
    /// How many events there were.
    pub events: u64,
    /// How long it lasted, in virtual milliseconds.
    pub virtual_ms: u64,
    /// What was measured, by name.
    pub metrics: BTreeMap<String, Metric>,
    /// What was measured over time or over nodes, by name.
    pub curves: BTreeMap<String, Curve>,
    /// Invariants that did not hold.
    pub violations: Vec<Violation>,
    /// What the run cost the computer. Never compared.
    pub cost: Cost,
}

/// Points of a line, in the order of x.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Curve {
    /// What x is, with its unit: `"time, ms"`.
    pub x: String,
    /// What y is, with its unit.
    pub y: String,
    /// The points.
    pub points: Vec<(u64, u64)>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When it was noticed, in virtual milliseconds.
    pub at_ms: u64,
    /// The invariant's name.
    pub invariant: String,
    /// What was seen.
    pub what: String,
}

/// What a run cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Real milliseconds.
    pub wall_ms: u64,
    /// Events for each real second.
    pub events_per_second: u64,
    /// Memory of a node that does nothing, if it was measured.
    pub bytes_per_idle_node: Option<u64>,
    /// Memory of a node, with what the world has written down of it, when what nodes hold was first looked at to be
    /// compared, and at the end: if it was.
    #[serde(default)]
    pub bytes_per_node: Option<(u64, u64)>,
}

impl fmt::Display for Report {
    /// A table of the metrics for people, between a line that says which run it was and what it cost.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seed, digest, .. } = self;
        let (nodes, events, lasted) = (grouped(self.nodes), grouped(self.events), milliseconds(self.virtual_ms));
        writeln!(to, "{scenario}, seed {seed}: {nodes} nodes, {lasted}, {events} events, digest {digest}")?;
        let rows: Vec<(&str, String)> =
            self.metrics.iter().map(|(name, metric)| (name.as_str(), metric.to_string())).collect();
        let wide = |width: fn(&(&str, String)) -> usize| rows.iter().map(width).max().unwrap_or(0);
        let (names, values) = (wide(|row| row.0.chars().count()), wide(|row| row.1.chars().count()));
        for (name, value) in &rows {
            writeln!(to, "  {name:<names$}  {value:>values$}")?;
        }
        for violation in &self.violations {
            writeln!(to, "{violation}")?;
        }
        write!(to, "{}", self.cost)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "invariant {} did not hold at {}: {}", self.invariant, milliseconds(self.at_ms), self.what)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "took {}, {} events/s", milliseconds(self.wall_ms), grouped(self.events_per_second))?;
        if let Some(idle) = self.bytes_per_idle_node {
            write!(to, ", {} an idle node", bytes(idle))?;
        }
        match self.bytes_per_node {
            Some((early, late)) => write!(to, ", {} a node early and {} at the end", bytes(early), bytes(late)),
            None => Ok(()),
        }
    }
}

fn bytes(value: u64) -> Metric {
    Metric { unit: Unit::Bytes, value }
}

fn milliseconds(value: u64) -> Metric {
    Metric { unit: Unit::Time, value: value.saturating_mul(1_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let metric = |unit, value| Metric { unit, value };
        let metrics = [("delivered", metric(Unit::Share, 999_700)), ("delivery.p99", metric(Unit::Time, 412_000))];
        let curve = Curve { x: "time, ms".into(), y: "share, ppm".into(), points: vec![(0, 0), (5, 1_000_000)] };
        Report {
            scenario: "small".into(),
            seed: 7,
            nodes: 1_000,
            digest: "ab12".into(),
            events: 1_234_567,
            virtual_ms: 90_000,
            metrics: metrics.map(|(name, metric)| (name.to_owned(), metric)).into(),
            curves: [("partition".to_owned(), curve)].into(),
            violations: vec![Violation { at_ms: 1_500, invariant: "slots".into(), what: "node 3 has 31".into() }],
            cost: Cost {
                wall_ms: 2_000,
                events_per_second: 617_283,
                bytes_per_idle_node: Some(96 << 10),
                bytes_per_node: Some((1 << 20, 2 << 20)),
            },
        }
    }

    #[test]
    fn a_report_survives_json() {
        let json = serde_json::to_string(&report()).expect("a report is JSON");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("that JSON is a report"), report());
        assert!(json.contains(r#""delivered":{"unit":"share","value":999700}"#), "{json}");
    }

    #[test]
    fn a_report_reads_as_a_table_that_lines_up() {
        let expected = "\
small, seed 7: 1 000 nodes, 90 s, 1 234 567 events, digest ab12
  delivered     99.97 %
  delivery.p99   412 ms
invariant slots did not hold at 1.5 s: node 3 has 31
took 2 s, 617 283 events/s, 96.0 KiB an idle node, 1.0 MiB a node early and 2.0 MiB at the end";
        assert_eq!(report().to_string(), expected);
    }
}
