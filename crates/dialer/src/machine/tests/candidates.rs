//! Slots, candidates, history, back-off, attempts.

use peerage_wire::DisconnectReason;

use super::*;

fn wants(max_dial_peers: u32, max_active_dials: u32) -> Config {
    Config { max_dial_peers, max_active_dials, ..config() }
}

#[test]
fn slots_are_twice_the_missing_peers_and_the_connected_are_not_dialled() {
    let mut rig = Rig::stopped(wants(5, 50), 7);
    for n in [1, 2] {
        rig.up(n, true);
    }
    rig.up(3, false);
    assert_eq!(rig.take(), [], "nothing before the start");
    rig.tell(In::Start);
    assert_eq!(Rig::wanted(&rig.take()), [6]);
    rig.tell(In::Candidates(records([1, 3, 4, 5, 6])));
    let outs = rig.take();
    assert_eq!(Rig::refusals(&outs), [Refusal::AlreadyConnected; 2]);
    rig.outs = outs;
    assert_eq!(rig.dials().len(), 3);
    assert_eq!(rig.driver.machine().status().free_slots, 3);
}

#[test]
fn freed_slots_are_asked_for_up_to_the_most_dials_at_once() {
    let mut rig = Rig::new(wants(20, 4));
    assert_eq!(Rig::wanted(&rig.take()), [4]);
    rig.tell(In::Candidates(records([1, 2, 3, 4])));
    let dials = rig.dials();
    assert_eq!(dials.len(), 4);
    rig.pass(secs(5));
    assert_eq!(rig.take(), [], "no slot, no wish");
    rig.done(dials[0].0, DialOutcome::ConnectFailed);
    rig.connect(dials[1].0, 2);
    rig.pass(secs(1));
    assert_eq!(Rig::wanted(&rig.take()).last(), Some(&2), "one failed, one connected");
}

#[test]
fn candidates_nobody_asked_for_are_dropped_and_counted() {
    let mut rig = Rig::new(wants(1, 50));
    assert_eq!(Rig::wanted(&rig.take()), [2]);
    rig.tell(In::Candidates(records(1..=5)));
    let outs = rig.take();
    assert_eq!(Rig::refusals(&outs), [Refusal::Unsolicited; 3]);
    rig.tell(In::Candidates(records([6])));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::Unsolicited]);
}

#[test]
fn a_candidate_is_checked_in_geths_order() {
    let mut rig = Rig::new(wants(16, 50));
    let without = RecordDraft::new(1, NetworkId::named("test"));
    let unusable = without.clone().address("/ip4/192.0.2.1/tcp/0".parse().expect("multiaddr"));
    let own = without.clone().sign(&keys(0)).expect("fits");
    rig.tell(In::Candidates(vec![own, without.sign(&keys(1)).expect("fits"), unusable.sign(&keys(1)).expect("fits")]));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::OwnId, Refusal::NoAddress, Refusal::NoAddress]);

    rig.pass(secs(1));
    rig.tell(In::InboundPending(node(2)));
    rig.tell(In::Candidates(records([1, 1, 2])));
    assert_eq!(Rig::refusals(&rig.outs), [Refusal::Waiting, Refusal::PendingInbound]);
    let attempt = rig.dial_of(1);
    rig.pass(secs(1));
    rig.tell(In::Candidates(records([1])));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::AlreadyDialing]);
    rig.done(attempt, DialOutcome::Cancelled);
    rig.pass(secs(1));
    rig.tell(In::Candidates(records([1])));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::RecentlyDialled]);
}

#[test]
fn a_candidate_that_came_when_the_slots_were_gone_waits_for_one() {
    let mut rig = Rig::new(wants(2, 50));
    rig.tell(In::Candidates(records([1])));
    let first = rig.dial_of(1);
    // 4 were asked for; one came, one more peer leaves 2 × 1 − 1 slots.
    rig.up(9, true);
    rig.tell(In::Candidates(records([2, 3, 4])));
    rig.dial_of(2);
    rig.done(first, DialOutcome::ConnectFailed);
    rig.dial_of(3);
}

#[test]
fn dials_beyond_the_wanted_peers_are_called_off() {
    let mut rig = Rig::new(wants(2, 50));
    rig.tell(In::Candidates(records([1, 2, 3, 4])));
    let dials = rig.dials();
    rig.connect(dials[0].0, 1);
    assert_eq!(rig.take().iter().filter(|out| matches!(out, Out::Cancel(_))).count(), 0);
    rig.up(2, true);
    let cancelled: Vec<_> = rig.take().into_iter().filter(|out| matches!(out, Out::Cancel(_))).collect();
    assert_eq!(cancelled, [Out::Cancel(dials[2].0), Out::Cancel(dials[3].0)], "not the one that connected");
    rig.done(dials[1].0, DialOutcome::Connected);
    assert_eq!(rig.driver.machine().status().dialing, 0);
    assert_eq!(rig.driver.machine().status().free_slots, 0);
}

#[test]
fn an_answer_to_an_attempt_that_has_ended_changes_nothing() {
    let mut rig = Rig::new(wants(16, 50));
    rig.tell(In::Candidates(records([1])));
    let old = rig.dial_of(1);
    rig.done(old, DialOutcome::ConnectFailed);
    rig.pass(secs(60));
    rig.tell(In::Candidates(records([1])));
    let new = rig.dial_of(1);
    assert!(new > old);
    rig.done(old, DialOutcome::Connected);
    rig.resolved(new, Some(record(1)));
    rig.done(Attempt(u64::MAX), DialOutcome::Connected);
    assert_eq!(rig.take(), vec![Out::Count(Count::Late); 3]);
    assert_eq!(rig.driver.machine().status().dialing, 1);
}

#[test]
fn a_dial_without_an_answer_gives_its_slot_back() {
    let mut rig = Rig::new(wants(16, 50));
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.pass(secs(29));
    assert_eq!(rig.driver.machine().status().dialing, 1);
    rig.pass(secs(1));
    assert!(rig.take().contains(&Out::Cancel(attempt)));
    assert_eq!(rig.driver.machine().status().dialing, 0);
}

#[test]
fn a_peer_that_dials_us_while_we_dial_it_ends_our_dial() {
    let mut rig = Rig::new(wants(16, 50));
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.tell(In::InboundPending(node(1)));
    assert!(!rig.take().contains(&Out::Cancel(attempt)), "either connection may win");
    rig.up(1, false);
    assert!(rig.take().contains(&Out::Cancel(attempt)));
    rig.tell(In::InboundDone(node(1)));
    rig.down(1, false, secs(1));
    rig.pass(secs(35));
    rig.tell(In::Candidates(records([1])));
    rig.dial_of(1);
}

#[test]
fn a_peer_that_connects_and_drops_waits_longer_each_time() {
    let mut rig = Rig::new(wants(16, 50));
    let mut waits = Vec::new();
    for _ in 0..6 {
        rig.take();
        let began = rig.now;
        let attempt = loop {
            rig.tell(In::Candidates(records([1])));
            match rig.dials().pop() {
                Some((attempt, _)) => break attempt,
                None => rig.pass(secs(1)),
            }
        };
        waits.push(rig.now.since(began));
        rig.connect(attempt, 1);
        rig.pass(secs(1));
        rig.down(1, true, secs(1));
    }
    // From the second failure on the back-off is longer than the history: 30–60 s, 60–120 s, …
    assert!(waits[2..].is_sorted(), "{waits:?}");
    assert!(waits[5] >= secs(240), "{waits:?}");

    // A session that lived clears it all.
    rig.pass(secs(1_000));
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.connect(attempt, 1);
    rig.pass(secs(100));
    rig.down(1, true, secs(100));
    rig.pass(secs(1));
    rig.tell(In::Candidates(records([1])));
    rig.dial_of(1);
}

#[test]
fn a_node_of_another_network_is_left_alone_for_long_and_a_second_connection_is_no_failure() {
    let mut rig = Rig::new(wants(16, 50));
    rig.tell(In::Candidates(records([1, 2])));
    let dials = rig.dials();
    rig.done(dials[0].0, DialOutcome::HandshakeFailed(DisconnectReason::WrongNetwork));
    rig.done(dials[1].0, DialOutcome::HandshakeFailed(DisconnectReason::AlreadyConnected));
    rig.pass(secs(36));
    rig.take();
    rig.tell(In::Candidates(records([1, 2])));
    assert_eq!(Rig::refusals(&rig.outs), [Refusal::BackingOff]);
    rig.dial_of(2);
}

#[test]
fn nobody_is_dialled_between_a_dials_success_and_its_peer_up() {
    let mut rig = Rig::new(Config { history: secs(1), ..config() });
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.pass(secs(10));
    rig.done(attempt, DialOutcome::Connected);
    rig.take();
    rig.tell(In::Candidates(records([1])));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::RecentlyDialled]);
}

#[test]
fn wishes_become_rarer_while_in_vain_and_a_lost_peer_hurries_the_next() {
    let mut rig = Rig::new(wants(2, 50));
    rig.up(1, true);
    rig.pass(secs(60));
    let asked = Rig::wanted(&rig.take()).len();
    assert!((8..=20).contains(&asked), "{asked} times in a minute, at most 10 s apart");
    rig.down(1, true, STABLE);
    rig.pass(secs(1));
    assert_eq!(Rig::wanted(&rig.take()).last(), Some(&4));
}

#[test]
fn the_memory_of_dials_is_bounded_and_holds_new_ones_back_when_full() {
    let limits = Config { max_active_dials: 2, max_static_dials: 1, max_remembered: 3, ..config() };
    let mut rig = Rig::new(limits);
    let mut dialled = 0;
    for n in 1..=6 {
        rig.tell(In::Candidates(records([n])));
        for (attempt, _) in rig.dials() {
            dialled += 1;
            rig.done(attempt, DialOutcome::ConnectFailed);
        }
        rig.pass(secs(1));
    }
    assert_eq!((dialled, rig.driver.machine().status().remembered), (3, 3));
    rig.pass(secs(35));
    rig.take();
    rig.tell(In::Candidates(records([9])));
    rig.dial_of(9);
    assert_eq!(rig.driver.machine().status().remembered, 3);
}
