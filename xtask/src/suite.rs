//! `cargo xtask test`: every test of the workspace with one command, and one line of totals at its end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::shell::{self, Failure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The whole-network scenarios at their full size instead (200 nodes, half a virtual hour), in a release build
    #[arg(long)]
    soak: bool,
    /// Passed on to `cargo test`, for example a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Tests that need machines with a bug in them, which nothing else may be built with.
const PLANTED: [&str; 8] = ["test", "--locked", "-p", "peerage-sim", "--features", "planted-bugs", "--test", "planted"];

/// Runs unit, integration, example and doc tests of every package, and those that find the planted bugs.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut totals = Totals::default();
    let mut command = shell::cargo();
    command.args(["test", "--locked", "--no-fail-fast"]);
    match args.soak {
        true => command.args(["--release", "-p", "peerage-tests"]).env("PEERAGE_SOAK", "1"),
        false => command.arg("--workspace"),
    };
    command.args(&args.rest);
    let mut tested = counted(&mut command, &mut totals);
    // Who asks for something in particular does not ask for these.
    if !args.soak && args.rest.is_empty() {
        tested = tested.and(counted(shell::cargo().args(PLANTED), &mut totals));
    }
    println!("{}", totals.line(tested.is_ok()));
    tested
}

/// Runs a test command and counts what its runners say.
fn counted(command: &mut Command, totals: &mut Totals) -> Result<(), Failure> {
    command.stdout(Stdio::piped());
    let said = |source| Failure::Spawn { program: "cargo".to_owned(), source };
    let mut child = command.spawn().map_err(said)?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            totals.read(&line);
        }
    }
    let status = child.wait().map_err(said)?;
    if status.success() { Ok(()) } else { Err(Failure::Status { command: shell::line(command), status }) }
}

/// Sums of the runners' closing lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    runners: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; …` and leaves every other line alone.
    fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        self.runners += 1;
        for part in counts.split("; ") {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                _ => {}
            }
        }
    }

    fn line(&self, ok: bool) -> String {
        let verdict = if ok { "ok" } else { "FAILED" };
        let Self { runners, passed, failed, ignored } = self;
        format!("all tests: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; in {runners} test programs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up_and_other_lines_do_not_count() {
        let mut totals = Totals::default();
        totals.read("running 3 tests");
        totals.read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s");
        totals.read("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s");
        assert_eq!(totals, Totals { runners: 2, passed: 15, failed: 2, ignored: 1 });
        assert_eq!(totals.line(false), "all tests: FAILED. 15 passed; 2 failed; 1 ignored; in 2 test programs");
    }
}
