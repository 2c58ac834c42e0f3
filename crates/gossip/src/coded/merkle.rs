//! The tree over a message's shards: what a header's root binds, and what each shard proves.
//!
//! Leaves are padded to a power of two with a hash of nothing, so all proofs of a tree have one length. Leaves and inner
//! nodes are hashed in contexts of their own, so that neither passes for the other.

use std::sync::LazyLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

/// A hash of the tree.
pub type Hash = [u8; 32];

static LEAF: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 gossip shard of a coded message"));
static INNER: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("peerage 2026-11 gossip tree over the shards of a coded message"));
const NOTHING: Hash = [0; 32];

/// The leaf of a shard.
pub(super) fn leaf(shard: &[u8]) -> Hash {
    let mut hasher = Hasher::new_from_context_key(&LEAF);
    hasher.update(shard);
    *hasher.finalize().as_bytes()
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Hasher::new_from_context_key(&INNER);
    hasher.update(left);
    hasher.update(right);
    *hasher.finalize().as_bytes()
}

/// How many hashes prove one of so many leaves.
pub(super) fn depth(leaves: usize) -> usize {
    usize::try_from(leaves.max(1).next_power_of_two().ilog2()).unwrap_or(usize::MAX)
}

/// A whole tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// From the leaves to the root.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over these leaves.
    pub fn over(mut leaves: Vec<Hash>) -> Tree {
        leaves.resize(leaves.len().max(1).next_power_of_two(), NOTHING);
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let next = last.as_chunks::<2>().0.iter().map(|[left, right]| inner(left, right)).collect();
            levels.push(next);
        }
        Tree { levels }
    }

    /// Its root.
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(NOTHING)
    }

    /// What proves the leaf at `index`: its siblings from the leaves up; nothing if there is no such leaf.
    pub fn proof(&self, index: usize) -> Vec<Hash> {
        let below_root = self.levels.len().saturating_sub(1);
        let levels = self.levels.iter().take(below_root).enumerate();
        levels.filter_map(|(height, level)| level.get((index >> height) ^ 1).copied()).collect()
    }
}

/// Whether a leaf is the one at `index` of the `leaves` under a root.
pub(super) fn holds(root: &Hash, leaves: usize, index: usize, leaf: Hash, proof: &[Hash]) -> bool {
    if index >= leaves || proof.len() != depth(leaves) {
        return false;
    }
    let climb = |(node, index): (Hash, usize), sibling: &Hash| {
        let parent = if index % 2 == 0 { inner(&node, sibling) } else { inner(sibling, &node) };
        (parent, index / 2)
    };
    proof.iter().fold((leaf, index), climb).0 == *root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(leaves: usize) -> Tree {
        Tree::over((0..leaves).map(|n| leaf(&[n as u8])).collect())
    }

    #[test]
    fn every_leaf_is_proved_in_its_place_and_in_no_other() {
        for leaves in [1, 2, 3, 5, 8, 48, 64, 65] {
            let tree = tree(leaves);
            for index in 0..leaves {
                let (proof, own) = (tree.proof(index), leaf(&[index as u8]));
                assert!(holds(&tree.root(), leaves, index, own, &proof), "{index} of {leaves}");
                assert!(!holds(&tree.root(), leaves, index, leaf(b"other"), &proof));
                assert!(!holds(&tree.root(), leaves, (index + 1) % leaves.max(2), own, &proof));
                assert!(!holds(&tree.root(), index, index, own, &proof), "beyond the last leaf");
            }
        }
    }

    #[test]
    fn a_proof_of_another_length_proves_nothing() {
        let tree = tree(8);
        let proof = tree.proof(3);
        assert!(!holds(&tree.root(), 8, 3, leaf(&[3]), &proof[..2]));
        assert!(!holds(&tree.root(), 8, 3, leaf(&[3]), &[proof.as_slice(), &[NOTHING]].concat()));
        // A shard that is two hashes is not the node above them.
        assert_ne!(leaf(&[leaf(&[2]), leaf(&[3])].concat()), inner(&leaf(&[2]), &leaf(&[3])));
    }

    #[test]
    fn the_root_is_the_frozen_one() {
        let root = data_encoding::HEXLOWER.encode(&tree(3).root());
        assert_eq!(root, "3ce7e122769fdb8f19277ecd29d68f722f31422e808306dc111571a3ae5db9b8");
    }
}
