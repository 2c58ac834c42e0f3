//! A run that compares what nodes hold early and at its end sees what piles up, and nothing where nothing does.

use peerage_sim::report::{Report, Unit};
use peerage_sim::run::run;
use peerage_sim::scenario::Scenario;

/// Four nodes of which somebody asks another every five seconds, for half an hour; each call takes so long.
fn asking(takes: &str) -> (Scenario, Report) {
    let text = format!(
        r#"
        name = "asking"
        about = "Calls end, or never do."
        seeds = 1
        duration = "30m"
        held_from = "5m"
        [population]
        nodes = 4
        [[requests]]
        handler = "height/1"
        every = "5s"
        question = "128B"
        answer = "1KiB"
        takes = "{takes}"
        deadline = "10s"
        from = "1m"
        until = "30m"
        [[expect]]
        metric = "held.growth"
        at_most = "1.25"
        "#
    );
    let scenario = Scenario::parse("asking.toml", &text).expect("it is a scenario");
    let report = run(&scenario, 1).expect("it can be played");
    (scenario, report)
}

fn growth(report: &Report, of: &str) -> u64 {
    let metric = report.metrics.get(&format!("held.growth{of}")).unwrap_or_else(|| panic!("no {of} in {report}"));
    assert_eq!(metric.unit, Unit::Ratio, "{of}");
    metric.value
}

#[test]
fn nodes_whose_calls_end_hold_no_more_with_time() {
    let (scenario, report) = asking("1ms");
    assert_eq!(scenario.misses(&report), [], "{report}");
    assert!(report.curves["held.router.calls"].points.len() >= 96);
}

/// The leak that is planted: a handler that never comes to an end, so that its calls keep their places for good.
#[test]
fn calls_that_never_end_are_seen_to_pile_up() {
    let (scenario, report) = asking("2h");
    assert_eq!(scenario.misses(&report).len(), 1, "{report}");
    assert!(growth(&report, ".router.calls") > 2_000 && growth(&report, ".node.calls") > 2_000, "{report}");
    assert!(growth(&report, ".router.written") > 1_000, "and in what is written out of the machine, {report}");
    assert!(growth(&report, ".gossip.seen") <= 1_000, "but nowhere else, {report}");
}
