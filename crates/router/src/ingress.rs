//! The router actor's door: its messages, grouped by who sends them, and the verbs that send them.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_mailbox::{Item, Overflow, Reply};
use peerage_queue::SessionId;
use peerage_wire::{NodeId, Penalty};
use ractor::ActorRef;

use crate::handler::{AddError, HandlerConfig, HandlerId};
use crate::machine::{Answer, PeerUp, Request, RequestError};
use crate::resilience::{Sample, Sampled};
use crate::work::Handler;

/// Control messages. Data comes through the inlets of [`Args`](crate::Args); `Wake` says that there is some.
#[derive(Debug)]
pub(crate) enum RouterMsg {
    // ---------- from the root: two a session ----------
    PeerUp(PeerUp),
    PeerDown {
        session: SessionId,
    },
    // ---------- from the root, for the application: one a change, and as often as the actor asks for it ----------
    Members(BTreeMap<NodeId, u64>),
    // ---------- from the root, for the application: one a handler ----------
    AddHandler(Box<Add>),
    RemoveHandler(HandlerId),
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
pub(crate) struct Add {
    pub(crate) name: String,
    pub(crate) config: HandlerConfig,
    pub(crate) handler: Handler,
    pub(crate) reply: Option<Reply<Result<HandlerId, AddError>>>,
}

/// Something the application asks of the router. Refused when the queue is full: who asks faster than the node can has
/// to slow down.
#[derive(Debug)]
pub enum Ask {
    /// A request.
    Request {
        /// The asker's name for it, by which it can be cancelled.
        key: u64,
        /// What is asked.
        request: Box<Request>,
        /// How it ended. Dropped unanswered if the actor restarts meanwhile.
        reply: Reply<Result<Answer, RequestError>>,
    },
    /// Nobody waits for this one any more.
    Cancel {
        /// The request's.
        key: u64,
    },
    /// Something that wants no answer.
    Send {
        /// To whom.
        to: Sample,
        /// To which of their handlers.
        handler: HandlerId,
        /// What is said.
        payload: Bytes,
        /// For whom it was queued.
        reply: Reply<Result<Sampled, RequestError>>,
    },
}

impl Item for Ask {
    fn weight(&self) -> usize {
        match self {
            Ask::Request { request, .. } => request.payload.len(),
            Ask::Send { payload, .. } => payload.len(),
            Ask::Cancel { .. } => 0,
        }
    }

    fn overflow(&self) -> Overflow {
        Overflow::Reject
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
    /// Handling what this session sent panicked: the actor's last life ended of it, or one call of a handler did.
    Crashed {
        /// The session. It may have ended since.
        session: SessionId,
    },
    /// The set of members is old: fetch it, and say it with [`RouterMailbox::members`]. If that fails nothing need be
    /// said: the old one stays, and this is asked again.
    MembersWanted,
}

/// The router actor.
#[derive(Clone, Debug)]
pub struct RouterMailbox(pub(crate) ActorRef<RouterMsg>);

impl RouterMailbox {
    /// A session has the router's channel.
    pub fn peer_up(&self, up: PeerUp) {
        self.send(RouterMsg::PeerUp(up));
    }

    /// A session has ended.
    pub fn peer_down(&self, session: SessionId) {
        self.send(RouterMsg::PeerDown { session });
    }

    /// Says who the members are, and their weights. The root repeats it after a restart.
    pub fn members(&self, weights: BTreeMap<NodeId, u64>) {
        self.send(RouterMsg::Members(weights));
    }

    /// Serves a handler by this name. The root repeats it after a restart, without `reply`.
    pub fn add_handler(
        &self,
        name: impl Into<String>,
        config: HandlerConfig,
        handler: Handler,
        reply: Option<Reply<Result<HandlerId, AddError>>>,
    ) {
        self.send(RouterMsg::AddHandler(Box::new(Add { name: name.into(), config, handler, reply })));
    }

    /// Serves it no more: calls that wait are refused, and those at work go on.
    pub fn remove_handler(&self, handler: HandlerId) {
        self.send(RouterMsg::RemoveHandler(handler));
    }

    /// Handles what is queued, and as many deliveries, after the control messages that were sent before they were
    /// offered.
    pub(crate) fn turn(&self, deliveries: usize) {
        self.send(RouterMsg::Turn { deliveries });
    }

    /// Makes the actor panic.
    #[cfg(any(test, feature = "fault-injection"))]
    #[doc(hidden)]
    pub fn inject_panic(&self) {
        self.send(RouterMsg::Panic);
    }

    /// An actor that is gone is told again by the root when it is back.
    fn send(&self, message: RouterMsg) {
        drop(self.0.cast(message));
    }
}
