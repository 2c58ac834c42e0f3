//! Which address the node tells others: what its user said, else what its gateway granted, else what others see.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use peerage_machine::{Effects, Machine, Time};
use peerage_wire::address::{self, Scope, scope};
use serde::{Deserialize, Serialize};

use super::mapping::Mapping;
use super::predictor::Prediction;
use crate::net::is_usable;

/// Changes that are remembered to slow the next ones down.
const REMEMBERED: usize = 8;

/// An address that the user says the node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticAddress {
    /// Where the node is reached.
    pub ip: IpAddr,
    /// At which port, for TCP and UDP; the one it listens at if nothing is said.
    pub port: Option<u16>,
}

/// Why text is not an address to be reached at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticAddressError {
    /// Neither an IP nor a multiaddr of one.
    #[error("`{0}` is no address; write it like 203.0.113.7, /ip4/203.0.113.7 or /ip4/203.0.113.7/tcp/30303")]
    NotAnAddress(String),
    /// Nobody else can reach it.
    #[error("others cannot reach {0}; name the address that they see, or leave --external out")]
    Nowhere(IpAddr),
    /// No port.
    #[error("port 0 is no port that others could dial; name the one that leads here, or none")]
    Port,
}

impl FromStr for StaticAddress {
    type Err = StaticAddressError;

    /// Reads an IP, or a multiaddr of one with or without a TCP or UDP port.
    fn from_str(text: &str) -> Result<StaticAddress, StaticAddressError> {
        let not = || StaticAddressError::NotAnAddress(text.to_owned());
        let (ip, port) = match text.parse::<IpAddr>() {
            Ok(ip) => (ip, None),
            // A multiaddr without a port is one with a port left out.
            Err(_) => {
                let read = |text: &str| {
                    let bare = address::split_id(&address::parse(text).ok()?).ok()?.0;
                    address::tcp_socket(&bare).or_else(|| address::udp_socket(&bare))
                };
                match (read(text), read(&format!("{}/tcp/1", text.trim_end_matches('/')))) {
                    (Some(socket), _) => (socket.ip(), Some(socket.port())),
                    (None, Some(socket)) => (socket.ip(), None),
                    (None, None) => return Err(not()),
                }
            }
        };
        let ip = ip.to_canonical();
        if !is_usable(ip) || matches!(scope(ip), Scope::Loopback | Scope::Link) {
            return Err(StaticAddressError::Nowhere(ip));
        }
        if port == Some(0) {
            return Err(StaticAddressError::Port);
        }
        Ok(StaticAddress { ip, port })
    }
}

/// Which protocols a gateway may be asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nat {
    /// None: it is not asked.
    None,
    /// Whichever it speaks.
    Auto,
    /// UPnP alone.
    Upnp,
    /// PCP or NAT-PMP.
    Pcp,
}

impl Nat {
    /// All of them.
    pub const ALL: [Nat; 4] = [Nat::None, Nat::Auto, Nat::Upnp, Nat::Pcp];

    /// A word for people and programs.
    pub const fn label(self) -> &'static str {
        match self {
            Nat::None => "none",
            Nat::Auto => "auto",
            Nat::Upnp => "upnp",
            Nat::Pcp => "pcp",
        }
    }
}

/// Why text names no protocol of gateways.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to ask a gateway; use auto, upnp, pcp (NAT-PMP too) or none")]
pub struct NatError(String);

impl FromStr for Nat {
    type Err = NatError;

    fn from_str(text: &str) -> Result<Nat, NatError> {
        Nat::ALL.into_iter().find(|nat| nat.label() == text).ok_or_else(|| NatError(text.to_owned()))
    }
}

/// How the node knows an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// Its user said so.
    Static,
    /// Its gateway granted it.
    Mapped,
    /// Others see it there.
    Predicted,
}

impl Origin {
    /// A word for people and programs.
    pub const fn label(self) -> &'static str {
        match self {
            Origin::Static => "static",
            Origin::Mapped => "mapped",
            Origin::Predicted => "predicted",
        }
    }
}

/// An address of the node that it did not bind itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// The IP.
    pub ip: IpAddr,
    /// Where it takes connections.
    pub tcp: Option<u16>,
    /// Where discovery is.
    pub udp: Option<u16>,
    /// How this is known.
    pub origin: Origin,
}

impl External {
    /// Its socket for TCP.
    pub fn tcp_socket(&self) -> Option<SocketAddr> {
        self.tcp.map(|port| SocketAddr::new(self.ip, port))
    }

    /// Its socket for UDP.
    pub fn udp_socket(&self) -> Option<SocketAddr> {
        self.udp.map(|port| SocketAddr::new(self.ip, port))
    }
}

/// The ports at which a node listens in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ports {
    /// For connections.
    pub tcp: Option<u16>,
    /// For discovery.
    pub udp: Option<u16>,
}

/// What the node knows by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConfig {
    /// What its user says; the first of a family counts.
    pub statics: Vec<StaticAddress>,
    /// Where it listens, wildcards as the addresses they stand for.
    pub bound: Vec<SocketAddr>,
    /// Whether it takes connections there.
    pub tcp: bool,
    /// Whether discovery is there.
    pub udp: bool,
    /// The shortest time between two changes. It doubles with each change of the last hour, up to 16 times, so that a
    /// gateway that cannot decide does not make the network fetch record after record (go-ethereum issue 31418).
    pub settle: Duration,
}

impl AddressConfig {
    /// One change a minute at most.
    pub const SETTLE: Duration = Duration::from_secs(60);

    fn ports(&self, ip: IpAddr) -> Ports {
        let port = self.bound.iter().find(|socket| socket.is_ipv4() == ip.is_ipv4()).map(|socket| socket.port());
        Ports { tcp: port.filter(|_| self.tcp), udp: port.filter(|_| self.udp) }
    }
}

/// What may happen to the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AddressIn {
    /// The node begins; what its user said is told at once.
    Start,
    /// Where others see the node for UDP.
    Predicted {
        /// Over IPv4.
        v4: Option<SocketAddr>,
        /// Over IPv6.
        v6: Option<SocketAddr>,
    },
    /// What the gateway grants now.
    Mapped(Option<Mapping>),
}

impl From<Prediction> for AddressIn {
    fn from(prediction: Prediction) -> AddressIn {
        AddressIn::Predicted { v4: prediction.v4, v6: prediction.v6 }
    }
}

/// What the machine asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressOut {
    /// The node's external addresses are these from now on: sign a record that says so. IPv4 first, one a family.
    Changed(Vec<External>),
}

/// The machine's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressTimer {
    /// The next change may be told.
    Settle,
}

/// Decides which addresses a node tells, and when. See [`AddressIn`], [`AddressOut`].
#[derive(Debug)]
pub struct AddressMachine {
    config: AddressConfig,
    predicted: [Option<SocketAddr>; 2],
    mapped: Option<Mapping>,
    /// What was told last.
    told: Vec<External>,
    /// When it was told, of the last [`REMEMBERED`] times.
    changes: VecDeque<Time>,
}

impl AddressMachine {
    /// One that has been told nothing.
    pub fn new(config: AddressConfig) -> AddressMachine {
        let (told, changes) = (Vec::new(), VecDeque::new());
        AddressMachine { config, predicted: [None; 2], mapped: None, told, changes }
    }

    /// What was told last.
    pub fn external(&self) -> &[External] {
        &self.told
    }

    fn of_family(&self, v4: bool) -> Option<External> {
        let same = |ip: IpAddr| ip.is_ipv4() == v4;
        if let Some(StaticAddress { ip, port }) = self.config.statics.iter().find(|address| same(address.ip)) {
            // The port is the one that was said or that is bound, whatever others see: the user knows.
            let ports = self.config.ports(*ip);
            let tcp = port.or(ports.tcp).filter(|_| self.config.tcp);
            let udp = port.or(ports.udp).filter(|_| self.config.udp);
            if tcp.is_none() && udp.is_none() {
                return None;
            }
            return Some(External { ip: *ip, tcp, udp, origin: Origin::Static });
        }
        // A gateway behind another one grants addresses that nobody outside can use.
        if let Some(Mapping { ip, tcp, udp }) = self.mapped.filter(|mapping| same(mapping.ip) && is_public(mapping.ip))
        {
            return Some(External { ip, tcp, udp, origin: Origin::Mapped });
        }
        let predicted = self.predicted[usize::from(!v4)]?;
        if self.config.bound.iter().any(|bound| bound.ip() == predicted.ip()) {
            // Others see what is bound: nothing is between.
            return None;
        }
        let ip = predicted.ip();
        let tcp = self.config.ports(ip).tcp;
        Some(External { ip, tcp, udp: Some(predicted.port()), origin: Origin::Predicted })
    }

    fn outcome(&self) -> Vec<External> {
        [true, false].into_iter().filter_map(|v4| self.of_family(v4)).collect()
    }

    /// How long after the last change the next one may come.
    fn pause(&self, now: Time) -> Duration {
        let recent = self.changes.iter().filter(|at| now.since(**at) < Duration::from_secs(3600)).count();
        self.config.settle.saturating_mul(1 << recent.saturating_sub(1).min(4))
    }

    fn settle(&mut self, now: Time, fx: &mut Effects<AddressOut, AddressTimer>) {
        let outcome = self.outcome();
        if outcome == self.told {
            return fx.disarm(AddressTimer::Settle);
        }
        if let Some(next) = self.changes.back().map(|last| *last + self.pause(now)).filter(|next| *next > now) {
            return fx.arm(AddressTimer::Settle, next);
        }
        fx.disarm(AddressTimer::Settle);
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
        }
        self.changes.push_back(now);
        self.told.clone_from(&outcome);
        fx.emit(AddressOut::Changed(outcome));
    }
}

impl Machine for AddressMachine {
    type In = AddressIn;
    type Out = AddressOut;
    type Timer = AddressTimer;

    fn handle(&mut self, now: Time, input: AddressIn, fx: &mut Effects<AddressOut, AddressTimer>) {
        match input {
            AddressIn::Start => {
                // Before anybody has seen a record: this is no change.
                self.told = self.outcome();
                return;
            }
            AddressIn::Predicted { v4, v6 } => self.predicted = [v4, v6],
            AddressIn::Mapped(mapping) => self.mapped = mapping,
        }
        self.settle(now, fx);
    }

    fn expire(&mut self, now: Time, timer: AddressTimer, fx: &mut Effects<AddressOut, AddressTimer>) {
        match timer {
            AddressTimer::Settle => self.settle(now, fx),
        }
    }
}

/// Whether the internet can be expected to reach an address: carriers' shared space (RFC 6598) is of no network that
/// others are in.
fn is_public(ip: IpAddr) -> bool {
    let shared = matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64);
    is_usable(ip) && scope(ip) == Scope::Global && !shared
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
