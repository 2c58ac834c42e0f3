//! The pump: the one task that owns a session's socket and keys, and empties the peer's lanes.
//!
//! It carries and decides nothing. It may wait: for the socket to take what is written, and, for a while, for a
//! protocol's outlet to have room, during which it reads nothing more from its peer but goes on writing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use peerage_machine::{Driver, Time};
use peerage_mailbox::{Clock, Outlet, Refused};
use peerage_queue::{ChannelId, Delivery, LaneEnd};
use peerage_transport::Stream;
use peerage_wire::DisconnectReason;
use peerage_wire::frame::{Header, Kind, Lane, MAX_FRAGMENT, MAX_HEADER};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;

use crate::handshake::Keys;
use crate::machine::{EndedBy, In, Out, SessionMachine, Writing};
use crate::metrics::PumpMetrics;
use crate::own::OwnFrames;
use crate::records::MAX_PLAIN;
use crate::stats::Counters;
use crate::{Config, Ended};

/// Bytes sealed before they are written. A ping waits behind this much at most.
const TURN: usize = 128 * 1024;
/// Room made for one read.
const READ: usize = 64 * 1024;

/// What the session's actor tells its pump; the newest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Run,
    Disconnect(DisconnectReason),
    #[cfg(feature = "fault-injection")]
    Panic,
}

pub(crate) struct Pump {
    pub(crate) driver: Driver<SessionMachine>,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) keys: Keys,
    pub(crate) reader: ReadHalf<Stream>,
    pub(crate) writer: WriteHalf<Stream>,
    pub(crate) read: BytesMut,
    pub(crate) lanes: LaneEnd,
    pub(crate) routes: BTreeMap<ChannelId, Outlet<Delivery>>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) metrics: PumpMetrics,
    /// Sealed, and how much of it is written.
    pub(crate) out: Vec<u8>,
    pub(crate) written: usize,
    /// Frames of the session's own that wait to be sealed.
    pub(crate) own: OwnFrames,
    /// Messages whose outlet had no room yet.
    pub(crate) undelivered: VecDeque<Delivery>,
    /// Since when they wait. Once that is too long, what finds no room is dropped until something finds room.
    pub(crate) waiting_since: Option<Time>,
    pub(crate) dropping: bool,
    /// Whose turn it is when both directions are ready.
    pub(crate) write_first: bool,
    pub(crate) ended: Option<(DisconnectReason, EndedBy)>,
}

enum Event {
    Control,
    Timer,
    Wrote(io::Result<usize>),
    Delivered(bool),
    GaveUp,
    Offered,
    Read(io::Result<usize>),
}

impl Pump {
    /// Runs until the session ends, and says how.
    pub(crate) async fn run(mut self) -> Ended {
        self.input(In::Start);
        self.open_records();
        while self.ended.is_none() {
            self.seal_turn();
            let event = self.wait().await;
            self.apply(event);
        }
        let (reason, by) = self.ended.unwrap_or((DisconnectReason::Crashed, EndedBy::Us));
        if by == EndedBy::Us {
            self.farewell(reason).await;
        }
        Ended { reason, by }
    }

    async fn wait(&mut self) -> Event {
        self.write_first = !self.write_first;
        let write_first = self.write_first;
        let give_up = self.waiting_since.map(|since| since + self.config.stall_timeout / 2);
        let Pump { driver, clock, reader, writer, read, lanes, routes, control, out, written, undelivered, .. } = self;
        let (pending, blocked) = (&out[*written..], undelivered.front());
        let out = async {
            match pending.is_empty() {
                true => lanes.offered().await,
                false => return Event::Wrote(writer.write(pending).await),
            }
            Event::Offered
        };
        let into = async {
            let Some(delivery) = blocked else {
                read.reserve(READ);
                return Event::Read(reader.read_buf(read).await);
            };
            tokio::select! {
                biased;
                delivered = deliver(routes, delivery) => Event::Delivered(delivered),
                () = clock.sleep_until(give_up) => Event::GaveUp,
            }
        };
        tokio::pin!(out, into);
        // Each direction gets its turn when both are ready: a peer that takes all we send must still be heard.
        let mut either = std::pin::pin!(async {
            if write_first {
                tokio::select! { biased; event = &mut out => event, event = &mut into => event }
            } else {
                tokio::select! { biased; event = &mut into => event, event = &mut out => event }
            }
        });
        tokio::select! {
            biased;
            _ = control.changed() => Event::Control,
            () = clock.sleep_until(driver.next_deadline()) => Event::Timer,
            event = &mut either => event,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Control => {
                let control = *self.control.borrow_and_update();
                match control {
                    // The sender is gone without a word: the actor has died.
                    Control::Run => self.input(In::Disconnect(DisconnectReason::Crashed)),
                    Control::Disconnect(reason) => self.input(In::Disconnect(reason)),
                    #[cfg(feature = "fault-injection")]
                    Control::Panic => panic!("injected"),
                }
            }
            Event::Timer => {
                self.driver.expire_due(self.clock.now());
                self.perform();
            }
            Event::Wrote(Ok(0) | Err(_)) | Event::Read(Ok(0) | Err(_)) => self.input(In::Broken),
            Event::Wrote(Ok(len)) => {
                self.written += len;
                self.counters.sent(len);
                if self.written == self.out.len() {
                    self.out.clear();
                    self.written = 0;
                    self.input(In::Writing(Writing::Done));
                }
            }
            Event::Delivered(open) => {
                let delivered = self.undelivered.pop_front();
                if !open && let Some(delivery) = delivered {
                    self.metrics.undeliverable(delivery.channel);
                }
                self.dropping = false;
                // What was read behind it waits for its turn.
                self.offer_now();
                self.open_records();
            }
            Event::GaveUp => {
                self.dropping = true;
                self.offer_now();
                self.open_records();
            }
            Event::Offered => {}
            Event::Read(Ok(len)) => {
                self.counters.received(len);
                self.open_records();
            }
        }
    }

    fn input(&mut self, input: In) {
        self.driver.handle(self.clock.now(), input);
        self.perform();
    }

    fn perform(&mut self) {
        for out in self.driver.drain() {
            match out {
                Out::Deliver(delivery) => {
                    self.metrics.received(delivery.channel, delivery.payload.len());
                    self.undelivered.push_back(delivery);
                }
                Out::Send(kind, payload) => {
                    if !self.own.push(kind, payload) {
                        self.metrics.unanswered.increment(1);
                    }
                }
                Out::RoundTrip(time) => self.counters.round_trip(time),
                Out::End(reason, by) => self.ended = Some((reason, by)),
                Out::Skipped => self.metrics.skipped.increment(1),
            }
        }
    }

    /// Opens what was read, record by record, until the protocols have no more room.
    fn open_records(&mut self) {
        let now = self.clock.now();
        while self.ended.is_none() && self.undelivered.is_empty() {
            let record = match self.keys.opener.next(&mut self.read) {
                Ok(Some(record)) => record.freeze(),
                Ok(None) => break,
                Err(_) => return self.input(In::Malformed),
            };
            let mut frames = &record[..];
            while !frames.is_empty() && self.ended.is_none() {
                match Header::decode(&mut frames) {
                    Ok((header, payload)) => {
                        // A whole message may be kept for long, and is copied: a slice would keep the buffer of a whole
                        // read alive. The parts of a larger one are put together elsewhere anyway.
                        let whole = !header.more && !header.total;
                        let payload = if whole { Bytes::copy_from_slice(payload) } else { record.slice_ref(payload) };
                        self.driver.handle(now, In::frame(header, payload));
                        self.perform();
                    }
                    Err(_) => return self.input(In::Malformed),
                }
            }
            self.offer_now();
        }
    }

    /// Delivers what finds room at once, which is nearly always all of it.
    fn offer_now(&mut self) {
        self.waiting_since = None;
        while let Some(delivery) = self.undelivered.pop_front() {
            let Some(route) = self.routes.get(&delivery.channel) else {
                self.metrics.undeliverable(delivery.channel);
                continue;
            };
            match route.offer(delivery) {
                Ok(()) => self.dropping = false,
                Err(Refused::Full(delivery)) if !self.dropping => {
                    self.undelivered.push_front(delivery);
                    self.waiting_since = Some(self.clock.now());
                    return;
                }
                Err(Refused::Full(delivery) | Refused::Closed(delivery)) => {
                    self.metrics.undeliverable(delivery.channel)
                }
            }
        }
    }

    /// Seals the session's own frames and then as much of the lanes as a turn takes, many frames a record.
    fn seal_turn(&mut self) {
        if !self.out.is_empty() {
            return;
        }
        let Pump { out, keys, own, lanes, metrics, .. } = self;
        let mut start = keys.sealer.begin(out);
        let mut record = out.len();
        while out.len() < TURN {
            if out.len() - record + MAX_HEADER + MAX_FRAGMENT > MAX_PLAIN {
                keys.sealer.finish(out, start);
                start = keys.sealer.begin(out);
                record = out.len();
            }
            if let Some((kind, payload)) = own.pop() {
                Header::new(kind, Lane::Control, 0, payload.len() as u16).encode(out);
                out.extend_from_slice(&payload);
                continue;
            }
            let Some(fragment) = lanes.pop_fragment() else { break };
            let total = fragment.total.map(u32::to_be_bytes);
            let len = fragment.payload.len() + total.map_or(0, |total| total.len());
            let header = Header {
                more: fragment.more,
                total: total.is_some(),
                stream: fragment.stream,
                ..Header::new(Kind::Data, fragment.lane, fragment.channel.0, len as u16)
            };
            header.encode(out);
            out.extend_from_slice(total.as_ref().map_or(&[], |total| &total[..]));
            out.extend_from_slice(&fragment.payload);
            metrics.sent(fragment.channel, fragment.payload.len(), !fragment.more);
        }
        keys.sealer.finish(out, start);
        if !self.out.is_empty() {
            self.input(In::Writing(Writing::Waiting));
        }
    }

    async fn flush_lanes(&mut self) {
        loop {
            while self.written < self.out.len() {
                match self.writer.write(&self.out[self.written..]).await {
                    Ok(len @ 1..) => self.written += len,
                    Ok(0) | Err(_) => return,
                }
            }
            self.out.clear();
            self.written = 0;
            self.seal_turn();
            if self.out.is_empty() {
                return;
            }
        }
    }

    /// Sends what is sealed and the session's last frame, within its time. Before a friendly end, what waits in
    /// the lanes goes first: who publishes and quits means it to arrive.
    async fn farewell(&mut self, reason: DisconnectReason) {
        let farewell = self.own.farewell();
        if matches!(reason, DisconnectReason::Quitting | DisconnectReason::Requested) {
            let _ = tokio::time::timeout(self.config.disconnect_timeout / 2, self.flush_lanes()).await;
        }
        let start = self.keys.sealer.begin(&mut self.out);
        if let Some(payload) = farewell {
            Header::new(Kind::Disconnect, Lane::Control, 0, payload.len() as u16).encode(&mut self.out);
            self.out.extend_from_slice(&payload);
        }
        self.keys.sealer.finish(&mut self.out, start);
        let goodbye = async {
            if self.writer.write_all(&self.out[self.written..]).await.is_ok() && self.writer.shutdown().await.is_ok() {
                linger(&mut self.reader).await;
            }
        };
        let _ = tokio::time::timeout(self.config.disconnect_timeout, goodbye).await;
    }
}

/// Reads and forgets what the peer still sends, until it has closed its end. A socket that is closed with
/// unread bytes resets the connection, and the peer's kernel then drops the farewell that it has not read yet.
pub(crate) async fn linger(reader: &mut (impl AsyncRead + Unpin)) {
    let mut forgotten = [0; 4096];
    while let Ok(1..) = reader.read(&mut forgotten).await {}
}

/// Waits until the message's protocol takes it; false if it never will.
async fn deliver(routes: &BTreeMap<ChannelId, Outlet<Delivery>>, delivery: &Delivery) -> bool {
    match routes.get(&delivery.channel) {
        // The copy shares the payload's bytes.
        Some(route) => route.offer_when_room(delivery.clone()).await.is_ok(),
        None => false,
    }
}
