use super::*;

const KIB: u64 = 1 << 10;

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn limits(node: Option<u64>, peer: Option<u64>) -> BandwidthLimits {
    BandwidthLimits { node, peer, reserved: 50 }
}

/// Each takes all it can, as often as it may, for so many milliseconds; what each got.
fn greedy(bandwidth: &mut Bandwidth, who: &[HolderId], millis: u64) -> Vec<u64> {
    let mut got = vec![0; who.len()];
    let mut next = vec![Time::ZERO; who.len()];
    for now in (0..=millis).map(at) {
        for (turn, holder) in who.iter().enumerate() {
            while next[turn] <= now {
                match bandwidth.take(now, *holder, 1 << 20) {
                    Take::Now(bytes) => got[turn] += bytes,
                    Take::Later(until) => next[turn] = until.expect("tokens come with time"),
                }
            }
        }
    }
    got
}

#[test]
fn a_peer_has_a_burst_and_then_its_rate_and_another_has_its_own() {
    let mut bandwidth = Bandwidth::new(at(0), limits(None, Some(512 * KIB)));
    let (one, other) = (bandwidth.join(at(0), 0), bandwidth.join(at(0), 0));
    assert_eq!(bandwidth.take(at(0), one, 1 << 20), Take::Now(128 * KIB), "a quarter of a second");
    let Take::Later(Some(until)) = bandwidth.take(at(0), one, 1 << 20) else { panic!("nothing is left") };
    assert_eq!(until.since(at(0)).as_millis(), 31, "one piece at 512 KiB a second");
    assert_eq!(bandwidth.take(until, one, 1 << 20), Take::Now(16 * KIB));
    assert_eq!(bandwidth.take(at(0), other, 100), Take::Now(100));
}

#[test]
fn the_node_never_moves_more_than_its_rate_and_one_burst_in_any_time() {
    let rate = 1 << 20;
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(rate), None));
    let peers: Vec<HolderId> = (0..20).map(|_| bandwidth.join(at(0), 0)).collect();
    let got: u64 = greedy(&mut bandwidth, &peers, 10_000).iter().sum();
    assert!(got <= 10 * rate + burst(rate), "{got}");
    assert!(got >= 10 * rate, "and all of it: {got}");
}

#[test]
fn those_that_want_more_than_there_is_get_as_much_as_each_other() {
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(1 << 20), None));
    let peers: Vec<HolderId> = (0..10).map(|_| bandwidth.join(at(0), 0)).collect();
    let got = greedy(&mut bandwidth, &peers, 20_000);
    let (least, most) = (got.iter().min().expect("ten"), got.iter().max().expect("ten"));
    // The first to come had the burst.
    assert!(most - least <= burst(1 << 20) + 4 * PIECE, "{got:?}");
}

#[test]
fn one_that_comes_now_and_then_is_served_after_one_round() {
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(1 << 20), None));
    let flood: Vec<HolderId> = (0..9).map(|_| bandwidth.join(at(0), 0)).collect();
    let modest = bandwidth.join(at(0), 0);
    greedy(&mut bandwidth, &flood, 5_000);
    let Take::Later(Some(until)) = bandwidth.take(at(5_000), modest, 100) else { panic!("all is taken") };
    assert!(until.since(at(5_000)) <= Duration::from_millis(10 * 16), "{:?}", until.since(at(5_000)));
    // Nobody else comes, and it is not kept waiting for them.
    assert_eq!(bandwidth.take(until, modest, 100), Take::Now(100));
}

#[test]
fn what_is_reserved_is_for_those_with_weight_and_others_have_what_they_leave() {
    let rate = 1 << 20;
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(rate), None));
    let crowd: Vec<HolderId> = (0..30).map(|_| bandwidth.join(at(0), 0)).collect();
    let member = bandwidth.join(at(0), 7);
    let mut all = crowd.clone();
    all.push(member);
    let got = greedy(&mut bandwidth, &all, 10_000);
    assert!(got[30] + PIECE >= 5 * rate, "half of all, whatever the crowd does: {}", got[30]);
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(rate), None));
    let crowd: Vec<HolderId> = (0..30).map(|_| bandwidth.join(at(0), 0)).collect();
    let _idle = bandwidth.join(at(0), 7);
    let got: u64 = greedy(&mut bandwidth, &crowd, 10_000).iter().sum();
    assert!(got >= 9 * rate, "what a member does not use is not lost: {got}");
}

#[test]
fn what_was_not_used_comes_back_once() {
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(1 << 20), Some(512 * KIB)));
    let peer = bandwidth.join(at(0), 0);
    assert_eq!(bandwidth.take(at(0), peer, 100 * KIB), Take::Now(100 * KIB));
    bandwidth.give_back(at(0), peer, 60 * KIB);
    bandwidth.give_back(at(0), peer, 60 * KIB);
    assert_eq!(bandwidth.tokens(at(0)), Some((256 - 40) * KIB));
    assert_eq!(bandwidth.take(at(0), peer, 1 << 20), Take::Now((128 - 40) * KIB));
}

#[test]
fn what_went_on_without_asking_is_paid_before_anything_else() {
    let mut bandwidth = Bandwidth::new(at(0), limits(None, Some(512 * KIB)));
    let peer = bandwidth.join(at(0), 0);
    bandwidth.charge(at(0), peer, 640 * KIB);
    let Take::Later(Some(until)) = bandwidth.take(at(0), peer, 1) else { panic!("it is in debt") };
    assert_eq!(until.since(at(0)).as_millis(), 1_000);
}

#[test]
fn one_that_gives_up_or_leaves_holds_nobody_up() {
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(1 << 20), None));
    let [first, second, third] = [0; 3].map(|_| bandwidth.join(at(0), 0));
    assert_eq!(bandwidth.take(at(0), first, 1 << 20), Take::Now(256 * KIB));
    for peer in [first, second, third] {
        assert!(matches!(bandwidth.take(at(0), peer, 1 << 20), Take::Later(_)));
    }
    assert_eq!(bandwidth.waiting(), 3);
    bandwidth.cancel(first);
    bandwidth.leave(at(0), second);
    assert_eq!(bandwidth.waiting(), 1);
    assert_eq!(bandwidth.take(at(16), third, 1 << 20), Take::Now(16 * KIB + 393));
    bandwidth.give_back(at(16), second, 1 << 20);
    assert_eq!(bandwidth.take(at(16), second, 1), Take::Later(None), "one that has left takes nothing");
}

#[test]
fn however_many_do_not_come_again_whoever_does_is_served() {
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(1 << 20), None));
    let absent: Vec<HolderId> = (0..40).map(|_| bandwidth.join(at(0), 0)).collect();
    let last = bandwidth.join(at(0), 0);
    assert_eq!(bandwidth.take(at(0), last, 1 << 20), Take::Now(256 * KIB));
    for peer in absent {
        assert!(matches!(bandwidth.take(at(0), peer, 1 << 20), Take::Later(Some(_))));
    }
    let Take::Later(Some(until)) = bandwidth.take(at(0), last, 1 << 20) else { panic!("all is taken") };
    assert!(until <= at(1_000), "41 pieces of 16 KiB: {until:?}");
    assert_eq!(
        bandwidth.take(until, last, 1 << 20),
        Take::Now(16 * KIB),
        "more stand before it than a burst has pieces"
    );
}

#[test]
fn a_line_of_a_limit_that_was_lifted_is_not_the_next_limits() {
    let mut bandwidth = Bandwidth::new(at(0), limits(Some(1 << 20), None));
    let (one, other) = (bandwidth.join(at(0), 0), bandwidth.join(at(0), 0));
    assert_eq!(bandwidth.take(at(0), one, 1 << 20), Take::Now(256 * KIB));
    assert!(matches!(bandwidth.take(at(0), one, 1), Take::Later(_)));
    bandwidth.set_limits(at(0), limits(None, Some(512 * KIB)));
    assert_eq!(bandwidth.waiting(), 0);
    bandwidth.set_limits(at(0), limits(Some(1 << 20), None));
    assert_eq!(bandwidth.take(at(0), other, 1 << 20), Take::Now(256 * KIB), "nobody stands before it");
}

#[test]
fn limits_change_while_holders_are_there() {
    let mut bandwidth = Bandwidth::new(at(0), BandwidthLimits::unlimited());
    let (peer, member) = (bandwidth.join(at(0), 0), bandwidth.join(at(0), 1));
    assert_eq!(bandwidth.take(at(0), peer, u64::MAX), Take::Now(u64::MAX));
    bandwidth.set_limits(at(0), limits(Some(1 << 20), Some(512 * KIB)));
    assert_eq!(bandwidth.take(at(0), peer, 1 << 20), Take::Now(128 * KIB));
    bandwidth.set_limits(at(1_000), limits(Some(2 << 20), None));
    assert!(matches!(bandwidth.take(at(2_000), member, 1 << 20), Take::Now(512..)));
    bandwidth.set_limits(at(2_000), BandwidthLimits::unlimited());
    assert_eq!(bandwidth.take(at(2_000), peer, 1 << 30), Take::Now(1 << 30));
}
