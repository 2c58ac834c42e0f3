//! How many of the nodes that answered are of one site.

use std::collections::{BTreeMap, BTreeSet};

use peerage_wire::{IpNet, NodeId};

use super::{Millis, Node};

/// The nodes of each site by their last answer. At most one entry for each node that is remembered.
#[derive(Debug, Default)]
pub(super) struct Sites(BTreeMap<IpNet, BTreeSet<(Millis, NodeId)>>);

impl Sites {
    pub(super) fn remove(&mut self, id: NodeId, node: &Node) {
        let Some(site) = node.site() else { return };
        if let Some(nodes) = self.0.get_mut(&site) {
            nodes.remove(&(node.youngest_pong(), id));
            if nodes.is_empty() {
                self.0.remove(&site);
            }
        }
    }

    /// Counts a node, and answers which one is over the limit for it: it may be this one.
    pub(super) fn insert(&mut self, id: NodeId, node: &Node, limit: usize) -> Option<NodeId> {
        let nodes = self.0.entry(node.site()?).or_default();
        nodes.insert((node.youngest_pong(), id));
        if nodes.len() > limit { nodes.first().map(|(_, oldest)| *oldest) } else { None }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }
}
