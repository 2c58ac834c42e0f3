//! Whole nodes with their counters, and connections that say whatever a test wants.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use peerage_server::mailbox::{Clock, Meter};
use peerage_server::transport::{Stream, Transport};
use peerage_server::wire::NodeId;
use peerage_server::{Args, Config, Door, PeerAddress, ServerMailbox, start};

use crate::net;
use tokio::io::AsyncReadExt;

/// The wall clock of every test when it begins.
const UNIX: Duration = Duration::from_secs(1_700_000_000);

/// Counters and gauges by name and labels, as `name{label=value}`.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counts {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        self.0.lock().expect("no panic").entry(name).or_default().clone()
    }

    fn get(&self, name: &str) -> u64 {
        self.0.lock().expect("no panic").get(name).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Inbound connections that were refused for this reason.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.get(&format!("peerage_inbound_refused_total{{reason={reason}}}"))
    }

    /// Connections tried to single addresses, by outcome.
    pub(crate) fn tried(&self, outcome: &str) -> u64 {
        self.get(&format!("peerage_dial_attempts_total{{outcome={outcome}}}"))
    }

    /// Slots in use: those for all, and the reserved ones.
    pub(crate) fn slots(&self) -> (f64, f64) {
        let slots = |kind: &str| f64::from_bits(self.get(&format!("peerage_inbound_slots{{slots={kind}}}")));
        (slots("open"), slots("reserved"))
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A node without discovery.
pub(crate) struct Node {
    pub(crate) server: ServerMailbox,
    pub(crate) id: NodeId,
    /// Where it listens.
    pub(crate) at: SocketAddr,
    pub(crate) counts: Arc<Counts>,
}

impl Node {
    pub(crate) fn address(&self) -> PeerAddress {
        PeerAddress { id: self.id, addresses: vec![self.at] }
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
    Config { discovery_on: false, exempt_local: false, ..Config::local() }
}

/// Starts the nth node.
pub(crate) async fn node(n: u8, config: Config, transport: Transport, ip: IpAddr, doors: Vec<Door>) -> Node {
    let counts = Arc::new(Counts::default());
    // A socket's time is the computer's.
    let clock = if ip.is_loopback() { Clock::system() } else { Clock::simulated(UNIX) };
    let meter = Meter::new(counts.clone());
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
