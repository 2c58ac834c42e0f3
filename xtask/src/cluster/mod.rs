//! `cargo xtask cluster`: real nodes on loopback, real messages through them, and an account of every one.

mod client;
mod input;
mod nodes;
mod process;
mod progress;
mod publish;
mod report;
mod run;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::shell::{self, Failure, Profile};
use input::Format;

/// What clap itself uses for wrong usage.
const WRONG_USAGE: u8 = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many nodes to start; all but the first know only the first.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: u16,
    /// What to publish; without it, random messages are made.
    #[arg(long, value_name = "FILE", requires = "format")]
    input: Option<PathBuf>,
    /// How to cut the input into messages.
    #[arg(long, value_enum, requires = "input")]
    format: Option<Format>,
    /// How many random messages to make when there is no input.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "input")]
    messages: u32,
    /// Messages per second; without it, as fast as the nodes accept them.
    #[arg(long, value_name = "MSGS_PER_S", value_parser = rate)]
    rate: Option<f64>,
    /// Kill so many nodes (never the first) half-way with SIGKILL and start them again on their data.
    #[arg(long, value_name = "K", default_value_t = 0)]
    kill: u16,
    /// Seconds to wait for the mesh, and again for the last delivery after the last publication.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Write the totals to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the nodes' data folders and logs, and say where they are.
    #[arg(long)]
    keep: bool,
    /// Repeat a run's choices: which messages, which publisher, which nodes are killed.
    #[arg(long)]
    seed: Option<u64>,
    /// How to build the node.
    #[arg(long, value_enum, default_value_t = Profile::Release, conflicts_with = "program")]
    profile: Profile,
    /// Run this program as the node instead of building it.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

/// A run, decided before anything is started.
pub(crate) struct Plan {
    nodes: usize,
    items: Vec<Vec<u8>>,
    rate: Option<f64>,
    kill: usize,
    timeout: Duration,
    keep: bool,
    seed: u64,
}

/// Runs a cluster: 0 when every message was accounted for, 1 when not, 2 when it was asked for wrongly.
pub(crate) fn main(args: Args) -> ExitCode {
    let plan = match plan(&args) {
        Ok(plan) => plan,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match execute(&args, &plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Checks what was asked for; an error is one sentence that says what to change.
fn plan(args: &Args) -> Result<Plan, String> {
    if args.kill >= args.nodes {
        let (kill, nodes) = (args.kill, args.nodes);
        return Err(format!(
            "--kill {kill} is too many for --nodes {nodes}: the first node is never killed, so kill at most {}",
            nodes - 1
        ));
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = args.seed.unwrap_or(clock.as_micros() as u64);
    let items = match (&args.input, args.format) {
        (Some(path), Some(format)) => {
            let bytes = std::fs::read(path)
                .map_err(|error| format!("cannot read {}: {error}; check the path given to --input", path.display()))?;
            input::items(&bytes, format).map_err(|error| format!("{}: {error}", path.display()))?
        }
        _ => input::random(args.messages as usize, seed),
    };
    if let Some(path) = &args.json {
        // Found out now, not after two minutes of work.
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| format!("cannot write {}: {error}; check the path given to --json", path.display()))?;
    }
    if let Some(program) = args.program.as_ref().filter(|program| !program.is_file()) {
        return Err(format!("{} is not a file; check the path given to --program", program.display()));
    }
    Ok(Plan {
        nodes: usize::from(args.nodes),
        items,
        rate: args.rate,
        kill: usize::from(args.kill),
        timeout: Duration::from_secs(args.timeout),
        keep: args.keep,
        seed,
    })
}

fn execute(args: &Args, plan: &Plan) -> Result<bool, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::file("the signal handlers"))?;
    }
    let program = match &args.program {
        Some(program) => program.canonicalize().map_err(Failure::file(program))?,
        None => build(args.profile)?,
    };
    let bytes: usize = plan.items.iter().map(Vec::len).sum();
    match &args.input {
        Some(path) => println!("input: {} messages ({bytes} bytes) from {}", plan.items.len(), path.display()),
        None => println!("input: made {} random messages ({bytes} bytes), as no --input was given", plan.items.len()),
    }
    println!("seed: {}", plan.seed);
    let outcome = run::run(plan, &program, &stop)?;
    print!("{}", report::table(&outcome.rows));
    println!("{}", report::totals(&outcome.report));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&outcome.report).map_err(|error| Failure::Check(error.to_string()))?;
        std::fs::write(path, text + "\n").map_err(Failure::file(path))?;
    }
    if let Some(folder) = &outcome.kept {
        println!("kept: {}", folder.display());
    }
    for failure in &outcome.failures {
        eprintln!("failed: {failure}");
    }
    if outcome.failures.is_empty() {
        println!("ok: every message was delivered once to every node that stayed up");
    }
    Ok(outcome.failures.is_empty())
}

/// Builds the node and gives back where it is.
fn build(profile: Profile) -> Result<PathBuf, Failure> {
    let mut command = shell::cargo();
    command.args(["build", "--locked", "-p", "node", "--profile", profile.name()]);
    shell::run(&mut command)?;
    Ok(shell::metadata()?.target_directory.into_std_path_buf().join(profile.folder()).join("node"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Cli::try_parse_from(["cluster"].iter().chain(words)).map(|cli| cli.args)
    }

    #[test]
    fn without_flags_eight_nodes_get_a_thousand_random_messages() {
        let plan = plan(&parse(&[]).expect("no flags are right usage")).expect("the defaults make a plan");
        assert_eq!((plan.nodes, plan.items.len(), plan.kill), (8, 1_000, 0));
        assert_eq!(plan.timeout, Duration::from_secs(120));
    }

    #[test]
    fn the_first_node_cannot_be_killed() {
        let sentence = plan(&parse(&["--nodes", "3", "--kill", "3"]).expect("it parses")).err().unwrap_or_default();
        assert!(sentence.contains("at most 2"), "{sentence}");
        assert!(plan(&parse(&["--nodes", "3", "--kill", "2"]).expect("it parses")).is_ok());
    }

    #[test]
    fn wrong_usage_is_refused_with_code_two() {
        for words in [
            &["--nodes", "0"][..],
            &["--rate", "0"],
            &["--rate", "fast"],
            &["--format", "lines"],
            &["--input", "x"],
            &["--input", "x", "--format", "lines", "--messages", "3"],
            &["--timeout", "0"],
        ] {
            let error = parse(words).err().unwrap_or_else(|| panic!("{words:?} was taken"));
            assert_eq!(error.exit_code(), i32::from(WRONG_USAGE), "{words:?}");
        }
    }

    #[test]
    fn an_unreadable_file_is_one_sentence() {
        let args = parse(&["--input", "/nowhere/at/all", "--format", "bytes"]).expect("it parses");
        let sentence = plan(&args).err().unwrap_or_default();
        assert!(sentence.starts_with("cannot read /nowhere/at/all"), "{sentence}");
        assert!(!sentence.contains('\n'));
    }
}
