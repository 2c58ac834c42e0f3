//! How many nodes are where: what makes a thousand identities of one rented network cost more than they bring (P6).

use std::collections::BTreeMap;
use std::net::IpAddr;

use peerage_wire::NodeId;
use peerage_wire::address::{host, site};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    Host,
    Site,
}

/// The nodes of each host and of each site, with how many sessions each has there. As many entries as twice the
/// sessions, at most.
#[derive(Debug, Default)]
pub(super) struct Places {
    nodes: BTreeMap<(Extent, IpAddr), BTreeMap<NodeId, u32>>,
}

/// The host and the site of an address, by the first address of each.
fn places(ip: IpAddr) -> [(Extent, IpAddr); 2] {
    [(Extent::Host, host(ip).addr()), (Extent::Site, site(ip).addr())]
}

impl Places {
    pub(super) fn enter(&mut self, node: NodeId, ip: IpAddr) {
        for place in places(ip) {
            *self.nodes.entry(place).or_default().entry(node).or_default() += 1;
        }
    }

    pub(super) fn leave(&mut self, node: &NodeId, ip: IpAddr) {
        for place in places(ip) {
            let Some(nodes) = self.nodes.get_mut(&place) else { continue };
            if let Some(sessions) = nodes.get_mut(node) {
                *sessions -= 1;
                if *sessions == 0 {
                    nodes.remove(node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&place);
            }
        }
    }

    /// How many different nodes are on the host, and on the site, of this address.
    pub(super) fn crowd(&self, ip: IpAddr) -> (usize, usize) {
        let [host, site] = places(ip).map(|place| self.nodes.get(&place).map_or(0, BTreeMap::len));
        (host, site)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_once_for_each_host_and_each_site() {
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let mut places = Places::default();
        places.enter(a, ip("192.0.2.0"));
        places.enter(a, ip("::ffff:192.0.2.0"));
        assert_eq!(places.crowd(ip("192.0.2.0")), (1, 1), "one node, mapped or not");
        places.enter(b, ip("192.0.2.9"));
        assert_eq!(places.crowd(ip("192.0.2.0")), (1, 2));
        places.enter(b, ip("2001:db8:1:2::1"));
        places.enter(a, ip("2001:db8:1:3::1"));
        assert_eq!(places.crowd(ip("2001:db8:1:2::5")), (1, 2), "a /64 is a host, and a /48 a site");
        places.leave(&a, ip("192.0.2.0"));
        assert_eq!(places.crowd(ip("192.0.2.0")), (1, 2), "its other session is there");
        for (node, at) in [(a, "192.0.2.0"), (b, "192.0.2.9"), (b, "2001:db8:1:2::1"), (a, "2001:db8:1:3::1")] {
            places.leave(&node, ip(at));
        }
        places.leave(&a, ip("192.0.2.0"));
        assert!(places.is_empty());
    }
}
