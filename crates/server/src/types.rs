//! What a node tells of itself and its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use peerage_dialer::StaticPeer;
use peerage_discovery::external::{External, Reachable};
use peerage_mailbox::{Item, Overflow};
use peerage_peer_session::EndedBy;
use peerage_peer_session::handshake::Direction;
use peerage_wire::address::{self, AddressError};
use peerage_wire::frame::Lane;
use peerage_wire::{Capability, DisconnectReason, Host, Multiaddr, NodeId, NodeRecord, RecordError, Verified};
use serde_json::Value;

use crate::health::Finding;
use crate::shedding::Level;

/// A node that somebody named: by a record, or by an address that ends in `/p2p/` and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its identity.
    pub id: NodeId,
    /// Where it may listen: as it was named, or as its names were last resolved.
    pub addresses: Vec<SocketAddr>,
    /// Names that stand for its addresses, resolved when it is needed, and again when it is not to be found.
    pub hosts: Vec<Host>,
}

/// Why text does not name a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerAddressError {
    /// Not a usable multiaddr.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Not a usable record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An address that does not say whose it is.
    #[error("`{0}` does not end in /p2p/ and the node's id; copy the whole address that the node printed")]
    NoId(String),
    /// A record that says nothing of where its node listens.
    #[error("the record names no TCP address")]
    NoAddress,
}

impl From<&NodeRecord> for PeerAddress {
    fn from(record: &NodeRecord) -> PeerAddress {
        let addresses = record.tcp_sockets().to_vec();
        PeerAddress { id: record.id(), addresses, hosts: Vec::new() }
    }
}

impl From<&PeerAddress> for StaticPeer {
    fn from(peer: &PeerAddress) -> StaticPeer {
        StaticPeer::new(peer.id, peer.addresses.iter().copied())
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    /// Reads a multiaddr with `/p2p/`, or a record's text. A record's age does not matter: it is a hint, and
    /// the node shows a fresh one when it is dialled.
    fn from_str(text: &str) -> Result<PeerAddress, PeerAddressError> {
        if text.starts_with("pnr:") {
            let record = text.parse::<NodeRecord>()?.verify()?;
            let peer = PeerAddress::from(&*record);
            return if peer.addresses.is_empty() { Err(PeerAddressError::NoAddress) } else { Ok(peer) };
        }
        let (bare, id) = address::split_id(&address::parse(text)?)?;
        let host = Host::from_tcp(&bare);
        let addresses = match host {
            Some(_) => Vec::new(),
            None => vec![address::require_tcp(&bare)?],
        };
        let id = id.ok_or_else(|| PeerAddressError::NoId(text.to_owned()))?;
        Ok(PeerAddress { id, addresses, hosts: host.into_iter().collect() })
    }
}

/// What this node is to others.
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// Its current record.
    pub record: Verified<NodeRecord>,
    /// Where it takes connections, wildcards as the addresses they stand for, without `/p2p`. Empty if it takes none.
    pub addresses: Vec<Multiaddr>,
    /// Where others reach it, beyond what it is bound to.
    pub external: Vec<External>,
    /// Program and version.
    pub agent: String,
    /// The network's name.
    pub network: String,
    /// Random for each process.
    pub instance: u64,
    /// Whether it can be dialled from outside, as far as its peers have found out; `None` if it takes no connections.
    pub reachability: Option<Reachable>,
    /// What its protocols tell of it, by name.
    pub protocols: BTreeMap<String, Value>,
}

/// A peer, as of now.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its identity.
    pub id: NodeId,
    /// Who dialled.
    pub direction: Direction,
    /// Its address as seen from here.
    pub address: SocketAddr,
    /// What both ends speak.
    pub capabilities: Vec<Capability>,
    /// Its program and version, as it says.
    pub agent: String,
    /// Whether it is kept connected.
    pub is_static: bool,
    /// Whether limits spare it.
    pub is_trusted: bool,
    /// What it is blamed for, in points: see [`Reputation`](crate::Reputation).
    pub blame: u32,
    /// Since when, since the Unix epoch.
    pub connected_at: Duration,
    /// Round trip time, once measured.
    pub round_trip: Option<Duration>,
    /// Bytes received from it in this session.
    pub bytes_in: u64,
    /// Bytes sent to it in this session.
    pub bytes_out: u64,
    /// What the protocols that both ends speak tell of it, by name.
    pub protocols: BTreeMap<String, Value>,
}

/// A change among the peers, or a message of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer was added.
    PeerUp {
        /// Who.
        id: NodeId,
        /// Who dialled.
        direction: Direction,
        /// Its address as seen from here.
        address: SocketAddr,
        /// Its program and version, as it says.
        agent: String,
    },
    /// A peer was removed.
    PeerDown {
        /// Who.
        id: NodeId,
        /// Why.
        reason: DisconnectReason,
        /// Who ended it.
        by: EndedBy,
        /// How long it was up.
        lived: Duration,
    },
    /// The node has other external addresses than before, and a new record that says so.
    LocalChanged {
        /// The record's sequence.
        seq: u64,
        /// All of them.
        external: Vec<External>,
    },
    /// The node does less than it did, or more again.
    Shedding {
        /// What it does not do.
        level: Level,
        /// Why, in a sentence; nothing if all is done again.
        why: Option<String>,
    },
    /// A message went to a peer; only with [`Config::message_events`](crate::Config::message_events).
    MsgSent {
        /// To whom.
        id: NodeId,
        /// Of which protocol, by its capability's name.
        protocol: Arc<str>,
        /// Its code, if it is of one of the application's protocols and has one.
        code: Option<u16>,
        /// How urgent.
        lane: Lane,
        /// Bytes of payload, the code not counted.
        size: u64,
    },
    /// A message came from a peer; only with [`Config::message_events`](crate::Config::message_events).
    MsgReceived {
        /// From whom.
        id: NodeId,
        /// Of which protocol, by its capability's name.
        protocol: Arc<str>,
        /// Its code, if it is of one of the application's protocols and has one.
        code: Option<u16>,
        /// How urgent.
        lane: Lane,
        /// Bytes of payload, the code not counted.
        size: u64,
    },
    /// A stream was opened; only with [`Config::message_events`](crate::Config::message_events).
    StreamOpened {
        /// With whom.
        id: NodeId,
        /// Of which protocol, by its capability's name.
        protocol: Arc<str>,
        /// How urgent.
        lane: Lane,
        /// Its number in the session.
        stream: u64,
        /// Whether this node opened it.
        by_us: bool,
    },
    /// A stream is over, in both directions or with its session; only with
    /// [`Config::message_events`](crate::Config::message_events).
    StreamEnded {
        /// With whom.
        id: NodeId,
        /// Of which protocol, by its capability's name.
        protocol: Arc<str>,
        /// How urgent.
        lane: Lane,
        /// Its number in the session.
        stream: u64,
        /// Bytes that went out.
        sent: u64,
        /// Bytes that came in.
        received: u64,
    },
}

impl Item for Event {
    /// A subscriber that is too slow loses the oldest events, and is told how many.
    fn overflow(&self) -> Overflow {
        Overflow::DropOldest
    }
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Ok,
    /// It works, and something is missing.
    Degraded,
    /// It is shutting down.
    Draining,
}

impl Status {
    /// A word for people and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Draining => "draining",
        }
    }
}

/// How a node is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// In a word.
    pub status: Status,
    /// In sentences, one for each thing that is missing.
    pub reasons: Vec<String>,
    /// What each check found.
    pub checks: Vec<Finding>,
}

#[cfg(test)]
mod tests {
    use peerage_wire::{Keypair, NetworkId, RecordDraft};

    use super::*;

    #[test]
    fn a_node_is_named_by_its_address_or_its_record() {
        let keys = Keypair::from_seed([1; 32]);
        let text = format!("/ip4/127.0.0.1/tcp/5/p2p/{}", keys.id());
        let named: PeerAddress = text.parse().expect("an address");
        let addresses = vec!["127.0.0.1:5".parse().expect("socket")];
        assert_eq!(named, PeerAddress { id: keys.id(), addresses, hosts: Vec::new() });
        let draft =
            RecordDraft::new(1, NetworkId::named("x")).address("/ip4/127.0.0.1/tcp/5".parse().expect("address"));
        let record = draft.sign(&keys).expect("small").to_string();
        assert_eq!(record.parse(), Ok(named), "however old");
    }

    #[test]
    fn a_node_may_be_named_by_its_host() {
        let id = Keypair::from_seed([1; 32]).id();
        for family in ["dns", "dns4", "dns6"] {
            let text = format!("/{family}/boot.example.org/tcp/30303");
            let named: PeerAddress = format!("{text}/p2p/{id}").parse().expect("an address");
            assert_eq!((named.id, named.addresses.len()), (id, 0));
            assert_eq!(named.hosts.iter().map(Host::to_string).collect::<Vec<_>>(), [text], "the name is kept");
        }
        assert!("/dns4/boot.example.org/tcp/30303".parse::<PeerAddress>().is_err(), "whose it is must be said");
    }

    #[test]
    fn what_names_no_node_is_refused_with_what_to_do() {
        let told = |text: &str| text.parse::<PeerAddress>().expect_err(text).to_string();
        assert!(told("/ip4/127.0.0.1/tcp/5").contains("copy the whole address"));
        assert!(told("127.0.0.1:5").contains("write it like"));
        assert!(told("pnr:garbage!").contains("base64url"));
        let keys = Keypair::from_seed([1; 32]);
        assert!(told(&format!("/ip4/1.2.3.4/udp/5/quic-v1/p2p/{}", keys.id())).contains("quic-v1"));
        let bare = RecordDraft::new(1, NetworkId::named("x")).sign(&keys).expect("small").to_string();
        assert_eq!(bare.parse::<PeerAddress>(), Err(PeerAddressError::NoAddress));
    }
}
