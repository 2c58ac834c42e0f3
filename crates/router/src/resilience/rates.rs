//! How fast peers answer, and so how long to wait and how much to ask (geth `p2p/msgrate`).

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

/// Bounds of time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesConfig {
    /// The round trip that is assumed before anything was measured.
    pub initial: Duration,
    /// Round trips count as this at least. geth has two seconds, for batches of blocks; these are single requests.
    pub shortest: Duration,
    /// And as this at most.
    pub longest: Duration,
    /// No time-out is longer.
    pub timeout: Duration,
}

impl RatesConfig {
    /// A round trip of 2 s to begin with, 250 ms to 20 s later; time-outs of a minute at most.
    pub const fn recommended() -> RatesConfig {
        RatesConfig {
            initial: Duration::from_secs(2),
            shortest: Duration::from_millis(250),
            longest: Duration::from_secs(20),
            timeout: Duration::from_secs(60),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.shortest.is_zero() || self.shortest > self.initial || self.initial > self.longest {
            return Err(format!(
                "rates: 0 < shortest {:?} ≤ initial {:?} ≤ longest {:?} does not hold",
                self.shortest, self.initial, self.longest
            ));
        }
        if self.timeout < self.longest || self.timeout > MOST {
            let (longest, timeout) = (self.longest, self.timeout);
            return Err(format!("rates: longest {longest:?} ≤ timeout {timeout:?} ≤ {MOST:?} does not hold"));
        }
        Ok(())
    }
}

/// No time-out can be longer: its multiples must not overflow.
const MOST: Duration = Duration::from_secs(24 * 3600);
/// One in parts per million.
const ONE: u64 = 1_000_000;
/// Below this, confidence does not fall; at this many peers a new one does not lower it (geth's numbers).
const LEAST_CONFIDENCE: u64 = ONE / 10;
const MANY: usize = 10;

#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Items a second, in thousandths.
    capacity: u64,
    round_trip: Duration,
}

/// What the peers that answer one handler can do.
#[derive(Clone, Debug)]
pub struct Rates {
    config: RatesConfig,
    peers: BTreeMap<NodeId, Rate>,
    round_trip: Duration,
    /// In the round trip, in millionths.
    confidence: u64,
    tuned: Time,
}

impl Rates {
    /// Nothing measured.
    pub fn new(now: Time, config: RatesConfig) -> Rates {
        Rates { config, peers: BTreeMap::new(), round_trip: config.initial, confidence: ONE, tuned: now }
    }

    /// How long to wait for an answer: three round trips, more if the round trip is not sure.
    pub fn timeout(&self) -> Duration {
        // 0.9 of the median is what geth aims at.
        let target = self.round_trip * 9 / 10;
        let nanos = u64::try_from(target.as_nanos()).unwrap_or(u64::MAX);
        let timeout = u128::from(nanos) * 3 * u128::from(ONE) / u128::from(self.confidence.max(LEAST_CONFIDENCE));
        Duration::from_nanos(u64::try_from(timeout).unwrap_or(u64::MAX)).min(self.config.timeout)
    }

    /// How many items the peer is worth being asked for, so that they come within a target round trip: one at least, a
    /// little more than it has shown.
    pub fn capacity(&self, peer: &NodeId) -> u64 {
        let Some(rate) = self.peers.get(peer) else { return 1 };
        let target = (self.round_trip * 9 / 10).as_micros();
        // thousandths of items a second × µs × 1.01 = items × 10^9.
        let items = u128::from(rate.capacity).saturating_mul(target).saturating_mul(101) / 100;
        u64::try_from(items.div_ceil(1_000_000_000)).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// A peer answered with so many items after so long; none if it did not answer, or with nothing.
    pub fn observe(&mut self, now: Time, peer: NodeId, items: u64, took: Duration) {
        if !self.peers.contains_key(&peer) {
            self.join();
        }
        let (new, initial) = (!self.peers.contains_key(&peer), self.round_trip);
        let rate = self.peers.entry(peer).or_insert(Rate { capacity: 0, round_trip: initial });
        if items == 0 {
            rate.capacity = 0;
        } else {
            let measured = u128::from(items) * 1_000 * 1_000_000 / took.as_micros().max(1);
            let measured = u64::try_from(measured).unwrap_or(u64::MAX);
            // The impact of one answer is a tenth.
            rate.capacity = if new { measured } else { rate.capacity / 10 * 9 + measured / 10 };
            let took = took.min(self.config.longest);
            rate.round_trip = if new { took } else { rate.round_trip * 9 / 10 + took / 10 };
        }
        if now.since(self.tuned) >= self.round_trip {
            self.tune(now);
        }
    }

    /// Another peer: what was measured of few says little of it.
    fn join(&mut self) {
        let peers = self.peers.len() + 1;
        if peers > 1 && peers < MANY {
            let peers = peers as u64;
            self.confidence = (self.confidence * (peers - 1) / peers).max(LEAST_CONFIDENCE);
        }
    }

    fn tune(&mut self, now: Time) {
        let mut sorted: Vec<Duration> = self.peers.values().map(|rate| rate.round_trip).collect();
        sorted.sort_unstable();
        // Not the middle but the root: the fast ones are who will be asked.
        let median = sorted.get(sorted.len().isqrt().min(sorted.len().saturating_sub(1))).copied();
        let median = median.unwrap_or(self.config.initial).clamp(self.config.shortest, self.config.longest);
        self.round_trip = self.round_trip * 3 / 4 + median / 4;
        self.confidence += (ONE - self.confidence) / 2;
        self.tuned = now;
    }

    /// A peer is gone.
    pub fn forget(&mut self, peer: &NodeId) {
        self.peers.remove(peer);
    }

    /// Peers measured.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn rates() -> Rates {
        Rates::new(Time::ZERO, RatesConfig::recommended())
    }

    #[test]
    fn an_unknown_peer_is_worth_one_item_and_so_is_one_that_sends_nothing() {
        let mut rates = rates();
        assert_eq!(rates.capacity(&id(1)), 1);
        rates.observe(Time::ZERO, id(1), 100, Duration::from_secs(1));
        assert_eq!(rates.capacity(&id(1)), 183, "100/s × 1.8 s × 1.01 + 1, rounded up");
        rates.observe(Time::ZERO, id(1), 0, Duration::from_secs(1));
        assert_eq!(rates.capacity(&id(1)), 1);
    }

    #[test]
    fn a_capacity_does_not_overflow() {
        let mut rates = rates();
        for _ in 0..100 {
            rates.observe(Time::ZERO, id(1), u64::MAX, Duration::ZERO);
            rates.observe(Time::ZERO, id(1), u64::MAX, Duration::MAX);
        }
        assert!(rates.capacity(&id(1)) > 1);
        assert!(rates.timeout() <= Duration::from_secs(60));
    }

    #[test]
    fn time_outs_follow_what_peers_show_within_bounds() {
        let (mut quick, mut slow) = (rates(), rates());
        assert_eq!(quick.timeout(), Duration::from_millis(5_400));
        for n in 0..200 {
            let now = Time::ZERO + n * Duration::from_secs(20);
            quick.observe(now, id(1), 1, Duration::from_millis(1));
            slow.observe(now, id(1), 1, Duration::from_secs(100));
        }
        let near = |timeout: Duration, to: u64| timeout.as_millis().abs_diff(u128::from(to)) < 10;
        assert!(near(quick.timeout(), 675), "three times 0.9 of the shortest: {:?}", quick.timeout());
        assert!(near(slow.timeout(), 54_000), "three times 0.9 of the longest: {:?}", slow.timeout());
    }

    #[test]
    fn a_new_peer_among_few_lowers_confidence_and_the_tenth_does_not() {
        let mut rates = rates();
        let mut last = rates.timeout();
        for n in 1..=20 {
            rates.observe(Time::ZERO, id(n), 1, Duration::from_secs(2));
            let timeout = rates.timeout();
            assert_eq!(timeout > last, (2..10).contains(&n), "at {n}: {last:?} and then {timeout:?}");
            last = timeout;
        }
        for n in 1..20 {
            rates.observe(Time::ZERO + n * Duration::from_secs(20), id(1), 1, Duration::from_secs(2));
        }
        assert!(rates.timeout() < Duration::from_secs(6), "and comes back");
    }

    #[test]
    fn the_fast_peers_are_the_measure() {
        let mut rates = rates();
        for n in 1..=16u8 {
            rates.observe(Time::ZERO, id(n), 1, Duration::from_millis(100) * n.into());
        }
        for n in 1..100 {
            rates.observe(Time::ZERO + n * Duration::from_secs(20), id(1), 0, Duration::ZERO);
        }
        // The fifth of sixteen: 500 ms.
        assert!(rates.timeout().as_millis().abs_diff(1_350) < 10, "{:?}", rates.timeout());
    }
}
