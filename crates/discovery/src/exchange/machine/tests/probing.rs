//! Dialling back: asking for it, doing it, and being asked by those who mean somebody else.

use super::*;
use crate::exchange::wire::Outcome;
use crate::external::Reachable;

/// Which peers were asked to dial back, and under which nonce.
fn probes(outs: &[Out]) -> Vec<(u16, u64)> {
    let numbers = 0..1_000;
    let asked = numbers.flat_map(|n| sent(outs, n).into_iter().map(move |item| (n, item)));
    let nonces = asked.filter_map(|(n, item)| match item {
        Item::Probe { nonce, port } => {
            assert_eq!(port, home(0).port());
            Some((n, nonce))
        }
        _ => None,
    });
    nonces.collect()
}

fn told(outs: &[Out]) -> Option<Reachable> {
    outs.iter().rev().find_map(|out| match out {
        Out::Reachable(state) => Some(*state),
        _ => None,
    })
}

fn dial_backs(outs: &[Out]) -> Vec<(u64, SocketAddr)> {
    let dials = outs.iter().filter_map(|out| match out {
        Out::DialBack { token, to } => Some((*token, *to)),
        _ => None,
    });
    dials.collect()
}

fn answer(outs: &[Out], n: u16) -> Vec<Outcome> {
    let answers = sent(outs, n).into_iter().filter_map(|item| match item {
        Item::ProbeResult { outcome, .. } => Some(outcome),
        _ => None,
    });
    answers.collect()
}

fn probe(port: u16) -> Item {
    Item::Probe { nonce: 5, port }
}

#[test]
fn after_half_a_minute_some_peers_of_different_sites_are_asked_and_their_majority_is_told() {
    let mut node = Node::new();
    for n in 1..=10 {
        node.up(n);
    }
    // Of one site with the first.
    node.up_at(11, socket("20.0.1.2:30303"), true, record(11));
    assert_eq!(probes(&node.pass(29 * SECOND)), []);
    let outs = node.pass(8 * SECOND);
    let asked = probes(&outs);
    assert_eq!(asked.len(), 5);
    assert!(!(asked.iter().any(|(n, _)| *n == 1) && asked.iter().any(|(n, _)| *n == 11)));
    let mut states = Vec::new();
    for (n, nonce) in asked {
        let outs = node.hear(n, &Item::ProbeResult { nonce, outcome: Outcome::Unreached });
        states.extend(told(&outs));
    }
    assert_eq!(states, [Reachable::No], "said once");
    assert_eq!(probes(&node.pass(14 * 60 * SECOND)), []);
    let asked = loop {
        let asked = probes(&node.pass(SECOND));
        if !asked.is_empty() {
            break asked;
        }
        assert!(node.now.since(Time::ZERO) < 20 * 60 * SECOND);
    };
    assert_eq!(asked.len(), 5);
    for (n, nonce) in asked {
        let outs = node.hear(n, &Item::ProbeResult { nonce, outcome: Outcome::Reached });
        states.extend(told(&outs));
    }
    assert_eq!(states.last(), Some(&Reachable::Yes));
}

#[test]
fn with_few_peers_it_is_tried_again_soon_with_those_that_came_since() {
    let mut node = Node::new();
    node.up(1);
    let first: Vec<u16> = probes(&node.pass(60 * SECOND)).into_iter().map(|(n, _)| n).collect();
    assert_eq!(first, [1]);
    node.up(2);
    node.up(3);
    let mut second: Vec<u16> = probes(&node.pass(80 * SECOND)).into_iter().map(|(n, _)| n).collect();
    second.sort_unstable();
    assert_eq!(second, [2, 3], "nobody is asked twice in ten minutes");
}

#[test]
fn a_node_that_does_not_listen_asks_nobody_and_one_that_moved_asks_again() {
    let mut node = Node::listening(Config::recommended(), record_at(0, 1, "test", &[]));
    (1..=5).for_each(|n| drop(node.up(n)));
    assert_eq!(probes(&node.pass(3_600 * SECOND)), []);
    node.tell(In::LocalChanged(record_at(0, 2, "test", &[home(0)])));
    let asked = probes(&node.pass(40 * SECOND));
    assert_eq!(asked.len(), 5);
    for (n, nonce) in asked {
        node.hear(n, &Item::ProbeResult { nonce, outcome: Outcome::Reached });
    }
    node.tell(In::LocalChanged(record_at(0, 3, "test", &[home(0)])));
    assert_eq!(told(&node.pass(SECOND)), None, "signed anew, and where it was");
    let moved = record_at(0, 4, "test", &[SocketAddr::new(home(50).ip(), home(0).port())]);
    assert_eq!(told(&node.tell(In::LocalChanged(moved))), Some(Reachable::Unknown));
    let stranger = node.tell(In::LocalChanged(record(9)));
    assert_eq!(stranger, [], "another node's record");
}

#[test]
fn who_came_from_outside_has_shown_that_it_can() {
    let mut node = Node::new();
    let neighbour = record_at(1, 1, "test", &[]);
    assert_eq!(told(&node.up_at(1, socket("192.168.0.9:50000"), false, neighbour)), None);
    assert_eq!(told(&node.up_at(2, socket("20.0.2.1:50000"), false, record(2))), Some(Reachable::Yes));
}

#[test]
fn results_that_fit_no_probe_count_for_nothing_and_who_declines_has_no_vote() {
    let mut node = Node::new();
    (1..=5).for_each(|n| drop(node.up(n)));
    let asked = probes(&node.pass(40 * SECOND));
    let mut reported = 0;
    for (n, nonce) in &asked {
        let wrong = node.hear(*n, &Item::ProbeResult { nonce: nonce ^ 1, outcome: Outcome::Unreached });
        assert_eq!(drops(&wrong, DropReason::Unsolicited), 1);
        let declined = node.hear(*n, &Item::ProbeResult { nonce: *nonce, outcome: Outcome::Declined });
        assert_eq!(events(&declined, Event::Declined), 1);
        for _ in 0..10 {
            let again = node.hear(*n, &Item::ProbeResult { nonce: *nonce, outcome: Outcome::Unreached });
            assert_eq!((drops(&again, DropReason::Unsolicited), told(&again)), (1, None));
            reported += reports(&again).len();
        }
    }
    assert_eq!(reported, 5 * 3, "eight a minute are overlooked, one of them was the wrong nonce");
}

#[test]
fn a_responder_that_takes_too_long_is_not_waited_for() {
    let mut node = Node::new();
    (1..=3).for_each(|n| drop(node.up(n)));
    let asked = probes(&node.pass(40 * SECOND));
    node.pass(15 * SECOND);
    for (n, nonce) in asked {
        let late = node.hear(n, &Item::ProbeResult { nonce, outcome: Outcome::Unreached });
        assert_eq!((drops(&late, DropReason::Unsolicited), told(&late), reports(&late).len()), (1, None, 0));
    }
}

#[test]
fn a_peer_is_dialled_back_where_its_session_shows_it_and_nowhere_else() {
    let mut node = Node::new();
    // Its record names somebody else's address.
    node.up_at(1, socket("20.0.1.1:41000"), false, record_at(1, 1, "test", &[home(66)]));
    let dials = dial_backs(&node.hear(1, &probe(4_000)));
    let [(token, to)] = dials[..] else { panic!("{dials:?}") };
    assert_eq!(to, socket("20.0.1.1:4000"));
    let outs = node.tell(In::DialledBack { token, reached: true });
    assert_eq!(sent(&outs, 1), [Item::ProbeResult { nonce: 5, outcome: Outcome::Reached }]);
    assert_eq!(node.tell(In::DialledBack { token, reached: true }), [], "one answer to one probe");
    // An IPv4 address in the clothes of an IPv6 one is the IPv4 address.
    node.up_at(2, socket("[::ffff:20.0.2.1]:41000"), false, record(2));
    assert_eq!(dial_backs(&node.hear(2, &probe(4_000)))[0].1, socket("20.0.2.1:4000"));
}

#[test]
fn system_ports_are_never_dialled() {
    let mut node = Node::new();
    node.up(1);
    let mut reported = 0;
    for port in [0, 1, 22, 25, 53, 80, 443, 1_023, 0, 22] {
        let outs = node.hear(1, &probe(port));
        assert_eq!((dial_backs(&outs), answer(&outs, 1)), (vec![], vec![Outcome::Declined]));
        assert_eq!(drops(&outs, DropReason::ProbePort), 1);
        reported += reports(&outs).len();
    }
    assert_eq!(reported, 2);
    assert_eq!(dial_backs(&node.hear(1, &probe(1_024))).len(), 1, "its one probe was not spent on them");
}

#[test]
fn a_flood_of_probes_of_one_peer_opens_one_connection_in_ten_minutes() {
    let mut node = Node::new();
    node.up(1);
    let (mut dials, mut reported) = (0, 0);
    for second in 0..20 * 60 {
        let outs = node.hear(1, &probe(2_000 + second));
        for (token, _) in dial_backs(&outs) {
            dials += 1;
            node.tell(In::DialledBack { token, reached: false });
        }
        reported += reports(&outs).len();
        node.pass(SECOND);
    }
    assert_eq!(dials, 2);
    assert!(reported > 1_000);
}

#[test]
fn many_identities_on_one_host_open_four_connections_in_ten_minutes() {
    let mut node = Node::new();
    let mut dials = 0;
    for n in 1..=50 {
        node.up_at(n, socket("20.0.1.1:41000"), false, record(n));
        let outs = node.hear(n, &probe(9_999));
        dials += dial_backs(&outs).len();
        for (token, _) in dial_backs(&outs) {
            node.tell(In::DialledBack { token, reached: false });
        }
        assert_eq!(answer(&outs, n).len() + dial_backs(&outs).len(), 1, "who is not dialled is told");
        assert_eq!(reports(&outs), [], "it may be its neighbours' doing");
    }
    assert_eq!(dials, 4);
}

#[test]
fn at_most_four_connections_are_opened_at_a_time_and_thirty_a_minute() {
    let mut node = Node::new();
    let mut open = Vec::new();
    for n in 1..=10 {
        node.up(n);
        open.extend(dial_backs(&node.hear(n, &probe(2_000))));
    }
    assert_eq!((open.len(), node.driver.machine().dialling_back()), (4, 4));
    for (token, _) in open {
        node.tell(In::DialledBack { token, reached: true });
    }
    let mut dials = 0;
    for n in 11..=100 {
        node.up(n);
        for (token, _) in dial_backs(&node.hear(n, &probe(2_000))) {
            dials += 1;
            node.tell(In::DialledBack { token, reached: true });
        }
    }
    assert_eq!(dials, 26);
}

#[test]
fn a_peer_that_left_before_its_answer_frees_its_place() {
    let mut node = Node::new();
    node.up(1);
    let dials = dial_backs(&node.hear(1, &probe(2_000)));
    node.down(1);
    let outs = node.tell(In::DialledBack { token: dials[0].0, reached: true });
    assert_eq!((outs, node.driver.machine().dialling_back()), (vec![], 0));
}
