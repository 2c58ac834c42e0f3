//! Nothing leaks, whatever comes in whatever order.

use std::time::Duration;

use peerage_machine::Time;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Join(u64),
    Leave(usize),
    Weigh(usize, u64),
    Take(usize, u64),
    GiveBack(usize, u64),
    Cancel(usize),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0u64..4).prop_map(Op::Join),
        (0usize..8).prop_map(Op::Leave),
        ((0usize..8), 0u64..5).prop_map(|(who, weight)| Op::Weigh(who, weight)),
        ((0usize..8), 1u64..200_000).prop_map(|(who, wanted)| Op::Take(who, wanted)),
        ((0usize..8), 0u64..200_000).prop_map(|(who, count)| Op::GiveBack(who, count)),
        (0usize..8).prop_map(Op::Cancel),
        (0u64..400).prop_map(Op::Pass),
    ];
    proptest::collection::vec(op, 1..200)
}

/// Plays the operations; tells `seen` of what was taken and given back.
fn play(machine: &mut impl Throttle, ops: &[Op], mut seen: impl FnMut(Time, HolderId, i64)) -> (Time, Vec<HolderId>) {
    let (mut now, mut holders) = (Time::ZERO, Vec::<HolderId>::new());
    let mut held: Vec<u64> = Vec::new();
    for op in ops {
        match *op {
            Op::Join(weight) if holders.len() < 8 => {
                holders.push(machine.join(now, weight));
                held.push(0);
            }
            Op::Leave(who) if who < holders.len() => {
                let gone = holders.swap_remove(who);
                held.swap_remove(who);
                machine.leave(now, gone);
                // What comes late is ignored.
                machine.give_back(now, gone, 5);
                assert_eq!(machine.take(now, gone, 5), Take::Later(None));
            }
            Op::Weigh(who, weight) if who < holders.len() => machine.set_weight(now, holders[who], weight),
            Op::Take(who, wanted) if who < holders.len() => match machine.take(now, holders[who], wanted) {
                Take::Now(got) => {
                    assert!((1..=wanted).contains(&got));
                    held[who] += got;
                    seen(now, holders[who], got as i64);
                }
                Take::Later(until) => assert!(until.is_none_or(|until| until > now)),
            },
            Op::GiveBack(who, count) if who < holders.len() => {
                let count = count.min(held[who]);
                held[who] = 0;
                machine.give_back(now, holders[who], count);
                seen(now, holders[who], -(count as i64));
            }
            Op::Cancel(who) if who < holders.len() => machine.cancel(holders[who]),
            Op::Pass(millis) => now += Duration::from_millis(millis),
            _ => {}
        }
    }
    for holder in &holders {
        machine.cancel(*holder);
    }
    assert_eq!(machine.waiting(), 0, "whoever waited has given up");
    (now, holders)
}

proptest! {
    #[test]
    fn bandwidth_never_moves_more_than_the_rate_and_two_bursts(ops in ops(), reserved in 0u8..=100) {
        let rate = 1u64 << 20;
        let limits = BandwidthLimits { node: Some(rate), peer: None, reserved };
        let mut machine = Bandwidth::new(Time::ZERO, limits);
        let mut moved = 0i64;
        let mut most = 0i64;
        let (now, holders) = play(&mut machine, &ops, |now, _, bytes| {
            moved += bytes;
            // A weight that changes keeps what a reserve has: one more burst at most.
            let due = (now.running().as_nanos() * u128::from(rate) / 1_000_000_000) as i64;
            most = most.max(moved - due);
        });
        prop_assert!(most <= 2 * (rate as i64 / 4) + (16 << 10), "{most} beyond the rate");
        for holder in holders {
            machine.leave(now, holder);
        }
        let later = now + Duration::from_secs(2);
        prop_assert!(machine.tokens(later).is_some_and(|free| free >= rate / 4 / 100));
        prop_assert_eq!(machine.scaled_levels().1, 0, "nothing stays with those that have left");
    }

    #[test]
    fn every_message_in_processing_is_given_back_once(ops in ops(), most in 1u64..2_000) {
        let mut machine = Processing::new(most);
        let mut held = std::collections::BTreeMap::<(usize, u64), i64>::new();
        let (_, holders) = play(&mut machine, &ops, |_, who, count| {
            *held.entry((who.index, who.generation)).or_default() += count;
        });
        for holder in holders {
            // `play` forgets what it has after one return, as a caller does that gives back all it did not use.
            prop_assert!(machine.held(holder) <= most);
            let free = most - machine.held(holder);
            match machine.take(Time::ZERO, holder, u64::MAX) {
                Take::Now(got) => prop_assert_eq!(got, free),
                Take::Later(_) => prop_assert_eq!(free, 0),
            }
        }
    }

    #[test]
    fn time_that_was_spent_is_counted_once_whoever_comes_and_goes(
        spent in proptest::collection::vec((0usize..6, 0u64..500_000_000, 0u64..2_000), 1..100),
    ) {
        let mut machine = CpuShares::new(Time::ZERO, Some(CpuLimits::recommended()));
        let holders: Vec<HolderId> = (0..6).map(|weight| machine.join(Time::ZERO, weight)).collect();
        let mut now = Time::ZERO;
        for (who, nanos, pass) in spent {
            machine.spent(now, holders[who], Duration::from_nanos(nanos));
            now += Duration::from_millis(pass);
            let sum: u64 = holders.iter().map(|holder| machine.usage(now, *holder)).sum();
            let total = machine.total(now);
            prop_assert!(sum <= total + 6 && total <= sum + 8, "{sum} of {total}");
        }
        // An hour of quiet forgets it all.
        now += Duration::from_secs(3_600);
        prop_assert!(holders.iter().all(|holder| machine.take(now, *holder, 1) == Take::Now(1)));
    }
}
