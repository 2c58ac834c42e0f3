//! Playing scenarios with seeds, some at a time, and finding what is wrong with each run.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use peerage_sim::baseline::Baseline;
use peerage_sim::report::Report;
use peerage_sim::scenario::Scenario;

use super::count;
use super::files::Found;

/// What plays a scenario. The tests have one of their own.
pub(super) trait Runner: Sync {
    fn run(&self, scenario: &Scenario, seed: u64) -> Result<Report, String>;
    /// Plays twice and says at which event the runs part, if they do.
    fn first_difference(&self, scenario: &Scenario, seed: u64) -> Result<Option<String>, String>;
}

/// The simulated world.
pub(super) struct World;

impl Runner for World {
    fn run(&self, scenario: &Scenario, seed: u64) -> Result<Report, String> {
        peerage_sim::run::run(scenario, seed).map_err(|error| error.to_string())
    }

    fn first_difference(&self, scenario: &Scenario, seed: u64) -> Result<Option<String>, String> {
        peerage_sim::run::first_difference(scenario, seed).map_err(|error| error.to_string())
    }
}

/// One seed of one scenario.
pub(super) struct Job<'a> {
    pub(super) found: &'a Found,
    pub(super) seed: u64,
}

/// What came of a job.
pub(super) struct Played {
    /// What the run gave, unless it could not be done.
    pub(super) report: Option<Report>,
    /// All that is wrong with it, a line or more each.
    pub(super) problems: Vec<String>,
}

impl Played {
    /// One line: whether it passed, and what it took.
    pub(super) fn line(&self, job: &Job<'_>) -> String {
        let verdict = if self.problems.is_empty() { "ok" } else { "FAILED" };
        let run = format!("{} seed {}: {verdict}", job.found.scenario.name, job.seed);
        match &self.report {
            Some(Report { events, cost, digest, .. }) => {
                format!("{run}, {} events, digest {digest}, {cost}", count(*events))
            }
            None => run,
        }
    }
}

/// Plays all jobs, at most `at_once` side by side, each twice if asked to. `each` hears of them as they end; they are
/// given back in the order of the jobs.
pub(super) fn play(
    runner: &dyn Runner,
    jobs: &[Job<'_>],
    twice: bool,
    at_once: NonZeroUsize,
    mut each: impl FnMut(&Job<'_>, &Played),
) -> Vec<Played> {
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let mut played: Vec<(usize, Played)> = Vec::with_capacity(jobs.len());
    thread::scope(|scope| {
        for _ in 0..at_once.get().min(jobs.len()) {
            let (next, send) = (&next, send.clone());
            scope.spawn(move || {
                while let Some((index, job)) = claim(next, jobs) {
                    let mut one = one(runner, job, twice);
                    // What memory grew by is a run's own if it has the process to itself, and is the first in it.
                    if (index > 0 || at_once.get() > 1)
                        && let Some(report) = &mut one.report
                    {
                        report.cost.bytes_per_idle_node = None;
                        report.cost.bytes_per_node = None;
                    }
                    if send.send((index, one)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for (index, one) in receive {
            each(&jobs[index], &one);
            played.push((index, one));
        }
    });
    played.sort_by_key(|(index, _)| *index);
    played.into_iter().map(|(_, played)| played).collect()
}

fn claim<'j, 'a>(next: &AtomicUsize, jobs: &'j [Job<'a>]) -> Option<(usize, &'j Job<'a>)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(index).map(|job| (index, job))
}

fn one(runner: &dyn Runner, job: &Job<'_>, twice: bool) -> Played {
    let scenario = &job.found.scenario;
    // A rule that panics ends its run, and the others go on.
    let run = || match panic::catch_unwind(AssertUnwindSafe(|| runner.run(scenario, job.seed))) {
        Ok(report) => report,
        Err(panic) => Err(format!("panicked: {}", words(panic.as_ref()))),
    };
    let report = match run() {
        Ok(report) => report,
        Err(error) => return Played { report: None, problems: vec![error] },
    };
    let mut problems: Vec<String> = scenario.misses(&report).iter().map(ToString::to_string).collect();
    problems.extend(report.violations.iter().map(ToString::to_string));
    if twice {
        match run() {
            Ok(second) => problems.extend(unlike(runner, scenario, &report, &second)),
            Err(error) => problems.push(format!("the second run failed, the first did not: {error}")),
        }
    }
    Played { report: Some(report), problems }
}

/// What differs between two runs of one seed, and the first event in which they do.
fn unlike(runner: &dyn Runner, scenario: &Scenario, first: &Report, second: &Report) -> Option<String> {
    let mut before = Baseline::new(&scenario.name);
    before.put(first);
    let mut lines: Vec<String> = before.compare(second).iter().map(|line| format!("  {line}")).collect();
    if first.curves != second.curves {
        lines.push("  the curves".to_owned());
    }
    if lines.is_empty() {
        return None;
    }
    lines.insert(0, "two runs of one seed differ:".to_owned());
    lines.push(match runner.first_difference(scenario, first.seed) {
        Ok(Some(event)) => format!("  first at: {event}"),
        Ok(None) => "  two more runs had the same events".to_owned(),
        Err(error) => format!("  and two more runs failed: {error}"),
    });
    Some(lines.join("\n"))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicU64;

    use peerage_sim::report::{Cost, Metric, Unit};

    use super::*;

    /// Gives figures that depend on the seed alone, unless it is told to be bad at one.
    #[derive(Default)]
    pub(in crate::sim) struct Fake {
        pub(in crate::sim) loses_at: Option<u64>,
        pub(in crate::sim) violates_at: Option<u64>,
        pub(in crate::sim) panics_at: Option<u64>,
        pub(in crate::sim) wavers_at: Option<u64>,
        pub(in crate::sim) shift: u64,
        pub(in crate::sim) runs: AtomicU64,
    }

    impl Runner for Fake {
        fn run(&self, scenario: &Scenario, seed: u64) -> Result<Report, String> {
            let runs = self.runs.fetch_add(1, Ordering::Relaxed);
            assert_ne!(self.panics_at, Some(seed), "a rule is broken");
            let here = |at: Option<u64>| at == Some(seed);
            let delivered = if here(self.loses_at) { 900_000 } else { 1_000_000 };
            let metrics = [("bootstrapped", Unit::Share, delivered), ("peers.min", Unit::Count, seed + self.shift)];
            let violation = peerage_sim::report::Violation {
                at_ms: 1_500,
                invariant: "slots".to_owned(),
                what: "node 3 has 31 peers".to_owned(),
            };
            Ok(Report {
                scenario: scenario.name.clone(),
                seed,
                nodes: 10,
                digest: if here(self.wavers_at) { format!("wavering-{runs}") } else { format!("{seed:04x}") },
                events: 1_000,
                virtual_ms: 1_000,
                metrics: metrics.map(|(name, unit, value)| (name.to_owned(), Metric { unit, value })).into(),
                curves: [].into(),
                violations: if here(self.violates_at) { vec![violation] } else { Vec::new() },
                cost: Cost { wall_ms: runs, ..Cost::default() },
            })
        }

        fn first_difference(&self, _: &Scenario, seed: u64) -> Result<Option<String>, String> {
            Ok((self.wavers_at == Some(seed)).then(|| "event 17: a dial".to_owned()))
        }
    }

    /// Plays seeds 1 to 4 of a small scenario twice, two at a time.
    fn problems(fake: &Fake) -> Vec<Vec<String>> {
        let mut found = super::super::files::find("bootstrap-100").expect("it is shipped");
        found.scenario.expect.retain(|expectation| expectation.metric == "bootstrapped");
        let jobs: Vec<Job<'_>> = (1..=4).map(|seed| Job { found: &found, seed }).collect();
        let mut heard = 0;
        let two = NonZeroUsize::new(2).expect("two are more than none");
        let played = play(fake, &jobs, true, two, |_, _| heard += 1);
        assert_eq!(heard, 4);
        played.into_iter().map(|played| played.problems).collect()
    }

    #[test]
    fn good_runs_have_no_problem_and_every_bad_one_has_its_own() {
        assert!(problems(&Fake::default()).iter().all(Vec::is_empty));
        let found = problems(&Fake {
            loses_at: Some(1),
            violates_at: Some(2),
            panics_at: Some(3),
            wavers_at: Some(4),
            ..Fake::default()
        });
        assert!(found[0][0].starts_with("bootstrapped: expected at least"), "{found:?}");
        assert_eq!(found[1], ["invariant slots did not hold at 1.5 s: node 3 has 31 peers"]);
        assert!(found[2][0].starts_with("panicked: ") && found[2][0].contains("a rule is broken"), "{found:?}");
        assert!(found[3][0].starts_with("two runs of one seed differ:\n  seed 4: digest: wavering-"), "{found:?}");
        assert!(found[3][0].ends_with("first at: event 17: a dial"), "{found:?}");
    }
}
