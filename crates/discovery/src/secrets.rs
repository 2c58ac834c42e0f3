//! The keys behind cookies and nonces.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::NodeId;
use zeroize::Zeroizing;

use crate::net::peer_at;
use crate::wire::Cookie;

/// What makes this node's cookies and nonces its own. Never printed, never recorded; clones share one copy,
/// which is overwritten when the last is dropped.
#[derive(Clone)]
pub struct Secrets(Arc<Keys>);

struct Keys {
    cookie: Zeroizing<[u8; 32]>,
    nonce: Zeroizing<[u8; 32]>,
}

impl Secrets {
    /// From the operating system's randomness.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn generate() -> Result<Secrets, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut())?;
        Ok(Secrets::from_seed(&seed))
    }

    /// From a given secret: for tests and virtual time, where a run must repeat.
    pub fn from_seed(seed: &[u8; 32]) -> Secrets {
        Secrets(Arc::new(Keys {
            cookie: Zeroizing::new(blake3::derive_key("peerage 2026-11 discovery cookies", seed)),
            nonce: Zeroizing::new(blake3::derive_key("peerage 2026-11 discovery nonces", seed)),
        }))
    }

    /// The keyed hash that only this node can make of a request's counter, for the peer it goes to.
    pub fn nonce_mac(&self, peer: NodeId, addr: SocketAddr, counter: u64) -> [u8; 8] {
        let hash = tag(&self.0.nonce, peer, addr, counter);
        let mut mac = [0; 8];
        mac.copy_from_slice(&hash[..8]);
        mac
    }

    /// The cookie for a peer at an address, at `now`.
    pub fn cookie(&self, peer: NodeId, addr: SocketAddr, now: Time, epoch: Duration) -> Cookie {
        self.cookie_of(peer, addr, epoch_at(now, epoch))
    }

    /// Whether a cookie was given to this peer at this address in this epoch or the one before.
    pub fn accepts(&self, cookie: Cookie, peer: NodeId, addr: SocketAddr, now: Time, epoch: Duration) -> bool {
        let current = epoch_at(now, epoch);
        let same = |epoch| self.cookie_of(peer, addr, epoch) == cookie;
        same(current) || current.checked_sub(1).is_some_and(same)
    }

    fn cookie_of(&self, peer: NodeId, addr: SocketAddr, epoch: u64) -> Cookie {
        let hash = tag(&self.0.cookie, peer, addr, epoch);
        let mut cookie = [0; 16];
        cookie.copy_from_slice(&hash[..16]);
        Cookie(cookie)
    }
}

/// Epochs are counted in running time, which no wall clock can step.
fn epoch_at(now: Time, epoch: Duration) -> u64 {
    u64::try_from(now.running().as_nanos() / epoch.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn tag(key: &[u8; 32], peer: NodeId, addr: SocketAddr, number: u64) -> [u8; 32] {
    let mut input = [0; 58];
    input[..50].copy_from_slice(&peer_at(peer, addr));
    input[50..].copy_from_slice(&number.to_be_bytes());
    *blake3::keyed_hash(key, &input).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn a_cookie_is_good_for_its_epoch_and_the_next() {
        let secrets = Secrets::from_seed(&[1; 32]);
        let (peer, from) = (NodeId::from_bytes([2; 32]), addr("192.0.2.1:5"));
        let cookie = secrets.cookie(peer, from, at(100), EPOCH);
        assert!(secrets.accepts(cookie, peer, from, at(100), EPOCH));
        assert!(secrets.accepts(cookie, peer, from, at(1_199), EPOCH));
        assert!(!secrets.accepts(cookie, peer, from, at(1_200), EPOCH));
        assert!(!secrets.accepts(Cookie::NONE, peer, from, at(100), EPOCH));
    }

    #[test]
    fn a_cookie_is_good_for_its_peer_address_and_giver_only() {
        let secrets = Secrets::from_seed(&[1; 32]);
        let (peer, from) = (NodeId::from_bytes([2; 32]), addr("192.0.2.1:5"));
        let cookie = secrets.cookie(peer, from, at(0), EPOCH);
        assert!(!secrets.accepts(cookie, NodeId::from_bytes([3; 32]), from, at(0), EPOCH));
        assert!(!secrets.accepts(cookie, peer, addr("192.0.2.2:5"), at(0), EPOCH));
        assert!(!secrets.accepts(cookie, peer, addr("192.0.2.1:6"), at(0), EPOCH));
        assert!(!Secrets::from_seed(&[9; 32]).accepts(cookie, peer, from, at(0), EPOCH));
        assert!(secrets.accepts(cookie, peer, addr("[::ffff:192.0.2.1]:5"), at(0), EPOCH), "the same address");
    }

    #[test]
    fn a_nonce_belongs_to_one_request_to_one_peer() {
        let secrets = Secrets::from_seed(&[1; 32]);
        let (peer, to) = (NodeId::from_bytes([2; 32]), addr("192.0.2.1:5"));
        let mac = secrets.nonce_mac(peer, to, 7);
        assert_eq!(mac, Secrets::from_seed(&[1; 32]).nonce_mac(peer, to, 7));
        assert_ne!(mac, secrets.nonce_mac(peer, to, 8));
        assert_ne!(mac, secrets.nonce_mac(peer, addr("192.0.2.1:6"), 7));
        assert_ne!(mac, secrets.nonce_mac(NodeId::from_bytes([3; 32]), to, 7));
    }
}
