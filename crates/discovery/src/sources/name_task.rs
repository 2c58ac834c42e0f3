//! The shell of the names' rules: asks a resolver, keeps the time, and tells where names lead.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use peerage_machine::Driver;
use peerage_mailbox::{Clock, Meter, Port};
use peerage_wire::Host;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::count::SourceEvent;
use super::names::{In, LIMIT, NamesMachine, Out};
use super::tasks::{Counters, Task};

/// The addresses of a name, or why there are none.
pub type Resolution = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Whoever knows where names lead.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Finds the addresses of a host. What is found is judged by who asked; it may be given up by dropping it.
    fn resolve(&self, host: &Host) -> Resolution;
}

/// The computer's own resolver.
#[derive(Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &Host) -> Resolution {
        let at = (host.name().to_owned(), host.port());
        Box::pin(async move { Ok(tokio::net::lookup_host(at).await?.map(|socket| socket.ip()).collect()) })
    }
}

/// Knows no name: where time is simulated, the computer's resolver must not be asked.
#[derive(Debug)]
pub struct NoResolver;

impl Resolve for NoResolver {
    fn resolve(&self, _: &Host) -> Resolution {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "names are not resolved here")) })
    }
}

/// Where a name leads now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub host: Host,
    /// Where: never empty, and only addresses that a node can be at.
    pub sockets: Vec<SocketAddr>,
}

#[derive(Clone, Default)]
struct Wanted {
    hosts: Vec<Host>,
    lonely: bool,
}

/// Resolves names for as long as it is held.
pub struct Names {
    wanted: watch::Sender<Wanted>,
    _task: Task,
}

impl Names {
    /// Begins with no name. `out` is told of each name that leads somewhere new. Within a tokio runtime.
    pub fn new(resolver: Arc<dyn Resolve>, clock: Clock, seed: u64, meter: &Meter, out: Port<Named>) -> Names {
        let (wanted, changes) = watch::channel(Wanted { hosts: Vec::new(), lonely: true });
        let shell = Shell {
            driver: Driver::new(NamesMachine::new(seed)),
            resolver,
            clock,
            counters: Counters::new(meter),
            out,
            lookups: JoinSet::new(),
        };
        Names { wanted, _task: Task::spawn(shell.run(changes)) }
    }

    /// These are the names from now on, at most [`MAX_HOSTS`](super::MAX_HOSTS).
    pub fn hosts(&self, hosts: Vec<Host>) {
        self.wanted.send_modify(|wanted| wanted.hosts = hosts);
    }

    /// Whether nodes are missing, so that names should be resolved anew.
    pub fn lonely(&self, lonely: bool) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(&mut wanted.lonely, lonely) != lonely);
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

struct Shell {
    driver: Driver<NamesMachine>,
    resolver: Arc<dyn Resolve>,
    clock: Clock,
    counters: Counters,
    out: Port<Named>,
    /// At most as many as the machine asks for at once.
    lookups: JoinSet<(u64, io::Result<Vec<IpAddr>>)>,
}

impl Shell {
    async fn run(mut self, mut changes: watch::Receiver<Wanted>) {
        changes.mark_changed();
        loop {
            let due = self.driver.next_deadline().map(|due| self.clock.instant(due));
            tokio::select! {
                biased;
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Wanted { hosts, lonely } = changes.borrow_and_update().clone();
                    self.tell(In::Lonely(lonely));
                    self.tell(In::Hosts(hosts));
                }
                Some(Ok((token, answer))) = self.lookups.join_next() => match answer {
                    Ok(ips) => self.tell(In::Answer { token, ips }),
                    Err(error) => {
                        tracing::debug!(%error, "a name was not resolved");
                        self.tell(In::Failed { token });
                    }
                },
                () = super::tasks::sleep_until(due) => {
                    let now = self.clock.now();
                    self.driver.expire_due(now);
                }
            }
            self.perform();
        }
    }

    fn tell(&mut self, input: In) {
        let now = self.clock.now();
        self.driver.handle(now, input);
    }

    fn perform(&mut self) {
        for out in self.driver.take_outs() {
            match out {
                Out::Look { token, host } => {
                    let lookup = self.resolver.resolve(&host);
                    self.lookups.spawn(async move {
                        let answer = tokio::time::timeout(LIMIT, lookup).await;
                        (token, answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
                    });
                }
                Out::Found { host, sockets } => {
                    self.counters.count(SourceEvent::NameFound);
                    tracing::debug!(%host, ?sockets, "a name was resolved");
                    self.out.send(Named { host, sockets });
                }
                Out::Unknown { host, times } => {
                    self.counters.count(SourceEvent::NameUnknown);
                    let name = host.name();
                    if times == 1 {
                        tracing::warn!(
                            "the host {name} cannot be resolved to an address that a node can be at; \
                             is its name right? It is tried again"
                        );
                    } else {
                        tracing::debug!(name, times, "a host still cannot be resolved");
                    }
                }
            }
        }
    }
}
