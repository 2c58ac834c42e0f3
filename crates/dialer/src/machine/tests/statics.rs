//! Static peers: their bound, their pool, and every way back into it.

use peerage_wire::DisconnectReason;

use super::*;
use crate::RACED;
use crate::machine::Timer;

/// No candidates are wanted, so that only static peers are dialled.
fn statics_only() -> Config {
    Config { max_dial_peers: 0, ..config() }
}

const REFUSED: DialOutcome = DialOutcome::HandshakeFailed(DisconnectReason::TooManyPeers);

#[test]
fn the_planted_bug_dials_a_static_peer_again_and_again() {
    let dials_of_a_minute = |planted: bool| {
        let mut machine = DialerMachine::new(config(), node(0), Rng::new(7)).expect("a good configuration");
        if planted {
            machine.plant_bug();
        }
        let mut rig = Rig { driver: Driver::new(machine), now: Time::ZERO, outs: Vec::new() };
        rig.tell(In::Start);
        rig.tell(In::AddStatic(named(1)));
        let mut dials = 0;
        for _ in 0..600 {
            for out in rig.take() {
                match out {
                    Out::Dial { attempt, .. } => {
                        dials += 1;
                        rig.done(attempt, DialOutcome::ConnectFailed);
                    }
                    Out::Resolve { attempt, .. } => rig.resolved(attempt, None),
                    _ => {}
                }
            }
            rig.pass(Duration::from_millis(100));
        }
        dials
    };
    assert!(dials_of_a_minute(false) <= 2);
    assert!(dials_of_a_minute(true) > 20, "{}", dials_of_a_minute(true));
}

#[test]
fn static_peers_are_dialled_first_and_take_no_slot_of_candidates() {
    let mut rig = Rig::stopped(Config { max_dial_peers: 2, max_static_dials: 3, ..config() }, 7);
    for n in 1..=5 {
        rig.tell(In::AddStatic(named(n)));
    }
    rig.tell(In::Start);
    assert!(matches!(rig.outs[..], [Out::Dial { .. }, Out::Dial { .. }, Out::Dial { .. }, Out::Want(_)]));
    assert_eq!(Rig::wanted(&rig.outs), [4]);
    let dials = rig.dials();
    assert!(dials.iter().all(|(_, target)| target.is_static));
    let first = (1..=5).find(|n| node(*n) == dials[0].1.id).expect("one of them");
    rig.connect(dials[0].0, first);
    let more = rig.dials();
    assert_eq!(more.len(), 1, "the freed place goes to the next static peer");
    assert_eq!(rig.driver.machine().status().free_slots, 4, "a static peer is not a dialled one");
}

#[test]
fn a_removed_static_peer_is_not_dialled_again_whether_held_back_dialled_or_pooled() {
    let mut rig = Rig::new(Config { max_static_dials: 1, ..statics_only() });
    // In the history.
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.done(attempt, REFUSED);
    rig.tell(In::RemoveStatic(node(1)));
    // Being dialled, and in the pool behind it.
    rig.tell(In::AddStatic(named(2)));
    let attempt = rig.dial_of(2);
    rig.tell(In::AddStatic(named(3)));
    rig.tell(In::RemoveStatic(node(3)));
    rig.tell(In::RemoveStatic(node(2)));
    assert!(rig.take().contains(&Out::Cancel(attempt)));
    rig.done(attempt, DialOutcome::ConnectFailed);
    rig.pass(secs(3_600));
    assert_eq!(rig.dials(), []);
}

#[test]
fn two_thousand_static_peers_are_picked_at_random_by_the_seed() {
    let dialled = |seed| {
        let mut rig = Rig::stopped(statics_only(), seed);
        for n in 1..=2_000u16 {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            rig.tell(In::AddStatic(StaticPeer::new(NodeId::from_bytes(bytes), [address(1)])));
        }
        rig.tell(In::Start);
        rig.dials().into_iter().map(|(_, target)| target.id).collect::<Vec<_>>()
    };
    let first = dialled(1);
    assert_eq!(first.len(), 16);
    assert_eq!(first, dialled(1));
    assert_ne!(first, dialled(2));
}

#[test]
fn the_end_of_its_history_alone_brings_a_static_peer_back() {
    let mut rig =
        Rig::new(Config { static_backoff: Config::local().static_backoff, sweep: secs(3_600), ..statics_only() });
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.done(attempt, REFUSED);
    rig.pass(secs(34));
    assert_eq!(rig.dials(), []);
    rig.pass(secs(1));
    rig.dial_of(1);
}

#[test]
fn a_static_peer_that_the_pool_lost_is_found_by_the_sweep() {
    let mut rig = Rig::stopped(statics_only(), 7);
    rig.tell(In::AddStatic(named(1)));
    // As a missed event would leave it.
    rig.driver.with(|machine, fx| {
        machine.statics.unpool(&node(1));
        fx.disarm(Timer::Static(node(1)));
    });
    rig.tell(In::Start);
    assert_eq!(rig.dials(), []);
    rig.pass(secs(60));
    rig.dial_of(1);
}

#[test]
fn a_lost_static_peer_is_dialled_again_and_a_connected_one_is_not() {
    let mut rig = Rig::new(statics_only());
    rig.up(1, true);
    rig.up(2, false);
    rig.tell(In::AddStatic(named(1)));
    rig.tell(In::AddStatic(named(2)));
    rig.pass(secs(120));
    assert_eq!(rig.dials(), []);
    rig.down(1, true, STABLE);
    rig.dial_of(1);
    rig.down(2, false, STABLE);
    rig.dial_of(2);
}

#[test]
fn a_pending_inbound_connection_keeps_a_static_peer_from_being_dialled_until_it_has_ended() {
    let mut rig = Rig::stopped(statics_only(), 7);
    rig.tell(In::AddStatic(named(1)));
    rig.tell(In::InboundPending(node(1)));
    rig.tell(In::InboundPending(node(1)));
    rig.tell(In::Start);
    rig.tell(In::InboundDone(node(1)));
    rig.pass(secs(29));
    assert_eq!(rig.dials(), [], "one of two is still pending");
    rig.up(1, false);
    rig.tell(In::InboundDone(node(1)));
    rig.pass(secs(120));
    assert_eq!(rig.dials(), [], "now it is connected");
    rig.down(1, false, secs(1));
    let attempt = rig.dial_of(1);

    // One that comes to nothing.
    rig.tell(In::InboundPending(node(1)));
    rig.done(attempt, REFUSED);
    for _ in 0..6 {
        rig.pass(secs(25));
        assert_eq!(rig.dials(), []);
        rig.tell(In::InboundPending(node(1)));
        rig.tell(In::InboundDone(node(1)));
    }
    rig.tell(In::InboundDone(node(1)));
    rig.dial_of(1);
    rig.tell(In::InboundDone(node(9)));
}

#[test]
fn a_static_peer_without_an_address_is_resolved_first() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(StaticPeer::new(node(1), [])));
    let attempt = rig.resolve_of(1);
    rig.resolved(attempt, Some(record(2)));
    assert_eq!(
        rig.take(),
        [Out::Count(Count::Finished { outcome: DialOutcome::Unresolved, is_static: true })],
        "a record of another node is none"
    );
    while !rig.outs.iter().any(|out| matches!(out, Out::Resolve { .. })) {
        rig.pass(secs(1));
    }
    let attempt = rig.resolve_of(1);
    rig.resolved(attempt, Some(record(1)));
    let dials = rig.dials();
    assert_eq!((dials[0].0, &dials[0].1.addresses[..]), (attempt, &[address(1)][..]));
}

#[test]
fn an_unreachable_static_peer_is_resolved_once_and_dialled_where_it_has_moved() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::ConnectFailed);
    assert_eq!(rig.resolve_of(1), attempt);
    rig.resolved(attempt, Some(record_at(1, 2, 77)));
    let dials = rig.dials();
    assert_eq!((dials[0].0, &dials[0].1.addresses[..]), (attempt, &[address(77)][..]));
    rig.pass(secs(20));
    rig.done(attempt, DialOutcome::ConnectFailed);
    let ended = Count::Finished { outcome: DialOutcome::ConnectFailed, is_static: true };
    assert_eq!(rig.take(), [Out::Count(ended)]);
    // It is dialled at both from now on.
    rig.pass(secs(60));
    let dials = rig.dials();
    assert_eq!(dials[0].1.addresses, [address(1), address(77)]);
}

#[test]
fn an_unreachable_static_peer_that_has_not_moved_is_not_dialled_twice() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::TimedOut);
    rig.resolve_of(1);
    rig.resolved(attempt, Some(record(1)));
    assert_eq!(rig.dials(), []);
    assert_eq!(rig.driver.machine().status().dialing_static, 0);
}

#[test]
fn a_refused_handshake_resolves_nothing() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.done(attempt, REFUSED);
    assert!(!rig.take().iter().any(|out| matches!(out, Out::Resolve { .. })));
}

#[test]
fn a_resolver_that_hangs_frees_its_place_and_is_asked_ever_more_rarely() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(StaticPeer::new(node(1), [])));
    let mut asked = Vec::new();
    for _ in 0..7_200 {
        rig.pass(secs(1));
        asked.extend(rig.take().iter().filter(|out| matches!(out, Out::Resolve { .. })).map(|_| rig.now));
    }
    let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!((3..=8).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause >= secs(60)), "{pauses:?}");
    assert!(pauses.last() > pauses.first(), "{pauses:?}");
}

#[test]
fn a_candidate_that_is_a_static_peer_only_tells_where_it_is() {
    let mut rig = Rig::new(config());
    rig.tell(In::AddStatic(StaticPeer::new(node(1), [])));
    let attempt = rig.resolve_of(1);
    rig.resolved(attempt, None);
    rig.pass(secs(40));
    rig.take();
    rig.tell(In::Candidates(records([1])));
    assert_eq!(Rig::refusals(&rig.outs), [Refusal::Static]);
    let dials = rig.dials();
    assert!(dials[0].1.is_static && dials[0].1.addresses == [address(1)]);
}

#[test]
fn naming_a_static_peer_again_gives_it_the_new_address() {
    let mut rig = Rig::stopped(statics_only(), 7);
    rig.tell(In::AddStatic(named(1)));
    rig.tell(In::AddStatic(StaticPeer::new(node(1), [address(9), "192.0.2.1:0".parse().expect("address")])));
    rig.tell(In::Start);
    assert_eq!(rig.dials()[0].1.addresses, [address(9)]);
    assert_eq!(rig.driver.machine().status().statics, 1);
}

#[test]
fn static_peers_are_bounded_and_never_this_node() {
    let mut rig = Rig::new(Config { max_statics: 2, ..statics_only() });
    for n in 0..=3 {
        rig.tell(In::AddStatic(named(n)));
    }
    let refused = rig.take().into_iter().filter(|out| *out == Out::Count(Count::StaticRefused)).count();
    assert_eq!((refused, rig.driver.machine().status().statics), (2, 2));
}

#[test]
fn a_set_up_whose_end_is_never_told_does_not_lose_a_static_peer() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::InboundPending(node(1)));
    rig.tell(In::AddStatic(named(1)));
    rig.pass(secs(59));
    assert_eq!(rig.dials(), []);
    rig.pass(secs(1));
    rig.dial_of(1);
    // It is told after all.
    rig.tell(In::InboundDone(node(1)));
}

#[test]
fn a_peer_removed_and_added_again_is_dialled_soon_and_not_hammered() {
    let mut rig = Rig::new(statics_only());
    let mut dialled = 0;
    for _ in 0..60 {
        rig.tell(In::AddStatic(named(1)));
        for (attempt, _) in rig.dials() {
            dialled += 1;
            rig.done(attempt, DialOutcome::HandshakeFailed(DisconnectReason::WrongNetwork));
        }
        rig.pass(secs(1));
        rig.tell(In::RemoveStatic(node(1)));
    }
    assert_eq!(dialled, 12, "in a minute, although it will not do better soon");
    rig.pass(secs(60));
    rig.tell(In::AddStatic(named(1)));
    rig.dial_of(1);
}

#[test]
fn a_dial_of_a_candidate_that_is_named_a_static_peer_meanwhile_is_no_surplus() {
    let mut rig = Rig::new(Config { max_dial_peers: 1, ..config() });
    rig.tell(In::Candidates(records([1, 2])));
    let dials = rig.dials();
    rig.tell(In::AddStatic(named(1)));
    rig.connect(dials[1].0, 2);
    assert_eq!(rig.cancels(), []);
    rig.connect(dials[0].0, 1);
    assert_eq!(rig.driver.machine().status().dialled_peers, 1, "and takes no place");
}

#[test]
fn a_static_peer_is_dialled_first_whatever_waits() {
    let mut rig = Rig::stopped(Config { max_dial_peers: 1, ..config() }, 7);
    rig.tell(In::Anchors(vec![named(2), named(3)]));
    rig.tell(In::Bootnodes(vec![named(4)]));
    rig.tell(In::AddStatic(named(1)));
    rig.tell(In::Start);
    let dials = rig.dials();
    assert!(dials[0].1.is_static);
    assert_eq!(dials.len(), 3);
}

#[test]
fn a_candidate_that_failed_for_good_is_dialled_soon_when_it_is_named_a_static_peer() {
    let mut rig = Rig::new(config());
    rig.tell(In::Candidates(records([1])));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::HandshakeFailed(DisconnectReason::WrongNetwork));
    rig.tell(In::AddStatic(named(1)));
    rig.pass(secs(4));
    assert_eq!(rig.dials(), []);
    rig.pass(secs(1));
    rig.dial_of(1);
}

#[test]
fn a_static_peer_that_has_moved_is_dialled_where_its_record_says_however_many_addresses_it_was_named_with() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(StaticPeer::new(node(1), [address(11), address(12), address(13)])));
    let attempt = rig.dial_of(1);
    rig.done(attempt, DialOutcome::ConnectFailed);
    rig.resolve_of(1);
    rig.resolved(attempt, Some(record_at(1, 2, 20)));
    assert_eq!(rig.dials()[0].1.addresses, [address(20)]);
    rig.connect(attempt, 1);
    rig.pass(secs(3_600));
    rig.down(1, true, STABLE);
    // Nobody listens at the first three any more.
    for _ in 0..20 {
        rig.pass(secs(120));
        for out in rig.take() {
            match out {
                Out::Dial { target, .. } if target.addresses.iter().take(RACED).any(|at| *at == address(20)) => return,
                Out::Dial { attempt, .. } => rig.done(attempt, DialOutcome::ConnectFailed),
                Out::Resolve { attempt, .. } => rig.resolved(attempt, Some(record_at(1, 2, 20))),
                _ => {}
            }
        }
    }
    panic!("forty minutes, and it was never tried where its newest record says that it is");
}

#[test]
fn a_static_peer_is_looked_up_when_somebody_else_answers_where_it_was() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(named(1)));
    for _ in 0..20 {
        for out in rig.take() {
            match out {
                Out::Dial { attempt, .. } => {
                    // Its address was given to another machine, or somebody took it.
                    rig.done(attempt, DialOutcome::HandshakeFailed(DisconnectReason::UnexpectedIdentity));
                }
                Out::Resolve { .. } => return,
                _ => {}
            }
        }
        rig.pass(secs(120));
    }
    panic!("forty minutes, and it was never asked where it is now");
}

#[test]
fn every_address_of_a_static_peer_is_tried_however_many_it_has() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(StaticPeer::new(node(1), [11, 12, 13, 14, 15].map(address))));
    let mut tried = std::collections::BTreeSet::new();
    for _ in 0..20 {
        for out in rig.take() {
            match out {
                Out::Dial { attempt, target } => {
                    tried.extend(target.addresses.into_iter().take(RACED));
                    rig.done(attempt, DialOutcome::ConnectFailed);
                }
                Out::Resolve { attempt, .. } => rig.resolved(attempt, None),
                _ => {}
            }
        }
        rig.pass(secs(120));
    }
    assert_eq!(tried.len(), 5);
}

#[test]
fn static_peers_take_no_more_than_their_places_and_the_others_come_when_one_is_free() {
    let mut rig = Rig::stopped(Config { max_static_peers: 2, ..statics_only() }, 7);
    for n in 1..=4 {
        rig.tell(In::AddStatic(named(n)));
    }
    rig.up(4, false);
    rig.tell(In::Start);
    let number = |id: NodeId| (1..=4).find(|n| node(*n) == id).expect("one of them");
    let mut dialled = std::collections::BTreeSet::new();
    let mut dial = |rig: &mut Rig| {
        let dials = rig.dials();
        assert_eq!(dials.len(), 1, "one is connected");
        dialled.insert(number(dials[0].1.id));
        (dials[0].0, number(dials[0].1.id))
    };
    let mut last = dial(&mut rig);
    // Each that fails makes room for the next.
    for _ in 0..2 {
        rig.done(last.0, DialOutcome::ConnectFailed);
        rig.resolve_of(last.1);
        rig.resolved(last.0, None);
        last = dial(&mut rig);
    }
    rig.connect(last.0, last.1);
    rig.pass(secs(3_600));
    assert_eq!(rig.dials(), [], "both places are taken");
    // One that comes by itself is about to take the place.
    rig.down(4, false, STABLE);
    let (attempt, _) = dial(&mut rig);
    rig.done(attempt, REFUSED);
    dial(&mut rig);
    assert!(dialled.len() >= 3, "{dialled:?}");
}

#[test]
fn no_static_peer_is_dialled_for_a_place_that_another_is_coming_for() {
    let mut rig = Rig::stopped(Config { max_static_peers: 1, ..statics_only() }, 7);
    rig.tell(In::AddStatic(named(1)));
    rig.tell(In::AddStatic(named(2)));
    rig.tell(In::InboundPending(node(2)));
    rig.tell(In::Start);
    assert_eq!(rig.dials(), []);
    rig.tell(In::InboundDone(node(2)));
    assert_eq!(rig.dials().len(), 1);
}

#[test]
fn a_static_peer_that_was_of_no_use_comes_back_with_its_own_back_off() {
    let mut rig = Rig::new(statics_only());
    rig.tell(In::AddStatic(named(1)));
    let attempt = rig.dial_of(1);
    rig.connect(attempt, 1);
    rig.pass(secs(130));
    rig.ended(1, true, secs(130), Consequence::Avoid);
    rig.pass(secs(59));
    assert_eq!(rig.dials(), [], "the longest static back-off is two minutes, at least half of it");
    rig.pass(secs(61));
    rig.dial_of(1);
}
