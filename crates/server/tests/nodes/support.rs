//! Whole nodes with their counters, and connections that say whatever a test wants.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peerage_server::mailbox::{self, Clock, Meter};
use peerage_server::transport::{Stream, Transport};
use peerage_server::wire::NodeId;
use peerage_server::{Args, Config, Door, PeerAddress, ServerMailbox, start};

use crate::net;
use tokio::io::AsyncReadExt;

/// The wall clock of every test when it begins.
const UNIX: Duration = Duration::from_secs(1_700_000_000);

/// What a node counts, by what tests of connections ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(mailbox::Counts);

impl Counts {
    /// Inbound connections that were refused for this reason.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.0.counter(&format!("peerage_inbound_refused_total{{reason={reason}}}"))
    }

    /// Connections tried to single addresses, by outcome.
    pub(crate) fn tried(&self, outcome: &str) -> u64 {
        self.0.counter(&format!("peerage_dial_attempts_total{{outcome={outcome}}}"))
    }

    /// Slots in use: those for all, and the reserved ones.
    pub(crate) fn slots(&self) -> (f64, f64) {
        let slots = |kind: &str| self.0.gauge(&format!("peerage_inbound_slots{{slots={kind}}}")).unwrap_or(0.0);
        (slots("open"), slots("reserved"))
    }
}

/// A node without discovery.
pub(crate) struct Node {
    pub(crate) server: ServerMailbox,
    pub(crate) id: NodeId,
    /// Where it listens.
    pub(crate) at: SocketAddr,
    pub(crate) counts: Counts,
}

impl Node {
    pub(crate) fn address(&self) -> PeerAddress {
        PeerAddress { id: self.id, addresses: vec![self.at], hosts: Vec::new() }
    }

    pub(crate) async fn peers(&self) -> usize {
        self.server.peers().await.expect("running").len()
    }

    /// Waits until it has so many peers.
    pub(crate) async fn until_peers(&self, count: usize) {
        until(async || self.peers().await == count).await;
    }
}

/// What the tests of limits need: no exemptions.
pub(crate) fn config() -> Config {
    Config { discovery_on: false, exchange_on: false, exempt_local: false, ..Config::local() }
}

/// Starts the nth node.
pub(crate) async fn node(n: u8, config: Config, transport: Transport, ip: IpAddr, doors: Vec<Door>) -> Node {
    let counts = Counts::default();
    // A socket's time is the computer's.
    let clock = if ip.is_loopback() { Clock::system() } else { Clock::simulated(UNIX) };
    let meter = Meter::new(Arc::new(counts.0.clone()));
    let args = Args { config, doors, meter, ..net::args(n, (ip, 0).into(), transport, clock) };
    let id = args.keys.id();
    let server = start(args).await.expect("a free address and a sound configuration");
    let local = server.local().await.expect("running");
    let at = peerage_server::wire::address::tcp_socket(&local.addresses[0]).expect("a TCP address");
    Node { server, id, at, counts }
}

/// Waits for something that is about to be.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.expect("it happens within a minute");
}

/// Reads until the other end closes; how much there was.
pub(crate) async fn until_closed(stream: &mut Stream) -> usize {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut rest).await;
    rest.len()
}
