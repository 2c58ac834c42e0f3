//! The root actor's shell: wires the other actors, starts sessions, supervises, and performs what the run
//! loop decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_dialer::{Diagnosis, DialOutcome, StaticPeer};
use peerage_discovery::DiscoveryOut;
use peerage_discovery::external::Reachable;
use peerage_gossip::coded::Admitted;
use peerage_gossip::durable::DurableAsk;
use peerage_gossip::{Publish, Topic};
use peerage_machine::Driver;
use peerage_mailbox::{Alarm, Capacity, Child, Clock, Meter, Outlet, Reply, Supervisor, data_queue, spawn_child};
use peerage_nodedb::NodeDb;
use peerage_peer_session::handshake::Presented;
use peerage_peer_session::{Buffers, Ended, EndedBy, Established, STREAM_ALLOWANCE, SessionMailbox};
use peerage_queue::stream::AcceptedStream;
use peerage_queue::throttle::{ThrottleWeight, Throttles};
use peerage_queue::{ChannelId, Door, Inbound, InboundPool, InboundShare, InboundWeight, Pool, SessionId};
use peerage_router::Router;
use peerage_router::protocol::{Live, Tracker};
use peerage_wire::frame::CHANNEL_WINDOW;
use peerage_wire::{
    Admission, Capability, Consequence, DisconnectReason, Keypair, NodeId, NodeRecord, Penalty, Verified,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::durable::{self, DurableRegistration};
use crate::events::Events;
use crate::ingress::{AddStaticFailed, Inlets, Outlets, Ports, ServerMailbox, ServerMsg, Service};
use crate::machine::{In, Meta, Running, ServerMachine, Setup, Stage};
use crate::memory::EXPIRE_EVERY;
use crate::metrics::ServerMetrics;
use crate::names::{Hosts, is_placed};
use crate::own::OwnAddress;
use crate::remembered::restored;
use crate::requests::Served;
use crate::services::Services;
use crate::setup::SetupMsg;
use crate::start::{Args, Bound, StartError};
use crate::supervision::RootJournal;
use crate::topics::Subscription;
use crate::types::PeerAddress;
use crate::watch::{Watch, tell_of_bandwidth, warn_of_memory};
use crate::wiring::{protocols, wire};
use crate::{Config, Limits};

/// The capability under which gossip runs.
pub(crate) const GOSSIP: (&str, u16) = ("gossip", 1);
/// How long the last writes may take.
const FLUSH: Duration = Duration::from_secs(1);
/// How often gauges that nobody's messages move are read.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// Binds nothing and starts everything: the sockets are `bound` already.
pub(crate) async fn spawn(args: Args, bound: Vec<Bound>) -> Result<ServerMailbox, StartError> {
    let drain_timeout = args.config.drain_timeout;
    let (publisher, publishes) = data_queue::<Publish>(Capacity {
        // Two of the largest messages wait, or very many small ones.
        items: 4096,
        weight: 2 * args.config.gossip.max_payload,
    });
    // So of what is asked.
    let protocols = protocols(&args).map_err(|error| StartError::Config(error.to_string()))?;
    let (router, asks) = Router::new(Capacity { items: 4096, weight: args.config.router.asked.per_peer_bytes });
    let (asker, durable_asks) = data_queue::<DurableAsk>(durable::ASKS);
    let inlets = Inlets { publishes, asks, durable_asks };
    let (actor, _child) = Box::pin(spawn_child(Server, Box::new((args, bound, inlets)), &Supervisor::none()))
        .await
        .map_err(|error| StartError::Other(error.to_string()))?;
    Ok(ServerMailbox::new(actor, Outlets { publisher, router, asker, protocols }, drain_timeout))
}

struct Server;

pub(crate) struct Session {
    pub(crate) mailbox: SessionMailbox,
    pub(crate) child: Child,
    pub(crate) door: Door,
    pub(crate) inbound_weight: InboundWeight,
    pub(crate) throttle_weight: ThrottleWeight,
    pub(crate) gossip: Option<ChannelId>,
    pub(crate) exchange: Option<ChannelId>,
    pub(crate) router: Option<ChannelId>,
    /// Its part in the application's protocols.
    pub(crate) live: Live,
    pub(crate) meta: Meta,
    pub(crate) address: SocketAddr,
    pub(crate) agent: String,
    pub(crate) record: Verified<NodeRecord>,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) connected_at: Duration,
}

/// A checkpoint whose verdict is awaited.
pub(crate) struct Waiting {
    pub(crate) reply: Reply<Result<(), DisconnectReason>>,
    /// The connection, and its part of the inbound pool.
    pub(crate) established: Option<(Box<Established>, InboundShare)>,
}

pub(crate) struct State {
    pub(crate) journal: RootJournal,
    pub(crate) driver: Driver<ServerMachine>,
    pub(crate) alarm: Alarm,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    pub(crate) keys: Keypair,
    pub(crate) meter: Meter,
    pub(crate) metrics: ServerMetrics,
    pub(crate) parent: Supervisor,
    pub(crate) ports: Ports,
    pub(crate) services: Services,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) waiting: BTreeMap<Setup, Waiting>,
    pub(crate) statics: BTreeMap<NodeId, PeerAddress>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) durables: Vec<DurableRegistration>,
    /// Whose messages of a topic may be coded, where the application has said so.
    pub(crate) admitted: BTreeMap<Topic, Admitted>,
    pub(crate) events: Events,
    pub(crate) presented: watch::Sender<Presented>,
    /// Where others reach it.
    pub(crate) own: OwnAddress,
    /// Where it is bound, wildcards as the addresses they stand for.
    pub(crate) sockets: Vec<SocketAddr>,
    pub(crate) pool: Pool,
    pub(crate) inbound_pool: InboundPool,
    pub(crate) throttles: Throttles,
    pub(crate) buffers: Buffers,
    pub(crate) gossip_inbound: Outlet<Inbound>,
    pub(crate) exchange_inbound: Outlet<Inbound>,
    pub(crate) router_inbound: Outlet<Inbound>,
    /// The streams that peers open to the router's handlers.
    pub(crate) router_streams: Outlet<AcceptedStream>,
    pub(crate) router_memory: peerage_router::Memory,
    pub(crate) served: Served,
    /// The application's protocols, and their runs.
    pub(crate) tracker: Tracker,
    /// Whether others can dial this node, as far as the exchange has found out.
    pub(crate) reachable: Reachable,
    pub(crate) gossip_memory: peerage_gossip::Memory,
    pub(crate) stopping: Vec<Reply<()>>,
    /// Who waits for a session's end.
    pub(crate) leaving: BTreeMap<SessionId, Vec<Reply<()>>>,
    /// Everything that the root has put off, or lets end in its own time. They end with it.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) db: NodeDb,
    pub(crate) watch: Watch,
    /// Why the dialer has fewer peers than it wants, if it has.
    pub(crate) seeking: Option<Diagnosis>,
    pub(crate) bootnodes: Vec<PeerAddress>,
    /// Names of bootnodes and static peers.
    pub(crate) hosts: Hosts,
}

impl Actor for Server {
    type Msg = ServerMsg;
    /// Both are large, and handed on from function to function before the actor runs.
    type State = Box<State>;
    type Arguments = Box<(Args, Vec<Bound>, Inlets)>;

    async fn pre_start(
        &self,
        myself: ActorRef<ServerMsg>,
        arguments: Self::Arguments,
    ) -> Result<Box<State>, ActorProcessingErr> {
        let (args, bound, inlets) = *arguments;
        let (trusted, gateway_seed) = (args.trusted.clone(), args.seed);
        let alarm = Alarm::new(&myself, args.clock, || ServerMsg::Tick);
        let mut state = wire(args, bound, inlets, alarm, Supervisor::parent(&myself), Ports::new(&myself))?;
        let now = state.clock.now();
        let restored = restored(&state.db, now, state.config.reputation.half_life);
        state.feed(In::Restore(restored)).await;
        for id in trusted {
            state.feed(In::AddTrusted(id)).await;
        }
        for id in state.statics.keys().copied().collect::<Vec<_>>() {
            state.feed(In::AddStatic(id)).await;
        }
        state.privilege();
        state.hosts_changed();
        for service in Service::ALL {
            if let Err(error) = Box::pin(state.services.spawn(service, &state.parent)).await {
                // What has started is not left behind.
                state.services.stop().await;
                return Err(error.into());
            }
            state.introduce(service);
        }
        if !state.config.listening_on && !state.config.dialing_on {
            tracing::warn!("the node neither dials nor listens: it gets no peers by itself");
        }
        let limits = Limits::of(&state.config);
        warn_of_memory(&limits);
        tell_of_bandwidth(&limits);
        state.later(crate::watch::EVERY, ServerMsg::Watch);
        state.later(state.config.resign_every, ServerMsg::Resign);
        state.later(GAUGES_EVERY, ServerMsg::Gauges);
        state.later(EXPIRE_EVERY, ServerMsg::Expire);
        state.fetch_members();
        state.feed(In::Start).await;
        state.ask_gateway(gateway_seed);
        state.set_alarm();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ServerMsg>,
        message: ServerMsg,
        state: &mut Box<State>,
    ) -> Result<(), ActorProcessingErr> {
        state.journal.busy = true;
        state.message(message).await;
        state.settle(&myself).await;
        state.journal.busy = false;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ServerMsg>,
        event: SupervisionEvent,
        state: &mut Box<State>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((service, ended)) = state.services.ended(&event) {
            state.service_ended(service, ended);
        } else if let Some((session, Err(_))) =
            state.sessions.iter().find_map(|(id, session)| Some((*id, session.child.ended(&event)?)))
        {
            // Its own report is an ordinary message; this is for an actor that died before it could send one.
            let ended = Ended { reason: DisconnectReason::Crashed, by: EndedBy::Us };
            state.feed(In::Ended(session, ended)).await;
        }
        state.settle(&myself).await;
        Ok(())
    }
}

impl State {
    /// What follows every message: the alarm, and the end if this was it.
    async fn settle(&mut self, myself: &ActorRef<ServerMsg>) {
        while self.tasks.try_join_next().is_some() {}
        self.set_alarm();
        if self.driver.machine().running() == Running::Stopped {
            self.stop().await;
            myself.stop(None);
        }
    }

    fn set_alarm(&mut self) {
        let deadlines = [self.driver.next_deadline(), self.own.next_deadline()];
        self.alarm.set(deadlines.into_iter().flatten().min());
    }

    async fn message(&mut self, message: ServerMsg) {
        match message {
            ServerMsg::Setup(setup) => self.setup(setup).await,
            ServerMsg::SessionEnded(session, ended) => self.feed(In::Ended(session, ended)).await,
            ServerMsg::Dialer(out) => self.dialer_asks(out),
            ServerMsg::Gauges => {
                self.metrics.queue_bytes(self.pool.used(), self.pool.pressure().lane_bytes());
                let (windows, beyond) = self.inbound_pool.used();
                self.metrics.inbound(windows, beyond, self.inbound_pool.waiting());
                self.metrics.throttles(&self.throttles.stats(self.clock.now()));
                let machine = self.driver.machine();
                self.metrics.memory(self.db.stats(), machine.bans().count(), machine.blamed());
                self.see_who_is_missing();
                self.later(GAUGES_EVERY, ServerMsg::Gauges);
            }
            ServerMsg::Watch => self.watch(),
            ServerMsg::Usage(usage) => self.told_usage(usage),
            ServerMsg::Probe(probe) => self.set_probe(probe),
            ServerMsg::Limits(reply) => reply.send(Limits::of(&self.config)),
            ServerMsg::SetLimits(limits, reply) => {
                let set = self.set_limits(*limits).await;
                reply.send(set);
            }
            ServerMsg::Named(named) => self.named(named),
            ServerMsg::Dialled(dialled) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.done(dialled.attempt, dialled.outcome);
                }
                let ok = dialled.outcome == DialOutcome::Connected;
                // What is not the node's own doing says nothing of it.
                if ok || dialled.outcome.consequence() != Consequence::Ignore {
                    self.services.discovery.iter().for_each(|discovery| discovery.outcome(dialled.id, ok));
                    self.services.exchange.iter().for_each(|exchange| exchange.outcome(dialled.id, ok));
                }
            }
            ServerMsg::Discovery(DiscoveryOut::Alive(record)) => self.remember(&record),
            ServerMsg::Discovery(DiscoveryOut::Predicted(prediction)) => self.own_address(prediction.into()),
            #[cfg(feature = "nat")]
            ServerMsg::Mapped(mapping) => {
                self.own_address(peerage_discovery::external::AddressIn::Mapped(mapping));
            }
            ServerMsg::Discovery(DiscoveryOut::Candidates(records)) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.candidates(records);
                }
            }
            ServerMsg::Discovery(DiscoveryOut::Resolved { attempt, record }) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.resolved(peerage_dialer::Attempt(attempt), record);
                }
            }
            ServerMsg::Exchange(out) => self.exchange_says(out).await,
            ServerMsg::Offered => self.services.exchange.iter().for_each(|exchange| exchange.offered()),
            ServerMsg::Router(event) => self.router_says(event).await,
            ServerMsg::Protocol(event) => self.protocol_says(event),
            ServerMsg::FetchMembers => self.fetch_members(),
            ServerMsg::Fetched(fetched) => self.fetched_members(fetched),
            ServerMsg::Gossip(peerage_gossip::Event::Report { session, penalty }) => {
                self.feed(In::Report(session, penalty)).await;
            }
            ServerMsg::Gossip(peerage_gossip::Event::Crashed { blame }) => match blame {
                peerage_gossip::Blame::Session(session) => self.feed(In::Report(session, Penalty::Crash)).await,
                peerage_gossip::Blame::Publisher(id) => self.feed(In::Blame(id, Penalty::Crash)).await,
            },
            ServerMsg::Gossip(peerage_gossip::Event::Useful { session, useful }) => {
                let useful = useful || self.runs_protocols(session);
                self.feed(In::Useful(session, useful)).await;
            }
            ServerMsg::Respawn(service) => self.respawn(service).await,
            ServerMsg::Resign => self.resign(),
            ServerMsg::Expire => self.expire_memory(),
            ServerMsg::Tick => {
                self.alarm.ticked();
                let now = self.clock.now();
                self.driver.expire_due(now);
                self.perform().await;
                self.own_address_due();
            }
            ServerMsg::AddStatic(peer, reply) => {
                let added = self.add_static(peer).await;
                reply.send(added);
            }
            ServerMsg::RemoveStatic(id) => self.remove_static(id).await,
            ServerMsg::AddTrusted(id) => {
                self.feed(In::AddTrusted(id)).await;
                self.privilege();
            }
            ServerMsg::RemoveTrusted(id) => {
                self.feed(In::RemoveTrusted(id)).await;
                self.privilege();
            }
            ServerMsg::Disconnect(id) => self.feed(In::Remove(id)).await,
            ServerMsg::Remove(id, reply) => {
                self.remove_static(id).await;
                self.feed(In::Remove(id)).await;
                match self.sessions.iter().find(|(_, session)| session.meta.id == id) {
                    Some((session, _)) => self.leaving.entry(*session).or_default().push(reply),
                    None => reply.send(()),
                }
            }
            ServerMsg::Ban(banned, time) => self.feed(In::Ban(banned, time)).await,
            ServerMsg::Unban(banned) => self.feed(In::Unban(banned)).await,
            ServerMsg::Bans(reply) => {
                let now = self.clock.now();
                reply.send(self.driver.machine().bans().map(|(banned, until)| (banned, until.since(now))).collect());
            }
            ServerMsg::Statics(reply) => reply.send(self.statics.values().cloned().collect()),
            ServerMsg::Trusted(reply) => reply.send(self.driver.machine().trusted().copied().collect()),
            ServerMsg::Admitted(reply) => reply.send(self.config.admission.clone()),
            ServerMsg::Admission(admission) => {
                self.config.admission = Admission::clone(&admission);
                self.feed(In::Admission(admission)).await;
            }
            ServerMsg::Forks(own, accepted) => self.set_forks(own, accepted).await,
            ServerMsg::Subscribe(subscription, reply) => self.subscribe(subscription, reply),
            ServerMsg::Serve(serve, reply) => self.serve(*serve, reply),
            ServerMsg::ServeNoMore(handler) => self.serve_no_more(handler),
            ServerMsg::ServeStreams(serve, reply) => self.serve_streams(*serve, reply),
            ServerMsg::ServeStreamsNoMore(handler) => self.serve_streams_no_more(handler),
            ServerMsg::Members(members) => self.members(members),
            ServerMsg::SubscribeDurable(wish, start, reply) => self.subscribe_durable(wish, start, reply),
            ServerMsg::Topics(message) => self.topics(message),
            ServerMsg::Events(outlet, reply) => {
                if self.events.add(outlet) {
                    reply.send(());
                }
            }
            ServerMsg::OpenDoor(door, reply) => reply.send(self.services.open_door(door)),
            ServerMsg::CloseDoor(name) => self.services.close_door(&name),
            ServerMsg::Context(reply) => {
                let connector = &self.services.blueprints.connector;
                reply.send((connector.context.clone(), connector.metrics.clone()));
            }
            ServerMsg::Local(reply) => reply.send(self.local()),
            ServerMsg::Peers(reply) => reply.send(self.peers()),
            ServerMsg::PeerCount(reply) => reply.send(self.sessions.len()),
            ServerMsg::Health(reply) => reply.send(self.health()),
            ServerMsg::Shutdown(reply) => {
                self.stopping.push(reply);
                if let Some(listener) = &self.services.listener {
                    listener.pause();
                }
                if let Some(connector) = &self.services.connector {
                    connector.cancel_all();
                }
                self.feed(In::Shutdown).await;
            }
            #[cfg(feature = "fault-injection")]
            ServerMsg::Panic(service) => self.inject_panic(service),
            #[cfg(feature = "fault-injection")]
            ServerMsg::PanicSession(id) => {
                self.sessions.values().filter(|session| session.meta.id == id).for_each(|s| s.mailbox.inject_panic());
            }
        }
    }

    pub(crate) async fn feed(&mut self, input: In) {
        self.driver.handle(self.clock.now(), input);
        self.perform().await;
    }

    async fn setup(&mut self, message: SetupMsg) {
        match message {
            SetupMsg::Identified { setup, meta, reply } => {
                self.waiting.insert(setup, Waiting { reply, established: None });
                self.feed(In::Checkpoint(setup, Stage::Identified, meta)).await;
            }
            SetupMsg::Established { setup, established, reply } => {
                let meta = Meta::of(&established.remote, established.direction, established.address().ip());
                let limit = self.config.session.disconnect_timeout;
                if let Err(reason) = self.driver.machine().check(self.clock.now(), &meta) {
                    // Said before it is looked for memory, so that the reason is the true one.
                    self.tasks.spawn(established.refuse(reason, limit));
                    return reply.send(Err(reason));
                }
                // Trusted peers and members have a share of the pool that nobody else can take.
                let weight = self.weight_of(&meta.id);
                let windows = CHANNEL_WINDOW * established.remote.channels.len() + STREAM_ALLOWANCE;
                if let Some(share) = self.inbound_pool.admit(windows, weight) {
                    self.waiting.insert(setup, Waiting { reply, established: Some((established, share)) });
                    self.feed(In::Checkpoint(setup, Stage::Established, meta)).await;
                } else {
                    self.tasks.spawn(established.refuse(DisconnectReason::TooManyPeers, limit));
                    reply.send(Err(DisconnectReason::TooManyPeers));
                }
            }
            SetupMsg::Released(setup) => {
                self.waiting.remove(&setup);
                self.feed(In::Released(setup)).await;
            }
        }
    }

    fn resign(&mut self) {
        self.sign();
        self.later(self.config.resign_every, ServerMsg::Resign);
    }

    async fn add_static(&mut self, peer: PeerAddress) -> Result<(), AddStaticFailed> {
        let admission = self.driver.machine().admission();
        // Without an address it is looked up, and judged then.
        let reachable = peer.addresses.is_empty() || peer.addresses.iter().any(|at| admission.permits_ip(at.ip()));
        let known = self.statics.contains_key(&peer.id);
        if peer.id == self.keys.id() {
            return Err(AddStaticFailed::OwnId);
        } else if !admission.permits_id(&peer.id) || !reachable {
            return Err(AddStaticFailed::NotAdmitted);
        } else if !known && self.statics.len() >= self.config.dialer.max_statics {
            return Err(AddStaticFailed::TooMany(self.statics.len()));
        }
        if let Some(dialer) = self.services.dialer.as_ref().filter(|_| is_placed(&peer)) {
            dialer.add_static(StaticPeer::from(&peer));
        }
        self.feed(In::AddStatic(peer.id)).await;
        self.statics.insert(peer.id, peer);
        self.privilege();
        self.hosts_changed();
        Ok(())
    }

    async fn remove_static(&mut self, id: NodeId) {
        self.feed(In::RemoveStatic(id)).await;
        if self.statics.remove(&id).is_some()
            && let Some(dialer) = &self.services.dialer
        {
            dialer.remove_static(id);
        }
        self.privilege();
        self.hosts_changed();
    }

    /// Sends itself a message after a while.
    pub(crate) fn later(&mut self, delay: Duration, message: ServerMsg) {
        self.tasks.spawn(self.ports.after(delay, message));
    }

    async fn stop(&mut self) {
        self.services.stop().await;
        self.leave_gateway().await;
        // With it go the last holders of the UDP sockets, before anybody is told that the node has stopped.
        self.services.blueprints.discovery = None;
        // Whoever opened the database closes it; this is for a program that ends without.
        if let Ok(Err(error)) = tokio::time::timeout(FLUSH, self.db.flush()).await {
            tracing::warn!(%error, "not all that the node remembers is on disk");
        }
        self.stopping.drain(..).for_each(|reply| reply.send(()));
    }

    #[cfg(feature = "fault-injection")]
    fn inject_panic(&self, service: Service) {
        let services = &self.services;
        match service {
            Service::Queue => services.queue.iter().for_each(|actor| actor.inject_panic()),
            Service::Gossip => services.gossip.iter().for_each(|actor| actor.inject_panic()),
            Service::Router => services.router.iter().for_each(|actor| actor.inject_panic()),
            Service::Exchange => services.exchange.iter().for_each(|actor| actor.inject_panic()),
            Service::Dialer => services.dialer.iter().for_each(|actor| actor.inject_panic()),
            Service::Connector => services.connector.iter().for_each(|actor| actor.inject_panic()),
            Service::Discovery => services.discovery.iter().for_each(|actor| actor.inject_panic()),
            Service::Listener => services.listener.iter().for_each(|actor| actor.inject_panic()),
        }
    }
}
