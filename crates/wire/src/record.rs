//! The signed node record: who a node is, where it listens, and which x25519 key it proves itself with.
//!
//! Layout: bincode body (version, ed25519 key, sequence, network, x25519 key, addresses, entries; bytes
//! after what this version knows are kept and ignored) ‖ 64 bytes of signature over all before it.
//! At most 300 bytes, as Ethereum's ENR. Text form: `pnr:` and base64url without padding.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use multiaddr::Multiaddr;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::codec::{self, Blob, CodecError, List};
use crate::identity::{Domain, IdentityError, Keypair, NodeId, Signature};
use crate::{NetworkId, address};

/// Longest record in bytes.
pub const MAX_RECORD: usize = 300;
/// Entries of applications in a record.
pub const MAX_ENTRIES: usize = 8;
/// Bytes of an entry's key.
pub const MAX_ENTRY_KEY: usize = 16;
const DOMAIN: Domain = Domain::new("peerage record 1");
const TEXT_PREFIX: &str = "pnr:";
const VERSION: u8 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    version: u8,
    id: NodeId,
    seq: u64,
    network: NetworkId,
    noise_key: [u8; 32],
    addresses: List<Blob<64>, 8>,
    entries: List<(Blob<MAX_ENTRY_KEY>, Blob<96>), MAX_ENTRIES>,
}

/// Why bytes or text are not a usable record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not text of a record.
    #[error("not a record: it must be `pnr:` and base64url text")]
    NotText,
    /// The bytes do not decode.
    #[error("record: {0}")]
    Codec(#[from] CodecError),
    /// The record would be longer than [`MAX_RECORD`].
    #[error("a record of {0} bytes, and at most {MAX_RECORD} fit")]
    TooLong(usize),
    /// A layout this version does not read.
    #[error("record version {0} is not known here")]
    Version(u8),
    /// An address in it is not a multiaddr.
    #[error("a record with a malformed address")]
    Address,
    /// More addresses or entries than a record holds, or one too long.
    #[error("a record holds at most 8 addresses of 64 bytes and 8 entries of 16 and 96 bytes")]
    TooMany,
    /// Entries are not sorted by key, each key once.
    #[error("record entries out of order")]
    Order,
    /// Not signed by the node it names.
    #[error("record signature: {0}")]
    Signature(#[from] IdentityError),
}

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    body: Body,
    addresses: Vec<Multiaddr>,
    /// Of the addresses, read once: every packet that names the record asks for them.
    tcp: Sockets,
    udp: Sockets,
}

/// Most records have one of a kind; it is where the record is.
type Sockets = SmallVec<[SocketAddr; 1]>;

impl Inner {
    fn new(bytes: Vec<u8>, body: Body, addresses: Vec<Multiaddr>) -> Inner {
        let tcp = addresses.iter().filter_map(address::tcp_socket).collect();
        let udp = addresses.iter().filter_map(address::udp_socket).collect();
        Inner { bytes, body, addresses, tcp, udp }
    }
}

/// A well-formed record; whether its owner signed it is known of a [`Verified`] one only.
///
/// Cheap to clone: clones share the bytes.
#[derive(Clone)]
pub struct NodeRecord(Arc<Inner>);

impl NodeRecord {
    /// Reads a record's bytes, without checking its signature.
    ///
    /// # Errors
    /// [`RecordError`], naming what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<NodeRecord, RecordError> {
        let signed = bytes.len().checked_sub(64).ok_or(CodecError::Malformed("too short".into()))?;
        if bytes.len() > MAX_RECORD {
            return Err(RecordError::TooLong(bytes.len()));
        }
        let (body, _) = codec::decode_prefix::<Body>(&bytes[..signed], MAX_RECORD)?;
        if body.version != VERSION {
            return Err(RecordError::Version(body.version));
        }
        if !body.entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(RecordError::Order);
        }
        let addresses = body
            .addresses
            .iter()
            .map(|bytes| Multiaddr::try_from(bytes.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|_| RecordError::Address)?;
        Ok(NodeRecord(Arc::new(Inner::new(bytes.to_vec(), body, addresses))))
    }

    /// Checks the owner's signature over the bytes as received.
    ///
    /// # Errors
    /// [`RecordError::Signature`].
    pub fn verify(self) -> Result<Verified<NodeRecord>, RecordError> {
        let (signed, signature) = self.0.bytes.split_at(self.0.bytes.len() - 64);
        let signature: &Signature = signature.try_into().expect("split 64 bytes before the end");
        self.id().verify(DOMAIN, signed, signature)?;
        Ok(Verified(self))
    }

    /// The bytes as received or signed.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Whose record it is.
    pub fn id(&self) -> NodeId {
        self.0.body.id
    }

    /// Unix milliseconds of signing; of two records of a node, the higher is the newer.
    pub fn seq(&self) -> u64 {
        self.0.body.seq
    }

    /// When it was signed, since the Unix epoch.
    pub fn signed_at(&self) -> Duration {
        Duration::from_millis(self.seq())
    }

    /// The network its owner belongs to.
    pub fn network(&self) -> NetworkId {
        self.0.body.network
    }

    /// The x25519 key its owner proves in the handshake.
    pub fn noise_key(&self) -> &[u8; 32] {
        &self.0.body.noise_key
    }

    /// Where its owner says it listens, best first, without `/p2p`.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.0.addresses
    }

    /// The addresses that name a TCP port on an IP, best first.
    pub fn tcp_sockets(&self) -> &[SocketAddr] {
        &self.0.tcp
    }

    /// The addresses that name a UDP port on an IP, best first.
    pub fn udp_sockets(&self) -> &[SocketAddr] {
        &self.0.udp
    }

    /// The first address that names a TCP port on an IP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.0.tcp.first().copied()
    }

    /// The first address that names a UDP port on an IP.
    pub fn udp_address(&self) -> Option<SocketAddr> {
        self.0.udp.first().copied()
    }

    /// What the application added under `key`.
    pub fn entry(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.body.entries.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value)
    }
}

impl PartialEq for NodeRecord {
    fn eq(&self, other: &NodeRecord) -> bool {
        // Most records that are compared are the same memory.
        Arc::ptr_eq(&self.0, &other.0) || self.0.bytes == other.0.bytes
    }
}

impl Eq for NodeRecord {}

impl fmt::Display for NodeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TEXT_PREFIX}{}", BASE64URL_NOPAD.encode(&self.0.bytes))
    }
}

impl fmt::Debug for NodeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeRecord({:?} seq {} {:?})", self.id(), self.seq(), self.addresses())
    }
}

impl FromStr for NodeRecord {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<NodeRecord, RecordError> {
        let text = text.strip_prefix(TEXT_PREFIX).ok_or(RecordError::NotText)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| RecordError::NotText)?;
        NodeRecord::decode(&bytes)
    }
}

impl Serialize for NodeRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.bytes)
    }
}

/// Reads what [`NodeRecord::decode`] does, and so without checking the signature.
impl<'de> Deserialize<'de> for NodeRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NodeRecord, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = NodeRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a record of at most {MAX_RECORD} bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<NodeRecord, E> {
                NodeRecord::decode(bytes).map_err(E::custom)
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// A value whose signature has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Takes the value's word for it. For simulated worlds, where no signature is ever computed.
    pub fn assume(value: T) -> Verified<T> {
        Verified(value)
    }

    /// The value by itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Checks the signature again: no bytes can claim to be verified.
impl<'de> Deserialize<'de> for Verified<NodeRecord> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NodeRecord::deserialize(deserializer)?.verify().map_err(D::Error::custom)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Display> fmt::Display for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record being written.
#[derive(Clone, Debug)]
pub struct RecordDraft {
    seq: u64,
    network: NetworkId,
    addresses: Vec<Multiaddr>,
    entries: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
}

impl RecordDraft {
    /// A record signed at `seq`, Unix milliseconds, for a network.
    pub fn new(seq: u64, network: NetworkId) -> RecordDraft {
        RecordDraft { seq, network, addresses: Vec::new(), entries: Default::default() }
    }

    /// Adds an address to listen at; put the best first.
    pub fn address(mut self, address: Multiaddr) -> RecordDraft {
        self.addresses.push(address);
        self
    }

    /// Sets what the application says under `key`.
    pub fn entry(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> RecordDraft {
        self.entries.insert(key.into(), value.into());
        self
    }

    /// Signs the record.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] or [`RecordError::TooMany`].
    pub fn sign(self, keys: &Keypair) -> Result<Verified<NodeRecord>, RecordError> {
        let addresses: Option<Vec<_>> = self.addresses.iter().map(|address| Blob::new(address.to_vec())).collect();
        let entries: Option<Vec<_>> =
            self.entries.into_iter().map(|(key, value)| Some((Blob::new(key)?, Blob::new(value)?))).collect();
        let body = Body {
            version: VERSION,
            id: keys.id(),
            seq: self.seq,
            network: self.network,
            noise_key: keys.noise_public(),
            addresses: addresses.and_then(List::new).ok_or(RecordError::TooMany)?,
            entries: entries.and_then(List::new).ok_or(RecordError::TooMany)?,
        };
        let mut bytes = codec::encode(&body);
        let signature = keys.sign(DOMAIN, &bytes);
        bytes.extend_from_slice(&signature);
        if bytes.len() > MAX_RECORD {
            return Err(RecordError::TooLong(bytes.len()));
        }
        Ok(Verified(NodeRecord(Arc::new(Inner::new(bytes, body, self.addresses)))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keypair {
        Keypair::from_seed([7; 32])
    }

    fn draft() -> RecordDraft {
        RecordDraft::new(1_700_000_000_000, NetworkId::named("test"))
            .address("/ip4/192.0.2.1/tcp/30303".parse().expect("multiaddr"))
            .address("/ip4/192.0.2.1/udp/30303".parse().expect("multiaddr"))
            .entry("fork", [1, 2, 3, 4])
    }

    fn sample() -> Verified<NodeRecord> {
        draft().sign(&keys()).expect("small")
    }

    #[test]
    fn a_record_is_these_bytes() {
        let record = sample();
        assert_eq!(record.to_string(), SAMPLE_TEXT);
        assert_eq!(record.bytes().len(), SAMPLE_LEN);
    }

    const SAMPLE_LEN: usize = 177;
    const SAMPLE_TEXT: &str = "pnr:AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs_QBo5c-LAQAAxN69UvmusP9B7Vy_xb-us49NdnLsaQC2WTwjlkfffURiLUwFSQ_5LAIIBMAAAgEGdl8JBMAAAgGRAnZfAQRmb3JrBAECAwSEnlohsQIEWDzHaZcnNmQ6z9dm7QeQ7Vkoy94bpNTGI9nqyhJq0JMzz1cdCVi1xXq5RQ96ag6NBN1htwyLV7YF";

    #[test]
    fn text_comes_back_with_everything_in_it() {
        let back: NodeRecord = sample().to_string().parse().expect("its own text");
        let back = back.verify().expect("its own signature");
        assert_eq!(back.id(), keys().id());
        assert_eq!(back.seq(), 1_700_000_000_000);
        assert_eq!(back.entry(b"fork"), Some(&[1, 2, 3, 4][..]));
        assert_eq!(back.entry(b"other"), None);
        assert_eq!(back.tcp_address(), Some("192.0.2.1:30303".parse().expect("address")));
        assert_eq!(back.udp_address(), Some("192.0.2.1:30303".parse().expect("address")));
        assert_eq!(*back.noise_key(), keys().noise_public());
    }

    #[test]
    fn no_byte_of_a_record_can_be_changed() {
        let bytes = sample().bytes().to_vec();
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(NodeRecord::decode(&changed).and_then(NodeRecord::verify).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_record_that_is_read_by_serde_is_verified_only_if_its_signature_holds() {
        let bytes = codec::encode(&sample());
        assert_eq!(codec::decode_exact::<Verified<NodeRecord>>(&bytes, 400), Ok(sample()));
        let mut forged = bytes.clone();
        *forged.last_mut().expect("not empty") ^= 1;
        let error = codec::decode_exact::<Verified<NodeRecord>>(&forged, 400).expect_err("forged").to_string();
        assert!(error.contains("signature"), "{error}");
        assert!(codec::decode_exact::<NodeRecord>(&forged, 400).is_ok(), "an unverified one makes no such claim");
    }

    #[test]
    fn fields_of_a_later_version_are_carried_untouched() {
        let mut bytes = sample().bytes().to_vec();
        bytes.truncate(bytes.len() - 64);
        bytes.extend_from_slice(b"later");
        let signature = keys().sign(DOMAIN, &bytes);
        bytes.extend_from_slice(&signature);
        let record = NodeRecord::decode(&bytes).expect("known fields decode").verify().expect("signed with the rest");
        assert_eq!(record.bytes(), bytes);
    }

    #[test]
    fn a_record_that_does_not_fit_is_refused_when_signed() {
        let long = draft().entry("a", [0; 96]).entry("b", [0; 96]);
        assert!(matches!(long.sign(&keys()), Err(RecordError::TooLong(_))));
        assert_eq!(draft().entry("a", [0; 97]).sign(&keys()), Err(RecordError::TooMany));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = NodeRecord::decode(&bytes).and_then(NodeRecord::verify);
        }

        #[test]
        fn a_damaged_record_never_panics(position in 0usize..200, to: u8) {
            let mut bytes = sample().bytes().to_vec();
            let position = position % bytes.len();
            bytes[position] = to;
            let _ = NodeRecord::decode(&bytes);
            bytes.truncate(position);
            let _ = NodeRecord::decode(&bytes);
        }
    }
}
