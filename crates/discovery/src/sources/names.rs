//! The rules of nodes that are known by a host's name: when it is resolved, and what of an answer is used.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use peerage_machine::{Backoff, Effects, Machine, Rng, Time};
use peerage_wire::Host;
use serde::{Deserialize, Serialize};

use crate::net::may_relay;

/// Names that are kept; further ones are not resolved.
pub const MAX_HOSTS: usize = 64;
/// Addresses of a name that are used: a name server's answer is not ours to size.
const MAX_ADDRESSES: usize = 8;
/// Lookups at a time: each may hold one of the system's threads.
const AT_ONCE: usize = 8;
/// How long a lookup may take (glibc's resolver waits 5 s for one server).
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// How long an answer is good while nothing is missing.
const GOOD: Duration = Duration::from_secs(600);
/// Pauses between lookups of a name that was answered, while its node is missing.
const AGAIN: Backoff = Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(300) };
/// Pauses after lookups that failed.
const FAILED: Backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(300) };
/// How long a lookup waits when too many others run.
const CROWDED: Duration = Duration::from_secs(1);
/// A stranger's word about addresses, as one of the local network gives it: names of private networks are common.
const TELLER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// What may happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// These are the names from now on.
    Hosts(Vec<Host>),
    /// Whether nodes are missing: the table is empty, or somebody who should be connected is not.
    Lonely(bool),
    /// A lookup ended well.
    Answer {
        /// Its token.
        token: u64,
        /// What it found, in the resolver's order.
        ips: Vec<IpAddr>,
    },
    /// A lookup failed.
    Failed {
        /// Its token.
        token: u64,
    },
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Resolve this name.
    Look {
        /// Comes back with the answer.
        token: u64,
        /// The name.
        host: Host,
    },
    /// The name leads here now, and led elsewhere before. Never empty.
    Found {
        /// The name.
        host: Host,
        /// Where, in the resolver's order.
        sockets: Vec<SocketAddr>,
    },
    /// The name could not be resolved, or to nothing that can be used. Its last addresses are used meanwhile.
    Unknown {
        /// The name.
        host: Host,
        /// How many times in a row, from 1.
        times: u32,
    },
}

/// The timers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A name is to be resolved.
    Look(Host),
    /// A lookup has taken long enough.
    GiveUp(Host),
}

#[derive(Default)]
struct Name {
    /// The lookup that runs.
    looking: Option<u64>,
    /// When the last one ended.
    ended: Option<Time>,
    failures: u32,
    /// Lookups in a row that were answered and did not end the need.
    attempts: u32,
    found: Vec<SocketAddr>,
}

type Fx = Effects<Out, Timer>;

/// See the module.
pub struct NamesMachine {
    rng: Rng,
    names: BTreeMap<Host, Name>,
    lonely: bool,
    next_token: u64,
}

impl NamesMachine {
    /// Knows no name yet. `seed` decides pauses.
    pub fn new(seed: u64) -> NamesMachine {
        NamesMachine { rng: Rng::new(seed), names: BTreeMap::new(), lonely: true, next_token: 0 }
    }

    fn hosts(&mut self, now: Time, mut hosts: Vec<Host>, fx: &mut Fx) {
        hosts.truncate(MAX_HOSTS);
        let gone: Vec<Host> = self.names.keys().filter(|host| !hosts.contains(host)).cloned().collect();
        for host in gone {
            self.names.remove(&host);
            fx.disarm(Timer::Look(host.clone()));
            fx.disarm(Timer::GiveUp(host));
        }
        for host in hosts {
            if !self.names.contains_key(&host) {
                self.names.insert(host.clone(), Name::default());
                self.look(now, host, fx);
            }
        }
    }

    fn look(&mut self, now: Time, host: Host, fx: &mut Fx) {
        let crowded = self.names.values().filter(|name| name.looking.is_some()).count() >= AT_ONCE;
        let Some(name) = self.names.get_mut(&host) else { return };
        if name.looking.is_some() {
            return;
        }
        if crowded {
            return fx.arm(Timer::Look(host), now + CROWDED);
        }
        self.next_token += 1;
        name.looking = Some(self.next_token);
        fx.arm(Timer::GiveUp(host.clone()), now + LIMIT);
        fx.emit(Out::Look { token: self.next_token, host });
    }

    fn lonely(&mut self, now: Time, lonely: bool, fx: &mut Fx) {
        if self.lonely == lonely {
            return;
        }
        self.lonely = lonely;
        for (host, name) in &mut self.names {
            name.attempts = 0;
            // One that failed is tried again in any case.
            if lonely && name.looking.is_none() && name.failures == 0 {
                let soon = name.ended.map_or(now, |ended| (ended + AGAIN.base).max(now));
                fx.arm(Timer::Look(host.clone()), soon);
            }
        }
    }

    /// A lookup ended; one that was given up, or of a name that is gone, ends nothing.
    fn ended(&mut self, now: Time, token: u64, ips: Vec<IpAddr>, fx: &mut Fx) {
        let Some((host, name)) = self.names.iter_mut().find(|(_, name)| name.looking == Some(token)) else { return };
        fx.disarm(Timer::GiveUp(host.clone()));
        name.looking = None;
        name.ended = Some(now);
        let sockets = usable(host, ips);
        if sockets.is_empty() {
            name.failures = name.failures.saturating_add(1);
            fx.arm(Timer::Look(host.clone()), now + FAILED.delay(name.failures, &mut self.rng));
            return fx.emit(Out::Unknown { host: host.clone(), times: name.failures });
        }
        name.failures = 0;
        name.attempts = name.attempts.saturating_add(1);
        let pause = if self.lonely { AGAIN.delay(name.attempts, &mut self.rng) } else { GOOD };
        fx.arm(Timer::Look(host.clone()), now + pause);
        if name.found != sockets {
            name.found.clone_from(&sockets);
            fx.emit(Out::Found { host: host.clone(), sockets });
        }
    }
}

/// What of an answer is used: addresses of the family asked for that a node can be at. This computer is meant by no
/// name but its own, or the owner of a name could make its users send packets to themselves.
fn usable(host: &Host, ips: Vec<IpAddr>) -> Vec<SocketAddr> {
    let own = host.name() == "localhost" || host.name().ends_with(".localhost");
    let mut sockets = Vec::new();
    for ip in ips.into_iter().map(|ip| ip.to_canonical()) {
        let allowed = if ip.is_loopback() { own } else { may_relay(TELLER, ip) };
        let socket = SocketAddr::new(ip, host.port());
        if allowed && host.family().takes(ip) && !sockets.contains(&socket) && sockets.len() < MAX_ADDRESSES {
            sockets.push(socket);
        }
    }
    sockets
}

impl Machine for NamesMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        match input {
            In::Hosts(hosts) => self.hosts(now, hosts, fx),
            In::Lonely(lonely) => self.lonely(now, lonely, fx),
            In::Answer { token, ips } => self.ended(now, token, ips, fx),
            In::Failed { token } => self.ended(now, token, Vec::new(), fx),
        }
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        match timer {
            Timer::Look(host) => self.look(now, host, fx),
            Timer::GiveUp(host) => {
                if let Some(token) = self.names.get(&host).and_then(|name| name.looking) {
                    self.ended(now, token, Vec::new(), fx);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
