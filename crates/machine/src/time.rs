//! The two clocks a machine is told about, as one value.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::ops::{Add, AddAssign};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant as its shell read it: how long the shell has run, and what the wall clock said.
///
/// Deadlines and comparisons use the running time only, which never jumps. The wall clock is for
/// what leaves the machine (expiry in packets, issue times) and may be wrong or stepped.
/// Adding a [`Duration`] moves both. Kept in nanoseconds, 16 bytes in all, also if it is optional: tables of machines are
/// full of instants. Both clocks end after 584 years, the wall clock in 2554, and stand still then.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Time {
    /// One more than the nanoseconds.
    running: NonZeroU64,
    unix: u64,
}

const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

impl Time {
    /// Running time zero at the Unix epoch; where tests and simulated worlds may start.
    pub const ZERO: Time = Time { running: NonZeroU64::MIN, unix: 0 };

    /// The instant at which a shell has run for `running` and its wall clock reads `unix` since the
    /// Unix epoch.
    pub const fn new(running: Duration, unix: Duration) -> Time {
        Time { running: NonZeroU64::MIN.saturating_add(nanos(running)), unix: nanos(unix) }
    }

    /// How long the shell has been running.
    pub const fn running(self) -> Duration {
        Duration::from_nanos(self.running.get() - 1)
    }

    /// The wall clock, since the Unix epoch.
    pub const fn unix(self) -> Duration {
        Duration::from_nanos(self.unix)
    }

    /// The wall clock in milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> u64 {
        self.unix / 1_000_000
    }

    /// The running time between `earlier` and this instant; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.running.get().saturating_sub(earlier.running.get()))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, by: Duration) -> Time {
        let by = nanos(by);
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
        write!(f, "t+{:?}", self.running())
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

    #[test]
    fn an_instant_after_the_end_of_time_is_the_end_of_time() {
        let end = Time::new(Duration::MAX, Duration::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Time::ZERO + Duration::MAX, end);
        assert_eq!((end.running(), end.unix()), (Duration::from_nanos(u64::MAX - 1), Duration::from_nanos(u64::MAX)));
        assert_eq!((size_of::<Time>(), size_of::<Option<Time>>()), (16, 16));
    }
}
