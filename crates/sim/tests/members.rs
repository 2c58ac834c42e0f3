//! A crowd that occupies all nodes: what members ask is answered because they have a weight, and for no other reason.

use peerage_sim::report::{Report, Unit};
use peerage_sim::run::run;
use peerage_sim::scenario::Scenario;

/// Two members among ten nodes, each of which handles ten calls a second, and ten more that ask each of them as often as
/// one may: ten times what there is.
fn crowded(weight: u64) -> Report {
    let text = format!(
        r#"
        name = "crowded"
        about = "Members ask among a crowd."
        seeds = 1
        duration = "30s"
        [population]
        nodes = 10
        max_peers = 30
        members = {{ share = "20%", weight = {weight} }}
        [[requests]]
        handler = "height/1"
        rate = 20
        question = "128B"
        answer = "1KiB"
        takes = "100ms"
        allowance = 10
        places = 8
        deadline = "2s"
        from = "15s"
        until = "27s"
        [[adversaries]]
        kind = "request-flood"
        count = 10
        sites = "own"
        options = {{ rate = 10, after = "10s" }}
        [[expect]]
        metric = "bans.honest"
        equals = 0
        "#
    );
    let scenario = Scenario::parse("crowded.toml", &text).expect("it is a scenario");
    let report = run(&scenario, 1).expect("it can be played");
    assert!(report.violations.is_empty() && scenario.misses(&report).is_empty(), "{report}");
    report
}

fn figure(report: &Report, name: &str, unit: Unit) -> u64 {
    let metric = report.metrics.get(name).unwrap_or_else(|| panic!("no {name} in {report}"));
    assert_eq!(metric.unit, unit, "{name}");
    metric.value
}

#[test]
fn weight_is_what_has_members_answered_in_a_crowd() {
    let (weighted, without) = (crowded(10), crowded(0));
    let answered = |report, of: &str| figure(report, &format!("{of}.answered"), Unit::Share);
    assert!(answered(&weighted, "requests.members") >= 900_000, "{weighted}");
    assert!(answered(&without, "requests.members") <= 600_000, "{without}");
    let of_handled = |report| figure(report, "requests.members.of-handled", Unit::Share);
    assert!(of_handled(&weighted) > of_handled(&without), "{weighted} {without}");
    // The others have what is left.
    assert!(answered(&weighted, "requests") <= 800_000, "{weighted}");
}
