//! What a publisher signs of a coded message, before anybody has the message.

use std::fmt;
use std::sync::LazyLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use peerage_wire::{NodeId, Signature};
use serde::{Deserialize, Serialize};

use super::merkle::Hash;
use super::shape::Shape;
use crate::message::{Check, Claim, MessageId, Origin, Topic};

static SIGNED: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 gossip header of a coded message"));
static KEY: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 gossip key of a coded message"));

/// What tells coded messages apart on the wire: the first half of a hash of all of a header, signatures included, so
/// that a header with a forged one is another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "coded:{}", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// What is known of a coded message before it is here. Nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's topic.
    pub topic: Topic,
    /// Who published it, and its signature of the message as it is sent whole.
    pub publisher: NodeId,
    /// As in [`Origin::sequence`].
    pub sequence: u64,
    /// As in [`Origin::issued`].
    pub issued: u64,
    /// As in [`Origin::signature`].
    pub message_signature: Signature,
    /// The message.
    pub id: MessageId,
    /// How its payload is cut.
    pub shape: Shape,
    /// The root of the tree over its shards.
    pub root: Hash,
    /// When its shards are no longer passed on, in milliseconds since the Unix epoch by the publisher's clock.
    pub expires: u64,
    /// The publisher's signature of all of the above.
    pub signature: Signature,
}

impl Header {
    /// What the publisher signs besides the message: a claim of a hash that no message can have.
    pub fn claim(&self) -> Claim {
        let mut hasher = Hasher::new_from_context_key(&SIGNED);
        self.fields(&mut hasher);
        Claim { id: MessageId(*hasher.finalize().as_bytes()), issued: self.issued }
    }

    /// Its name on the wire.
    pub fn key(&self) -> Key {
        let mut hasher = Hasher::new_from_context_key(&KEY);
        self.fields(&mut hasher);
        hasher.update(&self.signature);
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Key(key)
    }

    fn fields(&self, hasher: &mut Hasher) {
        let Shape { payload, shard, data, total } = self.shape;
        hasher.update(&[self.topic.len_byte()]);
        hasher.update(self.topic.as_str().as_bytes());
        hasher.update(self.publisher.as_bytes());
        hasher.update(&self.sequence.to_be_bytes());
        hasher.update(&self.issued.to_be_bytes());
        hasher.update(&self.message_signature);
        hasher.update(&self.id.0);
        hasher.update(&payload.to_be_bytes());
        hasher.update(&shard.to_be_bytes());
        hasher.update(&data.to_be_bytes());
        hasher.update(&total.to_be_bytes());
        hasher.update(&self.root);
        hasher.update(&self.expires.to_be_bytes());
    }

    /// The check of its own signature.
    pub fn check(&self) -> Check {
        Check { publisher: self.publisher, claim: self.claim(), signature: self.signature }
    }

    /// The check of the message's signature, which takes no more of the message than its id.
    pub fn message_check(&self) -> Check {
        let claim = Claim { id: self.id, issued: self.issued };
        Check { publisher: self.publisher, claim, signature: self.message_signature }
    }

    /// The origin of the message.
    pub fn origin(&self) -> Origin {
        let Header { publisher, sequence, issued, message_signature: signature, .. } = *self;
        Origin { publisher, sequence, issued, signature }
    }
}
