//! The addresses that a wildcard stands for.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use peerage_wire::address::scope;

/// The addresses at which a listener on `on` can be dialled, most widely reachable first: `on` itself, or, for
/// a wildcard, the computer's own addresses of the same family.
pub fn expand(on: SocketAddr) -> Vec<SocketAddr> {
    if !on.ip().is_unspecified() {
        return vec![on];
    }
    // Without a list of interfaces, loopback is what is certain.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let ips = interfaces.into_iter().map(|interface| interface.ip());
    let loopback: IpAddr = if on.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
    dialable(on, ips.chain([loopback]))
}

/// The sockets at `on`'s port of those addresses that are of its family and can be dialled, most widely
/// reachable first, each once.
pub fn dialable(on: SocketAddr, ips: impl IntoIterator<Item = IpAddr>) -> Vec<SocketAddr> {
    // A link-local IPv6 address needs a zone that only this computer knows.
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
    };
    let mut ips: Vec<IpAddr> = ips.into_iter().filter(|ip| ip.is_ipv4() == on.is_ipv4()).filter(usable).collect();
    ips.sort_by_key(|ip| (Reverse(scope(*ip)), *ip));
    ips.dedup();
    ips.into_iter().map(|ip| SocketAddr::new(ip, on.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_addresses_of_its_family_the_widest_first() {
        let ips = ["127.0.0.1", "fe80::1", "10.0.0.1", "192.0.2.7", "::1", "2001:db8::1", "10.0.0.1"];
        let ips = ips.map(|ip| ip.parse::<IpAddr>().expect("ip"));
        let sockets =
            |on: &str| dialable(on.parse().expect("socket"), ips).iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(sockets("0.0.0.0:7"), ["192.0.2.7:7", "10.0.0.1:7", "127.0.0.1:7"]);
        assert_eq!(sockets("[::]:7"), ["[2001:db8::1]:7", "[::1]:7"]);
    }

    #[test]
    fn a_wildcard_always_stands_for_something() {
        let on = "0.0.0.0:7".parse().expect("socket");
        assert!(expand(on).contains(&"127.0.0.1:7".parse().expect("socket")));
        let exact = "10.9.8.7:1".parse().expect("socket");
        assert_eq!(expand(exact), [exact]);
    }
}
