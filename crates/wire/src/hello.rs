//! The greeting both ends exchange inside the handshake, and what they agree on by it.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{Blob, List, Text};

/// Which network a node belongs to: the first eight bytes of a keyed hash of its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId([u8; 8]);

impl NetworkId {
    /// The id of the network with this name.
    pub fn named(name: &str) -> NetworkId {
        let hash = blake3::derive_key("peerage 2026-11 network id of a name", name.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        NetworkId(id)
    }

    /// The bytes on the wire.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Which fork of its network a node follows: up to 32 bytes that only the application understands. Compared byte for
/// byte; empty where an application has no forks.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForkId {
    /// Behind the length all are zero, so that equal ids are equal values.
    bytes: [u8; ForkId::MAX],
    len: u8,
}

impl ForkId {
    /// Longest id, in bytes.
    pub const MAX: usize = 32;

    /// The id of these bytes; `None` if there are more than 32.
    pub fn new(bytes: &[u8]) -> Option<ForkId> {
        let mut id = ForkId { bytes: [0; ForkId::MAX], len: u8::try_from(bytes.len()).ok()? };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(id)
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for ForkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(self.as_bytes()))
    }
}

/// As a [`Blob`].
impl Serialize for ForkId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for ForkId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Blob::<{ ForkId::MAX }>::deserialize(deserializer)?;
        ForkId::new(&bytes).ok_or_else(|| D::Error::invalid_length(bytes.len(), &"at most 32 bytes"))
    }
}

/// A protocol a node speaks, at one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Capability {
    /// Its name; both ends compare bytes.
    pub name: Text<16>,
    /// Its version.
    pub version: u16,
}

impl Capability {
    /// `name/version`; `None` if the name is longer than 16 bytes.
    pub fn new(name: &str, version: u16) -> Option<Capability> {
        Some(Capability { name: Text::new(name)?, version })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// Text that names no protocol and version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no protocol and version; write it like eth/69, with a name of at most 16 bytes")]
pub struct CapabilityError(String);

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Capability, CapabilityError> {
        let parts = text.split_once('/').filter(|(name, _)| !name.is_empty());
        let read = parts.and_then(|(name, version)| Capability::new(name, version.parse().ok()?));
        read.ok_or_else(|| CapabilityError(text.to_owned()))
    }
}

/// What a node says of itself in the handshake. Bytes after it belong to a later version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the session protocol: [`Hello::VERSION`].
    pub version: u16,
    /// The sender's network.
    pub network: NetworkId,
    /// The application's idea of which fork of the network it follows.
    pub fork_id: ForkId,
    /// Random for each process: tells a restarted peer from a second connection.
    pub instance: u64,
    /// Program and version, for people.
    pub agent: Text<64>,
    /// What the sender speaks.
    pub capabilities: List<Capability, 32>,
}

impl Hello {
    /// The session protocol this crate describes.
    pub const VERSION: u16 = 1;
    /// Longest greeting, in bytes, of this and later versions.
    pub const MAX: usize = 1024;
}

/// A capability both ends speak, and the channel it gets in their session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MatchedCapability {
    /// Channel 0 is the session's own; capabilities count from 1.
    pub channel: u16,
    /// At the highest version both speak.
    pub capability: Capability,
}

/// What both ends speak, sorted by name, at the highest common version each. Both compute the same list
/// (geth p2p/peer.go `matchProtocols`).
pub fn match_capabilities(ours: &[Capability], theirs: &[Capability]) -> Vec<MatchedCapability> {
    let mut common: Vec<&Capability> = ours.iter().filter(|capability| theirs.contains(capability)).collect();
    common.sort();
    common.dedup();
    let mut matched: Vec<MatchedCapability> = Vec::new();
    for capability in common {
        match matched.last_mut() {
            Some(last) if last.capability.name == capability.name => last.capability = capability.clone(),
            _ => {
                let channel = matched.len() as u16 + 1;
                matched.push(MatchedCapability { channel, capability: capability.clone() });
            }
        }
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn capabilities(list: &[(&str, u16)]) -> Vec<Capability> {
        list.iter().map(|(name, version)| Capability::new(name, *version).expect("short")).collect()
    }

    fn matched(ours: &[(&str, u16)], theirs: &[(&str, u16)]) -> String {
        let pairs = match_capabilities(&capabilities(ours), &capabilities(theirs));
        pairs.iter().map(|m| format!("{}:{}", m.channel, m.capability)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_ends_agree_on_the_highest_common_versions() {
        assert_eq!(matched(&[("gossip", 1)], &[("router", 1)]), "");
        assert_eq!(matched(&[("gossip", 1)], &[("gossip", 1)]), "1:gossip/1");
        assert_eq!(matched(&[("gossip", 2), ("gossip", 1)], &[("gossip", 1), ("gossip", 2)]), "1:gossip/2");
        assert_eq!(matched(&[("gossip", 3), ("gossip", 1)], &[("gossip", 2), ("gossip", 1)]), "1:gossip/1");
        let (a, b) = ([("b", 1), ("a", 2), ("a", 1)], [("a", 1), ("c", 9), ("b", 1), ("a", 2), ("b", 1)]);
        assert_eq!(matched(&a, &b), "1:a/2 2:b/1");
        assert_eq!(matched(&b, &a), matched(&a, &b));
    }

    #[test]
    fn a_capability_is_read_as_it_is_written() {
        for text in ["gossip/1", "a/65535"] {
            assert_eq!(text.parse::<Capability>().map(|read| read.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "gossip", "/1", "gossip/", "gossip/x", "gossip/65536", "seventeen-letters/1", "a/b/1"] {
            assert!(text.parse::<Capability>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_fork_id_is_any_bytes_up_to_its_length_and_travels_as_a_blob() {
        for len in 0..=ForkId::MAX {
            let bytes = vec![7; len];
            let id = ForkId::new(&bytes).expect("short");
            assert_eq!((id.as_bytes(), format!("{id:?}")), (&bytes[..], "07".repeat(len)));
            let encoded = codec::encode(&id);
            assert_eq!(encoded, codec::encode(&Blob::<32>::new(bytes).expect("short")));
            assert_eq!(codec::decode_exact(&encoded, 64), Ok(id));
        }
        for len in [33, 255, 256, 288] {
            assert_eq!(ForkId::new(&vec![0; len]), None, "{len}");
            let encoded = codec::encode(&Blob::<300>::new(vec![0; len]).expect("short"));
            assert!(codec::decode_exact::<ForkId>(&encoded, 400).is_err(), "{len}");
        }
        let id = |bytes: &[u8]| ForkId::new(bytes).expect("short");
        assert_ne!(id(&[]), id(&[0]));
        assert!(id(&[]) < id(&[0]) && id(&[1]) < id(&[1, 0]) && id(&[1, 0]) < id(&[2]));
    }

    #[test]
    fn a_greeting_is_these_bytes_and_ignores_later_fields() {
        let hello = Hello {
            version: Hello::VERSION,
            network: NetworkId::named("test"),
            fork_id: ForkId::new(&[9, 9]).expect("short"),
            instance: 0x0102_0304_0506_0708,
            agent: Text::new("peerage/0.1.0").expect("short"),
            capabilities: List::new(capabilities(&[("gossip", 1)])).expect("few"),
        };
        let mut bytes = codec::encode(&hello);
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), HELLO);
        bytes.extend_from_slice(b"a later version's");
        assert_eq!(codec::decode_prefix::<Hello>(&bytes, Hello::MAX).map(|(hello, _)| hello), Ok(hello));
    }

    const HELLO: &str = "01c4debd52f9aeb0ff020909fd08070605040302010d706565726167652f302e312e300106676f7373697001";
}
