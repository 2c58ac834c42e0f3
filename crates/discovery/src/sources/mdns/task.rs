//! Announcing this node and browsing for others: the shell around `mdns-sd`, whose daemon is a thread of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};
use peerage_machine::Driver;
use peerage_wire::{NodeRecord, Verified};
use tokio::sync::watch;

use super::local::{In, LocalMachine, Out, pieces};
use crate::source::Source;
use crate::sources::count::SourceEvent;
use crate::sources::tasks::{Shell, Task};

const SERVICE: &str = "_peerage._udp.local.";
/// How long to wait before browsing again when the daemon ended the browsing: this task was too slow for it.
const AGAIN: Duration = Duration::from_secs(10);
/// Properties of an announcement that are looked at.
const MAX_PROPERTIES: usize = 8;

/// Announces the node for as long as it is held.
pub(crate) struct Announcer {
    record: watch::Sender<Verified<NodeRecord>>,
    _task: Task,
}

impl Announcer {
    pub(crate) fn start(record: Verified<NodeRecord>, shell: Shell) -> Announcer {
        let (record, records) = watch::channel(record);
        Announcer { record, _task: Task::spawn(run(records, shell)) }
    }

    /// The node has a new record.
    pub(crate) fn changed(&self, record: Verified<NodeRecord>) {
        self.record.send_replace(record);
    }
}

/// The daemon's thread ends with this.
struct Daemon {
    daemon: ServiceDaemon,
    /// Random, so that a name says nothing of the node to those who only listen.
    name: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Takes the announcement back, in the thread, before it ends. If even that is not to be had, it has ended.
        drop(self.daemon.shutdown());
    }
}

impl Daemon {
    fn start() -> Result<Daemon, String> {
        let random = getrandom::u64().map_err(|error| error.to_string())?;
        let daemon = ServiceDaemon::new().map_err(|error| error.to_string())?;
        Ok(Daemon { daemon, name: format!("{random:016x}") })
    }

    fn announce(&self, record: &NodeRecord) -> Result<(), String> {
        let sockets = record.udp_sockets().iter().chain(record.tcp_sockets());
        let port = sockets.map(std::net::SocketAddr::port).find(|port| *port != 0).unwrap_or(1);
        let host = format!("{}.local.", self.name);
        let properties = pieces(record);
        let service = ServiceInfo::new(SERVICE, &self.name, &host, "", port, &properties[..])
            .map_err(|error| error.to_string())?
            // Its host's addresses are of no use to us, but a service without any is not whole.
            .enable_addr_auto();
        self.daemon.register(service).map_err(|error| error.to_string())
    }
}

async fn run(mut records: watch::Receiver<Verified<NodeRecord>>, shell: Shell) {
    let daemon = match Daemon::start() {
        Ok(daemon) => daemon,
        Err(error) => return unusable(&error),
    };
    let me = records.borrow().id();
    let mut driver = Driver::new(LocalMachine::new(me, shell.network));
    records.mark_changed();
    let mut browsing = None;
    loop {
        if browsing.is_none() {
            browsing = daemon.daemon.browse(SERVICE).ok();
        }
        let event = async {
            match &browsing {
                Some(events) => events.recv_async().await.ok(),
                None => {
                    tokio::time::sleep(AGAIN).await;
                    None
                }
            }
        };
        tokio::select! {
            biased;
            changed = records.changed() => {
                if changed.is_err() {
                    return;
                }
                let record = records.borrow_and_update().clone();
                if let Err(error) = daemon.announce(&record) {
                    unusable(&error);
                }
            }
            event = event => match event {
                Some(ServiceEvent::ServiceResolved(service)) => {
                    let properties = service.txt_properties.iter().take(MAX_PROPERTIES);
                    let properties: BTreeMap<String, Vec<u8>> = properties
                        .map(|property| (property.key().to_ascii_lowercase(), property.val().unwrap_or_default().to_vec()))
                        .collect();
                    driver.handle(shell.clock.now(), In::Announced(properties));
                    take(&mut driver, &shell).await;
                }
                Some(_) => {}
                None => {
                    if browsing.take().is_some() {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }
}

async fn take(driver: &mut Driver<LocalMachine>, shell: &Shell) {
    for out in driver.take_outs() {
        match out {
            Out::Found(record) => {
                shell.counters.count(SourceEvent::LocalNode);
                tracing::debug!(id = %record.id(), "a node of the local network");
                shell.offer(Source::Mdns, &[record]).await;
            }
            Out::Refused(why) => {
                shell.counters.count(SourceEvent::LocalRefused);
                tracing::debug!(?why, "an announcement on the local network is not used");
            }
        }
    }
}

fn unusable(error: &str) {
    tracing::warn!("nodes of the local network are not looked for: {error}; --no-mdns, or mdns(false), stops trying");
}
