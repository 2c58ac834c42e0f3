//! The incoming direction of a stream: where it is in its life, and what is reserved for it.

use peerage_wire::frame::STREAM_WINDOW;

use crate::machine::Credit;

/// Where an incoming direction is.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The peer may send.
    Open(Credit),
    /// All has come, and not all of it was read.
    Ended(Credit),
    /// Nobody reads any more; the peer may not know yet.
    Stopped,
    /// Nothing comes any more, and nothing is left to read.
    Over,
}

impl Incoming {
    pub(super) const fn new() -> Incoming {
        let mut credit = Credit::new(STREAM_WINDOW);
        // The first window is granted by itself.
        let _ = credit.advance();
        Incoming::Open(credit)
    }

    /// An end that was read up to is over.
    pub(super) fn settle(&mut self) {
        if let Incoming::Ended(credit) = self
            && credit.unread() == 0
        {
            *self = Incoming::Over;
        }
    }

    /// What must stay reserved.
    pub(super) const fn needs(&self) -> u64 {
        match self {
            Incoming::Open(credit) => credit.held(),
            Incoming::Ended(credit) => credit.unread(),
            Incoming::Stopped | Incoming::Over => 0,
        }
    }

    /// Whether this end has nothing more to do about it.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Incoming::Stopped | Incoming::Over)
    }
}

/// What a stream holds: of the session's own allowance, and of the node's pool.
#[derive(Debug)]
pub(super) struct Reserved {
    pool: u64,
    allowance: u64,
}

impl Reserved {
    pub(super) const fn of_pool(bytes: u64) -> Reserved {
        Reserved { pool: bytes, allowance: 0 }
    }

    pub(super) const fn of_allowance(bytes: u64) -> Reserved {
        Reserved { pool: 0, allowance: bytes }
    }

    #[cfg(test)]
    pub(super) const fn pool(&self) -> u64 {
        self.pool
    }

    pub(super) const fn add_pool(&mut self, bytes: u64) {
        self.pool += bytes;
    }

    /// Gives back what a window shrank by.
    pub(super) fn give_pool(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.min(self.pool);
        self.pool -= bytes;
        bytes
    }

    /// Gives back all beyond `needed` bytes, of the pool first: how much of it, and how much of the allowance.
    pub(super) fn shrink(&mut self, needed: u64) -> (u64, u64) {
        let spare = (self.pool + self.allowance).saturating_sub(needed);
        let pool = self.give_pool(spare);
        let allowance = (spare - pool).min(self.allowance);
        self.allowance -= allowance;
        (pool, allowance)
    }
}
