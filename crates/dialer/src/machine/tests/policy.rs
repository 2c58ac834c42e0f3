//! Whom the policy admits, and the switch that turns dialling off.

use super::*;

/// Nobody at the address of number `at`.
fn without(at: &[u8]) -> Admission {
    let network = |at: &u8| format!("192.0.2.{at}/32").parse().expect("network");
    Admission { denied: at.iter().map(network).collect(), ..Admission::open() }
}

fn only(numbers: &[u8]) -> Admission {
    Admission { only: Some(numbers.iter().map(|n| node(*n)).collect()), ..Admission::open() }
}

#[test]
fn candidates_outside_the_policy_are_not_dialled() {
    let mut rig = Rig::new(config());
    rig.admit(without(&[1]));
    rig.tell(In::Candidates(records([1, 2])));
    assert_eq!(Rig::refusals(&rig.outs), [Refusal::Restricted]);
    rig.dial_of(2);
    rig.admit(only(&[3]));
    assert_eq!(rig.cancels().len(), 1, "2 is not admitted any more");
    rig.tell(In::Candidates(records([3, 4])));
    assert_eq!(Rig::refusals(&rig.outs), [Refusal::Restricted]);
    rig.dial_of(3);
}

#[test]
fn addresses_outside_the_policy_are_left_out_and_the_others_dialled_in_their_order() {
    let mut rig = Rig::stopped(Config { max_dial_peers: 0, ..config() }, 7);
    rig.admit(without(&[1, 3]));
    rig.tell(In::AddStatic(StaticPeer::new(node(1), [1, 2, 3, 4].map(address))));
    rig.tell(In::Start);
    assert_eq!(rig.dials()[0].1.addresses, [address(2), address(4)]);
}

#[test]
fn the_policy_is_asked_after_pending_inbound_and_before_the_history() {
    let mut rig = Rig::new(config());
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::ConnectFailed);
    rig.admit(without(&[1]));
    rig.pass(secs(1));
    rig.take();
    rig.tell(In::Candidates(records([1])));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::Restricted], "recently dialled, too");
    rig.tell(In::InboundPending(node(1)));
    rig.tell(In::Candidates(records([1])));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::PendingInbound]);
}

#[test]
fn a_static_peer_outside_the_policy_leaves_the_pool_and_comes_back_when_the_policy_changes() {
    let mut rig = Rig::new(Config { max_dial_peers: 0, max_static_dials: 1, ..config() });
    rig.tell(In::AddStatic(named(1)));
    let first = rig.dial_of(1);
    // In the pool behind it.
    rig.tell(In::AddStatic(named(2)));
    rig.admit(without(&[1, 2]));
    assert_eq!(rig.cancels(), [first], "and 2 is not dialled instead");
    rig.done(first, DialOutcome::Connected);
    rig.pass(secs(600));
    assert_eq!(rig.dials(), []);
    rig.admit(Admission::open());
    assert_eq!(rig.dials().len(), 1, "at once");
}

#[test]
fn a_static_peer_without_an_address_is_judged_when_it_has_been_resolved() {
    let mut rig = Rig::new(Config { max_dial_peers: 0, ..config() });
    rig.admit(without(&[1]));
    for n in [1, 2] {
        rig.tell(In::AddStatic(StaticPeer::new(node(n), [])));
        let attempt = rig.resolve_of(n);
        rig.resolved(attempt, Some(record(n)));
        if n == 2 {
            rig.dial_of(2);
        } else {
            let ended = Count::Finished { outcome: DialOutcome::Restricted, is_static: true };
            assert_eq!(rig.take(), [Out::Count(ended)]);
        }
    }
    rig.pass(secs(600));
    assert!(rig.dials().iter().all(|(_, target)| target.id == node(2)));
    // The address that was found is kept, and nothing is held against it.
    rig.admit(Admission::open());
    rig.dial_of(1);
}

#[test]
fn a_static_peer_that_moved_out_of_the_policy_has_failed_where_it_was() {
    let mut rig = Rig::new(Config { max_dial_peers: 0, ..config() });
    rig.admit(without(&[77]));
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::ConnectFailed);
    rig.resolve_of(1);
    rig.resolved(attempt, Some(record_at(1, 2, 77)));
    let ended = Count::Finished { outcome: DialOutcome::ConnectFailed, is_static: true };
    assert_eq!(rig.take(), [Out::Count(ended)]);
    rig.pass(secs(120));
    assert_eq!(rig.dials()[0].1.addresses, [address(1)]);
}

#[test]
fn a_dial_where_it_is_admitted_goes_on_and_a_resolution_of_whom_nobody_admits_ends() {
    let mut rig = Rig::new(Config { max_dial_peers: 0, ..config() });
    rig.tell(In::AddStatic(named(1)));
    let moved = rig.dial_of(1);
    rig.done(moved, DialOutcome::ConnectFailed);
    rig.resolved(moved, Some(record_at(1, 2, 77)));
    rig.tell(In::AddStatic(StaticPeer::new(node(2), [])));
    rig.take();
    rig.admit(without(&[1]));
    assert_eq!(rig.cancels(), [], "it is dialled at 77 by now");
    assert_eq!(rig.driver.machine().status().dialing_static, 2);
    rig.admit(only(&[1]));
    assert_eq!(rig.driver.machine().status().dialing_static, 1);
}

#[test]
fn a_candidate_that_waits_for_a_slot_is_judged_by_the_policy_of_that_moment() {
    let mut rig = Rig::new(Config { max_dial_peers: 2, ..config() });
    rig.tell(In::Candidates(records([1])));
    let first = rig.dial_of(1);
    rig.up(9, true);
    rig.tell(In::Candidates(records([2, 3])));
    rig.dial_of(2);
    rig.admit(without(&[3]));
    rig.done(first, DialOutcome::ConnectFailed);
    assert_eq!(Rig::refusals(&rig.outs), [Refusal::Restricted]);
    assert_eq!(rig.dials(), []);
}

#[test]
fn with_dialling_off_nobody_is_dialled_looked_up_or_asked_for() {
    let mut rig = Rig::stopped(Config { dialing: false, ..config() }, 7);
    rig.tell(In::Anchors(vec![named(1)]));
    rig.tell(In::Bootnodes(vec![named(2)]));
    rig.tell(In::AddStatic(named(3)));
    rig.tell(In::AddStatic(StaticPeer::new(node(4), [])));
    rig.tell(In::Start);
    rig.tell(In::Candidates(records([5])));
    rig.up(3, false);
    rig.down(3, false, secs(1));
    rig.pass(secs(3_600));
    assert!(rig.take().iter().all(|out| matches!(out, Out::Count(_))));
    let status = rig.driver.machine().status();
    assert!(!status.enabled);
    assert_eq!((status.statics, status.free_slots), (2, 0));
}

#[test]
fn nobody_is_dialled_while_it_is_paused_and_everybody_who_waits_is_afterwards() {
    let mut rig = Rig::new(config());
    rig.tell(In::Pause(true));
    rig.take();
    rig.tell(In::AddStatic(named(1)));
    rig.tell(In::Candidates(records([2])));
    assert_eq!(rig.take().iter().filter(|out| matches!(out, Out::Dial { .. } | Out::Want(_))).count(), 0);
    rig.tell(In::Pause(false));
    let dialled: Vec<NodeId> = rig.dials().into_iter().map(|(_, target)| target.id).collect();
    assert_eq!(dialled, [node(1), node(2)]);
}

#[test]
fn how_many_are_dialled_can_change_while_it_runs() {
    let mut rig = Rig::new(Config { max_dial_peers: 1, ..config() });
    rig.tell(In::Candidates(records([1, 2])));
    assert_eq!((rig.dials().len(), rig.driver.machine().status().free_slots), (2, 0), "twice as many as places");
    rig.tell(In::Limits { max_dial_peers: 2, max_static_peers: 32 });
    assert_eq!(rig.driver.machine().status().free_slots, 2);
    rig.tell(In::Limits { max_dial_peers: 0, max_static_peers: 32 });
    assert_eq!(rig.cancels().len(), 2, "those under way that nobody wants any more");
}
