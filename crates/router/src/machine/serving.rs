//! What this node serves: its handlers, and the calls they have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::{NodeId, Penalty};

use super::answers::{Sending, Sendings};
use super::calls::{Calls, Open};
use super::contract::{AnswerSent, Call, Count, Fault, Out, Payload, Stats, Timer};
use super::places::Places;
use super::{Cx, Fx, arm_earlier};
use crate::handler::{AddError, HandlerConfig, HandlerId, Order};
use crate::resilience::SlidingWindow;
use crate::wire::{self, ErrorCode};

/// Peers whose rates a handler keeps apart.
const RATED_PEERS: usize = 4096;
/// Calls of one handler at one instant, at most.
const MOST_BUDGET: u32 = 1024;

/// A request, or a message without an answer, that came.
pub(super) struct Arrived {
    pub(super) session: SessionId,
    pub(super) from: NodeId,
    pub(super) id: Option<u64>,
    pub(super) handler: HandlerId,
    pub(super) deadline: Duration,
    pub(super) payload: Bytes,
}

#[derive(Debug)]
struct Handler {
    name: String,
    config: HandlerConfig,
    /// Calls of a handler that was removed do not count for the one that took its name.
    generation: u64,
    window: Option<SlidingWindow>,
    places: Places,
    /// In order: what waits, what is at work, and what had its turn at this instant.
    waiting: VecDeque<u64>,
    working: bool,
    turn: (Time, u32),
}

#[derive(Debug)]
pub(super) struct Serving {
    handlers: BTreeMap<HandlerId, Handler>,
    calls: Calls,
    /// Of the node: of calls, and of their payloads' bytes.
    places: Places,
    bytes: Places,
    /// Large answers.
    sendings: Sendings,
    armed: Option<Time>,
    /// Handlers that go on in the next turn.
    resting: BTreeSet<HandlerId>,
    next: u64,
}

impl Serving {
    pub(super) fn new(epoch: u32) -> Serving {
        Serving {
            handlers: BTreeMap::new(),
            calls: Calls::default(),
            places: Places::default(),
            bytes: Places::default(),
            sendings: Sendings::default(),
            armed: None,
            resting: BTreeSet::new(),
            // What a handler answers to a call of an earlier life is nobody's.
            next: u64::from(epoch) << 32,
        }
    }

    pub(super) fn add(&mut self, cx: &mut Cx<'_>, token: u64, name: String, config: HandlerConfig) {
        let result = self.add_checked(cx, name, config);
        cx.fx.emit(Out::HandlerAdded { token, result });
    }

    fn add_checked(&mut self, cx: &Cx<'_>, name: String, config: HandlerConfig) -> Result<HandlerId, AddError> {
        let id = config.check(&name)?;
        let there = self.handlers.get(&id).map(|there| &*there.name);
        AddError::unless_free(&name, there, self.handlers.len(), cx.config.max_handlers)?;
        let handler = Handler {
            name,
            config,
            generation: self.next,
            window: config.rate.map(|rate| SlidingWindow::new(rate, RATED_PEERS)),
            places: Places::default(),
            waiting: VecDeque::new(),
            working: false,
            turn: (cx.now, 0),
        };
        self.next += 1;
        self.handlers.insert(id, handler);
        Ok(id)
    }

    pub(super) fn remove(&mut self, cx: &mut Cx<'_>, handler: HandlerId) {
        let Some(removed) = self.handlers.remove(&handler) else { return };
        self.resting.remove(&handler);
        for call in removed.waiting {
            let Some(open) = self.take(call) else { continue };
            self.refuse(cx, open.session, open.id, ErrorCode::UnknownHandler);
        }
    }

    pub(super) fn arrived(&mut self, cx: &mut Cx<'_>, arrived: Arrived) {
        let Arrived { session, from, id, handler, deadline, payload } = arrived;
        if id.is_some_and(|id| self.calls.named(session, id).is_some() || self.sendings.has(session, id)) {
            // An error in answer would end the request that has this id.
            cx.count(Count::DuplicateId);
            return cx.fx.emit(Out::Report { session, penalty: Penalty::ControlFlood });
        }
        if let Err((code, count)) = self.admit(cx, &from, handler, payload.len()) {
            cx.peers.forgive(cx.now, session, count, cx.fx);
            return self.refuse(cx, session, id, code);
        }
        let ends = cx.now + deadline.min(cx.config.max_deadline);
        if ends <= cx.now {
            return cx.count(Count::Expired);
        }
        let Some(served) = self.handlers.get_mut(&handler) else { return };
        let (call, bytes) = (self.next, payload.len());
        self.next += 1;
        let (limits, part) = (&cx.config.served, cx.part(&from));
        served.places.take(from, 1, served.config.total, part);
        self.places.take(from, 1, limits.node, part);
        self.bytes.take(from, bytes, limits.node_bytes, part);
        served.waiting.push_back(call);
        let generation = served.generation;
        let payload = Some(payload);
        let open = Open { session, from, id, handler, generation, bytes, ends, payload, wanted: true };
        self.calls.insert(call, open);
        self.start(cx, handler);
    }

    fn admit(
        &mut self,
        cx: &Cx<'_>,
        from: &NodeId,
        handler: HandlerId,
        bytes: usize,
    ) -> Result<(), (ErrorCode, Count)> {
        let limits = &cx.config.served;
        let unknown = (ErrorCode::UnknownHandler, Count::UnknownHandler);
        let served = self.handlers.get_mut(&handler).ok_or(unknown)?;
        if served.config.members_only && !cx.peers.members.has(from) {
            return Err((ErrorCode::NotMember, Count::NotMember));
        }
        let in_rate = cx.in_rate(&mut served.window, served.config.rate, served.config.fair, from);
        let part = cx.part(from);
        let room = served.places.of(from) < served.config.per_peer
            && served.places.has_room(from, 1, served.config.total, part)
            && self.places.of(from) < limits.per_peer
            && self.bytes.of(from) + bytes <= limits.per_peer_bytes
            && self.places.has_room(from, 1, limits.node, part)
            && self.bytes.has_room(from, bytes, limits.node_bytes, part);
        if in_rate && room { Ok(()) } else { Err((ErrorCode::Throttled, Count::Throttled)) }
    }

    fn refuse(&mut self, cx: &mut Cx<'_>, session: SessionId, id: Option<u64>, code: ErrorCode) {
        if let Some(id) = id {
            let bytes = wire::error(id, code, "");
            cx.push(session, cx.lane(0), bytes, None);
        }
    }

    /// Hands a handler what it may have now.
    fn start(&mut self, cx: &mut Cx<'_>, handler: HandlerId) {
        let Some(served) = self.handlers.get_mut(&handler) else { return };
        if let Order::InOrder { budget } = served.config.order {
            if served.working || served.waiting.is_empty() {
                return;
            }
            if served.turn.0 != cx.now {
                served.turn = (cx.now, 0);
            }
            if served.turn.1 >= budget.min(MOST_BUDGET) {
                self.resting.insert(handler);
                return cx.fx.arm(Timer::Turn, cx.now);
            }
        }
        let Some(call) = served.waiting.pop_front() else { return };
        served.turn.1 += 1;
        served.working = true;
        let Some(open) = self.calls.get_mut(call) else { return };
        let payload = open.payload.take().unwrap_or_default();
        let (from, session, answered) = (open.from, open.session, open.id.is_some());
        let deadline = open.ends.since(cx.now);
        cx.count(Count::Called);
        cx.fx.emit(Out::Call(Call { call, handler, from, session, deadline, answered, payload }));
    }

    pub(super) fn turn(&mut self, cx: &mut Cx<'_>) {
        for handler in std::mem::take(&mut self.resting) {
            if let Some(served) = self.handlers.get_mut(&handler) {
                served.turn = (cx.now, 0);
            }
            self.start(cx, handler);
        }
    }

    /// Takes a call out of all tables.
    fn take(&mut self, call: u64) -> Option<Open> {
        let open = self.calls.remove(call)?;
        self.places.give_back(&open.from, 1);
        self.bytes.give_back(&open.from, open.bytes);
        if let Some(served) = self.handlers.get_mut(&open.handler).filter(|it| it.generation == open.generation) {
            if let Ok(at) = served.waiting.binary_search(&call) {
                served.waiting.remove(at);
            }
            served.places.give_back(&open.from, 1);
        }
        Some(open)
    }

    /// Nobody needs the result. What waits is not begun; what is at work keeps its place until it has ended, or a peer
    /// that cancels could have any number of calls at work.
    fn abandon(&mut self, cx: &mut Cx<'_>, call: u64, waiting: Count, working: Count) {
        let Some(open) = self.calls.get_mut(call) else { return };
        if open.payload.is_some() {
            self.take(call);
            return cx.count(waiting);
        }
        if self.calls.unwanted(call) {
            cx.count(working);
            cx.fx.emit(Out::Abandon { call });
        }
    }

    pub(super) fn cancelled(&mut self, cx: &mut Cx<'_>, session: SessionId, id: u64) {
        match self.calls.named(session, id) {
            Some(call) => self.abandon(cx, call, Count::Withdrawn, Count::Withdrawn),
            None if self.sendings.cancelled(cx, session, id) => cx.count(Count::Withdrawn),
            None => cx.count(Count::CancelledNothing),
        }
    }

    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        for call in self.calls.of(session) {
            self.abandon(cx, call, Count::Orphaned, Count::Orphaned);
        }
        self.sendings.disconnected(cx, session);
    }

    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, call: u64, answer: Result<Payload, Fault>) {
        // One that waits was not handed out, so it cannot be answered.
        if self.calls.get_mut(call).is_none_or(|open| open.payload.is_some()) {
            return;
        }
        let Some(open) = self.take(call) else { return };
        let late = open.wanted && cx.now >= open.ends;
        if late {
            cx.count(Count::Overdue);
        }
        if let Some(id) = open.id.filter(|_| open.wanted && !late) {
            self.answer(cx, call, &open, id, answer);
        }
        if let Some(served) = self.handlers.get_mut(&open.handler).filter(|it| it.generation == open.generation) {
            served.working = false;
            self.start(cx, open.handler);
        }
    }

    /// Sends an answer: a large one on a stream of its own.
    fn answer(&mut self, cx: &mut Cx<'_>, call: u64, open: &Open, id: u64, answer: Result<Payload, Fault>) {
        let (session, to, ends) = (open.session, open.from, open.ends);
        let error = match answer {
            Ok(Payload(payload)) if payload.len() > cx.config.max_payload => (ErrorCode::TooLarge, String::new()),
            Ok(Payload(payload)) if payload.len() <= cx.config.stream_above => {
                cx.count(Count::Served);
                let bytes = wire::response(id, &payload);
                return cx.push(session, cx.lane(bytes.len()), bytes, None);
            }
            Ok(Payload(payload)) if self.sendings.has_room(cx, &to, payload.len()) => {
                return self.sendings.begin(cx, call, Sending { session, to, id, payload, ends });
            }
            // It takes its answers too slowly, or all of them do.
            Ok(_) => (ErrorCode::Throttled, String::new()),
            Err(Fault { code, text }) => (code, text),
        };
        cx.count(Count::Failed);
        let bytes = wire::error(id, error.0, &error.1);
        cx.push(session, cx.lane(bytes.len()), bytes, None);
    }

    /// The shell is done with an answer on a stream.
    pub(super) fn sent(&mut self, cx: &mut Cx<'_>, call: u64, sent: AnswerSent) {
        let Some(Sending { session, id, payload, .. }) = self.sendings.sent(cx, call) else { return };
        match sent {
            AnswerSent::Whole => {
                cx.count(Count::Served);
                cx.count(Count::AnswerStreamed);
            }
            AnswerSent::Dropped => cx.count(Count::Failed),
            AnswerSent::NoStream => {
                // Slower for all, but it arrives.
                cx.count(Count::Served);
                cx.count(Count::AnswerNotStreamed);
                let bytes = wire::response(id, &payload);
                cx.push(session, cx.lane(bytes.len()), bytes, None);
            }
        }
    }

    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        self.armed = None;
        for _ in 0..self.sendings.expire(cx) {
            cx.count(Count::Overdue);
        }
        while let Some((_, call)) = self.calls.first_due().filter(|(ends, _)| *ends <= cx.now) {
            self.abandon(cx, call, Count::Expired, Count::Overdue);
        }
    }

    pub(super) fn arm(&mut self, fx: &mut Fx) {
        let call = self.calls.first_due().map(|(ends, _)| ends);
        let next = call.into_iter().chain(self.sendings.next_expiry()).min();
        arm_earlier(fx, Timer::Served, &mut self.armed, next);
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        self.calls.stats(stats);
        stats.call_bytes = self.bytes.used();
        let of_handlers = self.handlers.values().map(|served| served.places.peers()).sum();
        stats.served_peers = self.places.peers().max(of_handlers);
        self.sendings.stats(stats);
    }
}

#[cfg(test)]
impl Serving {
    /// Pretends that a handler had another name, as it would if two names had one id.
    pub(super) fn rename(&mut self, handler: HandlerId, name: &str) {
        if let Some(served) = self.handlers.get_mut(&handler) {
            name.clone_into(&mut served.name);
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.handlers.values().map(|served| served.waiting.len()).sum()
    }
}
