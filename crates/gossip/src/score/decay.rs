//! What is left of a counter after some steps of time, in integers: the same on every machine.

use std::time::Duration;

/// One, as a fraction of 2^32.
const ONE: u64 = 1 << 32;
/// What a counter is said to be gone at: a hundredth, as in gossipsub v1.1's `ScoreParameterDecay`.
const GONE: u64 = ONE / 100;
/// Thousandths of a count below which it is forgotten, or small numbers would stay for ever.
const FORGOTTEN: i64 = 10;

/// The part of a counter that a step leaves, as a fraction of 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep(u64);

impl Keep {
    /// Leaves a hundredth after `duration`, in steps of `interval`.
    pub(super) fn over(duration: Duration, interval: Duration) -> Keep {
        let steps = duration.as_nanos().div_ceil(interval.as_nanos().max(1)).max(1);
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        let (mut low, mut high) = (0, ONE);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if Keep(middle).steps(steps).0 <= GONE {
                low = middle;
            } else {
                high = middle;
            }
        }
        Keep(low)
    }

    /// What so many steps leave.
    pub(super) fn steps(self, mut steps: u64) -> Keep {
        let (mut result, mut base) = (ONE, self.0);
        while steps > 0 {
            if steps & 1 == 1 {
                result = multiply(result, base);
            }
            base = multiply(base, base);
            steps >>= 1;
        }
        Keep(result)
    }

    /// Takes from a counter, which is not negative, what is gone of it.
    pub(super) fn decay(self, counter: &mut i64) {
        // As most are.
        if *counter == 0 {
            return;
        }
        let left = multiply(u64::try_from(*counter).unwrap_or(0), self.0);
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        *counter = if left < FORGOTTEN { 0 } else { left };
    }
}

fn multiply(value: u64, fraction: u64) -> u64 {
    u64::try_from((u128::from(value) * u128::from(fraction)) >> 32).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_hundredth_is_left_after_the_time_in_few_steps_or_in_many() {
        for steps in [1u32, 2, 60, 600, 3_600, 86_400] {
            let keep = Keep::over(SECOND * steps, SECOND);
            let mut counter = 1_000_000_000;
            (0..steps).for_each(|_| keep.decay(&mut counter));
            assert!((9_900_000..=10_000_000).contains(&counter), "{counter} after {steps} steps");
            let mut at_once = 1_000_000_000;
            keep.steps(u64::from(steps)).decay(&mut at_once);
            assert!((9_990_000..=10_000_000).contains(&at_once), "{at_once} after {steps} steps at once");
        }
    }

    #[test]
    fn a_counter_ends_at_nothing_and_never_grows() {
        let keep = Keep::over(SECOND * 3_600, SECOND);
        let mut counter = i64::MAX;
        while counter > 0 {
            let before = counter;
            keep.decay(&mut counter);
            assert!(counter < before && counter >= 0);
        }
        let mut counter = i64::MAX;
        keep.steps(u64::MAX).decay(&mut counter);
        assert_eq!(counter, 0);
    }

    #[test]
    fn senseless_times_do_no_harm() {
        for (duration, interval) in [(Duration::ZERO, SECOND), (SECOND, Duration::ZERO), (Duration::MAX, SECOND)] {
            let mut counter = 1_000;
            Keep::over(duration, interval).decay(&mut counter);
            assert!((0..=1_000).contains(&counter));
        }
    }
}
