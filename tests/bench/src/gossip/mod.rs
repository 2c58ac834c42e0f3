//! What gossip costs: twenty nodes in one process on loopback, and one node that all messages go through.

mod graph;
mod hub;
mod net;
mod rate;
mod rawtcp;
mod tally;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use serde::{Deserialize, Serialize};

use self::net::Change;
use crate::job::{Impl, Values};
use crate::machine::Machine;
use crate::process::Process;
use crate::report::Report;
use crate::stats::{Summary, ratios};
use crate::{Failure, names};

/// The ways of gossip that are measured, and how a node is configured for each. One that is put here is measured in every
/// bench, beside the first.
const MODES: &[(Impl, Change)] = &[
    (Impl::Peerage, |_| {}),
    (Impl::PeerageGossipsub, |config| *config = peerage_server::gossip::Config::gossipsub()),
];

/// Sizes of the messages that go through one node, by bench.
const HUBS: [(&str, usize); 3] = [("hub128", 128), ("hub1k", 1024), ("hub64k", 64 << 10)];

/// Units, by metric.
const METRICS: [(&str, &str); 12] = [
    ("cpu_us", "us_per_delivery"),
    ("bytes", "bytes_per_byte"),
    ("copies", "per_message"),
    ("p50_ms", "ms"),
    ("p99_ms", "ms"),
    ("delivered_percent", "percent"),
    ("twice", "deliveries"),
    ("idle_percent", "percent_of_core"),
    ("allocations", "per_delivery"),
    ("allocated_bytes", "bytes_per_delivery"),
    ("msgs_s", "1/s"),
    ("hub_cpu_us", "us_per_message"),
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure for three seconds where it is ten otherwise.
    #[arg(long)]
    quick: bool,
    /// Only these benches.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::GOSSIP))]
    only: Vec<String>,
    /// Rounds; in each, every way and the reference are measured once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How long before figures count, and how long they do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Times {
    warm: Duration,
    run: Duration,
}

/// One of the processes of a bench.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Part {
    /// The node that messages go through, in the way of this place in [`MODES`].
    Hub { mode: usize },
    /// The twenty nodes again, in the program that counts allocations.
    Counting { mode: usize, times: Times, seed: u64 },
}

fn mode(place: usize) -> Result<Change, Failure> {
    Ok(MODES.get(place).ok_or("there is no such mode")?.1)
}

/// What is measured in a round under one name by one of the ways.
type Figures = BTreeMap<(&'static str, Impl), BTreeMap<String, Vec<f64>>>;

/// Runs to the end in a runtime of its own, so that nothing is left for the next one.
fn apart<T>(bench: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(300), bench).await })?
}

/// The same as [`rate::run`] by the program beside this one. `None` if it was not built.
fn counted(place: usize, times: Times, seed: u64) -> Result<Option<Values>, Failure> {
    let program = std::env::current_exe()?.with_file_name("peerage-bench-counting");
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    if !program.exists() {
        return Ok(None);
    }
    apart(async {
        let part = Part::Counting { mode: place, times, seed };
        let mut process = Process::start(&program, "gossip-part", &part)?;
        process.hear(Duration::from_secs(120)).await.map(Some)
    })
}

fn round(names: &[&'static str], quick: bool, seed: u64, figures: &mut Figures) -> Result<(), Failure> {
    let seconds = Duration::from_secs;
    let times =
        if quick { Times { warm: seconds(3), run: seconds(3) } } else { Times { warm: seconds(10), run: seconds(10) } };
    let mut note = |bench, by, values: Values| {
        let known = figures.entry((bench, by)).or_default();
        values.into_iter().for_each(|(metric, value)| known.entry(metric).or_default().push(value));
    };
    for name in names {
        for (place, (by, change)) in MODES.iter().enumerate() {
            let hub = HUBS.iter().find(|(hub, _)| hub == name);
            let values = match hub {
                Some((_, size)) => {
                    let times = Times { warm: seconds(1), run: times.run / 3 };
                    apart(hub::run(&Part::Hub { mode: place }, *change, *size, times))?
                }
                None if *name == "gossip20" => apart(rate::run(*change, times, seed))?,
                None => {
                    let Some(mut values) = counted(place, times, seed)? else { continue };
                    values.retain(|metric, _| metric.starts_with("alloc"));
                    values
                }
            };
            note(*name, *by, values);
        }
        if *name == "gossip20" {
            // Nothing is learnt in a flood, so it needs no time for it.
            note(*name, Impl::RawTcp, apart(rawtcp::run(Times { warm: seconds(1), ..times }, seed))?);
        }
    }
    Ok(())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    crate::machine::raise_open_files();
    let mut report = Report::begin(Machine::here(), args.pairs.into(), args.quick);
    let chosen = |name: &&str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let names: Vec<&'static str> = names::GOSSIP.into_iter().filter(chosen).collect();
    let mut figures = Figures::new();
    for seed in 1..=u64::from(args.pairs) {
        round(&names, args.quick, seed, &mut figures)?;
    }
    for bench in names {
        for by in MODES.iter().map(|(by, _)| *by).chain([Impl::RawTcp]) {
            let Some(known) = figures.get(&(bench, by)) else {
                if by != Impl::RawTcp {
                    report.skipped(bench, by, "build peerage-bench-counting beside this program");
                }
                continue;
            };
            for (metric, unit) in METRICS {
                if let Some(of) = known.get(metric).and_then(|values| Summary::of(values)) {
                    report.figure(bench, by, metric, unit, of, None);
                }
            }
            let raw = figures.get(&(bench, Impl::RawTcp)).filter(|_| by != Impl::RawTcp);
            let pairs = raw.and_then(|raw| Some(ratios(known.get("cpu_us")?, raw.get("cpu_us")?)));
            if let Some(of) = pairs.and_then(|pairs| Summary::of(&pairs)) {
                report.figure(bench, by, "ratio", "x", of, Some(Impl::RawTcp));
            }
        }
    }
    args.json.as_deref().map_or(Ok(()), |to| report.write(to))
}

/// Does one process's part.
pub(crate) fn part(part: &str) -> Result<(), Failure> {
    crate::machine::raise_open_files();
    match serde_json::from_str(part)? {
        // It ends with its input, so it has no limit of time.
        Part::Hub { mode: place } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(hub::part(mode(place)?))
        }
        Part::Counting { mode: place, times, seed } => {
            let values = apart(rate::run(mode(place)?, times, seed))?;
            println!("{}", serde_json::to_string(&values)?);
            Ok(())
        }
    }
}
