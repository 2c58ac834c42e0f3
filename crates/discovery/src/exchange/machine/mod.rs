//! The rules of the exchange.
//!
//! | file | rule |
//! |---|---|
//! | `pull` | asking peers for theirs, and taking the answer |
//! | `serve` | answering them: whom to show to whom |
//! | `book` | who was told of, and by whom |
//! | `handout` | records for discovery and the dialer |
//! | `probe` | whether this node can be dialled, and finding that out for others |

mod book;
mod contract;
mod handout;
mod probe;
mod pull;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use peerage_machine::{Effects, Machine, QuotaTable, Rng, Time};
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_wire::address::Host;
use peerage_wire::{Admission, NodeId, NodeRecord, Penalty, Verified};

use self::book::Book;
pub use self::contract::{In, Out, PeerUp, Timer};
use self::handout::Wish;
use super::config::Config;
use super::count::{DropReason, Event};
use super::wire::{self, Item};
use crate::external::{Reachability, Reachable};
use crate::net::{canonical, may_relay};

type Fx = Effects<Out, Timer>;

/// Ports below this one are never told, dialled or probed for somebody: no node listens there, and a name or time
/// server must not be made the target of our connections.
pub const FIRST_PORT: u16 = 1024;

/// Peers and hosts whose quotas are remembered; with more than this in debt, newcomers are not served.
const QUOTAS: usize = 4_096;

/// A session, and what is under way on it.
struct Peer {
    id: NodeId,
    channel: Option<ChannelId>,
    /// Canonical.
    remote: SocketAddr,
    dialled: bool,
    record: Verified<NodeRecord>,
    /// Whether it was asked for records, and its answer is waited for.
    asked: bool,
    /// When it was asked last.
    asked_at: Option<Time>,
    /// Answers that were given up, and may come yet.
    late: u32,
    /// Whether it has said where it sees this node.
    observed: bool,
    /// What it was asked to dial back.
    probe: Option<u64>,
    probed_at: Option<Time>,
}

/// The exchange's rules. See [`In`], [`Out`] and [`Timer`] for what goes through it.
///
/// Bounded by the root's sessions and by the numbers of its [`Config`]; a peer has one pull, one check of signatures and
/// one dial-back under way at most.
pub struct ExchangeMachine {
    config: Config,
    local: Verified<NodeRecord>,
    admission: Arc<Admission>,
    rng: Rng,
    peers: BTreeMap<SessionId, Peer>,
    book: Book,
    wish: Wish,
    /// Pulls in a row that brought nothing.
    fruitless: u32,
    /// When the next pull is due.
    pull_at: Option<Time>,
    checks: BTreeMap<u64, pull::Check>,
    /// What discovery has not been offered yet, oldest first.
    to_offer: VecDeque<Verified<NodeRecord>>,
    offering: bool,
    next_token: u64,
    pulls: QuotaTable<NodeId>,
    tolerance: QuotaTable<NodeId>,
    /// Connections that are being opened for peers.
    dial_backs: BTreeMap<u64, (SessionId, u64)>,
    dials_per_peer: QuotaTable<NodeId>,
    dials_per_host: QuotaTable<Host>,
    dials: QuotaTable<()>,
    reachability: Reachability,
    told: Reachable,
}

impl ExchangeMachine {
    /// The exchange of the node that signed `local`, which has to do with everybody. `seed` decides whom it asks, and
    /// when.
    pub fn new(config: Config, local: Verified<NodeRecord>, seed: u64) -> ExchangeMachine {
        let probe = &config.probe;
        ExchangeMachine {
            local,
            admission: Arc::new(Admission::open()),
            rng: Rng::new(seed),
            peers: BTreeMap::new(),
            book: Book::new(&config),
            wish: Wish::default(),
            fruitless: 0,
            pull_at: None,
            checks: BTreeMap::new(),
            to_offer: VecDeque::new(),
            offering: false,
            next_token: 0,
            pulls: QuotaTable::new(config.pulls, QUOTAS),
            tolerance: QuotaTable::new(config.tolerance, QUOTAS),
            dial_backs: BTreeMap::new(),
            dials_per_peer: QuotaTable::new(probe.per_peer, QUOTAS),
            dials_per_host: QuotaTable::new(probe.per_host, QUOTAS),
            dials: QuotaTable::new(probe.total, 1),
            reachability: Reachability::new(),
            told: Reachable::Unknown,
            config,
        }
    }

    /// The same machine with a policy of whom it has to do with.
    pub fn admitting(mut self, admission: Arc<Admission>) -> ExchangeMachine {
        self.admission = admission;
        self
    }

    /// How many nodes are known, the peers not counted.
    pub fn known(&self) -> usize {
        self.book.len()
    }

    /// Connections that are being opened for peers.
    pub fn dialling_back(&self) -> usize {
        self.dial_backs.len()
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn is_connected(&self, id: &NodeId) -> bool {
        self.peers.values().any(|peer| peer.id == *id)
    }

    /// The TCP sockets of a record that somebody at `teller` may tell, and the policy admits.
    fn sockets(&self, record: &NodeRecord, teller: IpAddr) -> Result<Vec<SocketAddr>, DropReason> {
        if !self.admission.permits_id(&record.id()) {
            return Err(DropReason::NotAdmitted);
        }
        let named = record.tcp_sockets().iter().copied();
        let told: Vec<SocketAddr> =
            named.filter(|tcp| tcp.port() >= FIRST_PORT && may_relay(teller, tcp.ip())).collect();
        if told.is_empty() {
            return Err(DropReason::RelayAddress);
        }
        let admitted: Vec<SocketAddr> = told.into_iter().filter(|tcp| self.admission.permits_ip(tcp.ip())).collect();
        if admitted.is_empty() { Err(DropReason::NotAdmitted) } else { Ok(admitted) }
    }

    fn send(&self, session: SessionId, item: &Item, fx: &mut Fx) {
        if let Some(channel) = self.peers.get(&session).and_then(|peer| peer.channel) {
            fx.emit(Out::Send { to: Recipient { session, channel }, payload: item.encode() });
        }
    }

    /// Overlooks a little of what no peer should send, and reports the rest.
    fn stray(&mut self, now: Time, session: SessionId, reason: DropReason, fx: &mut Fx) {
        fx.emit(Out::Drop(reason));
        let Some(peer) = self.peers.get(&session) else { return };
        if !self.tolerance.take(now, &peer.id) {
            fx.emit(Out::Report { session, penalty: Penalty::ControlFlood });
        }
    }

    fn peer_up(&mut self, now: Time, up: PeerUp, fx: &mut Fx) {
        let PeerUp { session, channel, remote, dialled, record } = up;
        let (id, remote) = (record.id(), canonical(remote));
        // Who is connected is known by its session; it is worth remembering again when that has ended.
        self.book.remove(&id);
        let peer = Peer {
            id,
            channel,
            remote,
            dialled,
            record,
            asked: false,
            asked_at: None,
            late: 0,
            observed: false,
            probe: None,
            probed_at: None,
        };
        self.peers.insert(session, peer);
        self.send(session, &Item::Observed(remote), fx);
        if !dialled {
            self.reachability.inbound(now, remote.ip());
            self.tell_reachable(now, fx);
        }
        if channel.is_some() && self.hungry(now) {
            self.pull_soon(now, fx);
        } else {
            self.schedule_pull(now, fx);
        }
    }

    fn peer_down(&mut self, now: Time, session: SessionId, fx: &mut Fx) {
        let Some(peer) = self.peers.remove(&session) else { return };
        fx.disarm(Timer::Answer(session));
        fx.disarm(Timer::ProbeAnswer(session));
        // It was there a moment ago. This node is its own witness of that.
        if self.proved(&peer)
            && let Ok(sockets) = self.sockets(&peer.record, peer.remote.ip())
        {
            self.book.learn(now, self.local.id(), peer.record, sockets, fx);
        }
    }

    fn inbound(&mut self, now: Time, session: SessionId, stream: u64, payload: &Bytes, fx: &mut Fx) {
        if self.peers.get(&session).is_none_or(|peer| peer.channel.is_none()) {
            return fx.emit(Out::Drop(DropReason::NoSession));
        }
        if stream != 0 {
            return self.stray(now, session, DropReason::Stream, fx);
        }
        let Ok(items) = wire::items(payload) else {
            fx.emit(Out::Drop(DropReason::Malformed));
            return fx.emit(Out::Report { session, penalty: Penalty::MalformedMessage });
        };
        for item in items {
            match item {
                Item::Pull { salt, known } => self.serve(now, session, &salt, &known, fx),
                Item::Records(records) => self.records(now, session, records, fx),
                Item::Probe { nonce, port } => self.probed(now, session, nonce, port, fx),
                Item::ProbeResult { nonce, outcome } => self.probe_answered(now, session, nonce, outcome, fx),
                Item::Observed(observed) => self.observed(now, session, observed, fx),
                // Counted, and not held against a peer: it may speak a later version.
                Item::Unknown(_) => fx.emit(Out::Drop(DropReason::UnknownKind)),
            }
        }
    }

    fn observed(&mut self, now: Time, session: SessionId, observed: SocketAddr, fx: &mut Fx) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        let by = peer.remote;
        if std::mem::replace(&mut peer.observed, true) {
            return self.stray(now, session, DropReason::Repeated, fx);
        }
        if !may_relay(by.ip(), observed.ip()) {
            return self.stray(now, session, DropReason::BadAddress, fx);
        }
        fx.emit(Out::Event(Event::Observed));
        fx.emit(Out::Observed { by, observed: canonical(observed) });
    }
}

impl Machine for ExchangeMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::Start => self.schedule_probe(now, self.config.probe.after, fx),
            In::PeerUp(up) => self.peer_up(now, up, fx),
            In::PeerDown(session) => self.peer_down(now, session, fx),
            In::Want { count, supply } => self.want(now, count, supply, fx),
            In::Outcome { id, ok } => self.outcome(&id, ok, fx),
            In::LocalChanged(record) => self.local_changed(now, record, fx),
            In::Filter(rules) => {
                self.config.filter = rules;
                self.wish.look();
            }
            In::Admission(admission) => {
                self.admission = admission;
                self.wish.look();
            }
            In::Offered => self.offered(fx),
            In::Inbound { session, stream, payload } => self.inbound(now, session, stream, &payload, fx),
            In::Verified { token, records } => self.verified(now, token, records, fx),
            In::DialledBack { token, reached } => self.dialled_back(token, reached, fx),
        }
        self.supply(now, fx);
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Pull => self.pull(now, fx),
            Timer::Answer(session) => self.gave_up(now, session, fx),
            Timer::Handout => self.wish.look(),
            Timer::Probe => self.probe(now, fx),
            Timer::ProbeAnswer(session) => {
                if let Some(peer) = self.peers.get_mut(&session)
                    && peer.probe.take().is_some()
                {
                    fx.emit(Out::Event(Event::TimedOut));
                }
            }
        }
        self.supply(now, fx);
    }
}

#[cfg(test)]
mod tests;
