//! Which addresses may be passed on by whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use peerage_wire::NodeId;
use peerage_wire::address::is_local;

/// Somewhere on the open network: the teller of what came by a way that does not say who told it.
pub(crate) const OPEN_NETWORK: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The address as everything here compares it: IPv4 inside IPv6 is unwrapped, or answers would not
/// match the requests they belong to (go-ethereum issue 29944).
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A peer at an address, as hashes take it in: the id, the address as one of IPv6, and the port.
pub(crate) fn peer_at(peer: NodeId, addr: SocketAddr) -> [u8; 50] {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 50];
    bytes[..32].copy_from_slice(peer.as_bytes());
    bytes[32..48].copy_from_slice(&ip.octets());
    bytes[48..].copy_from_slice(&addr.port().to_be_bytes());
    bytes
}

/// Whether an address of `ip` that `teller` told us about may be used: a node of the open network must not
/// make us send packets into our own (go-ethereum `netutil.CheckRelayAddr`).
pub(crate) fn may_relay(teller: IpAddr, ip: IpAddr) -> bool {
    let (teller, ip) = (teller.to_canonical(), ip.to_canonical());
    if !is_usable(ip) {
        return false;
    }
    if ip.is_loopback() {
        return teller.is_loopback();
    }
    !is_local(ip) || is_local(teller)
}

/// Whether a node can be at this address at all.
pub(crate) fn is_usable(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && !is_special(ip)
}

/// Addresses that no node can be at: "this network", protocol assignments, reserved and broadcast; of IPv6 those that
/// are dropped, and those that a gateway turns into an IPv4 address, which may be one of ours. Ranges for documentation
/// and benchmarks are left usable, as tests need addresses that are not local.
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            a == 0 || a >= 240 || [a, b, c] == [192, 0, 0]
        }
        // ::/96 (once IPv4-compatible), 64:ff9b::/32 (NAT64), 100::/64 (discard), 2001::/32 (Teredo), 2002::/16 (6to4).
        IpAddr::V6(ip) => match ip.segments() {
            [0, 0, 0, 0, 0, 0, ..] => !ip.is_loopback(),
            [0x64, 0xff9b, ..] | [0x100, 0, 0, 0, ..] | [0x2001, 0, ..] | [0x2002, ..] => true,
            _ => false,
        },
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
            ("8.8.8.8", "192.0.0.10", false),
            ("8.8.8.8", "::ffff:127.0.0.1", false),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("2001:db8::1", "::1", false),
            ("::1", "::1", true),
            ("fe80::1", "fe80::2", true),
            ("2001:db8::1", "2a00::1", true),
        ] {
            assert_eq!(may_relay(ip(teller), ip(told)), allowed, "{told} told by {teller}");
        }
    }

    #[test]
    fn addresses_that_lead_back_into_ipv4_networks_are_nobodys() {
        // All of them are 192.168.0.1 or 127.0.0.1 to a gateway that translates, whoever tells them.
        for told in
            ["::192.168.0.1", "64:ff9b::c0a8:1", "64:ff9b:1::c0a8:1", "2002:c0a8:1::1", "2001:0:c0a8:1::1", "100::1"]
        {
            for teller in ["127.0.0.1", "192.168.0.1", "8.8.8.8", "2a00::1"] {
                assert!(!may_relay(ip(teller), ip(told)), "{told} told by {teller}");
            }
        }
    }

    #[test]
    fn ipv4_inside_ipv6_is_unwrapped() {
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:5".parse().expect("address");
        assert_eq!(canonical(mapped).to_string(), "1.2.3.4:5");
    }
}
