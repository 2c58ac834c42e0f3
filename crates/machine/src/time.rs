//! The two clocks a machine is told about, as one value.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, AddAssign};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant as its shell read it: how long the shell has run, and what the wall clock said.
///
/// Deadlines and comparisons use the running time only, which never jumps. The wall clock is for
/// what leaves the machine (expiry in packets, issue times) and may be wrong or stepped.
/// Adding a [`Duration`] moves both.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Time {
    running: Duration,
    unix: Duration,
}

impl Time {
    /// Running time zero at the Unix epoch; where tests and simulated worlds may start.
    pub const ZERO: Time = Time { running: Duration::ZERO, unix: Duration::ZERO };

    /// The instant at which a shell has run for `running` and its wall clock reads `unix` since the
    /// Unix epoch.
    pub const fn new(running: Duration, unix: Duration) -> Time {
        Time { running, unix }
    }

    /// How long the shell has been running.
    pub const fn running(self) -> Duration {
        self.running
    }

    /// The wall clock, since the Unix epoch.
    pub const fn unix(self) -> Duration {
        self.unix
    }

    /// The wall clock in milliseconds since the Unix epoch.
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.unix.as_millis()).unwrap_or(u64::MAX)
    }

    /// The running time between `earlier` and this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        self.running.saturating_sub(earlier.running)
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, by: Duration) -> Time {
        Time { running: self.running.saturating_add(by), unix: self.unix.saturating_add(by) }
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl PartialEq for Time {
    fn eq(&self, other: &Time) -> bool {
        self.running == other.running
    }
}

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Time) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Time) -> Ordering {
        self.running.cmp(&other.running)
    }
}

impl Hash for Time {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.running.hash(state);
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t+{:?}", self.running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_wall_clock_does_not_reorder_instants() {
        let before = Time::new(Duration::from_secs(5), Duration::from_secs(1_000));
        let after = Time::new(Duration::from_secs(6), Duration::from_secs(10));
        assert!(after > before);
        assert_eq!(after.since(before), Duration::from_secs(1));
        assert_eq!(before.since(after), Duration::ZERO);
    }
}
