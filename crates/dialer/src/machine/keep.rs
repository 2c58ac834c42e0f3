//! What becomes of static peers: added, removed, and on every event put where they belong.

use peerage_machine::Time;
use peerage_wire::NodeId;

use super::{DialerMachine, Fx, Timer};
use crate::{Cause, Count, Out, Refusal, StaticPeer};

impl DialerMachine {
    /// Puts a static peer into the pool, or arms the timer that will, or leaves it to the event that ends
    /// what is in its way. Called on each such event: attempt done, peer down, inbound done, new policy, new
    /// addresses, timer, sweep.
    pub(super) fn refresh_static(&mut self, now: Time, id: &NodeId, fx: &mut Fx) {
        if !self.statics.contains(id) {
            return;
        }
        let addresses = self.statics.addresses(id);
        let held_until = match self.check(now, id, &addresses) {
            Ok(()) if addresses.is_empty() => {
                self.statics.resolve_after(id).filter(|resolve_after| *resolve_after > now)
            }
            Ok(()) => None,
            Err(Refusal::RecentlyDialled | Refusal::BackingOff) => self.memory.holds(now, id).map(|(until, _)| until),
            Err(refusal) => {
                if refusal == Refusal::Restricted {
                    self.static_missing(id, Some(Cause::Restricted));
                }
                self.statics.unpool(id);
                fx.disarm(Timer::Static(*id));
                return;
            }
        };
        match held_until {
            None => {
                self.statics.pool(id);
                fx.disarm(Timer::Static(*id));
            }
            Some(until) => {
                self.statics.unpool(id);
                fx.arm(Timer::Static(*id), until);
            }
        }
    }

    pub(super) fn add_static(&mut self, now: Time, peer: StaticPeer, fx: &mut Fx) {
        let id = peer.id;
        let is_new = !self.statics.contains(&id);
        if id == self.id || (is_new && self.statics.len() >= self.config.max_statics) {
            return fx.emit(Out::Count(Count::StaticRefused));
        }
        self.statics.add(now, peer);
        if is_new {
            // Who names a peer wants it soon, whatever became of it as a candidate or before it was removed.
            self.memory.pardon(now, id, now + self.config.readd_after);
        }
        self.refresh_static(now, &id, fx);
    }

    pub(super) fn remove_static(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        if !self.statics.remove(&id) {
            return;
        }
        fx.disarm(Timer::Static(id));
        if let Some(attempt) = self.attempt_of.get(&id).copied()
            && self.in_flight.get(&attempt).is_some_and(|flight| flight.is_static)
        {
            self.cancel(now, attempt, fx);
        }
        // A session with it is an ordinary dialled one from now on.
        self.cancel_surplus(now, fx);
    }

    pub(super) fn refresh_statics(&mut self, now: Time, fx: &mut Fx) {
        for id in self.statics.ids() {
            self.refresh_static(now, &id, fx);
        }
    }

    pub(super) fn sweep(&mut self, now: Time, fx: &mut Fx) {
        // A set-up whose end was never told would keep its node from being dialled for ever.
        let kept_for = self.config.dial_timeout;
        self.inbound.retain(|_, pending| pending.latest + kept_for > now);
        self.refresh_statics(now, fx);
        fx.arm(Timer::Sweep, now + self.config.sweep);
    }
}
