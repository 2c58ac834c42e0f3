//! `cargo xtask bench`: builds the program that measures, optimised, and runs it.

#[path = "../../../tests/bench/src/names.rs"]
mod names;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use clap::builder::PossibleValuesParser;

use crate::shell::{self, Failure, Profile};

const PACKAGE: &str = "peerage-bench";
/// The same program, which counts what it allocates.
const COUNTING: &str = "peerage-bench-counting";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How to build what is measured; figures of `dev` show only that the measuring works.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    #[command(subcommand)]
    what: What,
}

/// What to measure.
#[derive(clap::Subcommand)]
enum What {
    /// One session: bulk, small messages, round trips, priority, long links, set-up, memory, load.
    ///
    /// Prints a line for each figure, `bench=… impl=… metric=… value=… min=… max=… unit=…`: the median of all rounds with
    /// its extremes. Lines with `metric=ratio … vs=…` compare within each round. What cannot be measured here says
    /// `skipped=…`.
    Session(Session),
    /// Requests and streams between two nodes.
    ///
    /// Requests of 128 bytes there and back: round trips, with both processes on one processor too, and as many a second
    /// as there can be with 1, 16 and 256 out, answered by a function and by a task. A stream: its throughput, alone and
    /// beside one that nobody reads, and a whole GiB, with how long a request takes on the same session meanwhile, and
    /// the memory of both.
    Router(Router),
    /// A flood of connections from 50 addresses against a node in a process of its own, while 20 honest peers gossip
    /// through it: what it refuses, what it costs, and what the honest notice of it.
    Flood(Flood),
    /// Fifty hostile peers at full speed against a node in a process of its own whose limits are those recommended and
    /// exempt nobody, while ten honest peers ask it and gossip through it: its memory beside what its limits add up to,
    /// what the honest notice, what becomes of the hostile. First without them, then attack by attack.
    Attack(Attack),
    /// What a session costs a whole node that does nothing with it: memory, with the exchange of peers and without.
    NodeMem(NodeMem),
    /// Discovery: the nearest sixteen, inserts, packets, and how many datagrams a second a core judges at the gate.
    Discovery(Discovery),
    /// A flood of datagrams on loopback against discovery whose limits exempt nobody, while honest peers ping it: what
    /// the kernel loses, what is dropped and why, what a drop costs beside one signature check, who is answered.
    DiscoveryFlood(DiscoveryFlood),
    /// Gossip over loopback: 20 nodes with 8 connections each in one process, 1 KiB at 20/s in all (processor time and
    /// bytes a delivery, time until all have a message, allocations), beside a flood over plain TCP; and messages a second
    /// through one node with 8 peers.
    Gossip(Gossip),
    /// The simulated world: events a second of a plain flood, beside a bare heap with as many entries.
    World(World),
}

#[derive(clap::Args)]
struct Gossip {
    /// Measure for three seconds where it is ten otherwise.
    #[arg(long)]
    quick: bool,
    /// Only these benches.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::GOSSIP))]
    only: Vec<String>,
    /// Rounds; in each, every way of gossip and the reference are measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Router {
    /// Measure for half a second where it is two otherwise.
    #[arg(long)]
    quick: bool,
    /// Only these benches.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::ROUTER))]
    only: Vec<String>,
    /// Rounds; in each, every implementation and the reference are measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct World {
    /// Nodes.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    nodes: u32,
    /// Rounds; in each, the flood and the heap are measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Discovery {
    /// Rounds; in each, every operation is measured once.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct DiscoveryFlood {
    /// Seconds that it lasts.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Datagrams a second; as many as this computer can, if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..))]
    rate: Option<u32>,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Flood {
    /// Connections that the attackers try to open.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    attempts: u32,
    /// Seconds in which they do.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Attack {
    /// Seconds that each attack lasts.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Only these attacks.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::ATTACK))]
    only: Vec<String>,
    /// By how many steps of `nice` the hostile process gives way to the others: where it shares their processors, and
    /// hostile peers elsewhere would not.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=19))]
    nice: u8,
    /// Give the node a processor that nobody else has, as on a computer of its own.
    #[arg(long)]
    apart: bool,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct NodeMem {
    /// Sessions that the node is given.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sessions: u32,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Session {
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
pub(crate) fn run(Args { profile, what }: &Args) -> Result<(), Failure> {
    let mut build = shell::cargo();
    build.args(["build", "--quiet", "--locked", "--profile", profile.name(), "--package", PACKAGE, "--bin", PACKAGE]);
    if matches!(what, What::Gossip(_)) {
        build.args(["--bin", COUNTING]);
    }
    shell::run(&mut build)?;
    let program = shell::metadata()?.target_directory.join(profile.folder()).join(PACKAGE);
    let program = program.as_std_path().with_extension(std::env::consts::EXE_EXTENSION);
    // Where the user stands, so that a relative file is theirs.
    shell::run(Command::new(program).args(arguments(what)))
}

/// The same words for the program that measures.
fn arguments(what: &What) -> Vec<OsString> {
    let (mut words, json) = match what {
        What::Session(args) => (rounds("session", args.quick, &args.only, args.pairs), &args.json),
        What::Router(args) => (rounds("router", args.quick, &args.only, args.pairs), &args.json),
        What::Gossip(args) => (rounds("gossip", args.quick, &args.only, args.pairs), &args.json),
        What::Flood(Flood { attempts, seconds, json }) => {
            let (attempts, seconds) = (attempts.to_string(), seconds.to_string());
            let words = ["flood", "--attempts", &attempts, "--seconds", &seconds];
            (words.map(OsString::from).to_vec(), json)
        }
        What::Attack(Attack { seconds, only, nice, apart, json }) => {
            let mut words: Vec<OsString> = vec!["attack".into(), "--seconds".into(), seconds.to_string().into()];
            if !only.is_empty() {
                words.extend(["--only".into(), only.join(",").into()]);
            }
            words.extend(["--nice".into(), nice.to_string().into()]);
            words.extend(apart.then(|| "--apart".into()));
            (words, json)
        }
        What::Discovery(Discovery { pairs, json }) => {
            let pairs = pairs.to_string();
            (["discovery", "--pairs", &pairs].map(OsString::from).to_vec(), json)
        }
        What::NodeMem(NodeMem { sessions, json }) => {
            let sessions = sessions.to_string();
            (["node-mem", "--sessions", &sessions].map(OsString::from).to_vec(), json)
        }
        What::DiscoveryFlood(DiscoveryFlood { seconds, rate, json }) => {
            let mut words = ["discovery-flood", "--seconds", &seconds.to_string()].map(OsString::from).to_vec();
            if let Some(rate) = rate {
                words.extend(["--rate".into(), rate.to_string().into()]);
            }
            (words, json)
        }
        What::World(World { nodes, pairs, json }) => {
            let (nodes, pairs) = (nodes.to_string(), pairs.to_string());
            let words = ["world", "--nodes", &nodes, "--pairs", &pairs];
            (words.map(OsString::from).to_vec(), json)
        }
    };
    if let Some(json) = json {
        words.extend(["--json".into(), json.into()]);
    }
    words
}

/// The words of a bench in rounds, of which some may be left out.
fn rounds(bench: &str, quick: bool, only: &[String], pairs: u16) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![bench.into(), "--pairs".into(), pairs.to_string().into()];
    if quick {
        words.push("--quick".into());
    }
    if !only.is_empty() {
        words.extend(["--only".into(), only.join(",").into()]);
    }
    words
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

    fn parse(words: &[&str]) -> Result<Vec<OsString>, String> {
        let parsed = Cli::try_parse_from([&["bench"], words].concat()).map_err(|error| error.to_string())?;
        Ok(arguments(&parsed.args.what))
    }

    #[test]
    fn the_measuring_program_is_told_what_the_user_said() {
        assert_eq!(parse(&["session"]), Ok(["session", "--pairs", "5"].map(OsString::from).to_vec()));
        let words = ["session", "--pairs", "7", "--quick", "--only", "wan,mem", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words = ["gossip", "--pairs", "3", "--quick", "--only", "gossip20,hub1k", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words = ["router", "--pairs", "1", "--quick", "--only", "requests-256", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words = ["world", "--nodes", "500", "--pairs", "1", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words = ["node-mem", "--sessions", "300", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words = ["discovery", "--pairs", "2", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words = ["discovery-flood", "--seconds", "3", "--rate", "5000", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words = ["flood", "--attempts", "100", "--seconds", "2", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
        let words =
            ["attack", "--seconds", "5", "--only", "requests,all", "--nice", "0", "--apart", "--json", "out.json"];
        assert_eq!(parse(&words), Ok(words.map(OsString::from).to_vec()));
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let why = parse(&["session", "--only", "bulk"]).expect_err("no such bench");
        assert!(names::SESSION.iter().all(|name| why.contains(name)), "{why}");
        let why = parse(&["attack", "--only", "reads"]).expect_err("no such attack");
        assert!(names::ATTACK.iter().all(|name| why.contains(name)), "{why}");
    }
}
