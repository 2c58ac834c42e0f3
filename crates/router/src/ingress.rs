//! The router actor's door: its messages, grouped by who sends them, and the verbs that send them.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerage_mailbox::{Item, Overflow, Reply};
use peerage_queue::stream::StreamDoor;
use peerage_queue::{Door, SessionId};
use peerage_wire::{NodeId, Penalty};
use ractor::ActorRef;

use crate::config::Limits;
use crate::handler::{AddError, HandlerConfig, HandlerId, StreamHandlerConfig};
use crate::machine::{Answer, OpenStreamError, PeerUp, Request, RequestError};
use crate::resilience::{Sample, Sampled};
use crate::stream::{Opening, StreamHandler};
use crate::work::Handler;

/// Control messages. Data comes through the inlets of [`Args`](crate::Args); `Wake` says that there is some.
#[derive(Debug)]
pub(crate) enum RouterMsg {
    // ---------- from the root: three a session ----------
    PeerUp(PeerUp, Door),
    Streams(SessionId, StreamDoor),
    PeerDown {
        session: SessionId,
    },
    // ---------- from the root, for the application: one a change, and as often as the actor asks for it ----------
    Members(BTreeMap<NodeId, u64>),
    // ---------- from the root, for the application: one a handler ----------
    AddHandler(Box<Add>),
    RemoveHandler(HandlerId),
    AddStreams(Box<AddStreams>),
    RemoveStreams(HandlerId),
    // ---------- from the root, for the application: one a change ----------
    Limits {
        asked: Limits,
        served: Limits,
    },
    // ---------- from its own inlets and alarm: coalesced ----------
    Wake,
    Turn {
        deliveries: usize,
        streams: usize,
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

#[derive(Debug)]
pub(crate) struct AddStreams {
    pub(crate) name: String,
    pub(crate) config: StreamHandlerConfig,
    pub(crate) handler: StreamHandler,
    pub(crate) reply: Option<Reply<Result<HandlerId, AddError>>>,
}

/// A stream that the application wants; made by [`Router::open`](crate::Router::open).
#[derive(Debug)]
pub struct OpenAsk {
    pub(crate) peer: NodeId,
    pub(crate) handler: HandlerId,
    pub(crate) reply: Reply<Result<Opening, OpenStreamError>>,
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
    /// A stream.
    Open(OpenAsk),
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
            Ask::Cancel { .. } | Ask::Open(_) => 0,
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
    /// Handling what this session sent panicked, and the actor's last life ended of it.
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
    /// A session has the router's channel; `door` leads to it.
    pub fn peer_up(&self, up: PeerUp, door: Door) {
        self.send(RouterMsg::PeerUp(up, door));
    }

    /// Streams to the peer of a session are opened here. Without it this node opens none to that peer, and large answers
    /// travel among the messages.
    pub fn streams(&self, session: SessionId, door: StreamDoor) {
        self.send(RouterMsg::Streams(session, door));
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

    /// Serves a handler of streams by this name. The root repeats it after a restart, without `reply`. Names of these and of
    /// handlers of requests are apart.
    pub fn serve_streams(
        &self,
        name: impl Into<String>,
        config: StreamHandlerConfig,
        handler: StreamHandler,
        reply: Option<Reply<Result<HandlerId, AddError>>>,
    ) {
        self.send(RouterMsg::AddStreams(Box::new(AddStreams { name: name.into(), config, handler, reply })));
    }

    /// Serves it no more: streams that it has go on.
    pub fn serve_streams_no_more(&self, handler: HandlerId) {
        self.send(RouterMsg::RemoveStreams(handler));
    }

    /// Says how much may be under way from now on.
    pub fn limits(&self, asked: Limits, served: Limits) {
        self.send(RouterMsg::Limits { asked, served });
    }

    /// Handles what is queued, and as many deliveries and streams, after the control messages that were sent before they
    /// were offered.
    pub(crate) fn turn(&self, deliveries: usize, streams: usize) {
        self.send(RouterMsg::Turn { deliveries, streams });
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
