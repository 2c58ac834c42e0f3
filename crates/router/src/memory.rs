//! What outlives the actor: how many lives it had, and whose messages ended them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerage_queue::SessionId;

#[derive(Debug, Default)]
struct State {
    lives: u32,
    /// One for each life that ended so.
    guilty: BTreeSet<SessionId>,
    charged: bool,
}

/// A router actor's memory of its earlier lives. Made once for each node and given to each of them; clones are the same
/// memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    /// A memory of nothing.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Whether the last life ended in a panic that is charged to a peer, so that the restart need not be. Answers yes
    /// once for each such end.
    pub fn take_charged(&self) -> bool {
        std::mem::take(&mut self.lock().charged)
    }

    /// Another life: its number, and whose messages ended earlier ones.
    pub(crate) fn begin(&self) -> (u32, BTreeSet<SessionId>) {
        let mut state = self.lock();
        state.lives = state.lives.wrapping_add(1);
        (state.lives, std::mem::take(&mut state.guilty))
    }

    pub(crate) fn charge(&self, session: SessionId) {
        let mut state = self.lock();
        state.charged = true;
        state.guilty.insert(session);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
