//! The router's rules: what is asked, what is served, and that each ends exactly once.

mod answers;
mod asking;
mod attempts;
mod calls;
mod contract;
mod counts;
mod peers;
mod places;
mod serving;
mod streams;

use bytes::Bytes;
use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_queue::SessionId;
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty};

use self::asking::Asking;
pub use self::contract::{
    Answer, AnswerSent, Broken, Call, Count, Fault, In, OpenStreamError, Out, Outgoing, Payload, PeerUp, Request,
    RequestError, Stats, Target, Terms, Timer,
};
use self::peers::Peers;
use self::places::Part;
use self::serving::{Arrived, Serving};
use self::streams::Streams;
use crate::config::Config;
use crate::handler::Rate;
use crate::resilience::{Sampled, SlidingWindow, fair_limit};
use crate::wire::{self, Item};

type Fx = Effects<Out, Timer>;

/// The router.
///
/// Ids of requests on the wire are 32 bits of `epoch`, chosen at random for each life, and 32 bits that count and skip
/// ids whose answers are still expected: an answer to an earlier life, or from before the count wrapped, is never taken
/// for another one's.
#[derive(Debug)]
pub struct RouterMachine {
    config: Config,
    rng: Rng,
    peers: Peers,
    asking: Asking,
    serving: Serving,
    streams: Streams,
    handling: Option<SessionId>,
}

/// What a part of the machine works with.
struct Cx<'a> {
    now: Time,
    config: &'a Config,
    peers: &'a mut Peers,
    rng: &'a mut Rng,
    fx: &'a mut Fx,
}

impl Cx<'_> {
    fn count(&mut self, count: Count) {
        self.fx.emit(Out::Count(count));
    }

    /// What of every limit is kept for a peer.
    fn part(&self, peer: &NodeId) -> Part {
        self.peers.part(peer, self.config.kept_for_members)
    }

    /// Whether a peer's limit has room for one more, which it takes; a fair one is the peer's part among the members.
    fn in_rate(&self, window: &mut Option<SlidingWindow>, rate: Option<Rate>, fair: bool, from: &NodeId) -> bool {
        let (Some(window), Some(Rate { calls, .. })) = (window, rate) else { return true };
        let members = || u32::try_from(self.peers.members.len()).unwrap_or(u32::MAX);
        window.take_within(self.now, from, if fair { fair_limit(calls, members()) } else { calls })
    }

    /// How urgent a payload of this size is.
    fn lane(&self, bytes: usize) -> Lane {
        if bytes <= self.config.high_lane_up_to { Lane::High } else { Lane::Normal }
    }

    fn push(&mut self, session: SessionId, lane: Lane, bytes: Bytes, tag: Option<u64>) {
        if let Some(to) = self.peers.recipient(session) {
            self.fx.emit(Out::Push(Outgoing { to: vec![to], lane, bytes, tag }));
        }
    }
}

/// Sets an alarm that would be too late. What was first has mostly ended in time: then the alarm stays, and finds at worst
/// that nothing is due.
fn arm_earlier(fx: &mut Fx, timer: Timer, armed: &mut Option<Time>, next: Option<Time>) {
    if let Some(next) = next.filter(|next| armed.is_none_or(|armed| *next < armed)) {
        fx.arm(timer, next);
        *armed = Some(next);
    }
}

impl RouterMachine {
    /// A router without peers and handlers. `seed` is of all random decisions; `epoch` is random, and another one in
    /// each life.
    pub fn new(config: Config, seed: u64, epoch: u32) -> RouterMachine {
        RouterMachine {
            rng: Rng::new(seed),
            peers: Peers::new(&config),
            asking: Asking::new(&config, epoch),
            serving: Serving::new(epoch),
            streams: Streams::default(),
            handling: None,
            config,
        }
    }

    /// Whose message is being handled: whom a panic is charged to.
    pub fn handling(&self) -> Option<SessionId> {
        self.handling
    }

    /// How much it holds.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { peers: self.peers.len(), ..Stats::default() };
        self.asking.stats(&mut stats);
        self.serving.stats(&mut stats);
        self.streams.stats(&mut stats);
        stats
    }

    /// How many bytes a handler of a peer is worth being asked for at once, by what it has shown; one if it has shown
    /// nothing.
    pub fn capacity(&self, peer: &NodeId, handler: crate::HandlerId) -> u64 {
        self.asking.capacity(peer, handler)
    }

    fn arm(&mut self, fx: &mut Fx) {
        self.asking.arm(fx);
        self.serving.arm(fx);
        self.streams.arm(fx);
    }

    fn inbound(&mut self, now: Time, session: SessionId, payload: Bytes, fx: &mut Fx) {
        let Some(from) = self.peers.id(session) else {
            fx.emit(Out::Count(Count::UnknownSession));
            return;
        };
        let whole = payload.len();
        for item in wire::items(payload, self.config.max_payload) {
            let (asking, serving) = (&mut self.asking, &mut self.serving);
            let mut cx = Cx { now, config: &self.config, peers: &mut self.peers, rng: &mut self.rng, fx };
            match item {
                Ok(Item::Request { id, handler, deadline, payload }) => {
                    let payload = detached(payload, whole);
                    serving.arrived(&mut cx, Arrived { session, from, id: Some(id), handler, deadline, payload });
                }
                Ok(Item::Message { handler, payload }) => {
                    let (payload, deadline) = (detached(payload, whole), self.config.max_deadline);
                    serving.arrived(&mut cx, Arrived { session, from, id: None, handler, deadline, payload });
                }
                Ok(Item::Cancel { id }) => serving.cancelled(&mut cx, session, id),
                Ok(Item::Response { id, payload }) => {
                    asking.answered(&mut cx, session, id, Ok(detached(payload, whole)));
                }
                Ok(Item::Error { id, code, text }) => {
                    asking.answered(&mut cx, session, id, Err(Fault { code, text }));
                }
                Ok(Item::Unknown(_)) => cx.count(Count::UnknownKind),
                Err(_) => {
                    cx.count(Count::Malformed);
                    fx.emit(Out::Report { session, penalty: Penalty::MalformedMessage });
                }
            }
        }
    }

    fn send(&mut self, cx_now: Time, token: u64, send: Send, fx: &mut Fx) {
        let Send { to, handler, payload } = send;
        if payload.len() > self.config.max_payload {
            let error = RequestError::PayloadTooLarge { bytes: payload.len(), limit: self.config.max_payload };
            fx.emit(Out::Sent { token, result: Err(error) });
            return;
        }
        let sampled: Sampled = self.peers.sampler.sample(&to, &self.peers.members, &mut self.rng);
        let cx = Cx { now: cx_now, config: &self.config, peers: &mut self.peers, rng: &mut self.rng, fx };
        let to: Vec<_> = sampled.peers.iter().filter_map(|id| cx.peers.recipient(cx.peers.session(id)?)).collect();
        if !to.is_empty() {
            let bytes = wire::message(handler, &payload);
            cx.fx.emit(Out::Count(Count::Sent));
            cx.fx.emit(Out::Push(Outgoing { to, lane: cx.lane(payload.len()), bytes, tag: None }));
        }
        cx.fx.emit(Out::Sent { token, result: Ok(sampled) });
    }
}

struct Send {
    to: crate::resilience::Sample,
    handler: crate::HandlerId,
    payload: Bytes,
}

/// A payload that may be kept. A slice keeps alive all of the session message it came in, so a peer could make a node
/// hold 16 MiB for every few bytes it counts.
fn detached(payload: Bytes, message: usize) -> Bytes {
    if payload.len().saturating_mul(2) < message { Bytes::copy_from_slice(&payload) } else { payload }
}

impl Machine for RouterMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        if self.peers.members.stale(now, self.config.members_stale) {
            fx.emit(Out::MembersWanted);
        }
        match input {
            In::Inbound { session, payload } => {
                self.handling = Some(session);
                self.inbound(now, session, payload, fx);
                self.handling = None;
            }
            In::StreamHeader { stream, header } => {
                self.handling = self.streams.session(stream);
                let mut cx = Cx { now, config: &self.config, peers: &mut self.peers, rng: &mut self.rng, fx };
                if let Some(claim) = self.streams.header(&mut cx, stream, header) {
                    self.asking.claimed(&mut cx, claim);
                }
                self.handling = None;
            }
            In::AnswerCame { stream, answer } => {
                self.handling = self.asking.claims.session(stream);
                let mut cx = Cx { now, config: &self.config, peers: &mut self.peers, rng: &mut self.rng, fx };
                self.asking.answer_came(&mut cx, stream, answer);
                self.handling = None;
            }
            In::Limits { asked, served } => (self.config.asked, self.config.served) = (asked, served),
            In::Send { token, to, handler, payload } => self.send(now, token, Send { to, handler, payload }, fx),
            input => {
                let (asking, serving, streams) = (&mut self.asking, &mut self.serving, &mut self.streams);
                let mut cx = Cx { now, config: &self.config, peers: &mut self.peers, rng: &mut self.rng, fx };
                match input {
                    In::PeerUp(up) => cx.peers.up(up),
                    In::PeerDown { session } => {
                        if let Some((id, gone)) = cx.peers.down(session) {
                            asking.disconnected(&mut cx, session, gone.then_some(id));
                            serving.disconnected(&mut cx, session);
                            streams.disconnected(&mut cx, session);
                        }
                    }
                    In::Members(weights) => cx.peers.say_members(now, weights),
                    In::AddHandler { token, name, config } => serving.add(&mut cx, token, name, config),
                    In::RemoveHandler(handler) => serving.remove(&mut cx, handler),
                    In::Request { token, request } => asking.request(&mut cx, token, request),
                    In::Cancel { token } => asking.cancel(&mut cx, token),
                    In::Answered { call, answer } => serving.answered(&mut cx, call, answer),
                    In::SendFailed { session, tag } => asking.not_sent(&mut cx, session, tag),
                    In::HandlerPanicked { session } => {
                        cx.peers.forgive(cx.now, session, Count::HandlerPanicked, cx.fx);
                    }
                    In::AddStreams { token, name, config } => streams.add(&mut cx, token, name, config),
                    In::RemoveStreams(handler) => streams.remove(handler),
                    In::OpenStream { stream, peer, handler } => streams.open(&mut cx, stream, peer, handler),
                    In::StreamCame { stream, session } => streams.came(&mut cx, stream, session),
                    In::StreamOver { stream } => streams.over(stream),
                    In::AnswerSent { call, sent } => serving.sent(&mut cx, call, sent),
                    In::Inbound { .. }
                    | In::Send { .. }
                    | In::StreamHeader { .. }
                    | In::AnswerCame { .. }
                    | In::Limits { .. } => {}
                }
            }
        }
        self.arm(fx);
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        let (asking, serving) = (&mut self.asking, &mut self.serving);
        let mut cx = Cx { now, config: &self.config, peers: &mut self.peers, rng: &mut self.rng, fx };
        match timer {
            Timer::Asked => asking.expire(&mut cx),
            Timer::Served => serving.expire(&mut cx),
            Timer::Turn => serving.turn(&mut cx),
            Timer::Header => self.streams.expire(&mut cx),
        }
        self.arm(fx);
    }
}

#[cfg(test)]
mod tests;
