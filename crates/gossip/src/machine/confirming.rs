//! How many peers have a message: asked of them, told to them, and sent once more where too few do.
//!
//! Who wants to know asks peers that should have the message ([`Item::Confirm`](crate::wire::Item::Confirm), which is an
//! announcement too, so that a peer that lost it fetches it), and they answer once they have taken it in
//! ([`Item::Receipts`](crate::wire::Item::Receipts)): after its signature has held, and their application has accepted it
//! if it judges. A copy, an announcement or a refusal to be sent it says the same and counts as well. While too few have
//! it, others that want its topic are sent it.
//!
//! All of that is the peers' word. A peer that lies confirms what it has not; many names are many words. Who needs more
//! than words needs signatures of nodes that it knows, which is the application's to ask for. What a liar gains here is
//! that a message is sent to fewer peers again, and no more: it spreads over the mesh all the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use peerage_machine::Time;
use peerage_queue::{Recipient, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty};

use super::contract::{Out, Timer};
use super::drops::DropReason;
use super::{Fx, GossipMachine, dropped, tag};
use crate::message::{MessageId, Topic};
use crate::wire;

/// Messages that may be watched at a time.
pub(super) const MAX_CONFIRMING: usize = 256;
/// Peers that have not said by then that they have it are asked again, and others are sent it.
const ROUND: Duration = Duration::from_secs(1);
/// Peers asked in one round, beyond twice those that are missing.
const SPARE: usize = 4;
/// Messages that one peer may wait to hear of.
const MAX_OWED: usize = 256;

/// A message that enough peers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The message.
    pub id: MessageId,
    /// How many different nodes said to have it; this one is not counted.
    pub peers: usize,
}

/// Why it is not known that enough peers have a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    /// Too few had it in time. It may spread further.
    #[error("{confirmed} peers said in time to have it, and {wanted} were wanted")]
    TooFew {
        /// How many said so.
        confirmed: usize,
        /// How many were wanted.
        wanted: usize,
    },
    /// The message is not kept here: it is too old, or never was here.
    #[error("the message is not kept here any more; publish it again")]
    NotKept,
    /// As many messages are watched as can be.
    #[error("{0} messages are being confirmed already; wait for some of them")]
    TooMany(usize),
}

#[derive(Debug)]
struct Confirmation {
    id: MessageId,
    topic: Topic,
    wanted: usize,
    by: BTreeSet<NodeId>,
    round_at: Time,
    until: Time,
}

/// The messages that this node wants to see at others.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    by_token: BTreeMap<u64, Confirmation>,
    by_id: BTreeMap<MessageId, BTreeSet<u64>>,
}

impl Confirmations {
    pub(super) fn len(&self) -> usize {
        self.by_token.len()
    }

    fn insert(&mut self, token: u64, confirmation: Confirmation) {
        self.by_id.entry(confirmation.id).or_default().insert(token);
        self.by_token.insert(token, confirmation);
    }

    fn remove(&mut self, token: u64) -> Option<Confirmation> {
        let confirmation = self.by_token.remove(&token)?;
        if let Some(tokens) = self.by_id.get_mut(&confirmation.id) {
            tokens.remove(&token);
            if tokens.is_empty() {
                self.by_id.remove(&confirmation.id);
            }
        }
        Some(confirmation)
    }

    fn deadline(&self) -> Option<Time> {
        self.by_token.values().map(|confirmation| confirmation.round_at.min(confirmation.until)).min()
    }

    /// A node has a message: those that wanted to know, and now know enough.
    fn had(&mut self, id: &MessageId, node: NodeId) -> Vec<(u64, usize)> {
        let mut enough = Vec::new();
        for token in self.by_id.get(id).into_iter().flatten() {
            if let Some(confirmation) = self.by_token.get_mut(token) {
                confirmation.by.insert(node);
                if confirmation.by.len() >= confirmation.wanted {
                    enough.push((*token, confirmation.by.len()));
                }
            }
        }
        enough
    }
}

/// Who is to be told when a message is here.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    by_id: BTreeMap<MessageId, BTreeSet<SessionId>>,
    /// Oldest first; some of them may be settled.
    by_session: BTreeMap<SessionId, VecDeque<MessageId>>,
}

impl Receipts {
    /// Notes that a session waits for a message; false if another of its questions had to go for it.
    fn note(&mut self, id: MessageId, session: SessionId) -> bool {
        if !self.by_id.entry(id).or_default().insert(session) {
            return true;
        }
        let owed = self.by_session.entry(session).or_default();
        owed.push_back(id);
        let oldest = if owed.len() > MAX_OWED { owed.pop_front() } else { None };
        oldest.is_none_or(|oldest| {
            self.take_back(&oldest, session);
            false
        })
    }

    fn take_back(&mut self, id: &MessageId, session: SessionId) {
        if let Some(sessions) = self.by_id.get_mut(id) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.by_id.remove(id);
            }
        }
    }

    /// The message is here, or is not wanted: who waits for it.
    pub(super) fn settle(&mut self, id: &MessageId) -> BTreeSet<SessionId> {
        let sessions = self.by_id.remove(id).unwrap_or_default();
        for session in &sessions {
            if let Some(owed) = self.by_session.get_mut(session) {
                owed.retain(|other| other != id);
                if owed.is_empty() {
                    self.by_session.remove(session);
                }
            }
        }
        sessions
    }

    /// A session has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        for id in self.by_session.remove(&session).unwrap_or_default() {
            self.take_back(&id, session);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.by_id.len(), self.by_session.values().map(VecDeque::len).sum())
    }
}

impl GossipMachine {
    // ---- Asking.

    /// The application wants to know that so many nodes have a message.
    pub(super) fn confirm(
        &mut self,
        now: Time,
        token: u64,
        id: MessageId,
        peers: NonZeroUsize,
        within: Duration,
        fx: &mut Fx,
    ) {
        let refuse = |error, fx: &mut Fx| fx.emit(Out::Confirmed { token, result: Err(error) });
        if self.confirmations.len() >= MAX_CONFIRMING {
            return refuse(ConfirmError::TooMany(MAX_CONFIRMING), fx);
        }
        let Some(entry) = self.cache.get_mut(&id) else { return refuse(ConfirmError::NotKept, fx) };
        let topic = entry.topic.clone();
        let having = self.peers.iter_mut().filter(|(_, peer)| entry.has.contains(peer.slot) || peer.wants_not(&id));
        let by: BTreeSet<NodeId> = having.map(|(_, peer)| peer.id).collect();
        if by.len() >= peers.get() {
            return fx.emit(Out::Confirmed { token, result: Ok(Confirmed { id, peers: by.len() }) });
        }
        let until = now + within.min(self.config.retained);
        self.confirmations.insert(token, Confirmation { id, topic, wanted: peers.get(), by, round_at: now, until });
        self.ask_for_receipts(now, token, true, fx);
        self.arm_confirm(fx);
    }

    /// Asks peers whether they have a message, and sends it to some that nobody sent it.
    fn ask_for_receipts(&mut self, now: Time, token: u64, first: bool, fx: &mut Fx) {
        let Some(confirmation) = self.confirmations.by_token.get_mut(&token) else { return };
        confirmation.round_at = now + ROUND;
        let (id, topic) = (confirmation.id, confirmation.topic.clone());
        let missing = confirmation.wanted.saturating_sub(confirmation.by.len());
        let Some(entry) = self.cache.get_mut(&id) else { return };
        let (after, age) = (Self::announced_after(&self.coded, &self.config, &id), now.since(entry.kept_at));
        if self.coded.is_known(&id) && age < after {
            // Its shards are under way, which takes its time. Who was asked now would ask for all of it.
            confirmation.round_at = now + (after - age).min(ROUND);
            return;
        }
        let (mut told, mut others) = (Vec::new(), Vec::new());
        for session in self.peers.that_want(&topic) {
            let Some(peer) = self.peers.get(session) else { continue };
            let good = peer.direct || self.scores.standing(session) >= self.config.scores.publish;
            if good && !confirmation.by.contains(&peer.id) {
                let sent = entry.told.contains(peer.slot);
                if sent { &mut told } else { &mut others }.push((peer.slot, peer.recipient(session)));
            }
        }
        // Those that were sent it have had their time after the first round.
        let lacking = if first { missing.saturating_sub(told.len()) } else { missing };
        let (bytes, mut to) = (entry.bytes.clone(), Vec::new());
        for (slot, recipient) in self.rng.sample(&mut others, lacking) {
            entry.told.insert(*slot);
            to.push(*recipient);
        }
        let asked = self.rng.sample(&mut told, 2 * missing + SPARE).iter().map(|(_, recipient)| *recipient);
        let asked: Vec<Recipient> = asked.chain(to.iter().copied()).collect();
        if let Some(tag) = self.cache.tag_of(&id) {
            self.push(to, bytes, tag, fx);
        }
        // Behind the message, in the same lane.
        self.control(asked, Lane::Normal, wire::confirm(&topic, &[id]), tag::REQUEST, fx);
    }

    /// A peer has a message, by its own word.
    pub(super) fn has_it(&mut self, session: SessionId, id: &MessageId, fx: &mut Fx) {
        if self.confirmations.by_id.is_empty() {
            return;
        }
        let Some(node) = self.peers.get(session).map(|peer| peer.id) else { return };
        let enough = self.confirmations.had(id, node);
        if enough.is_empty() {
            return;
        }
        for (token, peers) in enough {
            if self.confirmations.remove(token).is_some() {
                fx.emit(Out::Confirmed { token, result: Ok(Confirmed { id: *id, peers }) });
            }
        }
        self.arm_confirm(fx);
    }

    pub(super) fn confirmations_due(&mut self, now: Time, fx: &mut Fx) {
        let (mut over, mut due) = (Vec::new(), Vec::new());
        for (token, confirmation) in &self.confirmations.by_token {
            if confirmation.until <= now {
                over.push(*token);
            } else if confirmation.round_at <= now {
                due.push(*token);
            }
        }
        for token in over {
            if let Some(Confirmation { wanted, by, .. }) = self.confirmations.remove(token) {
                let result = Err(ConfirmError::TooFew { confirmed: by.len(), wanted });
                fx.emit(Out::Confirmed { token, result });
            }
        }
        for token in due {
            self.ask_for_receipts(now, token, false, fx);
        }
        self.arm_confirm(fx);
    }

    fn arm_confirm(&self, fx: &mut Fx) {
        match self.confirmations.deadline() {
            Some(deadline) => fx.arm(Timer::Confirm, deadline),
            None => fx.disarm(Timer::Confirm),
        }
    }

    // ---- Answering.

    /// A peer wants to be told as soon as these messages are here, which it has.
    pub(super) fn receipts_wanted(
        &mut self,
        now: Time,
        session: SessionId,
        topic: &Topic,
        ids: Vec<MessageId>,
        fx: &mut Fx,
    ) {
        if !self.within_receipt_quota(now, session, ids.len(), fx) || !self.subscriptions.contains_key(topic) {
            return;
        }
        let mut here = Vec::new();
        for id in &ids {
            if self.cache.tag_of(id).is_some() || (self.seen.contains(id) && !self.validations.refused(id)) {
                here.push(*id);
            } else if !self.seen.contains(id) && !self.receipts.note(*id, session) {
                dropped(DropReason::ReceiptFlood, fx);
            }
        }
        if !here.is_empty() {
            let to = self.peers.recipient(session);
            self.control(to, Lane::High, wire::receipts(&here), tag::REQUEST, fx);
        }
        self.announced(now, session, topic, ids, fx);
    }

    /// A peer says that it has these messages.
    pub(super) fn receipts_came(&mut self, now: Time, session: SessionId, ids: &[MessageId], fx: &mut Fx) {
        if !self.within_receipt_quota(now, session, ids.len(), fx) {
            return;
        }
        let Some(slot) = self.peers.get(session).map(|peer| peer.slot) else { return };
        for id in ids {
            if let Some(entry) = self.cache.get_mut(id) {
                entry.has.insert(slot);
            }
            self.has_it(session, id, fx);
        }
    }

    fn within_receipt_quota(&mut self, now: Time, session: SessionId, ids: usize, fx: &mut Fx) -> bool {
        if !self.stands(session, self.config.scores.gossip) {
            dropped(DropReason::LowScore, fx);
            return false;
        }
        let Some(peer) = self.peers.get_mut(session) else { return false };
        peer.beat.requested = peer.beat.requested.saturating_add(ids.max(1));
        if peer.beat.requested <= self.config.quota_ids {
            return true;
        }
        dropped(DropReason::ReceiptFlood, fx);
        self.blame(now, session, Penalty::ControlFlood, fx);
        false
    }

    /// A message was taken in: who waits for it is told.
    pub(super) fn give_receipts(&mut self, id: &MessageId, fx: &mut Fx) {
        let sessions = self.receipts.settle(id);
        let to: Vec<Recipient> = sessions.into_iter().filter_map(|session| self.peers.recipient(session)).collect();
        self.control(to, Lane::High, wire::receipts(&[*id]), tag::REQUEST, fx);
    }
}
