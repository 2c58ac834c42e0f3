//! How far hosts are from each other, and what gets lost on the way.

use std::time::Duration;

use super::agenda::Instant;
use super::chance::{Chance, MILLION, mix};

/// So that sums of latencies are far from the end of time.
const FARTHEST: Duration = Duration::from_secs(3600);

/// The network between hosts. Nothing is kept for a pair of hosts: whatever is particular to one is a function of
/// the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// One-way latency from region to region, square and symmetric; one entry for a world of one region.
    pub latency: Vec<Vec<Duration>>,
    /// How much nearer or farther than its regions a pair of hosts is for good, at most, in parts of a million.
    pub spread: u32,
    /// How much later than that a message comes, at most, in parts of a million of the latency.
    pub jitter: u32,
    /// Datagrams that are lost, in parts of a million. A stream's message is late by a retransmission instead.
    pub loss: u32,
    /// Datagrams that come late by up to a second latency, in parts of a million, so that others overtake them.
    pub reorder: u32,
    /// Datagrams and stream messages that are damaged on their way, in parts of a million. A damaged datagram is
    /// dropped where it arrives; a damaged stream is reported to the receiver, whose cipher would find out.
    pub corrupt: u32,
}

impl Links {
    /// The names of [`world`](Links::world)'s regions, in their order.
    pub const REGIONS: [&str; 5] = ["eu", "us-east", "us-west", "asia", "south-america"];

    /// One region: every host as far from every other.
    pub fn uniform(latency: Duration) -> Links {
        Links { latency: vec![vec![latency]], spread: 0, jitter: 0, loss: 0, reorder: 0, corrupt: 0 }
    }

    /// Five regions with one-way latencies as between the data centres of the large cloud providers (half of the
    /// round trips that they publish, to the nearest 5 ms): Western Europe, Eastern North America, Western North
    /// America, East Asia, South America.
    pub fn world() -> Links {
        const MILLIS: [[u64; 5]; 5] = [
            [10, 40, 70, 110, 95],
            [40, 10, 35, 85, 60],
            [70, 35, 10, 55, 85],
            [110, 85, 55, 15, 130],
            [95, 60, 85, 130, 10],
        ];
        let latency = MILLIS.map(|row| row.map(Duration::from_millis).to_vec()).to_vec();
        Links { latency, spread: 250_000, ..Links::uniform(Duration::ZERO) }
    }

    /// How many regions there are.
    pub fn regions(&self) -> usize {
        self.latency.len()
    }

    /// # Panics
    /// If the table is none.
    pub(crate) fn check(&self) {
        let regions = self.regions();
        assert!((1..=256).contains(&regions), "{regions} regions: there must be 1 to 256");
        assert!(self.spread <= MILLION as u32, "a spread of {} parts of a million", self.spread);
        for (a, row) in self.latency.iter().enumerate() {
            assert!(row.len() == regions, "region {a} has {} latencies, there are {regions} regions", row.len());
        }
        for (a, row) in self.latency.iter().enumerate() {
            for (b, latency) in row.iter().enumerate() {
                assert!(
                    *latency <= FARTHEST,
                    "regions {a} and {b} are {latency:?} from each other: {FARTHEST:?} at most"
                );
                assert!(*latency == self.latency[b][a], "region {a} is not as far from {b} as {b} from {a}");
            }
        }
    }

    /// What a pair of hosts has between it, without jitter.
    pub(crate) fn between(&self, seed: u64, (a, of_a): (u32, u8), (b, of_b): (u32, u8)) -> Instant {
        let base = self.latency[usize::from(of_a)][usize::from(of_b)].as_nanos() as u64;
        if self.spread == 0 {
            return base;
        }
        let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
        let spread = part(base, self.spread);
        let lot = u128::from(mix(seed ^ mix(pair)));
        base - spread + ((lot * u128::from(2 * spread)) >> 64) as u64
    }

    pub(crate) fn jitter(&self, chance: &mut Chance, latency: Instant) -> Instant {
        if self.jitter == 0 { 0 } else { chance.below(part(latency, self.jitter)) }
    }
}

/// So many parts of a million.
pub(crate) fn part(of: u64, ppm: u32) -> u64 {
    (u128::from(of) * u128::from(ppm) / u128::from(MILLION)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_hosts_is_as_far_both_ways_and_at_all_times() {
        let links = Links::world();
        let there = links.between(7, (3, 0), (9, 3));
        assert_eq!(there, links.between(7, (9, 3), (3, 0)));
        assert_ne!(there, links.between(8, (9, 3), (3, 0)));
        for host in 0..1000 {
            let latency = Duration::from_nanos(links.between(7, (host, 0), (host + 1, 3)));
            let base = Duration::from_millis(110);
            assert!(latency >= base * 3 / 4 && latency <= base * 5 / 4, "{latency:?}");
        }
    }

    #[test]
    fn the_regions_are_as_far_both_ways() {
        let links = Links::world();
        for (a, row) in links.latency.iter().enumerate() {
            assert_eq!(row.len(), links.regions());
            row.iter().enumerate().for_each(|(b, latency)| assert_eq!(*latency, links.latency[b][a]));
        }
    }
}
