//! Fifty hostile peers at full speed against a node in a process of its own, while ten honest ones ask it and ten others
//! gossip through it: first without the hostile, then attack by attack, each against a new node.

mod figures;
mod honest;
mod hostile;
mod victim;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use peerage_server::gossip::Topic;
use peerage_server::wire::{Keypair, NodeId};
use serde::{Deserialize, Serialize};

use crate::job::Impl;
use crate::machine::Machine;
use crate::process::Process;
use crate::report::Report;
use crate::stats::Summary;
use crate::{Failure, names};

/// Peers that attack, each with an identity and an address of its own.
const HOSTILE: usize = crate::flood::ATTACKERS;
/// Honest peers that ask, and as many that gossip. They are not the same, and have a process for each kind: whoever gossips
/// checks what the hostile publish, ten times in one process, and would be late with its own questions.
const HONEST: u8 = 10;
/// How long a process may take to be ready, or to answer while it is attacked.
const PATIENCE: Duration = Duration::from_secs(60);

/// The victim's handlers: at once the question, after some work a few bytes, and much for nothing.
const ECHO: &str = "echo/1";
const COSTLY: &str = "costly/1";
const LARGE: &str = "large/1";
/// Its handler of streams: sends without an end, and takes all that comes.
const BYTES: &str = "bytes/1";

/// The counters that say what gossip let go, and why.
const DROPS: &str = "peerage_gossip_drops_total";
/// And those that say how requests went.
const REQUESTS: &str = "peerage_router_events_total";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds that each attack lasts.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Only these attacks.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(names::ATTACK))]
    only: Vec<String>,
    /// By how many steps of `nice` the hostile process gives way to the others.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=19))]
    nice: u8,
    /// Give the node a processor that nobody else has, as on a computer of its own.
    #[arg(long)]
    apart: bool,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What hostile peers do all the time, as fast as they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Attack {
    /// They come, finish the handshake, and leave.
    Handshakes,
    /// They ask.
    Requests,
    /// They publish, announce, ask for messages, and come to meshes and leave them.
    Gossip,
    /// They open streams, and do the wrong thing with them.
    Streams,
    /// They have much sent to them, and do not read it.
    SlowReads,
    /// A fifth of them does each of these.
    All,
}

impl Attack {
    /// In the order of their names.
    const EVERY: [Attack; 6] =
        [Attack::Handshakes, Attack::Requests, Attack::Gossip, Attack::Streams, Attack::SlowReads, Attack::All];

    const fn name(self) -> &'static str {
        names::ATTACK[self as usize]
    }

    /// What the nth hostile peer does, and which of its kind it is.
    fn of(self, n: usize) -> (Attack, usize) {
        match self {
            Attack::All => (Attack::EVERY[n % 5], n / 5),
            alone => (alone, n),
        }
    }
}

/// One of the processes, and whether the node has a processor of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    part: Part,
    apart: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Part {
    /// The node that is attacked.
    Victim,
    /// The honest peers of one kind.
    Honest { found: Found, kind: Honest },
    /// The hostile ones.
    Hostile { found: Found, attack: Attack, seconds: u64, nice: u8 },
}

/// What honest peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Honest {
    Ask,
    Gossip,
}

/// Where the victim is to be found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Found {
    at: SocketAddr,
    id: NodeId,
}

/// What the victim has used and counted so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Facts {
    cpu_us: f64,
    /// How long its threads could have run and had no processor.
    waited_us: f64,
    rss_kib: f64,
    rss_peak_kib: f64,
    /// Hostile peers that have a session, and hostile identities that are banned.
    alive: usize,
    banned: usize,
    /// What the peer uses that uses most of the actors' time, and what it may use, averaged over some seconds.
    actors_most_millicores: f64,
    actors_target_millicores: f64,
    /// Processor time of the costly handler, by who asked.
    handler_us: Vec<(NodeId, f64)>,
    /// All of its counters, by their full names.
    counters: BTreeMap<String, u64>,
}

/// How it went for the honest.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Fared {
    peers_lost: usize,
    pings: usize,
    /// By why.
    failed: BTreeMap<String, u64>,
    ping_ms: Percentiles,
    published: usize,
    delivered_percent: f64,
    delivery_ms: Percentiles,
    /// What their gossip let go, by why.
    dropped: BTreeMap<String, u64>,
    requests: BTreeMap<String, u64>,
}

impl Fared {
    /// Those who asked, and those who gossiped.
    fn and(self, gossiped: Fared) -> Fared {
        let peers_lost = self.peers_lost + gossiped.peers_lost;
        let Fared { pings, failed, ping_ms, requests, .. } = self;
        Fared { peers_lost, pings, failed, ping_ms, requests, ..gossiped }
    }
}

/// Of latencies, in ms.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    most: f64,
}

/// What the hostile did and got.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Spoils {
    cpu_us: f64,
    counted: BTreeMap<String, u64>,
}

fn topic() -> Result<Topic, Failure> {
    Topic::new("attacked").map_err(|error| error.to_string().into())
}

/// The keys of the nth hostile peer.
fn keys(n: usize) -> Keypair {
    let mut seed = [13; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    Keypair::from_seed(seed)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    tokio::runtime::Builder::new_multi_thread().worker_threads(processors.min(2)).enable_all().build()
}

/// Measures the calm, and each attack that is wanted.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    crate::machine::raise_open_files();
    let runtime = runtime()?;
    let mut report = Report::begin(Machine::here(), 1, false);
    let wanted = |attack: &Attack| args.only.is_empty() || args.only.iter().any(|name| name == attack.name());
    let attacks = Attack::EVERY.into_iter().filter(wanted);
    let mut broken = Vec::new();
    for attack in std::iter::once(None).chain(attacks.map(Some)) {
        let name = attack.map_or("calm", Attack::name);
        let limit = Duration::from_secs(args.seconds) + 5 * PATIENCE;
        let measured = runtime.block_on(async { tokio::time::timeout(limit, measure(args, attack)).await });
        match measured.unwrap_or_else(|_| Err("it does not end".into())) {
            Ok(figures) => {
                for (metric, value, unit) in figures {
                    let of = Summary { median: value, min: value, max: value };
                    report.figure("attack", Impl::Peerage, &format!("{name}.{metric}"), unit, of, None);
                }
            }
            // The others say something all the same.
            Err(error) => {
                report.skipped("attack", Impl::Peerage, &format!("{name}: {error}"));
                broken.push(name);
            }
        }
    }
    args.json.as_deref().map_or(Ok(()), |to| report.write(to))?;
    if broken.is_empty() { Ok(()) } else { Err(format!("not measured: {}", broken.join(", ")).into()) }
}

/// Does one process's part.
pub(crate) fn part(part: &str) -> Result<(), Failure> {
    crate::machine::raise_open_files();
    let Place { part, apart } = serde_json::from_str(part)?;
    match part {
        _ if !apart => {}
        Part::Victim => crate::machine::pin_to_one_cpu()?,
        _ => crate::machine::pin_to_other_cpus()?,
    }
    runtime()?.block_on(async {
        match part {
            Part::Victim => victim::run().await,
            Part::Honest { found, kind } => honest::run(found, kind).await,
            Part::Hostile { found, attack, seconds, nice } => {
                crate::machine::give_way(nice)?;
                hostile::run(found, attack, Duration::from_secs(seconds)).await
            }
        }
    })
}

async fn measure(args: &Args, attack: Option<Attack>) -> Result<figures::Figures, Failure> {
    let own = std::env::current_exe()?;
    let start = |part| Process::start(&own, "attack-part", &Place { part, apart: args.apart });
    let mut victim = start(Part::Victim)?;
    let found: Found = victim.hear(PATIENCE).await?;
    let mut honest =
        [start(Part::Honest { found, kind: Honest::Ask })?, start(Part::Honest { found, kind: Honest::Gossip })?];
    for honest in &mut honest {
        honest.hear::<()>(PATIENCE).await?;
    }
    let before: Facts = victim.ask().await?;
    for honest in &mut honest {
        honest.ask::<()>().await?;
    }
    let Args { seconds, nice, .. } = *args;
    let (mut hostile, mut spoils) = (None, Spoils::default());
    match attack {
        None => tokio::time::sleep(Duration::from_secs(seconds)).await,
        Some(attack) => {
            let process = hostile.insert(start(Part::Hostile { found, attack, seconds, nice })?);
            spoils = process.hear(Duration::from_secs(seconds) + PATIENCE).await?;
        }
    }
    // They go on until all is known.
    let during: Facts = victim.ask_within(PATIENCE).await?;
    drop(hostile);
    let [asked, gossiped] = &mut honest;
    let asked: Fared = asked.ask_within(PATIENCE).await?;
    let fared = asked.and(gossiped.ask_within(PATIENCE).await?);
    let after: Facts = victim.ask_within(PATIENCE).await?;
    let time = Duration::from_secs(seconds);
    Ok(figures::of(&figures::Run { time, attacked: attack.is_some(), before, during, after, fared, spoils }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_attack_and_all_of_them_is_ten_of_each() {
        assert_eq!(Attack::EVERY.map(Attack::name), names::ATTACK);
        let mut each = BTreeMap::new();
        for n in 0..HOSTILE {
            let (attack, number) = Attack::All.of(n);
            each.entry(attack.name()).or_insert_with(Vec::new).push(number);
        }
        assert_eq!(each.len(), 5);
        assert!(each.values().all(|numbers| *numbers == Vec::from_iter(0..10)), "{each:?}");
    }
}
