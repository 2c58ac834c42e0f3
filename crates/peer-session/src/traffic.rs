//! Events for every message and stream of a session, for whoever watches a node at work (geth's `EnableMsgEvents`).

use std::collections::BTreeMap;

use peerage_mailbox::Port;
use peerage_queue::{ChannelId, Delivery, Flow, Fragment, SessionId};
use peerage_wire::frame::Lane;
use serde::Serialize;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TrafficDirection {
    /// To the peer: its last byte was sealed for the socket.
    Sent,
    /// From the peer: it is whole, and about to be handed to its protocol.
    Received,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TrafficKind {
    /// A message, whole.
    Message {
        /// Its first two bytes, where protocols have what kind of message it is; zeros where there are fewer.
        head: [u8; 2],
    },
    /// A stream was opened: sent, if this end did.
    StreamOpened,
    /// A stream is over, in both directions or with its session.
    StreamEnded {
        /// Bytes that went out.
        sent: u64,
        /// Bytes that came in.
        received: u64,
    },
}

/// One message of a protocol, or the beginning or end of a stream. What the session says on its own (pings, credit) is
/// none, nor are a stream's bytes as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// What.
    pub kind: TrafficKind,
    /// Its session.
    pub session: SessionId,
    /// Which way it went.
    pub direction: TrafficDirection,
    /// Its protocol.
    pub channel: ChannelId,
    /// 0: the channel's message flow.
    pub stream: u64,
    /// How urgent.
    pub lane: Lane,
    /// Bytes of payload; of a stream that ended, both ways.
    pub size: u64,
}

/// A session's part in them.
pub(crate) struct Tap {
    session: SessionId,
    port: Port<Traffic>,
    /// Bytes sealed of messages that have begun to go out, and how they begin: at most one a flow.
    begun: BTreeMap<Flow, (u64, [u8; 2])>,
    /// Streams that are not over, of which there are so many.
    streams: BTreeMap<u64, Counted>,
}

struct Counted {
    flow: Flow,
    opened: TrafficDirection,
    sent: u64,
    received: u64,
}

impl Tap {
    pub(crate) fn new(session: SessionId, port: Port<Traffic>) -> Tap {
        Tap { session, port, begun: BTreeMap::new(), streams: BTreeMap::new() }
    }

    pub(crate) fn sealed(&mut self, fragment: &Fragment) {
        let len = fragment.payload.len() as u64;
        let begins = || (0, head(&fragment.payload));
        if fragment.flow.stream != 0 {
            if let Some(stream) = self.streams.get_mut(&fragment.flow.stream) {
                stream.sent += len;
            }
        } else if fragment.more {
            self.begun.entry(fragment.flow).or_insert_with(begins).0 += len;
        } else {
            let (before, head) = self.begun.remove(&fragment.flow).unwrap_or_else(begins);
            self.tell(TrafficKind::Message { head }, TrafficDirection::Sent, fragment.flow, before + len);
        }
    }

    pub(crate) fn opened(&mut self, flow: Flow, opened: TrafficDirection) {
        self.streams.insert(flow.stream, Counted { flow, opened, sent: 0, received: 0 });
        self.tell(TrafficKind::StreamOpened, opened, flow, 0);
    }

    pub(crate) fn stream_received(&mut self, stream: u64, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.received += bytes as u64;
        }
    }

    pub(crate) fn closed(&mut self, stream: u64) {
        let Some(Counted { flow, opened, sent, received }) = self.streams.remove(&stream) else { return };
        self.tell(TrafficKind::StreamEnded { sent, received }, opened, flow, sent + received);
    }

    /// The session has ended, and its streams with it.
    pub(crate) fn session_ended(&mut self) {
        while let Some((stream, _)) = self.streams.first_key_value() {
            self.closed(*stream);
        }
    }

    pub(crate) fn received(&self, delivery: &Delivery) {
        let Delivery { channel, stream, lane, .. } = *delivery;
        let (flow, size) = (Flow { channel, stream, lane }, delivery.payload.len() as u64);
        let head = head(&delivery.payload);
        self.tell(TrafficKind::Message { head }, TrafficDirection::Received, flow, size);
    }

    fn tell(&self, kind: TrafficKind, direction: TrafficDirection, flow: Flow, size: u64) {
        let Flow { channel, stream, lane } = flow;
        self.port.send(Traffic { kind, session: self.session, direction, channel, stream, lane, size });
    }
}

/// How a message begins. Its first fragment has two bytes if it has them: fragments are cut at 16 KiB.
fn head(bytes: &[u8]) -> [u8; 2] {
    [bytes.first(), bytes.get(1)].map(|byte| byte.copied().unwrap_or_default())
}
