//! Counting without floats.

use std::collections::BTreeMap;

/// How often each value came, as far as it can be told apart: values below 256 exactly, larger ones within 0.8 %.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    buckets: BTreeMap<u32, u64>,
    count: u64,
    total: u128,
    max: u64,
}

const EXACT_BITS: u32 = 7;

fn bucket(value: u64) -> u32 {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(EXACT_BITS);
    (shift << (EXACT_BITS + 1)) + (value >> shift) as u32
}

/// The largest value of a bucket.
fn ceiling(bucket: u32) -> u64 {
    let shift = bucket >> (EXACT_BITS + 1);
    let kept = u64::from(bucket & ((1 << (EXACT_BITS + 1)) - 1));
    kept << shift | ((1 << shift) - 1)
}

impl Histogram {
    pub(super) fn add(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.count += 1;
        self.total += u128::from(value);
        self.max = self.max.max(value);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// In thousandths.
    pub(super) fn mean(&self) -> u64 {
        (self.total * 1_000 / u128::from(self.count.max(1))) as u64
    }

    /// The value below or at which so many per cent of all lie (nearest rank).
    pub(super) fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (bucket, count) in &self.buckets {
            below += count;
            if below >= rank {
                return ceiling(*bucket).min(self.max);
            }
        }
        self.max
    }

    /// (value, how many lie at or below it in parts of a million of all).
    pub(super) fn shares(&self) -> Vec<(u64, u64)> {
        let mut below = 0;
        let mut shares = Vec::with_capacity(self.buckets.len());
        for (bucket, count) in &self.buckets {
            below += count;
            shares.push((ceiling(*bucket).min(self.max), below * 1_000_000 / self.count.max(1)));
        }
        shares
    }
}

/// A part in parts of a million; all, if there was nothing to have a part of.
pub(super) fn share(part: u64, of: u64) -> u64 {
    if of == 0 { 1_000_000 } else { (u128::from(part) * 1_000_000 / u128::from(of)) as u64 }
}

/// A quotient in thousandths.
pub(super) fn ratio(of: u64, by: u64) -> u64 {
    (u128::from(of) * 1_000 / u128::from(by.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_hundredth_and_small_values_exact() {
        let mut histogram = Histogram::default();
        (1..=100_000_u64).for_each(|value| histogram.add(value * 1_000));
        for percent in [1, 50, 99, 100] {
            let (told, true_one) = (histogram.percentile(percent), percent * 1_000_000);
            assert!(told >= true_one && told <= true_one + true_one / 100, "{percent}: {told}");
        }
        assert_eq!(histogram.percentile(100), 100_000_000);
        assert_eq!(histogram.mean(), 50_000_500_000);
        let mut small = Histogram::default();
        [3, 3, 5, 200].into_iter().for_each(|value| small.add(value));
        assert_eq!((small.percentile(50), small.percentile(75), small.max()), (3, 5, 200));
        assert_eq!(small.shares().last(), Some(&(200, 1_000_000)));
        assert_eq!(Histogram::default().percentile(99), 0);
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..100_000).chain([u64::MAX / 3, u64::MAX - 1]) {
            let ceiling = ceiling(bucket(value));
            assert!(ceiling >= value && ceiling - value <= value / 64, "{value}: {ceiling}");
            assert!(value == 0 || super::ceiling(bucket(value - 1)) <= ceiling);
        }
    }
}
