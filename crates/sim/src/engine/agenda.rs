//! What happens next: a monotone priority queue of sixteen bytes an entry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A moment of the world, in nanoseconds since it began.
pub(crate) type Instant = u64;

#[derive(Clone, Copy)]
struct Item {
    at: Instant,
    rank: u32,
    slot: u32,
}

/// A radix heap: time never goes back, so an entry is moved a few times in all and compared with nobody. What is due
/// at one instant comes in the order of its rank, which is drawn by lot.
pub(crate) struct Agenda {
    /// Bucket `i` holds what differs from `last` in bit `i` and in none above it.
    buckets: [Vec<Item>; 64],
    /// The instant that was last reached.
    last: Instant,
    /// What is due at `last`.
    due: BinaryHeap<Reverse<(u32, u32)>>,
    len: usize,
}

impl Agenda {
    pub(crate) fn new() -> Agenda {
        Agenda { buckets: [const { Vec::new() }; 64], last: 0, due: BinaryHeap::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Enters a slot for an instant that is not before the last one reached or asked for.
    pub(crate) fn push(&mut self, at: Instant, rank: u32, slot: u32) {
        self.len += 1;
        self.sort_in(Item { at: at.max(self.last), rank, slot });
    }

    fn sort_in(&mut self, item: Item) {
        match (item.at ^ self.last).checked_ilog2() {
            None => self.due.push(Reverse((item.rank, item.slot))),
            Some(bit) => self.buckets[bit as usize].push(item),
        }
    }

    /// Takes the next entry if it is due at `until` or before.
    pub(crate) fn pop(&mut self, until: Instant) -> Option<(Instant, u32)> {
        if self.due.is_empty() {
            let bucket = self.buckets.iter().position(|bucket| !bucket.is_empty())?;
            // Nothing in the bucket is before this.
            if (self.last >> bucket | 1) << bucket > until {
                return None;
            }
            let next = self.buckets[bucket].iter().map(|item| item.at).min()?;
            // Whoever asks in small steps does not look through the same bucket at each.
            self.last = next.min(until);
            let mut moving = std::mem::take(&mut self.buckets[bucket]);
            moving.drain(..).for_each(|item| self.sort_in(item));
            // Its room is used again.
            if self.buckets[bucket].is_empty() {
                self.buckets[bucket] = moving;
            }
            if next > until {
                return None;
            }
        } else if self.last > until {
            return None;
        }
        let Reverse((_, slot)) = self.due.pop()?;
        self.len -= 1;
        Some((self.last, slot))
    }
}

#[cfg(test)]
mod tests {
    use peerage_machine::Rng;

    use super::*;

    #[test]
    fn entries_come_in_the_order_of_their_instants_then_of_their_ranks() {
        let mut rng = Rng::new(1);
        let mut agenda = Agenda::new();
        let mut model = std::collections::BTreeSet::new();
        let mut now = 0;
        for slot in 0..20_000_u32 {
            let within = 1 << rng.below(40);
            // Who asks in steps finds nothing too early.
            let next = model.first().map_or(Instant::MAX, |(at, _, _)| *at);
            let step = (now + rng.below(within)).min(next.saturating_sub(1)).max(now);
            if next > step {
                assert_eq!(agenda.pop(step), None);
                now = step;
            }
            let at = now + rng.below(within);
            let rank = rng.below(1 << 32) as u32;
            agenda.push(at, rank, slot);
            model.insert((at, rank, slot));
            if rng.below(3) > 0 {
                let (at, rank, slot) = model.pop_first().expect("one was inserted");
                assert_eq!(agenda.pop(Instant::MAX), Some((at, slot)), "rank {rank}");
                now = at;
            }
            assert_eq!(agenda.len(), model.len());
        }
    }

    #[test]
    fn nothing_is_taken_before_its_time_and_more_may_still_be_entered_then() {
        let mut agenda = Agenda::new();
        agenda.push(100, 0, 1);
        assert_eq!(agenda.pop(99), None);
        agenda.push(99, 0, 2);
        assert_eq!(agenda.pop(99), Some((99, 2)));
        assert_eq!(agenda.pop(100), Some((100, 1)));
        assert_eq!(agenda.pop(Instant::MAX), None);
    }
}
