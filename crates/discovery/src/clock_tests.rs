//! When a clock is said to be off, and who cannot have it said.

use peerage_machine::Driver;

use super::*;

const UNIX: u64 = 1_700_000_000;

/// `seconds` after the start, with a wall clock that is ahead by so many seconds.
fn at(second: u64, ahead: i64) -> Time {
    let unix = (UNIX + second).checked_add_signed(ahead).expect("after 1970");
    Time::new(Duration::from_secs(second), Duration::from_secs(unix))
}

/// What a node of this site with a right clock tells at this second, or with one so many seconds ahead.
fn told(site: u8, second: u64, ahead: i64) -> ClockIn {
    let clock = (UNIX + second).checked_add_signed(ahead).expect("after 1970");
    ClockIn::Told(Told { from: NodeId::from_bytes([site; 32]), addr: ([198, 51, site, 1], 7).into(), clock })
}

fn machine() -> Driver<ClockMachine> {
    Driver::new(ClockMachine::new(true))
}

fn outs(driver: &mut Driver<ClockMachine>, now: Time, input: ClockIn) -> Vec<ClockOut> {
    driver.handle(now, input);
    driver.drain().collect()
}

fn all(driver: &mut Driver<ClockMachine>, now: Time, inputs: impl IntoIterator<Item = ClockIn>) -> Vec<ClockOut> {
    inputs.into_iter().flat_map(|input| outs(driver, now, input)).collect()
}

#[test]
fn a_clock_that_is_off_is_said_once_five_sites_agree() {
    for ahead in [-3_600, -11, 11, 100_000] {
        let mut clock = machine();
        let now = at(1, ahead);
        assert_eq!(all(&mut clock, now, (0..4).map(|site| told(site, 1, 0))), []);
        assert_eq!(outs(&mut clock, now, told(4, 1, 0)), [ClockOut::Drift(ahead), ClockOut::Warn(ahead)]);
    }
}

#[test]
fn ten_seconds_are_a_figure_and_no_warning() {
    let mut clock = machine();
    assert_eq!(all(&mut clock, at(1, 10), (0..5).map(|site| told(site, 1, 0))), [ClockOut::Drift(10)]);
}

#[test]
fn a_warning_comes_every_ten_minutes_at_most_and_stops_when_the_clock_is_set() {
    let mut clock = machine();
    let mut warned = Vec::new();
    for second in (0..1_800).step_by(30) {
        for out in all(&mut clock, at(second, 60), (0..5).map(|site| told(site, second, 0))) {
            if matches!(out, ClockOut::Warn(_)) {
                warned.push(second);
            }
        }
    }
    assert_eq!(warned, [0, 600, 1_200]);
    // Set right, it needs no new statements: they were kept by running time.
    assert_eq!(all(&mut clock, at(1_860, 0), (0..1).map(|site| told(site, 1_860, 0))), [ClockOut::Drift(0)]);
}

#[test]
fn a_run_of_time_outs_compares_at_once_and_any_answer_ends_the_run() {
    let mut clock = machine();
    all(&mut clock, at(1, 0), (0..5).map(|site| told(site, 1, 0)));
    // The computer's clock jumps; within the minute nobody would look.
    let jumped = at(2, 3_600);
    let timeouts = |count| (0..count).map(|_| ClockIn::TimedOut);
    assert_eq!(all(&mut clock, jumped, timeouts(TIMEOUTS - 1)), []);
    assert_eq!(outs(&mut clock, jumped, ClockIn::Answered), []);
    assert_eq!(all(&mut clock, jumped, timeouts(TIMEOUTS - 1)), []);
    assert_eq!(outs(&mut clock, jumped, ClockIn::TimedOut), [ClockOut::Drift(3_600), ClockOut::Warn(3_600)]);
}

#[test]
fn whom_nobody_answers_believes_few_if_all_of_them_agree() {
    let timeouts = || (0..TIMEOUTS).map(|_| ClockIn::TimedOut);
    let now = at(1, 3_600);
    let mut clock = machine();
    assert_eq!(all(&mut clock, now, timeouts()), [], "nobody told anything");
    assert_eq!(outs(&mut clock, now, told(0, 1, 0)), [], "one is not enough as long as others may answer");
    assert_eq!(all(&mut clock, now, timeouts()), [ClockOut::Drift(3_600), ClockOut::Warn(3_600)]);
    // Three liars and one honest node.
    let mut clock = machine();
    all(&mut clock, at(1, 0), (0..3).map(|site| told(site, 1, 9_000)).chain([told(3, 1, 0)]));
    assert_eq!(all(&mut clock, at(1, 0), timeouts()), []);
}

#[test]
fn liars_in_one_site_count_once_and_half_of_the_sites_move_nothing() {
    let mut clock = machine();
    let mut heard = all(&mut clock, at(1, 0), (0..5).map(|site| told(site, 1, 0)));
    // A thousand nodes of one site.
    heard.extend(all(&mut clock, at(100, 0), (0..1_000).map(|_| told(77, 100, 5_000))));
    // And four sites more: five honest, five lying.
    heard.extend(all(&mut clock, at(200, 0), (80..84).map(|site| told(site, 200, 5_000))));
    heard.extend(all(&mut clock, at(300, 0), [told(0, 300, 0)]));
    assert_eq!(heard, []);
}

#[test]
fn what_is_remembered_is_bounded_and_forgotten() {
    let mut clock = machine();
    all(&mut clock, at(1, 0), (0..=255).map(|site| told(site, 1, 0)));
    assert_eq!(clock.machine().said.len(), MAX_SITES);
    assert_eq!(all(&mut clock, at(1 + WINDOW.as_secs(), 500), (0..4).map(|site| told(site, 601, 0))), []);
    assert_eq!(clock.machine().said.len(), 4, "old statements tell nothing");
}

#[test]
fn no_claim_does_harm() {
    let mut clock = machine();
    let claim = |site: u8, clock| {
        ClockIn::Told(Told { from: NodeId::from_bytes([0; 32]), addr: ([198, 51, site, 1], 7).into(), clock })
    };
    let claims = (0..6).map(|site| claim(site, if site % 2 == 0 { 0 } else { u64::MAX }));
    assert!(all(&mut clock, at(1, 0), claims).len() <= 2);
}

#[test]
fn nodes_of_a_local_network_count_each_only_if_limits_spare_them() {
    let local = |number: u8| {
        let clock = UNIX + 1;
        ClockIn::Told(Told { from: NodeId::from_bytes([number; 32]), addr: ([127, 0, 0, 1], 7).into(), clock })
    };
    let now = at(1, 30);
    assert_eq!(all(&mut machine(), now, (0..5).map(local)), [ClockOut::Drift(30), ClockOut::Warn(30)]);
    let mut strict = Driver::new(ClockMachine::new(false));
    assert_eq!(all(&mut strict, now, (0..50).map(local)), []);
}
