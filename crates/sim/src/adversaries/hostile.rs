//! A machine that looks like a real one from outside: inside is the real one, and a mind that has it lie.

use peerage_machine::{Driver, Effects, Machine, Time};

/// What makes a machine hostile. It sees what the real machine is told and what that asks for, may change, add or
/// withhold either, and acts by itself when it wants to.
pub(super) trait Mind<M: Machine> {
    /// Something happened: what the real machine is told of it, and what is asked for beside that.
    fn hears(&mut self, _now: Time, input: M::In, _outs: &mut Vec<M::Out>) -> Option<M::In> {
        Some(input)
    }

    /// The real machine asks for this: what becomes of it.
    fn says(&mut self, _now: Time, out: M::Out, outs: &mut Vec<M::Out>) {
        outs.push(out);
    }

    /// When it acts by itself next.
    fn next(&self) -> Option<Time> {
        None
    }

    /// Its time has come: what it asks for, and what it has the real machine believe.
    fn acts(&mut self, _now: Time, _outs: &mut Vec<M::Out>) -> Vec<M::In> {
        Vec::new()
    }
}

/// A real machine and the mind that has it. All of its deadlines are one timer outside, whichever is given.
pub(super) struct Hostile<M: Machine, A> {
    real: Driver<M>,
    mind: A,
    alarm: M::Timer,
    armed: Option<Time>,
}

impl<M: Machine, A: Mind<M>> Hostile<M, A> {
    pub(super) fn new(real: M, mind: A, alarm: M::Timer) -> Hostile<M, A> {
        Hostile { real: Driver::new(real), mind, alarm, armed: None }
    }

    fn finish(&mut self, now: Time, mut outs: Vec<M::Out>, fx: &mut Effects<M::Out, M::Timer>) {
        for out in self.real.drain() {
            self.mind.says(now, out, &mut outs);
        }
        outs.into_iter().for_each(|out| fx.emit(out));
        let due = self.real.next_deadline().into_iter().chain(self.mind.next()).min();
        if due != self.armed {
            match due {
                Some(at) => fx.arm(self.alarm.clone(), at),
                None => fx.disarm(self.alarm.clone()),
            }
            self.armed = due;
        }
    }
}

impl<M: Machine, A: Mind<M>> Machine for Hostile<M, A> {
    type In = M::In;
    type Out = M::Out;
    type Timer = M::Timer;

    fn handle(&mut self, now: Time, input: M::In, fx: &mut Effects<M::Out, M::Timer>) {
        let mut outs = Vec::new();
        if let Some(input) = self.mind.hears(now, input, &mut outs) {
            self.real.handle(now, input);
        }
        self.finish(now, outs, fx);
    }

    fn expire(&mut self, now: Time, _timer: M::Timer, fx: &mut Effects<M::Out, M::Timer>) {
        self.armed = None;
        let mut outs = Vec::new();
        self.real.expire_due(now);
        if self.mind.next().is_some_and(|at| at <= now) {
            for input in self.mind.acts(now, &mut outs) {
                self.real.handle(now, input);
            }
        }
        self.finish(now, outs, fx);
    }
}
