//! How the actors are joined: each one's outlets and ports, made once and kept for all of its lives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use peerage_discovery::Bootnode;
use peerage_gossip::Publish;
use peerage_machine::journal::Genesis as _;
use peerage_machine::{Driver, Rng};
use peerage_mailbox::{Alarm, Capacity, Inlet, Supervisor, data_queue};
use peerage_peer_session::handshake::Presented;
use peerage_peer_session::{Buffers, Handshaker};
use peerage_queue::{Inbound, InboundPool, Pool, Push, SendFailed};
use peerage_wire::codec::{self, List, Text};
use peerage_wire::frame::{CHANNEL_WINDOW, MESSAGE_COST};
use peerage_wire::handshake::{M1_LEN, M1_SECRET_LEN, MAGIC, MAGIC_SECRET};
use peerage_wire::{Admission, Capability, Hello, Keypair, NetworkId, NodeRecord, RecordDraft, Verified, address};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::actor::{GOSSIP, State};
use crate::events::Events;
use crate::genesis::ServerGenesis;
use crate::ingress::Ports;
use crate::metrics::{ServerMetrics, SetupMetrics};
use crate::remembered::seeds;
use crate::services::{Blueprints, Services};
use crate::setup::SetupContext;
use crate::start::{Args, Bound};
use crate::supervision::RootJournal;
use crate::{Config, connector, expand, listener};

/// Addresses put into the record, which has 300 bytes: each listen address needs one for TCP and one for UDP.
const RECORD_ADDRESSES: usize = 3;

pub(crate) fn record(
    config: &Config,
    keys: &Keypair,
    seq: u64,
    sockets: &[SocketAddr],
) -> Result<Verified<NodeRecord>, String> {
    let mut draft = RecordDraft::new(seq, NetworkId::named(&config.network));
    for socket in sockets.iter().take(RECORD_ADDRESSES) {
        if config.listening_on {
            draft = draft.address(address::from_tcp(*socket));
        }
        if config.discovery_on {
            draft = draft.address(address::from_udp(*socket));
        }
    }
    draft.sign(keys).map_err(|error| error.to_string())
}

fn presented(config: &Config, record: Verified<NodeRecord>) -> Result<Presented, String> {
    let mut instance = [0; 8];
    getrandom::fill(&mut instance).map_err(|error| error.to_string())?;
    let hello = Hello {
        version: Hello::VERSION,
        network: NetworkId::named(&config.network),
        fork_id: config.fork_id,
        instance: u64::from_be_bytes(instance),
        agent: Text::new(config.agent.clone()).ok_or("agent is longer than 64 bytes")?,
        capabilities: List::truncated(Capability::new(GOSSIP.0, GOSSIP.1)),
    };
    let accepted_forks = List::new(config.accepted_forks.clone()).ok_or("more forks are accepted than can be")?;
    Ok(Presented { record, hello, accepted_forks })
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
    publishes: Inlet<Publish>,
    alarm: Alarm,
    parent: Supervisor,
    ports: Ports,
) -> Result<State, Box<dyn std::error::Error + Send + Sync>> {
    let Args { mut config, keys, bootnodes, statics, trusted, doors, transport, db, secret, journals, .. } = args;
    let (clock, meter, seed, min_record_seq) = (args.clock, args.meter, args.seed, args.min_record_seq);
    config.dialer.max_dial_peers = config.dial_share();
    config.dialer.dialing = config.dialing_on;
    config.dialer.candidates = config.discovery_on;
    config.dialer.max_static_peers = config.max_static_peers;
    let mut rng = Rng::new(seed);

    let sockets: Vec<SocketAddr> = bound.iter().flat_map(|bound| expand(bound.address)).collect();
    let seq = clock.now().unix_millis().max(min_record_seq + 1);
    let record = record(&config, &keys, seq, &sockets)?;
    let (presented, watched) = watch::channel(presented(&config, record.clone())?);

    let pool = Pool::new(config.queue.outbound);
    // Trusted peers may exceed the limit; for those trusted later there is the doubling.
    // Static ones have places of their own.
    let sessions = 2 * (config.max_peers.max(1) as usize + trusted.len()) + config.max_static_peers as usize;
    // One capability so far: gossip.
    let windows = sessions * CHANNEL_WINDOW;
    let inbound_pool = InboundPool::new(windows, config.queue.inbound);
    // Four lanes a peer.
    let lane_items = 4 * config.queue.lanes.items * sessions;
    let (push, pushes) =
        data_queue::<Push>(Capacity { items: config.queue.pushes, weight: config.queue.outbound.at_large });
    // Every message that can be queued can fail: those in the lanes, and those that wait for the fan-out.
    let failures = lane_items + config.queue.pushes * config.gossip.fanout;
    let (report_failures, failures) = data_queue::<SendFailed>(Capacity { items: failures, weight: failures });
    // What peers may have here is what the inbound pool granted them: this is never full.
    let granted = windows + config.queue.inbound.capacity();
    let capacity = Capacity { items: granted / MESSAGE_COST as usize, weight: granted };
    let (gossip_inbound, inbound) = data_queue::<Inbound>(capacity);
    let gossip_memory = peerage_gossip::Memory::new();

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
            bootnodes: bootnodes
                .iter()
                .flat_map(|peer| peer.addresses.iter().map(|addr| Bootnode { id: peer.id, addr: *addr }))
                .collect(),
            seeds: seeds(&db, clock.now(), &mut rng),
            admission: Arc::new(config.admission.clone()),
            secrets: peerage_discovery::Secrets::generate()?,
            seed: rng.next_u64(),
            clock,
            meter: meter.clone(),
            journals: journals.clone(),
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
            journals: journals.clone(),
        },
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
    Ok(State {
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
        events: Events::new(),
        presented,
        sockets,
        pool,
        inbound_pool,
        buffers: Buffers::new(),
        gossip_inbound,
        gossip_memory,
        stopping: Vec::new(),
        leaving: BTreeMap::new(),
        tasks: JoinSet::new(),
        db,
        seeking: None,
        bootnodes,
        config,
        keys,
        meter,
        ports,
    })
}
