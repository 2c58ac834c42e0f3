//! The members of the network that have a right or a weight: validators, say.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::NodeId;

/// A set of members as the application last said it.
///
/// It is told, and never fetches: whoever knows the members ([`Membership`](super::Membership)) fetches them in a task of
/// its own, when the set is [stale](Members::stale), and no lock is held meanwhile. If that fails, the old set stays.
#[derive(Clone, Debug, Default)]
pub struct Members {
    weights: BTreeMap<NodeId, u64>,
    /// When it was said, and when it was last asked for.
    said: Option<Time>,
    asked: Option<Time>,
}

impl Members {
    /// The set is now this one. Members of weight zero are members, too.
    pub fn say(&mut self, now: Time, weights: BTreeMap<NodeId, u64>) {
        self.weights = weights;
        self.said = Some(now);
        self.asked = None;
    }

    /// Whether it must be asked for: it was said, is older than `after`, and was not asked for within that time. A set
    /// that was never said is nobody's concern.
    pub fn stale(&mut self, now: Time, after: Duration) -> bool {
        let old = |at: Option<Time>| at.is_none_or(|at| now.since(at) >= after);
        let stale = self.said.is_some() && old(self.said) && old(self.asked);
        if stale {
            self.asked = Some(now);
        }
        stale
    }

    /// Whether the node is a member.
    pub fn has(&self, id: &NodeId) -> bool {
        self.weights.contains_key(id)
    }

    /// The node's weight; zero for one that is no member.
    pub fn weight(&self, id: &NodeId) -> u64 {
        self.weights.get(id).copied().unwrap_or(0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The heaviest, as few as have `percent` of all weight together, heaviest first; connected or not.
    pub fn top(&self, percent: u8) -> Vec<NodeId> {
        let total: u128 = self.weights.values().map(|weight| u128::from(*weight)).sum();
        let wanted = (total * u128::from(percent.min(100))).div_ceil(100);
        let mut heaviest: Vec<(&NodeId, u64)> = self.weights.iter().map(|(id, weight)| (id, *weight)).collect();
        heaviest.sort_by_key(|(id, weight)| (std::cmp::Reverse(*weight), **id));
        let mut have = 0u128;
        let few = heaviest.into_iter().take_while(|(_, weight)| {
            let more = have < wanted;
            have += u128::from(*weight);
            more
        });
        few.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn members(weights: &[u64]) -> Members {
        let mut members = Members::default();
        members.say(Time::ZERO, (1..).map(id).zip(weights.iter().copied()).collect());
        members
    }

    #[test]
    fn the_top_is_as_few_as_have_the_share_together() {
        let cases: [(&[u64], u8, &[u8]); 7] = [
            (&[], 50, &[]),
            (&[1, 1], 0, &[]),
            (&[10, 60, 30], 60, &[2]),
            (&[10, 60, 30], 61, &[2, 3]),
            (&[10, 60, 30], 100, &[2, 3, 1]),
            (&[5, 5, 5], 34, &[1, 2]),
            (&[u64::MAX, u64::MAX], 100, &[1, 2]),
        ];
        for (weights, percent, top) in cases {
            let top: Vec<NodeId> = top.iter().map(|n| id(*n)).collect();
            assert_eq!(members(weights).top(percent), top, "{weights:?} at {percent} %");
        }
    }

    #[test]
    fn a_stale_set_is_asked_for_once_a_period_and_kept_until_a_new_one_is_said() {
        let minute = Duration::from_secs(60);
        let mut set = members(&[1]);
        assert!(!set.stale(Time::ZERO + Duration::from_secs(59), minute));
        assert!(set.stale(Time::ZERO + minute, minute));
        assert!(!set.stale(Time::ZERO + minute, minute), "asked for already");
        assert!(set.has(&id(1)), "the fetch failed, or takes long");
        assert!(set.stale(Time::ZERO + 2 * minute, minute), "asked for again");
        set.say(Time::ZERO + 2 * minute, BTreeMap::from([(id(2), 1)]));
        assert!(!set.stale(Time::ZERO + 2 * minute, minute));
        assert!(!set.has(&id(1)) && set.has(&id(2)));
        assert!(!Members::default().stale(Time::ZERO + minute, minute), "nobody has members");
    }
}
