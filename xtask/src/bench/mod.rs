//! `cargo xtask bench`: builds the program that measures, optimised, and runs it.

#[path = "../../../tests/bench/src/names.rs"]
mod names;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use clap::builder::PossibleValuesParser;

use crate::shell::{self, Failure};

const PACKAGE: &str = "peerage-bench";

/// What to measure.
#[derive(clap::Subcommand)]
pub(crate) enum What {
    /// One session: bulk, small messages, round trips, priority, long links, set-up, memory, load.
    ///
    /// Prints a line for each figure, `bench=… impl=… metric=… value=… min=… max=… unit=…`: the median of all rounds with
    /// its extremes. Lines with `metric=ratio … vs=…` compare within each round. What cannot be measured here says
    /// `skipped=…`.
    Session(Session),
}

#[derive(clap::Args)]
pub(crate) struct Session {
    /// Measure for half a second where it is two otherwise, and the memory of 1,000 sessions only.
    #[arg(long)]
    quick: bool,
    /// Only these benches.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::SESSION))]
    only: Vec<String>,
    /// Rounds; in each, every implementation and every reference is measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Fails when the build or any measurement does; a bench that cannot run here is no failure.
pub(crate) fn run(what: &What) -> Result<(), Failure> {
    let What::Session(args) = what;
    shell::run(shell::cargo().args(["build", "--quiet", "--release", "--locked", "--package", PACKAGE]))?;
    let program = shell::metadata()?.target_directory.join("release").join(PACKAGE);
    let program = program.as_std_path().with_extension(std::env::consts::EXE_EXTENSION);
    // Where the user stands, so that a relative file is theirs.
    shell::run(Command::new(program).arg("session").args(arguments(args)))
}

/// The same words for the program that measures.
fn arguments(args: &Session) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--pairs".into(), args.pairs.to_string().into()];
    if args.quick {
        words.push("--quick".into());
    }
    if !args.only.is_empty() {
        words.extend(["--only".into(), args.only.join(",").into()]);
    }
    if let Some(json) = &args.json {
        words.extend(["--json".into(), json.into()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        what: What,
    }

    fn parse(words: &[&str]) -> Result<Vec<OsString>, String> {
        let parsed = Cli::try_parse_from([&["bench", "session"], words].concat()).map_err(|error| error.to_string())?;
        let What::Session(args) = parsed.what;
        Ok(arguments(&args))
    }

    #[test]
    fn the_measuring_program_is_told_what_the_user_said() {
        assert_eq!(parse(&[]), Ok(["--pairs", "5"].map(OsString::from).to_vec()));
        let words = ["--pairs", "7", "--quick", "--only", "wan,mem", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let why = parse(&["--only", "bulk"]).expect_err("no such bench");
        assert!(names::SESSION.iter().all(|name| why.contains(name)), "{why}");
    }
}
