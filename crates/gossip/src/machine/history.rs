//! Histories of durable topics: what a node missed while it was away comes out of its peers' logs.
//!
//! On a durable topic each publisher counts, so how far a node is can be said exactly: the last sequence of each
//! publisher. A node says so to one peer at a time, and the peer sends what its log has beyond that, in the log's order,
//! a part for each question. What has come of one peer is not sent by the next. When three peers had nothing left the
//! *pass* is over: all that was published before it began, and that is to be had, is here.
//!
//! A pass begins when the topic is opened, when a message shows that others are missing, when peers come, and else once
//! a minute. Nothing that comes so is believed more than what is pushed: its signature is checked, and who judges the
//! topic's messages judges it. It may be as old as the topic keeps messages, and what is out of the window of pushes
//! goes to the topic's readers and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_queue::SessionId;
use peerage_wire::NodeId;
use peerage_wire::frame::Lane;

use super::blame::{Handling, Suspect};
use super::contract::{Count, Out, Timer};
use super::drops::DropReason;
use super::flights::Candidate;
use super::inbound::check_of;
use super::{Fx, GossipMachine, dropped, tag};
use crate::message::{Fingerprint, Topic};
use crate::wire::{self, HistoryAsk, HistoryEnd, Parcel};

/// So many peers that have nothing left end a pass: one may lie, or have been away too. What all of them keep back is given
/// up; of three, where a fifth of all nodes do, in one pass of 125.
const WITNESSES: usize = 3;
/// The time between two questions to one peer, within the quota that it has for this node.
const PACE: Duration = Duration::from_millis(300);
/// The time between two passes, if nothing is known to be missing.
const SLOW: Duration = Duration::from_secs(60);
/// A pass that was not over takes no longer than this: what still comes goes on to come in the next one, but what waits
/// for it waits no longer.
const LONGEST_PASS: Duration = Duration::from_secs(900);
/// How often a peer may fail in a pass: not answer in time, or have no room, or little to say though there is more.
const MAX_FAILURES: u32 = 16;
/// What a failure to answer in time counts of these.
const SILENCE: u32 = MAX_FAILURES / 2;
/// Messages of one answer that are looked at; an honest one has 256 at most.
const MAX_ANSWER: u32 = 1_024;
/// One pass in so many, it is forgotten who does not keep a topic.
const FORGET_WITHOUT: u64 = 10;
/// An answer of fewer bytes, after which there is more, is little.
const LITTLE: usize = 8 * 1024;

/// The last publisher that there can be.
const LAST: NodeId = NodeId::from_bytes([0xff; 32]);

/// A question that waits for its answer.
#[derive(Debug)]
struct Open {
    session: SessionId,
    at: Time,
    /// When something came last.
    heard: Time,
    ask: HistoryAsk,
    /// The last sequence of each publisher that this answer brought: an honest one rises.
    came: BTreeMap<NodeId, u64>,
    bytes: usize,
    messages: u32,
    /// Something of it found no room here, and is to be sent again.
    lost: bool,
}

/// With whom it goes on, and where.
#[derive(Clone, Copy, Debug)]
struct Place {
    session: SessionId,
    first: NodeId,
    after: u64,
}

#[derive(Debug)]
struct Pass {
    began: Time,
    /// Who has nothing left.
    done: BTreeSet<SessionId>,
    failures: BTreeMap<SessionId, u32>,
    place: Option<Place>,
    open: Option<Open>,
    /// When the next question may go out.
    next: Time,
    /// The shell was asked how far the topic is.
    asked: bool,
}

/// One topic's.
#[derive(Debug)]
struct Line {
    age: Duration,
    floor: u64,
    pass: Option<Pass>,
    /// When the next pass begins; none while nobody is there to be asked.
    due: Option<Time>,
    round: u32,
    /// Peers that do not keep the topic; asked again when this is forgotten.
    without: BTreeSet<SessionId>,
}

/// What is going on with histories.
#[derive(Debug)]
pub(super) struct Histories {
    lines: BTreeMap<Topic, Line>,
    rng: Rng,
}

impl Histories {
    pub(super) fn new(rng: Rng) -> Histories {
        Histories { lines: BTreeMap::new(), rng }
    }

    /// A topic is durable: its messages are kept for so long, and none is taken that was issued at `floor`, in
    /// milliseconds since the Unix epoch, or before.
    pub(super) fn add(&mut self, topic: Topic, age: Duration, floor: u64) {
        self.lines.entry(topic).or_insert(Line {
            age,
            floor,
            pass: None,
            due: None,
            round: 0,
            without: BTreeSet::new(),
        });
    }

    pub(super) fn remove(&mut self, topic: &Topic) {
        self.lines.remove(topic);
    }

    pub(super) fn holds(&self, topic: &Topic) -> bool {
        self.lines.contains_key(topic)
    }

    /// Begins a pass within this time, unless one is under way.
    fn hurry(&mut self, now: Time, topic: &Topic, within: Duration) {
        let Some(line) = self.lines.get_mut(topic) else { return };
        let jitter = Duration::from_micros(self.rng.below(u64::try_from(within.as_micros()).unwrap_or(1).max(1)));
        line.due = Some(line.due.map_or(now + jitter, |due| due.min(now + jitter)));
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        for line in self.lines.values_mut() {
            line.without.remove(&session);
            let Some(pass) = line.pass.as_mut() else { continue };
            pass.open.take_if(|open| open.session == session);
            pass.place.take_if(|place| place.session == session);
            pass.done.remove(&session);
            pass.failures.remove(&session);
        }
    }

    fn deadline(&self, timeout: Duration) -> Option<Time> {
        let next = |line: &Line| match &line.pass {
            None => line.due,
            Some(Pass { open: Some(open), .. }) => Some(open.deadline(timeout)),
            // The shell is about to say how far the topic is.
            Some(pass) => (!pass.asked).then_some(pass.next),
        };
        self.lines.values().filter_map(next).min()
    }
}

impl Open {
    /// Whoever sends something has more time for the rest, but not for ever.
    fn deadline(&self, timeout: Duration) -> Time {
        (self.heard + timeout).min(self.at + 6 * timeout)
    }
}

impl Pass {
    fn fail(&mut self, session: SessionId, weight: u32) {
        let failures = self.failures.entry(session).or_default();
        *failures = failures.saturating_add(weight);
    }
}

impl GossipMachine {
    /// A peer wants a topic that is durable here: it may have what this node missed.
    pub(super) fn history_may_come(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        if self.histories.holds(topic) {
            self.histories.hurry(now, topic, self.config.pull.fast);
            self.arm_history(fx);
        }
    }

    /// Messages of a durable topic are missing.
    pub(super) fn history_missing(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        self.histories.hurry(now, topic, self.config.pull.fast);
        self.arm_history(fx);
    }

    fn arm_history(&self, fx: &mut Fx) {
        match self.histories.deadline(self.config.pull.timeout) {
            Some(deadline) => fx.arm(Timer::History, deadline),
            None => fx.disarm(Timer::History),
        }
    }

    /// Passes that begin, go on or end.
    pub(super) fn histories_due(&mut self, now: Time, fx: &mut Fx) {
        let topics: Vec<Topic> = self.histories.lines.keys().cloned().collect();
        topics.iter().for_each(|topic| self.history_due(now, topic, fx));
        self.arm_history(fx);
    }

    fn history_due(&mut self, now: Time, topic: &Topic, fx: &mut Fx) {
        let timeout = self.config.pull.timeout;
        let Some(line) = self.histories.lines.get_mut(topic) else { return };
        if line.pass.is_none() {
            if line.due.is_none_or(|due| now < due) {
                return;
            }
            line.due = None;
            let (done, failures) = Default::default();
            line.pass = Some(Pass { began: now, done, failures, place: None, open: None, next: now, asked: false });
            fx.emit(Out::CatchUp { topic: topic.clone(), running: true, until: None });
        }
        let Some(pass) = line.pass.as_mut() else { return };
        if let Some(open) = pass.open.take_if(|open| now >= open.deadline(timeout)) {
            pass.place = None;
            pass.fail(open.session, SILENCE);
            dropped(DropReason::HistoryOverdue, fx);
        }
        let ended = now.since(pass.began) >= LONGEST_PASS;
        if pass.open.is_some() && !ended {
            return;
        }
        if pass.done.len() >= WITNESSES || ended {
            return self.end_pass(now, topic, true, fx);
        }
        if now < pass.next {
            return;
        }
        match self.history_place(topic) {
            Ok(Some(first)) => fx.emit(Out::History { topic: topic.clone(), first }),
            Ok(None) => {}
            Err(complete) => self.end_pass(now, topic, complete, fx),
        }
    }

    /// Chooses whom to ask, unless that is known: the first publisher to ask for. With nobody to ask it ends; whether all
    /// that is there was asked for.
    fn history_place(&mut self, topic: &Topic) -> Result<Option<NodeId>, bool> {
        let gossip = self.config.scores.gossip;
        let mut candidates = Vec::new();
        let wants: Vec<(SessionId, bool)> =
            self.peers.iter_mut().map(|(session, peer)| (session, peer.topics.contains(topic))).collect();
        for (session, _) in wants.into_iter().filter(|(_, wants)| *wants) {
            if self.stands(session, gossip) {
                candidates.push(session);
            }
        }
        let Some(Line { pass: Some(pass), without, .. }) = self.histories.lines.get_mut(topic) else {
            return Ok(None);
        };
        let nobody = candidates.is_empty();
        candidates.retain(|session| {
            let may = !pass.done.contains(session) && !without.contains(session);
            may && pass.failures.get(session).is_none_or(|failures| *failures < MAX_FAILURES)
        });
        let place = pass.place.filter(|place| candidates.contains(&place.session));
        let place = match place {
            Some(place) => place,
            None => {
                let fewest = candidates.iter().map(|session| pass.failures.get(session).copied().unwrap_or(0)).min();
                candidates.retain(|session| pass.failures.get(session).copied().or(Some(0)) == fewest);
                let chosen = self.histories.rng.index(candidates.len()).and_then(|at| candidates.get(at).copied());
                // All that there are had nothing left, or do not answer.
                let Some(session) = chosen else { return Err(!nobody) };
                Place { session, first: NodeId::from_bytes([0; 32]), after: 0 }
            }
        };
        pass.place = Some(place);
        Ok((!std::mem::replace(&mut pass.asked, true)).then_some(place.first))
    }

    fn end_pass(&mut self, now: Time, topic: &Topic, complete: bool, fx: &mut Fx) {
        let Some(line) = self.histories.lines.get_mut(topic) else { return };
        let Some(pass) = line.pass.take() else { return };
        let until = complete.then_some(pass.began);
        if self.histories.rng.below(FORGET_WITHOUT) == 0 {
            line.without.clear();
        }
        if complete {
            let next = now + SLOW * 3 / 4 + Duration::from_millis(self.histories.rng.below(30_000));
            line.due = Some(line.due.map_or(next, |due| due.max(now + self.config.pull.fast).min(next)));
        }
        fx.emit(Out::CatchUp { topic: topic.clone(), running: false, until });
    }

    /// How far the topic is: the last sequences of the publishers from `first` to `last`.
    pub(super) fn history_known(
        &mut self,
        now: Time,
        topic: &Topic,
        first: NodeId,
        last: NodeId,
        known: Vec<(NodeId, u64)>,
        fx: &mut Fx,
    ) {
        let Some(line) = self.histories.lines.get_mut(topic) else { return };
        let Some(pass) = line.pass.as_mut() else { return };
        pass.asked = false;
        let Some(place) = pass.place.filter(|place| place.first == first && pass.open.is_none()) else { return };
        line.round = line.round.wrapping_add(1);
        let ask = HistoryAsk { topic: topic.clone(), round: line.round, after: place.after, first, last, known };
        let bytes = wire::history_ask(&ask);
        pass.next = now + PACE;
        pass.open = Some(Open {
            session: place.session,
            at: now,
            heard: now,
            ask,
            came: BTreeMap::new(),
            bytes: 0,
            messages: 0,
            lost: false,
        });
        fx.emit(Out::Count(Count::HistoryAsked));
        self.control(self.peers.recipient(place.session), Lane::Bulk, bytes, tag::REQUEST, fx);
        self.arm_history(fx);
    }

    /// Whether a message that no mark goes before is part of an answer all the same: a large one with a mark would be too
    /// large for a session.
    pub(super) fn is_history(&self, session: SessionId, parcel: &Parcel) -> bool {
        let line = self.histories.lines.get(&parcel.topic);
        let open = line.and_then(|line| line.pass.as_ref()).and_then(|pass| pass.open.as_ref());
        parcel.bytes.len() > self.config.pull.history_bytes && open.is_some_and(|open| open.session == session)
    }

    /// A message out of a peer's log. It is not asked whether it is in the window of pushes, but all else is.
    pub(super) fn logged(&mut self, now: Time, session: SessionId, from: NodeId, mut parcel: Parcel, fx: &mut Fx) {
        let Some((topic, line)) = self.histories.lines.get_key_value(&parcel.topic) else {
            return dropped(DropReason::HistoryUnasked, fx);
        };
        let (topic, age, floor) = (topic.clone(), line.age, line.floor);
        parcel.topic = topic.clone();
        let Some((publisher, sequence, issued)) =
            parcel.origin.as_ref().map(|origin| (origin.publisher, origin.sequence, origin.issued))
        else {
            return dropped(DropReason::WrongPolicy, fx);
        };
        let Some(open) = self.open_history(&topic, session) else {
            // A late answer, as a rule.
            return dropped(DropReason::HistoryUnasked, fx);
        };
        let rises = open.came.get(&publisher).is_none_or(|last| sequence > *last);
        if !rises || open.messages >= MAX_ANSWER || !open.ask.lacks(&publisher, sequence) {
            dropped(DropReason::HistoryUnasked, fx);
            return self.misbehaved(now, session, crate::score::POINT / 10);
        }
        open.came.insert(publisher, sequence);
        open.messages += 1;
        open.heard = now;
        open.bytes += parcel.bytes.len();
        if self.too_large(now, session, &topic, parcel.payload.len(), fx) {
            return;
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (age, skew) = (millis(age.max(self.config.retained)), millis(self.config.skew));
        if issued > now.unix_millis().saturating_add(skew) {
            return dropped(DropReason::FromFuture, fx);
        }
        if issued <= floor || issued.saturating_add(age).saturating_add(skew) < now.unix_millis() {
            return dropped(DropReason::TooOld, fx);
        }
        let id = parcel.id();
        if self.seen.contains(&id) || self.flights.contains(&id) || self.validations.contains(&id) {
            return fx.emit(Out::Count(Count::Duplicate));
        }
        if self.validations.refused(&id) {
            return dropped(DropReason::RejectedBefore, fx);
        }
        let fingerprint = Fingerprint::of(&id, parcel.origin.as_ref());
        let Some(check) = check_of(&id, &parcel) else { return };
        self.handling = Some(Handling::Message(Suspect { fingerprint, sender: session, check: Some(check) }));
        if self.poison.contains(&fingerprint) {
            return dropped(DropReason::Poison, fx);
        }
        if self.rejected.contains(&fingerprint) {
            dropped(DropReason::RejectedBefore, fx);
            self.scores.invalid(now, session, &topic);
            return self.blame(now, session, peerage_wire::Penalty::InvalidMessage, fx);
        }
        let candidate = Candidate { parcel, fingerprint, from, senders: vec![session], logged: true };
        match self.flights.start(id, candidate) {
            Some(token) => fx.emit(Out::Verify { token, check, from: session }),
            None => {
                dropped(DropReason::InFlightFull, fx);
                if let Some(open) = self.open_history(&topic, session) {
                    open.lost = true;
                }
            }
        }
    }

    fn open_history(&mut self, topic: &Topic, session: SessionId) -> Option<&mut Open> {
        let pass = self.histories.lines.get_mut(topic)?.pass.as_mut()?;
        pass.open.as_mut().filter(|open| open.session == session)
    }

    /// A peer has answered.
    pub(super) fn history_ended(&mut self, now: Time, session: SessionId, end: &HistoryEnd, fx: &mut Fx) {
        let Some(Line { pass: Some(pass), without, .. }) = self.histories.lines.get_mut(&end.topic) else { return };
        let asked = pass.open.take_if(|open| open.session == session && open.ask.round == end.round);
        let Some(open) = asked else { return dropped(DropReason::HistoryUnasked, fx) };
        let whole = !open.lost && open.messages >= end.sent;
        let forward = end.after > open.ask.after;
        if !end.keeps {
            without.insert(session);
            pass.place = None;
        } else if whole && !end.more {
            pass.place = successor(&open.ask.last).map(|first| Place { session, first, after: 0 });
            if pass.place.is_none() {
                pass.done.insert(session);
            }
        } else if whole && forward {
            if open.bytes < LITTLE {
                pass.fail(session, 1);
            }
            pass.place = Some(Place { session, first: open.ask.first, after: end.after });
        } else {
            // It has no room now, or some of what it sent is to be sent again: perhaps somebody else does better.
            pass.fail(session, 1);
            pass.place = None;
            pass.next = pass.next.max(now + 2 * PACE);
        }
        self.history_due(now, &end.topic, fx);
        self.arm_history(fx);
    }
}

fn successor(id: &NodeId) -> Option<NodeId> {
    if *id >= LAST {
        return None;
    }
    let mut bytes = *id.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (next, carried) = byte.overflowing_add(1);
        *byte = next;
        if !carried {
            break;
        }
    }
    Some(NodeId::from_bytes(bytes))
}
