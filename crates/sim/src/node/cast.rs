//! What all nodes of a world share: who is who, and what signatures would say.

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;

use bytes::Bytes;
use peerage_gossip::{Check, Claim};
use peerage_wire::{Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, RecordError, Signature, Verified, address};
use rustc_hash::FxHashMap;

use super::part::Room;

/// Records of a node that may still be on their way.
const RECORDS: usize = 4;
/// The longest payload that a message stands for.
const LONGEST: usize = 32 << 20;

/// The nodes of a world by name, and the oracle that stands for cryptography: it knows who signed what, so nothing is
/// signed or checked but each node's own record, once when it is made.
pub struct Cast {
    network: NetworkId,
    secret: [u8; 32],
    /// Each node's records as it made them; the same memory wherever they travel.
    genuine: RefCell<FxHashMap<NodeId, Vec<Verified<NodeRecord>>>>,
    zeros: OnceCell<Bytes>,
    /// For effects.
    pub(super) discovery_room: Room<peerage_discovery::Out>,
    pub(super) gossip_room: Room<peerage_gossip::Out>,
}

impl Cast {
    /// The cast of a network's world.
    pub fn new(network: NetworkId, seed: u64) -> Cast {
        let secret = blake3::derive_key("peerage 2026-11 simulated signatures", &seed.to_be_bytes());
        Cast {
            network,
            secret,
            genuine: RefCell::default(),
            zeros: OnceCell::new(),
            discovery_room: Room::default(),
            gossip_room: Room::default(),
        }
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// A node's record as of `seq`, with one address for connections and datagrams.
    ///
    /// # Errors
    /// If there is no room in it, which one address leaves.
    pub fn record(&self, keys: &Keypair, seq: u64, at: SocketAddr) -> Result<Verified<NodeRecord>, RecordError> {
        let draft = RecordDraft::new(seq, self.network).address(address::from_tcp(at)).address(address::from_udp(at));
        let record = draft.sign(keys)?;
        let mut genuine = self.genuine.borrow_mut();
        let records = genuine.entry(record.id()).or_default();
        if records.len() == RECORDS {
            records.remove(0);
        }
        records.push(record.clone());
        Ok(record)
    }

    /// The record as its owner made it, if it is one that the owner made.
    pub fn verify(&self, record: &NodeRecord) -> Option<Verified<NodeRecord>> {
        let genuine = self.genuine.borrow();
        let records = genuine.get(&record.id())?;
        records.iter().rev().find(|known| ***known == *record).cloned()
    }

    /// What stands for a node's signature of a claim. For its own publications only: that nobody else asks for it is
    /// what makes it a signature.
    pub fn sign(&self, publisher: NodeId, claim: &Claim) -> Signature {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(publisher.as_bytes());
        hasher.update(&claim.id.0);
        hasher.update(&claim.issued.to_be_bytes());
        let mut signature = [0; 64];
        hasher.finalize_xof().fill(&mut signature);
        signature
    }

    /// Whether a signature is what [`sign`](Cast::sign) gave.
    pub fn holds(&self, check: &Check) -> bool {
        self.sign(check.publisher, &check.claim) == check.signature
    }

    /// Bytes that stand for a message in lanes, where only their number counts.
    pub(super) fn filling(&self, bytes: usize) -> Bytes {
        let zeros = self.zeros.get_or_init(|| Bytes::from(vec![0; LONGEST]));
        zeros.slice(..bytes.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use peerage_gossip::MessageId;

    use super::*;

    #[test]
    fn only_what_a_node_made_is_genuine() {
        let cast = Cast::new(NetworkId::named("test"), 1);
        let (keys, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        let at: SocketAddr = (Ipv4Addr::new(20, 0, 0, 1), 30303).into();
        let record = cast.record(&keys, 5, at).expect("it fits");
        assert_eq!(cast.verify(&record), Some(record.clone()));
        // The same words, signed by nobody the cast knows.
        let mut forged = record.bytes().to_vec();
        *forged.last_mut().expect("a signature") ^= 1;
        assert_eq!(cast.verify(&NodeRecord::decode(&forged).expect("well-formed")), None);
        let claim = Claim { id: MessageId([3; 32]), issued: 4 };
        let signature = cast.sign(keys.id(), &claim);
        let check = |publisher, claim| Check { publisher, claim, signature };
        assert!(cast.holds(&check(keys.id(), claim)));
        assert!(!cast.holds(&check(other.id(), claim)));
        assert!(!cast.holds(&check(keys.id(), Claim { issued: 5, ..claim })));
    }
}
