//! One attempt from its beginning to its end: resolve, dial, resolve again, and what the end says.

use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::{Consequence, DisconnectReason, NodeId, NodeRecord, Verified};

use super::{DialerMachine, Fx, Timer};
use crate::{Attempt, Count, DialOutcome, DialTarget, Out};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Resolving,
    Dialing,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: NodeId,
    pub(super) is_static: bool,
    pub(super) phase: Phase,
    /// Where it has been dialled in this attempt: first the addresses of an earlier dial, then of this one.
    tried: Vec<SocketAddr>,
    earlier: usize,
    /// It is resolved at most once an attempt.
    resolved: bool,
    /// How the dial before the resolution ended.
    failed: Option<DialOutcome>,
}

impl InFlight {
    /// Where it is being dialled now.
    pub(super) fn current(&self) -> &[SocketAddr] {
        match self.phase {
            Phase::Resolving => &[],
            Phase::Dialing => self.tried.get(self.earlier..).unwrap_or_default(),
        }
    }
}

/// Whether it was the node itself that this outcome is of, or this end: not if nobody answered, or somebody else, or
/// somebody of whom it is not certain who it was.
pub(super) const fn was_it(outcome: DialOutcome) -> bool {
    use DisconnectReason as R;
    match outcome {
        DialOutcome::ConnectFailed | DialOutcome::TimedOut => false,
        DialOutcome::HandshakeFailed(reason) => !matches!(
            reason,
            R::UnexpectedIdentity | R::InvalidIdentity | R::SelfConnect | R::ProtocolError | R::NetworkError
        ),
        DialOutcome::Connected | DialOutcome::Cancelled | DialOutcome::Unresolved | DialOutcome::Restricted => true,
    }
}

impl DialerMachine {
    /// The attempts of which this holds.
    pub(super) fn attempts(&self, holds: impl Fn(&InFlight) -> bool) -> Vec<Attempt> {
        self.in_flight.iter().filter(|(_, flight)| holds(flight)).map(|(attempt, _)| *attempt).collect()
    }

    pub(super) fn begin(&mut self, now: Time, id: NodeId, is_static: bool) -> Attempt {
        let attempt = Attempt(self.next_attempt);
        self.next_attempt += 1;
        self.memory.dialled(now, id, now + self.config.history);
        self.attempt_of.insert(id, attempt);
        let flight = InFlight {
            id,
            is_static,
            phase: Phase::Dialing,
            tried: Vec::new(),
            earlier: 0,
            resolved: false,
            failed: None,
        };
        self.in_flight.insert(attempt, flight);
        attempt
    }

    pub(super) fn begin_static(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        let addresses = self.statics.addresses(&id);
        let attempt = self.begin(now, id, true);
        if addresses.is_empty() {
            self.resolve(now, attempt, id, fx);
        } else {
            self.dial(now, attempt, addresses, fx);
        }
    }

    /// Dials at those of these addresses that are admitted, or ends the attempt if none is.
    pub(super) fn dial(&mut self, now: Time, attempt: Attempt, mut addresses: Vec<SocketAddr>, fx: &mut Fx) {
        addresses.retain(|address| self.admission.permits_ip(address.ip()));
        if addresses.is_empty() {
            let failed = self.in_flight.get(&attempt).and_then(|flight| flight.failed);
            return self.finish(now, attempt, failed.unwrap_or(DialOutcome::Restricted), fx);
        }
        if let Some(flight) = self.in_flight.get_mut(&attempt) {
            flight.phase = Phase::Dialing;
            // A second dial of the attempt begins the history anew: a listener counts it too.
            self.memory.dialled(now, flight.id, now + self.config.history);
            self.sockets.dialled(flight.id, &addresses, now + self.config.history);
            flight.earlier = flight.tried.len();
            flight.tried.extend(&addresses);
            let target = DialTarget { id: flight.id, addresses, is_static: flight.is_static };
            fx.emit(Out::Dial { attempt, target });
            fx.arm(Timer::Deadline(attempt), now + self.config.dial_timeout);
        }
    }

    fn resolve(&mut self, now: Time, attempt: Attempt, id: NodeId, fx: &mut Fx) {
        if let Some(flight) = self.in_flight.get_mut(&attempt) {
            flight.phase = Phase::Resolving;
            flight.resolved = true;
            fx.emit(Out::Resolve { attempt, id });
            fx.arm(Timer::Deadline(attempt), now + self.config.resolve_timeout);
        }
    }

    pub(super) fn done(&mut self, now: Time, attempt: Attempt, outcome: DialOutcome, fx: &mut Fx) {
        let Some(flight) = self.in_flight.get_mut(&attempt).filter(|flight| flight.phase == Phase::Dialing) else {
            return fx.emit(Out::Count(Count::Late));
        };
        let id = flight.id;
        // A static peer may have moved: it is looked up once and dialled where it was not dialled yet.
        // Not after it has refused: it is there.
        if !was_it(outcome)
            && flight.is_static
            && !flight.resolved
            && !self.peers.contains_key(&id)
            && self.statics.resolve_after(&id).is_some_and(|resolve_after| resolve_after <= now)
        {
            flight.failed = Some(outcome);
            return self.resolve(now, attempt, id, fx);
        }
        self.finish(now, attempt, outcome, fx);
    }

    pub(super) fn resolved(&mut self, now: Time, attempt: Attempt, record: Option<Verified<NodeRecord>>, fx: &mut Fx) {
        let Some(flight) = self.in_flight.get(&attempt).filter(|flight| flight.phase == Phase::Resolving) else {
            return fx.emit(Out::Count(Count::Late));
        };
        let (id, tried, failed) = (flight.id, flight.tried.clone(), flight.failed);
        let record = record.filter(|record| record.id() == id);
        let in_vain = self.statics.resolved(&id, record.is_some());
        let pause = self.config.resolve.delay(in_vain.saturating_add(1), &mut self.rng);
        self.statics.hold_resolve(&id, now + pause);
        if let Some(record) = &record {
            self.statics.learn(record);
        }
        // It may have come by itself, or others have taken the places meanwhile.
        let has_place = self.statics_connected() < self.config.max_static_peers;
        if self.peers.contains_key(&id) || self.inbound.contains_key(&id) || !has_place {
            return self.finish(now, attempt, DialOutcome::Cancelled, fx);
        }
        let mut untried = self.statics.addresses(&id);
        untried.retain(|address| !tried.contains(address));
        if untried.is_empty() {
            self.finish(now, attempt, failed.unwrap_or(DialOutcome::Unresolved), fx);
        } else {
            self.dial(now, attempt, untried, fx);
        }
    }

    pub(super) fn overdue(&mut self, now: Time, attempt: Attempt, fx: &mut Fx) {
        match self.in_flight.get(&attempt).map(|flight| flight.phase) {
            None => {}
            Some(Phase::Resolving) => self.resolved(now, attempt, None, fx),
            Some(Phase::Dialing) => {
                fx.emit(Out::Cancel(attempt));
                self.finish(now, attempt, DialOutcome::TimedOut, fx);
            }
        }
    }

    /// Calls an attempt off; nothing is held against its node.
    pub(super) fn cancel(&mut self, now: Time, attempt: Attempt, fx: &mut Fx) {
        if self.in_flight.get(&attempt).is_some_and(|flight| flight.phase == Phase::Dialing) {
            fx.emit(Out::Cancel(attempt));
        }
        self.finish(now, attempt, DialOutcome::Cancelled, fx);
    }

    fn finish(&mut self, now: Time, attempt: Attempt, outcome: DialOutcome, fx: &mut Fx) {
        let Some(InFlight { id, is_static, .. }) = self.in_flight.remove(&attempt) else { return };
        self.attempt_of.remove(&id);
        fx.disarm(Timer::Deadline(attempt));
        fx.emit(Out::Count(Count::Finished { outcome, is_static }));
        if is_static {
            self.static_tried(&id, outcome);
        } else {
            self.tried(outcome, fx);
        }
        if !self.peers.contains_key(&id) {
            if outcome == DialOutcome::Connected {
                // Its PeerUp may still be on the way; nobody is dialled in between.
                self.memory.dialled(now, id, now + self.config.history);
            }
            self.failed(now, id, outcome.consequence());
        }
        self.refresh_static(now, &id, fx);
    }

    pub(super) fn failed(&mut self, now: Time, id: NodeId, what: Consequence) {
        // Whoever was named by somebody is not left alone for as long as whoever was found.
        let is_named = self.statics.contains(&id) || self.lonely.is_bootnode(&id);
        let backoff = if is_named { self.config.static_backoff } else { self.config.backoff };
        self.memory.failed(now, id, what, backoff, &mut self.rng);
    }

    /// Cancels what is in flight beyond the peers that are wanted: the doubled slots must not overshoot.
    pub(super) fn cancel_surplus(&mut self, now: Time, fx: &mut Fx) {
        if self.dialled_peers() < self.config.max_dial_peers {
            return;
        }
        // One that began as a candidate may have been named a static peer since.
        let is_surplus = |flight: &InFlight| {
            !flight.is_static && !self.statics.contains(&flight.id) && !self.peers.contains_key(&flight.id)
        };
        for attempt in self.attempts(is_surplus) {
            self.cancel(now, attempt, fx);
        }
    }
}
