//! The mesh of one topic: the peers with which its messages are exchanged as they come, each of which has this node in
//! its own mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_queue::SessionId;
use peerage_wire::NodeId;

use super::ways::Ways;

/// Nodes that are let rest, remembered for a topic.
const MAX_RESTS: usize = 1024;

/// A peer in the mesh.
#[derive(Debug)]
pub(super) struct Link {
    outbound: bool,
    /// The peer's, which is there as long as the link.
    pub(super) slot: usize,
    pub(super) ways: Ways,
}

/// A peer that might come into the mesh, or stay in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) session: SessionId,
    pub(super) id: NodeId,
    pub(super) slot: usize,
    /// Whether this node made the connection.
    pub(super) outbound: bool,
    /// How far it is, where that is known.
    pub(super) round_trip: Option<Duration>,
    pub(super) score: i64,
}

/// The degrees of a mesh; see [`Config`](crate::Config).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Degree {
    pub(super) wished: usize,
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) outbound: usize,
    pub(super) scored: usize,
    pub(super) near: usize,
}

#[derive(Debug, Default)]
pub(super) struct Mesh {
    links: BTreeMap<SessionId, Link>,
    /// Until when neither side grafts.
    rests: BTreeMap<NodeId, Time>,
}

impl Mesh {
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.links.contains_key(&session)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = (SessionId, &Link)> {
        self.links.iter().map(|(session, link)| (*session, link))
    }

    pub(super) fn link_mut(&mut self, session: SessionId) -> Option<&mut Link> {
        self.links.get_mut(&session)
    }

    pub(super) fn outbound(&self) -> usize {
        self.links.values().filter(|link| link.outbound).count()
    }

    pub(super) fn add(&mut self, candidate: &Candidate) {
        let Candidate { session, slot, outbound, .. } = *candidate;
        self.links.entry(session).or_insert(Link { outbound, slot, ways: Ways::default() });
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Link> {
        self.links.remove(&session)
    }

    /// A slot's peer is gone.
    pub(super) fn forget_slot(&mut self, slot: usize) {
        self.links.values_mut().for_each(|link| link.ways.forget(slot));
    }

    /// Until when a node rests.
    pub(super) fn rests(&self, now: Time, id: &NodeId) -> Option<Time> {
        self.rests.get(id).copied().filter(|until| *until > now)
    }

    /// Lets a node rest, if that is longer than it rests already.
    pub(super) fn rest(&mut self, id: NodeId, until: Time) {
        if self.rests.len() >= MAX_RESTS && !self.rests.contains_key(&id) {
            // Who would be free soonest: identities are cheap, and a swarm of them must not push out each other's rests.
            let soonest = self.rests.iter().min_by_key(|(_, until)| **until).map(|(id, _)| *id);
            soonest.and_then(|id| self.rests.remove(&id));
        }
        let rests = self.rests.entry(id).or_insert(until);
        *rests = (*rests).max(until);
    }

    pub(super) fn expire(&mut self, now: Time) {
        self.rests.retain(|_, until| *until > now);
    }

    /// Which of these to graft, so that the mesh gets its wished degree: as many near ones as it lacks, the others at
    /// random. Near peers bring messages sooner; random ones keep the network in one piece, and whoever pretends to be
    /// near gets no more than the near ones' part.
    pub(super) fn fill(&self, degree: &Degree, mut candidates: Vec<Candidate>, rng: &mut Rng) -> Vec<Candidate> {
        let room = degree.wished.saturating_sub(self.len());
        let near = degree.near.min(room);
        let mut chosen = Vec::with_capacity(room);
        candidates.sort_by_key(|candidate| (candidate.round_trip.unwrap_or(Duration::MAX), candidate.session));
        let known = candidates.iter().take_while(|candidate| candidate.round_trip.is_some()).count();
        // Half of the room, where the mesh is being refilled: those that went may have been near or not.
        let near = if self.len() == 0 { near } else { near.min(room.div_ceil(2)) };
        chosen.extend(candidates.drain(..near.min(known)));
        let rest = room - chosen.len();
        chosen.extend_from_slice(rng.sample(&mut candidates, rest));
        chosen
    }

    /// Of more links than the mesh may have, those to let go of: the best scored, the nearest, and enough of those that
    /// this node dialled stay, of the others a random part.
    pub(super) fn surplus(&self, degree: &Degree, mut members: Vec<Candidate>, rng: &mut Rng) -> Vec<SessionId> {
        if members.len() <= degree.wished {
            return Vec::new();
        }
        rng.sample(&mut members, usize::MAX);
        members.sort_by_key(|member| std::cmp::Reverse(member.score));
        let mut kept: Vec<Candidate> = members.drain(..degree.scored.min(members.len())).collect();
        // Those that this node dialled, as long as there are too few of them.
        let dialled = kept.iter().filter(|member| member.outbound).count();
        let lacking = degree.outbound.saturating_sub(dialled);
        members.sort_by_key(|member| !member.outbound);
        let first = members.iter().take_while(|member| member.outbound).count().min(lacking);
        kept.extend(members.drain(..first));
        // Half of what is left to the nearest ones, or those that pretend to be would have all of it.
        members.sort_by_key(|member| member.round_trip.unwrap_or(Duration::MAX));
        let near = degree.near.min(degree.wished.saturating_sub(kept.len()) / 2).min(members.len());
        kept.extend(members.drain(..near));
        rng.sample(&mut members, usize::MAX);
        let room = degree.wished.saturating_sub(kept.len()).min(members.len());
        members.drain(..room);
        members.into_iter().map(|member| member.session).collect()
    }

    /// A candidate that is nearer than those links that are to be near, and a link to give up for it, if the mesh is full.
    pub(super) fn nearer(
        &self,
        degree: &Degree,
        candidates: &[Candidate],
        members: &[Candidate],
        rng: &mut Rng,
    ) -> Option<(Candidate, Option<SessionId>)> {
        let best = candidates.iter().filter(|candidate| candidate.round_trip.is_some());
        let best = best.min_by_key(|candidate| (candidate.round_trip, candidate.session))?;
        let mut by_distance = members.to_vec();
        by_distance.sort_by_key(|member| (member.round_trip.unwrap_or(Duration::MAX), member.session));
        let farthest_near = by_distance.get(degree.near.checked_sub(1)?);
        // A quarter nearer at least: every change costs both sides a link's knowledge.
        let is_nearer = |member: &Candidate| best.round_trip < member.round_trip.map(|far| far * 3 / 4);
        if farthest_near.is_some_and(|member| member.round_trip.is_some() && !is_nearer(member)) {
            return None;
        }
        if members.len() < degree.wished {
            return Some((*best, None));
        }
        let mut others = by_distance.split_off(degree.near.min(by_distance.len()));
        let dialled = members.iter().filter(|member| member.outbound).count();
        others.retain(|member| !member.outbound || dialled > degree.outbound || best.outbound);
        rng.sample(&mut others, 1).first().map(|given_up| (*best, Some(given_up.session)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGREE: Degree = Degree { wished: 8, low: 6, high: 12, outbound: 2, scored: 4, near: 4 };

    fn candidate(n: u64, millis: u64) -> Candidate {
        Candidate {
            session: SessionId(n),
            id: NodeId::from_bytes([n as u8; 32]),
            slot: n as usize,
            outbound: n.is_multiple_of(5),
            round_trip: Some(Duration::from_millis(millis)),
            score: 0,
        }
    }

    fn sessions(of: &[Candidate]) -> Vec<u64> {
        of.iter().map(|candidate| candidate.session.0).collect()
    }

    #[test]
    fn it_is_filled_with_near_ones_and_random_ones() {
        let candidates: Vec<_> = (0..30).map(|n| candidate(n, 10 + n)).collect();
        let mut random = [0; 30];
        for seed in 0..200 {
            let chosen = Mesh::default().fill(&DEGREE, candidates.clone(), &mut Rng::new(seed));
            assert_eq!(chosen.len(), 8);
            assert_eq!(sessions(&chosen[..4]), [0, 1, 2, 3]);
            chosen[4..].iter().for_each(|candidate| random[candidate.session.0 as usize] += 1);
        }
        assert!(random[4..].iter().all(|times| (10..70).contains(times)), "{random:?}");
        let unknown: Vec<_> = (0..30).map(|n| Candidate { round_trip: None, ..candidate(n, 0) }).collect();
        assert_eq!(Mesh::default().fill(&DEGREE, unknown, &mut Rng::new(1)).len(), 8);
        assert_eq!(Mesh::default().fill(&DEGREE, candidates[..3].to_vec(), &mut Rng::new(1)).len(), 3);
    }

    #[test]
    fn of_too_many_the_best_the_nearest_and_the_dialled_stay() {
        let members: Vec<_> = (0..20)
            .map(|n| Candidate {
                score: if n >= 16 { 5 } else { 0 },
                outbound: n == 10 || n == 11,
                ..candidate(n, 10 + n)
            })
            .collect();
        for seed in 0..100 {
            let surplus = Mesh::default().surplus(&DEGREE, members.clone(), &mut Rng::new(seed));
            assert_eq!(surplus.len(), 12);
            assert!([0, 10, 11, 16, 17, 18, 19].iter().all(|n| !surplus.contains(&SessionId(*n))), "{surplus:?}");
            let none = Degree { outbound: 0, ..DEGREE };
            let surplus = Mesh::default().surplus(&none, members.clone(), &mut Rng::new(seed));
            assert!([0, 1, 16, 17, 18, 19].iter().all(|n| !surplus.contains(&SessionId(*n))), "{surplus:?}");
        }
        assert_eq!(Mesh::default().surplus(&DEGREE, members[..8].to_vec(), &mut Rng::new(1)), []);
    }

    #[test]
    fn a_nearer_peer_takes_the_place_of_a_random_one_and_never_of_a_near_one() {
        let members: Vec<_> = (1..=8).map(|n| candidate(n, 40 * n)).collect();
        let mesh = Mesh::default();
        for seed in 0..50 {
            let found = mesh.nearer(&DEGREE, &[candidate(9, 15), candidate(20, 60)], &members, &mut Rng::new(seed));
            let (best, given_up) = found.expect("it is nearer");
            assert_eq!(best.session, SessionId(9));
            assert!((5..=8).contains(&given_up.expect("the mesh is full").0));
        }
        assert_eq!(mesh.nearer(&DEGREE, &[candidate(9, 150)], &members, &mut Rng::new(1)), None, "not by much");
        let few = mesh.nearer(&DEGREE, &[candidate(9, 150)], &members[..3], &mut Rng::new(1));
        assert_eq!(few, Some((candidate(9, 150), None)));
    }

    #[test]
    fn those_that_rest_are_so_many_and_the_longest_rests_stay() {
        let mut mesh = Mesh::default();
        let until = |second| Time::ZERO + Duration::from_secs(second);
        let id = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            NodeId::from_bytes(id)
        };
        mesh.rest(id(0), until(1_000));
        (1..3_000).for_each(|n| mesh.rest(id(n), until(60)));
        assert_eq!(mesh.rests.len(), MAX_RESTS);
        mesh.rest(id(0), until(10));
        assert_eq!(mesh.rests(Time::ZERO, &id(0)), Some(until(1_000)), "a rest does not get shorter");
        mesh.expire(until(500));
        assert_eq!(mesh.rests.len(), 1);
        assert_eq!(mesh.rests(until(2_000), &id(0)), None);
    }
}
