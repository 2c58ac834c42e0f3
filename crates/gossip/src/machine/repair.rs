//! Lazy repair: announcing what is here, asking for what is announced, and the heartbeat that drives it.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::Penalty;
use peerage_wire::frame::Lane;

use super::cache::{Entry, Served};
use super::contract::{Count, Out, Timer};
use super::drops::DropReason;
use super::wants::{Announced, Asks};
use super::{Fx, GossipMachine, dropped, tag};
use crate::message::{MessageId, Topic};
use crate::wire;

/// Heartbeats after which it is forgotten what peers did not want (go-libp2p-pubsub: 3).
const FORGET_UNWANTED: u64 = 3;

/// What a broken promise counts, in thousandths of a point of P7. An honest peer breaks some where lines are full; who
/// announces what it does not have breaks thousands.
const BROKEN_PROMISE: i64 = crate::score::POINT / 10;

/// What one peer is told at a heartbeat.
struct Telling {
    session: SessionId,
    slot: usize,
    ids: usize,
    by_topic: BTreeMap<Topic, Vec<MessageId>>,
}

impl GossipMachine {
    /// The heart beats only while there is something to do, so that an idle node costs nothing.
    pub(super) fn start_heart(&mut self, now: Time, fx: &mut Fx) {
        if !std::mem::replace(&mut self.heart_beats, true) {
            let interval = self.config.heartbeat;
            // 0.9 to 1.1 of the interval: nodes that started together do not announce together.
            let jitter = self.rng.below(u64::try_from(interval.as_micros() / 5).unwrap_or(u64::MAX) + 1);
            fx.arm(Timer::Heartbeat, now + interval * 9 / 10 + std::time::Duration::from_micros(jitter));
        }
    }

    pub(super) fn heartbeat(&mut self, now: Time, fx: &mut Fx) {
        self.heart_beats = false;
        self.seen.expire(now);
        self.rejected.expire(now);
        self.validations.expire(now);
        self.poison.expire(now);
        self.cache.expire(now);
        self.librarian.beat(now, self.config.pull.history_beat_bytes);
        let (mut owed, mut forgetful, mut untold) = (Vec::new(), Vec::new(), Vec::new());
        if self.beats.is_multiple_of(FORGET_UNWANTED) {
            self.peers.forget_unwanted();
        }
        for (session, peer) in self.peers.iter_mut() {
            peer.beat = super::peers::Beat::default();
            if peer.asked_at.is_some_and(|at| now.since(at) >= self.config.ask_topics) {
                peer.asked_at = Some(now);
                peer.owed_topics = Some(true);
            }
            if let Some(want_reply) = peer.owed_topics.take() {
                owed.push((session, want_reply));
            }
            if std::mem::take(&mut peer.owed_meshes) {
                untold.push(session);
            }
            if std::mem::take(&mut peer.forgot) {
                forgetful.push(peer.slot);
            }
        }
        forgetful.into_iter().for_each(|slot| self.cache.forget_told(slot));
        for (session, want_reply) in owed {
            self.send_topics(session, want_reply, fx);
        }
        for session in untold {
            self.say_meshes(now, session, fx);
        }
        self.scores.tick(now);
        self.settle_firsts(now, fx);
        self.pace_announcements();
        self.mend_meshes(now, fx);
        self.announce(now, fx);
        self.pull_if_due(now, fx);
        if self.peers.len() + self.seen.len() + self.cache.len() > 0 {
            self.start_heart(now, fx);
        }
    }

    /// Tells some peers of messages they are not known to have.
    fn announce(&mut self, now: Time, fx: &mut Fx) {
        if self.cache.len() == 0 {
            return;
        }
        let sampled = self.peers.sample(self.config.announce_peers);
        let mut tellings: Vec<Telling> = sampled
            .into_iter()
            .filter_map(|session| {
                let slot = self.peers.get(session)?.slot;
                self.stands(session, self.config.scores.gossip).then_some(())?;
                Some(Telling { session, slot, ids: 0, by_topic: BTreeMap::new() })
            })
            .collect();
        let (peers, config, coded) = (&self.peers, &self.config, &self.coded);
        // Nobody pulls from a node for topics that it does not want, so what it published as a guest is announced on.
        let (guest, wanted) = (self.pulls.is_guest(now), &self.subscriptions);
        let recent = |entry: &Entry| now.since(entry.kept_at) < config.announce_for;
        let entries = self.cache.newest_first().take_while(|entry| guest || recent(entry));
        for entry in entries.filter(|entry| recent(entry) || !wanted.contains_key(&entry.topic)) {
            if now.since(entry.kept_at) < Self::announced_after(coded, config, &entry.id) {
                continue;
            }
            for telling in &mut tellings {
                if telling.ids < config.announce_ids
                    && !entry.has.contains(telling.slot)
                    && !entry.told.contains(telling.slot)
                    && peers.get(telling.session).is_some_and(|peer| peer.topics.contains(&entry.topic))
                {
                    entry.told.insert(telling.slot);
                    telling.ids += 1;
                    telling.by_topic.entry(entry.topic.clone()).or_default().push(entry.id);
                }
            }
        }
        for telling in tellings.into_iter().filter(|telling| telling.ids > 0) {
            self.tell(telling.session, &telling.by_topic, fx);
        }
    }

    /// A peer announced messages.
    pub(super) fn announced(&mut self, now: Time, session: SessionId, topic: &Topic, ids: Vec<MessageId>, fx: &mut Fx) {
        fx.emit(Out::Count(Count::AnnouncedIn(ids.len())));
        if !self.stands(session, self.config.scores.gossip) {
            return dropped(DropReason::LowScore, fx);
        }
        let Some(peer) = self.peers.get_mut(session) else { return };
        let slot = peer.slot;
        peer.beat.announced = peer.beat.announced.saturating_add(ids.len().max(1));
        if peer.beat.announced > self.config.quota_ids {
            dropped(DropReason::AnnounceFlood, fx);
            return self.blame(now, session, Penalty::ControlFlood, fx);
        }
        if !self.subscriptions.contains_key(topic) {
            return dropped(DropReason::UnknownTopic, fx);
        }
        let mut asks = Asks::new();
        for id in ids {
            // What is kept was seen.
            if let Some(entry) = self.cache.get_mut(&id) {
                entry.has.insert(slot);
                self.has_it(session, &id, fx);
                continue;
            }
            if self.seen.contains(&id) {
                self.has_it(session, &id, fx);
                continue;
            }
            if self.coded.is_coming(&id) {
                self.coded.announced(&id, session);
                continue;
            }
            let under_way = self.flights.contains(&id) || self.validations.contains(&id);
            match self.wants.announced(now, id, session, under_way) {
                Announced::Ask => asks.entry(session).or_default().push(id),
                Announced::Noted => {}
                Announced::Full => dropped(DropReason::WantsFull, fx),
            }
        }
        self.ask(asks, fx);
    }

    /// A peer asks for messages.
    pub(super) fn requested(&mut self, now: Time, session: SessionId, ids: Vec<MessageId>, fx: &mut Fx) {
        fx.emit(Out::Count(Count::RequestedIn(ids.len())));
        if !self.stands(session, self.config.scores.gossip) {
            return dropped(DropReason::LowScore, fx);
        }
        let Some(peer) = self.peers.get_mut(session) else { return };
        let slot = peer.slot;
        peer.beat.requested = peer.beat.requested.saturating_add(ids.len().max(1));
        if peer.beat.requested > self.config.quota_ids {
            dropped(DropReason::RequestFlood, fx);
            return self.blame(now, session, Penalty::ControlFlood, fx);
        }
        for id in ids {
            match self.cache.serve(&id, slot, self.config.serves_per_peer) {
                Served::Push(tag, bytes) => {
                    fx.emit(Out::Count(Count::Served));
                    if let Some(entry) = self.cache.tagged(tag) {
                        let (topic, way) = (entry.topic.clone(), entry.way);
                        self.was_lacked(session, &topic, way);
                    }
                    self.push(self.peers.recipient(session).into_iter().collect(), bytes, tag, fx);
                }
                Served::TooOften => dropped(DropReason::ServedEnough, fx),
                Served::Gone => dropped(DropReason::NotKept, fx),
            }
        }
    }

    /// Peers had their time: asks the next ones.
    pub(super) fn ask_others(&mut self, now: Time, fx: &mut Fx) {
        let mut asks = Asks::new();
        for id in self.wants.take_overdue(now) {
            if self.flights.contains(&id) || self.validations.contains(&id) {
                self.wants.extend(now, id);
            } else if let Some(session) = self.wants.next(now, id, &mut asks) {
                dropped(DropReason::BrokenPromise, fx);
                self.misbehaved(now, session, BROKEN_PROMISE);
            }
        }
        self.ask(asks, fx);
    }

    pub(super) fn ask(&mut self, asks: Asks, fx: &mut Fx) {
        for (session, ids) in asks {
            let to = self.peers.recipient(session);
            for ids in ids.chunks(wire::MAX_IDS) {
                fx.emit(Out::Count(Count::RequestedOut(ids.len())));
                let bytes: Bytes = wire::i_want(ids);
                self.control(to, Lane::High, bytes, tag::REQUEST, fx);
            }
        }
        match self.wants.deadline() {
            Some(deadline) => fx.arm(Timer::Wants, deadline),
            None => fx.disarm(Timer::Wants),
        }
    }
}
