//! The machine trait, the effects it may ask for, and a driver that keeps its timers.

use std::fmt::Debug;

use serde::Serialize;

use crate::journal::Recorder;
use crate::{Time, Timers};

/// A protocol's rules: told what happened and when, it answers with [`Effects`].
pub trait Machine {
    /// What may happen to it. Inputs carry tokens and bytes, never permits, sockets or senders, so
    /// that they can be recorded and replayed.
    type In: Clone + Serialize;
    /// What it may ask its shell to do.
    type Out;
    /// Names its timers. Arming a timer that is armed moves it; there is one deadline a name.
    type Timer: Ord + Clone + Debug;

    /// Applies one input at `now`.
    fn handle(&mut self, now: Time, input: Self::In, fx: &mut Effects<Self::Out, Self::Timer>);

    /// Applies the expiry of a timer it armed. `now` may be later than the deadline, never earlier.
    fn expire(&mut self, now: Time, timer: Self::Timer, fx: &mut Effects<Self::Out, Self::Timer>);
}

impl<M: Machine + ?Sized> Machine for Box<M> {
    type In = M::In;
    type Out = M::Out;
    type Timer = M::Timer;

    fn handle(&mut self, now: Time, input: Self::In, fx: &mut Effects<Self::Out, Self::Timer>) {
        (**self).handle(now, input, fx);
    }

    fn expire(&mut self, now: Time, timer: Self::Timer, fx: &mut Effects<Self::Out, Self::Timer>) {
        (**self).expire(now, timer, fx);
    }
}

/// One change to a timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerOp<T> {
    /// Let the timer expire at the given instant, and not at an earlier one it may have had.
    Arm(T, Time),
    /// Let the timer not expire.
    Disarm(T),
}

/// What a machine asks of its shell, in order.
#[derive(Debug)]
pub struct Effects<O, T> {
    outs: Vec<O>,
    timers: Vec<TimerOp<T>>,
}

impl<O, T> Default for Effects<O, T> {
    fn default() -> Self {
        Effects { outs: Vec::new(), timers: Vec::new() }
    }
}

impl<O, T> Effects<O, T> {
    /// Asks the shell to perform `out`.
    pub fn emit(&mut self, out: O) {
        self.outs.push(out);
    }

    /// Sets `timer` to expire at `at`, replacing its earlier deadline if it had one.
    pub fn arm(&mut self, timer: T, at: Time) {
        self.timers.push(TimerOp::Arm(timer, at));
    }

    /// Unsets `timer`; nothing happens if it was not set.
    pub fn disarm(&mut self, timer: T) {
        self.timers.push(TimerOp::Disarm(timer));
    }

    /// Takes the outputs, oldest first. The buffer keeps its room for the next turn.
    pub fn drain(&mut self) -> std::vec::Drain<'_, O> {
        self.outs.drain(..)
    }

    /// Takes the timer changes, oldest first.
    pub fn drain_timers(&mut self) -> std::vec::Drain<'_, TimerOp<T>> {
        self.timers.drain(..)
    }

    /// Whether nothing is waiting to be performed.
    pub fn is_empty(&self) -> bool {
        self.outs.is_empty() && self.timers.is_empty()
    }
}

/// A machine with its timers and effect buffer: what every shell holds.
///
/// It performs nothing. After [`handle`](Driver::handle) or [`expire_due`](Driver::expire_due) the
/// shell performs what [`drain`](Driver::drain) yields and sleeps until
/// [`next_deadline`](Driver::next_deadline).
#[derive(Debug)]
pub struct Driver<M: Machine> {
    machine: M,
    timers: Timers<M::Timer>,
    fx: Effects<M::Out, M::Timer>,
    recorder: Recorder<M>,
}

impl<M: Machine> Driver<M> {
    /// Wraps a machine that has armed nothing yet.
    pub fn new(machine: M) -> Self {
        Driver { machine, timers: Timers::default(), fx: Effects::default(), recorder: Recorder::off() }
    }

    /// The same driver, which keeps a journal of what happens to its machine from now on; see
    /// [`journal`](crate::journal). The machine must be as it was made.
    #[must_use]
    pub fn recorded(mut self, recorder: Recorder<M>) -> Self {
        self.recorder = recorder;
        self
    }

    /// The machine, to be asked.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for set-up and for calls that answer at once. Effects it asks for outside
    /// [`Machine::handle`] go through [`with`](Driver::with). What is changed so is in no journal, which
    /// then says that it cannot be replayed.
    pub fn machine_mut(&mut self) -> &mut M {
        self.recorder.passed_by();
        &mut self.machine
    }

    /// Applies one input.
    pub fn handle(&mut self, now: Time, input: M::In) {
        self.recorder.begin(now, Some(&input), &self.fx.outs);
        self.machine.handle(now, input, &mut self.fx);
        self.recorder.timers(&self.fx.timers);
        self.apply_timers();
        self.recorder.end(&self.fx.outs);
    }

    /// Calls a method of the machine that takes the effect buffer. As with
    /// [`machine_mut`](Driver::machine_mut), no journal has it.
    pub fn with<R>(&mut self, call: impl FnOnce(&mut M, &mut Effects<M::Out, M::Timer>) -> R) -> R {
        self.recorder.passed_by();
        let answer = call(&mut self.machine, &mut self.fx);
        self.apply_timers();
        answer
    }

    /// Expires every timer that is due at `now`, earliest first. A timer armed for an instant that
    /// is already due expires in the next call, so this always ends.
    pub fn expire_due(&mut self, now: Time) {
        let due = self.timers.take_due(now);
        if due.is_empty() {
            return;
        }
        self.recorder.begin(now, None, &self.fx.outs);
        for timer in due {
            // An earlier expiry of this round may have moved or unset this one.
            if self.timers.claim(&timer) {
                self.machine.expire(now, timer.into_name(), &mut self.fx);
                self.recorder.timers(&self.fx.timers);
                self.apply_timers();
            }
        }
        self.recorder.end(&self.fx.outs);
    }

    /// When the shell must next call [`expire_due`](Driver::expire_due).
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// Takes what the machine asked for, oldest first.
    pub fn drain(&mut self) -> std::vec::Drain<'_, M::Out> {
        self.fx.drain()
    }

    /// The same as one buffer, which the machine does not keep room for: for shells of many machines that are
    /// mostly idle.
    pub fn take_outs(&mut self) -> Vec<M::Out> {
        std::mem::take(&mut self.fx.outs)
    }

    /// Lends it a buffer for what it asks for next, if it has none: for those same shells, which
    /// [take](Driver::take_outs) it back with the effects in it.
    pub fn lend(&mut self, mut room: Vec<M::Out>) {
        if self.fx.outs.capacity() == 0 {
            room.clear();
            self.fx.outs = room;
        }
    }

    fn apply_timers(&mut self) {
        for op in self.fx.timers.drain(..) {
            self.timers.apply(op);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Its first timer unsets the second, and re-arms itself for the past.
    struct Canceller {
        fired: Vec<u8>,
    }

    impl Machine for Canceller {
        type In = ();
        type Out = ();
        type Timer = u8;

        fn handle(&mut self, now: Time, _input: (), fx: &mut Effects<(), u8>) {
            fx.arm(1, now);
            fx.arm(2, now);
            fx.arm(3, now);
        }

        fn expire(&mut self, now: Time, timer: u8, fx: &mut Effects<(), u8>) {
            self.fired.push(timer);
            if timer == 1 {
                fx.disarm(2);
                fx.arm(1, now);
            }
        }
    }

    #[test]
    fn a_timer_unset_by_an_earlier_expiry_of_the_same_round_does_not_fire() {
        let mut driver = Driver::new(Canceller { fired: Vec::new() });
        driver.handle(Time::ZERO, ());
        driver.expire_due(Time::ZERO);
        assert_eq!(driver.machine().fired, [1, 3]);
    }

    #[test]
    fn a_timer_armed_for_the_past_waits_for_the_next_round() {
        let mut driver = Driver::new(Canceller { fired: Vec::new() });
        driver.handle(Time::ZERO, ());
        driver.expire_due(Time::ZERO + Duration::from_secs(1));
        assert_eq!(driver.next_deadline(), Some(Time::ZERO + Duration::from_secs(1)));
    }
}
