//! What the exchange may be told and what it asks for.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_wire::{Admission, NodeId, NodeRecord, Penalty, Verified, codec};
use serde::{Deserialize, Serialize};

use super::super::count::{DropReason, Event};
use crate::Found;
use crate::external::Reachable;
use crate::filter::EntryRule;

/// A session that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerUp {
    /// The session.
    pub session: SessionId,
    /// Its channel `peers/1`; none with a peer that does not speak it, which is told to others all the same.
    pub channel: Option<ChannelId>,
    /// Where the peer is, as seen from here.
    pub remote: SocketAddr,
    /// Whether this end dialled.
    pub dialled: bool,
    /// Its record, as the handshake proved it.
    pub record: Verified<NodeRecord>,
}

/// What may happen to the exchange. Written beside each group: who sends it, and what bounds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    // ---------- from the root: bounded by its sessions, dials and changes ----------
    /// The node begins to listen. Once, before anything else.
    Start,
    /// A session has begun.
    PeerUp(PeerUp),
    /// It has ended.
    PeerDown(SessionId),
    /// The dialer can use so many candidates now.
    Want {
        /// How many.
        count: usize,
        /// Whether they are to come from here, as discovery knows nobody: it is off, or UDP is blocked. If not, this
        /// only says that news is welcome, and discovery gets it.
        supply: bool,
    },
    /// A dial ended.
    Outcome {
        /// Who was dialled.
        id: NodeId,
        /// Whether it became a peer.
        ok: bool,
    },
    /// This node signed a new record of itself.
    LocalChanged(Verified<NodeRecord>),
    /// What a record must say for its owner to be handed to the dialer from now on.
    Filter(Vec<EntryRule>),
    /// Whom this node has to do with from now on.
    Admission(Arc<Admission>),
    /// The answer to [`Out::Offer`]: what was offered is taken, or nobody takes it.
    Offered,
    // ---------- from sessions: bounded by their credit ----------
    /// A message on a session's channel.
    Inbound {
        /// The session.
        session: SessionId,
        /// The channel's stream; the protocol has none but the message flow, 0.
        stream: u64,
        /// What came.
        #[serde(deserialize_with = "codec::copied")]
        payload: Bytes,
    },
    // ---------- from the shell itself: one for each that was asked ----------
    /// Those records of an [`Out::Verify`] that their owners signed.
    Verified {
        /// Of the question.
        token: u64,
        /// The good ones, in any order.
        records: Vec<Verified<NodeRecord>>,
    },
    /// The answer to [`Out::DialBack`].
    DialledBack {
        /// Of the question.
        token: u64,
        /// Whether the port took the connection.
        reached: bool,
    },
}

/// What the exchange asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Send this on a channel.
    Send {
        /// To whom.
        to: Recipient,
        /// What.
        payload: Bytes,
    },
    /// Check the owners' signatures, and come back with [`In::Verified`].
    Verify {
        /// Comes back with the result.
        token: u64,
        /// What to check; at most [`MAX_RECORDS`](super::super::wire::MAX_RECORDS).
        records: Vec<NodeRecord>,
    },
    /// Offer these to discovery, and come back with [`In::Offered`]; at most [`MAX_OFFER`](crate::MAX_OFFER).
    Offer(Vec<Verified<NodeRecord>>),
    /// Nodes for the dialer; never more than it wants. None of them has answered this node yet.
    Candidates(Vec<Found>),
    /// Open a TCP connection there, close it at once, and come back with [`In::DialledBack`].
    DialBack {
        /// Comes back with the result.
        token: u64,
        /// The peer's own address, as its session shows it, and the port that it named.
        to: SocketAddr,
    },
    /// A peer says where it sees this node: a statement for who predicts the node's own address. The port is the
    /// connection's own, and says nothing of where the node listens if this end dialled.
    Observed {
        /// The peer's address.
        by: SocketAddr,
        /// What it says.
        observed: SocketAddr,
    },
    /// Whether this node can be dialled from outside; told when it changes.
    Reachable(Reachable),
    /// A peer did what no correct peer does.
    Report {
        /// Its session.
        session: SessionId,
        /// What it did.
        penalty: Penalty,
    },
    /// Count a drop.
    Drop(DropReason),
    /// Count an event.
    Event(Event),
}

/// The exchange's timers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A peer is to be asked for records.
    Pull,
    /// A peer's records are not waited for any longer.
    Answer(SessionId),
    /// A node may be handed out again.
    Handout,
    /// Peers are to be asked to dial back.
    Probe,
    /// A peer's dial-back is not waited for any longer.
    ProbeAnswer(SessionId),
}
