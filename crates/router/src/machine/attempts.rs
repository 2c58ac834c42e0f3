//! Requests that are out, by their id on the wire, and those whose late answers are still expected.

use std::collections::{BTreeMap, VecDeque};

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::NodeId;
use peerage_wire::frame::Lane;

use super::contract::Stats;
use crate::config::Limits;
use crate::handler::HandlerId;

/// A request that is out.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The operation it is of.
    pub(super) token: u64,
    pub(super) session: SessionId,
    pub(super) peer: NodeId,
    pub(super) handler: HandlerId,
    pub(super) bytes: usize,
    /// A cancellation goes the same way, so that it never overtakes.
    pub(super) lane: Lane,
    pub(super) sent: Time,
    pub(super) ends: Time,
}

#[derive(Debug)]
pub(super) struct Attempts {
    epoch: u32,
    counter: u32,
    out: BTreeMap<u64, Attempt>,
    by_session: BTreeMap<SessionId, usize>,
    load: BTreeMap<NodeId, (usize, usize)>,
    /// Whose answer may still come, and until when; in the order of their ends.
    retired: BTreeMap<u64, SessionId>,
    retirements: VecDeque<(Time, u64)>,
}

impl Attempts {
    pub(super) const fn new(epoch: u32) -> Attempts {
        Attempts {
            epoch,
            counter: 0,
            out: BTreeMap::new(),
            by_session: BTreeMap::new(),
            load: BTreeMap::new(),
            retired: BTreeMap::new(),
            retirements: VecDeque::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn wrap_soon(&mut self) {
        self.counter = u32::MAX - 1;
    }

    /// Whether this peer may be sent one more of so many bytes.
    pub(super) fn has_room(&self, limits: &Limits, peer: &NodeId, bytes: usize) -> bool {
        let (count, held) = self.load.get(peer).copied().unwrap_or_default();
        count < limits.per_peer && held + bytes <= limits.per_peer_bytes
    }

    /// Whether it is out with this session.
    pub(super) fn is_out(&self, id: u64, session: SessionId) -> bool {
        self.out.get(&id).is_some_and(|attempt| attempt.session == session)
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.out.contains_key(&id)
    }

    /// Whether this life used ids like this one.
    pub(super) const fn is_of_this_life(&self, id: u64) -> bool {
        (id >> 32) as u32 == self.epoch
    }

    pub(super) fn begin(&mut self, attempt: Attempt) -> u64 {
        let id = loop {
            self.counter = self.counter.wrapping_add(1);
            let id = u64::from(self.epoch) << 32 | u64::from(self.counter);
            // Both tables have far fewer entries than there are ids.
            if !self.out.contains_key(&id) && !self.retired.contains_key(&id) {
                break id;
            }
        };
        let (count, bytes) = self.load.entry(attempt.peer).or_default();
        (*count, *bytes) = (*count + 1, *bytes + attempt.bytes);
        *self.by_session.entry(attempt.session).or_default() += 1;
        self.out.insert(id, attempt);
        id
    }

    /// Ends it, if it is out, and with this session.
    pub(super) fn end(&mut self, id: u64, session: Option<SessionId>) -> Option<Attempt> {
        let found = self.out.get(&id)?;
        if session.is_some_and(|session| session != found.session) {
            return None;
        }
        let attempt = self.out.remove(&id)?;
        if let Some((count, bytes)) = self.load.get_mut(&attempt.peer) {
            (*count, *bytes) = (*count - 1, *bytes - attempt.bytes);
            if *count == 0 {
                self.load.remove(&attempt.peer);
            }
        }
        if let Some(count) = self.by_session.get_mut(&attempt.session) {
            *count -= 1;
            if *count == 0 {
                self.by_session.remove(&attempt.session);
            }
        }
        Some(attempt)
    }

    /// The ids that are out with a session.
    pub(super) fn of(&self, session: SessionId) -> Vec<u64> {
        if !self.by_session.contains_key(&session) {
            return Vec::new();
        }
        self.out.iter().filter(|(_, attempt)| attempt.session == session).map(|(id, _)| *id).collect()
    }

    /// An answer to this id may come until then, and is nobody's fault.
    pub(super) fn retire(&mut self, id: u64, session: SessionId, until: Time, most: usize) {
        self.retired.insert(id, session);
        self.retirements.push_back((until, id));
        while self.retired.len() > most {
            let Some((_, oldest)) = self.retirements.pop_front() else { return };
            self.retired.remove(&oldest);
        }
        // Those whose answer came are only taken out of the map.
        if self.retirements.len() > most.saturating_mul(2) {
            self.retirements.retain(|(_, id)| self.retired.contains_key(id));
        }
    }

    /// Whether this late answer was expected; it is not, the next time.
    pub(super) fn late(&mut self, id: u64, session: SessionId) -> bool {
        let expected = self.retired.get(&id) == Some(&session);
        if expected {
            self.retired.remove(&id);
        }
        expected
    }

    /// A session has ended: no answer comes from it.
    pub(super) fn forget(&mut self, session: SessionId) {
        let before = self.retired.len();
        self.retired.retain(|_, of| *of != session);
        if self.retired.len() < before {
            self.retirements.retain(|(_, id)| self.retired.contains_key(id));
        }
    }

    /// Forgets those whose time of grace is over.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some((until, id)) = self.retirements.front().copied() {
            if until > now && self.retired.contains_key(&id) {
                return;
            }
            self.retirements.pop_front();
            self.retired.remove(&id);
        }
    }

    /// When the next time of grace is over.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.retirements.front().map(|(until, _)| *until)
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        stats.attempts = self.out.len();
        stats.asked_peers = self.load.len().max(self.by_session.len());
        stats.retired = self.retired.len().max(self.retirements.len());
    }
}
