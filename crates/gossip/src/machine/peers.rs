//! Who is connected, which topics each peer wants, and to whom a topic's messages are pushed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_wire::NodeId;

use super::cache::Slots;
use super::contract::{PeerUp, PruneReason};
use super::mesh::Candidate;
use super::ways::Firsts;
use crate::message::{MessageId, Topic};

/// Ids that a peer does not want, remembered for it.
const MAX_UNWANTED: usize = 1024;

/// What a peer did since the last heartbeat.
#[derive(Debug, Default)]
pub(super) struct Beat {
    /// Ids it announced.
    pub(super) announced: usize,
    /// Ids it asked for.
    pub(super) requested: usize,
    /// Topics it changed.
    pub(super) changes: usize,
    /// Grafts and prunes.
    pub(super) grafts: usize,
    /// Ids it said not to want.
    pub(super) unwanted: usize,
    /// Messages it said to have been first.
    pub(super) firsts: usize,
    /// It was sent our topics on request.
    pub(super) answered: bool,
    /// Its misbehaviour, in thousandths of a point.
    pub(super) misbehaved: i64,
    /// It was blamed for a flood.
    pub(super) blamed: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    channel: ChannelId,
    pub(super) outbound: bool,
    /// It is sent everything at once, outside the meshes.
    pub(super) direct: bool,
    /// How long its answer to the first question for its topics took. It may be its word: it can say them unasked.
    pub(super) round_trip: Option<Duration>,
    /// Messages it said not to want, and in which heartbeat they will be forgotten.
    unwanted: HashSet<MessageId>,
    /// Which messages were first, here and there.
    pub(super) firsts: Firsts,
    /// Why it was let go from a mesh last.
    pub(super) pruned: Option<PruneReason>,
    /// It must be told again whether it is in the meshes, at the next heartbeat.
    pub(super) owed_meshes: bool,
    /// Its bit in the cache's sets.
    pub(super) slot: usize,
    salt: u64,
    pub(super) topics: BTreeSet<Topic>,
    /// Whether it takes coded messages.
    pub(super) coded: bool,
    /// When it was last asked for its topics; `None` once it has said them.
    pub(super) asked_at: Option<Time>,
    /// It must be sent our topics at the next heartbeat; with a request for its own, if `Some(true)`.
    pub(super) owed_topics: Option<bool>,
    /// It must be told again of what it was told, at the next heartbeat.
    pub(super) forgot: bool,
    /// Whether it was last told to be useful; `None` if it is to be told anew.
    pub(super) useful: Option<bool>,
    pub(super) beat: Beat,
}

impl Peer {
    pub(super) fn recipient(&self, session: SessionId) -> Recipient {
        Recipient { session, channel: self.channel }
    }

    /// Whether it said not to want a message.
    pub(super) fn wants_not(&self, id: &MessageId) -> bool {
        self.unwanted.contains(id)
    }

    /// As one that might come into a mesh.
    pub(super) fn candidate(&self, session: SessionId, score: i64) -> Candidate {
        Candidate { session, id: self.id, slot: self.slot, outbound: self.outbound, round_trip: self.round_trip, score }
    }
}

#[derive(Debug)]
struct Members {
    salt: u64,
    sessions: BTreeSet<SessionId>,
    /// The first `fanout` sessions by rank; none if who is a member has changed since.
    links: Option<Vec<SessionId>>,
}

#[derive(Debug)]
pub(super) struct Peers {
    /// Apart: the map is filled half at best, and a peer is large.
    by_session: BTreeMap<SessionId, Box<Peer>>,
    by_topic: BTreeMap<Topic, Members>,
    /// Who has which slot.
    slots: Vec<Option<SessionId>>,
    /// Whether any of them may have said not to want a message.
    unwanting: bool,
    /// Those that an earlier life told to be useful and that are not here yet; no more than it had told.
    useful_before: BTreeSet<SessionId>,
    /// Those whose common topics may have changed; they are all here.
    changed: BTreeSet<SessionId>,
    fanout: usize,
    /// Direct peers.
    directs: usize,
    rng: Rng,
}

impl Peers {
    /// At most `fanout` peers for messages of topics that have no mesh here.
    pub(super) fn new(fanout: usize, rng: Rng) -> Peers {
        Peers {
            by_session: BTreeMap::new(),
            by_topic: BTreeMap::new(),
            slots: Vec::new(),
            unwanting: false,
            useful_before: BTreeSet::new(),
            changed: BTreeSet::new(),
            fanout,
            directs: 0,
            rng,
        }
    }

    /// Remembers what an earlier life told.
    pub(super) fn restore(&mut self, useful: BTreeSet<SessionId>) {
        self.useful_before = useful;
    }

    /// Notes that the peers of a topic may have a topic more or less in common with this node.
    pub(super) fn topic_matters(&mut self, topic: &Topic) {
        if let Some(members) = self.by_topic.get(topic) {
            self.changed.extend(&members.sessions);
        }
    }

    /// The peers that became useful, or stopped being so, given what this node wants.
    pub(super) fn news_of_use(&mut self, wanted: impl Fn(&Topic) -> bool) -> Vec<(SessionId, bool)> {
        let mut news = Vec::new();
        for session in std::mem::take(&mut self.changed) {
            if let Some(peer) = self.by_session.get_mut(&session) {
                let useful = peer.topics.iter().any(&wanted);
                if peer.useful.replace(useful) != Some(useful) {
                    news.push((session, useful));
                }
            }
        }
        news
    }

    /// Adds a peer; false if the session is there already.
    pub(super) fn up(&mut self, now: Time, up: PeerUp, direct: bool) -> bool {
        let PeerUp { session, id, channel, outbound, .. } = up;
        if self.by_session.contains_key(&session) {
            return false;
        }
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(session);
        let peer = Peer {
            id,
            channel,
            outbound,
            direct,
            round_trip: None,
            unwanted: HashSet::new(),
            firsts: Firsts::default(),
            pruned: None,
            owed_meshes: false,
            slot,
            salt: self.rng.next_u64(),
            topics: BTreeSet::new(),
            coded: false,
            asked_at: Some(now),
            owed_topics: None,
            forgot: false,
            useful: if self.useful_before.remove(&session) { None } else { Some(false) },
            beat: Beat::default(),
        };
        self.by_session.insert(session, Box::new(peer));
        self.directs += usize::from(direct);
        true
    }

    /// Removes a peer; its slot, if it was there.
    pub(super) fn down(&mut self, session: SessionId) -> Option<usize> {
        let peer = self.by_session.remove(&session)?;
        for topic in &peer.topics {
            self.leave(session, topic);
        }
        self.directs -= usize::from(peer.direct);
        if let Some(place) = self.slots.get_mut(peer.slot) {
            *place = None;
        }
        self.changed.remove(&session);
        Some(peer.slot)
    }

    /// The median of the round trips that are known: what single peers claim moves it little.
    pub(super) fn usual_round_trip(&self) -> Option<Duration> {
        let mut known: Vec<Duration> = self.by_session.values().filter_map(|peer| peer.round_trip).collect();
        let middle = known.len().checked_sub(1)? / 2;
        Some(*known.select_nth_unstable(middle).1)
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Peer> {
        self.by_session.get(&session).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Peer> {
        self.by_session.get_mut(&session).map(Box::as_mut)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SessionId, &mut Peer)> {
        self.by_session.iter_mut().map(|(session, peer)| (*session, &mut **peer))
    }

    /// A session's copy of a message came a moment after the one of a slot.
    pub(super) fn settle_tie(&mut self, session: SessionId, slot: usize, head: u64) {
        let first = self.slots.get(slot).copied().flatten();
        let Some(first) = first.filter(|first| *first != session) else { return };
        let Some(mut firsts) = self.by_session.get_mut(&first).map(|peer| std::mem::take(&mut peer.firsts)) else {
            return;
        };
        if let Some(peer) = self.by_session.get_mut(&session) {
            peer.firsts.overtakes(&mut firsts, head);
        }
        if let Some(peer) = self.by_session.get_mut(&first) {
            peer.firsts = firsts;
        }
    }

    /// A peer need not be sent a message; false if it has said so of too many.
    pub(super) fn unwanted(&mut self, session: SessionId, id: MessageId) -> bool {
        let Some(peer) = self.by_session.get_mut(&session) else { return true };
        let fits = peer.unwanted.len() < MAX_UNWANTED;
        if fits {
            peer.unwanted.insert(id);
            self.unwanting = true;
        }
        fits
    }

    /// Whether a peer said not to want a message.
    pub(super) fn wants_not(&self, session: SessionId, id: &MessageId) -> bool {
        // Mostly nobody has said so of any, and then no peer is looked at.
        self.unwanting && self.by_session.get(&session).is_some_and(|peer| peer.wants_not(id))
    }

    /// Forgets what peers said not to want.
    pub(super) fn forget_unwanted(&mut self) {
        if std::mem::take(&mut self.unwanting) {
            self.by_session.values_mut().for_each(|peer| peer.unwanted = HashSet::new());
        }
    }

    /// Every session, its peer, and how many topics that wants.
    pub(super) fn summary(&self) -> impl Iterator<Item = (SessionId, NodeId, usize)> {
        self.by_session.iter().map(|(session, peer)| (*session, peer.id, peer.topics.len()))
    }

    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }

    /// The peer wants a topic; false if it wants too many.
    pub(super) fn join(&mut self, session: SessionId, topic: Topic, max_topics: usize) -> bool {
        let Some(peer) = self.by_session.get_mut(&session) else { return true };
        if peer.topics.contains(&topic) {
            return true;
        }
        if peer.topics.len() >= max_topics {
            return false;
        }
        peer.topics.insert(topic.clone());
        self.changed.insert(session);
        let rng = &mut self.rng;
        let members = self.by_topic.entry(topic).or_insert_with(|| Members {
            salt: rng.next_u64(),
            sessions: BTreeSet::new(),
            links: None,
        });
        members.sessions.insert(session);
        members.links = None;
        true
    }

    /// The peer no longer wants a topic.
    pub(super) fn part(&mut self, session: SessionId, topic: &Topic) {
        if self.by_session.get_mut(&session).is_some_and(|peer| peer.topics.remove(topic)) {
            self.changed.insert(session);
            self.leave(session, topic);
        }
    }

    /// The peer wants these topics and no others; false if they are too many, and then only the first.
    pub(super) fn replace(&mut self, session: SessionId, topics: Vec<Topic>, max_topics: usize) -> bool {
        let Some(peer) = self.by_session.get_mut(&session) else { return true };
        self.changed.insert(session);
        let wanted: BTreeSet<Topic> = topics.into_iter().collect();
        let gone: Vec<Topic> = peer.topics.difference(&wanted).cloned().collect();
        for topic in gone {
            self.part(session, &topic);
        }
        let refused = wanted.into_iter().filter(|topic| !self.join(session, topic.clone(), max_topics)).count();
        refused == 0
    }

    fn leave(&mut self, session: SessionId, topic: &Topic) {
        if let Some(members) = self.by_topic.get_mut(topic) {
            members.sessions.remove(&session);
            members.links = None;
            if members.sessions.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }

    /// The peers that messages of a topic without a mesh are pushed to: the same ones as long as nobody comes or goes, and
    /// only those who must when somebody does.
    ///
    /// Each peer and each topic has a random number; a topic's links are the members whose two numbers mix
    /// to the smallest (rendezvous hashing), so every member is as likely as any other, newcomers included.
    pub(super) fn links(&mut self, topic: &Topic) -> Vec<SessionId> {
        let Some(members) = self.by_topic.get_mut(topic) else { return Vec::new() };
        let (salt, sessions, peers, fanout) = (members.salt, &members.sessions, &self.by_session, self.fanout);
        let links = members.links.get_or_insert_with(|| {
            let mut ranked: Vec<_> = sessions
                .iter()
                .map(|session| (mix(salt ^ peers.get(session).map_or(0, |peer| peer.salt)), *session))
                .collect();
            ranked.sort_unstable();
            ranked.truncate(fanout);
            ranked.into_iter().map(|(_, session)| session).collect()
        });
        links.clone()
    }

    /// The peers that want a topic.
    pub(super) fn that_want(&self, topic: &Topic) -> impl Iterator<Item = SessionId> {
        self.by_topic.get(topic).into_iter().flat_map(|members| members.sessions.iter().copied())
    }

    /// The direct ones of them.
    pub(super) fn direct(&self, topic: &Topic) -> Vec<SessionId> {
        if self.directs == 0 {
            return Vec::new();
        }
        self.that_want(topic).filter(|session| self.get(*session).is_some_and(|peer| peer.direct)).collect()
    }

    /// Marks the sessions of a node, and these sessions, as having a message.
    pub(super) fn mark(&self, has: &mut Slots, node: Option<NodeId>, sessions: impl IntoIterator<Item = SessionId>) {
        for session in sessions {
            if let Some(peer) = self.by_session.get(&session) {
                has.insert(peer.slot);
            }
        }
        if let Some(node) = node {
            self.by_session.values().filter(|peer| peer.id == node).for_each(|peer| has.insert(peer.slot));
        }
    }

    pub(super) fn recipient(&self, session: SessionId) -> Option<Recipient> {
        self.by_session.get(&session).map(|peer| peer.recipient(session))
    }

    pub(super) fn everyone(&self) -> Vec<Recipient> {
        self.by_session.iter().map(|(session, peer)| peer.recipient(*session)).collect()
    }

    /// Some peers that want any topic.
    pub(super) fn sample(&mut self, count: usize) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> =
            self.by_session.iter().filter(|(_, peer)| !peer.topics.is_empty()).map(|(session, _)| *session).collect();
        self.rng.sample(&mut sessions, count).to_vec()
    }
}

/// SplitMix64's finaliser: every input bit moves every output bit.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic::new("t").expect("short")
    }

    fn peers(count: u64, fanout: usize) -> Peers {
        let mut peers = Peers::new(fanout, Rng::new(1));
        for n in 0..count {
            assert!(peers.up(
                Time::ZERO,
                PeerUp::new(SessionId(n), NodeId::from_bytes([n as u8; 32]), ChannelId(1)),
                false
            ));
            assert!(peers.join(SessionId(n), topic(), 1));
        }
        peers
    }

    #[test]
    fn all_are_linked_while_they_are_few_and_as_many_as_the_fanout_when_not() {
        assert_eq!(peers(5, 8).links(&topic()).len(), 5);
        assert_eq!(peers(30, 8).links(&topic()).len(), 8);
    }

    #[test]
    fn links_stay_when_others_come_and_go() {
        let mut peers = peers(30, 8);
        let before = peers.links(&topic());
        let bystander = (0..30).map(SessionId).find(|session| !before.contains(session)).expect("30 > 8");
        peers.down(bystander);
        assert_eq!(peers.links(&topic()), before);
        peers.down(before[0]);
        let after = peers.links(&topic());
        assert_eq!(after.len(), 8, "refilled");
        assert_eq!(after.iter().filter(|session| before.contains(session)).count(), 7);
    }

    #[test]
    fn newcomers_are_linked_as_often_as_others() {
        let mut linked = 0;
        for seed in 0..200 {
            let mut peers = Peers::new(8, Rng::new(seed));
            for n in 0..32 {
                peers.up(Time::ZERO, PeerUp::new(SessionId(n), NodeId::from_bytes([0; 32]), ChannelId(1)), false);
                peers.join(SessionId(n), topic(), 1);
            }
            linked += usize::from(peers.links(&topic()).contains(&SessionId(31)));
        }
        assert!((30..=70).contains(&linked), "{linked} of 200, and 50 is fair");
    }

    #[test]
    fn slots_are_used_again_and_never_twice_at_once() {
        let mut peers = peers(4, 8);
        assert_eq!(peers.down(SessionId(1)), Some(1));
        assert_eq!(peers.down(SessionId(1)), None);
        for n in [10, 11] {
            peers.up(Time::ZERO, PeerUp::new(SessionId(n), NodeId::from_bytes([0; 32]), ChannelId(1)), false);
        }
        let mut slots: Vec<_> = peers.iter_mut().map(|(_, peer)| peer.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn nothing_is_left_of_peers_that_are_gone() {
        let mut peers = peers(4, 8);
        assert!((0..4).all(|n| peers.down(SessionId(n)).is_some()));
        assert!(peers.by_topic.is_empty() && peers.by_session.is_empty());
    }
}
