use std::time::Duration;

use peerage_machine::{Driver, Time};
use peerage_queue::SessionId;

use super::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn node(config: HealthConfig) -> Driver<HealthMachine> {
    Driver::new(HealthMachine::new(config, at(0)))
}

/// A node that is well: with peers, of whom one came to it.
fn well() -> Reading {
    Reading { reachable: true, peers: 3, told: true, inbound_meant: true, inbound_peers: 1, ..Reading::default() }
}

/// Looks each second of a range; what was told of meanwhile.
fn look(
    node: &mut Driver<HealthMachine>,
    seconds: std::ops::Range<u64>,
    mut reading: impl FnMut(u64) -> Reading,
) -> Vec<(u64, Check, CheckState)> {
    let mut told = Vec::new();
    for second in seconds {
        node.handle(at(second), In::Read(Box::new(reading(second))));
        told.extend(node.drain().map(|Out::Changed(finding)| (second, finding.check, finding.state)));
    }
    told
}

fn failing(node: &Driver<HealthMachine>) -> Vec<Check> {
    node.machine().findings().filter(|finding| finding.fails()).map(|finding| finding.check).collect()
}

fn finding(node: &Driver<HealthMachine>, check: Check) -> Finding {
    node.machine().findings().find(|finding| finding.check == check).expect("it was looked").clone()
}

/// With something said by everybody all the time.
fn busy(second: u64) -> Reading {
    Reading { bytes: (second, second), ..well() }
}

#[test]
fn a_node_that_is_well_says_so_of_every_check_with_its_threshold() {
    let mut node = node(HealthConfig::recommended());
    assert!(look(&mut node, 0..1_000, busy).is_empty());
    assert_eq!(node.machine().findings().count(), Check::ALL.len());
    for finding in node.machine().findings() {
        assert_eq!((finding.state, finding.since), (CheckState::Pass, at(0)), "{finding:?}");
        assert!(!finding.sentence.is_empty() && !finding.threshold.is_empty(), "{finding:?}");
    }
}

#[test]
fn the_first_node_of_a_network_is_well_alone_and_one_that_was_told_of_others_is_not() {
    let alone = |told| move |_| Reading { peers: 0, inbound_peers: 0, told, ..well() };
    let mut first = node(HealthConfig::recommended());
    look(&mut first, 0..60, alone(false));
    assert_eq!((failing(&first), finding(&first, Check::Peers).state), (vec![], CheckState::Off));
    let mut second = node(HealthConfig::recommended());
    look(&mut second, 0..60, alone(true));
    assert_eq!(failing(&second), [Check::Peers]);
    assert!(finding(&second, Check::Peers).sentence.contains("no peer is connected"));
}

#[test]
fn a_network_of_one_node_is_switched_to_and_more_peers_may_be_asked_for() {
    let mut single = node(HealthConfig { min_peers: Some(0), ..HealthConfig::recommended() });
    look(&mut single, 0..60, |_| Reading { peers: 0, inbound_peers: 0, ..well() });
    assert_eq!(failing(&single), []);
    let mut many = node(HealthConfig { min_peers: Some(4), ..HealthConfig::recommended() });
    look(&mut many, 0..1, busy);
    assert_eq!(failing(&many), [Check::Peers]);
    let found = finding(&many, Check::Peers);
    assert_eq!(
        (&*found.sentence, &*found.threshold),
        ("3 peers are connected, and at least 4 are wanted", "at least 4")
    );
}

#[test]
fn a_minute_of_silence_is_told_for_each_direction_and_not_while_there_are_no_peers() {
    let mut node = node(HealthConfig::recommended());
    look(&mut node, 0..60, |second| Reading { bytes: (7, second), ..well() });
    assert_eq!(failing(&node), []);
    look(&mut node, 60..62, |second| Reading { bytes: (7, second), ..well() });
    assert_eq!(failing(&node), [Check::Received]);
    look(&mut node, 62..123, |second| Reading { bytes: (second, 61), ..well() });
    assert_eq!(failing(&node), [Check::Sent]);
    look(&mut node, 123..124, |_| Reading { peers: 0, told: false, ..well() });
    assert_eq!(finding(&node, Check::Sent).state, CheckState::Off);
    look(&mut node, 124..183, |_| well());
    assert_eq!(failing(&node), [], "the minute begins when there is a peer again");
}

/// avalanchego `TestNoIngressConnAlertHealthCheck` and `TestIngressConnCount`, with the grace.
#[test]
fn nobody_coming_is_told_after_the_grace_where_somebody_is_meant_to_come() {
    let never = |second| Reading { inbound_peers: 0, ..busy(second) };
    let mut node = node(HealthConfig::recommended());
    look(&mut node, 0..600, never);
    assert_eq!(failing(&node), []);
    look(&mut node, 600..601, never);
    assert_eq!(failing(&node), [Check::Inbound]);
    look(&mut node, 601..602, |second| Reading { inbound_total: 1, ..never(second) });
    assert_eq!(failing(&node), [], "one came and went between two looks");
    look(&mut node, 602..1300, |second| Reading { inbound_total: 1, inbound_meant: false, ..never(second) });
    assert_eq!(finding(&node, Check::Inbound).state, CheckState::Off, "off where it does not listen");
    look(&mut node, 1300..1890, |second| Reading { inbound_total: 1, ..never(second) });
    assert_eq!(failing(&node), [], "the grace begins anew");
}

#[test]
fn a_node_whose_messages_do_not_go_out_is_not_well_until_clearly_more_do() {
    let mut node = node(HealthConfig::recommended());
    let sends =
        |sent, failed| move |second| Reading { sends: vec![(SessionId(1), sent, failed * second)], ..busy(second) };
    look(&mut node, 0..60, sends(0, 10));
    assert_eq!(failing(&node), [Check::SendFailures]);
    assert_eq!(node.machine().send_fail_rate(at(60)), 1_000);
    // Nine tenths of them from here on: at the threshold, and not clearly below.
    let half =
        |second: u64| Reading { sends: vec![(SessionId(1), (second - 60) * 2, 600 + second * 10)], ..busy(second) };
    look(&mut node, 60..160, half);
    assert_eq!(failing(&node), [Check::SendFailures]);
    look(&mut node, 160..260, |second| Reading { sends: vec![(SessionId(1), second * 100, 2_200)], ..busy(second) });
    assert_eq!(failing(&node), []);
}

#[test]
fn one_hostile_peer_among_many_cannot_make_a_node_look_ill_however_much_it_makes_fail() {
    let mut node = node(HealthConfig::recommended());
    let sends = |second: u64| {
        let honest = (2..=20).map(|n| (SessionId(n), second, 0));
        honest.chain([(SessionId(1), 0, second * 1_000_000)]).collect()
    };
    look(&mut node, 0..120, |second| Reading { sends: sends(second), ..busy(second) });
    assert_eq!((failing(&node), node.machine().send_fail_rate(at(120))), (vec![], 50), "one in twenty");
    look(&mut node, 120..121, |second| Reading { sends: Vec::new(), ..busy(second) });
    assert_eq!(node.machine().send_fail_rate(at(121)), 0, "sessions that ended are forgotten");
}

#[test]
fn a_database_that_fails_is_told_until_it_writes_again() {
    let mut node = node(HealthConfig::recommended());
    let commits = |commits| move |second| Reading { commits, ..busy(second) };
    look(&mut node, 0..1, commits((5, 0)));
    assert_eq!(failing(&node), []);
    look(&mut node, 1..30, commits((5, 2)));
    assert_eq!(failing(&node), [Check::Database]);
    look(&mut node, 30..31, commits((6, 2)));
    assert_eq!(failing(&node), []);
}

#[test]
fn actors_reach_clock_dialling_and_shedding_are_told_in_their_words() {
    let mut node = node(HealthConfig::recommended());
    let ill = Reading {
        down: vec!["gossip".into(), "dialer".into()],
        reachable: false,
        drift: -11,
        missing: Some("3 were full".into()),
        shedding: Some("the node is short of memory".into()),
        peers: 0,
        ..well()
    };
    look(&mut node, 0..1, |_| ill.clone());
    let expected = [Check::Actors, Check::Reach, Check::Peers, Check::Dialling, Check::Clock, Check::Shedding];
    assert_eq!(failing(&node), expected);
    assert_eq!(finding(&node, Check::Actors).sentence, "the gossip actor is down, the dialer actor is down");
    assert_eq!(finding(&node, Check::Clock).sentence, "this computer's clock is 11 s behind its peers'");
    assert_eq!(finding(&node, Check::Dialling).sentence, "3 were full");
}

#[test]
fn a_change_is_told_once_when_it_has_stood_for_a_while_and_what_comes_and_goes_is_not() {
    let mut node = node(HealthConfig::recommended());
    let lonely = |second| Reading { peers: 0, ..busy(second) };
    look(&mut node, 0..10, busy);
    for start in (10..30).step_by(4) {
        assert_eq!(look(&mut node, start..start + 3, lonely), []);
        assert_eq!(failing(&node), [Check::Peers], "what is shown is what is");
        assert_eq!(look(&mut node, start + 3..start + 4, busy), []);
    }
    assert_eq!(look(&mut node, 30..90, lonely), [(35, Check::Peers, CheckState::Fail)]);
    assert_eq!(finding(&node, Check::Peers).since, at(30));
    assert_eq!(look(&mut node, 90..150, busy), [(95, Check::Peers, CheckState::Pass)]);
}

#[test]
fn thresholds_that_change_are_those_of_the_next_look_and_bad_ones_are_refused() {
    let mut node = node(HealthConfig::recommended());
    look(&mut node, 0..1, busy);
    node.handle(at(1), In::Config(HealthConfig { min_peers: Some(9), ..HealthConfig::recommended() }));
    look(&mut node, 1..2, busy);
    assert_eq!(failing(&node), [Check::Peers]);
    let told = |config: HealthConfig| config.check().expect_err("nonsense");
    assert!(told(HealthConfig { send_failures: 1_000, ..HealthConfig::recommended() }).contains("thousandths"));
    assert!(told(HealthConfig { half_life: Duration::ZERO, ..HealthConfig::recommended() }).contains("half_life"));
    assert_eq!(HealthConfig::recommended().check(), Ok(()));
}
