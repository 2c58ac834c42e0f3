//! A session's rules after the handshake: keep-alive, reassembly, and how it ends.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use peerage_machine::{Effects, Machine, Time};
use peerage_queue::{ChannelId, Delivery, SessionId};
use peerage_wire::DisconnectReason;
use peerage_wire::frame::{Header, Kind, Lane};
use serde::Serialize;

use crate::Config;

/// What may happen to a session.
#[derive(Clone, Debug, Serialize)]
pub enum In {
    /// It begins.
    Start,
    /// A frame came in.
    Frame {
        /// Its kind.
        kind: u8,
        /// Its lane.
        lane: Lane,
        /// More fragments of its message follow.
        more: bool,
        /// Its payload begins with the message's total length.
        total: bool,
        /// Its channel.
        channel: ChannelId,
        /// Its stream.
        stream: u64,
        /// Its payload.
        payload: Bytes,
    },
    /// A turn's bytes wait for the peer to take them, or all of them were taken.
    Writing(Writing),
    /// Somebody here wants it to end.
    Disconnect(DisconnectReason),
    /// The connection ended or broke.
    Broken,
    /// What came in does not decode or authenticate.
    Malformed,
}

impl In {
    /// The input that a decoded frame is.
    pub fn frame(header: Header, payload: Bytes) -> In {
        In::Frame {
            kind: header.kind.code(),
            lane: header.lane,
            more: header.more,
            total: header.total,
            channel: ChannelId(header.channel),
            stream: header.stream,
            payload,
        }
    }
}

/// How the socket takes what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Writing {
    /// A turn was sealed.
    Waiting,
    /// All of it was taken.
    Done,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EndedBy {
    /// This node.
    Us,
    /// The peer said why.
    Peer,
    /// The connection broke without a word.
    Network,
}

impl EndedBy {
    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            EndedBy::Us => "us",
            EndedBy::Peer => "peer",
            EndedBy::Network => "network",
        }
    }
}

/// What a session asks of its task.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    /// A whole message.
    Deliver(Delivery),
    /// Send a frame of the session's own with this payload.
    Send(Kind, Vec<u8>),
    /// The peer answered a ping after this long.
    RoundTrip(std::time::Duration),
    /// Write what there is to say (a `Send` before this), then end. Comes once, and nothing after it.
    End(DisconnectReason, EndedBy),
    /// A frame of a later version was skipped.
    Skipped,
}

/// A session's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Send a ping.
    Ping,
    /// Nothing was heard for too long.
    Idle,
    /// Nothing was taken for too long.
    Stall,
    /// A message was left unfinished for too long.
    Reassembly,
}

#[derive(Debug)]
struct Partial {
    total: usize,
    bytes: BytesMut,
    touched: Time,
}

/// Pings that may be under way; an answer to an older one no longer counts.
pub(crate) const PINGS: usize = 8;

/// The rules of one session. Its bounds: at most eight pings and, for each channel and lane, one message
/// under reassembly, of at most two of the largest messages' bytes together. The pump keeps as many answers to
/// pings at most.
#[derive(Debug)]
pub struct SessionMachine {
    config: Config,
    session: SessionId,
    channels: u16,
    partials: BTreeMap<(ChannelId, Lane), Partial>,
    partial_bytes: usize,
    pings: BTreeMap<u64, Time>,
    next_nonce: u64,
    ended: bool,
}

type Fx = Effects<Out, Timer>;

impl SessionMachine {
    /// A session with channels 1 to `channels` besides its own.
    pub fn new(config: Config, session: SessionId, channels: u16) -> SessionMachine {
        SessionMachine {
            config,
            session,
            channels,
            partials: BTreeMap::new(),
            partial_bytes: 0,
            pings: BTreeMap::new(),
            next_nonce: 0,
            ended: false,
        }
    }

    fn end(&mut self, reason: DisconnectReason, by: EndedBy, fx: &mut Fx) {
        self.ended = true;
        self.partials.clear();
        if by == EndedBy::Us {
            fx.emit(Out::Send(Kind::Disconnect, reason.code().to_be_bytes().to_vec()));
        }
        for timer in [Timer::Ping, Timer::Idle, Timer::Stall, Timer::Reassembly] {
            fx.disarm(timer);
        }
        fx.emit(Out::End(reason, by));
    }

    fn malformed(&mut self, fx: &mut Fx) {
        self.end(DisconnectReason::ProtocolError, EndedBy::Us, fx);
    }

    fn ping(&mut self, now: Time, fx: &mut Fx) {
        self.next_nonce += 1;
        if self.pings.len() == PINGS {
            self.pings.pop_first();
        }
        self.pings.insert(self.next_nonce, now);
        fx.emit(Out::Send(Kind::Ping, self.next_nonce.to_be_bytes().to_vec()));
        fx.arm(Timer::Ping, now + self.config.ping_interval);
    }

    fn own_frame(&mut self, now: Time, kind: Kind, payload: &[u8], fx: &mut Fx) {
        match (kind, payload.try_into().map(u64::from_be_bytes)) {
            (Kind::Ping, Ok(_)) => fx.emit(Out::Send(Kind::Pong, payload.to_vec())),
            // An answer nobody waits for is late, not wrong (AvalancheGo's "unexpected pong" ended sessions).
            (Kind::Pong, Ok(nonce)) => {
                if let Some(sent) = self.pings.remove(&nonce) {
                    fx.emit(Out::RoundTrip(now.since(sent)));
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

    #[expect(clippy::too_many_arguments, reason = "they are one frame's fields")]
    fn data(
        &mut self,
        now: Time,
        lane: Lane,
        more: bool,
        total: bool,
        channel: ChannelId,
        stream: u64,
        mut payload: Bytes,
        fx: &mut Fx,
    ) {
        if channel.0 == 0 || channel.0 > self.channels || stream != 0 {
            return self.malformed(fx);
        }
        let key = (channel, lane);
        let deliver = |payload| Out::Deliver(Delivery { session: self.session, channel, stream, lane, payload });
        match (self.partials.get_mut(&key), total) {
            (None, false) if !more => {
                if payload.len() > self.config.max_message {
                    return self.malformed(fx);
                }
                fx.emit(deliver(payload));
            }
            (None, true) if more && payload.len() >= 4 => {
                let stated = payload.split_to(4);
                let stated = stated.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
                if stated > self.config.max_message || payload.is_empty() || payload.len() >= stated {
                    return self.malformed(fx);
                }
                self.partial_bytes += payload.len();
                // Grows with what arrives, whatever the peer claims will.
                let partial = Partial { total: stated, bytes: BytesMut::from(&payload[..]), touched: now };
                self.partials.insert(key, partial);
                self.arm_reassembly(fx);
            }
            (Some(partial), false) => {
                let left = partial.total - partial.bytes.len();
                let fits = if more { payload.len() < left } else { payload.len() == left };
                if !fits || payload.is_empty() {
                    return self.malformed(fx);
                }
                partial.touched = now;
                self.partial_bytes += payload.len();
                partial.bytes.extend_from_slice(&payload);
                if !more && let Some(whole) = self.partials.remove(&key) {
                    self.partial_bytes -= whole.bytes.len();
                    fx.emit(deliver(whole.bytes.freeze()));
                }
                self.arm_reassembly(fx);
            }
            _ => return self.malformed(fx),
        }
        if self.partial_bytes > 2 * self.config.max_message {
            self.malformed(fx);
        }
    }

    fn arm_reassembly(&self, fx: &mut Fx) {
        match self.partials.values().map(|partial| partial.touched).min() {
            Some(oldest) => fx.arm(Timer::Reassembly, oldest + self.config.stall_timeout),
            None => fx.disarm(Timer::Reassembly),
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
                fx.arm(Timer::Idle, now + self.config.idle_timeout);
                self.ping(now, fx);
            }
            In::Frame { kind, lane, more, total, channel, stream, payload } => {
                fx.arm(Timer::Idle, now + self.config.idle_timeout);
                match Kind::from_code(kind) {
                    Kind::Data => self.data(now, lane, more, total, channel, stream, payload, fx),
                    Kind::Unknown(_) => fx.emit(Out::Skipped),
                    kind => self.own_frame(now, kind, &payload, fx),
                }
            }
            // The whole turn, not any byte of it, must go in time: who takes a byte now and then would hold what is
            // queued for it, and its part of the node's pool, for ever.
            In::Writing(Writing::Done) => fx.disarm(Timer::Stall),
            In::Writing(Writing::Waiting) => fx.arm(Timer::Stall, now + self.config.stall_timeout),
            In::Disconnect(reason) => self.end(reason, EndedBy::Us, fx),
            In::Broken => self.end(DisconnectReason::NetworkError, EndedBy::Network, fx),
            In::Malformed => self.malformed(fx),
        }
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        if self.ended {
            return;
        }
        match timer {
            Timer::Ping => self.ping(now, fx),
            Timer::Idle => self.end(DisconnectReason::Idle, EndedBy::Us, fx),
            Timer::Stall | Timer::Reassembly => self.end(DisconnectReason::Stalled, EndedBy::Us, fx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerage_machine::Driver;
    use peerage_wire::frame::MAX_FRAGMENT;

    use super::*;

    const SESSION: SessionId = SessionId(1);

    struct World {
        driver: Driver<SessionMachine>,
        now: Time,
    }

    impl World {
        fn new() -> World {
            let config = Config { max_message: 100_000, ..Config::recommended() };
            let mut world = World { driver: Driver::new(SessionMachine::new(config, SESSION, 2)), now: Time::ZERO };
            assert_eq!(world.input(In::Start), [Out::Send(Kind::Ping, 1u64.to_be_bytes().to_vec())]);
            world
        }

        fn input(&mut self, input: In) -> Vec<Out> {
            self.driver.handle(self.now, input);
            self.driver.drain().collect()
        }

        fn frame(&mut self, header: Header, payload: &[u8]) -> Vec<Out> {
            self.input(In::frame(header, Bytes::copy_from_slice(payload)))
        }

        fn data(&mut self, channel: u16, more: bool, total: bool, payload: &[u8]) -> Vec<Out> {
            self.frame(Header { more, total, ..Header::new(Kind::Data, Lane::Normal, channel, 0) }, payload)
        }

        fn own(&mut self, kind: Kind, payload: &[u8]) -> Vec<Out> {
            self.frame(Header::new(kind, Lane::Control, 0, 0), payload)
        }

        fn wait(&mut self, seconds: u64) -> Vec<Out> {
            let until = self.now + Duration::from_secs(seconds);
            let mut outs = Vec::new();
            while let Some(at) = self.driver.next_deadline().filter(|at| *at <= until) {
                self.driver.expire_due(at);
                outs.extend(self.driver.drain());
            }
            self.now = until;
            outs
        }
    }

    fn ended(outs: &[Out]) -> Option<(DisconnectReason, EndedBy)> {
        outs.iter().find_map(|out| match out {
            Out::End(reason, by) => Some((*reason, *by)),
            _ => None,
        })
    }

    const BREACH: Option<(DisconnectReason, EndedBy)> = Some((DisconnectReason::ProtocolError, EndedBy::Us));

    #[test]
    fn messages_are_delivered_whole_and_lanes_do_not_mix() {
        let mut world = World::new();
        let whole = [&[1; MAX_FRAGMENT - 4][..], &[2; 100]].concat();
        let first = [&(whole.len() as u32).to_be_bytes()[..], &[1; MAX_FRAGMENT - 4]].concat();
        assert_eq!(world.data(1, true, true, &first), []);
        let urgent = world.frame(Header::new(Kind::Data, Lane::High, 1, 0), b"vote");
        assert!(matches!(&urgent[..], [Out::Deliver(d)] if &d.payload[..] == b"vote" && d.lane == Lane::High));
        let outs = world.data(1, false, false, &[2; 100]);
        assert!(matches!(&outs[..], [Out::Deliver(d)] if d.payload[..] == whole && d.channel == ChannelId(1)));
        assert_eq!(world.driver.machine().partial_bytes, 0);
    }

    #[test]
    fn each_malformed_fragment_ends_the_session_with_its_reason() {
        let total = |n: u32, rest: &[u8]| [&n.to_be_bytes()[..], rest].concat();
        type Fragments<'a> = &'a [(u16, bool, bool, Vec<u8>)];
        let cases: &[(&str, Fragments<'_>)] = &[
            ("channel 0", &[(0, false, false, vec![1])]),
            ("unknown channel", &[(3, false, false, vec![1])]),
            ("a middle without a beginning", &[(1, true, false, vec![1])]),
            ("a total on a message of one fragment", &[(1, false, true, total(4, b"abcd"))]),
            ("a total cut short", &[(1, true, true, vec![0, 0])]),
            ("a claim of 4 GiB", &[(1, true, true, total(u32::MAX, b"a"))]),
            ("a total already reached", &[(1, true, true, total(1, b"a"))]),
            ("an empty first fragment", &[(1, true, true, total(9, b""))]),
            ("a second beginning", &[(1, true, true, total(9, b"a")), (1, true, true, total(9, b"a"))]),
            ("more than the total", &[(1, true, true, total(3, b"a")), (1, false, false, b"abc".to_vec())]),
            ("less than the total", &[(1, true, true, total(3, b"a")), (1, false, false, b"a".to_vec())]),
            ("an empty middle", &[(1, true, true, total(3, b"a")), (1, true, false, vec![])]),
        ];
        for (name, frames) in cases {
            let mut world = World::new();
            let mut outs = Vec::new();
            for (channel, more, total, payload) in *frames {
                outs.extend(world.data(*channel, *more, *total, payload));
            }
            assert_eq!(ended(&outs), BREACH, "{name}");
            assert_eq!(outs[0], Out::Send(Kind::Disconnect, vec![0, 2]), "{name}: the peer is told");
            assert_eq!(world.data(1, false, false, b"late"), [], "{name}: nothing after the end");
        }
    }

    #[test]
    fn messages_begun_on_many_lanes_stay_within_two_of_the_largest() {
        let mut world = World::new();
        let mut outs = Vec::new();
        for channel in 1..=2 {
            for lane in Lane::ALL {
                let first = [&100_000u32.to_be_bytes()[..], &[0; 16_000]].concat();
                let header = Header { more: true, total: true, ..Header::new(Kind::Data, lane, channel, 0) };
                outs.extend(world.frame(header, &first));
                for _ in 0..5 {
                    outs.extend(
                        world.frame(Header { more: true, ..Header::new(Kind::Data, lane, channel, 0) }, &[0; 16_000]),
                    );
                }
                assert!(world.driver.machine().partial_bytes <= 216_000);
            }
        }
        assert_eq!(ended(&outs), BREACH);
    }

    #[test]
    fn pings_are_answered_and_answers_measured_by_their_nonce() {
        let mut world = World::new();
        assert_eq!(world.own(Kind::Ping, &[7; 8]), [Out::Send(Kind::Pong, vec![7; 8])]);
        world.wait(1);
        assert_eq!(world.own(Kind::Pong, &9u64.to_be_bytes()), [], "nobody asked");
        assert_eq!(world.own(Kind::Pong, &1u64.to_be_bytes()), [Out::RoundTrip(Duration::from_secs(1))]);
        assert_eq!(world.own(Kind::Pong, &1u64.to_be_bytes()), [], "once");
        assert_eq!(ended(&world.own(Kind::Ping, &[7; 7])), BREACH);
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_given_up() {
        let mut world = World::new();
        assert_eq!(world.wait(29).len(), 1, "one more ping");
        assert_eq!(ended(&world.wait(2)), Some((DisconnectReason::Idle, EndedBy::Us)));
        let mut world = World::new();
        for _ in 0..10 {
            assert_eq!(ended(&world.wait(20)), None);
            world.own(Kind::Unknown(200), b"anything is a sign of life");
        }
    }

    #[test]
    fn a_peer_that_takes_nothing_or_never_finishes_is_stalled() {
        let stalled = Some((DisconnectReason::Stalled, EndedBy::Us));
        let mut world = World::new();
        for _ in 0..5 {
            world.input(In::Writing(Writing::Waiting));
            world.own(Kind::Pong, &[0; 8]);
            assert_eq!(ended(&world.wait(15)), None);
            world.input(In::Writing(Writing::Done));
            assert_eq!(ended(&world.wait(10)), None);
        }
        world.input(In::Writing(Writing::Waiting));
        world.own(Kind::Pong, &[0; 8]);
        assert_eq!(ended(&world.wait(21)), stalled);

        let mut world = World::new();
        world.data(1, true, true, &[&9u32.to_be_bytes()[..], b"a"].concat());
        world.wait(15);
        world.own(Kind::Pong, &[0; 8]);
        assert_eq!(ended(&world.wait(10)), stalled, "pings do not help an unfinished message");
    }

    #[test]
    fn a_farewell_is_not_answered_and_unknown_reasons_survive() {
        for (payload, reason) in [
            (&[0, 4][..], DisconnectReason::TooManyPeers),
            (&[9, 9, 1, 2, 3], DisconnectReason::Unknown(0x0909)),
            (&[], DisconnectReason::Requested),
        ] {
            let outs = World::new().own(Kind::Disconnect, payload);
            assert_eq!(outs, [Out::End(reason, EndedBy::Peer)]);
        }
    }

    #[test]
    fn of_many_causes_of_death_the_first_counts_and_nothing_follows() {
        let causes = [
            In::Disconnect(DisconnectReason::Requested),
            In::Broken,
            In::Malformed,
            In::frame(Header::new(Kind::Disconnect, Lane::Control, 0, 0), Bytes::from_static(&[0, 8])),
        ];
        for first in 0..causes.len() {
            let mut world = World::new();
            assert!(ended(&world.input(causes[first].clone())).is_some());
            for later in &causes {
                assert_eq!(world.input(later.clone()), []);
            }
            assert_eq!(world.wait(1000), []);
        }
    }
}
