//! Who has used how much of the handlers' time, and who has to wait (`avalanchego network/throttling/system_throttler.go`
//! and `snow/networking/tracker`).

use std::time::Duration;

use peerage_machine::{Decaying, Time};

use super::limits::CpuLimits;
use super::slots::Slots;
use super::{Take, Throttle};
use crate::HolderId;

/// Who waits looks again after this long at most: others may have become quiet.
const RECHECK: Duration = Duration::from_secs(5);
/// A wait that is shorter is none.
const NEXT_TO_NOTHING: Duration = Duration::from_millis(1);
/// ln 2 in millionths: a use of one core for ever adds up to this part of the half-life's inverse.
const LN_2: u128 = 693_147;

/// Time that was spent, in nanoseconds, forgotten by half every half-life.
#[derive(Debug)]
struct Spent {
    time: Decaying,
    /// Less than a microsecond, until it is one.
    rest: u64,
}

impl Spent {
    fn new(now: Time) -> Spent {
        Spent { time: Decaying::new(now, 0), rest: 0 }
    }

    fn add(&mut self, now: Time, half_life: Duration, nanos: u64) {
        let nanos = self.rest.saturating_add(nanos);
        let micros = nanos / 1_000;
        self.rest = nanos % 1_000;
        self.time.add(now, half_life, u32::try_from(micros).unwrap_or(u32::MAX), u32::MAX);
    }

    /// In thousandths of a core: what a steady use of so much adds up to.
    fn usage(&self, now: Time, half_life: Duration) -> u64 {
        let nanos = u128::from(self.time.thousandths(now, half_life));
        let usage = nanos * LN_2 / (1_000 * half_life.as_nanos().max(1));
        u64::try_from(usage).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct Spender {
    weight: u64,
    spent: Spent,
    waits: bool,
}

/// Shares of the time of the node's handlers.
///
/// A holder waits while it has used more than its target: the lesser of what is left at large and of one peer's most, but
/// no less than the same part of everything for all that use any; and its part by weight of what is reserved. So one
/// that is alone may use all, and while others use some, one that uses most of it is held up long before those that use
/// little.
#[derive(Debug)]
pub struct CpuShares {
    limits: Option<CpuLimits>,
    holders: Slots<Spender>,
    total_weight: u128,
    total: Spent,
}

impl CpuShares {
    /// Nobody has used anything. Without limits nobody waits.
    pub fn new(now: Time, limits: Option<CpuLimits>) -> CpuShares {
        CpuShares { limits, holders: Slots::new(), total_weight: 0, total: Spent::new(now) }
    }

    /// Other limits from now on.
    pub const fn set_limits(&mut self, limits: Option<CpuLimits>) {
        self.limits = limits;
    }

    /// Stopwatch what this holder sent took so long.
    pub fn spent(&mut self, now: Time, holder: HolderId, time: Duration) {
        let Some(CpuLimits { half_life, .. }) = self.limits else { return };
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(spender) = self.holders.get_mut(holder) {
            spender.spent.add(now, half_life, nanos);
            self.total.add(now, half_life, nanos);
        }
    }

    /// What all use, in thousandths of a core. What those used that have left counts until it is forgotten.
    pub fn total(&self, now: Time) -> u64 {
        self.limits.map_or(0, |limits| self.total.usage(now, limits.half_life))
    }

    /// What a holder uses, in thousandths of a core.
    pub fn usage(&self, now: Time, holder: HolderId) -> u64 {
        let of = |limits: CpuLimits| Some(self.holders.get(holder)?.spent.usage(now, limits.half_life));
        self.limits.and_then(of).unwrap_or(0)
    }

    /// What a holder may use now, in thousandths of a core.
    pub fn target(&self, now: Time, holder: HolderId) -> u64 {
        let (Some(limits), Some(spender)) = (self.limits, self.holders.get(holder)) else { return u64::MAX };
        self.target_of(now, limits, spender)
    }

    fn target_of(&self, now: Time, limits: CpuLimits, spender: &Spender) -> u64 {
        let left = u64::from(limits.at_large).saturating_sub(self.total(now)).min(u64::from(limits.per_peer));
        let reserved = u128::from(limits.reserved) * u128::from(spender.weight) / self.total_weight.max(1);
        let reserved = u64::try_from(reserved).unwrap_or(u64::MAX);
        let at_large = if spender.spent.usage(now, limits.half_life) > left.saturating_add(reserved) {
            // The others are counted only for one that may have to wait.
            let active = self.holders.iter().filter(|other| other.spent.usage(now, limits.half_life) > 0).count();
            left.max(u64::from(limits.at_large) / active.max(1) as u64)
        } else {
            left
        };
        at_large.saturating_add(reserved)
    }

    /// What the holder uses that uses most, and what it may use, in thousandths of a core.
    pub fn most(&self, now: Time) -> (u64, u64) {
        let Some(limits) = self.limits else { return (0, 0) };
        let usage = |spender: &&Spender| spender.spent.usage(now, limits.half_life);
        let most = self.holders.iter().max_by_key(usage);
        most.map_or((0, 0), |spender| (usage(&spender), self.target_of(now, limits, spender)))
    }

    /// How long until the usage has fallen to the target, if nothing changes.
    fn until(spent: &Spent, now: Time, half_life: Duration, target: u64) -> Duration {
        let (mut short, mut long) = (Duration::ZERO, RECHECK);
        if spent.usage(now + long, half_life) > target {
            return long;
        }
        while long - short > NEXT_TO_NOTHING / 4 {
            let middle = (short + long) / 2;
            if spent.usage(now + middle, half_life) > target {
                short = middle;
            } else {
                long = middle;
            }
        }
        long
    }
}

impl Throttle for CpuShares {
    fn join(&mut self, now: Time, weight: u64) -> HolderId {
        self.total_weight += u128::from(weight);
        self.holders.join(Spender { weight, spent: Spent::new(now), waits: false })
    }

    fn set_weight(&mut self, _: Time, holder: HolderId, weight: u64) {
        if let Some(spender) = self.holders.get_mut(holder) {
            self.total_weight -= u128::from(std::mem::replace(&mut spender.weight, weight));
            self.total_weight += u128::from(weight);
        }
    }

    fn leave(&mut self, _: Time, holder: HolderId) {
        if let Some(gone) = self.holders.leave(holder) {
            self.total_weight -= u128::from(gone.weight);
        }
    }

    fn take(&mut self, now: Time, holder: HolderId, wanted: u64) -> Take {
        let target = self.target(now, holder);
        let (limits, wanted) = (self.limits, wanted.max(1));
        let Some(spender) = self.holders.get_mut(holder) else { return Take::Later(None) };
        let wait = match limits {
            Some(CpuLimits { half_life, .. }) if spender.spent.usage(now, half_life) > target => {
                CpuShares::until(&spender.spent, now, half_life, target)
            }
            _ => Duration::ZERO,
        };
        spender.waits = wait >= NEXT_TO_NOTHING;
        if spender.waits { Take::Later(Some(now + wait)) } else { Take::Now(wanted) }
    }

    /// Time that was spent does not come back.
    fn give_back(&mut self, _: Time, _: HolderId, _: u64) {}

    fn cancel(&mut self, holder: HolderId) {
        if let Some(spender) = self.holders.get_mut(holder) {
            spender.waits = false;
        }
    }

    fn waiting(&self) -> usize {
        self.holders.iter().filter(|spender| spender.waits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CpuLimits = CpuLimits::recommended();

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Uses so many thousandths of a core, each of them, for so many seconds from `from`.
    fn busy(shares: &mut CpuShares, who: &[(HolderId, u64)], from: u64, seconds: u64) -> Time {
        for tick in 0..seconds * 10 {
            for (holder, thousandths) in who {
                shares.spent(at((from * 10 + tick) * 100), *holder, Duration::from_micros(thousandths * 100));
            }
        }
        at((from + seconds) * 1_000)
    }

    #[test]
    fn a_steady_use_is_measured_as_its_part_of_a_core_and_forgotten_by_half() {
        let mut shares = CpuShares::new(at(0), Some(LIMITS));
        let peer = shares.join(at(0), 0);
        let now = busy(&mut shares, &[(peer, 250)], 0, 120);
        let usage = shares.usage(now, peer);
        assert!((240..=260).contains(&usage), "{usage}");
        let later = shares.usage(now + LIMITS.half_life, peer);
        assert!((118..=132).contains(&later), "{later}");
        assert_eq!(shares.total(now), usage);
    }

    #[test]
    fn one_that_is_alone_may_use_all_and_one_that_uses_most_waits_once_others_are_there() {
        let mut shares = CpuShares::new(at(0), Some(LIMITS));
        let greedy = shares.join(at(0), 0);
        let modest: Vec<HolderId> = (0..9).map(|_| shares.join(at(0), 0)).collect();
        let now = busy(&mut shares, &[(greedy, 1_000)], 0, 60);
        assert_eq!(shares.take(now, greedy, 5), Take::Now(5));
        let mut all = vec![(greedy, 1_000)];
        all.extend(modest.iter().map(|peer| (*peer, 20)));
        let now = busy(&mut shares, &all, 60, 60);
        assert!(matches!(shares.take(now, greedy, 5), Take::Later(Some(_))));
        assert_eq!(shares.waiting(), 1);
        let (used, may) = shares.most(now);
        assert_eq!((used, may), (shares.usage(now, greedy), shares.target(now, greedy)));
        assert!(used > may, "{used} of {may}");
        for peer in modest {
            assert_eq!(shares.take(now, peer, 5), Take::Now(5));
        }
    }

    #[test]
    fn a_wait_ends_when_the_usage_has_fallen_and_is_looked_at_again_after_five_seconds_at_most() {
        let mut shares = CpuShares::new(at(0), Some(LIMITS));
        let (greedy, other) = (shares.join(at(0), 0), shares.join(at(0), 0));
        let now = busy(&mut shares, &[(greedy, 1_500), (other, 1_500)], 0, 120);
        assert_eq!(shares.take(now, greedy, 1), Take::Later(Some(now + RECHECK)));
        let slightly = {
            let mut shares = CpuShares::new(at(0), Some(LIMITS));
            let (greedy, other) = (shares.join(at(0), 0), shares.join(at(0), 0));
            let now = busy(&mut shares, &[(greedy, 850), (other, 10)], 0, 240);
            match shares.take(now, greedy, 1) {
                Take::Later(Some(until)) => {
                    assert_eq!(shares.take(until + millis(1), greedy, 1), Take::Now(1));
                    until.since(now)
                }
                take => panic!("{take:?}"),
            }
        };
        assert!(slightly < RECHECK, "{slightly:?}");
    }

    #[test]
    fn weight_is_a_share_that_the_others_cannot_use_up() {
        let mut shares = CpuShares::new(at(0), Some(LIMITS));
        let member = shares.join(at(0), 3);
        let _other_member = shares.join(at(0), 1);
        let crowd: Vec<HolderId> = (0..100).map(|_| shares.join(at(0), 0)).collect();
        let mut all: Vec<_> = crowd.iter().map(|peer| (*peer, 40)).collect();
        all.push((member, 1_400));
        let now = busy(&mut shares, &all, 0, 60);
        assert_eq!(shares.take(now, member, 1), Take::Now(1), "three quarters of two cores are its own");
        assert!(crowd.iter().all(|peer| matches!(shares.take(now, *peer, 1), Take::Later(_))));
        shares.set_weight(now, member, 0);
        assert!(matches!(shares.take(now, member, 1), Take::Later(_)));
    }

    #[test]
    fn who_gives_up_or_leaves_waits_no_more_and_what_it_used_counts_on() {
        let mut shares = CpuShares::new(at(0), Some(LIMITS));
        let (greedy, other) = (shares.join(at(0), 0), shares.join(at(0), 0));
        let now = busy(&mut shares, &[(greedy, 1_500), (other, 1_500)], 0, 60);
        assert!(matches!(shares.take(now, greedy, 1), Take::Later(_)));
        shares.cancel(greedy);
        assert_eq!(shares.waiting(), 0);
        let total = shares.total(now);
        shares.leave(now, greedy);
        shares.spent(now, greedy, millis(1_000));
        assert_eq!(shares.total(now), total, "a newcomer gets no more for another's leaving, and the late are ignored");
    }

    #[test]
    fn without_limits_nobody_waits() {
        let mut shares = CpuShares::new(at(0), None);
        let peer = shares.join(at(0), 0);
        let now = busy(&mut shares, &[(peer, 10_000)], 0, 10);
        assert_eq!((shares.take(now, peer, 1), shares.total(now)), (Take::Now(1), 0));
    }
}
