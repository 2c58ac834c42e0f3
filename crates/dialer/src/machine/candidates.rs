//! Candidates: those that were asked for, and the anchors that come before them.

use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::{NodeId, NodeRecord};

use super::{DialerMachine, Fx};
use crate::{Candidate, DialTarget, MAX_ANCHORS, Refusal, StaticPeer};

impl DialerMachine {
    pub(super) fn check_candidate(&self, now: Time, target: &DialTarget) -> Result<(), Refusal> {
        if self.statics.contains(&target.id) {
            return Err(Refusal::Static);
        }
        if target.id == self.id {
            return Err(Refusal::OwnId);
        }
        if target.addresses.is_empty() {
            return Err(Refusal::NoAddress);
        }
        self.check(now, &target.id, &target.addresses)?;
        if !target.addresses.iter().any(|address| self.may_dial_at(now, address, &target.id)) {
            return Err(Refusal::AddressDialled);
        }
        if self.memory.has_room(now, &target.id) { Ok(()) } else { Err(Refusal::MemoryFull) }
    }

    /// Whether a candidate may be dialled there: it is admitted, and nobody else was dialled there lately.
    pub(super) fn may_dial_at(&self, now: Time, address: &SocketAddr, id: &NodeId) -> bool {
        self.admission.permits_ip(address.ip()) && self.sockets.is_free(now, address, id)
    }

    /// Anchors wait for the start at the head of those who wait for a slot, and are checked when it comes.
    pub(super) fn anchors(&mut self, anchors: Vec<StaticPeer>, fx: &mut Fx) {
        for anchor in anchors {
            let StaticPeer { id, addresses } = StaticPeer::new(anchor.id, anchor.addresses);
            let refusal = if self.started || !self.config.dialing || self.waiting.len() >= MAX_ANCHORS {
                Refusal::Unsolicited
            } else if self.waits(&id) {
                Refusal::Waiting
            } else {
                self.waiting.push_back(DialTarget { id, addresses, is_static: false });
                continue;
            };
            self.refuse(id, refusal, fx);
        }
    }

    pub(super) fn candidates(&mut self, now: Time, found: Vec<Candidate>, fx: &mut Fx) {
        self.seeking.found(found.len());
        for (record, addresses) in found {
            if let Err(refusal) = self.candidate(now, &record, addresses, fx) {
                self.refuse(record.id(), refusal, fx);
            }
        }
    }

    fn candidate(
        &mut self,
        now: Time,
        record: &NodeRecord,
        addresses: Vec<SocketAddr>,
        fx: &mut Fx,
    ) -> Result<(), Refusal> {
        if !self.ask.answered() {
            return Err(Refusal::Unsolicited);
        }
        let StaticPeer { id, addresses } = StaticPeer::new(record.id(), addresses);
        let target = DialTarget { id, addresses, is_static: false };
        if self.statics.contains(&target.id) {
            self.statics.learn(record);
            self.refresh_static(now, &target.id, fx);
        }
        self.check_candidate(now, &target)?;
        if self.waits(&target.id) {
            return Err(Refusal::Waiting);
        }
        if u32::try_from(self.waiting.len()).is_ok_and(|waiting| waiting >= self.config.max_active_dials) {
            return Err(Refusal::NoSlot);
        }
        self.waiting.push_back(target);
        Ok(())
    }

    fn waits(&self, id: &NodeId) -> bool {
        self.waiting.iter().any(|waiting| waiting.id == *id)
    }
}
