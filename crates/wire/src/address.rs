//! Multiaddrs, as far as Peerage speaks them: `/ip4|ip6|dns…/…/tcp|udp/…[/p2p/ID]`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use multiaddr::{Multiaddr, Protocol};

use crate::{IdentityError, NodeId};

/// Why a multiaddr cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not a multiaddr.
    #[error("`{0}` is not a multiaddr; write it like /ip4/127.0.0.1/tcp/30303")]
    NotAMultiaddr(String),
    /// It names a transport that is not spoken here.
    #[error("`{address}` names the transport `{transport}`, which this version does not speak; use /tcp")]
    Transport {
        /// The address.
        address: Multiaddr,
        /// The transport's name.
        transport: &'static str,
    },
    /// It is not an IP (or name) and a TCP port.
    #[error("`{0}` must be an IP address and a TCP port, like /ip4/127.0.0.1/tcp/30303")]
    NotTcp(Multiaddr),
    /// It ends in `/p2p/` and an id of another kind.
    #[error("`{0}`: {1}")]
    Id(Multiaddr, IdentityError),
}

/// Reads a multiaddr from text.
///
/// # Errors
/// [`AddressError::NotAMultiaddr`].
pub fn parse(text: &str) -> Result<Multiaddr, AddressError> {
    text.parse().map_err(|_| AddressError::NotAMultiaddr(text.to_owned()))
}

/// Splits `/p2p/ID` off the end of an address.
///
/// # Errors
/// [`AddressError::Id`] for an id that is not an ed25519 key's.
pub fn split_id(address: &Multiaddr) -> Result<(Multiaddr, Option<NodeId>), AddressError> {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => {
            let id = NodeId::from_peer_id(&peer).map_err(|error| AddressError::Id(address.clone(), error))?;
            Ok((bare, Some(id)))
        }
        _ => Ok((address.clone(), None)),
    }
}

/// The address with `/p2p/ID` at its end: what is printed to be pasted elsewhere.
pub fn with_id(address: &Multiaddr, id: NodeId) -> Multiaddr {
    address.clone().with(Protocol::P2p(id.to_peer_id()))
}

/// How far an IP address reaches, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This computer.
    Loopback,
    /// Its link.
    Link,
    /// Its private network.
    Private,
    /// The internet.
    Global,
}

/// How far an address reaches. IPv4 inside IPv6 reaches as far as the IPv4 address does.
pub fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        ip if ip.is_loopback() => Scope::Loopback,
        IpAddr::V4(ip) if ip.is_link_local() => Scope::Link,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Scope::Link,
        IpAddr::V4(ip) if ip.is_private() => Scope::Private,
        IpAddr::V6(ip) if ip.is_unique_local() => Scope::Private,
        _ => Scope::Global,
    }
}

/// Whether an address is of this computer or its local networks: no wider than [`Scope::Private`].
pub fn is_local(ip: IpAddr) -> bool {
    scope(ip) != Scope::Global
}

/// One host, as a limit sees it: an IPv4 address, or the /64 that one IPv6 host may choose its addresses from. Limits look up
/// millions a second, so it is as small as it can be; those of IPv4 come first, each family in the order of its addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(u128);

/// One site, which one operator usually controls: /24 for IPv4, /48 for IPv6 (a /24 of IPv6 would be half a continent,
/// go-ethereum issue 20522). Small and ordered as a [`Host`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(u64);

/// Above the 64 bits that tell IPv6 hosts apart, and above the 48 that tell sites apart.
const HOST_OF_IPV6: u128 = 1 << 64;
const SITE_OF_IPV6: u64 = 1 << 48;

/// The host that an address is of.
pub fn host(ip: IpAddr) -> Host {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Host(ip.to_bits().into()),
        IpAddr::V6(ip) => Host(HOST_OF_IPV6 | ip.to_bits() >> 64),
    }
}

/// The site that an address is of.
pub fn site(ip: IpAddr) -> Site {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Site((ip.to_bits() >> 8).into()),
        IpAddr::V6(ip) => Site(SITE_OF_IPV6 | (ip.to_bits() >> 80) as u64),
    }
}

impl Host {
    /// The network it is.
    pub fn network(self) -> IpNet {
        match u32::try_from(self.0) {
            Ok(bits) => network(Ipv4Addr::from_bits(bits).into(), 32),
            Err(_) => network(Ipv6Addr::from_bits(self.0 << 64).into(), 64),
        }
    }
}

impl Site {
    /// The network it is.
    pub fn network(self) -> IpNet {
        match self.0 & SITE_OF_IPV6 {
            0 => network(Ipv4Addr::from_bits((self.0 << 8) as u32).into(), 24),
            _ => network(Ipv6Addr::from_bits(u128::from(self.0) << 80).into(), 48),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.network())
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.network())
    }
}

fn network(ip: IpAddr, bits: u8) -> IpNet {
    IpNet::new(ip, bits).expect("no more bits than it has")
}

/// IPv4 inside IPv6 is no address to listen at: answers from it come from the IPv4 address, and limits that look
/// at one family would not see the other.
fn ip(protocol: &Protocol<'_>) -> Option<IpAddr> {
    match protocol {
        Protocol::Ip4(ip) => Some(IpAddr::V4(*ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(*ip)).filter(|ip| ip.to_canonical() == *ip),
        _ => None,
    }
}

/// The socket of an address that is exactly an IP and a TCP port.
pub fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    match (ip(&parts.next()?)?, parts.next()?, parts.next()) {
        (ip, Protocol::Tcp(port), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The socket of an address that is exactly an IP and a UDP port.
pub fn udp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    match (ip(&parts.next()?)?, parts.next()?, parts.next()) {
        (ip, Protocol::Udp(port), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The TCP address of a socket.
pub fn from_tcp(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

/// The UDP address of a socket.
pub fn from_udp(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Udp(socket.port()))
}

/// The socket to listen on or dial.
///
/// # Errors
/// [`AddressError::Transport`] for transports that other stacks speak and this does not (named, so that
/// the user knows what to change), [`AddressError::NotTcp`] for anything else but an IP and a TCP port.
pub fn require_tcp(address: &Multiaddr) -> Result<SocketAddr, AddressError> {
    for part in address.iter() {
        let transport = match part {
            Protocol::Quic => "quic",
            Protocol::QuicV1 => "quic-v1",
            Protocol::Ws(_) => "ws",
            Protocol::Wss(_) => "wss",
            Protocol::WebTransport => "webtransport",
            Protocol::WebRTC | Protocol::WebRTCDirect => "webrtc",
            _ => continue,
        };
        return Err(AddressError::Transport { address: address.clone(), transport });
    }
    tcp_socket(address).ok_or_else(|| AddressError::NotTcp(address.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keypair;

    #[test]
    fn hosts_and_sites_are_what_one_operator_controls() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        for (text, of_host, of_site) in [
            ("0.0.0.0", "0.0.0.0/32", "0.0.0.0/24"),
            ("192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
            ("255.255.255.255", "255.255.255.255/32", "255.255.255.0/24"),
            ("::", "::/64", "::/48"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("ffff:ffff:ffff:ffff::1", "ffff:ffff:ffff:ffff::/64", "ffff:ffff:ffff::/48"),
        ] {
            assert_eq!(host(ip(text)).network().to_string(), of_host);
            assert_eq!(site(ip(text)).network().to_string(), of_site);
        }
        assert_eq!(site(ip("::ffff:192.0.2.7")), site(ip("192.0.2.9")));
        assert_eq!(host(ip("::ffff:192.0.2.7")), host(ip("192.0.2.7")));
        let rising = ["0.0.0.1", "10.0.0.0", "255.0.0.1", "::1", "2001:db8::1", "fe80::1"].map(ip);
        assert!(rising.is_sorted_by(|a, b| host(*a) < host(*b) && site(*a) < site(*b)), "as networks are ordered");
    }

    fn address(text: &str) -> Multiaddr {
        parse(text).expect("multiaddr")
    }

    #[test]
    fn sockets_come_back() {
        for text in ["127.0.0.1:30303", "[::1]:1", "[2001:db8::1]:65535"] {
            let socket: SocketAddr = text.parse().expect("socket");
            assert_eq!(tcp_socket(&from_tcp(socket)), Some(socket));
            assert_eq!(udp_socket(&from_udp(socket)), Some(socket));
            assert_eq!(udp_socket(&from_tcp(socket)), None);
        }
    }

    #[test]
    fn a_scope_is_told_from_the_address_and_mapped_addresses_name_no_socket() {
        let cases = [
            ("127.9.9.9", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("::ffff:127.0.0.1", Scope::Loopback),
            ("169.254.0.1", Scope::Link),
            ("192.168.1.1", Scope::Private),
            ("fd00::1", Scope::Private),
            ("8.8.8.8", Scope::Global),
            ("2001:db8::1", Scope::Global),
        ];
        for (ip, expected) in cases {
            assert_eq!(scope(ip.parse().expect("ip")), expected, "{ip}");
        }
        assert_eq!(tcp_socket(&address("/ip6/::ffff:127.0.0.1/tcp/5")), None);
    }

    #[test]
    fn an_id_at_the_end_is_split_off_and_put_back() {
        let id = Keypair::from_seed([1; 32]).id();
        let bare = address("/ip4/1.2.3.4/tcp/5");
        let full = with_id(&bare, id);
        assert_eq!(full.to_string(), format!("/ip4/1.2.3.4/tcp/5/p2p/{id}"));
        assert_eq!(split_id(&full), Ok((bare.clone(), Some(id))));
        assert_eq!(split_id(&bare), Ok((bare, None)));
    }

    #[test]
    fn other_transports_are_refused_by_name() {
        for (text, name) in [("/ip4/1.2.3.4/udp/5/quic-v1", "quic-v1"), ("/ip4/1.2.3.4/tcp/5/ws", "ws")] {
            let error = require_tcp(&address(text)).expect_err(text).to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
        assert!(matches!(require_tcp(&address("/ip4/1.2.3.4/udp/5")), Err(AddressError::NotTcp(_))));
        assert!(matches!(require_tcp(&address("/ip4/1.2.3.4")), Err(AddressError::NotTcp(_))));
        assert!(matches!(parse("127.0.0.1:5"), Err(AddressError::NotAMultiaddr(_))));
    }
}
