//! Who a node is: an ed25519 key, and what may be signed with it.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use libp2p_identity::PeerId;
use multiaddr::multihash::Multihash;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// What a signature is for. It is signed along, so that none can be replayed for another use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(&'static str);

impl Domain {
    /// A use of signatures; names must be unique in a network and at most 255 bytes.
    pub const fn new(name: &'static str) -> Domain {
        assert!(name.len() <= 255, "a domain name is at most 255 bytes");
        Domain(name)
    }

    fn prefixed(self, message: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.0.len() + message.len());
        // The length keeps one domain from being the beginning of another.
        bytes.push(self.0.len() as u8);
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.extend_from_slice(message);
        bytes
    }
}

/// 64 bytes of ed25519 signature.
pub type Signature = [u8; 64];

/// Why text is not a node's id, or a signature not a node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not base58 text of a PeerId.
    #[error("not a peer id: {0}")]
    NotAPeerId(String),
    /// A PeerId, but of another kind of key.
    #[error("a peer id of another key type (ed25519 ids begin with 12D3KooW)")]
    NotEd25519,
    /// The signature is not this node's over these bytes.
    #[error("signature does not match")]
    BadSignature,
}

/// A node's identity: its 32-byte ed25519 public key.
///
/// Printed as libp2p prints it (`12D3KooW…`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

/// The protobuf header of an ed25519 key of 32 bytes, as libp2p's identity multihash wraps it.
const PEER_ID_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];

impl NodeId {
    /// The id with these key bytes. Whether they are a usable key shows when a signature is checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> NodeId {
        NodeId(bytes)
    }

    /// The key bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature by this node, strictly: weak keys and non-canonical encodings are refused,
    /// as otherwise two nodes could disagree about one message.
    ///
    /// # Errors
    /// [`IdentityError::BadSignature`].
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &Signature) -> Result<(), IdentityError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| IdentityError::BadSignature)?;
        key.verify_strict(&domain.prefixed(message), &ed25519_dalek::Signature::from_bytes(signature))
            .map_err(|_| IdentityError::BadSignature)
    }

    /// The same identity as libp2p's type, for multiaddrs.
    pub fn to_peer_id(self) -> PeerId {
        let mut digest = [0; 36];
        digest[..4].copy_from_slice(&PEER_ID_PREFIX);
        digest[4..].copy_from_slice(&self.0);
        let hash = Multihash::<64>::wrap(0, &digest).expect("36 bytes fit a 64-byte multihash");
        PeerId::from_multihash(hash).expect("an identity multihash of 36 bytes is a PeerId")
    }

    /// The identity in a libp2p PeerId, if it is of an ed25519 key.
    ///
    /// # Errors
    /// [`IdentityError::NotEd25519`].
    pub fn from_peer_id(peer: &PeerId) -> Result<NodeId, IdentityError> {
        let hash: &Multihash<64> = peer.as_ref();
        match (hash.code(), hash.digest().split_first_chunk::<4>()) {
            (0, Some((&PEER_ID_PREFIX, key))) => key.try_into().map(NodeId).map_err(|_| IdentityError::NotEd25519),
            _ => Err(IdentityError::NotEd25519),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_peer_id(), f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first four key bytes: enough to tell nodes of a test apart.
        write!(f, "node:{}", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

impl FromStr for NodeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<NodeId, IdentityError> {
        let peer = PeerId::from_str(text).map_err(|error| IdentityError::NotAPeerId(error.to_string()))?;
        NodeId::from_peer_id(&peer)
    }
}

/// A node's secret. Never printed; overwritten when dropped.
pub struct Keypair {
    signing: SigningKey,
}

impl Keypair {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn generate() -> Result<Keypair, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut())?;
        Ok(Keypair::from_seed(*seed))
    }

    /// The key of a 32-byte secret, which is what a key file holds.
    pub fn from_seed(mut seed: [u8; 32]) -> Keypair {
        let signing = SigningKey::from_bytes(&seed);
        seed.zeroize();
        Keypair { signing }
    }

    /// The secret, to be written to a key file.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// The public half.
    pub fn id(&self) -> NodeId {
        NodeId(self.signing.verifying_key().to_bytes())
    }

    /// Signs `message` for one use.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Signature {
        self.signing.sign(&domain.prefixed(message)).to_bytes()
    }

    /// The x25519 secret for handshakes. Derived, so that one file holds all of a node's secrets; the
    /// derivation is one-way, so a leaked handshake key does not reveal the identity.
    pub fn noise_secret(&self) -> Zeroizing<[u8; 32]> {
        let seed = self.to_seed();
        Zeroizing::new(blake3::derive_key("peerage 2026-11 x25519 static key of an identity", seed.as_ref()))
    }

    /// The public half of [`noise_secret`](Keypair::noise_secret), which the record carries.
    pub fn noise_public(&self) -> [u8; 32] {
        let secret = x25519_dalek::StaticSecret::from(*self.noise_secret());
        x25519_dalek::PublicKey::from(&secret).to_bytes()
    }
}

impl Clone for Keypair {
    fn clone(&self) -> Self {
        Keypair { signing: self.signing.clone() }
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({:?})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Domain = Domain::new("a");
    const B: Domain = Domain::new("b");

    #[test]
    fn text_is_the_libp2p_form_and_comes_back() {
        let id = Keypair::from_seed([7; 32]).id();
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<NodeId>(), Ok(id));
    }

    /// libp2p specs, peer-ids/peer-ids.md: the ed25519 vector.
    #[test]
    fn the_libp2p_vector_has_its_peer_id() {
        let hex = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
        let key = data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex");
        let id = NodeId::from_bytes(key.try_into().expect("32 bytes"));
        assert_eq!(NodeId::from_peer_id(&id.to_peer_id()), Ok(id));
        assert_eq!(id.to_peer_id().to_bytes()[..6], [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
    }

    #[test]
    fn other_key_types_and_nonsense_are_refused_with_their_reason() {
        let rsa = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        assert_eq!(rsa.parse::<NodeId>(), Err(IdentityError::NotEd25519));
        assert!(matches!("hello".parse::<NodeId>(), Err(IdentityError::NotAPeerId(_))));
    }

    #[test]
    fn a_signature_holds_for_its_bytes_its_use_and_its_signer_only() {
        let keys = Keypair::from_seed([1; 32]);
        let signature = keys.sign(A, b"hi");
        assert_eq!(keys.id().verify(A, b"hi", &signature), Ok(()));
        assert!(keys.id().verify(B, b"hi", &signature).is_err());
        assert!(keys.id().verify(A, b"ho", &signature).is_err());
        assert!(Keypair::from_seed([2; 32]).id().verify(A, b"hi", &signature).is_err());
        assert!(NodeId::from_bytes([0; 32]).verify(A, b"hi", &[0; 64]).is_err(), "a weak key signs nothing");
    }

    #[test]
    fn a_printed_keypair_shows_no_secret() {
        let keys = Keypair::from_seed([0x42; 32]);
        assert!(!format!("{keys:?}").contains("4242"));
    }
}
