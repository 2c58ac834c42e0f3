//! What the root may be told and what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_peer_session::Ended;
use peerage_peer_session::handshake::{Direction, Remote};
use peerage_queue::SessionId;
use peerage_wire::{Admission, Banned, DisconnectReason, ForkId, NodeId, Penalty};
use serde::{Deserialize, Serialize};

use crate::Limits;

/// One connection's set-up, from its first checkpoint on. Ids rise and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setup(pub u64);

/// Which checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The other end has proved who it is.
    Identified,
    /// Both ends have accepted; add the peer.
    Established,
}

/// What the checks look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The other end.
    pub id: NodeId,
    /// Who dialled.
    pub direction: Direction,
    /// The other end's process.
    pub instance: u64,
    /// Its address as seen from here.
    pub ip: IpAddr,
    /// The fork that it follows.
    pub fork: ForkId,
}

impl Meta {
    /// What the checks look at of a node that has proved who it is.
    pub fn of(remote: &Remote, direction: Direction, ip: IpAddr) -> Meta {
        Meta {
            id: remote.id(),
            direction,
            instance: remote.hello.instance,
            ip: ip.to_canonical(),
            fork: remote.hello.fork_id,
        }
    }

    /// Whether this end dialled.
    pub fn dialled(&self) -> bool {
        self.direction == Direction::Outbound
    }
}

/// Whether the root takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Running {
    /// Not yet.
    Starting,
    /// Yes.
    Running,
    /// No; sessions are ending.
    Draining,
    /// No; all have ended.
    Stopped,
}

/// What an earlier process of this node remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// What is banned, and for how much longer.
    pub bans: Vec<(Banned, Duration)>,
    /// What nodes are blamed for as of now, in points.
    pub blame: Vec<(NodeId, u32)>,
    /// The anchors, and where each is.
    pub anchors: Vec<(NodeId, IpAddr)>,
}

/// What may happen to the root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    // ---------- from its shell, once ----------
    /// Every service runs: connections may come.
    Start,
    /// What an earlier process remembered, before the start.
    Restore(Restored),
    // ---------- from set-ups; at most slots and dials of them ----------
    /// A connection is at a checkpoint. Answered by one [`Out::Verdict`].
    Checkpoint(Setup, Stage, Meta),
    /// A set-up has ended, well or not.
    Released(Setup),
    // ---------- from sessions ----------
    /// A session has ended.
    Ended(SessionId, Ended),
    /// A peer did something no correct peer does.
    Report(SessionId, Penalty),
    // ---------- from protocols ----------
    /// A node that may not be a peer did: the publisher of a message that others relayed.
    Blame(NodeId, Penalty),
    /// Whether both ends have something that the other supports. A new peer has not.
    Useful(SessionId, bool),
    /// The answer to [`Out::Weigh`]: what each session brought, in bytes.
    Contributions(BTreeMap<SessionId, u64>),
    // ---------- from the application ----------
    /// Limits spare this node from now on.
    AddTrusted(NodeId),
    /// They no longer do; a live session stays.
    RemoveTrusted(NodeId),
    /// This node takes a static place, not a dynamic one.
    AddStatic(NodeId),
    /// It takes a dynamic one again; a live session stays.
    RemoveStatic(NodeId),
    /// Where static and trusted peers are, as far as is known: these hosts are not banned for their neighbours.
    Homes(BTreeSet<IpAddr>),
    /// Drop this peer, or the set-up that would make it one.
    Remove(NodeId),
    /// Refuse it for so long.
    Ban(Banned, Duration),
    /// Refuse it no longer.
    Unban(Banned),
    /// Who is admitted has changed; live peers are checked again.
    Admission(Arc<Admission>),
    /// The forks whose nodes are admitted have changed; live peers are checked again.
    Forks(BTreeSet<ForkId>),
    /// End everything.
    Shutdown,
    /// The limits from now on. Peers beyond them stay.
    Limits(Box<Limits>),
}

/// What the root asks of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// The answer to a checkpoint. At [`Stage::Established`] the session to start.
    Verdict(Setup, Result<Option<SessionId>, DisconnectReason>),
    /// An inbound set-up has reserved a place, and the dialer should leave the node alone…
    InboundPending(NodeId),
    /// …until it is over.
    InboundDone(NodeId),
    /// Tell everybody of a new peer.
    PeerUp(SessionId, Meta),
    /// Tell everybody that a peer is gone.
    PeerDown {
        /// Its session.
        session: SessionId,
        /// Who it was.
        meta: Meta,
        /// How it ended.
        ended: Ended,
        /// How long it was up.
        lived: Duration,
    },
    /// Let a session end.
    Disconnect(SessionId, DisconnectReason),
    /// A live session's node is trusted now, or not any more.
    Trusted(SessionId, bool),
    /// This was banned, until then.
    Banned(Banned, Duration),
    /// A ban is over, or was taken back.
    Unbanned(Banned),
    /// A node was blamed for this, and has so many points now.
    Blamed(NodeId, Penalty, u32),
    /// A node is not blamed for anything any more: it was banned for it, or is trusted now.
    Forgiven(NodeId),
    /// Who is admitted has changed: tell whoever asks the policy.
    Admission(Arc<Admission>),
    /// Say what each session brought: one is to be let go.
    Weigh,
    /// The best long-lived peers, to be dialled first after a restart.
    Anchors(Vec<NodeId>),
    /// The last session has ended while draining, or the time for it is over.
    Stopped,
}

/// The root's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The time to drain is over.
    Drain,
    /// A ban may be over.
    Bans,
    /// Peers without use may be dropped.
    Useless,
    /// A peer of a full node may be let go.
    Churn,
    /// The anchors are chosen again.
    Anchors,
}
