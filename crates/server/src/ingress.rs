//! The door of the root actor: control messages grouped by who sends them, and the verbs that send them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peerage_discovery::DiscoveryOut;
use peerage_discovery::exchange::ExchangeOut;
#[cfg(feature = "nat")]
use peerage_discovery::external::Mapping;
use peerage_discovery::sources::Named;
use peerage_gossip::durable::{DurableAsk, DurableError, Start};
use peerage_gossip::{Publish, SubscribeError};
use peerage_mailbox::{AskError, Capacity, Inlet, Outlet, Port, Reply, ask, data_queue};
use peerage_peer_session::Ended;
use peerage_peer_session::handshake::Direction;
use peerage_queue::SessionId;
use peerage_router::protocol::Protocols;
use peerage_router::{AddError, Ask, HandlerId, Router};
use peerage_transport::Stream;
use peerage_wire::{Admission, AdmissionError, Banned, ForkId, NodeId};
use ractor::ActorRef;

use crate::config::{Config, MAX_ADMISSION};
use crate::connector::Dialled;
use crate::durable::DurableRegistration;
use crate::limits::Limits;
use crate::listener::{Door, DoorError};
use crate::metrics::SetupMetrics;
use crate::requests::{Serve, ServeStreams};
use crate::setup::{SetupContext, SetupFailed, SetupMsg};
use crate::shedding::{Probe, Usage};
use crate::topics::{Subscription, TopicMsg};
use crate::types::{Event, Health, LocalNode, PeerAddress, PeerInfo};

/// An actor that the root restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Fans messages out to the peers' lanes.
    Queue,
    /// Topics.
    Gossip,
    /// Requests.
    Router,
    /// Peers' peers.
    Exchange,
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
    pub const ALL: [Service; 8] = [
        Service::Queue,
        Service::Gossip,
        Service::Router,
        Service::Exchange,
        Service::Dialer,
        Service::Connector,
        Service::Discovery,
        Service::Listener,
    ];

    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Service::Queue => "queue",
            Service::Gossip => "gossip",
            Service::Router => "router",
            Service::Exchange => "exchange",
            Service::Dialer => "dialer",
            Service::Connector => "connector",
            Service::Discovery => "discovery",
            Service::Listener => "listener",
        }
    }
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
    Exchange(ExchangeOut),
    Gossip(peerage_gossip::Event),
    Router(peerage_router::Event),
    // ---------- from runs of protocols: two each ----------
    Protocol(peerage_router::protocol::Event),
    // ---------- from fetches of the members: one at a time ----------
    Fetched(Option<BTreeMap<NodeId, u64>>),
    /// At most one for each lookup of a name.
    Named(Named),
    // ---------- from the gateway's task: a few in a lease ----------
    #[cfg(feature = "nat")]
    Mapped(Option<Mapping>),
    // ---------- from itself ----------
    /// Discovery has what the exchange offered.
    Offered,
    Respawn(Service),
    Resign,
    FetchMembers,
    Expire,
    Gauges,
    Watch,
    Tick,
    // ---------- from the probe's thread: one answer at a time ----------
    Usage(Usage),
    // ---------- from the application: bounded by its tasks ----------
    AddStatic(PeerAddress, Reply<Result<(), AddStaticFailed>>),
    RemoveStatic(NodeId),
    AddTrusted(NodeId),
    RemoveTrusted(NodeId),
    Disconnect(NodeId),
    Remove(NodeId, Reply<()>),
    Ban(Banned, Duration),
    Unban(Banned),
    Bans(Reply<Vec<(Banned, Duration)>>),
    Statics(Reply<Vec<PeerAddress>>),
    Trusted(Reply<Vec<NodeId>>),
    Admitted(Reply<Admission>),
    Admission(Arc<Admission>),
    Forks(ForkId, Vec<ForkId>),
    Subscribe(Subscription, Reply<Result<(), SubscribeError>>),
    Serve(Box<Serve>, Reply<Result<HandlerId, AddError>>),
    ServeNoMore(HandlerId),
    ServeStreams(Box<ServeStreams>, Reply<Result<HandlerId, AddError>>),
    ServeStreamsNoMore(HandlerId),
    Members(BTreeMap<NodeId, u64>),
    SubscribeDurable(DurableRegistration, Start, Reply<Result<u64, DurableError>>),
    Topics(TopicMsg),
    Events(Outlet<Event>, Reply<()>),
    Local(Reply<LocalNode>),
    Peers(Reply<Vec<PeerInfo>>),
    PeerCount(Reply<usize>),
    Health(Reply<Health>),
    Probe(Arc<dyn Probe>),
    Limits(Reply<Limits>),
    SetLimits(Box<Limits>, Reply<Result<(), String>>),
    OpenDoor(Door, Reply<Result<(), DoorError>>),
    CloseDoor(String),
    Context(Reply<(SetupContext, SetupMetrics)>),
    Shutdown(Reply<()>),
    // ---------- from tests of supervision ----------
    #[cfg(feature = "fault-injection")]
    Panic(Service),
    #[cfg(feature = "fault-injection")]
    PanicSession(NodeId),
}

/// How long the root may take to answer a question. It never waits, so this is for a node that is gone.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// A running node: geth's `p2p.Server`. Cheap to clone.
#[derive(Clone)]
pub struct ServerMailbox {
    root: ActorRef<ServerMsg>,
    pub(crate) outlets: Outlets,
    drain_timeout: Duration,
}

/// The data doors through which applications speak to the node's services.
#[derive(Clone)]
pub(crate) struct Outlets {
    pub(crate) publisher: Outlet<Publish>,
    pub(crate) router: Router,
    pub(crate) asker: Outlet<DurableAsk>,
    /// Asked what it tells of itself by whoever wants to know: the application's answer is not waited for by an actor.
    pub(crate) protocols: Protocols,
}

/// Their other ends.
pub(crate) struct Inlets {
    pub(crate) publishes: Inlet<Publish>,
    pub(crate) asks: Inlet<Ask>,
    pub(crate) durable_asks: Inlet<DurableAsk>,
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

/// Why a handler is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeFailed {
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// There can be no such handler.
    #[error(transparent)]
    Refused(#[from] AddError),
}

/// Why limits did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetLimitsFailed {
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// They do not add up; the sum that fails.
    #[error("{0}")]
    Refused(String),
}

/// Why a topic is not durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurableFailed {
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Gossip refused.
    #[error(transparent)]
    Refused(#[from] DurableError),
}

/// Why a door was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenDoorFailed {
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// There can be no such door.
    #[error(transparent)]
    Refused(#[from] DoorError),
}

/// Why a peer is not kept connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddStaticFailed {
    /// The node did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It is this node.
    #[error("that is this node itself; name another one")]
    OwnId,
    /// There are as many as are remembered.
    #[error("{0} static peers are known, which is as many as there can be; remove one")]
    TooMany(usize),
    /// The policy does not admit it, or none of its addresses.
    #[error("the node's admission policy does not admit it, so it would never be dialled; change one of them")]
    NotAdmitted,
}

impl ServerMailbox {
    pub(crate) fn new(root: ActorRef<ServerMsg>, outlets: Outlets, drain_timeout: Duration) -> ServerMailbox {
        ServerMailbox { root, outlets, drain_timeout }
    }

    /// A root that is gone has told so; there is nobody left to tell.
    pub(crate) fn send(&self, message: ServerMsg) {
        drop(self.root.cast(message));
    }

    /// What this node is to others.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn local(&self) -> Result<LocalNode, AskError> {
        let local = ask(ANSWER, |reply| self.send(ServerMsg::Local(reply))).await?;
        Ok(LocalNode { protocols: self.outlets.protocols.node_info(), ..local })
    }

    /// The peers, in the order of their ids.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, AskError> {
        let mut peers: Vec<PeerInfo> = ask(ANSWER, |reply| self.send(ServerMsg::Peers(reply))).await?;
        for peer in &mut peers {
            peer.protocols = self.outlets.protocols.peer_info(peer.id, &peer.capabilities);
        }
        Ok(peers)
    }

    /// The peers that are kept connected, in the order of their ids.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn statics(&self) -> Result<Vec<PeerAddress>, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Statics(reply))).await
    }

    /// The nodes that limits spare, in the order of their ids.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn trusted(&self) -> Result<Vec<NodeId>, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Trusted(reply))).await
    }

    /// Who is admitted, bans aside.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn admission(&self) -> Result<Admission, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Admitted(reply))).await
    }

    /// How the node is.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn health(&self) -> Result<Health, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Health(reply))).await
    }

    /// The limits that hold now.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn limits(&self) -> Result<Limits, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Limits(reply))).await
    }

    /// Changes the limits, all of them or, where they do not add up, none. Lower ones end no session.
    ///
    /// # Errors
    /// [`SetLimitsFailed`].
    pub async fn set_limits(&self, limits: Limits) -> Result<(), SetLimitsFailed> {
        let limits = Box::new(limits);
        ask(ANSWER, |reply| self.send(ServerMsg::SetLimits(limits, reply))).await?.map_err(SetLimitsFailed::Refused)
    }

    /// Says who reads what the process uses, for [`Config::shedding`]. Without it only the root's own lag is known.
    pub fn probe(&self, probe: Arc<dyn Probe>) {
        self.send(ServerMsg::Probe(probe));
    }

    /// Keeps this peer connected from now on. One that is static already gets the new addresses.
    ///
    /// # Errors
    /// [`AddStaticFailed`].
    pub async fn add_static(&self, peer: PeerAddress) -> Result<(), AddStaticFailed> {
        ask(ANSWER, |reply| self.send(ServerMsg::AddStatic(peer, reply))).await?
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

    /// How many peers there are.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn peer_count(&self) -> Result<usize, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::PeerCount(reply))).await
    }

    /// Drops this peer if it is one. If it is static, it is dialled again.
    pub fn disconnect(&self, id: NodeId) {
        self.send(ServerMsg::Disconnect(id));
    }

    /// Stops to care for this peer, drops it, and returns when it is gone: geth's `RemovePeer`.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn remove(&self, id: NodeId) -> Result<(), AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Remove(id, reply))).await
    }

    /// Refuses a node, or every node of a network, for so long; sessions with it end. A ban that lasts longer already
    /// stays as it is.
    pub fn ban(&self, banned: Banned, time: Duration) {
        self.send(ServerMsg::Ban(banned, time));
    }

    /// Takes a ban back; it must be named as it was: a ban of a network is not lifted for a part of it.
    pub fn unban(&self, banned: Banned) {
        self.send(ServerMsg::Unban(banned));
    }

    /// What is banned, and for how much longer.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn bans(&self) -> Result<Vec<(Banned, Duration)>, AskError> {
        ask(ANSWER, |reply| self.send(ServerMsg::Bans(reply))).await
    }

    /// Changes who is admitted; live peers that are not any more are dropped.
    ///
    /// # Errors
    /// More networks than are compared with every address.
    pub fn set_admission(&self, admission: Admission) -> Result<(), AdmissionError> {
        admission.check(MAX_ADMISSION)?;
        self.send(ServerMsg::Admission(Arc::new(admission)));
        Ok(())
    }

    /// Says that the application follows another fork from now on, and whose nodes besides its own it still takes:
    /// peers that followed none of these when they connected are dropped. While a network moves from one fork to
    /// the next, list the old one.
    ///
    /// # Errors
    /// In words: more are accepted than can be.
    pub fn set_forks(&self, own: ForkId, accepted: Vec<ForkId>) -> Result<(), String> {
        Config::check_forks(&accepted)?;
        self.send(ServerMsg::Forks(own, accepted));
        Ok(())
    }

    /// Changes among the peers from now on, and their messages with
    /// [`message_events`](Config::message_events); a consumer that falls `capacity` behind loses the oldest.
    ///
    /// # Errors
    /// The node has stopped, or has as many subscribers as it takes (1,024).
    pub async fn events(&self, capacity: usize) -> Result<Inlet<Event>, AskError> {
        let (outlet, inlet) = data_queue(Capacity { items: capacity, weight: capacity });
        ask(ANSWER, |reply| self.send(ServerMsg::Events(outlet, reply))).await?;
        Ok(inlet)
    }

    /// Asks other nodes' handlers.
    pub fn router(&self) -> &Router {
        &self.outlets.router
    }

    /// Where readers of durable topics ask.
    pub fn asker(&self) -> Outlet<DurableAsk> {
        self.outlets.asker.clone()
    }

    /// Opens a door for another protocol on the port at which this node listens.
    ///
    /// # Errors
    /// [`OpenDoorFailed`].
    pub async fn open_door(&self, door: Door) -> Result<(), OpenDoorFailed> {
        Ok(ask(ANSWER, |reply| self.send(ServerMsg::OpenDoor(door, reply))).await??)
    }

    /// Closes a door, so that its protocol is unknown again; whom it has taken stays.
    pub fn close_door(&self, name: impl Into<String>) {
        self.send(ServerMsg::CloseDoor(name.into()));
    }

    /// Makes a session of a connection that was made elsewhere (geth: `SetupConn`); `expected` is who must answer
    /// if this end opened it. Returns as soon as the peer is one of this node's.
    ///
    /// The policy, bans and places hold as for every other. The listener's slots and limits by address do not: who
    /// accepts connections for the node bounds how many are set up at a time.
    ///
    /// # Errors
    /// [`SetupFailed`]; the connection is closed then.
    pub async fn setup(
        &self,
        stream: Stream,
        direction: Direction,
        expected: Option<NodeId>,
    ) -> Result<NodeId, SetupFailed> {
        let expected = match (direction, expected) {
            (Direction::Outbound, None) => return Err(SetupFailed::NobodyExpected),
            (Direction::Inbound, Some(id)) => return Err(SetupFailed::Expected(id)),
            (_, expected) => expected,
        };
        let (context, metrics) = ask(ANSWER, |reply| self.send(ServerMsg::Context(reply))).await?;
        let outcome = context.run(stream, expected).await;
        metrics.finished(direction.label(), outcome.as_ref().map_or_else(|error| error.reason().label(), |_| "ok"));
        Ok(outcome?)
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

    #[cfg(feature = "nat")]
    pub(crate) fn mapped(&self) -> Port<Option<Mapping>> {
        Port::to_actor(&self.0, ServerMsg::Mapped)
    }

    pub(crate) fn dialled(&self) -> Port<Dialled> {
        Port::to_actor(&self.0, ServerMsg::Dialled)
    }

    pub(crate) fn discovery(&self) -> Port<DiscoveryOut> {
        Port::to_actor(&self.0, ServerMsg::Discovery)
    }

    pub(crate) fn exchange(&self) -> Port<ExchangeOut> {
        Port::to_actor(&self.0, ServerMsg::Exchange)
    }

    pub(crate) fn offered(&self) -> Port<()> {
        Port::to_actor(&self.0, |()| ServerMsg::Offered)
    }

    pub(crate) fn named(&self) -> Port<Named> {
        Port::to_actor(&self.0, ServerMsg::Named)
    }

    pub(crate) fn router(&self) -> Port<peerage_router::Event> {
        Port::to_actor(&self.0, ServerMsg::Router)
    }

    pub(crate) fn usage(&self) -> Port<Usage> {
        Port::to_actor(&self.0, ServerMsg::Usage)
    }

    pub(crate) fn protocols(&self) -> Port<peerage_router::protocol::Event> {
        Port::to_actor(&self.0, ServerMsg::Protocol)
    }

    pub(crate) fn fetched(&self) -> Port<Option<BTreeMap<NodeId, u64>>> {
        Port::to_actor(&self.0, ServerMsg::Fetched)
    }

    pub(crate) fn gossip(&self) -> Port<peerage_gossip::Event> {
        Port::to_actor(&self.0, ServerMsg::Gossip)
    }

    /// Sends the root a message after a while.
    pub(crate) fn after(&self, delay: Duration, message: ServerMsg) -> impl Future<Output = ()> + Send + use<> {
        let root = self.0.clone();
        async move {
            tokio::time::sleep(delay).await;
            drop(root.cast(message));
        }
    }
}
