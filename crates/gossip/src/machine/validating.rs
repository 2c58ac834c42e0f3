//! Messages that the application judges: what it is asked, who waits for its word, and what comes of it.
//!
//! A message comes here once its signature holds. It is not marked as seen meanwhile; copies wait for the one verdict, and
//! who sent them has its share of what comes of it, as in gossipsub v1.1:
//!
//! - *Accept*: delivered, sent on, and credited to who sent it first (P2).
//! - *Ignore*, which a deadline is too: neither delivered nor sent on, and nobody's fault.
//! - *Reject*: it counts against all that sent it (P4), and against who sends it later: those that judge alike do not
//!   send it on. The root hears of it only where the sender is the publisher itself: an application that is wrong, or
//!   newer than others, must not have a node's peers banned for relaying.
//!
//! The id of what was ignored or rejected is remembered as seen, so that nobody is asked for it again and no copy is
//! judged twice. That censors nothing: the signature has held, and the id covers all that it covers but the time.
//!
//! What there is no room for is not judged and not remembered: it is asked for again later. One peer may use a quarter of
//! the room, as of that for signature checks, and so may one publisher, whoever relays its messages. In a new life all that was being judged is forgotten, and may come again.

use std::collections::{BTreeMap, BTreeSet};

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::{NodeId, Penalty};
use serde::{Deserialize, Serialize};

use super::aged::AgedSet;
use super::blame::{Handling, Suspect};
use super::cache::Slots;
use super::contract::{Count, Out, Timer};
use super::drops::DropReason;
use super::inbound::check_of;
use super::wants::Asks;
use super::ways::FIRST_HOP;
use super::{Fx, GossipMachine, dropped};
use crate::config::Config;
use crate::message::{Fingerprint, Message, MessageId};
use crate::wire::Parcel;

/// Peers that are credited or blamed for one message.
const MAX_SENDERS: usize = 256;

/// What an application says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// It is good: deliver it and send it on.
    Accept,
    /// It is of no use, which is nobody's fault: too late, known in another form, or not to be judged here.
    Ignore,
    /// It should not exist: no honest node that judges it sends it on.
    Reject,
}

/// A message whose signature holds.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) parcel: Parcel,
    pub(super) fingerprint: Fingerprint,
    pub(super) from: Option<NodeId>,
    /// Who sent it; the first of them first.
    pub(super) senders: Vec<SessionId>,
    /// Who else has it: it was rebuilt of shards.
    pub(super) complete: Vec<SessionId>,
    /// Whether it came whole.
    pub(super) whole: bool,
    /// Whether it is out of a peer's log.
    pub(super) logged: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Load {
    /// Whether one more message of so many bytes is within a limit.
    fn fits(&self, bytes: usize, max: &Load) -> bool {
        self.messages < max.messages && self.bytes + bytes <= max.bytes
    }

    fn and(self, bytes: usize) -> Load {
        Load { messages: self.messages + 1, bytes: self.bytes + bytes }
    }
}

#[derive(Debug)]
struct Pending {
    id: MessageId,
    arrival: Arrival,
    due: Time,
    charged: Option<SessionId>,
}

/// The messages that are being judged, and those that were judged not to be good.
#[derive(Debug)]
pub(super) struct Validations {
    by_token: BTreeMap<u64, Pending>,
    by_id: BTreeMap<MessageId, u64>,
    by_due: BTreeSet<(Time, u64)>,
    total: Load,
    by_session: BTreeMap<SessionId, Load>,
    by_publisher: BTreeMap<NodeId, Load>,
    max: Load,
    next_token: u64,
    ignored: AgedSet<MessageId>,
    rejected: AgedSet<MessageId>,
}

impl Validations {
    pub(super) fn new(config: &Config) -> Validations {
        let judged = || AgedSet::new(config.seen_ids / 8, config.seen_for());
        Validations {
            by_token: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_due: BTreeSet::new(),
            total: Load::default(),
            by_session: BTreeMap::new(),
            by_publisher: BTreeMap::new(),
            max: Load { messages: config.in_flight, bytes: config.in_flight_bytes },
            next_token: 0,
            ignored: judged(),
            rejected: judged(),
        }
    }

    /// Whether a message is being judged.
    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.by_id.contains_key(id)
    }

    /// What is being judged.
    pub(super) fn ids(&self) -> impl Iterator<Item = &MessageId> {
        self.by_id.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether a message was judged, and not to be good.
    pub(super) fn refused(&self, id: &MessageId) -> bool {
        self.ignored.contains(id) || self.rejected.contains(id)
    }

    pub(super) fn expire(&mut self, now: Time) {
        self.ignored.expire(now);
        self.rejected.expire(now);
    }

    fn start(&mut self, id: MessageId, arrival: Arrival, due: Time) -> Result<u64, Box<Arrival>> {
        let charged = arrival.senders.first().copied();
        let bytes = arrival.parcel.bytes.len();
        let publisher = arrival.parcel.origin.as_ref().map(|origin| origin.publisher);
        let load = charged.and_then(|session| self.by_session.get(&session)).copied().unwrap_or_default();
        let published = publisher.and_then(|publisher| self.by_publisher.get(&publisher)).copied().unwrap_or_default();
        let quarter = Load { messages: self.max.messages / 4, bytes: self.max.bytes / 4 };
        let fits = self.total.fits(bytes, &self.max) && load.fits(bytes, &quarter) && published.fits(bytes, &quarter);
        if !fits {
            return Err(Box::new(arrival));
        }
        if let Some(session) = charged {
            self.by_session.insert(session, load.and(bytes));
        }
        if let Some(publisher) = publisher {
            self.by_publisher.insert(publisher, published.and(bytes));
        }
        self.total.messages += 1;
        self.total.bytes += bytes;
        let token = self.next_token;
        self.next_token += 1;
        self.by_id.insert(id, token);
        self.by_due.insert((due, token));
        self.by_token.insert(token, Pending { id, arrival, due, charged });
        Ok(token)
    }

    /// Another copy has come. Bytes that differ in more than who sent them are somebody's whose signature was not checked,
    /// and change nothing.
    fn join(&mut self, id: &MessageId, fingerprint: &Fingerprint, session: SessionId) {
        let pending = self.by_id.get(id).and_then(|token| self.by_token.get_mut(token));
        let Some(arrival) = pending.map(|pending| &mut pending.arrival) else { return };
        let same = arrival.fingerprint == *fingerprint && arrival.senders.len() < MAX_SENDERS;
        if same && !arrival.senders.contains(&session) {
            arrival.senders.push(session);
        }
    }

    /// It has come the other way too, whole or by shards.
    fn join_all(&mut self, id: &MessageId, other: Arrival) {
        other.senders.iter().for_each(|session| self.join(id, &other.fingerprint, *session));
        let pending = self.by_id.get(id).and_then(|token| self.by_token.get_mut(token));
        if let Some(arrival) = pending.map(|pending| &mut pending.arrival) {
            let room = MAX_SENDERS.saturating_sub(arrival.complete.len());
            arrival.complete.extend(other.complete.into_iter().take(room));
        }
    }

    fn finish(&mut self, token: u64) -> Option<(MessageId, Arrival)> {
        let Pending { id, arrival, due, charged } = self.by_token.remove(&token)?;
        self.by_id.remove(&id);
        self.by_due.remove(&(due, token));
        let bytes = arrival.parcel.bytes.len();
        self.total.messages -= 1;
        self.total.bytes -= bytes;
        if let Some(session) = charged
            && let Some(load) = self.by_session.get_mut(&session)
        {
            load.messages -= 1;
            load.bytes -= bytes;
            if load.messages == 0 {
                self.by_session.remove(&session);
            }
        }
        if let Some(origin) = &arrival.parcel.origin
            && let Some(load) = self.by_publisher.get_mut(&origin.publisher)
        {
            load.messages -= 1;
            load.bytes -= bytes;
            if load.messages == 0 {
                self.by_publisher.remove(&origin.publisher);
            }
        }
        Some((id, arrival))
    }

    fn deadline(&self) -> Option<Time> {
        self.by_due.first().map(|(due, _)| *due)
    }

    fn overdue(&self, now: Time) -> Vec<u64> {
        self.by_due.iter().take_while(|(due, _)| *due <= now).map(|(_, token)| *token).collect()
    }
}

impl GossipMachine {
    /// A message whose signature holds: it is judged if somebody does, and taken in otherwise.
    pub(super) fn arrive(&mut self, now: Time, id: MessageId, arrival: Arrival, fx: &mut Fx) {
        if self.seen.contains(&id) {
            // It came whole and by shards, or this node published the same.
            return fx.emit(Out::Count(Count::Duplicate));
        }
        if self.validations.contains(&id) {
            self.validations.join_all(&id, arrival);
            return fx.emit(Out::Count(Count::Duplicate));
        }
        match self.parameters.get(&arrival.parcel.topic).filter(|set| set.validated) {
            Some(set) => {
                let due = now + set.config.validation;
                self.validate(now, id, arrival, due, fx);
            }
            None => self.approve(now, id, arrival, fx),
        }
    }

    fn validate(&mut self, now: Time, id: MessageId, arrival: Arrival, due: Time, fx: &mut Fx) {
        let Parcel { topic, origin, payload, .. } = &arrival.parcel;
        let message = Message {
            id,
            topic: topic.clone(),
            publisher: origin.as_ref().map(|origin| origin.publisher),
            issued: origin.as_ref().map(|origin| origin.issued),
            from: arrival.from,
            payload: payload.clone(),
        };
        let (mut has, bytes) = (Slots::default(), arrival.parcel.bytes.len());
        if bytes >= self.config.dont_want_from {
            self.peers.mark(&mut has, message.publisher, arrival.senders.iter().chain(&arrival.complete).copied());
        }
        match self.validations.start(id, arrival, due) {
            Ok(token) => {
                // Whatever the verdict will be, no peer need send it.
                self.say_have(&message.topic, &id, bytes, &has, &Slots::default(), fx);
                fx.emit(Out::Validate { token, message });
                self.arm_validation(fx);
            }
            Err(arrival) => self.unjudged(now, id, &arrival, fx),
        }
    }

    /// There was no room to judge a message: who sent it is asked for it again.
    fn unjudged(&mut self, now: Time, id: MessageId, arrival: &Arrival, fx: &mut Fx) {
        dropped(DropReason::ValidationFull, fx);
        if arrival.logged {
            // It comes again with the next pass through peers' logs.
            return;
        }
        for session in &arrival.senders {
            self.wants.announced(now, id, *session, true);
        }
        self.ask(Asks::new(), fx);
    }

    fn arm_validation(&self, fx: &mut Fx) {
        match self.validations.deadline() {
            Some(due) => fx.arm(Timer::Validation, due),
            None => fx.disarm(Timer::Validation),
        }
    }

    /// A copy of a message that is being judged, or was judged not to be good: whether it was one.
    pub(super) fn copy_of_judged(
        &mut self,
        now: Time,
        session: SessionId,
        id: &MessageId,
        parcel: &Parcel,
        fx: &mut Fx,
    ) -> bool {
        if self.validations.contains(id) {
            let fingerprint = Fingerprint::of(id, parcel.origin.as_ref());
            self.validations.join(id, &fingerprint, session);
            self.came(session, id, false);
            fx.emit(Out::Count(Count::Duplicate));
            return true;
        }
        if self.validations.rejected.contains(id) {
            dropped(DropReason::RejectedBefore, fx);
            self.rejected_from(now, session, parcel, fx);
            return true;
        }
        if self.validations.ignored.contains(id) {
            dropped(DropReason::IgnoredBefore, fx);
            return true;
        }
        false
    }

    /// The application has spoken.
    pub(super) fn verdict(&mut self, now: Time, token: u64, verdict: Verdict, fx: &mut Fx) {
        let Some((id, arrival)) = self.validations.finish(token) else {
            // Its time was over, or a verdict was given twice.
            return dropped(DropReason::LateVerdict, fx);
        };
        let suspect = |sender: &SessionId| {
            let check = check_of(&id, &arrival.parcel);
            Handling::Message(Suspect { fingerprint: arrival.fingerprint, sender: *sender, check })
        };
        self.handling = arrival.senders.first().map(suspect);
        if self.seen.contains(&id) {
            // This node has published the same meanwhile.
            fx.emit(Out::Count(Count::Duplicate));
            return self.arm_validation(fx);
        }
        match verdict {
            Verdict::Accept if !self.subscriptions.contains_key(&arrival.parcel.topic) => {
                self.wants.settle(&id);
                dropped(DropReason::UnknownTopic, fx);
            }
            Verdict::Accept => self.approve(now, id, arrival, fx),
            Verdict::Ignore => {
                dropped(DropReason::Ignored, fx);
                self.validations.ignored.insert(now, id);
                self.not_good(now, id, false, fx);
            }
            Verdict::Reject => {
                dropped(DropReason::Rejected, fx);
                self.validations.rejected.insert(now, id);
                for session in &arrival.senders {
                    self.rejected_from(now, *session, &arrival.parcel, fx);
                }
                self.not_good(now, id, true, fx);
            }
        }
        self.arm_validation(fx);
    }

    /// The message did not get to who judges.
    pub(super) fn not_judged(&mut self, now: Time, token: u64, fx: &mut Fx) {
        if let Some((id, arrival)) = self.validations.finish(token) {
            self.unjudged(now, id, &arrival, fx);
            self.arm_validation(fx);
        }
    }

    pub(super) fn validations_due(&mut self, now: Time, fx: &mut Fx) {
        for token in self.validations.overdue(now) {
            dropped(DropReason::VerdictOverdue, fx);
            self.verdict(now, token, Verdict::Ignore, fx);
        }
        self.arm_validation(fx);
    }

    /// A peer sent what the application rejects.
    fn rejected_from(&mut self, now: Time, session: SessionId, parcel: &Parcel, fx: &mut Fx) {
        self.scores.invalid(now, session, &parcel.topic);
        let publisher = parcel.origin.as_ref().map(|origin| origin.publisher);
        if publisher.is_some() && self.peers.get(session).map(|peer| peer.id) == publisher {
            self.blame(now, session, Penalty::InvalidMessage, fx);
        }
    }

    /// A message is not to come again, nor its shards to go on.
    fn not_good(&mut self, now: Time, id: MessageId, rejected: bool, fx: &mut Fx) {
        if self.seen.insert(now, id) {
            dropped(DropReason::SeenEvicted, fx);
        }
        fx.emit(Out::Remember(id));
        self.wants.settle(&id);
        self.receipts.settle(&id);
        self.coded.judged(now, &id, rejected, fx);
        self.start_heart(now, fx);
    }

    /// Takes in a message that has passed every check.
    pub(super) fn approve(&mut self, now: Time, id: MessageId, arrival: Arrival, fx: &mut Fx) {
        if arrival.logged {
            fx.emit(Out::Count(Count::HistoryTaken));
            let in_time = self.out_of_time(now, arrival.parcel.origin.as_ref()).is_none();
            if !in_time || self.cache.tag_of(&id).is_some() {
                if in_time {
                    self.seen.insert(now, id);
                }
                return self.approve_old(id, arrival, fx);
            }
            self.pulls.found(now, id);
        }
        let Arrival { parcel, from, senders, complete, whole, .. } = arrival;
        let first = senders.first().copied();
        if let Some(session) = first {
            if whole {
                self.came(session, &id, true);
            }
            self.scores.first(session, &parcel.topic);
        }
        for session in senders.iter().skip(1) {
            self.scores.near_first(*session, &parcel.topic);
        }
        let publisher = parcel.origin.as_ref().map(|origin| origin.publisher).filter(|_| whole);
        let sender = first.and_then(|session| self.peers.get(session)).filter(|peer| Some(peer.id) != publisher);
        let way = sender.map_or(FIRST_HOP, |peer| Some(peer.slot));
        let mut has = Slots::default();
        let senders = if whole { senders } else { senders.into_iter().skip(1).collect() };
        self.peers.mark(&mut has, None, senders.into_iter().chain(complete));
        fx.emit(Out::Count(Count::Accepted));
        self.accept(now, id, parcel, from, way, has, fx);
    }

    /// Out of a peer's log, and so old that nobody pushes it, or let go for want of room after it was sent on: it goes to the
    /// log, and is neither kept nor sent on. What is old is not marked as seen, as no copy of it would be looked at.
    fn approve_old(&mut self, id: MessageId, arrival: Arrival, fx: &mut Fx) {
        self.wants.settle(&id);
        fx.emit(Out::Count(Count::Accepted));
        fx.emit(Out::Keep { id, parcel: arrival.parcel, from: arrival.from, first: false, old: true });
    }
}
