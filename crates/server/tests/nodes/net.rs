//! Whole nodes over the in-memory network, in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peerage_machine::journal::Journals;
use peerage_mailbox::{Clock, Inlet, Meter};
use peerage_server::nodedb::NodeDb;
use peerage_server::{Args, Config, Event, Listen, PeerAddress, PeerInfo, ServerMailbox, start};
use peerage_transport::{Link, MemoryNetwork, Transport};
use peerage_wire::{Keypair, NodeId};

pub(crate) const PORT: u16 = 30303;

/// A network of nodes, each at an address of its own.
pub(crate) struct Net {
    pub(crate) network: MemoryNetwork,
    pub(crate) clock: Clock,
}

/// A running node.
pub(crate) struct Node {
    pub(crate) server: ServerMailbox,
    pub(crate) id: NodeId,
    pub(crate) address: PeerAddress,
    pub(crate) events: Inlet<Event>,
}

pub(crate) fn ip(n: u8) -> IpAddr {
    [20, 0, n, 1].into()
}

/// What the nth node is started with: nobody to dial, and nothing to find anybody with.
pub(crate) fn args(n: u8, listen: SocketAddr, transport: Transport, clock: Clock) -> Args {
    Args {
        config: Config { discovery_on: false, exchange_on: false, ..Config::local() },
        keys: Keypair::from_seed([n; 32]),
        listen: Listen::At(vec![listen]),
        bootnodes: Vec::new(),
        statics: Vec::new(),
        trusted: Vec::new(),
        doors: Vec::new(),
        foreign: None,
        protocols: Vec::new(),
        membership: None,
        transport,
        clock,
        meter: Meter::none(),
        journals: Journals::off(),
        seed: u64::from(n),
        secret: None,
        min_record_seq: 0,
        sources: Default::default(),
        resolver: None,
        db: NodeDb::memory(peerage_server::nodedb::Config::recommended()),
    }
}

impl Net {
    pub(crate) fn new() -> Net {
        let clock = Clock::simulated(Duration::from_secs(1_700_000_000));
        Net { network: MemoryNetwork::new(1, Link::default()), clock }
    }

    /// What the nth node is started with: nobody to dial, and nothing to find anybody with.
    pub(crate) fn args(&self, n: u8) -> Args {
        args(n, (ip(n), PORT).into(), self.network.host(ip(n)), self.clock)
    }

    pub(crate) async fn node(&self, n: u8, change: impl FnOnce(&mut Args)) -> Node {
        let mut args = self.args(n);
        change(&mut args);
        let id = args.keys.id();
        let server = start(args).await.expect("a free address and a sound configuration");
        let events = server.events(1_000).await.expect("running");
        Node {
            server,
            id,
            address: PeerAddress { id, addresses: vec![SocketAddr::new(ip(n), PORT)], hosts: Vec::new() },
            events,
        }
    }
}

impl Node {
    /// Waits until there are exactly so many peers; what they are.
    pub(crate) async fn until_peers(&self, count: usize) -> Vec<PeerInfo> {
        for _ in 0..600 {
            let peers = self.server.peers().await.expect("running");
            if peers.len() == count {
                return peers;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{count} peers within a minute: {:?}", self.server.peers().await);
    }

    pub(crate) async fn peers_after(&self, time: Duration) -> usize {
        tokio::time::sleep(time).await;
        self.server.peer_count().await.expect("running")
    }

    /// What happened to its peers since the last call.
    pub(crate) fn happened(&self) -> Vec<Event> {
        self.events.take(usize::MAX)
    }
}
