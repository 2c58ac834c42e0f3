//! The calls that this node has, by all the names that they have.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_wire::NodeId;

use super::contract::Stats;
use crate::handler::HandlerId;

/// A call that waits for its handler or is at work.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) session: SessionId,
    pub(super) from: NodeId,
    pub(super) id: Option<u64>,
    pub(super) handler: HandlerId,
    pub(super) generation: u64,
    pub(super) bytes: usize,
    pub(super) ends: Time,
    /// While it waits.
    pub(super) payload: Option<Bytes>,
    /// Whether the result is of use.
    pub(super) wanted: bool,
}

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The one that came last is in no table until the next one comes: what a function handles has ended by then.
    last: Option<(u64, Open)>,
    open: BTreeMap<u64, Open>,
    /// Of those whose result is of use: by the peer's name for them, and by their ends.
    ids: BTreeMap<(SessionId, u64), u64>,
    due: BTreeSet<(Time, u64)>,
}

impl Calls {
    /// Adds one by a name that is higher than all before.
    pub(super) fn insert(&mut self, call: u64, open: Open) {
        let Some((call, open)) = self.last.replace((call, open)) else { return };
        if open.wanted {
            if let Some(id) = open.id {
                self.ids.insert((open.session, id), call);
            }
            self.due.insert((open.ends, call));
        }
        self.open.insert(call, open);
    }

    /// The call of this peer's request, if its result is of use.
    pub(super) fn named(&self, session: SessionId, id: u64) -> Option<u64> {
        let is = |open: &Open| open.wanted && open.session == session && open.id == Some(id);
        match &self.last {
            Some((call, open)) if is(open) => Some(*call),
            _ => self.ids.get(&(session, id)).copied(),
        }
    }

    pub(super) fn get_mut(&mut self, call: u64) -> Option<&mut Open> {
        match &mut self.last {
            Some((last, open)) if *last == call => Some(open),
            _ => self.open.get_mut(&call),
        }
    }

    /// Nobody waits for its result any more. Whether somebody did.
    pub(super) fn unwanted(&mut self, call: u64) -> bool {
        let Some(open) = self.get_mut(call) else { return false };
        let wanted = std::mem::replace(&mut open.wanted, false);
        if wanted {
            let (session, id, ends) = (open.session, open.id, open.ends);
            self.forget(call, session, id, ends);
        }
        wanted
    }

    pub(super) fn remove(&mut self, call: u64) -> Option<Open> {
        if let Some((_, open)) = self.last.take_if(|(last, _)| *last == call) {
            return Some(open);
        }
        let open = self.open.remove(&call)?;
        if open.wanted {
            self.forget(call, open.session, open.id, open.ends);
        }
        Some(open)
    }

    fn forget(&mut self, call: u64, session: SessionId, id: Option<u64>, ends: Time) {
        // Nothing for the last one, which is in no table.
        if let Some(id) = id
            && self.ids.get(&(session, id)) == Some(&call)
        {
            self.ids.remove(&(session, id));
        }
        self.due.remove(&(ends, call));
    }

    /// Those of a session.
    pub(super) fn of(&self, session: SessionId) -> Vec<u64> {
        let tables = self.open.iter().map(|(call, open)| (*call, open));
        let all = tables.chain(self.last.iter().map(|(call, open)| (*call, open)));
        all.filter(|(_, open)| open.session == session).map(|(call, _)| call).collect()
    }

    /// The one whose result is of use for the shortest time, and until when.
    pub(super) fn first_due(&self) -> Option<(Time, u64)> {
        let last = self.last.as_ref().filter(|(_, open)| open.wanted).map(|(call, open)| (open.ends, *call));
        self.due.first().copied().into_iter().chain(last).min()
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        stats.calls = (self.open.len() + usize::from(self.last.is_some())).max(self.ids.len());
        let last = self.last.as_ref().is_some_and(|(_, open)| open.wanted);
        stats.deadlines += self.due.len() + usize::from(last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn open(session: u64, id: Option<u64>, ends: u64) -> Open {
        Open {
            session: SessionId(session),
            from: NodeId::from_bytes([1; 32]),
            id,
            handler: HandlerId(1),
            generation: 0,
            bytes: 0,
            ends: Time::ZERO + Duration::from_millis(ends),
            payload: None,
            wanted: true,
        }
    }

    proptest! {
        /// Whatever comes and goes in whatever order: as one plain list of calls would have it.
        #[test]
        fn all_tables_agree_with_a_list(steps in prop::collection::vec((0u8..4, 0u64..3, 0u64..6, 0u64..50), 0..100)) {
            let (mut calls, mut list) = (Calls::default(), BTreeMap::<u64, Open>::new());
            for (next, (step, session, id, ends)) in steps.into_iter().enumerate() {
                let next = next as u64;
                // Of those that are there, the oldest, the newest or one between.
                let some = list.keys().copied().nth((id as usize * list.len()) / 6).unwrap_or(next);
                match step {
                    0 | 1 => {
                        // No two of one name, as the machine sees to it; a message has none.
                        let id = Some(id).filter(|id| *id > 0 && calls.named(SessionId(session), *id).is_none());
                        calls.insert(next, open(session, id, ends));
                        list.insert(next, open(session, id, ends));
                    }
                    2 => {
                        let was = list.get_mut(&some).is_some_and(|open| std::mem::replace(&mut open.wanted, false));
                        prop_assert_eq!(calls.unwanted(some), was);
                    }
                    _ => {
                        let (removed, was) = (calls.remove(some), list.remove(&some));
                        prop_assert_eq!(removed.map(|open| open.ends), was.map(|open| open.ends));
                    }
                }
                let wanted = || list.iter().filter(|(_, open)| open.wanted);
                prop_assert_eq!(calls.first_due(), wanted().map(|(call, open)| (open.ends, *call)).min());
                for (session, id) in (0..3).flat_map(|session| (1..6).map(move |id| (SessionId(session), id))) {
                    let named = wanted().find(|(_, open)| (open.session, open.id) == (session, Some(id)));
                    prop_assert_eq!(calls.named(session, id), named.map(|(call, _)| *call));
                }
                let of: Vec<u64> = list.iter().filter(|(_, open)| open.session == SessionId(1)).map(|(call, _)| *call).collect();
                prop_assert_eq!(calls.of(SessionId(1)), of);
                let mut stats = Stats::default();
                calls.stats(&mut stats);
                prop_assert_eq!((stats.calls, stats.deadlines), (list.len(), wanted().count()));
            }
        }
    }
}
