//! How fast the world runs: a plain flood over open connections, beside a bare heap that does nothing but sort as many
//! entries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use peerage_machine::Rng;
use peerage_sim::{Conn, Event, HostId, HostSpec, Links, Net, Node, Payload, World, resident_bytes};

use crate::Failure;
use crate::job::Impl;
use crate::machine::{Machine, Usage};
use crate::report::Report;
use crate::stats::{Summary, ratios};

/// To how many others a node passes on what is new to it.
const NEIGHBOURS: usize = 8;
/// Messages that flood the network, ten a second.
const MESSAGES: u32 = 40;
const EVERY: Duration = Duration::from_millis(100);
const LATENCY: Duration = Duration::from_millis(50);
/// A message comes late by up to half the latency.
const JITTER: u32 = 500_000;
/// When the connections are open and nothing else happens.
const OPEN: Duration = Duration::from_secs(1);
/// When the last message has reached everybody.
const END: Duration = Duration::from_secs(8);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    nodes: u32,
    /// Rounds; in each, the flood and the heap are measured once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pairs: u16,
    /// Write the figures to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Numbered(u32);

impl Payload for Numbered {
    fn size(&self) -> usize {
        100
    }

    fn mark(&self) -> u64 {
        self.0.into()
    }
}

/// As cheap as a node can be that remembers what it has seen.
struct Flooder {
    neighbours: Vec<SocketAddr>,
    conns: Vec<Conn>,
    seen: u64,
}

impl Flooder {
    fn pass_on(&mut self, number: u32, net: &mut Net<'_, Flooder>) {
        if self.seen & 1 << number == 0 {
            self.seen |= 1 << number;
            self.conns.iter().for_each(|conn| net.write(*conn, Numbered(number)));
        }
    }
}

impl Node for Flooder {
    type Message = Numbered;
    type Command = u32;
    type Note = ();

    fn handle(&mut self, event: Event<Flooder>, net: &mut Net<'_, Flooder>) {
        match event {
            Event::Start => self.conns = self.neighbours.drain(..).map(|to| net.connect(to)).collect(),
            Event::Message { message: Numbered(number), .. } | Event::Command(number) => self.pass_on(number, net),
            _ => {}
        }
    }
}

fn address(host: u32) -> SocketAddr {
    (Ipv4Addr::from(0x1400_0000 + host), 30303).into()
}

/// What a flood did and took.
struct Flooded {
    events: u64,
    per_second: f64,
    /// What was on the agenda, on average.
    pending: usize,
    digest: String,
    /// Bytes of memory that the world took for each node, with its connections; none where the system does not say.
    bytes_per_node: Option<f64>,
}

fn flood(nodes: u32) -> Result<Flooded, Failure> {
    let before = resident_bytes();
    let mut world = World::new(Links { jitter: JITTER, ..Links::uniform(LATENCY) }, 1);
    let mut rng = Rng::new(1);
    for host in 0..nodes {
        world.add(HostSpec::at(address(host)));
    }
    for host in 0..nodes {
        let neighbours = (0..NEIGHBOURS).map(|_| address(rng.below(nodes.into()) as u32)).collect();
        world.start(HostId(host), Flooder { neighbours, conns: Vec::new(), seen: 0 });
    }
    world.run_until(OPEN, |_, _, ()| {});
    let after = resident_bytes();
    for number in 0..MESSAGES {
        world.command_in(EVERY * number, HostId(rng.below(nodes.into()) as u32), number);
    }
    let (told, begun) = (world.events(), Usage::now().cpu_us);
    let (mut pending, mut steps) = (0, 0);
    while world.now() < END {
        world.run_until(world.now() + EVERY / 4, |_, _, ()| {});
        if world.pending() > MESSAGES as usize {
            (pending, steps) = (pending + world.pending(), steps + 1);
        }
    }
    let events = world.events() - told;
    let seconds = (Usage::now().cpu_us - begun) / 1e6;
    // Whom nobody chose as a neighbour hears nothing: about one in three thousand.
    let reached = world.nodes().map(|(_, node)| u64::from(node.seen.count_ones())).sum::<u64>();
    if world.pending() > 0 || reached * 100 < u64::from(nodes) * u64::from(MESSAGES) * 99 {
        return Err(format!("the flood did not reach everybody: {reached} deliveries").into());
    }
    Ok(Flooded {
        events,
        per_second: events as f64 / seconds,
        pending: pending / steps.max(1),
        digest: world.digest().to_string(),
        bytes_per_node: before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64 / f64::from(nodes)),
    })
}

/// Takes and enters as many entries as there were events, with as many in the heap and the same delays.
fn heap(flooded: &Flooded) -> f64 {
    let (mut rng, latency) = (1_u64, LATENCY.as_nanos() as u64);
    let mut delay = || {
        // Xorshift (Marsaglia 2003): the reference is not slowed down by its lots.
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        latency + ((u128::from(rng) * u128::from(latency / 2)) >> 64) as u64
    };
    let mut heap: BinaryHeap<Reverse<(u64, u32)>> =
        (0..flooded.pending as u32).map(|n| Reverse((delay(), n))).collect();
    let begun = Usage::now().cpu_us;
    for _ in 0..flooded.events {
        if let Some(Reverse((at, slot))) = heap.pop() {
            heap.push(Reverse((at + delay(), slot)));
        }
    }
    let seconds = (Usage::now().cpu_us - begun) / 1e6;
    std::hint::black_box(&heap);
    flooded.events as f64 / seconds
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut report = Report::begin(Machine::here(), args.pairs.into(), false);
    let (mut flooded, mut heaped): (Vec<Flooded>, Vec<f64>) = (Vec::new(), Vec::new());
    for _ in 0..args.pairs {
        let round = flood(args.nodes)?;
        heaped.push(heap(&round));
        flooded.push(round);
    }
    if flooded.iter().any(|round| round.digest != flooded[0].digest) {
        return Err("equal seeds gave different digests".into());
    }
    let rates: Vec<f64> = flooded.iter().map(|round| round.per_second).collect();
    let mut figure = |by, metric: &str, unit, values: &[f64], vs| {
        if let Some(of) = Summary::of(values) {
            report.figure("world", by, metric, unit, of, vs);
        }
    };
    // Of processor time: whoever else uses the machine makes it no slower than the shared caches do.
    figure(Impl::Peerage, "events_s", "1/s", &rates, None);
    figure(Impl::BinaryHeap, "events_s", "1/s", &heaped, None);
    figure(Impl::Peerage, "ratio", "x", &ratios(&rates, &heaped), Some(Impl::BinaryHeap));
    figure(Impl::Peerage, "events", "1", &[flooded[0].events as f64], None);
    figure(Impl::Peerage, "pending", "1", &[flooded[0].pending as f64], None);
    // Later rounds use again what the first one gave back.
    figure(Impl::Peerage, "bytes_per_node", "B", flooded[0].bytes_per_node.as_slice(), None);
    args.json.as_deref().map_or(Ok(()), |to| report.write(to))
}
