//! The dialer's door: its messages, and the mailbox with a verb for each.

use std::sync::Arc;
use std::time::Duration;

use peerage_wire::{Admission, Consequence, NodeId, NodeRecord, Verified};
use ractor::ActorRef;

use crate::{Attempt, Candidate, DialOutcome, In, StaticPeer};

/// What the actor receives. All of it is control: few and small, bounded as [`In`] says of each group.
#[derive(Debug)]
pub(crate) enum Msg {
    /// For the machine, from the root.
    Input(In),
    /// From the actor's own alarm: a timer is due.
    Tick,
    /// From a test.
    #[cfg(feature = "fault-injection")]
    Panic,
}

/// The door to a dialer. What is sent to one that has ended is dropped; its next life has another door.
#[derive(Clone, Debug)]
pub struct DialerMailbox(ActorRef<Msg>);

impl DialerMailbox {
    pub(crate) fn new(actor: ActorRef<Msg>) -> DialerMailbox {
        DialerMailbox(actor)
    }

    /// Lets dialling begin. Sent once, after the policy, anchors, bootnodes, static peers and connected peers.
    pub fn start(&self) {
        self.send(In::Start);
    }

    /// Says whom this node has to do with from now on.
    pub fn set_admission(&self, admission: Arc<Admission>) {
        self.send(In::Admission(admission));
    }

    /// Names the peers to be dialled first; before [`start`](DialerMailbox::start).
    pub fn anchors(&self, anchors: Vec<StaticPeer>) {
        self.send(In::Anchors(anchors));
    }

    /// Names the nodes to be dialled while there is neither a dialled nor a static peer.
    pub fn bootnodes(&self, bootnodes: Vec<StaticPeer>) {
        self.send(In::Bootnodes(bootnodes));
    }

    /// Keeps this peer connected.
    pub fn add_static(&self, peer: StaticPeer) {
        self.send(In::AddStatic(peer));
    }

    /// Stops to care for this peer.
    pub fn remove_static(&self, id: NodeId) {
        self.send(In::RemoveStatic(id));
    }

    /// Says that a session was added; `dialled` by this end or accepted.
    pub fn peer_up(&self, id: NodeId, dialled: bool) {
        self.send(In::PeerUp { id, dialled });
    }

    /// Says that a session ended, after how long, and what follows from its end for the node.
    pub fn peer_down(&self, id: NodeId, dialled: bool, lived: Duration, consequence: Consequence) {
        self.send(In::PeerDown { id, dialled, lived, consequence });
    }

    /// Says that an inbound connection of this node is being set up.
    pub fn inbound_pending(&self, id: NodeId) {
        self.send(In::InboundPending(id));
    }

    /// Says that such a set-up has ended.
    pub fn inbound_done(&self, id: NodeId) {
        self.send(In::InboundDone(id));
    }

    /// Answers a resolution.
    pub fn resolved(&self, attempt: Attempt, record: Option<Verified<NodeRecord>>) {
        self.send(In::Resolved { attempt, record });
    }

    /// Answers a dial.
    pub fn done(&self, attempt: Attempt, outcome: DialOutcome) {
        self.send(In::Done { attempt, outcome });
    }

    /// Answers a wish for candidates.
    pub fn candidates(&self, candidates: Vec<Candidate>) {
        self.send(In::Candidates(candidates));
    }

    /// Says how many peers are to be dialled from now on.
    pub fn limits(&self, max_dial_peers: u32, max_static_peers: u32) {
        self.send(In::Limits { max_dial_peers, max_static_peers });
    }

    /// Says whether nobody is dialled for now.
    pub fn pause(&self, paused: bool) {
        self.send(In::Pause(paused));
    }

    /// Makes the actor panic, so that a test can watch it come back.
    #[cfg(feature = "fault-injection")]
    pub fn inject_panic(&self) {
        drop(self.0.cast(Msg::Panic));
    }

    fn send(&self, input: In) {
        // The only error is that the actor has ended, which its parent is told by ractor.
        drop(self.0.cast(Msg::Input(input)));
    }
}
