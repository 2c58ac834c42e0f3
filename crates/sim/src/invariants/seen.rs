//! What an invariant sees of a node: plain values, so that a test can show it anything.

use std::net::IpAddr;

use peerage_machine::Time;
use peerage_wire::{Banned, NodeId};

use crate::node::PeerageNode;

/// A peer of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenPeer {
    /// Who.
    pub id: NodeId,
    /// Where.
    pub ip: IpAddr,
    /// Whether the node dialled it.
    pub dialled: bool,
    /// Whether the node is to keep it connected.
    pub fixed: bool,
    /// Whether limits spare it.
    pub trusted: bool,
}

/// What can be seen of an honest node. A part that is not there is one whose machine was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who it is.
    pub id: NodeId,
    /// Its peers, as its run loop has them.
    pub peers: Vec<SeenPeer>,
    /// What it has banned at this moment.
    pub bans: Vec<Banned>,
    /// Bytes that wait in the lanes of all its peers.
    pub queued_bytes: usize,
    /// Whom its table has, and where.
    pub table: Vec<(NodeId, IpAddr)>,
    /// How many nodes each bucket of the table has.
    pub buckets: Vec<usize>,
    /// Requests without an answer, and lookups that run.
    pub under_way: (usize, usize),
    /// Its dialer.
    pub dialer: Option<peerage_dialer::Status>,
    /// Its gossip.
    pub gossip: Option<peerage_gossip::Stats>,
}

impl Seen {
    /// Of a node with nothing: to be filled.
    pub fn nothing(id: NodeId) -> Seen {
        Seen {
            id,
            peers: Vec::new(),
            bans: Vec::new(),
            queued_bytes: 0,
            table: Vec::new(),
            buckets: Vec::new(),
            under_way: (0, 0),
            dialer: None,
            gossip: None,
        }
    }

    /// Of this node, whose clock says `now`.
    pub fn of(node: &PeerageNode, now: Time) -> Seen {
        let mut seen = Seen::nothing(node.id());
        if let Some(root) = node.root() {
            seen.peers.extend(root.peers().map(|(_, meta, _)| SeenPeer {
                id: meta.id,
                ip: meta.ip,
                dialled: meta.dialled(),
                fixed: root.is_static(&meta.id),
                trusted: root.is_trusted(&meta.id),
            }));
            seen.bans.extend(root.bans().filter(|(_, until)| *until > now).map(|(banned, _)| banned));
        }
        if let Some(discovery) = node.discovery() {
            let table = discovery.table_records().filter_map(|record| Some((record.id(), record.udp_address()?.ip())));
            seen.table.extend(table);
            seen.buckets.extend(discovery.table_sizes());
            seen.under_way = discovery.under_way();
        }
        seen.queued_bytes = node.queued_bytes();
        seen.dialer = node.dialer().map(|dialer| dialer.status());
        seen.gossip = node.gossip().map(|gossip| gossip.stats());
        seen
    }
}
