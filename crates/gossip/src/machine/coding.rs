//! Coded broadcast's place among the other rules: what is coded, who gets shards and who the whole message.

use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::{Recipient, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty, Signature};

use super::contract::{Count, Out, Outgoing, Published};
use super::drops::DropReason;
use super::validating::Arrival;
use super::wants::{Announced, Asks};
use super::ways::Spread;
use super::{Fx, GossipMachine, dropped, tag};
use crate::coded::{Admitted, Bits, Coded, Coding, Header, Key, Outcome, Publication, Shape};
use crate::config::Config;
use crate::message::{Fingerprint, MessageId, Policy, Topic};
use crate::wire::{self, CodedStatus, Parcel, Shard};

impl GossipMachine {
    /// How many bytes a payload or a shard stands for, where that is not its own length: in a simulation.
    #[must_use]
    pub fn weighing(mut self, weigh: fn(&[u8]) -> usize) -> GossipMachine {
        self.coded.weighing(weigh);
        self
    }

    pub(super) fn takes_coded(&mut self, session: SessionId, coded: bool) {
        if let Some(peer) = self.peers.get_mut(session) {
            peer.coded = coded;
        }
    }

    pub(super) fn admit(&mut self, topic: Topic, publishers: Admitted) {
        if self.coded.admit(topic, publishers) {
            // Told at the next heartbeat: how often the application changes its mind is no peer's burden.
            self.peers.iter_mut().for_each(|(_, peer)| peer.owed_topics = peer.owed_topics.or(Some(false)));
        }
    }

    /// The peers that shards of a topic's messages go to: all that take any, up to a limit, not the mesh alone. Of more
    /// links each brings other shards, and sooner.
    fn coded_links(&mut self, topic: &Topic) -> Vec<Recipient> {
        let sessions: Vec<SessionId> = self.peers.that_want(topic).collect();
        let peers = sessions.into_iter().filter_map(|session| Some((session, self.peers.get(session)?)));
        let takers = peers.filter(|(_, peer)| peer.coded).map(|(session, peer)| (session, peer.recipient(session)));
        let mut takers: Vec<(SessionId, Recipient)> = takers.collect();
        // Those in the mesh first, where there are too many.
        let mesh = self.meshes.get(topic);
        takers.sort_by_key(|(session, _)| !mesh.is_some_and(|mesh| mesh.contains(*session)));
        takers.into_iter().map(|(_, taker)| taker).take(self.config.coded.links).collect()
    }

    // ---- Publishing.

    pub(super) fn coded_shape(&mut self, topic: &Topic, payload: &Bytes) -> Option<Shape> {
        let shape = self.coded.shape(topic, &self.node, payload)?;
        // With nobody to take shards there is no use in making them.
        (!self.coded_links(topic).is_empty()).then_some(shape)
    }

    pub(super) fn coded_signed(&mut self, now: Time, token: u64, signature: Signature, fx: &mut Fx) {
        let Some((publication, header, coding)) = self.coded.signed(token, signature) else { return };
        let links = self.coded_links(&publication.topic);
        let coded = self.coded.publish(now, header, coding, links, fx);
        self.publish_whole(now, publication, coded, fx);
    }

    /// Sends a publication whole to those that get no shards of it.
    fn publish_whole(&mut self, now: Time, publication: Publication, coded: usize, fx: &mut Fx) {
        let Publication { token, topic, origin, payload, id } = publication;
        let parcel = Parcel::new(topic, Some(origin), &payload);
        let peers = coded + self.publish_parcel(now, id, parcel, fx);
        fx.emit(Out::Published { token, result: Ok(Published { id, peers }) });
    }

    pub(super) fn coded(&mut self, now: Time, token: u64, coding: Option<Coding>, fx: &mut Fx) {
        let outcome = self.coded.coded(now, token, coding, fx);
        self.came_of_it(now, outcome, fx);
    }

    pub(super) fn coded_verified(&mut self, now: Time, token: u64, ok: bool, fx: &mut Fx) {
        let outcome = self.coded.verified(now, token, ok, fx);
        self.came_of_it(now, outcome, fx);
    }

    fn came_of_it(&mut self, now: Time, outcome: Outcome, fx: &mut Fx) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Whole(publication) => self.publish_whole(now, *publication, 0, fx),
            Outcome::Rebuilt(header, payload, first, complete) => {
                self.rebuilt(now, &header, &payload, first, complete, fx);
            }
            Outcome::Forged(publisher) => {
                dropped(DropReason::NotACode, fx);
                self.blame_publisher(now, publisher, fx);
            }
        }
    }

    /// What a publisher signed is its doing, whoever passed it on.
    fn blame_publisher(&mut self, now: Time, publisher: NodeId, fx: &mut Fx) {
        let its: Vec<SessionId> =
            self.peers.iter_mut().filter(|(_, peer)| peer.id == publisher).map(|(session, _)| session).collect();
        for session in its {
            self.blame(now, session, Penalty::InvalidMessage, fx);
        }
    }

    fn rebuilt(
        &mut self,
        now: Time,
        header: &Header,
        payload: &Bytes,
        first: Option<SessionId>,
        complete: Vec<SessionId>,
        fx: &mut Fx,
    ) {
        fx.emit(Out::Count(Count::Rebuilt));
        if self.seen.contains(&header.id) || !self.subscriptions.contains_key(&header.topic) {
            return;
        }
        let (origin, senders) = (header.origin(), Vec::from_iter(first));
        let from = first.and_then(|session| self.peers.get(session)).map(|peer| peer.id);
        let fingerprint = Fingerprint::of(&header.id, Some(&origin));
        let parcel = Parcel::new(header.topic.clone(), Some(origin), payload);
        self.arrive(
            now,
            header.id,
            Arrival { parcel, fingerprint, from, senders, complete, whole: false, logged: false },
            fx,
        );
    }

    /// Of those that a message is spread to: to whom it goes whole. Who gets shards of it is not told of it for a while
    /// either.
    pub(super) fn without_shards(&mut self, now: Time, id: &MessageId, mut spread: Spread, fx: &mut Fx) -> Spread {
        self.coded.overtaken(now, id, fx);
        spread.to.retain(|session| !self.coded.takes_shards(id, *session));
        let takers = self.peers.iter_mut().filter(|(session, _)| self.coded.takes_shards(id, *session));
        takers.for_each(|(_, peer)| spread.told.insert(peer.slot));
        spread
    }

    // ---- What peers send.

    pub(super) fn coded_header(&mut self, now: Time, session: SessionId, mut header: Box<Header>, fx: &mut Fx) {
        let Some(from) = self.peers.recipient(session) else { return };
        let refuse = |reason, header: &Header, fx: &mut Fx| {
            dropped(reason, fx);
            let bytes = wire::status(header.key(), CodedStatus::Refused);
            fx.emit(say(from, bytes));
        };
        let Some((topic, policy)) = self.subscriptions.get_key_value(&header.topic) else {
            return refuse(DropReason::UnknownTopic, &header, fx);
        };
        if *policy != Policy::Signed {
            return dropped(DropReason::WrongPolicy, fx);
        }
        header.topic = topic.clone();
        if !self.coded.admits(&header.topic, &header.publisher) {
            return refuse(DropReason::CodedRefused, &header, fx);
        }
        if let Some(reason) = self.out_of_time(now, Some(&header.origin())) {
            return dropped(reason, fx);
        }
        if header.shape.payload as usize > self.config.max_payload || self.validations.refused(&header.id) {
            return refuse(DropReason::CodedRefused, &header, fx);
        }
        if self.too_large(now, session, &header.topic, header.shape.payload as usize, fx) {
            return fx.emit(say(from, wire::status(header.key(), CodedStatus::Refused)));
        }
        if self.seen.contains(&header.id) && !self.coded.is_known(&header.id) {
            fx.emit(Out::Count(Count::Duplicate));
            return fx.emit(say(from, wire::status(header.key(), CodedStatus::Have)));
        }
        let links = self.coded_links(&header.topic);
        self.coded.header(now, from, header, &links, fx);
    }

    pub(super) fn coded_shard(&mut self, now: Time, session: SessionId, shard: Shard, whole: usize, fx: &mut Fx) {
        let Some(from) = self.peers.recipient(session) else { return };
        // A kept slice would keep the whole session message in memory.
        let small = shard.bytes.len() < whole / 2;
        let bytes = if small { Bytes::copy_from_slice(&shard.bytes) } else { shard.bytes };
        self.coded.shard(now, from, Shard { bytes, ..shard }, fx);
    }

    pub(super) fn coded_status(
        &mut self,
        now: Time,
        session: SessionId,
        key: Key,
        status: CodedStatus,
        shards: &Bits,
        fx: &mut Fx,
    ) {
        let Some(from) = self.peers.recipient(session) else { return };
        let wanted = self.coded.status(now, from, key, status, shards, fx);
        let Some(id) = wanted else { return };
        let (Some(slot), Some(tag)) = (self.peers.get(session).map(|peer| peer.slot), self.cache.tag_of(&id)) else {
            return;
        };
        // It takes no shards: it gets the message, unless it is known to have it.
        let Some(entry) = self.cache.tagged(tag).filter(|entry| !entry.has.contains(slot)) else { return };
        entry.told.insert(slot);
        let bytes = entry.bytes.clone();
        self.push(self.peers.recipient(session).into_iter().collect(), bytes, tag, fx);
    }

    // ---- Time.

    /// How old a message is before it is announced. One whose shards are under way everywhere is announced later, to
    /// those that no shard has come to: they would ask for all of it.
    pub(super) fn announced_after(coded: &Coded, config: &Config, id: &MessageId) -> Duration {
        if coded.is_known(id) { 10 * config.announce_after } else { config.announce_after }
    }

    pub(super) fn coded_tick(&mut self, now: Time, fx: &mut Fx) {
        let mut asks = Asks::new();
        for repair in self.coded.tick(now, fx) {
            for session in repair.from {
                if self.wants.announced(now, repair.id, session, false) == Announced::Ask {
                    asks.entry(session).or_default().push(repair.id);
                }
            }
        }
        self.ask(asks, fx);
    }
}

fn say(to: Recipient, bytes: Bytes) -> Out {
    Out::Push(Outgoing { to: vec![to], lane: Lane::High, bytes, drop_oldest: false, tag: tag::REQUEST })
}
