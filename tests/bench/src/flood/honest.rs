//! Twenty honest nodes, each of which knows the victim only: what they tell each other goes through it. And newcomers,
//! who come while it is attacked.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerage_machine::Rng;
use peerage_server::gossip::{Message, Policy, Topic};
use peerage_server::mailbox::{Capacity, Clock, Inlet, data_queue};
use peerage_server::wire::NodeId;
use peerage_server::{Args, Config, Event, PeerAddress, ServerMailbox, start};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::attack::{knock, was_answered};
use super::connect;
use crate::stats::percentile;
use crate::{Failure, node};

const HONEST: u8 = 20;
/// Between two messages.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two newcomers.
const KNOCK: Duration = Duration::from_secs(2);

pub(super) fn args(n: u8, mut config: Config, statics: Vec<PeerAddress>) -> Result<Args, Failure> {
    // All are around one node, which sends on to all at once: announcements would be slower than any flood.
    (config.gossip.mesh.degree, config.gossip.mesh.high) = (2 * usize::from(HONEST), 2 * usize::from(HONEST));
    Ok(Args { statics, ..node::args(100 + n, config) })
}

fn topic() -> Result<Topic, Failure> {
    Topic::new("flood").map_err(|error| error.to_string().into())
}

/// What comes on the one topic.
pub(super) async fn subscribe(server: &ServerMailbox) -> Result<Inlet<Message>, Failure> {
    let (outlet, inlet) = data_queue(Capacity { items: 100_000, weight: 64 << 20 });
    server.subscribe(topic()?, Policy::Signed, outlet).await?;
    Ok(inlet)
}

/// When each message was published, and how long its copies took.
#[derive(Debug, Default)]
struct Tally {
    published: Vec<Instant>,
    took: Vec<Duration>,
}

type SharedTally = Arc<Mutex<Tally>>;

pub(super) struct Honest {
    nodes: Vec<ServerMailbox>,
    events: Vec<Inlet<Event>>,
    tally: SharedTally,
}

/// How it went for the honest.
pub(super) struct Gossip {
    pub(super) lost: usize,
    pub(super) published: usize,
    pub(super) delivered_percent: f64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) newcomers: usize,
    /// Became peers, or were told why not.
    pub(super) answered: usize,
    pub(super) taken: usize,
}

/// Notes when the messages of others arrive.
async fn listen(own: NodeId, mut inlet: Inlet<Message>, tally: SharedTally) {
    while let Ok(message) = inlet.recv().await {
        let number = message.payload.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let published = number.and_then(|number| tally.published.get(usize::try_from(number).ok()?).copied());
        if let Some(published) = published.filter(|_| message.publisher != Some(own)) {
            tally.took.push(published.elapsed());
        }
    }
}

impl Honest {
    pub(super) async fn start(at: SocketAddr, id: NodeId) -> Result<Honest, Failure> {
        let (mut nodes, mut events) = (Vec::new(), Vec::new());
        let tally = SharedTally::default();
        for n in 1..=HONEST {
            let config = Config { discovery_on: false, exchange_on: false, listening_on: false, ..Config::local() };
            let node =
                start(args(n, config, vec![PeerAddress { id, addresses: vec![at], hosts: Vec::new() }])?).await?;
            events.push(node.events(1000).await?);
            let own = node.local().await?.record.id();
            tokio::spawn(listen(own, subscribe(&node).await?, tally.clone()));
            nodes.push(node);
        }
        for node in &nodes {
            let connected = async {
                while node.peer_count().await? == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok::<(), Failure>(())
            };
            tokio::time::timeout(Duration::from_secs(30), connected)
                .await
                .map_err(|_| "an honest node has no peer")??;
        }
        // They tell each other their topics.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(Honest { nodes, events, tally })
    }

    /// Gossips for so long, while newcomers knock.
    pub(super) async fn gossip(&mut self, at: SocketAddr, id: NodeId, time: Duration) -> Gossip {
        let (start, clock, mut rng) = (Instant::now(), Clock::system(), Rng::new(7));
        let (mut publishing, mut knocking) = (JoinSet::new(), JoinSet::new());
        let mut next_knock = start + KNOCK;
        let mut tick = tokio::time::interval(PAUSE);
        while start.elapsed() < time {
            tick.tick().await;
            let mut payload = vec![0; 256];
            {
                let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
                payload[..8].copy_from_slice(&(tally.published.len() as u64).to_be_bytes());
                tally.published.push(Instant::now());
            }
            let node = self.nodes[rng.below(self.nodes.len() as u64) as usize].clone();
            publishing.spawn(async move { node::publish(&node, topic()?, payload.into()).await });
            if Instant::now() >= next_knock {
                next_knock += KNOCK;
                let from = Ipv4Addr::new(127, 200, knocking.len() as u8, 1).into();
                knocking.spawn(async move {
                    let stream = connect(from, at).await.ok()?;
                    knock(stream, id, 1 << 40 | u64::from(u32::from_be_bytes(octets(from))), clock)
                        .await
                        .map(drop)
                        .into()
                });
            }
        }
        // What is on its way arrives.
        tokio::time::sleep(Duration::from_secs(3)).await;
        publishing.abort_all();
        let newcomers = knocking.len();
        let (mut answered, mut taken) = (0, 0);
        while let Some(ended) = knocking.join_next().await {
            match ended {
                Ok(Some(Ok(()))) => (answered, taken) = (answered + 1, taken + 1),
                Ok(Some(Err(error))) if was_answered(&error) => answered += 1,
                _ => {}
            }
        }
        let downs = |events: &Inlet<Event>| {
            events.take(usize::MAX).iter().filter(|event| matches!(event, Event::PeerDown { .. })).count()
        };
        let lost = self.events.iter().map(downs).sum();
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let (published, arrived) = (tally.published.len(), tally.took.len());
        let due = published * (self.nodes.len() - 1);
        Gossip {
            lost,
            published,
            delivered_percent: 100.0 * arrived as f64 / due.max(1) as f64,
            p50: percentile(&mut tally.took, 50.0),
            p99: percentile(&mut tally.took, 99.0),
            newcomers,
            answered,
            taken,
        }
    }

    pub(super) async fn stop(self) {
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}

fn octets(ip: std::net::IpAddr) -> [u8; 4] {
    match ip {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    }
}
