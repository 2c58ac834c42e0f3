//! How many nodes are where: what makes a thousand identities of one rented network cost more than they bring (P6).

use std::collections::BTreeMap;
use std::net::IpAddr;

use peerage_wire::address::{Host, Site, host, site};

/// How many nodes are on each host and on each site. As many entries of each as sessions, at most.
#[derive(Debug, Default)]
pub(super) struct Places {
    hosts: BTreeMap<Host, u32>,
    sites: BTreeMap<Site, u32>,
    /// On how many of them there is more than one node: most often on none, and then nobody is looked up.
    shared: usize,
}

/// The host and the site of an address at which a node with sessions at these others is not.
fn new_to(ip: IpAddr, mut others: impl Iterator<Item = IpAddr> + Clone) -> (Option<Host>, Option<Site>) {
    let (here, around) = (host(ip), site(ip));
    let known = others.clone().any(|other| host(other) == here);
    (Some(here).filter(|_| !known), Some(around).filter(|_| !others.any(|other| site(other) == around)))
}

fn enter<K: Ord>(nodes: &mut BTreeMap<K, u32>, shared: &mut usize, place: Option<K>) {
    let Some(place) = place else { return };
    let count = nodes.entry(place).or_default();
    *count += 1;
    *shared += usize::from(*count == 2);
}

fn leave<K: Ord>(nodes: &mut BTreeMap<K, u32>, shared: &mut usize, place: Option<K>) {
    let Some(place) = place else { return };
    if let Some(count) = nodes.get_mut(&place) {
        *shared -= usize::from(*count == 2);
        *count -= 1;
        if *count == 0 {
            nodes.remove(&place);
        }
    }
}

impl Places {
    /// A node comes to an address, and is at these others.
    pub(super) fn enter(&mut self, ip: IpAddr, others: impl Iterator<Item = IpAddr> + Clone) {
        let (host, site) = new_to(ip, others);
        enter(&mut self.hosts, &mut self.shared, host);
        enter(&mut self.sites, &mut self.shared, site);
    }

    /// A node leaves an address, and stays at these others.
    pub(super) fn leave(&mut self, ip: IpAddr, others: impl Iterator<Item = IpAddr> + Clone) {
        let (host, site) = new_to(ip, others);
        leave(&mut self.hosts, &mut self.shared, host);
        leave(&mut self.sites, &mut self.shared, site);
    }

    /// How many different nodes are on the host, and on the site, of this address, where at least one is.
    pub(super) fn crowd(&self, ip: IpAddr) -> (usize, usize) {
        if self.shared == 0 {
            return (1, 1);
        }
        let count = |nodes: Option<&u32>| nodes.map_or(0, |nodes| *nodes as usize);
        (count(self.hosts.get(&host(ip))), count(self.sites.get(&site(ip))))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.sites.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_once_for_each_host_and_each_site() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        // Of two nodes, `a` has four sessions and `b` two.
        let a = ["192.0.2.0", "::ffff:192.0.2.0", "192.0.2.7", "2001:db8:1:3::1"].map(ip);
        let b = ["192.0.2.9", "2001:db8:1:2::1"].map(ip);
        let mut places = Places::default();
        for (node, sessions) in [(&a[..], 2), (&b[..], 1)] {
            for n in 0..sessions {
                places.enter(node[n], node[..n].iter().copied());
            }
        }
        assert_eq!(places.crowd(ip("192.0.2.0")), (1, 2), "one node, mapped or not, and another of its site");
        places.enter(a[2], a[..2].iter().copied());
        assert_eq!(places.crowd(ip("192.0.2.7")), (1, 2), "a host more of the same node");
        places.enter(b[1], b[..1].iter().copied());
        places.enter(a[3], a[..3].iter().copied());
        assert_eq!(places.crowd(ip("2001:db8:1:2::5")), (1, 2), "a /64 is a host, and a /48 a site");
        places.leave(a[0], a[1..].iter().copied());
        assert_eq!(places.crowd(ip("192.0.2.0")), (1, 2), "its other session is there");
        places.leave(a[1], a[2..].iter().copied());
        assert_eq!(places.crowd(ip("192.0.2.0")), (0, 2), "it is still on the site");
        for (ip, others) in [(a[2], &a[3..]), (a[3], &[]), (b[0], &b[1..]), (b[1], &[])] {
            places.leave(ip, others.iter().copied());
        }
        assert!(places.is_empty());
    }
}
