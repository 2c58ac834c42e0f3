//! A host that is named and not numbered: `/dns/NAME/tcp/PORT`, `/dns4/…`, `/dns6/…`.

use std::fmt;
use std::net::IpAddr;

use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};

/// Longest name, as text without the last dot (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
/// Longest label of a name (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// Which addresses of a name are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// `/dns`: both.
    Any,
    /// `/dns4`.
    V4,
    /// `/dns6`.
    V6,
}

impl Family {
    /// Whether an address is one that was asked for.
    pub fn takes(self, ip: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        }
    }
}

/// A named host and a port, for TCP and UDP alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Host {
    name: String,
    port: u16,
    family: Family,
}

impl Host {
    /// The host of an address that is exactly a name and a TCP port; `None` for any other address, and for a name that
    /// no name server could have: labels of letters, digits, `-` and `_`, of at most 63 bytes, 253 together.
    pub fn from_tcp(address: &Multiaddr) -> Option<Host> {
        let mut parts = address.iter();
        let (name, family) = match parts.next()? {
            Protocol::Dns(name) => (name, Family::Any),
            Protocol::Dns4(name) => (name, Family::V4),
            Protocol::Dns6(name) => (name, Family::V6),
            _ => return None,
        };
        let (Protocol::Tcp(port), None) = (parts.next()?, parts.next()) else { return None };
        // One name has one spelling.
        let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
        is_name(&name).then_some(Host { name, port, family })
    }

    /// Its name, in lower case and without a dot at the end.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which addresses of it are asked for.
    pub fn family(&self) -> Family {
        self.family
    }

    /// As it is written.
    pub fn to_multiaddr(&self) -> Multiaddr {
        let name = self.name.as_str().into();
        let name = match self.family {
            Family::Any => Protocol::Dns(name),
            Family::V4 => Protocol::Dns4(name),
            Family::V6 => Protocol::Dns6(name),
        };
        Multiaddr::empty().with(name).with(Protocol::Tcp(self.port))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_multiaddr(), f)
    }
}

/// Whether a name server could have this name.
pub fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= MAX_NAME && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<Host> {
        Host::from_tcp(&text.parse().expect(text))
    }

    #[test]
    fn a_name_and_a_port_come_back_as_they_were_written() {
        for (text, family) in [
            ("/dns/boot.example.org/tcp/30303", Family::Any),
            ("/dns4/boot.example.org/tcp/30303", Family::V4),
            ("/dns6/boot.example.org/tcp/30303", Family::V6),
        ] {
            let host = host(text).expect(text);
            assert_eq!((host.name(), host.port(), host.family()), ("boot.example.org", 30303, family));
            assert_eq!(host.to_string(), text);
        }
        assert_eq!(host("/dns4/Boot.Example.ORG./tcp/1"), host("/dns4/boot.example.org/tcp/1"), "one spelling");
        assert!(Family::V4.takes([1, 2, 3, 4].into()) && !Family::V6.takes([1, 2, 3, 4].into()));
    }

    #[test]
    fn what_no_name_server_could_have_is_no_host() {
        let long = "a".repeat(64);
        let longer = ["abcdefg"; 32].join(".");
        for name in ["", "a..b", "a b", "é", "a*", "-/", &long, &longer] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("localhost") && is_name("_dns.a-b.example") && is_name(&"a".repeat(63)));
        for text in ["/ip4/1.2.3.4/tcp/5", "/dns4/a/udp/5", "/dns4/a/tcp/5/ws", "/dns4/a"] {
            assert_eq!(host(text), None, "{text}");
        }
    }
}
