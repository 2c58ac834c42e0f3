//! Who may have shards passed on, and how much.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

/// Publishers remembered, of those that have published or are barred.
const MAX_PUBLISHERS: usize = 1024;

/// Whose messages of a topic may be coded. Shards are passed on before anybody has validated what they are of, so a
/// topic on which anybody may publish should admit nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admitted {
    /// Nobody's: all messages travel whole.
    #[default]
    Nobody,
    /// Those of these nodes.
    These(BTreeSet<NodeId>),
    /// Everybody's, each within its quota.
    Everybody,
}

impl Admitted {
    /// Whether a publisher is.
    pub fn admits(&self, publisher: &NodeId) -> bool {
        match self {
            Admitted::Nobody => false,
            Admitted::These(these) => these.contains(publisher),
            Admitted::Everybody => true,
        }
    }
}

/// What each publisher has used of its quota, and who has none any more.
#[derive(Debug)]
pub(super) struct Quotas {
    /// By when what it published will have been worked off.
    owing: BTreeMap<NodeId, Time>,
    barred: BTreeMap<NodeId, Time>,
    bytes: usize,
    period: Duration,
}

impl Quotas {
    /// At most so many bytes in a period.
    pub(super) fn new(bytes: usize, period: Duration) -> Quotas {
        Quotas { owing: BTreeMap::new(), barred: BTreeMap::new(), bytes: bytes.max(1), period }
    }

    /// The quota from now on.
    pub(super) fn set(&mut self, bytes: usize, period: Duration) {
        (self.bytes, self.period) = (bytes.max(1), period);
    }

    /// Charges a publisher for a payload; false if it has used up what it may. A quota that is full takes one payload
    /// of any size, or a large one would never fit a small quota.
    pub(super) fn take(&mut self, now: Time, publisher: NodeId, bytes: usize) -> bool {
        let owes = self.owing.get(&publisher).copied().filter(|until| *until > now).unwrap_or(now);
        let costs = cost(self.period, bytes, self.bytes);
        let spent = owes.since(now);
        if !spent.is_zero() && spent.saturating_add(costs) > self.period {
            return false;
        }
        if !self.owing.contains_key(&publisher) && self.owing.len() >= MAX_PUBLISHERS {
            self.owing.retain(|_, until| *until > now);
            if self.owing.len() >= MAX_PUBLISHERS {
                return false;
            }
        }
        self.owing.insert(publisher, owes + costs);
        true
    }

    /// A publisher signed what is no code's: it gets no shards passed on until then.
    pub(super) fn bar(&mut self, now: Time, publisher: NodeId, until: Time) {
        if self.barred.len() >= MAX_PUBLISHERS {
            self.barred.retain(|_, until| *until > now);
        }
        if self.barred.len() < MAX_PUBLISHERS {
            self.barred.insert(publisher, until);
        }
    }

    pub(super) fn is_barred(&self, now: Time, publisher: &NodeId) -> bool {
        self.barred.get(publisher).is_some_and(|until| *until > now)
    }
}

/// The part of the period that so many of its bytes take.
fn cost(period: Duration, bytes: usize, of: usize) -> Duration {
    let nanos = period.as_nanos().saturating_mul(bytes as u128) / of as u128;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn at(second: u64) -> Time {
        Time::ZERO + Duration::from_secs(second)
    }

    #[test]
    fn a_publisher_has_so_many_bytes_in_a_period_and_others_have_theirs() {
        let mut quotas = Quotas::new(100, Duration::from_secs(10));
        assert!(quotas.take(at(0), node(1), 60) && quotas.take(at(0), node(1), 40));
        assert!(!quotas.take(at(0), node(1), 1));
        assert!(quotas.take(at(0), node(2), 1_000), "a large one fits an unused quota");
        assert!(!quotas.take(at(89), node(2), 10) && quotas.take(at(92), node(2), 10), "and is worked off");
        assert!(quotas.take(at(5), node(1), 50) && !quotas.take(at(5), node(1), 10));
    }

    #[test]
    fn nobody_makes_it_remember_more_publishers_than_it_may() {
        let mut quotas = Quotas::new(100, Duration::from_secs(10));
        for n in 0..2 * MAX_PUBLISHERS {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let id = NodeId::from_bytes(id);
            assert_eq!(quotas.take(at(0), id, 50), n < MAX_PUBLISHERS);
            quotas.bar(at(0), id, at(9));
        }
        assert_eq!((quotas.owing.len(), quotas.barred.len()), (MAX_PUBLISHERS, MAX_PUBLISHERS));
        assert!(quotas.take(at(6), node(200), 50), "room again");
        assert!(!quotas.is_barred(at(9), &node(0)));
    }

    #[test]
    fn a_quota_that_changes_counts_what_was_used() {
        let mut quotas = Quotas::new(100, Duration::from_secs(10));
        assert!(quotas.take(at(0), node(1), 100) && !quotas.take(at(0), node(1), 50));
        quotas.set(1_000, Duration::from_secs(20));
        assert!(quotas.take(at(0), node(1), 500) && !quotas.take(at(0), node(1), 500));
    }

    #[test]
    fn a_topic_admits_whom_it_says() {
        let these = Admitted::These(BTreeSet::from([node(1)]));
        assert!(these.admits(&node(1)) && !these.admits(&node(2)));
        assert!(Admitted::Everybody.admits(&node(2)) && !Admitted::default().admits(&node(1)));
    }
}
