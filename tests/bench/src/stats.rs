//! The statistics of a comparison: medians, percentiles, ratios of interleaved pairs, and the window that is measured.

use std::time::Duration;

use tokio::time::Instant;

/// What is said of several runs. On a noisy machine the extremes are part of the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` of no values. Of an even number the median is the mean of the middle two.
    pub(crate) fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Summary { median, min, max })
    }
}

/// The smallest sample that at least `percent` of all samples do not exceed (nearest rank); zero of no samples.
pub(crate) fn percentile(samples: &mut [Duration], percent: f64) -> Duration {
    samples.sort_unstable();
    let rank = (samples.len() as f64 * percent / 100.0).ceil() as usize;
    samples.get(rank.clamp(1, samples.len().max(1)) - 1).copied().unwrap_or_default()
}

/// Each round's value over the same round's reference: what disturbs the machine for longer than a round disturbs both.
pub(crate) fn ratios(values: &[f64], references: &[f64]) -> Vec<f64> {
    values.iter().zip(references).map(|(value, reference)| value / reference).collect()
}

/// Counts what arrives in a stretch of time that begins some time after the first arrival: connections start slowly.
pub(crate) struct Window {
    warm: Duration,
    run: Duration,
    /// Asking the time for every small message would be measured too.
    every: u32,
    calls: u32,
    first: Option<Instant>,
    open: Option<Instant>,
    items: u64,
    bytes: u64,
}

/// What a window saw, a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) items: f64,
    pub(crate) bytes: f64,
}

impl Window {
    pub(crate) fn new(warm: Duration, run: Duration, every: u32) -> Window {
        Window { warm, run, every: every.max(1), calls: 0, first: None, open: None, items: 0, bytes: 0 }
    }

    /// Counts one arrival; the rate, once the window is over.
    pub(crate) fn arrived(&mut self, bytes: usize) -> Option<Rate> {
        self.items += 1;
        self.bytes += bytes as u64;
        self.calls += 1;
        if self.calls < self.every {
            return None;
        }
        self.calls = 0;
        self.look(Instant::now())
    }

    fn look(&mut self, now: Instant) -> Option<Rate> {
        let first = *self.first.get_or_insert(now);
        let Some(open) = self.open else {
            if now - first >= self.warm {
                self.open = Some(now);
                (self.items, self.bytes) = (0, 0);
            }
            return None;
        };
        let passed = now - open;
        let rate = |count: u64| count as f64 / passed.as_secs_f64();
        (passed >= self.run && !passed.is_zero()).then(|| Rate { items: rate(self.items), bytes: rate(self.bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_the_middle_two() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 10.0]), Some(Summary { median: 3.0, min: 1.0, max: 10.0 }));
        assert_eq!(Summary::of(&[7.0]), Some(Summary { median: 7.0, min: 7.0, max: 7.0 }));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_percentile_is_a_sample_by_nearest_rank() {
        let mut samples: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile(&mut samples, 50.0), Duration::from_micros(100));
        assert_eq!(percentile(&mut samples, 99.0), Duration::from_micros(198));
        assert_eq!(percentile(&mut samples, 100.0), Duration::from_micros(200));
        assert_eq!(percentile(&mut samples, 0.0), Duration::from_micros(1));
        assert_eq!(percentile(&mut [Duration::from_micros(5)], 99.0), Duration::from_micros(5));
        assert_eq!(percentile(&mut [], 50.0), Duration::ZERO);
    }

    #[test]
    fn a_ratio_compares_what_was_measured_side_by_side() {
        // The machine was half as fast in the second round, for both: the ratio does not see it.
        let of_pairs = ratios(&[80.0, 40.0, 90.0], &[100.0, 50.0, 100.0]);
        assert_eq!(Summary::of(&of_pairs), Some(Summary { median: 0.8, min: 0.8, max: 0.9 }));
    }

    #[test]
    fn a_window_leaves_out_the_start_and_counts_until_its_end() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut window = Window::new(ms(10), ms(100), 1);
        let mut at = |after: Duration| {
            (window.items, window.bytes) = (window.items + 1, window.bytes + 50);
            window.look(start + after)
        };
        assert_eq!((at(ms(0)), at(ms(5)), at(ms(10))), (None, None, None));
        assert_eq!((at(ms(20)), at(ms(60))), (None, None));
        assert_eq!(at(ms(110)), Some(Rate { items: 30.0, bytes: 1500.0 }));
    }
}
