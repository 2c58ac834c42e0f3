//! A pool that is made larger and smaller while its bytes are held.

use super::*;
use proptest::prelude::*;

fn config(at_large: usize, shared: usize, aside: usize) -> PoolConfig {
    PoolConfig { at_large, shared, holder_max: at_large, aside }
}

#[test]
fn a_pool_grows_at_once_and_who_waits_gets_it() {
    let (mut budget, mut granted) = (Budget::new(config(100, 0, 0)), Vec::new());
    let (one, two) = (budget.join(0), budget.join(0));
    assert!(budget.take_all(one, 100));
    assert_eq!(budget.take(two, 60), 0);
    budget.set_config(config(150, 0, 0), &mut granted);
    assert_eq!(granted, [(two, 50)]);
    assert_eq!((budget.used(), budget.free(), budget.wanted(two)), (150, 0, 10));
}

#[test]
fn a_pool_shrinks_as_bytes_come_back_and_gives_none_before() {
    let (mut budget, mut granted) = (Budget::new(config(100, 0, 0)), Vec::new());
    let (one, two) = (budget.join(0), budget.join(0));
    assert!(budget.take_all(one, 80) && budget.take_at_large(10));
    budget.set_config(config(30, 0, 0), &mut granted);
    assert_eq!((budget.used(), budget.used_at_large(), budget.free()), (90, 90, 0));
    assert!(!budget.take_all(two, 1));
    budget.give_back(one, 60, &mut granted);
    assert_eq!((budget.used(), budget.free()), (30, 0), "what was too much is gone");
    assert!(!budget.take_all(two, 1));
    budget.give_at_large(10, &mut granted);
    assert!(budget.take_all(two, 10) && !budget.take_all(two, 1));
    budget.leave(one, &mut granted);
    budget.leave(two, &mut granted);
    assert_eq!((budget.used(), budget.free()), (0, 30));
}

/// What is taken of each part.
fn parts(budget: &Budget) -> [usize; 3] {
    let (config, owed) = (budget.config, budget.owed);
    [
        config.at_large + owed.at_large - budget.at_large_free,
        config.shared + owed.shared - budget.shared_free,
        config.aside + owed.aside - budget.aside_free,
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize, usize),
    All(usize, usize),
    Give(usize, usize),
    Cancel(usize),
    Resize(usize, usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4usize, 1..60usize).prop_map(|(who, bytes)| Step::Take(who, bytes)),
        (0..4usize, 1..60usize).prop_map(|(who, bytes)| Step::All(who, bytes)),
        (0..4usize, 1..90usize).prop_map(|(who, bytes)| Step::Give(who, bytes)),
        (0..4usize).prop_map(Step::Cancel),
        (0..200usize, 0..200usize, 60..120usize).prop_map(|(large, shared, aside)| Step::Resize(large, shared, aside)),
    ]
}

proptest! {
    #[test]
    fn whatever_sizes_a_pool_has_had_it_ends_with_all_of_the_last_one(steps in prop::collection::vec(step(), 1..200)) {
        let (mut budget, mut granted) = (Budget::new(config(100, 50, 60)), Vec::new());
        let holders: Vec<HolderId> = (0..4).map(|n| budget.join(n as u64 % 2)).collect();
        for step in steps {
            let before = parts(&budget);
            match step {
                // One message at a time.
                Step::Take(who, bytes) if budget.wanted(holders[who]) == 0 => {
                    let _ = budget.take(holders[who], bytes);
                },
                Step::Take(..) => {}
                Step::All(who, bytes) => {
                    let _ = budget.take_all(holders[who], bytes);
                },
                Step::Give(who, bytes) => budget.give_back(holders[who], bytes, &mut granted),
                Step::Cancel(who) => {
                    let _ = budget.cancel(holders[who]);
                },
                Step::Resize(large, shared, aside) => budget.set_config(config(large, shared, aside), &mut granted),
            }
            let held: usize = holders.iter().map(|holder| budget.held(*holder)).sum();
            prop_assert_eq!(held, budget.used());
            let PoolConfig { at_large, shared, aside, .. } = *budget.config();
            for ((now, before), part) in parts(&budget).into_iter().zip(before).zip([at_large, shared, aside]) {
                prop_assert!(now <= before.max(part), "nothing is given beyond what a part has");
            }
        }
        holders.iter().for_each(|holder| budget.leave(*holder, &mut granted));
        prop_assert_eq!((budget.used(), budget.free()), (0, budget.config().capacity()));
    }
}
