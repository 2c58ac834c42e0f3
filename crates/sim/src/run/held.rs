//! Whether nodes hold more with time: means of what they hold early and at the end, kind by kind.

use std::collections::BTreeMap;
use std::time::Duration;

use super::measure::ratio;
use super::results::{Curves, Metrics, add, curve};
use crate::report::Unit;

/// So often a run is looked at, evenly. One look may fall on a rare moment, so means of some are compared.
const LOOKS: u32 = 96;
/// The looks of each mean: an hour and a half of a day.
const OF_A_MEAN: usize = 6;
/// One of each kind is added to what a node holds, in thousandths: a quotient of small numbers says nothing.
const SPARE: u64 = 1_000;

/// What all honest nodes held together at one look.
struct Look {
    at: Duration,
    nodes: u64,
    held: BTreeMap<&'static str, u64>,
}

/// The looks of a run.
#[derive(Default)]
pub(super) struct Held {
    looks: Vec<Look>,
}

/// How often to look at a run this long.
pub(super) fn every(duration: Duration) -> Duration {
    duration / LOOKS
}

impl Held {
    /// One look: what each node holds that runs.
    pub(super) fn look(&mut self, at: Duration, nodes: impl Iterator<Item = Vec<(&'static str, u64)>>) {
        let mut look = Look { at, nodes: 0, held: BTreeMap::new() };
        for node in nodes {
            look.nodes += 1;
            node.into_iter().for_each(|(kind, count)| *look.held.entry(kind).or_default() += count);
        }
        self.looks.push(look);
    }

    /// What a node held of a kind on the average of some looks, in thousandths, and one.
    fn mean(looks: &[Look], kind: &str) -> u64 {
        let held: u64 = looks.iter().filter_map(|look| look.held.get(kind)).sum();
        ratio(held, looks.iter().map(|look| look.nodes).sum()) + SPARE
    }

    /// How often a node holds at the end what it held from `from` on, in thousandths, by kind.
    fn growth(&self, from: Duration) -> BTreeMap<&'static str, u64> {
        let early = self.looks.partition_point(|look| look.at < from);
        let early = &self.looks[early..self.looks.len().min(early + OF_A_MEAN)];
        let late = &self.looks[self.looks.len().saturating_sub(OF_A_MEAN)..];
        let kinds = late.iter().flat_map(|look| look.held.keys().copied());
        kinds.map(|kind| (kind, ratio(Held::mean(late, kind), Held::mean(early, kind)))).collect()
    }

    pub(super) fn results(&self, from: Duration, metrics: &mut Metrics, curves: &mut Curves) {
        let growth = self.growth(from);
        add(metrics, "held.growth", Unit::Ratio, growth.values().copied().max().unwrap_or(0));
        for (kind, growth) in growth {
            add(metrics, &format!("held.growth.{kind}"), Unit::Ratio, growth);
            let of_a_node = |look: &Look| ratio(look.held.get(kind).copied().unwrap_or(0), look.nodes);
            let points = self.looks.iter().map(|look| (look.at.as_millis() as u64, of_a_node(look))).collect();
            curve(curves, &format!("held.{kind}"), "time, ms", "of a node, thousandths", points);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A day of two nodes, of which each holds at hour `h` what `held` says.
    fn day(held: impl Fn(u64) -> u64) -> BTreeMap<&'static str, u64> {
        let mut looks = Held::default();
        for quarter in 1..=96 {
            let node = || vec![("flat", 500), ("kind", held(quarter / 4))];
            looks.look(quarter as u32 * HOUR / 4, [node(), node()].into_iter());
        }
        looks.growth(HOUR)
    }

    #[test]
    fn what_stays_or_comes_and_goes_does_not_grow() {
        assert_eq!(day(|_| 40), BTreeMap::from([("flat", 1_000), ("kind", 1_000)]));
        assert_eq!(day(|_| 0)["kind"], 1_000);
        assert!(day(|hour| 1_000 + hour % 2)["kind"] <= 1_001);
        assert!(day(|hour| 1_000 - 10 * hour)["kind"] < 1_000);
        assert!(day(|hour| u64::from(hour > 22))["kind"] <= 2_000, "one of something rare");
    }

    #[test]
    fn a_leak_is_seen_however_little_there_is_of_it_beside_the_rest() {
        assert!(day(|hour| hour)["kind"] > 7_000, "one an hour");
        assert!(day(|hour| 100 + 10 * hour)["kind"] > 2_500, "and one on top of what there must be");
        assert_eq!(day(|hour| 100 + 10 * hour)["flat"], 1_000);
    }

    #[test]
    fn a_node_more_or_less_is_no_growth() {
        let mut looks = Held::default();
        for quarter in 1..=96_u32 {
            let nodes = if quarter < 50 { 10 } else { 20 };
            looks.look(quarter * HOUR / 4, (0..nodes).map(|_| vec![("kind", 7)]));
        }
        assert_eq!(looks.growth(HOUR)["kind"], 1_000);
    }
}
