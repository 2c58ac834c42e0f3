//! Where a node is in Kademlia's space: the hash of its id, compared by XOR.

use std::fmt;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

/// How many buckets a table has.
pub const BUCKETS: usize = 17;

/// What BLAKE3 makes of the context first, which is the same for every id.
static CONTEXT: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 discovery key of a node id"));

/// A point in the space that lookups walk through.
///
/// Nodes sit at the BLAKE3 hash of their id. An id is a public key, so nobody can aim one at a point without
/// trying many keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key([u8; 32]);

impl Key {
    /// Where a node is.
    pub fn of(id: NodeId) -> Key {
        Key(*blake3::Hasher::new_from_context_key(&CONTEXT).update(id.as_bytes()).finalize().as_bytes())
    }

    /// The point with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// The bytes on the wire.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The point at this distance.
    pub fn at_distance(&self, Distance(distance): Distance) -> Key {
        // XOR is its own inverse.
        let Distance(point) = self.distance(&Key(distance));
        Key(point)
    }

    /// The distance to another point; it orders as a big-endian number.
    pub fn distance(&self, other: &Key) -> Distance {
        let mut xor = self.0;
        for (byte, with) in xor.iter_mut().zip(other.0) {
            *byte ^= with;
        }
        Distance(xor)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "key:{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// The XOR of two points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance([u8; 32]);

impl Distance {
    /// The number of bits up to and including the highest set one: 0 for equal points, else 1 to 256.
    pub fn log2(&self) -> u32 {
        let mut leading = 0;
        for byte in self.0 {
            leading += byte.leading_zeros();
            if byte != 0 {
                break;
            }
        }
        256 - leading
    }

    /// One of the distances that a bucket is for, with the lower bits of these bytes.
    pub fn in_bucket(index: usize, mut bytes: [u8; 32]) -> Distance {
        // The first bit that differs, from the highest.
        let first = (BUCKETS - 1).saturating_sub(index);
        let (whole, bit) = (first / 8, first % 8);
        bytes[..whole].fill(0);
        if let Some(byte) = bytes.get_mut(whole) {
            *byte = (*byte | 0x80) >> bit;
        }
        Distance(bytes)
    }

    /// The bucket for nodes this far away. Half of all nodes are in the last one; the first holds everything
    /// up to 2^240, where even a huge network has hardly a node (geth p2p/discover/table.go).
    pub fn bucket(&self) -> usize {
        (self.log2() as usize).saturating_sub(257 - BUCKETS)
    }

    /// The buckets around one of two points this far apart, from the one whose nodes are nearest to the other point to the
    /// one whose nodes are farthest: each node of a bucket is nearer than all of the next.
    pub fn buckets(&self) -> impl Iterator<Item = usize> + use<> {
        let [a, b, ..] = self.0;
        // Nodes of a bucket differ from its owner in this bit and in none above it: where the other point does too, they
        // are nearer to it than the owner is, and the more so the higher the bit; else they are farther.
        let nearer = move |index: &usize| u16::from_be_bytes([a, b]) >> (index - 1) & 1 == 1;
        let farther = (1..BUCKETS).filter(move |index| !nearer(index));
        (1..BUCKETS).rev().filter(nearer).chain([0]).chain(farther)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use peerage_machine::Rng;

    use super::*;

    #[test]
    fn each_node_of_a_bucket_is_nearer_than_all_of_the_next() {
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            let (me, target) = (Key::from_bytes(rng.bytes()), Key::from_bytes(rng.bytes()));
            let buckets: Vec<usize> = me.distance(&target).buckets().collect();
            assert_eq!(buckets.iter().copied().collect::<BTreeSet<_>>(), (0..BUCKETS).collect());
            let nodes = buckets.into_iter().map(|index| {
                let of = std::iter::repeat_with(|| me.at_distance(Distance::in_bucket(index, rng.bytes())));
                let distances: Vec<Distance> = of.take(8).map(|node| node.distance(&target)).collect();
                (distances.iter().min().copied(), distances.iter().max().copied())
            });
            let nodes: Vec<_> = nodes.collect();
            assert!(nodes.windows(2).all(|pair| pair[0].1 < pair[1].0), "{me:?} {target:?}");
        }
        let me = Key::from_bytes([7; 32]);
        let of_itself: Vec<usize> = me.distance(&me).buckets().collect();
        assert_eq!(of_itself, (0..BUCKETS).collect::<Vec<_>>());
    }

    #[test]
    fn a_point_of_a_bucket_is_in_it() {
        let me = Key::from_bytes([0x5a; 32]);
        for (index, byte) in (0..BUCKETS).flat_map(|index| [0, 0x35, 0xff].map(|byte| (index, byte))) {
            let point = me.at_distance(Distance::in_bucket(index, [byte; 32]));
            assert_eq!(me.distance(&point).bucket(), index, "{byte:#x}");
        }
    }

    fn with_bit(bit: u32) -> Key {
        let mut bytes = [0; 32];
        bytes[31 - (bit / 8) as usize] = 1 << (bit % 8);
        Key::from_bytes(bytes)
    }

    #[test]
    fn buckets_split_the_far_half_and_the_first_takes_the_rest() {
        let zero = Key::from_bytes([0; 32]);
        assert_eq!(zero.distance(&zero).log2(), 0);
        assert_eq!(zero.distance(&zero).bucket(), 0);
        for bit in 0..256 {
            let distance = zero.distance(&with_bit(bit));
            assert_eq!(distance.log2(), bit + 1);
            assert_eq!(distance.bucket(), (bit as usize + 1).saturating_sub(240), "bit {bit}");
        }
        assert_eq!(zero.distance(&with_bit(255)).bucket(), BUCKETS - 1);
    }

    #[test]
    fn a_nodes_key_is_frozen() {
        let key = Key::of(NodeId::from_bytes([7; 32]));
        assert_eq!(data_encoding::HEXLOWER.encode(key.as_bytes()), KEY_OF_SEVENS);
    }

    const KEY_OF_SEVENS: &str = "78c3b338a4ccbe38199e8763339abf69fc193f9aeffec020c5045a2255221793";
}
