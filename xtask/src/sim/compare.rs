//! `cargo xtask sim compare`: plays scenarios and says what differs from the committed baselines.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::thread;

use peerage_sim::report::Report;

use super::files::{self, Found};
use super::play::{Job, Played, Runner, play};
use crate::shell::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Scenarios: files, or names of those in `crates/sim/scenarios`; all of those if none is named.
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// The first N of each scenario's seeds. Default: those that have a baseline; with `--write`, all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Only scenarios that are `quick`.
    #[arg(long)]
    quick: bool,
    /// Write what the runs gave as the new baselines, of scenarios that pass.
    #[arg(long)]
    write: bool,
    /// Run each seed once only, and so do not notice runs that differ from their repetition.
    #[arg(long, requires = "write")]
    once: bool,
    /// Only seeds that have no baseline yet; the others keep what they have.
    #[arg(long, requires = "write")]
    missing: bool,
    /// How many runs at a time. Default: one for each core.
    #[arg(long, value_name = "J")]
    jobs: Option<NonZeroUsize>,
}

/// Fails when a run fails, two runs of a seed differ, or (unless it writes) anything is not as the baselines say.
pub(super) fn run(args: &Args, runner: &dyn Runner, say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let mut found = files::find_all(&args.files)?;
    found.retain(|found| found.scenario.quick || !args.quick);
    if found.is_empty() {
        return Err(Failure::Check("none of these scenarios is `quick`: nothing was compared".to_owned()));
    }
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for found in &found {
        let all = found.scenario.seeds;
        let there = if args.write && !args.missing { BTreeMap::new() } else { found.read_baseline()?.runs };
        let seeds = match (args.seeds, args.write) {
            (Some(seeds), _) => seeds.min(all),
            (None, true) => all,
            (None, false) => there.keys().next_back().map_or(0, |seed| all.min(*seed)),
        };
        let wanted = (1..=seeds).filter(|seed| !(args.missing && there.contains_key(seed)));
        jobs.extend(wanted.map(|seed| Job { found, seed }));
    }
    let at_once = args.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let played = play(runner, &jobs, !args.once, at_once, |job, played| say(&played.line(job)));
    let mut wrong: Vec<&str> = Vec::new();
    for found in &found {
        let runs: Vec<(u64, &Played)> = jobs
            .iter()
            .zip(&played)
            .filter(|(job, _)| std::ptr::eq(job.found, found))
            .map(|(job, played)| (job.seed, played))
            .collect();
        let lines = if args.write { write(found, &runs, say)? } else { compare(found, &runs)? };
        if !lines.is_empty() {
            say(&format!("\n{}:\n  {}", found.scenario.name, lines.join("\n").replace('\n', "\n  ")));
            wrong.push(&found.word);
        }
    }
    let orphans = if args.files.is_empty() { files::orphans()? } else { Vec::new() };
    for orphan in &orphans {
        say(&format!("\ncrates/sim/baselines/{orphan}.toml belongs to no scenario: delete it"));
    }
    if wrong.is_empty() && orphans.is_empty() {
        let done = if args.write { "written" } else { "as before" };
        say(&format!("\nok: {} runs of {} scenarios {done}", jobs.len(), found.len()));
        return Ok(());
    }
    wrong.extend(orphans.iter().map(String::as_str));
    let advice = if args.write {
        "a scenario that fails gets no baseline"
    } else {
        "if the change is meant, `cargo xtask sim compare --write FILE…` takes it over"
    };
    Err(Failure::Check(format!("not as it should be: {}; {advice}", wrong.join(", "))))
}

/// What is wrong with the runs themselves, each with the command that shows it again.
fn problems(found: &Found, runs: &[(u64, &Played)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (seed, played) in runs {
        lines.extend(played.problems.iter().map(|problem| format!("seed {seed}: {problem}")));
        if !played.problems.is_empty() {
            lines.push(format!("again: {} --twice", found.again(*seed)));
        }
    }
    lines
}

/// What is wrong with the runs, and where they are not what their seeds gave before.
fn compare(found: &Found, runs: &[(u64, &Played)]) -> Result<Vec<String>, Failure> {
    let baseline = found.read_baseline()?;
    let mut lines = problems(found, runs);
    if runs.is_empty() {
        lines.push("it has no baseline yet".to_owned());
    }
    for report in reports(runs) {
        if baseline.runs.contains_key(&report.seed) {
            lines.extend(baseline.compare(report).iter().map(ToString::to_string));
        } else {
            lines.push(format!("seed {}: it has no baseline yet", report.seed));
        }
    }
    Ok(lines)
}

/// Writes the baselines if all went well, and says how they differ from the old.
fn write(found: &Found, runs: &[(u64, &Played)], say: &mut dyn FnMut(&str)) -> Result<Vec<String>, Failure> {
    let lines = problems(found, runs);
    if !lines.is_empty() {
        return Ok(lines);
    }
    // A file that cannot be read is one of the reasons to write it anew.
    let mut baseline =
        found.read_baseline().unwrap_or_else(|_| peerage_sim::baseline::Baseline::new(&found.scenario.name));
    let before = baseline.clone();
    baseline.runs.retain(|seed, _| *seed <= found.scenario.seeds);
    for report in reports(runs) {
        if baseline.runs.contains_key(&report.seed) {
            baseline.compare(report).iter().for_each(|line| say(&format!("{}: {line}", found.scenario.name)));
        }
        baseline.put(report);
    }
    let path = found.baseline();
    if baseline != before || !path.exists() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Failure::file(folder))?;
        }
        baseline.write(&path).map_err(|error| Failure::Check(error.to_string()))?;
    }
    Ok(Vec::new())
}

fn reports<'p>(runs: &[(u64, &'p Played)]) -> impl Iterator<Item = &'p Report> {
    runs.iter().filter_map(|(_, played)| played.report.as_ref())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::Ordering;

    use clap::Parser;

    use super::super::play::tests::Fake;
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// A folder with the scenario `small` of three seeds.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let scenarios = folder.path().join("scenarios");
        fs::create_dir(&scenarios).expect("a folder in it");
        let text = "name = \"small\"\nabout = \"Ten nodes.\"\nseeds = 3\nduration = \"60s\"\n\
            [population]\nnodes = 10\n[[expect]]\nmetric = \"bootstrapped\"\nat_least = \"100%\"\n";
        fs::write(scenarios.join("small.toml"), text).expect("it can be written");
        folder
    }

    /// What `compare` says and how it ends.
    fn small(folder: &Path, fake: &Fake, words: &[&str]) -> (String, Result<(), String>) {
        let file = folder.join("scenarios/small.toml").display().to_string();
        let line = ["compare", &file].into_iter().chain(words.iter().copied());
        let Cli { args } = Cli::try_parse_from(line).expect("the words are right");
        let mut said = String::new();
        let end = run(&args, fake, &mut |line| said += &format!("{line}\n"));
        (said, end.map_err(|error| error.to_string()))
    }

    #[test]
    fn what_was_written_is_as_before() {
        let folder = folder();
        let (said, end) = small(folder.path(), &Fake::default(), &[]);
        assert!(end.is_err() && said.contains("small:\n  it has no baseline yet"), "{said}");
        let (said, end) = small(folder.path(), &Fake::default(), &["--seeds", "3"]);
        assert!(end.is_err() && said.contains("seed 3: it has no baseline yet"), "{said}");
        assert_eq!(small(folder.path(), &Fake::default(), &["--write"]).1, Ok(()));
        let (said, end) = small(folder.path(), &Fake::default(), &[]);
        assert_eq!(end, Ok(()));
        assert!(said.contains("ok: 3 runs of 1 scenarios as before"), "{said}");
    }

    #[test]
    fn a_figure_that_changed_is_shown_with_its_old_and_new_value() {
        let folder = folder();
        small(folder.path(), &Fake::default(), &["--write"]).1.expect("it passes");
        let changed = Fake { shift: 10, ..Fake::default() };
        let (said, end) = small(folder.path(), &changed, &["--seeds", "2"]);
        assert!(end.expect_err("it changed").contains("--write"));
        assert!(said.contains("small:\n  seed 1: peers.min: 1 → 11\n"), "{said}");
        assert_eq!(small(folder.path(), &changed, &["--write", "--once"]).1, Ok(()));
        assert_eq!(small(folder.path(), &changed, &[]).1, Ok(()));
    }

    #[test]
    fn a_scenario_that_fails_gets_no_baseline() {
        let folder = folder();
        let fake = Fake { violates_at: Some(2), ..Fake::default() };
        let (said, end) = small(folder.path(), &fake, &["--write"]);
        assert!(end.is_err() && said.contains("seed 2: invariant slots"), "{said}");
        assert!(!folder.path().join("baselines/small.toml").exists());
    }

    #[test]
    fn runs_that_differ_from_their_repetition_fail_though_the_baseline_is_there() {
        let folder = folder();
        small(folder.path(), &Fake::default(), &["--write"]).1.expect("it passes");
        let (said, end) = small(folder.path(), &Fake { wavers_at: Some(3), ..Fake::default() }, &[]);
        assert!(end.is_err() && said.contains("seed 3: two runs of one seed differ"), "{said}");
        assert!(said.contains("first at: event 17"), "{said}");
    }

    #[test]
    fn what_is_missing_is_added_and_the_rest_not_run_again() {
        let folder = folder();
        small(folder.path(), &Fake::default(), &["--write", "--seeds", "1"]).1.expect("it passes");
        let changed = Fake { shift: 10, ..Fake::default() };
        let (said, end) = small(folder.path(), &changed, &["--write", "--once", "--missing"]);
        assert_eq!((end, changed.runs.load(Ordering::Relaxed)), (Ok(()), 2), "{said}");
        assert_eq!(small(folder.path(), &Fake::default(), &[]).1, Ok(()), "seed 1 is as it was, and 2 and 3 are there");
        let (said, end) = small(folder.path(), &changed, &["--write", "--missing"]);
        assert!(end.is_ok() && said.contains("ok: 0 runs"), "{said}");
    }

    #[test]
    fn nothing_to_compare_is_no_success() {
        let end = small(folder().path(), &Fake::default(), &["--quick"]).1;
        assert!(end.expect_err("it is not quick").contains("nothing was compared"));
    }
}
