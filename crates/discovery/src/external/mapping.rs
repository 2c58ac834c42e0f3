//! Asking the gateway for a way in: which ports, when again, and what is left of it when the gateway says no.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peerage_machine::{Backoff, Effects, Machine, Rng, Time};
use serde::{Deserialize, Serialize};

/// A gateway's refusals in a row after which it is looked for anew (go-ethereum `server_nat.go`: more than 5).
const PATIENCE: u32 = 5;
/// No renewal comes sooner, however short the lease.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(15);
/// No lease is believed for longer: a router that was restarted has forgotten it.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 3600);

/// What a port is mapped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Discovery.
    Udp,
}

impl Protocol {
    /// Both.
    pub const ALL: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

    /// A word for people and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// The numbers of the mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingConfig {
    /// How long a mapping is asked for; renewed when half of what was granted is over (go-ethereum: 10 min, 8).
    pub lease: Duration,
    /// The pause after a refusal, or after no gateway was found.
    pub backoff: Backoff,
}

impl MappingConfig {
    /// Ten minutes, as go-ethereum; after refusals a minute to an hour.
    pub const fn recommended() -> MappingConfig {
        let backoff = Backoff { base: Duration::from_secs(60), cap: Duration::from_secs(3600) };
        MappingConfig { lease: Duration::from_secs(600), backoff }
    }
}

/// What a gateway lets in for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The gateway's own address outside.
    pub ip: IpAddr,
    /// Its port that leads to this node's, for TCP.
    pub tcp: Option<u16>,
    /// For UDP.
    pub udp: Option<u16>,
}

/// What may happen to the machine.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum MappingIn {
    /// Look for a gateway. A second one changes nothing.
    Start,
    /// There is one.
    Found,
    /// There is none that speaks.
    NotFound,
    /// It lets a port in.
    Granted {
        /// For what.
        protocol: Protocol,
        /// Its own address and port.
        external: SocketAddr,
        /// For how long; zero for ever.
        lease: Duration,
    },
    /// It does not.
    Refused(Protocol),
    /// It is gone, or has forgotten everything.
    GatewayGone,
    /// The node ends: give everything back.
    Stop,
}

/// What the machine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingOut {
    /// Look for the gateway, and come back with [`MappingIn::Found`] or [`MappingIn::NotFound`].
    Find,
    /// Ask for a port, and come back with [`MappingIn::Granted`] or [`MappingIn::Refused`].
    Map {
        /// For what.
        protocol: Protocol,
        /// The node's port.
        internal: u16,
        /// The gateway's port: the one it granted before, else the same as the node's.
        external: u16,
        /// Whether the gateway may give another one instead: it may not when others know this one.
        any: bool,
        /// For how long.
        lease: Duration,
    },
    /// Give a port back.
    Unmap {
        /// For what.
        protocol: Protocol,
        /// The node's port.
        internal: u16,
        /// The gateway's port.
        external: u16,
    },
    /// The gateway lets in this much from now on.
    Mapped(Option<Mapping>),
}

/// The machine's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MappingTimer {
    /// Look for a gateway again.
    Search,
    /// Ask for a port again.
    Ask(Protocol),
    /// A lease is over.
    Lapse(Protocol),
}

/// A port that was granted.
#[derive(Clone, Copy, Debug)]
struct Grant {
    external: SocketAddr,
    until: Time,
}

#[derive(Debug)]
struct Port {
    internal: u16,
    grant: Option<Grant>,
    /// What is asked for: the last port granted.
    wish: u16,
    /// Whether an answer is awaited.
    asked: bool,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gateway {
    Idle,
    Sought,
    Absent,
    Found,
    Stopped,
}

/// Keeps the node's ports mapped. See [`MappingIn`], [`MappingOut`].
#[derive(Debug)]
pub struct MappingMachine {
    config: MappingConfig,
    gateway: Gateway,
    ports: BTreeMap<Protocol, Port>,
    searches: u32,
    told: Option<Mapping>,
    rng: Rng,
}

type Fx = Effects<MappingOut, MappingTimer>;

impl MappingMachine {
    /// One that wants these ports of the node mapped. `seed` decides jitter.
    pub fn new(config: MappingConfig, tcp: Option<u16>, udp: Option<u16>, seed: u64) -> MappingMachine {
        let port = |internal| Port { internal, grant: None, wish: internal, asked: false, failures: 0 };
        let ports = Protocol::ALL.into_iter().zip([tcp, udp]);
        let ports = ports.filter_map(|(protocol, internal)| Some((protocol, port(internal?)))).collect();
        let rng = Rng::new(seed);
        MappingMachine { config, gateway: Gateway::Idle, ports, searches: 0, told: None, rng }
    }

    /// What is mapped.
    pub fn mapped(&self) -> Option<Mapping> {
        self.told
    }

    /// Looks for a gateway, unless somebody does, one is known or all is over.
    fn search(&mut self, fx: &mut Fx) {
        if !self.ports.is_empty() && matches!(self.gateway, Gateway::Idle | Gateway::Absent) {
            self.gateway = Gateway::Sought;
            fx.disarm(MappingTimer::Search);
            fx.emit(MappingOut::Find);
        }
    }

    /// The gateway is no more: everything it granted is lost, and it is looked for after a pause.
    fn lost(&mut self, now: Time, fx: &mut Fx) {
        if matches!(self.gateway, Gateway::Idle | Gateway::Stopped) {
            return;
        }
        self.gateway = Gateway::Absent;
        self.searches += 1;
        for (protocol, port) in &mut self.ports {
            (port.grant, port.asked, port.failures) = (None, false, 0);
            // Another gateway owes it nothing.
            port.wish = port.internal;
            fx.disarm(MappingTimer::Ask(*protocol));
            fx.disarm(MappingTimer::Lapse(*protocol));
        }
        self.tell(fx);
        fx.arm(MappingTimer::Search, now + self.config.backoff.delay(self.searches, &mut self.rng));
    }

    fn ask(&mut self, protocol: Protocol, fx: &mut Fx) {
        let Some(port) = self.ports.get_mut(&protocol).filter(|port| !port.asked) else { return };
        if self.gateway != Gateway::Found {
            return;
        }
        port.asked = true;
        fx.disarm(MappingTimer::Ask(protocol));
        let (internal, external, any) = (port.internal, port.wish, port.grant.is_none());
        fx.emit(MappingOut::Map { protocol, internal, external, any, lease: self.config.lease });
    }

    fn granted(&mut self, now: Time, protocol: Protocol, external: SocketAddr, lease: Duration, fx: &mut Fx) {
        let external = SocketAddr::new(external.ip().to_canonical(), external.port());
        let Some(port) = self.ports.get_mut(&protocol).filter(|port| port.asked) else { return };
        if self.gateway != Gateway::Found || external.port() == 0 || external.ip().is_unspecified() {
            // A gateway without an address of its own is not connected.
            return self.refused(now, protocol, fx);
        }
        let lease = if lease.is_zero() { LONGEST_LEASE } else { lease.min(LONGEST_LEASE) };
        (port.asked, port.failures, port.wish) = (false, 0, external.port());
        port.grant = Some(Grant { external, until: now + lease });
        self.searches = 0;
        fx.arm(MappingTimer::Ask(protocol), now + (lease / 2).max(SHORTEST_RENEWAL));
        fx.arm(MappingTimer::Lapse(protocol), now + lease.max(2 * SHORTEST_RENEWAL));
        // Its address changed: what it granted before was at the old one.
        let elsewhere = |grant: Grant| grant.external.ip() != external.ip();
        let stale: Vec<Protocol> =
            self.ports.iter().filter(|(_, port)| port.grant.is_some_and(elsewhere)).map(|(other, _)| *other).collect();
        for other in stale {
            if let Some(port) = self.ports.get_mut(&other) {
                port.grant = None;
            }
            fx.disarm(MappingTimer::Lapse(other));
            self.ask(other, fx);
        }
        self.settled(fx);
    }

    fn refused(&mut self, now: Time, protocol: Protocol, fx: &mut Fx) {
        let Some(port) = self.ports.get_mut(&protocol).filter(|port| port.asked) else { return };
        port.asked = false;
        port.failures += 1;
        let failures = port.failures;
        // While a lease lasts, it is worth asking twice before its end.
        let left = port.grant.map(|grant| grant.until.since(now)).filter(|left| *left > SHORTEST_RENEWAL);
        // One that grants the other port is there.
        if failures > PATIENCE && self.ports.values().all(|port| port.grant.is_none()) {
            return self.lost(now, fx);
        }
        let pause = self.config.backoff.delay(failures, &mut self.rng);
        let pause = left.map_or(pause, |left| pause.min(left / 2).max(SHORTEST_RENEWAL));
        fx.arm(MappingTimer::Ask(protocol), now + pause);
        self.settled(fx);
    }

    /// Says what is mapped once no first answer is awaited: both ports are one change of the record, not two.
    fn settled(&mut self, fx: &mut Fx) {
        if self.ports.values().all(|port| !port.asked || port.grant.is_some()) {
            self.tell(fx);
        }
    }

    /// Says what is mapped, if that changed. A mapping of TCP alone, or of UDP alone, is one too.
    fn tell(&mut self, fx: &mut Fx) {
        let granted = |protocol| self.ports.get(&protocol).and_then(|port| port.grant).map(|grant| grant.external);
        let (tcp, udp) = (granted(Protocol::Tcp), granted(Protocol::Udp));
        let ip = tcp.or(udp).map(|socket| socket.ip());
        let port = |socket: Option<SocketAddr>| socket.map(|socket| socket.port());
        let mapped = ip.map(|ip| Mapping { ip, tcp: port(tcp), udp: port(udp) });
        if mapped != self.told {
            self.told = mapped;
            fx.emit(MappingOut::Mapped(mapped));
        }
    }

    fn stop(&mut self, fx: &mut Fx) {
        self.gateway = Gateway::Stopped;
        fx.disarm(MappingTimer::Search);
        let mut open = Vec::new();
        for (protocol, port) in &mut self.ports {
            fx.disarm(MappingTimer::Ask(*protocol));
            fx.disarm(MappingTimer::Lapse(*protocol));
            if let Some(grant) = port.grant.take() {
                let (internal, external) = (port.internal, grant.external.port());
                open.push(MappingOut::Unmap { protocol: *protocol, internal, external });
            }
        }
        // First, as the gateway may take its time.
        self.tell(fx);
        open.into_iter().for_each(|out| fx.emit(out));
    }
}

impl Machine for MappingMachine {
    type In = MappingIn;
    type Out = MappingOut;
    type Timer = MappingTimer;

    fn handle(&mut self, now: Time, input: MappingIn, fx: &mut Fx) {
        match input {
            MappingIn::Start if self.gateway == Gateway::Idle => self.search(fx),
            MappingIn::Start => {}
            MappingIn::Found if self.gateway == Gateway::Sought => {
                self.gateway = Gateway::Found;
                Protocol::ALL.into_iter().for_each(|protocol| self.ask(protocol, fx));
            }
            MappingIn::Found => {}
            MappingIn::NotFound if self.gateway == Gateway::Sought => self.lost(now, fx),
            MappingIn::NotFound => {}
            MappingIn::Granted { protocol, external, .. } if self.gateway == Gateway::Stopped => {
                // It was asked before the end.
                if let Some(port) = self.ports.get_mut(&protocol).filter(|port| port.asked) {
                    port.asked = false;
                    let (internal, external) = (port.internal, external.port());
                    fx.emit(MappingOut::Unmap { protocol, internal, external });
                }
            }
            MappingIn::Granted { protocol, external, lease } => self.granted(now, protocol, external, lease, fx),
            MappingIn::Refused(protocol) if self.gateway == Gateway::Found => self.refused(now, protocol, fx),
            MappingIn::Refused(_) => {}
            MappingIn::GatewayGone => self.lost(now, fx),
            MappingIn::Stop => self.stop(fx),
        }
    }

    fn expire(&mut self, _now: Time, timer: MappingTimer, fx: &mut Fx) {
        match timer {
            MappingTimer::Search => self.search(fx),
            MappingTimer::Ask(protocol) => self.ask(protocol, fx),
            MappingTimer::Lapse(protocol) => {
                if let Some(port) = self.ports.get_mut(&protocol) {
                    // The port is still wished for: others may remember it.
                    port.grant = None;
                }
                self.tell(fx);
            }
        }
    }
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
