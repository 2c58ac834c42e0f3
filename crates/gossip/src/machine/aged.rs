//! A set whose members are forgotten with age, and oldest first when there are too many.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use peerage_machine::Time;

/// Hashed, because it is asked for every copy of every message, and never iterated in hash order.
#[derive(Debug)]
pub(super) struct AgedSet<K> {
    members: HashSet<K>,
    /// With the running time at which each came, in nanoseconds.
    by_age: VecDeque<(u64, K)>,
    capacity: usize,
    lifetime: Duration,
}

impl<K: Copy + Eq + Hash> AgedSet<K> {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        AgedSet { members: HashSet::new(), by_age: VecDeque::new(), capacity, lifetime }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.members.contains(key)
    }

    /// Adds a member that came at `now`, which is not earlier than those before it. Says whether a member
    /// had to go before its time.
    pub(super) fn insert(&mut self, now: Time, key: K) -> bool {
        if !self.members.insert(key) {
            return false;
        }
        self.by_age.push_back((nanos(now.running()), key));
        let crowded = self.by_age.len() > self.capacity;
        if crowded && let Some((_, oldest)) = self.by_age.pop_front() {
            self.members.remove(&oldest);
        }
        crowded
    }

    /// Forgets a member. Should it come again, it may be forgotten before its time.
    pub(super) fn remove(&mut self, key: &K) {
        self.members.remove(key);
    }

    /// Forgets what is too old at `now`.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some((at, key)) = self.by_age.front()
            && now.running().saturating_sub(Duration::from_nanos(*at)) > self.lifetime
        {
            self.members.remove(key);
            self.by_age.pop_front();
        }
    }

    /// Those that came at a running time or later, newest first.
    pub(super) fn since(&self, running: Duration) -> impl Iterator<Item = &K> {
        self.by_age.iter().rev().take_while(move |(at, _)| *at >= nanos(running)).map(|(_, key)| key)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}

/// 584 years fit.
fn nanos(running: Duration) -> u64 {
    u64::try_from(running.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_go_by_age_and_by_count() {
        let second = Duration::from_secs(1);
        let mut set = AgedSet::new(2, 10 * second);
        assert!(!set.insert(Time::ZERO, 1));
        assert!(!set.insert(Time::ZERO + second, 2));
        assert!(!set.insert(Time::ZERO + second, 2));
        assert!(set.insert(Time::ZERO + 2 * second, 3), "the oldest makes room");
        assert!(!set.contains(&1) && set.contains(&2) && set.contains(&3));
        set.expire(Time::ZERO + 12 * second);
        assert!(!set.contains(&2) && set.contains(&3));
        assert_eq!((set.len(), set.by_age.len()), (1, 1));
    }
}
