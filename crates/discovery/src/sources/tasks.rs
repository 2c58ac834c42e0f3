//! The tasks of the sources: what each is given, and that none outlives the actor.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use metrics::Counter;
use peerage_mailbox::{Clock, Meter, ask};
use peerage_wire::{NetworkId, NodeRecord, Verified};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::count::SourceEvent;
use super::file_task;
use crate::ingress::DiscoveryMailbox;
use crate::metrics::add;
use crate::source::{MAX_OFFER, Source};

/// How long the actor may take to accept an offer; one that takes longer is restarting, or very busy.
const ACCEPT: Duration = Duration::from_secs(10);

/// Where to learn of nodes besides the table. Nothing, unless said.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file of records and addresses, read again when it changes; see [`NodesFile`](super::NodesFile).
    pub nodes_file: Option<PathBuf>,
    /// Signed lists in the DNS. At most 64 are followed, those that they link to included.
    #[cfg(feature = "dns")]
    pub dns_lists: Vec<super::dns::ListLink>,
    /// Whom to ask for them; the computer's name servers if nothing is said.
    #[cfg(feature = "dns")]
    pub dns_server: Option<std::net::SocketAddr>,
    /// Whether to look for nodes on the local network, and to be seen there.
    #[cfg(feature = "mdns")]
    pub mdns: bool,
}

/// A task that ends when this is dropped.
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(task))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sleeps until an instant, or for good.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Counts what happens in sources.
#[derive(Clone)]
pub(super) struct Counters(Vec<Counter>);

impl Counters {
    pub(super) fn new(meter: &Meter) -> Counters {
        meter.describe("peerage_discovery_sources_total", "What happened in the sources of nodes besides the table.");
        let counter =
            |event: &SourceEvent| meter.counter("peerage_discovery_sources_total", &[("event", event.label())]);
        Counters(SourceEvent::ALL.iter().map(counter).collect())
    }

    pub(super) fn count(&self, event: SourceEvent) {
        add(&self.0, event as usize);
    }
}

/// What every source's task needs.
#[derive(Clone)]
pub(crate) struct Shell {
    pub(super) mailbox: DiscoveryMailbox,
    pub(super) network: NetworkId,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    #[cfg_attr(not(any(feature = "dns", feature = "mdns")), allow(dead_code))]
    pub(super) seed: u64,
}

impl Shell {
    pub(crate) fn new(mailbox: DiscoveryMailbox, network: NetworkId, clock: Clock, meter: &Meter, seed: u64) -> Shell {
        Shell { mailbox, network, clock, counters: Counters::new(meter), seed }
    }

    /// Offers these nodes, a part after the other, each once the one before is taken.
    pub(super) async fn offer(&self, source: Source, records: &[Verified<NodeRecord>]) {
        for part in records.chunks(MAX_OFFER) {
            let accepted = ask(ACCEPT, |reply| self.mailbox.offer(source, part.to_vec(), reply)).await;
            if let Err(error) = accepted {
                return tracing::debug!(source = source.label(), %error, "an offer of nodes was not taken");
            }
        }
    }
}

/// The sources' tasks, which end with this.
pub(crate) struct Running {
    _tasks: Vec<Task>,
    #[cfg(feature = "mdns")]
    pub(crate) mdns: Option<super::mdns::Announcer>,
}

impl Sources {
    /// Starts the tasks.
    pub(crate) fn start(&self, record: &Verified<NodeRecord>, shell: Shell) -> Running {
        #[cfg(not(feature = "mdns"))]
        let _ = record;
        let mut tasks = Vec::new();
        if let Some(path) = self.nodes_file.clone() {
            tasks.push(Task::spawn(file_task::run(path, shell.clone())));
        }
        #[cfg(feature = "dns")]
        if !self.dns_lists.is_empty() {
            let (lists, server) = (self.dns_lists.clone(), self.dns_server);
            tasks.push(Task::spawn(super::dns::run(lists, server, shell.clone())));
        }
        Running {
            _tasks: tasks,
            #[cfg(feature = "mdns")]
            mdns: self.mdns.then(|| super::mdns::Announcer::start(record.clone(), shell)),
        }
    }
}
