//! The static peers, and the pool of those that could be dialled now.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peerage_machine::{Rng, Time};
use peerage_wire::{NodeId, NodeRecord};

use crate::messages::dialable;
use crate::{Cause, RACED, StaticPeer};

#[derive(Debug)]
struct Entry {
    /// As somebody named them.
    given: Vec<SocketAddr>,
    /// As its newest signed record names them, and that record's sequence number.
    learned: Vec<SocketAddr>,
    seq: u64,
    /// How far the addresses are turned: by one for each attempt that has failed since they changed.
    turn: usize,
    /// Why it is not connected, as far as its last attempt or the policy says.
    missing: Option<Cause>,
    pool_index: Option<usize>,
    resolve_after: Time,
    /// Resolutions in a row that found nothing.
    unresolved: u32,
}

/// Static peers by id; the pool is a vector so that a random one is picked in constant time.
#[derive(Debug, Default)]
pub(super) struct Statics {
    entries: BTreeMap<NodeId, Entry>,
    pool: Vec<NodeId>,
}

impl Statics {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, id: &NodeId) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.entries.keys().copied().collect()
    }

    /// Adds a peer, or gives a known one the new addresses. What its record said is kept.
    pub(super) fn add(&mut self, now: Time, peer: StaticPeer) {
        // The fields are public, so what `new` left out may be back.
        let StaticPeer { id, addresses } = StaticPeer::new(peer.id, peer.addresses);
        match self.entries.get_mut(&id) {
            Some(entry) if entry.given != addresses => (entry.given, entry.turn) = (addresses, 0),
            Some(_) => {}
            None => {
                let entry = Entry {
                    given: addresses,
                    learned: Vec::new(),
                    seq: 0,
                    turn: 0,
                    missing: None,
                    pool_index: None,
                    resolve_after: now,
                    unresolved: 0,
                };
                self.entries.insert(id, entry);
            }
        }
    }

    pub(super) fn remove(&mut self, id: &NodeId) -> bool {
        self.unpool(id);
        self.entries.remove(id).is_some()
    }

    /// Where the peer may listen: as named and as its record says in turn, each once, so that an address of either
    /// kind is tried at once; and if there are more than one dial tries, another first after each failure.
    pub(super) fn addresses(&self, id: &NodeId) -> Vec<SocketAddr> {
        let Some(entry) = self.entries.get(id) else { return Vec::new() };
        let mut addresses = Vec::with_capacity(entry.given.len() + entry.learned.len());
        for index in 0..entry.given.len().max(entry.learned.len()) {
            for address in entry.given.get(index).into_iter().chain(entry.learned.get(index)) {
                if !addresses.contains(address) {
                    addresses.push(*address);
                }
            }
        }
        if addresses.len() > RACED {
            let turn = entry.turn % addresses.len();
            addresses.rotate_left(turn);
        }
        addresses
    }

    /// When the peer may next be resolved.
    pub(super) fn resolve_after(&self, id: &NodeId) -> Option<Time> {
        self.entries.get(id).map(|entry| entry.resolve_after)
    }

    /// Takes the addresses of a peer's record if it is newer than what is known.
    pub(super) fn learn(&mut self, record: &NodeRecord) {
        if let Some(entry) = self.entries.get_mut(&record.id())
            && record.seq() > entry.seq
        {
            entry.seq = record.seq();
            let learned = dialable(record);
            if entry.learned != learned {
                (entry.learned, entry.turn) = (learned, 0);
            }
        }
    }

    /// Notes that an attempt at a peer has failed where it was dialled.
    pub(super) fn turn(&mut self, id: &NodeId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.turn = entry.turn.wrapping_add(1);
        }
    }

    /// Notes why a peer is not connected, or that it is; answers whether that is news.
    pub(super) fn missing(&mut self, id: &NodeId, cause: Option<Cause>) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        std::mem::replace(&mut entry.missing, cause) != cause
    }

    /// How many are missing for each cause.
    pub(super) fn causes(&self) -> BTreeMap<Cause, u32> {
        let mut causes = BTreeMap::new();
        for cause in self.entries.values().filter_map(|entry| entry.missing) {
            *causes.entry(cause).or_default() += 1;
        }
        causes
    }

    /// Notes whether a resolution found a record; answers how many in a row did not.
    pub(super) fn resolved(&mut self, id: &NodeId, found: bool) -> u32 {
        let Some(entry) = self.entries.get_mut(id) else { return 0 };
        entry.unresolved = if found { 0 } else { entry.unresolved.saturating_add(1) };
        entry.unresolved
    }

    pub(super) fn hold_resolve(&mut self, id: &NodeId, until: Time) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.resolve_after = until;
        }
    }

    /// Puts a peer into the pool.
    pub(super) fn pool(&mut self, id: &NodeId) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.pool_index.is_none()
        {
            entry.pool_index = Some(self.pool.len());
            self.pool.push(*id);
        }
    }

    /// Takes a peer out of the pool, if it was there.
    pub(super) fn unpool(&mut self, id: &NodeId) {
        let Some(index) = self.entries.get_mut(id).and_then(|entry| entry.pool_index.take()) else { return };
        self.pool.swap_remove(index);
        if let Some(entry) = self.pool.get(index).and_then(|moved| self.entries.get_mut(moved)) {
            entry.pool_index = Some(index);
        }
    }

    /// Takes a random peer out of the pool.
    pub(super) fn pick(&mut self, rng: &mut Rng) -> Option<NodeId> {
        let id = *self.pool.get(rng.index(self.pool.len())?)?;
        self.unpool(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn the_pool_yields_each_member_once_whatever_was_taken_out() {
        let mut statics = Statics::default();
        for n in 0..20 {
            statics.add(Time::ZERO, StaticPeer::new(id(n), []));
            statics.pool(&id(n));
            statics.pool(&id(n));
        }
        for n in [0, 7, 19, 7] {
            statics.unpool(&id(n));
        }
        assert!(statics.remove(&id(3)));
        let mut rng = Rng::new(1);
        let picked: Vec<_> = std::iter::from_fn(|| statics.pick(&mut rng)).collect();
        let mut sorted = picked.clone();
        sorted.sort_unstable();
        assert_ne!(picked, sorted, "picked at random");
        assert_eq!(sorted, (0..20).filter(|n| ![0, 3, 7, 19].contains(n)).map(id).collect::<Vec<_>>());
    }

    #[test]
    fn named_addresses_and_learned_ones_take_turns_and_each_comes_once() {
        let named = ["192.0.2.1:1".parse().expect("address"), "192.0.2.2:2".parse().expect("address")];
        let mut statics = Statics::default();
        statics.add(Time::ZERO, StaticPeer::new(id(1), named));
        let entry = statics.entries.get_mut(&id(1)).expect("added");
        entry.learned = vec![named[1], "192.0.2.3:3".parse().expect("address")];
        let text: Vec<_> = statics.addresses(&id(1)).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3"]);
        statics.turn(&id(1));
        assert_eq!(statics.addresses(&id(1))[0], named[0], "all are tried, so there is nothing to turn");
    }

    #[test]
    fn of_many_addresses_each_is_the_first_in_its_turn() {
        let address = |n: u8| SocketAddr::from(([192, 0, 2, n], 1));
        let mut statics = Statics::default();
        statics.add(Time::ZERO, StaticPeer::new(id(1), (0..5).map(address)));
        for n in [0, 1, 2, 3, 4, 0] {
            assert_eq!(statics.addresses(&id(1))[0], address(n));
            statics.turn(&id(1));
        }
        statics.add(Time::ZERO, StaticPeer::new(id(1), (5..9).map(address)));
        assert_eq!(statics.addresses(&id(1))[0], address(5), "new ones begin anew");
    }
}
