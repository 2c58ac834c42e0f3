//! Who is in the meshes: joining and leaving, grafts and prunes of peers, and what the heartbeat mends.

use std::time::Duration;

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::Penalty;
use peerage_wire::frame::Lane;

use super::contract::{Count, Out, PruneReason};
use super::drops::DropReason;
use super::mesh::{Candidate, Degree, Mesh};
use super::{Fx, GossipMachine, dropped, tag};
use crate::config::{MeshConfig, Mode};
use crate::message::Topic;
use crate::score::POINT;
use crate::wire;

/// The longest rest that a peer can ask for: more would be its word for never, and a number that overflows where it is
/// added to a time (as two reports of rust-libp2p's show).
const MAX_REST: Duration = Duration::from_secs(3600);
/// Heartbeats between two looks for nearer peers.
const NEARER_EVERY: u64 = 5;
/// Heartbeats between two looks for better ones (gossipsub v1.1: 60).
const BETTER_EVERY: u64 = 60;
/// Peers grafted then.
const BETTER: usize = 2;

impl GossipMachine {
    pub(super) fn degree(&self, topic: &Topic) -> Degree {
        let mesh = self.mesh_config(topic);
        let near = if self.config.mode == Mode::Peerage { mesh.near } else { 0 };
        let (wished, low, high) = (mesh.degree, mesh.low, mesh.high);
        Degree { wished, low, high, outbound: mesh.outbound, scored: mesh.scored, near }
    }

    /// This node now wants the topic.
    pub(super) fn join(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        self.meshes.insert(topic.clone(), Mesh::default());
        self.fill(now, topic, fx);
    }

    /// This node no longer wants the topic.
    pub(super) fn leave(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        let Some(mesh) = self.meshes.remove(topic) else { return };
        let rest = self.mesh_config(topic).rest_after_leaving;
        for (session, _) in mesh.links() {
            self.scores.pruned(now, session, topic);
            self.say_prune(session, topic, rest, fx);
            fx.emit(Out::Count(Count::Pruned(PruneReason::Left)));
        }
    }

    /// A peer now wants a topic.
    pub(super) fn wanted_by(&mut self, now: Time, session: SessionId, topic: &Topic, fx: &mut Fx) {
        let Some(mesh) = self.meshes.get(topic) else { return };
        if mesh.len() < self.mesh_config(topic).degree
            && let Some(candidate) = self.candidate(now, session, topic)
        {
            self.graft(now, topic, &candidate, fx);
        }
    }

    /// A peer is gone, or no longer wants a topic.
    pub(super) fn unlink(&mut self, now: Time, session: SessionId, topic: &Topic) {
        if self.meshes.get_mut(topic).and_then(|mesh| mesh.remove(session)).is_some() {
            self.scores.pruned(now, session, topic);
        }
    }

    /// What can be said for a peer, unless it is not to be grafted.
    fn candidate(&self, now: Time, session: SessionId, topic: &Topic) -> Option<Candidate> {
        let (mesh, peer) = (self.meshes.get(topic)?, self.peers.get(session)?);
        let score = self.scores.standing(session);
        let fits = !peer.direct && score >= 0 && peer.topics.contains(topic);
        let free = !mesh.contains(session) && mesh.rests(now, &peer.id).is_none();
        (fits && free).then(|| peer.candidate(session, score))
    }

    fn candidates(&self, now: Time, topic: &Topic) -> Vec<Candidate> {
        self.peers.that_want(topic).filter_map(|session| self.candidate(now, session, topic)).collect()
    }

    fn members(&self, topic: &Topic) -> Vec<Candidate> {
        let sessions = self.meshes.get(topic).into_iter().flat_map(Mesh::links).map(|(session, _)| session);
        let scores = &self.scores;
        sessions
            .filter_map(|session| Some(self.peers.get(session)?.candidate(session, scores.standing(session))))
            .collect()
    }

    fn fill(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        let (degree, candidates) = (self.degree(topic), self.candidates(now, topic));
        let Some(mesh) = self.meshes.get(topic) else { return };
        for candidate in mesh.fill(&degree, candidates, &mut self.rng) {
            self.graft(now, topic, &candidate, fx);
        }
    }

    /// Takes a peer into the mesh, and says so. A peer that does not agree answers with a prune.
    fn graft(&mut self, now: Time, topic: &Topic, candidate: &Candidate, fx: &mut Fx) {
        let Some(mesh) = self.meshes.get_mut(topic) else { return };
        mesh.add(candidate);
        self.scores.grafted(now, candidate.session, topic);
        self.control(self.peers.recipient(candidate.session), Lane::Control, wire::graft(topic), tag::MESH, fx);
        fx.emit(Out::Count(Count::Grafted));
        self.linked(now, candidate.session, topic, fx);
    }

    /// Lets a peer of the mesh go, and says so.
    fn prune(&mut self, now: Time, session: SessionId, topic: &Topic, reason: PruneReason, fx: &mut Fx) {
        if self.meshes.get_mut(topic).and_then(|mesh| mesh.remove(session)).is_none() {
            return;
        }
        self.scores.pruned(now, session, topic);
        if let Some(peer) = self.peers.get_mut(session) {
            peer.pruned = Some(reason);
        }
        fx.emit(Out::Count(Count::Pruned(reason)));
        self.refuse(now, session, topic, fx);
    }

    /// Says to a peer that it is not in the mesh, and lets it rest.
    fn refuse(&mut self, now: Time, session: SessionId, topic: &Topic, fx: &mut Fx) {
        let rest = self.mesh_config(topic).rest;
        if let (Some(mesh), Some(peer)) = (self.meshes.get_mut(topic), self.peers.get(session)) {
            mesh.rest(peer.id, now + rest);
        }
        self.say_prune(session, topic, rest, fx);
    }

    fn say_prune(&self, session: SessionId, topic: &Topic, rest: Duration, fx: &mut Fx) {
        let rest = u16::try_from(rest.as_secs()).unwrap_or(u16::MAX);
        self.control(self.peers.recipient(session), Lane::Control, wire::prune(topic, rest), tag::MESH, fx);
    }

    /// A peer has taken this node into its mesh.
    pub(super) fn grafted(&mut self, now: Time, session: SessionId, topic: &Topic, fx: &mut Fx) {
        if !self.within_mesh_quota(now, session, fx) {
            return;
        }
        let high = self.mesh_config(topic).high;
        let Some(mesh) = self.meshes.get(topic) else {
            // It may not have heard yet that this node left.
            return dropped(DropReason::UnknownTopic, fx);
        };
        let Some(peer) = self.peers.get(session) else { return };
        if mesh.contains(session) {
            return;
        }
        if peer.direct {
            return self.refuse(now, session, topic, fx);
        }
        let score = self.scores.standing(session);
        if let Some(until) = mesh.rests(now, &peer.id) {
            dropped(DropReason::GraftInRest, fx);
            // A second offence if it had hardly begun: nobody's clock is that far off.
            let MeshConfig { rest, graft_flood, .. } = self.mesh_config(topic);
            let soon = until.since(now) > rest.saturating_sub(*graft_flood);
            self.misbehaved(now, session, if soon { 2 * POINT } else { POINT });
            return self.refuse(now, session, topic, fx);
        }
        // Above the limit only those that this node dialled: who dials us could fill the mesh otherwise.
        if score < 0 || (mesh.len() >= high && !peer.outbound) {
            dropped(if score < 0 { DropReason::GraftLowScore } else { DropReason::GraftFull }, fx);
            return self.refuse(now, session, topic, fx);
        }
        let candidate = peer.candidate(session, score);
        if let Some(mesh) = self.meshes.get_mut(topic) {
            mesh.add(&candidate);
        }
        self.scores.grafted(now, session, topic);
        fx.emit(Out::Count(Count::GraftedBy));
        self.linked(now, session, topic, fx);
    }

    /// A peer does not have this node in its mesh.
    pub(super) fn pruned(&mut self, now: Time, session: SessionId, topic: &Topic, rest: u16, fx: &mut Fx) {
        if !self.within_mesh_quota(now, session, fx) {
            return;
        }
        let usual = self.mesh_config(topic).rest;
        let (Some(mesh), Some(peer)) = (self.meshes.get_mut(topic), self.peers.get(session)) else { return };
        let asked = Duration::from_secs(rest.into());
        let rest = if rest == 0 { usual } else { asked.min(MAX_REST) };
        mesh.rest(peer.id, now + rest);
        if mesh.remove(session).is_some() {
            self.scores.pruned(now, session, topic);
            fx.emit(Out::Count(Count::PrunedBy));
        }
    }

    fn within_mesh_quota(&mut self, now: Time, session: SessionId, fx: &mut Fx) -> bool {
        // Each of its topics once in and once out, and as much again for a heartbeat that is late.
        let limit = 4 * (self.config.max_topics + 1);
        let Some(peer) = self.peers.get_mut(session) else { return false };
        peer.beat.grafts += 1;
        if peer.beat.grafts <= limit {
            return true;
        }
        dropped(DropReason::GraftFlood, fx);
        self.blame(now, session, Penalty::ControlFlood, fx);
        false
    }

    /// What the heartbeat mends, in gossipsub's order.
    pub(super) fn mend_meshes(&mut self, now: Time, fx: &mut Fx) {
        self.beats += 1;
        let topics: Vec<Topic> = self.meshes.keys().cloned().collect();
        for topic in topics {
            self.mend(now, &topic, fx);
        }
    }

    fn mend(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        let degree = self.degree(topic);
        if let Some(mesh) = self.meshes.get_mut(topic) {
            mesh.expire(now);
        }
        let members = self.members(topic);
        for member in members.iter().filter(|member| member.score < 0) {
            self.prune(now, member.session, topic, PruneReason::LowScore, fx);
        }
        let count = self.meshes.get(topic).map_or(0, Mesh::len);
        if count < degree.low {
            self.fill(now, topic, fx);
        } else if count > degree.high {
            let members = self.members(topic);
            let surplus = self.meshes.get(topic).map(|mesh| mesh.surplus(&degree, members, &mut self.rng));
            for session in surplus.into_iter().flatten() {
                self.prune(now, session, topic, PruneReason::TooMany, fx);
            }
        }
        self.graft_outbound(now, topic, &degree, fx);
        if self.beats.is_multiple_of(BETTER_EVERY) {
            self.graft_better(now, topic, fx);
        }
        if degree.near > 0 && self.beats.is_multiple_of(NEARER_EVERY) {
            self.graft_nearer(now, topic, &degree, fx);
        }
    }

    /// Enough of the mesh must be peers that this node chose itself: who dials in cannot be all of it.
    fn graft_outbound(&mut self, now: Time, topic: &Topic, degree: &Degree, fx: &mut Fx) {
        let Some(mesh) = self.meshes.get(topic) else { return };
        let lacking = degree.outbound.saturating_sub(mesh.outbound());
        if lacking == 0 {
            return;
        }
        let mut candidates = self.candidates(now, topic);
        candidates.retain(|candidate| candidate.outbound);
        let chosen = self.rng.sample(&mut candidates, lacking).to_vec();
        for candidate in chosen {
            self.graft(now, topic, &candidate, fx);
        }
    }

    /// A mesh whose median is poor gets some that are better: otherwise a mesh of peers that just do not misbehave would
    /// stay as it is (gossipsub v1.1, opportunistic grafting).
    fn graft_better(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        let on_topic = |session| self.scores.explain_topic(now, session, topic).score;
        let mut scores: Vec<i64> = self.members(topic).iter().map(|member| on_topic(member.session)).collect();
        scores.sort_unstable();
        let Some(median) = scores.get(scores.len() / 2).copied() else { return };
        if median >= self.config.scores.opportunistic_graft {
            return;
        }
        let mut candidates = self.candidates(now, topic);
        candidates.retain(|candidate| candidate.score > median);
        let chosen = self.rng.sample(&mut candidates, BETTER).to_vec();
        for candidate in chosen {
            self.graft(now, topic, &candidate, fx);
        }
    }

    fn graft_nearer(&mut self, now: Time, topic: &Topic, degree: &Degree, fx: &mut Fx) {
        let (candidates, members) = (self.candidates(now, topic), self.members(topic));
        let Some(mesh) = self.meshes.get(topic) else { return };
        if let Some((nearer, given_up)) = mesh.nearer(degree, &candidates, &members, &mut self.rng) {
            if let Some(given_up) = given_up {
                self.prune(now, given_up, topic, PruneReason::Farther, fx);
            }
            self.graft(now, topic, &nearer, fx);
        }
    }

    /// What was said of meshes did not reach a peer: all of it is said again.
    pub(super) fn say_meshes(&mut self, now: Time, session: SessionId, fx: &mut Fx) {
        let Some(id) = self.peers.get(session).map(|peer| peer.id) else { return };
        for (topic, mesh) in &self.meshes {
            let bytes = if mesh.contains(session) {
                wire::graft(topic)
            } else if let Some(until) = mesh.rests(now, &id) {
                wire::prune(topic, u16::try_from(until.since(now).as_secs()).unwrap_or(u16::MAX))
            } else {
                continue;
            };
            self.control(self.peers.recipient(session), Lane::Control, bytes, tag::MESH, fx);
        }
    }
}
