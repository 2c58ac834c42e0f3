//! When to restart a child that died, as a machine's rule: no clock, no task.

use std::collections::VecDeque;
use std::time::Duration;

use peerage_machine::{Backoff, Rng, Time};

/// How often and how fast a child may be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Delays between the deaths of a row.
    pub backoff: Backoff,
    /// So many restarts…
    pub budget: usize,
    /// …within this time.
    pub window: Duration,
    /// The delay once the budget is spent. A child is never given up: if what makes it fail comes from the network,
    /// whoever sends it could otherwise switch the child off for good.
    pub when_spent: Duration,
}

impl RestartPolicy {
    /// 0.5 s × 2^k up to 60 s, five in five minutes, and then one every five minutes.
    pub const fn service() -> RestartPolicy {
        RestartPolicy {
            backoff: Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(60) },
            budget: 5,
            window: Duration::from_secs(300),
            when_spent: Duration::from_secs(300),
        }
    }

    /// As [`service`](RestartPolicy::service), but one every minute once the budget is spent.
    pub const fn vital() -> RestartPolicy {
        RestartPolicy { when_spent: Duration::from_secs(60), ..RestartPolicy::service() }
    }
}

/// What to do about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Start it again after the delay.
    After(Duration),
    /// The budget is spent: start it again after the delay, with the alarm set.
    DegradedAfter(Duration),
}

impl RestartPolicy {
    /// What to do about a death that is charged to whoever caused it: it costs nothing of the budget, and comes at most
    /// once a second, however many poisoned messages come.
    pub const CHARGED: Restart = Restart::After(Duration::from_secs(1));

    /// Decides about a death at `now`, given the deaths before it, which it keeps.
    pub fn decide(&self, now: Time, deaths: &mut VecDeque<Time>, rng: &mut Rng) -> Restart {
        while deaths.front().is_some_and(|death| now.since(*death) > self.window) {
            deaths.pop_front();
        }
        if deaths.len() >= self.budget {
            return Restart::DegradedAfter(self.when_spent);
        }
        deaths.push_back(now);
        let deaths = u32::try_from(deaths.len()).unwrap_or(u32::MAX);
        Restart::After(self.backoff.delay(deaths, rng))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_budget_is_spent_and_recovers_with_the_window() {
        let (policy, mut deaths, mut rng) = (RestartPolicy::service(), VecDeque::new(), Rng::new(1));
        for k in 0..5u32 {
            let longest = Duration::from_millis(500 << k);
            match policy.decide(at(1), &mut deaths, &mut rng) {
                Restart::After(delay) => assert!(delay >= longest / 2 && delay <= longest),
                other => panic!("death {k}: {other:?}"),
            }
        }
        let spent = policy.decide(at(2), &mut deaths, &mut rng);
        assert_eq!(spent, Restart::DegradedAfter(Duration::from_secs(300)));
        assert!(matches!(policy.decide(at(302), &mut deaths, &mut rng), Restart::After(_)));
    }

    #[test]
    fn a_vital_child_is_back_within_a_minute_however_often_it_fails() {
        let (policy, mut deaths, mut rng) = (RestartPolicy::vital(), VecDeque::new(), Rng::new(1));
        for _ in 0..5 {
            policy.decide(at(1), &mut deaths, &mut rng);
        }
        let spent = policy.decide(at(1), &mut deaths, &mut rng);
        assert_eq!(spent, Restart::DegradedAfter(Duration::from_secs(60)));
        assert_eq!(deaths.len(), 5, "the record of deaths is bounded by the budget");
    }
}
