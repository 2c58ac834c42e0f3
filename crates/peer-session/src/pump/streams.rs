//! The pump's part in streams: it feeds their rules, and carries between their halves, the lanes and the frames.

use std::collections::BTreeMap;

use peerage_machine::{Driver, Time};
use peerage_mailbox::{Outlet, Refused};
use peerage_queue::stream::{AcceptedStream, Change, OpenRequest, StreamCode, StreamEnd, StreamError};
use peerage_queue::{Account, ChannelId, Flow, SessionId};
use peerage_wire::frame::{CHANNEL_WINDOW, Header, Kind};

use super::Pump;
use crate::Config;
use crate::actor::Args;
use crate::handshake::Direction;
use crate::machine::In;
use crate::streams::{Room, StreamIn, StreamOut, StreamsMachine};
use crate::traffic::TrafficDirection;

/// A session's streams, as its pump has them.
pub(super) struct Streams {
    /// Made with the first stream: most sessions never have one.
    driver: Option<Box<Driver<StreamsMachine>>>,
    pub(super) end: StreamEnd,
    accept: BTreeMap<ChannelId, Outlet<AcceptedStream>>,
    session: SessionId,
    config: Config,
    channels: u16,
    direction: Direction,
    allowance: u64,
}

struct InPool<'a>(&'a Account);

impl Room for InPool<'_> {
    fn reserve(&mut self, bytes: u64) -> bool {
        usize::try_from(bytes).is_ok_and(|bytes| self.0.charge(bytes))
    }
}

impl Streams {
    pub(super) fn new(args: &mut Args, end: StreamEnd) -> Streams {
        let channels = args.established.remote.channels.len();
        Streams {
            driver: None,
            end,
            accept: std::mem::take(&mut args.accept),
            session: args.session,
            config: args.config,
            channels: channels as u16,
            direction: args.established.direction,
            // What is reserved beyond the channels' own windows.
            allowance: args.inbound.windows().saturating_sub(channels * CHANNEL_WINDOW) as u64,
        }
    }

    fn driver(&mut self) -> &mut Driver<StreamsMachine> {
        let Streams { driver, config, channels, direction, allowance, .. } = self;
        driver.get_or_insert_with(|| {
            Box::new(Driver::new(StreamsMachine::new(*config, *channels, *direction, *allowance)))
        })
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.driver.as_ref()?.next_deadline()
    }
}

/// Whether a frame belongs to a stream.
pub(super) const fn is_of_stream(header: &Header) -> bool {
    let own = matches!(header.kind, Kind::Open | Kind::Reset | Kind::Stop);
    own || (header.stream != 0 && matches!(header.kind, Kind::Data | Kind::Credit | Kind::Reclaim | Kind::Reclaimed))
}

impl Pump {
    pub(super) fn stream_frame(&mut self, now: Time, header: &Header, payload: &[u8]) {
        let Pump { streams, inbound, driver, .. } = self;
        driver.machine_mut().heard(now, payload.len());
        let mut room = InPool(inbound.beyond());
        if streams.driver().with(|machine, fx| machine.receive(now, header, payload, &mut room, fx)) {
            self.streams.end.deliver(header.stream, payload);
            if let Some(tap) = &mut self.tap {
                tap.stream_received(header.stream, payload.len());
            }
            self.tally(header.channel, payload.len());
        }
        self.perform_streams(now);
    }

    /// Does what the application wants of its streams.
    pub(super) fn poll_streams(&mut self, now: Time, task: &std::task::Waker) {
        if self.ended.is_some() {
            return;
        }
        let (opens, changes) = self.streams.end.take(task);
        opens.into_iter().for_each(|request| self.open_stream(now, request));
        changes.into_iter().for_each(|change| self.stream_changed(now, change));
    }

    fn open_stream(&mut self, now: Time, request: OpenRequest) {
        let Pump { streams, inbound, lanes, .. } = self;
        let (channel, lane, mut room) = (request.channel, request.lane, InPool(inbound.beyond()));
        let opened = streams.driver().with(|machine, fx| machine.open(now, channel, lane, &mut room, fx));
        let halves = opened.map(|stream| streams.end.add(Flow { channel, stream, lane }, lanes.door()));
        self.perform_streams(now);
        if let Ok(stream) = opened {
            self.metrics.streams_opened.increment(1);
            if let Some(tap) = &mut self.tap {
                tap.opened(Flow { channel, stream, lane }, TrafficDirection::Sent);
            }
            self.watch_stream(now, stream);
        }
        request.answer(halves);
    }

    fn stream_changed(&mut self, now: Time, change: Change) {
        let Change { stream, read, stop, reset } = change;
        let round_trip = self.stream_distance();
        if round_trip.is_none() && stop.is_none() {
            self.input(now, In::Measure);
        }
        let Pump { streams, inbound, .. } = self;
        let mut room = InPool(inbound.beyond());
        streams.driver().with(|machine, fx| machine.read(now, stream, read, round_trip, &mut room, fx));
        if let Some(code) = stop {
            streams.driver().handle(now, StreamIn::Stop(stream, code));
        }
        if let Some(code) = reset {
            streams.driver().handle(now, StreamIn::Reset(stream, code));
        }
        self.perform_streams(now);
        self.watch_stream(now, stream);
    }

    /// What a stream's window is sized for: nothing where bandwidth is limited, so that it does not grow.
    fn stream_distance(&self) -> Option<std::time::Duration> {
        self.driver.machine().round_trip().filter(|_| !self.throttle.limits_download())
    }

    /// Wants to be told when the peer may be granted more.
    fn watch_stream(&mut self, now: Time, stream: u64) {
        let watched = |streams: &mut Streams| match streams.driver().machine().wake_at(stream) {
            Some(total) => streams.end.tell_at(stream, total),
            None => true,
        };
        while !watched(&mut self.streams) && self.ended.is_none() {
            let Some(Change { read, .. }) = self.streams.end.change(stream) else { return };
            let round_trip = self.stream_distance();
            let Pump { streams, inbound, .. } = self;
            let mut room = InPool(inbound.beyond());
            streams.driver().with(|machine, fx| machine.read(now, stream, read, round_trip, &mut room, fx));
            self.perform_streams(now);
        }
    }

    /// What was to be said of ends of streams was sealed.
    pub(super) fn stream_ends_said(&mut self, now: Time) {
        if let Some(driver) = &mut self.streams.driver {
            driver.handle(now, StreamIn::Said);
        }
    }

    /// The ends of these streams were sealed.
    pub(super) fn stream_ends_sent(&mut self, now: Time, ends: Vec<u64>) {
        for stream in ends {
            self.streams.driver().handle(now, StreamIn::EndSent(stream));
            self.perform_streams(now);
        }
    }

    pub(super) fn expire_streams(&mut self, now: Time) {
        if self.streams.next_deadline().is_some_and(|deadline| deadline <= now) {
            // Reads that were too few to be worth a frame decide whether a stream is idle.
            for change in self.streams.end.changes() {
                self.stream_changed(now, change);
            }
            self.streams.driver().expire_due(now);
            self.perform_streams(now);
        }
    }

    fn perform_streams(&mut self, now: Time) {
        let outs = self.streams.driver().take_outs();
        for out in outs {
            match out {
                StreamOut::Open(flow) => {
                    self.own.open(flow);
                    self.lanes.open_stream(flow);
                }
                StreamOut::Accept(flow) => self.accept(now, flow),
                StreamOut::Reset(flow, code) => {
                    self.lanes.end_stream(flow.stream);
                    self.own.end_stream(Kind::Reset, flow, code.0);
                }
                StreamOut::Stop(flow, code) => self.own.end_stream(Kind::Stop, flow, code.0),
                StreamOut::Ended(stream) => {
                    self.streams.end.end(stream);
                    if let Some(change) = self.streams.end.change(stream) {
                        self.stream_changed(now, change);
                    }
                }
                StreamOut::WasReset(stream, code) => {
                    self.streams.end.fail_reading(stream, StreamError::Reset(code));
                }
                StreamOut::WasStopped(stream, code) => {
                    self.streams.end.fail_writing(stream, StreamError::Stopped(code));
                }
                StreamOut::Credit(flow, limit) => self.own.credit(flow, limit),
                StreamOut::Reclaim(flow, limit) => self.own.reclaim(flow, limit),
                StreamOut::MaySend(flow, limit) => self.lanes.grant(flow, limit),
                StreamOut::Yield(flow, limit) => self.own.reclaimed(flow, self.lanes.reclaim(flow, limit)),
                StreamOut::GiveBack(bytes) => self.inbound.beyond().give_back(bytes as usize),
                StreamOut::Closed(stream) => {
                    self.streams.end.remove(stream);
                    if let Some(tap) = &mut self.tap {
                        tap.closed(stream);
                    }
                }
                StreamOut::Late => self.metrics.late.increment(1),
                StreamOut::End(reason) => self.input(now, In::Disconnect(reason)),
            }
        }
    }

    fn accept(&mut self, now: Time, flow: Flow) {
        self.metrics.streams_accepted.increment(1);
        if let Some(tap) = &mut self.tap {
            tap.opened(flow, TrafficDirection::Received);
        }
        let Pump { streams, lanes, .. } = self;
        lanes.open_stream(flow);
        let (writer, reader) = streams.end.add(flow, lanes.door());
        let accepted = AcceptedStream { session: streams.session, channel: flow.channel, writer, reader };
        let code = match streams.accept.get(&flow.channel).map(|outlet| outlet.offer(accepted)) {
            Some(Ok(())) => return self.watch_stream(now, flow.stream),
            // The protocol is behind, which is not the peer's doing.
            Some(Err(Refused::Full(_))) => StreamCode::NO_ROOM,
            Some(Err(Refused::Closed(_))) | None => StreamCode::REFUSED,
        };
        self.metrics.streams_refused.increment(1);
        self.streams.driver().handle(now, StreamIn::Refuse(flow.stream, code));
        self.perform_streams(now);
    }
}
