//! Named timers, each with one deadline and a generation that makes late expiries harmless.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Time, TimerOp};

/// The set timers of one machine. Iteration order is (deadline, order of arming), so equal seeds give
/// equal runs.
#[derive(Debug)]
pub struct Timers<T> {
    armed: BTreeMap<T, (Time, u64)>,
    queue: BTreeSet<(Time, u64, T)>,
    next_generation: u64,
}

/// A timer that came due, valid only while nobody re-armed or unset it.
#[derive(Debug)]
pub struct Due<T> {
    name: T,
    generation: u64,
}

impl<T> Due<T> {
    /// The timer's name.
    pub fn into_name(self) -> T {
        self.name
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers { armed: BTreeMap::new(), queue: BTreeSet::new(), next_generation: 0 }
    }
}

impl<T: Ord + Clone> Timers<T> {
    /// Performs one change.
    pub fn apply(&mut self, op: TimerOp<T>) {
        match op {
            TimerOp::Arm(name, at) => {
                let generation = self.next_generation;
                self.next_generation += 1;
                if let Some((old_at, old_generation)) = self.armed.insert(name.clone(), (at, generation)) {
                    self.queue.remove(&(old_at, old_generation, name.clone()));
                }
                self.queue.insert((at, generation, name));
            }
            TimerOp::Disarm(name) => {
                if let Some((at, generation)) = self.armed.remove(&name) {
                    self.queue.remove(&(at, generation, name));
                }
            }
        }
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        self.queue.first().map(|(at, _, _)| *at)
    }

    /// The timers due at `now`, earliest first. They stay set until [`claim`](Timers::claim)ed.
    pub fn take_due(&self, now: Time) -> Vec<Due<T>> {
        self.queue
            .iter()
            .take_while(|(at, _, _)| *at <= now)
            .map(|(_, generation, name)| Due { name: name.clone(), generation: *generation })
            .collect()
    }

    /// Unsets a due timer and says whether it was still the one that came due.
    pub fn claim(&mut self, due: &Due<T>) -> bool {
        match self.armed.get(&due.name) {
            Some((_, generation)) if *generation == due.generation => {
                self.apply(TimerOp::Disarm(due.name.clone()));
                true
            }
            _ => false,
        }
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.armed.len()
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn arming_again_moves_the_deadline_and_leaves_no_trace() {
        let mut timers = Timers::default();
        timers.apply(TimerOp::Arm("ping", at(1)));
        timers.apply(TimerOp::Arm("ping", at(5)));
        assert_eq!((timers.len(), timers.next_deadline()), (1, Some(at(5))));
        assert!(timers.take_due(at(4)).is_empty());
    }

    #[test]
    fn a_due_timer_that_was_armed_again_is_not_claimed() {
        let mut timers = Timers::default();
        timers.apply(TimerOp::Arm("ping", at(1)));
        let due = timers.take_due(at(1));
        timers.apply(TimerOp::Arm("ping", at(1)));
        assert!(!timers.claim(&due[0]));
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn equal_deadlines_expire_in_the_order_of_arming() {
        let mut timers = Timers::default();
        for name in ["c", "a", "b"] {
            timers.apply(TimerOp::Arm(name, at(1)));
        }
        let names: Vec<_> = timers.take_due(at(1)).into_iter().map(Due::into_name).collect();
        assert_eq!(names, ["c", "a", "b"]);
    }
}
