//! Which peer to ask where any will do: by measured bandwidth, with exploration (AvalancheGo `p2p.PeerTracker`).

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use super::Average;

/// How much is explored. The numbers are AvalancheGo's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerConfig {
    /// With fewer responsive peers than this, new ones are tried first.
    pub responsive: usize,
    /// Of a hundred choices among responsive peers, so many are of a random one, not of the best.
    pub random_percent: u8,
    /// In this time a measurement loses half of its weight.
    pub half_life: Duration,
}

impl TrackerConfig {
    /// Twenty responsive peers, one choice in five at random, five minutes.
    pub const fn recommended() -> TrackerConfig {
        TrackerConfig { responsive: 20, random_percent: 20, half_life: Duration::from_secs(300) }
    }
}

#[derive(Clone, Debug)]
struct Tracked {
    /// Bytes a second.
    bandwidth: Option<Average>,
    responsive: bool,
    outstanding: usize,
}

/// What the peers that were asked have shown.
#[derive(Clone, Debug)]
pub struct PeerTracker {
    config: TrackerConfig,
    tracked: BTreeMap<NodeId, Tracked>,
    responsive: usize,
}

impl PeerTracker {
    /// Nobody was asked.
    pub const fn new(config: TrackerConfig) -> PeerTracker {
        PeerTracker { config, tracked: BTreeMap::new(), responsive: 0 }
    }

    /// A peer is asked.
    pub fn asked(&mut self, id: NodeId) {
        let new = Tracked { bandwidth: None, responsive: false, outstanding: 0 };
        self.tracked.entry(id).or_insert(new).outstanding += 1;
    }

    /// It answered with so many bytes after so long.
    pub fn answered(&mut self, now: Time, id: &NodeId, bytes: usize, took: Duration) {
        let bandwidth = bytes as u128 * 1_000_000 / took.as_micros().max(1);
        self.ended(now, id, Some(u64::try_from(bandwidth).unwrap_or(u64::MAX)));
    }

    /// It did not answer.
    pub fn failed(&mut self, now: Time, id: &NodeId) {
        self.ended(now, id, None);
    }

    /// What it was asked ended without saying anything of it.
    pub fn released(&mut self, id: &NodeId) {
        if let Some(tracked) = self.tracked.get_mut(id) {
            tracked.outstanding = tracked.outstanding.saturating_sub(1);
        }
    }

    fn ended(&mut self, now: Time, id: &NodeId, bandwidth: Option<u64>) {
        let half_life = self.config.half_life;
        let Some(tracked) = self.tracked.get_mut(id) else { return };
        tracked.outstanding = tracked.outstanding.saturating_sub(1);
        let sample = bandwidth.unwrap_or(0);
        match &mut tracked.bandwidth {
            Some(average) => average.observe(now, half_life, sample),
            None => tracked.bandwidth = Some(Average::new(now, sample)),
        }
        let was = std::mem::replace(&mut tracked.responsive, bandwidth.is_some());
        self.responsive = self.responsive + usize::from(bandwidth.is_some()) - usize::from(was);
    }

    /// A peer is gone.
    pub fn forget(&mut self, id: &NodeId) {
        if self.tracked.remove(id).is_some_and(|tracked| tracked.responsive) {
            self.responsive -= 1;
        }
    }

    /// Chooses one of `peers`: a new one while few are known to answer, and sometimes later; else mostly the best that
    /// has nothing to do; else any.
    pub fn choose(&self, peers: &[NodeId], rng: &mut Rng) -> Option<NodeId> {
        let of = |some: Vec<NodeId>, rng: &mut Rng| rng.index(some.len()).and_then(|at| some.get(at).copied());
        let untracked: Vec<NodeId> = peers.iter().filter(|id| !self.tracked.contains_key(id)).copied().collect();
        if self.explores(rng)
            && let Some(new) = of(untracked.clone(), rng)
        {
            return Some(new);
        }
        let known = || peers.iter().filter_map(|id| self.tracked.get(id).map(|tracked| (id, tracked)));
        let responsive = || known().filter(|(_, tracked)| tracked.responsive);
        if rng.below(100) >= u64::from(self.config.random_percent) {
            let idle = responsive().filter(|(_, tracked)| tracked.outstanding == 0);
            let best = idle.max_by_key(|(id, tracked)| (tracked.bandwidth.map_or(0, |mean| mean.value()), **id));
            if let Some((id, _)) = best {
                return Some(*id);
            }
        }
        let answers = of(responsive().map(|(id, _)| *id).collect(), rng);
        answers.or_else(|| of(untracked, rng)).or_else(|| of(known().map(|(id, _)| *id).collect(), rng))
    }

    /// Always with few responsive peers, later with probability e^(−0.1 × their number).
    fn explores(&self, rng: &mut Rng) -> bool {
        if self.responsive < self.config.responsive {
            return true;
        }
        // e^(−0.1) in 2^16ths.
        const FACTOR: u64 = 59_299;
        let chance = (0..self.responsive.min(200)).fold(1u64 << 32, |chance, _| (chance * FACTOR) >> 16);
        rng.below(1 << 32) < chance
    }

    /// Peers that were asked and are not gone, and how many of them answer.
    pub fn len(&self) -> (usize, usize) {
        (self.tracked.len(), self.responsive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn ids(count: u8) -> Vec<NodeId> {
        (0..count).map(id).collect()
    }

    /// Peers 0 to `count` answered, the later the better.
    fn answered(count: u8) -> PeerTracker {
        let mut tracker = PeerTracker::new(TrackerConfig::recommended());
        for n in 0..count {
            tracker.asked(id(n));
            tracker.answered(Time::ZERO, &id(n), 1_000 * usize::from(n), SECOND);
        }
        tracker
    }

    #[test]
    fn new_peers_come_first_until_twenty_answer() {
        let (tracker, mut rng) = (answered(19), Rng::new(1));
        for _ in 0..100 {
            assert_eq!(tracker.choose(&ids(20), &mut rng), Some(id(19)));
        }
        let tracker = answered(20);
        let new = (0..1_000).filter(|_| tracker.choose(&ids(21), &mut rng) == Some(id(20))).count();
        assert!((100..180).contains(&new), "e^-2 of a thousand: {new}");
    }

    #[test]
    fn the_best_that_is_idle_is_chosen_four_times_in_five() {
        let (mut tracker, mut rng) = (answered(30), Rng::new(1));
        let best = |tracker: &PeerTracker, of: u8, rng: &mut Rng| {
            (0..1_000).filter(|_| tracker.choose(&ids(30), rng) == Some(id(of))).count()
        };
        assert!((780..850).contains(&best(&tracker, 29, &mut rng)));
        tracker.asked(id(29));
        assert!((780..850).contains(&best(&tracker, 28, &mut rng)), "29 has something to do");
        tracker.released(&id(29));
        assert!((780..850).contains(&best(&tracker, 29, &mut rng)));
    }

    #[test]
    fn responsive_peers_are_preferred_and_others_are_better_than_none() {
        let (mut tracker, mut rng) = (answered(2), Rng::new(1));
        tracker.asked(id(1));
        tracker.failed(Time::ZERO, &id(1));
        assert_eq!(tracker.len(), (2, 1));
        assert!((0..100).all(|_| tracker.choose(&ids(2), &mut rng) == Some(id(0))));
        assert_eq!(tracker.choose(&[id(1)], &mut rng), Some(id(1)));
        assert_eq!(tracker.choose(&[], &mut rng), None);
    }

    #[test]
    fn a_peer_that_is_gone_is_forgotten_whatever_it_did() {
        let mut tracker = answered(2);
        tracker.forget(&id(1));
        tracker.forget(&id(1));
        tracker.answered(Time::ZERO, &id(1), 5, SECOND);
        assert_eq!(tracker.len(), (1, 1));
    }
}
