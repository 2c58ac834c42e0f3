//! The doors of this crate's actors: control messages grouped by who sends them, and the verbs that send
//! them.

use std::fmt;
use std::time::Duration;

use peerage_dialer::{Attempt, DialTarget};
use peerage_discovery::DiscoveryOut;
use peerage_gossip::{Message, Policy, Publish, SubscribeError, Topic};
use peerage_mailbox::{AskError, Capacity, Inlet, Outlet, Port, Reply, ask, data_queue};
use peerage_peer_session::Ended;
use peerage_queue::SessionId;
use peerage_wire::NodeId;
use ractor::ActorRef;

use crate::connector::Dialled;
use crate::setup::SetupMsg;
use crate::types::{Event, Health, LocalNode, PeerAddress, PeerInfo};

/// An actor that the root restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Fans messages out to the peers' lanes.
    Queue,
    /// Topics.
    Gossip,
    /// Whom to dial.
    Dialer,
    /// Opens connections.
    Connector,
    /// Finds nodes.
    Discovery,
    /// Accepts connections.
    Listener,
}

impl Service {
    /// All of them, in the order in which they start: each after those it sends to.
    pub const ALL: [Service; 6] =
        [Service::Queue, Service::Gossip, Service::Dialer, Service::Connector, Service::Discovery, Service::Listener];

    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Service::Queue => "queue",
            Service::Gossip => "gossip",
            Service::Dialer => "dialer",
            Service::Connector => "connector",
            Service::Discovery => "discovery",
            Service::Listener => "listener",
        }
    }
}

/// A subscription that the root keeps and replays.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: Topic,
    pub(crate) policy: Policy,
    pub(crate) outlet: Outlet<Message>,
}

/// The root's control messages.
#[derive(Debug)]
pub(crate) enum ServerMsg {
    // ---------- from set-ups: at most four a slot or dial ----------
    Setup(SetupMsg),
    // ---------- from sessions: one each ----------
    SessionEnded(SessionId, Ended),
    // ---------- from services: bounded by what they were asked ----------
    Dialer(peerage_dialer::Out),
    Dialled(Dialled),
    Discovery(DiscoveryOut),
    Gossip(peerage_gossip::Event),
    // ---------- from itself ----------
    Respawn(Service),
    Resign,
    Gauges,
    Tick,
    // ---------- from the application: bounded by its tasks ----------
    AddStatic(PeerAddress),
    RemoveStatic(NodeId),
    AddTrusted(NodeId),
    RemoveTrusted(NodeId),
    Disconnect(NodeId),
    Subscribe(Subscription, Reply<Result<(), SubscribeError>>),
    Events(Outlet<Event>, Reply<()>),
    Local(Reply<LocalNode>),
    Peers(Reply<Vec<PeerInfo>>),
    Health(Reply<Health>),
    Shutdown(Reply<()>),
    // ---------- from tests of supervision ----------
    #[cfg(feature = "fault-injection")]
    Panic(Service),
    #[cfg(feature = "fault-injection")]
    PanicSession(NodeId),
}

/// How long the root may take to answer a question. It never waits, so this is for a node that is gone.
const ANSWER: Duration = Duration::from_secs(10);

/// A running node: geth's `p2p.Server`. Cheap to clone.
#[derive(Clone)]
pub struct ServerMailbox {
    root: ActorRef<ServerMsg>,
    publisher: Outlet<Publish>,
    drain_timeout: Duration,
}

/// Why a topic was not subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeFailed {
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Gossip refused.
    #[error(transparent)]
    Refused(#[from] SubscribeError),
}

impl ServerMailbox {
    pub(crate) fn new(root: ActorRef<ServerMsg>, publisher: Outlet<Publish>, drain_timeout: Duration) -> ServerMailbox {
        ServerMailbox { root, publisher, drain_timeout }
    }

    /// A root that is gone has told so; there is nobody left to tell.
    fn send(&self, message: ServerMsg) {
        drop(self.root.cast(message));
    }

    /// What this node is to others.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn local(&self) -> Result<LocalNode, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Local(reply))).await
    }

    /// The peers, in the order of their ids.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Peers(reply))).await
    }

    /// How the node is.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn health(&self) -> Result<Health, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Health(reply))).await
    }

    /// Keeps this peer connected from now on.
    pub fn add_static(&self, peer: PeerAddress) {
        self.send(ServerMsg::AddStatic(peer));
    }

    /// Stops to care whether this peer is connected; a live session stays.
    pub fn remove_static(&self, id: NodeId) {
        self.send(ServerMsg::RemoveStatic(id));
    }

    /// Lets limits spare this node.
    pub fn add_trusted(&self, id: NodeId) {
        self.send(ServerMsg::AddTrusted(id));
    }

    /// Lets limits apply to this node again; a live session stays.
    pub fn remove_trusted(&self, id: NodeId) {
        self.send(ServerMsg::RemoveTrusted(id));
    }

    /// Drops this peer if it is one.
    pub fn disconnect(&self, id: NodeId) {
        self.send(ServerMsg::Disconnect(id));
    }

    /// Changes among the peers from now on; a consumer that falls `capacity` behind loses the oldest.
    ///
    /// # Errors
    /// The node has stopped, or has as many subscribers as it takes (1,024).
    pub async fn events(&self, capacity: usize) -> Result<Inlet<Event>, AskError> {
        let (outlet, inlet) = data_queue(Capacity { items: capacity, weight: capacity });
        ask(ANSWER, |reply| self.send(ServerMsg::Events(outlet, reply))).await?;
        Ok(inlet)
    }

    /// Hands every message of a topic to `outlet`, until its inlet is closed.
    ///
    /// # Errors
    /// [`SubscribeFailed`].
    pub async fn subscribe(
        &self,
        topic: Topic,
        policy: Policy,
        outlet: Outlet<Message>,
    ) -> Result<(), SubscribeFailed> {
        let subscription = Subscription { topic, policy, outlet };
        Ok(ask(ANSWER, |reply| self.send(ServerMsg::Subscribe(subscription, reply))).await??)
    }

    /// Where to publish.
    pub fn publisher(&self) -> Outlet<Publish> {
        self.publisher.clone()
    }

    /// Shuts the node down: no more connections, every peer is told, and what is left after the configured
    /// time is cut off. Returns when all of it has stopped.
    pub async fn shutdown(&self) {
        let deadline = self.drain_timeout + Duration::from_secs(2);
        // Without an answer it has stopped already.
        let _ = ask(deadline, |reply| self.send(ServerMsg::Shutdown(reply))).await;
        let _ = self.root.wait(Some(Duration::from_secs(2))).await;
    }

    /// Makes an actor panic.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub fn inject_panic(&self, service: Service) {
        self.send(ServerMsg::Panic(service));
    }

    /// Makes a peer's session panic.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub fn inject_session_panic(&self, id: NodeId) {
        self.send(ServerMsg::PanicSession(id));
    }
}

impl fmt::Debug for ServerMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerMailbox")
    }
}

/// The root's own ports, into which everything that its children emit is mapped.
#[derive(Clone)]
pub(crate) struct Ports(ActorRef<ServerMsg>);

impl Ports {
    pub(crate) fn new(root: &ActorRef<ServerMsg>) -> Ports {
        Ports(root.clone())
    }

    pub(crate) fn setup(&self) -> Port<SetupMsg> {
        Port::to_actor(&self.0, ServerMsg::Setup)
    }

    pub(crate) fn session_ended(&self, session: SessionId) -> Port<Ended> {
        Port::to_actor(&self.0, move |ended| ServerMsg::SessionEnded(session, ended))
    }

    pub(crate) fn dialer(&self) -> Port<peerage_dialer::Out> {
        Port::to_actor(&self.0, ServerMsg::Dialer)
    }

    pub(crate) fn dialled(&self) -> Port<Dialled> {
        Port::to_actor(&self.0, ServerMsg::Dialled)
    }

    pub(crate) fn discovery(&self) -> Port<DiscoveryOut> {
        Port::to_actor(&self.0, ServerMsg::Discovery)
    }

    pub(crate) fn gossip(&self) -> Port<peerage_gossip::Event> {
        Port::to_actor(&self.0, ServerMsg::Gossip)
    }

    /// Sends itself a message after a while.
    pub(crate) fn later(&self, delay: Duration, message: impl FnOnce() -> ServerMsg + Send + 'static) {
        let root = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            drop(root.cast(message()));
        });
    }
}

/// The listener's control messages, from the root.
#[derive(Debug)]
pub(crate) enum ListenerMsg {
    Pause,
    #[cfg(feature = "fault-injection")]
    Panic,
}

#[derive(Clone)]
pub(crate) struct ListenerMailbox(ActorRef<ListenerMsg>);

impl ListenerMailbox {
    pub(crate) fn new(actor: ActorRef<ListenerMsg>) -> ListenerMailbox {
        ListenerMailbox(actor)
    }

    /// Accepts nobody any more.
    pub(crate) fn pause(&self) {
        drop(self.0.cast(ListenerMsg::Pause));
    }

    #[cfg(feature = "fault-injection")]
    pub(crate) fn inject_panic(&self) {
        drop(self.0.cast(ListenerMsg::Panic));
    }
}

/// The connector's control messages, from the root.
#[derive(Debug)]
pub(crate) enum ConnectorMsg {
    Dial(Attempt, DialTarget),
    Cancel(Attempt),
    CancelAll,
    #[cfg(feature = "fault-injection")]
    Panic,
}

#[derive(Clone)]
pub(crate) struct ConnectorMailbox(ActorRef<ConnectorMsg>);

impl ConnectorMailbox {
    pub(crate) fn new(actor: ActorRef<ConnectorMsg>) -> ConnectorMailbox {
        ConnectorMailbox(actor)
    }

    pub(crate) fn dial(&self, attempt: Attempt, target: DialTarget) {
        drop(self.0.cast(ConnectorMsg::Dial(attempt, target)));
    }

    pub(crate) fn cancel(&self, attempt: Attempt) {
        drop(self.0.cast(ConnectorMsg::Cancel(attempt)));
    }

    /// Calls off every dial: for a dialer that has lost count of them.
    pub(crate) fn cancel_all(&self) {
        drop(self.0.cast(ConnectorMsg::CancelAll));
    }

    #[cfg(feature = "fault-injection")]
    pub(crate) fn inject_panic(&self) {
        drop(self.0.cast(ConnectorMsg::Panic));
    }
}
