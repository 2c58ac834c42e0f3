//! The world and real nodes play the same scenario files, and show the same.
//!
//! The world plays a file, cut to 50 nodes, and writes down what it did to them; the same is then done to real actors in
//! virtual time. What differs between them is what the world leaves out of the real shells, and the lots that nodes draw.

use std::collections::BTreeMap;

use peerage_sim::run::record;
use peerage_tests::play::{Shown, brief, cut, play, shipped};
use peerage_tests::{figure, soak, virtually};

const NODES: u32 = 50;
/// Of each topic, but in a soak.
const MESSAGES: u64 = 50;
/// Each in a soak; else one will do.
const SEEDS: u64 = 5;

/// Plays a scenario in both: every message must reach the same nodes in both, once, and each count's sum be within a
/// tenth of the other's.
fn agree(name: &str) {
    let whole = cut(shipped(name), NODES);
    let (scenario, seeds) = if soak() { (whole, SEEDS) } else { (brief(whole, MESSAGES), 1) };
    let mut sums = BTreeMap::<&str, [u64; 2]>::new();
    for seed in 1..=seeds {
        let recording = record(&scenario, seed).expect("playable");
        let world = Shown::by_the_world(&recording);
        let real = virtually(play(&scenario, &recording, seed));
        assert_eq!(world.delivered.is_empty(), scenario.traffic.is_empty(), "{name}: something to compare");
        let only = |one: &Shown, other: &Shown| one.delivered.difference(&other.delivered).copied().collect::<Vec<_>>();
        let (missed, more) = (only(&world, &real), only(&real, &world));
        assert!(missed.is_empty(), "{name}, seed {seed}: real nodes did not get (message, host) {missed:?}");
        assert!(more.is_empty(), "{name}, seed {seed}: the world's nodes did not get (message, host) {more:?}");
        for (of, shown) in [world, real].into_iter().enumerate() {
            assert_eq!(shown.twice, 0, "{name}, seed {seed}: messages delivered twice");
            shown.counts.iter().for_each(|(what, count)| sums.entry(what).or_default()[of] += count);
        }
    }
    for (what, [world, real]) in &sums {
        figure(&format!("agreement/{name}/world"), &what.replace(' ', "-"), world, "count");
        figure(&format!("agreement/{name}/real"), &what.replace(' ', "-"), real, "count");
    }
    for (what, [world, real]) in sums {
        let near = 10 * world.abs_diff(real) <= world.max(real);
        assert!(near, "{name}: {what}: {world} in the world, {real} of real nodes");
    }
}

#[test]
fn a_network_comes_up_in_the_world_as_it_does_of_real_nodes() {
    agree("bootstrap-100");
}

#[test]
fn messages_spread_in_the_world_as_among_real_nodes() {
    agree("gossip-1000");
}

#[test]
fn churn_does_to_the_world_what_it_does_to_real_nodes() {
    agree("churn");
}

#[test]
fn a_mass_restart_does_to_the_world_what_it_does_to_real_nodes() {
    agree("mass-restart");
}

#[test]
fn a_partition_does_to_the_world_what_it_does_to_real_nodes() {
    agree("partition-lasting");
}
