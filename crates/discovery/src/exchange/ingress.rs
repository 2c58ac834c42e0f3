//! The exchange actor's door: its messages, grouped by who sends them, and the verbs that send them.

use std::net::SocketAddr;
use std::sync::Arc;

use peerage_queue::SessionId;
use peerage_wire::{Admission, NodeId, NodeRecord, Penalty, Verified};
use ractor::ActorRef;

use super::machine::{In, PeerUp};
use crate::Found;
use crate::external::Reachable;
use crate::filter::EntryRule;

/// Control messages. Data comes through the inlet of [`Args`](super::Args); `Wake` says that there is some.
#[derive(Debug)]
pub(crate) enum Msg {
    // ---------- from the root: bounded by its sessions, dials and changes ----------
    Input(In),
    // ---------- from its own inlet, alarm and dial-backs: coalesced, or one each ----------
    Wake,
    Turn(usize),
    Tick,
    // ---------- from tests of supervision ----------
    #[cfg(feature = "fault-injection")]
    Panic,
}

/// What the actor tells the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeOut {
    /// Nodes for discovery; to be answered with [`ExchangeMailbox::offered`].
    Offer(Vec<Verified<NodeRecord>>),
    /// Nodes for the dialer, who asked for them.
    Candidates(Vec<Found>),
    /// A peer says where it sees this node.
    Observed {
        /// The peer's address.
        by: SocketAddr,
        /// What it says.
        observed: SocketAddr,
    },
    /// Whether this node can be dialled from outside has changed. After a restart of the actor it is unknown, which is
    /// not told.
    Reachable(Reachable),
    /// A peer misbehaved.
    Report {
        /// Its session.
        session: SessionId,
        /// What it did.
        penalty: Penalty,
    },
}

/// The exchange actor.
#[derive(Clone, Debug)]
pub struct ExchangeMailbox(ActorRef<Msg>);

impl ExchangeMailbox {
    pub(crate) fn new(actor: ActorRef<Msg>) -> ExchangeMailbox {
        ExchangeMailbox(actor)
    }

    /// A session has begun. Said of every one, before its messages come.
    pub fn peer_up(&self, up: PeerUp) {
        self.tell(In::PeerUp(up));
    }

    /// A session has ended.
    pub fn peer_down(&self, session: SessionId) {
        self.tell(In::PeerDown(session));
    }

    /// The dialer can use so many nodes now; `supply` if discovery knows none.
    pub fn want(&self, count: usize, supply: bool) {
        self.tell(In::Want { count, supply });
    }

    /// Says how a dial ended.
    pub fn outcome(&self, id: NodeId, ok: bool) {
        self.tell(In::Outcome { id, ok });
    }

    /// The node signed a new record of itself.
    pub fn local_changed(&self, record: Verified<NodeRecord>) {
        self.tell(In::LocalChanged(record));
    }

    /// What a record must say for its owner to be handed to the dialer from now on.
    pub fn filter(&self, rules: Vec<EntryRule>) {
        self.tell(In::Filter(rules));
    }

    /// Whom the node has to do with from now on.
    pub fn admission(&self, admission: Arc<Admission>) {
        self.tell(In::Admission(admission));
    }

    /// What was offered last was taken, or nobody is there to take it: more may be offered.
    pub fn offered(&self) {
        self.tell(In::Offered);
    }

    /// Handles as many messages as were there when the actor was woken, after the control messages that were sent
    /// before they were offered.
    pub(crate) fn turn(&self, deliveries: usize) {
        self.send(Msg::Turn(deliveries));
    }

    /// Makes the actor panic.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub fn inject_panic(&self) {
        self.send(Msg::Panic);
    }

    pub(crate) fn tell(&self, input: In) {
        self.send(Msg::Input(input));
    }

    /// An actor that is gone is told again by the root when it is back.
    fn send(&self, message: Msg) {
        drop(self.0.cast(message));
    }
}
