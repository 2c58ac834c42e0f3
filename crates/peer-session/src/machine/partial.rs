//! A message under reassembly: how it grows, and by when more of it must come.

use std::time::Duration;

use peerage_machine::Time;

use crate::Config;

/// How much faster a message must come when others wait for what it holds.
const HURRY: u64 = 4;

/// A message whose last fragment is not here yet.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) total: usize,
    pub(super) bytes: Vec<u8>,
    /// When a fragment of it came last, or its peer could not have sent one.
    pub(super) touched: Time,
    /// Since when its peer may send all of it, and what the session had received then.
    pub(super) allowed: Option<(Time, u64)>,
}

impl Partial {
    /// Grows with what arrives, by doubling, whatever the peer claims will; and never beyond the total, which is all that
    /// is reserved for it.
    pub(super) fn push(&mut self, fragment: &[u8]) {
        let needed = self.bytes.len() + fragment.len();
        if needed > self.bytes.capacity() {
            let room = (2 * needed).min(self.total);
            self.bytes.reserve_exact(room.max(needed) - self.bytes.len());
        }
        self.bytes.extend_from_slice(fragment);
    }

    /// Nothing was read for so long: what comes next has lain there.
    pub(super) fn postpone(&mut self, waited: Duration) {
        self.touched += waited;
        if let Some((since, _)) = &mut self.allowed {
            *since += waited;
        }
    }

    /// By when more must have come. A message that its peer may send all of must come at the slowest rate there is; what
    /// the peer sends on other lanes meanwhile counts, because its lanes share the way, unless others wait for the room.
    pub(super) fn due(&self, config: &Config, received: u64, contended: bool) -> Time {
        let quiet = self.touched + config.stall_timeout;
        let Some((since, before)) = self.allowed else { return quiet };
        let owed = if contended {
            config.time_for(self.total as u64, HURRY)
        } else {
            config.time_for((received - before).max(self.total as u64), 1)
        };
        quiet.min(since + config.stall_timeout + owed)
    }
}
