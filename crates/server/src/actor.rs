//! The root actor's shell: wires the other actors, starts sessions, supervises, and performs what the run
//! loop decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use peerage_dialer::{DialOutcome, StaticPeer};
use peerage_discovery::{Bootnode, DiscoveryOut};
use peerage_gossip::{Publish, SubscribeError};
use peerage_machine::{Driver, Quota, Rng};
use peerage_mailbox::{
    Alarm, Capacity, Child, Clock, Meter, Outlet, Reply, Restart, Supervisor, data_queue, spawn_child,
};
use peerage_peer_session::handshake::Presented;
use peerage_peer_session::{Ended, EndedBy, Established, Handshaker, SessionMailbox};
use peerage_queue::{ChannelId, Delivery, Door, Pool, Push, SendFailed, SessionId, lanes};
use peerage_wire::codec::{Blob, List, Text};
use peerage_wire::{
    Capability, DisconnectReason, Hello, Keypair, Multiaddr, NetworkId, NodeId, NodeRecord, RecordDraft, Verified,
    address,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;

use crate::ingress::{Ports, REQUESTED, ServerMailbox, ServerMsg, Service, Subscription};
use crate::machine::{In, Meta, Out, Running, ServerMachine, Setup, Stage};
use crate::metrics::{ServerMetrics, SetupMetrics};
use crate::services::{Blueprints, Services};
use crate::setup::{SetupContext, SetupMsg};
use crate::start::{Args, Bound, StartError};
use crate::types::{Event, Health, LocalNode, PeerAddress, PeerInfo, Status};
use crate::{Config, connector, expand, listener};

/// The capability under which gossip runs.
const GOSSIP: (&str, u16) = ("gossip", 1);
/// Addresses put into the record, which has 300 bytes: each listen address needs one for TCP and one for UDP.
const RECORD_ADDRESSES: usize = 3;
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

struct Session {
    mailbox: SessionMailbox,
    child: Child,
    door: Door,
    gossip: Option<ChannelId>,
    meta: Meta,
    address: SocketAddr,
    agent: String,
    capabilities: Vec<Capability>,
    connected_at: Duration,
}

/// A checkpoint whose verdict is awaited.
struct Waiting {
    reply: Reply<Result<(), DisconnectReason>>,
    established: Option<Box<Established>>,
}

pub(crate) struct State {
    driver: Driver<ServerMachine>,
    alarm: Alarm,
    clock: Clock,
    config: Config,
    keys: Keypair,
    meter: Meter,
    metrics: ServerMetrics,
    parent: Supervisor,
    ports: Ports,
    services: Services,
    sessions: BTreeMap<SessionId, Session>,
    waiting: BTreeMap<Setup, Waiting>,
    statics: BTreeMap<NodeId, PeerAddress>,
    subscriptions: Vec<Subscription>,
    events: Vec<Outlet<Event>>,
    presented: watch::Sender<Presented>,
    addresses: Vec<Multiaddr>,
    pool: Pool,
    gossip_inbound: Outlet<Delivery>,
    gossip_memory: peerage_gossip::Memory,
    stopping: Vec<Reply<()>>,
}

fn record(config: &Config, keys: &Keypair, seq: u64, sockets: &[SocketAddr]) -> Result<Verified<NodeRecord>, String> {
    let mut draft = RecordDraft::new(seq, NetworkId::named(&config.network));
    for socket in sockets.iter().take(RECORD_ADDRESSES) {
        draft = draft.address(address::from_tcp(*socket)).address(address::from_udp(*socket));
    }
    draft.sign(keys).map_err(|error| error.to_string())
}

fn presented(config: &Config, record: Verified<NodeRecord>) -> Result<Presented, String> {
    let mut instance = [0; 8];
    getrandom::fill(&mut instance).map_err(|error| error.to_string())?;
    let hello = Hello {
        version: Hello::VERSION,
        network: NetworkId::named(&config.network),
        fork_id: Blob::new(config.fork_id.clone()).ok_or("fork_id is longer than 32 bytes")?,
        instance: u64::from_be_bytes(instance),
        agent: Text::new(config.agent.clone()).ok_or("agent is longer than 64 bytes")?,
        capabilities: List::truncated(Capability::new(GOSSIP.0, GOSSIP.1)),
    };
    Ok(Presented { record, hello })
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
        let Args {
            mut config, keys, bootnodes, statics, trusted, transport, clock, meter, seed, min_record_seq, ..
        } = args;
        config.dialer.max_dial_peers = config.dial_share();
        let mut rng = Rng::new(seed);
        let ports = Ports::new(&myself);

        let sockets: Vec<SocketAddr> = bound.iter().flat_map(|bound| expand(bound.address)).collect();
        let seq = clock.now().unix_millis().max(min_record_seq + 1);
        let record = record(&config, &keys, seq, &sockets)?;
        let (presented, watched) = watch::channel(presented(&config, record.clone())?);

        let pool = Pool::new(config.queue.pool_bytes);
        let lane_items = config.queue.lanes.items * config.max_peers.max(1) as usize;
        let (push, pushes) =
            data_queue::<Push>(Capacity { items: config.queue.pushes, weight: config.queue.pool_bytes });
        // Every message that can be queued can fail: those in the lanes, and those that wait for the fan-out.
        let failures = lane_items + config.queue.pushes * config.gossip.fanout;
        let (report_failures, failures) = data_queue::<SendFailed>(Capacity { items: failures, weight: failures });
        let (gossip_inbound, inbound) =
            data_queue::<Delivery>(Capacity { items: 4096, weight: 4 * config.session.max_message });
        let gossip_memory = peerage_gossip::Memory::new();

        let context = SetupContext {
            handshaker: Handshaker::new(config.session, keys.clone(), clock),
            presented: watched,
            root: ports.setup(),
            next: Arc::new(AtomicU64::new(1)),
        };
        let setup_metrics = SetupMetrics::new(&meter);
        let (listeners, datagrams): (Vec<_>, Vec<_>) =
            bound.into_iter().map(|bound| (Arc::new(tokio::sync::Mutex::new(bound.listener)), bound.datagram)).unzip();
        let discovery = match config.discovery_on {
            false => None,
            true => Some(peerage_discovery::Args {
                config: config.discovery.clone(),
                keys: keys.clone(),
                record: record.clone(),
                sockets: datagrams,
                bootnodes: bootnodes
                    .iter()
                    .flat_map(|peer| peer.addresses.iter().map(|addr| Bootnode { id: peer.id, addr: *addr }))
                    .collect(),
                secrets: peerage_discovery::Secrets::generate()?,
                seed: rng.next_u64(),
                clock,
                meter: meter.clone(),
                out: ports.discovery(),
            }),
        };
        let blueprints = Blueprints {
            queue: peerage_queue::Args { doors: BTreeMap::new(), pushes, pool: pool.clone(), meter: meter.clone() },
            gossip: peerage_gossip::Args {
                config: config.gossip.clone(),
                keys: keys.clone(),
                seed: rng.next_u64(),
                inbound,
                publish: publishes,
                failures,
                report_failures,
                push,
                pressure: pool.pressure(),
                events: ports.gossip(),
                clock,
                meter: meter.clone(),
                memory: gossip_memory.clone(),
            },
            dialer: peerage_dialer::Args {
                config: config.dialer.clone(),
                id: keys.id(),
                seed: rng.next_u64(),
                clock,
                meter: meter.clone(),
                out: ports.dialer(),
            },
            connector: connector::Args {
                transport,
                context: context.clone(),
                connect_timeout: config.session.handshake_timeout,
                done: ports.dialled(),
                metrics: setup_metrics.clone(),
            },
            discovery,
            listener: listener::Args {
                sockets: listeners,
                context,
                slots: config.max_pending,
                per_host: Quota::new(config.accepts_per_host, Duration::from_secs(10)),
                exempt_local: config.exempt_local,
                clock,
                metrics: setup_metrics,
            },
        };
        let machine = ServerMachine::new(keys.id(), &config);
        let mut state = State {
            driver: Driver::new(machine),
            alarm: Alarm::new(&myself, clock, || ServerMsg::Tick),
            clock,
            metrics: ServerMetrics::new(&meter),
            parent: Supervisor::parent(&myself),
            services: Services::new(blueprints, rng),
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            statics: statics.into_iter().map(|peer| (peer.id, peer)).collect(),
            subscriptions: Vec::new(),
            events: Vec::new(),
            presented,
            addresses: sockets.into_iter().map(address::from_tcp).collect(),
            pool,
            gossip_inbound,
            gossip_memory,
            stopping: Vec::new(),
            config,
            keys,
            meter,
            ports,
        };
        for id in trusted {
            state.feed(In::AddTrusted(id)).await;
        }
        for service in Service::ALL {
            state.services.spawn(service, &state.parent).await?;
            state.introduce(service);
        }
        state.ports.later(state.config.resign_every, || ServerMsg::Resign);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ServerMsg>,
        message: ServerMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.message(message).await;
        state.alarm.set(state.driver.next_deadline());
        if state.driver.machine().running() == Running::Stopped {
            state.stop().await;
            myself.stop(None);
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ServerMsg>,
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
        Ok(())
    }
}

impl State {
    async fn message(&mut self, message: ServerMsg) {
        match message {
            ServerMsg::Setup(setup) => self.setup(setup).await,
            ServerMsg::SessionEnded(session, ended) => self.feed(In::Ended(session, ended)).await,
            ServerMsg::Dialer(out) => self.dialer_asks(out),
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
                    dialer.add_static(StaticPeer::new(peer.id, peer.addresses.iter().copied()));
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
            ServerMsg::Disconnect(id) => self.feed(In::Disconnect(id, REQUESTED)).await,
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
                let remote = &established.remote;
                let (direction, instance) = (established.direction, remote.hello.instance);
                let meta = Meta { id: remote.id(), direction, instance };
                self.waiting.insert(setup, Waiting { reply, established: Some(established) });
                self.feed(In::Checkpoint(setup, Stage::Established, meta)).await;
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

    async fn verdict(&mut self, setup: Setup, verdict: Result<Option<SessionId>, DisconnectReason>) {
        let Some(Waiting { reply, established }) = self.waiting.remove(&setup) else { return };
        match (verdict, established) {
            (Ok(Some(session)), Some(established)) => {
                self.start_session(session, *established).await;
                reply.send(Ok(()));
            }
            (Err(reason), Some(established)) => {
                // The other end believes itself accepted, so it is told.
                let limit = self.config.session.disconnect_timeout;
                tokio::spawn(established.refuse(reason, limit));
                reply.send(Err(reason));
            }
            (verdict, _) => reply.send(verdict.map(drop)),
        }
    }

    /// Opens the peer's lanes, tells the protocols, and only then lets its messages in.
    async fn start_session(&mut self, session: SessionId, established: Established) {
        let (door, lane_end) = lanes(self.config.queue.lanes, &self.pool.pressure());
        let remote = &established.remote;
        let meta = Meta { id: remote.id(), direction: established.direction, instance: remote.hello.instance };
        let gossip = remote.channels.iter().find(|matched| &*matched.capability.name == GOSSIP.0);
        let gossip = gossip.map(|matched| ChannelId(matched.channel));
        let (address, agent) = (established.address(), remote.hello.agent.to_string());
        let capabilities = remote.channels.iter().map(|matched| matched.capability.clone()).collect();
        if let Some(queue) = &self.services.queue {
            queue.peer_up(session, door.clone());
        }
        if let (Some(actor), Some(channel)) = (&self.services.gossip, gossip) {
            actor.peer_up(session, meta.id, channel);
        }
        let args = peerage_peer_session::Args {
            session,
            config: self.config.session,
            established,
            lanes: lane_end,
            routes: gossip.map(|channel| (channel, self.gossip_inbound.clone())).into_iter().collect(),
            ended: self.ports.session_ended(session),
            clock: self.clock,
            meter: self.meter.clone(),
        };
        match peerage_peer_session::spawn(args, &self.parent).await {
            Ok((mailbox, child)) => {
                let connected_at = self.clock.now().unix();
                let running =
                    Session { mailbox, child, door, gossip, meta, address, agent, capabilities, connected_at };
                self.sessions.insert(session, running);
            }
            Err(error) => {
                tracing::warn!(%error, "a session did not start");
                let ended = Ended { reason: DisconnectReason::Crashed, by: EndedBy::Us };
                self.driver.handle(self.clock.now(), In::Ended(session, ended));
            }
        }
    }

    fn peer_up(&mut self, session: SessionId, meta: Meta) {
        let dialled = meta.direction == peerage_peer_session::handshake::Direction::Outbound;
        if let Some(dialer) = &self.services.dialer {
            dialer.peer_up(meta.id, dialled);
        }
        self.metrics.peers(meta.direction, 1.0);
        if let Some(running) = self.sessions.get(&session) {
            tracing::info!(id = %meta.id, address = %running.address, direction = meta.direction.label(), "peer up");
            let (address, agent) = (running.address, running.agent.clone());
            self.tell(&Event::PeerUp { id: meta.id, direction: meta.direction, address, agent });
        }
    }

    fn peer_down(&mut self, session: SessionId, meta: Meta, ended: Ended, lived: Duration) {
        self.sessions.remove(&session);
        if let Some(queue) = &self.services.queue {
            queue.peer_down(session);
        }
        if let Some(gossip) = &self.services.gossip {
            gossip.peer_down(session);
        }
        let dialled = meta.direction == peerage_peer_session::handshake::Direction::Outbound;
        if let Some(dialer) = &self.services.dialer {
            dialer.peer_down(meta.id, dialled, lived);
        }
        self.metrics.peers(meta.direction, -1.0);
        let by = match ended.by {
            EndedBy::Us => "us",
            EndedBy::Peer => "peer",
            EndedBy::Network => "network",
        };
        self.metrics.disconnected(ended.reason, by);
        tracing::info!(id = %meta.id, reason = %ended.reason, by, ?lived, "peer down");
        self.tell(&Event::PeerDown { id: meta.id, reason: ended.reason, by: ended.by, lived });
    }

    fn tell(&mut self, event: &Event) {
        // A subscriber that is full loses its oldest; one that is gone is forgotten.
        self.events.retain(|outlet| outlet.offer(event.clone()).is_ok());
    }

    fn dialer_asks(&mut self, out: peerage_dialer::Out) {
        use peerage_dialer::Out;
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
        if let Some(gossip) = &self.services.gossip {
            let Subscription { topic, policy, outlet } = subscription.clone();
            gossip.subscribe(topic, policy, outlet, Some(reply));
        }
        // One that gossip refuses closes its outlet when its owner drops it.
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

    fn service_ended(&mut self, service: Service, ended: Result<(), String>) {
        if self.driver.machine().running() != Running::Running {
            return;
        }
        let error = ended.err().unwrap_or_else(|| "stopped by itself".into());
        let charged = service == Service::Gossip && self.gossip_memory.take_charged();
        let restart = self.services.decide(self.clock.now(), service, charged);
        let actor = service.label();
        let delay = match restart {
            Restart::After(delay) => {
                tracing::warn!(actor, %error, ?delay, "an actor failed and is started again");
                delay
            }
            Restart::DegradedAfter(delay) => {
                tracing::error!(actor, %error, ?delay, "an actor fails again and again; the node is degraded");
                self.metrics.degraded(actor, true);
                delay
            }
            Restart::GiveUp => {
                tracing::error!(actor, %error, "an actor failed too often and stays down; the node is degraded");
                self.metrics.degraded(actor, true);
                return;
            }
        };
        self.ports.later(delay, move || ServerMsg::Respawn(service));
    }

    async fn respawn(&mut self, service: Service) {
        if self.driver.machine().running() != Running::Running {
            return;
        }
        if service == Service::Queue {
            let doors = self.sessions.iter().map(|(id, session)| (*id, session.door.clone()));
            self.services.blueprints.queue.doors = doors.collect();
        }
        match self.services.spawn(service, &self.parent).await {
            Ok(()) => {
                self.metrics.restarted(service.label());
                self.metrics.degraded(service.label(), false);
                self.introduce(service);
            }
            Err(error) => self.service_ended(service, Err(error)),
        }
    }

    /// Tells an actor that has just started what it has to know.
    fn introduce(&mut self, service: Service) {
        match service {
            Service::Gossip => {
                let Some(gossip) = &self.services.gossip else { return };
                self.subscriptions.retain(|kept| !kept.outlet.is_closed());
                for Subscription { topic, policy, outlet } in self.subscriptions.iter().cloned() {
                    gossip.subscribe(topic, policy, outlet, None);
                }
                for (id, session) in &self.sessions {
                    if let Some(channel) = session.gossip {
                        gossip.peer_up(*id, session.meta.id, channel);
                    }
                }
            }
            Service::Dialer => {
                let Some(dialer) = &self.services.dialer else { return };
                if let Some(connector) = &self.services.connector {
                    connector.cancel_all();
                }
                for peer in self.statics.values() {
                    dialer.add_static(StaticPeer::new(peer.id, peer.addresses.iter().copied()));
                }
                for (_, meta, _) in self.driver.machine().peers() {
                    dialer.peer_up(meta.id, meta.direction == peerage_peer_session::handshake::Direction::Outbound);
                }
                self.driver.machine().pending_inbound().for_each(|id| dialer.inbound_pending(id));
                dialer.start();
            }
            // A queue is given its doors when it starts; the others know what they need.
            Service::Queue | Service::Connector | Service::Discovery | Service::Listener => {}
        }
    }

    fn local(&self) -> LocalNode {
        let presented = self.presented.borrow();
        LocalNode {
            record: presented.record.clone(),
            addresses: self.addresses.clone(),
            agent: self.config.agent.clone(),
            network: self.config.network.clone(),
            instance: presented.hello.instance,
        }
    }

    fn peers(&self) -> Vec<PeerInfo> {
        let info = |session: &Session| {
            let stats = session.mailbox.stats();
            PeerInfo {
                id: session.meta.id,
                direction: session.meta.direction,
                address: session.address,
                capabilities: session.capabilities.clone(),
                agent: session.agent.clone(),
                is_static: self.statics.contains_key(&session.meta.id),
                is_trusted: self.driver.machine().is_trusted(&session.meta.id),
                connected_at: session.connected_at,
                round_trip: stats.round_trip,
                bytes_in: stats.bytes_in,
                bytes_out: stats.bytes_out,
            }
        };
        let mut peers: Vec<PeerInfo> = self.sessions.values().map(info).collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    fn health(&self) -> Health {
        if self.driver.machine().running() != Running::Running {
            return Health { status: Status::Draining, reasons: vec!["the node is shutting down".into()] };
        }
        let down = |service: Service| format!("the {} actor is down", service.label());
        let mut reasons: Vec<String> = self.services.degraded().map(down).collect();
        let sought = self.services.blueprints.discovery.as_ref().is_some_and(|args| !args.bootnodes.is_empty());
        if self.sessions.is_empty() && (sought || !self.statics.is_empty()) {
            reasons.push("no peer is connected, although bootnodes or static peers are configured".into());
        }
        let status = if reasons.is_empty() { Status::Ok } else { Status::Degraded };
        Health { status, reasons }
    }

    async fn stop(&mut self) {
        for session in std::mem::take(&mut self.sessions).into_values() {
            session.child.stop();
        }
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
