//! From what a disk held to a book, and from a book to what a disk is to hold.

use std::collections::BTreeMap;
use std::net::IpAddr;

use peerage_wire::{NetworkId, NodeId, NodeRecord};

use super::dirty::{Changes, Dirty};
use super::{Ban, Banned, Book, Held, HeldAnchor, Key, Millis, Node, Proof, Score};
use crate::Config;

/// One entry, as it is stored.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    /// A record, and when it came.
    Record(NodeId, Millis, NodeRecord),
    Proof(NodeId, IpAddr, Proof),
    Ban(Banned, Ban),
    Score(NodeId, Score),
    /// In the order of the list.
    Anchor(u8, HeldAnchor),
}

/// What a commit writes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Whether it replaces all that is there.
    pub(crate) all: bool,
    pub(crate) puts: Vec<Row>,
    pub(crate) deletes: Vec<Key>,
}

impl Book {
    /// The book of these rows, in any order. What belongs to another network, or is more than this configuration
    /// remembers, is left out; the disk forgets it with the next commit.
    pub(crate) fn load(config: Config, rows: Vec<Row>, network: NetworkId) -> Book {
        let (read, mut nodes, mut anchors) = (rows.len(), BTreeMap::<NodeId, Node>::new(), BTreeMap::new());
        let mut book = Book::new(config);
        for row in rows {
            match row {
                Row::Record(id, heard, record) => {
                    let node = nodes.entry(id).or_default();
                    (node.record, node.heard) = (Some(Held { record, checked: false }), heard);
                }
                Row::Proof(id, ip, proof) => {
                    nodes.entry(id).or_default().proofs.insert(ip, proof);
                }
                Row::Ban(banned, ban) => {
                    book.bans_of(&banned).put(banned, ban);
                }
                Row::Score(id, score) => {
                    book.scores.put(id, score);
                }
                Row::Anchor(place, anchor) => {
                    anchors.insert(place, anchor);
                }
            }
        }
        let ours = |record: &NodeRecord| record.network() == network;
        for (id, mut node) in nodes {
            while node.proofs.len() > book.config.addresses {
                node.forget_address(None);
            }
            if node.record.as_ref().is_none_or(|held| ours(&held.record)) && !node.is_empty() {
                book.put_node(id, node);
            }
        }
        book.anchors = anchors.into_values().filter(|anchor| ours(&anchor.held.record)).collect();
        book.anchors.truncate(book.config.anchors.min(255));

        let entries = book.entries();
        let kept = entries.records + entries.proofs + entries.bans + entries.scores + entries.anchors;
        let mut dirty = Dirty::new(2 * (book.config.nodes + book.config.scores) + 1_024);
        if kept < read {
            dirty.touch_all();
        }
        book.dirty = Some(dirty);
        book
    }

    /// Stops noting what a disk would have to be told.
    pub(crate) fn leave_disk(&mut self) {
        self.dirty = None;
    }

    /// What a commit failed to write goes to the next, with all the rest: what the disk has now is not known.
    pub(crate) fn write_all_again(&mut self) {
        if let Some(dirty) = &mut self.dirty {
            dirty.touch_all();
        }
    }

    /// What has changed since the last call.
    pub(crate) fn batch(&mut self) -> Option<Batch> {
        match self.dirty.as_mut()?.take() {
            Changes::Nothing => None,
            Changes::All => Some(Batch { all: true, puts: self.rows(), deletes: Vec::new() }),
            Changes::Keys(keys) => {
                let mut batch = Batch::default();
                for key in keys {
                    match self.row(&key) {
                        Some(row) => batch.puts.push(row),
                        None => batch.deletes.push(key),
                    }
                }
                Some(batch)
            }
        }
    }

    fn row(&self, key: &Key) -> Option<Row> {
        Some(match key {
            Key::Record(id) => {
                let node = self.nodes.get(id)?;
                Row::Record(*id, node.heard, node.record.as_ref()?.record.clone())
            }
            Key::Proof(id, ip) => Row::Proof(*id, *ip, *self.nodes.get(id)?.proofs.get(ip)?),
            Key::Ban(banned @ Banned::Id(_)) => Row::Ban(*banned, *self.banned_ids.get(banned)?),
            Key::Ban(banned @ Banned::Network(_)) => Row::Ban(*banned, *self.banned_networks.get(banned)?),
            Key::Score(id) => Row::Score(*id, *self.scores.get(id)?),
            Key::Anchor(place) => Row::Anchor(*place, self.anchors.get(usize::from(*place))?.clone()),
        })
    }

    fn rows(&self) -> Vec<Row> {
        let mut keys = Vec::new();
        for (id, node) in self.nodes.iter() {
            keys.extend(node.record.is_some().then_some(Key::Record(id)));
            keys.extend(node.proofs.keys().map(|ip| Key::Proof(id, *ip)));
        }
        keys.extend(self.banned_ids.iter().chain(self.banned_networks.iter()).map(|(banned, _)| Key::Ban(banned)));
        keys.extend(self.scores.iter().map(|(id, _)| Key::Score(id)));
        keys.extend((0..self.anchors.len()).map(super::anchor_key));
        keys.iter().filter_map(|key| self.row(key)).collect()
    }
}
