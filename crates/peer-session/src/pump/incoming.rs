//! What comes in: from the socket through records and frames to the protocols' outlets.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use peerage_machine::Time;
use peerage_mailbox::Outlet;
use peerage_queue::Inbound;
use peerage_wire::frame::Header;
use tokio::io::{AsyncRead, ReadBuf};

use super::streams::is_of_stream;
use super::{OutletsByChannel, Pump};
use crate::machine::In;

/// A protocol's outlet, and the messages that wait for room in it. Their peer's credit bounds them.
struct Route {
    outlet: Option<Outlet<Inbound>>,
    backlog: VecDeque<Inbound>,
    /// Messages and bytes since they were last counted.
    tally: (u64, u64),
}

impl Route {
    /// Hands on so many at most; how many the protocol took, and whether it is gone.
    fn hand_on(&mut self, cx: &mut Context<'_>, allowed: usize) -> (usize, bool) {
        let Some(outlet) = &self.outlet else { return (0, true) };
        if allowed >= self.backlog.len() {
            let before = self.backlog.len();
            let gone = matches!(outlet.poll_offer_all(cx, &mut self.backlog), Poll::Ready(Err(_)));
            return (before - self.backlog.len(), gone);
        }
        let mut some: VecDeque<Inbound> = self.backlog.drain(..allowed).collect();
        let gone = matches!(outlet.poll_offer_all(cx, &mut some), Poll::Ready(Err(_)));
        let handed = allowed - some.len();
        while let Some(back) = some.pop_back() {
            self.backlog.push_front(back);
        }
        (handed, gone)
    }
}

/// Where messages go, by channel.
pub(super) struct Routes(Vec<Route>);

impl Routes {
    pub(super) fn new(outlets: OutletsByChannel) -> Routes {
        let channels = outlets.last_key_value().map_or(0, |(channel, _)| channel.0);
        let mut outlets = outlets;
        let route = |channel| Route {
            outlet: outlets.remove(&peerage_queue::ChannelId(channel)),
            backlog: VecDeque::new(),
            tally: (0, 0),
        };
        Routes((1..=channels).map(route).collect())
    }

    /// Whether messages wait for room in an outlet.
    pub(super) fn are_waiting(&self) -> bool {
        self.0.iter().any(|route| !route.backlog.is_empty())
    }

    /// Gives back the memory of what is empty.
    pub(super) fn rest(&mut self) {
        self.0.iter_mut().filter(|route| route.backlog.is_empty()).for_each(|route| route.backlog = VecDeque::new());
    }
}

impl Pump {
    /// Reads what is there, and handles it. Returns how many bytes that was.
    pub(super) fn poll_read(&mut self, now: Time, cx: &mut Context<'_>) -> usize {
        let mut buffer = self.buffers.read();
        let mut len = self.carry.len();
        buffer[..len].copy_from_slice(&self.carry);
        self.carry.clear();
        let mut moved = 0;
        while self.ended.is_none() && moved < super::BUDGET / 2 {
            let room = self.may_read(now, buffer.len() - len);
            if room == 0 {
                break;
            }
            let mut free = ReadBuf::new(&mut buffer[len..len + room]);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut free);
            let filled = free.filled().len();
            self.have_read(now, filled);
            match read {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if filled > 0 => {
                    let read = filled;
                    self.counters.received(read);
                    moved += read;
                    let end = len + read;
                    let opened = self.open(now, &mut buffer[..end]);
                    buffer.copy_within(opened..end, 0);
                    len = end - opened;
                }
                Poll::Ready(_) => self.input(now, In::Broken),
            }
        }
        // A record that is not here whole: less than 64 KiB, and only what the peer did send.
        if len > 0 {
            self.carry.extend_from_slice(&buffer[..len]);
        } else if self.carry.capacity() > 0 {
            self.carry = Vec::new();
        }
        self.buffers.give_read(buffer);
        self.count();
        moved
    }

    /// Handles what came behind the handshake.
    pub(super) fn open_carried(&mut self, now: Time) {
        let mut carried = std::mem::take(&mut self.carry);
        let opened = self.open(now, &mut carried);
        self.carry = carried.split_off(opened);
    }

    /// Opens the records that are whole, and handles their frames. Returns how many bytes they were.
    fn open(&mut self, now: Time, read: &mut [u8]) -> usize {
        let mut opened = 0;
        while self.ended.is_none() {
            let record = match self.keys.opener.open_first(&mut read[opened..]) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) => {
                    self.input(now, In::Malformed);
                    break;
                }
            };
            let mut frames = &read[opened..][record.text];
            while !frames.is_empty() && self.ended.is_none() {
                match Header::decode(&mut frames) {
                    Ok((header, payload)) => self.frame(now, &header, payload),
                    Err(_) => self.input(now, In::Malformed),
                }
            }
            opened += record.end;
        }
        opened
    }

    fn frame(&mut self, now: Time, header: &Header, payload: &[u8]) {
        if is_of_stream(header) {
            return self.stream_frame(now, header, payload);
        }
        let Pump { driver, buffers, .. } = self;
        let message = driver.with(|machine, fx| machine.receive(now, header, payload, buffers, fx));
        match message {
            Some((flow, delivery)) => {
                let permit = self.returned.permit(flow, delivery.cost());
                match self.routes.0.get_mut(usize::from(delivery.channel.0) - 1) {
                    Some(route) => {
                        if let Some(tap) = &self.tap {
                            tap.received(&delivery);
                        }
                        route.tally.0 += 1;
                        route.tally.1 += delivery.payload.len() as u64;
                        route.backlog.push_back(Inbound { delivery, permit });
                    }
                    None => self.metrics.undeliverable(delivery.channel, 1),
                }
            }
            // Whole messages are the rule; everything else may ask for something.
            None => self.perform(now),
        }
    }

    /// Counts bytes of a stream.
    pub(super) fn tally(&mut self, channel: u16, bytes: usize) {
        match self.routes.0.get_mut(usize::from(channel) - 1) {
            Some(route) => route.tally.1 += bytes as u64,
            None => self.metrics.received(peerage_queue::ChannelId(channel), 0, bytes as u64),
        }
    }

    fn count(&mut self) {
        for (route, channel) in self.routes.0.iter_mut().zip(1..) {
            let (messages, bytes) = std::mem::take(&mut route.tally);
            if bytes + messages > 0 {
                self.metrics.received(peerage_queue::ChannelId(channel), messages, bytes);
            }
        }
    }

    /// Hands messages to the protocols that have room, as many and as long as their peer may have handled. Those that wait
    /// keep their peer waiting for credit, and nobody else.
    pub(super) fn poll_deliver(&mut self, now: Time, cx: &mut Context<'_>) {
        if !self.routes.are_waiting() {
            return;
        }
        self.returned.register(cx.waker());
        if !self.throttle.has_time(now, &self.returned) {
            return;
        }
        let Pump { routes, throttle, returned, metrics, .. } = self;
        for (at, route) in routes.0.iter_mut().enumerate() {
            while !route.backlog.is_empty() {
                let waiting = route.backlog.len();
                let allowed = throttle.may_hand_on(now, at, waiting, returned);
                if allowed == 0 {
                    break;
                }
                let (handed, gone) = route.hand_on(cx, allowed);
                throttle.kept(now, at, allowed - handed);
                if gone {
                    metrics.undeliverable(peerage_queue::ChannelId(at as u16 + 1), waiting as u64);
                    route.backlog.clear();
                }
                if handed < allowed {
                    break;
                }
            }
        }
    }
}
