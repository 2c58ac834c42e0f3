//! The other end of a history: what peers get out of this node's logs, and what that may cost.
//!
//! A question costs one look through at most 32,768 heads, which are in memory, and reading what is sent. Each peer has
//! a quota of questions and one at a time, and all together so many looks and so many bytes between two heartbeats.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Quota, QuotaTable, Time};
use peerage_queue::SessionId;
use peerage_wire::Penalty;
use peerage_wire::frame::Lane;
use serde::{Deserialize, Serialize};

use super::contract::{Count, Out};
use super::drops::DropReason;
use super::{Fx, GossipMachine, dropped, tag};
use crate::message::Topic;
use crate::wire::{self, HistoryAsk, HistoryEnd};

/// Questions of a peer: four a second, and sixteen at once. It asks three a second.
const QUOTA: Quota = Quota::new(16, Duration::from_secs(4));
const MAX_ASKERS: usize = 4_096;
/// Heads that are looked at for one question: about a millisecond.
#[cfg(feature = "actor")]
pub(crate) const HEADS: usize = 32_768;
/// Questions answered between two heartbeats, and those under way at once.
const LOOKS: usize = 32;
const MAX_READS: usize = 8;
/// A log that has not answered for so long will not.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What a log has for an asker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Messages as they travel, in the log's order.
    pub items: Vec<Bytes>,
    /// How far the log was looked through.
    pub after: u64,
    /// Whether there is more behind it.
    pub more: bool,
}

#[derive(Debug)]
struct Reading {
    session: SessionId,
    topic: Topic,
    round: u32,
    after: u64,
    at: Time,
    /// Bytes that were set aside for it.
    reserved: usize,
}

/// What is going on with peers' questions.
#[derive(Debug)]
pub(super) struct Librarian {
    askers: QuotaTable<SessionId>,
    readings: BTreeMap<u64, Reading>,
    next: u64,
    looks: usize,
    /// Bytes sent, less what heartbeats have allowed since.
    sent: usize,
}

impl Librarian {
    pub(super) fn new() -> Librarian {
        let askers = QuotaTable::new(QUOTA, MAX_ASKERS);
        Librarian { askers, readings: BTreeMap::new(), next: 0, looks: 0, sent: 0 }
    }

    /// A heartbeat allows so many bytes more.
    pub(super) fn beat(&mut self, now: Time, bytes: usize) {
        self.looks = 0;
        self.sent = self.sent.saturating_sub(bytes);
        self.readings.retain(|_, reading| now.since(reading.at) < READ_TIMEOUT);
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        self.readings.retain(|_, reading| reading.session != session);
    }

    fn room(&self, session: SessionId, beat_bytes: usize) -> usize {
        let one = self.readings.values().any(|reading| reading.session == session);
        if one || self.readings.len() >= MAX_READS || self.looks >= LOOKS {
            return 0;
        }
        beat_bytes.saturating_sub(self.sent)
    }
}

impl GossipMachine {
    /// A peer says how far it is with a topic, and wants the rest.
    pub(super) fn history_asked(&mut self, now: Time, session: SessionId, ask: Box<HistoryAsk>, fx: &mut Fx) {
        if !self.stands(session, self.config.scores.gossip) {
            return dropped(DropReason::LowScore, fx);
        }
        if !self.librarian.askers.take(now, &session) {
            dropped(DropReason::HistoryFlood, fx);
            return self.blame(now, session, Penalty::ControlFlood, fx);
        }
        let wanted = self.peers.get(session).is_some_and(|peer| peer.topics.contains(&ask.topic));
        let (topic, round, after) = (ask.topic.clone(), ask.round, ask.after);
        if !wanted || !self.histories.holds(&topic) {
            let end = HistoryEnd { topic, round, after, sent: 0, more: false, keeps: false };
            return self.end_answer(session, end, fx);
        }
        let pull = &self.config.pull;
        let room = self.librarian.room(session, pull.history_beat_bytes);
        if room == 0 {
            dropped(DropReason::HistoryBusy, fx);
            let end = HistoryEnd { topic, round, after, sent: 0, more: true, keeps: true };
            return self.end_answer(session, end, fx);
        }
        let bytes = pull.history_bytes.min(room);
        // As many as may be in flight at a node that is set up as this one, with room to spare for what is live.
        let entries = (self.config.in_flight / 16).clamp(1, 256);
        let token = self.librarian.next;
        self.librarian.next += 1;
        self.librarian.looks += 1;
        self.librarian.sent += bytes;
        self.librarian.readings.insert(token, Reading { session, topic, round, after, at: now, reserved: bytes });
        fx.emit(Out::ReadHistory { token, ask, entries, bytes });
        self.start_heart(now, fx);
    }

    /// The log has answered.
    pub(super) fn history_read(&mut self, token: u64, found: Option<Found>, fx: &mut Fx) {
        let Some(reading) = self.librarian.readings.remove(&token) else { return };
        let Reading { session, topic, round, after, reserved, .. } = reading;
        let failed = Found { items: Vec::new(), after, more: true };
        let Found { items, after, more } = found.unwrap_or(failed);
        let bytes: usize = items.iter().map(Bytes::len).sum();
        self.librarian.sent = (self.librarian.sent + bytes).saturating_sub(reserved);
        let to = self.peers.recipient(session);
        let sent = items.len();
        for item in items {
            // With a mark a very large one may be too large, and is known by its age.
            let small = item.len() <= self.config.pull.history_bytes;
            let bytes = if small { wire::logged(&item) } else { item };
            self.control(to, Lane::Bulk, bytes, tag::REQUEST, fx);
        }
        fx.emit(Out::Count(Count::HistoryServed(sent)));
        let sent = u32::try_from(sent).unwrap_or(u32::MAX);
        self.end_answer(session, HistoryEnd { topic, round, after, sent, more, keeps: true }, fx);
    }

    fn end_answer(&self, session: SessionId, end: HistoryEnd, fx: &mut Fx) {
        // In the lane of the messages, so that it comes after them.
        self.control(self.peers.recipient(session), Lane::Bulk, wire::history_end(&end), tag::REQUEST, fx);
    }
}
