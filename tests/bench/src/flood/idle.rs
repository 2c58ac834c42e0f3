//! What a session costs a whole node that does nothing with it: memory before and after many peers came, with the exchange
//! of peers and without.

use std::path::PathBuf;
use std::time::Duration;

use peerage_server::mailbox::{Clock, Meter};
use peerage_server::peer_session::{Endpoint, EndpointConfig, Peer};
use peerage_server::transport::{Stream, Transport};
use peerage_server::wire::Keypair;

use super::{Facts, Found, Part, Process};
use crate::Failure;
use crate::job::Impl;
use crate::machine::Machine;
use crate::report::Report;
use crate::stats::Summary;

/// How long nothing is done before memory is looked at: buffers of the handshakes are given back by then.
const REST: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Sessions that the node is given.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sessions: u32,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures both kinds of node, one after another.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    crate::machine::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::begin(Machine::here(), 1, false);
    for (name, exchange) in [("exchange_off", false), ("exchange_on", true)] {
        let kib = runtime.block_on(measure(args.sessions, exchange))?;
        let of = Summary { median: kib, min: kib, max: kib };
        report.figure("node-mem", Impl::Peerage, &format!("{name}.{}", args.sessions), "kib", of, None);
    }
    args.json.as_deref().map_or(Ok(()), |to| report.write(to))
}

/// KiB that a session costs the node.
async fn measure(sessions: u32, exchange: bool) -> Result<f64, Failure> {
    let mut node = Process::start(&std::env::current_exe()?, "flood-part", &Part::Idle { sessions, exchange })?;
    let found: Found = node.hear(Duration::from_secs(10)).await?;
    tokio::time::sleep(REST).await;
    let before = node.ask::<Facts>().await?.rss_kib;
    let mut peers = Vec::new();
    for number in 0..sessions {
        let mut peer = dial(number, exchange, &found).await?;
        peers.push(tokio::spawn(async move { while peer.recv().await.is_some() {} }));
    }
    tokio::time::sleep(REST).await;
    let after = node.ask::<Facts>().await?.rss_kib;
    let lost = peers.iter().filter(|peer| peer.is_finished()).count();
    if lost > 0 {
        return Err(format!("{lost} of {sessions} sessions did not last").into());
    }
    if after == 0.0 {
        return Err("the system does not say how much memory a process has".into());
    }
    Ok((after - before) / f64::from(sessions))
}

/// A peer that nobody else is, speaking what the node speaks.
async fn dial(number: u32, exchange: bool, to: &Found) -> Result<Peer, Failure> {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let protocols: &[(&str, u16)] = if exchange { &[("gossip", 1), ("peers", 1)] } else { &[("gossip", 1)] };
    let config =
        EndpointConfig { clock: Clock::system(), meter: Meter::none(), sessions: 2, ..EndpointConfig::recommended() };
    let network = peerage_server::Config::local().network;
    let endpoint = Endpoint::with(&Keypair::from_seed(seed), &network, protocols, config)?;
    let stream: Stream = Transport::sockets().connect(to.at).await?;
    Ok(endpoint.dial(stream, to.id).await?)
}
