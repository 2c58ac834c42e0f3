//! The root actor's shell: wires the other actors, starts sessions, supervises, and performs what the run
//! loop decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_dialer::{DialOutcome, StaticPeer};
use peerage_discovery::DiscoveryOut;
use peerage_gossip::{Publish, SubscribeError};
use peerage_machine::Driver;
use peerage_mailbox::{Alarm, Capacity, Child, Clock, Meter, Outlet, Reply, Supervisor, data_queue, spawn_child};
use peerage_peer_session::handshake::Presented;
use peerage_peer_session::{Buffers, Ended, EndedBy, Established, SessionMailbox};
use peerage_queue::{ChannelId, Door, Inbound, InboundPool, InboundShare, Pool, SessionId};
use peerage_wire::frame::CHANNEL_WINDOW;
use peerage_wire::{Capability, DisconnectReason, Keypair, Multiaddr, NodeId, address};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;

use crate::Config;
use crate::ingress::{Ports, ServerMailbox, ServerMsg, Service, Subscription};
use crate::machine::{In, Meta, Out, Running, ServerMachine, Setup, Stage};
use crate::metrics::ServerMetrics;
use crate::services::Services;
use crate::setup::SetupMsg;
use crate::start::{Args, Bound, StartError};
use crate::types::{Event, PeerAddress};
use crate::wiring::{record, wire};

/// The capability under which gossip runs.
pub(crate) const GOSSIP: (&str, u16) = ("gossip", 1);
/// How often gauges that nobody's messages move are read.
const GAUGES_EVERY: Duration = Duration::from_secs(5);
/// Subscribers to peer events.
const MAX_EVENT_SUBSCRIBERS: usize = 1024;

/// Binds nothing and starts everything: the sockets are `bound` already.
pub(crate) async fn spawn(args: Args, bound: Vec<Bound>) -> Result<ServerMailbox, StartError> {
    let drain_timeout = args.config.drain_timeout;
    let (publisher, publishes) = data_queue::<Publish>(Capacity {
        // Two of the largest messages wait, or very many small ones.
        items: 4096,
        weight: 2 * args.config.gossip.max_payload,
    });
    let (actor, _child) = spawn_child(Server, (args, bound, publishes), &Supervisor::none())
        .await
        .map_err(|error| StartError::Other(error.to_string()))?;
    Ok(ServerMailbox::new(actor, publisher, drain_timeout))
}

struct Server;

pub(crate) struct Session {
    pub(crate) mailbox: SessionMailbox,
    pub(crate) child: Child,
    pub(crate) door: Door,
    pub(crate) gossip: Option<ChannelId>,
    pub(crate) meta: Meta,
    pub(crate) address: SocketAddr,
    pub(crate) agent: String,
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
    pub(crate) events: Vec<Outlet<Event>>,
    pub(crate) presented: watch::Sender<Presented>,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) pool: Pool,
    pub(crate) inbound_pool: InboundPool,
    pub(crate) buffers: Buffers,
    pub(crate) gossip_inbound: Outlet<Inbound>,
    pub(crate) gossip_memory: peerage_gossip::Memory,
    pub(crate) stopping: Vec<Reply<()>>,
}

impl Actor for Server {
    type Msg = ServerMsg;
    type State = State;
    type Arguments = (Args, Vec<Bound>, peerage_mailbox::Inlet<Publish>);

    async fn pre_start(
        &self,
        myself: ActorRef<ServerMsg>,
        (args, bound, publishes): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let trusted = args.trusted.clone();
        let alarm = Alarm::new(&myself, args.clock, || ServerMsg::Tick);
        let mut state = wire(args, bound, publishes, alarm, Supervisor::parent(&myself), Ports::new(&myself))?;
        for id in trusted {
            state.feed(In::AddTrusted(id)).await;
        }
        for service in Service::ALL {
            state.services.spawn(service, &state.parent).await?;
            state.introduce(service);
        }
        state.ports.later(state.config.resign_every, || ServerMsg::Resign);
        state.ports.later(GAUGES_EVERY, || ServerMsg::Gauges);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ServerMsg>,
        message: ServerMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.message(message).await;
        state.settle(&myself).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ServerMsg>,
        event: SupervisionEvent,
        state: &mut State,
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
        self.alarm.set(self.driver.next_deadline());
        if self.driver.machine().running() == Running::Stopped {
            self.stop().await;
            myself.stop(None);
        }
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
                self.ports.later(GAUGES_EVERY, || ServerMsg::Gauges);
            }
            ServerMsg::Dialled(dialled) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.done(dialled.attempt, dialled.outcome);
                }
                if let Some(discovery) = &self.services.discovery
                    && !matches!(dialled.outcome, DialOutcome::Cancelled)
                {
                    discovery.outcome(dialled.id, dialled.outcome == DialOutcome::Connected);
                }
            }
            ServerMsg::Discovery(out) => {
                if let Some(dialer) = &self.services.dialer {
                    match out {
                        DiscoveryOut::Candidates(records) => dialer.candidates(records),
                        DiscoveryOut::Resolved { attempt, record } => {
                            dialer.resolved(peerage_dialer::Attempt(attempt), record);
                        }
                    }
                }
            }
            ServerMsg::Gossip(peerage_gossip::Event::Report { session, penalty }) => {
                self.metrics.penalty(penalty);
                self.feed(In::Report(session, penalty)).await;
            }
            ServerMsg::Gossip(peerage_gossip::Event::Crashed { session }) => self.feed(In::Crashed(session)).await,
            ServerMsg::Respawn(service) => self.respawn(service).await,
            ServerMsg::Resign => self.resign(),
            ServerMsg::Tick => {
                self.alarm.ticked();
                let now = self.clock.now();
                self.driver.expire_due(now);
                self.perform().await;
            }
            ServerMsg::AddStatic(peer) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.add_static(StaticPeer::from(&peer));
                }
                self.statics.insert(peer.id, peer);
            }
            ServerMsg::RemoveStatic(id) => {
                if self.statics.remove(&id).is_some()
                    && let Some(dialer) = &self.services.dialer
                {
                    dialer.remove_static(id);
                }
            }
            ServerMsg::AddTrusted(id) => self.feed(In::AddTrusted(id)).await,
            ServerMsg::RemoveTrusted(id) => self.feed(In::RemoveTrusted(id)).await,
            ServerMsg::Disconnect(id) => self.feed(In::Disconnect(id, DisconnectReason::Requested)).await,
            ServerMsg::Subscribe(subscription, reply) => self.subscribe(subscription, reply),
            ServerMsg::Events(outlet, reply) => {
                self.events.retain(|outlet| !outlet.is_closed());
                if self.events.len() < MAX_EVENT_SUBSCRIBERS {
                    self.events.push(outlet);
                    reply.send(());
                }
            }
            ServerMsg::Local(reply) => reply.send(self.local()),
            ServerMsg::Peers(reply) => reply.send(self.peers()),
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

    async fn feed(&mut self, input: In) {
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
                let meta = Meta::of(&established.remote, established.direction);
                // Trusted peers have a share of the pool that nobody else can take.
                let weight = u64::from(self.driver.machine().is_trusted(&meta.id));
                let windows = CHANNEL_WINDOW * established.remote.channels.len();
                if let Some(share) = self.inbound_pool.admit(windows, weight) {
                    self.waiting.insert(setup, Waiting { reply, established: Some((established, share)) });
                    self.feed(In::Checkpoint(setup, Stage::Established, meta)).await;
                } else {
                    let limit = self.config.session.disconnect_timeout;
                    tokio::spawn(established.refuse(DisconnectReason::TooManyPeers, limit));
                    reply.send(Err(DisconnectReason::TooManyPeers));
                }
            }
            SetupMsg::Released(setup) => {
                self.waiting.remove(&setup);
                self.feed(In::Released(setup)).await;
            }
        }
    }

    async fn perform(&mut self) {
        // An effect may feed the machine again (a session that does not start); effects keep their order.
        loop {
            let outs: Vec<Out> = self.driver.drain().collect();
            if outs.is_empty() {
                return;
            }
            for out in outs {
                self.perform_one(out).await;
            }
        }
    }

    async fn perform_one(&mut self, out: Out) {
        match out {
            Out::Verdict(setup, verdict) => self.verdict(setup, verdict).await,
            Out::InboundPending(id) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.inbound_pending(id);
                }
            }
            Out::InboundDone(id) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.inbound_done(id);
                }
            }
            Out::PeerUp(session, meta) => self.peer_up(session, meta),
            Out::PeerDown { session, meta, ended, lived } => self.peer_down(session, meta, ended, lived),
            Out::Disconnect(session, reason) => {
                if let Some(session) = self.sessions.get(&session) {
                    session.mailbox.disconnect(reason);
                }
            }
            Out::Banned(id) => {
                self.metrics.bans.increment(1);
                tracing::info!(%id, "banned");
            }
            // Looked at after the message.
            Out::Stopped => {}
        }
    }

    fn dialer_asks(&mut self, out: peerage_dialer::Out) {
        use peerage_dialer::Out;
        if self.driver.machine().running() != Running::Running {
            // What it still wants to dial, nobody needs.
            return;
        }
        match out {
            Out::Want(count) => {
                if let Some(discovery) = &self.services.discovery {
                    discovery.want(count.get() as usize);
                }
            }
            Out::Resolve { attempt, id } => match (&self.services.discovery, &self.services.dialer) {
                (Some(discovery), _) => discovery.resolve_for(attempt.0, id),
                (None, Some(dialer)) => dialer.resolved(attempt, None),
                (None, None) => {}
            },
            Out::Dial { attempt, target } => match (&self.services.connector, &self.services.dialer) {
                (Some(connector), _) => connector.dial(attempt, target),
                (None, Some(dialer)) => dialer.done(attempt, DialOutcome::Cancelled),
                (None, None) => {}
            },
            Out::Cancel(attempt) => {
                if let Some(connector) = &self.services.connector {
                    connector.cancel(attempt);
                }
            }
            // Performed by the dialer's own shell.
            Out::Count(_) => {}
        }
    }

    fn subscribe(&mut self, subscription: Subscription, reply: Reply<Result<(), SubscribeError>>) {
        self.subscriptions.retain(|kept| !kept.outlet.is_closed());
        match &self.services.gossip {
            Some(gossip) => {
                let Subscription { topic, policy, outlet } = subscription.clone();
                gossip.subscribe(topic, policy, outlet, Some(reply));
            }
            // It is told as soon as it is back.
            None => reply.send(Ok(())),
        }
        // One that gossip refuses closes when its owner drops the inlet.
        self.subscriptions.push(subscription);
    }

    fn resign(&mut self) {
        let sockets: Vec<SocketAddr> = self.addresses.iter().filter_map(address::tcp_socket).collect();
        let last = self.presented.borrow().record.seq();
        let seq = self.clock.now().unix_millis().max(last + 1);
        match record(&self.config, &self.keys, seq, &sockets) {
            Ok(record) => {
                if let Some(discovery) = &self.services.discovery {
                    discovery.local_changed(record.clone());
                }
                if let Some(discovery) = &mut self.services.blueprints.discovery {
                    discovery.record = record.clone();
                }
                self.presented.send_modify(|presented| presented.record = record);
            }
            // It fitted when the node started, and nothing in it grew.
            Err(error) => tracing::error!(%error, "the record was not signed anew"),
        }
        self.ports.later(self.config.resign_every, || ServerMsg::Resign);
    }

    async fn stop(&mut self) {
        self.services.stop().await;
        self.stopping.drain(..).for_each(|reply| reply.send(()));
    }

    #[cfg(feature = "fault-injection")]
    fn inject_panic(&self, service: Service) {
        let services = &self.services;
        match service {
            Service::Queue => services.queue.iter().for_each(|actor| actor.inject_panic()),
            Service::Gossip => services.gossip.iter().for_each(|actor| actor.inject_panic()),
            Service::Dialer => services.dialer.iter().for_each(|actor| actor.inject_panic()),
            Service::Connector => services.connector.iter().for_each(|actor| actor.inject_panic()),
            Service::Discovery => services.discovery.iter().for_each(|actor| actor.inject_panic()),
            Service::Listener => services.listener.iter().for_each(|actor| actor.inject_panic()),
        }
    }
}
