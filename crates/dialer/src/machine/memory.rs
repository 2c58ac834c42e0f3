//! Who was dialled lately and who failed: one bounded map for history and back-off.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::{Backoff, Rng, Time};
use peerage_wire::{Consequence, NodeId};

use crate::Refusal;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// End of the history that its last dial began.
    recent_until: Time,
    /// End of the back-off that its last failure began.
    backoff_until: Time,
    /// Failures since the last session that lived.
    failures: u32,
}

impl Entry {
    fn held_until(&self) -> Time {
        self.recent_until.max(self.backoff_until)
    }
}

/// The memory of dials. Entries leave when they hold nobody back any more and have been kept for
/// `forget_after`, or earlier when room is needed, those first whose hold ends first. So a candidate is
/// never dialled early: if a static peer took the place of one that was held back, there is room for
/// candidates again only after the hold would have ended.
#[derive(Debug)]
pub(super) struct Memory {
    capacity: usize,
    forget_after: Duration,
    entries: BTreeMap<NodeId, Entry>,
    /// Nobody's hold ends before this.
    next_free: Option<Time>,
    #[cfg(any(test, feature = "planted-bugs"))]
    bug: bool,
}

impl Memory {
    pub(super) fn new(capacity: usize, forget_after: Duration) -> Memory {
        Memory {
            capacity,
            forget_after,
            entries: BTreeMap::new(),
            next_free: None,
            #[cfg(any(test, feature = "planted-bugs"))]
            bug: false,
        }
    }

    /// From now on a hold lasts milliseconds where it should last seconds.
    #[cfg(any(test, feature = "planted-bugs"))]
    pub(super) fn plant_bug(&mut self) {
        self.bug = true;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether `id` is remembered.
    pub(super) fn knows(&self, id: &NodeId) -> bool {
        self.entries.contains_key(id)
    }

    /// Until when, and why, `id` is held back at `now`.
    pub(super) fn holds(&self, now: Time, id: &NodeId) -> Option<(Time, Refusal)> {
        let entry = self.entries.get(id)?;
        if entry.recent_until > now {
            Some((entry.held_until(), Refusal::RecentlyDialled))
        } else if entry.backoff_until > now {
            Some((entry.backoff_until, Refusal::BackingOff))
        } else {
            None
        }
    }

    /// Whether a dial of `id` can be noted without forgetting somebody who is still held back.
    pub(super) fn has_room(&self, now: Time, id: &NodeId) -> bool {
        self.entries.len() < self.capacity
            || self.entries.contains_key(id)
            || (self.next_free.is_some_and(|at| at <= now)
                && self.entries.values().any(|entry| entry.held_until() <= now))
    }

    /// Holds `id` back until `until` because it is being dialled.
    pub(super) fn dialled(&mut self, now: Time, id: NodeId, until: Time) {
        self.change(now, id, |entry| entry.recent_until = until);
    }

    /// Counts a failure of `id` and holds it back accordingly. What deserves more than that is the root's to say.
    pub(super) fn failed(&mut self, now: Time, id: NodeId, what: Consequence, backoff: Backoff, rng: &mut Rng) {
        if what == Consequence::Ignore {
            return;
        }
        self.change(now, id, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            let counted = if what == Consequence::BackOff { entry.failures } else { u32::MAX };
            entry.backoff_until = entry.backoff_until.max(now + backoff.delay(counted, rng));
        });
    }

    /// Forgets the failures of `id` and frees it at `at`, if it is held back for longer.
    pub(super) fn pardon(&mut self, now: Time, id: NodeId, at: Time) {
        if self.entries.contains_key(&id) {
            self.change(now, id, |entry| {
                entry.failures = 0;
                entry.backoff_until = now;
                entry.recent_until = entry.recent_until.min(at);
            });
        }
    }

    /// Clears the failures of `id`: a session with it lived.
    pub(super) fn lived(&mut self, id: &NodeId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.failures = 0;
        }
    }

    /// Forgets whoever is due.
    pub(super) fn forget(&mut self, now: Time) {
        if self.next_free.is_some_and(|at| at + self.forget_after <= now) {
            self.entries.retain(|_, entry| entry.held_until() + self.forget_after > now);
            self.next_free = self.entries.values().map(Entry::held_until).min();
        }
    }

    /// The one whose hold ends first.
    fn forget_first(&mut self) {
        let first = self.entries.iter().min_by_key(|(id, entry)| (entry.held_until(), **id)).map(|(id, _)| *id);
        first.and_then(|id| self.entries.remove(&id));
    }

    fn change(&mut self, now: Time, id: NodeId, change: impl FnOnce(&mut Entry)) {
        let new = Entry { recent_until: now, backoff_until: now, failures: 0 };
        let mut entry = self.entries.remove(&id).unwrap_or(new);
        change(&mut entry);
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.bug {
            entry.recent_until = now + entry.recent_until.since(now) / 1000;
            entry.backoff_until = now + entry.backoff_until.since(now) / 1000;
        }
        while self.entries.len() >= self.capacity.max(1) {
            self.forget_first();
        }
        self.next_free = Some(self.next_free.map_or(entry.held_until(), |at| at.min(entry.held_until())));
        self.entries.insert(id, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: Duration = Duration::from_secs(35);
    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(60), cap: Duration::from_secs(600) };

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn history_ends_at_its_instant_and_back_off_goes_on() {
        let mut memory = Memory::new(8, Duration::from_secs(60));
        memory.dialled(at(0), id(1), at(0) + HISTORY);
        assert_eq!(memory.holds(at(34), &id(1)), Some((at(35), Refusal::RecentlyDialled)));
        assert_eq!(memory.holds(at(35), &id(1)), None);
        memory.failed(at(20), id(1), Consequence::BackOff, BACKOFF, &mut Rng::new(1));
        let (until, why) = memory.holds(at(36), &id(1)).expect("20 + at least 30");
        assert_eq!(why, Refusal::BackingOff);
        assert!(until >= at(50) && until <= at(80), "{until:?}");
    }

    #[test]
    fn a_hopeless_node_waits_for_the_longest_time_at_once() {
        let mut memory = Memory::new(8, Duration::from_secs(60));
        memory.failed(at(0), id(1), Consequence::Avoid, BACKOFF, &mut Rng::new(1));
        assert!(memory.holds(at(299), &id(1)).is_some());
    }

    #[test]
    fn failures_are_forgotten_after_their_time_and_after_a_session_that_lived() {
        let mut rng = Rng::new(1);
        let mut memory = Memory::new(8, Duration::from_secs(60));
        for _ in 0..4 {
            memory.failed(at(0), id(1), Consequence::BackOff, BACKOFF, &mut rng);
        }
        memory.lived(&id(1));
        memory.failed(at(1_000), id(1), Consequence::BackOff, BACKOFF, &mut rng);
        assert_eq!(memory.holds(at(1_060), &id(1)), None, "one failure, not five");
        memory.forget(at(1_120));
        assert_eq!(memory.len(), 0);
    }

    #[test]
    fn room_is_made_by_those_who_are_free_and_by_nobody_else() {
        let mut memory = Memory::new(2, Duration::from_secs(600));
        memory.dialled(at(0), id(1), at(10));
        memory.dialled(at(0), id(2), at(20));
        assert!(!memory.has_room(at(5), &id(3)));
        assert!(memory.has_room(at(5), &id(2)), "it has its place");
        assert!(memory.has_room(at(10), &id(3)));
        memory.dialled(at(10), id(3), at(30));
        assert_eq!(memory.len(), 2);
        assert!(memory.holds(at(10), &id(2)).is_some(), "the other hold is kept");
    }

    #[test]
    fn a_pardoned_node_is_free_at_the_given_instant_and_no_later_than_it_was() {
        let mut memory = Memory::new(8, Duration::from_secs(60));
        memory.pardon(at(0), id(1), at(5));
        assert_eq!(memory.len(), 0, "nothing was held against it");
        memory.dialled(at(0), id(1), at(0) + HISTORY);
        memory.failed(at(0), id(1), Consequence::Avoid, BACKOFF, &mut Rng::new(1));
        memory.pardon(at(1), id(1), at(6));
        assert_eq!(memory.holds(at(5), &id(1)), Some((at(6), Refusal::RecentlyDialled)));
        assert_eq!(memory.holds(at(6), &id(1)), None);
        memory.pardon(at(7), id(1), at(12));
        assert_eq!(memory.holds(at(7), &id(1)), None, "a pardon holds nobody back");
    }
}
