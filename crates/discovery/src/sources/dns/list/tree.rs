//! One list, as far as it is known.

use std::collections::{BTreeMap, BTreeSet};

use peerage_wire::{NodeRecord, Verified};

use crate::sources::dns::entry::{Hash, ListLink, Root};

/// Which of a list's two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Nodes,
    Links,
}

/// An entry that was looked up.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Branch(Vec<Hash>),
    Node(Verified<NodeRecord>),
    Link(ListLink),
    /// Of no use, and would be none if it were looked up again.
    Refused,
}

#[derive(Default)]
pub(super) struct Tree {
    /// Links between a list that the user named and this one.
    pub(super) depth: usize,
    pub(super) root: Option<Root>,
    pub(super) root_due: bool,
    pub(super) root_failures: u32,
    /// Entries of this version to be looked up.
    pub(super) missing: Vec<(Part, Hash)>,
    /// Some were given up, and are tried again at the next look at the root.
    pub(super) gave_up: bool,
    pub(super) failures: BTreeMap<Hash, u8>,
    pub(super) known: BTreeMap<Hash, Known>,
    /// Nodes reached.
    pub(super) node_count: usize,
    /// Lists that this version links to.
    pub(super) links: BTreeSet<ListLink>,
    /// Those of the version before, until all of this one is known.
    pub(super) old_links: BTreeSet<ListLink>,
    /// Entries of the version before, which this one may share.
    old: BTreeMap<Hash, Known>,
    /// Entries that this version has, as far as is known.
    reached: BTreeSet<(Part, Hash)>,
}

impl Tree {
    pub(super) fn new(depth: usize) -> Tree {
        Tree { depth, ..Tree::default() }
    }

    /// A new version: what is known of the last one is kept for what they share.
    pub(super) fn begin(&mut self, root: Root) {
        self.root = Some(root);
        self.gave_up = false;
        self.missing.clear();
        self.failures.clear();
        self.reached.clear();
        self.node_count = 0;
        // A version that was never finished adds nothing that was not known before it.
        self.old.append(&mut self.known);
        self.old_links.append(&mut self.links);
    }

    /// All of this version is known.
    pub(super) fn finish(&mut self) {
        self.old.clear();
        self.old_links.clear();
    }

    /// Marks an entry as a part of this version; what is known of it, if anything is.
    pub(super) fn reach(&mut self, part: Part, hash: Hash) -> Option<Known> {
        self.reached.insert((part, hash));
        if let Some(known) = self.old.remove(&hash) {
            self.known.insert(hash, known);
        }
        self.known.get(&hash).cloned()
    }

    pub(super) fn is_part(&self, part: Part, hash: Hash) -> bool {
        self.reached.contains(&(part, hash))
    }

    /// Entries kept, or to be.
    pub(super) fn len(&self) -> usize {
        self.reached.len() + self.old.len()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Verified<NodeRecord>> {
        self.known.iter().filter_map(|(hash, known)| match known {
            Known::Node(record) if self.is_part(Part::Nodes, *hash) => Some(record),
            _ => None,
        })
    }
}
