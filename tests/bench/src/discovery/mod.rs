//! What discovery costs: its table, its packets, its gate, and a flood of datagrams on loopback.

mod closest;
mod flood;
mod gate;
mod table;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use peerage_discovery::wire::{Cookie, Message, Nonce, Packet};
use peerage_machine::Time;
use peerage_server::wire::{Keypair, NetworkId};
use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::job::Impl;
use crate::machine::Machine;
use crate::report::Report;
use crate::stats::Summary;

pub(crate) use flood::{Args as FloodArgs, run as run_flood};

const UNIX: u64 = 1_700_000_000;
/// How long each operation is repeated in a round, in nanoseconds.
const ROUND: u64 = 200_000_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; in each, every operation is measured once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn network() -> NetworkId {
    NetworkId::named("bench")
}

fn keys(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn now() -> Time {
    Time::new(Duration::from_secs(5), Duration::from_secs(UNIX))
}

fn packet(message: Message) -> Packet {
    Packet { nonce: Nonce { counter: 1, mac: [7; 8] }, cookie: Cookie::NONE, expiry: UNIX + 20, message }
}

fn ping() -> Packet {
    packet(Message::Ping { record_seq: UNIX * 1_000 })
}

/// Nanoseconds of processor time of the calling thread: whoever else uses the machine makes it slower only through what
/// the cores share.
fn thread_cpu() -> u64 {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(at.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0)
}

/// Nanoseconds an operation, repeated for a round.
fn cost<T>(mut operation: impl FnMut() -> T) -> f64 {
    let (begun, mut times) = (thread_cpu(), 0_u32);
    while thread_cpu() - begun < ROUND {
        // Asking the time for each would be measured too.
        for _ in 0..64 {
            black_box(operation());
        }
        times += 64;
    }
    (thread_cpu() - begun) as f64 / f64::from(times)
}

/// All rounds of each operation.
type Figures = Vec<(Impl, &'static str, Vec<f64>)>;

fn note(figures: &mut Figures, by: Impl, metric: &'static str, value: f64) {
    match figures.iter_mut().find(|(other, name, _)| *other == by && *name == metric) {
        Some((_, _, values)) => values.push(value),
        None => figures.push((by, metric, vec![value])),
    }
}

fn round(figures: &mut Figures) -> Result<(), Failure> {
    let packet = ping();
    let bytes = packet.seal(network(), &keys(1), keys(2).id());
    note(figures, Impl::Peerage, "seal_ns", cost(|| packet.seal(network(), &keys(1), keys(2).id())));
    let read = || peerage_discovery::wire::Envelope::read(&bytes).map_err(|reason| reason.label());
    note(figures, Impl::Peerage, "decode_ns", cost(|| read().map(|envelope| envelope.open())));
    let envelope = read()?;
    note(figures, Impl::Peerage, "verify_ns", cost(|| envelope.verify()));
    let key = SigningKey::from_bytes(&[1; 32]);
    let message = &bytes[..bytes.len() - 64];
    let (signature, public) = (key.sign(message), key.verifying_key());
    note(figures, Impl::Ed25519, "verify_ns", cost(|| public.verify_strict(message, &signature)));
    gate::measure(figures);
    table::measure(figures)?;
    closest::measure(figures)
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut report = Report::begin(Machine::here(), args.pairs.into(), false);
    let mut figures = Figures::new();
    for _ in 0..args.pairs {
        round(&mut figures)?;
    }
    for (by, metric, values) in &figures {
        let unit = match metric {
            metric if metric.ends_with("_s") => "1/s",
            metric if metric.ends_with("_ns") => "ns",
            _ => "1",
        };
        if let Some(of) = Summary::of(values) {
            report.figure("discovery", *by, metric, unit, of, None);
        }
    }
    args.json.as_deref().map_or(Ok(()), |to| report.write(to))
}
