//! How many connections may come: from one host, from one site, from everybody.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Quota, Time};

/// A quota (GCRA) for each network, larger for some.
///
/// It is never full, so nobody is refused because others are remembered: only connections that are let in are
/// charged, those come no faster than the ceiling, and a charge is forgotten after the quota's period at the latest.
#[derive(Debug)]
pub(crate) struct Limit<K> {
    quota: Quota,
    /// When each network's burst will have fully recovered.
    recovered_at: BTreeMap<K, Time>,
    capacity: usize,
}

impl<K: Ord> Limit<K> {
    /// Remembers twice as many networks as can be in debt while `ceiling` holds, so that it is swept seldom:
    /// 2 × (burst + rate × period), which is 5,248 for the recommended values, of about 64 bytes each.
    pub(crate) fn new(quota: Quota, ceiling: &Ceiling) -> Limit<K> {
        Limit { quota, recovered_at: BTreeMap::new(), capacity: 2 * ceiling.within(quota.period()) }
    }

    /// The quota from now on. What was charged stays: at most for the longer one of the two periods.
    pub(crate) fn limit(&mut self, quota: Quota, ceiling: &Ceiling) {
        (self.quota, self.capacity) = (quota, 2 * ceiling.within(quota.period()));
    }

    /// When the network's burst will have recovered if it takes one more cell of a burst `factor` times as large;
    /// `None` if it has none left.
    fn after(&self, now: Time, network: &K, factor: u32) -> Option<Time> {
        let interval = self.quota.period() / self.quota.burst().saturating_mul(factor).max(1);
        let base = self.recovered_at.get(network).map_or(now, |at| (*at).max(now));
        let next = base + interval;
        (next.since(now) <= self.quota.period()).then_some(next)
    }

    /// Whether it could take a cell.
    pub(crate) fn allows(&self, now: Time, network: &K, factor: u32) -> bool {
        self.after(now, network, factor).is_some()
    }

    /// Takes a cell if there is one.
    pub(crate) fn charge(&mut self, now: Time, network: K, factor: u32) {
        let Some(next) = self.after(now, &network, factor) else { return };
        if self.recovered_at.len() >= self.capacity {
            self.recovered_at.retain(|_, at| *at > now);
        }
        self.recovered_at.insert(network, next);
    }

    #[cfg(test)]
    pub(crate) fn remembered(&self) -> (usize, usize) {
        (self.recovered_at.len(), self.capacity)
    }
}

/// How many connections are let in a second, whoever opens them.
///
/// A quarter of a second's may come at once. Not more, or one burst could push everybody out of their slots before
/// they have had time to say who they are.
#[derive(Debug)]
pub(crate) struct Ceiling {
    burst: u32,
    interval: Duration,
    recovered_at: Time,
}

impl Ceiling {
    pub(crate) fn new(accepts_per_second: u32) -> Ceiling {
        let burst = accepts_per_second.div_ceil(4).max(1);
        Ceiling { burst, interval: Duration::from_secs(1) / accepts_per_second.max(1), recovered_at: Time::ZERO }
    }

    /// The rate from now on; what was taken stays.
    pub(crate) fn limit(&mut self, accepts_per_second: u32) {
        *self = Ceiling { recovered_at: self.recovered_at, ..Ceiling::new(accepts_per_second) };
    }

    /// Takes a cell, of the future if there is none now.
    pub(crate) fn take(&mut self, now: Time) {
        self.recovered_at = self.recovered_at.max(now) + self.interval;
    }

    /// How long until there is a cell.
    pub(crate) fn wait(&self, now: Time) -> Duration {
        self.recovered_at.since(now).saturating_sub(self.interval * (self.burst - 1))
    }

    /// How many it lets in within `period` at most, and as many sockets' last ones besides.
    fn within(&self, period: Duration) -> usize {
        let cells = period.as_nanos() / self.interval.as_nanos().max(1);
        usize::try_from(cells).unwrap_or(usize::MAX).saturating_add(2 * self.burst as usize)
    }
}
