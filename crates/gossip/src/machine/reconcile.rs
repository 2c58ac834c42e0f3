//! Pull repair: a node shows one peer at a time a filter of what it has seen, and is sent what is missing.
//!
//! Push and announcements bring nearly everything. What they lost without a trace, and what a node missed while it was
//! away, is found here. The answerer goes through what it keeps *oldest first*: the oldest is the next that nobody
//! keeps any more, while what is newer will still be there for the next pull, and comes by push besides. Newest first,
//! a node that catches up would lose the far end of the window on its way there.
//!
//! The filter holds what was seen, not what is kept, so a node that came back with its seen set and without its
//! messages is not sent what it has delivered. It names no topics: the answerer knows which ones the asker wants.
//!
//! What an answer brings is announced, but not pushed on: nearly always the neighbours have it, and who catches up on a
//! window would send all of it to each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_machine::{Quota, QuotaTable, Rng, Time};
use peerage_queue::SessionId;
use peerage_wire::Penalty;
use peerage_wire::frame::Lane;

use super::aged::AgedSet;
use super::cache::Served;
use super::contract::{Count, Out};
use super::drops::DropReason;
use super::{Fx, GossipMachine, dropped, tag};
use crate::config::Pull;
use crate::message::MessageId;
use crate::wire::{self, FILTER_IDS, Filter, MAX_SLICE_BITS, Slice};

/// Filters a peer may send: two a second, and eight at once, as what was sent apart may arrive together.
const QUOTA: Quota = Quota::new(8, Duration::from_secs(4));
/// A peer is asked no more often than this, which is well within its quota.
const PEER_PAUSE: Duration = Duration::from_millis(750);
/// Peers whose quota is known; more are refused until others have recovered, four seconds later.
const MAX_ASKERS: usize = 4_096;
/// A new peer is asked within this time: it may come from the other side of a partition.
const NEWCOMER: Duration = Duration::from_secs(5);
/// One pull in so many goes to any peer, although others are known to have more: one that drips what it has, a message
/// at a time, must not be the only one that is asked.
const ANYBODY: u64 = 4;
/// A full cache is looked through so often between two heartbeats, for all peers together. A look at eight probes takes
/// some 100 ns, so that is 26 ms at 65,536 messages, however many ask and whatever they show.
const LOOKS: usize = 4;
/// Messages that came in answers, remembered until they have been checked.
const MAX_REPAIRED: usize = 4_096;
const REPAIRED_FOR: Duration = Duration::from_secs(60);

/// A filter that waits for its answer.
#[derive(Debug)]
struct Open {
    session: SessionId,
    at: Time,
    /// Messages that this peer has sent since and that are new.
    news: u32,
}

/// What is going on with pulls.
#[derive(Debug)]
pub(super) struct Pulls {
    config: Pull,
    rng: Rng,
    open: Option<Open>,
    /// When the next one is due.
    due: Time,
    /// The time between this pull and the next one.
    pause: Duration,
    /// Pulls so far: which slice is next.
    count: u16,
    /// When each peer was asked last.
    asked: BTreeMap<SessionId, Time>,
    /// Peers that sent news and said that they have more.
    promising: BTreeSet<SessionId>,
    /// Whether the session message that is being read is part of the answer that is waited for.
    answering: bool,
    repaired: AgedSet<MessageId>,
    /// Until when something may be kept that this node published on a topic it does not want.
    guest_until: Time,
    askers: QuotaTable<SessionId>,
    /// Bytes of answers since the last heartbeat, and kept messages that were looked at for them.
    answered: usize,
    looked: usize,
}

impl Pulls {
    pub(super) fn new(config: Pull, mut rng: Rng) -> Pulls {
        Pulls {
            open: None,
            due: Time::ZERO,
            pause: config.fast,
            count: rng.below(1 << MAX_SLICE_BITS) as u16,
            asked: BTreeMap::new(),
            promising: BTreeSet::new(),
            answering: false,
            repaired: AgedSet::new(MAX_REPAIRED, REPAIRED_FOR),
            guest_until: Time::ZERO,
            askers: QuotaTable::new(QUOTA, MAX_ASKERS),
            answered: 0,
            looked: 0,
            rng,
            config,
        }
    }

    /// A peer came.
    pub(super) fn newcomer(&mut self, now: Time) {
        self.due = self.due.min(now + self.jitter(NEWCOMER));
    }

    /// Something is missing: somebody is asked at one of the next heartbeats.
    pub(super) fn hurry(&mut self, now: Time) {
        self.pause = self.config.fast;
        self.due = self.due.min(now + self.jitter(self.config.fast));
    }

    /// A peer went.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.asked.remove(&session);
        self.promising.remove(&session);
        self.open.take_if(|open| open.session == session);
    }

    /// Something was published on a topic that this node does not want, and is kept until then.
    pub(super) fn guest_until(&mut self, until: Time) {
        self.guest_until = until;
    }

    /// Whether something like that may be kept.
    pub(super) fn is_guest(&self, now: Time) -> bool {
        now <= self.guest_until
    }

    /// A session message begins.
    pub(super) fn next_message(&mut self) {
        self.answering = false;
    }

    /// The rest of a session message is part of an answer, if one is waited for.
    pub(super) fn answer_comes(&mut self, session: SessionId) {
        self.answering = self.open.as_ref().is_some_and(|open| open.session == session);
    }

    /// A peer sent a message that nobody had sent.
    pub(super) fn news(&mut self, now: Time, session: SessionId, id: MessageId) {
        if let Some(open) = self.open.as_mut().filter(|open| open.session == session) {
            open.news = open.news.saturating_add(1);
            if self.answering {
                self.repaired.insert(now, id);
            }
        }
    }

    /// A message was found in a peer's log: all others have had it, too.
    pub(super) fn found(&mut self, now: Time, id: MessageId) {
        self.repaired.insert(now, id);
    }

    /// Whether a message came in an answer.
    pub(super) fn repaired(&self, id: &MessageId) -> bool {
        self.repaired.contains(id)
    }

    /// From nothing to all of a time.
    fn jitter(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1)))
    }

    /// The next pull is due after the pause, give or take a quarter.
    fn pause(&mut self, now: Time, pause: Duration) {
        self.pause = pause.clamp(self.config.fast, self.config.slow);
        self.due = now + self.pause * 3 / 4 + self.jitter(self.pause / 2);
    }
}

impl GossipMachine {
    /// Asks somebody, if it is time.
    pub(super) fn pull_if_due(&mut self, now: Time, fx: &mut Fx) {
        (self.pulls.answered, self.pulls.looked) = (0, 0);
        self.pulls.repaired.expire(now);
        let timeout = self.pulls.config.timeout;
        if self.pulls.open.take_if(|open| now.since(open.at) >= timeout).is_some() {
            // Nothing is known of what is missing: neither faster nor slower, but not at full speed.
            let pause = self.pulls.pause.max(self.pulls.config.slow / 4);
            self.pulls.pause(now, pause);
        }
        if self.pulls.open.is_none() && now >= self.pulls.due {
            self.pull(now, true, fx);
        }
    }

    /// Shows a filter to a peer that wants a topic of this node: to one that was not asked yet or has more, if there is
    /// one; else to anybody, if that is meant.
    fn pull(&mut self, now: Time, anybody: bool, fx: &mut Fx) {
        let (mut useful, mut best, mut others) = (false, Vec::new(), Vec::new());
        for (session, peer) in self.peers.iter_mut() {
            if !peer.topics.iter().any(|topic| self.subscriptions.contains_key(topic)) {
                continue;
            }
            useful = true;
            match self.pulls.asked.get(&session) {
                None => best.push(session),
                Some(at) if now.since(*at) < PEER_PAUSE => {}
                Some(_) if self.pulls.promising.contains(&session) => best.push(session),
                Some(_) => others.push(session),
            }
        }
        if !useful {
            // Nobody to ask: whoever comes next is asked at once, as if this node had just come.
            self.pulls.pause = self.pulls.config.fast;
            return;
        }
        let others = if anybody { others } else { Vec::new() };
        let other = !others.is_empty() && (best.is_empty() || self.pulls.rng.below(ANYBODY) == 0);
        let among = if other { others } else { best };
        let chosen = self.pulls.rng.index(among.len()).and_then(|at| among.get(at).copied());
        let Some(session) = chosen else { return };
        let filter = self.filter(now);
        fx.emit(Out::Count(Count::Pulled));
        self.control(self.peers.recipient(session), Lane::Bulk, wire::filter(&filter), tag::REQUEST, fx);
        self.pulls.asked.insert(session, now);
        self.pulls.open = Some(Open { session, at: now, news: 0 });
        let pause = self.pulls.pause;
        self.pulls.pause(now, pause);
    }

    /// What this node has seen, of the next slice if it is too much. Others may have kept a message for the window that
    /// they got late, so it goes back half a window more. What is being checked is part of it, or all that the last
    /// answer brought would be sent again.
    fn filter(&mut self, now: Time) -> Filter {
        let since = now.running().saturating_sub(self.config.retained * 3 / 2);
        let all = self.seen.since(since).count() + self.flights.len() + self.validations.len();
        let bits = (0..MAX_SLICE_BITS).find(|bits| all >> bits <= FILTER_IDS).unwrap_or(MAX_SLICE_BITS);
        self.pulls.count = self.pulls.count.wrapping_add(1);
        let slice = Slice::nth(bits, self.pulls.count);
        let ids = self.seen.since(since).chain(self.flights.ids()).chain(self.validations.ids());
        let ids: Vec<MessageId> = ids.filter(|id| slice.contains(id)).copied().collect();
        Filter::new(self.pulls.rng.bytes(), slice, &ids)
    }

    /// A peer shows what it has: it is sent what it lacks, as far as the budget goes. However the filter is made, that
    /// is all that comes of it: one look at each kept message, a few messages, and each of them so often to one peer.
    pub(super) fn filter_came(&mut self, now: Time, session: SessionId, filter: &Filter, fx: &mut Fx) {
        if !self.stands(session, self.config.scores.gossip) {
            return dropped(DropReason::LowScore, fx);
        }
        let Some(peer) = self.peers.get(session) else { return };
        if !self.pulls.askers.take(now, &session) {
            dropped(DropReason::FilterFlood, fx);
            return self.blame(now, session, Penalty::ControlFlood, fx);
        }
        let Pull { answer_bytes, beat_bytes, fresh, .. } = self.pulls.config;
        let tired = self.pulls.looked >= LOOKS * self.config.cache_ids;
        let budget = if tired { 0 } else { answer_bytes.min(beat_bytes.saturating_sub(self.pulls.answered)) };
        let (mut lacking, mut bytes, mut more) = (Vec::new(), 0, budget == 0);
        // Who wants nothing is not worth a look.
        let looks = if budget == 0 || peer.topics.is_empty() { 0 } else { self.cache.len() };
        let settled = self.cache.oldest_first().take_while(|(_, entry)| now.since(entry.kept_at) >= fresh);
        for (tag, entry) in settled.take(looks) {
            self.pulls.looked += 1;
            if filter.lacks(&entry.id)
                && self.cache.served(tag, peer.slot) < self.config.serves_per_peer
                && peer.topics.contains(&entry.topic)
            {
                if !lacking.is_empty() && bytes + entry.bytes.len() > budget {
                    more = true;
                    break;
                }
                bytes += entry.bytes.len();
                lacking.push(entry.id);
            }
        }
        self.pulls.answered += bytes;
        let (slot, to) = (peer.slot, self.peers.recipient(session));
        let mut sent = 0;
        for id in lacking {
            if let Served::Push(tag, bytes) = self.cache.serve(&id, slot, self.config.serves_per_peer) {
                sent += 1;
                // A copy, but for a message that has the answer for itself: with a few bytes more, it may be too large.
                let bytes = if bytes.len() <= answer_bytes { wire::repair(&bytes) } else { bytes };
                // What is live goes first, and nothing has to give way.
                self.control(to, Lane::Bulk, bytes, tag, fx);
            }
        }
        fx.emit(Out::Count(Count::Repaired(sent as usize)));
        // In the lane of the messages, so that it comes after them.
        self.control(to, Lane::Bulk, wire::answered(sent, more), tag::REQUEST, fx);
    }

    /// A peer has sent all that it will. That it says so is not believed alone: a peer that never sends anything new
    /// does not make this node ask more often.
    pub(super) fn pull_ended(&mut self, now: Time, session: SessionId, sent: u32, more: bool, fx: &mut Fx) {
        let Some(open) = self.pulls.open.take_if(|open| open.session == session) else { return };
        let news = sent.min(open.news) > 0;
        if news && more {
            self.pulls.promising.insert(session);
        } else {
            self.pulls.promising.remove(&session);
        }
        let (pause, fast) = (self.pulls.pause, self.pulls.config.fast);
        let others = !self.pulls.promising.is_empty();
        self.pulls.pause(now, if news || others { fast } else { 2 * pause });
        if news && others {
            // Whoever has more is asked at once, or when its time comes.
            self.pulls.due = now;
            self.pull(now, false, fx);
        }
    }
}
