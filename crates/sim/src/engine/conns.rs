//! Connections: each direction in order, with what waits where it cannot go on.

use std::collections::VecDeque;

use super::agenda::Instant;
use super::core::ONE;
use super::node::{Conn, Payload};

/// What a connection's sender may have on its way to a reader that does not read, in bytes.
const WINDOW: u64 = 256 * 1024;
/// What a connection's queue for the line may hold before its sender has to wait, in bytes.
const SEND_BUFFER: u64 = 64 * 1024;

/// What goes one way.
pub(super) enum Item<M> {
    Message(M),
    Finish,
}

impl<M: Payload> Item<M> {
    /// Its bytes on a line.
    pub(super) fn size(&self) -> u64 {
        match self {
            Item::Message(message) => message.size() as u64,
            Item::Finish => 0,
        }
    }
}

/// What waits, in one direction. Most connections have none.
pub(super) struct Way<M> {
    /// For the sender's line, and how many bytes of it have not gone.
    pub(super) queue: VecDeque<(Item<M>, u64)>,
    pub(super) queued: u64,
    /// Whether the sender's line has it in turn.
    pub(super) in_turn: bool,
    /// Before a cut of the network, with the bytes that the receiver's line has still to carry.
    pub(super) cut_off: VecDeque<(Item<M>, u32)>,
    /// At the receiver, which does not read.
    pub(super) held: VecDeque<Item<M>>,
    /// Whether the receiver has begun to read those.
    pub(super) draining: bool,
    /// Bytes of what is cut off and held.
    pub(super) waiting: u64,
    /// The sender was told to wait.
    pub(super) told_to_wait: bool,
    /// Until when the receiver's line carries what has arrived.
    pub(super) through: Instant,
}

impl<M> Way<M> {
    /// Whether the sender may go on.
    pub(super) fn ready(&self) -> bool {
        self.queued < SEND_BUFFER && self.waiting < WINDOW
    }
}

impl<M> Default for Way<M> {
    fn default() -> Self {
        Way {
            queue: VecDeque::new(),
            queued: 0,
            in_turn: false,
            cut_off: VecDeque::new(),
            held: VecDeque::new(),
            draining: false,
            waiting: 0,
            told_to_wait: false,
            through: 0,
        }
    }
}

/// One line of the cache, as most events look at one that no other has looked at for long.
#[repr(align(64))]
pub(super) struct Connection<M> {
    pub(super) hosts: [u32; 2],
    pub(super) latency: Instant,
    /// When the last thing arrives, by receiving end.
    pub(super) last: [Instant; 2],
    /// By receiving end.
    pub(super) ways: [Option<Box<Way<M>>>; 2],
    life: u32,
    /// The cut of the network that parts its ends; 0 for none.
    pub(super) cut: u32,
    /// Ends that are done with it; once both are, its place is free.
    gone: [bool; 2],
    /// Ends that know that it is open: only they are told anything of it but that it is refused.
    pub(super) known: [bool; 2],
    /// Whether a line may have to carry parts of what comes here, by receiving end.
    pub(super) limited: [bool; 2],
    /// Whether the end will hear that the other one is gone when the network heals.
    pub(super) reset: [bool; 2],
}

impl<M> Connection<M> {
    /// Whether an end is done with it.
    pub(super) fn is_gone(&self, end: usize) -> bool {
        self.gone[end]
    }

    /// The moment, or just after the last thing that comes to this end if that is later.
    pub(super) fn follows(&mut self, receiver: Conn, at: Instant) -> Instant {
        let last = &mut self.last[usize::from(receiver.end)];
        *last = at.max(last.saturating_add(ONE));
        *last
    }
}

pub(super) struct Conns<M> {
    all: Vec<Connection<M>>,
    free: Vec<u32>,
}

impl<M> Conns<M> {
    pub(super) fn new() -> Conns<M> {
        Conns { all: Vec::new(), free: Vec::new() }
    }

    pub(super) fn open(&mut self, from: u32, to: u32, latency: Instant, limited: [bool; 2]) -> Conn {
        let fresh = |life| Connection {
            hosts: [from, to],
            latency,
            last: [0; 2],
            ways: [None, None],
            life,
            cut: 0,
            gone: [false; 2],
            known: [false; 2],
            limited,
            reset: [false; 2],
        };
        match self.free.pop() {
            Some(slot) => {
                let life = self.all[slot as usize].life;
                self.all[slot as usize] = fresh(life);
                Conn { slot, life, end: 0 }
            }
            None => {
                self.all.push(fresh(0));
                Conn { slot: (self.all.len() - 1) as u32, life: 0, end: 0 }
            }
        }
    }

    /// The connection in a slot, with its dialler's end, while one is open there.
    pub(super) fn at(&mut self, slot: u32) -> Option<(Conn, &mut Connection<M>)> {
        let connection = self.all.get_mut(slot as usize).filter(|connection| connection.gone != [true; 2])?;
        Some((Conn { slot, life: connection.life, end: 0 }, connection))
    }

    /// The connection, while this end is not done with it.
    pub(super) fn get(&mut self, conn: Conn) -> Option<&mut Connection<M>> {
        let connection = self.all.get_mut(conn.slot as usize)?;
        let valid = connection.life == conn.life && !connection.gone[usize::from(conn.end)];
        valid.then_some(connection)
    }

    /// One end is done with it, if it was not before.
    pub(super) fn leave(&mut self, conn: Conn) {
        let Some(connection) = self.get(conn) else { return };
        let end = usize::from(conn.end);
        connection.gone[end] = true;
        connection.ways[end] = None;
        if connection.gone == [true; 2] {
            connection.life = connection.life.wrapping_add(1);
            connection.ways = [None, None];
            self.free.push(conn.slot);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len() - self.free.len()
    }

    pub(super) fn slots(&self) -> u32 {
        self.all.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_one_line_of_the_cache() {
        assert_eq!(size_of::<Connection<u128>>(), 64);
    }
}
