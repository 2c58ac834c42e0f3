//! Which network prefixes count together, and which addresses may be passed on by whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peerage_wire::address::{Scope, scope};

/// A group of addresses that one operator usually controls, as one limit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix(IpAddr);

/// The leading `v4` (1 to 32) or `v6` (1 to 128) bits of an address.
fn masked(ip: IpAddr, v4: u32, v6: u32) -> Prefix {
    Prefix(match ip {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << (32 - v4)))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - v6)))),
    })
}

/// One host: an IPv4 address, or the /64 that one IPv6 host may choose its addresses from.
pub(crate) fn host(ip: IpAddr) -> Prefix {
    masked(ip, 32, 64)
}

/// One site: /24 for IPv4, /48 for IPv6 (a /24 of IPv6 would be half a continent, go-ethereum issue 20522).
pub(crate) fn site(ip: IpAddr) -> Prefix {
    masked(ip, 24, 48)
}

/// The address as everything here compares it: IPv4 inside IPv6 is unwrapped, or answers would not
/// match the requests they belong to (go-ethereum issue 29944).
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether an address is of this host or its local network.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    scope(ip) != Scope::Global
}

/// Whether an address of `ip` that `teller` told us about may be used: a node of the open network must not
/// make us send packets into our own (go-ethereum `netutil.CheckRelayAddr`).
pub(crate) fn may_relay(teller: IpAddr, ip: IpAddr) -> bool {
    let (teller, ip) = (teller.to_canonical(), ip.to_canonical());
    if ip.is_unspecified() || ip.is_multicast() || is_special(ip) {
        return false;
    }
    if ip.is_loopback() {
        return teller.is_loopback();
    }
    !is_local(ip) || is_local(teller)
}

/// Addresses that no node can be at: "this network", reserved and broadcast. Documentation ranges are left
/// usable, as tests need addresses that are not local.
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn sites_are_24_bits_of_ipv4_and_48_of_ipv6() {
        assert_eq!(site(ip("1.2.3.4")), site(ip("1.2.3.200")));
        assert_ne!(site(ip("1.2.3.4")), site(ip("1.2.4.4")));
        assert_eq!(site(ip("2001:db8:1::1")), site(ip("2001:db8:1:ffff::2")));
        assert_ne!(site(ip("2001:db8:1::1")), site(ip("2001:db8:2::1")));
        assert_ne!(host(ip("1.2.3.4")), host(ip("1.2.3.5")));
        assert_eq!(host(ip("2001:db8::1")), host(ip("2001:db8::2")));
    }

    #[test]
    fn relayed_addresses_stay_within_their_reach() {
        for (teller, told, allowed) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("192.168.0.1", "127.0.0.1", false),
            ("8.8.8.8", "127.0.0.1", false),
            ("127.0.0.1", "192.168.0.1", true),
            ("192.168.0.1", "10.0.0.1", true),
            ("8.8.8.8", "192.168.0.1", false),
            ("8.8.8.8", "fe80::1", false),
            ("2001:db8::1", "fd00::1", false),
            ("192.168.0.1", "8.8.8.8", true),
            ("8.8.8.8", "1.1.1.1", true),
            ("127.0.0.1", "0.0.0.0", false),
            ("127.0.0.1", "0.1.2.3", false),
            ("127.0.0.1", "::", false),
            ("127.0.0.1", "224.0.0.1", false),
            ("127.0.0.1", "ff02::1", false),
            ("127.0.0.1", "255.255.255.255", false),
        ] {
            assert_eq!(may_relay(ip(teller), ip(told)), allowed, "{told} told by {teller}");
        }
    }

    #[test]
    fn ipv4_inside_ipv6_is_unwrapped() {
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:5".parse().expect("address");
        assert_eq!(canonical(mapped).to_string(), "1.2.3.4:5");
    }
}
