//! How many of the nodes that answered are of one site.

use std::collections::BTreeSet;

use peerage_wire::NodeId;
use peerage_wire::address::Site;

use super::{Millis, Node};

/// The nodes of each site by their last answer. At most one entry for each node that is remembered.
#[derive(Debug, Default)]
pub(super) struct Sites(BTreeSet<(Site, Millis, NodeId)>);

impl Sites {
    pub(super) fn remove(&mut self, id: NodeId, node: &Node) {
        if let Some(site) = node.site() {
            self.0.remove(&(site, node.youngest_pong(), id));
        }
    }

    /// Counts a node, and answers which one is over the limit for it: it may be this one.
    pub(super) fn insert(&mut self, id: NodeId, node: &Node, limit: usize) -> Option<NodeId> {
        let site = node.site()?;
        self.0.insert((site, node.youngest_pong(), id));
        let first = (site, Millis::MIN, NodeId::from_bytes([0; 32]));
        let mut nodes = self.0.range(first..).take_while(|(of, ..)| *of == site).map(|(.., node)| *node);
        let oldest = nodes.next();
        // There are no more than the limit and this one.
        if nodes.count() >= limit { oldest } else { None }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
