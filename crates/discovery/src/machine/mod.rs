//! The rules of discovery: what is asked, answered, remembered and handed on.
//!
//! | file | rule |
//! |---|---|
//! | `table` | who is remembered |
//! | `requests` | what was asked, and which answer fits it |
//! | `ask` | sending a request, taking its answer or its time-out |
//! | `serve` | answering others, learning of those who speak to us |
//! | `lookup`, `search` | walking towards a point |
//! | `origin` | how nodes became known, and whose turn it is by that |
//! | `prove` | asking nodes that were told of for a first sign of life |
//! | `lost` | nodes that stopped answering, and may come back |
//! | `maintain` | bootnodes, seeds, changes of the policy, refresh, revalidation |
//! | `handout`, `mix` | records for the dialer, from the table and from other sources |
//!
//! One policy ([`Admission`]) says whom the node has to do with. It is asked where packets come in, where requests go
//! out, and where records are learnt; so the table, and with it all answers, holds only who is admitted.

mod ask;
mod handout;
mod lookup;
mod lost;
mod maintain;
mod mix;
mod origin;
mod prove;
mod requests;
mod search;
mod serve;
mod stats;
mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_wire::{Admission, NodeId, NodeRecord, Verified};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::count::{DropReason, Event};
use crate::filter::EntryRule;
use crate::gate::{Inbound, Known};
use crate::key::{BUCKETS, Key};
use crate::net::{canonical, may_relay};
use crate::secrets::Secrets;
use crate::source::Source;
use crate::wire::Packet;
use lookup::Lookup;
use lost::Lost;
use maintain::Refresh;
use mix::Mix;
use requests::{Cookies, Requests};
pub use stats::Stats;
pub use table::List;
use table::{Contact, Table};

/// What may happen to the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// The node begins. Once, before anything else.
    Start,
    /// A packet that passed the gate.
    Packet(Inbound),
    /// Those records of a [`Out::Verify`] that their owners signed.
    Verified {
        /// The token of the request.
        token: u64,
        /// The good ones, in any order.
        records: Vec<Verified<NodeRecord>>,
    },
    /// The dialer can use this many records now. A later call replaces what is left of an earlier one.
    Want(usize),
    /// Answer with the nodes nearest to this one, as the network knows them.
    Lookup {
        /// Comes back with the answer.
        token: u64,
        /// The node.
        target: NodeId,
    },
    /// Answer with the newest record of this node, from itself if it can be reached.
    Resolve {
        /// Comes back with the answer.
        token: u64,
        /// The node.
        id: NodeId,
    },
    /// Answer with this many random nodes of the table that are alive.
    Random {
        /// Comes back with the answer.
        token: u64,
        /// How many at most.
        count: usize,
    },
    /// Answer with the nodes of the table nearest to this one.
    Closest {
        /// Comes back with the answer.
        token: u64,
        /// The node.
        target: NodeId,
        /// How many at most.
        count: usize,
    },
    /// Whom this node has to do with from now on. Who is not admitted any more leaves the table.
    Admission(Arc<Admission>),
    /// What records must say from now on for their owners to be dialled.
    Filter(Vec<EntryRule>),
    /// This node signed a new record of itself.
    LocalChanged(Verified<NodeRecord>),
    /// A dial ended.
    Outcome {
        /// Who was dialled.
        id: NodeId,
        /// Whether it became a peer.
        ok: bool,
    },
    /// Nodes to begin with besides the bootnodes that were given at the start, which become known later, and instead of
    /// those that this source told of before: where a host's name leads, or what a file says. At most [`MAX_NAMED`].
    Bootnodes {
        /// Who tells.
        source: Source,
        /// The nodes.
        nodes: Vec<Bootnode>,
    },
    /// Nodes that were learnt of elsewhere than in the table's own lookups, their records checked. Of one offer at most
    /// [`MAX_OFFER`](crate::MAX_OFFER) are taken.
    Offer {
        /// Where.
        source: Source,
        /// Their records.
        records: Vec<Verified<NodeRecord>>,
    },
}

/// A packet to be sealed and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Whom it is for.
    pub to: NodeId,
    /// Where it goes.
    pub addr: SocketAddr,
    /// What it says. The nonce of a request has no keyed hash yet.
    pub packet: Packet,
}

impl Outgoing {
    /// The same with a request's nonce tied to its recipient by the sender's secret, as the recipient's answer must
    /// echo it. An answer stays as it is.
    pub fn tied(mut self, secrets: &Secrets) -> Outgoing {
        if self.packet.message.kind().is_request() {
            self.packet.nonce.mac = secrets.nonce_mac(self.to, self.addr, self.packet.nonce.counter);
        }
        self
    }
}

/// A node's record, and those of the TCP sockets in it where it may be dialled, best first and never none: they are
/// of the host that answered us, or of a local network.
pub type Found = (Verified<NodeRecord>, Vec<SocketAddr>);

/// What the machine asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Send this packet.
    Send(Outgoing),
    /// Check the owners' signatures, and come back with [`In::Verified`].
    Verify {
        /// Comes back with the result.
        token: u64,
        /// What to check; at most [`crate::wire::MAX_NEIGHBORS`].
        records: Vec<NodeRecord>,
    },
    /// Nodes for the dialer, of those that answered us; never more than it wants.
    Candidates(Vec<Found>),
    /// Count a node of [`Out::Candidates`] by its source.
    Handed(Source),
    /// This node answers reliably: remember it beyond this process. Once an hour for each node of the table at most, or
    /// when its record became newer.
    Alive(Verified<NodeRecord>),
    /// The answer to a call: nearest first where there is a target, one or none for a resolve.
    Answer {
        /// The token of the call.
        token: u64,
        /// The records.
        records: Vec<Verified<NodeRecord>>,
    },
    /// A lookup ended. If a caller asked for it, its answer follows.
    Walked {
        /// The caller's token.
        token: Option<u64>,
        /// How many nodes were asked one after another until the nearest that was found was told of.
        hops: u8,
        /// How many questions were asked.
        queries: usize,
    },
    /// A node that answered a ping says where it saw us.
    Observed {
        /// Its socket.
        by: SocketAddr,
        /// Ours, as it says.
        observed: SocketAddr,
    },
    /// Count a drop.
    Drop(DropReason),
    /// Count an event.
    Event(Event),
}

/// The machine's timers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A request has waited long enough.
    Request(u64),
    /// One member of a list is to be checked.
    Revalidate(List),
    /// The table is to be refreshed.
    Refresh,
    /// The bootnodes are to be tried if the table is still empty.
    Bootstrap,
    /// A node may be handed out again.
    Handout,
    /// Lost nodes are to be asked for a sign of life.
    Regain,
}

/// Nodes that are taken over from an earlier process (geth `seedCount`).
pub const MAX_SEEDS: usize = 30;

/// Nodes to begin with that one source may tell of: 64 names of eight addresses.
pub const MAX_NAMED: usize = 512;

/// A node to begin with. A record is a hint: it may be stale, and a fresh one is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootnode {
    /// Who.
    pub id: NodeId,
    /// Its UDP socket.
    pub addr: SocketAddr,
}

impl Bootnode {
    /// The node of a record, which need not be verified; `None` if it names no UDP socket.
    pub fn from_record(record: &NodeRecord) -> Option<Bootnode> {
        Some(Bootnode { id: record.id(), addr: record.udp_address()? })
    }
}

/// Which address families the node's sockets speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Both.
    pub const BOTH: Families = Families { v4: true, v6: true };

    fn reach(self, addr: SocketAddr) -> bool {
        if addr.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Who told of others, and from where.
#[derive(Clone, Copy)]
struct Teller {
    key: Key,
    addr: SocketAddr,
}

/// What records in a batch of signature checks are for.
enum Check {
    /// Told by somebody, in a lookup.
    Neighbors { teller: Teller, lookup: u64 },
    /// A node's own, from its own address.
    Own { from: NodeId, addr: SocketAddr, purpose: requests::Purpose },
}

/// Discovery's rules. See [`In`], [`Out`] and [`Timer`] for what goes through it.
pub struct DiscoveryMachine {
    config: Config,
    me: NodeId,
    local: Verified<NodeRecord>,
    families: Families,
    bootnodes: Vec<Bootnode>,
    /// Such as became known later.
    named: BTreeMap<Source, Vec<Bootnode>>,
    /// Nodes remembered from earlier, at most [`MAX_SEEDS`]; gone once the node has started.
    seeds: Vec<Verified<NodeRecord>>,
    admission: Arc<Admission>,
    rng: Rng,
    table: Table,
    requests: Requests,
    cookies: Cookies,
    lookups: BTreeMap<u64, Lookup>,
    checks: BTreeMap<u64, Check>,
    next_token: u64,
    refresh: Refresh,
    /// Nodes that spoke to us and were asked for their record, and until when they are not asked again.
    learning: BTreeMap<NodeId, Time>,
    /// With so many, those whose pause is over are forgotten.
    learning_crowd: usize,
    /// What other sources told.
    mix: Mix,
    /// How many records the dialer still wants.
    wanted: usize,
    /// Whether there may be nodes in the table whose first sign of life was not asked for.
    unproven: bool,
    /// Nodes that answered often and are lost.
    lost: Lost,
    /// Whether somebody became fit to be handed out since the last look.
    supply_changed: bool,
}

impl DiscoveryMachine {
    /// The machine of the node that signed `local`. `seed` decides jitter and sampling.
    pub fn new(
        config: Config,
        local: Verified<NodeRecord>,
        families: Families,
        bootnodes: Vec<Bootnode>,
        seed: u64,
    ) -> DiscoveryMachine {
        let me = local.id();
        DiscoveryMachine {
            me,
            families,
            bootnodes: bootnodes
                .into_iter()
                .filter(|bootnode| bootnode.id != me)
                .map(|bootnode| Bootnode { addr: canonical(bootnode.addr), ..bootnode })
                .collect(),
            named: BTreeMap::new(),
            seeds: Vec::new(),
            admission: Arc::new(Admission::open()),
            rng: Rng::new(seed),
            table: Table::new(me, &config),
            requests: Requests::default(),
            cookies: Cookies::new(config.max_cookies),
            lookups: BTreeMap::new(),
            checks: BTreeMap::new(),
            next_token: 0,
            refresh: Refresh::default(),
            learning: BTreeMap::new(),
            learning_crowd: serve::FEW_LEARNING,
            mix: Mix::new(),
            wanted: 0,
            unproven: false,
            lost: Lost::default(),
            supply_changed: false,
            config,
            local,
        }
    }

    /// The same machine with a policy of whom it has to do with; without one, everybody is admitted.
    pub fn admitting(mut self, admission: Arc<Admission>) -> DiscoveryMachine {
        self.admission = admission;
        self
    }

    /// The same machine with nodes to begin with besides the bootnodes: of these records, which an earlier process
    /// remembered, the first [`MAX_SEEDS`] are found nodes from the start, and have to answer like any other.
    pub fn seeded(mut self, mut seeds: Vec<Verified<NodeRecord>>) -> DiscoveryMachine {
        seeds.truncate(MAX_SEEDS);
        self.seeds = seeds;
        self
    }

    /// Plants a bug: the table counts hosts where it should count sites. For tests of the world, which must catch it.
    #[cfg(any(test, feature = "planted-bugs"))]
    #[doc(hidden)]
    pub fn plant_bug(&mut self) {
        self.table.plant_bug();
    }

    /// The node's own record.
    pub fn local(&self) -> &Verified<NodeRecord> {
        &self.local
    }

    /// How many nodes each bucket holds.
    pub fn table_sizes(&self) -> [usize; BUCKETS] {
        self.table.sizes()
    }

    /// The records in the table, in no meaningful order.
    pub fn table_records(&self) -> impl Iterator<Item = &Verified<NodeRecord>> {
        self.table.entries().map(|entry| &entry.contact.record)
    }

    /// Who is in the table, and where, in no meaningful order.
    pub fn known(&self) -> impl Iterator<Item = Known> {
        self.table.entries().map(|entry| (entry.contact.id, entry.contact.addr))
    }

    /// Whether a node is in the table and answered us.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.table.get(id).is_some_and(|entry| entry.live)
    }

    /// How many nodes of the table answered us and may be dialled.
    pub fn usable(&self) -> usize {
        self.table.entries().filter(|entry| self.may_hand_out(entry)).count()
    }

    /// How many requests are unanswered and how many lookups run.
    pub fn under_way(&self) -> (usize, usize) {
        (self.requests.len(), self.lookups.len())
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Whether this node has to do with another one at all.
    fn admits(&self, id: &NodeId, ip: IpAddr) -> bool {
        self.admission.permits_id(id) && self.admission.permits_ip(ip)
    }

    /// Where to reach the owner of a record, of the addresses in it that `teller` may tell, our sockets can send to
    /// and the policy admits; if there is none, why. System ports are left out: no node listens there, and a name or time server must not be made
    /// the target of our packets.
    fn endpoint(&self, record: &NodeRecord, teller: IpAddr) -> Result<SocketAddr, DropReason> {
        if !self.admission.permits_id(&record.id()) {
            return Err(DropReason::NotAdmitted);
        }
        let mut reachable = record
            .udp_sockets()
            .iter()
            .copied()
            .filter(|addr| addr.port() > 1024 && self.families.reach(*addr) && may_relay(teller, addr.ip()))
            .peekable();
        if reachable.peek().is_none() {
            return Err(DropReason::RelayAddress);
        }
        reachable.find(|addr| self.admission.permits_ip(addr.ip())).ok_or(DropReason::NotAdmitted)
    }

    /// Whether the table is too small, or the dialer waits.
    fn hungry(&self) -> bool {
        self.wanted > 0 || self.table.len() < table::BUCKET_SIZE
    }

    fn verified(&mut self, now: Time, token: u64, records: Vec<Verified<NodeRecord>>, fx: &mut Fx) {
        match self.checks.remove(&token) {
            None => {}
            Some(Check::Neighbors { teller, lookup }) => {
                if let Some(lookup) = self.lookups.get_mut(&lookup) {
                    lookup.checks = lookup.checks.saturating_sub(1);
                }
                for record in records {
                    if let Ok(addr) = self.endpoint(&record, teller.addr.ip()) {
                        self.heard(now, Contact::new(addr, record), teller, lookup, fx);
                    }
                }
                self.advance(now, lookup, fx);
            }
            Some(Check::Own { from, addr, purpose }) => match records.into_iter().find(|record| record.id() == from) {
                Some(record) => self.proved(now, Contact::new(addr, record), purpose, fx),
                None => {
                    fx.emit(Out::Drop(DropReason::BadRecord));
                    self.gave_up(now, from, addr, purpose, fx);
                }
            },
        }
    }
}

type Fx = Effects<Out, Timer>;

impl Machine for DiscoveryMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::Start => self.start(now, fx),
            In::Packet(Inbound { from, addr, .. }) if !self.admits(&from, addr.ip()) => {
                fx.emit(Out::Drop(DropReason::NotAdmitted));
            }
            In::Packet(Inbound { from, addr, packet }) if packet.message.kind().is_request() => {
                self.serve(now, from, addr, packet, fx);
            }
            In::Packet(inbound) => self.answered(now, inbound, fx),
            In::Verified { token, records } => self.verified(now, token, records, fx),
            In::Want(count) => self.want(now, count, fx),
            In::Lookup { token, target } => self.lookup_for(now, Key::of(target), lookup::Asker::Caller(token), fx),
            In::Resolve { token, id } => self.resolve(now, token, id, fx),
            In::Random { token, count } => self.random(token, count, fx),
            In::Closest { token, target, count } => self.closest(token, target, count, fx),
            In::Admission(admission) => self.readmit(now, admission, fx),
            In::Filter(rules) => self.filter(rules),
            In::LocalChanged(record) if record.id() == self.me => self.local = record,
            In::LocalChanged(_) => {}
            In::Outcome { id, ok } => self.outcome(id, ok),
            In::Bootnodes { source, nodes } => self.named(now, source, nodes, fx),
            In::Offer { source, records } => self.offered(now, source, records, fx),
        }
        self.prove(now, fx);
        self.supply(now, fx);
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Request(counter) => self.timed_out(now, counter, fx),
            Timer::Revalidate(list) => self.revalidate(now, list, fx),
            Timer::Refresh => self.begin_refresh(now, fx),
            Timer::Bootstrap => self.bootstrap(now, fx),
            Timer::Handout => self.supply_changed = true,
            Timer::Regain => self.regain(now, fx),
        }
        self.prove(now, fx);
        self.supply(now, fx);
    }
}

#[cfg(test)]
mod tests;
