//! What a gossip message is: its topic, its id, and what its publisher signs.

use std::borrow::Borrow;
use std::fmt;
use std::panic::catch_unwind;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use bytes::Bytes;
use peerage_wire::{Domain, Keypair, NodeId, Signature};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

/// Longest topic name, in bytes.
pub const MAX_TOPIC: usize = 64;

static SIGNED_ID: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 gossip id of a signed message"));
static ANONYMOUS_ID: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 gossip id of an anonymous message"));
static FINGERPRINT: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 gossip fingerprint of a copy"));
const DOMAIN: Domain = Domain::new("peerage gossip message 1");

/// The name of a topic: 1 to [`MAX_TOPIC`] bytes of UTF-8, compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Topic(Arc<str>);

/// A name that no topic can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a topic's name is 1 to {MAX_TOPIC} bytes long, not {0}")]
pub struct TopicError(
    /// Bytes in the name.
    pub usize,
);

impl Topic {
    /// The topic of this name.
    ///
    /// # Errors
    /// [`TopicError`].
    pub fn new(name: &str) -> Result<Topic, TopicError> {
        if name.is_empty() || name.len() > MAX_TOPIC {
            return Err(TopicError(name.len()));
        }
        Ok(Topic(name.into()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length that precedes the name wherever it is hashed or sent.
    pub(crate) fn len_byte(&self) -> u8 {
        u8::try_from(self.0.len()).expect("a topic has at most 64 bytes by construction")
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Topic, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Topic;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a name of 1 to {MAX_TOPIC} bytes")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Topic, E> {
                Topic::new(name).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(name: &str) -> Result<Topic, TopicError> {
        Topic::new(name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whether messages of a topic say who published them.
///
/// # Warning
/// All nodes of a network must agree on a topic's policy: messages of the other one are refused, and who
/// relays them is blamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Each message is signed by its publisher and counted: the same content may be published again.
    Signed,
    /// A message is its content; the same content again is the same message.
    Anonymous,
}

/// What tells messages apart: a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 32]);

impl MessageId {
    /// The id of a signed message. Its issue time and signature are not part of it.
    pub fn signed(topic: &Topic, publisher: &NodeId, sequence: u64, payload: &[u8]) -> MessageId {
        let mut hasher = Hasher::new_from_context_key(&SIGNED_ID);
        hasher.update(&[topic.len_byte()]);
        hasher.update(topic.as_str().as_bytes());
        hasher.update(publisher.as_bytes());
        hasher.update(&sequence.to_be_bytes());
        hasher.update(payload);
        MessageId(*hasher.finalize().as_bytes())
    }

    /// The id of an anonymous message.
    pub fn anonymous(topic: &Topic, payload: &[u8]) -> MessageId {
        let mut hasher = Hasher::new_from_context_key(&ANONYMOUS_ID);
        hasher.update(&[topic.len_byte()]);
        hasher.update(topic.as_str().as_bytes());
        hasher.update(payload);
        MessageId(*hasher.finalize().as_bytes())
    }
}

impl MessageId {
    /// Its first eight bytes. Somebody who wants to can make messages with equal heads, so nothing but an estimate may
    /// depend on it.
    pub fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message:{}", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// A hash of everything in one copy of a message, signature included: two copies with one id and
/// different fingerprints are an original and a forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a copy. The id already is a hash of all but the origin's time and signature, so the payload is
    /// not hashed twice.
    pub fn of(id: &MessageId, origin: Option<&Origin>) -> Fingerprint {
        let mut hasher = Hasher::new_from_context_key(&FINGERPRINT);
        hasher.update(&id.0);
        if let Some(origin) = origin {
            hasher.update(&origin.issued.to_be_bytes());
            hasher.update(&origin.signature);
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }
}

/// Who published a signed message, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The publisher.
    pub publisher: NodeId,
    /// Rises with every message of the publisher; begins at its clock in nanoseconds.
    pub sequence: u64,
    /// When it was published, in milliseconds since the Unix epoch by the publisher's clock.
    pub issued: u64,
    /// The publisher's signature of a [`Claim`].
    pub signature: Signature,
}

/// What a publisher signs: the id, which covers topic, publisher, sequence and payload, and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The message.
    pub id: MessageId,
    /// When it was published, in milliseconds since the Unix epoch.
    pub issued: u64,
}

impl Claim {
    fn bytes(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32..].copy_from_slice(&self.issued.to_be_bytes());
        bytes
    }

    /// The publisher's signature.
    pub fn sign(&self, keys: &Keypair) -> Signature {
        keys.sign(DOMAIN, &self.bytes())
    }
}

/// One strict signature check, self-contained, so that any thread can do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Who is said to have signed.
    pub publisher: NodeId,
    /// What.
    pub claim: Claim,
    /// The signature.
    pub signature: Signature,
}

impl Check {
    /// Whether the signature is the publisher's. Takes tens of microseconds.
    pub fn holds(&self) -> bool {
        #[cfg(any(test, feature = "fault-injection"))]
        assert!(self.claim.issued != crate::poison::ISSUED, "injected");
        self.publisher.verify(DOMAIN, &self.claim.bytes(), &self.signature).is_ok()
    }

    /// What comes of the check, a panic included: what one sender made up must not stop the checks of others.
    pub fn outcome(&self) -> Checked {
        match catch_unwind(|| self.holds()) {
            Ok(true) => Checked::Holds,
            Ok(false) => Checked::Fails,
            Err(_) => Checked::Panicked,
        }
    }
}

/// What came of a signature check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checked {
    /// The signature is the publisher's.
    Holds,
    /// It is not.
    Fails,
    /// The check itself failed: there is a fault in it, and somebody who knows.
    Panicked,
}

/// A message as its subscribers get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Its topic.
    pub topic: Topic,
    /// Who published it; nobody, on an anonymous topic.
    pub publisher: Option<NodeId>,
    /// When, in milliseconds since the Unix epoch by the publisher's clock; signed topics only.
    pub issued: Option<u64>,
    /// The peer it came from first; none for what this node published itself.
    pub from: Option<NodeId>,
    /// What was published.
    pub payload: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::new(name).expect("short")
    }

    #[test]
    fn a_topic_is_1_to_64_bytes() {
        assert_eq!(Topic::new(""), Err(TopicError(0)));
        assert!(Topic::new(&"x".repeat(64)).is_ok());
        assert_eq!(Topic::new(&"x".repeat(65)), Err(TopicError(65)));
    }

    #[test]
    fn a_name_does_not_run_into_what_follows_it() {
        assert_ne!(MessageId::anonymous(&topic("a"), b"bc"), MessageId::anonymous(&topic("ab"), b"c"));
    }

    #[test]
    fn ids_are_the_frozen_ones() {
        let publisher = NodeId::from_bytes([1; 32]);
        let signed = MessageId::signed(&topic("blocks"), &publisher, 2, b"hi");
        assert_eq!(signed.to_string(), "7d7b83cb5d16b85d31451070f7e92af05940e880bac42bcfcc96adc8424480dc");
        assert_eq!(
            MessageId::anonymous(&topic("blocks"), b"hi").to_string(),
            "0eeb62923a62de34d298bb7ff56983e6a77f6784b57a1c48b461a5a6e622f3a3"
        );
    }

    #[test]
    fn a_signature_covers_topic_publisher_sequence_time_and_payload() {
        let (keys, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        let claim = |topic: &Topic, keys: &Keypair, sequence, issued, payload: &[u8]| Claim {
            id: MessageId::signed(topic, &keys.id(), sequence, payload),
            issued,
        };
        let signature = claim(&topic("t"), &keys, 1, 5, b"p").sign(&keys);
        let holds = |claim: Claim| Check { publisher: keys.id(), claim, signature }.holds();
        assert!(holds(claim(&topic("t"), &keys, 1, 5, b"p")));
        assert!(!holds(claim(&topic("u"), &keys, 1, 5, b"p")));
        assert!(!holds(claim(&topic("t"), &other, 1, 5, b"p")));
        assert!(!holds(claim(&topic("t"), &keys, 2, 5, b"p")));
        assert!(!holds(claim(&topic("t"), &keys, 1, 6, b"p")));
        assert!(!holds(claim(&topic("t"), &keys, 1, 5, b"q")));
    }
}
