//! The pump: the one task that owns a session's socket and keys, and empties the peer's lanes.
//!
//! It carries and decides nothing. One call of [`Pump::poll`] does what can be done now, in both directions, and then
//! waits for all of it at once: no task and no buffer stands between the socket and the protocols.

mod incoming;
mod outgoing;
mod streams;
mod throttle;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use peerage_machine::{Driver, Time};
use peerage_mailbox::{Clock, Outlet, Port};
use peerage_queue::stream::StreamEnd;
use peerage_queue::throttle::PeerThrottle;
use peerage_queue::{ChannelId, Fragment, Inbound, InboundShare, LaneEnd, Returned};
use peerage_transport::Stream;
use peerage_wire::DisconnectReason;
use peerage_wire::frame::Kind;
use tokio::time::Sleep;

use crate::Ended;
use crate::actor::Args;
use crate::buffers::Buffers;
use crate::control::{Control, Controlled};
use crate::handshake::Keys;
use crate::handshaker::Established;
use crate::machine::{EndedBy, In, Out, SessionMachine};
use crate::metrics::PumpMetrics;
use crate::own::OwnFrames;
use crate::stats::Counters;
use crate::traffic::Tap;

use incoming::Routes;
use outgoing::Turn;
pub(crate) use outgoing::linger;
use streams::Streams;
use throttle::Owed;

/// Bytes moved in both directions before other tasks get their turn.
const BUDGET: usize = 1 << 20;

pub(crate) struct Pump {
    driver: Driver<SessionMachine>,
    /// How long each step of the end may take.
    disconnect_timeout: Duration,
    clock: Clock,
    keys: Keys,
    stream: Stream,
    lanes: LaneEnd,
    routes: Routes,
    streams: Streams,
    control: Controlled,
    counters: Arc<Counters>,
    metrics: PumpMetrics,
    /// Who watches, if anybody does.
    tap: Option<Box<Tap>>,
    buffers: Buffers,
    /// What was read of a record that is not here whole yet.
    carry: Vec<u8>,
    /// Sealed, and not taken by the socket yet.
    turn: Turn,
    batch: Vec<Fragment>,
    /// Frames of the session's own that wait to be sealed.
    own: OwnFrames,
    /// This session's part of the inbound pool, and whether it waits for more.
    inbound: InboundShare,
    wanting: bool,
    /// How fast the peer may be; what the pool granted and is passed on as fast as that; and whether a read waits.
    throttle: Box<PeerThrottle>,
    owed: Owed,
    held: bool,
    /// The end waits until the lanes are empty.
    draining: bool,
    /// What became of the permits of what was delivered, and at which totals the machine wants to know.
    returned: Returned,
    alarm: Option<Pin<Box<Sleep>>>,
    alarm_at: Option<Time>,
    ended: Option<(DisconnectReason, EndedBy)>,
}

/// Tells how the session ended, once, also when the pump panics.
struct Report {
    port: Port<Ended>,
    ended: Ended,
}

impl Drop for Report {
    fn drop(&mut self) {
        self.port.send(self.ended);
    }
}

impl Pump {
    pub(crate) fn new(mut args: Args, streams: StreamEnd, control: Controlled, counters: Arc<Counters>) -> Pump {
        let streams = Streams::new(&mut args, streams);
        let Established { stream, keys, read, remote, .. } = args.established;
        let channels = remote.channels.len() as u16;
        let metrics = PumpMetrics::new(&args.meter, &keys, &remote.channels);
        let machine = SessionMachine::new(args.config, args.session, channels);
        let throttle = Box::new(args.throttle);
        let returned = Returned::timed(machine.flows() + 1, Some(throttle.time_source()));
        let mut lanes = args.lanes;
        lanes.require_credit(channels);
        Pump {
            driver: Driver::new(machine),
            disconnect_timeout: args.config.disconnect_timeout,
            clock: args.clock,
            keys,
            stream,
            lanes,
            routes: Routes::new(args.routes),
            streams,
            control,
            counters,
            metrics,
            tap: args.traffic.map(|port| Box::new(Tap::new(args.session, port))),
            buffers: args.buffers,
            carry: read.to_vec(),
            turn: Turn::default(),
            batch: Vec::new(),
            own: OwnFrames::default(),
            inbound: args.inbound,
            wanting: false,
            throttle,
            owed: Owed::default(),
            held: false,
            draining: false,
            returned,
            alarm: None,
            alarm_at: None,
            ended: None,
        }
    }

    /// Runs until the session ends, and says how.
    pub(crate) async fn run(mut self, port: Port<Ended>) {
        let crashed = Ended { reason: DisconnectReason::Crashed, by: EndedBy::Us };
        let mut report = Report { port, ended: crashed };
        let now = self.clock.now();
        self.input(now, In::Start);
        self.open_carried(now);
        let (reason, by) = poll_fn(|cx| self.poll(cx)).await;
        self.throttle.moves_nothing(self.clock.now());
        if matches!(reason, DisconnectReason::Quitting | DisconnectReason::Requested) && self.routes.are_waiting() {
            // What was here before a friendly end is delivered, if there is room for it in time.
            let limit = self.disconnect_timeout;
            let deliver = poll_fn(|cx| {
                self.poll_deliver(self.clock.now(), cx);
                self.set_alarm(self.clock.now(), cx);
                if self.routes.are_waiting() { Poll::Pending } else { Poll::Ready(()) }
            });
            let _ = Box::pin(tokio::time::timeout(limit, deliver)).await;
        }
        if by == EndedBy::Us {
            // Boxed: a session carries its farewell's state only when it comes to that.
            Box::pin(self.farewell()).await;
        }
        if let Some(tap) = &mut self.tap {
            tap.session_ended();
        }
        let Pump { driver, inbound, returned, mut streams, throttle, .. } = self;
        drop(throttle);
        let outstanding = driver.machine().outstanding(|flow| returned.total(flow));
        // What streams still have to be read counts on a flow of its own, behind the last.
        let (unread, mut kept) = (driver.machine().flows(), 0);
        streams.end.session_ended(|bytes| {
            kept += bytes as u64;
            returned.permit(unread, bytes as u64)
        });
        returned.end(inbound, outstanding + kept);
        report.ended = Ended { reason, by };
    }

    /// Reads first and writes last: what was read, and the permits that came back for it, may have made frames to write.
    /// So one round does all that there is to do, unless either direction has more than its budget.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(DisconnectReason, EndedBy)> {
        let mut budget = BUDGET;
        loop {
            let now = self.clock.now();
            self.throttle.refresh();
            if let Some(control) = self.control.poll(cx.waker()) {
                self.controlled(now, control);
            }
            self.poll_alarm(now, cx);
            let mut read = 0;
            if self.ended.is_none() {
                read = self.poll_read(now, cx);
            }
            self.poll_deliver(now, cx);
            self.poll_releases(now, cx);
            self.pass_on(now);
            self.poll_streams(now, cx.waker());
            while self.wanting
                && self.ended.is_none()
                && let Poll::Ready(bytes) = self.inbound.beyond().poll_granted(cx)
            {
                self.owed.bytes += bytes as u64;
                self.pass_on(now);
            }
            let mut written = 0;
            if self.ended.is_none() {
                written = self.poll_write(now, cx);
            }
            if self.draining && self.turn.is_empty() && self.lanes.is_empty() {
                self.input(now, In::Drained);
            }
            if let Some(ended) = self.ended {
                return Poll::Ready(ended);
            }
            if read.max(written) < BUDGET / 2 && !self.has_more(now, cx) {
                return Poll::Pending;
            }
            budget = budget.saturating_sub(read + written);
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Whether there is something to do that nothing will wake this task for.
    fn has_more(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        self.set_alarm(now, cx) || (!self.own.is_empty() && self.turn.is_empty())
    }

    fn controlled(&mut self, now: Time, control: Control) {
        match control {
            Control::Abandoned => self.input(now, In::Disconnect(DisconnectReason::Crashed)),
            Control::Disconnect(reason) => self.input(now, In::Disconnect(reason)),
            #[cfg(feature = "fault-injection")]
            Control::Panic => panic!("injected"),
        }
    }

    fn poll_alarm(&mut self, now: Time, cx: &mut Context<'_>) {
        self.expire_streams(now);
        if self.driver.next_deadline().is_some_and(|deadline| deadline <= now) {
            let contended = self.inbound.beyond().others_wait();
            self.driver.machine_mut().contended(contended);
            // Permits that were too few to be worth a frame decide whether a flow is idle.
            for flow in 0..self.driver.machine().flows() {
                let total = self.returned.total(flow);
                self.input(now, In::Released { flow, total });
            }
            self.driver.expire_due(now);
            self.perform(now);
            self.set_alarm(now, cx);
        }
    }

    /// Sets the alarm to the next deadline; true if that is there already.
    fn set_alarm(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        let deadlines = self.driver.next_deadline().into_iter().chain(self.streams.next_deadline());
        // Behind the end nobody looks at those: one that is over would hide when messages may be handed on.
        let deadlines = deadlines.filter(|_| self.ended.is_none());
        let Some(deadline) = deadlines.chain(self.throttle.next(now)).min() else { return false };
        let at = self.clock.instant(deadline);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        // An alarm that is early costs one look; one is moved only if it would be late, or has gone off.
        if self.alarm_at.is_none_or(|set| deadline < set) || alarm.is_elapsed() {
            alarm.as_mut().reset(at);
            self.alarm_at = Some(deadline);
        }
        alarm.as_mut().poll(cx).is_ready() && deadline <= self.clock.now()
    }

    fn input(&mut self, now: Time, input: In) {
        self.driver.handle(now, input);
        self.perform(now);
    }

    /// Tells the machine of permits that were dropped, where that matters to it.
    fn poll_releases(&mut self, now: Time, cx: &mut Context<'_>) {
        self.returned.register(cx.waker());
        for flow in 0..self.driver.machine().flows() {
            while !self.returned.wake_at(flow, self.driver.machine().wake_at(flow)) && self.ended.is_none() {
                let total = self.returned.total(flow);
                self.input(now, In::Released { flow, total });
            }
        }
    }

    fn perform(&mut self, now: Time) {
        loop {
            let (mut granted, mut grown, mut starved) = (0, None, None);
            for out in self.driver.drain() {
                match out {
                    Out::Send(kind, payload) => {
                        if kind == Kind::Ping {
                            // Now and then: what a burst needed, a quiet session gives back.
                            self.routes.rest();
                            self.lanes.rest();
                            self.batch = Vec::new();
                            starved = Some(self.lanes.starved(now));
                        }
                        if !self.own.push(kind, payload) {
                            self.metrics.unanswered.increment(1);
                        }
                    }
                    Out::Credit(flow, limit) => self.own.credit(flow, limit),
                    Out::Reclaim(flow, limit) => self.own.reclaim(flow, limit),
                    Out::MaySend(flow, limit) => self.lanes.grant(flow, limit),
                    Out::Yield(flow, limit) => self.own.reclaimed(flow, self.lanes.reclaim(flow, limit)),
                    Out::Want(bytes) => {
                        let there = self.inbound.beyond().take(bytes as usize) as u64;
                        granted += there;
                        self.wanting |= there < bytes;
                    }
                    // One at a time: it is only asked for when permits came back, flow by flow.
                    Out::Grow { flow, by } => {
                        // A window is sized for how fast the peer is, and it is as fast as it may be.
                        let room = !self.throttle.limits_download() && self.inbound.beyond().charge(by as usize);
                        grown = room.then_some((flow, by));
                    }
                    Out::GiveBack(bytes) => self.inbound.beyond().give_back(bytes as usize),
                    Out::Drain => self.draining = true,
                    Out::RoundTrip(time) => self.counters.round_trip(time),
                    Out::End(reason, by) => self.ended = Some((reason, by)),
                    Out::Skipped => self.metrics.skipped.increment(1),
                }
            }
            if let Some((flow, by)) = grown {
                self.driver.handle(now, In::Grown { flow, by });
            }
            self.owed.bytes += granted;
            granted = self.next_piece();
            if granted > 0 {
                self.driver.handle(now, In::Granted(granted));
            }
            if let Some(waited) = starved {
                self.driver.handle(now, In::Starved(waited));
            }
            if granted == 0 && grown.is_none() && starved.is_none() {
                return;
            }
        }
    }
}

pub(crate) type OutletsByChannel = BTreeMap<ChannelId, Outlet<Inbound>>;
