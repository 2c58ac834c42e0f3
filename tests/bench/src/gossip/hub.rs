//! How many messages a second go through one node: a publisher, the node in a process of its own, and seven others that
//! know only it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_server::wire::NodeId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::net::{Change, Node};
use super::tally::Tally;
use super::{Part, Times};
use crate::Failure;
use crate::job::Values;
use crate::machine::Usage;
use crate::process::Process;

/// Those that get the messages.
const LEAVES: usize = 7;
/// Calls of the publisher's application at a time.
const CALLS: usize = 16;
/// Messages under way, in bytes and at most. All lanes and queues have room for as many, so that nothing gives way.
const WINDOW_BYTES: usize = 2 << 20;
const WINDOW: usize = 512;
/// How long what is under way is waited for.
const LATE: Duration = Duration::from_secs(20);

/// Where the hub is to be found.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    at: SocketAddr,
    id: NodeId,
}

/// The hub's process: says where it is, and what it has used whenever it is asked.
pub(super) async fn part(change: Change) -> Result<(), Failure> {
    let node = Node::start(1, change).await?;
    let mut inlet = node.subscribe().await?;
    tokio::spawn(async move { while inlet.recv().await.is_ok() {} });
    println!("{}", serde_json::to_string(&Found { at: node.at, id: node.id })?);
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = told.next_line().await {
        println!("{}", serde_json::to_string(&Usage::now())?);
    }
    Ok(())
}

/// Publishes as fast as the slowest of the seven gets it: at most a window of messages is under way.
pub(super) async fn run(
    part: &Part,
    change: Change,
    size: usize,
    Times { warm, run }: Times,
) -> Result<Values, Failure> {
    let mut hub = Process::start(&std::env::current_exe()?, "gossip-part", part)?;
    let Found { at, id } = hub.hear(Duration::from_secs(10)).await?;
    let room = Arc::new(Semaphore::new((WINDOW_BYTES / size).clamp(1, WINDOW)));
    let tally = Tally::making_room(LEAVES, room.clone());
    let mut nodes = Vec::new();
    for number in 0..=LEAVES {
        let node = Node::start(number as u8 + 2, change).await?;
        if number < LEAVES {
            node.listen(number, tally.clone()).await?;
        }
        node.dial(at, id).await?;
        node.connected(1).await?;
        nodes.push(node);
    }
    let publisher = nodes.last().ok_or("there is no publisher")?;
    // Who publishes is subscribed too, as anybody on the topic.
    let mut own = publisher.subscribe().await?;
    tokio::spawn(async move { while own.recv().await.is_ok() {} });
    // They tell each other their topics.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (mut calls, end) = (JoinSet::new(), Instant::now() + warm + run);
    for _ in 0..CALLS {
        let (publisher, tally, room) = (publisher.clone(), tally.clone(), room.clone());
        calls.spawn(async move {
            while Instant::now() < end {
                room.acquire().await?.forget();
                publisher.publish(tally.publish(size).1.into()).await?;
            }
            Ok::<(), Failure>(())
        });
    }
    tokio::time::sleep(warm).await;
    let before: Usage = hub.ask().await?;
    let (begun, whole) = (Instant::now(), tally.whole());
    tokio::time::sleep_until(end).await;
    let (count, took) = ((tally.whole() - whole).max(1) as f64, begun.elapsed().as_secs_f64());
    let after: Usage = hub.ask().await?;
    tally.settle(LATE).await;
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    tally.settle(LATE).await;
    let (delivered, due, _) = tally.since(0);
    for node in &nodes {
        node.stop().await;
    }
    if delivered < due || tally.twice() > 0 {
        return Err(format!("of {due} deliveries {delivered} came, and {} twice", tally.twice()).into());
    }
    Ok(Values::from([
        ("msgs_s".to_owned(), count / took),
        ("hub_cpu_us".to_owned(), (after.cpu_us - before.cpu_us) / count),
    ]))
}
