//! The run loop's rules: who is admitted, who is dropped, and how it all ends.
//!
//! geth's checks in geth's order (p2p/server.go `postHandshakeChecks`, `addPeerChecks`), with two changes:
//! the first checkpoint *reserves* the place that it grants, so that set-ups in progress cannot overshoot
//! the limits together; and of two connections between the same two nodes both ends keep the same one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use peerage_machine::{Effects, Machine, Time};
use peerage_peer_session::handshake::{Direction, Remote};
use peerage_peer_session::{Ended, EndedBy};
use peerage_queue::SessionId;
use peerage_wire::{DisconnectReason, NodeId, Penalty};
use serde::Serialize;

/// One connection's set-up, from its first checkpoint on. Ids rise and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Setup(pub u64);

/// Which checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Stage {
    /// The other end has proved who it is.
    Identified,
    /// Both ends have accepted; add the peer.
    Established,
}

/// What the checks look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Meta {
    /// The other end.
    pub id: NodeId,
    /// Who dialled.
    pub direction: Direction,
    /// The other end's process.
    pub instance: u64,
}

impl Meta {
    /// What the checks look at of a node that has proved who it is.
    pub fn of(remote: &Remote, direction: Direction) -> Meta {
        Meta { id: remote.id(), direction, instance: remote.hello.instance }
    }

    /// Whether this end dialled.
    pub fn dialled(&self) -> bool {
        self.direction == Direction::Outbound
    }
}

/// Whether the root takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Running {
    /// Yes.
    Running,
    /// No; sessions are ending.
    Draining,
    /// No; all have ended.
    Stopped,
}

/// What may happen to the root.
#[derive(Clone, Debug, Serialize)]
pub enum In {
    // ---------- from set-ups; at most slots and dials of them ----------
    /// A connection is at a checkpoint. Answered by one [`Out::Verdict`].
    Checkpoint(Setup, Stage, Meta),
    /// A set-up has ended, well or not.
    Released(Setup),
    // ---------- from sessions ----------
    /// A session has ended.
    Ended(SessionId, Ended),
    /// A peer did something no correct peer does.
    Report(SessionId, Penalty),
    /// What a peer sent made an actor panic.
    Crashed(SessionId),
    // ---------- from the application ----------
    /// Limits spare this node from now on.
    AddTrusted(NodeId),
    /// They no longer do; a live session stays.
    RemoveTrusted(NodeId),
    /// Drop this peer if it is one.
    Disconnect(NodeId, DisconnectReason),
    /// End everything.
    Shutdown,
}

/// What the root asks of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// The answer to a checkpoint. At [`Stage::Established`] the session to start.
    Verdict(Setup, Result<Option<SessionId>, DisconnectReason>),
    /// An inbound set-up has reserved a place, and the dialer should leave the node alone…
    InboundPending(NodeId),
    /// …until it is over.
    InboundDone(NodeId),
    /// Tell everybody of a new peer.
    PeerUp(SessionId, Meta),
    /// Tell everybody that a peer is gone.
    PeerDown {
        /// Its session.
        session: SessionId,
        /// Who it was.
        meta: Meta,
        /// How it ended.
        ended: Ended,
        /// How long it was up.
        lived: Duration,
    },
    /// Let a session end.
    Disconnect(SessionId, DisconnectReason),
    /// A node was banned.
    Banned(NodeId),
    /// The last session has ended while draining, or the time for it is over.
    Stopped,
}

/// The root's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The time to drain is over.
    Drain,
    /// A ban may be over.
    Bans,
}

struct Peer {
    session: SessionId,
    meta: Meta,
    since: Time,
    /// Why it is being ended, once it is: told once.
    ending: bool,
}

struct Reservation {
    setup: Setup,
    meta: Meta,
}

/// Bans, and blamed nodes, remembered; the oldest is forgotten for a new one.
const MAX_BANS: usize = 4096;
/// Ended sessions remembered.
const MAX_ENDED: usize = 1024;
/// A session is not replaced by another process of its node before it is this old: a node that flaps, or two
/// that share an identity, cost no more than this.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// The rules of the root. Bounded by the slots for set-ups and by `max_peers` and trusted peers.
pub struct ServerMachine {
    own: NodeId,
    max_peers: u32,
    max_inbound: u32,
    penalty_limit: u32,
    ban_time: Duration,
    drain_timeout: Duration,
    running: Running,
    peers: BTreeMap<NodeId, Peer>,
    sessions: BTreeMap<SessionId, NodeId>,
    /// At most one a node.
    reserved: BTreeMap<NodeId, Reservation>,
    setups: BTreeMap<Setup, Meta>,
    trusted: BTreeSet<NodeId>,
    bans: BTreeMap<NodeId, Time>,
    /// What nodes are blamed for, and since when: not of a session, or a new one would wipe the slate.
    blamed: BTreeMap<NodeId, (u32, Time)>,
    /// Whose the sessions were that ended last: what they sent may be judged later.
    ended: VecDeque<(SessionId, NodeId)>,
    next_session: u64,
}

type Fx = Effects<Out, Timer>;

impl ServerMachine {
    /// A root without peers.
    pub fn new(own: NodeId, config: &crate::Config) -> ServerMachine {
        ServerMachine {
            own,
            max_peers: config.max_peers,
            max_inbound: config.max_peers - config.dial_share(),
            penalty_limit: config.penalty_limit,
            ban_time: config.ban_time,
            drain_timeout: config.drain_timeout,
            running: Running::Running,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            reserved: BTreeMap::new(),
            setups: BTreeMap::new(),
            trusted: BTreeSet::new(),
            bans: BTreeMap::new(),
            blamed: BTreeMap::new(),
            ended: VecDeque::new(),
            next_session: 0,
        }
    }

    /// Whether it takes connections.
    pub const fn running(&self) -> Running {
        self.running
    }

    /// Whether limits spare this node.
    pub fn is_trusted(&self, id: &NodeId) -> bool {
        self.trusted.contains(id)
    }

    /// Peers, and since when each is one.
    pub fn peers(&self) -> impl Iterator<Item = (SessionId, &Meta, Time)> {
        self.peers.values().map(|peer| (peer.session, &peer.meta, peer.since))
    }

    /// Inbound set-ups that hold a reservation.
    pub fn pending_inbound(&self) -> impl Iterator<Item = NodeId> {
        self.reserved.values().filter(|held| held.meta.direction == Direction::Inbound).map(|held| held.meta.id)
    }

    /// Peers and reservations in one direction, without `except`'s.
    fn count(&self, direction: Option<Direction>, except: &NodeId) -> u32 {
        let counts = |meta: &&Meta| meta.id != *except && direction.is_none_or(|direction| meta.direction == direction);
        let peers = self.peers.values().map(|peer| &peer.meta).filter(counts).count();
        // A node that is replacing its own session takes one place, not two.
        let reserved = self.reserved.values().map(|held| &held.meta).filter(counts);
        let reserved = reserved.filter(|meta| !self.peers.contains_key(&meta.id)).count();
        u32::try_from(peers + reserved).unwrap_or(u32::MAX)
    }

    /// The checks that both checkpoints make.
    fn check(&self, now: Time, meta: &Meta) -> Result<(), DisconnectReason> {
        if self.running != Running::Running {
            return Err(DisconnectReason::Quitting);
        }
        if self.bans.get(&meta.id).is_some_and(|until| *until > now) {
            return Err(DisconnectReason::Banned);
        }
        let trusted = self.trusted.contains(&meta.id);
        let full = self.count(None, &meta.id) >= self.max_peers;
        let inbound = meta.direction == Direction::Inbound;
        let inbound_full = inbound && self.count(Some(Direction::Inbound), &meta.id) >= self.max_inbound;
        if !trusted && (full || inbound_full) {
            return Err(DisconnectReason::TooManyPeers);
        }
        if meta.id == self.own {
            return Err(DisconnectReason::SelfConnect);
        }
        match self.peers.get(&meta.id) {
            // The same process twice. A new one replaces the old: a restarted peer is never locked out.
            Some(peer) if peer.meta.instance == meta.instance || now.since(peer.since) < REPLACE_AFTER => {
                Err(DisconnectReason::AlreadyConnected)
            }
            _ => Ok(()),
        }
    }

    /// Decides between a new set-up and one that holds the node's reservation.
    fn outranks(&self, new: &Meta, held: &Meta) -> bool {
        if new.instance != held.instance {
            return true;
        }
        // The accepting end answers `Accepted` as soon as it reserves, so an inbound reservation stands.
        // Of two where neither has been accepted, the one that the smaller id dialled survives on both ends.
        held.direction == Direction::Outbound && new.direction == Direction::Inbound && new.id < self.own
    }

    fn identified(&mut self, now: Time, setup: Setup, meta: Meta, fx: &mut Fx) -> Result<(), DisconnectReason> {
        self.check(now, &meta)?;
        if let Some(held) = self.reserved.get(&meta.id) {
            if !self.outranks(&meta, &held.meta) {
                return Err(DisconnectReason::AlreadyConnected);
            }
            self.unreserve(meta.id, fx);
        }
        self.reserved.insert(meta.id, Reservation { setup, meta });
        self.setups.insert(setup, meta);
        if meta.direction == Direction::Inbound {
            fx.emit(Out::InboundPending(meta.id));
        }
        Ok(())
    }

    /// Ends the session that this one replaces, if any, and adds the peer; the news of it are for after the
    /// verdict, with which its session starts.
    fn established(&mut self, now: Time, setup: Setup, meta: Meta, fx: &mut Fx) -> Result<SessionId, DisconnectReason> {
        let holds = self.reserved.get(&meta.id).is_some_and(|held| held.setup == setup);
        if !holds {
            return Err(DisconnectReason::AlreadyConnected);
        }
        self.check(now, &meta)?;
        if let Some(old) = self.peers.get(&meta.id).map(|peer| peer.session) {
            // Told to everybody before the verdict, so that the new session follows the old one's end in every table.
            fx.emit(Out::Disconnect(old, DisconnectReason::Replaced));
            let ended = Ended { reason: DisconnectReason::Replaced, by: EndedBy::Us };
            self.remove(now, old, ended, fx);
        }
        self.next_session += 1;
        let session = SessionId(self.next_session);
        self.peers.insert(meta.id, Peer { session, meta, since: now, ending: false });
        self.sessions.insert(session, meta.id);
        Ok(session)
    }

    fn unreserve(&mut self, id: NodeId, fx: &mut Fx) {
        if let Some(held) = self.reserved.remove(&id) {
            self.setups.remove(&held.setup);
            if held.meta.direction == Direction::Inbound {
                fx.emit(Out::InboundDone(id));
            }
        }
    }

    fn remove(&mut self, now: Time, session: SessionId, ended: Ended, fx: &mut Fx) {
        // A session that is not in the table was replaced, and is done with.
        let Some(peer) = self.sessions.remove(&session).and_then(|id| self.peers.remove(&id)) else { return };
        self.ended.push_back((session, peer.meta.id));
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_front();
        }
        fx.emit(Out::PeerDown { session, meta: peer.meta, ended, lived: now.since(peer.since) });
        self.stop_if_drained(fx);
    }

    fn end(&mut self, id: &NodeId, reason: DisconnectReason, fx: &mut Fx) {
        if let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.ending) {
            peer.ending = true;
            fx.emit(Out::Disconnect(peer.session, reason));
        }
    }

    fn ban(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        if self.trusted.contains(&id) {
            return;
        }
        if self.bans.len() >= MAX_BANS
            && let Some(soonest) = self.bans.iter().min_by_key(|(_, until)| **until).map(|(id, _)| *id)
        {
            self.bans.remove(&soonest);
        }
        self.bans.insert(id, now + self.ban_time);
        self.arm_bans(fx);
        fx.emit(Out::Banned(id));
    }

    fn arm_bans(&self, fx: &mut Fx) {
        if let Some(until) = self.bans.values().min() {
            fx.arm(Timer::Bans, *until);
        }
    }

    fn points(&mut self, now: Time, session: SessionId, points: u32, fx: &mut Fx) {
        let ended = || self.ended.iter().rev().find(|(ended, _)| *ended == session).map(|(_, id)| *id);
        let Some(id) = self.sessions.get(&session).copied().or_else(ended) else { return };
        if self.bans.contains_key(&id) {
            return;
        }
        if self.blamed.len() >= MAX_BANS
            && !self.blamed.contains_key(&id)
            && let Some(oldest) = self.blamed.iter().min_by_key(|(_, (_, since))| *since).map(|(id, _)| *id)
        {
            self.blamed.remove(&oldest);
        }
        let (sum, since) = self.blamed.entry(id).or_insert((0, now));
        if now.since(*since) > self.ban_time {
            (*sum, *since) = (0, now);
        }
        *sum = sum.saturating_add(points);
        if *sum >= self.penalty_limit {
            self.blamed.remove(&id);
            self.end(&id, DisconnectReason::Misbehaved, fx);
            self.ban(now, id, fx);
        }
    }

    fn stop_if_drained(&mut self, fx: &mut Fx) {
        if self.running == Running::Draining && self.peers.is_empty() {
            self.running = Running::Stopped;
            fx.disarm(Timer::Drain);
            fx.emit(Out::Stopped);
        }
    }
}

/// What a penalty costs, in points. A hundred is the default limit.
const fn cost(penalty: Penalty) -> u32 {
    match penalty {
        // No correct implementation sends one.
        Penalty::MalformedMessage | Penalty::InvalidMessage => 50,
        // A slow reader of ours can make a correct peer's bursts look like one.
        Penalty::ControlFlood => 2,
    }
}

impl Machine for ServerMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::Checkpoint(setup, Stage::Identified, meta) => {
                let verdict = self.identified(now, setup, meta, fx).map(|()| None);
                fx.emit(Out::Verdict(setup, verdict));
            }
            In::Checkpoint(setup, Stage::Established, meta) => {
                let verdict = self.established(now, setup, meta, fx).map(Some);
                fx.emit(Out::Verdict(setup, verdict));
                if let Ok(Some(session)) = verdict {
                    fx.emit(Out::PeerUp(session, meta));
                    self.unreserve(meta.id, fx);
                }
            }
            In::Released(setup) => {
                if let Some(meta) = self.setups.get(&setup) {
                    self.unreserve(meta.id, fx);
                }
            }
            In::Ended(session, ended) => self.remove(now, session, ended, fx),
            In::Report(session, penalty) => self.points(now, session, cost(penalty), fx),
            In::Crashed(session) => self.points(now, session, self.penalty_limit, fx),
            In::AddTrusted(id) => {
                self.trusted.insert(id);
                self.bans.remove(&id);
            }
            In::RemoveTrusted(id) => drop(self.trusted.remove(&id)),
            In::Disconnect(id, reason) => self.end(&id, reason, fx),
            In::Shutdown if self.running == Running::Running => {
                self.running = Running::Draining;
                fx.arm(Timer::Drain, now + self.drain_timeout);
                let peers: Vec<NodeId> = self.peers.keys().copied().collect();
                peers.iter().for_each(|id| self.end(id, DisconnectReason::Quitting, fx));
                self.stop_if_drained(fx);
            }
            In::Shutdown => {}
        }
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Drain => {
                let ended = Ended { reason: DisconnectReason::Quitting, by: EndedBy::Us };
                for session in self.sessions.keys().copied().collect::<Vec<_>>() {
                    self.remove(now, session, ended, fx);
                }
            }
            Timer::Bans => {
                self.bans.retain(|_, until| *until > now);
                self.arm_bans(fx);
            }
        }
    }
}

#[cfg(test)]
mod tests;
