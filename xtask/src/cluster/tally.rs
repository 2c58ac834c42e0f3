//! The account of every message: what was published, who delivered it, how often and how soon.
//!
//! Nothing here knows a process or a socket; times are counted from the start of the run.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// BLAKE3 of a payload.
pub(crate) type Hash = [u8; 32];

/// How long before it was back something may have been published that a restarted node must get all the same: nodes keep
/// messages for two minutes, and it takes them some seconds to fetch what they lack.
const KEPT: Duration = Duration::from_secs(90);

/// Which life of a node a delivery belongs to: 0 until it is killed, 1 afterwards.
pub(crate) type Life = u32;

/// One publication, in the order they were made.
#[derive(Debug, Clone, Copy)]
struct Publication {
    node: usize,
    at: Duration,
}

#[derive(Debug)]
pub(crate) struct Tally {
    items: Vec<Hash>,
    /// How many items share a payload: each of them must be delivered.
    copies: HashMap<Hash, usize>,
    publications: HashMap<Hash, Vec<Publication>>,
    published: usize,
    nodes: Vec<NodeTally>,
    propagation: Vec<Duration>,
}

#[derive(Debug, Default)]
struct NodeTally {
    victim: bool,
    life: Life,
    /// Message ids this process delivered.
    ids: HashSet<String>,
    /// Deliveries of this process by payload.
    delivered: HashMap<Hash, usize>,
    /// The same, of the processes before: the most of any of them.
    before: HashMap<Hash, usize>,
    matched: usize,
    own: usize,
    back_at: Option<Duration>,
    duplicates: usize,
    foreign: usize,
    missed: u64,
}

/// Sums over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Items times nodes that stayed up.
    pub(crate) expected: usize,
    pub(crate) delivered: usize,
    pub(crate) lost: usize,
    /// Deliveries to the application of one process beyond the first, on any node.
    pub(crate) duplicates: usize,
    /// Deliveries of something nobody published.
    pub(crate) foreign: usize,
    /// Events a node says its subscriber was too slow for.
    pub(crate) missed: u64,
    /// Deliveries, at nodes that stayed up, of their own publications.
    pub(crate) own: usize,
}

impl Tally {
    pub(crate) fn new(items: Vec<Hash>, nodes: usize, victims: &[usize]) -> Self {
        let mut copies = HashMap::new();
        for hash in &items {
            *copies.entry(*hash).or_insert(0) += 1;
        }
        let nodes = (0..nodes).map(|node| NodeTally { victim: victims.contains(&node), ..NodeTally::default() });
        let (publications, propagation) = (HashMap::new(), Vec::new());
        Self { items, copies, publications, published: 0, nodes: nodes.collect(), propagation }
    }

    /// Says that `item` is about to be published through `node`; told before it is, so that no delivery can be
    /// counted earlier.
    pub(crate) fn publishing(&mut self, item: usize, node: usize, at: Duration) {
        self.publications.entry(self.items[item]).or_default().push(Publication { node, at });
        self.published += 1;
    }

    /// The node was busy and `item` is handed to it again: its way through the network begins now.
    pub(crate) fn publishing_again(&mut self, item: usize, at: Duration) {
        let publications = self.publications.get_mut(&self.items[item]);
        if let Some(last) = publications.and_then(|publications| publications.last_mut()) {
            last.at = at;
        }
    }

    /// One message reached the application of one process.
    pub(crate) fn delivered(&mut self, node: usize, life: Life, id: &str, hash: &Hash, at: Duration) {
        let tally = &mut self.nodes[node];
        if life != tally.life {
            return; // Said by a process that has been killed since; its account is closed.
        }
        if !tally.ids.insert(id.to_owned()) {
            tally.duplicates += 1;
            return;
        }
        let Some(publications) = self.publications.get(hash) else {
            tally.foreign += 1;
            return;
        };
        let count = tally.delivered.entry(*hash).or_insert(0);
        if *count >= self.copies[hash] {
            tally.duplicates += 1;
            return;
        }
        // Equal payloads cannot be told apart: the n-th delivery is taken for the n-th publication.
        let publication = publications.get(*count);
        *count += 1;
        tally.matched += 1;
        match publication {
            Some(publication) if publication.node == node => tally.own += 1,
            Some(publication) if !tally.victim => self.propagation.push(at.saturating_sub(publication.at)),
            _ => {}
        }
    }

    /// A node says that its subscriber missed so many events.
    pub(crate) fn missed(&mut self, node: usize, count: u64) {
        self.nodes[node].missed += count;
    }

    /// A node was killed and starts again: deliveries are counted per process.
    pub(crate) fn restarted(&mut self, node: usize) {
        let tally = &mut self.nodes[node];
        tally.life += 1;
        tally.ids.clear();
        for (hash, count) in std::mem::take(&mut tally.delivered) {
            let most = tally.before.entry(hash).or_insert(0);
            *most = count.max(*most);
        }
        tally.matched = 0;
        tally.own = 0;
        tally.back_at = None;
    }

    /// A restarted node is in the mesh again: what was published since shortly before must come to it, besides what it had.
    pub(crate) fn back(&mut self, node: usize, at: Duration) {
        self.nodes[node].back_at = Some(at);
    }

    pub(crate) fn is_back(&self, node: usize) -> bool {
        self.nodes[node].back_at.is_some()
    }

    pub(crate) fn published(&self) -> usize {
        self.published
    }

    /// Deliveries of the node's present process.
    pub(crate) fn delivered_by(&self, node: usize) -> usize {
        self.nodes[node].matched
    }

    /// How many messages a node has delivered in all its lives.
    pub(crate) fn has(&self, node: usize) -> usize {
        let tally = &self.nodes[node];
        let newer = tally.delivered.iter().map(|(hash, count)| count.max(tally.before.get(hash).unwrap_or(&0)));
        let older = tally.before.iter().filter(|(hash, _)| !tally.delivered.contains_key(*hash));
        newer.sum::<usize>() + older.map(|(_, count)| count).sum::<usize>()
    }

    /// How many of the messages that a restarted node must have by now no life of it has delivered, and how many there are:
    /// those that were still to be had from others when it was back, and all since.
    pub(crate) fn missing_since_back(&self, node: usize) -> (usize, usize) {
        let tally = &self.nodes[node];
        let Some(back_at) = tally.back_at else { return (0, 0) };
        let mut missing = 0;
        let mut wanted = 0;
        for (hash, publications) in &self.publications {
            let since = publications.iter().filter(|publication| publication.at + KEPT >= back_at).count();
            let most = |of: &HashMap<Hash, usize>| of.get(hash).copied().unwrap_or(0);
            wanted += since;
            missing += since.saturating_sub(most(&tally.delivered).max(most(&tally.before)));
        }
        (missing, wanted)
    }

    /// Whether every node that stayed up has everything, and every restarted one what it must have.
    pub(crate) fn is_complete(&self) -> bool {
        let complete = |(node, tally): (usize, &NodeTally)| {
            if tally.victim {
                tally.back_at.is_some() && self.missing_since_back(node).0 == 0
            } else {
                tally.matched == self.items.len()
            }
        };
        self.published == self.items.len() && self.nodes.iter().enumerate().all(complete)
    }

    pub(crate) fn sums(&self) -> Sums {
        let stayed = || self.nodes.iter().filter(|tally| !tally.victim);
        let expected = self.items.len() * stayed().count();
        let delivered = stayed().map(|tally| tally.matched).sum();
        Sums {
            expected,
            delivered,
            lost: expected - delivered,
            duplicates: self.nodes.iter().map(|tally| tally.duplicates).sum(),
            foreign: self.nodes.iter().map(|tally| tally.foreign).sum(),
            missed: self.nodes.iter().map(|tally| tally.missed).sum(),
            own: stayed().map(|tally| tally.own).sum(),
        }
    }

    /// From publication to delivery, at every other node that stayed up; sorted.
    pub(crate) fn propagation(&self) -> Vec<Duration> {
        let mut sorted = self.propagation.clone();
        sorted.sort_unstable();
        sorted
    }
}

/// The smallest value that `percent` of the sorted values do not exceed (nearest rank).
pub(crate) fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Hash = [1; 32];
    const B: Hash = [2; 32];

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_run_is_complete_when_every_node_has_everything_once() {
        let mut tally = Tally::new(vec![A, B], 2, &[]);
        tally.publishing(0, 0, at(10));
        tally.publishing(1, 1, at(20));
        for (node, id, hash, when) in [(0, "a", A, 11), (1, "a", A, 14), (1, "b", B, 21)] {
            tally.delivered(node, 0, id, &hash, at(when));
        }
        assert!(!tally.is_complete());
        assert_eq!(tally.sums().lost, 1);
        tally.delivered(0, 0, "b", &B, at(27));
        assert!(tally.is_complete());
        let sums = tally.sums();
        assert_eq!((sums.expected, sums.delivered, sums.lost, sums.duplicates, sums.own), (4, 4, 0, 0, 2));
        assert_eq!(tally.propagation(), [at(4), at(7)], "a node's own publications do not travel");
    }

    #[test]
    fn time_spent_waiting_for_a_busy_node_is_not_propagation() {
        let mut tally = Tally::new(vec![A], 2, &[]);
        tally.publishing(0, 0, at(10));
        tally.publishing_again(0, at(110));
        tally.delivered(1, 0, "a", &A, at(115));
        assert_eq!(tally.propagation(), [at(5)]);
        assert_eq!(tally.published(), 1);
    }

    #[test]
    fn a_payload_published_twice_on_purpose_must_come_twice() {
        let mut tally = Tally::new(vec![A, A], 1, &[]);
        tally.publishing(0, 0, at(0));
        tally.publishing(1, 0, at(1));
        tally.delivered(0, 0, "first", &A, at(2));
        assert!(!tally.is_complete());
        tally.delivered(0, 0, "second", &A, at(3));
        assert!(tally.is_complete());
        tally.delivered(0, 0, "third", &A, at(4));
        assert_eq!(tally.sums().duplicates, 1);
    }

    #[test]
    fn the_same_id_twice_is_a_duplicate_even_while_a_copy_is_still_expected() {
        let mut tally = Tally::new(vec![A, A], 1, &[]);
        tally.publishing(0, 0, at(0));
        tally.delivered(0, 0, "first", &A, at(2));
        tally.delivered(0, 0, "first", &A, at(3));
        let sums = tally.sums();
        assert_eq!((sums.delivered, sums.duplicates, sums.lost), (1, 1, 1));
    }

    #[test]
    fn what_nobody_published_is_foreign_and_what_a_subscriber_missed_is_counted() {
        let mut tally = Tally::new(vec![A], 1, &[]);
        tally.delivered(0, 0, "x", &B, at(1));
        tally.missed(0, 3);
        assert_eq!((tally.sums().foreign, tally.sums().missed, tally.sums().delivered), (1, 3, 0));
    }

    #[test]
    fn a_restarted_node_must_get_what_was_published_while_it_was_away_and_is_still_kept() {
        let mut tally = Tally::new(vec![A, B], 2, &[1]);
        tally.publishing(0, 0, at(0));
        tally.restarted(1);
        tally.publishing(1, 0, KEPT);
        tally.delivered(0, 0, "a", &A, at(1));
        tally.delivered(0, 0, "b", &B, at(2));
        tally.back(1, KEPT + at(5));
        assert_eq!((tally.missing_since_back(1), tally.has(1)), ((1, 1), 0), "the first one may be gone everywhere");
        tally.delivered(1, 1, "b", &B, KEPT + at(9));
        assert_eq!((tally.missing_since_back(1), tally.has(1), tally.is_complete()), ((0, 1), 1, true));
    }

    #[test]
    fn a_killed_node_is_not_expected_to_deliver_but_must_miss_nothing_once_it_is_back() {
        let mut tally = Tally::new(vec![A, B], 2, &[1]);
        tally.publishing(0, 0, at(0));
        tally.delivered(0, 0, "a", &A, at(1));
        tally.delivered(1, 0, "a", &A, at(1));
        tally.restarted(1);
        tally.delivered(1, 0, "late", &B, at(2)); // The dead process's words come too late to count.
        assert_eq!(tally.delivered_by(1), 0);
        tally.delivered(1, 1, "a", &A, at(3)); // Its next life may be told again what the last one knew.
        tally.back(1, at(5));
        assert_eq!(tally.missing_since_back(1), (0, 1));
        tally.publishing(1, 0, at(6));
        tally.delivered(0, 0, "b", &B, at(7));
        assert_eq!((tally.missing_since_back(1), tally.has(1)), ((1, 2), 1));
        assert!(!tally.is_complete());
        tally.delivered(1, 1, "b", &B, at(9));
        assert!(tally.is_complete());
        let sums = tally.sums();
        assert_eq!((sums.expected, sums.delivered, sums.duplicates, sums.foreign), (2, 2, 0, 0));
        assert!(tally.propagation().is_empty(), "only nodes that stayed up are timed");
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), Some(100));
        assert_eq!(percentile(&values, 99), Some(198));
        assert_eq!(percentile(&values, 100), Some(200));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile(&[1, 9], 50), Some(1));
        assert_eq!(percentile::<u32>(&[], 99), None);
    }
}
