//! A value that halves with time, in fixed point: the same on every machine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;

/// 2^(−1/64) in units of 2^−32.
const STEP: u64 = 4_248_701_965;
const STEPS: u32 = 64;

/// 2^(−i/64) in units of 2^−32, for i in 0..=64.
const ROOTS: [u64; STEPS as usize + 1] = {
    let mut roots = [1 << 32; STEPS as usize + 1];
    let mut i = 1;
    while i < roots.len() {
        roots[i] = (roots[i - 1] * STEP) >> 32;
        i += 1;
    }
    roots
};

/// Points that are forgotten by half every half-life. Counted in thousandths, never below zero; a million million
/// points at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decaying {
    thousandths: u64,
    at: Time,
}

impl Decaying {
    /// The most it can be, in thousandths.
    const MAX: u64 = 1_000_000_000_000_000;

    /// `points` at `now`.
    pub fn new(now: Time, points: u32) -> Decaying {
        Decaying { thousandths: u64::from(points) * 1_000, at: now }
    }

    /// What is left of it at `now`, in thousandths of a point.
    pub fn thousandths(&self, now: Time, half_life: Duration) -> u64 {
        let (elapsed, half_life) = (now.since(self.at).as_nanos(), half_life.as_nanos().max(1));
        let halvings = elapsed / half_life;
        if halvings >= 63 {
            return 0;
        }
        // Between two entries of the table, along a straight line: off by 15 millionths at most.
        let position = (elapsed % half_life) * (u128::from(STEPS) << 32) / half_life;
        let (step, within) = ((position >> 32) as usize, (position & 0xffff_ffff) as u64);
        let factor = ROOTS[step] - (((ROOTS[step] - ROOTS[step + 1]) * within) >> 32);
        ((u128::from(self.thousandths) * u128::from(factor)) >> 32 >> halvings) as u64
    }

    /// What is left of it at `now`, in whole points.
    pub fn points(&self, now: Time, half_life: Duration) -> u32 {
        u32::try_from(self.thousandths(now, half_life) / 1_000).unwrap_or(u32::MAX)
    }

    /// Adds points, and keeps it at `cap` points at most; answers what it is then, in points.
    pub fn add(&mut self, now: Time, half_life: Duration, points: u32, cap: u32) -> u32 {
        let sum = self.thousandths(now, half_life).saturating_add(u64::from(points) * 1_000);
        *self = Decaying { thousandths: sum.min(u64::from(cap) * 1_000).min(Self::MAX), at: now };
        self.points(now, half_life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn it_halves_every_half_life_and_is_close_to_the_power_in_between() {
        let start = Time::ZERO + HOUR;
        let score = Decaying::new(start, 1_000_000);
        assert_eq!(score.points(start, HOUR), 1_000_000);
        for quarter in 0..80u32 {
            let exact = 1e6 * 0.5f64.powf(f64::from(quarter) / 4.0);
            let got = score.thousandths(start + HOUR * quarter / 4, HOUR) as f64 / 1e3;
            assert!((got - exact).abs() <= exact * 3e-5 + 0.002, "{quarter}: {got} {exact}");
        }
        assert_eq!(score.points(start + HOUR * 10_000, HOUR), 0);
        assert_eq!(score.points(Time::ZERO, HOUR), 1_000_000, "a clock that stands does not decay");
    }

    #[test]
    fn touching_it_often_changes_next_to_nothing() {
        let mut often = Decaying::new(Time::ZERO, 1_000_000);
        for second in 1..=3600 {
            often.add(Time::ZERO + Duration::from_secs(second), HOUR, 0, u32::MAX);
        }
        let left = often.points(Time::ZERO + HOUR, HOUR);
        // The straight lines lie above the curve, so what is touched often is forgotten a little later.
        assert!((500_000..=502_500).contains(&left), "{left}");
    }

    #[test]
    fn a_cap_holds_and_a_half_life_of_nothing_forgets_at_once() {
        let mut score = Decaying::new(Time::ZERO, 0);
        assert_eq!(score.add(Time::ZERO, HOUR, u32::MAX, 40), 40);
        assert_eq!(score.add(Time::ZERO, HOUR, 5, 40), 40);
        assert_eq!(score.points(Time::ZERO + Duration::from_nanos(100), Duration::ZERO), 0);
    }
}
