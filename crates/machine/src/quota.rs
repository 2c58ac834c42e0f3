//! Rate limits as the generic cell rate algorithm (GCRA): one instant of state a limit.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// At most `burst` at once, and one more every `period / burst` after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    burst: u32,
    period: Duration,
}

impl Quota {
    /// `burst` cells each `period`. A burst of 0 admits nothing.
    pub const fn new(burst: u32, period: Duration) -> Quota {
        Quota { burst, period }
    }

    /// `count` cells a second, all of which may come at once.
    pub const fn per_second(count: u32) -> Quota {
        Quota::new(count, Duration::from_secs(1))
    }

    /// Cells that may be taken at once, and in each period.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How long a spent burst takes to recover.
    pub const fn period(self) -> Duration {
        self.period
    }

    fn interval(self) -> Duration {
        self.period / self.burst.max(1)
    }
}

/// One quota applied to many keys, with at most `capacity` keys remembered.
///
/// A key whose burst has fully recovered carries no information and is forgotten first. If every
/// remembered key is still in debt the table refuses new keys: an attacker who invents keys is
/// refused, not remembered.
#[derive(Clone, Debug)]
pub struct QuotaTable<K> {
    quota: Quota,
    capacity: usize,
    /// When each key's burst will have fully recovered (GCRA's theoretical arrival time). Nothing depends on its order.
    recovered_at: HashMap<K, Time>,
    /// With so many keys, those that have recovered are forgotten…
    crowd: usize,
    /// …and with more than a few also at this time.
    sweep_at: Time,
}

/// As few keys are not looked through.
const FEW: usize = 16;

impl<K: Eq + Hash + Clone> QuotaTable<K> {
    /// A table for `quota` that remembers at most `capacity` keys.
    pub fn new(quota: Quota, capacity: usize) -> Self {
        QuotaTable { quota, capacity, recovered_at: HashMap::new(), crowd: FEW.min(capacity), sweep_at: Time::ZERO }
    }

    /// Takes one cell for `key`; false if none is free at `now`.
    pub fn take(&mut self, now: Time, key: &K) -> bool {
        if self.quota.burst == 0 {
            return false;
        }
        let interval = self.quota.interval();
        let known = self.recovered_at.get_mut(key);
        let base = known.as_deref().copied().filter(|at| *at > now).unwrap_or(now);
        let next = base + interval;
        if next.since(now) > self.quota.period {
            return false;
        }
        if let Some(at) = known {
            *at = next;
            return true;
        }
        let known = self.recovered_at.len();
        if known >= self.crowd || (known > FEW && now >= self.sweep_at) {
            // Mostly all have recovered; to take them out one by one moves those that are left at each.
            if self.recovered_at.values().all(|at| *at <= now) {
                self.recovered_at.clear();
            } else {
                self.recovered_at.retain(|_, at| *at > now);
            }
            // Each look is paid for by as many new keys as it looks at; a key is looked at by two at most that come
            // after a period, as it has recovered by the second.
            self.crowd = (2 * self.recovered_at.len()).max(FEW).min(self.capacity);
            // The room that a flood took is given back.
            if self.recovered_at.capacity() > 4 * self.crowd {
                self.recovered_at.shrink_to(self.crowd);
            }
            self.sweep_at = now + self.quota.period;
            if self.recovered_at.len() >= self.capacity {
                return false;
            }
        }
        self.recovered_at.insert(key.clone(), next);
        true
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.recovered_at.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.recovered_at.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crowd_left_behind_is_forgotten_a_period_later_and_a_debt_is_not() {
        let mut table = QuotaTable::new(Quota::per_second(4), 1_000);
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        assert!((0..100).all(|key| table.take(at(0), &key)));
        assert_eq!((0..4).filter(|_| table.take(at(900), &7)).count(), 4);
        assert_eq!(table.len(), 100);
        assert!(table.take(at(1_100), &500));
        assert_eq!(table.len(), 2, "one in debt and the new one");
        assert!(table.recovered_at.capacity() < 100, "the room of the others is given back");
        assert!(!table.take(at(1_100), &7));
    }

    #[test]
    fn a_burst_passes_then_one_cell_an_interval() {
        let mut table = QuotaTable::new(Quota::per_second(4), 10);
        let t = Time::ZERO;
        assert_eq!((0..6).filter(|_| table.take(t, &1)).count(), 4);
        assert!(!table.take(t + Duration::from_millis(249), &1));
        assert!(table.take(t + Duration::from_millis(250), &1));
        assert!(!table.take(t + Duration::from_millis(250), &1));
        assert!(table.take(t, &2), "another key has its own burst");
    }

    #[test]
    fn invented_keys_are_refused_not_remembered() {
        let mut table = QuotaTable::new(Quota::new(1, Duration::from_secs(10)), 3);
        assert_eq!((0..100).filter(|key| table.take(Time::ZERO, key)).count(), 3);
        assert_eq!(table.len(), 3);
        assert!(table.take(Time::ZERO + Duration::from_secs(11), &200), "recovered keys make room");
    }

    #[test]
    fn keys_that_have_recovered_do_not_pile_up() {
        let mut table = QuotaTable::new(Quota::per_second(4), 10_000);
        for key in 0..5_000u64 {
            assert!(table.take(Time::ZERO + Duration::from_millis(100 * key), &key));
        }
        assert!(table.len() <= FEW, "{}", table.len());
    }

    #[test]
    fn a_quota_of_nothing_admits_nothing() {
        assert!(!QuotaTable::new(Quota::per_second(0), 3).take(Time::ZERO, &1));
    }
}
