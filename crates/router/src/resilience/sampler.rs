//! The connected peers, and how some of them are drawn (AvalancheGo `network.samplePeers`, `peer/set.go`).

use std::collections::BTreeMap;

use peerage_machine::Rng;
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use super::Members;

/// Peers of which any will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pool {
    /// All.
    Everyone,
    /// Members; see [`Members`].
    Members,
    /// Those that are no members.
    Others,
    /// These.
    Of(Vec<NodeId>),
}

impl Pool {
    /// Whether the peer is one of them.
    pub fn has(&self, id: &NodeId, members: &Members) -> bool {
        match self {
            Pool::Everyone => true,
            Pool::Members => members.has(id),
            Pool::Others => !members.has(id),
            Pool::Of(ids) => ids.contains(id),
        }
    }
}

/// How many peers of which kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// These, if they are connected.
    pub named: Vec<NodeId>,
    /// So many of all others. This budget is spent first.
    pub any: usize,
    /// So many members.
    pub members: usize,
    /// So many that are no members.
    pub others: usize,
}

impl Sample {
    /// These peers.
    pub fn named(ids: impl IntoIterator<Item = NodeId>) -> Sample {
        Sample { named: ids.into_iter().collect(), ..Sample::default() }
    }

    /// So many peers.
    pub fn any(count: usize) -> Sample {
        Sample { any: count, ..Sample::default() }
    }
}

/// Whom a sample chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Connected ones, each once: those named, then those drawn.
    pub peers: Vec<NodeId>,
    /// Named and not connected.
    pub missing: Vec<NodeId>,
}

/// The connected peers as a dense list, which lets one be drawn at once.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    ids: Vec<NodeId>,
    places: BTreeMap<NodeId, usize>,
}

impl Sampler {
    /// A peer is connected. False if it was before.
    pub fn add(&mut self, id: NodeId) -> bool {
        if self.places.contains_key(&id) {
            return false;
        }
        self.places.insert(id, self.ids.len());
        self.ids.push(id);
        true
    }

    /// A peer is gone. The last takes its place.
    pub fn remove(&mut self, id: &NodeId) -> bool {
        let Some(place) = self.places.remove(id) else { return false };
        self.ids.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.places.insert(*moved, place);
        }
        true
    }

    /// Whether the peer is connected.
    pub fn has(&self, id: &NodeId) -> bool {
        self.places.contains_key(id)
    }

    /// The peers, in no order.
    pub fn peers(&self) -> &[NodeId] {
        &self.ids
    }

    /// Draws, uniformly and each peer once.
    pub fn sample(&self, sample: &Sample, members: &Members, rng: &mut Rng) -> Sampled {
        let mut sampled = Sampled::default();
        for id in &sample.named {
            let into = if self.has(id) { &mut sampled.peers } else { &mut sampled.missing };
            if !into.contains(id) {
                into.push(*id);
            }
        }
        let Sample { mut any, members: mut ours, mut others, .. } = *sample;
        let named = sampled.peers.len();
        let mut drawn = self.ids.clone();
        if any == 0 && ours == 0 && others == 0 {
            return sampled;
        }
        let all = drawn.len();
        for id in rng.sample(&mut drawn, all).iter() {
            if sampled.peers[..named].contains(id) {
                continue;
            }
            let budget = if any > 0 {
                &mut any
            } else if members.has(id) {
                &mut ours
            } else {
                &mut others
            };
            if *budget > 0 {
                *budget -= 1;
                sampled.peers.push(*id);
            }
        }
        sampled
    }
}

#[cfg(test)]
mod tests {
    use peerage_machine::Rng;
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn connected(ids: std::ops::Range<u8>) -> Sampler {
        let mut sampler = Sampler::default();
        ids.for_each(|n| assert!(sampler.add(id(n))));
        sampler
    }

    fn odd(ids: std::ops::Range<u8>) -> Members {
        let mut members = Members::default();
        members.say(peerage_machine::Time::ZERO, ids.filter(|n| n % 2 == 1).map(|n| (id(n), 1)).collect());
        members
    }

    #[test]
    fn a_peer_that_is_added_twice_is_there_once_and_the_last_takes_the_place_of_one_that_goes() {
        let mut sampler = connected(0..4);
        assert!(!sampler.add(id(2)));
        assert!(sampler.remove(&id(1)) && !sampler.remove(&id(1)));
        assert_eq!(sampler.peers(), [id(0), id(3), id(2)]);
        assert!(sampler.remove(&id(2)), "the last itself");
        assert_eq!(sampler.peers(), [id(0), id(3)]);
    }

    #[test]
    fn named_peers_are_those_that_are_connected_and_the_rest_is_told() {
        let sampled =
            connected(0..3).sample(&Sample::named([id(2), id(9), id(2)]), &Members::default(), &mut Rng::new(1));
        assert_eq!(sampled, Sampled { peers: vec![id(2)], missing: vec![id(9)] });
    }

    #[test]
    fn more_than_there_are_is_all_and_none_is_none() {
        let (sampler, members, mut rng) = (connected(0..3), Members::default(), Rng::new(1));
        assert_eq!(sampler.sample(&Sample::any(9), &members, &mut rng).peers.len(), 3);
        assert_eq!(sampler.sample(&Sample::default(), &members, &mut rng), Sampled::default());
        assert_eq!(connected(0..0).sample(&Sample::any(1), &members, &mut rng), Sampled::default());
    }

    proptest! {
        #[test]
        fn budgets_are_kept_and_nobody_is_drawn_twice(
            any in 0usize..12, ours in 0usize..12, others in 0usize..12, named in proptest::collection::vec(0u8..20, 0..4), seed: u64,
        ) {
            let (sampler, members) = (connected(0..16), odd(0..16));
            let sample = Sample { named: named.into_iter().map(id).collect(), any, members: ours, others };
            let sampled = sampler.sample(&sample, &members, &mut Rng::new(seed));
            let named = sample.named.iter().filter(|id| sampler.has(id)).collect::<std::collections::BTreeSet<_>>().len();
            let drawn = &sampled.peers[named..];
            let unique: std::collections::BTreeSet<_> = sampled.peers.iter().collect();
            prop_assert_eq!(unique.len(), sampled.peers.len());
            let of_members = drawn.iter().filter(|id| members.has(id)).count();
            prop_assert!(of_members <= any + ours && drawn.len() - of_members <= any + others);
            prop_assert!(drawn.len() <= any + ours + others);
            prop_assert!(drawn.len() >= any.min(16 - named));
        }
    }
}
