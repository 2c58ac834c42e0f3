//! Scenario files on real nodes: the same nodes at the same addresses, the same things done to them at the same moments,
//! as in a run of the world that was written down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Rng, Time};
use peerage_server::gossip::{Message, Policy, Publish, Topic};
use peerage_server::mailbox::{Capacity, Clock, Counts, Inlet, Meter, ask, data_queue};
use peerage_server::nodedb::NodeDb;
use peerage_server::transport::{Link, MemoryNetwork};
use peerage_server::{Args, Config, Event, PeerAddress, ServerMailbox, start};
use peerage_sim::run::{Act, Player, Recording, config};
use peerage_sim::scenario::{Action, Links, Regions, Scenario, Share, Span};
use peerage_sim::{Descriptor, Tally};

use crate::{UNIX, args, memory};

/// One way between the nearest and the farthest two nodes of a scenario that is played on real ones. Were all as far from
/// each other, every message would come by all ways at once, and what nodes learn of ways would be the order of a tie.
const NEAREST: Duration = Duration::from_millis(30);
const FARTHEST: Duration = Duration::from_millis(70);
/// How long messages may need after the last one was published.
const AFTER: Duration = Duration::from_secs(10);
/// How often applications take what they were given.
const TAKE_EVERY: Duration = Duration::from_millis(500);

/// A scenario that ships with the world.
///
/// # Panics
/// If there is none of this name.
pub fn shipped(name: &str) -> Scenario {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../crates/sim/scenarios/{name}.toml"));
    Scenario::read(&file).unwrap_or_else(|error| panic!("{error}"))
}

/// A scenario with so many nodes, spread over one region. What it does at a rate, it does at the same rate;
/// what befalls a share of the nodes befalls the same share, less often if that were less than one node.
pub fn cut(mut scenario: Scenario, nodes: u32) -> Scenario {
    scenario.population.nodes = nodes;
    let none = Share::NONE;
    let (half, mean) = ((FARTHEST - NEAREST) / 2, (FARTHEST + NEAREST) / 2);
    let spread = Share::from_ppm((half.as_micros() * 1_000_000 / mean.as_micros()) as u32);
    let regions = Regions::One { latency: Span(mean), spread };
    scenario.links = Links { regions, jitter: none, loss: none, reorder: none, corrupt: none };
    for event in &mut scenario.timeline {
        if let Action::Churn { every, share, .. } = &mut event.action {
            let one = 1_000_000_u32.div_ceil(nodes);
            let times = one.div_ceil(share.ppm().max(1)).max(1);
            *share = Share::from_ppm(share.ppm().max(one));
            *every = Span(every.get() * times);
        }
    }
    scenario
}

/// The same, with no more than so many messages on each topic, and without what comes long after the last one.
pub fn brief(mut scenario: Scenario, messages: u64) -> Scenario {
    let mut end = Duration::ZERO;
    for traffic in &mut scenario.traffic {
        traffic.until = Span(traffic.until.get().min(traffic.moment(messages)));
        end = end.max(traffic.until.get());
    }
    if !end.is_zero() {
        for event in &mut scenario.timeline {
            if let Action::Churn { until, .. } = &mut event.action {
                *until = Span(until.get().min(end));
            }
        }
        scenario.duration = Span(scenario.duration.get().min(end + AFTER));
    }
    scenario
}

/// What a run has shown, of the world or of real nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Who has which message of those that it is owed: message, host.
    pub delivered: BTreeSet<(u64, u32)>,
    /// Messages that an application got twice in one life.
    pub twice: u64,
    /// Sums over all nodes and lives, by name.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Shown {
    /// What the world has shown.
    pub fn by_the_world(recording: &Recording) -> Shown {
        let Tally { accepted, duplicates, gossip_bytes, packets, .. } = recording.tally;
        let metric = |name: &str| recording.report.metrics.get(name).map_or(0, |metric| metric.value);
        let got = recording.messages.iter().enumerate().flat_map(|(number, message)| {
            let owed = message.owed.iter().filter(|host| message.got.contains(host));
            owed.map(move |host| (number as u64, *host))
        });
        let counts = [
            ("messages accepted", accepted),
            ("copies received", accepted + duplicates),
            ("gossip bytes sent", gossip_bytes),
            ("discovery packets sent", packets),
            ("sessions begun", metric("sessions.begun")),
            ("dials", metric("dials")),
        ];
        Shown { delivered: got.collect(), twice: metric("duplicates-delivered"), counts: counts.into() }
    }

    fn count(&mut self, name: &'static str, by: u64) {
        *self.counts.entry(name).or_default() += by;
    }
}

/// A real node in one of its lives.
struct Life {
    server: ServerMailbox,
    events: Inlet<Event>,
    messages: Vec<Inlet<Message>>,
    counts: Counts,
    got: BTreeMap<u64, u32>,
}

struct Stage<'a> {
    recording: &'a Recording,
    config: Config,
    network: MemoryNetwork,
    clock: Clock,
    began: Time,
    rng: Rng,
    lives: Vec<Option<Life>>,
    dbs: Vec<NodeDb>,
    /// When which node published last.
    published: Option<(usize, Time)>,
    shown: Shown,
}

/// Does to real nodes what was done to the world's.
///
/// # Panics
/// If something in it cannot be done to real nodes, or a node does not start or publish.
pub async fn play(scenario: &Scenario, recording: &Recording, seed: u64) -> Shown {
    let link = Link { latency: NEAREST, jitter: FARTHEST - NEAREST, ..Link::default() };
    let clock = Clock::simulated(UNIX);
    let mut stage = Stage {
        recording,
        // The world's nodes do not exchange peers.
        config: Config { exchange_on: false, ..config(scenario) },
        network: MemoryNetwork::new(seed, link),
        clock,
        began: clock.now(),
        rng: Rng::new(seed),
        lives: recording.players.iter().map(|_| None).collect(),
        dbs: recording.players.iter().map(|_| memory()).collect(),
        published: None,
        shown: Shown::default(),
    };
    for (at, act) in &recording.acts {
        stage.until(*at).await;
        stage.act(act).await;
    }
    stage.until(scenario.duration.get()).await;
    stage.end().await
}

impl Stage<'_> {
    /// Lets virtual time pass.
    async fn until(&mut self, at: Duration) {
        loop {
            let left = at.saturating_sub(self.clock.now().since(self.began));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(TAKE_EVERY)).await;
            for host in 0..self.lives.len() {
                self.take(host);
            }
        }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Start { host, keep } => self.start(*host as usize, *keep).await,
            Act::Stop(host) => self.stop(*host as usize).await,
            Act::Publish { host, topic, policy, what } => self.publish(*host as usize, topic, *policy, *what).await,
            Act::Partition(sides) => self.pairs(|network, a, b| {
                if sides[a.0] != sides[b.0] {
                    network.part(a.1.ip(), b.1.ip())
                }
            }),
            Act::Heal => self.pairs(|network, a, b| network.heal(a.1.ip(), b.1.ip())),
            Act::Other(what) => panic!("{what} cannot be played on real nodes"),
        }
    }

    fn pairs(&self, tell: impl Fn(&MemoryNetwork, (usize, SocketAddr), (usize, SocketAddr))) {
        let address = |n: usize| (n, self.recording.players[n].address);
        for a in 0..self.lives.len() {
            (0..a).for_each(|b| tell(&self.network, address(a), address(b)));
        }
    }

    async fn start(&mut self, host: usize, keep: bool) {
        let Player { keys, address, topics } = &self.recording.players[host];
        if !keep {
            self.dbs[host] = memory();
        }
        let known = self.recording.players.iter().take(self.recording.bootnodes);
        let bootnodes =
            known.map(|boot| PeerAddress { id: boot.keys.id(), addresses: vec![boot.address], hosts: Vec::new() });
        let counts = Counts::default();
        let transport = self.network.host(address.ip());
        let args = Args {
            bootnodes: bootnodes.filter(|boot| boot.id != keys.id()).collect(),
            meter: Meter::new(Arc::new(counts.clone())),
            seed: self.rng.next_u64(),
            db: self.dbs[host].clone(),
            ..args(self.config.clone(), keys.clone(), transport, vec![*address], self.clock)
        };
        let server = start(args).await.expect("a free address and a sound configuration");
        let events = server.events(10_000).await.expect("running");
        let mut messages = Vec::new();
        for (topic, policy) in topics {
            let (outlet, inlet) = data_queue(Capacity { items: 10_000, weight: 64 << 20 });
            server.subscribe(topic.clone(), *policy, outlet).await.expect("running");
            messages.push(inlet);
        }
        self.lives[host] = Some(Life { server, events, messages, counts, got: BTreeMap::new() });
    }

    /// As a crash: nobody hears of it but by the end of its connections.
    async fn stop(&mut self, host: usize) {
        if self.published == Some((host, self.clock.now())) {
            // What the world's node sent before its crash arrives; a cut takes that back.
            tokio::time::sleep(FARTHEST).await;
        }
        self.take(host);
        let Some(life) = self.lives[host].take() else { return };
        let own = self.recording.players[host].address.ip();
        let others: Vec<_> = self.recording.players.iter().map(|player| player.address.ip()).collect();
        others.iter().for_each(|other| self.network.cut(own, *other));
        life.server.shutdown().await;
        others.iter().for_each(|other| self.network.heal(own, *other));
        // Until the tasks that have its sockets are gone.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.counted(&life);
    }

    async fn publish(&mut self, host: usize, topic: &Topic, policy: Policy, what: Descriptor) {
        let Some(life) = &self.lives[host] else { panic!("node {host} is to publish and is down") };
        let mut payload = vec![0; (what.size as usize).max(Descriptor::BYTES)];
        payload[..8].copy_from_slice(&what.number.to_be_bytes());
        let (topic, payload) = (topic.clone(), Bytes::from(payload));
        let publisher = life.server.publisher();
        let published = ask(Duration::from_secs(10), |reply| {
            publisher.offer(Publish { topic, policy, payload, reply }).expect("less than fits");
        });
        published.await.expect("an answer").expect("taken");
        self.published = Some((host, self.clock.now()));
    }

    /// Takes what an application was given.
    fn take(&mut self, host: usize) {
        let Some(life) = &mut self.lives[host] else { return };
        for message in life.messages.iter().flat_map(|inlet| inlet.take(usize::MAX)) {
            let number = message.payload.first_chunk().map(|number| u64::from_be_bytes(*number));
            *life.got.entry(number.expect("what was published here")).or_default() += 1;
        }
        for event in life.events.take(usize::MAX) {
            // Ends are not compared: here nobody is late to learn of a crash, and so two that crash within a latency of
            // each other are one end more.
            if let Event::PeerUp { .. } = event {
                self.shown.count("sessions begun", 1);
            }
        }
    }

    /// What a life has counted.
    fn counted(&mut self, life: &Life) {
        let all = |start: &str| life.counts.counters(start).into_values().sum::<u64>();
        let accepted = all("peerage_gossip_messages_total{result=accepted}");
        self.shown.count("messages accepted", accepted);
        self.shown.count("copies received", accepted + all("peerage_gossip_duplicates_total{"));
        self.shown.count("gossip bytes sent", all("peerage_gossip_bytes_total{direction=out}"));
        self.shown.count("discovery packets sent", all("peerage_discovery_packets_total{direction=out,"));
        self.shown.count("dials", all("peerage_dialer_dials_total{"));
        self.shown.twice += life.got.values().filter(|times| **times > 1).count() as u64;
    }

    async fn end(mut self) -> Shown {
        (0..self.lives.len()).for_each(|host| self.take(host));
        let lives = std::mem::take(&mut self.lives);
        // All are counted before the first one goes: the others would look for new peers.
        for (host, life) in lives.iter().enumerate() {
            let Some(life) = life else { continue };
            self.counted(life);
            let host = host as u32;
            let owed = life.got.keys().filter(|number| {
                let message = self.recording.messages.get(**number as usize);
                message.is_some_and(|message| message.owed.contains(&host))
            });
            self.shown.delivered.extend(owed.map(|number| (*number, host)));
        }
        for life in lives.iter().flatten() {
            life.server.shutdown().await;
        }
        self.shown
    }
}
