//! What outlives the actor: ids it has seen, the last sequence it used, and what made it panic.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage_machine::Time;
use peerage_queue::SessionId;

use crate::machine::Blame;
use crate::message::{Fingerprint, MessageId};

/// Fingerprints kept of messages that made the actor panic.
const MAX_POISON: usize = 1024;
/// Sessions kept that were told to be useful. Those that end while the actor is down stay until newer ones push them
/// out.
const MAX_USEFUL: usize = 4096;

#[derive(Default)]
struct State {
    seen: VecDeque<(MessageId, Time)>,
    sequence: u64,
    poison: VecDeque<Fingerprint>,
    /// One for each life that ended so.
    guilty: BTreeSet<Blame>,
    useful: BTreeSet<SessionId>,
    charged: bool,
}

/// A gossip actor's memory of its earlier lives. Made once for each node and given to each of them; clones
/// are the same memory.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

/// What a new life is told of the earlier ones.
pub(crate) struct Recollection {
    pub(crate) seen: Vec<(MessageId, Time)>,
    pub(crate) sequence: u64,
    pub(crate) poison: Vec<Fingerprint>,
    pub(crate) guilty: BTreeSet<Blame>,
    pub(crate) useful: BTreeSet<SessionId>,
}

impl Memory {
    /// A memory of nothing.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Whether the last life ended in a panic that is charged to a peer or a message, so that the restart
    /// need not be. Answers yes once for each such end.
    pub fn take_charged(&self) -> bool {
        std::mem::take(&mut self.lock().charged)
    }

    pub(crate) fn seen(&self, now: Time, id: MessageId, capacity: usize, lifetime: Duration) {
        let mut state = self.lock();
        state.seen.push_back((id, now));
        while state.seen.len() > capacity || state.seen.front().is_some_and(|(_, at)| now.since(*at) > lifetime) {
            state.seen.pop_front();
        }
    }

    pub(crate) fn used(&self, sequence: u64) {
        let mut state = self.lock();
        state.sequence = state.sequence.max(sequence);
    }

    /// The life ends in a panic over this copy, if it is one, and by whose doing, if it is anybody's.
    pub(crate) fn charge(&self, blame: Option<Blame>, fingerprint: Option<Fingerprint>) {
        {
            let mut state = self.lock();
            state.charged = true;
            state.guilty.extend(blame);
        }
        fingerprint.into_iter().for_each(|fingerprint| self.refuse(fingerprint));
    }

    /// This copy is to be refused by the next lives.
    pub(crate) fn refuse(&self, fingerprint: Fingerprint) {
        let mut state = self.lock();
        if !state.poison.contains(&fingerprint) {
            state.poison.push_back(fingerprint);
        }
        if state.poison.len() > MAX_POISON {
            state.poison.pop_front();
        }
    }

    /// The root was told whether a session is useful, or the session has ended.
    pub(crate) fn useful(&self, session: SessionId, useful: bool) {
        let mut state = self.lock();
        if !useful {
            state.useful.remove(&session);
        } else if state.useful.insert(session) && state.useful.len() > MAX_USEFUL {
            state.useful.pop_first();
        }
    }

    pub(crate) fn recall(&self) -> Recollection {
        let mut state = self.lock();
        Recollection {
            seen: state.seen.iter().copied().collect(),
            sequence: state.sequence,
            poison: state.poison.iter().copied().collect(),
            guilty: std::mem::take(&mut state.guilty),
            useful: state.useful.clone(),
        }
    }

    /// Held for one call and never across an await; nothing in it is half done between calls.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_blames_a_session_once() {
        let memory = Memory::new();
        let second = Duration::from_secs(1);
        for n in 0..5 {
            memory.seen(Time::ZERO + second * u32::from(n), MessageId([n; 32]), 3, 2 * second);
        }
        memory.used(9);
        memory.used(7);
        memory.charge(Some(Blame::Session(SessionId(1))), None);
        memory.charge(None, Some(Fingerprint([1; 32])));
        let recalled = memory.recall();
        let ids: Vec<u8> = recalled.seen.iter().map(|(id, _)| id.0[0]).collect();
        assert_eq!((ids, recalled.sequence, recalled.guilty.len()), (vec![2, 3, 4], 9, 1));
        assert!(memory.take_charged() && !memory.take_charged());
        let again = memory.recall();
        assert_eq!((again.poison.len(), again.guilty.len()), (1, 0));
        for n in 0..2_000u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            memory.refuse(Fingerprint(bytes));
            memory.refuse(Fingerprint(bytes));
        }
        assert_eq!(memory.recall().poison.len(), MAX_POISON);
    }

    #[test]
    fn it_knows_who_was_told_to_be_useful_and_forgets_the_oldest() {
        let memory = Memory::new();
        (0..5_000).for_each(|n| memory.useful(SessionId(n), true));
        memory.useful(SessionId(4_999), false);
        let useful = memory.recall().useful;
        assert_eq!((useful.len(), useful.last()), (MAX_USEFUL - 1, Some(&SessionId(4_998))));
        assert_eq!(memory.recall().useful, useful, "a life that is short does not lose it");
    }
}
