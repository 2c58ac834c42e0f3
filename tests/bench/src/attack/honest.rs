//! Ten honest nodes, each of which knows the victim only: they ask it fifty times a second each, or what they tell each
//! other goes through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Rng;
use peerage_server::gossip::{Message, Policy};
use peerage_server::mailbox::{Capacity, Counts, Inlet, Meter, RecvError, data_queue};
use peerage_server::router::RequestError;
use peerage_server::wire::{Keypair, NodeId};
use peerage_server::{Args, Config, Event, PeerAddress, ServerMailbox, start};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use super::{DROPS, ECHO, Fared, Found, HONEST, Honest, PATIENCE, Percentiles, REQUESTS, topic};
use crate::stats::percentile;
use crate::{Failure, node};

/// The first one's number.
const FIRST: u8 = 100;
/// Between two requests of one node.
const PING: Duration = Duration::from_millis(20);
/// How long it waits for the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Between two messages of all together.
const PUBLISH: Duration = Duration::from_millis(100);
/// How long what was published last may be under way: what was not pushed is pulled, some of it the second time, after
/// 15 s.
const SETTLE: Duration = Duration::from_secs(20);

/// Of those that gossip; the numbers of those that ask follow.
fn numbers() -> impl Iterator<Item = u8> {
    FIRST..FIRST + HONEST
}

/// What is noted from the first line of input to the second.
#[derive(Debug, Default)]
struct Tally {
    answered: Vec<Duration>,
    failed: BTreeMap<String, u64>,
    published: Vec<Instant>,
    /// How long each copy took.
    arrived: Vec<Duration>,
}

#[derive(Clone, Default)]
struct Shared {
    tally: Arc<Mutex<Tally>>,
    /// Whether they ask and publish.
    busy: Arc<AtomicBool>,
    /// Of all nodes together.
    counts: Counts,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }
}

/// Says when all are connected; begins with the first line of its input, and answers the second one with how it went.
pub(super) async fn run(found: Found, kind: Honest) -> Result<(), Failure> {
    let shared = Shared::default();
    let (mut nodes, mut events) = (Vec::new(), Vec::new());
    for number in numbers() {
        let number = if kind == Honest::Ask { number + HONEST } else { number };
        let node = join(number, found, kind, &shared).await?;
        events.push(node.events(1_000).await?);
        if kind == Honest::Ask {
            tokio::spawn(ask(node.clone(), found.id, shared.clone()));
        }
        nodes.push(node);
    }
    // They tell each other their topics.
    tokio::time::sleep(Duration::from_secs(2)).await;
    if kind == Honest::Gossip {
        tokio::spawn(publish(nodes.clone(), shared.clone()));
    }
    println!("null");
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = told.next_line().await {
        shared.busy.store(true, Ordering::Release);
        println!("null");
        if !matches!(told.next_line().await, Ok(Some(_))) {
            break;
        }
        shared.busy.store(false, Ordering::Release);
        settle(&shared).await;
        println!("{}", serde_json::to_string(&fared(&shared, &events))?);
    }
    Ok(())
}

/// A node that is connected to the victim.
async fn join(number: u8, found: Found, kind: Honest, shared: &Shared) -> Result<ServerMailbox, Failure> {
    let config = Config { discovery_on: false, exchange_on: false, listening_on: false, ..Config::local() };
    let victim = PeerAddress { id: found.id, addresses: vec![found.at], hosts: Vec::new() };
    let meter = Meter::new(Arc::new(shared.counts.clone()));
    let node = start(Args { statics: vec![victim], meter, ..node::args(number, config) }).await?;
    if kind == Honest::Gossip {
        let (outlet, inlet) = data_queue(Capacity { items: 10_000, weight: 64 << 20 });
        node.subscribe(topic()?, Policy::Signed, outlet).await?;
        tokio::spawn(listen(node.local().await?.record.id(), inlet, shared.clone()));
    }
    let connected = async {
        while node.peer_count().await? == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<(), Failure>(())
    };
    tokio::time::timeout(PATIENCE / 2, connected).await.map_err(|_| "an honest node has no peer")??;
    Ok(node)
}

/// Asks, whether or not what was asked before is answered.
async fn ask(node: ServerMailbox, victim: NodeId, shared: Shared) {
    let mut tick = tokio::time::interval(PING);
    loop {
        tick.tick().await;
        if !shared.busy() {
            continue;
        }
        let (router, shared) = (node.router().clone(), shared.clone());
        tokio::spawn(async move {
            let asked = Instant::now();
            let answer = router.request(victim, ECHO, Bytes::from_static(&[7; 64]), DEADLINE).await;
            let (took, mut tally) = (asked.elapsed(), shared.tally());
            match answer {
                Ok(_) => tally.answered.push(took),
                Err(error) => *tally.failed.entry(word(&error)).or_default() += 1,
            }
        });
    }
}

/// Why a request failed, as a part of a figure's name.
fn word(error: &RequestError) -> String {
    let why = match error {
        RequestError::Refused { code, .. } => format!("{code:?}"),
        error => format!("{error:?}"),
    };
    why.split([' ', '(', '{']).next().unwrap_or_default().to_lowercase()
}

/// One of them after the other, at random.
async fn publish(nodes: Vec<ServerMailbox>, shared: Shared) -> Result<(), Failure> {
    let (mut tick, mut rng, topic) = (tokio::time::interval(PUBLISH), Rng::new(7), topic()?);
    loop {
        tick.tick().await;
        if !shared.busy() {
            continue;
        }
        let mut payload = vec![0; 256];
        {
            let mut tally = shared.tally();
            payload[..8].copy_from_slice(&(tally.published.len() as u64).to_be_bytes());
            tally.published.push(Instant::now());
        }
        let node = nodes[rng.below(nodes.len() as u64) as usize].clone();
        let topic = topic.clone();
        tokio::spawn(async move { node::publish(&node, topic, payload.into()).await });
    }
}

/// Notes when messages of the others arrive; the hostile publish, too.
async fn listen(own: NodeId, mut inlet: Inlet<Message>, shared: Shared) {
    let others: BTreeSet<NodeId> =
        numbers().map(|number| Keypair::from_seed([number; 32]).id()).filter(|id| *id != own).collect();
    loop {
        let message = match inlet.recv().await {
            Ok(message) => message,
            // Those are not delivered.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if !message.publisher.is_some_and(|publisher| others.contains(&publisher)) {
            continue;
        }
        let number = message.payload.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let mut tally = shared.tally();
        let published = number.and_then(|number| tally.published.get(usize::try_from(number).ok()?).copied());
        if let Some(published) = published {
            tally.arrived.push(published.elapsed());
        }
    }
}

fn due(tally: &Tally) -> usize {
    tally.published.len() * usize::from(HONEST - 1)
}

/// Waits for what is on its way, as long as it may take.
async fn settle(shared: &Shared) {
    let begun = Instant::now();
    // The last requests end.
    tokio::time::sleep(DEADLINE + PING).await;
    while begun.elapsed() < SETTLE {
        {
            let tally = shared.tally();
            if tally.arrived.len() >= due(&tally) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn percentiles(samples: &mut [Duration]) -> Percentiles {
    let mut ms = |percent| percentile(samples, percent).as_secs_f64() * 1e3;
    Percentiles { p50: ms(50.0), p99: ms(99.0), most: ms(100.0) }
}

fn fared(shared: &Shared, events: &[Inlet<Event>]) -> Fared {
    let downs = |events: &Inlet<Event>| events.take(usize::MAX).iter().filter(|event| is_down(event)).count();
    let Tally { mut answered, failed, published, mut arrived } = std::mem::take(&mut *shared.tally());
    let due = published.len() * usize::from(HONEST - 1);
    Fared {
        peers_lost: events.iter().map(downs).sum(),
        pings: answered.len() + failed.values().sum::<u64>() as usize,
        ping_ms: percentiles(&mut answered),
        failed,
        published: published.len(),
        delivered_percent: 100.0 * arrived.len() as f64 / due.max(1) as f64,
        delivery_ms: percentiles(&mut arrived),
        dropped: shared.counts.counters(DROPS),
        requests: shared.counts.counters(REQUESTS),
    }
}

const fn is_down(event: &Event) -> bool {
    matches!(event, Event::PeerDown { .. })
}

#[cfg(test)]
mod tests {
    use peerage_server::router::ErrorCode;

    use super::*;

    #[test]
    fn a_failure_is_one_word() {
        assert_eq!(word(&RequestError::TimedOut), "timedout");
        let refused = |code| RequestError::Refused { code, text: "why".into() };
        assert_eq!(word(&refused(ErrorCode::Throttled)), "throttled");
        assert_eq!(word(&refused(ErrorCode::Application(7))), "application");
    }
}
