//! Named timers, each with one deadline and a generation that makes late expiries harmless.

use crate::{Time, TimerOp};

/// The set timers of one machine. Iteration order is (deadline, order of arming), so equal seeds give
/// equal runs.
#[derive(Debug)]
pub struct Timers<T> {
    /// The last is the next to come due. A machine has a handful, so they are looked through.
    armed: Vec<Armed<T>>,
    next_generation: u64,
}

#[derive(Debug)]
struct Armed<T> {
    at: Time,
    generation: u64,
    name: T,
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
        Timers { armed: Vec::new(), next_generation: 0 }
    }
}

impl<T: Ord + Clone> Timers<T> {
    /// Performs one change.
    pub fn apply(&mut self, op: TimerOp<T>) {
        match op {
            TimerOp::Arm(name, at) => {
                let generation = self.next_generation;
                self.next_generation += 1;
                self.disarm(&name);
                // It is armed after all others, so it comes due after those of its instant.
                let before = self.armed.partition_point(|other| other.at > at);
                self.armed.insert(before, Armed { at, generation, name });
            }
            TimerOp::Disarm(name) => self.disarm(&name),
        }
    }

    fn disarm(&mut self, name: &T) {
        if let Some(at) = self.position(name) {
            self.armed.remove(at);
        }
    }

    fn position(&self, name: &T) -> Option<usize> {
        // Those that come due soon are also those that are changed most.
        self.armed.iter().rposition(|armed| armed.name == *name)
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        self.armed.last().map(|armed| armed.at)
    }

    /// The timers due at `now`, earliest first. They stay set until [`claim`](Timers::claim)ed.
    pub fn take_due(&self, now: Time) -> Vec<Due<T>> {
        let due = self.armed.iter().rev().take_while(|armed| armed.at <= now);
        due.map(|armed| Due { name: armed.name.clone(), generation: armed.generation }).collect()
    }

    /// Unsets a due timer and says whether it was still the one that came due.
    pub fn claim(&mut self, due: &Due<T>) -> bool {
        match self.position(&due.name) {
            Some(at) if self.armed[at].generation == due.generation => {
                self.armed.remove(at);
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
