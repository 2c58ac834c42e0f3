use super::*;
use crate::Returned;
use crate::throttle::{BandwidthLimits, CpuLimits, Stopwatch};

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

/// Throttles whose handlers take a millisecond for each look at the time.
fn throttles(limits: ThrottleLimits) -> Throttles {
    let ticks = AtomicU64::new(0);
    let time = TimeSource::new(move || Duration::from_millis(ticks.fetch_add(1, Ordering::Relaxed)));
    Throttles::timed(at(0), limits, time)
}

#[test]
fn so_many_messages_are_handed_on_and_the_next_when_half_of_them_are_handled() {
    let throttles = throttles(ThrottleLimits { messages: Some(4), ..ThrottleLimits::off() });
    let (mut peer, returned) = (throttles.peer(at(0), 0), Returned::new(8));
    assert_eq!(peer.may_hand_on(at(0), 0, 3, &returned), 3);
    peer.kept(at(0), 0, 1);
    assert_eq!(peer.may_hand_on(at(0), 0, 9, &returned), 2);
    let mut permits: Vec<_> = (0..4).map(|_| returned.permit(0, 100)).collect();
    assert_eq!(peer.may_hand_on(at(1), 0, 9, &returned), 0);
    assert_eq!(peer.may_hand_on(at(1), 1, 9, &returned), 4, "another protocol has its own");
    permits.truncate(2);
    assert_eq!(peer.may_hand_on(at(2), 0, 9, &returned), 2);
    let stats = throttles.stats(at(2));
    assert_eq!((stats.waits[0], stats.waited[0]), (1, Duration::from_millis(1)));
}

#[test]
fn what_a_peers_messages_take_is_charged_to_it_and_it_waits_while_others_do_not() {
    let cpu = Some(CpuLimits::recommended());
    let throttles = throttles(ThrottleLimits { cpu, ..ThrottleLimits::off() });
    let (mut greedy, mut modest) = (throttles.peer(at(0), 0), throttles.peer(at(0), 0));
    let returns = || Returned::timed(1, Some(greedy.time_source()));
    let (from_greedy, from_modest) = (returns(), returns());
    let mut now = at(0);
    for _ in 0..40 {
        let mut handling = Stopwatch::new();
        for returned in [&from_greedy, &from_greedy, &from_modest] {
            handling.of(&returned.permit(0, 1));
        }
        drop(handling);
        // A second of the first for each millisecond of the clock: twice what one may have.
        from_greedy.permit(0, 1).spending().expect("measured").add(Duration::from_secs(2));
        now += Duration::from_secs(1);
        modest.has_time(now, &from_modest);
        greedy.has_time(now, &from_greedy);
    }
    assert!(!greedy.has_time(now, &from_greedy));
    assert!(greedy.next(now).is_some_and(|until| until <= now + Duration::from_secs(5)));
    assert!(modest.has_time(now, &from_modest));
    assert!(throttles.stats(now).waits[ThrottleReason::Cpu as usize] > 0);
    let quiet = now + Duration::from_secs(60);
    assert!(greedy.has_time(quiet, &from_greedy));
}

#[test]
fn messages_are_timed_only_while_there_is_a_limit_and_the_clock_is_read_where_peers_change() {
    let throttles = throttles(ThrottleLimits { cpu: Some(CpuLimits::recommended()), ..ThrottleLimits::off() });
    let peer = throttles.peer(at(0), 0);
    let returned = Returned::timed(1, Some(peer.time_source()));
    let handle = |count: usize| {
        let mut handling = Stopwatch::new();
        (0..count).for_each(|_| handling.of(&returned.permit(0, 1)));
        drop(handling);
        returned.take_spent(Duration::ZERO)
    };
    assert_eq!(handle(100), Some(Duration::from_millis(1)), "two looks at the clock, a millisecond apart");
    throttles.set_limits(at(0), ThrottleLimits::off());
    assert_eq!(handle(100), None);
}

#[test]
fn a_session_that_ends_leaves_the_line_and_gives_its_reserve_back() {
    let download = BandwidthLimits { node: Some(1 << 20), peer: None, reserved: 50 };
    let throttles = throttles(ThrottleLimits { download, ..ThrottleLimits::off() });
    let (mut first, mut second) = (throttles.peer(at(0), 0), throttles.peer(at(0), 1));
    while first.may_read(at(0), 1 << 20) > 0 {}
    while second.may_read(at(0), 1 << 20) > 0 {}
    assert!(first.holds_reader() && second.holds_reader());
    assert_eq!(throttles.stats(at(0)).waiting, (2, 0));
    drop((first, second));
    assert_eq!(throttles.stats(at(0)).waiting, (0, 0));
    assert_eq!(throttles.stats(at(2_000)).tokens, (Some(256 << 10), None), "the node's burst is there again");
}

#[test]
fn what_was_not_read_or_written_is_given_back_and_own_frames_are_paid_for_later() {
    let limits = BandwidthLimits { node: Some(1 << 20), peer: None, reserved: 0 };
    let throttles = throttles(ThrottleLimits { download: limits, upload: limits, ..ThrottleLimits::off() });
    let mut peer = throttles.peer(at(0), 0);
    assert_eq!(peer.may_read(at(0), 100_000), 100_000);
    peer.have_read(at(0), 40_000);
    assert_eq!(peer.may_write(at(0), 100_000), 100_000);
    peer.have_written(at(0), 110_000);
    assert_eq!(throttles.stats(at(0)).tokens, (Some((256 << 10) - 40_000), Some((256 << 10) - 110_000)));
}

#[test]
fn one_that_has_nothing_to_write_any_more_or_is_over_stands_in_no_line() {
    let limits = BandwidthLimits { node: Some(1 << 20), peer: None, reserved: 0 };
    let throttles = throttles(ThrottleLimits { download: limits, upload: limits, ..ThrottleLimits::off() });
    let mut peer = throttles.peer(at(0), 0);
    while peer.may_write(at(0), 1 << 20) > 0 {}
    while peer.may_read(at(0), 1 << 20) > 0 {}
    assert_eq!(throttles.stats(at(0)).waiting, (1, 1));
    peer.writes_nothing(at(3));
    assert_eq!(throttles.stats(at(0)).waiting, (1, 0));
    peer.moves_nothing(at(5));
    let stats = throttles.stats(at(0));
    assert_eq!((stats.waiting, peer.next(at(0))), ((0, 0), None));
    let waited = [ThrottleReason::Upload, ThrottleReason::Download].map(|reason| stats.waited[reason as usize]);
    assert_eq!(waited, [3, 5].map(Duration::from_millis), "both waits have ended");
}

#[test]
fn limits_that_are_lifted_let_those_go_on_that_wait() {
    let download = BandwidthLimits { node: Some(1 << 20), peer: None, reserved: 0 };
    let throttles = throttles(ThrottleLimits { download, ..ThrottleLimits::off() });
    let mut peer = throttles.peer(at(0), 0);
    while peer.may_read(at(0), 1 << 20) > 0 {}
    throttles.set_limits(at(0), ThrottleLimits::off());
    peer.refresh();
    assert_eq!(peer.may_read(at(0), 1 << 20), 1 << 20);
    assert!(!peer.holds_reader() && peer.next(at(0)).is_none());
}
