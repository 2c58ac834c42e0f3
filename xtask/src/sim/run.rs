//! `cargo xtask sim run`: plays scenarios, says what came of it, and how to see a failure again.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use peerage_sim::report::Report;
use peerage_sim::scenario::Mode;

use super::files::{self, Found};
use super::play::{Job, Played, Runner, play};
use super::summary;
use crate::shell::Failure;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Scenarios: files, or names of those in `crates/sim/scenarios`.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Run with the seeds 1 to N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "seed")]
    seeds: Option<u64>,
    /// Run with this seed.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Write all reports to this file, as a JSON list.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Run each seed twice; if the runs differ, say at which event they part.
    #[arg(long)]
    twice: bool,
    /// How gossip goes: `peerage`, `gossipsub` or `plumtree`, whatever the scenarios say. The last two are there to be
    /// compared with, and need not meet the expectations.
    #[arg(long, value_name = "MODE")]
    gossip: Option<Mode>,
    /// How many runs at a time. What a run costs is measured best with one.
    #[arg(long, value_name = "J", default_value = "1")]
    jobs: NonZeroUsize,
}

/// Fails when a run could not be done, missed an expectation, broke an invariant, or differed from its repetition.
pub(super) fn run(args: &Args, runner: &dyn Runner, say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let mut found = files::find_all(&args.files)?;
    if args.gossip.is_some() {
        found.iter_mut().for_each(|found| found.scenario.population.gossip = args.gossip);
    }
    let seeds = args.seeds.map_or(args.seed..=args.seed, |last| 1..=last);
    let jobs: Vec<Job<'_>> =
        found.iter().flat_map(|found| seeds.clone().map(move |seed| Job { found, seed })).collect();
    let played = play(runner, &jobs, args.twice, args.jobs, |job, played| tell(job, played, args.twice, say));
    for found in &found {
        let reports = reports_of(found, &jobs, &played);
        match reports.as_slice() {
            [] => {}
            [report] => say(&format!("\n{report}")),
            reports => say(&format!("\n{}", summary::table(&found.scenario, reports))),
        }
    }
    if let Some(path) = &args.json {
        let reports: Vec<&Report> = played.iter().filter_map(|played| played.report.as_ref()).collect();
        let mut text = serde_json::to_string(&reports)
            .map_err(|error| Failure::Check(format!("the reports are no JSON: {error}")))?;
        text.push('\n');
        fs::write(path, text).map_err(Failure::file(path))?;
    }
    verdict(&jobs, &played, args.twice, say)
}

/// A run ended.
fn tell(job: &Job<'_>, played: &Played, twice: bool, say: &mut dyn FnMut(&str)) {
    say(&played.line(job));
    for problem in &played.problems {
        say(&format!("    {}", problem.replace('\n', "\n    ")));
    }
    if !played.problems.is_empty() {
        say(&format!("    again: {}", again(job, twice)));
    }
}

fn again(job: &Job<'_>, twice: bool) -> String {
    let gossip = job.found.scenario.population.gossip.map(|mode| format!(" --gossip {}", mode.label()));
    job.found.again(job.seed) + &gossip.unwrap_or_default() + if twice { " --twice" } else { "" }
}

fn reports_of<'p>(found: &Found, jobs: &[Job<'_>], played: &'p [Played]) -> Vec<&'p Report> {
    let own = jobs.iter().zip(played).filter(|(job, _)| std::ptr::eq(job.found, found));
    own.filter_map(|(_, played)| played.report.as_ref()).collect()
}

fn verdict(jobs: &[Job<'_>], played: &[Played], twice: bool, say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let failed: Vec<String> = jobs
        .iter()
        .zip(played)
        .filter(|(_, played)| !played.problems.is_empty())
        .map(|(job, _)| format!("\n  {}", again(job, twice)))
        .collect();
    if failed.is_empty() {
        say(&format!("\nok: {} of {} runs passed", jobs.len(), jobs.len()));
        return Ok(());
    }
    Err(Failure::Check(format!(
        "{} of {} runs failed; to see them again:{}",
        failed.len(),
        jobs.len(),
        failed.concat()
    )))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::play::tests::Fake;
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    const SMALL: &str = "name = \"small\"\nabout = \"Ten nodes.\"\nseeds = 3\nduration = \"60s\"\n\
        [population]\nnodes = 10\n[[expect]]\nmetric = \"bootstrapped\"\nat_least = \"100%\"\n";

    /// What `run` says and how it ends, for a small scenario in a folder of its own.
    fn small(fake: &Fake, words: &[&str]) -> (String, Result<(), String>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("small.toml");
        fs::write(&file, SMALL).expect("it can be written");
        let json = folder.path().join("out.json");
        let words: Vec<String> = words.iter().map(|word| word.replace("OUT", &json.display().to_string())).collect();
        let line = ["run".to_owned(), file.display().to_string()].into_iter().chain(words);
        let Cli { args } = Cli::try_parse_from(line).expect("the words are right");
        let mut said = String::new();
        let end = run(&args, fake, &mut |line| said += &format!("{line}\n"));
        (said, end.map_err(|error| error.to_string()), folder)
    }

    #[test]
    fn one_seed_is_shown_whole_and_many_in_a_table() {
        let (said, end, _folder) = small(&Fake::default(), &[]);
        assert_eq!(end, Ok(()));
        assert!(said.contains("small seed 1: ok, 1 000 events, digest 0001"), "{said}");
        assert!(said.contains("  bootstrapped  100 %\n"), "{said}");
        let (said, end, _folder) = small(&Fake::default(), &["--seeds", "5", "--jobs", "2"]);
        assert_eq!(end, Ok(()));
        assert!(said.contains("ok: 5 of 5 runs passed") && said.contains("median"), "{said}");
    }

    #[test]
    fn a_failure_names_its_seed_and_the_command_that_shows_it_again() {
        let fake = Fake { loses_at: Some(2), violates_at: Some(3), ..Fake::default() };
        let (said, end, folder) = small(&fake, &["--seeds", "3"]);
        let end = end.expect_err("two runs failed");
        let file = folder.path().join("small.toml").display().to_string();
        for seed in [2, 3] {
            let again = format!("cargo xtask sim run {file} --seed {seed}");
            assert!(said.contains(&format!("again: {again}\n")) && end.contains(&again), "{said}{end}");
        }
        assert!(end.starts_with("2 of 3 runs failed"), "{end}");
        assert!(said.contains("small seed 2: FAILED") && said.contains("small seed 1: ok"), "{said}");
    }

    #[test]
    fn runs_that_differ_fail_only_when_each_is_made_twice() {
        let fake = || Fake { wavers_at: Some(7), ..Fake::default() };
        assert_eq!(small(&fake(), &["--seed", "7"]).1, Ok(()));
        let (said, end, _folder) = small(&fake(), &["--seed", "7", "--twice"]);
        assert!(end.expect_err("they differ").ends_with("--seed 7 --twice"));
        assert!(said.contains("first at: event 17: a dial"), "{said}");
    }

    #[test]
    fn the_json_is_a_list_of_every_report() {
        let (_, end, folder) =
            small(&Fake { loses_at: Some(2), ..Fake::default() }, &["--seeds", "3", "--json", "OUT"]);
        assert!(end.is_err(), "the reports of failed runs are what one wants to see");
        let text = fs::read_to_string(folder.path().join("out.json")).expect("it was written");
        let reports: Vec<Report> = serde_json::from_str(&text).expect("it is a list of reports");
        assert_eq!(reports.iter().map(|report| report.seed).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
