//! Twenty nodes with eight connections each and a steady rate of messages: what a delivery costs, and how soon all have it.

use std::time::Duration;

use peerage_machine::Rng;
use stats_alloc::INSTRUMENTED_SYSTEM;
use tokio::time::{Instant, interval};

use super::net::{Change, Node, wire};
use super::tally::Tally;
use super::{Times, graph};
use crate::Failure;
use crate::job::Values;
use crate::machine::Usage;
use crate::stats::percentile;

pub(super) const NODES: usize = 20;
pub(super) const DEGREE: usize = 8;
pub(super) const SIZE: usize = 1024;
/// Between two messages, whoever publishes them.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// They tell each other their topics, and choose with whom to exchange messages.
const SETTLE: Duration = Duration::from_secs(3);
/// How long messages that are late are waited for.
const LATE: Duration = Duration::from_secs(10);

/// Messages that fit into a stretch of time.
pub(super) fn messages(time: Duration) -> usize {
    (time.as_millis() / PAUSE.as_millis()) as usize
}

/// The figures of times until all had a message.
pub(super) fn times(values: &mut Values, mut took: Vec<Duration>) {
    for (metric, percent) in [("p50_ms", 50.0), ("p99_ms", 99.0)] {
        values.insert(metric.to_owned(), percentile(&mut took, percent).as_secs_f64() * 1e3);
    }
}

/// One network's life. Processor time is the whole process's: all nodes with everything that they do meanwhile, their
/// metrics, the kernel's work on their sockets, and the little that publishing and listening take.
pub(super) async fn run(change: Change, Times { warm, run }: Times, seed: u64) -> Result<Values, Failure> {
    let tally = Tally::new(NODES - 1);
    let mut nodes = Vec::with_capacity(NODES);
    for number in 0..NODES {
        let node = Node::start(number as u8 + 1, change).await?;
        node.listen(number, tally.clone()).await?;
        nodes.push(node);
    }
    for (from, to) in graph::regular(NODES, DEGREE, seed).ok_or("there is no such graph")? {
        nodes[from].dial(nodes[to].at, nodes[to].id).await?;
    }
    for node in &nodes {
        node.connected(DEGREE).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let (idle, begun) = (Usage::now().cpu_us, Instant::now());
    tokio::time::sleep(SETTLE).await;
    let idle = (Usage::now().cpu_us - idle) / begun.elapsed().as_micros() as f64;
    let (mut rng, mut tick) = (Rng::new(seed), interval(PAUSE));
    let mut publish = async |count: usize| {
        for _ in 0..count {
            tick.tick().await;
            let (node, (_, payload)) = (nodes[rng.index(NODES).unwrap_or(0)].clone(), tally.publish(SIZE));
            // What is not published is missed at the end.
            tokio::spawn(async move { node.publish(payload.into()).await });
        }
        tick.tick().await;
    };
    publish(messages(warm)).await;
    let before = wire(&nodes).await?;
    let (cpu, deliveries, allocated) = (Usage::now().cpu_us, tally.deliveries(), INSTRUMENTED_SYSTEM.stats());
    publish(messages(run)).await;
    let (cpu, deliveries) = (Usage::now().cpu_us - cpu, (tally.deliveries() - deliveries).max(1) as f64);
    let allocated = INSTRUMENTED_SYSTEM.stats() - allocated;
    let after = wire(&nodes).await?;
    tally.settle(LATE).await;
    let (delivered, due, took) = tally.since(messages(warm));
    for node in &nodes {
        node.stop().await;
    }
    let (first, again) = (after.first - before.first, after.again - before.again);
    let mut values = Values::from([
        ("cpu_us".to_owned(), cpu / deliveries),
        ("bytes".to_owned(), (after.sent - before.sent) as f64 / (deliveries * SIZE as f64)),
        ("copies".to_owned(), (first + again) / first.max(1.0)),
        ("delivered_percent".to_owned(), 100.0 * delivered as f64 / due.max(1) as f64),
        ("twice".to_owned(), tally.twice() as f64),
        ("idle_percent".to_owned(), 100.0 * idle),
    ]);
    times(&mut values, took);
    // Only one of the two programs counts them.
    if allocated.allocations > 0 {
        values.insert("allocations".to_owned(), (allocated.allocations + allocated.reallocations) as f64 / deliveries);
        values.insert("allocated_bytes".to_owned(), allocated.bytes_allocated as f64 / deliveries);
    }
    Ok(values)
}
