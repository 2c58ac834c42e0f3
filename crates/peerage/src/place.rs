//! The forms in which a program may name an address to listen at, or a node.

use std::net::SocketAddr;

use peerage_server::wire::address::{self, AddressError};
use peerage_server::{PeerAddress, PeerAddressError};

use crate::{Multiaddr, NodeRecord};

/// Something that says where to listen: a socket address, a multiaddr, or a multiaddr's text.
pub trait ToListenAddress {
    /// The TCP socket it names.
    ///
    /// # Errors
    /// What is wrong with it.
    fn to_listen_address(&self) -> Result<SocketAddr, AddressError>;
}

impl ToListenAddress for SocketAddr {
    fn to_listen_address(&self) -> Result<SocketAddr, AddressError> {
        Ok(*self)
    }
}

impl ToListenAddress for Multiaddr {
    fn to_listen_address(&self) -> Result<SocketAddr, AddressError> {
        address::require_tcp(self)
    }
}

impl ToListenAddress for str {
    fn to_listen_address(&self) -> Result<SocketAddr, AddressError> {
        address::parse(self)?.to_listen_address()
    }
}

impl ToListenAddress for String {
    fn to_listen_address(&self) -> Result<SocketAddr, AddressError> {
        self.as_str().to_listen_address()
    }
}

impl<T: ToListenAddress + ?Sized> ToListenAddress for &T {
    fn to_listen_address(&self) -> Result<SocketAddr, AddressError> {
        (**self).to_listen_address()
    }
}

/// Something that names a node: a [`PeerAddress`], a multiaddr that ends in `/p2p/` and its id, its record,
/// or the text of either.
pub trait ToPeerAddress {
    /// The node.
    ///
    /// # Errors
    /// What is wrong with it.
    fn to_peer_address(&self) -> Result<PeerAddress, PeerAddressError>;
}

impl ToPeerAddress for PeerAddress {
    fn to_peer_address(&self) -> Result<PeerAddress, PeerAddressError> {
        Ok(self.clone())
    }
}

impl ToPeerAddress for Multiaddr {
    fn to_peer_address(&self) -> Result<PeerAddress, PeerAddressError> {
        self.to_string().parse()
    }
}

impl ToPeerAddress for NodeRecord {
    fn to_peer_address(&self) -> Result<PeerAddress, PeerAddressError> {
        let peer = PeerAddress::from(self);
        if peer.addresses.is_empty() { Err(PeerAddressError::NoAddress) } else { Ok(peer) }
    }
}

impl ToPeerAddress for str {
    fn to_peer_address(&self) -> Result<PeerAddress, PeerAddressError> {
        self.parse()
    }
}

impl ToPeerAddress for String {
    fn to_peer_address(&self) -> Result<PeerAddress, PeerAddressError> {
        self.parse()
    }
}

impl<T: ToPeerAddress + ?Sized> ToPeerAddress for &T {
    fn to_peer_address(&self) -> Result<PeerAddress, PeerAddressError> {
        (**self).to_peer_address()
    }
}
