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
    let bad = [own, without.sign(&keys(1)).expect("fits"), unusable.sign(&keys(1)).expect("fits")];
    rig.tell(In::Candidates(bad.map(found).to_vec()));
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

#[test]
fn nodes_that_dial_each_other_at_once_give_every_slot_back() {
    for (n, seed) in (1..=200).zip(0u64..) {
        let mut rng = Rng::new(seed);
        let mut rig = Rig::new(wants(1, 50));
        rig.tell(In::Candidates(records([n])));
        let attempt = rig.dial_of(n);
        let mut events = vec![
            In::InboundPending(node(n)),
            In::PeerUp { id: node(n), dialled: false },
            In::InboundDone(node(n)),
            In::Done { attempt, outcome: DialOutcome::HandshakeFailed(DisconnectReason::AlreadyConnected) },
        ];
        // The answer to the dial comes at any moment; the others in their order.
        if let (Some(done), Some(place)) = (events.pop(), rng.index(4)) {
            events.insert(place, done);
        }
        events.into_iter().for_each(|event| rig.tell(event));
        let status = rig.driver.machine().status();
        assert_eq!((status.dialing, status.dialled_peers, status.free_slots), (0, 0, 2));
        rig.down(n, false, secs(1));
        rig.pass(secs(35));
        rig.take();
        rig.tell(In::Candidates(records([n])));
        rig.dial_of(n);
    }
}

#[test]
fn a_node_that_never_answers_is_dialled_a_few_times_a_day() {
    for outcome in [DialOutcome::ConnectFailed, DialOutcome::HandshakeFailed(DisconnectReason::TooManyPeers)] {
        let mut rig = Rig::new(wants(16, 50));
        let mut dialled = 0;
        for _ in 0..24 * 360 {
            rig.pass(secs(10));
            rig.tell(In::Candidates(records([1])));
            for (attempt, _) in rig.dials() {
                dialled += 1;
                rig.done(attempt, outcome);
            }
        }
        assert!((40..=110).contains(&dialled), "{dialled} times, at most half an hour apart");
    }
}

#[test]
fn a_node_that_wants_one_peer_dials_for_it() {
    let mut rig = Rig::new(wants(crate::dial_share(1, 3), 50));
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.connect(attempt, 1);
    rig.take();
    rig.pass(secs(60));
    assert_eq!(Rig::wanted(&rig.take()), []);
}

#[test]
fn many_names_do_not_aim_all_dials_at_one_socket() {
    let mut rig = Rig::new(config());
    let mut dialled = 0;
    for wave in 0..5u8 {
        let names = (1..=16).map(|n| found(record_at(wave * 16 + n, 1, 200))).collect();
        rig.tell(In::Candidates(names));
        for (attempt, target) in rig.dials() {
            assert_eq!(target.addresses, [address(200)]);
            dialled += 1;
            rig.done(attempt, DialOutcome::ConnectFailed);
        }
        rig.pass(secs(2));
    }
    assert_eq!(dialled, 1, "connections to a bystander from this node alone in ten seconds");
    // Nor by a name that has an address of its own besides.
    let two = |n: u8| (record(n), vec![address(200), address(n)]);
    rig.tell(In::Candidates(vec![two(100)]));
    assert_eq!(rig.dials()[0].1.addresses, [address(100)]);
    rig.pass(secs(2));
    rig.tell(In::Candidates(vec![found(record_at(101, 1, 200))]));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::AddressDialled]);
    rig.pass(secs(35));
    rig.tell(In::Candidates(vec![two(102)]));
    assert_eq!(rig.dials()[0].1.addresses, [address(200), address(102)]);
}

#[test]
fn a_static_peer_and_a_bootnode_are_dialled_where_somebody_else_was() {
    let mut rig = Rig::stopped(config(), 7);
    rig.tell(In::Bootnodes(vec![StaticPeer::new(node(3), [address(200)])]));
    rig.tell(In::Start);
    rig.tell(In::Candidates(vec![found(record_at(1, 1, 200))]));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::ConnectFailed);
    rig.tell(In::AddStatic(StaticPeer::new(node(2), [address(200)])));
    rig.dial_of(2);
    rig.pass(secs(20));
    rig.dial_of(3);
}

#[test]
fn a_peer_that_was_of_no_use_is_left_alone_although_it_stayed() {
    use Consequence as C;
    let blamed = C::Blame(peerage_wire::Penalty::BrokenProtocol);
    for (consequence, kept_away) in [(C::Avoid, true), (blamed, true), (C::BackOff, false), (C::Ignore, false)] {
        let mut rig = Rig::new(wants(16, 50));
        rig.tell(In::Candidates(records([1])));
        let attempt = rig.dial_of(1);
        rig.connect(attempt, 1);
        rig.pass(secs(130));
        rig.ended(1, true, secs(130), consequence);
        rig.pass(secs(600));
        rig.take();
        rig.tell(In::Candidates(records([1])));
        let refused = Rig::refusals(&rig.outs) == [Refusal::BackingOff];
        assert_eq!((refused, rig.dials().is_empty()), (kept_away, kept_away), "{consequence:?}");
        if kept_away {
            rig.pass(secs(1_200));
            rig.tell(In::Candidates(records([1])));
            rig.dial_of(1);
        }
    }
}

#[test]
fn visitors_of_no_use_do_not_fill_the_memory_of_dials() {
    let mut rig = Rig::new(wants(16, 50));
    for n in 1..=200 {
        rig.up(n, false);
        rig.ended(n, false, secs(130), Consequence::Avoid);
    }
    assert_eq!(rig.driver.machine().status().remembered, 0);
    // Whom this node dialled before is known, whoever dialled last.
    rig.tell(In::Candidates(records([201])));
    let attempt = rig.dial_of(201);
    rig.done(attempt, DialOutcome::ConnectFailed);
    rig.up(201, false);
    rig.ended(201, false, secs(130), Consequence::Avoid);
    rig.pass(secs(600));
    rig.take();
    rig.tell(In::Candidates(records([201])));
    assert_eq!(Rig::refusals(&rig.take()), [Refusal::BackingOff]);
}

#[test]
fn where_nobody_can_be_asked_no_candidates_are_asked_for_and_others_are_dialled_as_ever() {
    let mut rig = Rig::stopped(Config { candidates: false, ..config() }, 7);
    rig.tell(In::Anchors(vec![named(1)]));
    rig.tell(In::Bootnodes(vec![named(2)]));
    rig.tell(In::AddStatic(named(3)));
    rig.tell(In::Start);
    assert_eq!(rig.dials().len(), 2, "the anchor and the static peer");
    rig.pass(secs(20));
    assert_eq!(Rig::wanted(&rig.outs), []);
    rig.dial_of(2);
}
