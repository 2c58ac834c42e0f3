//! When to ask for candidates: at once when slots become free, and ever more rarely while it is in vain.

use peerage_machine::{Backoff, Rng, Time};

/// The wish for candidates. It bounds what may be sent: candidates nobody asked for are dropped.
#[derive(Debug)]
pub(super) struct Ask {
    pace: Backoff,
    /// Candidates asked for and not yet come.
    outstanding: u32,
    /// Asks since one last led to a dial.
    fruitless: u32,
    asked_at: Option<Time>,
    next_at: Time,
}

impl Ask {
    pub(super) fn new(pace: Backoff) -> Ask {
        Ask { pace, outstanding: 0, fruitless: 0, asked_at: None, next_at: Time::ZERO }
    }

    /// When the next ask is allowed.
    pub(super) fn next_at(&self) -> Time {
        self.next_at
    }

    /// Notes that `count` candidates were asked for.
    pub(super) fn asked(&mut self, now: Time, count: u32, rng: &mut Rng) {
        self.outstanding = count;
        self.fruitless = self.fruitless.saturating_add(1);
        self.asked_at = Some(now);
        self.next_at = now + self.pace.delay(self.fruitless, rng);
    }

    /// Takes one candidate off the wish; false if none was asked for.
    pub(super) fn answered(&mut self) -> bool {
        match self.outstanding.checked_sub(1) {
            Some(left) => {
                self.outstanding = left;
                true
            }
            None => false,
        }
    }

    /// The next ask need not wait longer than the first pause: the last one bore fruit, or a peer was lost.
    pub(super) fn hurry(&mut self) {
        self.fruitless = 0;
        if let Some(asked_at) = self.asked_at {
            self.next_at = self.next_at.min(asked_at + self.pace.base);
        }
    }
}
