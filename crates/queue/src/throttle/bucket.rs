//! A token bucket in whole numbers: nothing is lost to rounding, however often it is looked at.

use std::time::Duration;

use peerage_machine::Time;

/// Levels are kept in bytes × 10⁹, so that a rate in bytes a second adds whole numbers each nanosecond.
pub(super) const SCALE: i128 = 1_000_000_000;

/// Tokens that come at a rate, kept up to a burst. It can be in debt, for what had to go on without them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    burst: i128,
    level: i128,
}

impl Bucket {
    /// Full.
    pub(super) fn full(burst: u64) -> Bucket {
        let burst = i128::from(burst) * SCALE;
        Bucket { burst, level: burst }
    }

    /// Empty.
    pub(super) const fn empty() -> Bucket {
        Bucket { burst: 0, level: 0 }
    }

    /// Another burst. Of what is there, what it holds stays; the rest is returned.
    pub(super) fn resize(&mut self, burst: i128) -> i128 {
        self.burst = burst;
        self.pour(0)
    }

    /// Adds scaled tokens; returns what does not fit.
    pub(super) fn pour(&mut self, scaled: i128) -> i128 {
        let sum = self.level + scaled;
        self.level = sum.min(self.burst);
        sum - self.level
    }

    /// Whole bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.level.max(0) / SCALE).unwrap_or(u64::MAX)
    }

    /// Whole bytes it can hold.
    pub(super) fn capacity(&self) -> u64 {
        u64::try_from(self.burst / SCALE).unwrap_or(u64::MAX)
    }

    /// Takes bytes, into debt if there are not as many.
    pub(super) fn take(&mut self, bytes: u64) {
        self.level -= i128::from(bytes) * SCALE;
    }

    /// What is missing of so many bytes, scaled; zero or less if they are there.
    pub(super) fn missing(&self, bytes: u64) -> i128 {
        i128::from(bytes) * SCALE - self.level
    }

    /// Takes all there is and leaves it empty.
    pub(super) fn drain(&mut self) -> i128 {
        std::mem::take(&mut self.level)
    }

    #[cfg(test)]
    pub(super) const fn level(&self) -> i128 {
        self.level
    }
}

/// How many scaled tokens come at a rate in this time.
pub(super) fn inflow(rate: u64, elapsed: Duration) -> i128 {
    let nanos = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX / (1 << 64));
    i128::from(rate) * nanos
}

/// When so many scaled tokens will have come: rounded up, so that who comes then finds them.
pub(super) fn due(now: Time, missing: i128, rate: u64) -> Time {
    let nanos = missing.max(0) / i128::from(rate.max(1)) + 1;
    now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
