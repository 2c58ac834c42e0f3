//! The run loop's rules: who is admitted, who is dropped, who is blamed, and how it all ends.
//!
//! geth's checks in geth's order (p2p/server.go `postHandshakeChecks`, `addPeerChecks`), with these changes: the
//! first checkpoint *reserves* the place that it grants, so that set-ups in progress cannot overshoot the limits
//! together; dialled peers have a limit of their own, which geth lacks; and of two connections between the same two
//! nodes both ends keep the same one.

mod admit;
mod contract;
mod reputation;
mod rules;
mod stats;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_peer_session::handshake::Direction;
use peerage_peer_session::{Ended, EndedBy};
use peerage_queue::SessionId;
use peerage_wire::address::Site;
use peerage_wire::{Admission, Banned, Consequence, DisconnectReason, ForkId, NodeId, Penalty};

use self::admit::{Peer, SetUp};
pub use self::contract::{In, Meta, Out, Restored, Running, Setup, Stage, Timer};
use self::reputation::Reputations;
use self::rules::Rules;
pub use self::stats::Stats;
use crate::Config;

type Fx = Effects<Out, Timer>;

/// The rules of the root.
///
/// Bounded by the slots for set-ups, by `max_peers`, `max_static_peers` and the trusted peers, and by the bounds of
/// what it remembers of ended sessions and bans.
pub struct ServerMachine {
    own: NodeId,
    config: Rules,
    rng: Rng,
    running: Running,
    /// Boxed, as a tree has room for more than twice what it holds.
    peers: BTreeMap<NodeId, Box<Peer>>,
    sessions: BTreeMap<SessionId, NodeId>,
    /// The set-up that holds a node's place, at most one a node.
    reserved: BTreeMap<NodeId, Setup>,
    /// Set-ups that passed their first checkpoint and have not ended.
    setups: BTreeMap<Setup, SetUp>,
    trusted: BTreeSet<NodeId>,
    statics: BTreeSet<NodeId>,
    admission: Arc<Admission>,
    forks: BTreeSet<ForkId>,
    reputations: Reputations,
    /// Whose the sessions were that ended last: what they sent may be judged later.
    ended: VecDeque<(SessionId, NodeId, IpAddr)>,
    /// Where static and trusted peers are: as they were named, and where they were seen last.
    homes: BTreeSet<IpAddr>,
    seen_at: BTreeMap<NodeId, IpAddr>,
    /// Whom the anchors were last told to be, and the sites that they are at.
    anchors: Vec<(NodeId, Site)>,
    next_session: u64,
}

/// Ended sessions remembered.
const MAX_ENDED: usize = 1024;

impl ServerMachine {
    /// A root without peers, which admits nobody before [`In::Start`].
    pub fn new(own: NodeId, config: &Config, rng: Rng) -> ServerMachine {
        ServerMachine {
            own,
            rng,
            running: Running::Starting,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            reserved: BTreeMap::new(),
            setups: BTreeMap::new(),
            trusted: BTreeSet::new(),
            statics: BTreeSet::new(),
            admission: Arc::new(config.admission.clone()),
            forks: config.accepted_forks.iter().copied().chain([config.fork_id]).collect(),
            reputations: Reputations::new(config.reputation.clone()),
            ended: VecDeque::new(),
            homes: BTreeSet::new(),
            seen_at: BTreeMap::new(),
            anchors: Vec::new(),
            next_session: 0,
            config: Rules::of(config),
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

    /// The nodes that limits spare, in the order of their ids.
    pub fn trusted(&self) -> impl Iterator<Item = &NodeId> {
        self.trusted.iter()
    }

    /// Whether this node is to be kept connected.
    pub fn is_static(&self, id: &NodeId) -> bool {
        self.statics.contains(id)
    }

    /// Peers, and since when each is one.
    pub fn peers(&self) -> impl Iterator<Item = (SessionId, &Meta, Time)> {
        self.peers.values().map(|peer| (peer.session, &peer.meta, peer.since))
    }

    /// Inbound set-ups that hold a reservation.
    pub fn pending_inbound(&self) -> impl Iterator<Item = NodeId> {
        let reserved = self.reserved.values().filter_map(|setup| self.setups.get(setup));
        reserved.filter(|held| held.meta.direction == Direction::Inbound).map(|held| held.meta.id)
    }

    /// What is banned, and until when; what has ended is there until its timer goes off.
    pub fn bans(&self) -> impl Iterator<Item = (Banned, Time)> {
        self.reputations.bans()
    }

    /// How many nodes are blamed for something.
    pub fn blamed(&self) -> usize {
        self.reputations.blamed()
    }

    /// What a node is blamed for at `now`, in points.
    pub fn blame_of(&self, now: Time, id: &NodeId) -> u32 {
        self.reputations.points(now, id)
    }

    /// Who is admitted at all: the configuration's policy without the networks that are banned.
    pub fn admission(&self) -> Arc<Admission> {
        let banned = self.reputations.banned_networks();
        let mut admission = Admission::clone(&self.admission);
        admission.denied.extend(banned);
        Arc::new(admission)
    }

    fn ended(&mut self, now: Time, session: SessionId, ended: Ended, fx: &mut Fx) {
        let Some(peer) = self.sessions.get(&session).and_then(|id| self.peers.get_mut(id)) else { return };
        // Nothing is left to be ended.
        peer.ending = true;
        if let Consequence::Blame(penalty) = ended.reason.consequence(ended.by == EndedBy::Us) {
            self.report(now, session, penalty, fx);
        }
        self.remove(now, session, ended, fx);
    }

    fn remove(&mut self, now: Time, session: SessionId, ended: Ended, fx: &mut Fx) {
        // A session that is not in the table was replaced, and is done with.
        let Some(peer) = self.sessions.remove(&session).and_then(|id| self.peers.remove(&id)) else { return };
        self.ended.push_back((session, peer.meta.id, peer.meta.ip));
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_front();
        }
        fx.emit(Out::PeerDown { session, meta: peer.meta, ended, lived: now.since(peer.since) });
        if self.running == Running::Draining {
            self.stop_if_drained(fx);
        }
    }

    fn end(&mut self, id: &NodeId, reason: DisconnectReason, fx: &mut Fx) {
        if let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.ending) {
            peer.ending = true;
            fx.emit(Out::Disconnect(peer.session, reason));
        }
    }

    /// Counts what was done over a session that is up or was, however fast its peer hung up.
    fn report(&mut self, now: Time, session: SessionId, penalty: Penalty, fx: &mut Fx) {
        let up = self.sessions.get(&session).and_then(|id| self.peers.get(id)).map(|peer| (peer.meta.id, peer.meta.ip));
        let was = || self.ended.iter().rev().find(|(ended, ..)| *ended == session).map(|(_, id, ip)| (*id, *ip));
        if let Some((id, ip)) = up.or_else(was) {
            self.blame(now, id, Some(ip), penalty, fx);
        }
    }

    fn shut_down(&mut self, now: Time, fx: &mut Fx) {
        self.choose_anchors(now, fx);
        self.running = Running::Draining;
        for timer in [Timer::Useless, Timer::Churn, Timer::Anchors] {
            fx.disarm(timer);
        }
        fx.arm(Timer::Drain, now + self.config.drain_timeout);
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        peers.iter().for_each(|id| self.end(id, DisconnectReason::Quitting, fx));
        self.stop_if_drained(fx);
    }

    fn stop_if_drained(&mut self, fx: &mut Fx) {
        if self.peers.is_empty() {
            self.running = Running::Stopped;
            fx.disarm(Timer::Drain);
            fx.emit(Out::Stopped);
        }
    }
}

impl Machine for ServerMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::Start => {
                if self.running == Running::Starting {
                    self.running = Running::Running;
                    self.arm_upkeep(now, fx);
                }
            }
            In::Restore(restored) => self.restore(now, restored, fx),
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
            In::Released(setup) => self.released(setup, fx),
            In::Ended(session, ended) => self.ended(now, session, ended, fx),
            In::Report(session, penalty) => self.report(now, session, penalty, fx),
            In::Blame(id, penalty) => {
                let ip = self.peers.get(&id).map(|peer| peer.meta.ip);
                self.blame(now, id, ip, penalty, fx);
            }
            In::Useful(session, useful) => {
                let id = self.sessions.get(&session);
                if let Some(peer) = id.and_then(|id| self.peers.get_mut(id)) {
                    peer.useless_since = (!useful).then(|| peer.useless_since.unwrap_or(now));
                }
            }
            In::Contributions(contributions) => self.churn(now, &contributions, fx),
            In::AddTrusted(id) => self.set_trusted(id, true, fx),
            In::RemoveTrusted(id) => self.set_trusted(id, false, fx),
            In::AddStatic(id) => {
                self.statics.insert(id);
                self.befriend(id);
            }
            In::RemoveStatic(id) => {
                self.statics.remove(&id);
                self.befriend(id);
            }
            In::Homes(homes) => self.homes = homes,
            In::Remove(id) => {
                self.revoke(&id, DisconnectReason::Requested, fx);
                self.end(&id, DisconnectReason::Requested, fx);
            }
            In::Ban(banned, time) => self.ban(now, banned.canonical(), time, fx),
            In::Unban(banned) => self.unban(banned.canonical(), fx),
            In::Admission(admission) => {
                self.admission = admission;
                self.admission_changed(fx);
            }
            In::Forks(forks) => {
                self.forks = forks;
                self.recheck(fx);
            }
            In::Limits(limits) => {
                self.config.limit(&limits);
                self.reputations.limit(limits.reputation);
            }
            In::Shutdown => {
                if matches!(self.running, Running::Starting | Running::Running) {
                    self.shut_down(now, fx);
                }
            }
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
            Timer::Bans => self.bans_over(now, fx),
            Timer::Useless => self.drop_useless(now, fx),
            Timer::Churn => self.churn_due(now, fx),
            Timer::Anchors => {
                self.choose_anchors(now, fx);
                fx.arm(Timer::Anchors, now + upkeep::ANCHORS_EVERY);
            }
        }
    }
}

#[cfg(test)]
mod tests;
