//! One life of a machine, as far back as there is room.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dump::{self, What};
use crate::Time;

/// What an entry takes beside its input: itself, and its part of the allocator's and the queue's slack.
const ENTRY_COST: usize = 128;

#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) at: Time,
    pub(super) what: What,
    pub(super) input: Arc<[u8]>,
    /// None while it is being handled, and if that ended in a panic.
    pub(super) effects: Option<[u8; 8]>,
}

#[derive(Clone, Debug)]
pub(super) struct Ring {
    pub(super) machine: &'static str,
    pub(super) life: u32,
    pub(super) began: Time,
    pub(super) genesis: Arc<[u8]>,
    pub(super) crashed: bool,
    limit: usize,
    bytes: usize,
    pub(super) lost: u64,
    pub(super) entries: VecDeque<Kept>,
}

impl Ring {
    pub(super) fn new(machine: &'static str, life: u32, began: Time, genesis: Vec<u8>, limit: usize) -> Ring {
        Ring {
            machine,
            life,
            began,
            genesis: genesis.into(),
            crashed: false,
            limit,
            bytes: 0,
            lost: 0,
            entries: VecDeque::new(),
        }
    }

    /// Keeps an entry, whatever has to give way, and answers its number, counted from 0.
    pub(super) fn push(&mut self, at: Time, what: What, input: Vec<u8>) -> u64 {
        let number = self.next();
        self.bytes += ENTRY_COST + input.len();
        self.entries.push_back(Kept { at, what, input: input.into(), effects: None });
        while self.bytes > self.limit {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= ENTRY_COST + oldest.input.len();
            self.lost += 1;
        }
        number
    }

    fn next(&self) -> u64 {
        self.lost + self.entries.len() as u64
    }

    /// Notes the effects of an entry, if it is still kept.
    pub(super) fn followed(&mut self, number: u64, effects: [u8; 8]) {
        let index = number.checked_sub(self.lost).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.effects = Some(effects);
        }
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.lost = 0;
        self.bytes = 0;
        self.entries.clear();
    }

    /// Bytes in use; never more than the limit.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of a dump.
    pub(super) fn encode(&self) -> Vec<u8> {
        dump::encode(self)
    }
}
