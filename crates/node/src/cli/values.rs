//! The values of flags: how each is read, and the sentence for one that cannot be.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;
use peerage::server::discovery::sources::dns::{EntryError, ListLink};
use peerage::server::gossip::Topic;
use peerage::server::wire::{CapabilityError, address};
use peerage::{
    Admitted, Capability, ForkId, IpNet, Mode, Nat, NatError, NetworkSecret, NodeId, PeerAddress, SharedAddress,
    StaticAddress, StaticAddressError, ToListenAddress,
};
use zeroize::Zeroizing;

use super::log_filter;

/// Bytes that an agent name may have; it travels in the handshake.
const AGENT: usize = 64;
/// Bytes that a secret's file may have.
const SECRET_FILE: u64 = 4096;

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    // People paste whole addresses, id and all.
    let multiaddr =
        address::parse(text).and_then(|whole| address::split_id(&whole)).map_err(|error| error.to_string())?;
    multiaddr.0.to_listen_address().map_err(|error| error.to_string())
}

pub(super) fn external(text: &str) -> Result<StaticAddress, String> {
    // People paste whole addresses, id and all; the id is of no matter here.
    text.parse().map_err(|error: StaticAddressError| error.to_string())
}

pub(super) fn nat(text: &str) -> Result<Nat, String> {
    text.parse().map_err(|error: NatError| error.to_string())
}

pub(super) fn capability(text: &str) -> Result<Capability, String> {
    text.parse().map_err(|error: CapabilityError| error.to_string())
}

/// A topic whose large messages travel as shards, and whose they are.
pub(super) fn coded(text: &str) -> Result<(Topic, Admitted), String> {
    let (name, publishers) = text.split_once('=').map_or((text, None), |(name, ids)| (name, Some(ids)));
    let topic = Topic::new(name).map_err(|error| error.to_string())?;
    let admitted = match publishers {
        None => Admitted::Everybody,
        Some(ids) => Admitted::These(ids.split(',').map(id).collect::<Result<_, _>>()?),
    };
    Ok((topic, admitted))
}

pub(super) fn gossip_mode(text: &str) -> Result<Mode, String> {
    text.parse()
}

pub(super) fn peer(text: &str) -> Result<PeerAddress, String> {
    text.parse().map_err(|error: peerage::server::PeerAddressError| error.to_string())
}

pub(super) fn dns_list(text: &str) -> Result<ListLink, String> {
    text.parse().map_err(|error: EntryError| error.to_string())
}

pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let at = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
    at.map_err(|_| "write it like 192.0.2.1:53 or [2001:db8::1]:53".to_owned())
}

/// An id, or anything that holds one.
pub(super) fn id(text: &str) -> Result<NodeId, String> {
    if text.starts_with('/') || text.starts_with("pnr:") {
        return peer(text).map(|peer| peer.id);
    }
    text.parse().map_err(|error| format!("{error}; copy what the node printed as `id:`"))
}

/// A network, or a single address, which is the smallest one.
pub(crate) fn ip_net(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    // Two ways to write one network must not be two.
    network
        .map(|network| network.trunc())
        .map_err(|_| "a network is written like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1".into())
}

pub(super) fn network(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a network has a name; leave --network out for the default one".into())
    } else {
        Ok(text.into())
    }
}

pub(super) fn agent(text: &str) -> Result<String, String> {
    if text.len() > AGENT {
        Err(format!("it has {} bytes, and at most {AGENT} fit; shorten it", text.len()))
    } else {
        Ok(text.into())
    }
}

pub(super) fn shared(text: &str) -> Result<SharedAddress, String> {
    let (network, factor) = text.split_once('=').ok_or("write it like 192.0.2.1=20 or 192.0.2.0/24=20")?;
    let factor = factor.parse().ok().filter(|factor| (1..=10_000).contains(factor));
    let factor = factor.ok_or("what follows the = is how many times, from 1 to 10000")?;
    Ok(SharedAddress { network: ip_net(network)?, factor })
}

/// Bytes, with a unit or without.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.ok_or_else(|| "write it like 512MiB or 2GiB".into())
}

/// Bytes a second, likewise; none at all would be no limit to some, and no traffic to others.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let bytes = size(text).ok().filter(|bytes| (1..=1 << 40).contains(bytes));
    bytes.ok_or_else(|| "write it like 512KiB or 10MiB, from 1 to 1024GiB; leave it out for no limit".into())
}

/// The secret in a file, without the end of its last line, which editors add.
pub(super) fn secret_in(path: &Path) -> Result<NetworkSecret, String> {
    let said = |error: &dyn Display| format!("--secret-file {}: {error}", path.display());
    let mut file = File::open(path).map_err(|error| said(&error))?.take(SECRET_FILE + 1);
    let mut bytes = Zeroizing::new(Vec::new());
    file.read_to_end(&mut bytes).map_err(|error| said(&error))?;
    if bytes.len() as u64 > SECRET_FILE {
        return Err(said(&format!("it has more than {SECRET_FILE} bytes; is it the right file?")));
    }
    NetworkSecret::new(bytes.trim_ascii_end()).map_err(|error| said(&error))
}

pub(super) fn fork_id(text: &str) -> Result<ForkId, String> {
    let hex = text.strip_prefix("0x").unwrap_or(text);
    let id = HEXLOWER_PERMISSIVE
        .decode(hex.as_bytes())
        .map_err(|_| "write it as pairs of hexadecimal digits, like fc64ec04".to_owned())?;
    ForkId::new(&id).ok_or_else(|| format!("it has {} bytes, and at most {} fit; hash it", id.len(), ForkId::MAX))
}

pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let socket: SocketAddr = text.parse().map_err(|_| "write it like 127.0.0.1:30380 or [::1]:0".to_owned())?;
    if socket.ip().is_loopback() {
        Ok(socket)
    } else {
        Err("only loopback addresses are served, as everybody who reaches it could command the node; \
             use 127.0.0.1, and a tunnel to reach it from elsewhere"
            .into())
    }
}

pub(super) fn filter(text: &str) -> Result<String, String> {
    log_filter(text).map(|_| text.to_owned())
}

/// Reads a list of ids from a file: one a line, empty lines and what follows a `#` aside.
pub(super) fn ids_in(path: &Path) -> Result<Vec<NodeId>, String> {
    let named = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--only-file {named} cannot be read: {error}; name a file with one id a line"))?;
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.split('#').next().unwrap_or_default().trim()));
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(n, line)| id(line).map_err(|error| format!("--only-file {named}, line {n}: {error}")))
        .collect()
}
