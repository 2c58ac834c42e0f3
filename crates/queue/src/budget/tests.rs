//! The pool's arithmetic, scenario by scenario as avalanchego's throttlers are tested, and what is kept aside.

use super::*;

type Granted = Vec<(HolderId, usize)>;

fn pool(at_large: usize, shared: usize, holder_max: usize, aside: usize) -> Budget {
    Budget::new(PoolConfig { at_large, shared, holder_max, aside })
}

fn give_back(budget: &mut Budget, holder: HolderId, bytes: usize) -> Granted {
    let mut granted = Vec::new();
    budget.give_back(holder, bytes, &mut granted);
    granted
}

/// What a holder has at large, of its share and from aside.
fn parts(budget: &Budget, holder: HolderId) -> (usize, usize, usize) {
    let holder = &budget.holders[holder.index];
    (holder.at_large, holder.share, holder.aside)
}

/// What is free at large and of the shared bytes.
fn left(budget: &Budget) -> (usize, usize) {
    (budget.at_large_free, budget.shared_free)
}

/// avalanchego `TestSybilOutboundMsgThrottler`.
#[test]
fn all_or_nothing_takes_at_large_first_then_the_share_and_returns_the_share_first() {
    let mut budget = pool(1024, 1024, 1024, 0);
    let (one, two, stranger) = (budget.join(1), budget.join(1), budget.join(0));
    assert!(budget.take_all(one, 1));
    assert_eq!((left(&budget), parts(&budget, one)), ((1023, 1024), (1, 0, 0)));
    give_back(&mut budget, one, 1);
    assert_eq!((left(&budget), parts(&budget, one)), ((1024, 1024), (0, 0, 0)));

    assert!(budget.take_all(one, 1025), "all that is at large and one byte of the share");
    assert_eq!((left(&budget), parts(&budget, one)), ((0, 1023), (1024, 1, 0)));
    assert!(budget.take_all(two, 512), "half of the shared bytes");
    assert_eq!((left(&budget), parts(&budget, two)), ((0, 511), (0, 512, 0)));
    assert!(budget.take_all(one, 511), "the other half");
    assert_eq!(parts(&budget, one), (1024, 512, 0));
    for holder in [one, two, stranger] {
        assert!(!budget.take_all(holder, 1));
    }

    give_back(&mut budget, one, 1025);
    assert_eq!((left(&budget), parts(&budget, one)), ((513, 512), (511, 0, 0)));
    assert!(budget.take_all(stranger, 513));
    assert!(!budget.take_all(stranger, 1));
    give_back(&mut budget, two, 512);
    assert_eq!((left(&budget), parts(&budget, two)), ((0, 1024), (0, 0, 0)));
    give_back(&mut budget, one, 511);
    assert_eq!((left(&budget), parts(&budget, one)), ((511, 1024), (0, 0, 0)));
    give_back(&mut budget, stranger, 513);
    assert_eq!((left(&budget), budget.used(), budget.waiting()), ((1024, 1024), 0, 0));
}

/// avalanchego `TestSybilOutboundMsgThrottlerMaxNonVdr` and, for what waits, `TestSybilMsgThrottlerMaxNonVdr`.
#[test]
fn one_holder_takes_no_more_at_large_than_its_cap_and_the_next_is_not_held_up() {
    let mut budget = pool(100, 100, 10, 0);
    let (weighted, first, second) = (budget.join(1), budget.join(0), budget.join(0));
    assert!(budget.take_all(first, 10));
    assert!(!budget.take_all(first, 1));
    assert_eq!(budget.take(first, 1), 0, "or waits");
    assert!(budget.take_all(second, 10), "although another waits: at its cap it could not have them");
    assert_eq!(budget.take(weighted, 11), 11);
    assert_eq!(parts(&budget, weighted), (10, 1, 0));
    assert_eq!((parts(&budget, first), parts(&budget, second)), ((10, 0, 0), (10, 0, 0)));
    assert_eq!((left(&budget), budget.waiting()), ((70, 99), 1));
}

/// avalanchego `TestBypassThrottling`: there a message that bypasses the throttler takes nothing and releases
/// nothing. Here the caller does not ask, and a buffer shared by many is charged to nobody's cap.
#[test]
fn what_is_taken_without_a_holder_counts_against_no_cap_and_comes_back_at_large() {
    let mut budget = pool(100, 100, 10, 0);
    let (holder, mut granted) = (budget.join(0), Vec::new());
    assert!(budget.take_at_large(90));
    assert!(!budget.take_at_large(11));
    assert!(!budget.take_at_large(usize::MAX));
    assert!(budget.take_all(holder, 10), "its cap is untouched");
    assert_eq!(budget.take(holder, 1), 0);
    budget.give_at_large(90, &mut granted);
    budget.give_at_large(1, &mut granted);
    assert_eq!((left(&budget), granted), ((90, 100), vec![]), "the waiter is at its cap; none are made up");
}

/// avalanchego `TestInboundMsgByteThrottler`.
#[test]
fn who_finds_no_room_waits_and_what_comes_free_goes_to_the_oldest() {
    let mut budget = pool(1024, 1024, 1024, 0);
    let (one, two, stranger) = (budget.join(1), budget.join(1), budget.join(0));
    assert_eq!(budget.take(one, 1025), 1025);
    assert_eq!(budget.take(two, 512), 512);
    assert_eq!(budget.take(one, 511), 511);
    assert_eq!((parts(&budget, one), parts(&budget, two)), ((1024, 512, 0), (0, 512, 0)));
    for (holder, waiting) in [(one, 1), (two, 2), (stranger, 3)] {
        assert_eq!(budget.take(holder, 1), 0);
        assert_eq!((budget.waiting(), budget.wanted(holder)), (waiting, 1));
    }
    assert_eq!(give_back(&mut budget, one, 1025), [(one, 1), (two, 1), (stranger, 1)]);
    assert_eq!((left(&budget), budget.waiting()), ((510, 512), 0));
    assert_eq!(parts(&budget, one), (512, 0, 0));
    assert_eq!((parts(&budget, two), parts(&budget, stranger)), ((1, 512, 0), (1, 0, 0)));

    assert_eq!(budget.take(stranger, 510), 510);
    assert_eq!(budget.take(stranger, 1), 0);
    assert_eq!(give_back(&mut budget, two, 512), [], "the share is not the stranger's");
    assert_eq!(give_back(&mut budget, two, 1), [(stranger, 1)]);
    assert_eq!((left(&budget), budget.waiting()), ((0, 1024), 0));
    give_back(&mut budget, one, 512);
    assert_eq!(left(&budget), (512, 1024));
    give_back(&mut budget, stranger, 512);
    assert_eq!((left(&budget), budget.used()), ((1024, 1024), 0));
}

/// avalanchego `TestMsgThrottlerNextMsg`.
#[test]
fn a_holders_own_bytes_go_to_its_own_next_message() {
    let mut budget = pool(1024, 1024, 1024, 0);
    let (weighted, stranger) = (budget.join(1), budget.join(0));
    assert_eq!(budget.take(weighted, 2047), 2047);
    assert_eq!(budget.take(weighted, 1), 1);
    assert_eq!(budget.take(weighted, 2047), 0);
    assert_eq!(budget.take(stranger, 1), 0);
    assert_eq!(give_back(&mut budget, weighted, 1), [(weighted, 1)]);
    assert_eq!((budget.wanted(weighted), budget.waiting()), (2046, 2));
    assert_eq!(give_back(&mut budget, weighted, 2047), [(weighted, 1023), (weighted, 1023)], "at large and its share");
    assert_eq!((budget.wanted(weighted), budget.wanted(stranger)), (0, 1));
    assert_eq!(give_back(&mut budget, weighted, 2047), [(stranger, 1)]);
}

/// avalanchego `TestInboundMsgByteThrottlerCancelContext` and `…CancelContextDeadlock`.
#[test]
fn a_cancelled_wait_ends_at_once_and_what_was_granted_of_it_can_be_given_back() {
    let mut budget = pool(512, 1024, 1024, 0);
    let (one, two) = (budget.join(1), budget.join(1));
    assert_eq!(budget.take(one, 1024), 1024);
    assert_eq!(budget.take(two, 1024), 512);
    assert_eq!(budget.waiting(), 1);
    assert_eq!(budget.cancel(two), 512);
    assert_eq!((budget.waiting(), budget.held(two)), (0, 512));
    assert_eq!(budget.cancel(two), 0, "it does not wait any more");

    let mut budget = pool(1, 1, 1, 0);
    let (_weighted, stranger) = (budget.join(1), budget.join(0));
    assert_eq!(budget.take(stranger, 2), 1);
    assert_eq!(budget.cancel(stranger), 1);
    assert_eq!(give_back(&mut budget, stranger, 2), []);
    assert_eq!(left(&budget), (1, 1));
}

#[test]
fn the_oldest_waiter_draws_on_what_is_aside_and_gives_that_back_first() {
    let mut budget = pool(10, 0, 10, 8);
    let (a, b, c) = (budget.join(0), budget.join(0), budget.join(0));
    assert_eq!(budget.take(a, 6), 6);
    assert_eq!(budget.take(b, 8), 8, "four at large, and four from aside as the oldest waiter");
    assert_eq!(budget.take(c, 8), 4, "the rest of what is aside");
    assert_eq!(budget.take(a, 8), 0, "six bytes of its earlier message are still there");
    assert!(!budget.take_all(b, 1), "nobody else draws on what is aside");
    assert_eq!(give_back(&mut budget, b, 4), [(c, 4)]);
    assert_eq!((parts(&budget, b), parts(&budget, c)), ((4, 0, 0), (0, 0, 8)));
    assert_eq!(give_back(&mut budget, c, 7), [(a, 7)], "served whole, c is no longer the oldest waiter");
    assert_eq!((parts(&budget, a), budget.wanted(a)), ((6, 0, 7), 1));
}

#[test]
fn when_the_oldest_waiter_gives_up_or_leaves_the_next_one_draws_on_what_is_aside() {
    for leaves in [false, true] {
        let mut granted = Vec::new();
        let mut budget = pool(0, 0, 0, 8);
        let (a, b, c) = (budget.join(0), budget.join(0), budget.join(0));
        assert_eq!((budget.take(a, 4), budget.take(b, 8), budget.take(c, 8)), (4, 4, 0));
        if leaves {
            budget.leave(b, &mut granted);
        } else {
            assert_eq!(budget.cancel(b), 4);
            budget.give_back(b, 4, &mut granted);
        }
        assert_eq!(granted, [(c, 4)]);
        granted.clear();
        budget.leave(a, &mut granted);
        assert_eq!((granted, budget.waiting()), (vec![(c, 4)], 0));
    }
}

#[test]
fn a_share_follows_the_weights_and_what_is_held_beyond_it_stays() {
    let mut granted = Vec::new();
    let mut budget = pool(0, 100, 0, 0);
    let a = budget.join(1);
    assert!(budget.take_all(a, 100), "all of it, alone");
    let b = budget.join(u64::MAX);
    assert_eq!(budget.take(b, 60), 0, "its share is as good as all, but another holds it");
    assert!(!budget.take_all(a, 1));
    assert_eq!(give_back(&mut budget, a, 40), [(b, 40)], "owed to b; a is still beyond its share");
    assert_eq!(budget.take(a, 1), 0);
    budget.set_weight(b, 1, &mut granted);
    assert_eq!((granted.clone(), parts(&budget, a)), (vec![], (0, 60, 0)));
    assert_eq!(give_back(&mut budget, a, 20), [(b, 10), (a, 1)], "up to half for each");
    budget.leave(b, &mut granted);
    assert_eq!((granted, left(&budget)), (vec![], (0, 59)));
}

#[test]
fn a_waiter_that_gains_weight_is_served_from_its_share() {
    let mut granted = Vec::new();
    let mut budget = pool(0, 100, 0, 0);
    let (a, b) = (budget.join(0), budget.join(1));
    assert_eq!(budget.take(a, 60), 0);
    budget.set_weight(a, 1, &mut granted);
    assert_eq!(granted, [(a, 50)]);
    granted.clear();
    budget.leave(b, &mut granted);
    assert_eq!((granted, budget.waiting()), (vec![(a, 10)], 0));
}

/// Trust given and taken while messages are under way: the same pool is shared anew each time.
#[test]
fn a_weight_that_changes_back_and_forth_moves_no_byte_that_is_held() {
    let mut granted = Vec::new();
    let mut budget = pool(20, 100, 20, 0);
    let (a, b) = (budget.join(1), budget.join(1));
    assert!(budget.take_all(a, 70) && budget.take_all(b, 50));
    assert_eq!((parts(&budget, a), parts(&budget, b), left(&budget)), ((20, 50, 0), (0, 50, 0), (0, 0)));
    for weight in [0, 9, 1, u64::MAX, 0] {
        budget.set_weight(b, weight, &mut granted);
        assert_eq!((parts(&budget, a), parts(&budget, b), left(&budget)), ((20, 50, 0), (0, 50, 0), (0, 0)));
    }
    assert_eq!(budget.take(a, 40), 0, "all is a's now, and b still holds half");
    assert_eq!(give_back(&mut budget, b, 30), [(a, 30)]);
    budget.set_weight(b, 4, &mut granted);
    assert_eq!(give_back(&mut budget, b, 20), [], "a holds four times its share");
    assert_eq!(budget.take(b, 90), 20);
    budget.set_weight(a, 16, &mut granted);
    assert_eq!(give_back(&mut budget, a, 10), [(a, 10)], "its part is its own again");
    assert_eq!((budget.wanted(a), budget.wanted(b)), (0, 70));
    budget.leave(b, &mut granted);
    assert_eq!((granted, budget.held(a), budget.waiting()), (vec![], 100, 0));
    give_back(&mut budget, a, 100);
    assert_eq!((left(&budget), budget.used()), ((20, 100), 0));
}

#[test]
fn one_that_has_left_is_ignored_and_its_place_is_taken_by_another() {
    let mut granted = Vec::new();
    let mut budget = pool(10, 0, 10, 0);
    let gone = budget.join(0);
    assert!(budget.take_all(gone, 10));
    budget.leave(gone, &mut granted);
    let next = budget.join(0);
    assert_eq!((next.index, budget.used()), (gone.index, 0));
    assert!(budget.take_all(next, 4));
    budget.give_back(gone, 4, &mut granted);
    budget.set_weight(gone, 7, &mut granted);
    budget.leave(gone, &mut granted);
    assert!(!budget.take_all(gone, 1));
    assert_eq!((budget.take(gone, 1), budget.cancel(gone), budget.held(gone)), (0, 0, 0));
    assert_eq!((budget.held(next), budget.used(), granted), (4, 4, vec![]));
}

#[test]
fn a_second_take_while_waiting_adds_to_the_same_wait() {
    let mut budget = pool(10, 0, 10, 0);
    let (a, b) = (budget.join(0), budget.join(0));
    assert!(budget.take_all(a, 10));
    assert_eq!((budget.take(b, 3), budget.take(b, 4)), (0, 0));
    assert_eq!((budget.wanted(b), budget.waiting()), (7, 1));
    assert_eq!(give_back(&mut budget, a, 10), [(b, 7)]);
}
