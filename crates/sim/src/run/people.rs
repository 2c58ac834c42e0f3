//! Who is in a world: hosts, identities, and what each node is started with.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Index;
use std::rc::Rc;
use std::time::Duration;

use peerage_dialer::StaticPeer;
use peerage_discovery::{Bootnode, Key};
use peerage_gossip::coded::Admitted;
use peerage_gossip::{Mode, Policy, Topic};
use peerage_machine::{Rng, Time};
use peerage_nodedb::NodeDb;
use peerage_router::{HandlerConfig, Limits, Rate, Terms};
use peerage_server::Config;
use peerage_wire::{Keypair, NetworkId, NodeId};

use super::RunError;
use super::agenda::joining;
use crate::adversaries::{Aim, Recruit, Swarm};
use crate::engine::{HostId, HostSpec, Links, World, mix};
use crate::node::{Cast, ForeignParts, NodeArgs, PeerageNode, Service, seed_of};
use crate::scenario::{self, Population, Preset, Regions, Scenario, Sites};

/// The port of all nodes.
const PORT: u16 = 30303;
/// Nodes that share a /24 before they share addresses.
const PER_SITE: u32 = 250;

/// One node of a scenario, through all its lives.
pub struct Person {
    /// Its keys.
    pub keys: Keypair,
    /// Who it is.
    pub id: NodeId,
    /// Where it is in Kademlia's space.
    pub key: Key,
    /// Its address.
    pub address: SocketAddr,
    /// Which of the scenario's adversaries it is of; `None` for an honest one.
    pub hostile: Option<usize>,
    /// Whether it is one of those with a slow line.
    pub slow: bool,
    /// What it subscribes to.
    pub topics: Vec<(Topic, Policy)>,
    /// When it starts first.
    pub starts: Duration,
    /// How long after its start it stops to read its connections, if it does.
    pub deaf_after: Option<Duration>,
    lives: u64,
    db: NodeDb,
}

/// Everybody, by host.
pub struct People {
    all: Vec<Person>,
    cast: Rc<Cast>,
    config: Rc<Config>,
    bootnodes: Vec<Bootnode>,
    swarms: Vec<Swarm>,
    victim: Option<HostId>,
    /// Honest nodes that are there from the start, and how many others each keeps connected.
    nodes: u32,
    statics: u32,
    services: Rc<[Service]>,
    /// Those of the honest nodes that are members, and their weights.
    members: Rc<BTreeMap<NodeId, u64>>,
}

impl Index<HostId> for People {
    type Output = Person;

    fn index(&self, host: HostId) -> &Person {
        &self.all[host.0 as usize]
    }
}

/// The configuration of a scenario's nodes, honest and hostile.
pub fn config(scenario: &Scenario) -> Config {
    let population = &scenario.population;
    let mut config = match population.preset {
        Preset::Recommended => Config::recommended(),
        Preset::Local => Config::local(),
    };
    config.network = "simulated".into();
    if let Some(max_peers) = population.max_peers {
        config.max_peers = max_peers;
    }
    match population.gossip {
        None | Some(Mode::Peerage) => {}
        Some(Mode::Gossipsub) => config.gossip = peerage_gossip::Config::gossipsub(),
        Some(Mode::Plumtree) => config.gossip = peerage_gossip::Config::plumtree(),
    }
    config.exempt_local = population.limits.exempt_local;
    config.discovery.exempt_local = population.limits.exempt_local;
    let coded = scenario.traffic.iter().filter(|traffic| traffic.coded);
    let coded = coded.filter_map(|traffic| Topic::new(&traffic.topic).ok());
    config.gossip.coded.admitted = coded.map(|topic| (topic, Admitted::Everybody)).collect();
    let largest = scenario.traffic.iter().map(|traffic| traffic.size.max.bytes() as usize).max().unwrap_or(0);
    let gossip = &mut config.gossip;
    if largest > gossip.max_payload {
        gossip.max_payload = largest;
        gossip.in_flight_bytes = gossip.in_flight_bytes.max(5 * largest);
        gossip.cache_bytes = gossip.cache_bytes.max(4 * largest);
    }
    if !population.limits.requests {
        let unlimited = Limits { per_peer: 1 << 20, per_peer_bytes: 1 << 30, node: 1 << 20, node_bytes: 1 << 30 };
        config.router.served = unlimited;
    }
    config.discovery.lookup_paths = population.limits.lookup_paths.max(1).into();
    if !population.limits.discovery_site_limits {
        config.discovery.site_per_bucket = usize::MAX;
        config.discovery.site_per_table = usize::MAX;
        config.discovery.fair_shares = false;
    }
    config
}

/// The engine's links of a scenario.
pub(crate) fn links(links: &scenario::Links) -> Links {
    let base = match links.regions {
        Regions::World => Links::world(),
        Regions::One { latency, spread } => Links { spread: spread.ppm(), ..Links::uniform(latency.get()) },
    };
    Links {
        jitter: links.jitter.ppm(),
        loss: links.loss.ppm(),
        reorder: links.reorder.ppm(),
        corrupt: links.corrupt.ppm(),
        ..base
    }
}

/// The nth address of a group of nodes that live in so many sites, from the group's first octet on.
fn address(group: u8, sites: Sites, nth: u32) -> Result<SocketAddr, RunError> {
    let (site, in_site) = match sites {
        Sites::Own => (nth, 0),
        Sites::Spread(sites) => (nth % sites.max(1), nth / sites.max(1)),
    };
    // Each group has four /8 of its own.
    let octet = u32::from(group) + (site >> 16);
    let port = u32::from(PORT) + in_site / PER_SITE;
    let (true, Ok(port), Ok(octet)) = (site >> 16 < 4, u16::try_from(port), u8::try_from(octet)) else {
        return Err(RunError::Unplayable(format!("there is no address for node {nth} of its group")));
    };
    let ip = Ipv4Addr::new(octet, (site >> 8) as u8, site as u8, (1 + in_site % PER_SITE) as u8);
    Ok((ip, port).into())
}

/// Makes the world and everybody in it; nobody has started.
pub(super) fn populate(scenario: &Scenario, seed: u64) -> Result<(World<PeerageNode>, People), RunError> {
    let population = &scenario.population;
    let mut rng = Rng::new(seed_of(seed, u64::MAX, 0));
    let links = links(&scenario.links);
    let regions = links.regions() as u64;
    let mut world = World::new(links, seed);
    let config = Rc::new(config(scenario));
    world.set_idle(config.session.idle_timeout);
    world.set_patience(config.session.handshake_timeout);
    config.check().map_err(RunError::Unplayable)?;
    let cast = Rc::new(Cast::new(NetworkId::named(&config.network), seed));
    let policies: Vec<Policy> = topics(scenario).into_iter().map(|(_, policy, _)| policy).collect();
    let swarms = scenario.adversaries.iter().map(|adversary| Swarm::new(adversary, &config, &policies));
    let swarms: Vec<Swarm> = swarms.collect::<Result<_, _>>().map_err(RunError::Unplayable)?;
    let asking = |kind| matches!(kind, scenario::Kind::RequestFlood | scenario::Kind::SlowAnswers);
    if let Some(lost) = scenario.adversaries.iter().find(|adversary| asking(adversary.kind))
        && scenario.requests.is_empty()
    {
        let why = format!("{} needs a handler: there is no [[requests]]", lost.kind);
        return Err(RunError::Unplayable(why));
    }
    let mut all = Vec::new();
    let joining = joining(&scenario.timeline);
    let mut groups = vec![(None, population.nodes + joining, population.sites, Duration::ZERO)];
    for (index, (adversary, count)) in scenario.adversaries.iter().zip(scenario.hostile()).enumerate() {
        groups.push((Some(index), count, adversary.sites, adversary.at.map_or(Duration::ZERO, |at| at.get())));
    }
    for (group, (hostile, count, sites, from)) in groups.into_iter().enumerate() {
        let first = 20 + u8::try_from(group * 4).map_err(|_| RunError::Unplayable("too many kinds of nodes".into()))?;
        let topics = topics(scenario);
        for nth in 0..count {
            let address = address(first, sites, nth)?;
            let honest = hostile.is_none();
            let boot = honest && nth < population.bootnodes;
            let share = |share: scenario::Share, rng: &mut Rng| rng.below(1_000_000) < u64::from(share.ppm());
            let slow = population.slow.filter(|slow| honest && share(slow.share, &mut rng));
            let (up, down) = slow.map_or((population.up, population.down), |slow| (slow.up, slow.down));
            let skew = u64::try_from(population.skew.get().as_millis()).unwrap_or(u64::MAX);
            let host = world.add(HostSpec {
                address,
                region: rng.below(regions) as u8,
                nat: honest && !boot && share(population.nat, &mut rng),
                up: up.map(|rate| rate.bytes()),
                down: down.map(|rate| rate.bytes()),
                skew_ms: rng.below(2 * skew + 1) as i64 - skew as i64,
            });
            let keys = Keypair::from_seed(key_seed(seed, host.0));
            let spread = u64::try_from(population.start.get().as_nanos()).unwrap_or(u64::MAX);
            let late = Duration::from_nanos(rng.below(spread.max(1)));
            let starts = if boot { Duration::ZERO } else { from + late };
            let wanted = topics.iter().filter(|(_, _, subscribers)| !honest || share(*subscribers, &mut rng));
            all.push(Person {
                id: keys.id(),
                key: Key::of(keys.id()),
                keys,
                address,
                hostile,
                slow: slow.is_some(),
                topics: wanted.map(|(topic, policy, _)| (topic.clone(), *policy)).collect(),
                starts: if honest && nth >= population.nodes { Duration::MAX } else { starts },
                deaf_after: hostile.and_then(|index| swarms[index].deaf_after()),
                lives: 0,
                db: memory(),
            });
        }
    }
    let bootnode = |person: &Person| Bootnode { id: person.id, addr: person.address };
    let bootnodes = all.iter().take(population.bootnodes as usize).map(bootnode).collect();
    let (nodes, statics) = (population.nodes, population.statics);
    let (services, members) = (services(scenario), Rc::new(members(scenario, &all)));
    let mut people = People { all, cast, config, bootnodes, swarms, victim: None, nodes, statics, services, members };
    people.brief().map_err(RunError::Unplayable)?;
    Ok((world, people))
}

fn memory() -> NodeDb {
    NodeDb::memory(peerage_nodedb::Config::recommended())
}

fn key_seed(seed: u64, host: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut word = mix(mix(seed) ^ u64::from(host));
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = mix(word);
    }
    bytes
}

/// The topics of a scenario, and which part of the nodes wants each.
fn topics(scenario: &Scenario) -> Vec<(Topic, Policy, scenario::Share)> {
    let mut topics: Vec<(Topic, Policy, scenario::Share)> = Vec::new();
    for traffic in &scenario.traffic {
        let Ok(topic) = Topic::new(&traffic.topic) else { continue };
        if topics.iter().all(|(known, ..)| *known != topic) {
            topics.push((topic, policy(traffic.policy), traffic.subscribers));
        }
    }
    topics
}

/// The first ones of a scenario's nodes, as many as are to be members.
fn members(scenario: &Scenario, all: &[Person]) -> BTreeMap<NodeId, u64> {
    let Population { nodes, members, .. } = &scenario.population;
    let (count, weight) = members.map_or((0, 0), |of| (of.share.of(u64::from(*nodes)) as usize, of.weight));
    all.iter().take(count).map(|person| (person.id, weight)).collect()
}

/// What nodes of a scenario ask each other, and under which limits.
fn services(scenario: &Scenario) -> Rc<[Service]> {
    let limited = scenario.population.limits.requests;
    let service = |of: &scenario::Requests| {
        let at_once = of.takes.get().is_zero();
        let limits = if at_once { HandlerConfig::in_order() } else { HandlerConfig::concurrent() };
        let rate = of.allowance.map(|calls| Rate { calls, period: Duration::from_secs(1) });
        let total = of.places.map_or(limits.total, |places| places as usize);
        Service {
            name: of.handler.clone(),
            limits: match limited {
                true => HandlerConfig { rate, total, ..limits },
                false => HandlerConfig { per_peer: usize::MAX, total: usize::MAX, ..limits },
            },
            answer: u32::try_from(of.answer.bytes()).unwrap_or(u32::MAX),
            takes: of.takes.get(),
            terms: if of.retry { Terms::trying(of.deadline.get()) } else { Terms::within(of.deadline.get()) },
        }
    };
    scenario.requests.iter().map(service).collect()
}

pub(super) fn policy(policy: scenario::Policy) -> Policy {
    match policy {
        scenario::Policy::Signed => Policy::Signed,
        scenario::Policy::Anonymous => Policy::Anonymous,
    }
}

impl People {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HostId, &Person)> {
        self.all.iter().enumerate().map(|(index, person)| (HostId(index as u32), person))
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn honest(&self) -> impl Iterator<Item = (HostId, &Person)> {
        self.iter().filter(|(_, person)| person.hostile.is_none())
    }

    /// The node that attacks aim at: unless the first of them that aims says otherwise, the last honest one of those
    /// that are there from the start.
    pub(crate) fn victim(&self) -> Option<HostId> {
        self.victim
    }

    /// Tells attackers who is where, and at whom they aim.
    fn brief(&mut self) -> Result<(), String> {
        let there: Vec<HostId> =
            self.honest().filter(|(_, person)| person.starts < Duration::MAX).map(|(host, _)| host).collect();
        let aimed = |aim: Aim| match aim {
            Aim::Last => Ok(there.last().copied()),
            Aim::Node(number) if there.contains(&HostId(number)) => Ok(Some(HostId(number))),
            Aim::Node(number) => Err(format!("there is no honest node {number} to be the victim")),
        };
        let victims: Vec<Option<HostId>> =
            self.swarms.iter().map(|swarm| aimed(swarm.aim().unwrap_or(Aim::Last))).collect::<Result<_, _>>()?;
        let aiming = self.swarms.iter().position(|swarm| swarm.aim().is_some());
        self.victim = aiming.map_or(there.last().copied(), |index| victims[index]);
        let honest: Vec<(NodeId, SocketAddr)> = self.honest().map(|(_, person)| (person.id, person.address)).collect();
        let place = |host: HostId| (self.all[host.0 as usize].id, self.all[host.0 as usize].address);
        let places: Vec<Option<(NodeId, SocketAddr)>> = victims.into_iter().map(|host| host.map(place)).collect();
        for (swarm, victim) in self.swarms.iter_mut().zip(places) {
            swarm.brief(&self.cast, honest.clone(), victim);
        }
        Ok(())
    }

    pub(super) fn bootnodes(&self) -> usize {
        self.bootnodes.len()
    }

    pub(super) fn members(&self) -> &Rc<BTreeMap<NodeId, u64>> {
        &self.members
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Keeps what a node had on disk.
    pub(super) fn keep(&mut self, host: HostId, db: NodeDb) {
        self.all[host.0 as usize].db = db;
    }

    /// The next life of a node, that begins at `now` by its clock and `at` by the scenario's.
    pub(super) fn node(
        &mut self,
        host: HostId,
        keep: bool,
        (now, at): (Time, Duration),
        seed: u64,
    ) -> Result<PeerageNode, String> {
        let person = &mut self.all[host.0 as usize];
        if !keep {
            person.db = memory();
        }
        person.lives += 1;
        let seed = seed_of(seed, u64::from(host.0), person.lives);
        let person = &self.all[host.0 as usize];
        let bootnodes: Vec<Bootnode> =
            self.bootnodes.iter().copied().filter(|bootnode| bootnode.id != person.id).collect();
        let (foreign, config) = match person.hostile.map(|index| &self.swarms[index]) {
            Some(swarm) => {
                let recruit = Recruit {
                    host,
                    keys: &person.keys,
                    address: person.address,
                    topics: &person.topics,
                    bootnodes: &bootnodes,
                    services: &self.services,
                    cast: &self.cast,
                    now,
                    at,
                    seed,
                };
                (swarm.parts(&recruit)?, swarm.config())
            }
            None => (ForeignParts::default(), self.config.clone()),
        };
        // The next ones of those that are there from the start, in a ring.
        let nodes = self.nodes;
        let ring = (1..=self.statics).map(|next| HostId((host.0 + next) % nodes)).filter(|_| host.0 < nodes);
        let statics = ring.map(|host| StaticPeer::new(self[host].id, [self[host].address])).collect();
        let args = NodeArgs {
            cast: self.cast.clone(),
            config,
            keys: person.keys.clone(),
            bootnodes,
            statics,
            topics: person.topics.clone(),
            db: person.db.clone(),
            seed,
            services: self.services.clone(),
            members: self.members.clone(),
            foreign,
        };
        PeerageNode::new(args, now, person.address)
    }
}

/// How far a node is from another in Kademlia's space.
pub(super) fn closest(people: &[(Key, NodeId)], target: &Key, count: usize) -> Vec<NodeId> {
    let mut near: Vec<_> = people.iter().map(|(key, id)| (target.distance(key), *id)).collect();
    let count = count.min(near.len());
    if count > 0 && count < near.len() {
        near.select_nth_unstable(count - 1);
    }
    near.truncate(count);
    near.sort_unstable();
    near.into_iter().map(|(_, id)| id).collect()
}
