//! A session's rules after the handshake: keep-alive, credit, reassembly, and how it ends.

mod contract;
mod credit;
mod held;
mod partial;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Effects, Machine, Time};
use peerage_queue::{ChannelId, Delivery, Flow, SessionId};
use peerage_wire::DisconnectReason;
use peerage_wire::frame::{Header, Kind, Lane, MESSAGE_COST, first_window};

use crate::Config;
use contract::TIMERS;
use held::HELD_LOOK;
use partial::Partial;

pub(crate) use credit::Credit;

pub use contract::{Allocator, EndedBy, In, Memory, Out, Timer, Writing};

#[derive(Debug)]
struct InFlow {
    credit: Credit,
    partial: Option<Partial>,
    /// The largest message that came.
    largest: u64,
    /// What all messages that came whole cost.
    delivered: u64,
}

/// Pings that may be under way; an answer to an older one no longer counts.
pub(crate) const PINGS: usize = 8;

/// The first ping goes out this long after the start, or as soon as a window wants to grow.
const FIRST_PING: Duration = Duration::from_secs(1);

/// The rules of one session.
///
/// Its bounds: at most eight pings, one message under reassembly for each flow, and of each flow no more bytes, unfinished
/// and unhandled ones together, than are reserved for it in the node's inbound pool. The pump keeps as many answers to
/// pings at most, and one frame of credit for each flow.
#[derive(Debug)]
pub struct SessionMachine {
    config: Config,
    session: SessionId,
    /// Four for each channel.
    flows: Vec<InFlow>,
    /// Flows that wait for the inbound pool, oldest first, and for how much.
    wants: VecDeque<(usize, u64)>,
    heard: Time,
    /// Since when nothing is read.
    held: Option<Time>,
    /// Payload bytes of all frames.
    received: u64,
    /// Nonces and when they were sent, oldest first.
    pings: VecDeque<(u64, Time)>,
    next_nonce: u64,
    /// The shortest round trip, drifting towards longer ones, so that a queue on the way is not taken for distance.
    round_trip: Option<Duration>,
    /// Why it ends when what is queued has gone out.
    draining: Option<DisconnectReason>,
    /// Others wait for what unfinished messages hold.
    contended: bool,
    ended: bool,
}

type Fx = Effects<Out, Timer>;

impl SessionMachine {
    /// A session with channels 1 to `channels` besides its own.
    pub fn new(config: Config, session: SessionId, channels: u16) -> SessionMachine {
        let flow = |lane| InFlow { credit: Credit::new(first_window(lane)), partial: None, largest: 0, delivered: 0 };
        SessionMachine {
            config,
            session,
            flows: (0..channels).flat_map(|_| Lane::ALL.map(flow)).collect(),
            wants: VecDeque::new(),
            heard: Time::ZERO,
            held: None,
            received: 0,
            pings: VecDeque::new(),
            next_nonce: 0,
            round_trip: None,
            draining: None,
            contended: false,
            ended: false,
        }
    }

    /// Says whether other sessions wait for the inbound pool: then a message must come faster. Told before timers expire.
    pub fn contended(&mut self, contended: bool) {
        self.contended = contended;
    }

    /// Whether it waits for the inbound pool.
    pub fn wants(&self) -> bool {
        !self.wants.is_empty()
    }

    /// The round trip that windows are sized for, once it is known.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// A frame came in that is not for this machine: one of a [stream](crate::StreamsMachine).
    pub const fn heard(&mut self, now: Time, bytes: usize) {
        self.heard = now;
        self.received += bytes as u64;
    }

    /// How many flows there are.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// A flow's number: what permits are counted by.
    fn index(&self, header: &Header) -> Option<usize> {
        let channel = usize::from(header.channel).checked_sub(1)?;
        let index = channel * Lane::ALL.len() + header.lane as usize;
        (header.stream == 0 && index < self.flows.len()).then_some(index)
    }

    /// The flow with this number.
    pub fn flow(&self, index: usize) -> Flow {
        let channel = ChannelId((index / Lane::ALL.len() + 1) as u16);
        Flow { channel, stream: 0, lane: Lane::ALL[index % Lane::ALL.len()] }
    }

    /// The cost of the messages that were delivered and whose permits were not known to be dropped.
    pub fn outstanding(&self, returned: impl Fn(usize) -> u64) -> u64 {
        let flows = self.flows.iter().enumerate();
        flows.map(|(index, flow)| flow.delivered.saturating_sub(returned(index))).sum()
    }

    /// The total of a flow's dropped permits at which it has something to do.
    pub fn wake_at(&self, flow: usize) -> u64 {
        self.flows[flow].credit.wake_at()
    }

    fn end(&mut self, reason: DisconnectReason, by: EndedBy, fx: &mut Fx) {
        self.ended = true;
        self.flows.iter_mut().for_each(|flow| flow.partial = None);
        if by == EndedBy::Us {
            fx.emit(Out::Send(Kind::Disconnect, reason.code().to_be_bytes().to_vec()));
        }
        TIMERS.into_iter().for_each(|timer| fx.disarm(timer));
        fx.emit(Out::End(reason, by));
    }

    fn malformed(&mut self, fx: &mut Fx) {
        self.end(DisconnectReason::ProtocolError, EndedBy::Us, fx);
    }

    fn ping(&mut self, now: Time, fx: &mut Fx) {
        self.next_nonce += 1;
        if self.pings.len() == PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((self.next_nonce, now));
        fx.emit(Out::Send(Kind::Ping, self.next_nonce.to_be_bytes().to_vec()));
        fx.arm(Timer::Ping, now + self.config.ping_interval);
    }

    /// A frame came in. Returns the message that it completes, with its flow's number.
    ///
    /// A method and not an [`In`], because millions a second come this way, and their bytes stay in the reader's buffer
    /// until it is known what becomes of them.
    pub fn receive(
        &mut self,
        now: Time,
        header: &Header,
        payload: &[u8],
        memory: &mut impl Memory,
        fx: &mut Fx,
    ) -> Option<(usize, Delivery)> {
        if self.ended {
            return None;
        }
        self.heard = now;
        self.received += payload.len() as u64;
        match header.kind {
            Kind::Data => return self.data(now, header, payload, memory, fx),
            Kind::Unknown(_) => fx.emit(Out::Skipped),
            Kind::Credit | Kind::Reclaim | Kind::Reclaimed => self.credit_frame(header, payload, fx),
            kind => self.own_frame(now, kind, payload, fx),
        }
        None
    }

    fn own_frame(&mut self, now: Time, kind: Kind, payload: &[u8], fx: &mut Fx) {
        match (kind, payload.try_into().map(u64::from_be_bytes)) {
            (Kind::Ping, Ok(_)) => fx.emit(Out::Send(Kind::Pong, payload.to_vec())),
            // An answer nobody waits for is late, not wrong (AvalancheGo's "unexpected pong" ended sessions).
            (Kind::Pong, Ok(nonce)) => {
                let answered = self.pings.iter().position(|(sent, _)| *sent == nonce);
                if let Some((_, sent)) = answered.and_then(|position| self.pings.remove(position)) {
                    let measured = now.since(sent);
                    let known = self.round_trip.unwrap_or(measured);
                    self.round_trip = Some(measured.min(known + measured.saturating_sub(known) / 8));
                    fx.emit(Out::RoundTrip(measured));
                }
            }
            (Kind::Disconnect, _) => {
                // Longer farewells may come with later versions; without a code, the peer gave no reason.
                let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                let reason = code.map_or(DisconnectReason::Requested, DisconnectReason::from_code);
                self.end(reason, EndedBy::Peer, fx);
            }
            _ => self.malformed(fx),
        }
    }

    fn credit_frame(&mut self, header: &Header, payload: &[u8], fx: &mut Fx) {
        let (Some(index), Ok(limit)) = (self.index(header), payload.try_into().map(u64::from_be_bytes)) else {
            return self.malformed(fx);
        };
        match header.kind {
            Kind::Credit => fx.emit(Out::MaySend(self.flow(index), limit)),
            Kind::Reclaim => fx.emit(Out::Yield(self.flow(index), limit)),
            _ => {
                let flow = self.flow(index);
                match self.flows[index].credit.reclaimed(limit, first_window(flow.lane)) {
                    Ok(freed) => {
                        fx.emit(Out::GiveBack(freed));
                        self.advance(index, fx);
                    }
                    Err(_) => self.malformed(fx),
                }
            }
        }
    }

    fn data(
        &mut self,
        now: Time,
        header: &Header,
        payload: &[u8],
        memory: &mut impl Memory,
        fx: &mut Fx,
    ) -> Option<(usize, Delivery)> {
        let Some(index) = self.index(header) else {
            self.malformed(fx);
            return None;
        };
        let delivery = |payload: Bytes| Delivery {
            session: self.session,
            channel: ChannelId(header.channel),
            stream: 0,
            lane: header.lane,
            payload,
        };
        let flow = &mut self.flows[index];
        match &mut flow.partial {
            None if !header.more
                && !header.total
                && payload.len() <= self.config.max_message
                && flow.credit.receive(payload.len() as u64 + MESSAGE_COST).is_ok() =>
            {
                flow.delivered += payload.len() as u64 + MESSAGE_COST;
                return Some((index, delivery(Bytes::copy_from_slice(payload))));
            }
            None if header.more && header.total => {
                if let Some((stated, first)) = payload.split_first_chunk::<4>() {
                    let total = u32::from_be_bytes(*stated) as usize;
                    let fits = total <= self.config.max_message && !first.is_empty() && first.len() < total;
                    if fits && flow.credit.receive(first.len() as u64 + MESSAGE_COST).is_ok() {
                        let bytes = memory.take(total);
                        let partial = Partial { total, bytes, touched: now, allowed: None };
                        flow.partial.insert(partial).push(first);
                        self.begin(now, index, fx);
                        return None;
                    }
                }
            }
            Some(partial) if !header.total => {
                let left = partial.total - partial.bytes.len();
                let fits = if header.more { payload.len() < left } else { payload.len() == left };
                if fits && !payload.is_empty() && flow.credit.receive(payload.len() as u64).is_ok() {
                    partial.touched = now;
                    partial.push(payload);
                    if header.more {
                        return None;
                    }
                    flow.largest = flow.largest.max(partial.total as u64);
                    let whole = flow.partial.take()?.bytes;
                    flow.delivered += whole.len() as u64 + MESSAGE_COST;
                    return Some((index, delivery(memory.whole(whole))));
                }
            }
            _ => {}
        }
        self.malformed(fx);
        None
    }

    /// The first fragment of a message is here: sees to the credit for the rest.
    fn begin(&mut self, now: Time, index: usize, fx: &mut Fx) {
        let flow = &mut self.flows[index];
        let Some(partial) = &mut flow.partial else { return };
        let need = flow.credit.begin(partial.total as u64, partial.bytes.len() as u64);
        if need > 0 {
            self.wants.push_back((index, need));
            if self.wants.len() == 1 {
                fx.emit(Out::Want(need));
            }
        } else {
            self.advance(index, fx);
        }
        self.check_reassembly(now, fx);
    }

    fn advance(&mut self, index: usize, fx: &mut Fx) {
        if let Some(limit) = self.flows[index].credit.advance() {
            fx.emit(Out::Credit(self.flow(index), limit));
        }
    }

    fn released(&mut self, now: Time, index: usize, total: u64, fx: &mut Fx) {
        let lane = self.flow(index).lane;
        let flow = &mut self.flows[index];
        let spare = flow.credit.release(total);
        if spare > 0 {
            fx.emit(Out::GiveBack(spare));
        }
        // Control is small and has its fixed window.
        if lane != Lane::Control {
            let max = self.config.max_window as u64;
            match flow.credit.growth(now, self.round_trip, flow.largest, max) {
                0 => {}
                by => fx.emit(Out::Grow { flow: index, by }),
            }
            // The window is in use and the distance unknown: time to measure it.
            if self.round_trip.is_none() && self.pings.is_empty() {
                self.ping(now, fx);
            }
        }
        self.advance(index, fx);
    }

    fn granted(&mut self, now: Time, mut bytes: u64, fx: &mut Fx) {
        while bytes > 0
            && let Some((index, left)) = self.wants.front_mut()
        {
            let (index, part) = (*index, bytes.min(*left));
            bytes -= part;
            *left -= part;
            let whole = *left == 0;
            let flow = &mut self.flows[index];
            let spare = flow.credit.grant(part);
            if spare > 0 {
                fx.emit(Out::GiveBack(spare));
            }
            if let Some(partial) = &mut flow.partial {
                partial.touched = now;
            }
            if whole {
                self.wants.pop_front();
                if let Some((_, next)) = self.wants.front() {
                    fx.emit(Out::Want(*next));
                }
            }
            self.advance(index, fx);
        }
    }

    /// Ends the session over a message that its peer could finish and does not.
    fn check_reassembly(&mut self, now: Time, fx: &mut Fx) {
        let mut next: Option<Time> = None;
        for flow in &mut self.flows {
            let Some(partial) = &mut flow.partial else { continue };
            // What holds it up may be this end: no credit, because earlier messages have not been handled.
            if !flow.credit.has_credit((partial.total - partial.bytes.len()) as u64) {
                partial.touched = now;
            }
            if partial.allowed.is_none() && flow.credit.covers_message() {
                partial.allowed = Some((now, self.received));
            }
            let due = partial.due(&self.config, self.received, self.contended);
            if due <= now && self.held.is_none() {
                return self.end(DisconnectReason::Stalled, EndedBy::Us, fx);
            }
            let due = if due <= now { now + HELD_LOOK } else { due };
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        if let Some(next) = next {
            fx.arm(Timer::Reassembly, next);
        }
    }

    /// Asks for the windows back that lie idle. A peer that answers pings and not that is stalled; the question may have
    /// waited for a turn here.
    fn reclaim(&mut self, now: Time, fx: &mut Fx) {
        let patience = self.config.idle_timeout + self.config.stall_timeout;
        for index in 0..self.flows.len() {
            let flow = self.flow(index);
            let credit = &mut self.flows[index].credit;
            if self.held.is_none() && credit.reclaiming_since().is_some_and(|since| since + patience <= now) {
                return self.end(DisconnectReason::Stalled, EndedBy::Us, fx);
            }
            if let Some(limit) = credit.reclaim(now, first_window(flow.lane)) {
                fx.emit(Out::Reclaim(flow, limit));
            }
        }
    }
}

impl Machine for SessionMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        if self.ended {
            return;
        }
        match input {
            In::Start => {
                self.heard = now;
                fx.arm(Timer::Idle, now + self.config.idle_timeout);
                // Not at once: most of what a session costs before it is used are the packets of its set-up.
                fx.arm(Timer::Ping, now + self.config.ping_interval.min(FIRST_PING));
            }
            In::Released { flow, total } => self.released(now, flow, total, fx),
            In::Granted(bytes) => self.granted(now, bytes, fx),
            In::Starved(waited) => {
                if waited >= self.config.starve_timeout {
                    self.end(DisconnectReason::Stalled, EndedBy::Us, fx);
                }
            }
            In::Grown { flow, by } => {
                self.flows[flow].credit.grown(by);
                self.advance(flow, fx);
            }
            // The whole turn, not any byte of it, must go in time: who takes a byte now and then would hold what is
            // queued for it, and its part of the node's pool, for ever.
            In::Writing(Writing::Done) => fx.disarm(Timer::Stall),
            In::Writing(Writing::Waiting) => fx.arm(Timer::Stall, now + self.config.stall_timeout),
            In::Disconnect(reason @ (DisconnectReason::Quitting | DisconnectReason::Requested)) => {
                if self.draining.is_none() {
                    fx.arm(Timer::Drain, now + self.config.disconnect_timeout / 2);
                    fx.emit(Out::Drain);
                }
                self.draining = Some(reason);
            }
            In::Disconnect(reason) => self.end(reason, EndedBy::Us, fx),
            In::Drained => self.end(self.draining.unwrap_or(DisconnectReason::Requested), EndedBy::Us, fx),
            In::Measure => {
                if self.round_trip.is_none() && self.pings.is_empty() {
                    self.ping(now, fx);
                }
            }
            In::Held(held) => self.hold(now, held),
            In::Broken => self.end(DisconnectReason::NetworkError, EndedBy::Network, fx),
            In::Malformed => self.malformed(fx),
        }
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        if self.ended {
            return;
        }
        match timer {
            Timer::Ping => {
                self.reclaim(now, fx);
                if !self.ended {
                    self.ping(now, fx);
                }
            }
            // Armed once, and moved when it fires: not with every frame.
            Timer::Idle if now < self.heard + self.config.idle_timeout => {
                fx.arm(Timer::Idle, self.heard + self.config.idle_timeout);
            }
            Timer::Idle if self.held.is_some() => fx.arm(Timer::Idle, now + HELD_LOOK),
            Timer::Idle => self.end(DisconnectReason::Idle, EndedBy::Us, fx),
            Timer::Drain => self.end(self.draining.unwrap_or(DisconnectReason::Requested), EndedBy::Us, fx),
            Timer::Stall => self.end(DisconnectReason::Stalled, EndedBy::Us, fx),
            Timer::Reassembly => self.check_reassembly(now, fx),
        }
    }
}

#[cfg(test)]
mod tests;
