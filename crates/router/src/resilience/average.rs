//! An average in which what is old counts less, in integers.

use std::time::Duration;

use peerage_machine::{Decaying, Time};

/// One in parts per million.
const ONE: u128 = 1_000_000;

/// The mean of samples, each with a weight that halves with every half-life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Average {
    /// Weighted samples, and their weights, in millionths.
    sum: u128,
    weight: u128,
    at: Time,
}

impl Average {
    /// The average of one sample.
    pub fn new(now: Time, sample: u64) -> Average {
        Average { sum: u128::from(sample) * ONE, weight: ONE, at: now }
    }

    /// One sample more.
    pub fn observe(&mut self, now: Time, half_life: Duration, sample: u64) {
        // What is left of a thousand points, in thousandths.
        let left = u128::from(Decaying::new(self.at, 1_000).thousandths(now, half_life));
        // Both stay below 2^64 × the weight, which has a limit: bursts at one instant would raise it without end.
        self.sum = (self.sum * left / ONE).saturating_add(u128::from(sample) * ONE);
        self.weight = self.weight * left / ONE + ONE;
        const MOST: u128 = ONE * 1_000;
        if self.weight > MOST {
            self.sum = self.sum / self.weight * MOST;
            self.weight = MOST;
        }
        self.at = now;
    }

    /// The mean.
    pub fn value(&self) -> u64 {
        u64::try_from(self.sum / self.weight.max(1)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_half_life_the_old_counts_half_as_much() {
        let half_life = Duration::from_secs(300);
        let mut average = Average::new(Time::ZERO, 100);
        average.observe(Time::ZERO, half_life, 300);
        assert_eq!(average.value(), 200);
        average.observe(Time::ZERO + half_life, half_life, 500);
        assert_eq!(average.value(), 350, "(100 + 300) / 2 + 500, over two");
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut average = Average::new(Time::ZERO, u64::MAX);
        for _ in 0..5_000 {
            average.observe(Time::ZERO, Duration::ZERO, u64::MAX);
            average.observe(Time::ZERO, Duration::from_secs(1), u64::MAX);
        }
        assert!(average.value() > u64::MAX / 2);
    }
}
