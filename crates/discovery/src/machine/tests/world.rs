//! Many machines and a loop that carries their packets: no socket, no signature on packets, a seed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::secrets::Secrets;

struct Node {
    peer: Peer,
    driver: Driver<DiscoveryMachine>,
    secrets: Secrets,
    candidates: BTreeSet<NodeId>,
    answers: BTreeMap<u64, Vec<NodeId>>,
}

/// What a run was, so that two can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    packets: u64,
    digest: String,
}

struct World {
    now: Time,
    config: Config,
    rng: Rng,
    loss_per_mille: u64,
    nodes: Vec<Node>,
    by_addr: BTreeMap<SocketAddr, usize>,
    down: BTreeSet<usize>,
    queue: BTreeMap<(Time, u64), (usize, Inbound)>,
    packets: u64,
    digest: blake3::Hasher,
}

impl World {
    fn new(seed: u64, config: Config) -> World {
        World {
            now: Time::new(Duration::ZERO, Duration::from_secs(1_700_000_000)),
            config,
            rng: Rng::new(seed),
            loss_per_mille: 0,
            nodes: Vec::new(),
            by_addr: BTreeMap::new(),
            down: BTreeSet::new(),
            queue: BTreeMap::new(),
            packets: 0,
            digest: blake3::Hasher::new(),
        }
    }

    /// Adds a node that knows the first one only, and wants candidates from the start.
    fn add(&mut self) {
        let number = self.nodes.len();
        let peer = Peer::new(number as u16);
        let bootnodes = self.nodes.first().map(|first| first.peer.bootnode()).into_iter().collect();
        let seed = self.rng.next_u64();
        let record = peer.record.clone();
        let machine = DiscoveryMachine::new(self.config.clone(), record, Families::BOTH, bootnodes, seed);
        let secrets = Secrets::from_seed(&self.rng.bytes());
        self.by_addr.insert(peer.addr, number);
        let driver = Driver::new(machine);
        self.nodes.push(Node { peer, driver, secrets, candidates: BTreeSet::new(), answers: BTreeMap::new() });
        self.tell(number, In::Start);
        self.tell(number, In::Want(16));
    }

    fn tell(&mut self, number: usize, input: In) {
        self.nodes[number].driver.handle(self.now, input);
        self.perform(number);
    }

    fn perform(&mut self, number: usize) {
        loop {
            let outs: Vec<Out> = self.nodes[number].driver.drain().collect();
            if outs.is_empty() {
                return;
            }
            for out in outs {
                match out {
                    Out::Send(outgoing) => self.carry(number, outgoing),
                    Out::Verify { token, records } => {
                        let records = records.into_iter().map(Verified::assume).collect();
                        self.nodes[number].driver.handle(self.now, In::Verified { token, records });
                    }
                    Out::Candidates(found) => {
                        self.nodes[number].candidates.extend(found.iter().map(|(record, _)| record.id()));
                    }
                    Out::Answer { token, records } => {
                        let ids = records.iter().map(|record| record.id()).collect();
                        self.nodes[number].answers.insert(token, ids);
                    }
                    Out::Alive(_)
                    | Out::Handed(_)
                    | Out::Walked { .. }
                    | Out::Observed { .. }
                    | Out::Drop(_)
                    | Out::Event(_) => {}
                }
            }
        }
    }

    /// Takes a packet from one node to another as shell, network and gate would.
    fn carry(&mut self, from: usize, outgoing: Outgoing) {
        let Outgoing { to, addr, packet } = outgoing;
        self.packets += 1;
        self.digest.update(&[packet.message.kind() as u8]);
        self.digest.update(to.as_bytes());
        self.digest.update(&self.now.running().as_nanos().to_be_bytes());
        let Some(&target) = self.by_addr.get(&addr) else { return };
        let delay = Duration::from_micros(10_000 + self.rng.below(20_000));
        if self.rng.below(1_000) < self.loss_per_mille {
            return;
        }
        let Node { peer, secrets, .. } = &self.nodes[target];
        assert_eq!(peer.id, to, "nobody moves in this world");
        let sender = &self.nodes[from].peer;
        let (id, home) = (sender.id, sender.addr);
        let epoch = self.config.cookie_epoch;
        if packet.message.kind().is_request() && !secrets.accepts(packet.cookie, id, home, self.now, epoch) {
            let cookie = secrets.cookie(id, home, self.now, epoch);
            let packet = Packet { nonce: packet.nonce, cookie, expiry: 0, message: Message::Cookie };
            let answer = Inbound { from: to, addr, packet };
            if !self.down.contains(&target) {
                self.queue.insert((self.now + delay * 2, self.packets), (from, answer));
            }
            return;
        }
        let inbound = Inbound { from: id, addr: home, packet };
        self.queue.insert((self.now + delay, self.packets), (target, inbound));
    }

    fn run(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let packet = self.queue.first_key_value().map(|(key, _)| key.0);
            let alive = (0..self.nodes.len()).filter(|number| !self.down.contains(number));
            let timer = alive.filter_map(|n| Some((self.nodes[n].driver.next_deadline()?, n))).min();
            let next = packet.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if packet == Some(at) {
                if let Some((_, (target, inbound))) = self.queue.pop_first()
                    && !self.down.contains(&target)
                {
                    self.tell(target, In::Packet(inbound));
                }
            } else if let Some((_, number)) = timer {
                self.nodes[number].driver.expire_due(self.now);
                self.perform(number);
            }
        }
        self.now = end;
    }

    fn trace(&self) -> Trace {
        Trace { packets: self.packets, digest: self.digest.finalize().to_hex().to_string() }
    }

    fn least_candidates(&self) -> usize {
        self.nodes.iter().map(|node| node.candidates.len()).min().unwrap_or(0)
    }
}

fn grown(seed: u64, count: usize, pause: Duration) -> World {
    let mut world = World::new(seed, config());
    for _ in 0..count {
        world.add();
        world.run(pause);
    }
    world
}

#[test]
fn small_networks_know_everybody_within_two_seconds() {
    for (count, seed) in [(2, 1), (3, 2), (8, 3), (16, 4), (16, 5)] {
        let mut world = grown(seed, count, Duration::ZERO);
        world.run(Duration::from_secs(2));
        let expected = (count - 1).min(12);
        assert!(world.least_candidates() >= expected, "{count} nodes: {}", world.least_candidates());
    }
}

#[test]
fn fifty_nodes_that_know_the_first_find_enough_to_dial_and_lookups_find_the_nearest() {
    let mut world = grown(11, 50, Duration::ZERO);
    world.run(Duration::from_secs(3));
    assert!(world.least_candidates() >= 16, "{}", world.least_candidates());
    world.run(Duration::from_secs(60));
    let ids: Vec<NodeId> = world.nodes.iter().map(|node| node.peer.id).collect();
    let mut missed = 0;
    for (token, asker) in (0..50).enumerate() {
        let target = NodeId::from_bytes(world.rng.bytes());
        world.tell(asker, In::Lookup { token: token as u64, target });
        world.run(Duration::from_secs(2));
        let mut nearest: Vec<NodeId> = ids.iter().copied().filter(|id| *id != ids[asker]).collect();
        nearest.sort_by_key(|id| Key::of(*id).distance(&Key::of(target)));
        nearest.truncate(16);
        missed += usize::from(world.nodes[asker].answers.get(&(token as u64)) != Some(&nearest));
    }
    assert!(missed <= 1, "{missed} of 50 lookups missed one of the 16 nearest");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = grown(seed, 50, Duration::from_millis(20));
        world.run(Duration::from_secs(20));
        world.trace()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).digest, run(8).digest);
}

#[test]
fn a_network_that_loses_a_fifth_of_its_packets_still_forms() {
    let mut world = World::new(21, config());
    world.loss_per_mille = 200;
    for _ in 0..12 {
        world.add();
    }
    world.run(Duration::from_secs(30));
    assert!(world.least_candidates() >= 9, "{}", world.least_candidates());
}

#[test]
fn nodes_that_start_before_their_bootnode_join_when_it_comes() {
    let mut world = World::new(31, config());
    world.add();
    world.down.insert(0);
    for _ in 0..5 {
        world.add();
    }
    world.run(Duration::from_secs(10));
    assert_eq!(world.least_candidates(), 0);
    world.down.clear();
    world.run(Duration::from_secs(60));
    assert!(world.least_candidates() >= 4, "{}", world.least_candidates());
}

#[test]
fn dead_nodes_leave_the_tables_of_the_others() {
    let mut world = grown(41, 20, Duration::ZERO);
    world.run(Duration::from_secs(10));
    world.down.extend(15..20);
    world.run(Duration::from_secs(600));
    let dead: Vec<NodeId> = world.nodes[15..].iter().map(|node| node.peer.id).collect();
    for node in &world.nodes[..15] {
        let machine = node.driver.machine();
        assert!(machine.table_records().all(|record| !dead.contains(&record.id())));
        assert!(machine.table.len() >= 12, "{}", machine.table.len());
    }
}

#[test]
fn an_idle_network_is_quiet() {
    let mut world = grown(51, 20, Duration::ZERO);
    world.nodes.iter_mut().for_each(|node| node.driver.handle(world.now, In::Want(0)));
    world.run(Duration::from_secs(120));
    let before = world.packets;
    world.run(Duration::from_secs(600));
    let per_node_second = (world.packets - before) as f64 / (20.0 * 600.0);
    assert!(per_node_second < 2.0, "{per_node_second} packets a node and second");
}
