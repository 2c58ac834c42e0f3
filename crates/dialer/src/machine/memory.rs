//! Who was dialled lately and who failed: one bounded map for history and back-off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerage_machine::{Backoff, Rng, Time};
use peerage_wire::{DisconnectReason, NodeId};

use crate::{DialOutcome, Refusal};

/// What an ended attempt says about its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing against it.
    Ignore,
    /// It may do better later.
    BackOff,
    /// It will not do better soon: it is another node, on another network, or bans this one.
    GiveUp,
}

impl Verdict {
    /// The one place that sorts outcomes.
    pub(super) fn of(outcome: DialOutcome) -> Verdict {
        use DisconnectReason as R;
        match outcome {
            DialOutcome::Connected | DialOutcome::Cancelled => Verdict::Ignore,
            DialOutcome::HandshakeFailed(reason) => match reason {
                // It has, or is making, a session with this node.
                R::AlreadyConnected | R::Replaced => Verdict::Ignore,
                R::Useless
                | R::IncompatibleVersion
                | R::InvalidIdentity
                | R::UnexpectedIdentity
                | R::SelfConnect
                | R::WrongNetwork
                | R::WrongFork
                | R::NoCommonCapability
                | R::Banned => Verdict::GiveUp,
                _ => Verdict::BackOff,
            },
            DialOutcome::ConnectFailed | DialOutcome::TimedOut | DialOutcome::Unresolved => Verdict::BackOff,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// End of the history that its last dial began.
    recent_until: Time,
    /// End of the back-off that its last failure began.
    backoff_until: Time,
    /// Failures since the last session that lived.
    failures: u32,
    forget_at: Time,
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
    /// By the instant of forgetting, which is the end of the hold plus a constant: the first entry is
    /// also the one whose hold ends first.
    order: BTreeSet<(Time, NodeId)>,
}

impl Memory {
    pub(super) fn new(capacity: usize, forget_after: Duration) -> Memory {
        Memory { capacity, forget_after, entries: BTreeMap::new(), order: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
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
            || self.order.first().and_then(|(_, first)| self.entries.get(first)).is_some_and(|e| e.held_until() <= now)
    }

    /// Holds `id` back until `until` because it is being dialled.
    pub(super) fn dialled(&mut self, now: Time, id: NodeId, until: Time) {
        self.change(now, id, |entry| entry.recent_until = until);
    }

    /// Counts a failure of `id` and holds it back accordingly.
    pub(super) fn failed(&mut self, now: Time, id: NodeId, verdict: Verdict, backoff: Backoff, rng: &mut Rng) {
        if verdict == Verdict::Ignore {
            return;
        }
        self.change(now, id, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            let counted = if verdict == Verdict::GiveUp { u32::MAX } else { entry.failures };
            entry.backoff_until = entry.backoff_until.max(now + backoff.delay(counted, rng));
        });
    }

    /// Clears the failures of `id`: a session with it lived.
    pub(super) fn lived(&mut self, id: &NodeId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.failures = 0;
        }
    }

    /// Forgets whoever is due.
    pub(super) fn forget(&mut self, now: Time) {
        while let Some((at, _)) = self.order.first()
            && *at <= now
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, id)) = self.order.pop_first() {
            self.entries.remove(&id);
        }
    }

    fn change(&mut self, now: Time, id: NodeId, change: impl FnOnce(&mut Entry)) {
        let mut entry = match self.entries.remove(&id) {
            Some(entry) => {
                self.order.remove(&(entry.forget_at, id));
                entry
            }
            None => Entry { recent_until: now, backoff_until: now, failures: 0, forget_at: now },
        };
        change(&mut entry);
        entry.forget_at = entry.held_until() + self.forget_after;
        while self.entries.len() >= self.capacity.max(1) {
            self.forget_first();
        }
        self.order.insert((entry.forget_at, id));
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
        memory.failed(at(20), id(1), Verdict::BackOff, BACKOFF, &mut Rng::new(1));
        let (until, why) = memory.holds(at(36), &id(1)).expect("20 + at least 30");
        assert_eq!(why, Refusal::BackingOff);
        assert!(until >= at(50) && until <= at(80), "{until:?}");
    }

    #[test]
    fn a_hopeless_node_waits_for_the_longest_time_at_once() {
        let mut memory = Memory::new(8, Duration::from_secs(60));
        memory.failed(at(0), id(1), Verdict::GiveUp, BACKOFF, &mut Rng::new(1));
        assert!(memory.holds(at(299), &id(1)).is_some());
    }

    #[test]
    fn failures_are_forgotten_after_their_time_and_after_a_session_that_lived() {
        let mut rng = Rng::new(1);
        let mut memory = Memory::new(8, Duration::from_secs(60));
        for _ in 0..4 {
            memory.failed(at(0), id(1), Verdict::BackOff, BACKOFF, &mut rng);
        }
        memory.lived(&id(1));
        memory.failed(at(1_000), id(1), Verdict::BackOff, BACKOFF, &mut rng);
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
    fn the_same_outcome_is_always_sorted_the_same() {
        assert_eq!(Verdict::of(DialOutcome::Connected), Verdict::Ignore);
        assert_eq!(Verdict::of(DialOutcome::ConnectFailed), Verdict::BackOff);
        for (reason, verdict) in [
            (DisconnectReason::AlreadyConnected, Verdict::Ignore),
            (DisconnectReason::TooManyPeers, Verdict::BackOff),
            (DisconnectReason::Quitting, Verdict::BackOff),
            (DisconnectReason::Unknown(9_999), Verdict::BackOff),
            (DisconnectReason::WrongNetwork, Verdict::GiveUp),
            (DisconnectReason::UnexpectedIdentity, Verdict::GiveUp),
        ] {
            assert_eq!(Verdict::of(DialOutcome::HandshakeFailed(reason)), verdict);
        }
    }
}
