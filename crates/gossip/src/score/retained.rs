//! What nodes that have left did wrong, so that they meet it again when they come back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_wire::NodeId;

use super::record::Record;

#[derive(Debug)]
struct Kept {
    record: Box<Record>,
    until: Duration,
    badness: i64,
}

/// At most `limit` records; who did least wrong gives way, so that nobody is flushed out by identities that are worse
/// only in number.
#[derive(Debug)]
pub(super) struct Retained {
    limit: usize,
    nodes: BTreeMap<NodeId, Kept>,
    mildest_first: BTreeSet<(i64, NodeId)>,
    oldest_first: BTreeSet<(Duration, NodeId)>,
}

impl Retained {
    pub(super) fn new(limit: usize) -> Retained {
        Retained { limit, nodes: BTreeMap::new(), mildest_first: BTreeSet::new(), oldest_first: BTreeSet::new() }
    }

    /// Remembers a record, if there is anything wrong in it and those that are remembered are not all worse.
    pub(super) fn insert(&mut self, node: NodeId, record: Box<Record>, until: Duration) {
        self.take(&node);
        let badness = record.badness();
        if badness == 0 {
            return;
        }
        if self.nodes.len() >= self.limit {
            match self.mildest_first.first().copied() {
                Some((mildest, other)) if mildest < badness => drop(self.take(&other)),
                _ => return,
            }
        }
        self.mildest_first.insert((badness, node));
        self.oldest_first.insert((until, node));
        self.nodes.insert(node, Kept { record, until, badness });
    }

    pub(super) fn take(&mut self, node: &NodeId) -> Option<Box<Record>> {
        let kept = self.nodes.remove(node)?;
        self.mildest_first.remove(&(kept.badness, *node));
        self.oldest_first.remove(&(kept.until, *node));
        Some(kept.record)
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Record> {
        self.nodes.get(node).map(|kept| &*kept.record)
    }

    /// Until when a node is remembered.
    pub(super) fn until(&self, node: &NodeId) -> Option<Duration> {
        self.nodes.get(node).map(|kept| kept.until)
    }

    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((_, node)) = self.oldest_first.first().copied().filter(|(until, _)| *until <= now) {
            self.take(&node);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}
