//! What a session's machine is told, and what it asks of its task.

use std::time::Duration;

use bytes::Bytes;
use peerage_queue::Flow;
use peerage_wire::DisconnectReason;
use peerage_wire::frame::Kind;
use serde::{Deserialize, Serialize};

/// What may happen to a session, besides frames that come in ([`SessionMachine::receive`](crate::SessionMachine::receive)).
#[derive(Clone, Debug, Serialize)]
pub enum In {
    /// It begins.
    Start,
    /// A turn's bytes wait for the peer to take them, or all of them were taken.
    Writing(Writing),
    /// The permits of a flow's messages that were dropped since the session began add up to this.
    Released {
        /// Which flow, as [`SessionMachine::flow`](crate::SessionMachine::flow) numbers them.
        flow: usize,
        /// The cost.
        total: u64,
    },
    /// The inbound pool gave so many of the bytes that [`Out::Want`] asked for.
    Granted(u64),
    /// The inbound pool had the bytes of [`Out::Grow`].
    Grown {
        /// Which flow.
        flow: usize,
        /// The bytes.
        by: u64,
    },
    /// A message that has begun to go out waits for credit for so long.
    Starved(Duration),
    /// Somebody here wants it to end. Before a friendly end, what is queued goes first: who publishes and quits means it
    /// to arrive.
    Disconnect(DisconnectReason),
    /// A stream is read, and its window may have to grow: the round trip should be known.
    Measure,
    /// Whether reading waits, because the peer has used its bandwidth: what it does not say meanwhile is not its fault.
    Held(bool),
    /// Nothing is queued any more, after [`Out::Drain`].
    Drained,
    /// The connection ended or broke.
    Broken,
    /// What came in does not decode or authenticate.
    Malformed,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// Send a frame of the session's own with this payload.
    Send(Kind, Vec<u8>),
    /// Tell the peer how much it may send on a flow; a later limit replaces an earlier one.
    Credit(Flow, u64),
    /// Ask the peer to go back to this limit.
    Reclaim(Flow, u64),
    /// The peer lets this node send so much on a flow.
    MaySend(Flow, u64),
    /// The peer asks for its credit back, down to this limit: say which limit holds then.
    Yield(Flow, u64),
    /// Take so many bytes from the inbound pool, and wait for what is not there. Comes again only when that was granted.
    Want(u64),
    /// Take so many bytes from the inbound pool for a larger window, if they are there now.
    Grow {
        /// Which flow.
        flow: usize,
        /// The bytes.
        by: u64,
    },
    /// Give so many bytes back to the inbound pool.
    GiveBack(u64),
    /// Say when nothing is queued any more.
    Drain,
    /// The peer answered a ping after this long.
    RoundTrip(Duration),
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
    /// What is queued has had its time before the end.
    Drain,
}

pub(super) const TIMERS: [Timer; 5] = [Timer::Ping, Timer::Idle, Timer::Stall, Timer::Reassembly, Timer::Drain];

/// Where the bytes of large messages are put together.
pub trait Memory {
    /// An empty buffer for a message of `total` bytes, which has little more room than that, or none.
    fn take(&mut self, total: usize) -> Vec<u8>;

    /// The whole message.
    fn whole(&mut self, message: Vec<u8>) -> Bytes;
}

/// Memory from the allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

impl Memory for Allocator {
    fn take(&mut self, _total: usize) -> Vec<u8> {
        Vec::new()
    }

    fn whole(&mut self, message: Vec<u8>) -> Bytes {
        message.into()
    }
}
