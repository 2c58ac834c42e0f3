//! Events for every message of a session, for whoever watches a node at work (geth's `EnableMsgEvents`).

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

/// One message of a protocol, whole. What the session says on its own (pings, credit) is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
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
    /// Bytes of payload.
    pub size: u64,
}

/// A session's part in them.
pub(crate) struct Tap {
    session: SessionId,
    port: Port<Traffic>,
    /// Bytes sealed of messages that have begun to go out: at most one a flow.
    begun: BTreeMap<Flow, u64>,
}

impl Tap {
    pub(crate) fn new(session: SessionId, port: Port<Traffic>) -> Tap {
        Tap { session, port, begun: BTreeMap::new() }
    }

    pub(crate) fn sealed(&mut self, fragment: &Fragment) {
        let len = fragment.payload.len() as u64;
        if fragment.more {
            *self.begun.entry(fragment.flow).or_default() += len;
        } else {
            let size = self.begun.remove(&fragment.flow).unwrap_or(0) + len;
            self.tell(TrafficDirection::Sent, fragment.flow, size);
        }
    }

    pub(crate) fn received(&self, delivery: &Delivery) {
        let Delivery { channel, stream, lane, .. } = *delivery;
        self.tell(TrafficDirection::Received, Flow { channel, stream, lane }, delivery.payload.len() as u64);
    }

    fn tell(&self, direction: TrafficDirection, flow: Flow, size: u64) {
        let Flow { channel, stream, lane } = flow;
        self.port.send(Traffic { session: self.session, direction, channel, stream, lane, size });
    }
}
