//! What peers send: messages, and what they say of their topics.

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::{NodeId, Penalty};

use super::blame::{Handling, Suspect};
use super::contract::{Count, Out};
use super::drops::DropReason;
use super::flights::{Candidate, Joined};
use super::validating::Arrival;
use super::wants::Asks;
use super::ways::CLOSE;
use super::{Fx, GossipMachine, dropped};
#[cfg(any(test, feature = "planted-bugs"))]
use crate::message::Message;
use crate::message::{Check, Claim, Fingerprint, MessageId, Origin, Policy, Topic};
use crate::wire::{self, Item, Parcel};

impl GossipMachine {
    pub(super) fn inbound(&mut self, now: Time, session: SessionId, payload: Bytes, fx: &mut Fx) {
        let Some(from) = self.peers.get(session).map(|peer| peer.id) else {
            return dropped(DropReason::UnknownSession, fx);
        };
        if !self.stands(session, self.config.scores.graylist) {
            return dropped(DropReason::Graylisted, fx);
        }
        let whole = payload.len();
        self.pulls.next_message();
        let mut logged = false;
        self.handling = Some(Handling::Session(session));
        for item in wire::items(payload, self.config.max_payload) {
            match item {
                Ok(Item::Message(parcel)) => {
                    #[cfg(any(test, feature = "fault-injection"))]
                    crate::poison::at(crate::poison::DECODE, &parcel.payload);
                    // A kept slice would keep the whole session message in memory.
                    let parcel = if parcel.bytes.len() < whole / 2 { parcel.detached() } else { parcel };
                    match logged {
                        true => self.logged(now, session, from, parcel, fx),
                        false => self.message(now, session, from, parcel, fx),
                    }
                    self.handling = Some(Handling::Session(session));
                }
                Ok(Item::IHave { topic, ids }) => self.announced(now, session, &topic, ids, fx),
                Ok(Item::IWant { ids }) => self.requested(now, session, ids, fx),
                Ok(Item::Graft(topic)) => self.grafted(now, session, &topic, fx),
                Ok(Item::Prune { topic, rest }) => self.pruned(now, session, &topic, rest, fx),
                Ok(Item::IDontWant { ids }) => self.unwanted(now, session, ids, fx),
                Ok(Item::Firsts { heads }) => self.firsts(now, session, &heads, fx),
                Ok(Item::Topics { want_reply, coded, topics }) => {
                    self.topics(now, session, want_reply, topics, fx);
                    self.takes_coded(session, coded);
                }
                Ok(Item::Subscribe(topic)) => self.topic_changed(now, session, topic, true, fx),
                Ok(Item::Unsubscribe(topic)) => self.topic_changed(now, session, topic, false, fx),
                Ok(Item::Filter(filter)) => self.filter_came(now, session, &filter, fx),
                Ok(Item::Repair) => self.pulls.answer_comes(session),
                Ok(Item::Answered { sent, more }) => self.pull_ended(now, session, sent, more, fx),
                Ok(Item::Confirm { topic, ids }) => self.receipts_wanted(now, session, &topic, ids, fx),
                Ok(Item::Receipts { ids }) => self.receipts_came(now, session, &ids, fx),
                Ok(Item::Logged) => logged = true,
                Ok(Item::HistoryAsk(ask)) => self.history_asked(now, session, ask, fx),
                Ok(Item::HistoryEnd(end)) => self.history_ended(now, session, &end, fx),
                Ok(Item::Header(header)) => self.coded_header(now, session, header, fx),
                Ok(Item::Shard(shard)) => self.coded_shard(now, session, shard, whole, fx),
                Ok(Item::CodedStatus { key, status, shards }) => {
                    self.coded_status(now, session, key, status, &shards, fx)
                }
                Ok(Item::CodedNeed { key, shards }) => self.coded.need(now, session, key, &shards, fx),
                Ok(Item::Unknown(_)) => dropped(DropReason::UnknownKind, fx),
                Err(_) => {
                    dropped(DropReason::Malformed, fx);
                    self.blame(now, session, Penalty::MalformedMessage, fx);
                }
            }
        }
    }

    fn message(&mut self, now: Time, session: SessionId, from: NodeId, mut parcel: Parcel, fx: &mut Fx) {
        let Some((topic, policy)) = self.subscriptions.get_key_value(&parcel.topic) else {
            return dropped(DropReason::UnknownTopic, fx);
        };
        match (policy, &parcel.origin) {
            (Policy::Signed, Some(_)) | (Policy::Anonymous, None) => {}
            // Nobody is blamed: whoever relays it may hold the topic under the other policy, as its publisher does.
            _ => return dropped(DropReason::WrongPolicy, fx),
        }
        // What is kept of it shares one name.
        parcel.topic = topic.clone();
        if self.too_large(now, session, &parcel.topic, parcel.payload.len(), fx) {
            return;
        }
        let id = parcel.id();
        // What is kept was seen: most copies are of such a message, and one look-up is enough.
        let kept = self.cache.tag_of(&id);
        if kept.is_none() && self.copy_of_judged(now, session, &id, &parcel, fx) {
            return;
        }
        if kept.is_some() || self.seen.contains(&id) {
            #[cfg(any(test, feature = "planted-bugs"))]
            self.deliver_again(session, from, &id, &parcel, fx);
            let entry = kept.and_then(|tag| self.cache.tagged(tag));
            let mut close = None;
            if let (Some(entry), Some(peer)) = (entry, self.peers.get(session)) {
                entry.has.insert(peer.slot);
                close = entry.way.filter(|_| now.since(entry.kept_at) <= CLOSE);
            }
            self.has_it(session, &id, fx);
            self.came(session, &id, false);
            if let Some(first) = close {
                self.peers.settle_tie(session, first, id.head());
            }
            return fx.emit(Out::Count(Count::Duplicate));
        }
        let fingerprint = Fingerprint::of(&id, parcel.origin.as_ref());
        let check = check_of(&id, &parcel);
        self.handling = Some(Handling::Message(Suspect { fingerprint, sender: session, check }));
        let refusal = self.out_of_time(now, parcel.origin.as_ref());
        let refusal = refusal.or_else(|| self.poison.contains(&fingerprint).then_some(DropReason::Poison));
        if refusal == Some(DropReason::TooOld) && self.is_history(session, &parcel) {
            return self.logged(now, session, from, parcel, fx);
        }
        if let Some(reason) = refusal {
            // The time is not part of the id and not checked yet: this copy may be a forged one, so whoever else
            // announced the message is still asked for it.
            return dropped(reason, fx);
        }
        let candidate = Candidate { parcel, fingerprint, from, senders: vec![session], logged: false };
        if self.flights.contains(&id) {
            match self.flights.join(&id, candidate) {
                Joined::Known | Joined::Waits => {
                    self.came(session, &id, false);
                    fx.emit(Out::Count(Count::Duplicate));
                }
                Joined::Full => self.later(now, id, session, fx),
            }
        } else if self.rejected.contains(&fingerprint) {
            dropped(DropReason::RejectedBefore, fx);
            self.scores.invalid(now, session, &candidate.parcel.topic);
            self.blame(now, session, Penalty::InvalidMessage, fx);
        } else {
            self.pulls.news(now, session, id);
            self.check(now, id, candidate, fx);
        }
    }

    /// There is no room to check this copy now. Its sender has it, so it is asked for it when its turn comes.
    fn later(&mut self, now: Time, id: MessageId, session: SessionId, fx: &mut Fx) {
        self.wants.announced(now, id, session, true);
        dropped(DropReason::InFlightFull, fx);
    }

    /// Clocks differ, so nobody is blamed for these.
    pub(super) fn out_of_time(&self, now: Time, origin: Option<&Origin>) -> Option<DropReason> {
        let issued = origin?.issued;
        let now = now.unix_millis();
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (retained, skew) = (millis(self.config.retained), millis(self.config.skew));
        if issued > now.saturating_add(skew) {
            Some(DropReason::FromFuture)
        } else if issued.saturating_add(retained).saturating_add(skew) < now {
            Some(DropReason::TooOld)
        } else {
            None
        }
    }

    fn check(&mut self, now: Time, id: MessageId, candidate: Candidate, fx: &mut Fx) {
        #[cfg(any(test, feature = "fault-injection"))]
        crate::poison::at(crate::poison::UNCHECKED, &candidate.parcel.payload);
        let Some(check) = check_of(&id, &candidate.parcel) else {
            return self.take_in(now, id, candidate, fx);
        };
        let sender = candidate.senders.first().copied();
        match (self.flights.start(id, candidate), sender) {
            (Some(token), Some(from)) => fx.emit(Out::Verify { token, check, from }),
            (None, Some(sender)) => self.later(now, id, sender, fx),
            (_, None) => dropped(DropReason::InFlightFull, fx),
        }
    }

    pub(super) fn verified(&mut self, now: Time, token: u64, ok: bool, fx: &mut Fx) {
        let Some((id, candidate, next)) = self.flights.checked(token, ok) else { return };
        self.handling = candidate.suspect(&id).map(Handling::Message);
        if ok {
            return self.take_in(now, id, candidate, fx);
        }
        dropped(DropReason::InvalidSignature, fx);
        self.rejected.insert(now, candidate.fingerprint);
        for session in candidate.senders {
            self.scores.invalid(now, session, &candidate.parcel.topic);
            self.blame(now, session, Penalty::InvalidMessage, fx);
        }
        self.try_next(now, id, next, fx);
    }

    /// The check of a copy panicked. An honest relayer checks before it sends on, so whoever sent this had not.
    pub(super) fn check_panicked(&mut self, now: Time, token: u64, fx: &mut Fx) {
        let Some((id, candidate, next)) = self.flights.checked(token, false) else { return };
        let fingerprint = candidate.fingerprint;
        dropped(DropReason::Poison, fx);
        self.poison.insert(now, fingerprint);
        for session in candidate.senders {
            fx.emit(Out::Crashed { session, fingerprint });
        }
        self.try_next(now, id, next, fx);
    }

    /// A copy did not pass its check: the next one that waits is checked, or who announced the message is asked.
    fn try_next(&mut self, now: Time, id: MessageId, next: Option<u64>, fx: &mut Fx) {
        let next = next.and_then(|token| {
            let (id, candidate) = self.flights.checking(token)?;
            let from = *candidate.senders.first()?;
            check_of(id, &candidate.parcel).map(|check| Out::Verify { token, check, from })
        });
        match next {
            Some(verify) => fx.emit(verify),
            None => {
                let mut asks = Asks::new();
                self.wants.next(now, id, &mut asks);
                self.ask(asks, fx);
            }
        }
    }

    /// The planted bug.
    #[cfg(any(test, feature = "planted-bugs"))]
    fn deliver_again(&mut self, session: SessionId, from: NodeId, id: &MessageId, parcel: &Parcel, fx: &mut Fx) {
        if !self.bug {
            return;
        }
        let (Some(entry), Some(peer)) = (self.cache.get_mut(id), self.peers.get(session)) else { return };
        if !entry.has.contains(peer.slot) {
            let origin = parcel.origin.as_ref();
            fx.emit(Out::Deliver(Message {
                id: *id,
                topic: parcel.topic.clone(),
                publisher: origin.map(|origin| origin.publisher),
                issued: origin.map(|origin| origin.issued),
                from: Some(from),
                payload: parcel.payload.clone(),
            }));
        }
    }

    fn take_in(&mut self, now: Time, id: MessageId, candidate: Candidate, fx: &mut Fx) {
        #[cfg(any(test, feature = "fault-injection"))]
        crate::poison::at(crate::poison::CHECKED, &candidate.parcel.payload);
        // The node may have left the topic while the signature was checked.
        if !self.subscriptions.contains_key(&candidate.parcel.topic) {
            self.wants.settle(&id);
            return dropped(DropReason::UnknownTopic, fx);
        }
        let Candidate { parcel, fingerprint, from, senders, logged } = candidate;
        let (from, complete) = (Some(from), Vec::new());
        let arrival = Arrival { parcel, fingerprint, from, senders, complete, whole: true, logged };
        self.arrive(now, id, arrival, fx);
    }

    fn topics(&mut self, now: Time, session: SessionId, want_reply: bool, topics: Vec<Topic>, fx: &mut Fx) {
        if !self.within_topic_quota(now, session, 1 + topics.len(), fx) {
            return;
        }
        let before = self.peers.get(session).map(|peer| peer.topics.clone()).unwrap_or_default();
        if !self.peers.replace(session, topics, self.config.max_topics) {
            dropped(DropReason::TopicFlood, fx);
            self.blame(now, session, Penalty::ControlFlood, fx);
        }
        let Some(peer) = self.peers.get_mut(session) else { return };
        if !want_reply && let Some(asked) = peer.asked_at {
            // Only the first question is answered at once for certain: later ones have waited for a heartbeat.
            peer.round_trip.get_or_insert(now.since(asked));
        }
        let after = peer.topics.clone();
        before.difference(&after).for_each(|topic| self.unlink(now, session, topic));
        for topic in after.difference(&before) {
            self.wanted_by(now, session, topic, fx);
            self.history_may_come(now, topic, fx);
        }
        let Some(peer) = self.peers.get_mut(session) else { return };
        // What a peer says first of all is not the answer.
        if !want_reply {
            peer.asked_at = None;
        }
        if !want_reply {
            return;
        }
        let slot = peer.slot;
        if std::mem::replace(&mut peer.beat.answered, true) {
            // At most one answer a heartbeat, or small questions would make large traffic and much work.
            peer.owed_topics = peer.owed_topics.or(Some(false));
            peer.forgot = true;
        } else {
            self.send_topics(session, false, fx);
            // Who asks may have restarted and forgotten what it was told.
            self.cache.forget_told(slot);
        }
    }

    fn topic_changed(&mut self, now: Time, session: SessionId, topic: Topic, wanted: bool, fx: &mut Fx) {
        if !self.within_topic_quota(now, session, 1, fx) {
            return;
        }
        if !wanted {
            self.peers.part(session, &topic);
            self.unlink(now, session, &topic);
        } else if self.peers.join(session, topic.clone(), self.config.max_topics) {
            self.wanted_by(now, session, &topic, fx);
            self.history_may_come(now, &topic, fx);
        } else {
            dropped(DropReason::TopicFlood, fx);
            self.blame(now, session, Penalty::ControlFlood, fx);
        }
    }

    fn within_topic_quota(&mut self, now: Time, session: SessionId, changes: usize, fx: &mut Fx) -> bool {
        // A snapshot, an answer and as many single changes as there can be topics, and as much again.
        let limit = 8 * (self.config.max_topics + 1);
        let Some(peer) = self.peers.get_mut(session) else { return false };
        peer.beat.changes = peer.beat.changes.saturating_add(changes);
        if peer.beat.changes <= limit {
            return true;
        }
        dropped(DropReason::TopicFlood, fx);
        self.blame(now, session, Penalty::ControlFlood, fx);
        false
    }
}

impl Candidate {
    fn suspect(&self, id: &MessageId) -> Option<Suspect> {
        let (fingerprint, sender) = (self.fingerprint, *self.senders.first()?);
        Some(Suspect { fingerprint, sender, check: check_of(id, &self.parcel) })
    }
}

/// The signature check of a signed message.
pub(super) fn check_of(id: &MessageId, parcel: &Parcel) -> Option<Check> {
    let Origin { publisher, issued, signature, .. } = parcel.origin.as_ref()?;
    #[cfg(any(test, feature = "fault-injection"))]
    let issued = if parcel.payload == crate::poison::CHECK { &crate::poison::ISSUED } else { issued };
    Some(Check { publisher: *publisher, claim: Claim { id: *id, issued: *issued }, signature: *signature })
}
