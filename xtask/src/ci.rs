//! `cargo xtask ci`: everything a change must pass, step by step, each with its name and time.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::shell::{self, Failure};

/// What a step found.
enum Passed {
    Clean,
    /// It passed, and this is worth a line in the summary.
    Noted(String),
}

type Step = (&'static str, fn() -> Result<Passed, Failure>);

/// Every step runs even when an earlier one failed: one run shows the whole bill.
const STEPS: [Step; 16] = [
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])),
    ("floors", || xtask(&["floors"])),
    ("deny", || cargo(&["deny", "--locked", "check", "bans", "licenses", "sources"])),
    ("advisories", advisories),
    ("unused dependencies", || cargo(&["machete", "--skip-target-dir"])),
    ("tests", || xtask(&["test"])),
    ("machines alone", machines),
    ("loom", || {
        let features = "peerage-mailbox/loom,peerage-queue/loom";
        cargo(&[
            "test",
            "--locked",
            "-p",
            "peerage-mailbox",
            "-p",
            "peerage-queue",
            "--features",
            features,
            "--lib",
            "loom",
        ])
    }),
    // The pure-Rust ciphers and curve, with everything around them.
    ("pure", || {
        cargo(&["test", "--locked", "-p", "peerage-peer-session", "--no-default-features", "--features", "actor"])
    }),
    ("interop", || xtask(&["interop"])),
    ("docs", docs),
    ("reuse", || xtask(&["reuse"])),
    ("cluster", || xtask(&["cluster", "--nodes", "5", "--kill", "1", "--messages", "300", "--profile", "dev"])),
    // The small scenarios, with one seed each: the same runs as those whose figures are committed.
    ("world", || xtask(&["sim", "compare", "--quick", "--seeds", "1"])),
    // Not for its figures, which a shared machine cannot give: that the measuring works.
    ("bench", || {
        let only = "rtt128,small128,priority-10mbit,mem";
        xtask(&["bench", "--profile", "dev", "session", "--quick", "--pairs", "1", "--only", only])
    }),
];

pub(crate) fn run() -> Result<(), Failure> {
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    let start = Instant::now();
    for (index, (name, step)) in STEPS.iter().enumerate() {
        println!("\n== {}/{} {name}", index + 1, STEPS.len());
        let begun = Instant::now();
        let verdict = match step() {
            Ok(Passed::Clean) => "ok".to_owned(),
            Ok(Passed::Noted(note)) => format!("ok ({note})"),
            Err(error) => {
                failed.push(*name);
                format!("FAILED: {error}")
            }
        };
        let line = format!("{name:<20} {:>8}  {verdict}", seconds(begun.elapsed()));
        println!("== {line}");
        lines.push(line);
    }
    println!("\n== summary\n{}\n{:<20} {:>8}", lines.join("\n"), "total", seconds(start.elapsed()));
    if failed.is_empty() { Ok(()) } else { Err(Failure::Check(format!("failed: {}", failed.join(", ")))) }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn cargo(arguments: &[&str]) -> Result<Passed, Failure> {
    finish(shell::cargo().args(arguments))
}

/// A subcommand of this same program, as a process of its own: its exit code is what a user would get.
fn xtask(arguments: &[&str]) -> Result<Passed, Failure> {
    let program = std::env::current_exe().map_err(Failure::file("the path of this program"))?;
    finish(Command::new(program).args(arguments).current_dir(shell::root()))
}

fn finish(command: &mut Command) -> Result<Passed, Failure> {
    println!("$ {}", shell::line(command));
    shell::run(command)?;
    Ok(Passed::Clean)
}

/// The rules without the actors around them: what a user gets who brings a runtime of their own.
fn machines() -> Result<Passed, Failure> {
    let alone = [
        "peerage-nodedb",
        "peerage-queue",
        "peerage-peer-session",
        "peerage-discovery",
        "peerage-dialer",
        "peerage-gossip",
        "peerage-router",
    ];
    let packages = alone.into_iter().flat_map(|package| ["-p", package]);
    let arguments: Vec<&str> =
        ["test", "--locked", "--no-default-features", "--lib"].into_iter().chain(packages).collect();
    cargo(&arguments)
}

fn docs() -> Result<Passed, Failure> {
    finish(shell::cargo().env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--locked"]))
}

/// The advisory database lives on the network; a machine without it still gets every other answer.
fn advisories() -> Result<Passed, Failure> {
    if let Err(error) = shell::capture(shell::cargo().args(["deny", "fetch", "db"])) {
        println!("{error}");
        return Ok(Passed::Noted("not checked: the advisory database could not be fetched".to_owned()));
    }
    cargo(&["deny", "--locked", "--offline", "check", "advisories"])
}
