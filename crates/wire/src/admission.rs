//! Whom a node has to do with at all.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::NodeId;

/// One policy, asked wherever an address or an identity comes in: at the listener, the dialer, bootnodes and
/// neighbours. The open one admits everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Networks whose addresses are admitted; empty for all.
    pub allowed: Vec<IpNet>,
    /// Networks whose addresses are not, whatever is allowed.
    pub denied: Vec<IpNet>,
    /// The only identities that are admitted; `None` for all.
    pub only: Option<BTreeSet<NodeId>>,
}

/// What is banned: one identity, or every node of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Banned {
    /// This identity, from whatever address.
    Id(NodeId),
    /// Everybody with an address in this network.
    Network(IpNet),
}

impl Banned {
    /// The one spelling of what is banned: a network without host bits, and IPv4 as IPv4, as addresses are compared.
    #[must_use]
    pub fn canonical(self) -> Banned {
        match self {
            Banned::Network(network) => {
                let mapped = match (network.addr().to_canonical(), network.prefix_len()) {
                    (ip @ IpAddr::V4(_), bits @ 96..) if ip != network.addr() => IpNet::new(ip, bits - 96).ok(),
                    _ => None,
                };
                Banned::Network(mapped.unwrap_or(network).trunc())
            }
            id => id,
        }
    }
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Banned::Id(id) => id.fmt(f),
            Banned::Network(network) => network.fmt(f),
        }
    }
}

/// A policy that is too large to be asked for every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{listed} networks are listed, and at most {limit} can be")]
pub struct AdmissionError {
    /// How many are.
    pub listed: usize,
    /// How many can be.
    pub limit: usize,
}

impl Admission {
    /// Networks that can be listed at all: each is compared with every address.
    pub const MAX_NETWORKS: usize = 1024;

    /// Admits everybody.
    pub const fn open() -> Admission {
        Admission { allowed: Vec::new(), denied: Vec::new(), only: None }
    }

    /// Whether this address is admitted. IPv4 inside IPv6 is taken for the IPv4 address that it is.
    pub fn permits_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        (self.allowed.is_empty() || within(&self.allowed)) && !within(&self.denied)
    }

    /// Whether this identity is admitted.
    pub fn permits_id(&self, id: &NodeId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(id))
    }

    /// Checks its size, where a part of [`MAX_NETWORKS`](Admission::MAX_NETWORKS) is kept for others.
    ///
    /// # Errors
    /// [`AdmissionError`].
    pub fn check(&self, limit: usize) -> Result<(), AdmissionError> {
        let listed = self.allowed.len() + self.denied.len();
        if listed > limit { Err(AdmissionError { listed, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse().expect("network")).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn denied_wins_over_allowed_and_an_empty_list_allows_all() {
        let open = Admission::open();
        assert!(open.permits_ip(ip("192.0.2.1")) && open.permits_ip(ip("::1")));
        let denied = Admission { denied: networks(&["10.1.0.0/16"]), ..Admission::open() };
        assert!(!denied.permits_ip(ip("10.1.2.3")) && denied.permits_ip(ip("10.2.0.1")));
        assert!(!denied.permits_ip(ip("::ffff:10.1.2.3")), "the same host in other clothes");
        let both = Admission { allowed: networks(&["10.0.0.0/8", "2001:db8::/32"]), ..denied };
        assert!(both.permits_ip(ip("10.2.0.1")) && both.permits_ip(ip("2001:db8::9")));
        assert!(!both.permits_ip(ip("10.1.2.3")) && !both.permits_ip(ip("192.0.2.1")));
    }

    #[test]
    fn a_list_of_identities_admits_no_other() {
        let [one, two] = [1, 2].map(|n| NodeId::from_bytes([n; 32]));
        assert!(Admission::open().permits_id(&one));
        let only = Admission { only: Some([one].into()), ..Admission::open() };
        assert!(only.permits_id(&one) && !only.permits_id(&two));
    }

    #[test]
    fn one_network_is_one_ban_however_it_is_written() {
        let banned = |text: &str| Banned::Network(text.parse().expect("network")).canonical();
        assert_eq!(banned("10.1.2.3/8"), banned("10.0.0.0/8"));
        assert_eq!(banned("::ffff:10.1.2.3/104"), banned("10.0.0.0/8"));
        assert_eq!(banned("2001:db8::9/32").to_string(), "2001:db8::/32");
        assert_eq!(banned("::/0").to_string(), "::/0", "not IPv4");
        let id = Banned::Id(NodeId::from_bytes([1; 32]));
        assert_eq!(id.canonical(), id);
    }

    #[test]
    fn a_policy_has_a_size() {
        let many = Admission { denied: networks(&["10.0.0.0/8"]).repeat(9), ..Admission::open() };
        assert_eq!(many.check(8).expect_err("too many").to_string(), "9 networks are listed, and at most 8 can be");
        assert_eq!(many.check(9), Ok(()));
    }
}
