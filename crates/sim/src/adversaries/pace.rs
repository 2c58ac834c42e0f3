//! How often an attacker acts.

use std::time::Duration;

use peerage_machine::Time;

/// Attackers act ten times a second.
const BEAT: Duration = Duration::from_millis(100);
const BEATS: u64 = 10;

/// So many acts a second, a tenth of a second's worth at a time, from a moment on.
pub(super) struct Pace {
    rate: u64,
    owed: u64,
    next: Time,
}

impl Pace {
    pub(super) fn new(rate: u64, from: Time) -> Pace {
        Pace { rate, owed: 0, next: from + BEAT }
    }

    pub(super) fn next(&self) -> Time {
        self.next
    }

    /// How many acts are due now.
    pub(super) fn take(&mut self, now: Time) -> u64 {
        self.next = now + BEAT;
        self.owed += self.rate;
        let due = self.owed / BEATS;
        self.owed %= BEATS;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_whatever_it_is() {
        for rate in [1, 7, 10, 1_234] {
            let mut pace = Pace::new(rate, Time::ZERO);
            let acts: u64 = (0..100).map(|_| pace.take(pace.next())).sum();
            assert_eq!(acts, rate * 10, "of ten seconds");
        }
    }
}
