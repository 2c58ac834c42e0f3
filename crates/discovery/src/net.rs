//! Which addresses may be passed on by whom.

use std::net::{IpAddr, SocketAddr};

use peerage_wire::address::is_local;

/// The address as everything here compares it: IPv4 inside IPv6 is unwrapped, or answers would not
/// match the requests they belong to (go-ethereum issue 29944).
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
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
