//! Several seeds of one scenario in one table: the least, middle and most of each figure, beside what was expected.

use std::collections::BTreeSet;
use std::fmt::Write;

use peerage_sim::report::{Metric, Report};
use peerage_sim::scenario::Scenario;

/// The table, one metric a line.
pub(super) fn table(scenario: &Scenario, reports: &[&Report]) -> String {
    let names: BTreeSet<&String> = reports.iter().flat_map(|report| report.metrics.keys()).collect();
    let mut rows = vec![["metric", "min", "median", "max", "expected"].map(str::to_owned)];
    for name in names {
        let mut figures: Vec<Metric> = reports.iter().filter_map(|report| report.metrics.get(name).copied()).collect();
        figures.sort_by_key(|metric| metric.value);
        let [min, median, max] = [0, figures.len() / 2, figures.len() - 1].map(|index| figures[index].to_string());
        let expected: Vec<String> = scenario
            .expect
            .iter()
            .filter(|expectation| expectation.metric == *name)
            .map(|expectation| format!("{} {}", expectation.bound.words(), expectation.value))
            .collect();
        rows.push([name.clone(), min, median, max, expected.join(", ")]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [names, mins, medians, maxs] = [0, 1, 2, 3].map(width);
    let mut text = format!("{}, {} seeds\n", scenario.name, reports.len());
    for [name, min, median, max, expected] in &rows {
        let line = format!("  {name:<names$}  {min:>mins$}  {median:>medians$}  {max:>maxs$}  {expected}");
        let _ = writeln!(text, "{}", line.trim_end()); // Writing to a string cannot fail.
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::super::play::Runner;
    use super::super::play::tests::Fake;
    use super::*;

    #[test]
    fn the_table_has_least_middle_most_and_what_was_expected() {
        let mut scenario = super::super::files::find("bootstrap-100").expect("it is shipped").scenario;
        scenario.expect.retain(|expectation| expectation.metric == "bootstrapped");
        let fake = Fake::default();
        let reports: Vec<Report> =
            [3, 1, 2].map(|seed| fake.run(&scenario, seed).expect("the fake plays everything")).into();
        let expected = "\
bootstrap-100, 3 seeds
  metric          min  median    max  expected
  bootstrapped  100 %   100 %  100 %  at least 100 %
  peers.min         1       2      3";
        assert_eq!(table(&scenario, &reports.iter().collect::<Vec<_>>()), expected);
    }
}
