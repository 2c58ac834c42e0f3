//! A handful of whole nodes in virtual time, for the tests in `tests/`.
//!
//! Real actors, real handshakes, the in-memory network, one thread, a paused clock: a minute of a network
//! takes a second, and equal seeds give equal runs.

pub mod attack;
pub mod play;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Rng, Time};
use peerage_server::gossip::{Message, Policy, Publish, PublishError, Published, Topic};
use peerage_server::journal::Journals;
use peerage_server::mailbox::{Capacity, Clock, Counts, Inlet, Meter, Outlet, RecvError, ask, data_queue};
use peerage_server::nodedb::NodeDb;
use peerage_server::peer_session::handshake::Direction;
use peerage_server::router::protocol::Protocol;
use peerage_server::transport::{Link, MemoryNetwork, Transport};
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
    /// What it remembers from one life to the next.
    pub db: NodeDb,
    /// What its application got, by payload.
    pub delivered: BTreeMap<Bytes, u32>,
    /// What it counts, in this life.
    pub counts: Counts,
    /// Its changes among the peers.
    pub tally: Tally,
    /// What happened to its machines in this life, if the world records it.
    pub journals: Journals,
    /// Since when it runs; nothing while it is down.
    pub up_since: Option<Time>,
}

/// Changes among a node's peers, over all its lives, since somebody began to count.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Sessions that others made to it.
    pub called: u32,
    /// Sessions that it made.
    pub calls: u32,
    /// Sessions that ended.
    pub downs: u32,
    /// Who was its peer.
    pub met: BTreeSet<NodeId>,
}

/// Nodes that reach each other over an in-memory network.
pub struct World {
    /// The network.
    pub network: MemoryNetwork,
    /// The nodes, as they were started.
    pub nodes: Vec<TestNode>,
    /// What nodes are started with from now on.
    pub config: Config,
    /// What they run with each peer from now on.
    pub protocols: Vec<Protocol>,
    /// The clock of all of them.
    pub clock: Clock,
    /// Of all random decisions of the test itself.
    pub rng: Rng,
    /// How many bytes each node keeps of a machine's life in its journals from now on; none if not set.
    pub recorded: Option<usize>,
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

/// As [`config`], with the pauses and back-offs of nodes on the internet.
pub fn public(max_peers: u32) -> Config {
    Config { max_peers, ..Config::recommended() }
}

/// Whether tests run at full scale: `PEERAGE_SOAK=1`.
pub fn soak() -> bool {
    std::env::var_os("PEERAGE_SOAK").is_some_and(|value| value == "1")
}

/// Runs a test in virtual time.
pub fn virtually<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

/// Runs a test in virtual time twice, each run on a thread of its own: the first is number 0.
pub fn virtually_twice<T: Send, F: Future<Output = T>>(test: impl Fn(usize) -> F + Sync) -> [T; 2] {
    let test = &test;
    thread::scope(|scope| {
        let runs = [0, 1].map(|run| scope.spawn(move || virtually(test(run))));
        runs.map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// The keys of the nth node of a world.
pub fn keys(seed: u64, n: usize) -> Keypair {
    Keypair::from_seed(blake3::hash(&[&seed.to_be_bytes()[..], &n.to_be_bytes()].concat()).into())
}

/// Prints a figure as the benches do.
pub fn figure(bench: &str, metric: &str, value: impl std::fmt::Display, unit: &str) {
    println!("bench={bench} impl=peerage metric={metric} value={value} unit={unit}");
}

/// The value below which so many per cent of all lie (nearest rank).
///
/// # Panics
/// Without a value.
pub fn percentile<T: Copy + Ord>(values: &[T], percent: usize) -> T {
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

fn memory() -> NodeDb {
    NodeDb::memory(peerage_server::nodedb::Config::recommended())
}

/// What a node is started with that knows nobody.
pub fn args(config: Config, keys: Keypair, transport: Transport, listen: Vec<SocketAddr>, clock: Clock) -> Args {
    Args {
        config,
        keys,
        listen: Listen::At(listen),
        bootnodes: Vec::new(),
        statics: Vec::new(),
        trusted: Vec::new(),
        transport,
        clock,
        meter: Meter::none(),
        journals: Journals::off(),
        db: memory(),
        doors: Vec::new(),
        foreign: None,
        protocols: Vec::new(),
        membership: None,
        secret: None,
        seed: 1,
        min_record_seq: 0,
        sources: Default::default(),
        resolver: None,
    }
}

/// Publishes until the node says that it did: a node that is busy, or whose gossip is started again, is asked again.
pub async fn publish(publisher: Outlet<Publish>, payload: Bytes) -> Published {
    loop {
        let published = ask(Duration::from_secs(10), |reply| {
            let publish = Publish { topic: topic(), policy: Policy::Signed, payload: payload.clone(), reply };
            publisher.offer(publish).expect("tests publish less than fits");
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

impl World {
    /// An empty world.
    pub fn new(seed: u64, config: Config) -> World {
        World {
            network: MemoryNetwork::new(seed, Link::default()),
            nodes: Vec::new(),
            config,
            protocols: Vec::new(),
            clock: Clock::simulated(UNIX),
            rng: Rng::new(seed),
            recorded: None,
            log: blake3::Hasher::new(),
            logged: 0,
        }
    }

    /// Starts `count` nodes that know only the first.
    pub async fn start(seed: u64, count: usize, config: Config) -> World {
        let mut world = World::new(seed, config);
        for n in 0..count {
            world.join(keys(seed, n)).await;
        }
        world
    }

    /// Starts one more node that knows only the first.
    pub async fn join(&mut self, keys: Keypair) {
        self.join_knowing(keys, 0).await;
    }

    /// Starts one more node that knows only the nth.
    pub async fn join_knowing(&mut self, keys: Keypair, known: usize) {
        let node = self.boot(self.nodes.len(), known, keys, memory()).await;
        self.nodes.push(node);
    }

    async fn boot(&mut self, n: usize, known: usize, keys: Keypair, db: NodeDb) -> TestNode {
        let listen = SocketAddr::new(ip(n), PORT);
        let counts = Counts::default();
        let journals = self.recorded.map_or(Journals::off(), |bytes| Journals::recording(bytes, |_| {}));
        let bootnodes = self.nodes.get(known).filter(|_| n > 0).map(|known| known.address.clone());
        let args = Args {
            bootnodes: bootnodes.into_iter().collect(),
            meter: Meter::new(Arc::new(counts.clone())),
            journals: journals.clone(),
            seed: self.rng.next_u64(),
            db: db.clone(),
            protocols: self.protocols.clone(),
            ..args(self.config.clone(), keys.clone(), self.network.host(ip(n)), vec![listen], self.clock)
        };
        let server = start(args).await.expect("a free address and a sound configuration");
        let events = server.events(10_000).await.expect("running");
        let (outlet, messages) = data_queue(Capacity { items: 10_000, weight: 64 << 20 });
        server.subscribe(topic(), Policy::Signed, outlet).await.expect("running");
        let id = keys.id();
        let address = PeerAddress { id, addresses: vec![listen], hosts: Vec::new() };
        let up_since = Some(self.clock.now());
        let (delivered, tally) = (BTreeMap::new(), Tally::default());
        TestNode { server, id, address, events, messages, keys, db, delivered, counts, tally, journals, up_since }
    }

    /// Ends these nodes as a crash would, without a word to their peers.
    pub async fn kill(&mut self, victims: &[usize]) {
        self.collect().await;
        let pairs = || victims.iter().flat_map(|n| (0..self.nodes.len()).map(|other| (ip(*n), ip(other))));
        pairs().for_each(|(victim, other)| self.network.cut(victim, other));
        let ends = victims.iter().map(|n| self.nodes[*n].server.clone());
        let ends: Vec<_> = ends.map(|server| tokio::spawn(async move { server.shutdown().await })).collect();
        for end in ends {
            end.await.expect("a shutdown does not panic");
        }
        pairs().for_each(|(victim, other)| self.network.heal(victim, other));
        for n in victims {
            self.nodes[*n].up_since = None;
        }
    }

    /// Starts a node that was killed again, as the same one.
    pub async fn revive(&mut self, n: usize) {
        let (keys, db) = (self.nodes[n].keys.clone(), self.nodes[n].db.clone());
        let node = self.boot(n, 0, keys, db).await;
        let tally = std::mem::take(&mut self.nodes[n].tally);
        self.nodes[n] = TestNode { tally, ..node };
    }

    /// Ends the nth node as a crash would and starts it again at once.
    pub async fn crash_and_restart(&mut self, n: usize) {
        self.kill(&[n]).await;
        self.revive(n).await;
    }

    /// The nodes that are up.
    pub fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].up_since.is_some()).collect()
    }

    /// Some of these, each as likely as any other.
    pub fn some_of(&mut self, mut among: Vec<usize>, count: usize) -> Vec<usize> {
        for at in 0..count.min(among.len()) {
            let other = at + self.rng.below((among.len() - at) as u64) as usize;
            among.swap(at, other);
        }
        among.truncate(count);
        among
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
        publish(self.nodes[n].server.publisher(), payload.into()).await
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
                node.tally.take(&event);
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
            let missing: Vec<(usize, &Bytes)> = who
                .iter()
                .flat_map(|n| payloads.iter().map(|payload| (*n, payload)))
                .filter(|(n, payload)| !self.nodes[*n].delivered.contains_key(*payload))
                .collect();
            if missing.is_empty() {
                return self.clock.now().since(start);
            }
            let late = self.clock.now().since(start) >= limit;
            let some = &missing[..missing.len().min(100)];
            assert!(!late, "{} deliveries are missing after {limit:?}: {some:?}", missing.len());
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

impl Tally {
    fn take(&mut self, event: &Event) {
        match event {
            Event::PeerUp { id, direction: Direction::Inbound, .. } => {
                self.called += 1;
                self.met.insert(*id);
            }
            Event::PeerUp { id, .. } => {
                self.calls += 1;
                self.met.insert(*id);
            }
            Event::PeerDown { .. } => self.downs += 1,
            // Told of when a node is configured to; none here is.
            _ => {}
        }
    }
}
