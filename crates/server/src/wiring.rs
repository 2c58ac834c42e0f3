//! How the actors are joined: each one's outlets and ports, made once and kept for all of its lives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use peerage_discovery::Bootnode;
use peerage_discovery::exchange::{self, CAPABILITY as PEERS};
use peerage_discovery::external::Reachable;
use peerage_discovery::sources::Names;
use peerage_machine::journal::Genesis as _;
use peerage_machine::{Driver, Rng};
use peerage_mailbox::{Alarm, Capacity, Supervisor, data_queue};
use peerage_peer_session::handshake::Presented;
use peerage_peer_session::{Buffers, Handshaker, STREAM_ALLOWANCE};
use peerage_queue::stream::AcceptedStream;
use peerage_queue::throttle::Throttles;
use peerage_queue::{Inbound, InboundPool, Pool, Push, SendFailed};
use peerage_router::protocol::{Plan, PlanError, Protocols, Tracker};
use peerage_wire::codec::{self, List, Text};
use peerage_wire::frame::{CHANNEL_WINDOW, MESSAGE_COST};
use peerage_wire::handshake::{M1_LEN, M1_SECRET_LEN, MAGIC, MAGIC_SECRET};
use peerage_wire::{Admission, Capability, Hello, NetworkId, NodeRecord, Verified};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::actor::{GOSSIP, State};
use crate::events::Events;
use crate::genesis::ServerGenesis;
use crate::ingress::{Inlets, Ports};
use crate::metrics::{ServerMetrics, SetupMetrics};
use crate::names::{Hosts, resolver};
use crate::own::{OwnAddress, record};
use crate::remembered::seeds;
use crate::requests::{ROUTER, Served};
use crate::services::{Blueprints, Services};
use crate::setup::SetupContext;
use crate::start::{Args, Bound};
use crate::supervision::RootJournal;
use crate::watch::Watch;
use crate::{Config, Limits, connector, expand, listener};

fn presented(config: &Config, plan: &Plan, record: Verified<NodeRecord>) -> Result<Presented, String> {
    let mut instance = [0; 8];
    getrandom::fill(&mut instance).map_err(|error| error.to_string())?;
    let hello = Hello {
        version: Hello::VERSION,
        network: NetworkId::named(&config.network),
        fork_id: config.fork_id,
        instance: u64::from_be_bytes(instance),
        agent: Text::new(config.agent.clone()).ok_or("agent is longer than 64 bytes")?,
        capabilities: List::new(plan.capabilities().to_vec()).ok_or("more capabilities than a greeting holds")?,
    };
    let accepted_forks = List::new(config.accepted_forks.clone()).ok_or("more forks are accepted than can be")?;
    Ok(Presented { record, hello, accepted_forks })
}

/// What the node itself speaks over its sessions.
fn capabilities(config: &Config) -> impl Iterator<Item = Capability> {
    let own = [GOSSIP].into_iter().chain(config.exchange_on.then_some(PEERS)).chain(config.router_on.then_some(ROUTER));
    own.filter_map(|(name, version)| Capability::new(name, version))
}

/// The application's protocols, besides the node's own. Each name takes a channel of every session, and its windows.
pub(crate) fn protocols(args: &Args) -> Result<Protocols, PlanError> {
    let config = &args.config;
    Protocols::new(capabilities(config), &args.protocols, &config.withheld, config.session.max_message)
}

/// Sessions that there may be.
fn sessions(config: &Config, trusted: usize) -> usize {
    // Trusted peers may exceed the limit; for those trusted later there is the doubling.
    // Static ones have places of their own.
    2 * (config.max_peers.max(1) as usize + trusted) + config.max_static_peers as usize
}

/// Bytes of the first windows of all sessions that there may be, of so many channels each at most.
pub(crate) fn first_windows(config: &Config, channels: usize, trusted: usize) -> usize {
    let windows = CHANNEL_WINDOW * channels + STREAM_ALLOWANCE;
    sessions(config, trusted).saturating_mul(windows)
}

impl Config {
    /// Bytes of the first windows of all sessions that there may be, for the node's own protocols: what peers may send at
    /// once, whatever the inbound pool has left.
    pub fn first_windows(&self) -> usize {
        first_windows(self, capabilities(self).count(), 0)
    }
}

/// A configuration with the limits as high as they can be raised while the node runs.
fn most(config: &Config) -> Config {
    let mut most = config.clone();
    most.max_peers = most.max_peers.max(Limits::MOST_PEERS);
    most.max_static_peers = most.max_static_peers.max(Limits::MOST_PEERS);
    most.queue.inbound.at_large = most.queue.inbound.at_large.max(Limits::MOST_BYTES);
    most
}

/// The handshakes that this node answers: one of them with a word of why not, as it has a secret or has none.
pub(crate) fn natives() -> Vec<listener::Native> {
    let native = |magic: [u8; 4], first_message| listener::Native { prefix: magic.to_vec(), first_message };
    vec![native(MAGIC, M1_LEN), native(MAGIC_SECRET, M1_SECRET_LEN)]
}

/// Makes everything that the root keeps; starts nothing.
pub(crate) fn wire(
    args: Args,
    bound: Vec<Bound>,
    inlets: Inlets,
    alarm: Alarm,
    parent: Supervisor,
    ports: Ports,
) -> Result<Box<State>, Box<dyn std::error::Error + Send + Sync>> {
    let Inlets { publishes, asks, durable_asks } = inlets;
    let protocols = protocols(&args)?;
    let served = Served::new(args.membership.clone());
    let names = Names::new(resolver(&args), args.clock, args.seed.rotate_left(32), &args.meter, ports.named());
    let Args { mut config, keys, bootnodes, statics, trusted, doors, foreign, transport, db, secret, journals, .. } =
        args;
    let (clock, meter, seed, min_record_seq) = (args.clock, args.meter, args.seed, args.min_record_seq);
    let sources = args.sources;
    config.dialer.max_dial_peers = config.dial_share();
    config.dialer.dialing = config.dialing_on;
    config.dialer.candidates = config.discovery_on || config.exchange_on;
    config.exchange.exempt_local &= config.exempt_local;
    config.exchange.filter = config.discovery.filter.clone();
    config.dialer.max_static_peers = config.max_static_peers;
    let mut rng = Rng::new(seed);

    let sockets: Vec<SocketAddr> = bound.iter().flat_map(|bound| expand(bound.address)).collect();
    let seq = clock.now().unix_millis().max(min_record_seq + 1);
    let own = OwnAddress::new(&config, clock.now(), &sockets);
    let record = record(&config, &keys, seq, own.external(), &sockets)?;
    let (presented, watched) = watch::channel(presented(&config, protocols.plan(), record.clone())?);

    let pool = Pool::new(config.queue.outbound);
    let channels = protocols.plan().channels();
    let inbound_pool = InboundPool::new(first_windows(&config, channels, trusted.len()), config.queue.inbound);
    // What bounds these queues are the pools, lanes and places above, which may grow while the node runs: so far.
    let most = most(&config);
    let sessions = sessions(&most, trusted.len());
    // Four lanes a peer.
    let lane_items = (4 * config.queue.lanes.items).saturating_mul(sessions);
    let (push, pushes) =
        data_queue::<Push>(Capacity { items: config.queue.pushes, weight: config.queue.outbound.at_large });
    // Every message that can be queued can fail: those in the lanes, and those that wait for the fan-out, each for all peers
    // at most.
    let failures = lane_items.saturating_add(config.queue.pushes.saturating_mul(sessions));
    let failures_room = Capacity { items: failures, weight: failures };
    let (report_failures, failures) = data_queue::<SendFailed>(failures_room);
    // What peers may have here is what the inbound pool granted them: this is never full.
    let granted = first_windows(&most, channels, trusted.len()).saturating_add(most.queue.inbound.capacity());
    let capacity = Capacity { items: granted / MESSAGE_COST as usize, weight: granted };
    let (gossip_inbound, inbound) = data_queue::<Inbound>(capacity);
    let (exchange_inbound, exchange_inlet) = data_queue::<Inbound>(capacity);
    let gossip_memory = peerage_gossip::Memory::new();
    let (router_inbound, router_inlet) = data_queue::<Inbound>(capacity);
    let router_memory = peerage_router::Memory::new();
    // As many as all peers may have open; what does not fit is refused, and held against nobody.
    let streams = sessions * config.session.max_channel_streams;
    let (router_streams, router_accepted) = data_queue::<AcceptedStream>(Capacity { items: streams, weight: streams });
    // The router's requests are in the same lanes.
    let (report_unsent, unsent) = data_queue::<SendFailed>(failures_room);

    let context = SetupContext {
        handshaker: Handshaker::new(config.session, keys.clone(), clock).with_secret(secret),
        presented: watched,
        root: ports.setup(),
        timeout: config.session.handshake_timeout,
        next: Arc::new(AtomicU64::new(1)),
    };
    let setup_metrics = SetupMetrics::new(&meter);
    let (listeners, datagrams): (Vec<_>, Vec<_>) =
        bound.into_iter().map(|bound| (bound.listener, bound.datagram)).unzip();
    let listeners =
        listeners.into_iter().flatten().map(|listener| Arc::new(tokio::sync::Mutex::new(listener))).collect();
    let datagrams = datagrams.into_iter().flatten().collect();
    let discovery = match config.discovery_on {
        false => None,
        true => Some(peerage_discovery::Args {
            config: config.discovery.clone(),
            keys: keys.clone(),
            record: record.clone(),
            sockets: datagrams,
            foreign,
            bootnodes: bootnodes
                .iter()
                .flat_map(|peer| peer.addresses.iter().map(|addr| Bootnode { id: peer.id, addr: *addr }))
                .collect(),
            seeds: seeds(&db, clock.now(), &mut rng),
            admission: Arc::new(config.admission.clone()),
            secrets: peerage_discovery::Secrets::generate()?,
            seed: rng.next_u64(),
            clock,
            sources,
            meter: meter.clone(),
            journals: journals.clone(),
            out: ports.discovery(),
        }),
    };
    let exchange = config.exchange_on.then(|| exchange::Args {
        config: config.exchange.clone(),
        record: record.clone(),
        admission: Arc::new(config.admission.clone()),
        seed: rng.next_u64(),
        inbound: exchange_inlet,
        push: push.clone(),
        transport: transport.clone(),
        out: ports.exchange(),
        charge: exchange::Charge::default(),
        clock,
        meter: meter.clone(),
        journals: journals.clone(),
    });
    let router = config.router_on.then(|| peerage_router::Args {
        config: config.router.clone(),
        seed: seed.rotate_left(16),
        inbound: router_inlet,
        streams: router_accepted,
        asks,
        failures: unsent,
        report_failures: report_unsent,
        pool: pool.clone(),
        events: ports.router(),
        clock,
        meter: meter.clone(),
        memory: router_memory.clone(),
        journals: journals.clone(),
    });
    let blueprints = Blueprints {
        router,
        queue: peerage_queue::Args { doors: BTreeMap::new(), pushes, pool: pool.clone(), meter: meter.clone() },
        gossip: peerage_gossip::Args {
            config: config.gossip.clone(),
            keys: keys.clone(),
            seed: rng.next_u64(),
            inbound,
            publish: publishes,
            durable: durable_asks,
            logs: db.logs(),
            failures,
            report_failures,
            push,
            pressure: pool.pressure(),
            events: ports.gossip(),
            clock,
            meter: meter.clone(),
            memory: gossip_memory.clone(),
            journals: journals.clone(),
        },
        exchange,
        dialer: peerage_dialer::Args {
            config: config.dialer.clone(),
            id: keys.id(),
            seed: rng.next_u64(),
            clock,
            meter: meter.clone(),
            journals: journals.clone(),
            out: ports.dialer(),
        },
        connector: connector::Args {
            transport,
            context: context.clone(),
            clock,
            connect_timeout: config.session.handshake_timeout,
            dial_timeout: config.dialer.dial_timeout.saturating_sub(config.session.handshake_timeout),
            done: ports.dialled(),
            metrics: setup_metrics.clone(),
        },
        discovery,
        listener: listener::Args {
            sockets: listeners,
            context,
            config: config.listener.clone(),
            exempt_local: config.exempt_local,
            doors: listener::doors(&config.listener, natives(), doors)?,
            admission: Arc::new(Admission::open()),
            privileged: BTreeSet::new(),
            clock,
            metrics: setup_metrics,
            journals: journals.clone(),
        },
    };
    let genesis = ServerGenesis { own: keys.id(), config: config.clone(), seed: rng.next_u64() };
    let recorder = journals.begin(clock.now(), || genesis.clone(), codec::encode, codec::encode);
    Ok(Box::new(State {
        driver: Driver::new(genesis.build()?).recorded(recorder),
        journal: RootJournal::new(journals),
        alarm,
        clock,
        metrics: ServerMetrics::new(&meter),
        parent,
        services: Services::new(blueprints, rng),
        sessions: BTreeMap::new(),
        waiting: BTreeMap::new(),
        statics: statics.into_iter().map(|peer| (peer.id, peer)).collect(),
        subscriptions: Vec::new(),
        durables: Vec::new(),
        admitted: BTreeMap::new(),
        events: Events::new(),
        presented,
        own,
        sockets,
        tracker: Tracker::new(protocols, pool.clone(), ports.protocols(), &meter),
        pool,
        inbound_pool,
        throttles: Throttles::new(clock, config.queue.throttle),
        buffers: Buffers::new(),
        gossip_inbound,
        exchange_inbound,
        router_inbound,
        router_streams,
        router_memory,
        served,
        reachable: Reachable::Unknown,
        gossip_memory,
        stopping: Vec::new(),
        leaving: BTreeMap::new(),
        tasks: JoinSet::new(),
        db,
        watch: Watch::new(&config, clock.now(), &meter),
        seeking: None,
        bootnodes,
        hosts: Hosts::new(names),
        config,
        keys,
        meter,
        ports,
    }))
}
