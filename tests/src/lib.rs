//! A handful of whole nodes in virtual time, for the tests in `tests/`.
//!
//! Real actors, real handshakes, the in-memory network, one thread, a paused clock: a minute of a network
//! takes a second, and equal seeds give equal runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Rng;
use peerage_server::gossip::{Message, Policy, Publish, PublishError, Published, Topic};
use peerage_server::mailbox::{Capacity, Clock, Inlet, Meter, RecvError, ask, data_queue};
use peerage_server::transport::{Link, MemoryNetwork};
use peerage_server::wire::{Keypair, NodeId};
use peerage_server::{Args, Config, Event, Listen, PeerAddress, ServerMailbox, start};

/// The wall clock of every simulated world when it begins.
const UNIX: Duration = Duration::from_secs(1_700_000_000);
const PORT: u16 = 30303;

/// One node with its application: a subscriber to one topic.
pub struct TestNode {
    /// The node.
    pub server: ServerMailbox,
    /// Who it is.
    pub id: NodeId,
    /// What it and others call it.
    pub address: PeerAddress,
    /// What happened among its peers.
    pub events: Inlet<Event>,
    messages: Inlet<Message>,
    keys: Keypair,
    /// What its application got, by payload.
    pub delivered: BTreeMap<Bytes, u32>,
}

/// Nodes that reach each other over an in-memory network.
pub struct World {
    /// The network.
    pub network: MemoryNetwork,
    /// The nodes, as they were started.
    pub nodes: Vec<TestNode>,
    config: Config,
    clock: Clock,
    rng: Rng,
    /// Everything an application saw, in order, for the digest.
    log: blake3::Hasher,
    /// How many entries the log has.
    pub logged: u64,
}

/// The topic of all tests.
pub fn topic() -> Topic {
    Topic::new("test").expect("a short name")
}

/// The address of the nth host.
pub fn ip(n: usize) -> IpAddr {
    // A /24 of its own for each, so that limits by prefix do not shape a test that is not about them.
    Ipv4Addr::new(20, (n >> 8) as u8, n as u8, 1).into()
}

/// The configuration of the tests: as recommended, quick to dial again, with as many peers.
pub fn config(max_peers: u32) -> Config {
    Config { max_peers, ..Config::local() }
}

impl World {
    /// An empty world.
    pub fn new(seed: u64, config: Config) -> World {
        World {
            network: MemoryNetwork::new(seed, Link::default()),
            nodes: Vec::new(),
            config,
            clock: Clock::simulated(UNIX),
            rng: Rng::new(seed),
            log: blake3::Hasher::new(),
            logged: 0,
        }
    }

    /// Starts `count` nodes that know only the first.
    pub async fn start(seed: u64, count: usize, config: Config) -> World {
        let mut world = World::new(seed, config);
        for n in 0..count {
            let keys = Keypair::from_seed(blake3::hash(&[&seed.to_be_bytes()[..], &n.to_be_bytes()].concat()).into());
            let node = world.boot(n, keys).await;
            world.nodes.push(node);
        }
        world
    }

    async fn boot(&mut self, n: usize, keys: Keypair) -> TestNode {
        let listen = SocketAddr::new(ip(n), PORT);
        let args = Args {
            config: self.config.clone(),
            keys: keys.clone(),
            listen: Listen::At(vec![listen]),
            bootnodes: self.nodes.first().filter(|_| n > 0).map(|first| first.address.clone()).into_iter().collect(),
            statics: Vec::new(),
            trusted: Vec::new(),
            transport: self.network.host(ip(n)),
            clock: self.clock,
            meter: Meter::none(),
            seed: self.rng.next_u64(),
            min_record_seq: 0,
        };
        let server = start(args).await.expect("a free address and a sound configuration");
        let events = server.events(10_000).await.expect("running");
        let (outlet, messages) = data_queue(Capacity { items: 10_000, weight: 64 << 20 });
        server.subscribe(topic(), Policy::Signed, outlet).await.expect("running");
        let id = keys.id();
        let address = PeerAddress { id, addresses: vec![listen] };
        TestNode { server, id, address, events, messages, keys, delivered: BTreeMap::new() }
    }

    /// Ends the nth node as a crash would, without a word to its peers, and starts it again.
    pub async fn crash_and_restart(&mut self, n: usize) {
        for other in 0..self.nodes.len() {
            self.network.cut(ip(n), ip(other));
        }
        self.nodes[n].server.shutdown().await;
        for other in 0..self.nodes.len() {
            self.network.heal(ip(n), ip(other));
        }
        let keys = self.nodes[n].keys.clone();
        let node = self.boot(n, keys).await;
        self.nodes[n] = node;
    }

    /// How many peers each node has.
    pub async fn peer_counts(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for node in &self.nodes {
            counts.push(node.server.peers().await.map_or(0, |peers| peers.len()));
        }
        counts
    }

    /// Lets virtual time pass until every node has `target` peers; panics after `limit`.
    pub async fn until_peers(&mut self, target: usize, limit: Duration) -> Duration {
        let start = self.clock.now();
        loop {
            let counts = self.peer_counts().await;
            if counts.iter().all(|count| *count >= target) {
                return self.clock.now().since(start);
            }
            assert!(self.clock.now().since(start) < limit, "{target} peers each within {limit:?}: {counts:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Publishes at the nth node, waiting as long as it is busy.
    pub async fn publish(&mut self, n: usize, payload: impl Into<Bytes>) -> Published {
        let payload = payload.into();
        loop {
            let publisher = self.nodes[n].server.publisher();
            let published = ask(Duration::from_secs(10), |reply| {
                let publish = Publish { topic: topic(), policy: Policy::Signed, payload: payload.clone(), reply };
                publisher.offer(publish).expect("tests publish one at a time");
            });
            match published.await {
                Ok(Ok(published)) => return published,
                Ok(Err(PublishError::Busy { retry_after })) => tokio::time::sleep(retry_after).await,
                Ok(Err(error)) => panic!("{error}"),
                // The actor was restarted meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Takes what the applications were given, and what they were told of peers, into the log.
    pub async fn collect(&mut self) {
        for (n, node) in self.nodes.iter_mut().enumerate() {
            loop {
                let next = tokio::time::timeout(Duration::ZERO, node.messages.recv()).await;
                match next {
                    Ok(Ok(message)) => {
                        self.log.update(&n.to_be_bytes()).update(&message.id.0);
                        self.logged += 1;
                        *node.delivered.entry(message.payload).or_default() += 1;
                    }
                    Ok(Err(RecvError::Lagged(missed))) => panic!("node {n} lagged by {missed}"),
                    Ok(Err(RecvError::Closed)) | Err(_) => break,
                }
            }
            for event in node.events.take(usize::MAX) {
                self.log.update(&n.to_be_bytes()).update(format!("{event:?}").as_bytes());
                self.logged += 1;
            }
        }
    }

    /// Lets virtual time pass until every node of `who` has each of these payloads; panics after `limit`.
    pub async fn until_delivered(&mut self, who: &[usize], payloads: &[Bytes], limit: Duration) -> Duration {
        let start = self.clock.now();
        loop {
            self.collect().await;
            let missing: usize = who
                .iter()
                .map(|n| payloads.iter().filter(|payload| !self.nodes[*n].delivered.contains_key(*payload)).count())
                .sum();
            if missing == 0 {
                return self.clock.now().since(start);
            }
            assert!(self.clock.now().since(start) < limit, "{missing} deliveries are missing after {limit:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A random node.
    pub fn any(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    /// Ends every node, and says what identifies the run: everything that any application saw, in order.
    pub async fn finish(mut self) -> blake3::Hash {
        self.collect().await;
        for node in &self.nodes {
            node.server.shutdown().await;
        }
        self.log.finalize()
    }
}
