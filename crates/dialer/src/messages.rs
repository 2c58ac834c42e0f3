//! What the dialer is told and what it asks for.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::labelled;
use peerage_wire::address::scope;
use peerage_wire::{Admission, Consequence, DisconnectReason, NodeId, NodeRecord, Verified};
use serde::{Deserialize, Serialize};

use crate::{Cause, Diagnosis};

/// Addresses kept of one node; as many as a record holds.
pub const MAX_ADDRESSES: usize = 8;

/// Addresses of a node that one dial tries at most: whoever carries out [`Out::Dial`] begins with the first ones. Of
/// a static peer with more the dialer lets another be the first after each failure.
pub const RACED: usize = 3;

/// Anchors dialled at a start.
pub const MAX_ANCHORS: usize = 16;

/// Bootnodes that a node without peers falls back to.
pub const MAX_BOOTNODES: usize = 64;

/// Numbers the attempts to reach a node. Rising; never used twice, not by a restarted dialer either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt(pub u64);

/// Whom to dial, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DialTarget {
    /// The identity that must answer.
    pub id: NodeId,
    /// Where it may listen, best first; never empty in [`Out::Dial`].
    pub addresses: Vec<SocketAddr>,
    /// Whether somebody named it as a static peer.
    pub is_static: bool,
}

/// A peer to be kept connected, as somebody named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPeer {
    /// Its identity.
    pub id: NodeId,
    /// Where it may listen, best first. May be empty: then it is resolved before it is dialled.
    pub addresses: Vec<SocketAddr>,
}

impl StaticPeer {
    /// A static peer at these addresses; what cannot be dialled is left out, as are more than
    /// [`MAX_ADDRESSES`].
    pub fn new(id: NodeId, addresses: impl IntoIterator<Item = SocketAddr>) -> StaticPeer {
        let addresses = addresses.into_iter().filter(is_dialable).take(MAX_ADDRESSES).collect();
        StaticPeer { id, addresses }
    }
}

impl From<&NodeRecord> for StaticPeer {
    fn from(record: &NodeRecord) -> StaticPeer {
        StaticPeer { id: record.id(), addresses: dialable(record) }
    }
}

/// A node that was found: its record, and those of the sockets in it where it may be dialled, best first. It is for
/// discovery to leave out what the node may not name: a socket of a bystander, or of our own network.
pub type Candidate = (Verified<NodeRecord>, Vec<SocketAddr>);

/// The addresses of a record that a TCP connection can be made to, of those that reach as far as its first one:
/// a node of the internet could otherwise make us connect to our own computer and network.
pub(crate) fn dialable(record: &NodeRecord) -> Vec<SocketAddr> {
    let mut sockets = record.tcp_sockets().iter().copied().peekable();
    let reach = sockets.peek().map(|first| scope(first.ip()));
    let alike = sockets.filter(|socket| Some(scope(socket.ip())) == reach);
    alike.filter(is_dialable).take(MAX_ADDRESSES).collect()
}

fn is_dialable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DialOutcome {
    /// The peer was added.
    Connected,
    /// No address took the connection.
    ConnectFailed,
    /// The connection was made and the set-up refused, by either end.
    HandshakeFailed(DisconnectReason),
    /// A deadline passed.
    TimedOut,
    /// It was called off, or this end had no place for the peer or was shutting down: nothing that the node did.
    Cancelled,
    /// No address is known, and none was found. The dialer's own answer; no connection was tried.
    Unresolved,
    /// Addresses were found, and none of them is admitted. The dialer's own answer, as before.
    Restricted,
}

impl DialOutcome {
    /// A word for metrics, and a second one for the reason of a failed handshake.
    pub const fn labels(self) -> (&'static str, &'static str) {
        match self {
            DialOutcome::Connected => ("connected", ""),
            DialOutcome::ConnectFailed => ("connect_failed", ""),
            DialOutcome::HandshakeFailed(reason) => ("handshake_failed", reason.label()),
            DialOutcome::TimedOut => ("timed_out", ""),
            DialOutcome::Cancelled => ("cancelled", ""),
            DialOutcome::Unresolved => ("unresolved", ""),
            DialOutcome::Restricted => ("restricted", ""),
        }
    }

    /// What follows from it for the node that was dialled.
    pub const fn consequence(self) -> Consequence {
        match self {
            // It is the policy of this node that has to change, and then it is dialled at once.
            DialOutcome::Connected | DialOutcome::Cancelled | DialOutcome::Restricted => Consequence::Ignore,
            DialOutcome::HandshakeFailed(reason) => reason.consequence(false),
            DialOutcome::ConnectFailed | DialOutcome::TimedOut | DialOutcome::Unresolved => Consequence::BackOff,
        }
    }
}

/// What may happen to the dialer. Written beside each group: who sends it, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum In {
    // ---- From the root. Bounded by its API permits, its slots and its sessions.
    /// Dialling may begin. After a restart the root first replays the policy, bootnodes, static peers and
    /// [`In::PeerUp`], so that nobody is dialled who is connected or not admitted.
    Start,
    /// Whom this node has to do with from now on; everybody until this is said. Dials in flight to who is not
    /// admitted any more are called off. Sessions are the root's to end.
    Admission(Arc<Admission>),
    /// The best peers of an earlier life: dialled before anybody is asked for candidates, each once, as
    /// ordinary candidates. At most [`MAX_ANCHORS`], and only before [`In::Start`]; others are dropped.
    Anchors(Vec<StaticPeer>),
    /// Whom to dial directly, one after the other, while there is neither a dialled nor a static peer. Replaces
    /// what was known; at most [`MAX_BOOTNODES`], and those without an address are left out.
    Bootnodes(Vec<StaticPeer>),
    /// Keep this peer connected. A known one gets the new addresses. What is held against a new one is forgotten,
    /// and its history ends after [`readd_after`](crate::Config::readd_after): who removes a peer and adds it
    /// again wants it dialled soon, and a script that does so in a loop must not hammer it.
    AddStatic(StaticPeer),
    /// Stop to care for this peer; a dial of it in flight is cancelled. A session stays.
    RemoveStatic(NodeId),
    /// A session was added. A session that replaces another of the same node comes after the other's
    /// [`In::PeerDown`].
    PeerUp {
        /// Its node.
        id: NodeId,
        /// Whether this end dialled.
        dialled: bool,
    },
    /// A session has ended.
    PeerDown {
        /// Its node.
        id: NodeId,
        /// Whether this end had dialled.
        dialled: bool,
        /// How long the session was up.
        lived: Duration,
        /// What follows from its end for the node. One that is to be avoided or blamed has failed, however long the
        /// session lived.
        consequence: Consequence,
    },
    /// A connection made by this node has shown who it is and is being set up.
    InboundPending(NodeId),
    /// Such a set-up has ended, well or not. If well, [`In::PeerUp`] came before.
    InboundDone(NodeId),

    // ---- From the connector, by way of the root. At most one an attempt.
    /// The answer to [`Out::Dial`].
    Done {
        /// Of which attempt.
        attempt: Attempt,
        /// How it ended.
        outcome: DialOutcome,
    },

    // ---- From discovery, by way of the root. Only after it was asked: at most one a resolution, and
    // ---- no more records than were wanted.
    /// The answer to [`Out::Resolve`].
    Resolved {
        /// Of which attempt.
        attempt: Attempt,
        /// The newest record found.
        record: Option<Verified<NodeRecord>>,
    },
    /// The answer to [`Out::Want`]; may come in several parts.
    Candidates(Vec<Candidate>),

    // ---- From the root, for the application: one a change.
    /// How many peers are to be dialled from now on. Fewer than there are end no session; dials beyond them are called
    /// off.
    Limits {
        /// [`max_dial_peers`](crate::Config::max_dial_peers).
        max_dial_peers: u32,
        /// [`max_static_peers`](crate::Config::max_static_peers).
        max_static_peers: u32,
    },
    /// Whether nobody is dialled for now, static peers neither. What is in flight goes on.
    Pause(bool),
}

/// What the dialer asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Out {
    /// It can use this many candidates now. Replaces the last such wish, it does not add to it.
    Want(NonZeroU32),
    /// Find the newest record of this node.
    Resolve {
        /// To be named in the answer.
        attempt: Attempt,
        /// Whose record.
        id: NodeId,
    },
    /// Connect to this node. The same attempt may ask twice: again, at other addresses, after the
    /// first answer was [`DialOutcome::ConnectFailed`] or [`DialOutcome::TimedOut`].
    Dial {
        /// To be named in the answer.
        attempt: Attempt,
        /// Whom, and where.
        target: DialTarget,
    },
    /// Call this dial off. Its answer is no longer waited for.
    Cancel(Attempt),
    /// Fewer peers are dialled than wanted, or static peers are missing, and why: at most every
    /// [`report_every`](crate::Config::report_every), if anything happened; then `None`, once there are enough.
    Seeking(Option<Diagnosis>),
    /// Something to be counted; performed by the shell.
    Count(Count),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Count {
    /// A candidate was not dialled.
    Dropped(Refusal),
    /// An attempt ended.
    Finished {
        /// How.
        outcome: DialOutcome,
        /// Whether it was of a static peer.
        is_static: bool,
    },
    /// Somebody did not become a dialled peer; static peers are not counted.
    Cause(Cause),
    /// An answer to an attempt that has ended was ignored.
    Late,
    /// A static peer was refused: this node itself, or one more than
    /// [`max_statics`](crate::Config::max_statics).
    StaticRefused,
}

labelled! {
    /// Why a node is not dialled now. The checks are made in this order; those from `OwnId` to
    /// `RecentlyDialled` are geth's (`checkDial`).
    Refusal {
        /// Nobody asked for it, or it is an anchor that came after the start or is one too many.
        Unsolicited = "unsolicited",
        /// It is dialled as a static peer; a newer record of it was taken note of.
        Static = "static",
        /// It is this node.
        OwnId = "self",
        /// It names no address that can be dialled.
        NoAddress = "no_address",
        /// It is being dialled.
        AlreadyDialing = "already_dialing",
        /// It is connected.
        AlreadyConnected = "already_connected",
        /// Its own connection to this node is being set up.
        PendingInbound = "pending_inbound",
        /// The policy does not admit it, or none of its addresses.
        Restricted = "restricted",
        /// It was dialled a short while ago.
        RecentlyDialled = "recently_dialled",
        /// It failed, and its back-off has not passed.
        BackingOff = "backing_off",
        /// Somebody else was dialled a short while ago at each of its addresses.
        AddressDialled = "address_dialled",
        /// No more dials can be remembered.
        MemoryFull = "memory_full",
        /// It already waits for a slot.
        Waiting = "waiting",
        /// More candidates wait for a slot than there can be slots.
        NoSlot = "no_slot",
    }
}
