//! The scenarios that are shipped: each can be read, and together they are what the crate promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use peerage_sim::scenario::{Action, Kind, Scenario, Sites, Span};

fn shipped() -> BTreeMap<String, Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .map(|path| Scenario::read(&path).unwrap_or_else(|error| panic!("{error}")))
        .map(|scenario| (scenario.name.clone(), scenario))
        .collect()
}

#[test]
fn every_shipped_scenario_can_be_read_and_promises_twenty_seeds() {
    for (name, scenario) in shipped() {
        assert!(scenario.seeds >= 20, "{name} promises {} seeds only", scenario.seeds);
    }
}

#[test]
fn the_promised_scenarios_are_there() {
    let shipped = shipped();
    for (name, nodes) in [("bootstrap-100", 100), ("bootstrap-1000", 1_000), ("bootstrap-10000", 10_000)] {
        assert_eq!(shipped[name].population.nodes, nodes, "{name}");
    }
    assert!(!shipped["lookups"].lookups.is_empty());
    let does = |name: &str, wanted: fn(&Action) -> bool| {
        assert!(shipped[name].timeline.iter().any(|event| wanted(&event.action)), "{name}");
    };
    does("churn", |action| matches!(action, Action::Churn { .. }));
    does("partition", |action| matches!(action, Action::Partition { .. }));
    does("partition", |action| matches!(action, Action::Heal));
    does("mass-restart", |action| matches!(action, Action::RestartAll { .. }));
    let speed = &shipped["world-speed"];
    assert_eq!((speed.population.nodes, speed.traffic[0].messages()), (10_000, 600));
}

#[test]
fn eclipses_come_with_two_sizes_from_few_and_from_many_subnets() {
    let shipped = shipped();
    for (name, hostile, few) in [
        ("eclipse-20-few", 50, true),
        ("eclipse-20-many", 50, false),
        ("eclipse-50-few", 200, true),
        ("eclipse-50-many", 200, false),
    ] {
        let scenario = &shipped[name];
        assert_eq!((scenario.population.nodes, scenario.hostile().iter().sum::<u32>()), (200, hostile), "{name}");
        let sites = scenario.adversaries[0].sites;
        let is_few = matches!(sites, Sites::Spread(1..=4));
        let is_many = matches!(sites, Sites::Own | Sites::Spread(20..));
        assert_eq!((is_few, is_many), (few, !few), "{name}: {sites:?}");
    }
}

#[test]
fn gossip_and_requests_are_shown_in_the_clear_and_under_every_adversary() {
    let shipped = shipped();
    let clear = &shipped["gossip-1000"];
    assert!(clear.population.nodes == 1_000 && clear.adversaries.is_empty() && !clear.traffic.is_empty());
    let under: BTreeSet<Kind> = shipped
        .values()
        .filter(|scenario| !scenario.traffic.is_empty())
        .flat_map(|scenario| scenario.adversaries.iter().map(|adversary| adversary.kind))
        .collect();
    let asking = [Kind::RequestFlood, Kind::SlowAnswers];
    assert_eq!(under, Kind::ALL.into_iter().filter(|kind| !asking.contains(kind)).collect());
    let calm = &shipped["requests-calm"];
    let flood = &shipped["requests-flood"];
    assert!(calm.adversaries.is_empty() && calm.requests == flood.requests && calm.population == flood.population);
    assert!(asking.iter().all(|kind| flood.adversaries.iter().any(|adversary| adversary.kind == *kind)));
}

#[test]
fn members_are_shown_under_the_same_flood_and_a_crowd_with_their_weight_and_without() {
    let shipped = shipped();
    let (weighted, without) = (&shipped["requests-members"], &shipped["requests-members-unweighted"]);
    let flood = &shipped["requests-flood"].adversaries;
    assert_eq!((&weighted.adversaries[..flood.len()], &weighted.adversaries), (&flood[..], &without.adversaries));
    assert_eq!(weighted.requests, without.requests);
    let weight = |scenario: &Scenario| scenario.population.members.map(|members| members.weight);
    assert!(weight(weighted).is_some_and(|weight| weight > 0) && weight(without) == Some(0));
    let mut same = without.population.clone();
    same.members = weighted.population.members;
    assert_eq!(weighted.population, same);
}

#[test]
fn a_day_with_all_that_nodes_do_is_held_to_what_they_held_after_an_hour() {
    let day = &shipped()["soak-day"];
    let hours = |hours: u64| Some(Span::seconds(hours * 3_600));
    assert_eq!((Some(day.duration), day.held_from, day.quick), (hours(24), hours(1), false));
    assert!(!day.traffic.is_empty() && !day.requests.is_empty() && !day.lookups.is_empty());
    let keeps =
        |kept| day.timeline.iter().any(|event| matches!(event.action, Action::Churn { keep, .. } if keep == kept));
    assert!(keeps(true) && keeps(false));
    assert!(day.expect.iter().any(|expectation| expectation.metric == "held.growth"));
}

#[test]
fn a_short_run_has_all_that_honest_nodes_do() {
    let quick: Vec<Scenario> = shipped().into_values().filter(|scenario| scenario.quick).collect();
    assert!(quick.iter().all(|scenario| scenario.population.nodes <= 1_000), "short runs are of small worlds");
    assert!(quick.iter().any(|scenario| !scenario.traffic.is_empty()));
    assert!(quick.iter().any(|scenario| !scenario.lookups.is_empty()));
    assert!(quick.iter().any(|scenario| !scenario.timeline.is_empty()));
    assert!(quick.iter().any(|scenario| !scenario.adversaries.is_empty()));
}
