//! Three bugs, one in each of three machines: what shipped scenarios find of them, and that they find nothing without.

use std::path::Path;

use peerage_sim::Bug;
use peerage_sim::report::Report;
use peerage_sim::run::{Options, run_with};
use peerage_sim::scenario::Scenario;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

fn shipped(name: &str) -> Scenario {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    Scenario::read(&folder.join(format!("{name}.toml"))).unwrap_or_else(|error| panic!("{error}"))
}

/// What a run broke: invariants, and expectations by their metric.
fn broken(scenario: &Scenario, report: &Report) -> Vec<String> {
    let invariants = report.violations.iter().map(|violation| violation.invariant.clone());
    let misses = scenario.misses(report).into_iter().map(|miss| miss.to_string());
    invariants.chain(misses).collect()
}

/// The scenario passes as it is, and with the bug this invariant breaks.
fn catches(name: &str, bug: Bug, invariant: &str) {
    let scenario = shipped(name);
    for seed in SEEDS {
        let clean = run_with(&scenario, seed, Options::default()).expect("played");
        assert_eq!(broken(&scenario, &clean), [""; 0], "{name}, seed {seed}: {:?}", clean.violations);
        let planted = run_with(&scenario, seed, Options::default().planted(bug)).expect("played");
        let caught = planted.violations.iter().find(|violation| violation.invariant == invariant);
        assert!(caught.is_some(), "{name}, seed {seed}: {bug:?} breaks {:?} only", broken(&scenario, &planted));
    }
}

#[test]
fn a_table_that_counts_hosts_for_sites_is_caught_where_many_nodes_share_few_sites() {
    catches("crowded-sites", Bug::Discovery, "table-limits");
}

#[test]
fn a_dialer_that_forgets_at_once_is_caught_where_static_peers_are_gone() {
    catches("static-peers", Bug::Dialer, "dial-history");
}

#[test]
fn a_message_delivered_again_is_caught_where_copies_cross() {
    catches("gossip-100", Bug::Gossip, "delivered-once");
}
