//! What attackers of one mind know: what anybody could find out, and of each other everything.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use peerage_discovery::Key;
use peerage_wire::{Keypair, NodeId, NodeRecord};

use crate::engine::mix;
use crate::node::Cast;

/// Identities that are made up, with genuine records: a key costs nothing.
const INVENTED: u64 = 64;
/// Where nobody is: no group of nodes has addresses of this octet.
const NOWHERE: u8 = 120;

/// What attackers of one kind share.
pub(super) struct Den {
    cast: Rc<Cast>,
    /// Who is honest, and where: as crawlers find out.
    pub(super) honest: Vec<(NodeId, SocketAddr)>,
    /// The one that is aimed at.
    pub(super) victim: Option<(NodeId, SocketAddr)>,
    /// Records of those of them that have started.
    fellows: RefCell<Crowd>,
    invented: RefCell<Crowd>,
}

/// Nodes by their place in the table's space, which costs a hash each.
type Crowd = Vec<(Key, NodeRecord)>;

impl Den {
    pub(super) fn new(
        cast: Rc<Cast>,
        honest: Vec<(NodeId, SocketAddr)>,
        victim: Option<(NodeId, SocketAddr)>,
    ) -> Rc<Den> {
        Rc::new(Den { cast, honest, victim, fellows: RefCell::default(), invented: RefCell::default() })
    }

    /// One of them has started.
    pub(super) fn joined(&self, record: NodeRecord) {
        let mut fellows = self.fellows.borrow_mut();
        fellows.retain(|(_, known)| known.id() != record.id());
        fellows.push(placed(record));
    }

    pub(super) fn is_victim(&self, id: NodeId) -> bool {
        self.victim.is_some_and(|(victim, _)| victim == id)
    }

    /// The attackers nearest to a point.
    pub(super) fn fellows(&self, target: &Key, count: usize) -> Vec<NodeRecord> {
        nearest(&self.fellows.borrow(), target, count)
    }

    /// Nodes that are not there, nearest first: their records are genuine, and where they say to be is nobody, or an
    /// honest node that knows nothing of it.
    pub(super) fn invented(&self, seed: u64, target: &Key, count: usize) -> Vec<NodeRecord> {
        let mut invented = self.invented.borrow_mut();
        if invented.is_empty() {
            for number in 0..INVENTED {
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&mix(mix(seed) ^ number).to_le_bytes());
                bytes[8..16].copy_from_slice(b"invented");
                let nobody: SocketAddr = (Ipv4Addr::new(NOWHERE, 0, number as u8, 1), 30303).into();
                let somebody = self.honest.get(number as usize).filter(|_| number % 2 == 1).map(|(_, at)| *at);
                let record = self.cast.record(&Keypair::from_seed(bytes), number + 1, somebody.unwrap_or(nobody));
                invented.extend(record.map(|record| placed(record.into_inner())));
            }
        }
        nearest(&invented, target, count)
    }
}

fn placed(record: NodeRecord) -> (Key, NodeRecord) {
    (Key::of(record.id()), record)
}

fn nearest(crowd: &Crowd, target: &Key, count: usize) -> Vec<NodeRecord> {
    let mut nearest: Vec<_> = crowd.iter().map(|(key, record)| (target.distance(key), record)).collect();
    if count < nearest.len() {
        nearest.select_nth_unstable_by_key(count, |(distance, _)| *distance);
        nearest.truncate(count);
    }
    nearest.sort_unstable_by_key(|(distance, _)| *distance);
    nearest.into_iter().map(|(_, record)| record.clone()).collect()
}

/// A record that its owner did not sign: the bytes of a genuine one with another signature.
pub(super) fn forged(record: &NodeRecord) -> Option<NodeRecord> {
    let mut bytes = record.bytes().to_vec();
    *bytes.last_mut()? ^= 1;
    NodeRecord::decode(&bytes).ok()
}
