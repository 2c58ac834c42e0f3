//! The rules of a session's streams: who may open them, what may come on them, and when they are over.

mod contract;
mod incoming;

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Effects, Machine, Quota, QuotaTable, Time};
use peerage_queue::stream::{OpenError, StreamCode};
use peerage_queue::{ChannelId, Flow};
use peerage_wire::DisconnectReason;
use peerage_wire::frame::{Header, Kind, Lane, MAX_STREAM, STREAM_WINDOW};

use crate::Config;
use crate::handshake::Direction;
use incoming::{Incoming, Reserved};

pub use contract::{Room, StreamIn, StreamOut, StreamTimer};

/// Bytes of first windows that a session reserves when it is admitted, for streams that the peer opens: those beyond them
/// draw on the inbound pool, and are refused when that is used up.
pub const STREAM_ALLOWANCE: usize = 4 * STREAM_WINDOW as usize;

/// Frames that may come for a stream after it is over here: credit, an end and a stop that crossed, with much to spare.
const LATE_FRAMES: u64 = 64;

/// Streams that a peer may abort, or open beyond its limit, before it is a flood ("rapid reset", CVE-2023-44487).
const ABORTS: Quota = Quota::new(2000, Duration::from_secs(10));

#[derive(Debug)]
struct Stream {
    flow: Flow,
    by_peer: bool,
    incoming: Incoming,
    reserved: Reserved,
    /// Its end, or a reset, has not been sent.
    outgoing: bool,
}

/// The rules of one session's streams.
///
/// A stream begins with [`Kind::Open`] and the next id of its side, which is never used again: so all that is kept of
/// those that are over is the highest id. Each direction ends by itself, with its last bytes or a reset.
///
/// Its bounds: [`Config::max_streams`] that the peer opened and as many that were opened here; of each no more unread
/// bytes than its window, which is reserved in the node's inbound pool; frames for streams that are over, as many as
/// could have been under way.
#[derive(Debug)]
pub struct StreamsMachine {
    config: Config,
    channels: u16,
    /// The ids that each side uses next.
    next_own: u64,
    next_peer: u64,
    live: BTreeMap<u64, Stream>,
    own: usize,
    /// What is left of the session's own reserve for first windows.
    allowance: u64,
    /// What may still come for streams that are over.
    late_frames: u64,
    late_bytes: u64,
    aborts: QuotaTable<()>,
    /// Refusals for want of room here that have not gone out.
    unsaid: usize,
    ended: bool,
}

type Fx = Effects<StreamOut, StreamTimer>;

impl StreamsMachine {
    /// The streams of a session with channels 1 to `channels`, which this end dialled or accepted, and which has reserved
    /// `allowance` bytes for windows of streams that the peer opens.
    pub fn new(config: Config, channels: u16, direction: Direction, allowance: u64) -> StreamsMachine {
        let (next_own, next_peer) = match direction {
            Direction::Outbound => (1, 2),
            Direction::Inbound => (2, 1),
        };
        StreamsMachine {
            config,
            channels,
            next_own,
            next_peer,
            live: BTreeMap::new(),
            own: 0,
            allowance,
            late_frames: 0,
            late_bytes: 0,
            aborts: QuotaTable::new(ABORTS, 1),
            unsaid: 0,
            ended: false,
        }
    }

    /// How many streams are not over.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether all streams are over.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Opens a stream, and says its id.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        &mut self,
        now: Time,
        channel: ChannelId,
        lane: Lane,
        room: &mut impl Room,
        fx: &mut Fx,
    ) -> Result<u64, OpenError> {
        if self.ended {
            return Err(OpenError::SessionEnded);
        }
        if channel.0 == 0 || channel.0 > self.channels {
            return Err(OpenError::NoChannel);
        }
        if !matches!(lane, Lane::Normal | Lane::Bulk) {
            return Err(OpenError::Lane);
        }
        if self.own >= self.config.max_streams || self.next_own > MAX_STREAM {
            return Err(OpenError::TooMany);
        }
        if !room.reserve(STREAM_WINDOW) {
            return Err(OpenError::NoRoom);
        }
        let flow = Flow { channel, stream: self.next_own, lane };
        self.next_own += 2;
        self.own += 1;
        fx.emit(StreamOut::Open(flow));
        self.add(now, flow, false, Reserved::of_pool(STREAM_WINDOW), fx);
        Ok(flow.stream)
    }

    fn add(&mut self, now: Time, flow: Flow, by_peer: bool, reserved: Reserved, fx: &mut Fx) {
        if self.live.is_empty() {
            fx.arm(StreamTimer::Look, now + self.config.ping_interval);
        }
        self.late_frames += LATE_FRAMES;
        let stream = Stream { flow, by_peer, incoming: Incoming::new(), reserved, outgoing: true };
        self.live.insert(flow.stream, stream);
    }

    fn end(&mut self, reason: DisconnectReason, fx: &mut Fx) {
        if !self.ended {
            self.ended = true;
            fx.disarm(StreamTimer::Look);
            fx.emit(StreamOut::End(reason));
        }
    }

    fn malformed(&mut self, fx: &mut Fx) {
        self.end(DisconnectReason::ProtocolError, fx);
    }

    /// A frame came in on a stream. True if its payload is for the stream's reader.
    pub fn receive(&mut self, now: Time, header: &Header, payload: &[u8], room: &mut impl Room, fx: &mut Fx) -> bool {
        if self.ended {
            return false;
        }
        if header.kind == Kind::Open {
            self.opened(now, header, payload, room, fx);
            return false;
        }
        let Some(stream) = self.live.get(&header.stream) else {
            self.late(header, payload, fx);
            return false;
        };
        if header.channel != stream.flow.channel.0 || header.lane != stream.flow.lane {
            self.malformed(fx);
            return false;
        }
        match header.kind {
            Kind::Data => return self.data(header, payload, fx),
            Kind::Reset | Kind::Stop => match payload.try_into().map(u32::from_be_bytes) {
                Ok(code) => self.aborted(now, header, StreamCode(code), payload, fx),
                Err(_) => self.malformed(fx),
            },
            kind => match payload.try_into().map(u64::from_be_bytes) {
                Ok(limit) => self.credit_frame(kind, header, limit, payload, fx),
                Err(_) => self.malformed(fx),
            },
        }
        false
    }

    fn opened(&mut self, now: Time, header: &Header, payload: &[u8], room: &mut impl Room, fx: &mut Fx) {
        let fits = header.stream == self.next_peer
            && (1..=self.channels).contains(&header.channel)
            && matches!(header.lane, Lane::Normal | Lane::Bulk)
            && payload.is_empty()
            && !header.end;
        if !fits {
            return self.malformed(fx);
        }
        self.next_peer += 2;
        let flow = Flow { channel: ChannelId(header.channel), stream: header.stream, lane: header.lane };
        let by_peer = || self.live.values().filter(|stream| stream.by_peer);
        let crowded = self.live.len() - self.own >= self.config.max_streams
            || by_peer().filter(|stream| stream.flow.channel == flow.channel).count()
                >= self.config.max_channel_streams;
        if crowded {
            return self.refuse(now, flow, StreamCode::TOO_MANY, fx);
        }
        let reserved = if self.allowance >= STREAM_WINDOW {
            self.allowance -= STREAM_WINDOW;
            Reserved::of_allowance(STREAM_WINDOW)
        } else if room.reserve(STREAM_WINDOW) {
            Reserved::of_pool(STREAM_WINDOW)
        } else {
            return self.refuse(now, flow, StreamCode::NO_ROOM, fx);
        };
        self.add(now, flow, true, reserved, fx);
        fx.emit(StreamOut::Accept(flow));
    }

    /// Refuses a stream of which nothing is kept.
    fn refuse(&mut self, now: Time, flow: Flow, code: StreamCode, fx: &mut Fx) {
        self.late_frames += LATE_FRAMES;
        self.late_bytes += STREAM_WINDOW;
        fx.emit(StreamOut::Stop(flow, code));
        fx.emit(StreamOut::Reset(flow, code));
        self.refused(now, code, fx);
    }

    /// A stream was refused. That there is no room here is not the peer's doing; but whoever has not heard of so many
    /// refusals still has as many streams open, so one that opens more is a flood, and does not read what it is told.
    fn refused(&mut self, now: Time, code: StreamCode, fx: &mut Fx) {
        if code != StreamCode::NO_ROOM {
            return self.count_abort(now, fx);
        }
        self.unsaid += 1;
        if self.unsaid > self.config.max_streams {
            self.malformed(fx);
        }
    }

    /// Each such stream costs this end work, or a frame that the peer may leave unread.
    fn count_abort(&mut self, now: Time, fx: &mut Fx) {
        if !self.aborts.take(now, &()) {
            self.malformed(fx);
        }
    }

    /// A frame of a stream that is over, or that never was. As much as may have been under way is ignored.
    fn late(&mut self, header: &Header, payload: &[u8], fx: &mut Fx) {
        let own = header.stream % 2 == self.next_own % 2;
        let was = header.stream != 0 && header.stream < if own { self.next_own } else { self.next_peer };
        let left = if header.kind == Kind::Data && !payload.is_empty() {
            let bytes = payload.len() as u64;
            self.late_bytes.checked_sub(bytes).map(|left| self.late_bytes = left)
        } else {
            self.late_frames.checked_sub(1).map(|left| self.late_frames = left)
        };
        if !was || left.is_none() {
            return self.malformed(fx);
        }
        fx.emit(StreamOut::Late);
    }

    fn data(&mut self, header: &Header, payload: &[u8], fx: &mut Fx) -> bool {
        // A frame without bytes says nothing but the end: else a flood of them would cost no credit.
        let fits = !header.more && !header.total && (header.end || !payload.is_empty());
        let Some(stream) = self.live.get_mut(&header.stream).filter(|_| fits) else {
            self.malformed(fx);
            return false;
        };
        match &mut stream.incoming {
            Incoming::Open(credit) => {
                if credit.receive(payload.len() as u64).is_err() {
                    self.malformed(fx);
                    return false;
                }
                if header.end {
                    stream.incoming = Incoming::Ended(*credit);
                    fx.emit(StreamOut::Ended(header.stream));
                    self.settle(header.stream, fx);
                }
                !payload.is_empty()
            }
            Incoming::Stopped => {
                if header.end {
                    stream.incoming = Incoming::Over;
                }
                self.late(header, payload, fx);
                self.settle(header.stream, fx);
                false
            }
            Incoming::Ended(_) | Incoming::Over => {
                self.malformed(fx);
                false
            }
        }
    }

    fn aborted(&mut self, now: Time, header: &Header, code: StreamCode, payload: &[u8], fx: &mut Fx) {
        let Some(stream) = self.live.get_mut(&header.stream) else { return };
        if header.kind == Kind::Reset {
            match stream.incoming {
                Incoming::Open(_) => {
                    stream.incoming = Incoming::Over;
                    fx.emit(StreamOut::WasReset(header.stream, code));
                }
                Incoming::Stopped => {
                    stream.incoming = Incoming::Over;
                    return self.settle(header.stream, fx);
                }
                Incoming::Ended(_) | Incoming::Over => return self.malformed(fx),
            }
        } else if stream.outgoing {
            stream.outgoing = false;
            fx.emit(StreamOut::WasStopped(header.stream, code));
            fx.emit(StreamOut::Reset(stream.flow, code));
        } else {
            return self.late(header, payload, fx);
        }
        let by_peer = stream.by_peer;
        self.settle(header.stream, fx);
        if by_peer {
            self.count_abort(now, fx);
        }
    }

    fn credit_frame(&mut self, kind: Kind, header: &Header, limit: u64, payload: &[u8], fx: &mut Fx) {
        let Some(stream) = self.live.get_mut(&header.stream) else { return };
        match (kind, &mut stream.incoming) {
            (Kind::Credit, _) if stream.outgoing => fx.emit(StreamOut::MaySend(stream.flow, limit)),
            (Kind::Reclaim, _) if stream.outgoing => fx.emit(StreamOut::Yield(stream.flow, limit)),
            (Kind::Reclaimed, Incoming::Open(credit)) => match credit.reclaimed(limit, STREAM_WINDOW) {
                Ok(freed) => {
                    fx.emit(StreamOut::GiveBack(stream.reserved.give_pool(freed)));
                    if let Some(limit) = credit.advance() {
                        fx.emit(StreamOut::Credit(stream.flow, limit));
                    }
                }
                Err(_) => self.malformed(fx),
            },
            (Kind::Credit | Kind::Reclaim | Kind::Reclaimed, _) => self.late(header, payload, fx),
            _ => self.malformed(fx),
        }
    }

    /// The application has read `total` bytes since the stream was opened. Grants as many again, and grows the window
    /// while the peer could use it and the pool has room: to twice what is under way in a `round_trip`.
    pub fn read(
        &mut self,
        now: Time,
        stream: u64,
        total: u64,
        round_trip: Option<Duration>,
        room: &mut impl Room,
        fx: &mut Fx,
    ) {
        let Some(known) = self.live.get_mut(&stream) else { return };
        match &mut known.incoming {
            Incoming::Open(credit) => {
                credit.release(total);
                let by = credit.growth(now, round_trip, 0, self.config.max_window as u64);
                if by > 0 && room.reserve(by) {
                    credit.grown(by);
                    known.reserved.add_pool(by);
                }
                if let Some(limit) = credit.advance() {
                    fx.emit(StreamOut::Credit(known.flow, limit));
                }
            }
            Incoming::Ended(credit) => {
                credit.release(total);
                self.settle(stream, fx);
            }
            Incoming::Stopped | Incoming::Over => {}
        }
    }

    /// The total of a stream's reads at which [`read`](StreamsMachine::read) has something to do.
    pub fn wake_at(&self, stream: u64) -> Option<u64> {
        match &self.live.get(&stream)?.incoming {
            Incoming::Open(credit) => Some(credit.wake_at()),
            _ => None,
        }
    }

    /// Gives back what a stream does not need any more, and forgets it when it is over.
    fn settle(&mut self, id: u64, fx: &mut Fx) {
        let Some(stream) = self.live.get_mut(&id) else { return };
        stream.incoming.settle();
        let (pool, allowance) = stream.reserved.shrink(stream.incoming.needs());
        self.allowance += allowance;
        if pool > 0 {
            fx.emit(StreamOut::GiveBack(pool));
        }
        if stream.outgoing || !stream.incoming.is_over() {
            return;
        }
        if let Incoming::Stopped = stream.incoming {
            // Its end or reset may still come.
            self.late_frames += 1;
        }
        self.own -= usize::from(!stream.by_peer);
        self.live.remove(&id);
        if self.live.is_empty() {
            fx.disarm(StreamTimer::Look);
        }
        fx.emit(StreamOut::Closed(id));
    }

    fn stop(&mut self, id: u64, code: StreamCode, fx: &mut Fx) {
        let Some(stream) = self.live.get_mut(&id) else { return };
        match &stream.incoming {
            Incoming::Open(credit) => {
                self.late_bytes += credit.left();
                stream.incoming = Incoming::Stopped;
                fx.emit(StreamOut::Stop(stream.flow, code));
            }
            Incoming::Ended(_) => stream.incoming = Incoming::Over,
            Incoming::Stopped | Incoming::Over => {}
        }
        self.settle(id, fx);
    }

    fn reset(&mut self, id: u64, code: StreamCode, fx: &mut Fx) {
        let Some(stream) = self.live.get_mut(&id) else { return };
        if std::mem::replace(&mut stream.outgoing, false) {
            fx.emit(StreamOut::Reset(stream.flow, code));
        }
        self.settle(id, fx);
    }
}

impl Machine for StreamsMachine {
    type In = StreamIn;
    type Out = StreamOut;
    type Timer = StreamTimer;

    fn handle(&mut self, now: Time, input: StreamIn, fx: &mut Fx) {
        if self.ended {
            return;
        }
        match input {
            StreamIn::EndSent(id) => {
                if let Some(stream) = self.live.get_mut(&id) {
                    stream.outgoing = false;
                    self.settle(id, fx);
                }
            }
            StreamIn::Stop(id, code) => self.stop(id, code, fx),
            StreamIn::Reset(id, code) => self.reset(id, code, fx),
            StreamIn::Refuse(id, code) => {
                self.stop(id, code, fx);
                self.reset(id, code, fx);
                self.refused(now, code, fx);
            }
            StreamIn::Said => self.unsaid = 0,
        }
    }

    /// Asks for the windows back that lie idle. A peer that answers pings and not that is stalled.
    fn expire(&mut self, now: Time, StreamTimer::Look: StreamTimer, fx: &mut Fx) {
        let patience = self.config.idle_timeout + self.config.stall_timeout;
        let mut stalled = false;
        for stream in self.live.values_mut() {
            let Incoming::Open(credit) = &mut stream.incoming else { continue };
            stalled |= credit.reclaiming_since().is_some_and(|since| since + patience <= now);
            if let Some(limit) = credit.reclaim(now, STREAM_WINDOW) {
                fx.emit(StreamOut::Reclaim(stream.flow, limit));
            }
        }
        if stalled {
            self.end(DisconnectReason::Stalled, fx);
        } else if !self.live.is_empty() {
            fx.arm(StreamTimer::Look, now + self.config.ping_interval);
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
