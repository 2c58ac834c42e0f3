//! What this node asks: each request goes through its attempts and is completed exactly once.

mod choosing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::{NodeId, Penalty};

use super::answers::Claims;
use super::attempts::{Attempt, Attempts};
use super::contract::{Answer, Broken, Count, Fault, Out, Payload, Request, RequestError, Stats, Target, Timer};
use super::streams::{Claim, refuse};
use super::{Cx, Fx, arm_earlier};
use crate::config::Config;
use crate::handler::HandlerId;
use crate::resilience::{Breaker, Class, Next, Pace, Pacer, PeerTracker, Rates, Retries};
use crate::wire::streams::codes;
use crate::wire::{self, ErrorCode};

/// A pause is as long as this at least: a policy without pauses must not make a loop.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The attempt of this id has had its time.
    Attempt(u64),
    /// The operation of this token is tried again.
    Retry(u64),
}

#[derive(Debug)]
struct Operation {
    request: Box<Request>,
    began: Time,
    ends: Time,
    retries: Retries,
    /// The peer that was asked last, and since when it is.
    at: Option<(NodeId, Time)>,
    /// Peers that failed it.
    tried: Vec<NodeId>,
    waits: Waits,
    /// The peer at whose pace it waits for its place.
    paced: Option<NodeId>,
}

#[derive(Clone, Copy, Debug)]
enum Waits {
    ForAnswer(u64),
    ForRetry(Time),
}

/// What the peers that answer a handler have shown.
#[derive(Debug)]
struct Book {
    rates: Rates,
    tracker: PeerTracker,
}

#[derive(Debug)]
pub(super) struct Asking {
    operations: BTreeMap<u64, Operation>,
    bytes: usize,
    attempts: Attempts,
    pub(super) claims: Claims,
    due: BTreeSet<(Time, Due)>,
    armed: Option<Time>,
    breaker: Breaker,
    pacer: Option<Pacer>,
    /// By handlers that this node asks: as many as it may serve, and the others are not measured.
    books: BTreeMap<HandlerId, Book>,
}

impl Asking {
    pub(super) fn new(config: &Config, epoch: u32) -> Asking {
        Asking {
            operations: BTreeMap::new(),
            bytes: 0,
            attempts: Attempts::new(epoch),
            claims: Claims::default(),
            due: BTreeSet::new(),
            armed: None,
            breaker: Breaker::new(config.breaker),
            pacer: config.pacing.map(Pacer::new),
            books: BTreeMap::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn wrap_soon(&mut self) {
        self.attempts.wrap_soon();
    }

    pub(super) fn capacity(&self, peer: &NodeId, handler: HandlerId) -> u64 {
        self.books.get(&handler).map_or(1, |book| book.rates.capacity(peer))
    }

    pub(super) fn request(&mut self, cx: &mut Cx<'_>, token: u64, request: Box<Request>) {
        let bytes = request.payload.len();
        if bytes > cx.config.max_payload {
            let error = RequestError::PayloadTooLarge { bytes, limit: cx.config.max_payload };
            cx.fx.emit(Out::Completed { token, result: Err(error) });
            return;
        }
        let limits = &cx.config.asked;
        // A second request by a token that is under way would be two completions for one name.
        let free = self.operations.len() < limits.node && self.bytes + bytes <= limits.node_bytes;
        if !free || self.operations.contains_key(&token) {
            cx.count(Count::Busy);
            cx.fx.emit(Out::Completed { token, result: Err(RequestError::Busy) });
            return;
        }
        let (began, ends) = (cx.now, cx.now + request.terms.operation);
        if !self.books.contains_key(&request.handler) && self.books.len() < cx.config.max_handlers {
            let book =
                Book { rates: Rates::new(cx.now, cx.config.rates), tracker: PeerTracker::new(cx.config.tracker) };
            self.books.insert(request.handler, book);
        }
        let retries = Retries::new(request.terms.retry);
        let waits = Waits::ForRetry(began);
        let operation = Operation { request, began, ends, retries, at: None, tried: Vec::new(), waits, paced: None };
        self.bytes += bytes;
        self.operations.insert(token, operation);
        self.attempt(cx, token);
    }

    fn attempt(&mut self, cx: &mut Cx<'_>, token: u64) {
        // A place is good for one attempt, whatever comes of it.
        let place = self.operations.get_mut(&token).and_then(|operation| operation.paced.take());
        let Some(operation) = self.operations.get(&token) else { return };
        let handler = operation.request.handler;
        let (peer, session) = match self.choose(cx, operation, place) {
            Ok(chosen) => chosen,
            Err(error) => {
                let (count, class) = match error {
                    RequestError::Busy => (Count::Busy, Class::Throttled),
                    RequestError::CircuitOpen => (Count::CircuitOpen, Class::Unreachable),
                    _ => (Count::NoPeers, Class::Unreachable),
                };
                cx.count(count);
                return self.failed(cx, token, error, class);
            }
        };
        let bytes = operation.request.payload.len();
        if !self.attempts.has_room(&cx.config.asked, &peer, bytes) {
            cx.count(Count::Busy);
            return self.failed(cx, token, RequestError::Busy, Class::Throttled);
        }
        let measured = || self.books.get(&handler).map_or(cx.config.rates.initial, |book| book.rates.timeout());
        let terms = operation.request.terms;
        let since = operation.at.filter(|(at, _)| *at == peer).map_or(cx.now, |(_, since)| since);
        let ends = (cx.now + terms.attempt.unwrap_or_else(measured)).min(since + terms.request).min(operation.ends);
        if ends <= cx.now {
            return self.finish(cx, token, Err(RequestError::TimedOut));
        }
        let latest = operation.ends.min(since + terms.request);
        // Half of its time is for the answer: a place at its end would be a time-out, and taken for the peer's.
        let latest = cx.now + latest.since(cx.now) / 2;
        if place != Some(peer)
            && let Some(pacer) = &mut self.pacer
        {
            match pacer.begin(cx.now, peer, handler, latest) {
                Pace::Now => {}
                Pace::At(at) => return self.wait_its_turn(cx, token, peer, at),
                Pace::Never => {
                    cx.count(Count::Paced);
                    return self.failed(cx, token, RequestError::Busy, Class::Throttled);
                }
            }
        }
        if !self.breaker.begin(cx.now, &peer, handler) {
            cx.count(Count::CircuitOpen);
            return self.failed(cx, token, RequestError::CircuitOpen, Class::Unreachable);
        }
        let lane = cx.lane(bytes);
        let packet = {
            // Registered before it is sent: no answer can be faster.
            let attempt = Attempt { token, session, peer, handler, bytes, lane, sent: cx.now, ends };
            let id = self.attempts.begin(attempt);
            self.due.insert((ends, Due::Attempt(id)));
            let Some(operation) = self.operations.get_mut(&token) else { return };
            operation.at = Some((peer, since));
            operation.waits = Waits::ForAnswer(id);
            (id, wire::request(id, handler, ends.since(cx.now), &operation.request.payload))
        };
        if let Some(book) = self.books.get_mut(&handler) {
            book.tracker.asked(peer);
        }
        cx.count(Count::Asked);
        cx.push(session, lane, packet.1, Some(packet.0));
    }

    /// Takes an attempt out of all tables, as far as it is this session's.
    fn end(&mut self, cx: &mut Cx<'_>, id: u64, session: Option<SessionId>) -> Option<Attempt> {
        let attempt = self.attempts.end(id, session)?;
        self.due.remove(&(attempt.ends, Due::Attempt(id)));
        self.claims.ended(cx, id);
        Some(attempt)
    }

    /// A stream claims to bring an answer. Its length is judged before a byte of it is read.
    pub(super) fn claimed(&mut self, cx: &mut Cx<'_>, claim: Claim) {
        let Claim { stream, session, id, length, .. } = claim;
        if !self.attempts.is_out(id, session) || self.claims.has(id) {
            self.unexpected(cx, session, id);
            return refuse(cx, stream, codes::UNWANTED);
        }
        if length > cx.config.max_payload {
            cx.count(Count::AnswerTooLarge);
            cx.fx.emit(Out::Report { session, penalty: Penalty::MalformedMessage });
            refuse(cx, stream, codes::TOO_LARGE);
            return self.answered(cx, session, id, Err(Fault::new(ErrorCode::TooLarge, "")));
        }
        self.claims.add(cx, claim);
    }

    /// A stream has brought its answer, or never will.
    pub(super) fn answer_came(&mut self, cx: &mut Cx<'_>, stream: u64, answer: Result<Payload, Broken>) {
        let Some(Claim { session, id, .. }) = self.claims.came(cx, stream) else { return };
        let answer = answer.map(|Payload(payload)| payload).map_err(|broken| {
            cx.count(Count::AnswerBroken);
            if broken == Broken::Length {
                cx.fx.emit(Out::Report { session, penalty: Penalty::MalformedMessage });
            }
            Fault::new(ErrorCode::Internal, "the answer broke off")
        });
        self.answered(cx, session, id, answer);
    }

    /// An answer to a request that is not out.
    fn unexpected(&mut self, cx: &mut Cx<'_>, session: SessionId, id: u64) {
        if self.attempts.late(id, session) {
            return cx.count(Count::LateAnswer);
        }
        let of_this_life = self.attempts.is_of_this_life(id);
        let count = if of_this_life { Count::Unrequested } else { Count::EarlierLife };
        cx.peers.forgive(cx.now, session, count, cx.fx);
    }

    /// An answer, or an error in its place, came.
    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, session: SessionId, id: u64, answer: Result<Bytes, Fault>) {
        let Some(attempt) = self.end(cx, id, Some(session)) else { return self.unexpected(cx, session, id) };
        let Attempt { token, peer, handler, sent, .. } = attempt;
        let took = cx.now.since(sent);
        let book = self.books.get_mut(&handler);
        match answer {
            Ok(payload) => {
                self.breaker.succeeded(&peer, handler);
                if let Some(pacer) = &mut self.pacer {
                    pacer.answered(cx.now, &peer, handler);
                }
                if let Some(book) = book {
                    book.tracker.answered(cx.now, &peer, payload.len(), took);
                    // An answer without bytes is an answer.
                    book.rates.observe(cx.now, peer, payload.len().max(1) as u64, took);
                }
                let Some(operation) = self.operations.get(&token) else { return };
                cx.count(Count::Answered);
                let took = cx.now.since(operation.began);
                self.finish(cx, token, Ok(Answer { payload, from: Some(peer), took }));
            }
            Err(Fault { code, text }) => {
                cx.count(Count::Refused);
                let class = match code {
                    ErrorCode::Throttled => Class::Throttled,
                    ErrorCode::Internal | ErrorCode::UnknownHandler | ErrorCode::NotMember => Class::NotServed,
                    _ => Class::Final,
                };
                match code {
                    ErrorCode::Internal => self.fails(cx, &peer, handler),
                    // It is busy, not broken.
                    ErrorCode::Throttled => {
                        self.breaker.forgive(&peer, handler);
                        if let Some(pacer) = &mut self.pacer {
                            pacer.throttled(cx.now, &peer, handler);
                        }
                    }
                    _ => self.breaker.succeeded(&peer, handler),
                }
                if let Some(book) = self.books.get_mut(&handler) {
                    match class {
                        Class::Final => book.tracker.released(&peer),
                        _ => book.tracker.failed(cx.now, &peer),
                    }
                }
                self.failed(cx, token, RequestError::Refused { code, text }, class);
            }
        }
    }

    /// The breaker hears of a failure.
    fn fails(&mut self, cx: &mut Cx<'_>, peer: &NodeId, handler: HandlerId) {
        if self.breaker.failed(cx.now, peer, handler, cx.rng) {
            cx.count(Count::CircuitOpened);
        }
    }

    pub(super) fn not_sent(&mut self, cx: &mut Cx<'_>, session: SessionId, tag: u64) {
        let Some(attempt) = self.end(cx, tag, Some(session)) else { return };
        cx.count(Count::NotSent);
        self.release(&attempt);
        self.failed(cx, attempt.token, RequestError::NotSent, Class::Throttled);
    }

    /// An attempt ended without a word on its peer.
    fn release(&mut self, attempt: &Attempt) {
        self.breaker.forgive(&attempt.peer, attempt.handler);
        if let Some(book) = self.books.get_mut(&attempt.handler) {
            book.tracker.released(&attempt.peer);
        }
    }

    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>, token: u64) {
        let Some(operation) = self.operations.get(&token) else { return };
        if let Waits::ForAnswer(id) = operation.waits
            && let Some(attempt) = self.end(cx, id, None)
        {
            self.release(&attempt);
            self.attempts.retire(id, attempt.session, cx.now + cx.config.grace, cx.config.max_retired);
            cx.push(attempt.session, attempt.lane, wire::cancel(id), None);
        }
        cx.count(Count::Cancelled);
        self.finish(cx, token, Err(RequestError::Cancelled));
    }

    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, session: SessionId, gone: Option<NodeId>) {
        self.attempts.forget(session);
        for id in self.attempts.of(session) {
            let Some(attempt) = self.end(cx, id, None) else { continue };
            cx.count(Count::Disconnected);
            self.fails(cx, &attempt.peer, attempt.handler);
            if let Some(book) = self.books.get_mut(&attempt.handler) {
                book.tracker.failed(cx.now, &attempt.peer);
            }
            self.failed(cx, attempt.token, RequestError::Disconnected, Class::Unreachable);
        }
        if let Some(peer) = gone {
            if let Some(pacer) = &mut self.pacer {
                pacer.forget(&peer);
            }
            for book in self.books.values_mut() {
                book.tracker.forget(&peer);
                book.rates.forget(&peer);
            }
        }
    }

    /// An attempt failed: what now?
    fn failed(&mut self, cx: &mut Cx<'_>, token: u64, error: RequestError, class: Class) {
        let Some(operation) = self.operations.get_mut(&token) else { return };
        let class = match (class, &operation.request.target) {
            // There is nobody else who could.
            (Class::NotServed, Target::Peer(_)) => Class::Final,
            (class, _) => class,
        };
        if let Some((peer, _)) = operation.at
            && !operation.tried.contains(&peer)
        {
            operation.tried.push(peer);
        }
        let next = match operation.retries.failed(cx.now, class, cx.rng) {
            Next::Again { at, .. } if at == cx.now => Some(at),
            Next::Again { at, .. } => Some(at.max(cx.now + LEAST_PAUSE)),
            Next::GiveUp => None,
        };
        match next {
            Some(at) if at < operation.ends => {
                operation.waits = Waits::ForRetry(at);
                self.due.insert((at, Due::Retry(token)));
                cx.count(Count::Retried);
            }
            _ => {
                let fallback = operation.request.fallback.take().filter(|_| class != Class::Final);
                let took = cx.now.since(operation.began);
                let result = match fallback {
                    Some(fallback) => {
                        cx.count(Count::FellBack);
                        Ok(Answer { payload: fallback.0, from: None, took })
                    }
                    None => Err(error),
                };
                self.finish(cx, token, result);
            }
        }
    }

    /// The one place where requests that were begun are completed.
    fn finish(&mut self, cx: &mut Cx<'_>, token: u64, result: Result<Answer, RequestError>) {
        let Some(operation) = self.operations.remove(&token) else { return };
        if let Waits::ForRetry(at) = operation.waits {
            self.due.remove(&(at, Due::Retry(token)));
        }
        if let (Some(peer), Some(pacer)) = (operation.paced, &mut self.pacer) {
            pacer.leave(cx.now, &peer, operation.request.handler);
        }
        self.bytes -= operation.request.payload.len();
        cx.fx.emit(Out::Completed { token, result });
    }

    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        self.armed = None;
        self.attempts.expire(cx.now);
        // What is due again at this instant waits for the next round.
        let later = self.due.split_off(&(cx.now + Duration::from_nanos(1), Due::Attempt(0)));
        for (_, due) in std::mem::replace(&mut self.due, later) {
            match due {
                // One of this round may have ended another's.
                Due::Attempt(id) if self.attempts.has(id) => self.timed_out(cx, id),
                Due::Retry(token) => self.attempt(cx, token),
                Due::Attempt(_) => {}
            }
        }
    }

    fn timed_out(&mut self, cx: &mut Cx<'_>, id: u64) {
        let ended = self.end(cx, id, None);
        let Some(Attempt { token, session, peer, handler, sent, .. }) = ended else { return };
        cx.count(Count::TimedOut);
        self.attempts.retire(id, session, cx.now + cx.config.grace, cx.config.max_retired);
        self.fails(cx, &peer, handler);
        if let Some(book) = self.books.get_mut(&handler) {
            book.tracker.failed(cx.now, &peer);
            book.rates.observe(cx.now, peer, 0, cx.now.since(sent));
        }
        self.failed(cx, token, RequestError::TimedOut, Class::TimedOut);
    }

    pub(super) fn arm(&mut self, fx: &mut Fx) {
        let next = self.due.first().map(|(at, _)| *at).into_iter().chain(self.attempts.next_expiry()).min();
        arm_earlier(fx, Timer::Asked, &mut self.armed, next);
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        self.attempts.stats(stats);
        self.claims.stats(stats);
        stats.operations = self.operations.len();
        stats.operation_bytes = self.bytes;
        stats.deadlines += self.due.len();
    }
}
