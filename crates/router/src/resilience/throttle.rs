//! A sliding window for each peer: so many calls in any period, and those that are refused count, too.

use std::collections::BTreeMap;

use peerage_machine::Time;
use peerage_wire::NodeId;

use crate::handler::Rate;

#[derive(Clone, Copy, Debug)]
struct Windows {
    /// The number of the present period since the start of time, and the calls in it and in the one before.
    period: u128,
    current: u32,
    previous: u32,
}

/// The last period's calls, estimated from two fixed windows: all of the present one, and of the one before as much as
/// still overlaps (AvalancheGo `p2p.SlidingWindowThrottler`).
#[derive(Clone, Debug)]
pub struct SlidingWindow {
    rate: Rate,
    peers: BTreeMap<NodeId, Windows>,
    remembered: usize,
}

impl SlidingWindow {
    /// No calls yet. At most `remembered` peers are kept apart; if all of them called lately, others are refused.
    pub const fn new(rate: Rate, remembered: usize) -> SlidingWindow {
        SlidingWindow { rate, peers: BTreeMap::new(), remembered }
    }

    /// Whether a call of this peer is within the limit. It counts in any case: whoever goes on calling is refused until
    /// it has been quiet.
    pub fn take(&mut self, now: Time, peer: &NodeId) -> bool {
        self.take_within(now, peer, self.rate.calls)
    }

    /// The same, within another limit than the rate's: one that follows the number of members, say.
    pub fn take_within(&mut self, now: Time, peer: &NodeId, limit: u32) -> bool {
        let length = self.rate.period.as_nanos().max(1);
        let (period, within) = (now.running().as_nanos() / length, now.running().as_nanos() % length);
        if !self.peers.contains_key(peer) && self.peers.len() >= self.remembered {
            self.peers.retain(|_, windows| windows.period + 1 >= period);
            if self.peers.len() >= self.remembered {
                return false;
            }
        }
        let windows = self.peers.entry(*peer).or_insert(Windows { period, current: 0, previous: 0 });
        if windows.period != period {
            let previous = if windows.period + 1 == period { windows.current } else { 0 };
            *windows = Windows { period, current: 0, previous };
        }
        let overlap = u128::from(windows.previous) * (length - within) / length;
        let calls = u128::from(windows.current) + overlap;
        windows.current = windows.current.saturating_add(1);
        calls < u128::from(limit)
    }

    /// Peers that are kept apart.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody called.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

/// Calls that one of `nodes` may make in a period in which `calls` can be served, if each calls nodes at random: its
/// part and four standard deviations (AvalancheGo `p2p.DynamicThrottlerHandler`). None if there are no nodes.
pub const fn fair_limit(calls: u32, nodes: u32) -> u32 {
    if nodes == 0 {
        return 0;
    }
    let (calls, nodes) = (calls as u64, nodes as u64);
    // R/n + 4 × √(R(n−1))/n.
    let spread = 4 * (calls * (nodes - 1)).isqrt();
    let limit = (calls + spread) / nodes;
    if limit > u32::MAX as u64 { u32::MAX } else { limit as u32 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: NodeId = NodeId::from_bytes([1; 32]);
    const SECOND: Duration = Duration::from_secs(1);

    fn window(calls: u32) -> SlidingWindow {
        SlidingWindow::new(Rate { calls, period: SECOND }, 2)
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn so_many_calls_in_a_window_and_the_window_slides() {
        let mut window = window(10);
        assert!((0..10).all(|_| window.take(at(0), &PEER)));
        assert!(window.take(at(1_500), &PEER), "half of the ten overlap");
        assert_eq!((0..10).filter(|_| window.take(at(1_500), &PEER)).count(), 4);
    }

    #[test]
    fn refused_calls_count() {
        let mut window = window(10);
        assert_eq!((0..100).filter(|_| window.take(at(0), &PEER)).count(), 10);
        assert!(!window.take(at(1_800), &PEER), "a fifth of a hundred still overlaps");
        assert!(window.take(at(1_990), &PEER));
    }

    #[test]
    fn stale_windows_are_forgotten() {
        let mut window = window(1);
        assert!(window.take(at(0), &PEER));
        assert!(!window.take(at(0), &PEER));
        assert!(window.take(at(2_000), &PEER), "two periods later nothing overlaps");
    }

    #[test]
    fn peers_have_windows_of_their_own_and_a_crowd_is_refused_until_others_are_quiet() {
        let mut window = window(1);
        let id = |n| NodeId::from_bytes([n; 32]);
        assert!(window.take(at(0), &id(1)) && window.take(at(0), &id(2)));
        assert!(!window.take(at(0), &id(3)) && window.len() == 2);
        assert!(window.take(at(5_000), &id(3)) && window.len() == 1);
    }

    #[test]
    fn a_limit_that_changes_holds_from_the_next_call_on() {
        let mut window = window(100);
        assert!((0..22).all(|_| window.take_within(at(0), &PEER, fair_limit(100, 10))));
        assert!(!window.take_within(at(0), &PEER, fair_limit(100, 10)));
        assert!(window.take_within(at(0), &PEER, fair_limit(100, 2)), "fewer share it now");
        assert!(!window.take_within(at(0), &PEER, fair_limit(100, 0)), "nobody is a member");
    }

    #[test]
    fn a_limit_of_zero_admits_nothing() {
        assert!(!window(0).take(at(0), &PEER));
    }

    #[test]
    fn a_fair_limit_is_a_part_and_four_deviations() {
        assert_eq!([0, 1, 2, 10, 100].map(|nodes| fair_limit(100, nodes)), [0, 100, 70, 22, 4]);
        assert_eq!(fair_limit(0, 5), 0);
        assert!(fair_limit(u32::MAX, u32::MAX) >= 4);
    }
}
