//! `cargo xtask`: what a maintainer runs, from the floor plan's checks to a cluster of real processes.

mod bench;
mod ci;
mod cluster;
mod floors;
mod interop;
mod reuse;
mod shell;
mod sim;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Checks, tests and clusters of Peerage")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a cluster of real nodes on loopback, gossips messages through it and accounts for every one.
    Cluster(cluster::Args),
    /// Runs every test of the workspace, doc tests included.
    Test(suite::Args),
    /// Checks the floor plan: who may depend on whom, and what may not appear where.
    Floors,
    /// Proves that each library crate stands alone: its examples run in a project of their own.
    Reuse(reuse::Args),
    /// Measures Peerage between two processes, beside references taken in the same run.
    Bench(bench::Args),
    /// Runs the protocols of thousands of nodes in one simulated world, as scenario files say.
    #[command(subcommand)]
    Sim(sim::Command),
    /// Lets the accelerated and the pure-Rust build of a session talk to each other.
    Interop,
    /// Runs everything a change must pass.
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Cluster(args) => return cluster::main(args),
        Command::Test(args) => suite::run(&args),
        Command::Floors => floors::run(),
        Command::Reuse(args) => reuse::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Sim(command) => sim::run(&command),
        Command::Interop => interop::run(),
        Command::Ci => ci::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
