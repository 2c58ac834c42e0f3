//! Exponential back-off with jitter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Rng;

/// Doubling delays from `base` up to `cap`, each drawn uniformly from the upper half, so that many
/// nodes that failed together do not return together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The longest delay after the first failure.
    pub base: Duration,
    /// The longest delay after any number of failures.
    pub cap: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row: in [d/2, d] for d = min(base × 2^(failures−1),
    /// cap), and zero for no failures.
    pub fn delay(self, failures: u32, rng: &mut Rng) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let doublings = (failures - 1).min(31);
        let longest = self.base.saturating_mul(1 << doublings).min(self.cap);
        let half = longest / 2;
        half + Duration::from_nanos(rng.below(u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_their_bounds_and_stop_at_the_cap() {
        let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(10) };
        let mut rng = Rng::new(1);
        assert_eq!(backoff.delay(0, &mut rng), Duration::ZERO);
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (400, 10)] {
            let longest = Duration::from_secs(longest);
            for _ in 0..50 {
                let delay = backoff.delay(failures, &mut rng);
                assert!(delay >= longest / 2 && delay <= longest, "{failures} failures: {delay:?}");
            }
        }
    }
}
