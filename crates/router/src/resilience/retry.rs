//! Whether, when and where a request that failed is tried again.

use std::time::Duration;

use peerage_machine::{Backoff, Rng, Time};
use serde::{Deserialize, Serialize};

/// How a request failed, as far as trying again goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// No answer in time.
    TimedOut,
    /// The peer is not connected, or went, or its circuit is open.
    Unreachable,
    /// The peer, or this node, has too much to do.
    Throttled,
    /// This peer does not serve it; another may.
    NotServed,
    /// An answer that will be the same the next time.
    Final,
}

/// What is tried again, by [`Class`]. Only for requests that may be handled twice: one that timed out may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all; 1 for never again.
    pub attempts: u32,
    /// Attempts after a time-out, at once.
    pub quick: u32,
    /// The pauses before the others.
    pub pause: Backoff,
}

impl RetryPolicy {
    /// One attempt.
    pub const fn once() -> RetryPolicy {
        RetryPolicy { attempts: 1, ..RetryPolicy::recommended() }
    }

    /// Eight attempts at most, two of them at once after time-outs, the others after 100 ms and twice as much each
    /// time, to 10 s.
    pub const fn recommended() -> RetryPolicy {
        RetryPolicy {
            attempts: 8,
            quick: 2,
            pause: Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) },
        }
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again, then; at another peer if any will do.
    Again {
        /// When.
        at: Time,
        /// Whether another peer is to be preferred.
        elsewhere: bool,
    },
    /// Nothing more.
    GiveUp,
}

/// The failures of one request so far.
#[derive(Clone, Debug)]
pub struct Retries {
    policy: RetryPolicy,
    failures: u32,
    quick: u32,
    /// Pauses taken.
    pauses: u32,
}

impl Retries {
    /// None yet.
    pub const fn new(policy: RetryPolicy) -> Retries {
        Retries { policy, failures: 0, quick: 0, pauses: 0 }
    }

    /// An attempt failed.
    pub fn failed(&mut self, now: Time, class: Class, rng: &mut Rng) -> Next {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.policy.attempts {
            return Next::GiveUp;
        }
        let at = match class {
            Class::Final => return Next::GiveUp,
            Class::TimedOut if self.quick < self.policy.quick => {
                self.quick += 1;
                now
            }
            Class::TimedOut => return Next::GiveUp,
            Class::NotServed => now,
            Class::Unreachable | Class::Throttled => {
                self.pauses += 1;
                now + self.policy.pause.delay(self.pauses, rng)
            }
        };
        Next::Again { at, elsewhere: true }
    }

    /// Attempts that failed.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: Next) -> Option<Duration> {
        match next {
            Next::Again { at, .. } => Some(at.since(Time::ZERO)),
            Next::GiveUp => None,
        }
    }

    #[test]
    fn a_time_out_is_tried_again_twice_at_once() {
        let (mut retries, mut rng) = (Retries::new(RetryPolicy::recommended()), Rng::new(1));
        let tried: Vec<_> = (0..3).map(|_| at(retries.failed(Time::ZERO, Class::TimedOut, &mut rng))).collect();
        assert_eq!(tried, [Some(Duration::ZERO), Some(Duration::ZERO), None]);
    }

    #[test]
    fn an_unreachable_or_throttling_peer_is_given_growing_pauses_and_eight_attempts() {
        for class in [Class::Unreachable, Class::Throttled] {
            let (mut retries, mut rng) = (Retries::new(RetryPolicy::recommended()), Rng::new(1));
            for n in 0..7 {
                let pause = at(retries.failed(Time::ZERO, class, &mut rng)).expect("again");
                let longest = Duration::from_millis(100 << n);
                assert!(pause >= longest / 2 && pause <= longest, "{pause:?}");
            }
            assert_eq!(at(retries.failed(Time::ZERO, class, &mut rng)), None);
        }
    }

    #[test]
    fn an_answer_that_stays_the_same_is_final_and_one_attempt_is_one() {
        let mut rng = Rng::new(1);
        assert_eq!(Retries::new(RetryPolicy::recommended()).failed(Time::ZERO, Class::Final, &mut rng), Next::GiveUp);
        for class in [Class::TimedOut, Class::Unreachable, Class::Throttled, Class::NotServed] {
            assert_eq!(Retries::new(RetryPolicy::once()).failed(Time::ZERO, class, &mut rng), Next::GiveUp);
        }
    }
}
