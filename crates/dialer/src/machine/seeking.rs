//! What keeps this node from the peers it wants, counted from one report to the next; and from its static ones.

use std::collections::BTreeSet;

use peerage_machine::Time;
use peerage_wire::NodeId;

use super::attempts::was_it;
use super::{DialerMachine, Fx, Timer};
use crate::{Cause, Count, Diagnosis, DialOutcome, Out, Refusal};

/// Candidates told apart between two reports; more are not counted.
const MAX_SEEN: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Seeking {
    /// Since the last report.
    counts: Diagnosis,
    /// Who was left out since the last report: the same nodes are found again and again, and each is counted
    /// once for a cause. At most [`MAX_SEEN`].
    seen: BTreeSet<(Cause, NodeId)>,
    /// Since the last report a static peer came, or failed, or is missing for another reason.
    statics_changed: bool,
    /// Peers are missing, and the timer of the next report runs.
    running: bool,
    /// The last thing said was that peers are missing.
    said: bool,
}

impl Seeking {
    pub(super) fn asked(&mut self) {
        self.counts.asked = self.counts.asked.saturating_add(1);
    }

    fn count(&mut self, cause: Cause) {
        let count = self.counts.causes.entry(cause).or_default();
        *count = count.saturating_add(1);
    }

    fn restart(&mut self) -> Diagnosis {
        self.seen.clear();
        self.statics_changed = false;
        std::mem::take(&mut self.counts)
    }

    pub(super) fn found(&mut self, candidates: usize) {
        let candidates = u32::try_from(candidates).unwrap_or(u32::MAX);
        self.counts.found = self.counts.found.saturating_add(candidates);
    }
}

impl DialerMachine {
    /// Notes what kept somebody from becoming a dialled peer.
    pub(super) fn blame(&mut self, cause: Cause, fx: &mut Fx) {
        self.seeking.count(cause);
        fx.emit(Out::Count(Count::Cause(cause)));
    }

    /// Notes that an attempt at a candidate has ended.
    pub(super) fn tried(&mut self, outcome: DialOutcome, fx: &mut Fx) {
        if outcome != DialOutcome::Cancelled {
            self.seeking.counts.tried = self.seeking.counts.tried.saturating_add(1);
        }
        if let Some(cause) = Cause::of_outcome(outcome) {
            self.blame(cause, fx);
        }
    }

    /// Notes that an attempt at a static peer has ended.
    pub(super) fn static_tried(&mut self, id: &NodeId, outcome: DialOutcome) {
        if !was_it(outcome) {
            self.statics.turn(id);
        }
        // One that is known already is coming by another connection.
        if let Some(cause) = Cause::of_outcome(outcome).filter(|cause| *cause != Cause::Known) {
            self.static_missing(id, Some(cause));
            self.seeking.statics_changed = true;
        }
    }

    /// Notes why a static peer is not connected, or that it is.
    pub(super) fn static_missing(&mut self, id: &NodeId, cause: Option<Cause>) {
        self.seeking.statics_changed |= self.statics.missing(id, cause);
    }

    /// Whether there is anything to say: dialled peers are missing (all peers, where nobody can be asked for
    /// candidates), or static ones.
    fn lacks_peers(&self) -> bool {
        let wanted = self.config.max_dial_peers;
        let lacks_dialled =
            if self.config.candidates { self.dialled_peers() < wanted } else { wanted > 0 && self.peers.is_empty() };
        lacks_dialled || self.statics.len() > self.statics_connected() as usize
    }

    /// Drops a candidate.
    pub(super) fn refuse(&mut self, id: NodeId, refusal: Refusal, fx: &mut Fx) {
        fx.emit(Out::Count(Count::Dropped(refusal)));
        let Some(cause) = Cause::of_refusal(refusal) else { return };
        fx.emit(Out::Count(Count::Cause(cause)));
        if self.seeking.seen.len() < MAX_SEEN && self.seeking.seen.insert((cause, id)) {
            self.seeking.count(cause);
        }
    }

    /// Lets the timer of reports run while peers are missing, and says once that none are any more. Looked at
    /// after every event, so that none can be missed.
    pub(super) fn seek(&mut self, now: Time, fx: &mut Fx) {
        if self.lacks_peers() {
            if !std::mem::replace(&mut self.seeking.running, true) {
                fx.arm(Timer::Report, now + self.config.report_every);
            }
            return;
        }
        if std::mem::take(&mut self.seeking.running) {
            fx.disarm(Timer::Report);
        }
        if std::mem::take(&mut self.seeking.said) {
            fx.emit(Out::Seeking(None));
        }
        self.seeking.restart();
    }

    pub(super) fn report(&mut self, fx: &mut Fx) {
        self.seeking.running = false;
        if self.seeking.counts.asked > 0 && self.seeking.counts.found == 0 {
            self.blame(Cause::Empty, fx);
        }
        let statics_changed = self.seeking.statics_changed;
        let counts = self.seeking.restart();
        if counts.tried > 0 || !counts.causes.is_empty() || statics_changed {
            self.seeking.said = true;
            fx.emit(Out::Seeking(Some(Diagnosis {
                dialled: self.dialled_peers(),
                wanted: self.config.max_dial_peers,
                statics: u32::try_from(self.statics.len()).unwrap_or(u32::MAX),
                statics_connected: self.statics_connected(),
                static_places: self.config.max_static_peers,
                static_causes: self.statics.causes(),
                ..counts
            })));
        }
    }
}
