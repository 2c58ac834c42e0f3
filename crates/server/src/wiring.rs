//! How the actors are joined: each one's outlets and ports, made once and kept for all of its lives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use peerage_discovery::Bootnode;
use peerage_gossip::Publish;
use peerage_machine::{Driver, Quota, Rng};
use peerage_mailbox::{Alarm, Capacity, Inlet, Supervisor, data_queue};
use peerage_peer_session::handshake::Presented;
use peerage_peer_session::{Buffers, Handshaker};
use peerage_queue::{Inbound, InboundPool, Pool, Push, SendFailed};
use peerage_wire::codec::{Blob, List, Text};
use peerage_wire::frame::{CHANNEL_WINDOW, MESSAGE_COST};
use peerage_wire::{Capability, Hello, Keypair, NetworkId, NodeRecord, RecordDraft, Verified, address};
use tokio::sync::watch;

use crate::actor::{GOSSIP, State};
use crate::ingress::Ports;
use crate::machine::ServerMachine;
use crate::metrics::{ServerMetrics, SetupMetrics};
use crate::services::{Blueprints, Services};
use crate::setup::SetupContext;
use crate::start::{Args, Bound};
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

/// Makes everything that the root keeps; starts nothing.
pub(crate) fn wire(
    args: Args,
    bound: Vec<Bound>,
    publishes: Inlet<Publish>,
    alarm: Alarm,
    parent: Supervisor,
    ports: Ports,
) -> Result<State, Box<dyn std::error::Error + Send + Sync>> {
    let Args { mut config, keys, bootnodes, statics, trusted, transport, clock, meter, seed, min_record_seq, .. } =
        args;
    config.dialer.max_dial_peers = config.dial_share();
    let mut rng = Rng::new(seed);

    let sockets: Vec<SocketAddr> = bound.iter().flat_map(|bound| expand(bound.address)).collect();
    let seq = clock.now().unix_millis().max(min_record_seq + 1);
    let record = record(&config, &keys, seq, &sockets)?;
    let (presented, watched) = watch::channel(presented(&config, record.clone())?);

    let pool = Pool::new(config.queue.outbound);
    // Trusted peers may exceed the limit; for those trusted later there is the doubling.
    let sessions = 2 * (config.max_peers.max(1) as usize + trusted.len());
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
        handshaker: Handshaker::new(config.session, keys.clone(), clock),
        presented: watched,
        root: ports.setup(),
        timeout: config.session.handshake_timeout,
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
            dial_timeout: config.dialer.dial_timeout.saturating_sub(config.session.handshake_timeout),
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
    Ok(State {
        driver: Driver::new(machine),
        alarm,
        clock,
        metrics: ServerMetrics::new(&meter),
        parent,
        services: Services::new(blueprints, rng),
        sessions: BTreeMap::new(),
        waiting: BTreeMap::new(),
        statics: statics.into_iter().map(|peer| (peer.id, peer)).collect(),
        subscriptions: Vec::new(),
        events: Vec::new(),
        presented,
        addresses: sockets.into_iter().map(address::from_tcp).collect(),
        pool,
        inbound_pool,
        buffers: Buffers::new(),
        gossip_inbound,
        gossip_memory,
        stopping: Vec::new(),
        config,
        keys,
        meter,
        ports,
    })
}
