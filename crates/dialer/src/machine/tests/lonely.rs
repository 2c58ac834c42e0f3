//! Who is dialled before discovery has found anybody: anchors at the start, bootnodes while there is no peer.

use peerage_wire::DisconnectReason;

use super::*;
use crate::{MAX_ANCHORS, MAX_BOOTNODES};

fn named_all(numbers: impl IntoIterator<Item = u8>) -> Vec<StaticPeer> {
    numbers.into_iter().map(named).collect()
}

fn numbers(dials: &[(Attempt, DialTarget)]) -> Vec<u8> {
    let number = |id: NodeId| (0..=255).find(|n| node(*n) == id).expect("one of these");
    dials.iter().map(|(_, target)| number(target.id)).collect()
}

#[test]
fn anchors_are_dialled_before_candidates_are_asked_for() {
    let mut rig = Rig::stopped(Config { max_dial_peers: 1, ..config() }, 7);
    rig.tell(In::Anchors(named_all([1, 2, 3])));
    rig.tell(In::Start);
    assert_eq!(Rig::wanted(&rig.outs), [], "two slots, three anchors");
    let dials = rig.dials();
    assert_eq!(numbers(&dials), [1, 2]);
    assert!(dials.iter().all(|(_, target)| !target.is_static));
    rig.done(dials[0].0, DialOutcome::ConnectFailed);
    assert_eq!(Rig::wanted(&rig.outs), []);
    assert_eq!(numbers(&rig.dials()), [3]);
    rig.done(dials[1].0, DialOutcome::ConnectFailed);
    assert_eq!(Rig::wanted(&rig.take()), [1]);
    rig.pass(secs(600));
    assert_eq!(rig.dials(), [], "each once");
}

#[test]
fn an_anchor_passes_the_checks_of_a_candidate_at_the_start() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Anchors(named_all([0, 1, 2, 2, 3, 4])));
    rig.tell(In::Anchors(vec![StaticPeer::new(node(5), [])]));
    rig.up(1, false);
    rig.tell(In::AddStatic(named(2)));
    rig.tell(In::InboundPending(node(3)));
    rig.tell(In::Start);
    let refusals = Rig::refusals(&rig.outs);
    use Refusal as R;
    let expected = [R::Waiting, R::OwnId, R::AlreadyConnected, R::Static, R::PendingInbound, R::NoAddress];
    assert_eq!(refusals, expected);
    assert_eq!(numbers(&rig.dials()), [2, 4], "2 as the static peer it is");
}

#[test]
fn anchors_are_bounded_and_only_of_a_start() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Anchors(named_all(1..=40)));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::Unsolicited; 40 - MAX_ANCHORS]);
    rig.tell(In::Start);
    assert_eq!(rig.dials().len(), MAX_ANCHORS);
    rig.tell(In::Anchors(named_all([50])));
    assert_eq!(Rig::refusals(&rig.outs), [Refusal::Unsolicited]);
    assert_eq!(rig.dials(), []);
}

#[test]
fn a_node_without_peers_dials_its_bootnodes_one_after_the_other() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(named_all([1, 2, 3])));
    rig.tell(In::Start);
    let mut dialled = Vec::new();
    for second in 1..=80 {
        rig.pass(secs(1));
        for (attempt, target) in rig.dials() {
            assert!(!target.is_static);
            dialled.push((second, numbers(&[(attempt, target)])[0]));
            rig.done(attempt, DialOutcome::ConnectFailed);
        }
    }
    assert_eq!(dialled, [(20, 1), (40, 2), (60, 3), (80, 1)]);
}

#[test]
fn a_single_bootnode_is_dialled_again_only_when_its_history_has_passed() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(vec![named(1)]));
    rig.tell(In::Start);
    let mut dialled: Vec<u64> = Vec::new();
    for second in 1..=3_600 {
        rig.pass(secs(1));
        for (attempt, _) in rig.dials() {
            dialled.push(second);
            rig.done(attempt, DialOutcome::HandshakeFailed(DisconnectReason::TooManyPeers));
        }
    }
    assert_eq!(dialled[0], 20);
    let pauses: Vec<u64> = dialled.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| (35..=140).contains(pause)), "{pauses:?}");
}

#[test]
fn a_dialled_or_static_peer_ends_loneliness_and_the_last_one_lost_begins_it_anew() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(vec![named(1)]));
    rig.tell(In::AddStatic(named(9)));
    rig.up(9, false);
    rig.tell(In::Start);
    rig.pass(secs(600));
    assert_eq!(rig.dials(), [], "whoever dialled, a static peer is company");
    rig.down(9, false, STABLE);
    rig.tell(In::RemoveStatic(named(9).id));
    rig.dials();
    rig.pass(secs(20));
    let attempt = rig.dial_of(1);
    rig.connect(attempt, 1);
    rig.pass(secs(600));
    assert_eq!(rig.dials(), []);
    rig.down(1, true, STABLE);
    rig.pass(secs(20));
    rig.dial_of(1);
}

#[test]
fn a_bootnode_takes_the_next_slot_when_dials_that_lead_nowhere_take_them_all() {
    let mut rig = Rig::stopped(Config { max_dial_peers: 1, ..config() }, 7);
    rig.tell(In::Bootnodes(vec![named(9)]));
    rig.tell(In::Start);
    rig.pass(secs(15));
    rig.tell(In::Candidates(records([1, 2])));
    let dials = rig.dials();
    assert_eq!(numbers(&dials), [1, 2]);
    rig.pass(secs(10));
    assert_eq!(rig.dials(), [], "no slot");
    rig.done(dials[0].0, DialOutcome::ConnectFailed);
    rig.dial_of(9);
    assert_eq!(rig.driver.machine().status().dialing, 2);
}

#[test]
fn a_full_memory_of_dials_does_not_keep_a_lonely_node_from_its_bootnode() {
    let limits = Config { max_active_dials: 2, max_static_dials: 1, max_remembered: 3, ..config() };
    let mut rig = Rig::stopped(limits, 7);
    rig.tell(In::Bootnodes(vec![named(9)]));
    rig.tell(In::Start);
    for n in 1..=6 {
        rig.tell(In::Candidates(records([n])));
        for (attempt, _) in rig.dials() {
            rig.done(attempt, DialOutcome::HandshakeFailed(DisconnectReason::WrongNetwork));
        }
        rig.pass(secs(1));
    }
    rig.pass(secs(14));
    rig.dial_of(9);
}

#[test]
fn bootnodes_are_bounded_replaced_and_never_this_node() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(named_all(1..=200)));
    assert_eq!((1..=200).filter(|n| rig.driver.machine().lonely.is_bootnode(&node(*n))).count(), MAX_BOOTNODES);
    rig.tell(In::Bootnodes(vec![named(0), StaticPeer::new(node(2), []), named(3), named(4)]));
    // 3 is a static peer, and 4 not admitted.
    rig.tell(In::AddStatic(named(3)));
    rig.admit(Admission { denied: vec!["192.0.2.4/32".parse().expect("network")], ..Admission::open() });
    rig.tell(In::Start);
    let attempt = rig.dial_of(3);
    rig.done(attempt, DialOutcome::HandshakeFailed(DisconnectReason::TooManyPeers));
    rig.pass(secs(34));
    assert_eq!(rig.dials(), []);
    rig.admit(Admission::open());
    rig.dial_of(4);
}

#[test]
fn a_node_that_wants_no_peers_dials_no_bootnode() {
    let mut rig = Rig::stopped(Config { max_dial_peers: 0, ..config() }, 7);
    rig.tell(In::Bootnodes(vec![named(1)]));
    rig.tell(In::Start);
    rig.pass(secs(600));
    assert_eq!(rig.dials(), []);
}

#[test]
fn visitors_that_come_and_go_do_not_keep_a_node_from_its_bootnodes() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(vec![named(9)]));
    rig.tell(In::Start);
    let mut dialled = Vec::new();
    for visit in 1..=60 {
        rig.pass(secs(10));
        for (attempt, target) in rig.dials() {
            assert_eq!(target.id, node(9));
            rig.done(attempt, DialOutcome::ConnectFailed);
            dialled.push(visit * 10);
        }
        rig.up(1, false);
        rig.down(1, false, Duration::ZERO);
    }
    assert_eq!(dialled[0], 20);
    assert!(dialled.windows(2).all(|pair| pair[1] - pair[0] <= 140), "again and again: {dialled:?}");
}

#[test]
fn a_visitor_that_stays_does_not_keep_a_node_from_its_bootnodes() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(vec![named(9)]));
    rig.tell(In::Start);
    rig.up(1, false);
    rig.pass(secs(20));
    rig.dial_of(9);
    // A visitor that is the bootnode itself is left alone.
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(vec![named(9)]));
    rig.tell(In::Start);
    rig.up(9, false);
    rig.pass(secs(600));
    assert_eq!(rig.dials(), []);
}
