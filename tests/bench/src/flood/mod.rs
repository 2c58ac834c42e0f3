//! A flood of connections against a node in a process of its own, while twenty honest peers gossip through it.

#[expect(unreachable_pub, reason = "the tests' library has it as a public module")]
#[path = "../../../src/attack.rs"]
mod attack;
mod attackers;
mod honest;
pub(crate) mod idle;
mod victim;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use peerage_server::transport::Stream;
use peerage_server::wire::NodeId;
use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;

use crate::Failure;
use crate::job::Impl;
use crate::machine::Machine;
use crate::process::Process;
use crate::report::Report;
use crate::stats::Summary;

/// Addresses that attack.
pub(crate) const ATTACKERS: usize = 50;
/// How long an attacker holds on to a connection at most.
const HOLD: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Connections that the attackers try to open.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    attempts: u32,
    /// Seconds in which they do.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One of the processes of a flood.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    /// The node that is attacked.
    Victim,
    /// A node that has many peers and nothing to do, with the exchange of peers or without.
    Idle { sessions: u32, exchange: bool },
    /// Those who attack it.
    Attackers { at: SocketAddr, to: NodeId, attempts: u32, seconds: u64, spread: bool },
}

/// Where the victim is to be found.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    at: SocketAddr,
    id: NodeId,
}

/// What the victim has used and counted so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Facts {
    cpu_us: f64,
    rss_kib: f64,
    rss_peak_kib: f64,
    /// Connections refused before any cryptography, by reason.
    refused: BTreeMap<String, f64>,
    /// Inbound handshakes, by outcome.
    handshakes: BTreeMap<String, f64>,
}

/// What the attackers got, by what they did.
type Spoils = BTreeMap<String, u32>;

/// The address of an attacker: each in a network of its own, or all in two.
pub(crate) fn attacker(spread: bool, n: usize) -> IpAddr {
    match spread {
        true => Ipv4Addr::new(127, 10 + n as u8, 0, 1),
        false => Ipv4Addr::new(127, 1, (n % 2) as u8, n as u8),
    }
    .into()
}

/// Connects from a given address of this computer.
pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<Stream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(Stream::new(socket.connect(to).await?, to))
}

/// Floods a node twice: from many networks and from few.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    crate::machine::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::begin(Machine::here(), 1, false);
    for (prefixes, spread) in [("many_prefixes", true), ("few_prefixes", false)] {
        let limit = Duration::from_secs(args.seconds) * 2 + Duration::from_secs(120);
        let flooded = runtime.block_on(async { tokio::time::timeout(limit, flood(args, spread)).await });
        for (metric, value, unit) in flooded.map_err(|_| "the flood does not end")?? {
            let of = Summary { median: value, min: value, max: value };
            report.figure("flood", Impl::Peerage, &format!("{prefixes}.{metric}"), unit, of, None);
        }
    }
    args.json.as_deref().map_or(Ok(()), |to| report.write(to))
}

/// Does one process's part.
pub(crate) fn part(part: &str) -> Result<(), Failure> {
    crate::machine::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match serde_json::from_str(part)? {
            Part::Victim => victim::run(victim::config()?).await,
            Part::Idle { sessions, exchange } => victim::run(victim::idle(sessions, exchange)).await,
            Part::Attackers { at, to, attempts, seconds, spread } => {
                let spoils = attackers::run(at, to, attempts, Duration::from_secs(seconds), spread).await?;
                println!("{}", serde_json::to_string(&spoils)?);
                Ok(())
            }
        }
    })
}

type Figures = Vec<(String, f64, &'static str)>;

async fn flood(args: &Args, spread: bool) -> Result<Figures, Failure> {
    let own = std::env::current_exe()?;
    let mut victim = Process::start(&own, "flood-part", &Part::Victim)?;
    let Found { at, id } = victim.hear(Duration::from_secs(10)).await?;
    let mut honest = honest::Honest::start(at, id).await?;
    let before: Facts = victim.ask().await?;
    let Args { attempts, seconds, .. } = *args;
    let part = Part::Attackers { at, to: id, attempts, seconds, spread };
    let mut attackers = Process::start(&own, "flood-part", &part)?;
    let gossip = honest.gossip(at, id, Duration::from_secs(seconds)).await;
    let spoils: Spoils = attackers.hear(HOLD * 3).await?;
    let after: Facts = victim.ask().await?;
    let mut figures: Figures = vec![
        ("attempts".into(), f64::from(attempts), "connections"),
        ("rss_before_kib".into(), before.rss_kib, "KiB"),
        ("rss_peak_kib".into(), after.rss_peak_kib, "KiB"),
        ("cpu_percent".into(), (after.cpu_us - before.cpu_us) / (seconds as f64 * 1e4), "percent_of_core"),
        ("honest_peers_lost".into(), gossip.lost as f64, "peers"),
        ("messages_published".into(), gossip.published as f64, "messages"),
        ("delivery_percent".into(), gossip.delivered_percent, "percent"),
        ("delivery_p50_ms".into(), gossip.p50.as_secs_f64() * 1e3, "ms"),
        ("delivery_p99_ms".into(), gossip.p99.as_secs_f64() * 1e3, "ms"),
        ("newcomers".into(), gossip.newcomers as f64, "nodes"),
        ("newcomers_answered".into(), gossip.answered as f64, "nodes"),
        ("newcomers_taken".into(), gossip.taken as f64, "nodes"),
    ];
    for (kind, counts) in [("refused", &after.refused), ("handshakes", &after.handshakes)] {
        figures.extend(counts.iter().map(|(why, count)| (format!("{kind}.{why}"), *count, "connections")));
    }
    figures.extend(spoils.iter().map(|(what, count)| (format!("attackers.{what}"), f64::from(*count), "connections")));
    honest.stop().await;
    Ok(figures)
}
