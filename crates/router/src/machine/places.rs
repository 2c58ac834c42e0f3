//! Places for calls: most are for whoever comes first, and some are kept for members, each its part by weight.

use std::collections::BTreeMap;

use peerage_wire::NodeId;

/// What of every limit is kept for members that are connected, and for one of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    /// Hundredths of a limit that are kept for all of them together.
    pub(super) kept: u8,
    /// The weight of the one, and of all of them.
    pub(super) weight: u64,
    pub(super) total: u128,
}

impl Part {
    /// What is kept of a limit: for all, and for the one.
    fn of(self, limit: usize) -> (usize, usize) {
        if self.total == 0 {
            // Nobody has a weight, so all is everybody's.
            return (0, 0);
        }
        let all = limit as u128 * u128::from(self.kept) / 100;
        let own = all * u128::from(self.weight) / self.total;
        // Rounding leaves no member without any.
        let least = u128::from(self.weight > 0).min(all);
        (all as usize, own.max(least) as usize)
    }
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Those of them that are of the peer's own part.
    kept: usize,
}

/// Who has how many of some limited thing: of calls, or of their bytes.
///
/// As in the queue's budget, a peer takes *at large* first and then of its part, and gives back in the opposite order: its
/// part is there again first, for when those without weight have taken everything else.
#[derive(Debug, Default)]
pub(super) struct Places {
    held: BTreeMap<NodeId, Held>,
    /// Who gave everything back last, and may stand among the others with nothing: whoever asks one by one has its entry
    /// still when it comes again.
    last: Option<NodeId>,
    used: usize,
    kept: usize,
}

impl Places {
    /// How many a peer has.
    pub(super) fn of(&self, peer: &NodeId) -> usize {
        self.held.get(peer).map_or(0, |held| held.all)
    }

    /// How many all have.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Peers that have any.
    pub(super) fn peers(&self) -> usize {
        let idle = self.last.is_some_and(|last| self.held.get(&last).is_some_and(|held| held.all == 0));
        self.held.len() - usize::from(idle)
    }

    /// Whether there is room for so many more of this peer's.
    pub(super) fn has_room(&self, peer: &NodeId, count: usize, limit: usize, part: Part) -> bool {
        self.split(peer, count, limit, part).is_some()
    }

    /// How many of so many more would be of the peer's own part; none if there is no room for them.
    fn split(&self, peer: &NodeId, count: usize, limit: usize, part: Part) -> Option<usize> {
        let (all, own) = part.of(limit);
        let has = self.held.get(peer).map_or(0, |held| held.kept);
        let at_large = (limit - all).saturating_sub(self.used - self.kept);
        // Parts change with who is connected, and what was taken of one that was larger stays taken.
        let own = own.saturating_sub(has).min(all.saturating_sub(self.kept));
        let kept = count.saturating_sub(at_large);
        (kept <= own && count <= limit.saturating_sub(self.used)).then_some(kept)
    }

    /// Takes so many, for which [there is room](Places::has_room).
    pub(super) fn take(&mut self, peer: NodeId, count: usize, limit: usize, part: Part) {
        let kept = self.split(&peer, count, limit, part).unwrap_or(0);
        let held = self.held.entry(peer).or_default();
        (held.all, held.kept) = (held.all + count, held.kept + kept);
        (self.used, self.kept) = (self.used + count, self.kept + kept);
    }

    /// Takes one, if the peer has fewer than `per_peer` and [there is room](Places::has_room).
    pub(super) fn take_one(&mut self, peer: NodeId, per_peer: usize, limit: usize, part: Part) -> bool {
        let room = self.of(&peer) < per_peer && self.has_room(&peer, 1, limit, part);
        if room {
            self.take(peer, 1, limit, part);
        }
        room
    }

    /// Gives back so many; more than the peer has counts as all it has.
    pub(super) fn give_back(&mut self, peer: &NodeId, count: usize) {
        let Some(held) = self.held.get_mut(peer) else { return };
        let count = count.min(held.all);
        let kept = count.min(held.kept);
        (held.all, held.kept) = (held.all - count, held.kept - kept);
        (self.used, self.kept) = (self.used - count, self.kept - kept);
        if held.all == 0
            && let Some(before) = self.last.replace(*peer)
            && before != *peer
            && self.of(&before) == 0
        {
            self.held.remove(&before);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn part(weight: u64, total: u128) -> Part {
        Part { kept: 50, weight, total }
    }

    /// Takes one if there is room.
    fn take(places: &mut Places, n: u8, part: Part) -> bool {
        let room = places.has_room(&id(n), 1, 8, part);
        if room {
            places.take(id(n), 1, 8, part);
        }
        room
    }

    /// Takes as long as there is room, and says how many.
    fn fill(places: &mut Places, n: u8, part: Part) -> usize {
        std::iter::repeat_with(|| take(places, n, part)).take_while(|taken| *taken).count()
    }

    #[test]
    fn without_members_all_is_for_whoever_comes_first() {
        let mut places = Places::default();
        assert_eq!(fill(&mut places, 1, part(0, 0)), 8);
        assert!(!take(&mut places, 2, part(0, 0)));
    }

    #[test]
    fn a_crowd_without_weight_leaves_each_member_its_part() {
        let mut places = Places::default();
        assert_eq!(fill(&mut places, 1, part(0, 4)), 4);
        assert_eq!(fill(&mut places, 2, part(3, 4)), 3);
        assert_eq!(fill(&mut places, 3, part(1, 4)), 1);
        assert_eq!(places.used(), 8);
    }

    #[test]
    fn a_member_takes_at_large_first_and_gives_its_part_back_first() {
        let mut places = Places::default();
        assert_eq!(fill(&mut places, 1, part(1, 1)), 8, "alone it has everything");
        (0..4).for_each(|_| places.give_back(&id(1), 1));
        assert!(!take(&mut places, 2, part(0, 1)), "what came back is the member's own");
        assert_eq!(fill(&mut places, 1, part(1, 1)), 4);
        places.give_back(&id(1), 5);
        assert_eq!(fill(&mut places, 2, part(0, 1)), 1, "and then what was taken at large");
    }

    #[test]
    fn a_small_weight_has_one_place_while_there_is_one() {
        let mut places = Places::default();
        fill(&mut places, 1, part(0, 1_001));
        assert!(take(&mut places, 2, part(1, 1_001)) && !take(&mut places, 2, part(1, 1_001)));
        assert_eq!(fill(&mut places, 3, part(1_000, 1_001)), 3);
    }

    #[test]
    fn who_becomes_a_member_finds_its_part_once_the_crowd_gives_back() {
        let mut places = Places::default();
        fill(&mut places, 1, part(0, 0));
        assert!(!take(&mut places, 2, part(1, 1)), "there is none left");
        places.give_back(&id(1), 1);
        assert!(!take(&mut places, 1, part(0, 1)), "the crowd has more than is at large");
        assert!(take(&mut places, 2, part(1, 1)));
    }

    proptest! {
        /// Whatever weights change meanwhile: never beyond the limit, and nothing stays when all have given back.
        #[test]
        fn nothing_leaks(calls in prop::collection::vec((0u8..4, 0u64..3, 1usize..5, any::<bool>()), 0..200)) {
            let mut places = Places::default();
            for (n, weight, count, takes) in calls {
                let part = part(weight, u128::from(weight) + u128::from(n));
                if !takes {
                    places.give_back(&id(n), count);
                } else if places.has_room(&id(n), count, 16, part) {
                    places.take(id(n), count, 16, part);
                }
                prop_assert!(places.used <= 16 && places.kept <= 8);
                prop_assert_eq!(places.used, places.held.values().map(|held| held.all).sum::<usize>());
                prop_assert_eq!(places.kept, places.held.values().map(|held| held.kept).sum::<usize>());
            }
            (0..4).for_each(|n| places.give_back(&id(n), usize::MAX));
            prop_assert_eq!((places.used, places.kept, places.peers()), (0, 0, 0));
        }
    }
}
