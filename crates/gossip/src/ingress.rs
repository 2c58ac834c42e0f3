//! The gossip actor's door: its messages, grouped by who sends them, and the verbs that send them.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use peerage_mailbox::{Item, Outlet, Overflow, Reply};
use peerage_queue::SessionId;
use peerage_wire::Penalty;
use ractor::ActorRef;

use crate::coded::Admitted;
use crate::config::{Limits, TopicConfig};
use crate::durable::ingress::SubscribeDurable;
use crate::durable::{Durable, DurableError, Lease, Start};
use crate::machine::{Blame, ConfirmError, Confirmed, PeerUp, PublishError, Published, Standing, SubscribeError};
use crate::message::{Message, MessageId, Policy, Topic};
use crate::validation::Unjudged;

/// Control messages. Data comes through the inlets of [`Args`](crate::Args); `Wake` says that there is some.
#[derive(Debug)]
pub(crate) enum GossipMsg {
    // ---------- from the root: two a session ----------
    PeerUp(PeerUp),
    PeerDown {
        session: SessionId,
    },
    // ---------- from the root, for the application: one a subscriber ----------
    Subscribe(Subscribe),
    SubscribeDurable(SubscribeDurable),
    // ---------- from the root, for the application: one a task that waits ----------
    Confirm(Confirm),
    Standings(Reply<Vec<Standing>>),
    // ---------- from the root, for the application: one a topic ----------
    Admit {
        topic: Topic,
        publishers: Admitted,
    },
    // ---------- from the root, for the application: one a change ----------
    Limits(Limits),
    // ---------- from its own inlets and alarm: coalesced ----------
    Wake,
    Turn {
        deliveries: usize,
    },
    Tick,
    // ---------- from tests of supervision ----------
    #[cfg(any(test, feature = "fault-injection"))]
    Panic,
}

#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) topic: Topic,
    pub(crate) policy: Policy,
    /// Nothing for a plain subscription.
    pub(crate) config: Option<Box<TopicConfig>>,
    pub(crate) validator: Option<Outlet<Unjudged>>,
    pub(crate) outlet: Outlet<Message>,
    pub(crate) reply: Option<Reply<Result<(), SubscribeError>>>,
}

#[derive(Debug)]
pub(crate) struct Confirm {
    pub(crate) id: MessageId,
    pub(crate) peers: NonZeroUsize,
    pub(crate) within: Duration,
    pub(crate) reply: Reply<Result<Confirmed, ConfirmError>>,
}

/// Something to publish. Refused when the queue is full: who publishes faster than the node can take has
/// to slow down.
#[derive(Debug)]
pub struct Publish {
    /// The topic; being subscribed to it is not needed.
    pub topic: Topic,
    /// The topic's policy.
    pub policy: Policy,
    /// What to publish.
    pub payload: Bytes,
    /// What came of it. Dropped unanswered if the actor restarts meanwhile.
    pub reply: Reply<Result<Published, PublishError>>,
}

impl Item for Publish {
    fn weight(&self) -> usize {
        self.payload.len()
    }

    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

/// A subscriber that is slower than its topic loses the oldest messages, and is told how many.
impl Item for Message {
    fn weight(&self) -> usize {
        self.payload.len()
    }

    fn overflow(&self) -> Overflow {
        Overflow::DropOldest
    }
}

/// What the actor tells the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer misbehaved.
    Report {
        /// Its session.
        session: SessionId,
        /// What it did.
        penalty: Penalty,
    },
    /// Handling what came from the network panicked: the actor's last life ended of it, or one signature check did.
    /// Whoever relayed a message that its publisher signed is never named.
    Crashed {
        /// Whose doing it was. A session may have ended since; a publisher need not be a peer.
        blame: Blame,
    },
    /// Whether this node and a peer have at least one topic in common, subscribed to on both ends. A peer begins as
    /// not useful, and nothing is told for that. After a restart of the actor every peer that is useful is told of
    /// again, and every one that was and is not any more.
    Useful {
        /// The session.
        session: SessionId,
        /// Whether there is such a topic.
        useful: bool,
    },
}

/// The gossip actor.
#[derive(Clone, Debug)]
pub struct GossipMailbox(pub(crate) ActorRef<GossipMsg>);

impl GossipMailbox {
    /// A session speaks gossip.
    pub fn peer_up(&self, up: PeerUp) {
        self.send(GossipMsg::PeerUp(up));
    }

    /// A session has ended.
    pub fn peer_down(&self, session: SessionId) {
        self.send(GossipMsg::PeerDown { session });
    }

    /// Hands every message of the topic to `outlet`, until its inlet is closed. A topic may have many
    /// subscribers; when the last is closed, the node leaves the topic.
    ///
    /// The root repeats it after a restart, without `reply`.
    pub fn subscribe(
        &self,
        topic: Topic,
        policy: Policy,
        outlet: Outlet<Message>,
        reply: Option<Reply<Result<(), SubscribeError>>>,
    ) {
        let (config, validator) = (None, None);
        self.send(GossipMsg::Subscribe(Subscribe { topic, policy, config, validator, outlet, reply }));
    }

    /// The same, with parameters of the topic's own. The first to give some sets them, until the node leaves the topic;
    /// who comes later asks for the same, or for none.
    ///
    /// With a `validator`, messages from peers are delivered and sent on only as it says. When its inlet closes, none are
    /// any more, until another one takes its place. What does not fit its queue is asked for again later.
    ///
    /// The root repeats it after a restart, without `reply`.
    pub fn subscribe_with(
        &self,
        topic: Topic,
        config: TopicConfig,
        validator: Option<Outlet<Unjudged>>,
        outlet: Outlet<Message>,
        reply: Option<Reply<Result<(), SubscribeError>>>,
    ) {
        let (policy, config) = (config.policy, Some(Box::new(config)));
        self.send(GossipMsg::Subscribe(Subscribe { topic, policy, config, validator, outlet, reply }));
    }

    /// Watches until so many different nodes say that they have a message that is kept here, asks them, and sends it to
    /// more of them while they are too few; for `within` at most, and no longer than messages are kept. `reply` is
    /// dropped unanswered if the actor restarts meanwhile.
    pub fn confirm(
        &self,
        id: MessageId,
        peers: NonZeroUsize,
        within: Duration,
        reply: Reply<Result<Confirmed, ConfirmError>>,
    ) {
        self.send(GossipMsg::Confirm(Confirm { id, peers, within, reply }));
    }

    /// What is known of each peer, and why it was pruned from a mesh last: one for each session.
    pub fn standings(&self, reply: Reply<Vec<Standing>>) {
        self.send(GossipMsg::Standings(reply));
    }

    /// Makes a signed topic durable until the inlet of `lease` is closed, as those of all its other readers are. Answers
    /// the position after which to read, with [`DurableAsk`](crate::durable::DurableAsk).
    ///
    /// The root repeats it after a restart, without `reply`.
    pub fn subscribe_durable(
        &self,
        topic: Topic,
        durable: Durable,
        start: Start,
        lease: Outlet<Lease>,
        reply: Option<Reply<Result<u64, DurableError>>>,
    ) {
        self.send(GossipMsg::SubscribeDurable(SubscribeDurable { topic, durable, start, lease, reply }));
    }

    /// Says whose messages of a topic may be coded, in place of what the configuration says.
    ///
    /// The root repeats it after a restart.
    pub fn admit(&self, topic: Topic, publishers: Admitted) {
        self.send(GossipMsg::Admit { topic, publishers });
    }

    /// Says what peers and publishers may do from now on.
    pub fn limits(&self, limits: Limits) {
        self.send(GossipMsg::Limits(limits));
    }

    /// Handles what is queued, and as many deliveries, after the control messages that were sent before they
    /// were offered.
    pub(crate) fn turn(&self, deliveries: usize) {
        self.send(GossipMsg::Turn { deliveries });
    }

    /// Makes the actor panic.
    #[cfg(any(test, feature = "fault-injection"))]
    #[doc(hidden)]
    pub fn inject_panic(&self) {
        self.send(GossipMsg::Panic);
    }

    /// An actor that is gone is told again by the root when it is back.
    fn send(&self, message: GossipMsg) {
        drop(self.0.cast(message));
    }
}
