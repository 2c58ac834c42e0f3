//! Where a message goes: eager links get it at once, lazy ones hear of it a moment later.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Time;
use peerage_queue::{Recipient, SessionId};
use peerage_wire::Penalty;
use peerage_wire::frame::Lane;

use super::cache::Slots;
use super::contract::{Count, Out, Outgoing, Timer};
use super::drops::DropReason;
use super::peers::Peers;
use super::ways::{FAR, Spread, Told, Way};
use super::{Fx, GossipMachine, dropped, tag};
use crate::config::Mode;
use crate::message::{MessageId, Topic};
use crate::wire;

/// One in so many messages goes to a lazy link at once, to learn whether that is still right. It is seldom, as a peer that
/// had to ask tells as much: one in a hundred made a tenth of all copies beyond the first.
const TRIAL: u64 = 1_000;
/// Lazy links wait this long at least: on one machine too a message takes a moment to be checked and sent on.
const SOONEST: Duration = Duration::from_millis(2);

impl GossipMachine {
    /// Who gets a new message that came this way.
    pub(super) fn spread(&mut self, topic: &Topic, id: &MessageId, has: &Slots, way: Way, bytes: usize) -> Spread {
        let own = way.is_none();
        let mut spread = Spread::default();
        let lacks = |slot: usize, peers: &Peers, session| !has.contains(slot) && !peers.wants_not(session, id);
        let wants = |peers: &Peers, session: SessionId| {
            let slot = peers.get(session)?.slot;
            lacks(slot, peers, session).then_some(slot)
        };
        let key = self.way(way);
        let everybody = own && bytes <= self.config.flood_publish && self.config.mode != Mode::Plumtree;
        match self.meshes.get(topic) {
            Some(mesh) if mesh.len() > 0 && !everybody => {
                for (session, link) in mesh.links() {
                    if !lacks(link.slot, &self.peers, session) {
                        continue;
                    }
                    let eager = match self.config.mode {
                        Mode::Gossipsub => true,
                        Mode::Plumtree => link.ways.eager(key),
                        Mode::Peerage => own || link.ways.eager(key) || self.rng.below(TRIAL) == 0,
                    };
                    if eager {
                        spread.told.insert(link.slot);
                        spread.to.push(session);
                    } else {
                        spread.lazy = true;
                    }
                }
                for session in self.peers.direct(topic) {
                    if let Some(slot) = wants(&self.peers, session)
                        && !spread.told.contains(slot)
                    {
                        spread.told.insert(slot);
                        spread.to.push(session);
                    }
                }
            }
            // A node that does not want the topic itself, one whose mesh is still empty, and one whose own message is
            // small enough to be told to everybody (gossipsub's flood publishing): nobody can keep it from the network.
            _ => {
                let sessions = if everybody { self.peers.that_want(topic).collect() } else { self.peers.links(topic) };
                for session in sessions {
                    if let Some(slot) = wants(&self.peers, session)
                        && self.stands(session, self.config.scores.publish)
                    {
                        spread.told.insert(slot);
                        spread.to.push(session);
                    }
                }
            }
        }
        spread
    }

    /// Under what the link's shares are kept.
    fn way(&self, way: Way) -> Way {
        if self.config.mode == Mode::Peerage { way } else { None }
    }

    /// Sends a new message to those it is spread to, and remembers that it did.
    pub(super) fn send_on(
        &mut self,
        now: Time,
        topic: &Topic,
        id: &MessageId,
        way: Way,
        spread: &Spread,
    ) -> Vec<Recipient> {
        let learns = self.config.mode != Mode::Gossipsub && way.is_some() && self.meshes.contains_key(topic);
        let mut to = Vec::with_capacity(spread.to.len());
        for session in &spread.to {
            to.extend(self.peers.recipient(*session));
            if learns && let Some(peer) = self.peers.get_mut(*session) {
                peer.firsts.pushed(now.running(), id.head(), way, topic.clone());
            }
        }
        to
    }

    /// Works out how long lazy links wait: where peers are near, what is sent at once is there sooner too.
    pub(super) fn pace_announcements(&mut self) {
        let usual = self.peers.usual_round_trip();
        self.lazy_after =
            usual.map_or(self.config.lazy_after, |span| self.config.lazy_after.min((2 * span).max(SOONEST)));
    }

    /// A message waits to be announced to lazy links.
    pub(super) fn announce_soon(&mut self, now: Time, tag: u64, fx: &mut Fx) {
        if self.lazies.is_empty() {
            // Half to one and a half of the time: of two ends of a link, one announces, and the other need not.
            let after = self.lazy_after;
            let spread = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            let jitter = Duration::from_micros(self.rng.below(spread.max(1)));
            fx.arm(Timer::Lazy, now + after / 2 + jitter);
        }
        self.lazies.push(tag);
    }

    /// Tells lazy links of what came since the last time.
    pub(super) fn announce_lazily(&mut self, fx: &mut Fx) {
        let mut tellings: BTreeMap<SessionId, BTreeMap<Topic, Vec<MessageId>>> = BTreeMap::new();
        for tag in std::mem::take(&mut self.lazies) {
            let Some(entry) = self.cache.tagged(tag) else { continue };
            let Some(mesh) = self.meshes.get(&entry.topic) else { continue };
            let mut lacking: Vec<(SessionId, usize)> = mesh
                .links()
                .filter_map(|(session, link)| {
                    let knows = entry.has.contains(link.slot) || entry.told.contains(link.slot);
                    (!knows && !self.peers.wants_not(session, &entry.id)).then_some((session, link.slot))
                })
                .collect();
            for (session, slot) in self.rng.sample(&mut lacking, self.config.lazy_peers) {
                entry.told.insert(*slot);
                tellings.entry(*session).or_default().entry(entry.topic.clone()).or_default().push(entry.id);
            }
        }
        for (session, by_topic) in tellings {
            self.tell(session, &by_topic, fx);
        }
    }

    /// Announces messages to a peer.
    pub(super) fn tell(&mut self, session: SessionId, by_topic: &BTreeMap<Topic, Vec<MessageId>>, fx: &mut Fx) {
        let mut items = Vec::with_capacity(by_topic.len());
        for (topic, ids) in by_topic {
            for ids in ids.chunks(wire::MAX_IDS) {
                fx.emit(Out::Count(Count::AnnouncedOut(ids.len())));
                items.push(wire::i_have(topic, ids));
            }
        }
        // Mostly there is one, which needs no copy.
        let bytes = match items.as_slice() {
            [item] => item.clone(),
            items => items.concat().into(),
        };
        self.control(self.peers.recipient(session), Lane::High, bytes, tag::ANNOUNCEMENT, fx);
    }

    /// A peer has come into a mesh: what this node published and could tell nobody of goes to it now.
    pub(super) fn linked(&mut self, now: Time, session: SessionId, topic: &Topic, fx: &mut Fx) {
        let Some(peer) = self.peers.get(session) else { return };
        let (slot, to) = (peer.slot, self.peers.recipient(session));
        let untold: Vec<_> = self.cache.untold(topic, slot).collect();
        for (tag, bytes) in untold {
            self.push(to.into_iter().collect(), bytes, tag, fx);
        }
        self.start_heart(now, fx);
    }

    /// A message is here. If it is large, those who may be about to send it are told.
    pub(super) fn say_have(
        &mut self,
        topic: &Topic,
        id: &MessageId,
        bytes: usize,
        has: &Slots,
        told: &Slots,
        fx: &mut Fx,
    ) {
        let Some(mesh) = self.meshes.get(topic).filter(|_| bytes >= self.config.dont_want_from) else { return };
        let peers = &self.peers;
        let others = mesh.links().filter_map(|(session, link)| {
            // Who is being sent it, or sent it, knows.
            (!has.contains(link.slot) && (self.config.mode == Mode::Gossipsub || !told.contains(link.slot)))
                .then(|| peers.recipient(session))?
        });
        let to: Vec<Recipient> = others.collect();
        if !to.is_empty() {
            fx.emit(Out::Count(Count::UnwantedOut(to.len())));
            let (lane, bytes) = (Lane::Control, wire::i_dont_want(&[*id]));
            fx.emit(Out::Push(Outgoing { to, lane, bytes, drop_oldest: false, tag: tag::REQUEST }));
        }
    }

    /// A peer need not be sent these messages. It may still be judging them, so that is no receipt.
    pub(super) fn unwanted(&mut self, now: Time, session: SessionId, ids: Vec<MessageId>, fx: &mut Fx) {
        let Some(peer) = self.peers.get_mut(session) else { return };
        peer.beat.unwanted = peer.beat.unwanted.saturating_add(ids.len().max(1));
        if peer.beat.unwanted > self.config.quota_ids {
            dropped(DropReason::UnwantedFlood, fx);
            return self.blame(now, session, Penalty::ControlFlood, fx);
        }
        let (slot, to) = (peer.slot, peer.recipient(session));
        for id in ids {
            match self.cache.tag_of(&id) {
                Some(tag) => {
                    if let Some(entry) = self.cache.tagged(tag) {
                        let under_way = entry.told.contains(slot) && !entry.has.contains(slot);
                        entry.has.insert(slot);
                        if under_way {
                            fx.emit(Out::Cancel { to, tag });
                        }
                    }
                }
                None if self.peers.unwanted(session, id) => {}
                None => dropped(DropReason::UnwantedFlood, fx),
            }
        }
    }

    /// A peer told which messages it had from nobody before.
    pub(super) fn firsts(&mut self, now: Time, session: SessionId, heads: &[u64], fx: &mut Fx) {
        let Some(peer) = self.peers.get_mut(session) else { return };
        peer.beat.firsts = peer.beat.firsts.saturating_add(heads.len().max(1));
        if peer.beat.firsts > self.config.quota_ids {
            dropped(DropReason::FirstsFlood, fx);
            return self.blame(now, session, Penalty::ControlFlood, fx);
        }
        let round_trip = peer.round_trip.unwrap_or(FAR);
        let told = peer.firsts.told(now.running(), heads, round_trip);
        self.learn(session, told);
    }

    pub(super) fn learn(&mut self, session: SessionId, told: Vec<Told>) {
        for Told { topic, way, first } in told {
            let way = self.way(way);
            let Some(link) = self.meshes.get_mut(&topic).and_then(|mesh| mesh.link_mut(session)) else { continue };
            match self.config.mode {
                Mode::Plumtree => link.ways.decide(way, first),
                Mode::Peerage | Mode::Gossipsub => link.ways.learn(way, first),
            }
        }
    }

    /// A peer had to ask for a message that came this way: sending it at once would have been right.
    pub(super) fn was_lacked(&mut self, session: SessionId, topic: &Topic, way: Way) {
        let first = || Told { topic: topic.clone(), way, first: true };
        if way.is_some() {
            self.learn(session, vec![first(), first()]);
        }
    }

    /// Tells peers which of their messages were first, and stops waiting for those who do not tell.
    pub(super) fn settle_firsts(&mut self, now: Time, fx: &mut Fx) {
        if self.config.mode == Mode::Gossipsub {
            return;
        }
        let mut overdue = Vec::new();
        for (session, peer) in self.peers.iter_mut() {
            if peer.firsts.owes() {
                self.reports.insert(session);
            }
            peer.firsts.fade();
            let late = peer.firsts.overdue(now.running());
            if !late.is_empty() {
                overdue.push((session, late));
            }
        }
        for (session, told) in overdue {
            self.learn(session, told);
        }
        self.report_firsts(fx);
    }

    /// A peer sent a message, which was the first of its kind or not.
    pub(super) fn came(&mut self, session: SessionId, id: &MessageId, first: bool) {
        if self.config.mode != Mode::Gossipsub
            && let Some(peer) = self.peers.get_mut(session)
            && peer.firsts.came(id.head(), first)
        {
            self.reports.insert(session);
        }
    }

    /// Tells those peers that are to know which of their messages were first.
    pub(super) fn report_firsts(&mut self, fx: &mut Fx) {
        for session in std::mem::take(&mut self.reports) {
            if let Some(heads) = self.peers.get_mut(session).and_then(|peer| peer.firsts.take_owed()) {
                self.control(self.peers.recipient(session), Lane::High, wire::firsts(&heads), tag::REQUEST, fx);
            }
        }
    }
}
