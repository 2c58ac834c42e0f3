//! Watches a run: what was owed and came, who found whom, what must never be.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use peerage_discovery::Key;
use peerage_gossip::Topic;
use peerage_wire::{Banned, NodeId};
use rustc_hash::FxHashMap;

use peerage_server::Config;

use super::asking::Requests;
use super::held::Held;
use super::measure::Histogram;
use super::people::{People, Person, closest};
use crate::engine::{HostId, World};
use crate::invariants::{self, Happening, Invariant, Roster, Scene, Seen, Verdict};
use crate::node::{Descriptor, Note, PeerageNode, Tally};
use crate::report::Violation;

/// Violations of one invariant that are written down.
const MAX_VIOLATIONS: usize = 8;
/// Nodes that invariants see at one look: all of a small world, of a large one some, and the next ones at the next look.
const SEEN: usize = 128;
/// As many as a lookup finds.
pub(super) const NEAREST: usize = 16;

/// One message that was published.
pub(super) struct Published {
    pub(super) at: Duration,
    pub(super) size: u64,
    /// Honest subscribers that ran then: to each it is owed, unless it ends before the run does.
    pub(super) owed: Bits,
    pub(super) got: Bits,
}

/// A set of hosts.
#[derive(Clone, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn set(&mut self, host: HostId) -> bool {
        let (word, bit) = (host.0 as usize / 64, host.0 % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word] >> bit & 1 == 1;
        self.0[word] |= 1 << bit;
        !before
    }

    pub(super) fn clear(&mut self, host: HostId) {
        if let Some(word) = self.0.get_mut(host.0 as usize / 64) {
            *word &= !(1 << (host.0 % 64));
        }
    }

    pub(super) fn has(&self, host: HostId) -> bool {
        self.0.get(host.0 as usize / 64).is_some_and(|word| word >> (host.0 % 64) & 1 == 1)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What is known of one node's present life.
#[derive(Clone, Default)]
pub(super) struct Life {
    pub(super) since: Duration,
    pub(super) up: bool,
    pub(super) first_peer: Option<Duration>,
    /// When it had as many peers as it wants to dial.
    pub(super) settled: Option<Duration>,
    pub(super) peers: u32,
}

/// A lookup that was asked for.
pub(super) struct Lookup {
    /// The honest ones of the nearest nodes that ran.
    nearest: Vec<NodeId>,
}

/// Everything that a run is watched for.
pub(super) struct Watch {
    pub(super) messages: Vec<Published>,
    pub(super) lives: Vec<Life>,
    pub(super) delivery: Histogram,
    /// The same of nodes with slow lines, and who they are.
    pub(super) slow_delivery: Histogram,
    slow: Bits,
    /// The same of all others, where there are such.
    pub(super) fast_delivery: Histogram,
    pub(super) first_peer: Histogram,
    pub(super) settling: Histogram,
    pub(super) duplicates_delivered: u64,
    pub(super) refused: u64,
    pub(super) requests: Requests,
    pub(super) held: Held,
    pub(super) lookups: BTreeMap<u64, Lookup>,
    pub(super) found_all: u64,
    pub(super) found_nearest: u64,
    pub(super) answered: u64,
    pub(super) hops: Histogram,
    pub(super) queries: Histogram,
    /// From a node's start until its table can supply it.
    pub(super) supplied: Histogram,
    pub(super) peer_ups: u64,
    pub(super) peer_downs: u64,
    pub(super) dials: u64,
    pub(super) dials_failed: u64,
    pub(super) honest_bans: u64,
    pub(super) hostile_bans: u64,
    pub(super) blames: u64,
    /// Blames of honest nodes by honest ones.
    pub(super) honest_blames: u64,
    /// Hosts and sites that honest nodes banned.
    pub(super) network_bans: u64,
    /// Who delivered which message of a hostile node.
    pub(super) hostile_got: BTreeMap<u64, Bits>,
    pub(super) together: Vec<(u64, u64)>,
    pub(super) violations: Vec<Violation>,
    /// Of lives that have ended.
    pub(super) past: Tally,
    invariants: Vec<Box<dyn Invariant>>,
    /// The host that is seen first at the next look.
    next_seen: u32,
    wanted: u32,
    members: Rc<BTreeMap<NodeId, u64>>,
    roster: Roster,
    config: Config,
}

impl Watch {
    pub(super) fn new(people: &People, more: Vec<Box<dyn Invariant>>) -> Watch {
        let who = people.iter().map(|(_, who)| (who.id, who.address.ip(), who.hostile.is_some()));
        let mut slow = Bits::default();
        for (host, _) in people.iter().filter(|(_, who)| who.slow) {
            slow.set(host);
        }
        Watch {
            messages: Vec::new(),
            lives: vec![Life::default(); people.len()],
            delivery: Histogram::default(),
            slow_delivery: Histogram::default(),
            fast_delivery: Histogram::default(),
            slow,
            first_peer: Histogram::default(),
            settling: Histogram::default(),
            duplicates_delivered: 0,
            refused: 0,
            requests: Requests::default(),
            held: Held::default(),
            lookups: BTreeMap::new(),
            found_all: 0,
            found_nearest: 0,
            answered: 0,
            hops: Histogram::default(),
            queries: Histogram::default(),
            supplied: Histogram::default(),
            peer_ups: 0,
            peer_downs: 0,
            dials: 0,
            dials_failed: 0,
            honest_bans: 0,
            hostile_bans: 0,
            blames: 0,
            honest_blames: 0,
            network_bans: 0,
            hostile_got: BTreeMap::new(),
            together: Vec::new(),
            violations: Vec::new(),
            past: Tally::default(),
            invariants: invariants::all().into_iter().chain(more).collect(),
            next_seen: 0,
            wanted: people.config().dial_share().min(people.len().saturating_sub(1) as u32).max(1),
            members: people.members().clone(),
            roster: Roster::new(who),
            config: people.config().clone(),
        }
    }

    pub(super) fn started(&mut self, at: Duration, host: HostId) {
        self.lives[host.0 as usize] = Life { since: at, up: true, ..Life::default() };
        self.happened(at, Happening::Started(host));
    }

    /// Tells the invariants what the scenario does.
    pub(super) fn happened(&mut self, now: Duration, what: Happening) {
        let scene = Scene { now, roster: &self.roster, config: &self.config };
        self.invariants.iter_mut().for_each(|invariant| invariant.happened(&scene, &what));
    }

    /// Asks each invariant something.
    fn ask(&mut self, now: Duration, mut question: impl FnMut(&mut dyn Invariant, &Scene<'_>) -> Verdict) {
        let scene = Scene { now, roster: &self.roster, config: &self.config };
        for invariant in &mut self.invariants {
            if let Err(what) = question(&mut **invariant, &scene) {
                violated(&mut self.violations, now, invariant.name(), what);
            }
        }
    }

    pub(super) fn stopped(&mut self, at: Duration, host: HostId) {
        self.lives[host.0 as usize].up = false;
        // Nothing is owed to who goes; and a new life knows nothing of what an earlier one got.
        for message in &mut self.messages {
            message.owed.clear(host);
            message.got.clear(host);
        }
        self.hostile_got.values_mut().for_each(|got| got.clear(host));
        self.happened(at, Happening::Stopped(host));
    }

    /// A message is about to be published; returns its number.
    pub(super) fn published(&mut self, world: &World<PeerageNode>, people: &People, topic: &Topic) -> u64 {
        let mut owed = Bits::default();
        for (host, person) in people.honest() {
            if world.node(host).is_some() && person.topics.iter().any(|(wanted, _)| wanted == topic) {
                owed.set(host);
            }
        }
        self.messages.push(Published { at: world.now(), size: 0, owed, got: Bits::default() });
        self.messages.len() as u64 - 1
    }

    pub(super) fn sized(&mut self, now: Duration, what: Descriptor) {
        self.happened(now, Happening::Published(what));
        if let Some(message) = self.messages.get_mut(what.number as usize) {
            message.size = u64::from(what.size);
        }
    }

    pub(super) fn asked(
        &mut self,
        world: &World<PeerageNode>,
        people: &People,
        number: u64,
        (by, target): (HostId, NodeId),
    ) {
        // A node does not look for itself.
        let running = people.iter().filter(|(host, _)| *host != by && world.node(*host).is_some());
        let running: Vec<(Key, NodeId)> = running.map(|(_, person)| (person.key, person.id)).collect();
        let mut nearest = closest(&running, &Key::of(target), NEAREST);
        nearest.retain(|id| self.roster.honest(id).is_some());
        self.lookups.insert(number, Lookup { nearest });
    }

    pub(super) fn noted(&mut self, at: Duration, person: &Person, host: HostId, note: Note) {
        self.ask(at, |invariant, scene| invariant.noted(scene, host, &note));
        let honest = person.hostile.is_none();
        match note {
            Note::Delivered(what) if honest => self.delivered(at, host, what),
            Note::PeerUp(..) => {
                self.peer_ups += 1;
                let life = &mut self.lives[host.0 as usize];
                life.peers += 1;
                let micros = |since: Duration| at.saturating_sub(since).as_micros() as u64;
                if life.first_peer.is_none() {
                    life.first_peer = Some(at);
                    if honest {
                        self.first_peer.add(micros(life.since));
                    }
                }
                if life.settled.is_none() && life.peers >= self.wanted {
                    life.settled = Some(at);
                    if honest {
                        self.settling.add(micros(life.since));
                    }
                }
            }
            Note::PeerDown(..) => {
                self.peer_downs += 1;
                let life = &mut self.lives[host.0 as usize];
                life.peers = life.peers.saturating_sub(1);
            }
            Note::Published(None) if honest => self.refused += 1,
            Note::Completed { took: Some(took) } if honest => self.requests.answered(self.is_member(&person.id), took),
            Note::Called { from } if honest => self.requests.called(self.is_member(&from)),
            Note::Walked { hops, queries } => {
                self.hops.add(hops.into());
                self.queries.add(queries.into());
            }
            Note::Usable if honest => {
                let since = self.lives[host.0 as usize].since;
                self.supplied.add(at.saturating_sub(since).as_micros() as u64);
            }
            Note::Answer { token, records } => {
                if let Some(lookup) = self.lookups.remove(&token) {
                    self.answered += 1;
                    let found = lookup.nearest.iter().filter(|id| records.iter().any(|record| record.id() == **id));
                    self.found_all += u64::from(found.count() == lookup.nearest.len());
                    let first = lookup.nearest.first();
                    let nearest = first.is_none_or(|id| records.iter().any(|record| record.id() == *id));
                    self.found_nearest += u64::from(nearest);
                }
            }
            Note::Banned(Banned::Id(id)) if honest => {
                if self.roster.honest(&id).is_some() {
                    self.honest_bans += 1
                } else {
                    self.hostile_bans += 1
                }
            }
            // What a network of bans holds is looked for: they are few.
            Note::Banned(Banned::Network(network)) if honest => {
                self.network_bans += 1;
                self.honest_bans += self.roster.honest_addresses().filter(|ip| network.contains(ip)).count() as u64;
            }
            Note::Blamed(id, _) if honest => {
                self.blames += 1;
                self.honest_blames += u64::from(self.roster.honest(&id).is_some());
            }
            Note::Dialled { ok: false, .. } => self.dials_failed += 1,
            Note::Dials(_) => self.dials += 1,
            Note::Usable
            | Note::Completed { .. }
            | Note::Called { .. }
            | Note::Dialled { .. }
            | Note::Delivered(_)
            | Note::Published(_)
            | Note::Banned(_)
            | Note::Blamed(..) => {}
        }
    }

    fn delivered(&mut self, at: Duration, host: HostId, what: Descriptor) {
        if what.number & Descriptor::HOSTILE != 0 {
            let first = self.hostile_got.entry(what.number).or_default().set(host);
            self.duplicates_delivered += u64::from(!first);
            return;
        }
        let Some(message) = self.messages.get_mut(what.number as usize) else { return };
        if !message.got.set(host) {
            self.duplicates_delivered += 1;
        } else if message.owed.has(host) {
            let took = at.saturating_sub(message.at).as_micros() as u64;
            self.delivery.add(took);
            if self.slow.has(host) {
                self.slow_delivery.add(took);
            } else if self.slow.len() > 0 {
                self.fast_delivery.add(took);
            }
        }
    }

    fn is_member(&self, id: &NodeId) -> bool {
        self.members.contains_key(id)
    }

    /// Looks at everybody: what must hold at any time, and how the network hangs together.
    pub(super) fn look(&mut self, world: &World<PeerageNode>, people: &People) {
        let now = world.now();
        let hosts = people.len() as u32;
        let first = self.next_seen;
        for host in (0..hosts.min(SEEN as u32)).map(|nth| HostId((first + nth) % hosts)) {
            let Some(node) = world.node(host).filter(|_| people[host].hostile.is_none()) else { continue };
            let seen = Seen::of(node, world.time_at(host));
            self.ask(now, |invariant, scene| invariant.saw(scene, host, &seen));
        }
        self.next_seen = (first + SEEN as u32) % hosts.max(1);
        self.ask(now, |invariant, scene| invariant.looked(scene));
        let (_, largest, online) = components(world, people, self.roster.ids());
        let millis = now.as_millis() as u64;
        self.together.push((millis, super::measure::share(largest, online)));
    }
}

fn violated(violations: &mut Vec<Violation>, at: Duration, invariant: &str, what: String) {
    if violations.iter().filter(|known| known.invariant == invariant).count() < MAX_VIOLATIONS {
        let at_ms = at.as_millis() as u64;
        violations.push(Violation { at_ms, invariant: invariant.to_owned(), what });
    }
}

/// Components that sessions make of the honest nodes, the size of the largest, and how many nodes run.
pub(super) fn components(
    world: &World<PeerageNode>,
    people: &People,
    by_id: &FxHashMap<NodeId, HostId>,
) -> (u64, u64, u64) {
    let mut parent: Vec<u32> = (0..people.len() as u32).collect();
    fn root(parent: &mut [u32], mut node: u32) -> u32 {
        while parent[node as usize] != node {
            parent[node as usize] = parent[parent[node as usize] as usize];
            node = parent[node as usize];
        }
        node
    }
    let mut running = Vec::new();
    for (host, _) in people.honest() {
        let Some(node) = world.node(host) else { continue };
        running.push(host.0);
        for (peer, _) in node.peers() {
            let Some(other) = by_id.get(&peer).filter(|other| people[**other].hostile.is_none()) else { continue };
            let (a, b) = (root(&mut parent, host.0), root(&mut parent, other.0));
            parent[a as usize] = b;
        }
    }
    let mut sizes = BTreeMap::<u32, u64>::new();
    for host in &running {
        *sizes.entry(root(&mut parent, *host)).or_default() += 1;
    }
    (sizes.len() as u64, sizes.values().copied().max().unwrap_or(0), running.len() as u64)
}

impl Watch {
    pub(super) fn hosts_by_id(&self) -> &FxHashMap<NodeId, HostId> {
        self.roster.ids()
    }
}
